"""Edges from a sample: the rules of design.md, section 4, 1, each checked by counting in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb import _core

REALS = [np.float32, np.float64]
Floats = npt.NDArray[Any]


def codes_of(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    return (edges[None, :] <= values[:, None]).sum(axis=1)


def next_up(value: float, dtype: Any) -> Any:
    return np.nextafter(dtype(value), dtype(np.inf))


def check_edges(sample: Floats, bits: int, top_count: int) -> Floats:
    """Checks what holds for every sample, neuron by neuron; returns the edges."""
    n_partitions = 2**bits
    n_sample, n_neurons = sample.shape
    edges = _core.choose_edges(sample, bits, top_count)
    assert edges.shape == (n_neurons, n_partitions - 1)
    assert edges.dtype == sample.dtype
    assert not np.isnan(edges).any()
    with np.errstate(invalid="ignore"):
        assert not (np.diff(edges, axis=1) < 0).any()
    for j in range(n_neurons):
        values, counts = np.unique(sample[:, j] + sample.dtype.type(0), return_counts=True)
        heavy = values[counts * n_partitions > n_sample]
        codes = codes_of(sample[:, j], edges[j])
        if top_count:
            top = edges[j, -1]
            assert (sample[:, j] >= top).sum() <= top_count
            assert not (heavy >= top).any()
            below = values[values < top]
            # Lowered by one more value it would hold too many, or a heavy one.
            if len(below):
                more = (sample[:, j] >= below[-1]).sum()
                assert more > top_count or below[-1] in heavy
        # Every heavy value that the budget allows is alone in its partition, edges included.
        budget = n_partitions - 1 - (1 if top_count else 0)
        if 2 * len(heavy) <= budget:
            for value in heavy:
                alone = sample[codes == codes_of(np.array([value], sample.dtype), edges[j])[0], j]
                assert (alone == value).all()
    return edges


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_rules_hold_for_any_sample(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(REALS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_sample = data.draw(st.integers(1, 700))
    n_neurons = data.draw(st.integers(1, 40))
    bits = data.draw(st.integers(1, 12))
    sample = rng.standard_normal((n_sample, n_neurons)) * 10.0 ** rng.integers(-40, 30, n_neurons)
    kind = data.draw(
        st.sampled_from(["normal", "relu", "relu6", "integers", "constant", "sparse", "two", "signed zeros"])
    )
    if kind == "relu":
        sample = np.maximum(sample, 0)
    elif kind == "relu6":
        sample = np.clip(rng.standard_normal(sample.shape) * 6, 0, 6)
    elif kind == "integers":
        sample = rng.poisson(3, sample.shape).astype(float)
    elif kind == "constant":
        sample = np.broadcast_to(sample[:1], sample.shape)
    elif kind == "sparse":
        sample = np.where(rng.random(sample.shape) < 0.98, 0, sample)
    elif kind == "two":
        sample = np.where(rng.random(sample.shape) < 0.5, -1.5, 2.5)
    elif kind == "signed zeros":
        sample = np.where(rng.random(sample.shape) < 0.5, -0.0, np.where(rng.random(sample.shape) < 0.5, 0.0, sample))
    check_edges(np.ascontiguousarray(sample, dtype), bits, data.draw(st.integers(0, n_sample)))


@pytest.mark.parametrize("dtype", REALS)
def test_relu_zero_has_zero_width_and_the_rest_is_midway(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    column = np.maximum(rng.standard_normal(4000), 0).astype(dtype)
    edges = check_edges(column[:, None], 4, 40)[0]
    assert edges[0] == next_up(0.0, dtype)
    positive = np.sort(column[column > 0])
    top = positive[-40]
    assert edges[-1] == top
    below = positive[positive < top]
    n = 13  # 15 edges, less the one above 0 and the top one
    for i in range(1, n + 1):
        t = i / (n + 1)
        quantile = float(below[int(t * len(below))])
        even = float(below[0]) * (1 - t) + float(top) * t
        assert edges[i] == pytest.approx(0.5 * quantile + 0.5 * even, rel=1e-6)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("value", [0.0, -0.0, 3.25, -7.0, 1e-40, -1e-40])
def test_constant_neuron_is_fenced_in(dtype: Any, value: float) -> None:
    value = dtype(value)
    edges = _core.choose_edges(np.full((300, 1), value, dtype), 3, 5)[0]
    # The value alone in the last but one partition; anything greater would be a maximum.
    assert edges[-2] == value
    assert edges[-1] == next_up(value, dtype)
    assert (edges[:-2] == -np.inf).all()
    assert not np.signbit(edges[-2]) or value < 0


def test_few_distinct_values_get_a_partition_each() -> None:
    column = np.array([0, 1, 2, 3, 5, 8, 13] * 50, np.float32)
    edges = check_edges(column[:, None], 3, 0)[0]
    assert len(set(codes_of(np.unique(column), edges))) == 7
    edges = check_edges(column[:, None], 4, 3)[0]
    codes = codes_of(np.array([-1, 0, 0.5, 1, 1.5, 2, 3, 13, 13.5], np.float32), edges)
    assert len(set(codes)) == len(codes)  # room to fence values in against those that the sample lacks
    assert codes[-1] == 15


def test_relu6_has_both_ends_exact_and_nothing_heavy_on_top() -> None:
    rng = np.random.default_rng(4)
    column = np.clip(rng.standard_normal(4096) * 5, 0, 6).astype(np.float32)
    edges = check_edges(column[:, None], 6, 40)[0]
    assert edges[0] == next_up(0.0, np.float32)
    assert edges[-1] == next_up(6.0, np.float32)
    assert edges[-2] == np.float32(6)


def test_many_heavy_values_go_by_weight() -> None:
    # 20 values of equal steps and falling weight, 4 bits: 15 edges, one of them on top.
    column = np.repeat(np.arange(20, dtype=np.float64), np.arange(40, 20, -1))
    edges = check_edges(column[:, None], 4, 4)[0]
    codes = codes_of(column, edges)
    assert (column[codes == codes_of(np.array([1.0]), edges)[0]] == 1.0).all()
    assert edges[-1] == next_up(19.0, np.float64)


def test_extremes_do_not_overflow() -> None:
    for dtype in REALS:
        most = np.finfo(dtype).max
        rng = np.random.default_rng(6)
        column = np.concatenate([[-most, most], rng.uniform(-1, 1, 998) * most]).astype(dtype)
        edges = check_edges(column[:, None], 6, 10)
        assert np.isfinite(edges).all()
        column = np.full(100, most, dtype)
        edges = _core.choose_edges(column[:, None], 2, 3)[0]
        assert edges[-1] == np.inf


def test_threads_and_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(7)
    sample = np.maximum(rng.standard_normal((500, 67)), 0).astype(np.float32)
    whole = _core.choose_edges(sample, 6, 7, threads=1)
    assert (_core.choose_edges(sample, 6, 7, threads=3) == whole).all()
    for j in (0, 15, 16, 66):
        one = _core.choose_edges(np.ascontiguousarray(sample[:, j : j + 1]), 6, 7)
        assert (one == whole[j]).all()


def test_no_neurons() -> None:
    assert _core.choose_edges(np.empty((4, 0), np.float32), 3, 1).shape == (0, 7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_names_its_place(bad: float) -> None:
    sample = np.zeros((5, 70), np.float32)
    sample[3, 65] = bad
    with pytest.raises(_core.NonFiniteError, match="row 3, neuron 65") as caught:
        _core.choose_edges(sample, 4, 1)
    assert (caught.value.row, caught.value.neuron) == (3, 65)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value.value) == str(bad)


@pytest.mark.parametrize(
    ("sample", "bits", "top", "threads", "error", "match"),
    [
        ([[1.0]], 4, 1, 0, TypeError, "`sample` must be a NumPy array, got list"),
        (np.zeros((2, 2), np.float16), 4, 1, 0, TypeError, "float32 or float64, got float16"),
        (np.zeros((2, 2), np.int64), 4, 1, 0, TypeError, "int64"),
        (np.zeros(4, np.float32), 4, 1, 0, ValueError, "2 axes, got 1"),
        (np.zeros((4, 4), np.float32).T[:, ::2], 4, 1, 0, ValueError, "C-contiguous"),
        (np.zeros((0, 4), np.float32), 4, 1, 0, ValueError, "at least one row"),
        (np.zeros((4, 4), np.float32), 0, 1, 0, ValueError, r"`n_bits` must lie in \[1, 12\], got 0"),
        (np.zeros((4, 4), np.float32), 13, 1, 0, ValueError, "got 13"),
        (np.zeros((4, 4), np.float32), 4, -1, 0, ValueError, "`top_count`.*got -1"),
        (np.zeros((4, 4), np.float32), 4, 1, -2, ValueError, "`threads`.*got -2"),
    ],
)
def test_bad_input(sample: Any, bits: int, top: int, threads: int, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        _core.choose_edges(sample, bits, top, threads=threads)


def test_bad_thread_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NADB_THREADS", "many")
    with pytest.raises(ValueError, match=r"NADB_THREADS.*'many'"):
        _core.choose_edges(np.zeros((4, 4), np.float32), 4, 1)
    monkeypatch.setenv("NADB_THREADS", "3")
    assert _core.build_info()["threads"] == 3
