"""A version of a collection: columns over segments that differ, deletions, versions that leave each other alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb.errors import FormatError, IdError, UnknownNameError
from neuralartifactdb.masks.batch import MISSING_BOX, CollectionMeta, MaskBatch
from neuralartifactdb.masks.boxes import missing_boxes
from neuralartifactdb.masks.columns import joined
from neuralartifactdb.masks.segment import MaskSegment
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.masks.writer import MaskAppender, write_deletes, write_index_rows
from neuralartifactdb.storage import DatabaseDirectory, SegmentRef
from neuralartifactdb.storage.tables import read_table, write_table

NAME = "cams"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DatabaseDirectory]:
    with DatabaseDirectory(tmp_path / "db") as found:
        with found.write() as tx:
            meta = CollectionMeta("m", "uint8", (0, 255), index="lazy", grid=2, edges=(10.0, 20.0))
            tx.commit([{"op": "create_masks", "masks": NAME, "meta": meta.to_json()}])
        yield found


def append(directory: DatabaseDirectory, n: int, *, height: int = 4, **parts: Any) -> None:
    with directory.write() as tx:
        meta = CollectionMeta.from_json(tx.state.masks[NAME].meta)
        appender = MaskAppender(tx, meta)
        pixels = [np.full((height, 5), i, np.uint8) for i in range(n)]
        ids = appender.add(MaskBatch(pixels, np.arange(n) + 100 * height, **parts))
        assert ids.tolist() == list(range(meta.next_id, meta.next_id + n))
        refs = appender.finish()
        tx.commit([{"op": "add_mask_segments", "masks": NAME, "segments": refs, "meta": appender.meta.to_json()}])


def delete(directory: DatabaseDirectory, ids: list[int]) -> None:
    with directory.write() as tx:
        tx.commit([{"op": "delete_masks", "masks": NAME, "segments": [write_deletes(tx, np.array(ids))]}])


def view(directory: DatabaseDirectory, opened: dict[SegmentRef, MaskSegment] | None = None) -> MaskView:
    return MaskView(NAME, directory.state().masks[NAME], directory.reader, opened)


def test_an_empty_collection(directory: DatabaseDirectory) -> None:
    found = view(directory)
    assert (found.n_masks, len(found), found.segments, found.nbytes, found.index_nbytes) == (0, 0, [], 0, 0)
    assert found.live_ids.tolist() == []
    assert found.live_ids.dtype == found.input_ids.dtype == found.column("height").dtype == np.int64
    assert found.shapes.shape == (0, 2)
    with pytest.raises(IdError, match="got 0"):
        found.positions(np.array([0]))
    with pytest.raises(UnknownNameError, match="object"):
        found.boxes("object")


def test_columns_and_boxes_over_segments(directory: DatabaseDirectory) -> None:
    boxes = np.array([[1, 2, 3, 4]], np.int32)
    append(directory, 2, attrs={"model": np.array(["a", None], object), "k": np.array([7, 8])})
    append(directory, 1, height=6, boxes={"object": boxes}, attrs={"k": np.array([2.5])})
    append(directory, 1, attrs={"Flag": np.array([True])})
    found = view(directory)
    assert found.column_names == ["mask_id", "input_id", "height", "width", "model", "k", "Flag"]
    assert found.column("mask_id").tolist() == found.live_ids.tolist() == [0, 1, 2, 3]
    assert found.column("input_id").tolist() == found.input_ids.tolist() == [400, 401, 600, 400]
    assert found.column("height").tolist() == [4, 4, 6, 4]
    assert found.column("width").tolist() == [5] * 4
    assert found.column("model").tolist() == ["a", None, None, None]
    np.testing.assert_array_equal(found.column("k"), [7, 8, 2.5, np.nan])
    assert found.column("Flag").tolist() == [None, None, None, True]
    assert found.box_names == ["object"]
    assert found.boxes("object").tolist() == [[MISSING_BOX] * 4] * 2 + [[1, 2, 3, 4]] + [[MISSING_BOX] * 4]
    assert missing_boxes(found.boxes("object")).tolist() == [True, True, False, True]
    with pytest.raises(UnknownNameError, match="'model'"):
        found.column("modle")


def test_integers_stay_integers_where_no_mask_lacks_them(directory: DatabaseDirectory) -> None:
    append(directory, 1, attrs={"k": np.array([2**60 + 1])})
    append(directory, 1, attrs={"k": np.array([3], np.int8)})
    assert view(directory).column("k").tolist() == [2**60 + 1, 3]
    assert view(directory).column("k").dtype == np.int64
    append(directory, 1)
    assert view(directory).column("k").tolist() == [2**60 + 1, 3, None]


def test_deleted_masks_keep_their_rows_and_ids(directory: DatabaseDirectory) -> None:
    append(directory, 4)
    before = view(directory)
    delete(directory, [2, 0, 2])
    delete(directory, [3])
    append(directory, 2)
    found = view(directory)
    assert found.deleted.tolist() == [0, 2, 3]
    assert found.live_ids.tolist() == [1, 4, 5]
    assert (len(found), found.n_masks) == (3, 6)
    assert len(found.column("mask_id")) == 6
    assert before.live_ids.tolist() == [0, 1, 2, 3]  # a query that holds the older version is not disturbed
    assert before.n_masks == 4


def test_single_masks_are_found(directory: DatabaseDirectory) -> None:
    for n in (3, 1, 2):
        append(directory, n)
    found = view(directory)
    ids = np.array([5, 0, 3, 2, 5, 4])
    assert found.positions(ids).tolist() == ids.tolist()
    parts = [(segment.first, at.tolist(), local.tolist()) for segment, at, local in found.by_segment(ids)]
    assert parts == [(0, [1, 3], [0, 2]), (3, [2], [0]), (4, [0, 4, 5], [1, 1, 0])]
    for bad in (-1, 6):
        with pytest.raises(IdError, match=f"got {bad}"):
            found.by_segment(np.array([2, bad]))


def test_segments_are_shared_between_versions(directory: DatabaseDirectory) -> None:
    opened: dict[SegmentRef, MaskSegment] = {}
    append(directory, 3)
    first = view(directory, opened)
    rows = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    first.segments[0].add_index_rows(np.array([0, 2]), np.ascontiguousarray(rows[:, [0, 2]]))
    append(directory, 1)
    second = view(directory, opened)
    assert second.segments[0] is first.segments[0]
    unsealed = second.segments[0].unsealed_index_rows()
    assert unsealed is not None
    with directory.write() as tx:
        ref = write_index_rows(tx, second.meta, 0, *unsealed)
        tx.commit([{"op": "add_mask_index", "masks": NAME, "segments": [ref]}])
    third = view(directory, opened)
    assert third.segments[0].unsealed_index_rows() is None
    for other in (third, view(directory)):
        indexed = other.segments[0].indexed()
        assert indexed is not None
        assert indexed.tolist() == [True, False, True]
        found = np.frombuffer(other.segments[0].index_rows(1, 0, 3), np.uint8).reshape(3, 4)
        assert np.array_equal(found, rows[1] * np.array([[1], [0], [1]]))
    assert third.index_nbytes > 0
    assert third.nbytes == sum(segment.nbytes for segment in directory.state().segments())


def test_segments_that_do_not_belong_are_refused(directory: DatabaseDirectory) -> None:
    append(directory, 2)
    with directory.write() as tx:
        again = MaskAppender(tx, CollectionMeta("m", "uint8", (0, 255)))
        again.add(MaskBatch([np.zeros((2, 2), np.uint8)], np.zeros(1, np.int64)))
        other = MaskAppender(tx, CollectionMeta("m", "bool", (0, 1), next_id=2))
        other.add(MaskBatch([np.zeros((2, 2), np.uint8)], np.zeros(1, np.int64)))
        wrong_kind = write_deletes(tx, np.array([0]))
        entry = directory.state().masks[NAME]
        meta = CollectionMeta.from_json(entry.meta)
        unknown = write_index_rows(tx, meta, 7, np.array([0]), np.zeros((2, 1, 4), np.uint8))
        for refs, index, message in (
            (again.finish(), [], "masks from 0, expected uint8 masks from 2"),
            (other.finish(), [], "of bool masks"),
            ([wrong_kind], [], "'mask_deletes', expected 'masks'"),
            ([], [unknown], "about the masks from 7"),
            ([], [wrong_kind], "expected index rows"),
        ):
            wrong = type(entry)(entry.meta, [*entry.segments, *refs], [], index)
            with pytest.raises(FormatError, match=message):
                MaskView(NAME, wrong, directory.reader)


@pytest.mark.parametrize("nodata", [None, -1.0, float("nan"), float("inf")])
def test_a_description_goes_through_json(nodata: float | None) -> None:
    meta = CollectionMeta("m", "float32", (0.0, 0.1), nodata, 8, (0.0, 0.1), "1KiB", "lazy", 12)
    found = CollectionMeta.from_json(meta.to_json())
    assert repr(found) == repr(meta)
    for key, wrong in (("dtype", "int8"), ("edges", [2, 1]), ("index", "x"), ("grid", -1), ("value_range", [1])):
        with pytest.raises(FormatError, match="got the description"):
            CollectionMeta.from_json({**meta.to_json(), key: wrong})
    with pytest.raises(FormatError, match="value_range"):
        CollectionMeta.from_json({"id": "m"})


# --- columns from parts -----------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9))
parts = st.lists(
    st.one_of(
        st.integers(0, 3),
        st.lists(numbers, max_size=4).map(lambda v: np.array(v, np.int64)),
        st.lists(st.integers(0, 2**64 - 1), max_size=3).map(lambda v: np.array(v, np.uint64)),
        st.lists(st.floats(width=32), max_size=4).map(lambda v: np.array(v, np.float32)),
        st.lists(st.booleans(), max_size=4).map(lambda v: np.array(v, np.bool_)),
        st.lists(st.none() | st.text(max_size=2), max_size=4).map(lambda v: np.array([*v, None], object)[:-1]),
        st.lists(st.text("ab", min_size=1), min_size=1, max_size=3).map(np.array),
    ),
    max_size=5,
)


def plain(part: Any) -> list[Any]:
    values = [None] * part if isinstance(part, int) else part.tolist()
    return [None if isinstance(value, float) and value != value else value for value in values]


@given(parts, st.booleans())
@settings(max_examples=300, deadline=None)
def test_joined_columns_hold_every_value(given_parts: list[Any], nulls_as_nan: bool) -> None:
    found = joined(given_parts, nulls_as_nan=nulls_as_nan)
    assert plain(found) == [value for part in given_parts for value in plain(part)]


def test_integers_with_nulls_are_stored_as_integers() -> None:
    (column,) = read_table(write_table({"k": joined([np.array([1, 2]), 1], nulls_as_nan=False)})).values()
    np.testing.assert_array_equal(column, [1, 2, np.nan])
    (column,) = read_table(write_table({"k": joined([np.array([1, 2]), np.array([3])], nulls_as_nan=False)})).values()
    assert column.dtype == np.int64
