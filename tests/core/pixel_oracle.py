"""What the core's mask functions should say, pixel by pixel in plain NumPy and Python; shares no code with them.

Also the Hypothesis strategies of masks that the tests of the core draw from (design.md, section 5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

__all__ = [
    "DTYPES",
    "cells_of",
    "in_range",
    "masks_of",
    "pixel_values",
    "shapes_of",
    "step_of",
    "thresholds",
    "valid_pixels",
]

Mask = npt.NDArray[Any]
DTYPES = ["uint8", "uint16", "float16", "float32"]
EDGE_VALUES: dict[str, list[float]] = {
    "uint8": [0, 1, 2, 127, 128, 254, 255],
    "uint16": [0, 1, 255, 256, 32767, 32768, 65534, 65535],
    "float16": [-0.0, 0.0, 6e-8, -6e-8, 1.0, -1.0, 0.7, 0.5, 65504.0, -65504.0],
    "float32": [-0.0, 0.0, 1e-45, -1e-45, 1.0, -1.0, 0.7, 0.5, 3.4e38, -3.4e38],
}


def pixel_values(dtype: str) -> st.SearchStrategy[float]:
    """Values that pixels of the dtype can have, as Python numbers."""
    special = st.sampled_from([np.dtype(dtype).type(v).item() for v in EDGE_VALUES[dtype]])
    if dtype.startswith("uint"):
        return special | st.integers(0, int(np.iinfo(dtype).max))
    return special | st.floats(0.0, 1.0, width=16 if dtype == "float16" else 32)


def thresholds(dtype: str) -> st.SearchStrategy[float]:
    """Thresholds on and between values, some beyond the dtype."""
    beyond = st.sampled_from([-1e300, -1.0, -5e-324, 5e-324, 0.7, 255.5, 256.0, 65535.5, 65536.0, 1e300])
    return pixel_values(dtype).map(float) | beyond


@st.composite
def masks_of(draw: st.DrawFn, dtype: str, most_side: int = 40, most_masks: int = 4) -> list[Mask]:
    """Masks of various sizes, values few enough to meet thresholds; sometimes all equal."""
    n = draw(st.integers(1, most_masks))
    alike = draw(st.booleans())
    palette = draw(st.lists(pixel_values(dtype), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = st.integers(1, most_side)
    shape = (draw(side), draw(side))
    masks = []
    for _ in range(n):
        masks.append(rng.choice(np.array(palette, dtype), shape))
        shape = shape if alike else (draw(side), draw(side))
    return masks


def shapes_of(masks: list[Mask]) -> npt.NDArray[np.int32]:
    """int32 (n, 2)."""
    return np.array([m.shape for m in masks], np.int32).reshape(-1, 2)


def valid_pixels(mask: Mask, nodata: float | None) -> npt.NDArray[np.bool_]:
    """Where a pixel is neither NaN nor nodata."""
    values = mask.astype(np.float64)
    valid = ~np.isnan(values)
    if nodata is not None:
        valid &= values != nodata
    return valid


def in_range(mask: Mask, low: float | None, high: float | None, nodata: float | None = None) -> npt.NDArray[np.bool_]:
    """Where low <= pixel < high."""
    values = mask.astype(np.float64)
    inside = valid_pixels(mask, nodata)
    if low is not None:
        inside &= values >= low
    if high is not None:
        inside &= values < high
    return inside


def cells_of(shape: tuple[int, int], grid: int) -> list[tuple[slice, slice]]:
    """Row and column slices of the grid's cells, row-major."""
    rows = [slice(i * shape[0] // grid, (i + 1) * shape[0] // grid) for i in range(grid)]
    columns = [slice(j * shape[1] // grid, (j + 1) * shape[1] // grid) for j in range(grid)]
    return [(r, c) for r in rows for c in columns]


def step_of(shape: tuple[int, int], grid: int) -> int:
    """How many pixels one step of a stored byte stands for."""
    return max(1, -(-(-(-shape[0] // grid) * -(-shape[1] // grid)) // 255))
