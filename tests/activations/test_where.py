"""`where=` of every kind, and results as the condition of other queries.

Implements "`where`" of design section 7, as far as activations go.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from activation_cases import Case, Shape, built, check_ranking
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
import oracle

CASE = Case("gaussian", "float32", (5,), 90, 6, (31,), (Shape(3, 2, 16, 4096),), 256, 0)


@settings(max_examples=30)
@given(data=st.data())
def test_a_result_restricts_the_next_query(data: st.DataObject) -> None:
    with built(CASE) as b:
        k = data.draw(st.sampled_from([1, 7, 40, 200]))
        first = b.layer.highest([0, 1], k)
        second = b.layer.nearest(4, [2, 3], 10, where=first)
        distances = [oracle.distance([r[2], r[3]], [b.rows[4][2], b.rows[4][3]], "l2") for r in b.rows]
        check_ranking(second, oracle.rank(distances, first.ids.tolist(), 10, largest=False))
        third = b.layer.filter(b.layer[4] > 0, where=second, limit=3)
        assert third.ids.tolist() == oracle.filtered([r[4] > 0 for r in b.rows], second.ids.tolist(), 3)
        assert second.verify()
        assert third.verify()


def test_every_spelling_of_the_same_inputs_gives_the_same_answer() -> None:
    with built(CASE) as b:
        mask = np.zeros(90, bool)
        mask[[3, 50, 51, 89]] = True
        spellings = [
            mask,
            mask.tolist(),
            np.flatnonzero(mask),
            [89, 3, 51, 50, 3],
            (3, 50, 51, 89),
            lambda ids: mask[ids],
        ]
        spellings.append(b.layer.filter(b.layer[0] > -100, where=mask))
        results = [b.layer.highest([0, 2], 3, where=where) for where in spellings]
        assert all(result == results[0] for result in results)
        assert all(result.stats.candidates == 4 for result in results)


def test_a_callable_is_given_every_id_once() -> None:
    with built(CASE) as b:
        seen = []
        b.layer.highest(0, 3, where=lambda ids: seen.append(ids) or ids >= 80)
        assert len(seen) == 1
        assert seen[0].dtype == np.int64
        assert seen[0].tolist() == list(range(90))


def test_an_expression_over_neurons_belongs_into_filter() -> None:
    with built(CASE) as b, pytest.raises(TypeError, match="got the expression") as caught:
        b.layer.highest(0, 3, where=(b.layer[1] > 2) & (nadb.column("lab") == 4))
    assert "give the expression to filter" in str(caught.value)
    assert "db.inputs" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("label = 4", TypeError, ["text", "where=db.inputs['label'] == 4"]),
        (nadb.column("lab") == 4, TypeError, ["got the expression", "write where=db.inputs['lab'] == 4", "filter"]),
        (np.ones(89, bool), ValueError, ["(90,)", "(89,)"]),
        ([0, 90], IndexError, ["[0, 90)", "90", "position 1"]),
        ([-1], IndexError, ["[0, 90)", "-1"]),
        ([1.5], TypeError, ["float64"]),
        (np.zeros((2, 2), int), TypeError, ["(2, 2)"]),
        (lambda ids: ids, TypeError, ["bools", "int64"]),
        (lambda ids: ids[:3] > 0, TypeError, ["(90,)", "(3,)"]),
        (3.0, TypeError, ["float"]),
    ],
)
def test_a_bad_where_says_what_was_expected(where: object, error: type[Exception], words: list[str]) -> None:
    with built(CASE) as b, pytest.raises(error) as caught:
        b.layer.highest(0, 3, where=where)
    assert isinstance(caught.value, nadb.Error)
    assert "where" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_result_of_another_database_is_refused(tmp_path: Path) -> None:
    with built(CASE) as b, nadb.open(tmp_path / "other.nadb") as other:
        layer = other.index_arrays("layer", CASE.array)
        with pytest.raises(ValueError, match="another database"):
            b.layer.highest(0, 3, where=layer.highest(0, 3))
        with pytest.raises(ValueError, match="another database"):
            b.db.filter(layer[0] > 1)
        with pytest.raises(ValueError, match="one database"):
            b.layer[0] - layer[0]
