"""A file that the kernel locks; `storage.lock` makes the writer's lock of it."""

from __future__ import annotations

import contextlib
import fcntl
import os

from neuralartifactdb.storage.io.calls import FileSystemCall
from neuralartifactdb.storage.io.open_file import OpenFile

__all__ = ["LockFile"]


class LockFile(OpenFile):
    """A file with a kernel lock on its open description; created if there is none.

    So two handles of one process exclude each other, and the kernel frees it when the last descriptor goes:
    `close` closes this process's only, and the lock stays while another process shares the description.
    """

    __slots__ = ()

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with FileSystemCall("open_lock", path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def try_lock(self) -> bool:
        """Take the lock if it is free."""
        with FileSystemCall("lock", self.path):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def read(self) -> bytes:
        """What the holder wrote about itself, at most 4 KiB."""
        with FileSystemCall("read", self.path):
            return os.pread(self._fd, 4096, 0)

    def write(self, data: bytes) -> None:
        """Replace the contents; not durable, and need not be."""
        with FileSystemCall("write_lock", self.path):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, data, 0)

    def unlock(self) -> None:
        """Give the lock back, for every process that shares the open description, and close."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.close()
