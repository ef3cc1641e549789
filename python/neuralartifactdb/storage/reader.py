"""Reads segments: nothing is handed out whose checksum was not verified on its way into memory.

The one `read(file, offset, length)` of design section 6. A query asks for thousands of blocks of an index, so the core
looks them up in its cache and reads what is missing. Pixels are read once each: `stored` has the core read them,
`read_spans` is for those that must be held.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neuralartifactdb import _core
from neuralartifactdb.errors import FormatError, InvalidValueError, UnknownNameError
from neuralartifactdb.storage import io, npy
from neuralartifactdb.storage.checksums import block_crcs, crc32
from neuralartifactdb.storage.manifest import (
    CHECKSUMS_NAME,
    MANIFEST_NAME,
    SEGMENTS_NAME,
    ArrayEntry,
    Manifest,
    SegmentRef,
)
from neuralartifactdb.storage.sealed import read_sealed

__all__ = ["SegmentReader"]

_RUN_BYTES = 16 << 20  # longest single read
_STREAM_BYTES = 1 << 20  # step of a read of everything: the checksums then find the bytes in the processor's cache


class _OpenArray:
    """An array whose file was checked against the manifest."""

    __slots__ = ("block_bytes", "cached", "checksums", "entry", "path")

    def __init__(
        self, entry: ArrayEntry, path: str, cached: _core.CachedFile, checksums: npt.NDArray[np.uint32]
    ) -> None:
        self.entry = entry
        self.path = path
        self.cached = cached
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

    def __init__(self, db_dir: str | os.PathLike[str], ref: SegmentRef, cache: _core.BlockCache) -> None:
        self.ref = ref
        self.bytes_read = 0
        self._cache = cache
        self._directory = os.path.join(os.fspath(db_dir), SEGMENTS_NAME, ref.id)
        self._manifest: Manifest | None = None
        self._manifest_nbytes = 0
        self._checksums: npt.NDArray[np.uint32] | None = None
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

    def read(self, name: str, offset: int, length: int) -> npt.NDArray[np.uint8]:
        """Bytes of an array's data, uint8 (length,), read-only; not copied when they lie in one block.

        Args:
            name: The array.
            offset: Position in bytes from the first element.
            length: Number of bytes.

        Raises:
            FormatError: The file is damaged, truncated or missing.
            InvalidValueError: The range does not lie within the array.
        """
        return self.read_many(name, np.array([[offset, length]], dtype=np.int64))[0]

    def read_many(self, name: str, ranges: npt.NDArray[np.int64]) -> _core.Spans:
        """Many reads of one array, as `read`; missing blocks come with one call of the core, in several threads.

        Args:
            name: The array.
            ranges: int64 (n, 2), offset and length in bytes, in any order.

        Returns:
            The ranges in the order given: for the core as they are, or one by one, or joined.
        """
        array = self._open.get(name) or self._open_array(name)
        try:
            spans = self._cache.find(array.cached, array.entry.nbytes, array.block_bytes, ranges)
        except ValueError as error:
            raise InvalidValueError(f"array {name!r}: {error}") from None
        if not spans.complete:
            with self.stored(name) as stored:
                self._cache.fill(spans, stored)
        return spans

    def announce(self, name: str, ranges: npt.NDArray[np.int64]) -> int:
        """Let the system fetch what `read_many` will be asked for and neither the cache nor the system has in memory.

        A question to the cache, no use of it: neither its statistics nor what it lets go of first change.

        Args:
            name: The array.
            ranges: As for `read_many`.

        Returns:
            How many ranges the system was told to fetch.
        """
        array = self._open.get(name) or self._open_array(name)
        absent = ranges[~self._cache.holds(array.cached, array.entry.nbytes, array.block_bytes, ranges)]
        n = 0
        if len(absent):
            with self.stored(name) as stored:
                for offset, length in absent.tolist():
                    if not stored.in_memory(offset):
                        stored.announce(offset, length)
                        n += 1
        return n

    def read_spans(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """As `read_many`, for ranges of several blocks each, such as rows of pixels, past the cache.

        Every range is read with one system call (neighbouring ranges together), verified in place and handed out
        without copying, so buffers may share memory. Nothing is kept: the system has the file's pages, and a copy of
        ours would save little but the verifying.
        """
        array = self._open.get(name) or self._open_array(name)
        size, nbytes = array.block_bytes, array.entry.nbytes
        spans: list[tuple[int, int, int]] = []  # first block, block after the last, position in `ranges`
        for i, (offset, length) in enumerate(ranges):
            if offset < 0 or length < 0 or offset + length > nbytes:
                raise self._outside(array, i, offset, length)
            if length:
                spans.append((offset // size, -(-(offset + length) // size), i))
        out: list[Any] = [b""] * len(ranges)
        if spans:
            self._read_runs(array, ranges, spans, out)
        return out

    @contextlib.contextmanager
    def stored(self, name: str) -> Iterator[_core.StoredArray]:
        """An array for loops of the core that read it, verified, as they go; nothing passes through the cache.

        Several may be used in one loop, each in a context of its own.

        Raises:
            FormatError: The file is damaged, truncated or missing; from within the body, too.
        """
        array = self._open.get(name) or self._open_array(name)
        entry, size = array.entry, array.block_bytes
        with io.reading(array.path) as descriptor:
            found = _core.StoredArray(descriptor, entry.data_at, entry.nbytes, size, array.checksums)
            try:
                yield found
            except (_core.EndOfFileError, _core.ChecksumError, _core.ReadError) as error:
                if error.descriptor != descriptor:
                    raise
                raise self._explained(array, error) from None
            finally:
                self._count(found.bytes_read)

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

    def close_files(self) -> None:
        """Close the files that are open for reading; another read opens them anew."""
        io.close_descriptors(self._directory)

    # --- inside ---

    def _whole(self, name: str) -> memoryview:
        array = self._open.get(name) or self._open_array(name)
        entry, size = array.entry, array.block_bytes
        target = memoryview(bytearray(entry.nbytes))
        step = max(_STREAM_BYTES // size, 1) * size
        for at in range(0, entry.nbytes, step):
            part = target[at : at + step]
            n = io.read_into(array.path, entry.data_at + at, part)
            self._count(n)
            if n < part.nbytes:
                raise self._short(array, at + n)
            self._check(array, at // size, part)
        return target.toreadonly()

    def _read_runs(
        self,
        array: _OpenArray,
        ranges: Sequence[tuple[int, int]],
        spans: list[tuple[int, int, int]],
        out: list[Any],
    ) -> None:
        """Answer ranges from disk: those whose blocks touch or overlap come with one call.

        All of them share one allocation. Many small ones would each be returned to the system and faulted in again,
        which takes longer than reading and verifying.
        """
        spans.sort()
        size, n_blocks, longest = array.block_bytes, 0, max(_RUN_BYTES // array.block_bytes, 1)
        runs: list[list[int]] = []  # first block, block after the last, where it goes in blocks, its first range
        first, end = -1, -1
        for i, (next_first, next_end, _) in enumerate(spans):
            if next_first > end or max(next_end, end) - first > longest or not runs:
                n_blocks += end - first
                first, end = next_first, next_end
                runs.append([first, end, n_blocks, i])
            elif next_end > end:
                runs[-1][1] = end = next_end
        n_blocks += end - first
        target = np.empty(n_blocks * size, np.uint8).data
        shown = target.toreadonly()
        for j, (first, end, at, begin) in enumerate(runs):
            self._read_run(array, first, end, target[at * size : (at + end - first) * size])
            shift = (at - first) * size
            for _, _, i in spans[begin : runs[j + 1][3] if j + 1 < len(runs) else len(spans)]:
                offset, length = ranges[i]
                out[i] = shown[offset + shift : offset + shift + length]

    def _read_run(self, array: _OpenArray, first: int, end: int, target: memoryview) -> None:
        """Fill `target` with blocks [first, end), by one call, verified."""
        size, entry = array.block_bytes, array.entry
        at = first * size
        length = min(end * size, entry.nbytes) - at
        n = io.read_into(array.path, entry.data_at + at, target[:length])
        self._count(n)
        if n < length:
            raise self._short(array, at + n)
        self._check(array, first, target[:length])

    def _outside(self, array: _OpenArray, position: int, offset: int, length: int) -> InvalidValueError:
        return InvalidValueError(
            f"range {position} of array {array.entry.name!r} must lie in its {array.entry.nbytes} bytes, "
            f"got offset {offset}, length {length}"
        )

    def _check(self, array: _OpenArray, first: int, data: bytes | memoryview) -> None:
        """Verify whole blocks from block `first` on, the last one perhaps short."""
        found = block_crcs(data, array.block_bytes)
        expected = array.checksums[first : first + len(found)]
        if found.tobytes() != expected.tobytes():
            i = int(np.flatnonzero(found != expected)[0])
            length = min(array.block_bytes, memoryview(data).nbytes - i * array.block_bytes)
            raise self._damaged(array, first + i, length, int(found[i]))

    def _explained(
        self, array: _OpenArray, error: _core.EndOfFileError | _core.ChecksumError | _core.ReadError
    ) -> Exception:
        """An error of the core in the words of this module."""
        if isinstance(error, _core.ReadError):
            return OSError(error.errno, os.strerror(error.errno))
        if isinstance(error, _core.EndOfFileError):
            return self._short(array, error.position)
        length = min(array.block_bytes, array.entry.nbytes - error.block * array.block_bytes)
        return self._damaged(array, error.block, length, error.found)

    def _damaged(self, array: _OpenArray, number: int, length: int, found: int) -> FormatError:
        return _refused(
            array.path,
            f"block {number} at offset {array.entry.data_at + number * array.block_bytes} "
            f"({length} bytes) got CRC-32 {found:08x}, expected {array.checksums[number]:08x}: the file is "
            "damaged; restore it from a copy or index again",
        )

    def _short(self, array: _OpenArray, n: int) -> FormatError:
        at = array.entry.data_at
        return _refused(
            array.path,
            f"at offset {at + n} got the end of the file, expected {at + array.entry.nbytes} bytes: it is truncated",
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
                f"{path}: got {'no such file' if size is None else f'{size} bytes'}, expected {expected} bytes "
                f"for {name!r}"
            )
        if entry.data_at:
            found = io.read_at(path, 0, entry.data_at)
            self._count(len(found))
            if found != entry.header():
                raise _refused(path, f"at offset 0 got the header {found!r}, expected {entry.header()!r}")
        first = entry.first_checksum
        checksums = self._all_checksums()[first : first + entry.n_checksums]
        array = _OpenArray(entry, path, self._cache.file(f"{self.ref.id}/{name}"), checksums)
        self._open[name] = array
        return array

    def _all_checksums(self) -> npt.NDArray[np.uint32]:
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
            self._checksums = np.frombuffer(data, "<u4", offset=npy.HEADER_BYTES).astype(np.uint32)
        return self._checksums


def _refused(path: str, what: str) -> FormatError:
    """The error of a damaged file, which is let go of: one that is put in its place is read by whoever reads next."""
    io.close_descriptors(path)
    return FormatError(f"{path}: {what}")
