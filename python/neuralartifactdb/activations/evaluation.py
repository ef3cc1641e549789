"""Exact activations for a query: kept ones from disk, known ones from memory, the rest through the source.

Several layers of one model are evaluated in one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.dtypes import compute_dtype
from neuralartifactdb.activations.index import LayerIndex, ToleranceWidened
from neuralartifactdb.activations.source import Source

__all__ = ["Evaluator"]

#: bytes of activations that one call may hold at once
_CALL_BYTES = 64 << 20


class Evaluator:
    """Evaluates inputs for one query and counts what it cost."""

    def __init__(self) -> None:
        self.inputs_inferred = 0
        self.batches = 0

    def columns(
        self,
        wanted: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]],
        ids: NDArray[np.int64],
        *,
        in_search: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Exact activations of groups of neurons.

        Args:
            wanted: by index key, the index and the flat neurons (g,) of it.
            ids: int64 (n,) input ids.
            in_search: whether intervals are in use, which a widened tolerance would make wrong.

        Returns:
            By index key, (g, n) C-contiguous in compute dtype.

        Raises:
            StaleIndexError: a value is not the one that was indexed.
            ToleranceWidened: only `in_search`: a value deviates slightly.
        """
        out = {
            key: np.empty((len(neurons), len(ids)), dtype=compute_dtype(index.info.dtype))
            for key, (index, neurons) in wanted.items()
        }
        missing: dict[str, NDArray[np.bool_]] = {}
        for key, (index, neurons) in wanted.items():
            left = np.ones(len(ids), dtype=bool)
            if index.segments:
                for segment, where in index.by_segment(ids):
                    if segment.keeps_values:
                        out[key][:, where] = segment.rows(ids[where], neurons).T
                        left[where] = False
            self._recall(index, neurons, ids, left, out[key], in_search)
            missing[key] = left
        sources: dict[int, tuple[Source, list[str]]] = {}
        for key, (index, _) in wanted.items():
            if missing[key].any():
                source = index.require_source(int(missing[key].sum()))
                sources.setdefault(id(source), (source, []))[1].append(key)
        for source, keys in sources.values():
            needed = np.flatnonzero(np.logical_or.reduce([missing[key] for key in keys]))
            self._run(source, keys, wanted, ids, needed, missing, out, in_search)
        return out

    def recheck(self, indexes: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]], ids: NDArray[np.int64]) -> None:
        """Evaluate inputs afresh and compare every neuron of the groups with its bounds; raises what `check` does."""
        for index, neurons in indexes.values():
            if index.keeps_all:
                continue
            rows = self._evaluate(index.require_source(len(ids)), [index.layer], ids)[index.layer]
            index.check(ids, rows, neurons, every=True)

    def _recall(
        self,
        index: LayerIndex,
        neurons: NDArray[np.int64],
        ids: NDArray[np.int64],
        left: NDArray[np.bool_],
        out: NDArray[Any],
        in_search: bool,
    ) -> None:
        """Fill in what this session evaluated before, perhaps for another group."""
        if not left.any():
            return
        held = index.evaluated.lookup(index.identity, int(ids.min()), int(ids.max()) + 1)
        if held is None:
            return
        known, rows = held
        at = np.searchsorted(known, ids)
        at[at == len(known)] = 0
        hit = left & (known[at] == ids)
        if hit.any():
            found = rows[at[hit]]
            _check(index, ids[hit], found, neurons, in_search)
            out[:, hit] = index.settled(ids[hit], np.ascontiguousarray(found[:, neurons].T), neurons)
            left[hit] = False

    def _run(
        self,
        source: Source,
        keys: list[str],
        wanted: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]],
        ids: NDArray[np.int64],
        needed: NDArray[np.int64],
        missing: Mapping[str, NDArray[np.bool_]],
        out: dict[str, NDArray[Any]],
        in_search: bool,
    ) -> None:
        layers = [wanted[key][0].layer for key in keys]
        row_bytes = sum(8 * wanted[key][0].info.n_neurons for key in keys)
        unit = source.query_batches[0]
        step = max(unit, _CALL_BYTES // max(1, row_bytes) // unit * unit)
        for begin in range(0, len(needed), step):
            where = needed[begin : begin + step]
            for key in keys:
                wanted[key][0].refuse_changed_model()
                wanted[key][0].refuse_short_source(ids[where], source)
            rows = self._evaluate(source, layers, ids[where])
            for key, layer in zip(keys, layers, strict=True):
                index, neurons = wanted[key]
                _check(index, ids[where], rows[layer], neurons, in_search)
                index.evaluated.add(index.identity, ids[where], rows[layer])
                own = missing[key][where]
                columns = np.ascontiguousarray(rows[layer][own][:, neurons].T)
                out[key][:, where[own]] = index.settled(ids[where[own]], columns, neurons)

    def _evaluate(self, source: Source, layers: list[str], ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        before = source.rows_run
        rows = source.evaluate(layers, ids)
        self.inputs_inferred += source.rows_run - before
        self.batches += 1
        return rows


def _check(
    index: LayerIndex, ids: NDArray[np.int64], rows: NDArray[Any], neurons: NDArray[np.int64], in_search: bool
) -> None:
    """`LayerIndex.check`; outside a search a widened tolerance spoils nothing, so the values stand."""
    while True:
        try:
            return index.check(ids, rows, neurons)
        except ToleranceWidened:
            if in_search:
                raise
