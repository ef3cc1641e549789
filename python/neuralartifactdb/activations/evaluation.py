"""Exact activations for a query: kept ones from disk, known ones from memory, the rest through the source.

Several layers of one model are evaluated in one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.dtypes import compute_dtype
from neuralartifactdb.activations.index import LayerIndex
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
        self, wanted: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]], ids: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Exact activations of groups of neurons.

        Args:
            wanted: by index key, the index and the flat neurons (g,) of it.
            ids: int64 (n,) input ids.

        Returns:
            By index key, (g, n) C-contiguous in compute dtype.
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
            self._recall(index, neurons, ids, left, out[key])
            missing[key] = left
        sources: dict[int, tuple[Source, list[str]]] = {}
        for key, (index, _) in wanted.items():
            if missing[key].any():
                source = index.require_source(int(missing[key].sum()))
                sources.setdefault(id(source), (source, []))[1].append(key)
        for source, keys in sources.values():
            needed = np.flatnonzero(np.logical_or.reduce([missing[key] for key in keys]))
            self._run(source, keys, wanted, ids, needed, out)
        return out

    def _recall(
        self,
        index: LayerIndex,
        neurons: NDArray[np.int64],
        ids: NDArray[np.int64],
        left: NDArray[np.bool_],
        out: NDArray[Any],
    ) -> None:
        """Fill in what this session evaluated before."""
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
            out[:, hit] = rows[at[hit]][:, neurons].T
            left[hit] = False

    def _run(
        self,
        source: Source,
        keys: list[str],
        wanted: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]],
        ids: NDArray[np.int64],
        needed: NDArray[np.int64],
        out: dict[str, NDArray[Any]],
    ) -> None:
        layers = [wanted[key][0].layer for key in keys]
        row_bytes = sum(8 * wanted[key][0].info.n_neurons for key in keys)
        unit = source.query_batches[0]
        step = max(unit, _CALL_BYTES // max(1, row_bytes) // unit * unit)
        for begin in range(0, len(needed), step):
            where = needed[begin : begin + step]
            before = source.rows_run
            rows = source.evaluate(layers, ids[where])
            self.inputs_inferred += source.rows_run - before
            self.batches += 1
            for key, layer in zip(keys, layers, strict=True):
                index, neurons = wanted[key]
                indexed = ids[where] < index.n_indexed
                index.check(ids[where][indexed], rows[layer][indexed], neurons)
                index.evaluated.add(index.identity, ids[where], rows[layer])
                out[key][:, where] = rows[layer][:, neurons].T
