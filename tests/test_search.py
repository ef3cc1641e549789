"""The driver of the bounded search over candidates of its own: how many are evaluated, and in which shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.limits import Limits
from neuralartifactdb.search import Outcome, Prediction, bounded_search


class Ties:
    """Candidates whose bounds are all the same: nothing tells them apart but evaluation."""

    unit = 4
    max_wave = 100  # no multiple of the larger shapes

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores = scores
        self.waves: list[int] = []
        self.priced: list[list[int]] = []

    def unit_after(self, evaluated: int) -> int:
        return max(self.unit, 1 << max(0, evaluated // 4).bit_length() >> 1)

    def affordable(self, ids: NDArray[np.int64], evaluated: int, allowed: int) -> int:
        return max(0, allowed - evaluated)

    def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[NDArray[np.int64], Intervals]]:
        n = len(self.scores)
        yield np.arange(n), Intervals(np.zeros(n), np.ones(n), None)

    def refine(self, ids: NDArray[np.int64]) -> Intervals:
        self.waves.append(len(ids))
        return Intervals(self.scores[ids], self.scores[ids], None)

    def seconds(self, waves: Sequence[int]) -> float:
        self.priced.append(list(waves))
        return float(sum(waves))


@pytest.mark.parametrize("n", [1, 3, 50, 777, 3_000])
def test_waves_grow_with_the_shape_and_stop_when_nothing_is_left(n: int) -> None:
    scores = np.random.default_rng(n).random(n)
    candidates = Ties(scores)
    found = bounded_search(candidates, k=5, largest=False)
    assert isinstance(found, Outcome)
    assert found.exact
    assert found.ids.tolist() == np.argsort(scores, kind="stable")[:5].tolist()
    assert sum(candidates.waves) == found.stats.evaluated == n  # every one might be the best
    evaluated = 0
    for wave in candidates.waves[:-1]:  # the last one has what is left
        assert wave % candidates.unit_after(evaluated) == 0
        evaluated += wave
    assert found.stats.unit == candidates.unit_after(evaluated)
    if n == 3_000:
        assert found.stats.unit == 512
        assert len(candidates.waves) == 30  # not 375 of the first one's size


@pytest.mark.parametrize("n", [1, 3, 50, 777, 3_000])
def test_a_prediction_knows_that_shapes_grow(n: int) -> None:
    """Every score is the middle of its interval, so the prediction is what happens."""
    planned, run = Ties(np.full(n, 0.5)), Ties(np.full(n, 0.5))
    plan = bounded_search(planned, k=5, largest=False, predict_only=True)
    found = bounded_search(run, k=5, largest=False)
    assert isinstance(plan, Prediction)
    assert isinstance(found, Outcome)
    assert planned.waves == []
    assert planned.priced[0] == run.waves
    assert (plan.evaluations, plan.waves) == (found.stats.evaluated, found.stats.waves)
    assert plan.seconds == n
    assert not plan.scan


def test_a_time_limit_counts_from_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("neuralartifactdb.search.time.perf_counter", lambda: clock[0])

    class Slow(Ties):
        def refine(self, ids: NDArray[np.int64]) -> Intervals:
            clock[0] += 1.0
            return super().refine(ids)

    for began, waves in ((None, 3), (99.0, 2), (97.0, 0), (90.0, 0)):
        clock[0], candidates, told = 100.0, Slow(np.full(3_000, 0.5)), []
        found = bounded_search(
            candidates, k=5, largest=False, limits=Limits(timeout_s=3), began=began, on_progress=told.append
        )
        assert isinstance(found, Outcome)
        assert len(candidates.waves) == waves
        assert "timeout_s=3" in found.guarantee
        assert told[-1].seconds == found.stats.seconds["total"] == clock[0] - (began or 100.0)
        assert found.stats.seconds["bounds"] == 0.0


@settings(max_examples=100, deadline=None)
@given(n=st.integers(101, 2_000), k=st.sampled_from([1, 7, 300]), width=st.sampled_from([0.01, 0.3, 2.0]))
def test_a_scan_evaluates_no_more_than_must_and_one_batch(n: int, k: int, width: float) -> None:
    rng = np.random.default_rng(n)
    scores = rng.random(n)
    lower, upper = scores - width * rng.random(n), scores + width * rng.random(n)

    class Scanned(Ties):
        def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[NDArray[np.int64], Intervals]]:
            yield np.arange(n), Intervals(lower, upper, None)

        def seconds(self, waves: Sequence[int]) -> float:
            self.priced.append(list(waves))
            return float(len(self.priced) == 1)  # the second prediction is that of one pass, for nothing

    candidates = Scanned(scores)
    found = bounded_search(candidates, k=k, largest=False)
    assert isinstance(found, Outcome)
    assert found.ids.tolist() == np.argsort(scores, kind="stable")[:k].tolist()
    must = int((lower < np.sort(scores)[min(k, n) - 1]).sum())
    assert found.stats.evaluated <= must + found.stats.unit
    if found.stats.scanned:
        assert found.stats.unit == candidates.max_wave
    if width == 2.0 and n >= 1_000:
        assert found.stats.scanned
