"""Index rows that queries fill in for a segment without an index: sealed ones in files, new ones in memory.

The paper's incremental indexing: a mask without a row is unsettled, never "zero, so pruned". Sealed rows come through
the block cache, so that an index filled in over months takes no more memory than one built on append. Design section 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import FormatError, InvalidValueError
from neuralartifactdb.masks.batch import INDEX_BLOCK
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["FilledIndex", "sealed_rows"]


class _Rows:
    """Rows in memory of one block of masks, in order of arrival."""

    __slots__ = ("ids", "rows")

    def __init__(self, ids: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        self.ids = ids
        self.rows = rows


class FilledIndex:
    """Index rows of some of the masks of a segment. Thread-safe.

    Args:
        n: masks of the segment.
        grid: cells along each axis.
        edges: float64 (B,), ascending.
    """

    def __init__(self, n: int, grid: int, edges: NDArray[np.float64]) -> None:
        self.n = n
        self.grid = grid
        self.edges = edges
        self._cells = grid * grid
        self._mutex = Mutex()
        self._indexed = np.zeros(n, dtype=np.bool_)
        self._sealed: list[tuple[SegmentReader, NDArray[np.int64]]] = []  # none covers another
        self._known: set[SegmentRef] = set()
        self._memory: dict[int, _Rows] = {}

    def indexed(self) -> NDArray[np.bool_] | None:
        """Which masks have rows, read-only bool (n,); None if all have."""
        found = self._indexed
        return None if found.all() else found

    def rows(self, edge: int, first: int, last: int) -> NDArray[np.uint8]:
        """Rows of one edge of the masks [first, last) of one block; zeros where there is none."""
        block = first // INDEX_BLOCK
        if not (0 <= edge < len(self.edges) and 0 <= first <= last <= min(self.n, (block + 1) * INDEX_BLOCK)):
            raise InvalidValueError(
                f"edge {edge} of masks [{first}, {last}) must be one of {len(self.edges)} edges, within one block of "
                f"{INDEX_BLOCK} of {self.n} masks"
            )
        out = np.zeros((last - first, self._cells), dtype=np.uint8)
        with self._mutex.lock:
            sealed, held = list(self._sealed), self._memory.get(block)
        for reader, ids in sealed:
            begin, end = np.searchsorted(ids, (first, last)).tolist()
            if begin < end:
                out[ids[begin:end] - first] = self._read(reader, len(ids), edge, begin, end)
        if held is not None:
            inside = (held.ids >= first) & (held.ids < last)
            out[held.ids[inside] - first] = held.rows[edge, inside]
        return out.reshape(-1)

    def add(self, ids: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Keep rows in memory, except of masks that have some."""
        expected = (len(self.edges), len(ids), self._cells)
        if rows.shape != expected or rows.dtype != np.uint8:
            raise InvalidValueError(f"index rows must be uint8 {expected}, got {rows.dtype} {rows.shape}")
        if len(ids) and (ids.min() < 0 or ids.max() >= self.n or len(np.unique(ids)) < len(ids)):
            raise InvalidValueError(f"index rows must be of distinct masks in [0, {self.n}), got {ids[:10].tolist()}")
        with self._mutex.lock:
            new = ~self._indexed[ids]
            blocks = ids // INDEX_BLOCK
            for block in np.unique(blocks[new]).tolist():
                chosen = np.flatnonzero(new & (blocks == block))
                held = self._memory.get(block)
                added, its_rows = ids[chosen].astype(np.int64), rows[:, chosen]
                if held is not None:
                    added = np.concatenate([held.ids, added])
                    its_rows = np.concatenate([held.rows, its_rows], axis=1)
                self._memory[block] = _Rows(added, its_rows)
            self._mark(ids)

    def load(self, reader: SegmentReader) -> None:
        """Take the sealed rows of a segment of kind "mask_index"; those in memory of the same masks are let go.

        Segments that were merged into another one are let go too, and not taken again, in whatever order a process
        meets them: the versions of a collection share its rows.
        """
        with self._mutex.lock:
            if reader.ref in self._known:
                return
        ids = reader.array("ids").astype(np.int64)
        self._check(reader, ids)
        with self._mutex.lock:
            if reader.ref in self._known:
                return
            self._known.add(reader.ref)
            if any(_covers(held, ids) for _, held in self._sealed):
                return
            self._sealed = [one for one in self._sealed if not _covers(ids, one[1])]
            self._sealed.append((reader, ids))
            self._mark(ids)
            for block in np.unique(ids // INDEX_BLOCK).tolist():
                held = self._memory.get(block)
                if held is None:
                    continue
                left = ~np.isin(held.ids, ids)
                if left.any():
                    self._memory[block] = _Rows(held.ids[left], held.rows[:, left])
                else:
                    del self._memory[block]

    def unsealed(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
        """Rows that are only in memory: ids ascending, int64 (k,), and uint8 (B, k, g*g); None if there are none."""
        with self._mutex.lock:
            held = list(self._memory.values())
        if not held:
            return None
        ids = np.concatenate([rows.ids for rows in held])
        order = np.argsort(ids, kind="stable")
        return ids[order], np.ascontiguousarray(np.concatenate([rows.rows for rows in held], axis=1)[:, order])

    def _mark(self, ids: NDArray[np.int64]) -> None:
        """Replace, not change: queries hold the array that they were given."""
        marked = self._indexed.copy()
        marked[ids] = True
        marked.flags.writeable = False
        self._indexed = marked

    def _read(self, reader: SegmentReader, k: int, edge: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Rows of one edge at positions [begin, end) of the k masks that a sealed segment lists."""
        ranges: list[tuple[int, int]] = []
        cells, n_edges = self._cells, len(self.edges)
        while begin < end:
            start = begin // INDEX_BLOCK * INDEX_BLOCK
            listed = min(INDEX_BLOCK, k - start)
            stop = min(end, start + listed)
            ranges.append(((start * n_edges + edge * listed + begin - start) * cells, (stop - begin) * cells))
            begin = stop
        return reader.read_many("histograms", np.array(ranges, dtype=np.int64).reshape(-1, 2)).join().reshape(-1, cells)

    def _check(self, reader: SegmentReader, ids: NDArray[np.int64]) -> None:
        edges = reader.array("edges")
        expected = len(ids) * len(self.edges) * self._cells
        if (
            int(reader.meta["grid"]) != self.grid
            or not np.array_equal(edges, self.edges)
            or reader.arrays["histograms"].nbytes != expected
            or (len(ids) and (ids[0] < 0 or ids[-1] >= self.n or bool((np.diff(ids) <= 0).any())))
        ):
            raise FormatError(
                f"segment {reader.ref.id}: got index rows of {len(ids)} masks with grid {reader.meta['grid']} and "
                f"{len(edges)} edges, expected ascending masks of {self.n}, grid {self.grid}, the collection's "
                f"{len(self.edges)} edges, {expected} bytes"
            )


def sealed_rows(reader: SegmentReader) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """All rows of a segment of kind "mask_index": ids, int64 (k,), and uint8 (B, k, g*g).

    Raises:
        FormatError: the file is damaged, or does not hold what its description says.
    """
    ids = reader.array("ids").astype(np.int64)
    histograms = reader.array("histograms")
    n_edges, cells = int(reader.meta["n_edges"]), int(reader.meta["grid"]) ** 2
    if histograms.shape != (len(ids) * n_edges * cells,):
        raise FormatError(
            f"segment {reader.ref.id}: got {histograms.shape} bytes of index rows, expected {len(ids)} masks x "
            f"{n_edges} edges x {cells} cells"
        )
    blocks, step = [], INDEX_BLOCK * n_edges * cells
    for begin in range(0, len(histograms), step):
        blocks.append(histograms[begin : begin + step].reshape(n_edges, -1, cells))
    return ids, np.concatenate(blocks, axis=1)


def _covers(ids: NDArray[np.int64], others: NDArray[np.int64]) -> bool:
    """Whether all others are among ids; both ascending."""
    if len(others) > len(ids) or others[0] < ids[0] or others[-1] > ids[-1]:
        return False
    at = np.searchsorted(ids, others[:1])
    return bool(ids[at[0]] == others[0] and np.isin(others, ids, assume_unique=True).all())
