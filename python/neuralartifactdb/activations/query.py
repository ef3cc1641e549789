"""Running one query over inputs: indexes, where, bounded search, Result; and checking it by brute force.

Every public query (`highest`, `nearest`, `filter`, `top_k`, of a layer or across layers) comes through `run_query`.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.candidates import InputCandidates, Value
from neuralartifactdb.activations.evaluation import Evaluator
from neuralartifactdb.activations.index import LayerIndex, ToleranceWidened, how_to_attach
from neuralartifactdb.activations.scores import GroupScore, exact_scores
from neuralartifactdb.activations.tolerance import leaf_tolerance, widened
from neuralartifactdb.errors import InvalidValueError, StaleIndexError
from neuralartifactdb.expressions.evaluate import evaluate
from neuralartifactdb.expressions.tree import Column, Expression, leaves, scored
from neuralartifactdb.queries import Options, Query, QueryContext
from neuralartifactdb.results import Plan, Result, Stats
from neuralartifactdb.search import BoundsViolated, Outcome, Prediction, bounded_search
from neuralartifactdb.verification import BruteForce
from neuralartifactdb.where import ids_where, input_domain

__all__ = ["View", "run_query", "score_bounds"]

_log = logging.getLogger("neuralartifactdb")

_MOST_RESTARTS = 8
_VERIFY_BYTES = 64 << 20
#: returned rows whose possible deviation is computed where it depends on the activations
_TOLERANCE_ROWS = 256


class View(Protocol):
    """What a query needs of the database, at one version."""

    token: Any

    @property
    def context(self) -> QueryContext:
        """The database behind results."""
        ...

    @property
    def n_inputs(self) -> int:
        """Inputs of the database."""
        ...

    def index(self, key: str) -> LayerIndex:
        """The activation index of that key."""
        ...

    def column(self, name: str) -> Value:
        """An attribute of all inputs."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes read from files so far."""
        ...


def run_query(view: View, query: Query, options: Options, evaluator: Evaluator | None = None) -> Result | Plan:
    """Answer a query exactly (or within its limits), or say what that would take.

    Args:
        view: the database at one version.
        query: what is asked.
        options: how.
        evaluator: counts what was evaluated on the way here (a target), or None.
    """
    evaluator = evaluator or Evaluator()
    indexes = _indexes(view, query.expression)
    n_candidates = min((index.n_indexed for index in indexes.values()), default=view.n_inputs)
    ids = _admitted(view, query, options, n_candidates)
    bytes_before = view.bytes_read
    for _ in range(_MOST_RESTARTS):
        also = scored(query.expression) if query.is_filter else None
        candidates = InputCandidates(query.expression, indexes, view.column, n_candidates, ids, evaluator, also)
        try:
            found = bounded_search(
                candidates,
                k=query.k,
                largest=query.largest,
                is_filter=query.is_filter,
                limits=options.limits,
                already_evaluated=evaluator.inputs_inferred,
                began=options.began,
                on_progress=options.on_progress,
                predict_only=options.explain,
            )
            evaluator.finish(in_search=True)
            break
        except (ToleranceWidened, BoundsViolated) as error:
            if isinstance(error, BoundsViolated):
                candidates.explain_violation(error)
            _log.warning(
                "values of %s deviate more than the index allows for; asking again with wider intervals. Once what "
                "made them deviate is gone, attach again: the tolerance is then as it was",
                sorted(indexes),
            )
    else:
        raise StaleIndexError(
            f"the values of {', '.join(sorted(indexes))} keep deviating from what was indexed; index again with "
            "overwrite=True"
        )
    if isinstance(found, Prediction):
        return _plan(query, found, view.bytes_read - bytes_before, indexes)
    n_bytes = view.bytes_read - bytes_before
    return _result(view, query, options, found, candidates, evaluator, n_bytes, indexes, n_candidates)


def score_bounds(view: View, expression: Expression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the indexes say of an expression before anything is evaluated: its interval for every indexed input."""
    indexes = _indexes(view, expression)
    n = min((index.n_indexed for index in indexes.values()), default=view.n_inputs)
    lower, upper = np.empty(n), np.empty(n)
    candidates = InputCandidates(expression, indexes, view.column, n, None, Evaluator())
    while True:
        try:
            for ids, intervals in candidates.blocks(lambda: None):
                lower[ids], upper[ids] = intervals.lower, intervals.upper
            return lower, upper
        except ToleranceWidened:  # by values that an earlier query evaluated: each time by more, up to an error
            continue


def _indexes(view: View, expression: Expression) -> dict[str, LayerIndex]:
    """The indexes that the leaves name; an expression of columns alone needs none."""
    indexes: dict[str, LayerIndex] = {}
    for leaf in leaves(expression):
        token = leaf.database_token
        if token is not None and token != view.token:
            raise InvalidValueError(
                f"{leaf!r} belongs to another database, {token}; the query is about {view.token}: make the expression "
                "from the database that is asked"
            )
        if isinstance(leaf, GroupScore):
            index = indexes.setdefault(leaf.layer, view.index(leaf.layer))
            if leaf.identity != index.identity:
                raise InvalidValueError(
                    f"{leaf!r} was made for an index that has been replaced since; make the expression again from "
                    f"db.activations[{leaf.layer!r}]"
                )
        elif isinstance(leaf, Column):
            view.column(leaf.name)  # an unknown column is an error before any work
    return indexes


def _admitted(view: View, query: Query, options: Options, n_candidates: int) -> NDArray[np.int64] | None:
    ids = ids_where(options.where, input_domain(view.n_inputs, view.token))
    if query.exclude is not None and len(query.exclude):
        ids = np.arange(n_candidates, dtype=np.int64) if ids is None else ids
        ids = np.setdiff1d(ids, query.exclude)
    return None if ids is None else ids[ids < n_candidates]


def _plan(query: Query, found: Prediction, n_bytes: int, indexes: dict[str, LayerIndex]) -> Plan:
    advice = []
    missing = [index for index in indexes.values() if index.source is None and not index.keeps_all]
    if found.evaluations and missing:
        advice.append(f"nothing is attached that could evaluate inputs: call {how_to_attach(missing[0])} first")
    bits = [segment.bits for index in indexes.values() for segment in index.segments if not segment.keeps_values]
    if found.evaluations > 1_000 and bits and max(bits) < 12:
        advice.append(
            f"a larger storage= keeps more than {max(bits)} bits per activation: one bit more about halves the inputs "
            f"to infer"
        )
    if found.evaluations > 1_000 and not query.is_filter:
        advice.append("limits=nadb.Limits(theta=1.1) returns scores within 10% of the best ones after fewer inputs")
    return Plan(
        query=query.text,
        candidates=found.candidates,
        settled=found.settled,
        expected_evaluations=found.evaluations,
        expected_batches=found.waves,
        expected_bytes=n_bytes,
        expected_seconds=found.seconds,
        scan=found.scan,
        exact_storage=bool(indexes) and all(index.keeps_all for index in indexes.values()),
        advice=tuple(advice),
    )


def _tolerance(
    view: View, expression: Expression, indexes: dict[str, LayerIndex], evaluator: Evaluator, ids: NDArray[np.int64]
) -> float:
    """How far the scores may deviate from those of the indexed model; 0.0 where bits reproduce."""
    groups = [leaf for leaf in leaves(expression) if isinstance(leaf, GroupScore)]
    if all(indexes[leaf.layer].largest_tolerance(leaf.neurons) == 0.0 for leaf in groups):
        return 0.0
    score = scored(expression) if expression.is_condition else expression
    if isinstance(score, GroupScore):
        known = leaf_tolerance(score, indexes[score.layer].tolerances_of(score.neurons))
        if known is not None:
            return known
    if score is None:  # a compound condition has no scores: what its leaves may deviate by
        held = [leaf_tolerance(leaf, indexes[leaf.layer].tolerances_of(leaf.neurons)) for leaf in groups]
        return max(2.0 if one is None else one for one in held)
    some = ids[:_TOLERANCE_ROWS]
    groups = [leaf for leaf in leaves(score) if isinstance(leaf, GroupScore)]
    columns: dict[Hashable, NDArray[Any]] = {}
    for leaf in groups:
        index = indexes[leaf.layer]
        columns[leaf.key] = evaluator.columns({leaf.layer: (index, leaf.neurons)}, some)[leaf.layer]
    evaluator.finish()
    others: dict[Hashable, Value] = {
        leaf.key: view.column(leaf.name).take(some) for leaf in leaves(score) if isinstance(leaf, Column)
    }
    intervals = widened(score, groups, indexes, columns, others, len(some))
    with np.errstate(invalid="ignore"):
        widths = intervals.upper - intervals.lower
    return float(np.nanmax(widths, initial=0.0))


def _n_known(view: View, indexes: dict[str, LayerIndex]) -> int:
    """Inputs that the database or an attached dataset has."""
    return max([view.n_inputs, *(index.source.n_inputs for index in indexes.values() if index.source is not None)])


def _result(
    view: View,
    query: Query,
    options: Options,
    found: Outcome,
    candidates: InputCandidates,
    evaluator: Evaluator,
    n_bytes: int,
    indexes: dict[str, LayerIndex],
    n_candidates: int,
) -> Result:
    scores: NDArray[np.float64] | None = found.scores
    if query.is_filter:
        scores = candidates.scores_of(found.ids) if scored(query.expression) is not None else None
    exact, guarantee = found.exact, found.guarantee
    unfinished = [index for index in indexes.values() if index.n_indexed < index.n_inputs]
    if unfinished:
        exact = False
        index = unfinished[0]
        guarantee = (
            f"{guarantee} over the {index.n_indexed:,} inputs indexed so far; the index of {index.key} is not finished "
            f"({index.n_inputs:,} inputs): run the same index call again to go on"
        )
    elif n_candidates < (n_known := _n_known(view, indexes)):
        later = n_known - n_candidates
        guarantee = f"{guarantee} over the {n_candidates:,} indexed inputs; {later:,} later ones are not indexed"
    tolerance = _tolerance(view, query.expression, indexes, evaluator, found.ids)
    stats = Stats(
        candidates=found.stats.candidates,
        settled=found.stats.settled,
        evaluated=evaluator.inputs_inferred,
        batches=evaluator.batches,
        unit=found.stats.unit,
        bytes_read=n_bytes,
        scanned=found.stats.scanned,
        seconds=dict(found.stats.seconds),
    )
    if isinstance(options.where, Result) and not options.where.exact:
        exact = False
        guarantee = f"{guarantee} among the rows of `where`, which is not exact itself ({options.where.guarantee})"
    check = _BruteForce(view, query, indexes, n_candidates, candidates.ids)
    return Result(
        ids=found.ids,
        scores=scores,
        exact=exact,
        guarantee=guarantee,
        tolerance=tolerance,
        stats=stats,
        query=query.text,
        question=query.question,
        _context=view.context.with_verification(check),
    )


class _BruteForce(BruteForce):
    """Every activation of the layers for the candidates."""

    def __init__(
        self, view: View, query: Query, indexes: dict[str, LayerIndex], n_candidates: int, ids: NDArray[np.int64] | None
    ) -> None:
        super().__init__(query, np.arange(n_candidates, dtype=np.int64) if ids is None else ids)
        self._view = view
        self._indexes = indexes

    def undecided(self, ids: NDArray[np.int64]) -> bool:
        """Whether the condition may be true and may be false for each of these, as far as they may deviate."""
        if not len(ids):
            return True
        rows = self._rows(ids)
        found = leaves(self._query.expression)
        groups = [leaf for leaf in found if isinstance(leaf, GroupScore)]
        columns: dict[Hashable, NDArray[Any]] = {
            leaf.key: np.ascontiguousarray(rows[leaf.layer][:, leaf.neurons].T) for leaf in groups
        }
        others: dict[Hashable, Value] = {
            leaf.key: self._view.column(leaf.name).take(ids) for leaf in found if isinstance(leaf, Column)
        }
        truth = widened(self._query.expression, groups, self._indexes, columns, others, len(ids))
        return bool((truth.lower < truth.upper).all())

    def values(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Exact values of the query's expression, NaN for NULL; and of a filter's score."""
        for index in self._indexes.values():
            index.refuse_difference()
        query = self._query
        also = scored(query.expression) if query.is_filter else None
        values = np.empty(len(ids))
        scores = None if also is None else np.empty(len(ids))
        neurons = sum(index.info.n_neurons for index in self._indexes.values())
        step = max(1, _VERIFY_BYTES // (8 * max(1, neurons)))
        for index in self._indexes.values():
            if not index.keeps_all and index.source is not None:
                step = max(step // index.source.build_batch, 1) * index.source.build_batch
        for begin in range(0, len(ids), step):
            chunk = ids[begin : begin + step]
            held: dict[Any, Any] = {}
            rows = self._rows(chunk)
            for leaf in leaves(query.expression):
                if isinstance(leaf, GroupScore):
                    held[leaf.key] = exact_scores(leaf, np.ascontiguousarray(rows[leaf.layer][:, leaf.neurons].T))
                elif isinstance(leaf, Column):
                    held[leaf.key] = self._view.column(leaf.name).take(chunk)
            values[begin : begin + len(chunk)] = evaluate(query.expression, held, n=len(chunk)).lower
            if also is not None and scores is not None:
                scores[begin : begin + len(chunk)] = evaluate(also, held, n=len(chunk)).lower
        return values, scores

    def _rows(self, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Every activation of the layers for `ids`: evaluated afresh if something is attached, else the kept ones."""
        rows: dict[str, NDArray[Any]] = {}
        by_source: dict[int, list[LayerIndex]] = {}
        for index in self._indexes.values():
            if index.source is None and index.keeps_all:
                rows[index.key] = np.concatenate(
                    [segment.rows(ids[where]) for segment, where in index.by_segment(ids)]
                    or [np.empty((0, 1), np.float32)]
                )
            else:
                by_source.setdefault(id(index.require_source(len(ids))), []).append(index)
        for group in by_source.values():
            for index in group:
                index.refuse_changed_model()
                index.refuse_short_source(ids, index.require_source(len(ids)))
            evaluated = group[0].require_source(len(ids)).evaluate([index.layer for index in group], ids)
            # a function may fill the same memory again for the next layer
            rows.update({index.key: evaluated[index.layer].copy() for index in group})
        return rows
