"""MaskSearch's index, the Cumulative Histogram Index, and its two bounds, written from the paper (arXiv 2305.02375).

Per mask and grid corner (i, j), the number of pixels above and left of the corner whose value lies at or above each of
B equi-width bin edges; so four corners give any rectangle of whole cells. A region S is the least such rectangle that
covers the box, L the greatest inside it:

    upper = min(C(S), C(L) + |box| - |L|)        lower = max(C(S) - |S| + |box|, C(L))

with the bin edge at or below `low` for the upper bound and the one at or above it for the lower.

Errors of the published code that are mended here: L is empty where it has no cell (not a cell of negative extent),
boxes are half-open and clipped, the last strip of a mask that cells do not divide is kept, and low on an edge uses that
edge twice. In its favour: counts take the smallest sufficient integers (it stores int64), rows and columns of zeros and
the bin that counts every pixel are not stored, and grid and bins are those that read the fewest masks at the bytes
given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "PaperIndex", "layouts"]

_VALUES = 256
_FEWEST_EDGES, _MOST_EDGES = 2, 63
_FEWEST_CELLS, _MOST_CELLS = 2, 32


@dataclass(frozen=True)
class Layout:
    """How the bytes of a mask are spent.

    Attributes:
        side: of the masks, in pixels.
        cells: per side.
        n_edges: bin edges above the least value.
    """

    side: int
    cells: int
    n_edges: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest that holds a count of the whole mask."""
        return np.dtype(np.uint16) if self.side * self.side < 1 << 16 else np.dtype(np.uint32)

    @property
    def lines(self) -> NDArray[np.int64]:
        """int64[cells + 1], the coordinates of the grid lines."""
        return np.minimum(np.arange(self.cells + 1) * -(-self.side // self.cells), self.side)

    @property
    def edges(self) -> NDArray[np.int64]:
        """int64[n_edges], at equal distances."""
        return np.arange(1, self.n_edges + 1) * _VALUES // (self.n_edges + 1)

    @property
    def bytes_per_mask(self) -> int:
        """Of the index."""
        return self.cells * self.cells * self.n_edges * self.dtype.itemsize


def layouts(side: int, bytes_per_mask: float) -> list[Layout]:
    """All grids that leave room for bins, each with as many bins as fit."""
    found = []
    for cells in range(_FEWEST_CELLS, min(_MOST_CELLS, side) + 1):
        one = Layout(side, cells, 1)
        if int(one.lines[-2]) >= side:  # the same cells as a coarser grid
            continue
        n_edges = min(_MOST_EDGES, int(bytes_per_mask // one.bytes_per_mask))
        if n_edges >= _FEWEST_EDGES:
            found.append(Layout(side, cells, n_edges))
    if not found:
        raise ValueError(f"{bytes_per_mask:g} bytes a mask are too few for an index of masks of {side} x {side} pixels")
    return found


class PaperIndex:
    """The index of all masks.

    Args:
        chunks: (first mask id, uint8[m, side, side]) in order.
        n_masks: in all of them.
        layout: how bytes are spent.
    """

    def __init__(self, chunks: Iterable[tuple[int, NDArray[np.uint8]]], n_masks: int, layout: Layout) -> None:
        self.layout = layout
        self.n_masks = n_masks
        self._lines, self._edges = layout.lines, layout.edges
        g, b = layout.cells, layout.n_edges
        self._counts = np.empty((n_masks, g, g, b), dtype=layout.dtype)
        cell = np.searchsorted(self._lines, np.arange(layout.side), side="right") - 1
        bins = b + 1
        places = ((cell[:, None] * g + cell[None, :]) * bins).astype(np.int32)
        table = np.searchsorted(self._edges, np.arange(_VALUES), side="right").astype(np.int32)
        for first, pixels in chunks:
            for mask_id, mask in enumerate(pixels, first):
                found = np.bincount((places + table[mask]).reshape(-1), minlength=g * g * bins).reshape(g, g, bins)
                at_least = found[:, :, ::-1].cumsum(2)[:, :, ::-1]
                self._counts[mask_id] = at_least[:, :, 1:].cumsum(0).cumsum(1)

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        return self._counts.nbytes

    def bounds(self, boxes: NDArray[np.int32], low: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Certain bounds of the number of pixels >= low in a box of every mask.

        Args:
            boxes (int32[n_masks, 4]): half-open.
            low: least value.

        Returns:
            (lower int64[n_masks], upper int64[n_masks]).
        """
        x0, y0, x1, y1 = np.clip(boxes.astype(np.int64), 0, self.layout.side).T
        area = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
        below = int(np.searchsorted(self._edges, low, side="right"))  # number of edges <= low; 0 counts every pixel
        above = int(np.searchsorted(self._edges, low, side="left")) + 1  # beyond the last edge no pixel is certain
        if low <= 0:
            above = 0
        cover = self._snapped((x0, y0, x1, y1), outward=True)
        inner = self._snapped((x0, y0, x1, y1), outward=False)
        covered, inside = self._area(cover), self._area(inner)
        upper = np.minimum(self._count(cover, below), self._count(inner, below) + area - inside)
        lower = np.maximum(self._count(cover, above) - covered + area, self._count(inner, above))
        empty = area == 0
        return np.where(empty, 0, np.maximum(lower, 0)), np.where(empty, 0, np.minimum(upper, area))

    def _snapped(self, box: Sequence[NDArray[np.int64]], *, outward: bool) -> list[NDArray[np.int64]]:
        """Indexes of grid lines around, or inside, boxes; an inner rectangle without a cell is empty."""
        starts, ends = ("right", "left") if outward else ("left", "right")
        i0, j0 = (np.searchsorted(self._lines, v, side=starts) - (1 if outward else 0) for v in box[:2])  # type: ignore[call-overload]
        i1, j1 = (np.searchsorted(self._lines, v, side=ends) - (0 if outward else 1) for v in box[2:])  # type: ignore[call-overload]
        last = self.layout.cells
        i0, j0, i1, j1 = (np.clip(v, 0, last) for v in (i0, j0, i1, j1))
        return [i0, j0, np.maximum(i1, i0), np.maximum(j1, j0)]

    def _area(self, cells: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        i0, j0, i1, j1 = cells
        area: NDArray[np.int64] = (self._lines[i1] - self._lines[i0]) * (self._lines[j1] - self._lines[j0])
        return area

    def _count(self, cells: Sequence[NDArray[np.int64]], edge: int) -> NDArray[np.int64]:
        """Pixels at or above an edge in rectangles of cells: edge 0 is below every value, one too many above."""
        if edge == 0:
            return self._area(cells)
        if edge > self.layout.n_edges:
            return np.zeros(self.n_masks, dtype=np.int64)
        i0, j0, i1, j1 = cells
        return (
            self._corner(i1, j1, edge)
            - self._corner(i0, j1, edge)
            - self._corner(i1, j0, edge)
            + self._corner(i0, j0, edge)
        )

    def _corner(self, i: NDArray[np.int64], j: NDArray[np.int64], edge: int) -> NDArray[np.int64]:
        held = self._counts[np.arange(self.n_masks), np.maximum(j - 1, 0), np.maximum(i - 1, 0), edge - 1]
        return np.where((i > 0) & (j > 0), held.astype(np.int64), 0)
