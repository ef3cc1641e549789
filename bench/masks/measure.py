"""Asks every competitor the queries of a kind, checks the answers, and keeps one record per query.

The competitors answer in turn, query by query, in one process. An answer is checked before its time counts; ours also
against `must`, and once per kind by `Result.verify()`. Cold: a competitor is closed, its files are dropped from the
page cache (checked), it is opened again, and only then asked.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.masks.answers import Competitor, check_answer
from bench.masks.ours import Ours
from bench.masks.queries import Question
from bench.masks.workloads import Workload
from bench.page_cache import drop
from bench.report import WrongAnswerError

__all__ = ["Entrant", "Record", "measure", "pick"]

_log = logging.getLogger("neuralartifactdb")


@dataclass(frozen=True)
class Entrant:
    """A competitor, and how often it is asked.

    Attributes:
        competitor: answers queries.
        at_most: queries per kind, for the slow ones; None for all.
        cold_at_most: cold queries per kind; 0 for those that have nothing on disk or are not timed.
    """

    competitor: Competitor
    at_most: int | None = None
    cold_at_most: int = 0


@dataclass(frozen=True)
class Record:
    """One answered query."""

    competitor: str
    workload: str
    kind: str
    number: int
    cold: bool
    n_masks: int
    rows: int
    masks_read: int
    bytes_read: int | None
    seconds: float
    must: int | None = None
    scanned: bool = False

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def measure(
    workload: Workload,
    asked: Sequence[tuple[Question, NDArray[np.float64]]],
    entrants: Sequence[Entrant],
    *,
    verify: bool = True,
) -> list[Record]:
    """Measures the queries of one kind, warm and then cold.

    Args:
        workload: whose masks.
        asked: queries with the exact scores.
        entrants: who answers.
        verify: whether our first answer is also checked by its own `verify()`.

    Returns:
        One record per query and entrant.

    Raises:
        WrongAnswerError: somebody's answer is wrong, ours did more work than it may, or `verify()` disagrees.
        StillCachedError: files stayed in the page cache.
    """
    _log.info("%s: %s, %d queries", workload.name, asked[0][0].kind, len(asked))
    records = []
    for entrant in entrants:
        entrant.competitor.answer(asked[0][0])  # brings files into memory
    for number, (question, scores) in enumerate(asked):
        for entrant in entrants:
            if entrant.at_most is None or number < entrant.at_most:
                records.append(_record(workload, entrant.competitor, question, scores, cold=False))
                if number == 0 and verify:
                    _verify(entrant.competitor)
    for entrant in entrants:
        entrant.competitor.close()  # mapped pages would stay in memory
    for number, (question, scores) in enumerate(asked):
        for entrant in entrants:
            if number < entrant.cold_at_most:
                drop(entrant.competitor.files())
                entrant.competitor.open()
                records.append(_record(workload, entrant.competitor, question, scores, cold=True))
                entrant.competitor.close()
    for entrant in entrants:
        entrant.competitor.open()
    return records


def _record(
    workload: Workload, competitor: Competitor, question: Question, scores: NDArray[np.float64], *, cold: bool
) -> Record:
    answer = competitor.answer(question)
    check_answer(answer, question, scores, name=competitor.name)
    must, scanned = None, False
    if isinstance(competitor, Ours):
        must = competitor.check_work(question, answer, scores)
        scanned = competitor.last is not None and competitor.last.stats.scanned
    return Record(
        competitor.name,
        workload.name,
        question.kind,
        question.number,
        cold,
        workload.n_masks,
        len(answer.ids),
        answer.masks_read,
        answer.bytes_read,
        answer.seconds,
        must,
        scanned,
    )


def _verify(competitor: Competitor) -> None:
    """Asks our last result for its own check against brute force."""
    if isinstance(competitor, Ours) and competitor.last is not None and not competitor.last.verify():
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
