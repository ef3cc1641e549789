"""Asks every competitor the queries of a kind, checks the answers, and keeps one record per query.

Warm, ours and the paper's algorithm answer everything first; then one full scan after the other is opened, warmed up
and asked, each query next to our answer to the same one: all files together need not fit the page cache, those of ours
and of one scan must (checked). An answer is checked before its time counts; ours also against `must`, and once per kind
by `Result.verify()`. Cold: a competitor is closed, its files are dropped from the page cache (checked), it is opened
again, and only then asked.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.masks.answers import Competitor, check_answer
from bench.masks.ours import Ours
from bench.masks.queries import Question
from bench.masks.workloads import Workload
from bench.page_cache import drop, load, resident_share
from bench.report import WrongAnswerError

__all__ = ["Entrant", "Record", "measure", "pick"]

_log = logging.getLogger("neuralartifactdb")


@dataclass(frozen=True)
class Entrant:
    """A competitor, and how often it is asked.

    Attributes:
        competitor: answers queries.
        at_most: warm queries per kind, for the slow ones; None for all.
        cold_at_most: cold queries per kind; 0 for those that have nothing on disk or are not timed.
    """

    competitor: Competitor
    at_most: int | None = None
    cold_at_most: int = 0


@dataclass(frozen=True)
class Record:
    """One answered query.

    Attributes:
        competitor: its name.
        workload: its name.
        kind: of the query.
        number: of the query within its kind.
        cold: whether its files had been dropped from the page cache.
        n_masks: of the workload.
        rows: of the answer.
        masks_read: masks of which pixels were read.
        bytes_read: bytes read from files of pixels; None if not known.
        seconds: wall time; of ours, warm, the median of its answers to this query.
        must: of ours, what no correct algorithm with its bounds can save.
        scanned: of ours, whether it chose a scan.
        resident: warm, the share of its files that was in the page cache before the query, the least if there were
            several; None without files, or cold.
    """

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
    resident: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def measure(
    workload: Workload,
    asked: Sequence[tuple[Question, NDArray[np.float64]]],
    ours: Entrant,
    indexed: Sequence[Entrant],
    scans: Sequence[Entrant],
    *,
    verify: bool = True,
) -> list[Record]:
    """Measures the queries of one kind, warm and then cold.

    Args:
        workload: whose masks.
        asked: queries with the exact scores.
        ours: answers first, and again next to every scan.
        indexed: others that answer before the scans do.
        scans: who reads everything; open only while it is asked, closed afterwards.
        verify: whether our first answer is also checked by its own `verify()`.

    Returns:
        One record per query and entrant.

    Raises:
        WrongAnswerError: somebody's answer is wrong, ours did more work than it may, or `verify()` disagrees.
        StillCachedError: files stayed in the page cache.
    """
    _log.info("%s: %s, %d queries", workload.name, asked[0][0].kind, len(asked))
    everybody = [ours, *indexed, *scans]
    for scan in scans:
        scan.competitor.close()  # its memory is needed for the files of the others
    again: list[list[Record]] = [[] for _ in asked]  # our answers, by query
    others: list[Record] = []
    _warm_up([ours, *indexed], asked[0][0])
    for number, (question, scores) in enumerate(asked):
        again[number].append(_record(workload, ours.competitor, question, scores, cold=False))
        if number == 0 and verify:
            _verify(ours.competitor)
        others += [_record(workload, one.competitor, question, scores, cold=False) for one in indexed]
    for scan in scans:
        scan.competitor.open()
        _warm_up([scan, ours], asked[0][0])
        for number, (question, scores) in enumerate(asked[: scan.at_most]):
            others.append(_record(workload, scan.competitor, question, scores, cold=False))
            again[number].append(_record(workload, ours.competitor, question, scores, cold=False))
        scan.competitor.close()
    for entrant in everybody:
        entrant.competitor.close()  # mapped pages would stay in memory
    records = [*map(_median, again), *others]
    for number, (question, scores) in enumerate(asked):
        for entrant in everybody:
            if number < entrant.cold_at_most:
                drop(entrant.competitor.files())
                entrant.competitor.open()
                records.append(_record(workload, entrant.competitor, question, scores, cold=True))
                entrant.competitor.close()
    for entrant in (ours, *indexed):
        entrant.competitor.open()
    return records


def _warm_up(entrants: Sequence[Entrant], question: Question) -> None:
    """Brings files into the page cache and asks each a query."""
    for entrant in entrants:
        load(entrant.competitor.files())
        entrant.competitor.answer(question)


def _median(records: Sequence[Record]) -> Record:
    """The first of several answers to one query, with the median of their times and the least resident share."""
    shares = [record.resident for record in records if record.resident is not None]
    seconds = float(np.median([record.seconds for record in records]))
    return replace(records[0], seconds=seconds, resident=min(shares, default=None))


def _record(
    workload: Workload,
    competitor: Competitor,
    question: Question,
    scores: NDArray[np.float64],
    *,
    cold: bool,
) -> Record:
    """Asks one query and checks the answer; what a system took back of a warm competitor's files is loaded first."""
    resident = None
    if not cold:
        load(competitor.files())
        resident = resident_share(competitor.files())
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
        resident,
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
