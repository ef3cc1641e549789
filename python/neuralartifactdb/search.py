"""The bounded search, driven: blocks of intervals in, waves of candidates to evaluate out, until the answer is certain.

One driver for activations and masks, filter and top-k; the ranking and the stop rule are `_core.BoundedSearch`. A
filter is the search for truth values of 1 (docs/ARCHITECTURE.md, "One search for every kind of query"). Implements
design section 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.limits import Limits

__all__ = ["BoundsViolated", "Candidates", "Outcome", "Prediction", "Progress", "SearchStats", "bounded_search"]

Ids = NDArray[np.int64]

#: seconds between two looks at the clock cost nothing; between two progress calls a person needs this much
_PROGRESS_EVERY_S = 0.1


class Candidates(Protocol):
    """Where candidates come from and what evaluates them."""

    #: evaluations come in multiples of this many, at least
    unit: int
    #: at most so many at once
    max_wave: int

    def unit_after(self, evaluated: int) -> int:
        """Evaluations come in multiples of this many once there were `evaluated`: a larger evaluation shape."""
        ...

    def blocks(self, threshold: Callable[[], float | None]) -> Iterator[tuple[Ids, Intervals]]:
        """Ids and intervals of their scores; a source may leave out what `threshold()` beats."""
        ...

    def affordable(self, ids: Ids, evaluated: int, allowed: int) -> int:
        """How many of some candidates, from the first on, a limit lets be evaluated.

        Args:
            ids: int64, candidates to evaluate together.
            evaluated: candidates that were evaluated.
            allowed: evaluations in all: inputs to infer, or masks to read.
        """
        ...

    def refine(self, ids: Ids) -> Intervals:
        """Tighter intervals, exact where lower == upper."""
        ...

    def seconds(self, waves: Sequence[int]) -> float | None:
        """Predicted cost of evaluating waves of so many candidates; None where nobody knows."""
        ...


class BoundsViolated(Exception):
    """An exact score lies outside its certain interval: what evaluates is not what was indexed.

    Args:
        ids: int64, the candidates that were evaluated.
        text: which one, in words.
    """

    def __init__(self, ids: Ids, text: str) -> None:
        super().__init__(text)
        self.ids = ids


@dataclass
class SearchStats:
    """What a search did; `unit` is the largest evaluation shape that it rounded up to."""

    candidates: int = 0
    settled: int = 0
    evaluated: int = 0
    waves: int = 0
    unit: int = 1
    scanned: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where a running query stands; given to `on_progress` after a wave.

    Attributes:
        evaluated: candidates evaluated so far.
        undecided: candidates that may still have to be.
        seconds: since the call.
        ids: int64, the best exact candidates so far.
        scores: float64, their scores.
        guarantee: what holds for them now.
    """

    evaluated: int
    undecided: int
    seconds: float
    ids: Ids
    scores: NDArray[np.float64]
    guarantee: str


@dataclass(frozen=True)
class Prediction:
    """What a search expects to do, from the bounds alone."""

    candidates: int
    settled: int
    evaluations: int
    waves: int
    scan: bool
    seconds: float | None


@dataclass(frozen=True)
class Outcome:
    """A search's answer."""

    ids: Ids
    scores: NDArray[np.float64]
    exact: bool
    guarantee: str
    stats: SearchStats


def bounded_search(
    candidates: Candidates,
    *,
    k: int | None,
    largest: bool = True,
    is_filter: bool = False,
    limits: Limits | None = None,
    already_evaluated: int = 0,
    began: float | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    predict_only: bool = False,
) -> Outcome | Prediction:
    """The k best candidates by (score, id), or those of truth value 1 in the order of ids.

    Args:
        candidates: the source.
        k: how many; None for all (of a filter).
        largest: whether larger scores are better.
        is_filter: whether scores are truth values, of which only 1 is wanted.
        limits: where to stop early.
        already_evaluated: evaluations made on the way here, which `limits` count too.
        began: `time.perf_counter()` at the user's call, from which a time limit counts; now, unless given.
        on_progress: called after a wave, at most ten times a second.
        predict_only: evaluate nothing, predict instead.
    """
    limits = limits or Limits()
    began_bounds = time.perf_counter()
    began = began_bounds if began is None else began
    stats = SearchStats()
    theta_on: Literal["none", "distance", "score"] = (
        "none" if is_filter or limits.theta == 1.0 else "score" if largest else "distance"
    )
    search = _core.BoundedSearch(
        k,
        largest=largest,
        floor=1.0 if is_filter else None,
        theta=1.0 if is_filter else limits.theta,
        epsilon=0.0 if is_filter else limits.epsilon,
        theta_on=theta_on,
    )
    for ids, intervals in candidates.blocks(lambda: search.threshold):
        search.offer(ids, intervals.lower, intervals.upper, intervals.may_be_null)
    stats.seconds["bounds"] = time.perf_counter() - began_bounds
    stats.candidates = search.candidate_count
    if predict_only:
        return _predict(search, candidates, stats)
    # what fits one wave needs no prediction
    stats.scanned = search.open_count > candidates.max_wave and _predict(search, candidates, stats).scan
    allowed = None if limits.max_evaluations is None else max(0, limits.max_evaluations - already_evaluated)
    last_shown = began
    cut = ""
    if stats.scanned:  # best first too: it still stops when it may
        waves = _waves(search.next_wave, lambda _: candidates.max_wave, candidates.max_wave)
    else:
        waves = _waves(search.next_wave, candidates.unit_after, candidates.max_wave)
    for unit, ids in waves:
        stats.unit = max(stats.unit, unit)
        if allowed is not None:
            ids = ids[: candidates.affordable(ids, stats.evaluated, allowed)]
            if not len(ids):
                cut = f"stopped by max_evaluations={limits.max_evaluations}"
                break
        if limits.timeout_s is not None and time.perf_counter() - began >= limits.timeout_s:
            cut = f"stopped by timeout_s={limits.timeout_s:g}"
            break
        began_wave = time.perf_counter()
        refined = candidates.refine(ids)
        try:
            search.refine(ids, refined.lower, refined.upper, refined.may_be_null)
        except ValueError as error:
            raise BoundsViolated(ids, str(error)) from error
        now = time.perf_counter()
        stats.seconds["evaluate"] = stats.seconds.get("evaluate", 0.0) + now - began_wave
        stats.evaluated += len(ids)
        stats.waves += 1
        if on_progress is not None and now - last_shown >= _PROGRESS_EVERY_S:
            last_shown = now
            best_ids, best_scores = _best(search)
            text = _guarantee(search, "not finished", is_filter, limits)[1]
            on_progress(Progress(stats.evaluated, search.open_count, now - began, best_ids, best_scores, text))
    stats.settled = search.settled_count
    exact, guarantee = _guarantee(search, cut, is_filter, limits)
    ids, scores = _best(search)
    stats.seconds["total"] = time.perf_counter() - began
    if on_progress is not None:
        on_progress(
            Progress(stats.evaluated, search.open_count if cut else 0, stats.seconds["total"], ids, scores, guarantee)
        )
    return Outcome(ids, scores, exact, guarantee, stats)


def _waves(
    hand_out: Callable[[int, int], Ids], unit_after: Callable[[int], int], max_wave: int
) -> Iterator[tuple[int, Ids]]:
    """What is evaluated together, with its evaluation shape, until nothing more is handed out.

    Args:
        hand_out: of a search, the next candidates in multiples of a unit, at most so many; or of its rehearsal.
        unit_after: the evaluation shape once there were so many evaluations.
        max_wave: about the most at once.
    """
    evaluated = 0
    while True:
        unit = unit_after(evaluated)
        ids = hand_out(unit, -(-max_wave // unit) * unit)
        if not len(ids):
            return
        yield unit, ids
        evaluated += len(ids)


def _predict(search: _core.BoundedSearch, candidates: Candidates, stats: SearchStats) -> Prediction:
    """Evaluations by waves as if every score stood in the middle of its interval, or one pass over everything open."""
    n_open, most = search.open_count, candidates.max_wave
    rehearsal = search.copy()
    waves = [len(ids) for _, ids in _waves(rehearsal.rehearse, candidates.unit_after, most)] if n_open else []
    seconds = candidates.seconds(waves)
    scan = False
    if n_open > most and seconds is not None:  # fewer come in waves, no more than needed
        whole = [most] * (n_open // most) + [n_open % most] * (n_open % most > 0)
        by_scan = candidates.seconds(whole)
        if by_scan is not None and by_scan < seconds:
            waves, seconds, scan = whole, by_scan, True
    return Prediction(stats.candidates, stats.candidates - n_open, sum(waves), len(waves), scan, seconds)


def _best(search: _core.BoundedSearch) -> tuple[Ids, NDArray[np.float64]]:
    ids, scores, is_null = search.result()
    return ids, np.where(is_null, np.nan, scores) if is_null.any() else scores


def _guarantee(search: _core.BoundedSearch, cut: str, is_filter: bool, limits: Limits) -> tuple[bool, str]:
    """Whether the result is certain to be the exact answer, and what holds for it in words.

    A search that ends by itself has dropped whatever cannot be in the answer: what is open then was left by theta or
    epsilon, and could be.
    """
    n_open = search.open_count
    if not n_open:
        return True, "exact"
    if is_filter:
        return False, f"{cut}: every row is right, {n_open:,} candidates are undecided"
    bound, kth = search.peek_bound, search.kth
    if bound is None or kth is None:
        return False, f"{cut}: fewer scores than asked for are known, and {n_open:,} candidates are undecided"
    if cut:
        return False, f"{cut}: no score left out is better than {bound:.6g}, the last one returned is {kth:.6g}"
    if limits.epsilon > 0.0:
        return False, f"no score left out is better than a returned one by more than {abs(bound - kth):.4g}"
    least, greatest = sorted((abs(bound), abs(kth)))
    factor = 1.0 if least == greatest or not least else min(greatest / least, limits.theta)
    return False, f"every returned score is within a factor of {factor:.4g} of any score left out"
