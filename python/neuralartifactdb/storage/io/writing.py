"""Writing new files, at explicit offsets, unbuffered."""

from __future__ import annotations

import contextlib
import os
import sys

from neuralartifactdb.storage.io.calls import MAX_CALL, FileSystemCall, PartialWrite
from neuralartifactdb.storage.io.open_file import OpenFile

__all__ = ["Buffer", "FileWriter", "create"]

Buffer = bytes | bytearray | memoryview

_WRITEBACK_BYTES = 8 << 20


class FileWriter(OpenFile):
    """A new file, written at explicit offsets. Nothing is buffered: a forked child has nothing to flush twice."""

    __slots__ = ("_handed_over",)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._handed_over = 0
        with FileSystemCall("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of `data` (C-contiguous bytes) at the byte offset."""
        view = memoryview(data)
        try:
            with FileSystemCall("write", self.path):
                self._pwrite_all(view, offset)
        except PartialWrite as cut:
            self._pwrite_all(view[: cut.n_bytes], offset)
            raise cut.then from None
        if offset + view.nbytes - self._handed_over >= _WRITEBACK_BYTES:
            self._hand_over(offset + view.nbytes)

    def _hand_over(self, end: int) -> None:
        """Let the disk begin with what was written, so that `fsync` waits for little.

        Linux starts writing the dirty pages of a range that is said not to be needed, and keeps them.
        """
        begin, self._handed_over = self._handed_over, end
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # advice; what is wrong with the disk, fsync says
                os.posix_fadvise(self._fd, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def _pwrite_all(self, view: memoryview, offset: int) -> None:
        while view.nbytes:
            n = os.pwrite(self._fd, view[:MAX_CALL], offset)
            view, offset = view[n:], offset + n

    def fsync(self) -> None:
        """Make the contents durable."""
        with FileSystemCall("fsync", self.path):
            os.fsync(self._fd)


def create(path: str, data: Buffer) -> None:
    """Write a new file and make its contents durable (its name becomes durable with `fsync_dir`)."""
    writer = FileWriter(path)
    try:
        writer.pwrite(data, 0)
        writer.fsync()
    finally:
        writer.close()
