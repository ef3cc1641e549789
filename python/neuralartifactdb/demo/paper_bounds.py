"""The bounds of the MaskSearch prototype, as released, for the demo's exhibit of rows that are lost in silence.

Its index holds cumulative histograms at the corners of a grid of cells; a box gets two bounds, from the smallest box of
whole cells that covers it and from the largest that lies inside (arXiv 2305.02375, section 3). As released, a box that
lies within one cell both ways has an inner box of -1 by -1 cells: its count and its area come out as those of the
whole cell, and the upper bound falls below the truth. Written here from the description, errors included, so that what
they cost can be seen. Nothing else uses it. (Issue 3: the demo grows.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CELL", "ReleasedFilter", "released_filter"]

CELL = 16
"""Pixels along a cell: 8 x 8 cells of a map, as many as the prototype has for its 224 x 224 masks."""
_BIN = 16  # values of a pixel in one bin


@dataclass(frozen=True)
class ReleasedFilter:
    """What the prototype's filter does with each mask.

    Attributes:
        lower (int64[n]): its lower bound of the count.
        upper (int64[n]): its upper bound.
        dropped (bool[n]): not returned, pixels not read.
        accepted (bool[n]): returned, pixels not read.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    accepted: NDArray[np.bool_]


def released_filter(
    pixels: NDArray[np.uint8], box: tuple[int, int, int, int], above: int, more_than: int
) -> ReleasedFilter:
    """The masks with more than so many pixels above a value in a box, by the released bounds.

    Args:
        pixels: (n, H, W); H and W are multiples of `CELL`.
        box: x0, y0, x1, y1, half-open. The prototype counts a box (x, y, w, h) with its last row and column, so
            that the same pixels are its (x0, y0, x1 - 1 - x0, y1 - 1 - y0).
        above: pixels of greater value are counted.
        more_than: the filter's threshold.
    """
    height, width = pixels.shape[1:]
    x, y = box[0] + 1, box[1] + 1  # it counts from 1
    w, h = box[2] - 1 - box[0], box[3] - 1 - box[1]
    over, under = above // _BIN, above // _BIN + 1
    outer = (*_covering(y, h, height), *_covering(x, w, width))
    inner = (*_within(y, h), *_within(x, w))

    at_least = _corners(pixels, over * _BIN)
    upper = np.minimum(_count(at_least, outer), _count(at_least, inner) + w * h - _area(inner))
    at_least = _corners(pixels, under * _BIN)  # no pixel reaches a bin beyond the last one
    lower = np.maximum(_count(at_least, outer) - _area(outer) + w * h, _count(at_least, inner))
    dropped = upper <= more_than
    return ReleasedFilter(lower, upper, dropped, ~dropped & (lower > more_than))


def _covering(start: int, length: int, side: int) -> tuple[int, int]:
    """The cells [first, last) that cover a stretch, which starts from 1."""
    return (start - 1) // CELL, min(-(-(start + length) // CELL), side // CELL)


def _within(start: int, length: int) -> tuple[int, int]:
    """The cells [first, last) that lie inside a stretch; as released, last < first where it lies inside one cell."""
    return -(-(start - 1) // CELL), (start + length) // CELL


def _corners(pixels: NDArray[np.uint8], low: int) -> NDArray[np.int64]:
    """Pixels >= low above and to the left of each corner of the grid, (n, H / CELL + 1, W / CELL + 1)."""
    n, height, width = pixels.shape
    cells = (pixels >= low).reshape(n, height // CELL, CELL, width // CELL, CELL).sum(axis=(2, 4), dtype=np.int64)
    return np.pad(cells.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))


def _count(corners: NDArray[np.int64], cells: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """The count in cells [top, bottom) x [left, right), as a difference of corners whichever of them comes first."""
    top, bottom, left, right = cells
    found: NDArray[np.int64] = (
        corners[:, bottom, right] - corners[:, bottom, left] - corners[:, top, right] + corners[:, top, left]
    )
    return found


def _area(cells: tuple[int, int, int, int]) -> int:
    top, bottom, left, right = cells
    return (bottom - top) * (right - left) * CELL * CELL
