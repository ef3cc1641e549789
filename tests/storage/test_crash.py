"""Cuts, full and broken disks at every call to the file system: the last commit stays, the next attempt succeeds."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_database import STEPS, content

from neuralartifactdb.storage import DatabaseDirectory, io


class PowerCut(BaseException):
    """Nothing that runs after it touches the disk."""


class Disk:
    """A hook that counts calls, cuts at one of them, and knows what a power cut may take away.

    After a cut, `lose` leaves what a disk without a cache would hold: files without the bytes, and directories without
    the names, that were not synced.
    """

    def __init__(self, cut_at: int, n_bytes: int | None = None) -> None:
        self.cut_at = cut_at
        self.n_bytes = n_bytes
        self.n_calls = 0
        self.unsynced: set[str] = set()
        self.names: dict[str, list[tuple[str, str, str]]] = {}

    def __call__(self, operation: str, path: str) -> None:
        self.n_calls += 1
        if self.n_calls > self.cut_at:
            if operation == "write" and self.n_bytes is not None and self.n_calls == self.cut_at + 1:
                self.unsynced.add(path)
                raise io.PartialWrite(self.n_bytes, PowerCut())
            raise PowerCut
        parent, name = os.path.split(path)
        if operation in ("create", "mkdir"):
            self.names.setdefault(parent, []).append(("remove", path, ""))
        elif operation == "write":
            self.unsynced.add(path)
        elif operation == "fsync":
            self.unsynced.discard(path)
        elif operation == "rename":
            before = os.path.join(parent, "tmp-" + name)
            self.names.setdefault(parent, []).append(("rename", path, before))
            self.unsynced = {p.replace(before + os.sep, path + os.sep) for p in self.unsynced}
            self.names = {
                directory.replace(before, path): [
                    (kind, p.replace(before + os.sep, path + os.sep), b) for kind, p, b in undo
                ]
                for directory, undo in self.names.items()
            }
        elif operation == "link":
            self.names.setdefault(parent, []).append(("remove", path, ""))
        elif operation == "fsync_dir":
            self.names.pop(path, None)

    def lose(self) -> None:
        for path in self.unsynced:
            if os.path.exists(path):
                os.truncate(path, 0)
        for undo in self.names.values():
            for kind, path, before in reversed(undo):
                if kind == "rename" and os.path.exists(path):
                    os.rename(path, before)
                elif kind == "remove":
                    shutil.rmtree(path) if os.path.isdir(path) else Path(path).unlink(missing_ok=True)


def run(path: Path, first: int = 0) -> int:
    """The steps from one on; returns the number of steps done, also when cut."""
    done = first
    try:
        with DatabaseDirectory(path, lock_timeout_s=0) as directory:
            for step in STEPS[first:]:
                step(directory)
                done += 1
    except PowerCut:
        pass
    return done


def n_calls(path: Path) -> int:
    disk = Disk(10**9)
    with io.faults(disk):
        run(path)
    return disk.n_calls


@pytest.mark.parametrize("variant", ["all written data survives", "nothing unsynced survives", "half a write"])
def test_a_cut_at_every_call(memory_path: Path, contents: list[dict[str, Any]], variant: str) -> None:
    total = n_calls(memory_path / "counted")
    assert total > 150
    cuts = {"acknowledged": 0, "committed": 0}
    for cut_at in range(total):
        path = memory_path / str(cut_at) / "db.nadb"
        path.parent.mkdir()
        disk = Disk(cut_at, 5 if variant == "half a write" else None)
        with io.faults(disk):
            done = run(path)
        if variant == "nothing unsynced survives":
            disk.lose()
        io.close_descriptors(str(path))
        with DatabaseDirectory(path) as directory:
            found = content(directory)
        assert found in (contents[done], contents[min(done + 1, len(STEPS))]), f"cut at call {cut_at}"
        committed = contents.index(found)
        cuts["acknowledged" if committed == done else "committed"] += 1
        assert run(path, committed) == len(STEPS)
        with DatabaseDirectory(path) as directory:
            assert content(directory) == contents[-1]
            with directory.write():  # clears away what is left
                referenced = directory.versions.referenced_segments()
        assert set(os.listdir(path / "segments")) == referenced
        assert sorted(os.listdir(path / "versions")) == [f"{n:020d}.json" for n in range(1, len(STEPS) + 2)]
        shutil.rmtree(path.parent)
    assert cuts["acknowledged"] > 100


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("lasting", [False, True])
def test_an_error_at_every_call(memory_path: Path, contents: list[dict[str, Any]], code: int, lasting: bool) -> None:
    total = n_calls(memory_path / "counted")
    failures = 0
    for fail_at in range(total):
        path = memory_path / str(fail_at) / "db.nadb"
        path.parent.mkdir()
        calls = 0

        def hook(operation: str, path: str, fail_at: int = fail_at) -> None:
            nonlocal calls
            calls += 1
            writes = operation in ("write", "create", "mkdir", "fsync", "fsync_dir", "link", "rename", "open_lock")
            if calls == fail_at + 1 or (lasting and calls > fail_at and writes):
                raise OSError(code, os.strerror(code))

        done = 0
        directory: DatabaseDirectory | None = None
        caught: OSError | None = None
        with io.faults(hook):
            try:
                directory = DatabaseDirectory(path, lock_timeout_s=0)
                for step in STEPS:
                    step(directory)
                    done += 1
            except OSError as error:
                caught = error
        if caught is not None:
            assert isinstance(caught, io.DiskError)
            assert caught.errno == code
            assert str(path.parent) in str(caught)
            failures += 1
        directory = directory or DatabaseDirectory(path, lock_timeout_s=0)
        with directory:  # the same handle goes on
            found = content(directory)
            assert found in (contents[done], contents[min(done + 1, len(STEPS))]), f"failed at call {fail_at}"
            for step in STEPS[contents.index(found) :]:
                step(directory)
            assert content(directory) == contents[-1]
            assert set(os.listdir(path / "segments")) == directory.versions.referenced_segments()
        shutil.rmtree(path.parent)
    assert failures > 100


def test_everything_is_synced_before_it_is_named(tmp_path: Path) -> None:
    """The order that makes a commit durable, and its price in calls of fsync."""
    with DatabaseDirectory(tmp_path / "db.nadb") as directory:
        STEPS[0](directory)
        log: list[tuple[str, str]] = []
        with io.faults(lambda operation, path: log.append((operation, os.path.basename(path)))):
            STEPS[1](directory)
    calls = [(operation, name) for operation, name in log if operation in ("fsync", "fsync_dir", "rename", "link")]
    segment = calls[4][1].removeprefix("tmp-")
    assert calls == [
        ("fsync", "codes.npy"),
        ("fsync", "bounds.npy"),
        ("fsync", "checksums.npy"),
        ("fsync", "segment.json"),
        ("fsync_dir", f"tmp-{segment}"),
        ("rename", segment),
        ("fsync_dir", "segments"),
        ("fsync", "tmp-3"),
        ("link", "00000000000000000003.json"),
        ("fsync_dir", "versions"),
    ]


class Interrupt:
    """Raises KeyboardInterrupt once, after a delay, wherever the main thread is then: what Ctrl-C does."""

    def __init__(self) -> None:
        self.armed = True
        self.before = signal.signal(signal.SIGALRM, self)

    def __call__(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def disarm(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


def interrupted(directory: DatabaseDirectory, delay_s: float) -> int:
    """The steps, until Ctrl-C; the number of steps done."""
    done = 0
    interrupt = Interrupt()
    try:
        signal.setitimer(signal.ITIMER_REAL, delay_s)
        for step in STEPS:
            step(directory)
            done += 1
        interrupt.armed = False
    except KeyboardInterrupt:
        pass
    finally:
        interrupt.disarm()
    return done


def test_ctrl_c_at_any_moment(
    memory_path: Path, contents: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same handle goes on: no lock stays taken, nothing is half committed."""
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: None)  # CPython drops an interrupt in a __del__
    started = time.perf_counter()
    run(memory_path / "timed")
    duration = time.perf_counter() - started
    rng = random.Random(0)
    outcomes = set()
    for _ in range(120):
        path = memory_path / "db.nadb"
        with DatabaseDirectory(path, lock_timeout_s=0) as directory:
            done = interrupted(directory, rng.uniform(1e-5, duration))
            found = content(directory)
            assert found in (contents[done], contents[min(done + 1, len(STEPS))])
            committed = contents.index(found)
            outcomes.add((done, committed))
            for step in STEPS[committed:]:
                step(directory)
            assert content(directory) == contents[-1]
        io.remove_tree(str(path))
    assert len(outcomes) >= 3
