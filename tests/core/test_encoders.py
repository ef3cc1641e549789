"""Segment encoder and column writer against plain NumPy: codes, partition bounds, maxima, packing, kept values."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb import _core

REALS = [np.float32, np.float64]
Floats = npt.NDArray[Any]


def unpack(row: npt.NDArray[np.uint8], n: int, bits: int) -> npt.NDArray[np.int64]:
    """Codes of a packed row by the book: input i has bits [i*b, (i+1)*b), least significant first."""
    flat = np.unpackbits(row, bitorder="little")[: n * bits].reshape(n, bits)
    return (flat.astype(np.int64) << np.arange(bits)).sum(axis=1)


def key_of(values: Floats) -> npt.NDArray[np.int64]:
    """Order-preserving integers, independent of the core: float32 and float64 alike."""
    bits = values.view(np.int32 if values.dtype == np.float32 else np.int64).astype(object)
    half = 1 << (31 if values.dtype == np.float32 else 63)
    return np.array([b if b >= 0 else -(b + half) for b in bits.ravel()], object).reshape(values.shape)


def codes_of(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    keys, edge_keys = key_of(values), key_of(edges)
    return np.array([sum(1 for e in edge_keys if e <= k) for k in keys], np.int64)


def encode(
    values: Floats,
    edges: Floats,
    row_group: int,
    cap: int,
    sizes: list[int],
    sample_rows: npt.NDArray[np.intp],
    threads: int,
) -> tuple[list[npt.NDArray[np.uint8]], Floats, npt.NDArray[np.int64], Floats]:
    """Feeds rows in appends of the given sizes; rows in sample_rows come from the kept sample, others from batches."""
    n = len(values)
    encoder = _core.SegmentEncoder(edges, n, row_group, cap, threads=threads)
    groups = feed(encoder, values, sizes, sample_rows)
    return groups, *encoder.finish()


def feed(
    encoder: _core.SegmentEncoder | _core.ColumnWriter,
    values: Floats,
    sizes: list[int],
    sample_rows: npt.NDArray[np.intp],
) -> list[npt.NDArray[np.uint8]]:
    n = len(values)
    sample = np.ascontiguousarray(values[sample_rows])
    place = {int(row): i for i, row in enumerate(sample_rows)}
    groups: list[npt.NDArray[np.uint8]] = []
    begin, step = 0, 0
    while begin < n:
        end = min(n, begin + sizes[step % len(sizes)])
        step += 1
        own = [row for row in range(begin, end) if row not in place]
        shuffled = own[::-1]  # the batch need not be in order
        at = {row: i for i, row in enumerate(shuffled)}
        order = np.array([~place[r] if r in place else at[r] for r in range(begin, end)], np.int32)
        batch = np.ascontiguousarray(values[shuffled]).reshape(len(own), values.shape[1])
        encoder.append(batch, sample if len(sample) else None, order)
        assert encoder.n_appended == end
        begin = end
        while (group := encoder.take_row_group()) is not None:
            groups.append(group)
    return groups


def check_segment(
    values: Floats,
    edges: Floats,
    row_group: int,
    cap: int,
    result: tuple[list[npt.NDArray[np.uint8]], Floats, npt.NDArray[np.int64], Floats],
) -> None:
    groups, bounds, starts, maxima = result
    n, n_neurons = values.shape
    n_partitions = edges.shape[1] + 1
    bits = n_partitions.bit_length() - 1
    n_groups = -(-n // row_group)
    assert len(groups) == n_groups
    assert bounds.shape == (n_neurons, n_partitions, 2)
    assert starts.shape == (n_neurons, n_groups + 1)
    assert bounds.dtype == maxima.dtype == values.dtype
    assert starts[0, 0] == 0
    assert starts[-1, -1] == len(maxima)
    for j in range(n_neurons):
        column = values[:, j] + values.dtype.type(0)  # -0.0 is 0.0
        expected = codes_of(column, edges[j])
        got = []
        for g, group in enumerate(groups):
            rows = min(row_group, n - g * row_group)
            assert group.shape == (n_neurons, -(-rows * bits // 8))
            got.append(unpack(group[j], rows, bits))
        assert (np.concatenate(got) == expected).all()
        keys = key_of(column)
        for p in range(n_partitions):
            members = column[expected == p]
            if len(members) == 0:
                assert bounds[j, p, 0] == np.inf
                assert bounds[j, p, 1] == -np.inf
            else:
                member_keys = keys[expected == p]
                assert key_of(bounds[j, p]).tolist() == [min(member_keys), max(member_keys)]
        top = expected == n_partitions - 1
        keeps = cap > 0 and top.sum() <= cap
        for g in range(n_groups):
            mine = maxima[starts[j, g] : starts[j, g + 1]]
            rows = slice(g * row_group, min(n, (g + 1) * row_group))
            wanted = column[rows][top[rows]] if keeps else column[:0]
            assert mine.tobytes() == wanted.tobytes()


def make_values(kind: str, n: int, n_neurons: int, dtype: Any, rng: np.random.Generator) -> Floats:
    values = rng.standard_normal((n, n_neurons))
    if kind == "relu":
        values = np.maximum(values, 0)
    elif kind == "relu6":
        values = np.clip(values * 6, 0, 6)
    elif kind == "integers":
        values = rng.integers(-3, 4, values.shape).astype(float)
    elif kind == "constant":
        values = np.broadcast_to(values[:1], values.shape)
    elif kind == "subnormal":
        values = values * float(np.finfo(dtype).smallest_subnormal) * 40
    elif kind == "huge":
        values = rng.uniform(-1, 1, values.shape) * float(np.finfo(dtype).max)
    elif kind == "wide":
        values = np.sign(values) * 10.0 ** rng.uniform(-37, 37, values.shape)
    values = np.array(values, dtype, order="C")  # a copy: broadcasts are read-only
    values[rng.random(values.shape) < 0.05] = -0.0
    return values


KINDS = ["normal", "relu", "relu6", "integers", "constant", "subnormal", "huge", "wide"]


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_encoder_equals_numpy(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(REALS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.one_of(st.integers(1, 40), st.integers(1, 600)))
    n_neurons = data.draw(st.sampled_from([1, 2, 3, 31, 32, 33]))
    bits = data.draw(st.integers(1, 6))
    values = make_values(data.draw(st.sampled_from(KINDS)), n, n_neurons, dtype, rng)
    sample_rows = np.flatnonzero(rng.random(n) < data.draw(st.sampled_from([0.0, 0.2, 1.0])))
    chosen = values[sample_rows] if len(sample_rows) else values[:1]
    edges = _core.choose_edges(np.ascontiguousarray(chosen), bits, data.draw(st.integers(0, 20)))
    row_group = data.draw(st.one_of(st.integers(1, 20), st.integers(1, 700)))
    cap = data.draw(st.integers(0, 30))
    sizes = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4))
    result = encode(values, edges, row_group, cap, sizes, sample_rows, data.draw(st.integers(1, 3)))
    check_segment(values, edges, row_group, cap, result)


@pytest.mark.parametrize("bits", range(1, 13))
@pytest.mark.parametrize("dtype", REALS)
def test_every_width(bits: int, dtype: Any) -> None:
    rng = np.random.default_rng(bits)
    values = make_values("relu", 300, 2, dtype, rng)
    edges = _core.choose_edges(values, bits, 10)
    result = encode(values, edges, 77, 12, [100, 1, 13], np.arange(0), 1)
    check_segment(values, edges, 77, 12, result)


@pytest.mark.parametrize("bits", [1, 3, 6, 9])
def test_any_ascending_edges_will_do(bits: int) -> None:
    # Duplicates, infinities, both zeros, neighbours: more edges in one cell of the grid than the quick path takes.
    rng = np.random.default_rng(bits)
    values = make_values("normal", 200, 6, np.float32, rng)
    values[::7, :] = np.float32(1.0)
    values[::5, :] = np.nextafter(np.float32(1), np.float32(2))
    n_edges = 2**bits - 1
    near = np.float32(1) + np.arange(n_edges, dtype=np.float32) * np.finfo(np.float32).eps
    edges = np.stack(
        [
            np.zeros(n_edges),
            np.full(n_edges, -np.inf),
            np.full(n_edges, np.inf),
            near,
            np.sort(np.concatenate([near[: n_edges // 2], rng.standard_normal(n_edges - n_edges // 2) * 1e30])),
            np.sort(rng.choice([-np.inf, -1.0, 0.0, 1.0, np.inf], n_edges)),
        ]
    ).astype(np.float32)
    edges[0, : n_edges // 2] = -0.0
    check_segment(values, edges, 64, 40, encode(values, edges, 64, 40, [50], np.arange(0), 1))


def test_flush_to_zero_changes_no_code() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    values = make_values("subnormal", 400, 5, np.float32, rng)
    values[:, 4] = make_values("relu", 400, 1, np.float32, rng)[:, 0]
    edges = _core.choose_edges(values, 4, 10)
    expected = encode(values, edges, 100, 20, [64], np.arange(0), 1)
    check_segment(values, edges, 100, 20, expected)
    encoder = _core.SegmentEncoder(edges, 400, 100, 20, threads=1)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormals to zero")
    try:
        flushed_edges = _core.choose_edges(values, 4, 10)
        writer = _core.ColumnWriter(400, 400, 5, "float32")
        columns = feed(writer, values, [64], np.arange(0))
        groups = feed(encoder, values, [64], np.arange(0))  # the grid was made in the other mode
        bounds, starts, maxima = encoder.finish()
        again = encode(values, edges, 100, 20, [64], np.arange(0), 1)
    finally:
        torch.set_flush_denormal(False)
    for got in ((groups, bounds, starts, maxima), again):
        assert all((a == b).all() for a, b in zip(got[0], expected[0], strict=True))
        assert all(a.tobytes() == b.tobytes() for a, b in zip(got[1:], expected[1:], strict=True))
    assert flushed_edges.shape == edges.shape
    assert columns[0].tobytes() == np.ascontiguousarray((values + np.float32(0)).T).tobytes()


def test_threads_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    values = make_values("relu", 2100, 200, np.float32, rng)  # enough for several threads to be started
    edges = _core.choose_edges(values[:500], 6, 10)
    one = encode(values, edges, 630, 60, [1400], np.arange(0), 1)
    four = encode(values, edges, 630, 60, [1400], np.arange(0), 4)
    assert all((a == b).all() for a, b in zip(one[0], four[0], strict=True))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one[1:], four[1:], strict=True))
    columns = [
        feed(_core.ColumnWriter(2100, 630, 200, "float32", threads=t), values, [1400], np.arange(0)) for t in (1, 4)
    ]
    assert all((a == b).all() for a, b in zip(*columns, strict=True))
    values[1399, 7] = values[1200, 199] = np.nan
    with pytest.raises(_core.NonFiniteError, match="row 1200, neuron 199"):
        _core.SegmentEncoder(edges, 2100, 630, 60, threads=4).append(values, None, np.arange(2100, dtype=np.int32))


def test_a_neuron_over_the_cap_keeps_no_maxima_and_its_true_bounds() -> None:
    values = np.arange(20, dtype=np.float32)[:, None]
    edges = np.array([[10.0]], np.float32)
    _, bounds, starts, maxima = encode(values, edges, 7, 10, [3], np.arange(0), 1)
    assert starts.tolist() == [[0, 0, 4, 10]]
    assert maxima.tolist() == list(range(10, 20))
    _, bounds, starts, maxima = encode(values, edges, 7, 9, [3], np.arange(0), 1)
    assert starts.tolist() == [[0, 0, 0, 0]]
    assert len(maxima) == 0
    assert bounds.tolist() == [[[0.0, 9.0], [10.0, 19.0]]]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_columns_equal_the_transpose(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(REALS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.integers(1, 400))
    n_neurons = data.draw(st.sampled_from([1, 5, 32, 65]))
    values = make_values(data.draw(st.sampled_from(KINDS)), n, n_neurons, dtype, rng)
    row_group = data.draw(st.integers(1, 500))
    writer = _core.ColumnWriter(n, row_group, n_neurons, np.dtype(dtype).name, threads=data.draw(st.integers(1, 3)))
    sample_rows = np.flatnonzero(rng.random(n) < 0.3)
    groups = feed(writer, values, data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=3)), sample_rows)
    writer.finish()
    expected = values + dtype(0)
    got = np.concatenate([group.view(dtype) for group in groups], axis=1)
    assert got.tobytes() == np.ascontiguousarray(expected.T).tobytes()


def test_non_finite_leaves_the_encoder_as_it_was() -> None:
    rng = np.random.default_rng(3)
    values = make_values("normal", 90, 40, np.float32, rng)
    edges = _core.choose_edges(values, 5, 5)
    order = np.arange(45, dtype=np.int32)
    encoder = _core.SegmentEncoder(edges, 90, 32, 6)
    writer = _core.ColumnWriter(90, 32, 40, "float32")
    for bad in (math.nan, math.inf, -math.inf):
        for target in (encoder, writer):
            damaged = values[:45].copy()
            damaged[44, 39] = bad
            damaged[17, 33] = bad
            with pytest.raises(_core.NonFiniteError, match="row 17, neuron 33") as caught:
                target.append(damaged, None, order)
            assert (caught.value.row, caught.value.neuron) == (17, 33)
            assert target.n_appended == 0
    groups = feed(encoder, values, [45], np.arange(0))
    check_segment(values, edges, 32, 6, (groups, *encoder.finish()))
    # `row` is the index into order; rows that order leaves out may be anything (padding).
    encoder = _core.SegmentEncoder(edges, 90, 32, 6)
    damaged = values[:3].copy()
    damaged[2, 1] = math.nan
    encoder.append(damaged, None, np.array([1, 0], np.int32))
    with pytest.raises(_core.NonFiniteError) as caught:
        encoder.append(damaged, None, np.array([1, 0, 0, 2], np.int32))
    assert caught.value.row == 3


def test_life_of_an_encoder() -> None:
    edges = np.zeros((2, 1), np.float32)
    encoder = _core.SegmentEncoder(edges, 5, 3, 2)
    assert encoder.take_row_group() is None
    batch = np.ones((3, 2), np.float32)
    encoder.append(batch, None, np.empty(0, np.int32))
    encoder.append(batch, None, np.arange(2, dtype=np.int32))
    assert encoder.take_row_group() is None
    with pytest.raises(ValueError, match="all 5 inputs of the segment, got 2"):
        encoder.finish()
    with pytest.raises(ValueError, match="at most the 3 rows that are left of the segment, got 4"):
        encoder.append(batch, None, np.array([0, 1, 2, 0], np.int32))
    encoder.append(batch, None, np.arange(3, dtype=np.int32))
    first, last = encoder.take_row_group(), encoder.take_row_group()
    assert first is not None
    assert last is not None
    assert (first.shape, last.shape) == ((2, 1), (2, 1))
    assert first.tolist() == [[7], [7]]
    assert last.tolist() == [[3], [3]]
    assert encoder.take_row_group() is None
    encoder.finish()
    with pytest.raises(ValueError, match="before"):
        encoder.finish()
    with pytest.raises(ValueError, match="after finish"):
        encoder.append(batch, None, np.empty(0, np.int32))
    writer = _core.ColumnWriter(5, 3, 2, "float32")
    with pytest.raises(ValueError, match="all 5 inputs of the segment, got 0"):
        writer.finish()


def test_bad_appends() -> None:
    edges = np.zeros((2, 3), np.float32)
    batch = np.ones((3, 2), np.float32)
    order = np.arange(3, dtype=np.int32)
    bad: list[tuple[Any, type[Exception], str]] = [
        ((batch.astype(np.float64), None, order), TypeError, "dtype float32, got float64"),
        ((batch, batch.astype(np.float64), order), TypeError, "`sample`"),
        ((batch.tolist(), None, order), TypeError, "NumPy array, got list"),
        ((np.ones((3, 3), np.float32), None, order), ValueError, r"2 columns \(neurons\), got 3"),
        ((batch, np.ones((3, 1), np.float32), order), ValueError, "`sample` must have 2 columns"),
        ((np.ones((2, 3), np.float32).T, None, order), ValueError, "C-contiguous"),
        ((np.ones(6, np.float32), None, order), ValueError, "2 axes"),
        ((batch, None, order.astype(np.int64)), TypeError, "dtype int32, got int64"),
        ((batch, None, np.array([0, 3], np.int32)), ValueError, r"\[0, 3\).*got 3 at position 1"),
        ((batch, None, np.array([-1], np.int32)), ValueError, "got -1 at position 0"),
        ((batch, batch[:1], np.array([-1, -2], np.int32)), ValueError, r"\[-1, 3\).*got -2 at position 1"),
    ]
    for target in (_core.SegmentEncoder(edges, 5, 3, 2), _core.ColumnWriter(5, 3, 2, "float32")):
        for arguments, error, match in bad:
            with pytest.raises(error, match=match):
                target.append(*arguments)
        assert target.n_appended == 0


@pytest.mark.parametrize(
    ("edges", "sizes", "error", "match"),
    [
        (np.zeros((2, 3), np.float16), (5, 3, 2), TypeError, "float16"),
        (np.zeros((2, 2), np.float32), (5, 3, 2), ValueError, r"2\*\*b - 1 columns.*got 2"),
        (np.zeros((2, 8191), np.float32), (5, 3, 2), ValueError, "got 8191"),
        (np.zeros((2, 0), np.float32), (5, 3, 2), ValueError, "got 0"),
        (np.zeros((0, 3), np.float32), (5, 3, 2), ValueError, "at least one row"),
        (
            np.array([[0, 1, 0.5]], np.float32),
            (5, 3, 2),
            ValueError,
            "ascending.*0.500000 after 1.000000 at neuron 0, edge 2",
        ),
        (np.array([[0, np.nan, 1]], np.float32), (5, 3, 2), ValueError, "not NaN.*edge 1"),
        (np.zeros((2, 3), np.float32), (0, 3, 2), ValueError, "`n_inputs`.*got 0"),
        (np.zeros((2, 3), np.float32), (5, 0, 2), ValueError, "`row_group`.*got 0"),
        (np.zeros((2, 3), np.float32), (5, 3, -1), ValueError, "`maxima_cap`.*got -1"),
    ],
)
def test_bad_encoders(edges: Floats, sizes: tuple[int, int, int], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        _core.SegmentEncoder(edges, *sizes)


def test_bad_writers() -> None:
    bad: list[tuple[Any, str]] = [
        ((0, 1, 1, "float32"), "`n_inputs`"),
        ((1, 0, 1, "float32"), "`row_group`"),
        ((1, 1, 0, "float32"), "`n_neurons`"),
        ((1, 1, 1, "float16"), "'float32' or 'float64', got 'float16'"),
    ]
    for arguments, match in bad:
        with pytest.raises(ValueError, match=match):
            _core.ColumnWriter(*arguments)


def test_more_memory_than_there_is() -> None:
    edges = np.zeros((1, 1), np.float32)
    with pytest.raises(MemoryError):
        _core.SegmentEncoder(edges, 2**58, 1, 2**31 - 1)
    encoder = _core.SegmentEncoder(edges, 2**58, 2**58, 0)
    with pytest.raises(MemoryError):
        encoder.append(np.ones((1, 1), np.float32), None, np.zeros(1, np.int32))
    assert encoder.n_appended == 0


def test_one_encoder_is_for_one_thread() -> None:
    values = np.zeros((4000, 2000), np.float32)
    encoder = _core.SegmentEncoder(np.zeros((2000, 63), np.float32), 8000, 8000, 0, threads=1)
    order = np.arange(4000, dtype=np.int32)
    outcomes: list[str] = []

    def append() -> None:
        try:
            encoder.append(values, None, order)
            outcomes.append("appended")
        except RuntimeError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=append) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert encoder.n_appended == 4000 * outcomes.count("appended")
    assert all(o == "appended" or "in use by another thread" in o for o in outcomes)
