"""Exact activations for a query: kept ones from disk, known ones from memory, the rest through the source.

Several layers of one model are evaluated in one forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.dtypes import compute_dtype
from neuralartifactdb.activations.evaluated import EvaluatedCache
from neuralartifactdb.activations.index import LayerIndex, ToleranceWidened
from neuralartifactdb.activations.source import Source

__all__ = ["Evaluator"]

#: bytes of activations that one call may hold at once
_CALL_BYTES = 64 << 20
#: evaluated inputs that wait for their comparison with the index
_MOST_UNCHECKED = 4_096


@dataclass
class _Unchecked:
    """What was evaluated of some neurons of an index and not yet compared with it."""

    index: LayerIndex
    neurons: NDArray[np.int64]
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    columns: list[NDArray[Any]] = field(default_factory=list)


class Evaluator:
    """Evaluates inputs for one query and counts what it cost.

    The model is compared with the one that was indexed before its first run, and it and what it gave once more by
    `finish`, which whoever uses the values calls before they are believed: once for a query rather than once for each
    wave of it.
    """

    def __init__(self) -> None:
        self.inputs_inferred = 0
        self.batches = 0
        self._unchecked: dict[tuple[str, bytes], _Unchecked] = {}
        self._n_unchecked = 0
        self._in_use: dict[str, LayerIndex] = {}
        self._widened = False
        self._fresh: dict[str, tuple[LayerIndex, EvaluatedCache]] = {}

    def columns(
        self,
        wanted: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]],
        ids: NDArray[np.int64],
    ) -> dict[str, NDArray[Any]]:
        """Exact activations of groups of neurons.

        Args:
            wanted: by index key, the index and the flat neurons (g,) of it.
            ids: int64 (n,) input ids.

        Returns:
            By index key, (g, n) C-contiguous in compute dtype.

        Raises:
            StaleIndexError: the model is not the one that was indexed.
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
            self._run(source, keys, wanted, ids, needed, missing, out)
        return out

    def recheck(self, indexes: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]], ids: NDArray[np.int64]) -> None:
        """Evaluate inputs afresh and compare every neuron of the groups with its bounds; raises what `check` does."""
        for index, neurons in indexes.values():
            if index.keeps_all:
                continue
            rows = self._evaluate(index.require_source(len(ids)), [index.layer], ids)[index.layer]
            index.check(ids, rows[:, neurons].T, neurons)

    def finish(self, *, in_search: bool = False) -> None:
        """Compare the models, and what was evaluated since the last call, with what was indexed.

        Args:
            in_search: whether intervals are in use, which a widened tolerance makes wrong.

        Raises:
            StaleIndexError: a value, or the model, is not the one that was indexed.
            ToleranceWidened: only `in_search`: a value deviates slightly.
        """
        for index in self._in_use.values():
            index.refuse_changed_model()
        self._in_use.clear()
        while self._unchecked:
            self._compare()
        for identity, (index, fresh) in self._fresh.items():
            for ids, rows in fresh.take(identity):
                index.evaluated.add(identity, ids, rows)
        widened, self._widened = self._widened, False
        if widened and in_search:
            raise ToleranceWidened

    def use(self, index: LayerIndex) -> None:
        """Announce that the index's source is about to run: StaleIndexError if its model is another by now."""
        if index.key not in self._in_use:
            index.refuse_changed_model()
            self._in_use[index.key] = index

    def _compare(self) -> None:
        try:
            while self._unchecked:
                key, held = next(iter(self._unchecked.items()))
                held.index.check(np.concatenate(held.ids), np.concatenate(held.columns, axis=1), held.neurons)
                del self._unchecked[key]
            self._n_unchecked = 0
        except ToleranceWidened:  # compared again by the next call, which it will pass
            self._widened = True

    def _compare_later(
        self, index: LayerIndex, ids: NDArray[np.int64], rows: NDArray[Any], neurons: NDArray[np.int64]
    ) -> None:
        neurons = index.checked(neurons)
        held = self._unchecked.setdefault((index.identity, neurons.tobytes()), _Unchecked(index, neurons))
        held.ids.append(ids)
        held.columns.append(rows[:, neurons].T)
        self._n_unchecked += len(ids)
        if self._n_unchecked > _MOST_UNCHECKED:
            self._compare()

    def _recall(
        self,
        index: LayerIndex,
        neurons: NDArray[np.int64],
        ids: NDArray[np.int64],
        left: NDArray[np.bool_],
        out: NDArray[Any],
    ) -> None:
        """Fill in what this session evaluated before, perhaps for another group."""
        for cache in (self._fresh_of(index), index.evaluated):
            if not left.any():
                return
            held = cache.lookup(index.identity, int(ids.min()), int(ids.max()) + 1)
            if held is not None:
                self._take(index, neurons, ids, left, out, *held)

    def _take(
        self,
        index: LayerIndex,
        neurons: NDArray[np.int64],
        ids: NDArray[np.int64],
        left: NDArray[np.bool_],
        out: NDArray[Any],
        known: NDArray[np.int64],
        rows: NDArray[Any],
    ) -> None:
        at = np.searchsorted(known, ids)
        at[at == len(known)] = 0
        hit = left & (known[at] == ids)
        if hit.any():
            found = rows[at[hit]]
            self._compare_later(index, ids[hit], found, neurons)
            out[:, hit] = index.settled(ids[hit], np.ascontiguousarray(found[:, neurons].T), neurons)
            left[hit] = False

    def _fresh_of(self, index: LayerIndex) -> EvaluatedCache:
        """Rows of this query: nobody else sees them before `finish` has compared them."""
        if index.identity not in self._fresh:
            budget = min(_CALL_BYTES, index.evaluated.budget_bytes)
            self._fresh[index.identity] = (index, EvaluatedCache(budget))
        return self._fresh[index.identity][1]

    def _run(
        self,
        source: Source,
        keys: list[str],
        wanted: Mapping[str, tuple[LayerIndex, NDArray[np.int64]]],
        ids: NDArray[np.int64],
        needed: NDArray[np.int64],
        missing: Mapping[str, NDArray[np.bool_]],
        out: dict[str, NDArray[Any]],
    ) -> None:
        layers = [wanted[key][0].layer for key in keys]
        row_bytes = sum(8 * wanted[key][0].info.n_neurons for key in keys)
        unit = source.unit
        step = max(unit, _CALL_BYTES // max(1, row_bytes) // unit * unit)
        for begin in range(0, len(needed), step):
            where = needed[begin : begin + step]
            for key in keys:
                self.use(wanted[key][0])
                wanted[key][0].refuse_short_source(ids[where], source)
            rows = self._evaluate(source, layers, ids[where])
            for key, layer in zip(keys, layers, strict=True):
                index, neurons = wanted[key]
                self._compare_later(index, ids[where], rows[layer], neurons)
                self._fresh_of(index).add(index.identity, ids[where], rows[layer])
                own = missing[key][where]
                columns = np.ascontiguousarray(rows[layer][own][:, neurons].T)
                out[key][:, where[own]] = index.settled(ids[where[own]], columns, neurons)

    def _evaluate(self, source: Source, layers: list[str], ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        before = source.rows_run
        rows = source.evaluate(layers, ids)
        self.inputs_inferred += source.rows_run - before
        self.batches += 1
        return rows
