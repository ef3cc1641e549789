"""The torch encoder against a NumPy oracle and against the C++ encoder: same codes, bounds, starts, maxima, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb import _core
from neuralartifactdb.capture import TorchSegmentEncoder
from neuralartifactdb.errors import DtypeError, InvalidValueError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def run(encoder, values, chunks, *, sample_of=None, tensors=False, device="cpu"):
    """Append `values` in chunks; rows in `sample_of` go through the sample. Returns row groups and finished parts."""
    n = len(values)
    sampled = np.zeros(n, dtype=bool) if sample_of is None else sample_of
    sample = values[sampled] if sampled.any() else None
    rank = np.cumsum(sampled) - 1
    groups = []
    begin = 0
    for size in chunks:
        rows = np.arange(begin, min(begin + size, n))
        batch = np.ascontiguousarray(values[rows][~sampled[rows]][::-1])  # reversed: order is not the identity
        order = np.empty(len(rows), dtype=np.int32)
        order[~sampled[rows]] = np.arange(len(batch))[::-1]
        order[sampled[rows]] = ~rank[rows][sampled[rows]]
        given_batch = torch.from_numpy(batch).to(device) if tensors else batch
        given_sample = torch.from_numpy(sample).to(device) if tensors and sample is not None else sample
        encoder.append(given_batch, given_sample, order)
        begin = rows[-1] + 1 if len(rows) else begin
        while (group := encoder.take_row_group()) is not None:
            groups.append(group)
        if begin >= n:
            break
    return groups, *encoder.finish()


def oracle(values, edges, row_group, cap):
    """Codes by counting edges, packed bit by bit; bounds and maxima by loops."""
    n, m = values.shape
    p = edges.shape[1] + 1
    bits = p.bit_length() - 1
    values = values + 0.0  # -0.0 becomes 0.0
    codes = (edges[None, :, :] <= values[:, :, None]).sum(axis=2)
    groups = []
    for begin in range(0, n, row_group):
        part = codes[begin : begin + row_group]
        planes = ((part[:, :, None] >> np.arange(bits)) & 1).astype(np.uint8)
        flat = planes.transpose(1, 0, 2).reshape(m, -1)
        groups.append(np.packbits(flat, axis=1, bitorder="little"))
    bounds = np.empty((m, p, 2), dtype=values.dtype)
    bounds[:, :, 0], bounds[:, :, 1] = np.inf, -np.inf
    starts = np.zeros((m, len(groups) + 1), dtype=np.int64)
    maxima = []
    for j in range(m):
        for code, value in zip(codes[:, j], values[:, j], strict=True):
            bounds[j, code, 0] = min(bounds[j, code, 0], value)
            bounds[j, code, 1] = max(bounds[j, code, 1], value)
        top = codes[:, j] == p - 1
        starts[j] = len(maxima)
        if cap and top.sum() <= cap:
            starts[j, 1:] += np.cumsum([top[b : b + row_group].sum() for b in range(0, n, row_group)])
            maxima.extend(values[top, j])
    return groups, bounds, starts, np.array(maxima, dtype=values.dtype)


def assert_same(found, expected):
    assert len(found[0]) == len(expected[0])
    for got, wanted in zip(found[0], expected[0], strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, wanted)
    for got, wanted in zip(found[1:], expected[1:], strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
        assert not np.signbit(got[got == 0]).any()


def make(n, m, bits, dtype, seed, edge_kind="quantiles"):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, m)).astype(dtype)
    values[rng.random((n, m)) < 0.3] = 0.0
    values[rng.random((n, m)) < 0.05] = -0.0
    values[rng.random((n, m)) < 0.05] = np.finfo(dtype).smallest_subnormal
    values[rng.random((n, m)) < 0.05] = -np.finfo(dtype).smallest_subnormal
    n_edges = (1 << bits) - 1
    if edge_kind == "quantiles":
        edges = np.sort(rng.choice(values.ravel(), (m, n_edges)), axis=1)
    else:
        edges = np.sort(rng.choice(np.array([0.0, -np.inf, np.inf, 1.0], dtype=dtype), (m, n_edges)), axis=1)
    return values, np.ascontiguousarray(edges)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 70),
    m=st.integers(1, 9),
    bits=st.integers(1, 12),
    row_group=st.integers(1, 40),
    cap=st.integers(0, 12),
    dtype=st.sampled_from([np.float32, np.float64]),
    step=st.integers(1, 30),
    edge_kind=st.sampled_from(["quantiles", "infinite"]),
    share=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 2**16),
)
def test_equals_oracle_and_core(n, m, bits, row_group, cap, dtype, step, edge_kind, share, seed):
    values, edges = make(n, m, min(bits, 8) if m > 4 else bits, dtype, seed, edge_kind)
    sampled = np.random.default_rng(seed).random(n) < share
    chunks = np.random.default_rng(seed).integers(1, step + 1, n)
    expected = oracle(values, edges, row_group, cap)
    found = run(TorchSegmentEncoder(edges, n, row_group, cap), values, chunks, sample_of=sampled)
    assert_same(found, expected)
    core = run(_core.SegmentEncoder(edges, n, row_group, cap), values, chunks, sample_of=sampled)
    assert_same(core, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_on_the_device(device, dtype):
    values, edges = make(500, 33, 6, dtype, 3)
    sampled = np.random.default_rng(1).random(500) < 0.2
    found = run(
        TorchSegmentEncoder(edges, 500, 96, 5, device=device),
        values,
        [64] * 8,
        sample_of=sampled,
        tensors=True,
        device=device,
    )
    assert_same(found, oracle(values, edges, 96, 5))


def test_neuron_steps_do_not_change_the_result(monkeypatch):
    values, edges = make(100, 50, 5, np.float32, 4)
    whole = run(TorchSegmentEncoder(edges, 100, 30, 4), values, [41] * 3)
    monkeypatch.setattr("neuralartifactdb.capture.device_encoder._STEP_VALUES", 64)
    assert_same(run(TorchSegmentEncoder(edges, 100, 30, 4), values, [41] * 3), whole)


def test_flushing_denormals_changes_nothing(device):
    values, edges = make(200, 8, 4, np.float32, 5)
    expected = oracle(values, edges, 64, 9)
    can_flush = torch.set_flush_denormal(True)
    try:
        found = run(
            TorchSegmentEncoder(edges, 200, 64, 9, device=device), values, [50] * 4, tensors=True, device=device
        )
    finally:
        torch.set_flush_denormal(False)
    assert can_flush
    assert_same(found, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["batch", "sample"])
def test_not_finite_is_named_and_nothing_is_appended(device, bad, where):
    values, edges = make(40, 6, 3, np.float32, 6)
    encoder = TorchSegmentEncoder(edges, 40, 16, 3, device=device)
    encoder.append(values[:10], None, np.arange(10, dtype=np.int32))
    batch, sample = values[10:20].copy(), values[20:25].copy()
    order = np.array([3, ~2, 0], dtype=np.int32)
    (batch if where == "batch" else sample)[3 if where == "batch" else 2, 4] = bad
    batch[9, 0] = np.nan  # a row that the order does not take
    with pytest.raises(_core.NonFiniteError, match="neuron 4") as caught:
        encoder.append(batch, sample, order)
    assert (caught.value.row, caught.value.neuron) == ((0 if where == "batch" else 1), 4)
    assert caught.value.value == bad or np.isnan(bad)
    encoder.append(values[10:], None, np.arange(30, dtype=np.int32))
    groups = [encoder.take_row_group() for _ in range(3)]
    assert_same((groups, *encoder.finish()), oracle(values, edges, 16, 3))


def test_refuses_what_it_cannot_encode():
    edges = np.zeros((4, 3), dtype=np.float32)
    with pytest.raises(DtypeError, match="float32 or float64, got int64"):
        TorchSegmentEncoder(np.zeros((4, 3), dtype=np.int64), 5, 5, 0)
    with pytest.raises(InvalidValueError, match=r"2\*\*bits - 1"):
        TorchSegmentEncoder(np.zeros((4, 4), dtype=np.float32), 5, 5, 0)
    with pytest.raises(InvalidValueError, match="ascending"):
        TorchSegmentEncoder(np.array([[2.0, 1.0, 3.0]]), 5, 5, 0)
    with pytest.raises(InvalidValueError, match="row_group must be at least 1, got 0"):
        TorchSegmentEncoder(edges, 5, 0, 0)
    encoder = TorchSegmentEncoder(edges, 5, 5, 0)
    rows = np.zeros((3, 4), dtype=np.float32)
    with pytest.raises(DtypeError, match="order must be int32"):
        encoder.append(rows, None, np.arange(3))
    with pytest.raises(InvalidValueError, match=r"\(rows, 4\)"):
        encoder.append(rows[:, :3], None, np.arange(3, dtype=np.int32))
    with pytest.raises(DtypeError, match="float32"):
        encoder.append(rows.astype(np.float64), None, np.arange(3, dtype=np.int32))
    with pytest.raises(InvalidValueError, match="got 3 at position 1"):
        encoder.append(rows, None, np.array([0, 3], dtype=np.int32))
    with pytest.raises(InvalidValueError, match="got -1 at position 0"):
        encoder.append(rows, None, np.array([-1], dtype=np.int32))
    with pytest.raises(InvalidValueError, match="needs all 5 inputs of the segment, got 0"):
        encoder.finish()
    encoder.append(rows, None, np.arange(3, dtype=np.int32))
    with pytest.raises(InvalidValueError, match="at most the 2 rows"):
        encoder.append(rows, None, np.arange(3, dtype=np.int32))
    encoder.append(rows, None, np.arange(2, dtype=np.int32))
    encoder.finish()
    with pytest.raises(InvalidValueError, match="called before"):
        encoder.finish()
    with pytest.raises(InvalidValueError, match="append after finish"):
        encoder.append(rows, None, np.arange(1, dtype=np.int32))
