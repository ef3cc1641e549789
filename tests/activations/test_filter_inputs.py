"""`filter` and `top_k(expression)` against brute force: several layers and columns, NULLs, Kleene logic, limits.

Implements the promise of design section 3 for filters and section 5's expressions over inputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from activation_cases import Case, Function, Shape, built, cases, check_ranking, forced, ks, numbers, restrictions
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.inputs import Inputs

Pair = tuple[Any, oracle.Formula]


class Leaves:
    """What expressions of one example are made of: two layers and columns, each with its plain twin."""

    def __init__(
        self,
        case: Case,
        db: nadb.Database,
        layers: dict[str, Any],
        rows: dict[str, oracle.Rows],
        columns: dict[str, list[Any]],
    ) -> None:
        self.case, self.db, self.layers, self.rows, self.columns = case, db, layers, rows, columns

    def number(self, draw: st.DrawFn, depth: int) -> Pair:
        """An expression with a number for a value."""
        kind = draw(st.sampled_from(["neuron", "neuron", "score", "distance", "constant", "column"] + ["op"] * depth))
        if kind == "op":
            op = draw(st.sampled_from("+-*/"))
            (a, fa), (b, fb) = self.number(draw, depth - 1), self.number(draw, depth - 1)
            if isinstance(a, float) and isinstance(b, float):
                return self.number(draw, 0)
            built_ = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[op]()
            return built_, oracle.arithmetic(op, fa, fb)
        if kind == "constant":
            value = draw(numbers(self.case))
            return value, lambda i: value
        if kind == "column":
            values = self.columns["weight"]
            return nadb.column("weight"), lambda i: values[i]
        name = draw(st.sampled_from(sorted(self.layers)))
        layer, rows = self.layers[name], self.rows[name]
        m = len(rows[0])
        if kind == "neuron":
            j = draw(st.integers(0, m - 1))
            return layer[j], lambda i: rows[i][j]
        group = draw(st.lists(st.integers(0, m - 1), min_size=1, max_size=4, unique=True))
        if kind == "score":
            how = draw(st.sampled_from(["sum", "mean", "min", "max", "l2"]))
            return layer.score(group, how), lambda i: oracle.group_score([rows[i][j] for j in group], how)
        target = [rows[0][j] for j in group]
        how = draw(st.sampled_from(["l1", "l2", "linf", "cosine"]))
        return layer.distance(0, group, how), lambda i: oracle.distance([rows[i][j] for j in group], target, how)

    def truth(self, draw: st.DrawFn, depth: int) -> Pair:
        """A condition."""
        kind = draw(st.sampled_from(["compare"] * 3 + ["text", "flag"] + ["and", "or", "not"] * depth))
        if kind == "not":
            a, fa = self.truth(draw, depth - 1)
            return ~a, oracle.negated(fa)
        if kind in ("and", "or"):
            (a, fa), (b, fb) = self.truth(draw, depth - 1), self.truth(draw, depth - 1)
            return (a & b, oracle.joined("&", fa, fb)) if kind == "and" else (a | b, oracle.joined("|", fa, fb))
        op = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
        if kind == "flag":
            flags = self.columns["flag"]
            return nadb.column("flag") == True, lambda i: None if flags[i] is None else flags[i] is True  # noqa: E712
        if kind == "text":
            names = self.columns["name"]
            value = draw(st.sampled_from(["a", "b", "zz"]))
            return _compared(op, nadb.column("name"), value), oracle.compared(op, lambda i: names[i], lambda i: value)
        (a, fa), (b, fb) = self.number(draw, 1), self.number(draw, 0)
        if isinstance(a, float):
            a, fa = self.layers["a"][0], lambda i: self.rows["a"][i][0]
        return _compared(op, a, b), oracle.compared(op, fa, fb)


def _compared(op: str, a: Any, b: Any) -> Any:
    return {"<": a.__lt__, "<=": a.__le__, ">": a.__gt__, ">=": a.__ge__, "==": a.__eq__, "!=": a.__ne__}[op](b)


class _TwoLayers:
    """A case's database with a second layer, cut elsewhere, and columns with NULLs."""

    def __init__(self, case: Case) -> None:
        self._context = built(case, key="a")
        self._case = case

    def __enter__(self) -> tuple[Any, Leaves]:
        case = self._case
        b = self._context.__enter__()
        other = replace(case, kind="few_values", dtype="float32", shape=(2,), seed=case.seed + 1)
        function = Function(other.array)
        shapes = case.shapes[1:] or (Shape(2, 1, 5, 64),)
        with forced(tuple(c + 1 for c in case.cuts), shapes, 5):
            layer = b.db.index_function("b", function, case.n, 2, fingerprint="v1", storage=0.5)
        rng = np.random.default_rng(case.seed)
        columns: dict[str, list[Any]] = {
            "weight": [None if v > 3 else float(v) for v in rng.integers(-2, 5, case.n)],
            "name": [["a", "b", None][v] for v in rng.integers(0, 3, case.n)],
            "flag": [[True, False, None][v] for v in rng.integers(0, 3, case.n)],
        }
        held = {name: np.array(values, dtype=object) for name, values in columns.items() if name != "weight"}
        held["weight"] = np.array(columns["weight"], dtype=np.float64)  # None becomes NaN, as a table gives it back
        b.db._session._inputs = ((), Inputs(held, None))  # as `set_inputs` would, without a table on disk per example
        rows = {"a": b.rows, "b": oracle.plain_rows(other.array)}
        return b, Leaves(case, b.db, {"a": b.layer, "b": layer}, rows, columns)

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


@settings(max_examples=100)
@given(case=cases(max_inputs=40), data=st.data())
def test_filter_equals_brute_force(case: Case, data: st.DataObject) -> None:
    with _TwoLayers(case) as (b, leaves):
        for _ in range(3):
            condition, formula = leaves.truth(data.draw, 2)
            where, allowed = data.draw(restrictions(case.n), label="where")
            limit = data.draw(st.sampled_from([None, 1, 3, 100]), label="limit")
            result = b.db.filter(condition, where=where, limit=limit)
            truths = [formula(i) for i in range(case.n)]
            assert result.ids.tolist() == oracle.filtered(truths, allowed, limit), repr(condition)
            assert result.exact
            assert result.verify()


@settings(max_examples=60)
@given(case=cases(max_inputs=40), data=st.data())
def test_scores_of_a_filter_are_exact_where_they_are_given(case: Case, data: st.DataObject) -> None:
    with _TwoLayers(case) as (b, leaves):
        expression, formula = leaves.number(data.draw, 1)
        if isinstance(expression, float):
            return
        op, bound = data.draw(st.sampled_from(["<", "<=", ">", ">="])), data.draw(numbers(case))
        result = b.db.filter(_compared(op, expression, bound))
        assert result.ids.tolist() == oracle.filtered(
            [oracle.compared(op, formula, lambda i: bound)(i) for i in range(case.n)], range(case.n), None
        )
        assert result.scores is not None
        for i, score in zip(result.ids.tolist(), result.scores.tolist(), strict=True):
            assert np.isnan(score) or score == formula(i)
        both = b.db.filter(_compared(op, expression, bound) & (b.layer[0] >= -1e30))
        assert both.scores is None


@settings(max_examples=100)
@given(case=cases(max_inputs=40), data=st.data())
def test_top_k_of_an_expression_equals_brute_force(case: Case, data: st.DataObject) -> None:
    with _TwoLayers(case) as (b, leaves):
        for _ in range(3):
            expression, formula = leaves.number(data.draw, 2)
            if isinstance(expression, float):
                continue
            where, allowed = data.draw(restrictions(case.n), label="where")
            k, largest = data.draw(ks, label="k"), data.draw(st.booleans(), label="largest")
            result = b.db.top_k(expression, k, largest=largest, where=where)
            check_ranking(result, oracle.rank([formula(i) for i in range(case.n)], allowed, k, largest=largest))
            assert result.verify()


def test_a_layers_own_filter_and_top_k_are_those_of_the_database() -> None:
    case = Case("gaussian", "float32", (4,), 120, 2, (50,), (Shape(3, 0, 16, 4096),), 256, 0)
    with built(case) as b:
        condition = (b.layer[0] > 0.5) & ~(b.layer[1] < b.layer[2])
        assert b.layer.filter(condition) == b.db.filter(condition)
        assert b.layer.top_k(b.layer[0] - b.layer[3], 7) == b.db.top_k(b.layer[0] - b.layer[3], 7)
        assert "db.activations['layer'].filter(" in b.layer.filter(condition).query


def test_a_limit_stops_before_later_inputs_are_evaluated() -> None:
    """Every row of a filter with a limit is the first there is, and what comes after the last one is not asked for."""
    case = Case("gaussian", "float32", (2,), 400, 4, (), (Shape(2, 0, 16, 4096),), 256, 0)
    with built(case) as b:
        everything = b.layer.filter(b.layer[0] > 0.1)
        b.function.forget()
        first = b.layer.filter(b.layer[0] > 0.1, limit=5)
        assert first.ids.tolist() == everything.ids[:5].tolist()
        assert max(b.function.asked, default=0) <= first.ids[-1]


def test_an_expression_of_columns_alone_needs_no_layer(db_path) -> None:
    with nadb.open(db_path) as db:
        db.set_inputs({"label": [3, 1, None, 3], "name": ["x", "y", None, "z"]})
        assert db.filter(nadb.column("label") == 3).ids.tolist() == [0, 3]
        assert db.top_k(nadb.column("label") * 2, 3).ids.tolist() == [0, 3, 1]
        assert db.filter(nadb.column("name") >= "y").ids.tolist() == [1, 3]


@pytest.mark.parametrize("bits", [1, 5, None])
def test_division_by_a_neuron_that_is_zero_is_null(bits: int | None) -> None:
    case = Case("one_hot", "float32", (3,), 60, 5, (), (Shape(bits, 0, 8, 4096),), 256, 0)
    with built(case) as b:
        result = b.db.top_k(b.layer[0] / b.layer[1], 60)
        expected = [None if r[1] == 0 else r[0] / r[1] for r in b.rows]
        check_ranking(result, oracle.rank(expected, range(60), 60, largest=True))
        assert b.db.filter(b.layer[0] / b.layer[1] >= -1).ids.tolist() == [
            i for i, e in enumerate(expected) if e is not None
        ]
