"""The writer's lock of a database directory: one writer at a time, readers never wait.

A kernel lock, so it dies with its holder; the file only tells others who that is. A forked child (a data loader's
worker) neither holds nor releases its parent's lock. Implements "a write takes the lock for its duration" of design
section 6.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import time
import weakref
from types import TracebackType

from neuralartifactdb.errors import DatabaseBusyError
from neuralartifactdb.storage import io
from neuralartifactdb.storage.mutex import Mutex

__all__ = ["WriterLock"]

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


class WriterLock:
    """Excludes other writers of a directory, in this process and others, on this machine.

    Args:
        directory: The database directory; it must exist when the lock is taken.
        timeout_s: How long `with lock:` waits for another writer.

    Example:
        >>> with WriterLock("run.nadb", timeout_s=5):  # doctest: +SKIP
        ...     ...
    """

    def __init__(self, directory: str | os.PathLike[str], timeout_s: float = 10.0) -> None:
        self.path = os.path.join(os.fspath(directory), "lock")
        self.timeout_s = timeout_s
        self._mutex = Mutex()
        self._file: io.LockFile | None = None
        self._pid = 0
        _live.add(self)

    @property
    def held(self) -> bool:
        """Whether this process holds the lock through this object."""
        return self._file is not None and self._pid == os.getpid()

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take the lock, waiting for at most `timeout_s` seconds.

        Raises:
            DatabaseBusyError: Another handle, of this process or another, still holds it then.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        pause = _FIRST_PAUSE_S
        file = io.LockFile(self.path)
        try:
            while not file.try_lock():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DatabaseBusyError(self._busy_message(file, timeout_s))
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            file.write(_describe_holder())
        except BaseException:
            file.unlock()
            raise
        with self._mutex.lock:
            self._file, self._pid = file, os.getpid()

    def release(self) -> None:
        """Give the lock back; does nothing when this process does not hold it."""
        with self._mutex.lock:
            file, self._file = self._file, None
            mine = self._pid == os.getpid()
        if file is not None:
            if mine:
                file.unlock()
            else:
                file.close()

    def __enter__(self) -> WriterLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _busy_message(self, file: io.LockFile, timeout_s: float) -> str:
        try:
            holder = json.loads(file.read())
            who = f"process {holder['pid']} on host {holder['host']}, since {holder['since']}"
            if holder["pid"] == os.getpid() and holder["host"] == socket.gethostname():
                who = f"another handle of this process (pid {holder['pid']}), since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process (its details are not readable)"
        directory = os.path.dirname(self.path)
        return (
            f"the database {directory!r} is being written by {who}; waited {timeout_s:g} s for {self.path!r}. Wait for "
            "that writer or end it (the lock frees itself when its process dies), or wait longer with "
            "nadb.open(..., lock_timeout_s=); reading needs no lock"
        )


def _describe_holder() -> bytes:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode() + b"\n"


_live: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _drop_after_fork() -> None:
    """In a child: close its copies of the descriptors, lest a worker that outlives its parent keeps the lock."""
    for lock in list(_live):
        lock.release()


os.register_at_fork(after_in_child=_drop_after_fork)
