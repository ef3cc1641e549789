"""Scores beyond float64: what overflows both ways has no value, which is NULL, and neither an error nor a hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from activation_cases import Function, Shape, check_ranking, fast_directory, forced
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
import oracle


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


def huge() -> st.SearchStrategy[float]:
    return st.sampled_from([-1.7e308, 1.7e308, -1e308, 1e308, 1e200, -1e200, 1.0, -3.0, 0.0, 5e-324])


@settings(max_examples=80)
@given(data=st.data())
def test_a_difference_that_overflows_times_no_weight_is_null_wherever_it_stands(data: st.DataObject) -> None:
    """0 * inf: as a term of a maximum it must not depend on the order of the neurons, in the bounds neither."""
    n, m = data.draw(st.integers(2, 24)), data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(huge(), min_size=m, max_size=m), min_size=n, max_size=n))
    shape = Shape(data.draw(st.sampled_from([None, 0, 1, 2, 4])), data.draw(st.sampled_from([0, 2])), 8, 4096)
    array = np.array(rows)
    function = Function(array)
    with fast_directory() as folder, nadb.open(f"{folder}/run.nadb", evaluated_bytes=0) as db:
        with forced((), (shape,), 256):
            layer = db.index_function("layer", function, n, m, fingerprint="1", storage=0.5)
        for _ in range(3):
            flat = data.draw(st.permutations(range(m)))[: data.draw(st.integers(1, m))]
            group = len(flat)
            target = data.draw(st.lists(huge(), min_size=group, max_size=group))
            weights = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=group, max_size=group))
            metric, k = data.draw(st.sampled_from(["linf", "l1", "l2"])), data.draw(st.sampled_from([1, 3, n]))
            distances = [oracle.distance([row[j] for j in flat], target, metric, weights) for row in array.tolist()]
            found = layer.nearest(np.array(target), flat, k, metric=metric, weights=weights)
            check_ranking(found, oracle.rank(distances, range(n), k, largest=False))
            assert found.verify()
            far = layer.filter(layer.distance(np.array(target), flat, metric, weights=weights) > 1.0)
            assert far.ids.tolist() == [i for i, one in enumerate(distances) if one is not None and one > 1.0]


def test_zero_times_infinity_is_null_in_either_order(tmp_path: Path) -> None:
    array = np.array([[1e308, 1.0], [2.0, 1.0], [-1e308, 5.0]] * 20)
    with nadb.open(tmp_path / "a.nadb") as db:
        layer = db.index_arrays("layer", array, storage="all")
        for group, weights in (([0, 1], [0.0, 1.0]), ([1, 0], [1.0, 0.0])):
            target = np.array([-1e308, 0.0])[group]
            found = layer.nearest(target, group, 60, metric="linf", weights=weights)
            null = np.isnan(found.scores)
            assert found.ids[null].tolist() == list(range(0, 60, 3))


def test_a_target_that_is_not_finite_is_refused_with_its_place(tmp_path: Path) -> None:
    array = np.array([[1e308, 1.0], [1.7e308, 1.0], [0.0, 5.0]])
    with nadb.open(tmp_path / "a.nadb") as db:
        layer = db.index_arrays("layer", array, storage="all")
        with pytest.raises(ValueError, match=r"got inf of the mean of inputs \[0, 1\] at neuron 0 of layer"):
            layer.nearest([0, 1], None)
        assert layer.nearest([0, 1], [1], k=1).ids.tolist() == [0]
        for target, got in (([np.inf, 0.0], "inf"), ([0.0, np.nan], "nan")):
            with pytest.raises(ValueError, match=rf"finite, got {got} at position"):
                layer.nearest(np.array(target), None)
        for weights in ([np.nan, 1.0], [1.0, np.inf]):
            with pytest.raises(ValueError, match="weights must be finite"):
                layer.nearest(0, None, weights=weights)
