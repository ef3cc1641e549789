"""Brute force over masks, as plain as it can be: what every query over masks must equal, bit for bit.

NumPy's own comparisons on whole masks and Python floats; nothing of the package is imported. None is NULL. Implements
design section 5 a second time; formulas and ranking are those of `oracle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


def in_range(mask: NDArray[Any], low: Any, high: Any, equals: Any, nodata: float | None) -> NDArray[np.bool_]:
    """Pixels with low <= value < high, or == equals, that are not nodata; compared as NumPy compares the dtype."""
    chosen = np.ones(mask.shape, dtype=bool)
    with np.errstate(over="ignore"):
        if equals is not None:
            chosen &= mask == equals
        if low is not None:
            chosen &= mask >= low
        if high is not None:
            chosen &= mask < high
    if nodata is not None:
        chosen &= ~np.isnan(mask.astype(float)) & (mask.astype(float) != nodata)
    return chosen


def in_box(shape: Sequence[int], box: Box) -> NDArray[np.bool_]:
    """Pixels of a box."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)


def count(
    mask: NDArray[Any],
    box: Box | None,
    low: Any = None,
    high: Any = None,
    equals: Any = None,
    nodata: float | None = None,
) -> float | None:
    """Pixels of a box in the range; NULL without a box."""
    if box is None:
        return None
    return float((in_box(mask.shape, box) & in_range(mask, low, high, equals, nodata)).sum())


def area(mask: NDArray[Any], box: Box | None) -> float | None:
    """Pixels of a box inside the mask; NULL without a box."""
    return None if box is None else float(in_box(mask.shape, box).sum())


def everywhere(mask: NDArray[Any]) -> Box:
    """The whole mask as a box."""
    return (0, 0, mask.shape[1], mask.shape[0])
