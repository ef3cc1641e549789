"""Bytes, files, checksums, versions, the writer's lock, the block cache, attribute tables.

Implements design section 6; docs/FORMAT.md has the bytes. It knows what a segment is, not what is in it.
`io` alone touches the file system.
"""

from __future__ import annotations

from neuralartifactdb.storage.arrays import (
    ArrayWriter,
    SegmentReader,
    SegmentRef,
    SegmentWriter,
    segment_nbytes,
)
from neuralartifactdb.storage.directory import (
    DatabaseDirectory,
    MissingDatabaseError,
    ReadOnlyDatabaseError,
    WriteTransaction,
)
from neuralartifactdb.storage.io import DiskError
from neuralartifactdb.storage.lock import WriterLock
from neuralartifactdb.storage.state import Change, IndexEntry, MaskEntry, State
from neuralartifactdb.storage.versions import VersionLog

__all__ = [
    "ArrayWriter",
    "Change",
    "DatabaseDirectory",
    "DiskError",
    "IndexEntry",
    "MaskEntry",
    "MissingDatabaseError",
    "ReadOnlyDatabaseError",
    "SegmentReader",
    "SegmentRef",
    "SegmentWriter",
    "State",
    "VersionLog",
    "WriteTransaction",
    "WriterLock",
    "segment_nbytes",
]
