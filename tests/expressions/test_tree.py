"""Trees: what operators build, what they refuse, and source that builds the same tree again."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuralartifactdb.expressions as nadb
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions import Condition, Expression, Leaf, column, leaves, scored, source
from neuralartifactdb.expressions.tree import Arithmetic, Comparison, Constant, Logic, Negation, Not


@dataclass(frozen=True, eq=False, repr=False)
class Neuron(Leaf):
    index: int
    token: str | None = None

    @property
    def key(self):
        return (self.token, self.index)

    @property
    def database_token(self):
        return self.token

    def describe(self):
        return f"layer[{self.index}]"


class Layer:
    def __getitem__(self, index):
        return Neuron(index)


layer = Layer()


def shape(node: Expression):
    """A tree as nested tuples, for comparing two of them."""
    own = next((getattr(node, name) for name in ("op", "value", "index", "name") if hasattr(node, name)), "")
    return (type(node).__name__, own, *map(shape, node.children))


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (layer[3] + 2, "layer[3] + 2"),
        (2 - layer[3], "2 - layer[3]"),
        (2 / layer[3] * 0.5, "2 / layer[3] * 0.5"),
        (layer[1] - (layer[2] - layer[3]), "layer[1] - (layer[2] - layer[3])"),
        (-(layer[1] + 1) * -2.0, "-(layer[1] + 1) * -2.0"),
        (2 < layer[1], "layer[1] > 2"),  # noqa: SIM300
        ((layer[1] > 1) & (layer[2] <= 2) | ~(layer[3] == 3), "(layer[1] > 1) & (layer[2] <= 2) | ~(layer[3] == 3)"),
        (column("la'bel") != "x\n", "nadb.column(\"la'bel\") != 'x\\n'"),
        (layer[1] < math.inf, "layer[1] < float('inf')"),
        (np.float64(2.0) * layer[1] + np.float32(0.1), "2.0 * layer[1] + 0.10000000149011612"),
        (np.int64(3) <= layer[1], "layer[1] >= 3"),
        (column("flag") == np.bool_(True), "nadb.column('flag') == True"),
        (+layer[1], "layer[1]"),
    ],
)
def test_repr_is_source(tree, text):
    assert repr(tree) == text
    assert shape(eval(text, {"layer": layer, "nadb": nadb})) == shape(tree)


def trees() -> st.SearchStrategy[Expression]:
    numbers = st.one_of(st.integers(-9, 9), st.floats(allow_nan=False), st.booleans()).map(Constant)
    leaf = st.one_of(st.integers(0, 9).map(Neuron), st.text(min_size=1).map(nadb.Column))
    # Two constants in a row are computed by Python itself, and a comparison with a constant on the left is turned
    # round, so both are left out: they give another tree of the same value.
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(Arithmetic, st.sampled_from("+-*/"), inner, numbers),
            st.builds(Arithmetic, st.sampled_from("+-*/"), numbers, inner),
            st.builds(Arithmetic, st.sampled_from("+-*/"), inner, inner),
            st.builds(Negation, inner),
        ),
        max_leaves=8,
    )


@given(trees(), trees(), trees(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.sampled_from("&|"))
def test_source_round_trips(a, b, c, comparison, logic):
    left, right = Comparison(comparison, a, b), Not(Comparison("<", b, c))
    for tree in (a, left, Logic(logic, left, right), Logic("&", left, Logic(logic, right, left)), Not(left)):
        assert shape(eval(source(tree), {"layer": layer, "nadb": nadb})) == shape(tree)


def test_python_truth_is_refused():
    x = layer[1] > 1
    for use in (
        lambda: x and x,
        lambda: x or x,
        lambda: not x,
        lambda: 1 < layer[1] < 2,
        lambda: layer[1] in [layer[2]],
    ):
        with pytest.raises(DtypeError, match=r"write \(a > 1\) & \(b < 2\)"):
            use()


def test_missing_parentheses_are_explained():
    with pytest.raises(DtypeError, match="bind tighter than comparisons"):
        _ = layer[1] > 2 & layer[2]


@pytest.mark.parametrize(
    "build",
    [
        lambda: layer[1] + "a",
        lambda: layer[1] + (layer[2] > 1),
        lambda: -(layer[2] > 1),
        lambda: layer[1] & (layer[2] > 1),
        lambda: ~layer[1],
        lambda: (layer[1] > 1) == (layer[2] > 1),
        lambda: layer[1] == "a",
        lambda: layer[1] == None,  # noqa: E711
        lambda: layer[1] * np.array([1.0, 2.0]),
        lambda: np.array([1.0, 2.0]) * layer[1],
        lambda: layer[1] + 1j,
        lambda: layer[1] + [1],
        lambda: column(3),
    ],
)
def test_wrong_types(build):
    with pytest.raises(DtypeError):
        build()


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), 2**53 + 1, 10**400])
def test_constants_that_float64_cannot_hold(value):
    with pytest.raises(InvalidValueError, match="got"):
        _ = layer[1] > value


def test_empty_column_name():
    with pytest.raises(InvalidValueError, match="must not be empty"):
        column("")


def test_two_databases_are_refused():
    a, b = Neuron(1, "a.nadb"), Neuron(1, "b.nadb")
    with pytest.raises(InvalidValueError, match=r"a\.nadb.*b\.nadb"):
        (a + 1) / (-b)
    with pytest.raises(InvalidValueError, match="one database"):
        ~(a > 1) & (b > 1)
    assert ((column("label") > 1) & (a > -a * 2)).database_token == "a.nadb"
    assert (column("label") > 1).database_token is None


def test_leaves_in_first_seen_order_once_by_key():
    tree = (layer[3] + column("b") > layer[1]) & (layer[3] < 2) | (column("a") == "x")
    assert [repr(leaf) for leaf in leaves(tree)] == ["layer[3]", "nadb.column('b')", "layer[1]", "nadb.column('a')"]


def test_deep_and_shared_trees():
    deep: Expression = layer[0]
    for _ in range(20_000):
        deep = deep + 1
    assert len(leaves(deep)) == 1
    assert source(deep).startswith("layer[0] + 1 + 1")
    shared: Expression = layer[0]
    for _ in range(80):
        shared = shared * shared
    assert len(leaves(shared)) == 1
    assert source(shared).endswith(" ...")


def test_identity_hash_and_frozen():
    x = layer[1]
    assert len({x, x, layer[1]}) == 2
    assert isinstance(x == layer[1], Condition)
    with pytest.raises(FrozenInstanceError):
        (x + 1).op = "-"
    tree = (x + 1 > 2) & (column("a") == "b")
    for twin in (copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
        assert shape(twin) == shape(tree)


def test_what_a_filter_scores():
    x = layer[1]
    assert scored(x > 2) is x
    assert scored(Comparison("<", Constant(2), x)) is x
    assert scored(x > layer[2]) is None
    assert scored(column("a") == "b") is None
    assert scored((x > 1) & (x < 2)) is None
    assert scored(x) is None


def test_kinds():
    assert (layer[1] > 1).is_condition
    assert not layer[1].is_condition
    assert column("a").is_condition
    assert (column("a") & True).is_condition
