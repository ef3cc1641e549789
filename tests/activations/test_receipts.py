"""What a result says of itself: verification that can fail, work counters that add up, tables.

Implements `Result`, `stats` and `verify` of design section 7, for queries over activations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from activation_cases import Case, Shape, built, cases
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb

CASE = Case("gaussian", "float32", (4,), 200, 2, (90,), (Shape(3, 4, 16, 4096),), 256, 0)


def swapped(values: Any, i: int, j: int) -> np.ndarray:
    out = np.array(values)
    out[[i, j]] = out[[j, i]]
    return out


TAMPERED = {
    "two rows changed places": lambda r: replace(r, ids=swapped(r.ids, 0, 1), scores=swapped(r.scores, 0, 1)),
    "two ids changed places": lambda r: replace(r, ids=swapped(r.ids, 0, 1)),
    "another input": lambda r: replace(r, ids=np.append(r.ids[:-1], max(set(range(200)) - set(r.ids.tolist())))),
    "a row is missing": lambda r: replace(r, ids=r.ids[:-1], scores=r.scores[:-1]),
    "the first row is missing": lambda r: replace(r, ids=r.ids[1:], scores=r.scores[1:]),
    "a score is off by one bit": lambda r: replace(
        r, scores=np.append(np.nextafter(r.scores[0], np.inf), r.scores[1:])
    ),
    "a score is NULL": lambda r: replace(r, scores=np.append(np.nan, r.scores[1:])),
}


@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("query", ["highest", "nearest", "top_k"])
def test_a_result_that_was_tampered_with_does_not_verify(how: str, query: str) -> None:
    with built(CASE) as b:
        result = {
            "highest": lambda: b.layer.highest([0, 2], 8),
            "nearest": lambda: b.layer.nearest(3, None, 8, metric="cosine"),
            "top_k": lambda: b.layer.top_k(b.layer[0] * b.layer[1], 8, largest=False),
        }[query]()
        checked = result.verify()
        assert checked
        assert (checked.equal, checked.n_checked, checked.largest_difference) == (True, 200, 0.0)
        wrong = TAMPERED[how](result).verify()
        assert not wrong
        assert wrong.n_checked == 200
        if "score" in how:
            assert wrong.largest_difference > 0


@pytest.mark.parametrize("limit", [None, 6])
def test_a_filter_that_was_tampered_with_does_not_verify(limit: int | None) -> None:
    with built(CASE) as b:
        result = b.layer.filter(b.layer[0] > 0.5, limit=limit)
        assert result.verify()
        assert not replace(result, ids=result.ids[1:], scores=result.scores[1:]).verify()
        assert not replace(result, ids=result.ids[:-1], scores=result.scores[:-1]).verify()
        known = int(np.flatnonzero(~np.isnan(result.scores))[0])
        scores = result.scores.copy()
        scores[known] += 1e-9
        assert not replace(result, scores=scores).verify()


def test_a_sample_checks_the_rows_and_some_others() -> None:
    with built(CASE) as b:
        result = b.layer.highest([0, 2], 8)
        b.function.forget()
        checked = result.verify(sample=20)
        assert checked
        assert checked.n_checked == 28
        assert len(b.function.asked) == 28
        assert not TAMPERED["two rows changed places"](result).verify(sample=5)
        assert result.verify(sample=10_000).n_checked == 200
        with pytest.raises(ValueError, match="sample"):
            result.verify(sample=0)


@settings(max_examples=40)
@given(case=cases(max_inputs=40), k=st.sampled_from([1, 5]))
def test_the_work_counters_add_up(case: Case, k: int) -> None:
    with built(case) as b:
        result = b.layer.highest(0, k)
        stats = result.stats
        assert stats.kind == "activations"
        assert stats.evaluated == stats.inputs_inferred == len(b.function.asked)
        assert stats.masks_read == 0
        assert (stats.batches == 0) == (stats.evaluated == 0)
        assert stats.batches == b.function.calls
        assert stats.candidates == case.n
        assert stats.settled == stats.candidates - stats.evaluated
        assert set(stats.seconds) >= {"bounds", "total"}
        assert all(s >= 0 for s in stats.seconds.values())
        assert stats.seconds["total"] >= stats.seconds["bounds"]


def test_bytes_are_counted_once_while_the_cache_holds_them() -> None:
    with built(CASE) as b, nadb.open(b.db.path) as fresh:  # the first handle may have read some while it built
        fresh.attach_function("layer", b.function)
        layer = fresh.activations["layer"]
        first = layer.highest([0, 1, 2, 3], 5).stats.bytes_read
        assert 0 < first <= layer.nbytes
        assert layer.highest([0, 1, 2, 3], 5).stats.bytes_read == 0


def test_rows_know_their_attributes() -> None:
    pandas = pytest.importorskip("pandas")
    with built(CASE) as b:
        b.db.set_inputs({"label": np.arange(200) % 7, "score": np.arange(200.0)})
        result = b.layer.highest(0, 4)
        frame = result.to_pandas()
        assert list(frame.columns) == ["rank", "id", "input_id", "score", "label", "attribute_score"]
        assert frame["label"].tolist() == (result.ids % 7).tolist()
        assert frame["score"].tolist() == result.scores.tolist()
        assert isinstance(frame, pandas.DataFrame)
        rows = list(result)
        assert rows[0] == nadb.Row(int(result.ids[0]), int(result.ids[0]), float(result.scores[0]))
        table = result.to_arrow()
        assert table.column("id").to_pylist() == result.ids.tolist()


def test_the_text_of_a_query_asks_it_again() -> None:
    with built(CASE) as b:
        db = b.db
        assert db is not None
        layer = b.layer
        for result in (
            layer.highest([0, (2,)], 3, score="l2", largest=False),
            layer.nearest(5, [1, 2], 3, metric="linf", include_target=False),
            layer.nearest([1, 2], None, 3),
            layer.filter((layer[0] > 0.5) & ~(layer[1] < layer.score([2, 3], "mean")), limit=4),
            layer.top_k(layer[0] / (layer.distance(3, [0, 1], "l1") + 1), 3),
        ):
            assert eval(result.query, {"db": db, "nadb": nadb}) == result


def test_results_are_read_only_and_compare_by_rows() -> None:
    with built(CASE) as b:
        result = b.layer.highest(0, 3)
        with pytest.raises(ValueError):
            result.ids[0] = 1
        with pytest.raises(AttributeError):
            result.exact = False
        assert result == b.layer.highest(0, 3)
        assert result != b.layer.highest(0, 4)
