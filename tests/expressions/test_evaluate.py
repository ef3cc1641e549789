"""Bounds contain the exact value and points give it bit for bit, against a plain Python interpreter of the same
trees."""

from __future__ import annotations

import math
import operator
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb.errors import DtypeError, InvalidValueError, UnknownNameError
from neuralartifactdb.expressions import Column, Expression, Intervals, Leaf, Texts, column, evaluate
from neuralartifactdb.expressions.tree import Arithmetic, Comparison, Constant, Logic, Negation, Not

PYTHON = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Neuron(Leaf):
    index: int

    @property
    def key(self):
        return self.index

    def describe(self):
        return f"layer[{self.index}]"


def oracle(node: Expression, values: dict[int, float | None]) -> float | bool | None:
    """Python floats and None, one candidate, no interval anywhere."""
    if isinstance(node, Neuron):
        return values[node.index]
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Not):
        value = oracle(node.operand, values)
        return None if value is None else not value
    if isinstance(node, Negation):
        value = oracle(node.operand, values)
        return None if value is None else -value
    left, right = oracle(node.left, values), oracle(node.right, values)
    if isinstance(node, Logic):
        decisive = node.op == "|"
        if decisive in ((left, right) if None in (left, right) else (bool(left), bool(right))):
            return decisive
        return None if None in (left, right) else not decisive
    if left is None or right is None:
        return None
    if node.op == "/":
        result = None if right == 0 else left / right
    else:
        result = PYTHON[node.op](left, right)
    return None if isinstance(result, float) and math.isnan(result) else result


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 3.0, 5e-324, -5e-324, 1e308, -1e308, math.inf, -math.inf]),
    st.floats(allow_nan=False, width=32),
    st.floats(allow_nan=False),
)


def numeric(depth: int) -> st.SearchStrategy[Expression]:
    leaf = st.one_of(st.integers(0, 3).map(Neuron), NUMBERS.map(Constant))
    if not depth:
        return leaf
    inner = numeric(depth - 1)
    return st.one_of(leaf, st.builds(Arithmetic, st.sampled_from("+-*/"), inner, inner), st.builds(Negation, inner))


def condition(depth: int) -> st.SearchStrategy[Expression]:
    test = st.builds(Comparison, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numeric(1), numeric(1))
    if not depth:
        return test
    inner = condition(depth - 1)
    return st.one_of(test, st.builds(Logic, st.sampled_from("&|"), inner, inner), st.builds(Not, inner))


@st.composite
def interval_and_value(draw) -> tuple[tuple[float, float, bool], float | None]:
    """An interval a leaf could have and a value in it: points, ties at the ends, NULLs, unbounded."""
    lower, value, upper = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    kind = draw(st.sampled_from(["open", "open", "point", "at lower", "at upper", "maybe", "null", "maybe null"]))
    if kind == "point":
        return (value, value, False), value
    if kind == "at lower":
        return (lower, upper, False), lower
    if kind == "at upper":
        return (lower, upper, False), upper
    if kind == "null":
        return (math.nan, math.nan, True), None
    return (lower, upper, kind.startswith("maybe")), None if kind == "maybe null" else value


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def intervals(rows: list[tuple[float, float, bool]]) -> Intervals:
    lower, upper, null = (np.array(column) for column in zip(*rows, strict=True))
    return Intervals(lower, upper, null)


CANDIDATES = st.lists(st.lists(interval_and_value(), min_size=4, max_size=4), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.one_of(numeric(3), condition(2)), CANDIDATES)
def test_bounds_contain_and_points_are_exact(tree, candidates):
    n = len(candidates)
    bounds, points = {}, {}
    for index in range(4):
        rows = [candidate[index] for candidate in candidates]
        bounds[index] = intervals([r[0] for r in rows])
        exact = np.array([math.nan if r[1] is None else r[1] for r in rows])
        points[index] = Intervals.points(exact)
    got, exact = evaluate(tree, bounds, n=n), evaluate(tree, points, n=n)
    split = evaluate(tree, {k: Intervals(v.lower, v.upper.copy(), v.may_be_null) for k, v in points.items()}, n=n)
    assert len(got) == len(exact) == n
    for i, candidate in enumerate(candidates):
        want = oracle(tree, {index: candidate[index][1] for index in range(4)})
        maybe_null = got.may_be_null is not None and got.may_be_null[i]
        assert not (got.lower[i] > got.upper[i])
        assert math.isnan(got.lower[i]) == math.isnan(got.upper[i])
        assert maybe_null or not math.isnan(got.lower[i])
        assert exact.is_exact[i]
        assert split.is_exact[i]
        if want is None:
            assert maybe_null
            assert math.isnan(exact.lower[i])
            assert exact.may_be_null is not None
            assert exact.may_be_null[i]
            assert math.isnan(split.lower[i])
            assert split.may_be_null is not None
            assert split.may_be_null[i]
        else:
            assert got.lower[i] <= want <= got.upper[i]
            if isinstance(tree, Comparison | Logic | Not):
                assert got.lower[i] in (0.0, 1.0)
                assert got.upper[i] in (0.0, 1.0)
            assert bits(exact.lower[i]) == bits(float(want)) == bits(exact.upper[i])
            assert exact.may_be_null is None or not exact.may_be_null[i]
            assert split.lower[i] == want == split.upper[i]
            assert split.may_be_null is None or not split.may_be_null[i]


def one(lower: float, upper: float, null: bool = False) -> Intervals:
    return intervals([(lower, upper, null)])


def ends(tree: Expression, *leaves: Intervals) -> tuple[float, float, bool]:
    got = evaluate(tree, dict(enumerate(leaves)))
    return float(got.lower[0]), float(got.upper[0]), got.may_be_null is not None and bool(got.may_be_null[0])


A, B = Neuron(0), Neuron(1)
INF = math.inf


@pytest.mark.parametrize(
    ("tree", "a", "b", "want"),
    [
        (A + B, (1, 2), (10, 20), (11, 22, False)),
        (A - B, (1, 2), (10, 20), (-19, -8, False)),
        (A * B, (-1, 2), (-10, 20), (-20, 40, False)),
        (A / B, (1, 2), (2, 4), (0.25, 1, False)),
        (A / B, (1, 2), (-4, -2), (-1, -0.25, False)),
        (A / B, (1, 2), (0, 4), (0.25, INF, True)),  # half a line: the ratio of non-negative counts keeps a lower bound
        (A / B, (1, 2), (-4, 0), (-INF, -0.25, True)),
        (A / B, (0, 2), (0, 4), (0, INF, True)),
        (A / B, (1, 2), (-1, 1), (-INF, INF, True)),
        (A * B, (0, 1), (0, INF), (-INF, INF, True)),
        (A < B, (1, 2), (2, 3), (0, 1, False)),
        (A < B, (1, 2), (3, 3), (1, 1, False)),
        (A <= B, (1, 2), (2, 3), (1, 1, False)),
        (A >= B, (1, 2), (3, 4), (0, 0, False)),
        (A == B, (1, 2), (2, 2), (0, 1, False)),
        (A == B, (2, 2), (2, 2), (1, 1, False)),
        (A == B, (1, 2), (3, 4), (0, 0, False)),
        (A != B, (1, 2), (3, 4), (1, 1, False)),
        (A != B, (0.0, 0.0), (-0.0, -0.0), (0, 0, False)),
    ],
)  # fmt: skip
def test_intervals_are_tight(tree, a, b, want):
    assert ends(tree, one(*a), one(*b)) == want


def test_zero_divisor_is_null_whatever_the_dividend():
    lower, upper, null = ends(A / B, one(1, 2), one(0.0, 0.0))
    assert math.isnan(lower)
    assert math.isnan(upper)
    assert null
    lower, upper, null = ends(A / B, one(-INF, INF), one(-0.0, 0.0))
    assert math.isnan(lower)
    assert null


@pytest.mark.parametrize("a", [(0, 0), (1, 1), (0, 1), None])
@pytest.mark.parametrize("b", [(0, 0), (1, 1), (0, 1), None])
def test_kleene_is_exactly_the_possible_outcomes(a, b):
    """The sets of outcomes of & and | are those of all pairs, no more and no fewer."""

    def outcomes(x):
        return {None} if x is None else {bool(v) for v in x}

    def as_set(x):
        lower, upper, null = x
        return ({None} if null else set()) | (set() if math.isnan(lower) else {bool(lower), bool(upper)})

    truth = {0: A > 0, 1: B > 0}
    leaf = [one(math.nan, math.nan, True) if x is None else one(*x) for x in (a, b)]
    for tree, rule in ((truth[0] & truth[1], "&"), (truth[0] | truth[1], "|")):
        want = {
            oracle(Logic(rule, A > 0, B > 0), {0: None if x is None else float(x), 1: None if y is None else float(y)})
            for x in outcomes(a)
            for y in outcomes(b)
        }
        assert as_set(ends(tree, *leaf)) == want


def test_a_wide_and_deep_sum_needs_no_recursion_and_is_left_to_right():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(5_000, 3)) * 10.0 ** rng.integers(-8, 8, size=(5_000, 1))
    tree = sum((Neuron(i) for i in range(5_000)), start=Constant(0.0))
    got = evaluate(tree, {i: Intervals.points(row) for i, row in enumerate(values)})
    want = np.zeros(3)
    for row in values:
        want = want + row
    assert got.lower.tolist() == want.tolist()


def test_a_shared_subtree_is_evaluated_once():
    tree: Expression = A
    for _ in range(80):  # 2**80 paths
        tree = tree + tree
    assert evaluate(tree, {0: Intervals.points([1.0])}).lower[0] == 2.0**80


def test_columns_of_text_numbers_and_truth():
    leaf = {
        Column("name").key: Texts(np.array(["cat", None, "dog", ""], dtype=object)),
        Column("label").key: Intervals.points(np.array([1, 2, 3, 4]), [False, False, False, True]),
        Column("test").key: Intervals.points(np.array([True, True, False, True])),
    }
    truth = evaluate((column("name") != "cat") & (column("label") > 1), leaf)
    assert truth.lower[[0, 2]].tolist() == [0.0, 1.0]
    assert np.isnan(truth.lower[[1, 3]]).all()
    assert evaluate(column("test") & ~(column("label") == 1), leaf).lower[:3].tolist() == [0.0, 1.0, 0.0]
    assert evaluate(column("name") < "d", leaf).lower[[0, 2, 3]].tolist() == [1.0, 0.0, 1.0]
    assert evaluate("d" > column("name"), leaf).lower[[0, 2, 3]].tolist() == [1.0, 0.0, 1.0]  # noqa: SIM300
    assert evaluate(column("name") == column("name"), leaf).lower[[0, 2, 3]].tolist() == [1.0, 1.0, 1.0]
    assert evaluate(True & (column("label") == 1), leaf).lower[:3].tolist() == [1.0, 0.0, 0.0]
    for wrong, needle in (
        (column("name") + 1, "text nadb.column\\('name'\\)"),
        (column("name") > 1, "quote the value"),
        (column("label") == "1", "quote the value"),
        (column("label") & column("test"), "holds 2.0 at position 1"),
        (~column("name"), "holds text"),
        (column("name"), "must give a number"),
    ):
        with pytest.raises(DtypeError, match=needle):
            evaluate(wrong, leaf)


def test_leaves_that_are_missing_or_of_other_length():
    with pytest.raises(UnknownNameError, match=r"layer\[1\].*there are: 0"):
        evaluate(A + B, {0: one(1, 2)})
    with pytest.raises(InvalidValueError, match="one length, got 2"):
        evaluate(A + B, {0: one(1, 2), 1: Intervals.points([1.0, 2.0])})
    with pytest.raises(InvalidValueError, match="`n` is needed"):
        evaluate(Constant(1.0) < Constant(2.0), {})
    assert evaluate(Constant(1.0) < Constant(2.0), {}, n=3).lower.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("tree", [A + B, A / B, (A > 1) & ~(B < 2), A * 2 != B])
def test_no_candidates(tree):
    empty = Intervals.points(np.zeros(0))
    assert len(evaluate(tree, {0: empty, 1: empty})) == 0


def test_inputs_are_not_written_to():
    arrays = [np.array([1.0, -2.0]), np.array([3.0, -1.0])]
    for array in arrays:
        array.setflags(write=False)
    evaluate(-(A / B) * 2 + A, {0: Intervals(*arrays), 1: Intervals(*arrays)})


@pytest.mark.parametrize(
    ("make", "error", "needle"),
    [
        (lambda: Intervals.points([2**53 + 1]), InvalidValueError, "9007199254740993 at position 0"),
        (lambda: Intervals.points(["a"]), DtypeError, "<U1"),
        (lambda: Intervals.points([[1.0]]), InvalidValueError, r"\(1, 1\)"),
        (lambda: Intervals.points([1.0], [True, False]), InvalidValueError, r"\(2,\)"),
        (lambda: Texts(np.array([1, 2])), DtypeError, "int64"),
        (lambda: Texts(np.array(["a", 3], dtype=object)), DtypeError, r"3 \(int\) at position 1"),
        (lambda: Intervals.points([1.0, 2.0]).broadcast(3), InvalidValueError, "of 3 candidates, got 2"),
    ],
)
def test_bad_intervals(make, error, needle):
    with pytest.raises(error, match=needle):
        make()


def test_large_integers_that_float64_holds_are_taken():
    assert Intervals.points(np.array([2**60, -(2**53)], dtype=np.int64)).lower.tolist() == [2.0**60, -(2.0**53)]
    assert Intervals.points(np.array([2**64 - 2**11], dtype=np.uint64)).lower.tolist() == [float(2**64 - 2**11)]


@pytest.mark.parametrize("which", [slice(1, 3), np.array([2, 0])])
def test_take(which):
    values = np.array([1.0, np.nan, 3.0])
    points = Intervals.points(values).take(which)
    assert points.upper is points.lower
    assert np.array_equal(points.lower, values[which], equal_nan=True)
    assert points.may_be_null.tolist() == np.isnan(values[which]).tolist()
    wide = Intervals(np.zeros(3), values).take(which)
    assert wide.may_be_null is None
    assert np.array_equal(wide.upper, values[which], equal_nan=True)
    texts = Texts(np.array(["a", None, "c"], dtype=object)).take(which)
    assert texts.values.tolist() == np.array(["a", "", "c"])[which].tolist()
    assert texts.is_null.tolist() == np.array([False, True, False])[which].tolist()
