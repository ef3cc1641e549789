"""Activations that do not reproduce to the bit: what `Result.tolerance` and `verify` say then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.activations.scores import GroupScore, exact_scores
from neuralartifactdb.activations.tolerance import leaf_tolerance, widened_leaf


def leaf(kind: str, weights: np.ndarray | None, target: np.ndarray | None) -> GroupScore:
    return GroupScore("l", "id", np.arange(4), kind, target=target, weights=weights, text="l", database_token=None)


@pytest.mark.parametrize("kind", ["sum", "mean", "min", "max", "l2", "l1-to", "l2-to", "linf-to", "cosine-to"])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_deviation_within_the_tolerances_passes_the_scores(kind: str, weighted: bool) -> None:
    rng = np.random.default_rng(4)
    name, _, to = kind.partition("-")
    if weighted and (name in ("mean", "min", "max", "cosine") or (name == "l2" and not to)):
        pytest.skip("takes no weights")
    weights = np.array([1e4, -1e4, 5e3, 2.0]) if weighted else None
    if weighted and to:
        weights = np.abs(weights)
    score = leaf(name, weights, rng.normal(size=4) if to else None)
    columns = rng.normal(size=(4, 200))
    tolerances = np.array([1e-3, 1e-4, 0.0, 1e-2])
    moved = columns + rng.uniform(-1, 1, size=(40, 4, 200)) * tolerances[:, None]
    exact = exact_scores(score, columns).lower
    interval = widened_leaf(score, columns, tolerances)
    bound = leaf_tolerance(score, tolerances)
    for one in moved:
        got = exact_scores(score, np.ascontiguousarray(one)).lower
        assert (interval.lower <= got).all()
        assert (got <= interval.upper).all()
        if bound is not None:
            assert np.abs(got - exact).max() <= bound * (1 + 1e-9)


def test_weighted_scores_say_how_far_they_may_be_off(tmp_path: Path) -> None:
    array = np.random.default_rng(5).normal(size=(800, 6)).astype(np.float32)
    offset = np.zeros(1, dtype=np.float32)
    with nadb.open(tmp_path / "a.nadb") as db:
        db.index_function("layer", lambda ids: array[ids], 800, 6, fingerprint="1", storage=0.2)
    with nadb.open(tmp_path / "a.nadb") as db:
        # what a later process computes is off by rounding, in every value but the hashed inputs'
        hashed = np.zeros((800, 1), dtype=bool)
        hashed[db._session.directory.state().indexes["layer"].meta["fingerprint"]["inputs"]["ids"]] = True

        def shifted(ids: np.ndarray) -> np.ndarray:
            return np.where(hashed[ids] & (offset == 0), array[ids], array[ids] * np.float32(1 + 1e-6))

        layer = db.attach_function("layer", shifted)
        assert db._session.tolerances  # the probes are not all among the hashed inputs
        result = layer.highest([0, 1, 2], k=10, weights=[1e4, -1e4, 5e3])
        exact = array[:, :3].astype(np.float64) @ np.array([1e4, -1e4, 5e3])
        assert result.tolerance > 0
        assert np.abs(result.scores - exact[result.ids]).max() <= result.tolerance
        assert result.verify()
        assert layer.filter(layer[2] > 0.3).verify()
        assert layer.filter((layer[2] > 0.3) & (layer[1] < 0.2)).verify()


def test_other_kernels_in_a_later_process_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3))
    images = torch.randn(400, 3, 12, 12)
    with nadb.open(tmp_path / "a.nadb") as db:
        (layer,) = db.index_activations(model, images, "2", storage=0.2)
        expected = layer.nearest(np.zeros(3), [5, 6, 7], k=20)
        assert expected.tolerance == 0.0
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # other kernels, other bits
    with nadb.open(tmp_path / "a.nadb") as db:
        (layer,) = db.attach(model, images)
        result = layer.nearest(np.zeros(3), [5, 6, 7], k=20)
        if not np.array_equal(result.scores, expected.scores):
            assert 0 < result.tolerance < 1e-3
            assert np.abs(result.scores - expected.scores).max() <= result.tolerance
        assert result.verify()


def test_bounds_after_a_query_met_values_that_deviate(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32)
    shift = [np.float32(0)]

    def evaluate(ids: Any) -> Any:
        rows = values[ids].copy()
        rows[:, 5] += shift[0]
        return rows

    with nadb.open(tmp_path / "db") as db:
        layer = db.index_function("layer", evaluate, 2_000, 8, fingerprint="v", storage=0.15)
        shift[0] = np.float32(1e-4)
        layer.nearest(3, [0, 1], k=20)  # evaluates neuron 5 as well, and compares the others only
        lower, upper = layer.bounds(layer[5])
        tolerance = layer.highest(5, k=5).tolerance
    assert tolerance > 0
    assert (lower - tolerance <= values[:, 5]).all()
    assert (values[:, 5] <= upper + tolerance).all()
