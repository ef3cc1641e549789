"""The driver of the bounded search over candidates of its own: how many are evaluated, and in which shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.search import Outcome, bounded_search


class Ties:
    """Candidates whose bounds are all the same: nothing tells them apart but evaluation."""

    unit = 4
    max_wave = 100  # no multiple of the larger shapes

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores = scores
        self.waves: list[int] = []

    def unit_after(self, evaluated: int) -> int:
        return max(self.unit, 1 << max(0, evaluated // 4).bit_length() >> 1)

    def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[NDArray[np.int64], Intervals]]:
        n = len(self.scores)
        yield np.arange(n), Intervals(np.zeros(n), np.ones(n), None)

    def refine(self, ids: NDArray[np.int64]) -> Intervals:
        self.waves.append(len(ids))
        return Intervals(self.scores[ids], self.scores[ids], None)

    def seconds(self, n: int, *, sequential: bool) -> None:
        return None


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
