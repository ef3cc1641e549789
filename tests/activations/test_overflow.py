"""Scores beyond float64: what overflows both ways has no value, which is NULL, and neither an error nor a hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neuralartifactdb as nadb


@pytest.mark.parametrize("storage", [0.3, 0.6, "all"])
@pytest.mark.parametrize("n", [600, 6_000])
def test_scores_that_overflow_are_null(tmp_path: Path, storage: float | str, n: int) -> None:
    rng = np.random.default_rng(2)
    array = rng.choice([-1e308, 1e308, 1.0, 0.0], size=(n, 2)) * rng.random((n, 2))
    with nadb.open(tmp_path / "a.nadb", evaluated_bytes=0) as db, np.errstate(all="ignore"):
        layer = db.index_arrays("layer", array, storage=storage)
        sums = array[:, 0] * 1e10 + array[:, 1] * 1e10
        assert np.isnan(sums).any()
        overflowing = layer.score([0, 1], weights=[1e10, 1e10])
        assert layer.filter(overflowing > 0).ids.tolist() == np.flatnonzero(sums > 0).tolist()
        assert layer.highest([0, 1], k=n, weights=[1e10, 1e10]).verify()
        for target in np.array([[1e200, 1e200], [1.0, 2.0]]):
            dot = target[0] * array[:, 0] + target[1] * array[:, 1]
            norms = np.sqrt(array[:, 0] ** 2 + array[:, 1] ** 2) * np.sqrt(np.square(target).sum())
            cosine = np.where(norms == 0, np.nan, 1 - dot / norms)
            found = layer.filter(layer.distance(target, None, "cosine") < 0.5)
            assert found.ids.tolist() == np.flatnonzero(cosine < 0.5).tolist()
            assert layer.nearest(target, None, k=9, metric="cosine").verify()
