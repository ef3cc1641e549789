"""Rows of the index that queries fill in: kept at once, sealed by writes, right whatever happened meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralartifactdb import _core
from neuralartifactdb.masks import lazy
from neuralartifactdb.masks.batch import CollectionMeta, MaskBatch
from neuralartifactdb.masks.lazy import IndexFiller
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.masks.writer import MaskAppender, write_deletes
from neuralartifactdb.storage.directory import DatabaseDirectory

META = CollectionMeta("one", "uint8", (0.0, 255.0), grid=3, edges=(50.0, 120.0), index="lazy")
RNG = np.random.default_rng(5)
MASKS = [RNG.integers(0, 256, (11, 13), dtype=np.uint8) for _ in range(40)]


def rows_of(masks: list[np.ndarray]) -> np.ndarray:
    out = np.empty((2, len(masks), 9), np.uint8)
    shapes = np.array([mask.shape for mask in masks], np.int32).reshape(-1, 2)
    _core.mask_histograms(masks, "uint8", shapes, np.array(META.edges), 3, None, out)
    return out


class Store:
    """A database with one lazy collection, as one process sees it."""

    def __init__(self, path: Path, mode: str = "a", **options: Any) -> None:
        self.directory = DatabaseDirectory(path, mode, **options)
        self.filler = IndexFiller(self.directory)
        self.opened: dict[Any, Any] = {}

    def create(self, name: str = "maps", meta: CollectionMeta = META) -> None:
        with self.directory.write() as transaction:
            transaction.commit([{"op": "create_masks", "masks": name, "meta": meta.to_json()}])

    def append(self, masks: list[np.ndarray], name: str = "maps") -> None:
        with self.directory.write() as transaction:
            self.filler.seal(transaction)
            appender = MaskAppender(transaction, self.view(name).meta)
            appender.add(MaskBatch(masks, np.arange(len(masks), dtype=np.int64)))
            refs = appender.finish()
            change = {"op": "add_mask_segments", "masks": name, "segments": refs, "meta": appender.meta.to_json()}
            transaction.commit([change])

    def delete(self, ids: list[int], name: str = "maps") -> None:
        with self.directory.write() as transaction:
            ref = write_deletes(transaction, np.array(ids))
            transaction.commit([{"op": "delete_masks", "masks": name, "segments": [ref]}])

    def drop(self, name: str = "maps") -> None:
        with self.directory.write() as transaction:
            transaction.commit([{"op": "drop_masks", "masks": name}])

    def view(self, name: str = "maps") -> MaskView:
        return MaskView(name, self.directory.state().masks[name], self.directory.reader, self.opened)

    def query(self, ids: list[int], name: str = "maps") -> int:
        """Read masks as a query does; returns how many were read whole."""
        view, n = self.view(name), 0
        for segment in view.segments:
            local = np.array([i - segment.first for i in ids if segment.first <= i < segment.last], dtype=np.int64)
            wanted = self.filler.missing(segment, view.meta, local)
            if wanted is not None:
                chosen, heights = local[wanted], segment.shapes[local[wanted], 0]
                self.filler.keep(
                    segment, view.meta, chosen, segment.read_rows(chosen, np.zeros(len(chosen), np.int32), heights)
                )
                n += len(chosen)
        return n

    def indexed(self, name: str = "maps") -> list[int]:
        """Ids of masks with rows; the rows are compared with the pixels."""
        found: list[int] = []
        for segment in self.view(name).segments:
            known = segment.indexed()
            local = np.flatnonzero(np.ones(segment.n, bool) if known is None else known)
            if not segment.n_edges:
                continue
            for edge in range(2):
                rows = np.frombuffer(segment.index_rows(edge, 0, segment.n), np.uint8).reshape(segment.n, 9)
                expected = rows_of([MASKS[segment.first + i] for i in local.tolist()])[edge]
                assert (rows[local] == expected).all()
            found += (local + segment.first).tolist()
        return found

    def n_index_segments(self, name: str = "maps") -> int:
        return len(self.directory.state().masks[name].index)

    def close(self) -> None:
        self.filler.close()
        self.directory.close()


@pytest.fixture
def store(db_path: Path) -> Iterator[Store]:
    held = Store(db_path)
    held.create()
    held.append(MASKS[:10])
    yield held
    held.close()


def test_masks_that_were_read_have_rows_at_once(store: Store) -> None:
    assert store.indexed() == []
    assert store.query([7, 2]) == 2
    assert store.indexed() == [2, 7]
    assert store.query([2, 3, 7]) == 1
    assert store.indexed() == [2, 3, 7]
    assert store.filler.nbytes == 3 * 2 * 9
    assert store.n_index_segments() == 0  # memory only


def test_close_makes_rows_durable(store: Store, db_path: Path) -> None:
    store.query([1, 4, 9])
    store.close()
    other = Store(db_path)
    assert other.indexed() == [1, 4, 9]
    assert other.query([1, 4, 9]) == 0
    other.close()


def test_append_and_flush_seal_and_a_second_seal_writes_nothing(store: Store, db_path: Path) -> None:
    store.query([5])
    store.append(MASKS[10:14])
    assert store.n_index_segments() == 1
    store.query([12, 0])
    assert store.filler.flush() == 2
    assert store.n_index_segments() == 3  # one for each segment of masks
    assert store.filler.flush() == 0
    assert store.filler.nbytes == 0
    assert store.n_index_segments() == 3
    assert store.indexed() == [0, 5, 12]
    assert Store(db_path, "r").indexed() == [0, 5, 12]


def test_masks_in_several_states_of_sealing_answer_together(store: Store) -> None:
    for i in range(10):
        store.query([i])
        if i % 3 == 0:
            store.filler.flush()
        assert store.indexed() == list(range(i + 1))
    assert store.query(list(range(10))) == 0
    assert store.view().segments[0].indexed() is None


def test_rows_of_deleted_masks_are_not_written(store: Store, db_path: Path) -> None:
    store.query([1, 2, 3])
    store.delete([2])
    assert store.filler.flush() == 2
    assert Store(db_path, "r").indexed() == [1, 3]
    store.query([4])
    assert store.filler.flush() == 1
    assert Store(db_path, "r").indexed() == [1, 3, 4]


def test_rows_of_a_dropped_collection_are_forgotten(store: Store) -> None:
    store.query([1, 2])
    store.drop()
    assert store.filler.flush() == 0
    assert store.filler.nbytes == 0
    assert store.directory.state().masks == {}


def test_rows_do_not_move_to_a_collection_that_replaces_theirs(store: Store) -> None:
    store.query([1, 2])
    store.drop()
    store.create(meta=replace(META, id="two", grid=2, edges=(9.0,)))
    store.append(MASKS[:10])
    assert store.n_index_segments() == 0
    assert store.view().segments[0].indexed() is not None
    assert not store.view().segments[0].indexed().any()


def test_rows_sealed_by_another_process_are_not_written_twice(store: Store, db_path: Path) -> None:
    other = Store(db_path)
    other.query([1, 2, 3])
    store.query([2, 3, 4])
    assert other.filler.flush() == 3
    assert store.filler.flush() == 1
    assert store.filler.nbytes == 0
    assert Store(db_path, "r").indexed() == store.indexed() == [1, 2, 3, 4]
    other.close()


def test_masks_appended_by_another_process_disturb_nothing(store: Store, db_path: Path) -> None:
    store.query([1])
    other = Store(db_path)
    other.append(MASKS[10:20])
    other.close()
    store.query([15])
    assert store.filler.flush() == 2
    assert Store(db_path, "r").indexed() == [1, 15]


def test_masks_of_unequal_sizes(db_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [np.ascontiguousarray(MASKS[i][: 2 + i % 9, : 1 + i % 12]) for i in range(40)]
    mixed[6] = mixed[6][:0]
    monkeypatch.setitem(globals(), "MASKS", mixed)
    store = Store(db_path)
    store.create()
    store.append(mixed[:12])
    store.query([11, 3, 6])
    assert store.indexed() == [3, 6, 11]
    store.close()
    assert Store(db_path, "r").indexed() == [3, 6, 11]


def test_other_collections_read_nothing_whole(db_path: Path) -> None:
    store = Store(db_path)
    store.create("eager", replace(META, id="two", index="append"))
    store.create("bare", replace(META, id="three", grid=0, edges=()))
    for name in ("eager", "bare"):
        store.append(MASKS[:5], name)
        assert store.query([0, 1], name) == 0
    store.close()


def test_a_reader_keeps_rows_and_writes_nothing(store: Store, db_path: Path) -> None:
    reader = Store(db_path, "r")
    before = sorted(os.listdir(db_path / "segments"))
    assert reader.query([3]) == 1
    assert reader.indexed() == [3]
    assert reader.query([3]) == 0
    reader.close()
    assert sorted(os.listdir(db_path / "segments")) == before
    assert store.indexed() == []


def test_closing_beside_another_writer_gives_the_rows_up(store: Store, db_path: Path) -> None:
    other = Store(db_path, lock_timeout_s=0.01)
    other.query([1])
    with store.directory.write():
        other.close()
    assert store.indexed() == []
    assert store.query([1]) == 1


def test_memory_is_bounded_and_relieved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_MOST_BYTES", 4 * 18)
    store.query([0])
    store.filler.relieve()
    assert store.n_index_segments() == 0
    with store.directory.write():  # a writer is at work: nothing is sealed, and memory fills up
        store.query([1])
        store.filler.relieve()
        store.query([2, 3])
        assert store.query([4]) == 0
    assert store.indexed() == [0, 1, 2, 3]
    store.filler.relieve()
    assert store.n_index_segments() == 1
    assert store.filler.nbytes == 0
    assert store.query([4]) == 1


def test_a_failed_commit_loses_no_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.query([1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(store.directory.versions, "commit", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            store.filler.flush()
    assert store.indexed() == [1, 2]
    assert store.filler.flush() == 2
    assert store.indexed() == [1, 2]
