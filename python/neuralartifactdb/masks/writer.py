"""Turns batches of masks into segments: pixels go to disk as they come, histograms block by block, attributes last.

Memory is bounded by one block of the index and the batch. Nothing counts before the version that names the segments is
committed, so one append is all or nothing. Implements the build of design section 5 in the layout of docs/FORMAT.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.masks.batch import INDEX_BLOCK, MISSING_BOX, RESERVED_COLUMNS, CollectionMeta, MaskBatch
from neuralartifactdb.masks.columns import joined
from neuralartifactdb.storage.arrays import ArrayWriter, SegmentRef, SegmentWriter
from neuralartifactdb.storage.directory import WriteTransaction
from neuralartifactdb.storage.tables import write_table

__all__ = [
    "MAX_MASKS",
    "MAX_PIXEL_BYTES",
    "TABLE",
    "MaskAppender",
    "index_block_bytes",
    "pixel_block_bytes",
    "write_deletes",
    "write_index_rows",
]

MAX_PIXEL_BYTES = 256 << 20
MAX_MASKS = 1 << 16

#: Name of the raw file with the attributes.
TABLE = "table.parquet"

_PIXEL_BLOCK = 4 << 10
_LONGEST_PIXEL_BLOCK = 64 << 10
_INDEX_ROW_BLOCK = 128 << 10


class MaskAppender:
    """Writes one append's masks as segments.

    Args:
        transaction: holds the writer's lock; what it never commits, it removes.
        meta: of the collection; grid and edges are chosen already, unless the masks get no index.

    Attributes:
        meta: the collection's, with `next_id` behind the masks added so far.

    Example:
        >>> appender = MaskAppender(transaction, meta)  # doctest: +SKIP
        >>> appender.add(batch)
        >>> refs = appender.finish()
        >>> transaction.commit([{"op": "add_mask_segments", "masks": name, "segments": refs,
        ...                      "meta": appender.meta.to_json()}])
    """

    def __init__(self, transaction: WriteTransaction, meta: CollectionMeta) -> None:
        self.meta = meta
        self._transaction = transaction
        self._segment: _OpenSegment | None = None
        self._refs: list[SegmentRef] = []
        self._closed = False

    def add(self, batch: MaskBatch) -> NDArray[np.int64]:
        """Write a batch; returns the ids of its masks, int64 (n,).

        Raises:
            DtypeError: pixels, ids or boxes of another dtype than stored.
            InvalidValueError: lengths that differ, pixels that are not 2-D and C-contiguous, a reserved column name.
        """
        self._check_open()
        self._check(batch)
        n, done = len(batch), 0
        first_id = self.meta.next_id
        try:
            while done < n:
                if self._segment is None:
                    self._segment = _OpenSegment(self._transaction, self.meta, batch, done)
                taken = self._segment.add(batch, done)
                done += taken
                self.meta = replace(self.meta, next_id=self.meta.next_id + taken)
                if done < n:
                    self._seal()
        except BaseException:
            self.abort()
            raise
        return np.arange(first_id, first_id + n, dtype=np.int64)

    def finish(self) -> list[SegmentRef]:
        """Make everything durable; returns the segments in order of mask id, none if no mask was added."""
        self._check_open()
        try:
            self._seal()
        except BaseException:
            self.abort()
            raise
        self._closed = True
        return self._refs

    def abort(self) -> None:
        """Give up; harmless after `finish` or `abort`. Segments already whole go when the transaction ends."""
        self._closed = True
        if self._segment is not None:
            self._segment.writer.abort()
            self._segment = None

    def _seal(self) -> None:
        if self._segment is not None:
            self._refs.append(self._segment.commit())
            self._segment = None

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValueError("this append was finished or aborted: start a new one")

    def _check(self, batch: MaskBatch) -> None:
        n, dtype = len(batch), self.meta.stored_dtype
        for i, mask in enumerate(batch.pixels):
            if mask.dtype != dtype:
                raise DtypeError(f"mask {i} of the batch has dtype {mask.dtype}, expected {dtype} as stored")
            if mask.ndim != 2 or not mask.flags.c_contiguous:
                raise InvalidValueError(
                    f"mask {i} of the batch must be 2-D and C-contiguous, got shape {mask.shape} "
                    f"with strides {mask.strides}"
                )
        if batch.input_ids.dtype != np.int64 or any(box.dtype != np.int32 for box in batch.boxes.values()):
            raise DtypeError("input_ids must be int64 and boxes int32")
        lengths = {"input_ids": batch.input_ids.shape} | {name: box.shape for name, box in batch.boxes.items()}
        lengths |= {name: values.shape for name, values in batch.attrs.items()}
        expected = {name: (n, 4) if name in batch.boxes else (n,) for name in lengths}
        if lengths != expected:
            raise InvalidValueError(f"the columns of a batch of {n} masks must have shapes {expected}, got {lengths}")
        taken = [name for name in batch.attrs if name.lower() in RESERVED_COLUMNS]
        if taken:
            raise InvalidValueError(f"attributes must not be called {list(RESERVED_COLUMNS)}, got {taken}")


class _OpenSegment:
    """One segment being written."""

    def __init__(self, transaction: WriteTransaction, meta: CollectionMeta, batch: MaskBatch, begin: int) -> None:
        self.meta = meta
        self.first = meta.next_id
        self.n = 0
        self.n_bytes = 0
        self.writer: SegmentWriter = transaction.new_segment("masks")
        shapes = batch.shapes[begin:]
        height, width = shapes[0].tolist() if (shapes == shapes[0]).all() else (0, 0)
        itemsize = meta.stored_dtype.itemsize
        self._pixels = self.writer.create_array(
            "pixels", meta.stored_dtype, block_bytes=pixel_block_bytes(height, width * itemsize)
        )
        self._index = None if meta.is_lazy or not meta.has_index else _IndexBlocks(self.writer, meta)
        self._shapes: list[NDArray[np.int32]] = []
        self._input_ids: list[NDArray[np.int64]] = []
        self._boxes: dict[str, list[NDArray[np.int32] | int]] = {}
        self._attrs: dict[str, list[NDArray[Any] | int]] = {}

    def add(self, batch: MaskBatch, begin: int) -> int:
        """Take as many masks as fit, from position `begin`; returns how many."""
        end = begin
        while end < len(batch) and self.n + end - begin < MAX_MASKS:
            n_bytes = batch.pixels[end].nbytes
            if self.n_bytes and self.n_bytes + n_bytes > MAX_PIXEL_BYTES:
                break
            self._pixels.write(batch.pixels[end])
            self.n_bytes += n_bytes
            end += 1
        shapes = batch.shapes[begin:end]
        if self._index is not None:
            self._index.add(batch.pixels[begin:end], shapes)
        self._shapes.append(shapes)
        self._input_ids.append(batch.input_ids[begin:end])
        for name, boxes in batch.boxes.items():
            self._boxes.setdefault(name, [self.n] if self.n else []).append(boxes[begin:end])
        for name, values in batch.attrs.items():
            self._attrs.setdefault(name, [self.n] if self.n else []).append(values[begin:end])
        n = end - begin
        for absent in self._boxes.keys() - batch.boxes.keys():
            self._boxes[absent].append(n)
        for absent in self._attrs.keys() - batch.attrs.keys():
            self._attrs[absent].append(n)
        self.n += n
        return n

    def commit(self) -> SegmentRef:
        """Write what is kept until the end, and make the segment durable."""
        writer = self.writer
        self._pixels.close()
        shapes = np.concatenate(self._shapes)
        uniform = bool((shapes == shapes[0]).all())
        if not uniform:
            writer.add_array("shapes", shapes)
        writer.add_array("input_id", np.concatenate(self._input_ids))
        if self._boxes:
            writer.add_array("boxes", np.stack([_joined_boxes(parts) for parts in self._boxes.values()], axis=1))
        if self._index is not None:
            self._index.finish()
            writer.add_array("edges", np.array(self.meta.edges, dtype=np.float64))
        if self._attrs:
            with writer.create_file(TABLE) as out:
                columns = {name: joined(parts, nulls_as_nan=False) for name, parts in self._attrs.items()}
                out.write(write_table(columns))
        return writer.commit(
            {
                "first": self.first,
                "n": self.n,
                "dtype": self.meta.dtype,
                "shape": shapes[0].tolist() if uniform else None,
                "boxes": list(self._boxes),
                "columns": list(self._attrs),
                "grid": 0 if self._index is None else self.meta.grid,
                "n_edges": 0 if self._index is None else len(self.meta.edges),
            }
        )


class _IndexBlocks:
    """The array `histograms`, a block of `INDEX_BLOCK` masks in memory at a time."""

    def __init__(self, writer: SegmentWriter, meta: CollectionMeta) -> None:
        self._writer = writer
        self._meta = meta
        self._edges = np.array(meta.edges, dtype=np.float64)
        self._cells = meta.grid * meta.grid
        self._block = np.empty((len(meta.edges), INDEX_BLOCK, self._cells), dtype=np.uint8)
        self._filled = 0
        self._out: ArrayWriter | None = None

    def add(self, pixels: list[NDArray[Any]], shapes: NDArray[np.int32]) -> None:
        at = 0
        while at < len(pixels):
            k = min(len(pixels) - at, INDEX_BLOCK - self._filled)
            rows = np.empty((len(self._edges), k, self._cells), dtype=np.uint8)
            _core.mask_histograms(
                pixels[at : at + k],
                self._meta.native,
                np.ascontiguousarray(shapes[at : at + k]),
                self._edges,
                self._meta.grid,
                self._meta.nodata,
                rows,
            )
            self._block[:, self._filled : self._filled + k] = rows
            self._filled += k
            at += k
            if self._filled == INDEX_BLOCK:
                self._flush()

    def finish(self) -> None:
        if self._filled:
            self._flush()
        if self._out is not None:
            self._out.close()

    def _flush(self) -> None:
        if self._out is None:
            block_bytes = index_block_bytes(self._filled, self._cells)
            self._out = self._writer.create_array("histograms", np.uint8, block_bytes=block_bytes)
        self._out.write(np.ascontiguousarray(self._block[:, : self._filled]))
        self._filled = 0


def pixel_block_bytes(height: int, row_bytes: int) -> int:
    """Bytes per checksum of pixels: whole rows within 4 KiB, at least one row, never above 64 KiB.

    A region that begins or ends inside a block costs the whole block, so small blocks read less. Where a slightly
    smaller block ends where the masks end, it is taken: a read of a mask then touches no neighbour.

    Args:
        height: of every mask; 0 if they differ.
        row_bytes: of every mask; 0 if they differ.
    """
    if not height or not row_bytes:
        return _PIXEL_BLOCK
    if row_bytes > _LONGEST_PIXEL_BLOCK:
        return _LONGEST_PIXEL_BLOCK
    most = max(_PIXEL_BLOCK // row_bytes, 1)
    if most >= height:
        return most // height * height * row_bytes
    aligned = next(rows for rows in range(most, 0, -1) if height % rows == 0)
    return (aligned if 2 * aligned >= most else most) * row_bytes


def index_block_bytes(n: int, cells: int) -> int:
    """Bytes per checksum of histograms: one edge of one block of n masks, or an even part of it near 128 KiB."""
    row = max(n * cells, 1)
    while row > _INDEX_ROW_BLOCK and row % 2 == 0:
        row //= 2
    return row if row <= 8 * _INDEX_ROW_BLOCK else _INDEX_ROW_BLOCK


def write_index_rows(
    transaction: WriteTransaction,
    meta: CollectionMeta,
    first: int,
    ids: NDArray[np.int64],
    rows: NDArray[np.uint8],
) -> SegmentRef:
    """Write index rows that queries filled in, as a segment of kind "mask_index".

    Args:
        transaction: to write in; commit op "add_mask_index" with the segment.
        meta: of the collection.
        first: first mask id of the segment that the masks belong to.
        ids: int64 (k,), their positions in that segment, ascending.
        rows: uint8 (B, k, g*g).
    """
    cells = meta.grid * meta.grid
    expected = (len(meta.edges), len(ids), cells)
    if rows.shape != expected or rows.dtype != np.uint8 or not len(ids):
        raise InvalidValueError(f"rows must be uint8 {expected} for 1 or more masks, got {rows.dtype} {rows.shape}")
    if ids[0] < 0 or (np.diff(ids) <= 0).any():
        raise InvalidValueError("ids of index rows must be positions in a segment, ascending and distinct")
    writer = transaction.new_segment("mask_index")
    writer.add_array("ids", ids.astype(np.int64))
    writer.add_array("edges", np.array(meta.edges, dtype=np.float64))
    block_bytes = index_block_bytes(min(len(ids), INDEX_BLOCK), cells)
    with writer.create_array("histograms", np.uint8, block_bytes=block_bytes) as out:
        for begin in range(0, len(ids), INDEX_BLOCK):
            out.write(np.ascontiguousarray(rows[:, begin : begin + INDEX_BLOCK]))
    return writer.commit({"of": int(first), "n": len(ids), "grid": meta.grid, "n_edges": len(meta.edges)})


def write_deletes(transaction: WriteTransaction, ids: NDArray[np.int64]) -> SegmentRef:
    """Write tombstones, a segment of kind "mask_deletes"; they count with op "delete_masks" or "add_mask_segments".

    Args:
        transaction: to write in.
        ids: int64 (k,), mask ids, in any order.
    """
    writer = transaction.new_segment("mask_deletes")
    writer.add_array("ids", np.unique(ids.astype(np.int64)))
    return writer.commit({"n": len(np.unique(ids))})


def _joined_boxes(parts: list[NDArray[np.int32] | int]) -> NDArray[np.int32]:
    """Boxes of one name; a part that is a number lacks so many."""
    return np.concatenate(
        [np.full((part, 4), MISSING_BOX, np.int32) if isinstance(part, int) else part for part in parts]
    )
