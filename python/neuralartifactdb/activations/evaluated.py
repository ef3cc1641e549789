"""Activations evaluated earlier in this session, kept under a byte budget to sharpen later queries.

DeepEverest's inter-query acceleration: a later query on the layer sees these inputs with point intervals, whatever its
group of neurons. Oldest batches of the layer used longest ago go first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.storage.mutex import Mutex

__all__ = ["EvaluatedCache"]


class EvaluatedCache:
    """Rows of activations by layer and input id.

    Args:
        budget_bytes: most bytes of activations kept.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._batches: OrderedDict[str, list[tuple[NDArray[np.int64], NDArray[Any]]]] = OrderedDict()
        self._n_bytes = 0
        self._mutex = Mutex()

    @property
    def n_bytes(self) -> int:
        """Bytes of activations held."""
        return self._n_bytes

    def add(self, layer: str, ids: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Keep the activations of `ids`, (len(ids), M); ids already held are skipped."""
        if not self.budget_bytes:
            return
        with self._mutex.lock:
            batches = self._batches.setdefault(layer, [])
            ids, first = np.unique(ids, return_index=True)
            new = np.ones(len(ids), dtype=bool)
            for held, _ in batches:
                new &= ~np.isin(ids, held, assume_unique=True)
            ids, first = ids[new], first[new]
            if not len(ids) or len(ids) * rows[:1].nbytes > self.budget_bytes:
                return
            kept = np.ascontiguousarray(rows[first])
            batches.append((ids, kept))
            self._n_bytes += kept.nbytes
            self._batches.move_to_end(layer)
            self._evict()

    def lookup(self, layer: str, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
        """Ids held in [first, last), ascending, and their rows; None if there are none."""
        with self._mutex.lock:
            batches = self._batches.get(layer)
            if not batches:
                return None
            self._batches.move_to_end(layer)
            if len(batches) > 1:
                ids = np.concatenate([held for held, _ in batches])
                order = np.argsort(ids, kind="stable")
                batches[:] = [(ids[order], np.concatenate([rows for _, rows in batches])[order])]
            ids, rows = batches[0]
        begin, end = np.searchsorted(ids, (first, last))
        return None if begin == end else (ids[begin:end], rows[begin:end])

    def take(self, layer: str) -> list[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Hand over a layer's rows, (ids, rows) batch by batch, and forget them."""
        with self._mutex.lock:
            batches = self._batches.pop(layer, [])
            self._n_bytes -= sum(rows.nbytes for _, rows in batches)
            return batches

    def forget(self, layer: str | None = None) -> None:
        """Drop a layer's rows, or everything."""
        with self._mutex.lock:
            for name in [layer] if layer is not None else list(self._batches):
                for _, rows in self._batches.pop(name, []):
                    self._n_bytes -= rows.nbytes

    def _evict(self) -> None:
        while self._n_bytes > self.budget_bytes:
            name, batches = next(iter(self._batches.items()))
            if not batches:
                del self._batches[name]
                continue
            ids, rows = batches.pop(0)
            if (
                len(ids) > 64 and len(self._batches) == 1
            ):  # the only layer: half of its oldest batch goes, not all of it
                half = len(ids) // 2
                batches.insert(0, (ids[half:], np.ascontiguousarray(rows[half:])))
                self._n_bytes -= rows.nbytes - batches[0][1].nbytes
            else:
                self._n_bytes -= rows.nbytes
