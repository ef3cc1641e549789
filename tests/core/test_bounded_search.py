"""The bounded search against a brute-force ranking in plain Python (design.md, section 3).

The oracle shares nothing with the search: it sorts true scores. The search sees intervals only, and asks for
refinements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb import _core

INF = math.inf
SCORES = st.sampled_from([-INF, -3.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 7.5, INF])
STEPS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 4.0, INF])


@dataclass(frozen=True)
class Truth:
    """Its true score (None: NULL), and ever tighter intervals (lower, upper, may_be_null), the last exact."""

    id: int
    score: float | None
    intervals: tuple[tuple[float, float, bool], ...]


@st.composite
def candidates(draw: st.DrawFn, max_size: int = 40) -> list[Truth]:
    ids = draw(st.lists(st.integers(-50, 10_000), unique=True, max_size=max_size))
    made = []
    for candidate_id in ids:
        score = draw(st.one_of(st.none(), SCORES)) if draw(st.booleans()) else draw(SCORES)
        center = 0.0 if score is None else score
        intervals = []
        lower, upper, maybe = center, center, score is None
        exact = (math.nan, math.nan, False) if score is None else (score, score, False)
        for _ in range(draw(st.integers(0, 2))):
            if math.isfinite(center):
                lower, upper = lower - draw(STEPS), upper + draw(STEPS)
            else:
                lower, upper = min(lower, draw(SCORES)), max(upper, draw(SCORES))
            maybe = maybe or draw(st.booleans())
            if not (math.isinf(lower) and lower == upper):
                intervals.append((lower, upper, maybe))
        made.append(Truth(candidate_id, score, (*reversed(intervals), exact)))
    return made


def rank_key(truth: Truth, largest: bool) -> tuple[bool, float, int]:
    if truth.score is None:
        return (True, 0.0, truth.id)
    return (False, -truth.score if largest else truth.score, truth.id)


def brute_force(truths: list[Truth], k: int | None, largest: bool, floor: float | None) -> list[Truth]:
    kept = truths
    if floor is not None:
        kept = [t for t in truths if t.score is not None and (t.score >= floor if largest else t.score <= floor)]
    if k is None and floor is not None:
        return sorted(kept, key=lambda t: t.id)
    return sorted(kept, key=lambda t: rank_key(t, largest))[:k]


def is_exact(interval: tuple[float, float, bool]) -> bool:
    lower, upper, maybe = interval
    return (math.isnan(lower) and math.isnan(upper)) or (lower == upper and not maybe)


def block(truths: list[Truth], steps: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows = [t.intervals[s] for t, s in zip(truths, steps, strict=True)]
    return (
        np.array([t.id for t in truths], np.int64),
        np.array([r[0] for r in rows], np.float64),
        np.array([r[1] for r in rows], np.float64),
        np.array([r[2] for r in rows], bool),
    )


@dataclass
class Run:
    ids: list[int]
    scores: list[float]
    is_null: list[bool]
    refined: set[int]
    n_waves: int
    search: _core.BoundedSearch


def run_search(
    truths: list[Truth],
    *,
    k: int | None,
    largest: bool,
    floor: float | None = None,
    unit: int = 1,
    max_wave: int = 64,
    blocks: int = 1,
    search: _core.BoundedSearch | None = None,
) -> Run:
    may_stop_early = search is not None
    search = search or _core.BoundedSearch(k, largest=largest, floor=floor)
    for part in range(blocks):
        some = truths[part::blocks]
        search.offer(*block(some, [0] * len(some)))
        threshold = search.threshold
        if threshold is not None and floor is None and k is not None:
            true_kth = brute_force(truths, k, largest, None)
            if len(true_kth) == k and true_kth[-1].score is not None:
                assert threshold <= true_kth[-1].score if largest else threshold >= true_kth[-1].score
    by_id = {t.id: t for t in truths}
    step = {t.id: 0 for t in truths}
    refined: set[int] = set()
    n_waves = 0
    while len(wave := search.next_wave(unit, max_wave)) > 0:
        n_waves += 1
        assert len(wave) <= max_wave
        assert len(set(wave.tolist())) == len(wave)
        for candidate_id in wave.tolist():
            step[candidate_id] += 1
        refined.update(wave.tolist())
        some = [by_id[i] for i in wave.tolist()]
        search.refine(*block(some, [step[t.id] for t in some]))
        assert n_waves < 1000
    ids, scores, is_null = search.result()
    assert search.candidate_count == len(truths)
    assert search.refined_count == len(refined)
    assert search.open_count == 0 or may_stop_early
    if search.open_count == 0:
        assert search.settled_count == len(truths) - len(refined)
    return Run(ids.tolist(), scores.tolist(), is_null.tolist(), refined, n_waves, search)


def check_result(run: Run, expected: list[Truth]) -> None:
    assert run.ids == [t.id for t in expected]
    assert run.is_null == [t.score is None for t in expected]
    for got, truth in zip(run.scores, expected, strict=True):
        assert math.isnan(got) if truth.score is None else got == truth.score


@given(
    truths=candidates(),
    k=st.one_of(st.none(), st.integers(1, 50)),
    largest=st.booleans(),
    floor=st.one_of(st.none(), SCORES),
    unit=st.integers(1, 7),
    waves=st.integers(1, 4),
    blocks=st.integers(1, 4),
)
@settings(max_examples=400, deadline=None)
def test_equals_brute_force(
    truths: list[Truth], k: int | None, largest: bool, floor: float | None, unit: int, waves: int, blocks: int
) -> None:
    run = run_search(truths, k=k, largest=largest, floor=floor, unit=unit, max_wave=unit * waves, blocks=blocks)
    check_result(run, brute_force(truths, k, largest, floor))


@given(
    truths=candidates(),
    k=st.integers(1, 12),
    largest=st.booleans(),
    unit=st.integers(1, 7),
    waves=st.integers(1, 4),
)
@settings(max_examples=400, deadline=None)
def test_refines_no_more_than_must(truths: list[Truth], k: int, largest: bool, unit: int, waves: int) -> None:
    if any(len(t.intervals) > 2 for t in truths):
        unit = 1  # every further step of a candidate rounds up its wave again
    run = run_search(truths, k=k, largest=largest, unit=unit, max_wave=unit * waves)
    expected = brute_force(truths, k, largest, None)
    unsettled = [t for t in truths if not is_exact(t.intervals[0])]

    def optimistic(t: Truth) -> float:
        return -t.intervals[0][1] if largest else t.intervals[0][0]

    if len(expected) < k or expected[-1].score is None:
        allowed = len(unsettled)
    else:
        kth = -expected[-1].score if largest else expected[-1].score
        must = [t for t in unsettled if optimistic(t) < kth]
        ties = [t for t in unsettled if optimistic(t) == kth]
        allowed = len(must) + unit - 1 + len(ties)
        assert {t.id for t in must} <= run.refined  # as bounds are certain, none of these could be left out
    assert len(run.refined) <= allowed


@given(truths=candidates(), limit=st.integers(1, 12), unit=st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_filter_with_limit_stops_at_its_last_row(truths: list[Truth], limit: int, unit: int) -> None:
    truths = [
        Truth(t.id, s, ((0.0, 1.0, t.score is None),) * (len(t.intervals) > 1) + ((s, s, False),))
        for t in truths
        for s in [1.0 if t.score is not None and t.score > 0 else 0.0]
    ]
    run = run_search(truths, k=limit, largest=True, floor=1.0, unit=unit, max_wave=unit)
    expected = brute_force(truths, limit, True, 1.0)
    check_result(run, expected)
    last = expected[-1].id if len(expected) == limit else INF
    before = [t for t in truths if not is_exact(t.intervals[0]) and t.id < last]
    assert len(run.refined) <= len(before) + unit


def rehearsed(search: Any, unit: int, max_wave: int) -> tuple[int, int]:
    """Evaluations and waves of a rehearsal to the end."""
    copy = search.copy()
    waves = list(iter(lambda: len(copy.rehearse(unit, max_wave)), 0))
    return sum(waves), len(waves)


@given(truths=candidates(), k=st.integers(1, 12), largest=st.booleans(), unit=st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_a_rehearsal_on_a_copy_changes_nothing(truths: list[Truth], k: int, largest: bool, unit: int) -> None:
    search = _core.BoundedSearch(k, largest=largest)
    search.offer(*block(truths, [0] * len(truths)))
    n_evaluations, n_waves = rehearsed(search, unit, 4 * unit)
    n_open = len([t for t in truths if not is_exact(t.intervals[0])])
    assert 0 <= n_waves <= n_evaluations <= n_open
    again = _core.BoundedSearch(k, largest=largest)
    run = run_search(truths, k=k, largest=largest, unit=unit, max_wave=4 * unit, search=again)
    rehearsed(search, unit, unit)
    while len(wave := search.next_wave(unit, 4 * unit)) > 0:
        some = [t for i in wave.tolist() for t in truths if t.id == i]
        search.refine(*block(some, [len(t.intervals) - 1 for t in some]))
    assert search.result()[0].tolist() == run.ids


def test_rehearsal_of_midpoints() -> None:
    # Midpoints are 50, 45, 40, ...: after three evaluations the third best, 40, beats the fourth's bound, 35.
    search = _core.BoundedSearch(3)
    upper = np.array([100.0, 90.0, 80.0, 35.0, 30.0])
    search.offer(np.arange(5), np.zeros(5), upper)
    assert rehearsed(search, 1, 1) == (3, 3)
    assert rehearsed(search, 2, 4) == (4, 1)
    assert search.refined_count == 0


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20), st.floats(0, 20)), min_size=1, max_size=60),
    st.integers(1, 10),
    st.sampled_from([1.0, 1.1, 2.0]),
    st.sampled_from([0.0, 5.0]),
    st.integers(1, 4),
)
@settings(max_examples=200, deadline=None)
def test_relaxed_distance_guarantee(
    rows: list[tuple[float, float, float]], k: int, theta: float, epsilon: float, unit: int
) -> None:
    truths = [
        Truth(i, score, ((max(0.0, score - down), score + up, False), (score, score, False)))
        for i, (score, down, up) in enumerate(rows)
    ]
    search = _core.BoundedSearch(k, largest=False, theta=theta, epsilon=epsilon, theta_on="distance")
    exact = run_search(truths, k=k, largest=False, unit=unit, max_wave=unit)
    run = run_search(truths, k=k, largest=False, unit=unit, max_wave=unit, search=search)
    assert len(run.ids) == min(k, len(truths))
    assert len(run.refined) <= len(exact.refined)
    others = [t.score for t in truths if t.id not in run.ids and t.score is not None]
    for returned in run.scores:
        for other in others:
            assert returned <= theta * other or returned <= other + epsilon
    if theta == 1.0 and epsilon == 0.0:
        assert run.ids == exact.ids
        assert run.search.open_count == 0


def test_theta_on_scores_needs_nonnegative_bounds() -> None:
    for least, refinements in ((0.0, 1), (-1.0, 2)):
        search = _core.BoundedSearch(1, largest=True, theta=2.0, theta_on="score")
        search.offer(np.array([0, 1]), np.array([5.0, least]), np.array([12.0, 11.0]))
        n = 0
        while len(wave := search.next_wave(1, 1)) > 0:
            n += 1
            exact = np.where(wave == 0, 6.0, 4.0)
            search.refine(wave, exact, exact)
        assert n == refinements
        assert search.open_count == (1 if least >= 0 else 0)
        assert search.result()[0].tolist() == [0]


def test_ties_go_to_the_smaller_id_and_zeros_are_equal() -> None:
    search = _core.BoundedSearch(2)
    scores = np.array([0.0, -0.0, 0.0])
    search.offer(np.array([9, 4, 6]), scores, scores)
    ids, got, _ = search.result()
    assert ids.tolist() == [4, 6]
    assert np.signbit(got).tolist() == [False, False]


def test_null_ranks_after_every_score_and_fails_a_floor() -> None:
    scores = np.array([np.nan, -INF, 3.0])
    search = _core.BoundedSearch(5)
    search.offer(np.arange(3), scores, scores)
    ids, got, is_null = search.result()
    assert ids.tolist() == [2, 1, 0]
    assert is_null.tolist() == [False, False, True]
    assert math.isnan(got[2])
    search = _core.BoundedSearch(None, largest=True, floor=-INF)
    search.offer(np.arange(3), scores, scores)
    assert search.result()[0].tolist() == [1, 2]


def test_waves_hold_what_is_certain_rounded_up_to_the_unit() -> None:
    n = 40
    search = _core.BoundedSearch(10)
    search.offer(np.arange(n), np.zeros(n), np.arange(n, 0, -1.0))
    assert search.next_wave(8, 64).tolist() == list(range(16))
    assert search.next_wave(8, 8).tolist() == list(range(8))  # what was not refined is handed out again
    assert search.next_wave(1, 64).tolist() == list(range(10))
    with pytest.raises(ValueError, match="multiple"):
        search.next_wave(8, 12)


def test_threshold_kth_and_counts() -> None:
    search = _core.BoundedSearch(2, largest=False)
    assert search.threshold is None
    assert search.kth is None
    assert search.peek_bound is None
    search.offer(np.arange(4), np.array([1.0, 2.0, 3.0, 9.0]), np.array([4.0, 2.0, 5.0, 9.5]))
    assert search.threshold == 4.0
    assert search.kth is None
    assert search.peek_bound == 1.0
    assert (search.candidate_count, search.open_count) == (4, 2)
    assert search.next_wave(1, 4).tolist() == [0]
    search.refine(np.array([0]), np.array([2.5]), np.array([2.5]))
    assert search.kth == 2.5
    assert len(search.next_wave(1, 4)) == 0
    assert (search.open_count, search.refined_count, search.settled_count) == (0, 1, 3)


def test_an_open_id_that_was_not_handed_out_can_be_refined() -> None:
    search = _core.BoundedSearch(1, largest=False)
    search.offer(np.arange(3), np.zeros(3), np.full(3, 10.0))
    search.refine(np.array([2]), np.array([0.0]), np.array([0.0]))
    assert search.next_wave(1, 1).tolist() == [0]
    with pytest.raises(ValueError, match="id 2 at position 1"):
        search.refine(np.array([0, 2]), np.zeros(2), np.zeros(2))


def test_many_candidates_in_blocks_keep_few() -> None:
    rng = np.random.default_rng(5)
    n = 60_000
    truth = rng.standard_normal(n)
    for order in (np.arange(n), np.argsort(truth), np.argsort(-truth)):
        search = _core.BoundedSearch(20)
        for part in np.array_split(order, 13):
            search.offer(part.astype(np.int64), truth[part] - 0.05, truth[part] + 0.05)
        assert search.open_count < 20_000
        while len(wave := search.next_wave(32, 256)) > 0:
            search.refine(wave, truth[wave], truth[wave])
        ids, scores, _ = search.result()
        expected = np.argsort(-truth, kind="stable")[:20]
        assert ids.tolist() == expected.tolist()
        assert (scores == truth[expected]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"k": 0}, ValueError, "`k` must be at least 1.*got 0"),
        ({"k": -3}, ValueError, "got -3"),
        ({"k": 1, "theta": 0.5}, ValueError, "`theta`.*got 0.5"),
        ({"k": 1, "theta": math.nan}, ValueError, "`theta`"),
        ({"k": 1, "epsilon": -1.0}, ValueError, "`epsilon`.*got -1"),
        ({"k": 1, "theta": 2.0}, ValueError, "theta_on"),
        ({"k": 1, "theta_on": "l2"}, ValueError, "'none', 'distance' or 'score', got 'l2'"),
        ({"k": 1, "theta_on": "distance"}, ValueError, "largest=False"),
        ({"k": 1, "largest": False, "theta_on": "score"}, ValueError, "largest=True"),
        ({"k": 1, "floor": math.nan}, ValueError, "`floor`"),
    ],
)
def test_bad_options(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    k = arguments.pop("k")
    with pytest.raises(error, match=match):
        _core.BoundedSearch(k, **arguments)


def test_bad_blocks_change_nothing() -> None:
    search = _core.BoundedSearch(2)
    ids = np.arange(3)
    low, high = np.zeros(3), np.ones(3)
    bad: list[tuple[Any, type[Exception], str]] = [
        ((ids, high, low), ValueError, r"got \[1, 0\] at position 0, id 0"),
        ((ids, np.array([0.0, np.nan, 0.0]), high), ValueError, "position 1"),
        ((ids, low, np.array([1.0, np.nan, 1.0])), ValueError, "position 1"),
        ((ids[:2], low, high), ValueError, "as many elements as `ids`, 2, got 3"),
        ((ids.astype(np.int32), low, high), TypeError, "dtype int64, got int32"),
        ((ids, low.astype(np.float32), high), TypeError, "dtype float64, got float32"),
        ((ids, low, high, np.zeros(3, np.uint8)), TypeError, "dtype bool"),
        ((ids, low, high, np.zeros(2, bool)), ValueError, "`may_be_null`"),
        ((ids.reshape(3, 1), low, high), ValueError, "1 axes, got 2"),
        ((np.arange(6)[::2], low, high), ValueError, "C-contiguous"),
        (([0, 1, 2], low, high), TypeError, "must be a NumPy array, got list"),
    ]
    for arguments, error, match in bad:
        with pytest.raises(error, match=match):
            search.offer(*arguments)
    assert search.candidate_count == 0
    search.offer(ids, low, high)
    with pytest.raises(ValueError, match="id 17"):
        search.refine(np.array([17]), np.zeros(1), np.zeros(1))
    with pytest.raises(ValueError, match="bounds were not certain"):
        search.refine(np.array([1]), np.full(1, 1.5), np.full(1, 1.5))
    assert search.refined_count == 0
    with pytest.raises(ValueError, match="`unit`"):
        search.next_wave(0, 4)
    search.offer(ids, low, high)
    with pytest.raises(ValueError, match="offered twice"):
        search.next_wave(1, 1)


def test_empty_search() -> None:
    search = _core.BoundedSearch(3)
    empty = np.empty(0)
    search.offer(np.empty(0, np.int64), empty, empty)
    assert len(search.next_wave(4, 8)) == 0
    assert rehearsed(search, 4, 8) == (0, 0)
    assert [len(part) for part in search.result()] == [0, 0, 0]


def test_k_must_be_a_whole_number() -> None:
    with pytest.raises(TypeError):
        _core.BoundedSearch("many")  # type: ignore[arg-type]
