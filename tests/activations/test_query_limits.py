"""Queries that may stop early, and what they still guarantee; progress; plans that evaluate nothing.

Implements `theta`, `epsilon` and "a limit never raises" of design section 3, and `Limits`, `on_progress` and `explain`
of section 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from activation_cases import KINDS, Case, Shape, built, cases
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
import oracle
from neuralartifactdb import search

CODED = Shape(3, 0, 16, 4096)
UNKNOWN = Shape(0, 0, 0, 4096)


def case_of(kind: str, n: int = 300, seed: int = 1, shape: Shape = CODED) -> Case:
    return Case(kind, "float32", (4,), n, seed, (n // 3,), (shape,), 256, 0)


class Clock:
    """A clock that only evaluations move: each call takes as long as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, function: Any, seconds: float) -> None:
        self.now, self.seconds = 1_000.0, seconds
        self.calls = 0
        self._answer = function
        for module in ("queries", "search"):
            monkeypatch.setattr(f"neuralartifactdb.{module}.time.perf_counter", lambda: self.now)

    def __call__(self, ids: Any) -> Any:
        self.now += self.seconds
        self.calls += 1
        return self._answer(ids)


def scores_of(result: Any, scores: list[float | None]) -> tuple[list[float], list[float]]:
    """True scores of the returned rows (checked to be the reported ones) and of all others; without NULLs."""
    returned = set(result.ids.tolist())
    assert len(returned) == len(result.ids)
    for i, score in zip(result.ids.tolist(), result.scores.tolist(), strict=True):
        assert np.isnan(score) if scores[i] is None else score == scores[i]
    ordered = [scores[i] for i in result.ids.tolist()]
    inside = [s for s in ordered if s is not None]
    return inside, [s for i, s in enumerate(scores) if i not in returned and s is not None]


def check_exact_flag(result: Any, expected: list[tuple[int, float | None]]) -> None:
    """`exact` is a promise: the rows are those of brute force."""
    if result.exact:
        assert result.ids.tolist() == [i for i, _ in expected]
        assert "exact" in result.guarantee
    else:
        assert result.guarantee != "exact"


@settings(max_examples=80)
@given(case=cases(max_inputs=60), data=st.data())
def test_theta_bounds_how_far_a_distance_may_be_from_the_best(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        theta, k = data.draw(st.sampled_from([1.0, 1.05, 1.5, 4.0])), data.draw(st.sampled_from([1, 3, 10]))
        target, metric = (
            data.draw(st.integers(0, case.n - 1)),
            data.draw(st.sampled_from(["l1", "l2", "linf", "cosine"])),
        )
        distances = [oracle.distance(r, b.rows[target], metric) for r in b.rows]
        result = b.layer.nearest(target, None, k, metric=metric, limits=nadb.Limits(theta=theta))
        inside, outside = scores_of(result, distances)
        assert len(result) == min(k, case.n)
        if outside and inside and len(inside) == len(result) and min(outside) >= 0:
            assert max(inside) <= theta * min(outside)
        check_exact_flag(result, oracle.rank(distances, range(case.n), k, largest=False))
        if theta == 1.0:
            assert result.exact


@settings(max_examples=80)
@given(case=cases(max_inputs=60), data=st.data())
def test_theta_of_highest_holds_where_no_score_is_negative_and_is_exact_elsewhere(
    case: Case, data: st.DataObject
) -> None:
    with built(case) as b:
        theta, k = data.draw(st.sampled_from([1.05, 1.5, 4.0])), data.draw(st.sampled_from([1, 3, 10]))
        score, largest = data.draw(st.sampled_from(["sum", "max", "l2"])), data.draw(st.booleans())
        scores = [oracle.group_score(r, score) for r in b.rows]
        result = b.layer.highest(None, k, score=score, largest=largest, limits=nadb.Limits(theta=theta))
        inside, outside = scores_of(result, scores)
        expected = oracle.rank(scores, range(case.n), k, largest=largest)
        check_exact_flag(result, expected)
        if largest and min(inside + outside) < 0:
            assert result.ids.tolist() == [i for i, _ in expected]
        elif outside and largest:
            assert min(inside) * theta >= max(outside)
        elif outside and min(outside) >= 0:
            assert max(inside) <= theta * min(outside)


@settings(max_examples=80)
@given(case=cases(max_inputs=60), data=st.data())
def test_epsilon_bounds_how_much_better_a_missing_score_may_be(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        epsilon, k = data.draw(st.sampled_from([1e-3, 0.1, 2.0])), data.draw(st.sampled_from([1, 3, 10]))
        largest = data.draw(st.booleans())
        scores = [oracle.group_score(r, "sum") for r in b.rows]
        result = b.layer.highest(None, k, largest=largest, limits=nadb.Limits(epsilon=epsilon))
        inside, outside = scores_of(result, scores)
        check_exact_flag(result, oracle.rank(scores, range(case.n), k, largest=largest))
        if outside and largest:
            assert min(inside) + epsilon >= max(outside)
        elif outside:
            assert max(inside) <= min(outside) + epsilon


def test_relaxed_limits_save_evaluations() -> None:
    with built(case_of("gaussian", n=1_000)) as b:
        cost = {}
        for theta in (1.0, 1.2, 2.0):
            b.function.forget()
            result = b.layer.nearest(5, None, 20, limits=nadb.Limits(theta=theta))
            cost[theta] = len(b.function.asked)
            assert result.exact or "factor" in result.guarantee
        assert cost[1.0] > cost[1.2] > cost[2.0]


@settings(max_examples=40)
@given(kind=st.sampled_from(KINDS), allowed=st.integers(0, 150), data=st.data())
def test_max_evaluations_is_kept_and_said(kind: str, allowed: int, data: st.DataObject) -> None:
    case = case_of(kind, n=120, shape=data.draw(st.sampled_from([CODED, UNKNOWN])))
    with built(case) as b:
        scores = [oracle.group_score(r, "sum") for r in b.rows]
        result = b.layer.highest(None, 10, limits=nadb.Limits(max_evaluations=allowed))
        assert len(b.function.asked) <= allowed
        expected = oracle.rank(scores, range(case.n), 10, largest=True)
        check_exact_flag(result, expected)
        for i, score in zip(result.ids.tolist(), result.scores.tolist(), strict=True):
            assert score == scores[i]
        if not result.exact:
            assert f"max_evaluations={allowed}" in result.guarantee
            assert not result.verify() or result.ids.tolist() == [i for i, _ in expected]
        else:
            assert result.verify()
        b.function.forget()
        free = b.layer.highest(None, 10)
        if len(b.function.asked) <= allowed:
            assert result == free


def test_a_filter_that_is_cut_returns_only_what_is_certain() -> None:
    with built(case_of("gaussian", shape=UNKNOWN)) as b:
        result = b.layer.filter(b.layer[0] > 0, limits=nadb.Limits(max_evaluations=50))
        truth = [i for i, r in enumerate(b.rows) if r[0] > 0]
        assert set(result.ids.tolist()) <= set(truth)
        assert 0 < len(result) < len(truth)
        assert not result.exact
        assert "max_evaluations=50" in result.guarantee
        assert "undecided" in result.guarantee


def test_no_time_at_all_evaluates_nothing_and_a_settled_query_is_still_exact() -> None:
    with built(case_of("gaussian")) as b:
        result = b.layer.highest([0, 1], 5, limits=nadb.Limits(timeout_s=0))
        assert b.function.asked == []
        assert not result.exact
        assert "timeout_s=0" in result.guarantee
    with built(case_of("one_hot")) as b:
        assert b.layer.highest(0, 5, limits=nadb.Limits(timeout_s=0, max_evaluations=0)).exact


def test_a_timeout_stops_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    with built(case_of("gaussian", n=9_000, shape=UNKNOWN)) as b:  # more than one wave
        b.db._session.sources[b.layer._index.identity]._function = Clock(monkeypatch, b.function.__call__, 1.0)
        result = b.layer.highest([0], 9_000, limits=nadb.Limits(timeout_s=0.5))
        assert not result.exact
        assert 0 < len(b.function.asked) < 9_000


def test_progress_is_told_and_ends_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_PROGRESS_EVERY_S", 0.0)
    told: list[nadb.Progress] = []
    with built(case_of("gaussian", n=9_000, shape=UNKNOWN)) as b:
        result = b.layer.highest([0], 5, on_progress=told.append)
    assert len(told) >= 3
    assert [p.evaluated for p in told] == sorted(p.evaluated for p in told)
    assert told[0].undecided > 0
    assert told[-1].undecided == 0
    assert told[-1].evaluated == 9_000
    assert told[-1].ids.tolist() == result.ids.tolist()
    assert told[-1].scores.tolist() == result.scores.tolist()
    assert told[-1].guarantee == result.guarantee == "exact"
    assert all((p.guarantee == "exact") == (p.undecided == 0) for p in told)


def test_an_error_in_on_progress_is_the_callers() -> None:
    def stop(_: nadb.Progress) -> None:
        raise ZeroDivisionError

    with built(case_of("gaussian")) as b:
        with pytest.raises(ZeroDivisionError):
            b.layer.highest([0], 5, on_progress=stop)
        assert b.layer.highest([0], 5).verify()


def test_explain_evaluates_nothing_and_predicts_within_reason() -> None:
    with built(case_of("gaussian", n=2_000)) as b:
        vector = np.array(b.rows[17])
        queries = [
            lambda **o: b.layer.highest([0, 1, 2], 20, **o),
            lambda **o: b.layer.nearest(vector, None, 20, **o),
            lambda **o: b.layer.filter(b.layer[0] > 0.3, **o),
            lambda **o: b.layer.filter((b.layer[0] > 0.3) & (b.layer[1] < 0), limit=5, **o),
            lambda **o: b.layer.top_k(b.layer[0] / b.layer[1], 10, **o),
            lambda **o: b.db.top_k(b.layer[0] - b.layer[1], 10, **o),
        ]
        for query in queries:
            b.function.forget()
            plan = query(explain=True)
            assert isinstance(plan, nadb.Plan)
            assert b.function.calls == 0
            result = query()
            assert plan.query == result.query
            assert plan.candidates == result.stats.candidates == 2_000
            assert plan.settled <= result.stats.settled
            assert plan.expected_evaluations <= 2_000
            assert (
                result.stats.inputs_inferred / 4 - 10
                <= plan.expected_evaluations
                <= 4 * result.stats.inputs_inferred + 10
            )
            assert plan.query in repr(plan)


def test_a_costly_plan_says_what_would_help() -> None:
    with built(case_of("gaussian", n=4_000, shape=Shape(1, 0, 64, 4096))) as b:
        advice = " ".join(b.layer.highest([0], 20, explain=True).advice)
        assert "storage=" in advice
        assert "theta" in advice


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"theta": 0.9}, ValueError, ["theta", "at least 1", "0.9"]),
        ({"theta": float("nan")}, ValueError, ["theta", "nan"]),
        ({"theta": "2"}, TypeError, ["theta", "'2'"]),
        ({"epsilon": -1}, ValueError, ["epsilon", "at least 0", "-1"]),
        ({"max_evaluations": -1}, ValueError, ["max_evaluations", "-1"]),
        ({"max_evaluations": 1.5}, TypeError, ["max_evaluations", "1.5"]),
        ({"timeout_s": -0.1}, ValueError, ["timeout_s", "-0.1"]),
    ],
)
def test_bad_limits(options: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        nadb.Limits(**options)
    assert isinstance(caught.value, nadb.Error)
    for word in words:
        assert word in str(caught.value)


def test_limits_must_be_limits() -> None:
    with built(case_of("gaussian")) as b, pytest.raises(TypeError, match=r"nadb\.Limits.*dict"):
        b.layer.highest(0, 3, limits={"theta": 2})


def test_a_time_limit_counts_the_run_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("gaussian", n=9_000, shape=UNKNOWN)
    with built(case) as b:
        clock = Clock(monkeypatch, b.function.__call__, 1.0)
        b.db._session.sources[b.layer._index.identity]._function = clock
        for limit, calls in ((0.5, 1), (1.0, 1), (1.5, 2), (2.0, 2), (2.5, 3), (100.0, 4)):
            clock.calls = 0
            result = b.layer.nearest(5, None, 9_000, limits=nadb.Limits(timeout_s=limit))
            assert clock.calls == calls  # the target, then waves of 4,096
            assert result.exact == (limit == 100.0)
            assert result.exact or f"timeout_s={limit:g}" in result.guarantee
            assert result.stats.seconds["total"] == calls
            b.db._session.evaluated.forget()


def test_a_time_limit_is_one_for_all_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that deviates widens the tolerance and starts the search again, and not the time."""
    case = case_of("gaussian", n=300, shape=CODED)
    for limit, exact in ((1.5, False), (100.0, True)):
        with built(case) as b, monkeypatch.context() as patch:
            clock = Clock(patch, lambda ids, b=b: b.function(ids) * np.float32(1 + 1e-5), 1.0)
            b.db._session.sources[b.layer._index.identity]._function = clock
            restarts = []
            patch.setattr("neuralartifactdb.activations.query._log.warning", lambda *_, r=restarts: r.append(1))
            result = b.layer.highest(None, 10, limits=nadb.Limits(timeout_s=limit))
            assert restarts
            assert result.tolerance > 0
            assert result.exact == exact
            assert exact or "timeout_s=1.5" in result.guarantee
            assert exact or clock.calls == 2  # begun at 0 and 1 s


def test_a_plan_of_kept_activations_needs_no_model() -> None:
    with built(case_of("gaussian", shape=Shape(None, 0, 16, 4096))) as b:
        plan = b.layer.highest([0, 1], 5, explain=True)
        assert plan.exact_storage
        assert plan.expected_evaluations == 0
        assert "every activation is kept, and no model is needed" in plan.text
    with built(case_of("gaussian")) as b:
        plan = b.layer.highest([0, 1], 5, explain=True)
        assert not plan.exact_storage
        assert "model" not in plan.text


def test_a_plan_without_anything_attached_says_what_is_missing(tmp_path: Any) -> None:
    rows = np.random.default_rng(3).normal(size=(2_000, 8)).astype(np.float32)
    with nadb.open(tmp_path / "a.nadb") as db:
        db.index_arrays("x", rows, storage=0.2)
    with nadb.open(tmp_path / "a.nadb", "r") as db:
        plan = db.activations["x"].highest([0, 1], 5, explain=True)
        assert plan.expected_evaluations > 0
        assert plan.expected_seconds is None
        assert any("db.attach_array('x', array)" in advice for advice in plan.advice)
