"""Asks every competitor the queries of every cell, checks the answers, and keeps one record per query.

The competitors answer in turn, query by query, in one process. An answer is checked before its time counts; ours also
against `must`, and once per cell by `Result.verify()`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.activations.answers import Competitor, Query, WrongAnswerError, check_answer, reference_scores
from bench.activations.nta import Evaluate
from bench.activations.ours import Ours
from bench.activations.queries import GROUP_KINDS, KINDS, cell
from bench.activations.workloads import Workload
from bench.page_cache import load

__all__ = ["Entrant", "Record", "lookup", "measure_cells", "pick"]

_log = logging.getLogger("neuralartifactdb")


@dataclass(frozen=True)
class Entrant:
    """A competitor with the rules that its answers are checked by.

    Attributes:
        competitor: answers queries.
        ties: whether it promises equal scores by id.
        tolerance: of its arithmetic, relative; 0 for float64.
        at_most: queries per cell, for the slow ones; None for all.
        largest_group: it is not asked about larger groups; None for no limit.
    """

    competitor: Competitor
    ties: bool = True
    tolerance: float = 0.0
    at_most: int | None = None
    largest_group: int | None = None


@dataclass(frozen=True)
class Record:
    """One answered query."""

    competitor: str
    workload: str
    layer: str
    kind: str
    group_kind: str
    size: int
    inputs_inferred: int
    batches: int
    seconds: float
    must: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def lookup(columns: NDArray[np.float32]) -> Callable[[NDArray[np.int64]], Evaluate]:
    """Evaluates inputs by looking them up in the true activations: counts cost nothing else."""

    def evaluate_for(group: NDArray[np.int64]) -> Evaluate:
        held = np.asarray(columns[group])
        return lambda ids: held[:, ids]

    return evaluate_for


def measure_cells(
    workload: Workload,
    layer: str,
    entrants: Sequence[Entrant],
    *,
    sizes: Sequence[int],
    n_queries: int,
    kinds: Sequence[str] = KINDS,
    group_kinds: Sequence[str] = GROUP_KINDS,
    verify_sample: int | None = None,
) -> list[Record]:
    """Measures the cells of one layer.

    Args:
        workload: whose layer.
        layer: its name.
        entrants: who answers.
        sizes: of the groups.
        n_queries: per cell.
        kinds: of queries.
        group_kinds: of groups.
        verify_sample: how many inputs `verify()` runs through the model, once per cell; None for all.

    Returns:
        One record per query and entrant.

    Raises:
        WrongAnswerError: somebody's answer is wrong, ours did more work than it may, or `verify()` disagrees.
    """
    records = []
    columns = workload.columns(layer)
    for kind in kinds:
        for group_kind in group_kinds:
            for size in sizes:
                _log.info("%s %s: %s, %s, %d neurons", workload.name, layer, kind, group_kind, size)
                queries = cell(workload, layer, kind, group_kind, size, n_queries)
                _warm(entrants, queries[0])
                for number, query in enumerate(queries):
                    scores = reference_scores(np.asarray(columns[query.group]), query)
                    for entrant in entrants:
                        if entrant.at_most is not None and number >= entrant.at_most:
                            continue
                        if entrant.largest_group is not None and size > entrant.largest_group:
                            continue
                        records.append(_measure(workload, entrant, query, scores))
                        if number == 0:
                            _verify(entrant.competitor, verify_sample)
    return records


def _warm(entrants: Sequence[Entrant], query: Query) -> None:
    """Brings files into memory, for those that only read; a model needs no warming beyond its own build."""
    for entrant in entrants:
        if entrant.at_most is None and not isinstance(entrant.competitor, Ours):
            entrant.competitor.answer(query)


def _measure(workload: Workload, entrant: Entrant, query: Query, scores: NDArray[np.float64]) -> Record:
    competitor = entrant.competitor
    if isinstance(competitor, Ours):  # the reference has just read the columns that the others read
        load(competitor.files())
    answer = competitor.answer(query)
    check_answer(answer, scores, query, name=competitor.name, ties=entrant.ties, tolerance=entrant.tolerance)
    must = None
    if isinstance(competitor, Ours):
        must = competitor.check_work(query, answer, scores)
    return Record(
        competitor.name,
        workload.name,
        query.layer,
        query.kind,
        query.group_kind,
        len(query.group),
        answer.inputs_inferred,
        answer.batches,
        answer.seconds,
        must,
    )


def _verify(competitor: Competitor, sample: int | None) -> None:
    """Asks our last result for its own check against brute force; the lookups are always compared in full."""
    if not isinstance(competitor, Ours) or competitor.last is None:
        return
    if not competitor.last.verify(sample if competitor.runs_model else None):
        raise WrongAnswerError(
            f"{competitor.name}: verify() says that brute force answers {competitor.last.query} otherwise"
        )


def pick(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """The records whose fields have these values; a tuple or set of values admits each of them."""
    found = []
    for record in records:
        held = [(getattr(record, name), value) for name, value in wanted.items()]
        if all(has in value if isinstance(value, tuple | set) else has == value for has, value in held):
            found.append(record)
    return found
