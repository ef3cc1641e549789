"""Segments: what is written is what is read, byte for byte; sizes, checksums and errors."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb._core import BlockCache
from neuralartifactdb.errors import DtypeError, FormatError, InvalidValueError, UnknownNameError
from neuralartifactdb.storage import io
from neuralartifactdb.storage.arrays import SegmentReader, SegmentRef, SegmentWriter, new_segment_id, segment_nbytes


def write(path: Path, data: bytes, block_bytes: int, pieces: list[int] | None = None) -> SegmentRef:
    with SegmentWriter(path, new_segment_id()) as writer:
        out = writer.create_array("codes", np.uint8, block_bytes=block_bytes)
        at = 0
        for piece in [*(pieces or []), len(data)]:
            out.write(data[at : at + piece])
            at += piece
        return writer.commit({"first": 3})


def files_nbytes(path: Path, ref: SegmentRef) -> int:
    return sum(file.stat().st_size for file in (path / "segments" / ref.id).iterdir())


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=300),
    block_bytes=st.integers(1, 70),
    pieces=st.lists(st.integers(0, 90), max_size=6),
    budget=st.sampled_from([0, 500, 1 << 20]),
    ranges=st.data(),
)
def test_any_range_of_any_stream(
    tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
    block_bytes: int,
    pieces: list[int],
    budget: int,
    ranges: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("s")
    ref = write(path, data, block_bytes, pieces)
    reader = SegmentReader(path, ref, BlockCache(budget))
    assert ref.nbytes == files_nbytes(path, ref) == reader.verify()
    assert reader.array("codes").tobytes() == data
    for _ in range(3):
        wanted = []
        for _ in range(ranges.draw(st.integers(0, 6))):
            offset = ranges.draw(st.integers(0, len(data)))
            wanted.append((offset, ranges.draw(st.integers(0, len(data) - offset))))
        spans = reader.read_many("codes", np.array(wanted, dtype=np.int64).reshape(-1, 2))
        assert len(spans) == len(wanted)
        assert spans.join().tobytes() == b"".join(data[o : o + n] for o, n in wanted)
        assert [bytes(b) for b in spans] == [data[o : o + n] for o, n in wanted]


def test_arrays_are_plain_npy_with_crc32_per_block(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.float64).reshape(20, 3, 10)
    with SegmentWriter(tmp_path, new_segment_id()) as writer:
        writer.add_array("values", values, block_bytes=1000)
        writer.add_array("empty", np.empty((0, 4), np.uint16))
        writer.add_array("scalar", np.array(7, np.int8))
        ref = writer.commit({})
    folder = tmp_path / "segments" / ref.id
    assert np.array_equal(np.load(folder / "values.npy"), values)
    assert np.load(folder / "empty.npy").shape == (0, 4)
    checksums = np.load(folder / "checksums.npy")
    raw = values.tobytes()
    assert checksums.tolist() == [zlib.crc32(raw[i : i + 1000]) for i in range(0, 4800, 1000)] + [zlib.crc32(b"\7")]
    reader = SegmentReader(tmp_path, ref, BlockCache(0))
    assert np.array_equal(reader.array("values"), values)
    assert reader.array("scalar").shape == ()
    assert reader.array("empty").shape == (0, 4)
    assert not reader.array("values").flags.writeable


def test_predicted_size_is_exact_but_for_the_manifest(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, new_segment_id()) as writer:
        writer.add_array("a", np.zeros(1001, np.uint8), block_bytes=100)
        writer.add_array("b", np.zeros((3, 4), np.float32), block_bytes=16)
        writer.add_array("c", np.zeros(0, np.float32))
        ref = writer.commit({"n": 1})
    predicted = segment_nbytes([(1001, 100), (48, 16), (0, 4096)], 0)
    manifest = (tmp_path / "segments" / ref.id / "segment.json").stat().st_size
    assert predicted == ref.nbytes - manifest
    assert manifest < 150 + 3 * 140


def test_a_read_within_one_block_is_not_copied(tmp_path: Path) -> None:
    ref = write(tmp_path, bytes(range(200)), 50)
    cache = BlockCache(1 << 20)
    reader = SegmentReader(tmp_path, ref, cache)
    first, again, inside = reader.read("codes", 50, 50), reader.read("codes", 50, 50), reader.read("codes", 60, 5)
    assert np.shares_memory(first, again)
    assert np.shares_memory(first[10:15], inside)
    assert not first.flags.writeable
    assert (cache.hits, cache.misses) == (2, 1)
    cache.clear()
    del again, inside
    assert first.tolist() == list(range(50, 100))  # whoever has a block may read it


def test_missing_blocks_come_with_one_call(tmp_path: Path) -> None:
    ref = write(tmp_path, bytes(1000), 10)
    reader = SegmentReader(tmp_path, ref, BlockCache(1 << 20))
    reader.read("codes", 500, 10)
    reads = []
    with io.faults(lambda operation, path: reads.append(operation) if operation == "read" else None):
        reader.read_many("codes", np.array([(i * 10, 10) for i in (7, 3, 5, 4, 6, 50, 49, 51, 90)]))
    assert len(reads) == 1  # of 3 to 7, 49, 51 and 90
    before = reader.bytes_read
    reader.read("codes", 0, 1000)
    assert reader.bytes_read - before == 1000 - 9 * 10


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (-10, 5), (0, 101), (100, 1), (95, 6), (5, -1), (10**15, 1)])
def test_ranges_outside_are_refused(tmp_path: Path, offset: int, length: int) -> None:
    ref = write(tmp_path, bytes(100), 10)
    reader = SegmentReader(tmp_path, ref, BlockCache(1 << 20))
    for _ in range(2):
        with pytest.raises(InvalidValueError, match=f"offset {offset}, length {length}"):
            reader.read("codes", offset, length)
        reader.read("codes", 0, 100)


def test_bad_arguments(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, new_segment_id())
    for name in ("", "A", "../x", "a/b", "a.b.c", "checksums", "ä"):
        with pytest.raises(InvalidValueError):
            writer.create_array(name, np.uint8)
    with pytest.raises(InvalidValueError):
        writer.create_file("segment.json")
    for dtype in (object, "U3", np.complex64, "M8[s]", np.longdouble):
        with pytest.raises(DtypeError):
            writer.create_array("x", dtype)
    with pytest.raises(InvalidValueError, match="block_bytes"):
        writer.create_array("x", np.uint8, block_bytes=0)
    for shape in ((1, 2, 3, 4), (-1,), (1 << 62,)):
        with pytest.raises(InvalidValueError, match="shape"):
            writer.create_array("x", np.uint8, shape)
    array = writer.create_array("x", np.float32, (2, 3))
    with pytest.raises(InvalidValueError, match="taken"):
        writer.create_array("x", np.float32)
    with pytest.raises(DtypeError, match="float64"):
        array.write(np.zeros(3))
    with pytest.raises(DtypeError, match=">f4"):
        array.write(np.zeros(3, ">f4"))
    with pytest.raises(InvalidValueError, match="contiguous"):
        array.write(np.zeros((4, 4), np.float32)[:, ::2])
    with pytest.raises(InvalidValueError, match="takes 24 bytes, got 28"):
        array.write(np.zeros(7, np.float32))
    array.write(np.zeros(2, np.float32))
    with pytest.raises(InvalidValueError, match="takes 24 bytes, got 8"):
        writer.commit({})
    writer.abort()
    writer.abort()
    with pytest.raises(InvalidValueError, match="aborted"):
        writer.commit({})
    assert os.listdir(tmp_path / "segments") == []
    odd = SegmentWriter(tmp_path, new_segment_id())
    out = odd.create_array("x", np.float32)
    out.write(b"12345")
    with pytest.raises(InvalidValueError, match="got 5"):
        out.close()
    odd.abort()


def test_an_array_may_close_early_and_not_be_written_after(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, new_segment_id()) as writer:
        with writer.create_array("x", np.uint8) as out:
            out.write(b"abc")
        with pytest.raises(InvalidValueError, match="closed"):
            out.write(b"d")
        ref = writer.commit({})
    with pytest.raises(InvalidValueError, match="committed"):
        writer.create_array("y", np.uint8)
    reader = SegmentReader(tmp_path, ref, BlockCache(0))
    assert bytes(reader.read("x", 0, 3)) == b"abc"
    with pytest.raises(UnknownNameError, match=r"no array 'y'; it has \['x'\]"):
        reader.read("y", 0, 1)


def test_a_failed_write_cannot_be_committed(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, new_segment_id())
    out = writer.create_array("x", np.uint8)

    def full(operation: str, path: str) -> None:
        if operation == "write":
            raise io.PartialWrite(100, OSError(28, "No space left on device"))

    with io.faults(full), pytest.raises(OSError, match="No space left"):
        out.write(bytes(300 << 10))
    assert (tmp_path / "segments" / f"tmp-{writer.id}" / "x.npy").stat().st_size == 128 + 100
    with pytest.raises(InvalidValueError, match="not written completely"):
        writer.commit({})
    writer.abort()
    assert os.listdir(tmp_path / "segments") == []


def test_a_manifest_that_lies_is_refused(tmp_path: Path) -> None:
    """A file with right checksums whose fields do not agree, as a hostile writer would make it."""
    from neuralartifactdb.storage.sealed import seal

    ref = write(tmp_path, bytes(100), 10)
    path = tmp_path / "segments" / ref.id / "segment.json"
    body = SegmentReader(tmp_path, ref, BlockCache(0)).manifest.to_json()
    array = body["arrays"][0]

    def damaged(**changes: object) -> dict[str, object]:
        return {**body, "arrays": [{**array, **changes}]}

    bodies: list[object] = [
        {**body, "format": 1},
        {**body, "format": "0"},
        {**body, "id": "0" * 16},
        {**body, "arrays": {}},
        {**body, "arrays": [array, array]},
        {**body, "arrays": [3]},
        {**body, "meta": []},
        {**body, "kind": None},
        {**body, "checksums_crc32": -1},
        {},
        [],
        damaged(file="../codes.npy"),
        damaged(name="../codes", file="../codes.npy"),
        damaged(dtype="O"),
        damaged(dtype="|V8"),
        damaged(dtype="nonsense"),
        damaged(dtype=","),
        damaged(shape=[-100]),
        damaged(shape=[100.0]),
        damaged(shape=[True]),
        damaged(shape=[10**40]),
        damaged(shape=[50, 2]),
        damaged(shape=[50], nbytes=50),
        damaged(shape=[1 << 50], nbytes=1 << 50),
        damaged(nbytes=99),
        damaged(block_bytes=0),
        damaged(block_bytes=1),
        damaged(block_bytes=10**30),
        damaged(first_checksum=1),
    ]
    for value in bodies:
        data = seal(value)  # type: ignore[arg-type]
        path.write_bytes(data)
        reader = SegmentReader(tmp_path, SegmentRef(ref.id, ref.nbytes, zlib.crc32(data)), BlockCache(0))
        with pytest.raises(FormatError, match=ref.id):
            reader.array("codes")


def test_a_segment_of_a_newer_format_says_who_reads_it(tmp_path: Path) -> None:
    from neuralartifactdb.storage.manifest import check_format
    from neuralartifactdb.storage.sealed import JsonBody

    with pytest.raises(FormatError, match=r"version 9\.1 or later reads it"):
        check_format(JsonBody({"format": 7, "needs": "9.1"}, "x"))
