"""One segment of masks: where its pixels, boxes, attributes and index rows are, read when they are asked for.

Index rows come one edge of one block at a time, pixels as whole rows of one mask, everything verified by the reader.
Rows that queries fill in (index="lazy") are kept here until they are sealed. Implements the layout of docs/FORMAT.md
and the index of design section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import FormatError, IdError, InvalidValueError
from neuralartifactdb.lazy_property import lazy_property
from neuralartifactdb.masks.batch import INDEX_BLOCK, MISSING_BOX, STORED_DTYPES
from neuralartifactdb.masks.filled_index import FilledIndex
from neuralartifactdb.masks.writer import TABLE
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.reader import SegmentReader
from neuralartifactdb.storage.tables import read_table

__all__ = ["MaskSegment"]


class MaskSegment:
    """Masks [first, first + n) of one collection.

    Args:
        reader: the segment's files.

    Attributes:
        first: id of the first mask.
        n: number of masks.
        dtype: of the collection.
        grid: cells along each axis of the index; 0 without one.
        n_edges: edges of the index; 0 without one.
        uniform_shape: (H, W) if all masks have it, else None.
        one_shape: the same as int32 (1, 2).
        box_names: names of the boxes that some mask has.
        column_names: names of the attributes that some mask has.
        pixel_nbytes: bytes of all pixels.
    """

    def __init__(self, reader: SegmentReader) -> None:
        meta = reader.meta
        self.reader = reader
        try:
            self.first = int(meta["first"])
            self.n = int(meta["n"])
            self.dtype = str(meta["dtype"])
            self.grid = int(meta["grid"])
            self.n_edges = int(meta["n_edges"])
            self.box_names: list[str] = list(meta["boxes"])
            self.column_names: list[str] = list(meta["columns"])
            shape = meta["shape"]
            self.uniform_shape: tuple[int, int] | None = None if shape is None else (int(shape[0]), int(shape[1]))
            self._item = STORED_DTYPES[self.dtype].itemsize
            self.pixel_nbytes = reader.arrays["pixels"].nbytes
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FormatError(
                f"segment {reader.ref.id}: got metadata {meta!r}, expected a segment of masks ({error!r})"
            ) from error
        self.one_shape = None if shape is None else np.array([self.uniform_shape], dtype=np.int32)
        self._own_index = self.n_edges > 0
        self._filled: FilledIndex | None = None
        self._mutex = Mutex()
        self._boxes: dict[str, NDArray[np.int32]] = {}
        if self.uniform_shape is not None:
            height, width = self.uniform_shape
            self._check_size(self.n * height * width)

    @property
    def last(self) -> int:
        """One past the last mask id."""
        return self.first + self.n

    @lazy_property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the index, ascending, float64 (B,); empty without one."""
        if self._filled is not None:
            return self._filled.edges
        if not self._own_index:
            return np.empty(0)
        edges = self.reader.array("edges").astype(np.float64)
        if edges.shape != (self.n_edges,):
            raise FormatError(f"segment {self.reader.ref.id}: got {edges.shape} edges, expected ({self.n_edges},)")
        return edges

    @lazy_property
    def shapes(self) -> NDArray[np.int32]:
        """Height and width of each mask, int32 (n, 2), C-contiguous."""
        if self.uniform_shape is not None:
            return np.tile(np.array(self.uniform_shape, dtype=np.int32), (self.n, 1))
        shapes = self.reader.array("shapes").astype(np.int32)
        if shapes.shape != (self.n, 2) or (shapes < 0).any():
            raise FormatError(
                f"segment {self.reader.ref.id}: got shapes of masks {shapes.shape}, expected ({self.n}, 2), 0 or more"
            )
        self._check_size(int(shapes.astype(np.int64).prod(axis=1).sum()))
        return shapes

    @lazy_property
    def input_ids(self) -> NDArray[np.int64]:
        """Input of each mask, int64 (n,)."""
        return self._column("input_id", (self.n,)).astype(np.int64, copy=False)

    def boxes(self, name: str) -> NDArray[np.int32]:
        """Boxes of one name, int32 (n, 4); four times -2**31 where there is none, so also for an unknown name."""
        found = self._boxes.get(name)
        if found is None:
            if name in self.box_names:
                every = self._column("boxes", (self.n, len(self.box_names), 4))
                found = np.ascontiguousarray(every[:, self.box_names.index(name)], dtype=np.int32)
            else:
                found = np.full((self.n, 4), MISSING_BOX, dtype=np.int32)
            found.flags.writeable = False
            self._boxes[name] = found
        return found

    @lazy_property
    def _table(self) -> dict[str, NDArray[Any]]:
        columns = read_table(self.reader.file(TABLE)) if TABLE in self.reader.arrays else {}
        lengths = {name: len(values) for name, values in columns.items()}
        if lengths != dict.fromkeys(self.column_names, self.n):
            raise FormatError(
                f"segment {self.reader.ref.id}: got columns of lengths {lengths}, expected {self.column_names} of "
                f"{self.n} values each"
            )
        return columns

    def columns(self) -> dict[str, NDArray[Any]]:
        """Attributes by name, 1-D arrays of n values as `storage.tables.read_table` gives them."""
        return dict(self._table)

    # ---- index -----------------------------------------------------------------------------------------------------

    def index_rows(self, edge: int, first: int, last: int) -> NDArray[np.uint8]:
        """Index rows of one edge: (last - first) * g * g bytes, mask after mask; zeros where `indexed` says False.

        Args:
            edge: position in `edges`.
            first: local position of the first mask.
            last: one past the last, in the same block of 2,048.
        """
        if not self._own_index:
            return self._lazy().rows(edge, first, last)
        return self.reader.read("histograms", *self._index_range(edge, first, last))

    def announce_index_rows(self, edges: Sequence[int], first: int, last: int) -> None:
        """Let the system fetch index rows of some edges, of masks in any blocks, that are not in memory."""
        if not (self._own_index and edges and first < last):
            return
        ranges = [
            self._index_range(edge, max(first, start), min(last, start + INDEX_BLOCK))
            for start in range(first // INDEX_BLOCK * INDEX_BLOCK, last, INDEX_BLOCK)
            for edge in edges
        ]
        self.reader.announce("histograms", np.array(ranges, dtype=np.int64))

    def _index_range(self, edge: int, first: int, last: int) -> tuple[int, int]:
        """Where index rows of one edge are, of masks of one block: offset and length."""
        block, at = divmod(first, INDEX_BLOCK)
        start = block * INDEX_BLOCK
        n = min(INDEX_BLOCK, self.n - start)
        if not (0 <= edge < self.n_edges and 0 <= at <= last - start <= n):
            raise InvalidValueError(
                f"edge {edge} of masks [{first}, {last}) must be one of {self.n_edges} edges, within one block of "
                f"{INDEX_BLOCK} of {self.n} masks"
            )
        cells = self.grid * self.grid
        return (start * self.n_edges + edge * n + at) * cells, (last - first) * cells

    def indexed(self) -> NDArray[np.bool_] | None:
        """Which masks have index rows, bool (n,); None if all have (`n_edges` > 0) or none has (`n_edges` == 0)."""
        return None if self._filled is None else self._filled.indexed()

    def adopt_index(self, grid: int, edges: Sequence[float]) -> None:
        """Say which grid and edges rows that queries fill in have; nothing changes for a segment with an index."""
        if self._own_index:
            return
        with self._mutex.lock:
            if self._filled is None:
                self._filled = FilledIndex(self.n, grid, np.array(edges, dtype=np.float64))
                self.__dict__.pop("edges", None)
                self.grid, self.n_edges = grid, len(edges)

    def add_index_rows(self, ids: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Keep index rows in memory until they are sealed; masks that have rows keep theirs.

        Args:
            ids: int64 (k,), local positions, distinct.
            rows: uint8 (B, k, g*g), as `_core.mask_histograms` fills it.
        """
        self._lazy().add(ids, rows)

    def load_index(self, reader: SegmentReader) -> None:
        """Take sealed index rows into account; what was in memory of them is let go. Harmless when done before."""
        if not self._own_index:
            self.adopt_index(int(reader.meta["grid"]), reader.array("edges").tolist())
            self._lazy().load(reader)

    def unsealed_index_rows(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
        """Rows that are only in memory: local positions, ascending, int64 (k,), and uint8 (B, k, g*g); or None."""
        return None if self._filled is None else self._filled.unsealed()

    def _lazy(self) -> FilledIndex:
        if self._filled is None:
            raise InvalidValueError(f"segment {self.reader.ref.id} of masks from {self.first} has no index to fill in")
        return self._filled

    # ---- pixels ----------------------------------------------------------------------------------------------------

    @lazy_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each mask's pixels begin in `pixels`, in bytes, int64 (n,)."""
        sizes = self.shapes.astype(np.int64).prod(axis=1) * self._item
        return np.asarray(np.cumsum(sizes) - sizes)

    @lazy_property
    def _geometry(self) -> tuple[list[int], list[int], list[int]]:
        """Per mask: offset in bytes, height, bytes of a row."""
        shapes = self.shapes.astype(np.int64)
        return self.offsets.tolist(), shapes[:, 0].tolist(), (shapes[:, 1] * self._item).tolist()

    def read_rows(
        self, ids: NDArray[np.int64], y0: NDArray[np.int32], y1: NDArray[np.int32]
    ) -> list[bytes | memoryview]:
        """Whole rows of pixels, verified; of each mask at most one read, and one read for neighbours.

        Args:
            ids: int64 (k,), local positions.
            y0: int32 (k,), first row of each.
            y1: int32 (k,), one past its last row, at most the height.

        Returns:
            k buffers, each with (y1 - y0) * width elements. They may share memory.
        """
        ranges: list[tuple[int, int]] = []
        append = ranges.append
        n, uniform = self.n, self.uniform_shape
        if uniform is not None:
            height, row = uniform[0], uniform[1] * self._item
            for i, a, b in zip(ids.tolist(), y0.tolist(), y1.tolist(), strict=True):
                if not (0 <= i < n and 0 <= a <= b <= height):
                    raise self._outside(i, a, b)
                append(((i * height + a) * row, (b - a) * row))
        else:
            offsets, heights, widths = self._geometry
            for i, a, b in zip(ids.tolist(), y0.tolist(), y1.tolist(), strict=True):
                if not (0 <= i < n and 0 <= a <= b <= heights[i]):
                    raise self._outside(i, a, b)
                row = widths[i]
                append((offsets[i] + a * row, (b - a) * row))
        return self.reader.read_spans("pixels", ranges)

    def _outside(self, i: int, a: int, b: int) -> Exception:
        if not 0 <= i < self.n:
            return IdError(f"masks of the segment from {self.first} must lie in [0, {self.n}), got {i}")
        height = int(self.shapes[i, 0])
        return InvalidValueError(f"rows of mask {self.first + i} must lie in [0, {height}], got [{a}, {b})")

    def _column(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        values = self.reader.array(name)
        if values.shape != shape:
            raise FormatError(f"segment {self.reader.ref.id}: got {name!r} of shape {values.shape}, expected {shape}")
        return values

    def _check_size(self, n_pixels: int) -> None:
        expected = n_pixels * self._item
        if self.pixel_nbytes != expected:
            raise FormatError(
                f"segment {self.reader.ref.id}: got {self.pixel_nbytes} bytes of pixels, expected {expected} for "
                f"{self.n} masks"
            )
