"""Fills in the index of collections made with index="lazy": rows of the masks that queries read, sealed when written.

The paper's incremental indexing. A row is kept with its segment at once, so the next query of the process uses it, and
becomes a segment of kind "mask_index" at the next append, `commit()` or `close()`. A row is a fact about pixels that
never change, so it stays right whatever was appended or deleted meanwhile. Many small segments are merged by the commit
that adds another one. Implements design section 5, "Incremental".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.errors import DatabaseBusyError, FormatError
from neuralartifactdb.masks.batch import CollectionMeta
from neuralartifactdb.masks.filled_index import sealed_rows
from neuralartifactdb.masks.writer import write_index_rows
from neuralartifactdb.storage.arrays import SegmentRef
from neuralartifactdb.storage.mutex import Mutex

if TYPE_CHECKING:
    from neuralartifactdb.masks.segment import MaskSegment
    from neuralartifactdb.storage.directory import DatabaseDirectory, WriteTransaction
    from neuralartifactdb.storage.state import MaskEntry

__all__ = ["IndexFiller"]

_log = logging.getLogger("neuralartifactdb")

#: Rows kept in memory at most; masks read beyond it stay without a row until some are sealed.
_MOST_BYTES = 64 << 20

#: Segments of kind "mask_index" for one segment of masks; where another one would be one too many, the smaller half of
#: them is merged with it, so that over time a row is written again as often as the logarithm of their number.
_MOST_SEGMENTS = 32

_CLOSE_TIMEOUT_S = 1.0  # closing does not wait long for what is only saved work


class IndexFiller:
    """Keeps and seals the index rows that the queries of one open database compute. Safe in threads and after a fork.

    Args:
        directory: of the database.

    Attributes:
        nbytes: of the rows that are in memory only.

    Example:
        >>> wanted = filler.missing(segment, meta, local)  # doctest: +SKIP
        >>> if wanted is not None:  # these masks are to be read whole
        ...     filler.keep(segment, meta, local[wanted], pixels)
    """

    def __init__(self, directory: DatabaseDirectory) -> None:
        self.nbytes = 0
        self._directory = directory
        self._mutex = Mutex()
        self._held: dict[tuple[str, SegmentRef], MaskSegment] = {}

    # ---- in a query ------------------------------------------------------------------------------------------------

    def missing(self, segment: MaskSegment, meta: CollectionMeta, local: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Which masks should be read whole and given to `keep`.

        Args:
            segment: of the collection.
            meta: of the collection.
            local: int64 (k,), local positions.

        Returns:
            bool (k,), or None for none of them: the collection is not lazy, all have rows, or memory is full.
        """
        if not meta.is_lazy or not meta.has_index or self.nbytes >= _MOST_BYTES:
            return None
        segment.adopt_index(meta.grid, meta.edges)
        indexed = segment.indexed()
        if indexed is None:
            return None
        wanted: NDArray[np.bool_] = ~indexed[local]
        return wanted if wanted.any() else None

    def keep(self, segment: MaskSegment, meta: CollectionMeta, local: NDArray[np.int64], pixels: Sequence[Any]) -> None:
        """Compute and keep the rows of whole masks.

        Args:
            segment: of the collection.
            meta: of the collection.
            local: int64 (k,), local positions.
            pixels: k buffers, all rows of each mask as `MaskSegment.read_rows` gives them.
        """
        if not len(local):
            return
        local, at = np.unique(local, return_index=True)
        segment.adopt_index(meta.grid, meta.edges)
        edges = np.array(meta.edges, dtype=np.float64)
        rows = np.empty((len(edges), len(local), meta.grid * meta.grid), dtype=np.uint8)
        shapes = np.ascontiguousarray(segment.shapes[local])
        _core.mask_histograms(
            [pixels[i] for i in at.tolist()], meta.native, shapes, edges, meta.grid, meta.nodata, rows, threads=1
        )
        segment.add_index_rows(local, rows)
        with self._mutex.lock:  # after the rows: a seal in another thread forgets segments that have none
            self._held[meta.id, segment.reader.ref] = segment
            self.nbytes += rows.nbytes

    def relieve(self) -> None:
        """After a query: seal when memory fills up and no other writer is at work."""
        if self.nbytes >= _MOST_BYTES // 2:
            self._seal_if_possible(0.0)

    # ---- in a write ------------------------------------------------------------------------------------------------

    def seal(self, transaction: WriteTransaction) -> int:
        """Write all rows that are in memory only, and commit them; returns of how many masks.

        Rows of collections that were dropped or replaced are forgotten, and of masks that were deleted; rows that
        another process sealed meanwhile are taken from it.
        """
        with self._mutex.lock:
            held = dict(self._held)
        if not held:
            return 0
        n = 0
        changes: list[dict[str, Any]] = []
        sealed: list[tuple[MaskSegment, SegmentRef]] = []
        state = transaction.state
        for name, entry in state.masks.items():
            meta = CollectionMeta.from_json(entry.meta)
            segments = [held[meta.id, ref] for ref in entry.segments if (meta.id, ref) in held]
            if not segments:
                continue
            self._load_sealed(entry, segments)
            deleted = self._deleted(entry)
            refs: list[SegmentRef] = []
            replaced: list[str] = []
            for segment in segments:
                rows = segment.unsealed_index_rows()
                alive = None if rows is None else ~np.isin(rows[0] + segment.first, deleted)
                if rows is None or alive is None or not alive.any():
                    continue
                n += int(alive.sum())
                merged, ids, found = self._merged(entry, segment, rows[0][alive], rows[1][:, alive])
                ref = write_index_rows(transaction, meta, segment.first, ids, found)
                refs.append(ref)
                replaced += merged
                sealed.append((segment, ref))
            if refs:
                change: dict[str, Any] = {"op": "add_mask_index", "masks": name, "segments": refs}
                changes.append({**change, "replaces": replaced} if replaced else change)
        if changes:
            transaction.commit(changes)
        for segment, ref in sealed:
            segment.load_index(self._directory.reader(ref))
        self._forget({(str(entry.meta["id"]), ref) for entry in state.masks.values() for ref in entry.segments})
        return n

    def flush(self) -> int:
        """Seal now, waiting for other writers as any write does; returns the number of masks."""
        if not self._held:
            return 0
        with self._directory.write() as transaction:
            return self.seal(transaction)

    def close(self) -> None:
        """Seal before the database closes, if it may be written; rows that cannot be sealed are only lost work."""
        self._seal_if_possible(min(_CLOSE_TIMEOUT_S, self._directory.lock_timeout_s))
        with self._mutex.lock:
            self._held.clear()
            self.nbytes = 0

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _seal_if_possible(self, lock_timeout_s: float) -> None:
        if not self._held or self._directory.mode == "r":
            return
        try:
            with self._directory.write(lock_timeout_s) as transaction:
                self.seal(transaction)
        except (DatabaseBusyError, FormatError, OSError) as error:
            _log.info("index rows of masks stay unsealed in %s: %s", self._directory.path, error)

    def _load_sealed(self, entry: MaskEntry, segments: list[MaskSegment]) -> None:
        """Take what is sealed already, also by other processes: those rows need no second copy."""
        by_first = {segment.first: segment for segment in segments}
        for ref in entry.index:
            reader = self._directory.reader(ref)
            segment = by_first.get(int(reader.meta["of"]))
            if segment is not None:
                segment.load_index(reader)

    def _merged(
        self, entry: MaskEntry, segment: MaskSegment, ids: NDArray[np.int64], rows: NDArray[np.uint8]
    ) -> tuple[list[str], NDArray[np.int64], NDArray[np.uint8]]:
        """New rows with those of the smaller half of the sealed segments, if these have become too many.

        Args:
            entry: of the collection.
            segment: of masks, which the rows are of.
            ids: int64 (k,), ascending local positions of the new rows.
            rows: uint8 (B, k, g*g).

        Returns:
            Ids of the segments that the rows take the place of; and positions and rows, as given or with more.
        """
        readers = [self._directory.reader(ref) for ref in entry.index]
        readers = [reader for reader in readers if int(reader.meta["of"]) == segment.first]
        if len(readers) < _MOST_SEGMENTS:
            return [], ids, rows
        readers.sort(key=lambda reader: int(reader.meta["n"]))
        held_ids, held_rows, n_bytes = [ids], [rows], rows.nbytes
        merged: list[str] = []
        try:
            for reader in readers[: (len(readers) + 1) // 2]:
                n_bytes += reader.arrays["histograms"].nbytes
                if n_bytes > _MOST_BYTES:
                    break
                its_ids, its_rows = sealed_rows(reader)
                held_ids.append(its_ids)
                held_rows.append(its_rows)
                merged.append(reader.ref.id)
        except FormatError as error:  # a write must not fail for rows that it does not need
            _log.warning("index rows of masks stay unmerged in %s: %s", self._directory.path, error)
            return [], ids, rows
        every, at = np.unique(np.concatenate(held_ids), return_index=True)
        return merged, every, np.ascontiguousarray(np.concatenate(held_rows, axis=1)[:, at])

    def _deleted(self, entry: MaskEntry) -> NDArray[np.int64]:
        parts = [self._directory.reader(ref).array("ids").astype(np.int64) for ref in entry.deleted]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _forget(self, known: set[tuple[str, SegmentRef]]) -> None:
        """Let go of segments that are gone or have no rows left, which rows of deleted masks are not."""
        with self._mutex.lock:
            self.nbytes = 0
            for key, segment in list(self._held.items()):
                rows = segment.unsealed_index_rows() if key in known else None
                if rows is None:
                    del self._held[key]
                else:
                    self.nbytes += rows[1].nbytes
