"""The segments of activation indexes that a database has open: those of the newest version, and what a query holds.

A segment remembers its description, its last group of neurons and its open files, so the ones that the next query will
ask are kept. One that an append, a replacement or a drop left behind lives as long as a result or query of the older
version needs it, and no longer: a process that appends for days must not grow (design section 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from neuralartifactdb.activations.partition_counts import PartitionCounts
from neuralartifactdb.activations.segment import ActivationSegment
from neuralartifactdb.storage.manifest import SegmentRef
from neuralartifactdb.storage.mutex import Mutex
from neuralartifactdb.storage.reader import SegmentReader

__all__ = ["OpenSegments"]


class OpenSegments:
    """Segments by reference, each opened once while anybody holds it.

    Args:
        reader_of: the reader of a segment, such as `DatabaseDirectory.reader`.
        counts_bytes: memory for counts of their partitions.
    """

    def __init__(self, reader_of: Callable[[SegmentRef], SegmentReader], counts_bytes: int) -> None:
        self._reader_of = reader_of
        self.counts = PartitionCounts(counts_bytes)
        self._mutex = Mutex()
        self._open: WeakValueDictionary[SegmentRef, ActivationSegment] = WeakValueDictionary()
        self._newest: frozenset[SegmentRef] = frozenset()
        self._kept: dict[SegmentRef, ActivationSegment] = {}

    def __len__(self) -> int:
        """Segments that are open."""
        return len(self._open)

    def get(self, ref: SegmentRef, dtype: str) -> ActivationSegment:
        """The segment, opened if it is not.

        Args:
            ref: which.
            dtype: storage dtype of its layer.
        """
        with self._mutex.lock:
            segment = self._open.get(ref)
            if segment is None:
                segment = self._open[ref] = ActivationSegment(self._reader_of(ref), dtype, self.counts)
            if ref in self._newest:
                self._kept[ref] = segment
            return segment

    def keep(self, refs: Iterable[SegmentRef]) -> None:
        """Keep open what belongs to the newest version, and leave the rest to who holds it."""
        with self._mutex.lock:
            self._newest = frozenset(refs)
            self._kept = {ref: segment for ref, segment in self._kept.items() if ref in self._newest}

    def clear(self) -> None:
        """Let go of everything."""
        self.keep(())
        self.counts.clear()
