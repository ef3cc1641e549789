"""Rows of the index that queries fill in: kept at once, sealed by writes, right whatever happened meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb import _core
from neuralartifactdb.masks import lazy
from neuralartifactdb.masks.batch import CollectionMeta, MaskBatch
from neuralartifactdb.masks.filled_index import FilledIndex
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


def test_threads_that_query_and_seal_at_once(store: Store, db_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(store.query, [i % 10, (i * 3) % 10]) for i in range(60)]
        sealed = [pool.submit(store.filler.flush) for _ in range(6)]
        for future in [*done, *sealed]:
            future.result()
    store.filler.flush()
    assert store.indexed() == list(range(10))
    assert Store(db_path, "r").indexed() == list(range(10))


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_small_segments_are_merged(store: Store, db_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 4)
    written: list[int] = []
    write = lazy.write_index_rows
    monkeypatch.setattr(
        lazy,
        "write_index_rows",
        lambda tx, meta, first, ids, rows: [written.append(len(ids)), write(tx, meta, first, ids, rows)][1],
    )
    store.append(MASKS[10:40])
    other = Store(db_path)  # sees every state, as a process that goes on reading does
    order = RNG.permutation(np.arange(10, 40)).tolist()
    states = []
    for number, i in enumerate(order, 1):
        store.query([i])
        store.filler.flush()
        assert store.n_index_segments() <= 4
        assert store.indexed() == other.indexed() == sorted(order[:number])
        states.append(store.directory.state())
    assert 30 < sum(written) < 30 * 5  # not all of them again and again
    store.query([3])
    store.filler.flush()
    assert store.n_index_segments() <= 5  # of the other segment of masks
    assert store.view().segments[1].indexed() is None
    assert Store(db_path, "r").indexed() == [3, *range(10, 40)]
    # older versions are as they were, also for a process that has seen newer ones
    fresh = Store(db_path, "r")
    for held in (fresh, store):
        for number in (29, 2, 17, 0):
            entry = states[number].masks["maps"]
            assert set(order[: number + 1]) <= set(indexed_of(held, entry))
    assert indexed_of(Store(db_path, "r"), states[5].masks["maps"]) == sorted(order[:6])
    other.close()


def indexed_of(store: Store, entry: Any) -> list[int]:
    store.directory.state()  # the newest one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "view", lambda _: MaskView("maps", entry, store.directory.reader, store.opened))
        return store.indexed()


def test_merged_rows_take_the_place_of_theirs_in_memory(
    store: Store, db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process reads few files after a merge, in whatever order it meets the versions."""
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 4)
    before = []
    for i in range(5):
        before = store.directory.state().masks["maps"].index
        store.query([i])
        store.filler.flush()
    after = store.directory.state().masks["maps"].index
    assert (len(before), len(after)) == (4, 3)
    for refs in ([*before, *after], [*after, *before]):
        held = FilledIndex(10, 3, np.array(META.edges))
        for ref in refs:
            held.load(store.directory.reader(ref))
        assert {reader.ref for reader, _ in held._sealed} == set(after)
        assert np.flatnonzero(held.indexed()).tolist() == [0, 1, 2, 3, 4]


def test_large_segments_are_not_merged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 2)
    for i in range(3):
        store.query([i])
        monkeypatch.setattr(lazy, "_MOST_BYTES", 64 << 20 if i < 2 else 2 * 18 - 1)
        store.filler.flush()
    assert store.n_index_segments() == 3
    monkeypatch.setattr(lazy, "_MOST_BYTES", 64 << 20)
    store.query([5])
    store.filler.flush()
    assert store.n_index_segments() == 2
    assert store.indexed() == [0, 1, 2, 5]


def test_damaged_rows_do_not_keep_a_write_from_happening(
    store: Store, db_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 2)
    for i in range(2):
        store.query([i])
        store.filler.flush()
    damaged = db_path / "segments" / store.directory.state().masks["maps"].index[0].id / "histograms.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    other = Store(db_path)
    other.query([7])
    assert other.filler.flush() == 1
    assert other.n_index_segments() == 3
    assert "unmerged" in caplog.text
    assert str(damaged) in caplog.text


def test_readers_while_segments_are_merged(store: Store, db_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 2)
    store.append(MASKS[10:40])
    done = threading.Event()

    def read(reader: Store) -> int:
        n = 0
        while not done.is_set() or n < 3:
            found = reader.indexed()  # rows are compared with the pixels
            assert len(found) >= n
            n = len(found)
        return n

    readers = [store, Store(db_path, "r"), Store(db_path, "r", cache_bytes=0)]
    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read, reader) for reader in readers]
        try:
            for i in RNG.permutation(40).tolist():
                store.query([i])
                store.filler.flush()
        finally:
            done.set()
        for future in reading:
            assert future.result() >= 3
    assert [reader.indexed() for reader in readers] == [list(range(40))] * 3
    assert store.n_index_segments() <= 4


# ---- through the public interface ------------------------------------------------------------------------------------


def test_queries_fill_in_the_index_and_stay_right(db_path: Path) -> None:
    pixels = np.stack([np.minimum(mask, mask[::-1]) for mask in MASKS])
    low, box = 90, (2, 1, 9, 8)
    exact = (pixels[:, 1:8, 2:9] >= low).sum(axis=(1, 2))
    threshold = float(np.median(exact))
    expected = np.flatnonzero(exact > threshold).tolist()
    with nadb.open(db_path) as db:
        masks = db.create_masks("maps", dtype="uint8", grid=4, edges=[90], index="lazy")
        masks.append(pixels, input_id=np.arange(40))
        first = masks.filter(nadb.count(box, low) > threshold)
        assert first.ids.tolist() == expected
        assert first.stats.evaluated == 40  # nothing is pruned without a row
        again = masks.filter(nadb.count(box, low) > threshold)
        assert again.ids.tolist() == expected
        assert again.stats.evaluated < 40
        best = masks.top_k(nadb.count(nadb.whole, low), k=5)
        order = np.lexsort((np.arange(40), -(pixels >= low).sum(axis=(1, 2))))
        assert best.ids.tolist() == order[:5].tolist()
        assert best.stats.evaluated == 0  # the edge is on the threshold, and the cells are small
        masks.delete(expected[:2])
        masks.append(pixels[:3], input_id=[50, 51, 52])
        assert masks.filter(nadb.count(box, low) > threshold).ids.tolist() == [
            *expected[2:],
            *(40 + i for i in range(3) if exact[i] > threshold),
        ]
    with nadb.open(db_path, mode="r") as db:
        later = db.masks["maps"].filter(nadb.count(nadb.whole, low) >= 0)
        assert len(later.ids) == 41
        assert db.masks["maps"].top_k(nadb.count(nadb.whole, low), k=41).stats.evaluated == 0
