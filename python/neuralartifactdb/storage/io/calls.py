"""What surrounds every call to the file system: the hook by which tests put a fault before it, and its errors."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from types import TracebackType

from neuralartifactdb.errors import Error

__all__ = ["MAX_CALL", "DiskError", "FileSystemCall", "PartialWrite", "faults"]

#: most bytes to ask for at once: Linux moves at most 2 GiB - 4 KiB in one call
MAX_CALL = 1 << 30

FaultHook = Callable[[str, str], None]

_fault_hook: FaultHook | None = None

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENOSR}


class DiskError(Error, OSError):
    """The disk is full, over quota or broken. `errno` and `filename` are set, as in any OSError."""


class PartialWrite(BaseException):
    """Raised by a fault hook before a write: the first `n_bytes` are written, then `then` is raised."""

    def __init__(self, n_bytes: int, then: BaseException) -> None:
        super().__init__(n_bytes, then)
        self.n_bytes = n_bytes
        self.then = then


@contextlib.contextmanager
def faults(hook: FaultHook) -> Iterator[None]:
    """Run the body with `hook(operation, path)` before every file system call. For tests, in one thread at a time."""
    global _fault_hook
    before, _fault_hook = _fault_hook, hook
    try:
        yield
    finally:
        _fault_hook = before


class FileSystemCall:
    """Consult the hook, then run the body; errors of the disk itself say what was being done and where."""

    __slots__ = ("operation", "path")

    def __init__(self, operation: str, path: str) -> None:
        self.operation = operation
        self.path = path

    def __enter__(self) -> None:
        if _fault_hook is not None:
            try:
                _fault_hook(self.operation, self.path)
            except OSError as error:
                self._report(error)
                raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(value, OSError):
            self._report(value)

    def _report(self, error: OSError) -> None:
        if isinstance(error, Error):
            return
        if error.errno in _DISK_ERRNOS:
            advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"
            text = (
                f"{os.strerror(error.errno)} (during {self.operation}; {advice} and repeat the call: the last commit is"
            )
            raise DiskError(error.errno, f"{text} intact)", self.path) from error
        if error.filename is None:
            error.filename = self.path
