"""Arguments that ended in raw errors, or in none: each is taken as it is meant, or refused in the package's words."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb.activations.budget import BuildPlan

ARRAY = np.random.default_rng(0).normal(size=(3_000, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.nadb"


BAD: dict[str, tuple[Callable[[Path], Any], type[Exception], list[str]]] = {
    "no path": (lambda p: nadb.open(None), TypeError, ["path must be a str", "None"]),  # type: ignore[arg-type]
    "a number as path": (lambda p: nadb.open(3), TypeError, ["path must be a str", "3 (int)"]),  # type: ignore[arg-type]
    "bytes as path": (lambda p: nadb.open(b"x"), TypeError, ["path must be a str"]),  # type: ignore[arg-type]
    "an array of bytes": (
        lambda p: nadb.open(p, evaluated_bytes=np.array([1, 2])),  # type: ignore[arg-type]
        TypeError,
        ["evaluated_bytes must be a whole number", "array([1, 2])"],
    ),
    "negative memory": (lambda p: nadb.open(p, cache_bytes=-1), ValueError, ["cache_bytes", "0 bytes", "-1"]),
    "a timeout beyond float64": (
        lambda p: nadb.open(p, lock_timeout_s=10**5000),
        ValueError,
        ["lock_timeout_s", "about 10**5000", "math.inf"],
    ),
    "a timeout that is none": (lambda p: nadb.open(p, lock_timeout_s=np.nan), ValueError, ["lock_timeout_s", "nan"]),
    "theta beyond float64": (lambda p: nadb.Limits(theta=10**400), ValueError, ["theta", "about 10**400", "1.1"]),
    "epsilon beyond Python's digits": (lambda p: nadb.Limits(epsilon=10**9000), ValueError, ["epsilon", "10**9000"]),
    "ragged columns": (
        lambda p: nadb.open(p).set_inputs({"a": [[1, 2], [3]]}),
        ValueError,
        ["column 'a'", "unequal lengths ([2, 1])", "per input"],
    ),
    "ragged beside numbers": (lambda p: nadb.open(p).set_inputs({"a": [1, [3]]}), ValueError, ["'a'", "([1, 1])"]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments_are_refused_in_words(path: Path, what: str) -> None:
    call, kind, words = BAD[what]
    with pytest.raises(kind) as caught:
        call(path)
    assert isinstance(caught.value, nadb.Error)
    for word in words:
        assert word in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("timeout", [np.float32(1), np.int64(2), 0, float("inf")])
def test_any_real_number_is_a_timeout(path: Path, timeout: Any) -> None:
    with nadb.open(path, lock_timeout_s=timeout) as db:
        assert db.index_arrays("f", ARRAY).n_indexed == 3_000


@pytest.mark.parametrize("none", [0, "0", "0 MiB"])
def test_a_database_without_a_cache_answers_exactly(path: Path, none: Any) -> None:
    with nadb.open(path) as db:
        db.index_arrays("f", ARRAY, storage=0.3)
    with nadb.open(path, cache_bytes=none, evaluated_bytes=none) as db:
        layer = db.attach_array("f", ARRAY)
        for _ in range(2):
            for result in (layer.nearest(4, [0, 3], k=7), layer.highest([1, 2], k=9), layer.filter(layer[3] > 2.0)):
                assert result.exact
                assert result.verify().equal
        assert layer.top_neurons(5, 3, by="percentile").shape == (3,)


def test_an_array_without_axes_is_one_id_and_one_neuron(path: Path) -> None:
    with nadb.open(path) as db:
        layer = db.index_arrays("f", ARRAY)
        for three in (3, np.array(3), np.int64(3)):
            assert layer.values(three, [1, 2]).tolist() == ARRAY[3, [1, 2]].tolist()
            assert layer.values([1, 2], three).tolist() == ARRAY[[1, 2], 3:4].tolist()
            assert layer.highest(three, k=3) == layer.highest(3, k=3)
        assert layer.values([3], [1]).shape == (1, 1)


def test_percentiles_of_no_inputs_are_refused(path: Path) -> None:
    with nadb.open(path) as db:
        db.index_arrays("f", ARRAY[:0])
        layer = db.attach_array("f", ARRAY)
        assert layer.top_neurons(3, 2).tolist() == np.argsort(-ARRAY[3])[:2].tolist()
        with pytest.raises(nadb.Error, match="by='percentile' compares with the indexed inputs, and none of f"):
            layer.top_neurons(3, 2, by="percentile")


def test_a_page_in_a_missing_directory_names_the_path_given(path: Path, tmp_path: Path) -> None:
    with nadb.open(path) as db:
        result = db.index_arrays("f", ARRAY).highest([1], k=3)
        wanted = tmp_path / "no" / "such" / "page.html"
        with pytest.raises(FileNotFoundError, match=re.escape(str(wanted))) as caught:
            result.save_html(wanted)
        assert isinstance(caught.value, nadb.Error)
        assert ".tmp" not in str(caught.value)
        (tmp_path / "folder.html").mkdir()
        with pytest.raises(OSError, match=re.escape(str(tmp_path / "folder.html"))) as other:
            result.save_html(tmp_path / "folder.html")
        assert ".tmp" not in str(other.value)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["a.nadb", "folder.html"]


def test_a_database_closed_while_it_is_asked_says_so(path: Path) -> None:
    with nadb.open(path) as db:
        layer = db.index_function("f", lambda ids: ARRAY[ids], 3_000, 8, fingerprint="v", storage=0.1)
        view = db._session.at()
        db._session.close()  # as another thread may, between two steps of a query
        with pytest.raises(nadb.Error, match=r"a\.nadb' was closed while it was being asked") as caught:
            view._session.source_of(view._state.indexes["f"].meta["id"])
        assert "attach_function" not in str(caught.value)
        with pytest.raises(ValueError, match="closed"):
            layer.nearest(4, [0, 1], k=3)


@settings(max_examples=60)
@given(n=st.integers(1, 3_000), m=st.integers(1, 40), seed=st.sampled_from([1e-6, 1e-4, 1e-3]))
def test_a_share_that_keeps_nothing_tells_the_least_that_does(n: int, m: int, seed: float) -> None:
    def plan(storage: Any) -> Any:
        with nadb.open("never.nadb") as db:
            found = db.index_function(
                "f",
                lambda ids: np.zeros((len(ids), m), np.float32),
                n,
                m,
                fingerprint="v",
                storage=storage,
                explain=True,
            )
            assert isinstance(found, BuildPlan)
            return found.layers[0]

    nothing = plan(seed)
    if not nothing.keeps_nothing:
        return
    told = re.search(r"storage=(\S+) is the least that keeps something", str(nothing))
    if told is None:
        assert nothing.least_share > 1
        assert "so few inputs need storage='all'" in str(nothing)
        assert plan(1.0).keeps_nothing
    else:
        assert not plan(float(told[1])).keeps_nothing
        assert plan(0.98 * float(told[1])).keeps_nothing


def test_a_share_that_keeps_nothing_is_logged(path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "neuralartifactdb"), nadb.open(path) as db:
        db.index_arrays("f", ARRAY, storage=0.0001)
        assert re.search(r"storage=0\.0001 keeps nothing of f.*storage=0\.\d+ is the least", caplog.text)
        caplog.clear()
        db.index_arrays("g", ARRAY, storage=0.3)
        assert not caplog.text


@pytest.mark.parametrize("neuron", [7, np.int64(7), (1, 3), [7], slice(7, 8), [(1, 3)], np.array([[1, 3]]), "mask"])
def test_one_neuron_however_it_is_spelled(tmp_path: Any, neuron: Any) -> None:
    values = np.random.default_rng(0).random((50, 3, 4), dtype=np.float32)
    with nadb.open(tmp_path / "db") as db:
        layer = db.index_arrays("layer", values)
        one = layer[np.arange(12).reshape(3, 4) == 7 if isinstance(neuron, str) else neuron]
        assert repr(one) in ("db.activations['layer'][7]", "db.activations['layer'][1, 3]")
        assert layer.top_k(one, k=1).ids.tolist() == [int(np.argmax(values[:, 1, 3]))]
