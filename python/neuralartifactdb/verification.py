"""A result against brute force: every exact value, without bounds or search, and what the answer must then be.

Shared by queries over inputs, over masks and over groups of masks, which only differ in how they compute every value
(design section 7, `Result.verify`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.queries import Query, checked_k
from neuralartifactdb.results import Result, Verification

__all__ = ["BruteForce"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


class BruteForce(ABC):
    """Answers a query again from every exact value: what `Result.verify` compares with.

    Args:
        query: what was asked.
        ids: int64, ascending: the candidates.
    """

    def __init__(self, query: Query, ids: Ids) -> None:
        self._query = query
        self._ids = ids

    @abstractmethod
    def values(self, ids: Ids) -> tuple[Floats, Floats | None]:
        """Exact values of the query's expression, NaN for NULL; and of a filter's score, None if it has none."""

    def undecided(self, ids: Ids) -> bool:
        """Whether a filter's tolerance leaves it open for each of these if they belong to the answer."""
        return not len(ids)

    def __call__(self, result: Result, sample: int | None) -> Verification:
        """Compare; with `sample`, the result's own rows and that many other candidates."""
        ids = self._ids
        if sample is not None:
            others = np.setdiff1d(ids, result.ids)
            rng = np.random.default_rng(0)
            picked = rng.choice(others, size=min(checked_k(sample, "sample"), len(others)), replace=False)
            ids = np.union1d(result.ids, picked)
        values, scores = self.values(ids)
        query = self._query
        if query.is_filter:
            expected = ids[values == 1.0][: query.k]
            reported = None if scores is None else scores[np.searchsorted(ids, expected)]
        else:
            key = np.where(np.isnan(values), np.inf, -values if query.largest else values)
            order = np.lexsort((ids, key, np.isnan(values)))[: query.k]
            expected, reported = ids[order], values[order]
        equal = len(expected) == len(result.ids) and bool((expected == result.ids).all())
        largest = 0.0
        if reported is not None and result.scores is not None:
            own = dict(zip(expected.tolist(), reported.tolist(), strict=True))
            at = {int(i): v for i, v in zip(ids.tolist(), (values if scores is None else scores).tolist(), strict=True)}
            for row, score in zip(result.ids.tolist(), result.scores.tolist(), strict=True):
                truth = own.get(row, at.get(row, np.nan))
                if np.isnan(score) and (query.is_filter or np.isnan(truth)):
                    continue
                difference = 0.0 if score == truth else abs(score - truth)
                largest = max(largest, np.inf if np.isnan(difference) else difference)
        if result.tolerance > 0 and not equal and largest <= result.tolerance:
            equal = self._equal_within(result, expected, values, ids)
        return Verification(equal=equal and largest <= result.tolerance, n_checked=len(ids), largest_difference=largest)

    def _equal_within(self, result: Result, expected: Ids, values: Floats, ids: Ids) -> bool:
        """Whether the tolerance explains every difference in the rows.

        Of a filter: that the rows in one answer only are undecided. Otherwise: that no candidate left out beats a
        returned one by more than both may deviate.
        """
        if self._query.is_filter:
            return self.undecided(np.setxor1d(expected, result.ids))
        left = values[~np.isin(ids, result.ids)]
        if result.scores is None or not len(left) or not len(result.scores):
            return True
        slack = 2 * result.tolerance
        if self._query.largest:
            return bool(np.nanmax(left) <= np.nanmin(result.scores) + slack)
        return bool(np.nanmin(left) >= np.nanmax(result.scores) - slack)
