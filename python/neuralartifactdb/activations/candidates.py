"""Inputs as candidates of a bounded search: intervals from the indexes by block, refinement through the evaluator.

One expression over any number of layers and attributes; `highest` and `nearest` are expressions of one leaf.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.evaluation import Evaluator
from neuralartifactdb.activations.index import LayerIndex, ToleranceWidened
from neuralartifactdb.activations.scores import GroupScore, exact_scores
from neuralartifactdb.activations.source import Source, batch_shapes_of
from neuralartifactdb.errors import InvalidValueError, StaleIndexError
from neuralartifactdb.expressions.evaluate import evaluate
from neuralartifactdb.expressions.intervals import Intervals, Texts
from neuralartifactdb.expressions.tree import Column, Expression, leaves
from neuralartifactdb.search import BoundsViolated

__all__ = ["InputCandidates", "Value"]

#: inputs per block of intervals: two float64 arrays of this length per leaf
_BLOCK_INPUTS = 1 << 19
#: candidates evaluated at once where the source does not care
_FREE_WAVE = 4_096

Value = Intervals | Texts


class InputCandidates:
    """The inputs of a query.

    Args:
        expression: what is scored (for a filter: the condition).
        indexes: by key, every index that the expression's leaves name.
        column: gives the values of an attribute for all inputs.
        n_inputs: candidates are inputs [0, n_inputs).
        ids: int64, ascending: only these; None for all.
        evaluator: runs sources and counts.
        also: an expression whose exact values are wanted too (the scores of a filter).
    """

    def __init__(
        self,
        expression: Expression,
        indexes: Mapping[str, LayerIndex],
        column: Callable[[str], Value],
        n_inputs: int,
        ids: NDArray[np.int64] | None,
        evaluator: Evaluator,
        also: Expression | None = None,
    ) -> None:
        self._expression = expression
        self._also = also
        self._indexes = indexes
        self._n_inputs = n_inputs
        self.ids = ids
        self._evaluator = evaluator
        self._groups: list[GroupScore] = []
        self._columns: dict[Hashable, Value] = {}
        for leaf in leaves(expression) + ([] if also is None else leaves(also)):
            if isinstance(leaf, GroupScore):
                if all(leaf.key != other.key for other in self._groups):
                    self._groups.append(leaf)
            elif isinstance(leaf, Column):
                self._columns[leaf.key] = column(leaf.name)
            else:
                raise InvalidValueError(f"an expression over inputs may use layers and columns, got {leaf!r}")
        self._also_ids: list[NDArray[np.int64]] = []
        self._also_scores: list[NDArray[np.float64]] = []
        sources = {id(s): s for index in indexes.values() if (s := index.source) is not None and not index.keeps_all}
        self._sources: list[Source] = list(sources.values())
        self._all_attached = all(index.source is not None or index.keeps_all for index in indexes.values())
        self.unit = max((s.unit for s in self._sources), default=1)
        widest = max((index.info.n_neurons for index in indexes.values()), default=1)
        free = max(1, min(_FREE_WAVE, (64 << 20) // (8 * widest)))
        wave = max((s.build_batch for s in self._sources if s.kind == "model"), default=free)
        self.max_wave = -(-max(wave, self.unit) // self.unit) * self.unit

    def unit_after(self, evaluated: int) -> int:
        """Evaluations come in multiples of this once there were so many."""
        return max((source.unit_after(evaluated) for source in self._sources), default=1)

    def affordable(self, ids: NDArray[np.int64], evaluated: int, allowed: int) -> int:
        """As many as are left, rounded up to the evaluation shape."""
        return max(0, -(-(allowed - evaluated) // self.unit) * self.unit)

    def seconds(self, waves: Sequence[int]) -> float | None:
        """Predicted seconds to evaluate waves of so many inputs; None where a source was not timed, or is missing."""
        if not waves:
            return 0.0
        if not self._all_attached:
            return None
        total = 0.0
        for n, times in Counter(waves).items():
            for source in self._sources:
                seconds = source.seconds_per_input
                for shape in batch_shapes_of(n, source.query_batches):
                    if shape not in seconds:
                        return None
                    total += times * shape * seconds[shape]
        return total

    def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[NDArray[np.int64], Intervals]]:
        """Ids and intervals, block by block in id order."""
        for first, last in self._cuts():
            ids: NDArray[np.int64] | None = None
            if self.ids is not None:
                begin, end = np.searchsorted(self.ids, (first, last))
                if begin == end:
                    continue
                ids = self.ids[begin:end]
                first, last = int(ids[0]), int(ids[-1]) + 1
            values: dict[Hashable, Value] = {
                leaf.key: self._indexes[leaf.layer].intervals(leaf, first, last) for leaf in self._groups
            }
            for key, held in self._columns.items():
                values[key] = held.take(slice(first, last))
            if ids is not None and len(ids) < last - first:
                values = {key: held.take(ids - first) for key, held in values.items()}
            elif ids is None:
                ids = np.arange(first, last, dtype=np.int64)
            result = evaluate(self._expression, values, n=len(ids))
            self._note_scores(ids, values, result)
            yield ids, result

    def refine(self, ids: NDArray[np.int64]) -> Intervals:
        """Exact values."""
        wanted = self._wanted()
        columns = self._evaluator.columns(wanted, ids)
        values: dict[Hashable, Value] = {key: held.take(ids) for key, held in self._columns.items()}
        for leaf in self._groups:
            held_neurons, held_columns = wanted[leaf.layer][1], columns[leaf.layer]
            if held_neurons is not leaf.neurons:
                order = np.argsort(held_neurons, kind="stable")
                held_columns = held_columns[order[np.searchsorted(held_neurons[order], leaf.neurons)]]
            values[leaf.key] = exact_scores(leaf, np.ascontiguousarray(held_columns))
        result = evaluate(self._expression, values, n=len(ids))
        self._note_scores(ids, values, result)
        return result

    def _wanted(self) -> dict[str, tuple[LayerIndex, NDArray[np.int64]]]:
        """By index key, the index and all its neurons that the expression names."""
        wanted: dict[str, tuple[LayerIndex, NDArray[np.int64]]] = {}
        for leaf in self._groups:
            index = self._indexes[leaf.layer]
            neurons = leaf.neurons if leaf.layer not in wanted else np.union1d(wanted[leaf.layer][1], leaf.neurons)
            wanted[leaf.layer] = (index, neurons)
        return wanted

    def explain_violation(self, violation: BoundsViolated) -> None:
        """Find the activations that are not what was indexed: raises StaleIndexError, or widens the tolerance."""
        try:
            self._evaluator.recheck(self._wanted(), violation.ids)
        except ToleranceWidened:
            return
        raise StaleIndexError(
            f"{', '.join(sorted(self._indexes))}: evaluating the same inputs twice gives different activations "
            f"({violation}); make the source deterministic, or index it again with overwrite=True"
        ) from violation

    def _cuts(self) -> Iterator[tuple[int, int]]:
        """Ranges of inputs, each within one segment of every layer, starting at whole row groups where they can."""
        segments = [segment for index in self._indexes.values() for segment in index.segments]
        points = {0, self._n_inputs}
        points.update(p for s in segments for p in (s.first, s.last) if p < self._n_inputs)
        ordered = sorted(points)
        lead = next(iter(self._indexes.values()), None)
        for first, last in itertools.pairwise(ordered):
            step = _BLOCK_INPUTS
            if lead is not None and lead.segments:
                group = lead.segment_at(first).step
                step = max(group, step // group * group)
            for begin in range(first, last, step):
                yield begin, min(begin + step, last)

    def _note_scores(self, ids: NDArray[np.int64], values: Mapping[Hashable, Value], truth: Intervals) -> None:
        """Remember the scores of a filter where they are known and the row may be in the answer."""
        if self._also is None:
            return
        scores = evaluate(self._also, values, n=len(ids))
        known = (scores.lower == scores.upper) & (truth.upper == 1.0)
        if known.any():
            self._also_ids.append(ids[known])
            self._also_scores.append(scores.lower[known])

    def scores_of(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of a filter's rows where they were computed, else NaN."""
        out = np.full(len(ids), np.nan)
        for held, scores in zip(self._also_ids, self._also_scores, strict=True):
            _, here, there = np.intersect1d(ids, held, assume_unique=True, return_indices=True)
            out[here] = scores[there]
        return out
