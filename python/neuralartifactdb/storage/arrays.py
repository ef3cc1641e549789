"""Segments on disk: written once, as streams, then only read, block by verified block.

A segment is a directory of `.npy` arrays (and raw files such as Parquet) with a manifest and one CRC-32 per block. It is written under a temporary
name and renamed when everything in it is durable, so a final name is a promise. Implements "immutable segments" and "all bytes come through one
`read(file, offset, length)`" of design section 6.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neuralartifactdb.errors import DtypeError, FormatError, InvalidValueError, UnknownNameError
from neuralartifactdb.storage import io, npy
from neuralartifactdb.storage.cache import BlockCache
from neuralartifactdb.storage.checksums import BlockChecksums, crc32, n_blocks
from neuralartifactdb.storage.manifest import (
    CHECKSUMS_NAME,
    MANIFEST_NAME,
    ArrayEntry,
    Manifest,
    SegmentRef,
    check_file_name,
)
from neuralartifactdb.storage.sealed import read_sealed, seal

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "SEGMENTS_NAME",
    "TEMPORARY_PREFIX",
    "ArrayWriter",
    "SegmentReader",
    "SegmentRef",
    "SegmentWriter",
    "new_segment_id",
    "segment_nbytes",
]

SEGMENTS_NAME = "segments"
TEMPORARY_PREFIX = "tmp-"
DEFAULT_BLOCK_BYTES = 64 << 10

_GATHER_BYTES = 256 << 10  # small writes are gathered up to this before they reach the disk
_RUN_BYTES = 16 << 20  # longest single read


def new_segment_id() -> str:
    """A fresh id, 16 random hexadecimal digits: never reused, so caches need no invalidation."""
    return secrets.token_hex(8)


def segment_nbytes(
    arrays: Sequence[tuple[npt.DTypeLike, int | tuple[int, ...], int]], meta_allowance: int = 4096
) -> int:
    """Bytes that a segment of these arrays takes on disk, headers and checksums included.

    Args:
        arrays: Per array its dtype (None for a raw file), its shape or number of bytes, and the size of its blocks.
        meta_allowance: Bytes for `segment.json`: about 160 per array and 150, besides the metadata. Everything else is exact.
    """
    total = checksums = 0
    for dtype, shape, block_bytes in arrays:
        nbytes = shape if isinstance(shape, int) else npy.shape_nbytes(np.dtype(dtype), shape)
        total += nbytes + (0 if dtype is None else npy.HEADER_BYTES)
        checksums += n_blocks(nbytes, block_bytes)
    return total + npy.HEADER_BYTES + 4 * checksums + meta_allowance


class ArrayWriter:
    """One array (or raw file) of a segment being written. Made by `SegmentWriter`.

    Attributes:
        name: The array's name.
        nbytes: Bytes of data written so far.
    """

    def __init__(
        self, path: str, name: str, dtype: np.dtype[np.generic] | None, shape: tuple[int, ...] | None, block_bytes: int
    ) -> None:
        self.name = name
        self.nbytes = 0
        self._dtype = dtype
        self._shape = shape
        self._data_at = 0 if dtype is None else npy.HEADER_BYTES
        self._checksums = BlockChecksums(block_bytes)
        self._gathered = bytearray()
        self._entry: ArrayEntry | None = None
        self._file = io.FileWriter(path)

    def write(self, data: npt.NDArray[Any] | io.Buffer) -> None:
        """Append: an array of the array's own dtype (flattened in C order), or raw bytes.

        Raises:
            DtypeError: An array of another dtype (uint8 counts as raw bytes).
            InvalidValueError: Not C-contiguous, beyond the declared shape, or already closed.
        """
        if self._entry is not None:
            raise InvalidValueError(f"array {self.name!r} is closed: nothing can be written to it any more")
        if isinstance(data, np.ndarray):
            if self._dtype is not None and data.dtype not in (self._dtype, np.dtype(np.uint8)):
                raise DtypeError(f"array {self.name!r} has dtype {self._dtype}, got {data.dtype}: cast it first")
            if not data.flags.c_contiguous:
                raise InvalidValueError(
                    f"array {self.name!r}: got data with strides {data.strides}, expected C-contiguous data"
                )
            if data.nbytes == 0:
                return
            view = memoryview(data.reshape(-1).view(np.uint8).data)
        else:
            view = memoryview(data)
            if view.nbytes == 0:
                return
            view = view.cast("B")
        n = view.nbytes
        if self._shape is not None and self._dtype is not None:
            expected = npy.shape_nbytes(self._dtype, self._shape)
            if self.nbytes + n > expected:
                raise InvalidValueError(
                    f"array {self.name!r} of shape {self._shape} takes {expected} bytes, got {self.nbytes + n}"
                )
        self._checksums.update(view)
        at = self._data_at + self.nbytes
        self.nbytes += n
        if len(self._gathered) + n < _GATHER_BYTES:
            self._gathered += view
            return
        if self._gathered:
            self._file.pwrite(self._gathered, at - len(self._gathered))
            self._gathered = bytearray()
        self._file.pwrite(view, at)

    def finish(self, first_checksum: int = 0) -> tuple[ArrayEntry, npt.NDArray[np.uint32]]:
        """Write what is left and the header, make the file durable, close it."""
        shape = self._shape
        if self._dtype is None:
            shape = (self.nbytes,)
        elif shape is None:
            shape = (self.nbytes // self._dtype.itemsize,)
        if self._dtype is not None and npy.shape_nbytes(self._dtype, shape) != self.nbytes:
            raise InvalidValueError(
                f"array {self.name!r} of dtype {self._dtype} and shape {shape} takes {npy.shape_nbytes(self._dtype, shape)} bytes, got {self.nbytes}"
            )
        checksums = np.array(self._checksums.finish(), np.uint32)
        entry = ArrayEntry(self.name, self._dtype, shape, self.nbytes, self._checksums.block_bytes, first_checksum)
        if self._gathered:
            self._file.pwrite(self._gathered, self._data_at + self.nbytes - len(self._gathered))
            self._gathered = bytearray()
        if self._data_at:
            self._file.pwrite(entry.header(), 0)
        self._file.fsync()
        self._file.close()
        self._entry = entry
        return entry, checksums

    def close(self) -> None:
        """Close the file without finishing it."""
        self._file.close()


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
        self, name: str, dtype: np.dtype[np.generic] | None, shape: tuple[int, ...] | None, block_bytes: int
    ) -> ArrayWriter:
        self._check_open()
        file = check_file_name(name) if dtype is None else f"{check_file_name(name)}.npy"
        if block_bytes < 1:
            raise InvalidValueError(f"block_bytes must be 1 or more, got {block_bytes}")
        if name in self._arrays or file in (CHECKSUMS_NAME, MANIFEST_NAME) or (dtype is not None and "." in name):
            raise InvalidValueError(f"array name {name!r} is taken or reserved; taken are {sorted(self._arrays)}")
        writer = ArrayWriter(os.path.join(self._temporary, file), name, dtype, shape, block_bytes)
        self._arrays[name] = writer
        return writer

    def add_array(self, name: str, values: npt.NDArray[Any], *, block_bytes: int = DEFAULT_BLOCK_BYTES) -> None:
        """Write a whole array."""
        self.create_array(name, values.dtype, values.shape, block_bytes=block_bytes).write(np.ascontiguousarray(values))

    @property
    def nbytes(self) -> int:
        """Bytes of data written so far, without headers, checksums and manifest."""
        return sum(writer.nbytes for writer in self._arrays.values())

    def commit(self, meta: dict[str, Any]) -> SegmentRef:
        """Make everything durable and give the segment its final name.

        It counts only once a version file refers to it. `meta` holds JSON values. On any error the segment can only be aborted.
        """
        self._check_open()
        entries: dict[str, ArrayEntry] = {}
        checksums: list[npt.NDArray[np.uint32]] = []
        position = 0
        for name, writer in self._arrays.items():
            entries[name], block_checksums = writer.finish(position)
            checksums.append(block_checksums)
            position += len(block_checksums)
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
            writer.close()
        io.remove_tree(self._temporary)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidValueError(f"segment {self.id} is {'committed' if self.ref else 'aborted'}: start a new one")

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the next writer removes what could not be removed
            self.abort()


class _OpenArray:
    """An array whose file was checked against the manifest."""

    __slots__ = ("base", "block_bytes", "checksums", "entry", "path")

    def __init__(self, entry: ArrayEntry, path: str, base: int, checksums: memoryview) -> None:
        self.entry = entry
        self.path = path
        self.base = base
        self.block_bytes = entry.block_bytes
        self.checksums = checksums


class SegmentReader:
    """Reads one segment; nothing is opened before it is asked for. Safe in threads and after a fork.

    Args:
        db_dir: The database directory.
        ref: What the version file says of the segment.
        cache: Where verified blocks are kept.

    Attributes:
        bytes_read: Bytes read from disk through this reader.
    """

    def __init__(self, db_dir: str | os.PathLike[str], ref: SegmentRef, cache: BlockCache) -> None:
        self.ref = ref
        self.bytes_read = 0
        self._cache = cache
        self._directory = os.path.join(os.fspath(db_dir), SEGMENTS_NAME, ref.id)
        self._manifest: Manifest | None = None
        self._manifest_nbytes = 0
        self._checksums: memoryview | None = None
        self._open: dict[str, _OpenArray] = {}

    @property
    def kind(self) -> str:
        """What it is a segment of."""
        return self.manifest.kind

    @property
    def meta(self) -> dict[str, Any]:
        """The metadata given at commit."""
        return self.manifest.meta

    @property
    def arrays(self) -> dict[str, ArrayEntry]:
        """The arrays by name: dtype, shape, nbytes, block_bytes."""
        return self.manifest.arrays

    @property
    def manifest(self) -> Manifest:
        """The contents of `segment.json`."""
        if self._manifest is None:
            path = os.path.join(self._directory, MANIFEST_NAME)
            try:
                body, data = read_sealed(path, crc=self.ref.crc)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise FormatError(
                    f"{path}: got no such file, expected the manifest of a segment of {self.ref.nbytes} bytes"
                ) from error
            self._count(len(data))
            self._manifest_nbytes = len(data)
            self._manifest = Manifest.from_json(body, self.ref.id)
        return self._manifest

    def read(self, name: str, offset: int, length: int) -> bytes | memoryview:
        """Bytes of an array's data; zero-copy when they lie in one block.

        Args:
            name: The array.
            offset: Position in bytes from the first element.
            length: Number of bytes.

        Raises:
            FormatError: The file is damaged, truncated or missing.
            InvalidValueError: The range does not lie within the array.
        """
        return self.read_many(name, ((offset, length),))[0]

    def read_many(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Many reads of one array, as `read`; missing blocks that are neighbours come with one system call.

        Args:
            name: The array.
            ranges: (offset, length) in bytes, in any order.

        Returns:
            One buffer per range, in the order given.
        """
        array = self._open.get(name) or self._open_array(name)
        size, base, cache = array.block_bytes, array.base, self._cache
        out: list[Any] = []
        append = out.append
        missing: list[int] = []
        with cache.mutex:
            get, touch = cache.entries.get, cache.entries.move_to_end
            for offset, length in ranges:
                number = offset // size
                block = get(base + number)
                if block is not None:
                    if length == len(block) and number * size == offset:
                        touch(base + number)
                        append(block)
                        continue
                    start = offset - number * size
                    if 0 <= length <= len(block) - start:
                        touch(base + number)
                        append(memoryview(block)[start : start + length])
                        continue
                missing.append(len(out))
                append(None)
            cache.hits += len(out) - len(missing)
            cache.misses += len(missing)
        if missing:
            self._fill(array, ranges, missing, out)
        return out

    def array(self, name: str) -> npt.NDArray[Any]:
        """A whole array, read-only, verified; it does not pass through the cache."""
        entry = self._entry(name)
        if entry.dtype is None:
            raise InvalidValueError(f"{name!r} is a raw file of segment {self.ref.id}: use file({name!r})")
        return np.frombuffer(self._whole(name), entry.dtype).reshape(entry.shape)

    def file(self, name: str) -> bytes:
        """A whole raw file, verified."""
        return bytes(self._whole(name))

    def verify(self) -> int:
        """Read every byte of the segment against its checksums; returns how many there are."""
        total = npy.HEADER_BYTES + 4 * len(self._all_checksums()) + self._manifest_nbytes
        for name, entry in self.arrays.items():
            total += entry.data_at + len(self._whole(name))
        if total != self.ref.nbytes:
            raise FormatError(f"{self._directory}: got {total} bytes in its files, expected {self.ref.nbytes}")
        return total

    # --- inside ---

    def _whole(self, name: str) -> memoryview:
        array = self._open.get(name) or self._open_array(name)
        entry, size = array.entry, array.block_bytes
        target = memoryview(bytearray(entry.nbytes))
        step = max(_RUN_BYTES // size, 1) * size
        for at in range(0, entry.nbytes, step):
            part = target[at : at + step]
            n = io.read_into(array.path, entry.data_at + at, part)
            self._count(n)
            if n < part.nbytes:
                raise self._short(array, at + n)
            for first in range(at, at + part.nbytes, size):
                self._check(array, first // size, target[first : min(first + size, entry.nbytes)])
        return target.toreadonly()

    def _fill(self, array: _OpenArray, ranges: Sequence[tuple[int, int]], missing: list[int], out: list[Any]) -> None:
        """Answer the ranges that are not wholly in one cached block."""
        size, nbytes, cache = array.block_bytes, array.entry.nbytes, self._cache
        wanted: set[int] = set()
        for i in missing:
            offset, length = ranges[i]
            if offset < 0 or length < 0 or offset + length > nbytes:
                raise InvalidValueError(
                    f"range {i} of array {array.entry.name!r} must lie in its {nbytes} bytes, got offset {offset}, length {length}"
                )
            if length:
                wanted.update(range(offset // size, (offset + length - 1) // size + 1))
        blocks: dict[int, bytes] = {}
        with cache.mutex:
            for number in wanted:
                block = cache.entries.get(array.base + number)
                if block is not None:
                    cache.entries.move_to_end(array.base + number)
                    blocks[number] = block
        absent = sorted(wanted.difference(blocks))
        longest = max(_RUN_BYTES // size, 1)
        begin = 0
        for i in range(1, len(absent) + 1):
            if i == len(absent) or absent[i] != absent[i - 1] + 1 or i - begin == longest:
                self._fetch(array, absent[begin], absent[i - 1] + 1, blocks)
                begin = i
        for i in missing:
            offset, length = ranges[i]
            first, start = divmod(offset, size)
            if not length:
                out[i] = b""
            elif start + length <= size:
                block = blocks[first]
                out[i] = block if length == len(block) else memoryview(block)[start : start + length]
            else:
                last = (offset + length - 1) // size
                parts: list[bytes | memoryview] = [memoryview(blocks[first])[start:]]
                parts += [blocks[number] for number in range(first + 1, last)]
                parts.append(memoryview(blocks[last])[: offset + length - last * size])
                out[i] = b"".join(parts)

    def _fetch(self, array: _OpenArray, first: int, end: int, blocks: dict[int, bytes]) -> None:
        """Read blocks [first, end) with one call, verify them, and add them to `blocks` and to the cache."""
        size, entry = array.block_bytes, array.entry
        at = first * size
        length = min(end * size, entry.nbytes) - at
        data = io.read_at(array.path, entry.data_at + at, length)
        if len(data) < length:
            self._count(len(data))
            raise self._short(array, at + len(data))
        fresh: list[tuple[int, bytes]] = []
        for number in range(first, end):
            block = data if end - first == 1 else data[(number - first) * size : (number - first + 1) * size]
            self._check(array, number, block)
            blocks[number] = block
            fresh.append((array.base + number, block))
        self.bytes_read += length
        self._cache.put(fresh, length)

    def _check(self, array: _OpenArray, number: int, block: bytes | memoryview) -> None:
        found = crc32(block)
        if found != array.checksums[number]:
            raise FormatError(
                f"{array.path}: block {number} at offset {array.entry.data_at + number * array.block_bytes} ({len(block)} bytes) "
                f"got CRC-32 {found:08x}, expected {array.checksums[number]:08x}: the file is damaged; restore it from a copy or index again"
            )

    def _short(self, array: _OpenArray, n: int) -> FormatError:
        at = array.entry.data_at
        return FormatError(
            f"{array.path}: at offset {at + n} got the end of the file, expected {at + array.entry.nbytes} bytes: it is truncated"
        )

    def _count(self, n: int) -> None:
        self.bytes_read += n
        self._cache.count_read(n)

    def _entry(self, name: str) -> ArrayEntry:
        try:
            return self.arrays[name]
        except KeyError:
            raise UnknownNameError(
                f"segment {self.ref.id} has no array {name!r}; it has {sorted(self.arrays)}"
            ) from None

    def _open_array(self, name: str) -> _OpenArray:
        """Check the file's size and header against the manifest, and find its checksums."""
        entry = self._entry(name)
        path = os.path.join(self._directory, entry.file)
        expected = entry.data_at + entry.nbytes
        size = io.file_size(path)
        if size != expected:
            raise FormatError(
                f"{path}: got {'no such file' if size is None else f'{size} bytes'}, expected {expected} bytes for {name!r}"
            )
        if entry.data_at:
            found = io.read_at(path, 0, entry.data_at)
            self._count(len(found))
            if found != entry.header():
                raise FormatError(f"{path}: at offset 0 got the header {found!r}, expected {entry.header()!r}")
        first = entry.first_checksum
        checksums = self._all_checksums()[first : first + entry.n_checksums]
        array = _OpenArray(entry, path, self._cache.file_base(self.ref.id, name), checksums)
        self._open[name] = array
        return array

    def _all_checksums(self) -> memoryview:
        if self._checksums is None:
            path = os.path.join(self._directory, CHECKSUMS_NAME)
            n = self.manifest.n_checksums
            try:
                data = io.read_file(path, npy.HEADER_BYTES + 4 * n)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise FormatError(f"{path}: got no such file, expected {n} checksums") from error
            self._count(len(data))
            expected = npy.HEADER_BYTES + 4 * n
            if len(data) != expected:
                raise FormatError(f"{path}: got {len(data)} bytes or more, expected {expected} for {n} checksums")
            if crc32(data) != self.manifest.checksums_crc:
                raise FormatError(
                    f"{path}: from offset 0 got CRC-32 {crc32(data):08x}, expected {self.manifest.checksums_crc:08x}"
                )
            self._checksums = np.frombuffer(data, "<u4", offset=npy.HEADER_BYTES).astype(np.uint32).data
        return self._checksums
