"""Indexes that are replaced, grow under a handle, or are asked with expressions of an index that is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neuralartifactdb as nadb


def array_of(n: int = 900, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)


def test_a_failed_replacement_leaves_the_old_index(tmp_path: Path) -> None:
    good, bad = array_of(), array_of(seed=1)
    bad[700, 2, 2] = np.nan
    with nadb.open(tmp_path / "a.nadb") as db:
        expected = db.index_arrays("layer", good, storage=0.3).highest([1, 2], k=7)
        with pytest.raises(ValueError, match="input 700"):
            db.index_arrays("layer", bad, storage=0.3, overwrite=True)
        assert db.activations["layer"].highest([1, 2], k=7) == expected
        with pytest.raises(ValueError, match="input 700"):
            db.index_arrays("fresh", bad, storage=0.3)
        assert list(db.activations) == ["layer"]


def test_readers_see_the_old_index_until_the_new_one_is_whole(tmp_path: Path) -> None:
    old, new = array_of(), array_of(seed=1)
    with nadb.open(tmp_path / "a.nadb") as db, nadb.open(tmp_path / "a.nadb") as reader:
        expected = db.index_arrays("layer", old, storage=0.3).values(range(3))
        reader.attach_array("layer", old)
        seen = []

        def look(done: int, total: int) -> None:
            seen.append(np.array_equal(reader.activations["layer"].values(range(3)), expected))

        db.index_arrays("layer", new, storage=0.3, overwrite=True, progress=look)
        assert seen
        assert all(seen)
        np.testing.assert_array_equal(db.activations["layer"].values([5])[0], new[5].ravel())
        with pytest.raises(nadb.NotAttachedError, match="attach_array"):
            reader.activations["layer"].values([5])


def test_an_index_that_grew_asks_for_the_longer_dataset(tmp_path: Path) -> None:
    longer = array_of(1_800)
    with nadb.open(tmp_path / "a.nadb") as mine, nadb.open(tmp_path / "a.nadb") as other:
        layer = mine.index_arrays("layer", longer[:900], storage=0.2)
        other.index_arrays("layer", longer, storage=0.2)
        with pytest.raises(nadb.NotAttachedError, match=r"grew to 1,800 inputs.*has 900.*attach_array"):
            layer.nearest(np.zeros(30), None, k=1_000)
        mine.attach_array("layer", longer)
        assert layer.nearest(np.zeros(30), None, k=1_000).verify()


def test_an_expression_of_a_replaced_index_is_refused(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        layer = db.index_arrays("layer", array_of(shape=(5, 10)))
        held = layer[1, 2]
        db.index_arrays("layer", array_of(shape=(10, 5)), overwrite=True)
        with pytest.raises(ValueError, match="replaced since"):
            layer.top_k(held, k=3)
        assert layer.top_k(layer[1, 2], k=3).verify()


def test_one_changed_value_is_another_array(tmp_path: Path) -> None:
    array = array_of()
    with nadb.open(tmp_path / "a.nadb") as db:
        db.index_arrays("layer", array, storage=0.3)
        changed = array.copy()
        changed[433, 3, 3] += 1
        with pytest.raises(ValueError, match="overwrite=True"):
            db.index_arrays("layer", changed, storage=0.3)
        with pytest.raises(nadb.StaleIndexError, match="first 900 rows"):
            db.attach_array("layer", changed)


def test_where_hands_on_that_it_is_not_exact(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb", evaluated_bytes=0) as db:
        layer = db.index_arrays("layer", array_of(), storage=0.15)
        some = layer.nearest(np.zeros(30), None, k=50, limits=nadb.Limits(max_evaluations=1))
        assert not some.exact
        result = layer.highest([1], k=3, where=some)
        assert not result.exact
        assert "max_evaluations=1" in result.guarantee
