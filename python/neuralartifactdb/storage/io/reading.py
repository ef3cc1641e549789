"""Reading: `pread` on a small cache of descriptors. No shared position, no memory map.

Loops of the core that read by themselves borrow a descriptor from `reading`. A file that could not be read is let go of
(one that a file server lost its hold of fails for as long as it is open): the next read opens what has the name then.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator

from neuralartifactdb.storage.io.calls import MAX_CALL, FileSystemCall
from neuralartifactdb.storage.mutex import Mutex

__all__ = ["close_descriptors", "read_at", "read_file", "read_into", "reading"]

_MAX_DESCRIPTORS = 128


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
        with FileSystemCall("open", path):
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
        with FileSystemCall("read", path):
            data = os.pread(descriptor.fd, min(length, MAX_CALL), offset)
            if len(data) == length:
                return data
            parts = [data]
            while data and (length := length - len(data)) > 0:
                offset += len(data)
                data = os.pread(descriptor.fd, min(length, MAX_CALL), offset)
                parts.append(data)
            return b"".join(parts)
    except OSError:
        _descriptors.close_under(path)
        raise
    finally:
        _descriptors.release(descriptor)


def read_into(path: str, offset: int, target: memoryview) -> int:
    """Fill `target` (writable bytes) from `offset`; returns the bytes read, fewer only where the file ends."""
    descriptor = _descriptors.acquire(path)
    done = 0
    try:
        with FileSystemCall("read", path):
            while done < target.nbytes:
                n = os.preadv(descriptor.fd, [target[done : done + MAX_CALL]], offset + done)
                if n == 0:
                    break
                done += n
            return done
    except OSError:
        _descriptors.close_under(path)
        raise
    finally:
        _descriptors.release(descriptor)


@contextlib.contextmanager
def reading(path: str) -> Iterator[int]:
    """A descriptor of the file for code that makes its own `pread` calls; errors of the disk are reported as here."""
    descriptor = _descriptors.acquire(path)
    try:
        with FileSystemCall("read", path):
            yield descriptor.fd
    except OSError:
        _descriptors.close_under(path)
        raise
    finally:
        _descriptors.release(descriptor)


def read_file(path: str, limit: int) -> bytes:
    """The whole of a small file, at most `limit` + 1 bytes of it, past the descriptor cache."""
    with FileSystemCall("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with FileSystemCall("read", path):
            parts: list[bytes] = []
            left = limit + 1
            while left > 0 and (data := os.read(fd, min(left, MAX_CALL))):
                parts.append(data)
                left -= len(data)
            return b"".join(parts)
    finally:
        os.close(fd)
