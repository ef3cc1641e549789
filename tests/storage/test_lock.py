"""The writer's lock: across handles, processes, forks and deaths."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuralartifactdb.errors import DatabaseBusyError, DtypeError, InvalidValueError
from neuralartifactdb.storage.directory import DatabaseDirectory
from neuralartifactdb.storage.lock import WriterLock

HOLD = """
import sys, types
package = types.ModuleType("neuralartifactdb")  # the lock alone: quick to import
package.__path__ = [sys.argv[2]]
sys.modules["neuralartifactdb"] = package
from neuralartifactdb.storage.lock import WriterLock
lock = WriterLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock of `tmp_path`."""
    import neuralartifactdb

    command = [sys.executable, "-c", HOLD, str(tmp_path), str(neuralartifactdb.__path__[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_process_is_named(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    lock = WriterLock(tmp_path)
    started = time.monotonic()
    with pytest.raises(DatabaseBusyError) as caught:
        lock.acquire(0.05)
    assert 0.04 < time.monotonic() - started < 5
    message = str(caught.value)
    for part in (f"process {holder.pid}", socket.gethostname(), str(tmp_path), "since 20", "lock_timeout_s=", "0.05 s"):
        assert part in message
    assert not lock.held


def test_a_dead_holder_holds_nothing(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with WriterLock(tmp_path) as lock:
        assert lock.held
    assert not lock.held


def test_waits_until_the_holder_is_done(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    threading.Timer(0.1, holder.stdin.close).start()
    with WriterLock(tmp_path, timeout_s=10) as lock:
        assert lock.held


def test_two_handles_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    first, second = WriterLock(tmp_path, 0), WriterLock(tmp_path, 0)
    with first:
        with pytest.raises(DatabaseBusyError, match="another handle of this process"):
            second.acquire()
        with pytest.raises(DatabaseBusyError):
            first.acquire()  # not reentrant
        second.release()  # not its own
        with pytest.raises(DatabaseBusyError):
            second.acquire()
    with second:
        pass


def test_a_lock_that_nobody_refers_to_is_free(tmp_path: Path) -> None:
    WriterLock(tmp_path, 0).acquire()
    WriterLock(tmp_path, 0).acquire()


def test_unreadable_details_do_not_matter(tmp_path: Path) -> None:
    with WriterLock(tmp_path):
        (tmp_path / "lock").write_bytes(b"\xff\x00nonsense")
        with pytest.raises(DatabaseBusyError, match="details are not readable"):
            WriterLock(tmp_path, 0).acquire()


def in_child(run: object) -> int:
    """Exit status of a forked child that runs a function."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(run())  # type: ignore[operator]
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_neither_holds_nor_releases(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path, 0)
    lock.acquire()

    def child() -> int:
        if lock.held:
            return 1
        lock.release()
        try:
            WriterLock(tmp_path, 0).acquire()
        except DatabaseBusyError:
            return 0
        return 2

    assert in_child(child) == 0
    assert lock.held
    with pytest.raises(DatabaseBusyError):
        WriterLock(tmp_path, 0).acquire()
    lock.release()
    assert in_child(lambda: WriterLock(tmp_path, 0).acquire() or 0) == 0


def test_a_child_that_outlives_its_parent_keeps_nothing(tmp_path: Path) -> None:
    """A data loader's worker must not hold the lock of a killed writer."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        signal.alarm(30)
        lock = WriterLock(tmp_path, 0)
        lock.acquire()
        if os.fork() == 0:
            signal.alarm(30)
            os.write(write, os.getpid().to_bytes(8, "little"))
        signal.pause()  # both live until the test ends them
    worker = int.from_bytes(os.read(read, 8), "little")
    with pytest.raises(DatabaseBusyError):
        WriterLock(tmp_path, 0).acquire()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        with WriterLock(tmp_path, 0) as lock:
            assert lock.held
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(read)
        os.close(write)


@pytest.mark.parametrize(
    ("given", "error"),
    [("x", DtypeError), (None, DtypeError), (-5, InvalidValueError), (float("nan"), InvalidValueError)],
)
def test_a_time_to_wait_that_is_none(tmp_path: Path, given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="lock_timeout_s must be"):
        DatabaseDirectory(tmp_path, lock_timeout_s=given)
