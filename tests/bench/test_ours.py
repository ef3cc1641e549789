"""The bench's adapter to this database: right answers, `must` by brute force, and work beyond it is caught."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from bench.activations.answers import Query, WrongAnswerError, check_answer, reference_scores
from bench.activations.measure import Entrant, lookup, measure_cells, pick
from bench.activations.nta import Nta
from bench.activations.nta_index import NtaIndex, sizes_for
from bench.activations.ours import index_values


@pytest.fixture
def workload():
    rows = np.maximum(np.random.default_rng(0).standard_normal((3_000, 12)).astype(np.float32), 0)
    columns = np.ascontiguousarray(rows.T)
    return SimpleNamespace(
        name="w", n_inputs=3_000, layers={"a": (12,)}, rows=lambda layer: rows, columns=lambda layer: columns
    )


def test_cells_of_ours_and_nta(workload, tmp_path):
    ours = index_values(workload, ["a"], 0.2, tmp_path / "db")
    nta = Nta(NtaIndex(workload.columns("a"), sizes_for(3_000, 0.2)), lookup(workload.columns("a")))
    entrants = [Entrant(ours), Entrant(nta, ties=False, at_most=1, largest_group=3)]
    records = measure_cells(workload, "a", entrants, sizes=(3, 5), n_queries=2)
    mine = pick(records, competitor=ours.name)
    assert len(mine) == 2 * 2 * 2 * 2
    assert all(r.must is not None and r.inputs_inferred <= r.must + 2 for r in mine)
    assert [r.size for r in pick(records, competitor=nta.name)] == [3] * 4
    assert ours.largest_tolerance == 0.0
    ours.close()


def test_must_is_what_the_bounds_leave_open(workload, tmp_path):
    ours = index_values(workload, ["a"], 0.2, tmp_path / "db")
    query = Query("highest", "SimTop", "a", 5, np.array([1, 7, 2]))
    scores = reference_scores(workload.columns("a")[query.group], query)
    answer = ours.answer(query)
    check_answer(answer, scores, query, name=ours.name)
    lower, upper = ours.bounds(query)
    assert (lower <= scores).all()
    assert (scores <= upper).all()
    kth = np.sort(scores)[-20]
    must = sum(1 for low, up in zip(lower, upper, strict=True) if low != up and up > kth)
    assert must > 0
    assert ours.must(query, scores) == (must, int(((lower != upper) & (upper == kth)).sum()))
    assert ours.check_work(query, answer, scores) == must
    with pytest.raises(
        WrongAnswerError, match=r"evaluated 3000 inputs for highest over 3 neurons of a, more than must"
    ):
        ours.check_work(query, replace(answer, inputs_inferred=3_000), scores)
    with pytest.raises(WrongAnswerError, match="input 9 scores"):
        ours.must(query, np.where(np.arange(3_000) == 9, upper + 1, scores))
    ours.close()


def test_a_wrong_competitor_is_not_timed(workload):
    class Liar:
        name = "liar"

        def answer(self, query):
            nta = Nta(NtaIndex(workload.columns("a"), sizes_for(3_000, 0.2)), lookup(workload.columns("a")))
            right = nta.answer(query)
            return replace(right, ids=(right.ids + 1) % 3_000)

    with pytest.raises(WrongAnswerError, match="liar is wrong on nearest"):
        measure_cells(workload, "a", [Entrant(Liar(), ties=False)], sizes=(3,), n_queries=1)
