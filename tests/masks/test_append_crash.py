"""An append that dies, at any call to the file system or by a signal, leaves the last commit and nothing half-written.

Implements "A crash at any instruction leaves the last committed version" of design section 6 for masks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.masks import lazy
from neuralartifactdb.storage import io

OLD = np.arange(12 * 5 * 4, dtype=np.uint8).reshape(12, 5, 4)
NEW = OLD[::-1].copy()


class PowerCut(BaseException):
    """Nothing that runs after it touches the disk."""


class Disk:
    """Counts calls to the file system, and cuts at one of them."""

    def __init__(self, cut_at: int) -> None:
        self.cut_at = cut_at
        self.n_calls = 0

    def __call__(self, operation: str, path: str) -> None:
        self.n_calls += 1
        if self.n_calls > self.cut_at:
            if operation == "write" and self.n_calls == self.cut_at + 1:
                raise io.PartialWrite(7, PowerCut())
            raise PowerCut


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory where there is one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="nadb-test-", dir=shared if os.access(shared, os.W_OK) else None) as path:
        yield Path(path)


def replace(db: nadb.Database) -> Any:
    """Half of the old masks go, as many come."""
    boxes = {"b": [(0, 0, 2, 2)] * 6}
    return db.masks["m"].append(NEW[:6], input_id=range(6), boxes=boxes, replace_on="input_id")


def content(db: nadb.Database) -> Any:
    table = db.masks["m"].table()
    pixels = db.masks["m"].pixels(table["mask_id"])
    found = db.masks["m"].filter(nadb.count(nadb.whole, low=100) > 5).ids.tolist()
    return table["mask_id"].tolist(), table["input_id"].tolist(), pixels.tolist(), found


def test_a_cut_at_every_call_of_an_append(memory_path: Path) -> None:
    first = memory_path / "first.nadb"
    with nadb.open(first) as db:
        db.create_masks("m", dtype="uint8").append(OLD, input_id=range(12))
        before = content(db)
    with nadb.open(shutil.copytree(first, memory_path / "whole.nadb")) as db:
        disk = Disk(10**9)
        with io.faults(disk):
            replace(db)
        after = content(db)
    assert before != after
    assert disk.n_calls > 40
    outcomes = set()
    for cut_at in range(disk.n_calls):
        path = memory_path / "cut.nadb"
        shutil.copytree(first, path)
        with nadb.open(path) as db:
            list(db.masks)
            with io.faults(Disk(cut_at)), pytest.raises(PowerCut):
                replace(db)
            io.close_descriptors(str(path))
        with nadb.open(path) as db:
            found = content(db)
            assert found in (before, after), f"cut at call {cut_at}"
            outcomes.add(found == after)
            if found == before and cut_at % 4 == 0:  # the next attempt succeeds, and what was left is cleared away
                assert replace(db).tolist() == list(range(12, 18))
                assert content(db) == after
                n_segments = len(db._session.directory.state().masks["m"].all_segments())
                assert len(list((path / "segments").iterdir())) == n_segments
        shutil.rmtree(path)
    assert outcomes == {False, True}


def test_a_cut_at_every_call_of_a_merge_of_index_rows(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_MOST_SEGMENTS", 3)
    first = memory_path / "first.nadb"

    def learn(db: nadb.Database, number: int) -> None:
        db.masks["m"].filter(nadb.count((0, 0, 3, 3), low=7) > 2, where=[number])
        db.masks["m"].commit()

    def known(db: nadb.Database) -> tuple[list[int], int]:
        segment = db._session.at().masks("m").segments[0]
        return np.flatnonzero(segment.indexed()).tolist(), len(db._session.directory.state().masks["m"].index)

    with nadb.open(first) as db:
        db.create_masks("m", dtype="uint8", index="lazy").append(OLD, input_id=range(12))
        for number in range(3):
            learn(db, number)
    with nadb.open(first, mode="r") as db:
        right = content(db)
    outcomes, cut_at, n_calls = set(), 0, 1
    while cut_at < n_calls:
        path = memory_path / "cut.nadb"
        shutil.copytree(first, path)
        db = nadb.open(path)  # never closed: that would be another attempt
        db.masks["m"].filter(nadb.count((0, 0, 3, 3), low=7) > 2, where=[7])
        disk = Disk(cut_at)
        with io.faults(disk):
            try:
                db.masks["m"].commit()
            except PowerCut:
                n_calls = cut_at + 2
        io.close_descriptors(str(path))
        with nadb.open(path, mode="r") as again:
            found = known(again)
            outcomes.add(found[1])
            assert found in (([0, 1, 2], 3), ([0, 1, 2, 7], 2)), f"cut at call {cut_at}"
            assert content(again) == right
        with nadb.open(path) as again:  # the next attempt succeeds
            learn(again, 7)
            assert known(again) == ([0, 1, 2, 7], 2)
        shutil.rmtree(path)
        cut_at += 1
    assert outcomes == {2, 3}
    assert cut_at > 20


CHILD = """
    import sys
    import numpy as np
    import neuralartifactdb as nadb

    db = nadb.open(sys.argv[1])
    masks = db.masks["m"]
    print("ready", flush=True)
    number = len(masks) // 50
    while True:
        pixels = np.full((50, 64, 64), number % 251, np.uint8)
        tens = (pixels[i : i + 10] for i in range(0, 50, 10))
        masks.append({"pixels": ten, "input_id": [number] * 10, "attrs": {"job": number}} for ten in tens)
        print(number, flush=True)
        number += 1
"""


def test_kill_during_append(memory_path: Path) -> None:
    path = memory_path / "run.nadb"
    with nadb.open(path) as db:
        db.create_masks("m", dtype="uint8")
    reader = nadb.open(path, mode="r")
    for round_number in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            acknowledged = int(child.stdout.readline())
            time.sleep(0.013 * (round_number + 1))  # anywhere in the appends that follow
            child.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        check(reader.masks["m"], acknowledged)
        with nadb.open(path) as db:
            masks = db.masks["m"]
            n = check(masks, acknowledged)
            masks.append(np.full((50, 64, 64), n % 251, np.uint8), input_id=[n] * 50, attrs={"job": n})
            assert check(masks, acknowledged) == n + 1
            kept = {ref.id for ref in db._session.directory.state().segments()}
            assert {p.name for p in (path / "segments").iterdir()} == kept
    reader.close()


def check(masks: Any, acknowledged: int) -> int:
    """Whole appends only, every acknowledged one among them, each as it was given; returns how many."""
    table = masks.table()
    n, rest = divmod(len(masks), 50)
    assert rest == 0
    assert n > acknowledged
    owners = np.repeat(np.arange(n), 50)
    assert table["mask_id"].tolist() == list(range(50 * n))
    assert table["input_id"].tolist() == owners.tolist()
    assert table["job"].tolist() == owners.tolist()
    assert (masks.pixels(table["mask_id"]) == (owners % 251)[:, None, None]).all()
    found = masks.filter(nadb.count(nadb.whole, equals=1) == 64 * 64)
    assert found.ids.tolist() == np.flatnonzero(owners % 251 == 1).tolist()
    return n
