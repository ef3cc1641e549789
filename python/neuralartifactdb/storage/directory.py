"""A database directory: the path checked, the newest state, readers of segments, and the one way to write.

Opening creates nothing and takes no lock; `write` takes the lock for its duration, clears away what a killed writer
left, and commits. Implements the modes and the life of files of design section 6.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
import math
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

from neuralartifactdb import _core
from neuralartifactdb.errors import ClosedDatabaseError, DtypeError, Error, FormatError, InvalidValueError
from neuralartifactdb.quantities import shortened
from neuralartifactdb.storage import io
from neuralartifactdb.storage.arrays import SegmentWriter, new_segment_id
from neuralartifactdb.storage.lock import WriterLock
from neuralartifactdb.storage.manifest import SEGMENTS_NAME, TEMPORARY_PREFIX, SegmentRef, is_segment_id
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.reader import SegmentReader
from neuralartifactdb.storage.state import Change, State
from neuralartifactdb.storage.versions import VERSIONS_NAME, VersionLog

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "DatabaseDirectory",
    "MissingDatabaseError",
    "ReadOnlyDatabaseError",
    "WriteTransaction",
]

DEFAULT_CACHE_BYTES = 256 << 20
DEFAULT_LOCK_TIMEOUT_S = 10.0

_OWN_NAMES = {VERSIONS_NAME, SEGMENTS_NAME, "lock"}
_MAX_READERS = 4096
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}

_logger = logging.getLogger("neuralartifactdb")


class MissingDatabaseError(Error, FileNotFoundError):
    """Mode "r" on a path that holds no database."""


class ReadOnlyDatabaseError(Error, PermissionError):
    """A write to a database opened with mode "r", or in a directory that this user may not write."""


class WriteTransaction:
    """The time during which one writer holds the lock; it may commit any number of times.

    Made by `DatabaseDirectory.write`.
    """

    def __init__(self, directory: DatabaseDirectory) -> None:
        self._directory = directory
        self._writers: list[SegmentWriter] = []

    @property
    def state(self) -> State:
        """The newest state."""
        return self._directory.state()

    def new_segment(self, kind: str = "activations") -> SegmentWriter:
        """Start a segment. It is removed at the end unless a commit refers to it."""
        writer = SegmentWriter(self._directory.path, new_segment_id(), kind=kind)
        self._writers.append(writer)
        return writer

    def commit(self, changes: Sequence[Change]) -> State:
        """Make the changes durable and visible, all or none; returns the new state."""
        return self._directory.versions.commit(self.state, changes)

    def close(self) -> None:
        """Remove the segments of this transaction that no version refers to.

        What cannot be removed is left to the next writer.
        """
        if not self._writers:
            return
        try:
            kept = {segment.id for segment in self.state.segments()} | self._directory.versions.referenced_segments()
            for writer in self._writers:
                writer.abort()
                if writer.id not in kept:
                    io.remove_tree(self._directory.segment_path(writer.id))
        except (OSError, FormatError) as error:
            _logger.warning("unused segments stay in %s until the next write: %s", self._directory.path, error)


class DatabaseDirectory:
    """One open database directory. Thread-safe; a forked child may go on reading.

    Descriptors belong to the process, the cache of blocks and the readers to the directory that was opened.

    Args:
        path: The directory.
        mode: "r", or "a" to create it at the first write.
        cache_bytes: Memory for verified blocks.
        lock_timeout_s: How long a write waits for another writer.

    Raises:
        FormatError: The path is a file, another kind of directory, a damaged database, or a newer one.
        MissingDatabaseError: Mode "r", and there is no database.

    Example:
        >>> with DatabaseDirectory("run.nadb") as directory, directory.write() as tx:  # doctest: +SKIP
        ...     writer = tx.new_segment()
        ...     writer.add_array("codes", codes)
        ...     ref = writer.commit({"first": 0})
        ...     tx.commit([{"op": "add_segment", "index": "layer3", "segment": ref}])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "a",
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        lock_timeout_s: float = DEFAULT_LOCK_TIMEOUT_S,
    ) -> None:
        if mode not in ("r", "a"):
            raise InvalidValueError(f"mode must be 'r' or 'a', got {mode!r}")
        found = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
        if not isinstance(found, str):
            raise DtypeError(f"path must be a str or a path object, got {path!r:.80} ({type(path).__name__})")
        if not found or "\0" in found:
            raise InvalidValueError(f"path must name a directory, got {found!r}")
        if cache_bytes < 0:
            raise InvalidValueError(f"cache_bytes must be 0 or more, got {cache_bytes}")
        seconds: Any = lock_timeout_s
        if isinstance(seconds, bool) or not isinstance(seconds, Real):
            raise DtypeError(f"lock_timeout_s must be a number of seconds, got {seconds!r:.80}")
        try:
            timeout = float(seconds)
        except OverflowError:
            timeout = math.nan
        if not timeout >= 0:
            raise InvalidValueError(
                f"lock_timeout_s must be at least 0 seconds, got {shortened(lock_timeout_s)}; math.inf waits for ever"
            )
        self.path = os.path.abspath(found)
        self.real_path = io.real_path(self.path)
        self.mode = mode
        self.lock_timeout_s = timeout
        self.cache = _core.BlockCache(cache_bytes)
        self.versions = VersionLog(self.path)
        self._mutex = Mutex()
        self._readers: OrderedDict[SegmentRef, SegmentReader] = OrderedDict()
        self._closed = False
        io.close_descriptors(self.path)  # the files are those that are there now, whatever other handles have open
        self._check_path()
        if self.state().number == 0 and mode == "r":
            raise MissingDatabaseError(
                f"{self.path}: got a directory without a database, expected one: check the path, or open with mode 'a'"
            )

    def state(self) -> State:
        """The newest state; number 0 while nothing was written."""
        self._check_open()
        state = self.versions.latest()
        if state.number == 0:
            self._check_versions_not_lost()
        return state

    def at(self, number: int) -> State:
        """The state at an older version."""
        self._check_open()
        return self.versions.at(number)

    def reader(self, ref: SegmentRef) -> SegmentReader:
        """The reader of a segment; opens nothing yet."""
        self._check_open()
        with self._mutex.lock:
            reader = self._readers.get(ref)
            if reader is None:
                reader = self._readers[ref] = SegmentReader(self.path, ref, self.cache)
                if len(self._readers) > _MAX_READERS:
                    self._readers.popitem(last=False)
            else:
                self._readers.move_to_end(ref)
            return reader

    def forget(self, refs: Iterable[SegmentRef]) -> None:
        """Let go of the readers of segments that the newest version has no more; who holds one may go on with it."""
        with self._mutex.lock:
            readers = [self._readers.pop(ref, None) for ref in refs]
        for reader in readers:
            if reader is not None:
                reader.close_files()

    @property
    def bytes_read(self) -> int:
        """Bytes read from segments since opening."""
        return self.cache.bytes_read

    def segment_path(self, segment_id: str) -> str:
        """Where a segment lies."""
        return os.path.join(self.path, SEGMENTS_NAME, segment_id)

    @contextlib.contextmanager
    def write(self, lock_timeout_s: float | None = None) -> Iterator[WriteTransaction]:
        """Hold the writer's lock, over a database that exists and holds no leftovers.

        Raises:
            DatabaseBusyError: Another writer did not end in time.
            ReadOnlyDatabaseError: Mode "r", or a directory that may not be written.
        """
        self._check_open()
        if self.mode == "r":
            raise ReadOnlyDatabaseError(f"{self.path!r} was opened with mode 'r': open it with mode 'a' to write")
        lock = WriterLock(self.path, self.lock_timeout_s if lock_timeout_s is None else lock_timeout_s)
        try:
            with self._explained():
                io.make_dirs(self.path)
                lock.acquire()
                self._prepare()
            transaction = WriteTransaction(self)
            try:
                yield transaction
            finally:
                transaction.close()
        finally:
            lock.release()

    def close(self) -> None:
        """Free the cache and the descriptors. Readers handed out must not be used any more."""
        if self._closed:
            return
        self._closed = True
        self._readers.clear()
        self.cache.clear()
        io.close_descriptors(self.path)

    def __enter__(self) -> DatabaseDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedDatabaseError(f"the database {self.path!r} is closed: open it again")

    def _check_path(self) -> None:
        """Refuse what is not a database, and what might become one at the cost of something else."""
        try:
            names = io.listdir(self.path)
        except FileNotFoundError:
            if self.mode == "r":
                raise MissingDatabaseError(
                    f"no database at {self.path!r}: check the path, or open with mode 'a' to create one"
                ) from None
            return
        except NotADirectoryError:
            raise FormatError(f"{self.path}: got a file, expected a database directory") from None
        if VERSIONS_NAME not in names and not _OWN_NAMES.issuperset(names):
            others = sorted(set(names) - _OWN_NAMES)
            raise FormatError(
                f"{self.path}: got a directory that is not a database (it holds {others[:5]}), "
                "expected a database or an empty directory"
            )

    def _check_versions_not_lost(self) -> None:
        """Segments without any version are no empty database: the first version is written before any segment."""
        with contextlib.suppress(FileNotFoundError):
            segments = [name for name in io.listdir(os.path.join(self.path, SEGMENTS_NAME)) if is_segment_id(name)]
            if segments:
                raise FormatError(
                    f"{self.versions.directory}: got no version files beside {len(segments)} segments, expected some: "
                    "they were lost; restore them from a copy"
                )

    def _prepare(self) -> None:
        """Create the database if there is none, and remove what killed writers left. The lock is held."""
        io.make_dirs(self.versions.directory)
        self.versions.remove_temporary()
        state = self.state()
        if state.number == 0:
            created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            database = {"uuid": str(uuid.uuid4()), "created": created}
            state = self.versions.commit(state, [{"op": "create_database", "database": database}])
        self._remove_leftovers(state)

    def _remove_leftovers(self, state: State) -> None:
        directory = os.path.join(self.path, SEGMENTS_NAME)
        try:
            names = io.listdir(directory)
        except FileNotFoundError:
            return
        for name in names:
            if name.startswith(TEMPORARY_PREFIX):
                io.remove_tree(os.path.join(directory, name))
        unknown = {name for name in names if is_segment_id(name)} - {segment.id for segment in state.segments()}
        if unknown:  # of an older version, or of a writer killed between its segment and its version
            for name in sorted(unknown - self.versions.referenced_segments()):
                _logger.info("removing segment %s of %s, which no version refers to", name, self.path)
                io.remove_tree(os.path.join(directory, name))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say that a directory may not be written, where the system only says which call failed."""
        try:
            yield
        except OSError as error:
            if isinstance(error, Error) or error.errno not in _DENIED:
                raise
            raise ReadOnlyDatabaseError(
                error.errno,
                f"{os.strerror(error.errno)}: the database cannot be written; open it with mode 'r', or change the "
                "permissions",
                error.filename,
            ) from error
