"""Names and directories: what is there, under which name, and whether the name is durable."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import tempfile
from collections.abc import Iterator

from neuralartifactdb.storage.io.calls import FileSystemCall

__all__ = [
    "exists",
    "file_size",
    "fsync_dir",
    "identity",
    "is_dir",
    "link_exclusive",
    "listdir",
    "make_dirs",
    "mkdir",
    "real_path",
    "remove",
    "remove_tree",
    "rename",
    "scratch_directory",
]

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def listdir(path: str) -> list[str]:
    """Names in a directory, sorted."""
    with FileSystemCall("listdir", path):
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
    with FileSystemCall("stat", path):
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def mkdir(path: str) -> None:
    """Create one directory; FileExistsError if the path exists."""
    with FileSystemCall("mkdir", path):
        os.mkdir(path)


def real_path(path: str) -> str:
    """The path without symbolic links, so that two paths to one directory are equal; it need not exist."""
    with FileSystemCall("resolve", path):
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
    with FileSystemCall("rename", target):
        os.rename(source, target)


def link_exclusive(source: str, target: str) -> None:
    """Give `source` the name `target` atomically, and take its old name away; FileExistsError if `target` exists.

    A hard link fails when the name is taken. Where the file system has no hard links, a check and a rename do: the
    caller holds the writer's lock.
    """
    with FileSystemCall("link", target):
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
    with FileSystemCall("remove", path), contextlib.suppress(FileNotFoundError):
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
    with FileSystemCall("rmdir", path), contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def fsync_dir(path: str) -> None:
    """Make the names in a directory durable."""
    with FileSystemCall("fsync_dir", path):
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
    with FileSystemCall("mkdtemp", tempfile.gettempdir()):
        path = tempfile.mkdtemp(prefix="nadb-")
    try:
        yield path
    finally:
        remove_tree(path)
