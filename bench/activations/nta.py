"""Competitor (c): DeepEverest's Neural Threshold Algorithm over its NPI and MAI, written from the paper.

Fagin's threshold algorithm with a partition as the unit of sorted access, and a single input inside the MAI.
Every neuron of the group has a list of chunks in order of their distance to the target (for highest: of their greatest
activation, descending). A round takes the next chunk of every neuron; while some neuron's next chunk is a single input
of its MAI, only those advance, because that is cheap. Unseen inputs of the chunks taken are run through the model. No
input that is still unseen in all lists can score better than the threshold, the score of the neurons' next chunks; the
algorithm stops when the k-th best is at least as good.

Where the paper leaves a choice, this takes the one that runs fewer inputs: the threshold comes from the boundary of
the next chunk, not from the activations seen; it is looked at after every chunk and batch, not after every round; k-th
equal to the threshold stops (ties are then any of the tied inputs); and an input whose whole group lies in the MAIs is
not run.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.activations.answers import Answer, Query
from bench.activations.nta_index import NeuronIndex, NtaIndex

__all__ = ["Evaluate", "Nta"]

Evaluate = Callable[[NDArray[np.int64]], NDArray[np.floating]]
"""Runs inputs: int64[n] ids -> float[g, n] activations of the group, in its order."""


@dataclass
class _List:
    """One neuron's chunks: `frontier[i]` is the best term that an input of chunk i or later can have."""

    frontier: NDArray[np.float64]
    is_single: NDArray[np.bool_]
    chunk: Callable[[int], NDArray[np.int64]]
    position: int = 0

    @property
    def done(self) -> bool:
        return self.position == len(self.frontier)

    @property
    def next_is_single(self) -> bool:
        return not self.done and bool(self.is_single[self.position])


class Nta:
    """DeepEverest.

    Args:
        index: of a layer.
        evaluate_for: the group's neurons -> what runs inputs for it.
        batch_size: inputs per call of the model; 1 evaluates one by one. Candidates gather until there are so many.
    """

    def __init__(
        self, index: NtaIndex, evaluate_for: Callable[[NDArray[np.int64]], Evaluate], *, batch_size: int = 1
    ) -> None:
        self._index = index
        self._evaluate_for = evaluate_for
        self._batch_size = batch_size
        self.name = f"NTA, batch {batch_size}"

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        neurons = [self._index.neuron(int(neuron)) for neuron in query.group]  # not timed: an index is there already
        start = time.perf_counter()
        run = _Run(query, self._index.n_inputs, self._evaluate_for(query.group), self._batch_size, neurons)
        ids, scores = run.search()
        return Answer(ids, scores, run.inferred, run.batches, time.perf_counter() - start)


class _Run:
    """The state of one query. Scores are kept as keys to be minimised: distances, or negated sums."""

    def __init__(self, query: Query, n: int, evaluate: Evaluate, batch_size: int, neurons: list[NeuronIndex]) -> None:
        self._query, self._evaluate, self._batch_size = query, evaluate, batch_size
        self._seen = np.zeros(n, dtype=bool)
        self._ids: list[NDArray[np.int64]] = []
        self._keys: list[NDArray[np.float64]] = []
        self._heap: list[float] = []  # the k smallest keys, negated
        self._k = min(query.k, n)
        self._target: NDArray[np.float64] | None = None
        self.inferred = self.batches = 0
        if query.kind == "nearest":
            target = np.array([query.target])
            self._seen[target] = True
            values = evaluate(target)
            self._target = values[:, 0].astype(np.float64)
            self._count(1)
            self._add(target, self._keys_of(values))
            self._lists = [_nearest_list(neuron, a) for neuron, a in zip(neurons, self._target, strict=True)]
        else:
            self._lists = [_highest_list(neuron) for neuron in neurons]
        self._add_known(neurons)

    def search(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Runs the algorithm; the k best, best first, equal scores by id."""
        pending: list[NDArray[np.int64]] = []
        n_pending = 0
        safe = self._threshold()  # holds for everything but what is pending
        for members in self._rounds():
            if members is not None and len(members):
                self._seen[members] = True
                pending.append(members)
                n_pending += len(members)
            if n_pending and n_pending < self._batch_size:
                continue
            if n_pending and self._flush(np.concatenate(pending), safe):
                n_pending = 0
                break
            pending, n_pending = [], 0
            safe = self._threshold()
            if self._kth() <= safe:
                break
        if n_pending:
            self._flush(np.concatenate(pending), -np.inf)
        ids, keys = np.concatenate(self._ids), np.concatenate(self._keys)
        order = np.lexsort((ids, keys))[: self._k]
        return ids[order], keys[order] if self._query.kind == "nearest" else -keys[order]

    def _rounds(self) -> Iterator[NDArray[np.int64] | None]:
        """The unseen inputs of each chunk, in the order in which chunks are taken."""
        while not any(one.done for one in self._lists):  # a list that is done has shown every input
            singles = [one for one in self._lists if one.next_is_single]
            for one in singles or self._lists:
                members = one.chunk(one.position)
                one.position += 1
                yield members[~self._seen[members]]

    def _flush(self, ids: NDArray[np.int64], safe: float) -> bool:
        """Runs inputs batch by batch; true if the k-th best beat `safe`, the threshold before them, on the way."""
        if self._batch_size == 1:
            return self._flush_one_by_one(ids, safe)
        for first in range(0, len(ids), self._batch_size):
            batch = ids[first : first + self._batch_size]
            self._count(len(batch))
            self._add(batch, self._keys_of(self._evaluate(batch)))
            if self._kth() <= safe:
                return True
        return False

    def _flush_one_by_one(self, ids: NDArray[np.int64], safe: float) -> bool:
        """As batches of one. Looked up in one call, since calls of one cost NumPy more than the algorithm; those after
        the stop are neither counted nor used."""
        keys = self._keys_of(self._evaluate(ids))
        for used, key in enumerate(keys.tolist(), 1):
            self._count(1)
            self._push(key)
            if self._kth() <= safe:
                self._ids.append(ids[:used])
                self._keys.append(keys[:used])
                return True
        self._ids.append(ids)
        self._keys.append(keys)
        return False

    def _threshold(self) -> float:
        """No input unseen in all lists has a key below this."""
        if any(one.done for one in self._lists):
            return float("inf")
        total = 0.0
        for one in self._lists:
            term = float(one.frontier[one.position])
            total += term * term if self._target is not None else term
        return float(np.sqrt(total)) if self._target is not None else -total

    def _kth(self) -> float:
        return -self._heap[0] if len(self._heap) == self._k else float("inf")

    def _count(self, inputs: int) -> None:
        self.inferred += inputs
        self.batches += 1

    def _keys_of(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        total = np.zeros(values.shape[1], dtype=np.float64)
        for j, column in enumerate(values):
            term = column.astype(np.float64)
            if self._target is not None:
                term = term - self._target[j]
                term = term * term
            total = total + term
        return np.sqrt(total) if self._target is not None else -total

    def _add(self, ids: NDArray[np.int64], keys: NDArray[np.float64]) -> None:
        self._ids.append(ids)
        self._keys.append(keys)
        for key in keys.tolist():
            self._push(key)

    def _push(self, key: float) -> None:
        if len(self._heap) < self._k:
            heapq.heappush(self._heap, -key)
        elif -key > self._heap[0]:
            heapq.heapreplace(self._heap, -key)

    def _add_known(self, neurons: list[NeuronIndex]) -> None:
        """Scores the inputs whose activations are all in the MAIs, without running them."""
        known = neurons[0].maxima_ids
        for neuron in neurons[1:]:
            known = np.intersect1d(known, neuron.maxima_ids, assume_unique=True)
        known = known[~self._seen[known]]
        if len(known):
            self._seen[known] = True
            rows = []
            for neuron in neurons:
                order = neuron.maxima_order
                rows.append(neuron.maxima[order[np.searchsorted(neuron.maxima_ids[order], known)]])
            self._add(known, self._keys_of(np.stack(rows)))


def _nearest_list(neuron: NeuronIndex, target: float) -> _List:
    """Chunks by their least distance to the target's activation."""
    gap = np.maximum(0.0, np.maximum(neuron.lower - target, target - neuron.upper))
    frontier = np.concatenate([np.abs(neuron.maxima - target), gap])
    return _sorted_list(neuron, frontier, np.argsort(frontier, kind="stable"))


def _highest_list(neuron: NeuronIndex) -> _List:
    """Chunks by their greatest activation, descending."""
    frontier = np.concatenate([neuron.maxima, neuron.upper])
    return _sorted_list(neuron, frontier, np.argsort(-frontier, kind="stable"))


def _sorted_list(neuron: NeuronIndex, frontier: NDArray[np.float64], order: NDArray[np.int64]) -> _List:
    n_maxima = len(neuron.maxima)

    def chunk(position: int) -> NDArray[np.int64]:
        which = int(order[position])
        return neuron.maxima_ids[which : which + 1] if which < n_maxima else neuron.members[which - n_maxima]

    return _List(frontier[order], order < n_maxima, chunk)
