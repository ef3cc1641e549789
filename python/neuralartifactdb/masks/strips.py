"""Which rows of masks their index leaves open, and what becomes known as some of them are read.

A strip is a row of cells of the index. Most strips of a box are certain (nothing there reaches the threshold, or
everything does), and a filter's condition is often decided before all open ones are read. So only some strips are read,
where that saves bytes: bound, then verify, within a mask (docs/ARCHITECTURE.md, "Masks").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.masks.batch import INDEX_BLOCK
from neuralartifactdb.masks.counts import Count
from neuralartifactdb.masks.index_bounds import EdgeRows, shapes_of
from neuralartifactdb.search import BoundsViolated

if TYPE_CHECKING:
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.masks.view import MaskView

__all__ = ["OpenStrips"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class OpenStrips:
    """Counts of leaves over boxes in some masks, strip by strip, as certain intervals that reading makes points.

    Args:
        view: the collection.
        ids: int64 (k,), ascending.
        leaves: over boxes; none whose range every pixel or no pixel is in.
        boxes: int32 (leaves, k, 4), clipped.

    Attributes:
        ids: as given.
        grid: strips of a mask.
        lower: float64 (leaves, k, grid).
        upper: float64 (leaves, k, grid).
    """

    def __init__(self, view: MaskView, ids: Ids, leaves: Sequence[Count], boxes: NDArray[np.int32]) -> None:
        self.ids = ids
        self.grid = view.meta.grid or 1
        self._boxes = np.ascontiguousarray(boxes)
        grid = self.grid
        heights = np.empty(len(ids), dtype=np.int64)
        self.lower: Floats = np.zeros((len(leaves), len(ids), grid))
        self.upper: Floats = np.empty_like(self.lower)
        owner = np.searchsorted(view.firsts, ids, side="right") - 1
        starts = np.flatnonzero(np.diff(owner, prepend=-1)).tolist()
        spans = list(zip(starts, [*starts[1:], len(ids)], strict=True))
        for begin, end in spans:
            segment = view.segments[int(owner[begin])]
            heights[begin:end] = (
                segment.one_shape[0, 0]
                if segment.one_shape is not None
                else segment.shapes[ids[begin:end] - segment.first, 0]
            )
        self._starts = (np.arange(grid + 1) * heights[:, np.newaxis] // grid).astype(np.int32)
        n_rows = np.minimum(self._starts[:, 1:], boxes[:, :, 3:4]) - np.maximum(self._starts[:, :-1], boxes[:, :, 1:2])
        np.multiply(np.maximum(n_rows, 0), boxes[:, :, 2:3] - boxes[:, :, 0:1], out=self.upper)
        limits = [leaf.limits(view.meta.dtype) for leaf in leaves]
        for begin, end in spans:
            segment = view.segments[int(owner[begin])]
            if segment.n_edges:
                rows = [EdgeRows(segment.edges, *ends, view.meta) for ends in limits]
                self._bound(segment, begin, end, rows)

    def _bound(self, segment: MaskSegment, begin: int, end: int, rows: Sequence[EdgeRows]) -> None:
        """Fill in what a segment's index says of masks [begin, end); one without an index row may have any count."""
        indexed = segment.indexed()
        local = self.ids[begin:end] - segment.first
        for block, first, last in _by_block(local):
            block_end = min(block + INDEX_BLOCK, segment.n)
            here = slice(begin + first, begin + last)
            for i, leaf_rows in enumerate(rows):
                lower, upper = self.lower[i, here], self.upper[i, here]
                known = None if indexed is None else indexed[local[first:last]]
                if known is not None:
                    lower, upper = np.empty_like(lower), np.empty_like(upper)
                _core.strip_bounds(
                    segment.grid,
                    shapes_of(segment, slice(block, block_end)),
                    *leaf_rows.of(segment, block, block_end),
                    block_end - block,
                    local[first:last] - block,
                    self._boxes[i, here],
                    lower,
                    upper,
                )
                if known is not None:
                    self.lower[i, here][known], self.upper[i, here][known] = lower[known], upper[known]

    def totals(self, at: Ids) -> tuple[Floats, Floats]:
        """Certain bounds of the counts of masks at some positions, float64 (leaves, len(at)) each."""
        return self.lower[:, at].sum(axis=2), self.upper[:, at].sum(axis=2)

    def expected(self, at: Ids) -> Iterator[tuple[Floats, Floats]]:
        """What `totals` may say of masks after one more strip was read of each, after two, and so on, those that leave
        most open first; a count in a strip is taken for the middle of its bounds."""
        lower, upper = self.lower[:, at], self.upper[:, at]
        least, most = lower.sum(axis=2), upper.sum(axis=2)
        order = np.argsort(-(upper - lower).sum(axis=0), axis=1, kind="stable")
        for n in range(lower.shape[2] - 1):
            strip = np.broadcast_to(order[np.newaxis, :, n : n + 1], (len(lower), len(at), 1))
            low = np.take_along_axis(lower, strip, axis=2)[:, :, 0]
            half = (np.take_along_axis(upper, strip, axis=2)[:, :, 0] - low) / 2
            least, most = least + half, most - half
            yield least, most

    def choose(
        self, at: Ids, n_strips: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Of each mask the strips [first, last) to read: from the first to the last of the n that leave most open.

        Returns:
            first and last, int32 (len(at),) each, equal where nothing is open; and the parts of the leaves' boxes in
            them, int32 (leaves, len(at), 4), empty where the leaf has no open strip among them.
        """
        return _core.choose_strips(self._starts, self._boxes, self.lower, self.upper, at, n_strips)

    def middles(self, at: Ids, first: NDArray[np.int32], last: NDArray[np.int32]) -> NDArray[np.int64]:
        """Of each mask and leaf the middle of what is certain of the strips [first, last), int64 (leaves, len(at))."""
        grid = np.arange(self.lower.shape[2])
        inside = (grid >= first[:, np.newaxis]) & (grid < last[:, np.newaxis])
        both = np.where(inside, self.lower[:, at] + self.upper[:, at], 0.0).sum(axis=2)
        return np.ascontiguousarray(both // 2, dtype=np.int64)

    def put(self, at: Ids, first: NDArray[np.int32], last: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        """Take in the exact counts in the parts that `choose` gave, int64 (leaves, len(at)).

        Raises:
            BoundsViolated: one lies outside what the index says.
        """
        wrong = _core.put_strips(self._starts, self._boxes, self.lower, self.upper, at, first, last, counts)
        if wrong is not None:
            i, leaf, least, most = wrong
            raise BoundsViolated(
                self.ids[at],
                f"mask {int(self.ids[at[i]])} has {int(counts[leaf, i])} pixels in range in a strip, expected "
                f"{int(least)} to {int(most)}",
            )


def _by_block(local: Ids) -> Iterator[tuple[int, int, int]]:
    """First mask of each block of the index that ascending local positions are in, and the slice of those in it."""
    first = 0
    while first < len(local):
        block = int(local[first]) // INDEX_BLOCK * INDEX_BLOCK
        last = int(np.searchsorted(local, block + INDEX_BLOCK))
        yield block, first, last
        first = last
