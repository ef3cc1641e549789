"""The queries of the MaskSearch paper, drawn by a fixed generator (issue 3, item 8).

`low` is uniform in 40..230 of 255, a threshold is a uniform 5 to 95% quantile of the exact scores, boxes have sides
of 1/8 to 2/3 of the mask's. Every query has its own random stream, so that asking more of them changes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bench.masks.answers import exact_scores
from bench.masks.workloads import Workload

__all__ = ["FILTERS", "GROUP_KINDS", "KINDS", "Question", "draw", "scored"]

KINDS = ("filter, box", "filter, object", "top-25, ratio", "top-25, mean of two", "top-25, both of two")
"""count(box) > t; count(object) > t; count(object) / area(object); per input the mean over two models of count(box);
per input the pixels that are in range in both models' masks."""

FILTERS = KINDS[:2]
GROUP_KINDS = KINDS[3:]
_LOWEST, _HIGHEST = 40, 230
_SHORTEST, _LONGEST = 1 / 8, 2 / 3


@dataclass(frozen=True)
class Question:
    """One query.

    Attributes:
        kind: one of `KINDS`.
        number: of the query within its kind; names its random stream.
        low: pixels count from this value on.
        box: (x0, y0, x1, y1), half-open; None for the object's box of each mask.
        threshold: of a filter, `count > threshold`; NaN for top-25.
        largest: whether the 25 best are the largest.
        k: how many of a top-k.
    """

    kind: str
    number: int
    low: int
    box: tuple[int, int, int, int] | None
    threshold: float = float("nan")
    largest: bool = True
    k: int = 25

    @property
    def is_filter(self) -> bool:
        """Whether there is a threshold."""
        return self.kind in FILTERS

    @property
    def is_grouped(self) -> bool:
        """Whether inputs are asked for, not masks."""
        return self.kind in GROUP_KINDS

    def boxes(self, workload: Workload) -> NDArray[np.int32]:
        """int32[n_masks, 4]: the box of every mask."""
        if self.box is None:
            return workload.boxes
        return np.broadcast_to(np.array(self.box, dtype=np.int32), (workload.n_masks, 4))


def draw(workload: Workload, kind: str, number: int, *, seed: int = 0) -> Question:
    """A query without its threshold."""
    rng = np.random.default_rng([seed, number, crc32(kind.encode())])
    low = int(rng.integers(_LOWEST, _HIGHEST + 1))
    if kind in ("filter, object", "top-25, ratio"):
        return Question(kind, number, low, None, largest=bool(number % 2 == 0))
    width, height = (max(1, round(workload.side * share)) for share in rng.uniform(_SHORTEST, _LONGEST, 2))
    x0, y0 = int(rng.integers(workload.side - width + 1)), int(rng.integers(workload.side - height + 1))
    return Question(kind, number, low, (x0, y0, x0 + width, y0 + height))


def scored(
    workload: Workload, kind: str, count: int, *, seed: int = 0, first: int = 0
) -> Iterator[tuple[Question, NDArray[np.float64]]]:
    """`count` queries of a kind with the exact scores of all masks (or inputs); filters get their thresholds."""
    drawn = [draw(workload, kind, number, seed=seed) for number in range(first, first + count)]
    for question, scores in zip(drawn, exact_scores(workload, drawn), strict=True):
        if question.is_filter:
            share = np.random.default_rng([seed, question.number, crc32(kind.encode()), 1]).uniform(0.05, 0.95)
            threshold = float(np.quantile(scores, share, method="lower"))
            yield replace(question, threshold=threshold), scores
        else:
            yield question, scores
