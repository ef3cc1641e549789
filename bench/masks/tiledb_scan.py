"""Competitor: TileDB, a dense array of masks, plain and compressed with Zstandard.

Slices of the box are read in batches and counted with NumPy. Tiles are 16 masks by half of the side, between
whole sides, the fastest warm of the shapes tried, and quarters, which read less. A box per mask has no slice of its
own: batches read what their boxes cover.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import tiledb
from numpy.typing import NDArray

from bench.masks.answers import Answer
from bench.masks.counting import count_boxes, count_pairs
from bench.masks.numpy_scan import answer_of_scores, scores_of_counts
from bench.masks.queries import Question
from bench.masks.workloads import CHUNK, Workload
from bench.page_cache import files_under

__all__ = ["TiledbScan"]

_MASKS_PER_TILE = 16
_TILES_PER_SIDE = 2
_BATCH_BYTES = 64 << 20


class TiledbScan:
    """An array of the workload, made when missing.

    Args:
        workload: whose masks.
        folder: where the array is.
        compressed: whether tiles are compressed.
    """

    def __init__(self, workload: Workload, folder: Path, *, compressed: bool) -> None:
        self.name = "TileDB, zstd" if compressed else "TileDB, plain"
        self._workload = workload
        self._path = folder / f"{workload.name}{'-zstd' if compressed else ''}.tiledb"
        self._array: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        if not self._path.exists():
            partial = self._path.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            self._load(partial, compressed)
            partial.rename(self._path)
        self.seconds = time.perf_counter() - start
        self.open()

    def open(self) -> None:
        """Opens the array with a context, and so with caches, of its own."""
        self._array = tiledb.open(str(self._path), "r", ctx=tiledb.Ctx())

    def close(self) -> None:
        """Closes it."""
        if self._array is not None:
            self._array.close()
            self._array = None

    def files(self) -> list[Path]:
        """The files of the array."""
        return list(files_under(self._path))

    def delete(self) -> None:
        """Removes the array."""
        self.close()
        shutil.rmtree(self._path)

    def answer(self, question: Question) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        workload = self._workload
        n, half = workload.n_masks, workload.n_inputs
        if question.kind == "top-25, both of two":
            counts = np.empty(half, dtype=np.int64)
            for first, last in self._batches(question, half):
                ones = self._inside(question, first, last)
                others = ones.copy()
                if first + half < n:
                    found = self._inside(question, first + half, min(last + half, n))
                    others[: len(found)] = found
                whole = (0, 0, ones.shape[2], ones.shape[1])
                counts[first:last] = count_pairs(ones, others, whole, question.low)
            return answer_of_scores(workload, question, counts.astype(np.float64), start)
        counts = np.empty(n, dtype=np.int64)
        for first, last in self._batches(question, n):
            if question.box is None:
                boxes = workload.boxes[first:last]
                x0, y0 = boxes[:, 0].min(), boxes[:, 1].min()
                pixels = self._array[first:last, y0 : boxes[:, 3].max(), x0 : boxes[:, 2].max()]
                moved = boxes - np.array([x0, y0, x0, y0], dtype=np.int32)
                counts[first:last] = count_boxes(pixels, moved, question.low)
            else:
                pixels = self._inside(question, first, last)
                whole = np.array([0, 0, pixels.shape[2], pixels.shape[1]], dtype=np.int32)
                counts[first:last] = count_boxes(pixels, whole, question.low)
        return answer_of_scores(workload, question, scores_of_counts(workload, question, counts), start)

    def _batches(self, question: Question, n: int) -> list[tuple[int, int]]:
        if question.box is None:
            step = CHUNK
        else:
            x0, y0, x1, y1 = question.box
            step = max(1, _BATCH_BYTES // ((x1 - x0) * (y1 - y0) * _MASKS_PER_TILE)) * _MASKS_PER_TILE
        return [(first, min(first + step, n)) for first in range(0, n, step)]

    def _inside(self, question: Question, first: int, last: int) -> NDArray[np.uint8]:
        assert question.box is not None
        x0, y0, x1, y1 = question.box
        pixels: NDArray[np.uint8] = self._array[first:last, y0:y1, x0:x1]
        return pixels

    def _load(self, path: Path, compressed: bool) -> None:
        workload = self._workload
        n, side = workload.n_masks, workload.side
        tile = -(-side // _TILES_PER_SIDE)
        dims = [
            tiledb.Dim(name, domain=(0, length - 1), tile=min(extent, length), dtype=np.int32)
            for name, length, extent in (("mask", n, _MASKS_PER_TILE), ("y", side, tile), ("x", side, tile))
        ]
        filters = tiledb.FilterList([tiledb.ZstdFilter(level=3)] if compressed else [])
        schema = tiledb.ArraySchema(domain=tiledb.Domain(*dims), attrs=[tiledb.Attr(dtype=np.uint8, filters=filters)])
        tiledb.Array.create(str(path), schema)
        step = max(1, _BATCH_BYTES // workload.mask_bytes // _MASKS_PER_TILE) * _MASKS_PER_TILE
        with tiledb.open(str(path), "w") as array:
            for first, pixels in workload.chunks(step):
                array[first : first + len(pixels)] = np.ascontiguousarray(pixels)
