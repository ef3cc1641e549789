"""Segments of masks hold what was appended: pixels, boxes, attributes, histograms as counted one pixel at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, FormatError, IdError, InvalidValueError
from neuralartifactdb.masks import writer as mask_writer
from neuralartifactdb.masks.batch import MISSING_BOX, STORED_DTYPES, CollectionMeta, MaskBatch
from neuralartifactdb.masks.segment import MaskSegment
from neuralartifactdb.masks.writer import MaskAppender, index_block_bytes, pixel_block_bytes, write_index_rows
from neuralartifactdb.storage import DatabaseDirectory, io

Write = Callable[..., list[MaskSegment]]
SMALL = np.zeros((2, 2), np.uint8)
EDGES = (1.0, 100.0, 200.0)


@pytest.fixture
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DatabaseDirectory]:
    with DatabaseDirectory(tmp_path / "db", **getattr(request, "param", {})) as found:
        yield found


@pytest.fixture
def write(directory: DatabaseDirectory) -> Write:
    """Appends batches to a new collection and opens the segments that come of it."""

    def write_batches(meta: CollectionMeta, *batches: MaskBatch) -> list[MaskSegment]:
        with directory.write() as tx:
            appender = MaskAppender(tx, meta)
            for batch in batches:
                appender.add(batch)
            refs = appender.finish()
            tx.commit(
                [
                    {"op": "create_masks", "masks": meta.id, "meta": meta.to_json()},
                    {"op": "add_mask_segments", "masks": meta.id, "segments": refs, "meta": appender.meta.to_json()},
                ]
            )
        return [MaskSegment(directory.reader(ref)) for ref in refs]

    return write_batches


def batch_of(pixels: list[NDArray[Any]], first: int = 0, **parts: Any) -> MaskBatch:
    return MaskBatch(pixels, np.arange(first, first + len(pixels), dtype=np.int64) * 3, **parts)


def noise(n: int, height: int, width: int, dtype: str = "uint8", seed: int = 0) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    high = {"bool": 2, "uint8": 256, "uint16": 65536}.get(dtype)
    values = rng.random((n, height, width)) if high is None else rng.integers(0, high, (n, height, width))
    return list(np.ascontiguousarray(values.astype(STORED_DTYPES[dtype])))


def plain_histogram(mask: NDArray[Any], edges: tuple[float, ...], grid: int) -> NDArray[np.uint8]:
    """uint8 (B, g*g), counted cell by cell, without nodata."""
    height, width = mask.shape
    step = max(1, -(-(-(-height // grid) * -(-width // grid)) // 255))
    out = np.zeros((len(edges), grid * grid), dtype=np.uint8)
    for b, edge in enumerate(edges):
        for i in range(grid):
            for j in range(grid):
                rows = slice(i * height // grid, (i + 1) * height // grid)
                cell = mask[rows, j * width // grid : (j + 1) * width // grid]
                out[b, i * grid + j] = -(-int((cell.astype(np.float64) >= edge).sum()) // step)
    return out


def rows_of(segment: MaskSegment, edge: int, first: int, last: int) -> NDArray[np.uint8]:
    found = np.frombuffer(segment.index_rows(edge, first, last), dtype=np.uint8)
    return found.reshape(last - first, segment.grid**2)


def check_pixels(segment: MaskSegment, pixels: list[NDArray[Any]], seed: int = 1) -> None:
    """Any rows of any masks, in any order, repeated ones too."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, segment.n, 3 * segment.n)
    heights = segment.shapes[ids, 0]
    ends = np.sort(rng.integers(0, heights + 1, (2, len(ids))), axis=0).astype(np.int32)
    for chosen in (np.arange(len(ids)), np.argsort(ids, kind="stable"), np.arange(1), np.arange(0)):
        found = segment.read_rows(ids[chosen], ends[0, chosen], ends[1, chosen])
        assert len(found) == len(chosen)
        for position, buffer in zip(chosen.tolist(), found, strict=True):
            mask = pixels[segment.first + ids[position] if len(pixels) > segment.n else ids[position]]
            assert bytes(buffer) == mask[ends[0, position] : ends[1, position]].tobytes()


@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_pixels_of_equal_shapes(write: Write, dtype: str) -> None:
    pixels = noise(40, 30, 23, dtype)
    (segment,) = write(CollectionMeta("m", dtype, (0, 1)), batch_of(pixels[:7]), batch_of(pixels[7:], 7))
    assert segment.uniform_shape == (30, 23)
    assert segment.shapes.tolist() == [[30, 23]] * 40
    assert segment.shapes.flags.c_contiguous
    assert segment.input_ids.tolist() == [3 * i for i in range(40)]
    assert (segment.first, segment.n, segment.last, segment.n_edges, segment.dtype) == (0, 40, 40, 0, dtype)
    for seed in range(3):
        check_pixels(segment, pixels, seed)
    assert segment.reader.verify() == segment.reader.ref.nbytes


def test_pixels_of_unequal_shapes(write: Write) -> None:
    rng = np.random.default_rng(5)
    shapes = [*rng.integers(1, 90, (60, 2)).tolist(), [1, 1], [200, 300]]
    pixels = [noise(1, height, width, "uint16", i)[0] for i, (height, width) in enumerate(shapes)]
    (segment,) = write(CollectionMeta("m", "uint16", (0, 65535)), batch_of(pixels[:30]), batch_of(pixels[30:], 30))
    assert segment.uniform_shape is None
    assert segment.shapes.tolist() == shapes
    check_pixels(segment, pixels)
    check_pixels(segment, pixels, 2)


def test_neighbours_come_with_one_read_and_only_what_is_needed_is_read(
    write: Write, directory: DatabaseDirectory
) -> None:
    pixels = noise(50, 64, 128)
    (segment,) = write(CollectionMeta("m", "uint8", (0, 255)), batch_of(pixels))
    ids, zero = np.arange(50), np.zeros(50, np.int32)
    segment.read_rows(ids[:1], zero[:1], zero[:1] + 1)
    calls: list[int] = []

    def count(operation: str, path: str) -> None:
        calls.append(operation == "read")

    directory.cache.clear()
    before = segment.reader.bytes_read
    with io.faults(count):
        segment.read_rows(ids, zero, zero + 64)
    assert sum(calls) == 1
    assert segment.reader.bytes_read - before == 50 * 64 * 128
    directory.cache.clear()
    calls.clear()
    before = segment.reader.bytes_read
    with io.faults(count):
        segment.read_rows(ids[::10], zero[::10] + 32, zero[::10] + 64)
    assert sum(calls) == 5
    assert segment.reader.bytes_read - before == 5 * 32 * 128


@pytest.mark.parametrize("directory", [{"cache_bytes": 200_000}], indirect=True)
def test_pixels_leave_the_cache_to_the_index(write: Write) -> None:
    pixels = noise(300, 32, 32)
    (segment,) = write(CollectionMeta("m", "uint8", (0, 255), grid=4, edges=EDGES), batch_of(pixels))
    segment.index_rows(1, 0, 300)
    ids = np.arange(300)
    segment.read_rows(ids, np.zeros(300, np.int32), np.full(300, 32, np.int32))
    before = segment.reader.bytes_read
    segment.index_rows(1, 0, 300)
    assert segment.reader.bytes_read == before


@pytest.mark.parametrize(("ids", "y0", "y1", "error"), [
    ([3], [0], [1], IdError),
    ([-1], [0], [1], IdError),
    ([1], [-1], [1], InvalidValueError),
    ([1], [3], [2], InvalidValueError),
    ([1], [0], [6], InvalidValueError),
])  # fmt: skip
@pytest.mark.parametrize("height", [5, 4])
def test_rows_outside_a_mask(write: Write, ids: Any, y0: Any, y1: Any, error: type[Exception], height: int) -> None:
    pixels = [*noise(2, 5, 7), *noise(1, height, 7)]
    (segment,) = write(CollectionMeta("m", "uint8", (0, 255)), batch_of(pixels))
    with pytest.raises(error):
        segment.read_rows(np.array(ids), np.array(y0, np.int32), np.array(y1, np.int32))


def test_damaged_pixels_are_named(write: Write, directory: DatabaseDirectory) -> None:
    pixels = noise(20, 40, 50)
    (segment,) = write(CollectionMeta("m", "uint8", (0, 255)), batch_of(pixels))
    file = Path(directory.segment_path(segment.reader.ref.id)) / "pixels.npy"
    data = bytearray(file.read_bytes())
    at = 128 + 9 * 2000 + 20 * 50  # row 20 of mask 9
    data[at] ^= 1
    file.write_bytes(data)
    one = np.array([20], np.int32)
    with pytest.raises(FormatError, match=r"pixels\.npy: block \d+ at offset \d+ .* got CRC-32"):
        segment.read_rows(np.array([9]), one, one + 1)
    assert bytes(segment.read_rows(np.array([3]), one, one + 1)[0]) == pixels[3][20].tobytes()
    file.write_bytes(data[: at + 40])
    with pytest.raises(FormatError, match="truncated"):
        segment.read_rows(np.array([12]), one, one + 1)


# --- columns ----------------------------------------------------------------------------------------------------------


def test_boxes_and_attributes_of_batches_with_different_columns(write: Write) -> None:
    pixels = noise(6, 4, 4)
    boxes = np.arange(8, dtype=np.int32).reshape(2, 4)
    (segment,) = write(
        CollectionMeta("m", "uint8", (0, 255)),
        batch_of(pixels[:2], attrs={"model": np.array(["a", "b"], object), "n": np.array([1, 2])}),
        batch_of(pixels[2:4], 2, boxes={"object": boxes}, attrs={"n": np.array([3, 4]), "x": np.array([0.5, np.nan])}),
        batch_of(pixels[4:], 4, boxes={"other": boxes + 10}, attrs={"model": np.array([None, "c"], object)}),
    )
    missing = [[MISSING_BOX] * 4] * 2
    assert segment.box_names == ["object", "other"]
    assert segment.boxes("object").tolist() == missing + boxes.tolist() + missing
    assert segment.boxes("other").tolist() == missing + missing + (boxes + 10).tolist()
    assert segment.boxes("unheard of").tolist() == missing * 3
    assert segment.boxes("object").flags.c_contiguous
    columns = segment.columns()
    assert segment.column_names == list(columns) == ["model", "n", "x"]
    assert columns["model"].tolist() == ["a", "b", None, None, None, "c"]
    np.testing.assert_array_equal(columns["n"], [1, 2, 3, 4, np.nan, np.nan])
    np.testing.assert_array_equal(columns["x"], [np.nan, np.nan, 0.5, np.nan, np.nan, np.nan])


def test_big_integers_survive_a_missing_part(write: Write) -> None:
    pixels = noise(3, 2, 2)
    big = batch_of(pixels[:2], attrs={"k": np.array([2**60 + 1, 5])})
    (segment,) = write(CollectionMeta("m", "uint8", (0, 255)), big, batch_of(pixels[2:], 2))
    assert segment.columns()["k"].tolist() == [2**60 + 1, 5, None]


@pytest.mark.parametrize(("batch", "error"), [
    (MaskBatch([np.zeros((2, 2), np.float32)], np.zeros(1, np.int64)), DtypeError),
    (MaskBatch([np.zeros(4, np.uint8)], np.zeros(1, np.int64)), InvalidValueError),
    (MaskBatch([np.zeros((4, 4), np.uint8)[:, ::2]], np.zeros(1, np.int64)), InvalidValueError),
    (MaskBatch([SMALL], np.zeros(2, np.int64)), InvalidValueError),
    (MaskBatch([SMALL], np.zeros(1, np.int32)), DtypeError),
    (MaskBatch([SMALL], np.zeros(1, np.int64), boxes={"a": np.zeros((1, 4), np.int64)}), DtypeError),
    (MaskBatch([SMALL], np.zeros(1, np.int64), boxes={"a": np.zeros((2, 4), np.int32)}), InvalidValueError),
    (MaskBatch([SMALL], np.zeros(1, np.int64), attrs={"Mask_id": np.zeros(1)}), InvalidValueError),
])  # fmt: skip
def test_batches_that_do_not_fit(directory: DatabaseDirectory, batch: MaskBatch, error: type[Exception]) -> None:
    with directory.write() as tx:
        appender = MaskAppender(tx, CollectionMeta("m", "uint8", (0, 255)))
        with pytest.raises(error):
            appender.add(batch)


# --- cutting into segments --------------------------------------------------------------------------------------------


def test_many_masks_and_many_bytes_make_more_segments(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_writer, "MAX_MASKS", 8)
    monkeypatch.setattr(mask_writer, "MAX_PIXEL_BYTES", 1000)
    sizes = [10] * 20 + [600, 600, 2000, 10, 400, 590]
    pixels = [noise(1, 1, size, seed=i)[0] for i, size in enumerate(sizes)]
    batches = [batch_of(pixels[:3], attrs={"a": np.arange(3)}), batch_of(pixels[3:22], 3), batch_of(pixels[22:], 22)]
    segments = write(CollectionMeta("m", "uint8", (0, 255)), *batches)
    assert [(segment.first, segment.n) for segment in segments] == [
        (0, 8), (8, 8), (16, 5), (21, 1), (22, 1), (23, 3)
    ]  # fmt: skip
    for segment in segments:
        for i in range(segment.n):
            one = np.zeros(1, np.int32)
            (buffer,) = segment.read_rows(np.array([i]), one, one + 1)
            assert bytes(buffer) == pixels[segment.first + i].tobytes()
            assert segment.input_ids[i] == 3 * (segment.first + i)
    assert segments[0].column_names == ["a"]
    assert segments[1].column_names == []


def test_nothing_is_left_of_an_aborted_append(directory: DatabaseDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_writer, "MAX_MASKS", 2)
    with directory.write() as tx:
        appender = MaskAppender(tx, CollectionMeta("m", "uint8", (0, 255)))
        appender.add(batch_of(noise(5, 3, 3)))
        appender.abort()
        with pytest.raises(InvalidValueError, match="start a new one"):
            appender.finish()
    assert list((Path(directory.path) / "segments").iterdir()) == []


def test_an_append_of_nothing(write: Write) -> None:
    assert write(CollectionMeta("m", "uint8", (0, 255))) == []


def test_block_sizes() -> None:
    assert pixel_block_bytes(224, 224) == 16 * 224
    assert pixel_block_bytes(448, 448) == 8 * 448
    assert pixel_block_bytes(28, 28) == 5 * 28 * 28  # whole masks
    assert pixel_block_bytes(227, 224) == 18 * 224  # a prime height
    assert pixel_block_bytes(100, 5000) == 5000
    assert pixel_block_bytes(100, 100_000) == 65536
    assert pixel_block_bytes(0, 0) == 4096
    assert index_block_bytes(2048, 64) == 131072
    assert index_block_bytes(2048, 256) == 131072
    assert index_block_bytes(7, 49) == 343


# --- the index --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [2048, 8])
def test_index_rows(write: Write, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    for module in ("writer", "segment"):
        monkeypatch.setattr(f"neuralartifactdb.masks.{module}.INDEX_BLOCK", block)
    pixels = [*noise(5, 40, 51), *noise(16, 17, 5, seed=2)]
    meta = CollectionMeta("m", "uint8", (0, 255), grid=3, edges=EDGES)
    (segment,) = write(meta, batch_of(pixels[:3]), batch_of(pixels[3:], 3))
    assert (segment.grid, segment.n_edges, segment.edges.tolist()) == (3, 3, list(EDGES))
    assert segment.indexed() is None
    expected = np.stack([plain_histogram(mask, EDGES, 3) for mask in pixels], axis=1)
    for edge in range(3):
        for start in range(0, 21, block):
            end = min(start + block, 21)
            for first, last in ((start, end), (start + 1, end), (start, start), (end - 2, end - 1)):
                assert np.array_equal(rows_of(segment, edge, first, last), expected[edge, first:last])
    for edge, first, last in ((3, 0, 1), (-1, 0, 1), (0, 0, 22), (0, 3, 2)):
        with pytest.raises(InvalidValueError):
            segment.index_rows(edge, first, last)


def lazy_segment(write: Write, n: int = 30) -> tuple[MaskSegment, NDArray[np.uint8], CollectionMeta]:
    pixels = noise(n, 12, 10)
    meta = CollectionMeta("lazy", "uint8", (0, 255), grid=2, edges=EDGES, index="lazy")
    (segment,) = write(meta, batch_of(pixels))
    return segment, np.stack([plain_histogram(mask, EDGES, 2) for mask in pixels], axis=1), meta


def check_filled(segment: MaskSegment, expected: NDArray[np.uint8], filled: set[int]) -> None:
    indexed = segment.indexed()
    assert filled == set(range(segment.n) if indexed is None else np.flatnonzero(indexed).tolist())
    for edge in range(3):
        for first in range(0, segment.n, 8):
            last = min(first + 8, segment.n)
            found = rows_of(segment, edge, first, last)
            for i in range(first, last):
                assert np.array_equal(found[i - first], expected[edge, i] if i in filled else [0] * 4)


def test_a_lazy_index_is_filled_in_and_sealed(
    write: Write, directory: DatabaseDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("writer", "segment", "filled_index"):
        monkeypatch.setattr(f"neuralartifactdb.masks.{module}.INDEX_BLOCK", 8)
    segment, expected, meta = lazy_segment(write)
    with pytest.raises(InvalidValueError, match="no index"):
        segment.index_rows(0, 0, 1)
    assert segment.n_edges == 0
    assert segment.indexed() is None
    segment.adopt_index(meta.grid, meta.edges)
    assert (segment.n_edges, segment.edges.tolist()) == (3, list(EDGES))
    assert segment.unsealed_index_rows() is None
    check_filled(segment, expected, set())
    filled: set[int] = set()
    refs = []
    for ids in ([7, 3, 20], [3, 4, 29, 8], list(range(10, 19)), [0, 1, 2]):
        segment.add_index_rows(np.array(ids), np.ascontiguousarray(expected[:, ids]))
        filled |= set(ids)
        check_filled(segment, expected, filled)
        if len(ids) == 3 and 0 in ids:
            break
        unsealed = segment.unsealed_index_rows()
        assert unsealed is not None
        assert np.array_equal(unsealed[1], expected[:, unsealed[0]])
        with directory.write() as tx:
            refs.append(write_index_rows(tx, meta, segment.first, *unsealed))
            tx.commit([{"op": "add_mask_index", "masks": "lazy", "segments": [refs[-1]]}])
        segment.load_index(directory.reader(refs[-1]))
        segment.load_index(directory.reader(refs[-1]))
        assert segment.unsealed_index_rows() is None
        check_filled(segment, expected, filled)
    unsealed = segment.unsealed_index_rows()
    assert unsealed is not None
    assert unsealed[0].tolist() == [0, 1, 2]
    again = MaskSegment(segment.reader)
    for ref in refs:
        again.load_index(directory.reader(ref))
    check_filled(again, expected, filled - {0, 1, 2})


def test_an_index_that_is_filled_in_wholly(write: Write) -> None:
    segment, expected, meta = lazy_segment(write, 5)
    segment.adopt_index(meta.grid, meta.edges)
    segment.add_index_rows(np.arange(5), expected)
    assert segment.indexed() is None
    check_filled(segment, expected, set(range(5)))


def test_index_rows_that_do_not_fit(write: Write, directory: DatabaseDirectory) -> None:
    segment, expected, meta = lazy_segment(write)
    segment.adopt_index(meta.grid, meta.edges)
    for ids, rows in (
        ([30], expected[:, :1]),
        ([-1], expected[:, :1]),
        ([1, 1], expected[:, :2]),
        ([1], expected[:, :2]),
        ([1], expected[:2, :1]),
        ([1], expected[:, :1].astype(np.int64)),
    ):
        with pytest.raises(InvalidValueError):
            segment.add_index_rows(np.array(ids), np.ascontiguousarray(rows))
    other = CollectionMeta("lazy", "uint8", (0, 255), grid=2, edges=(1.0, 100.0, 201.0), index="lazy")
    with directory.write() as tx:
        for wrong in ([2, 1], [1, 1], [-1, 0]):
            with pytest.raises(InvalidValueError):
                write_index_rows(tx, meta, 0, np.array(wrong), np.ascontiguousarray(expected[:, :2]))
        for its, ids in ((other, [1, 2]), (meta, [1, 30])):
            ref = write_index_rows(tx, its, 0, np.array(ids), np.ascontiguousarray(expected[:, :2]))
            tx.commit([{"op": "add_mask_index", "masks": "lazy", "segments": [ref]}])
            with pytest.raises(FormatError, match="got index rows of 2 masks"):
                segment.load_index(directory.reader(ref))
    check_filled(segment, expected, set())
