"""Every call that the package makes to the file system, and nothing else; the core reads through descriptors from here.

One place, so that a test can put a fault before any call (full disk, broken disk, power cut, half a write), so that an
object store can be added in one place, and so that "all bytes come through one read" holds (design section 6). Paths
are plain strings.
"""

from __future__ import annotations

from neuralartifactdb.storage.io.calls import DiskError, PartialWrite, faults
from neuralartifactdb.storage.io.lock_file import LockFile
from neuralartifactdb.storage.io.names import (
    exists,
    file_size,
    fsync_dir,
    identity,
    is_dir,
    link_exclusive,
    listdir,
    make_dirs,
    mkdir,
    real_path,
    remove,
    remove_tree,
    rename,
    scratch_directory,
)
from neuralartifactdb.storage.io.reading import close_descriptors, read_at, read_file, read_into, reading
from neuralartifactdb.storage.io.writing import Buffer, FileWriter, create

__all__ = [
    "Buffer",
    "DiskError",
    "FileWriter",
    "LockFile",
    "PartialWrite",
    "close_descriptors",
    "create",
    "exists",
    "faults",
    "file_size",
    "fsync_dir",
    "identity",
    "is_dir",
    "link_exclusive",
    "listdir",
    "make_dirs",
    "mkdir",
    "read_at",
    "read_file",
    "read_into",
    "reading",
    "real_path",
    "remove",
    "remove_tree",
    "rename",
    "scratch_directory",
]
