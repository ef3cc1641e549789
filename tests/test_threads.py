"""How many threads there are: one place says it, for the core's loops and for pools in Python."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb import threads
from neuralartifactdb.masks.grid import deflated


def names_of(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Threads that a pool was made of while something ran."""
    made: set[str] = set()
    start = threading.Thread.start

    def noting(self: threading.Thread) -> None:
        made.add(self.name)
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", noting)
        run()
    return {name for name in made if name.startswith("nadb-")}


def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NADB_THREADS", "3")
    assert threads.thread_count() == threads.thread_count(waiting=True) == nadb.build_info().threads == 3
    monkeypatch.delenv("NADB_THREADS")
    assert threads.thread_count(waiting=True) == 2 * threads.thread_count() == 2 * nadb.build_info().threads
    monkeypatch.setenv("NADB_THREADS", "many")
    with pytest.raises(ValueError, match="NADB_THREADS"):
        threads.in_threads(abs, [1, 2], "nadb-test")


def test_items_keep_their_order_and_errors_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for n in ("1", "4"):
        monkeypatch.setenv("NADB_THREADS", n)
        assert threads.in_threads(lambda i: i * i, range(50), "nadb-test") == [i * i for i in range(50)]
        assert threads.in_threads(abs, [], "nadb-test") == []
        with pytest.raises(ZeroDivisionError):
            threads.in_threads(lambda i: 1 // i, [1, 0, 2], "nadb-test")


def test_no_pool_is_larger_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2, timeout=5)
    monkeypatch.setenv("NADB_THREADS", "2")
    meet = lambda _: barrier.wait()  # noqa: E731
    assert len(names_of(lambda: threads.in_threads(meet, range(4), "nadb-test"), monkeypatch)) == 2
    assert not names_of(lambda: threads.in_threads(abs, range(9), "nadb-test", most=1), monkeypatch)
    monkeypatch.setenv("NADB_THREADS", "1")
    assert not names_of(lambda: threads.in_threads(abs, range(9), "nadb-test", waiting=True), monkeypatch)


def test_one_thread_is_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Appending, groups joined pixel by pixel and regions that are masks start no thread with NADB_THREADS=1."""
    monkeypatch.setenv("NADB_THREADS", "1")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 9, 9), dtype=np.uint8)

    def run() -> None:
        deflated(list(pixels))
        with nadb.open(f"{tmp_path}/run.nadb") as db:
            masks = db.create_masks("m", dtype="uint8", grid=2, edges=[128])
            masks.append(pixels, input_id=np.arange(40) // 2)
            other = db.create_masks("other", dtype="uint8", grid=2, edges=[128])
            other.append(pixels[:20], input_id=np.arange(20))
            masks.group_by("input_id").top_k(nadb.iou(low=100), k=3)
            masks.top_k(nadb.count(nadb.mask("other", low=77), low=100), k=3)

    assert not names_of(run, monkeypatch)
