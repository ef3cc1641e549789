"""Writes segments: streams of bytes become immutable, checksummed arrays on disk.

A segment is a directory of `.npy` arrays (and raw files such as Parquet) with a manifest and one CRC-32 per block. It
is written under a temporary name and renamed when everything in it is durable, so a final name is a promise. Implements
"immutable segments" of design section 6; `reader` reads them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.storage import io, npy
from neuralartifactdb.storage.checksums import BlockChecksums, crc32, n_blocks
from neuralartifactdb.storage.manifest import (
    CHECKSUMS_NAME,
    MANIFEST_NAME,
    SEGMENTS_NAME,
    TEMPORARY_PREFIX,
    ArrayEntry,
    Manifest,
    SegmentRef,
    check_file_name,
)
from neuralartifactdb.storage.reader import SegmentReader
from neuralartifactdb.storage.sealed import seal

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "ArrayWriter",
    "SegmentReader",
    "SegmentRef",
    "SegmentWriter",
    "new_segment_id",
    "segment_nbytes",
]

DEFAULT_BLOCK_BYTES = 64 << 10

_GATHER_BYTES = 256 << 10  # small writes are gathered up to this before they reach the disk


def new_segment_id() -> str:
    """A fresh id, 16 random hexadecimal digits: never reused, so caches need no invalidation."""
    return secrets.token_hex(8)


def segment_nbytes(arrays: Sequence[tuple[int, int]], meta_allowance: int = 4096) -> int:
    """Bytes that a segment of these arrays takes on disk, headers and checksums included.

    Args:
        arrays: Per array the bytes of its data and the size of its blocks.
        meta_allowance: Bytes for `segment.json`: about 150, 140 per array, and the metadata. Everything else is exact.
    """
    data = sum(npy.HEADER_BYTES + nbytes for nbytes, _ in arrays)
    checksums = npy.HEADER_BYTES + 4 * sum(n_blocks(nbytes, block_bytes) for nbytes, block_bytes in arrays)
    return data + checksums + meta_allowance


class ArrayWriter:
    """One array (or raw file) of a segment being written. Made by `SegmentWriter`; as a context manager it closes.

    Attributes:
        name: The array's name.
        nbytes: Bytes of data written so far.
    """

    def __init__(
        self, path: str, name: str, dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None, block_bytes: int
    ) -> None:
        self.name = name
        self.nbytes = 0
        self._dtype = dtype
        self._shape = shape
        self._data_at = 0 if dtype is None else npy.HEADER_BYTES
        self._limit = None if shape is None or dtype is None else npy.shape_nbytes(dtype, shape)
        self._checksums = BlockChecksums(block_bytes)
        self._gathered = bytearray()
        self._closed = False
        self._failed = False
        self._file = io.FileWriter(path)

    def write(self, data: npt.NDArray[Any] | io.Buffer) -> None:
        """Append: an array of the array's own dtype (flattened in C order), or raw bytes.

        Raises:
            DtypeError: An array of another dtype (uint8 counts as raw bytes).
            InvalidValueError: Not C-contiguous, beyond the declared shape, or already closed.
        """
        if self._closed:
            raise InvalidValueError(f"array {self.name!r} is closed: nothing can be written to it any more")
        view = self._bytes_of(data)
        n = view.nbytes
        if self._limit is not None and self.nbytes + n > self._limit:
            raise InvalidValueError(
                f"array {self.name!r} of shape {self._shape} takes {self._limit} bytes, got {self.nbytes + n}"
            )
        try:
            self._checksums.update(view)
            self.nbytes += n
            if len(self._gathered) + n < _GATHER_BYTES:
                self._gathered += view
                return
            self._flush(self.nbytes - n)
            self._file.pwrite(view, self._data_at + self.nbytes - n)
        except BaseException:  # what is on disk is not known any more
            self.discard()
            raise

    def close(self) -> None:
        """Write what is left and the header, and make the file durable; harmless when closed.

        Raises:
            InvalidValueError: The bytes written are not those of the declared shape, or not whole elements.
        """
        if self._failed:
            raise InvalidValueError(f"array {self.name!r} was not written completely: abort its segment")
        if self._closed:
            return
        entry = self.entry(0)
        if self._dtype is not None and npy.shape_nbytes(self._dtype, entry.shape) != self.nbytes:
            expected = npy.shape_nbytes(self._dtype, entry.shape)
            raise InvalidValueError(
                f"array {self.name!r} of dtype {self._dtype} and shape {entry.shape} takes {expected} bytes, "
                f"got {self.nbytes}"
            )
        try:
            self._flush(self.nbytes)
            if self._data_at:
                self._file.pwrite(entry.header(), 0)
            self._file.fsync()
        except BaseException:
            self.discard()
            raise
        self._closed = True
        self._file.close()

    def discard(self) -> None:
        """Close the file as it is; unless it was closed properly, its segment can only be aborted."""
        self._failed |= not self._closed
        self._closed = True
        self._file.close()

    def entry(self, first_checksum: int) -> ArrayEntry:
        """What the manifest says of the array, as far as it is written."""
        shape = self._shape
        if shape is None:
            shape = (self.nbytes // (1 if self._dtype is None else self._dtype.itemsize),)
        return ArrayEntry(self.name, self._dtype, shape, self.nbytes, self._checksums.block_bytes, first_checksum)

    def checksums(self) -> npt.NDArray[np.uint32]:
        """Checksums of all blocks; nothing may be written after."""
        return np.array(self._checksums.finish(), np.uint32)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _bytes_of(self, data: npt.NDArray[Any] | io.Buffer) -> memoryview:
        if not isinstance(data, np.ndarray):
            view = memoryview(data)
            return view.cast("B") if view.nbytes else memoryview(b"")
        if self._dtype is not None and data.dtype not in (self._dtype, np.dtype(np.uint8)):
            raise DtypeError(f"array {self.name!r} has dtype {self._dtype}, got {data.dtype}: cast it first")
        if not data.flags.c_contiguous:
            raise InvalidValueError(
                f"array {self.name!r}: got data with strides {data.strides}, expected C-contiguous data"
            )
        return data.reshape(-1).view(np.uint8).data if data.nbytes else memoryview(b"")

    def _flush(self, end: int) -> None:
        """Write the gathered bytes, which end at byte `end` of the data."""
        if self._gathered:
            self._file.pwrite(self._gathered, self._data_at + end - len(self._gathered))
            self._gathered = bytearray()


class SegmentWriter:
    """Writes one segment. As a context manager it aborts unless committed.

    Args:
        db_dir: The database directory; `segments` is created in it if missing.
        segment_id: From `new_segment_id`.
        kind: What it is a segment of.

    Example:
        >>> writer = SegmentWriter(path, new_segment_id(), kind="activations")  # doctest: +SKIP
        >>> codes = writer.create_array("codes", np.uint8, block_bytes=4096)
        >>> codes.write(packed)
        >>> ref = writer.commit({"first": 0, "n": 1000})
    """

    def __init__(self, db_dir: str | os.PathLike[str], segment_id: str, *, kind: str = "activations") -> None:
        self.id = segment_id
        self.kind = kind
        self.ref: SegmentRef | None = None
        self._parent = os.path.join(os.fspath(db_dir), SEGMENTS_NAME)
        self._temporary = os.path.join(self._parent, TEMPORARY_PREFIX + segment_id)
        self._final = os.path.join(self._parent, segment_id)
        self._arrays: dict[str, ArrayWriter] = {}
        self._closed = False
        io.make_dirs(self._parent)
        io.mkdir(self._temporary)

    def create_array(
        self,
        name: str,
        dtype: npt.DTypeLike,
        shape: tuple[int, ...] | None = None,
        *,
        block_bytes: int = DEFAULT_BLOCK_BYTES,
    ) -> ArrayWriter:
        """Start an array; several may be open at once.

        Args:
            name: Lower-case letters, digits, underscores.
            dtype: bool, integer or float of at most 64 bits.
            shape: At most three extents; None for a 1-D array whose length is known at commit.
            block_bytes: Bytes per checksum: what the smallest read is to be.
        """
        return self._create(
            name, npy.check_dtype(dtype), None if shape is None else npy.check_shape(shape), block_bytes
        )

    def create_file(self, name: str, *, block_bytes: int = 1 << 62) -> ArrayWriter:
        """Start a raw file, such as `table.parquet`; by default it has one checksum for the whole."""
        return self._create(name, None, None, block_bytes)

    def _create(
        self, name: str, dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None, block_bytes: int
    ) -> ArrayWriter:
        self._check_open()
        file = check_file_name(name) if dtype is None else f"{check_file_name(name)}.npy"
        if block_bytes < 1:
            raise InvalidValueError(f"block_bytes must be 1 or more, got {block_bytes}")
        taken = {CHECKSUMS_NAME, MANIFEST_NAME, *(writer.entry(0).file for writer in self._arrays.values())}
        if name in self._arrays or file in taken or (dtype is not None and "." in name):
            raise InvalidValueError(f"array name {name!r} is taken or has a dot; taken are the files {sorted(taken)}")
        writer = ArrayWriter(os.path.join(self._temporary, file), name, dtype, shape, block_bytes)
        self._arrays[name] = writer
        return writer

    def add_array(self, name: str, values: npt.NDArray[Any], *, block_bytes: int = DEFAULT_BLOCK_BYTES) -> None:
        """Write a whole array."""
        with self.create_array(name, values.dtype, values.shape, block_bytes=block_bytes) as out:
            out.write(np.ascontiguousarray(values))

    @property
    def nbytes(self) -> int:
        """Bytes of data written so far, without headers, checksums and manifest."""
        return sum(writer.nbytes for writer in self._arrays.values())

    def commit(self, meta: dict[str, Any]) -> SegmentRef:
        """Make everything durable and give the segment its final name.

        It counts only once a version file refers to it. `meta` holds JSON values. On any error the segment can only be
        aborted.
        """
        self._check_open()
        entries: dict[str, ArrayEntry] = {}
        checksums: list[npt.NDArray[np.uint32]] = []
        position = 0
        for name, writer in self._arrays.items():
            writer.close()
            entries[name] = writer.entry(position)
            checksums.append(writer.checksums())
            position += len(checksums[-1])
        table = np.concatenate([np.empty(0, np.uint32), *checksums]).astype("<u4")
        table_bytes = npy.header(table.dtype, table.shape) + table.tobytes()
        manifest = Manifest(self.id, self.kind, meta, entries, crc32(table_bytes))
        manifest_bytes = seal(manifest.to_json())
        io.create(os.path.join(self._temporary, CHECKSUMS_NAME), table_bytes)
        io.create(os.path.join(self._temporary, MANIFEST_NAME), manifest_bytes)
        io.fsync_dir(self._temporary)
        io.rename(self._temporary, self._final)
        self._closed = True
        io.fsync_dir(self._parent)
        nbytes = (
            sum(entry.data_at + entry.nbytes for entry in entries.values()) + len(table_bytes) + len(manifest_bytes)
        )
        self.ref = SegmentRef(self.id, nbytes, crc32(manifest_bytes))
        return self.ref

    def abort(self) -> None:
        """Remove what was written; does nothing after `commit` or `abort`."""
        if self._closed:
            return
        self._closed = True
        for writer in self._arrays.values():
            writer.discard()
        io.remove_tree(self._temporary)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValueError(f"segment {self.id} is {'committed' if self.ref else 'aborted'}: start a new one")

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the next writer removes what could not be removed
            self.abort()
