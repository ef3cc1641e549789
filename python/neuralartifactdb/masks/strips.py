"""Which rows of masks their index leaves open, and what becomes known as some of them are read.

A strip is a row of cells of the index. Most strips of a box are certain (nothing there reaches the threshold, or
everything does), and a filter's condition is often decided before all open ones are read. So pixels are read strip by
strip, where that saves bytes: bound, then verify, within a mask (docs/ARCHITECTURE.md, "Masks").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.masks.batch import INDEX_BLOCK
from neuralartifactdb.masks.counts import Count
from neuralartifactdb.masks.index_bounds import EdgeRows, shapes_of
from neuralartifactdb.search import BoundsViolated

if TYPE_CHECKING:
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
        lower: float64 (leaves, k, grid).
        upper: float64 (leaves, k, grid).
    """

    def __init__(self, view: MaskView, ids: Ids, leaves: Sequence[Count], boxes: NDArray[np.int32]) -> None:
        self.ids = ids
        self._boxes = boxes
        grid = max((segment.grid for segment in view.segments), default=0) or 1
        self._strips = np.arange(grid)
        heights = np.empty(len(ids), dtype=np.int64)
        self.lower: Floats = np.zeros((len(leaves), len(ids), grid))
        self.upper: Floats = np.empty_like(self.lower)
        owners = np.searchsorted(view.firsts, ids, side="right") - 1
        spans = [(int(owner), np.flatnonzero(owners == owner)) for owner in np.unique(owners)]
        for owner, at in spans:
            segment = view.segments[owner]
            shapes = segment.shapes
            heights[at] = shapes[0, 0] if segment.uniform_shape is not None else shapes[ids[at] - segment.first, 0]
        self._starts = np.arange(grid + 1) * heights[:, np.newaxis] // grid
        top = np.maximum(self._starts[:, :-1], boxes[:, :, 1:2])
        bottom = np.minimum(self._starts[:, 1:], boxes[:, :, 3:4])
        self.upper[:] = np.maximum(bottom - top, 0) * (boxes[:, :, 2:3] - boxes[:, :, 0:1])
        for owner, at in spans:
            self._bound(view, owner, at, leaves)

    def _bound(self, view: MaskView, owner: int, at: NDArray[np.int64], leaves: Sequence[Count]) -> None:
        """Fill in what the index of a segment says; a mask without an index row may have any count."""
        segment = view.segments[owner]
        if not segment.n_edges:
            return
        indexed = segment.indexed()
        local = self.ids[at] - segment.first
        if indexed is not None:
            at, local = at[indexed[local]], local[indexed[local]]
        cuts = np.flatnonzero(np.diff(local // INDEX_BLOCK)) + 1
        for part in np.split(np.arange(len(local)), cuts):
            if not len(part):
                continue
            begin = int(local[part[0]]) // INDEX_BLOCK * INDEX_BLOCK
            end = min(begin + INDEX_BLOCK, segment.n)
            for i, leaf in enumerate(leaves):
                rows = EdgeRows(segment.edges, *leaf.limits(view.meta.dtype), view.meta)
                lower, upper = np.empty((2, len(part), segment.grid))
                _core.strip_bounds(
                    segment.grid,
                    shapes_of(segment, slice(begin, end)),
                    *rows.of(segment, begin, end),
                    end - begin,
                    local[part] - begin,
                    np.ascontiguousarray(self._boxes[i, at[part]]),
                    lower,
                    upper,
                )
                self.lower[i, at[part]], self.upper[i, at[part]] = lower, upper

    def totals(self, at: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Certain bounds of the counts of masks at some positions, float64 (leaves, len(at)) each."""
        return self.lower[:, at].sum(axis=2), self.upper[:, at].sum(axis=2)

    def most_open(self, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each mask the strip [first, last) that leaves most open, of all leaves together; empty if none does."""
        width = (self.upper[:, at] - self.lower[:, at]).sum(axis=0)
        first = width.argmax(axis=1)
        return first, first + (width.max(axis=1, initial=0) > 0)

    def all_open(self, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each mask the strips [first, last) from the first open one to the last; empty if none is."""
        is_open = np.logical_or.reduce(self.upper[:, at] > self.lower[:, at], axis=0)
        first = is_open.argmax(axis=1)
        last = is_open.shape[1] - is_open[:, ::-1].argmax(axis=1)
        return first, np.where(is_open.any(axis=1), last, first)

    def boxes_in(self, at: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int32]:
        """The parts of the leaves' boxes in strips [first, last) of masks, int32 (leaves, len(at), 4).

        Empty where the leaf has no open strip among them.
        """
        boxes = self._boxes[:, at].copy()
        np.maximum(boxes[:, :, 1], self._starts[at, first], out=boxes[:, :, 1], casting="unsafe")
        np.minimum(boxes[:, :, 3], self._starts[at, last], out=boxes[:, :, 3], casting="unsafe")
        boxes[~self._open_in(at, first, last) | (boxes[:, :, 3] <= boxes[:, :, 1])] = 0
        return boxes

    def put(
        self, at: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        """Take in the exact counts in `boxes_in`, int64 (leaves, len(at)).

        Raises:
            BoundsViolated: one lies outside what the index says.
        """
        inside = self._inside(first, last)
        read = self._open_in(at, first, last)
        lower, upper = self.lower[:, at], self.upper[:, at]
        least, most = (np.where(inside, ends, 0.0).sum(axis=2) for ends in (lower, upper))
        wrong = read & ((counts < least) | (counts > most))
        if wrong.any():
            leaf, i = (int(where[0]) for where in np.nonzero(wrong))
            raise BoundsViolated(
                self.ids[at],
                f"mask {int(self.ids[at[i]])} has {int(counts[leaf, i])} pixels in range in a strip, expected "
                f"{int(least[leaf, i])} to {int(most[leaf, i])}",
            )
        known = np.where(self._strips == first[:, np.newaxis], counts[:, :, np.newaxis].astype(np.float64), 0.0)
        changed = read[:, :, np.newaxis] & inside
        self.lower[:, at] = np.where(changed, known, lower)
        self.upper[:, at] = np.where(changed, known, upper)

    def _inside(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self._strips >= first[:, np.newaxis]) & (self._strips < last[:, np.newaxis])
        return found

    def _open_in(self, at: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a leaf has an open strip among [first, last), bool (leaves, len(at))."""
        is_open = (self.upper[:, at] > self.lower[:, at]) & self._inside(first, last)
        return np.asarray(is_open.any(axis=2), dtype=np.bool_)
