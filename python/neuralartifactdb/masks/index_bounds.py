"""What the histogram index says of counts: rows of the edges around two thresholds, bounds over boxes and by cell.

The arithmetic is `_core.count_bounds` and `_core.cell_bounds`; here is which rows they get. A mask without an index row
has [0, area], never "zero, so pruned". Implements design section 5, "Bounds" and "Incremental".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.masks.batch import INDEX_BLOCK
from neuralartifactdb.masks.boxes import missing_boxes

if TYPE_CHECKING:
    from neuralartifactdb.masks.batch import CollectionMeta
    from neuralartifactdb.masks.segment import MaskSegment

__all__ = [
    "EMPTY_BOX",
    "NO_EDGES",
    "EdgeRows",
    "announce_rows",
    "blocks",
    "box_areas",
    "cell_bounds",
    "clipped",
    "count_bounds",
    "shapes_of",
]

Boxes = NDArray[np.int32]
Floats = NDArray[np.float64]

EMPTY_BOX: Final = np.zeros((1, 4), dtype=np.int32)
NO_EDGES: Final = np.empty(0)

#: an edge by number; None: what an open side means; b"": the opposite (see `_core.count_bounds`)
_Row = int | bytes | None
_Buffer = NDArray[np.uint8] | bytes | None


class EdgeRows:
    """Which edges enclose `low <= value < high`, as the four rows of `_core.count_bounds`.

    Args:
        edges: float64 (B,), ascending.
        low: normalised threshold, None for open.
        high: normalised threshold, None for open.
        meta: of the collection: its range and nodata.

    Attributes:
        rows: low_upper, low_lower, high_upper, high_lower.
        nothing: no pixel can be in the range.
        everything: every pixel is.
    """

    def __init__(self, edges: Floats, low: float | None, high: float | None, meta: CollectionMeta) -> None:
        least, greatest = meta.value_range
        self.nothing = (
            (low is not None and (low > greatest or (high is not None and low >= high)))
            or (high is not None and high <= least)
        )  # fmt: skip
        if low is not None and low <= least:
            low = None
        if high is not None and high > greatest:
            high = None
        self.everything = not self.nothing and low is None and high is None and meta.nodata is None
        low_upper: _Row
        low_lower: _Row
        high_upper: _Row
        high_lower: _Row
        if low is None:
            # with nodata the first edge is the least value: its row counts the pixels that have one
            low_upper = low_lower = None if meta.nodata is None or not len(edges) else 0
            if meta.nodata is not None and not len(edges):
                low_lower = b""
        else:
            at_or_below, at_or_above = _around(edges, low)
            low_upper, low_lower = at_or_below, b"" if at_or_above is None else at_or_above
        if high is None:
            high_upper = high_lower = None
        else:
            at_or_below, at_or_above = _around(edges, high)
            high_upper, high_lower = b"" if at_or_below is None else at_or_below, at_or_above
        self.rows: tuple[_Row, _Row, _Row, _Row] = (low_upper, low_lower, high_upper, high_lower)

    def of(self, segment: MaskSegment, first: int, last: int) -> tuple[_Buffer, _Buffer, _Buffer, _Buffer]:
        """The four rows of masks [first, last) of one block; an edge that is needed twice is read once."""
        held: dict[int, NDArray[np.uint8]] = {}

        def buffer(row: _Row) -> _Buffer:
            if not isinstance(row, int):
                return row
            if row not in held:
                held[row] = segment.index_rows(row, first, last)
            return held[row]

        low_upper, low_lower, high_upper, high_lower = self.rows
        return buffer(low_upper), buffer(low_lower), buffer(high_upper), buffer(high_lower)


def _around(edges: Floats, threshold: float) -> tuple[int | None, int | None]:
    """The greatest edge at or below a threshold, and the least one at or above it."""
    below = int(np.searchsorted(edges, threshold, side="right")) - 1
    above = int(np.searchsorted(edges, threshold, side="left"))
    return (below if below >= 0 else None), (above if above < len(edges) else None)


def blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """[first, last) cut at the blocks of the index."""
    while first < last:
        end = min(last, (first // INDEX_BLOCK + 1) * INDEX_BLOCK)
        yield first, end
        first = end


def clipped(boxes: Boxes, shapes: NDArray[np.int32]) -> Boxes:
    """int32 (n, 4): boxes within their masks; an empty, inverted or missing one has x0 == x1 and y0 == y1."""
    out = np.empty((max(len(boxes), len(shapes)), 4), dtype=np.int32)
    for start, size in ((0, shapes[:, 1]), (1, shapes[:, 0])):
        low = np.clip(boxes[:, start], 0, size)
        out[:, start] = low
        out[:, start + 2] = np.maximum(np.clip(boxes[:, start + 2], 0, size), low)
    empty = (out[:, 2] == out[:, 0]) | (out[:, 3] == out[:, 1])
    if empty.any():
        out[empty] = 0
    return out


def box_areas(boxes: Boxes, shapes: NDArray[np.int32]) -> Floats:
    """float64 (n,): pixels of each box that lie inside its mask; NaN without a box."""
    inside = clipped(boxes, shapes).astype(np.float64)
    areas: Floats = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    missing = missing_boxes(boxes)
    return np.where(missing, np.nan, areas) if missing.any() else areas


def announce_rows(
    parts: Sequence[tuple[MaskSegment, int, int]], low: float | None, high: float | None, meta: CollectionMeta
) -> None:
    """Let the system fetch what `count_bounds` will read of segments, where it must come from disk."""
    for segment, first, last in parts:
        if not segment.n_edges:
            continue
        rows = EdgeRows(segment.edges, low, high, meta)
        edges = sorted({row for row in rows.rows if isinstance(row, int)})
        segment.announce_index_rows(edges, first, last)


def count_bounds(
    segment: MaskSegment, first: int, last: int, boxes: Boxes, low: float | None, high: float | None,
    meta: CollectionMeta,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Bounds of how many pixels of each box are in the range, for masks [first, last) of a segment.

    Args:
        segment: of the collection.
        first: local position.
        last: local position.
        boxes: int32 (last - first, 4) or (1, 4).
        low: normalised threshold, None for open.
        high: normalised threshold, None for open.
        meta: of the collection.

    Returns:
        Lower and upper ends, float64 (last - first,); NaN where the box is missing. The same array twice: exact.
    """
    n = last - first
    shapes = shapes_of(segment, slice(first, last))
    missing = missing_boxes(boxes)

    def areas() -> Floats:
        return np.broadcast_to(box_areas(boxes, shapes), n)

    def zeros() -> Floats:
        return np.broadcast_to(np.where(missing, np.nan, 0.0), n)

    rows = EdgeRows(segment.edges if segment.n_edges else NO_EDGES, low, high, meta)
    if rows.nothing or rows.everything:
        exact = zeros().copy() if rows.nothing else areas().copy()
        return exact, exact
    if not segment.n_edges:
        return zeros().copy(), areas().copy()
    indexed = segment.indexed()  # before the rows: others may add some meanwhile
    lower, upper = np.empty(n), np.empty(n)
    for begin, end in blocks(first, last):
        here = slice(begin - first, end - first)
        _core.count_bounds(
            segment.grid,
            shapes if len(shapes) == 1 else shapes[here],
            *rows.of(segment, begin, end),
            boxes if len(boxes) == 1 else boxes[here],
            lower[here],
            upper[here],
            threads=1,
        )
    if indexed is not None:
        absent = ~indexed[first:last]
        lower[absent], upper[absent] = 0.0, areas()[absent]
    if missing.any():
        null = np.broadcast_to(missing, n)
        lower[null] = upper[null] = np.nan
    return lower, upper


def cell_bounds(
    segment: MaskSegment, first: int, last: int, low: float | None, high: float | None, meta: CollectionMeta
) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Bounds of how many pixels of each cell are in the range; None for a segment without an index.

    Args:
        segment: of the collection.
        first: local position.
        last: local position.
        low: normalised threshold, None for open.
        high: normalised threshold, None for open.
        meta: of the collection.

    Returns:
        int32 (last - first, grid * grid), twice.
    """
    if not segment.n_edges:
        return None
    n, cells = last - first, segment.grid * segment.grid
    lower, upper = np.empty((n, cells), dtype=np.int32), np.empty((n, cells), dtype=np.int32)
    rows = EdgeRows(segment.edges, low, high, meta)
    if rows.nothing:
        lower[:] = upper[:] = 0
        return lower, upper
    shapes = shapes_of(segment, slice(first, last))
    indexed = segment.indexed()
    for begin, end in blocks(first, last):
        here = slice(begin - first, end - first)
        _core.cell_bounds(
            segment.grid,
            shapes if len(shapes) == 1 else shapes[here],
            *rows.of(segment, begin, end),
            lower[here],
            upper[here],
            threads=1,
        )
    if indexed is not None and not rows.everything:
        absent = ~indexed[first:last]
        if absent.any():
            areas, _ = _core.cell_overlaps(segment.grid, shapes, EMPTY_BOX)
            lower[absent] = 0
            upper[absent] = areas if len(areas) == 1 else areas[absent]
    return lower, upper


def shapes_of(segment: MaskSegment, local: slice | NDArray[np.int64]) -> NDArray[np.int32]:
    """int32 (1, 2) where all masks of the segment are alike, else (k, 2), those of some local positions."""
    if segment.one_shape is not None:
        return segment.one_shape
    return np.ascontiguousarray(segment.shapes[local])
