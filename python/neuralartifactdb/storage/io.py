"""Every call that the package makes to the file system, and nothing else; the core reads through descriptors from here.

One module, so that a test can put a fault before any call (full disk, broken disk, power cut, half a write), so that an
object store can be added in one place, and so that "all bytes come through one read" holds (design section 6). Reads
are `pread` on a small cache of descriptors: no shared position, no memory map. Loops of the core that read by
themselves borrow a descriptor from `reading`. Paths are plain strings.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as stat_module
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import TracebackType

from neuralartifactdb.errors import Error
from neuralartifactdb.storage.mutex import Mutex

__all__ = [
    "Buffer",
    "DiskError",
    "FileWriter",
    "LockFile",
    "PartialWrite",
    "close_descriptors",
    "create",
    "exists",
    "fault_hook",
    "faults",
    "file_size",
    "fsync_dir",
    "identity",
    "is_dir",
    "link_exclusive",
    "listdir",
    "make_dirs",
    "mkdir",
    "open_lock",
    "read_at",
    "read_file",
    "read_into",
    "reading",
    "remove",
    "remove_tree",
    "rename",
    "scratch_directory",
]

Buffer = bytes | bytearray | memoryview

FaultHook = Callable[[str, str], None]

#: Called as `fault_hook(operation, path)` before every call to the file system. Set it with `faults`.
fault_hook: FaultHook | None = None

_MAX_DESCRIPTORS = 128
_WRITEBACK_BYTES = 8 << 20
_MAX_CALL = 1 << 30  # Linux moves at most 2 GiB - 4 KiB in one call
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENOSR}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


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
    global fault_hook
    before, fault_hook = fault_hook, hook
    try:
        yield
    finally:
        fault_hook = before


class _call:
    """Consult the hook, then run the body; errors of the disk itself say what was being done and where."""

    __slots__ = ("operation", "path")

    def __init__(self, operation: str, path: str) -> None:
        self.operation = operation
        self.path = path

    def __enter__(self) -> None:
        if fault_hook is not None:
            try:
                fault_hook(self.operation, self.path)
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


# --- names and directories -------------------------------------------------------------------------------------------


def listdir(path: str) -> list[str]:
    """Names in a directory, sorted."""
    with _call("listdir", path):
        return sorted(os.listdir(path))


def exists(path: str) -> bool:
    """Whether the path exists (a dangling link does not)."""
    return _stat(path) is not None


def is_dir(path: str) -> bool:
    """Whether the path is a directory."""
    found = _stat(path)
    return found is not None and stat_module.S_ISDIR(found.st_mode)


def file_size(path: str) -> int | None:
    """Size in bytes, or None if there is no such regular file."""
    found = _stat(path)
    return found.st_size if found is not None and stat_module.S_ISREG(found.st_mode) else None


def identity(path: str) -> tuple[int, int, int, int] | None:
    """What changes when the file is replaced: device, inode, size, ns of its last write. None if there is no file."""
    found = _stat(path)
    return None if found is None else (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _stat(path: str) -> os.stat_result | None:
    with _call("stat", path):
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def mkdir(path: str) -> None:
    """Create one directory; FileExistsError if the path exists."""
    with _call("mkdir", path):
        os.mkdir(path)


def real_path(path: str) -> str:
    """The path without symbolic links, so that two paths to one directory are equal; it need not exist."""
    with _call("resolve", path):
        return os.path.realpath(path)


def make_dirs(path: str) -> None:
    """Create a directory and its missing parents, durably; no error if it exists."""
    if is_dir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    make_dirs(parent)
    with contextlib.suppress(FileExistsError):
        mkdir(path)
    fsync_dir(parent)


def rename(source: str, target: str) -> None:
    """Rename atomically."""
    with _call("rename", target):
        os.rename(source, target)


def link_exclusive(source: str, target: str) -> None:
    """Give `source` the name `target` atomically, and take its old name away; FileExistsError if `target` exists.

    A hard link fails when the name is taken. Where the file system has no hard links, a check and a rename do: the
    caller holds the writer's lock.
    """
    with _call("link", target):
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
            os.rename(source, target)
            return
    remove(source)


def remove(path: str) -> None:
    """Remove a file; no error if it is gone."""
    with _call("remove", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: str) -> None:
    """Remove a directory and all that is in it; no error if it is gone. Links are removed, not followed."""
    try:
        names = listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        remove(path)
        return
    for name in names:
        child = os.path.join(path, name)
        if is_dir(child) and not os.path.islink(child):
            remove_tree(child)
        else:
            remove(child)
    with _call("rmdir", path), contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def fsync_dir(path: str) -> None:
    """Make the names in a directory durable."""
    with _call("fsync_dir", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot sync a directory
                raise
        finally:
            os.close(fd)


@contextlib.contextmanager
def scratch_directory() -> Iterator[str]:
    """A private directory outside any database, removed on exit."""
    with _call("mkdtemp", tempfile.gettempdir()):
        path = tempfile.mkdtemp(prefix="nadb-")
    try:
        yield path
    finally:
        remove_tree(path)


# --- writing ---------------------------------------------------------------------------------------------------------


class FileWriter:
    """A new file, written at explicit offsets. Nothing is buffered: a forked child has nothing to flush twice."""

    __slots__ = ("_fd", "_handed_over", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._handed_over = 0
        with _call("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of `data` (C-contiguous bytes) at the byte offset."""
        view = memoryview(data)
        try:
            with _call("write", self.path):
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
            n = os.pwrite(self._fd, view[:_MAX_CALL], offset)
            view, offset = view[n:], offset + n

    def fsync(self) -> None:
        """Make the contents durable."""
        with _call("fsync", self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the descriptor; harmless when closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


# --- reading ---------------------------------------------------------------------------------------------------------


class _Descriptor:
    """An open file and the number of threads that read it now; closed when evicted and idle."""

    __slots__ = ("evicted", "fd", "readers")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.readers = 0
        self.evicted = False


class _DescriptorCache:
    """The least recently used of at most `limit` descriptors is closed first, but never under a reader."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._mutex = Mutex()
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()

    def acquire(self, path: str) -> _Descriptor:
        with self._mutex.lock:
            found = self._open.get(path)
            if found is not None:
                self._open.move_to_end(path)
                found.readers += 1
                return found
        with _call("open", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._mutex.lock:
            found = self._open.get(path)
            if found is not None:  # another thread was faster
                os.close(fd)
            else:
                found = self._open[path] = _Descriptor(fd)
                while len(self._open) > self._limit:
                    self._evict(next(iter(self._open)))
            found.readers += 1
            return found

    def release(self, descriptor: _Descriptor) -> None:
        with self._mutex.lock:
            descriptor.readers -= 1
            if descriptor.evicted and descriptor.readers == 0:
                os.close(descriptor.fd)

    def close_under(self, path: str) -> None:
        prefix = os.path.join(path, "")
        with self._mutex.lock:
            for opened in [opened for opened in self._open if opened == path or opened.startswith(prefix)]:
                self._evict(opened)

    def drop_after_fork(self) -> None:
        """In a child: forget the parent's descriptors. No thread of the parent lives here to use them."""
        entries, self._open = self._open, OrderedDict()
        for entry in entries.values():
            with contextlib.suppress(OSError):
                os.close(entry.fd)

    def _evict(self, path: str) -> None:
        entry = self._open.pop(path)
        entry.evicted = True
        if entry.readers == 0:
            os.close(entry.fd)


_descriptors = _DescriptorCache(_MAX_DESCRIPTORS)
os.register_at_fork(after_in_child=_descriptors.drop_after_fork)


def close_descriptors(path: str) -> None:
    """Close the cached descriptors of a file, or of the files under a directory: the next read opens them anew."""
    _descriptors.close_under(path)


def read_at(path: str, offset: int, length: int) -> bytes:
    """Read up to `length` bytes at `offset`; fewer only where the file ends."""
    descriptor = _descriptors.acquire(path)
    try:
        with _call("read", path):
            data = os.pread(descriptor.fd, min(length, _MAX_CALL), offset)
            if len(data) == length:
                return data
            parts = [data]
            while data and (length := length - len(data)) > 0:
                offset += len(data)
                data = os.pread(descriptor.fd, min(length, _MAX_CALL), offset)
                parts.append(data)
            return b"".join(parts)
    finally:
        _descriptors.release(descriptor)


def read_into(path: str, offset: int, target: memoryview) -> int:
    """Fill `target` (writable bytes) from `offset`; returns the bytes read, fewer only where the file ends."""
    descriptor = _descriptors.acquire(path)
    done = 0
    try:
        with _call("read", path):
            while done < target.nbytes:
                n = os.preadv(descriptor.fd, [target[done : done + _MAX_CALL]], offset + done)
                if n == 0:
                    break
                done += n
            return done
    finally:
        _descriptors.release(descriptor)


@contextlib.contextmanager
def reading(path: str) -> Iterator[int]:
    """A descriptor of the file for code that makes its own `pread` calls; errors of the disk are reported as here."""
    descriptor = _descriptors.acquire(path)
    try:
        with _call("read", path):
            yield descriptor.fd
    finally:
        _descriptors.release(descriptor)


def read_file(path: str, limit: int) -> bytes:
    """The whole of a small file, at most `limit` + 1 bytes of it, past the descriptor cache."""
    with _call("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _call("read", path):
            parts: list[bytes] = []
            left = limit + 1
            while left > 0 and (data := os.read(fd, min(left, _MAX_CALL))):
                parts.append(data)
                left -= len(data)
            return b"".join(parts)
    finally:
        os.close(fd)


def create(path: str, data: Buffer) -> None:
    """Write a new file and make its contents durable (its name becomes durable with `fsync_dir`)."""
    writer = FileWriter(path)
    try:
        writer.pwrite(data, 0)
        writer.fsync()
    finally:
        writer.close()


# --- locking ---------------------------------------------------------------------------------------------------------


class LockFile:
    """A file with a kernel lock on its open description.

    So two handles of one process exclude each other, and the kernel frees it when the last descriptor goes.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        with _call("open_lock", path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def try_lock(self) -> bool:
        """Take the lock if it is free."""
        with _call("lock", self.path):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def read(self) -> bytes:
        """What the holder wrote about itself, at most 4 KiB."""
        with _call("read", self.path):
            return os.pread(self._fd, 4096, 0)

    def write(self, data: bytes) -> None:
        """Replace the contents; not durable, and need not be."""
        with _call("write_lock", self.path):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, data, 0)

    def unlock(self) -> None:
        """Give the lock back, for every process that shares the open description, and close."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.close()

    def close(self) -> None:
        """Close this process's descriptor only; the lock stays while another process shares the description."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def open_lock(path: str) -> LockFile:
    """Open or create a lock file."""
    return LockFile(path)
