"""How many inputs lie in each partition, segment by segment, kept under a byte budget; least recently used go first.

`top_neurons(by="percentile")` needs them, and reads every code of a layer to count: too long to do each time, and too
much to keep for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.storage.mutex import Mutex

__all__ = ["PartitionCounts"]


class PartitionCounts:
    """Counts by segment.

    Args:
        budget_bytes: most bytes of counts kept; 0 keeps none.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._mutex = Mutex()
        self._held: OrderedDict[str, NDArray[np.uint32]] = OrderedDict()

    def of(self, segment: str, count: Callable[[], NDArray[np.uint32]]) -> NDArray[np.uint32]:
        """Counts of a segment, uint32 (M, P).

        Args:
            segment: its id, never used again.
            count: makes them, where they are not kept.
        """
        with self._mutex.lock:
            found = self._held.get(segment)
            if found is not None:
                self._held.move_to_end(segment)
                return found
        counts = count()
        with self._mutex.lock:
            if segment not in self._held and counts.nbytes <= self.budget_bytes:
                self._held[segment] = counts
                self.used_bytes += counts.nbytes
                while self.used_bytes > self.budget_bytes:
                    self.used_bytes -= self._held.popitem(last=False)[1].nbytes
        return counts

    def clear(self) -> None:
        """Let go of all."""
        with self._mutex.lock:
            self._held.clear()
            self.used_bytes = 0
