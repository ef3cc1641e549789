"""Pixelwise intersection and union of the thresholded masks of a group: bounds cell by cell, exact counts.

Of m masks with c_1 .. c_m of A pixels in the range, the intersection has between max(0, sum - (m - 1) A) and min c, the
union between max c and min(A, sum): Frechet's inequalities, here within every cell of the grid. Implements design
section 5, "Groups".

Their ratio has a better upper bound than the quotient of these. With c_i in [l_i, h_i] let T = min h and M = max l: the
intersection t of a cell is at most T, the union at least max(t, M). A larger t makes a ratio below 1 larger, even if
the union grows by as much, so the sum of T by the sum of max(T, M) bounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.expressions.arithmetic import divide
from neuralartifactdb.expressions.intervals import Floats, Intervals
from neuralartifactdb.masks.aggregates import JointCount, JointRatio
from neuralartifactdb.masks.group_members import Members
from neuralartifactdb.masks.index_bounds import cell_bounds
from neuralartifactdb.masks.joint_parts import JointPart, part_key
from neuralartifactdb.masks.joint_pixels import JointJob, count_pixels

if TYPE_CHECKING:
    from neuralartifactdb.masks.lazy import IndexFiller
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["JointCounts"]

Ids = NDArray[np.int64]

#: cells of all groups that are accumulated at once, in a dozen arrays of 4 and 8 bytes each: some 20 MB
_CELLS_AT_ONCE: Final = 1 << 18
#: masks whose cells are looked at together
_MASKS_AT_ONCE: Final = 2_048


class JointCounts:
    """The values of joint counts for all groups.

    Args:
        view: the collection.
        leaves: the joint counts.
        members: the groups.
        name_of: says in words which group it is, for errors.
        filler: keeps index rows of masks that are read, for collections with index="lazy".

    Attributes:
        bytes_read: bytes of the rows read so far.

    Raises:
        InvalidValueError: masks of a group differ in shape, or in the box that is the region.
    """

    def __init__(
        self,
        view: MaskView,
        leaves: Sequence[JointCount],
        members: Members,
        name_of: Callable[[int], str],
        filler: IndexFiller | None = None,
    ) -> None:
        self._view = view
        self._leaves = list(leaves)
        self._members = members
        self._filler = filler
        self.bytes_read = 0
        self._parts: dict[Hashable, JointPart] = {}
        for leaf in self._leaves:
            if part_key(leaf.joint) not in self._parts:
                self._parts[part_key(leaf.joint)] = JointPart(view, leaf, members, name_of)
        self._bounds: dict[Hashable, Intervals] | None = None

    def bytes_per_mask(self) -> float:
        """Bytes of the rows that counting reads of a mask, on average."""
        if not self._parts or not len(self._members):
            return 0.0
        parts = list(self._parts.values())
        y0 = np.minimum.reduce([part.boxes[:, 1] for part in parts])
        y1 = np.maximum.reduce([part.boxes[:, 3] for part in parts])
        rows = (y1 - y0) * parts[0].shapes[:, 1].astype(np.float64)
        return float(rows.mean()) * self._view.meta.stored_dtype.itemsize

    # ---- from the index --------------------------------------------------------------------------------------------

    def bounds(self) -> dict[Hashable, Intervals]:
        """Certain intervals for every group, by `leaf.key`."""
        if self._bounds is None:
            held = {key: self._part_bounds(part) for key, part in self._parts.items()}
            self._bounds = {leaf.key: held[part_key(leaf.joint)][_kind(leaf)] for leaf in self._leaves}
        return self._bounds

    def _part_bounds(self, part: JointPart) -> dict[str, Intervals]:
        if part.fixed is not None:
            exact = _intervals(part.fixed, part.fixed, part.sizes)
            return {"intersection": exact, "union": exact, "iou": divide(exact, exact)}
        n = len(self._members)
        ends = {kind: (np.zeros(n), part.areas.copy()) for kind in ("intersection", "union")}
        ratio = np.ones(n)
        grid = next((segment.grid for segment in self._view.segments if segment.n_edges), 0)
        if grid:
            step = max(1, _CELLS_AT_ONCE // (grid * grid))
            for first in range(0, n, step):
                last = min(n, first + step)
                both, some, ratio[first:last] = self._from_cells(part, grid, first, last)
                for kind, (lower, upper) in (("intersection", both), ("union", some)):
                    ends[kind][0][first:last], ends[kind][1][first:last] = lower, upper
        found = {kind: _intervals(lower, upper, part.sizes) for kind, (lower, upper) in ends.items()}
        found["iou"] = _at_most(divide(found["intersection"], found["union"]), ratio)
        return found

    def _from_cells(
        self, part: JointPart, grid: int, first: int, last: int
    ) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats], Floats]:
        """For groups [first, last): ends of the intersection, of the union, and the greatest ratio.

        The cells of their masks are accumulated in one pass over the masks.
        """
        areas, overlaps = _core.cell_overlaps(grid, part.shapes[first:last], part.boxes[first:last])
        n, cells = last - first, grid * grid
        most_pixels = int(part.sizes[first:last].max(initial=0)) * int(overlaps.max(initial=0))
        wide = np.int32 if most_pixels < 2**31 else np.int64
        least_sum, most_sum = np.zeros((n, cells), wide), np.zeros((n, cells), wide)
        least_max, most_min = np.zeros((n, cells), np.int32), overlaps.copy()
        begin, end = int(self._members.starts[first]), int(self._members.starts[last])
        at = begin + np.flatnonzero(part.present[begin:end])
        ranks = np.searchsorted(self._members.starts, at, side="right") - 1 - first
        ids = self._members.ids[at]
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        for segment, run in self._view.runs(ordered, _MASKS_AT_ONCE, _MASKS_AT_ONCE):
            rank = ranks[order[run]]
            least, most = self._cells(segment, ordered[run] - segment.first, grid, part, areas[rank], overlaps[rank])
            groups, (least, most), sums = _by_group(rank, least, most, wide)
            least_sum[groups] += sums[0]
            most_sum[groups] += sums[1]
            least_max[groups] = np.maximum(least_max[groups], least)
            most_min[groups] = np.minimum(most_min[groups], most)
        beyond = np.maximum(part.sizes[first:last, None] - 1, 0) * overlaps.astype(wide)
        both = _total(np.maximum(0, least_sum - beyond)), _total(most_min)
        some = _total(least_max), _total(np.minimum(overlaps, most_sum))
        with_both = _total(np.maximum(most_min, least_max))
        ratio: Floats = np.divide(both[1], with_both, out=np.zeros(n), where=with_both > 0)
        return both, some, ratio

    def _cells(
        self,
        segment: MaskSegment,
        local: NDArray[np.int64],
        grid: int,
        part: JointPart,
        areas: NDArray[np.int32],
        overlaps: NDArray[np.int32],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Bounds of the pixels in the range, for each mask (ascending) and each cell's part inside the box."""
        found = None
        if segment.grid == grid:
            start = int(local[0])
            found = cell_bounds(segment, start, int(local[-1]) + 1, part.low, part.high, self._view.meta)
        if found is None:  # without an index anything may be in the range
            return np.zeros_like(overlaps), overlaps
        least, most = found[0][local - start], found[1][local - start]
        return np.maximum(0, least - (areas - overlaps)), np.minimum(most, overlaps)

    def is_open(self, groups: Ids) -> NDArray[np.bool_]:
        """Of which of some groups masks must be read, bool (n,)."""
        found = np.zeros(len(groups), np.bool_)
        for held in self.bounds().values():
            found |= ~held.take(groups).is_exact
        return found

    # ---- from the pixels -------------------------------------------------------------------------------------------

    def exact(self, groups: Ids) -> tuple[dict[Hashable, Intervals], Ids]:
        """Exact values of some groups as points, in the order given, by `leaf.key`; and the masks that were read.

        Groups whose bounds are exact already are not read.

        Args:
            groups: int64 (n,), distinct.
        """
        bounds = self.bounds()
        is_open: dict[Hashable, NDArray[np.bool_]] = {key: np.zeros(len(groups), np.bool_) for key in self._parts}
        for leaf in self._leaves:
            is_open[part_key(leaf.joint)] |= ~bounds[leaf.key].take(groups).is_exact
        keys = [key for key, wanted in is_open.items() if wanted.any()]
        jobs = [JointJob(self._parts[key], is_open[key]) for key in keys]
        counted = count_pixels(self._view, self._members, groups, jobs, self._filler)
        self.bytes_read += counted.n_bytes
        values: dict[Hashable, Intervals] = {}
        for leaf in self._leaves:
            numbers = bounds[leaf.key].lower[groups].copy()
            if part_key(leaf.joint) in keys:
                number = keys.index(part_key(leaf.joint))
                wanted = jobs[number].wanted
                every, some = (
                    Intervals.points(found[number].astype(np.float64)) for found in (counted.every, counted.some)
                )
                found = {"intersection": every, "union": some, "iou": divide(every, some)}[_kind(leaf)]
                numbers[wanted] = found.lower[wanted]
            values[leaf.key] = Intervals.points(numbers)
        return values, counted.ids


def _kind(leaf: JointCount) -> str:
    return "iou" if isinstance(leaf, JointRatio) else leaf.joint.kind


def _at_most(intervals: Intervals, most: Floats) -> Intervals:
    """Intervals of which another upper bound is known too; NULL stays."""
    return Intervals(intervals.lower, np.where(intervals.upper > most, most, intervals.upper), intervals.may_be_null)


def _by_group(
    rank: NDArray[np.int64], least: NDArray[np.int32], most: NDArray[np.int32], wide: type[np.signedinteger[Any]]
) -> tuple[NDArray[np.int64], tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Of masks (rows) the groups they are of; by group, the greatest of `least`, the least of `most`, and both sums."""
    order = np.argsort(rank, kind="stable")
    ordered = rank[order]
    heads = np.flatnonzero(np.diff(ordered, prepend=-1))
    if len(heads) == len(rank):  # one mask of each group, as where a model's masks were appended together
        return rank, (least, most), (least, most)
    least, most = least[order], most[order]
    sums = (np.add.reduceat(least, heads, axis=0, dtype=wide), np.add.reduceat(most, heads, axis=0, dtype=wide))
    ends = (np.maximum.reduceat(least, heads, axis=0), np.minimum.reduceat(most, heads, axis=0))
    return ordered[heads], ends, sums


def _total(cells: NDArray[Any]) -> Floats:
    totals: Floats = cells.sum(axis=1, dtype=np.int64).astype(np.float64)
    return totals


def _intervals(lower: Floats, upper: Floats, sizes: NDArray[np.int64]) -> Intervals:
    """NULL for a group whose masks all lack the region."""
    null = sizes == 0
    if null.any():
        same = lower is upper
        lower = np.where(null, np.nan, lower)
        return Intervals(lower, lower if same else np.where(null, np.nan, upper), null)
    return Intervals(lower, upper)
