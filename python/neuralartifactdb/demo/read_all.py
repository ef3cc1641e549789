"""The other way to ask about masks: NumPy over every pixel of every map.

What users do today, done well: all maps lie in one file, which each question loads; they are compared map by map so
that intermediate results stay in the processor's cache, and counted by NumPy's fastest means. The demo times it beside
each answer, the file in the operating system's memory. (Issue 3: the demo grows, "milliseconds against reading all".)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ReadAll"]


class ReadAll:
    """Answers by brute force, outside the database.

    Args:
        path: of an .npy file, (m n, H, W) uint8: the maps of the first model, then of the next, each in input order.
        boxes: (m n, 4) int32: x0, y0, x1, y1 inside the map, half-open.
        input_ids: (n,) int64, ascending.
    """

    def __init__(self, path: Path, boxes: NDArray[np.int32], input_ids: NDArray[np.int64]) -> None:
        self._path = path
        self._boxes = boxes
        self._input_ids = input_ids

    def share_below(self, low: int, threshold: float) -> tuple[NDArray[np.int64], float]:
        """Ids of the maps of whose pixels >= low less than a share lies in the box, and the seconds that it took."""
        start = time.perf_counter()
        found = np.flatnonzero(self._shares(low) < threshold)  # NaN, a map without such pixels, is never less
        return found, time.perf_counter() - start

    def smallest_shares(self, low: int, k: int) -> tuple[NDArray[np.int64], float]:
        """Ids of the k maps with the smallest of these shares, and the seconds that it took."""
        start = time.perf_counter()
        found = np.argsort(self._shares(low), kind="stable")[:k]  # NaN comes last
        return found, time.perf_counter() - start

    def smallest_iou(self, low: int, k: int) -> tuple[NDArray[np.int64], float]:
        """Input ids where the pixels >= low of all models overlap least, and the seconds that it took."""
        start = time.perf_counter()
        n = len(self._input_ids)
        pixels = self._load()
        models = pixels.reshape(-1, n, *pixels.shape[1:])
        both, either = np.empty(n), np.empty(n)
        for i in range(n):
            high = models[:, i] >= low
            both[i] = np.count_nonzero(np.logical_and.reduce(high))
            either[i] = np.count_nonzero(np.logical_or.reduce(high))
        with np.errstate(invalid="ignore"):
            order = np.argsort(both / either, kind="stable")[:k]
        return self._input_ids[order], time.perf_counter() - start

    def more_in_box(self, box: tuple[int, int, int, int], low: int, more_than: int) -> tuple[NDArray[np.int64], float]:
        """Ids of the maps with more than so many pixels >= low in a box, and the seconds that it took."""
        start = time.perf_counter()
        x0, y0, x1, y1 = box
        in_box = self._load()[:, y0:y1, x0:x1]
        found = np.flatnonzero(np.count_nonzero(in_box >= low, axis=(1, 2)) > more_than)
        return found, time.perf_counter() - start

    def loading(self) -> float:
        """The seconds that loading the file takes, a part of every question's."""
        start = time.perf_counter()
        self._load()
        return time.perf_counter() - start

    def _load(self) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.load(self._path)
        return pixels

    def _shares(self, low: int) -> NDArray[np.float64]:
        pixels = self._load()
        inside, whole = np.empty(len(pixels)), np.empty(len(pixels))
        for i, (x0, y0, x1, y1) in enumerate(self._boxes.tolist()):
            high = pixels[i] >= low
            whole[i] = np.count_nonzero(high)
            inside[i] = np.count_nonzero(high[y0:y1, x0:x1])
        with np.errstate(invalid="ignore"):
            shares: NDArray[np.float64] = inside / whole
        return shares
