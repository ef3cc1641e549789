"""Arrays that the core reads by itself: what goes wrong there is told as if it had been read here."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from neuralartifactdb import _core
from neuralartifactdb._core import BlockCache
from neuralartifactdb.errors import FormatError
from neuralartifactdb.storage import SegmentReader, SegmentRef, SegmentWriter, io
from neuralartifactdb.storage.arrays import new_segment_id
from neuralartifactdb.storage.io.reading import _descriptors

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 20, 30), dtype=np.uint8)


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[list[SegmentReader]]:
    """Two segments with the same ten masks, in blocks of 90 bytes."""
    refs: list[SegmentRef] = []
    for _ in range(2):
        with SegmentWriter(tmp_path, new_segment_id(), kind="masks") as writer:
            writer.add_array("pixels", PIXELS.reshape(-1), block_bytes=90)
            refs.append(writer.commit({}))
    yield [SegmentReader(tmp_path, ref, BlockCache(1 << 20)) for ref in refs]
    io.close_descriptors(str(tmp_path))


def counted(readers: list[SegmentReader], y0: int = 3, y1: int = 9) -> list[int]:
    """Pixels of at least 100 in rows [y0, y1) of the masks of all readers."""
    n = len(PIXELS) * len(readers)
    boxes = np.broadcast_to(np.array([0, y0, 30, y1], np.int32), (1, n, 4)).copy()
    offsets = np.tile(np.arange(len(PIXELS), dtype=np.int64) * 600, len(readers))
    array_of = np.repeat(np.arange(len(readers), dtype=np.int32), len(PIXELS))
    with contextlib.ExitStack() as stack:
        arrays = [stack.enter_context(reader.stored("pixels")) for reader in readers]
        found = _core.count_stored(
            arrays, array_of, "uint8", offsets, np.full(n, 30, np.int32), boxes, [(100.0, None)], None
        )
    return [int(count) for count in found[0]]


def path_of(reader: SegmentReader) -> Path:
    return Path(reader._directory) / "pixels.npy"


def test_counts_and_bytes(readers: list[SegmentReader]) -> None:
    expected = (PIXELS[:, 3:9] >= 100).sum(axis=(1, 2)).tolist()
    assert counted(readers) == expected * 2
    before = [reader.bytes_read for reader in readers]
    assert counted(readers) == expected * 2
    assert [reader.bytes_read - b for reader, b in zip(readers, before, strict=True)] == [
        4 * 180 + 6 * 270
    ] * 2  # 600 bytes apart
    assert all(not len(reader._cache) for reader in readers)


@pytest.mark.parametrize("which", [0, 1])
def test_damage_names_its_file(readers: list[SegmentReader], which: int) -> None:
    file = path_of(readers[which])
    whole = file.read_bytes()
    at = 128 + 4 * 600 + 5 * 30
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    text = rf"{readers[which].ref.id}/pixels\.npy: block 28 at offset {128 + 28 * 90} \(90 bytes\) got CRC-32"
    with pytest.raises(FormatError, match=text):
        counted(readers)
    assert counted(readers, 10, 20) == (PIXELS[:, 10:] >= 100).sum(axis=(1, 2)).tolist() * 2


@pytest.mark.parametrize("which", [0, 1])
def test_truncation_names_its_file(readers: list[SegmentReader], which: int) -> None:
    counted(readers)  # afterwards the size is not asked for again
    file = path_of(readers[which])
    file.write_bytes(file.read_bytes()[: 128 + 5500])
    text = rf"{readers[which].ref.id}/pixels\.npy: at offset {128 + 5500} got the end of the file, expected 6128 bytes"
    with pytest.raises(FormatError, match=text):
        counted(readers)


@pytest.mark.parametrize("which", [0, 1])
def test_a_broken_disk_is_told_before_and_during_reading(readers: list[SegmentReader], which: int) -> None:
    counted(readers)
    broken = str(path_of(readers[which]))

    def fail(operation: str, path: str) -> None:
        if operation == "read" and path == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with io.faults(fail), pytest.raises(io.DiskError, match="check the disk") as told:
        counted(readers)
    assert told.value.filename == broken
    with pytest.raises(io.DiskError, match="check the disk") as told:
        fail_while_reading(readers, which)
    assert told.value.filename == broken


def fail_while_reading(readers: list[SegmentReader], which: int) -> None:
    """What the core does when the disk of one file breaks."""
    with contextlib.ExitStack() as stack:
        for reader in readers:
            stack.enter_context(reader.stored("pixels"))
        error = _core.ReadError("reading failed")
        error.descriptor = _descriptors._open[str(path_of(readers[which]))].fd
        error.errno = errno.EIO
        raise error


def test_what_cannot_be_read_is_an_os_error_with_its_path(readers: list[SegmentReader], tmp_path: Path) -> None:
    counted(readers)
    descriptor = _descriptors.acquire(str(path_of(readers[1])))
    _descriptors.release(descriptor)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        os.dup2(directory, descriptor.fd)  # a directory cannot be read
        with pytest.raises(IsADirectoryError) as told:
            counted(readers)
    finally:
        os.close(directory)
        io.close_descriptors(str(tmp_path))
    assert told.value.filename == str(path_of(readers[1]))


def test_errors_of_others_pass(readers: list[SegmentReader]) -> None:
    with pytest.raises(RuntimeError, match="mine"), readers[0].stored("pixels"):
        raise RuntimeError("mine")


def test_an_empty_array_has_no_byte_to_ask_for(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with open(tmp_path / "empty", "rb") as file:
        array = _core.StoredArray(file.fileno(), 0, 0, 64, np.empty(0, np.uint32))
        with pytest.raises(ValueError, match="got 0; the array is empty"):
            array.in_memory(0)
