"""The masks of each group, and sum, mean, min, max over them in interval arithmetic.

Bounds of a group come from the bounds of its masks, exact values from exact ones, by the same code: float64, left to
right in mask_id order, NULL skipped as SQL does (design section 3, "One arithmetic"; section 5, "Groups").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.expressions.arithmetic import negate
from neuralartifactdb.expressions.intervals import Bools, Floats, Intervals
from neuralartifactdb.nulls import is_null

__all__ = ["Members", "aggregated", "grouped"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Masks by group: those of group g are `ids[starts[g]:starts[g + 1]]`, ascending, at least one.

    Attributes:
        ids: int64 (n,).
        starts: int64 (n_groups + 1,).
    """

    ids: Ids
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of groups."""
        return len(self.starts) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 (n_groups,), masks of each group."""
        return np.diff(self.starts)

    @property
    def ranks(self) -> NDArray[np.int64]:
        """int64 (n,), the group of each mask."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def positions(self, groups: Ids) -> NDArray[np.int64]:
        """int64, where in `ids` the masks of some groups are, group after group in the order given."""
        first, sizes = self.starts[groups], self.sizes[groups]
        ends = np.cumsum(sizes)
        within = np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
        found: NDArray[np.int64] = within + np.repeat(first - (ends - sizes), sizes)
        return found

    def of(self, groups: Ids) -> Members:
        """Some groups, in the order given."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes[groups])])
        return Members(self.ids[self.positions(groups)], starts)


def grouped(ids: Ids, values: NDArray[Any]) -> tuple[Members, NDArray[Any]]:
    """Masks by the value of a column: groups ascend by value, texts by code point; NULL is the last one.

    Args:
        ids: int64 (n,), ascending.
        values: (n,), the column for these masks; None and NaN are NULL.

    Returns:
        The groups, and their keys in the column's dtype.
    """
    kind = values.dtype.kind
    if kind == "O":
        null = np.array([is_null(value) for value in values], dtype=np.bool_)
    else:
        null = values != values
    keys, ranks = np.unique(values[~null], return_inverse=True)
    if kind == "f":
        keys = keys + 0.0  # -0.0 is 0.0
    every = np.full(len(ids), len(keys), dtype=np.int64)
    every[~null] = ranks.reshape(-1)
    if null.any():
        keys = np.concatenate([keys, values[null][:1]])
    order = np.argsort(every, kind="stable")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(every, minlength=len(keys)))])
    return Members(ids[order], starts.astype(np.int64)), keys


def aggregated(op: str, values: Intervals, members: Members) -> Intervals:
    """The aggregate of every group.

    A value that may be NULL may be skipped, so it widens its group; a group is NULL where all its values are, and may
    be where all of them may. What float64 cannot say (inf - inf in a sum) is NULL too.

    Args:
        op: "sum", "mean", "min" or "max".
        values: intervals of the masks, in the order of `members.ids`.
        members: the groups.
    """
    if len(values) != len(members.ids):
        raise InvalidValueError(f"expected intervals of {len(members.ids)} masks, got {len(values)}")
    if not len(members):
        return Intervals(np.empty(0), np.empty(0))
    if op == "max":
        return _normal(negate(_least(negate(values), members)))
    if op == "min":
        return _normal(_least(values, members))
    return _sum(values, members, mean=op == "mean")


def _normal(found: Intervals) -> Intervals:
    """-0.0 is 0.0."""
    lower = found.lower + 0.0
    return Intervals(lower, lower if found.upper is found.lower else found.upper + 0.0, found.may_be_null)


def _counts(values: Intervals, members: Members) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many values of each group are certainly not NULL, and how many may be something else than NULL."""
    sizes = members.sizes
    if values.may_be_null is None:
        return sizes, sizes
    starts = members.starts[:-1]
    certain = np.add.reduceat((~values.may_be_null).astype(np.int64), starts)
    return certain, np.add.reduceat((~np.isnan(values.lower)).astype(np.int64), starts)


def _with_null(lower: Floats, upper: Floats, certain: NDArray[np.int64], possible: NDArray[np.int64]) -> Intervals:
    """NULL where no value of the group is anything else, maybe NULL where no value certainly is."""
    null: Bools = certain == 0
    if not null.any():
        return Intervals(lower, upper)
    all_null = possible == 0
    if lower is upper:
        lower = upper = np.where(all_null, np.nan, lower)
    else:
        lower, upper = np.where(all_null, np.nan, lower), np.where(all_null, np.nan, upper)
    return Intervals(lower, upper, null)


def _least(values: Intervals, members: Members) -> Intervals:
    """The least value. Of one that may be NULL, only that it can lower the minimum is known."""
    starts = members.starts[:-1]
    if values.may_be_null is None:
        lower = np.minimum.reduceat(values.lower, starts)
        return Intervals(lower, lower if values.upper is values.lower else np.minimum.reduceat(values.upper, starts))
    certain, possible = _counts(values, members)
    missing = np.isnan(values.lower)
    lower = np.minimum.reduceat(np.where(missing, np.inf, values.lower), starts)
    if values.lower is values.upper and np.array_equal(missing, values.may_be_null):
        return _with_null(lower, lower, certain, possible)
    upper = np.minimum.reduceat(np.where(values.may_be_null, np.inf, values.upper), starts)
    # without a certain value any of the possible ones may be the only one
    most = np.maximum.reduceat(np.where(missing, -np.inf, values.upper), starts)
    return _with_null(lower, np.where(certain == 0, most, upper), certain, possible)


def _sum(values: Intervals, members: Members, *, mean: bool) -> Intervals:
    """The sum, or the mean: the sum by the number of values that are not NULL.

    `np.bincount` adds left to right, from 0.0. Skipping a value adds 0.0, which changes nothing, so one that may be
    NULL counts as the hull of itself and 0. Partial sums are monotone in every value, hence so are the ends.
    """
    ranks, n = members.ranks, len(members)
    certain, possible = _counts(values, members)
    low, high = values.lower, values.upper
    points = low is high
    if values.may_be_null is not None:
        if points and np.array_equal(np.isnan(low), values.may_be_null):
            low = high = np.where(values.may_be_null, 0.0, low)
        else:
            points = False
            low = np.where(values.may_be_null, np.fmin(low, 0.0), low)
            high = np.where(values.may_be_null, np.fmax(high, 0.0), high)
    lower: Floats = np.bincount(ranks, weights=low, minlength=n).astype(np.float64)
    if points:
        sums = _with_null(lower, lower, certain, possible)
        undefined = np.isnan(lower) & (possible > 0)
    else:
        upper: Floats = np.bincount(ranks, weights=high, minlength=n).astype(np.float64)
        undefined = (np.isnan(lower) | np.isneginf(lower)) & (np.isnan(upper) | np.isposinf(upper))
        if undefined.any() or np.isnan(lower).any() or np.isnan(upper).any():
            lower = np.where(np.isnan(lower), -np.inf, lower)
            upper = np.where(np.isnan(upper), np.inf, upper)
        sums = _with_null(lower, upper, certain, possible)
    if undefined.any():
        null = undefined if sums.may_be_null is None else sums.may_be_null | undefined
        sums = Intervals(sums.lower, sums.upper, null)
    return _divided(sums, np.maximum(certain, 1), possible) if mean else sums


def _divided(sums: Intervals, fewest: NDArray[np.int64], most: NDArray[np.int64]) -> Intervals:
    """Sums by a number of values in [fewest, most]: the ends by the number that takes them farthest."""
    with np.errstate(all="ignore"):
        if sums.lower is sums.upper and np.array_equal(fewest, np.maximum(most, 1)):
            means = sums.lower / fewest + 0.0
            return Intervals(means, means, sums.may_be_null)
        lower = sums.lower / np.where(sums.lower >= 0, most, fewest) + 0.0
        upper = sums.upper / np.where(sums.upper >= 0, fewest, most) + 0.0
    return Intervals(lower, upper, sums.may_be_null)
