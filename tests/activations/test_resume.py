"""Builds that stop: Ctrl-C, a killed process, a full disk, at any point; resume, append, overwrite.

Implements "Same name again" and "each durable when full" of design section 4, and the last lines of issue "Bad input".
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activation_cases import Function, activations, check_ranking, fast_directory, without_fsync
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.activations import budget
from neuralartifactdb.storage import io

N, M = 3_000, 5
ARRAY = activations("relu", "float32", N, M, 7)
SEGMENT = 1_024


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SEGMENT_INPUTS", SEGMENT)


def index(db: nadb.Database, evaluate: Callable[..., Any], n: int = N, **options: Any) -> Any:
    return db.index_function("feats", evaluate, n, M, fingerprint="v1", storage=options.pop("storage", 0.4), **options)


def check_answers(db: nadb.Database, array: NDArray[Any]) -> None:
    rows = oracle.plain_rows(array)
    layer = db.activations["feats"]
    for flat in ([0], [4, 1, 2]):
        scores = [oracle.group_score([r[j] for j in flat], "sum") for r in rows]
        check_ranking(layer.highest(flat, 9), oracle.rank(scores, range(len(rows)), 9, largest=True))


def segment_ids(db: nadb.Database) -> list[str]:
    if "feats" not in db.activations:
        return []
    return [segment.reader.ref.id for segment in db._session.at().index("feats").segments]


def leftovers(path: Path) -> list[str]:
    return [p.name for p in path.rglob("*") if "tmp" in p.name]


class Stopping(Function):
    """Raises instead of its `at`-th call."""

    def __init__(self, array: NDArray[Any], at: int, error: BaseException) -> None:
        super().__init__(array)
        self._at, self._error = at, error

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        if self.calls + 1 == self._at:
            self.calls += 1
            raise self._error
        return super().__call__(ids)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), RuntimeError("no more memory")])
@pytest.mark.parametrize("at", range(1, 11))
def test_a_build_stopped_anywhere_goes_on(tmp_path: Path, at: int, error: BaseException) -> None:
    path = tmp_path / "run.nadb"
    stopping = Stopping(ARRAY, at, error)
    with without_fsync(), nadb.open(path) as db:
        with contextlib.suppress(type(error)):
            index(db, stopping)
        stopped = stopping.calls == at
        before = segment_ids(db)
        assert not leftovers(path)
    with without_fsync(), nadb.open(path) as db:  # a later process
        assert segment_ids(db) == before
        if before and stopped and len(before) * 1_000 < N:
            layer = db.activations["feats"]
            assert layer.n_indexed == 1_000 * len(before)
            assert layer.n_inputs == N
            assert "unfinished" in repr(layer)
            db.attach_function("feats", Function(ARRAY))
            partial = db.activations["feats"].highest(0, 5)
            assert not partial.exact
            assert "not finished" in partial.guarantee
            scores = [float(v) for v in ARRAY[:, 0]]
            assert partial.ids.tolist() == [i for i, _ in oracle.rank(scores, range(layer.n_indexed), 5, largest=True)]
        again = Function(ARRAY)
        layer = index(db, again)
        assert segment_ids(db)[: len(before)] == before
        assert layer.n_indexed == N
        check_answers(db, ARRAY)


_SCRIPT = """
    import os, signal, sys
    import numpy as np
    import neuralartifactdb as nadb
    from neuralartifactdb.activations import budget

    budget.MAX_SEGMENT_INPUTS = 1_024
    array = np.load(sys.argv[2])
    calls = 0

    def evaluate(ids):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return array[ids]

    with nadb.open(sys.argv[1]) as db:
        db.index_function("feats", evaluate, len(array), array.shape[1], fingerprint="v1", storage=0.4)
"""


@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_killed_build_goes_on(tmp_path: Path, at: int) -> None:
    path = tmp_path / "run.nadb"
    np.save(tmp_path / "array.npy", ARRAY)
    command = [sys.executable, "-c", textwrap.dedent(_SCRIPT), str(path), str(tmp_path / "array.npy"), str(at)]
    died = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with nadb.open(path) as db:
        before = segment_ids(db)
        assert len(before) == {1: 0, 5: 0, 8: 2}[at]  # three segments, one call each, come last
        index(db, Function(ARRAY))
        assert segment_ids(db)[: len(before)] == before
        assert not leftovers(path)
        check_answers(db, ARRAY)


@settings(max_examples=25)
@given(at=st.integers(1, 120), error=st.sampled_from(["interrupt", "full"]))
def test_a_fault_at_any_call_to_the_file_system_loses_nothing_committed(at: int, error: str) -> None:
    """Ctrl-C between any two calls to the file system, or a full disk from one on."""
    count = 0

    def hook(operation: str, path: str) -> None:
        nonlocal count
        count += 1
        if error == "full" and count >= at and operation not in ("remove", "remove_tree", "unlink", "rmdir", "close"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if error == "interrupt" and count == at:
            raise KeyboardInterrupt

    with fast_directory() as folder:
        path = Path(folder) / "run.nadb"
        db = nadb.open(path)
        try:
            with io.faults(hook):
                index(db, Function(ARRAY[:2_100]), 2_100)
        except (OSError, KeyboardInterrupt):
            pass
        db.close()
        with nadb.open(path) as db:
            before = segment_ids(db)
            index(db, Function(ARRAY[:2_100]), 2_100)
            assert segment_ids(db)[: len(before)] == before
            check_answers(db, ARRAY[:2_100])
        assert not leftovers(path)


def test_the_same_call_again_does_nothing(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        index(db, Function(ARRAY))
        files = sorted(p.name for p in db_path.rglob("*"))
        again = Function(ARRAY)
        index(db, again)
        assert sorted(p.name for p in db_path.rglob("*")) == files
        assert len(again.asked) < 200  # sampled inputs are compared, nothing is indexed


@pytest.mark.parametrize("storage", [0.4, "all"])
def test_new_inputs_are_appended(db_path: Path, storage: float | str) -> None:
    with without_fsync(), nadb.open(db_path) as db:
        index(db, Function(ARRAY[:1_500]), 1_500, storage=storage)
        before = segment_ids(db)
        function = Function(ARRAY)
        layer = index(db, function, storage=storage)
        assert segment_ids(db)[: len(before)] == before
        assert layer.n_indexed == layer.n_inputs == N
        assert set(range(1_500, N)) <= set(function.asked)
        assert len([i for i in function.asked if i < 1_500]) < 200
        check_answers(db, ARRAY)


def test_arrays_are_appended_and_compared(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.index_arrays("feats", ARRAY[:2_000], storage=0.4)
        layer = db.index_arrays("feats", ARRAY, storage=0.4)
        assert layer.n_indexed == N
        check_answers(db, ARRAY)


def test_what_is_appended_may_not_pass_a_budget_in_bytes(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        index(db, Function(ARRAY[:1_500]), 1_500, storage="20kB")
        with pytest.raises(nadb.StorageBudgetError) as caught:
            index(db, Function(ARRAY), storage="20kB")
        for word in ("feats", "19.5 KiB", "overwrite=True", "storage="):
            assert word in str(caught.value)
        assert db.activations["feats"].n_indexed == 1_500
        check_answers(db, ARRAY[:1_500])


CHANGES: dict[str, tuple[Callable[[nadb.Database], Any], str]] = {
    "another version": (
        lambda db: db.index_function("feats", Function(ARRAY), N, M, fingerprint="v2", storage=0.4),
        "'v2'",
    ),
    "other values": (lambda db: index(db, Function(ARRAY + 1)), "input 0"),
    "another shape": (
        lambda db: db.index_function("feats", Function(ARRAY[:, :4]), N, 4, fingerprint="v1", storage=0.4),
        "(4,)",
    ),
    "another dtype": (lambda db: index(db, Function(ARRAY.astype(np.float64))), "float64"),
    "fewer inputs": (lambda db: index(db, Function(ARRAY[:100]), 100), "3,000"),
    "an array": (lambda db: db.index_arrays("feats", ARRAY + 1, storage=0.4), "feats"),
    "another storage": (lambda db: index(db, Function(ARRAY), storage=0.7), "0.4"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_something_else_under_the_same_name_needs_overwrite(db_path: Path, change: str) -> None:
    call, word = CHANGES[change]
    with without_fsync(), nadb.open(db_path) as db:
        index(db, Function(ARRAY))
        before = segment_ids(db)
        with pytest.raises(ValueError, match="overwrite=True") as caught:
            call(db)
        assert isinstance(caught.value, nadb.Error)
        assert "'feats'" in str(caught.value)
        assert word in str(caught.value)
        assert segment_ids(db) == before
        check_answers(db, ARRAY)


def test_overwrite_replaces_an_index_and_what_was_remembered_of_it(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer = index(db, Function(ARRAY))
        layer.highest(0, 30)
        other = activations("gaussian", "float64", 900, 3, 1)
        layer = db.index_function("feats", Function(other), 900, 3, fingerprint="v2", storage=0.4, overwrite=True)
        assert (layer.n_inputs, layer.shape, layer.dtype) == (900, (3,), "float64")
        scores = [float(v) for v in other[:, 0]]
        check_ranking(layer.highest(0, 30), oracle.rank(scores, range(900), 30, largest=True))


def test_progress_is_told_how_far_a_build_is(db_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with nadb.open(db_path) as db:
        index(db, Function(ARRAY), progress=lambda done, total: told.append((done, total)))
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert told[-1] == (N, N)


def test_a_plan_of_a_build_evaluates_next_to_nothing_and_writes_nothing(db_path: Path) -> None:
    function = Function(ARRAY)
    with nadb.open(db_path) as db:
        plan = index(db, function, explain=True)
        assert len(function.asked) <= 1
        assert not db_path.exists()
        assert plan.n_new == plan.n_inputs == N
        assert 0 < plan.n_bytes <= 0.4 * 4 * N * M
        assert "3,000" in str(plan)
        index(db, function)
        assert db.activations["feats"].nbytes <= plan.n_bytes
        assert index(db, function, explain=True).n_new == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", [0.4, "all", 0.01])
@pytest.mark.parametrize("memory_limit", ["1GiB", "16KiB"])  # everything is in the sample, or next to nothing
def test_what_is_not_finite_is_refused_by_name(
    db_path: Path, bad: float, storage: float | str, memory_limit: str
) -> None:
    array = ARRAY.reshape(N, 1, M).copy()
    array[2_345, 0, 3] = bad
    with nadb.open(db_path) as db, pytest.raises(ValueError, match="finite") as caught:
        db.index_arrays("feats", array, storage=storage, memory_limit=memory_limit)
    assert isinstance(caught.value, nadb.Error)
    for word in (str(bad), "feats", "neuron 3 (0, 3)", "2345"):
        assert word in str(caught.value)


def test_a_build_that_failed_before_its_first_segment_does_not_stand_in_the_way(db_path: Path) -> None:
    broken = ARRAY.copy()
    broken[5] = np.nan
    with nadb.open(db_path) as db:
        with pytest.raises(ValueError, match="input 5"):
            db.index_arrays("feats", broken, storage=0.4)
        db.index_arrays("feats", ARRAY, storage=0.3)
        check_answers(db, ARRAY)
