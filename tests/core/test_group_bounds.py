"""Bounds and exact scores of a neuron group against plain Python loops (design.md, section 3, "One arithmetic").

Python floats are float64 and add left to right, so the oracles here equal the core bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb import _core

INF = math.inf
TERMS = ["value", "square", "abs_diff", "sq_diff", "product"]
COMBINES: dict[str, Callable[[float, float], float]] = {
    "sum": lambda a, b: a + b,
    "min": lambda a, b: b if b < a or b != b else a,
    "max": lambda a, b: b if b > a or b != b else a,
}
Floats = npt.NDArray[np.float64]


def term_of(term: str, v: float, t: float | None, w: float | None) -> float:
    if term == "value":
        core = v
    elif term == "square":
        core = v * v
    else:
        assert t is not None
        core = t * v if term == "product" else abs(v - t) if term == "abs_diff" else (v - t) * (v - t)
    return core if w is None else w * core


def combine(terms: list[float], how: str) -> float:
    total = terms[0]
    for term in terms[1:]:
        total = COMBINES[how](total, term)
    return total


def pack(codes: npt.NDArray[np.integer], bits: int) -> bytes:
    flat = (codes[:, None] >> np.arange(bits)) & 1
    return np.packbits(flat.astype(np.uint8).ravel(), bitorder="little").tobytes()


def split(column: npt.NDArray[np.generic], row_group: int) -> list[npt.NDArray[np.generic]]:
    return [column[i : i + row_group] for i in range(0, len(column), row_group)]


finite = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, 1e300, -1e300])


def term_table(term: str, lower: Any, upper: Any, target: float | None = None, weight: float | None = None) -> Any:
    """`term_tables` of one neuron."""
    targets, weights = (None if one is None else np.array([one]) for one in (target, weight))
    return _core.term_tables(term, lower, upper, np.array([0, len(lower)]), targets, weights)


@given(
    term=st.sampled_from(TERMS),
    ends=st.lists(st.tuples(finite, finite), min_size=1, max_size=20),
    target=finite,
    weight=st.none() | finite,
    inside=st.floats(0, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_term_intervals_hold_every_value_and_are_tight(
    term: str, ends: list[tuple[float, float]], target: float, weight: float | None, inside: float, dtype: Any
) -> None:
    with np.errstate(over="ignore"):
        pairs = np.sort(np.array(ends, dtype), axis=1)
    pairs = np.clip(pairs, np.finfo(dtype).min, np.finfo(dtype).max)
    lower, upper = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    t = target if term in ("abs_diff", "sq_diff", "product") else None
    table = term_table(term, lower, upper, t, weight)
    assert table.shape == (len(ends), 2)
    for (low, high), (a, b) in zip(table.tolist(), pairs.tolist(), strict=True):
        middle = min(max(a * (1 - inside) + b * inside, a), b)
        at = [term_of(term, v, t, weight) for v in (a, b, middle)]
        if any(math.isnan(x) for x in at):
            assert (low, high) == (-INF, INF)
            continue
        assert all(low <= x <= high for x in at)
        if (low, high) == (-INF, INF):
            continue
        zero = 0.0 if t is None or term == "product" else t
        reachable = at if not (term in ("square", "abs_diff", "sq_diff") and a - zero <= 0 <= b - zero) else [*at, 0.0]
        assert low in reachable
        assert high in reachable
    points = term_table(term, lower, lower, t, weight)
    for (low, high), v in zip(points.tolist(), lower.tolist(), strict=True):
        exact = term_of(term, v, t, weight)
        assert (low, high) == ((-INF, INF) if math.isnan(exact) else (exact, exact))


def test_term_tables_of_several_neurons_are_those_of_each() -> None:
    values, starts = np.arange(7.0), np.array([0, 3, 3, 7])  # the second neuron has none
    targets, weights = np.array([1.0, 5.0, -2.0]), np.array([1.0, 2.0, -3.0])
    together = _core.term_tables("abs_diff", values, values + 1, starts, targets, weights)
    for j in range(3):
        own = slice(starts[j], starts[j + 1])
        alone = term_table("abs_diff", values[own], values[own] + 1, targets[j], weights[j])
        assert together[own].tolist() == alone.tolist()


def test_term_table_of_infinite_ends() -> None:
    lower, upper = np.array([-INF, 0.0, -INF]), np.array([INF, INF, 3.0])
    assert term_table("value", lower, upper).tolist() == [[-INF, INF], [0, INF], [-INF, 3]]
    assert term_table("value", lower, upper, None, -2.0).tolist() == [[-INF, INF], [-INF, 0], [-6, INF]]
    assert term_table("value", lower, upper, None, 0.0).tolist() == [[-INF, INF]] * 3  # inf * 0
    assert term_table("sq_diff", lower, upper, 1.0).tolist() == [[0, INF]] * 3


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_code_bounds_equal_a_loop(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bits = data.draw(st.integers(1, 12))
    n = data.draw(st.one_of(st.integers(0, 40), st.sampled_from([1023, 1025, 1500])))
    g = data.draw(st.integers(1, 4))
    row_group = data.draw(st.one_of(st.integers(1, 30), st.integers(500, 1600)))
    how = data.draw(st.sampled_from(sorted(COMBINES)))
    n_partitions = 2**bits
    n_groups = -(-n // row_group)
    codes = rng.integers(0, n_partitions, (g, n))
    codes[rng.random((g, n)) < 0.1] = n_partitions - 1
    tables = np.sort(rng.standard_normal((g, n_partitions, 2)) * 10.0 ** rng.integers(-9, 9), axis=2)
    tables[rng.random(tables.shape[:2]) < 0.02] = [-INF, INF]
    keeps = rng.random(g) < 0.6
    terms: list[Floats | None] = []
    starts = np.zeros((g, n_groups + 1), np.int64)
    for j in range(g):
        top = codes[j] == n_partitions - 1
        if keeps[j]:
            counts = [part.sum() for part in split(top, row_group)]
            starts[j, 1:] = np.cumsum(counts)
            exact = rng.standard_normal((top.sum(), 1)) * 1e3
            terms.append(np.ascontiguousarray(np.repeat(exact, 2, axis=1)))
        else:
            terms.append(None if rng.random() < 0.5 else np.empty((0, 2)))
    rows = [pack(split(codes[j], row_group)[r], bits) for r in range(n_groups) for j in range(g)]
    lower, upper = np.full(n, np.nan), np.full(n, np.nan)
    _core.code_bounds(
        rows, g, row_group, n, bits, tables, terms, starts, how, lower, upper, threads=data.draw(st.integers(1, 3))
    )
    seen = [0] * g
    for i in range(n):
        parts: list[tuple[float, float]] = []
        for j in range(g):
            pair = tables[j, codes[j, i]]
            if codes[j, i] == n_partitions - 1 and keeps[j]:
                own = terms[j]
                assert own is not None
                pair = own[seen[j]]
                seen[j] += 1
            parts.append((float(pair[0]), float(pair[1])))
        assert lower[i] == combine([p[0] for p in parts], how)
        assert upper[i] == combine([p[1] for p in parts], how)


@pytest.mark.parametrize("how", ["sum", "min", "max"])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_many_neurons_over_long_row_groups(bits: int, how: str) -> None:
    # More neurons than are added together, more inputs than the accumulators of a chunk, top codes everywhere.
    rng = np.random.default_rng(bits)
    n, g, row_group, top = 30_011, 37, 17_000, 2**bits - 1
    codes = rng.integers(0, top + 1, (g, n))
    codes[rng.random((g, n)) < 0.05] = top
    codes[3, 1000:4000] = top
    tables = np.sort(rng.standard_normal((g, top + 1, 2)) * 10.0 ** rng.integers(-3, 3, (g, 1, 1)), axis=2)
    pairs = tables[np.arange(g)[:, None], codes]
    starts = np.zeros((g, 3), np.int64)
    terms: list[Floats | None] = []
    for j in range(g):
        if j % 5 == 4:
            terms.append(None)
            continue
        tops = [np.flatnonzero(part == top) for part in split(codes[j], row_group)]
        starts[j, 1:] = np.cumsum([len(found) for found in tops])
        terms.append(np.repeat(rng.standard_normal((starts[j, -1], 1)), 2, axis=1))
        pairs[j, codes[j] == top] = terms[-1]
    rows = [pack(split(codes[j], row_group)[r], bits) for r in range(2) for j in range(g)]
    total = pairs[0]
    for pair in pairs[1:]:
        total = {"sum": np.add, "min": np.minimum, "max": np.maximum}[how](total, pair)
    lower, upper = np.full(n, np.nan), np.full(n, np.nan)
    _core.code_bounds(rows, g, row_group, n, bits, tables, terms, starts, how, lower, upper)
    assert lower.tobytes() == total[:, 0].tobytes()
    assert upper.tobytes() == total[:, 1].tobytes()
    for part in (slice(0, 5), slice(5, 21), slice(21, g)):  # in portions, one after the other
        own = [row for r in range(2) for row in rows[r * g : (r + 1) * g][part]]
        _core.code_bounds(
            own, len(own) // 2, row_group, n, bits, tables[part], terms[part], starts[part], how, lower, upper,
            goes_on=part.start > 0,
        )  # fmt: skip
    assert lower.tobytes() == total[:, 0].tobytes()
    assert upper.tobytes() == total[:, 1].tobytes()
    starts[3, 1] += 1  # one more than the codes of the first row group have
    with pytest.raises(ValueError, match="neuron 3 of the group"):
        _core.code_bounds(rows, g, row_group, n, bits, tables, terms, starts, how, lower, upper)


def test_threads_do_not_matter() -> None:
    rng = np.random.default_rng(8)
    n, g, row_group = 200_000, 24, 4096  # enough look-ups for two threads
    n_groups = -(-n // row_group)
    rows = [rng.integers(0, 256, row_group * 6 // 8, dtype=np.uint8) for _ in range(n_groups * g)]
    tables = np.sort(rng.standard_normal((g, 64, 2)), axis=2)
    columns = [rng.standard_normal(row_group) for _ in range(n_groups * g)]
    outputs = []
    for threads in (1, 4):
        lower, upper, exact = np.empty(n), np.empty(n), np.empty(n)
        _core.code_bounds(rows, g, row_group, n, 6, tables, None, None, "sum", lower, upper, threads=threads)
        _core.value_scores(columns, g, row_group, n, "float64", "value", "sum", None, None, exact, threads=threads)
        outputs.append(np.stack([lower, upper, exact]))
    assert outputs[0].tobytes() == outputs[1].tobytes()
    # An error of one thread reaches the caller.
    starts = np.zeros((g, n_groups + 1), np.int64)
    starts[:, -1] = 1
    terms = [np.zeros((1, 2))] * g
    with pytest.raises(ValueError, match="codes and maxima disagree"):
        _core.code_bounds(rows, g, row_group, n, 6, tables, terms, starts, "sum", lower, upper, threads=4)


def test_overflow_widens_instead_of_nan() -> None:
    tables = np.array([[[-INF, 1.0]] * 2, [[INF, INF]] * 2])
    lower, upper = np.empty(3), np.empty(3)
    _core.code_bounds([b"\x05", b"\x02"], 2, 8, 3, 1, tables, None, None, "sum", lower, upper)
    assert lower.tolist() == [-INF] * 3
    assert upper.tolist() == [INF] * 3


def as_column(values: Floats, dtype: str) -> tuple[bytes, Floats]:
    """Bytes of a column, and the values they hold."""
    if dtype == "bfloat16":
        bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits.tobytes(), (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    stored = values.astype(dtype)
    return stored.tobytes(), stored.astype(np.float64)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_value_scores_equal_a_loop(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
    term = data.draw(st.sampled_from(TERMS))
    how = data.draw(st.sampled_from(sorted(COMBINES)))
    n = data.draw(st.one_of(st.integers(0, 40), st.sampled_from([1023, 1025])))
    g = data.draw(st.integers(1, 4))
    row_group = data.draw(st.one_of(st.integers(1, 30), st.integers(500, 1600)))
    values = rng.standard_normal((g, n)) * 10.0 ** rng.integers(-7, 4, (g, n))
    targets = rng.standard_normal(g) if term in ("abs_diff", "sq_diff", "product") else None
    weights = rng.standard_normal(g) if data.draw(st.booleans()) else None
    columns: list[bytes] = []
    held = np.empty((g, n))
    parts = [[as_column(part, dtype) for part in split(values[j], row_group)] for j in range(g)]
    for r in range(-(-n // row_group)):
        columns += [parts[j][r][0] for j in range(g)]
    for j in range(g):
        held[j] = np.concatenate([p[1] for p in parts[j]]) if n else []
    threads = data.draw(st.integers(1, 3))
    scores = np.full(n, np.nan)
    first = data.draw(st.integers(0, g - 1))  # these go ahead, the others are added to what they gave
    for part in (slice(0, first), slice(first, g)):
        n_neurons = len(range(g)[part])
        if n_neurons == 0:
            continue
        given: Any = [column for r in range(-(-n // row_group)) for column in columns[r * g : (r + 1) * g][part]]
        if given and len({len(column) for column in given}) == 1 and data.draw(st.booleans()):
            given = np.frombuffer(b"".join(given), np.uint8).reshape(len(given), -1)  # the rows of an array
        _core.value_scores(
            given,
            n_neurons, row_group, n, dtype, term, how,
            None if targets is None else targets[part], None if weights is None else weights[part], scores,
            goes_on=part.start > 0, threads=threads,
        )  # fmt: skip
    for i in range(n):
        t = [None if targets is None else float(targets[j]) for j in range(g)]
        w = [None if weights is None else float(weights[j]) for j in range(g)]
        terms = [term_of(term, float(held[j, i]), t[j], w[j]) for j in range(g)]
        assert scores[i] == combine(terms, how)


def test_half_precision_widens_exactly() -> None:
    for dtype in ("float16", "bfloat16"):
        bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
        with np.errstate(invalid="ignore"):  # signalling NaNs are among them
            if dtype == "float16":
                expected = bits.view(np.float16).astype(np.float64)
            else:
                expected = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        out = np.empty(2**16)
        _core.value_scores([bits.tobytes()], 1, 2**16, 2**16, dtype, "value", "sum", None, None, out)
        same = (out == expected) | (np.isnan(out) & np.isnan(expected))
        assert same.all()


@given(st.data())
def test_combine_terms_goes_left_to_right(data: st.DataObject) -> None:
    how = data.draw(st.sampled_from(sorted(COMBINES)))
    g, n = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([0, 1, 7, 1024, 1025]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    terms = rng.standard_normal((g, n)) * 10.0 ** rng.integers(-12, 12, (g, n))
    got = _core.combine_terms(terms, how)
    assert got.tolist() == [combine(terms[:, i].tolist(), how) for i in range(n)]


def test_sum_starts_from_the_first_term() -> None:
    assert math.copysign(1, _core.combine_terms(np.array([[-0.0]]), "sum")[0]) == -1  # 0.0 + -0.0 would lose the sign
    out = np.empty(1)
    _core.value_scores([np.float64(-0.0).tobytes()], 1, 1, 1, "float64", "value", "sum", None, None, out)
    assert math.copysign(1, out[0]) == -1


def code_arguments() -> dict[str, Any]:
    return {
        "rows": [b"\xe4", b"\x1b"],
        "n_neurons": 2,
        "row_group": 4,
        "n_inputs": 4,
        "n_bits": 2,
        "tables": np.zeros((2, 4, 2)),
        "maxima_terms": [np.zeros((1, 2)), None],
        "maxima_starts": np.array([[0, 1], [0, 0]]),
        "combine": "sum",
        "lower": np.empty(4),
        "upper": np.empty(4),
    }


READ_ONLY = np.empty(4)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"rows": [b"\xe4"]}, ValueError, "`rows` must have 2 items.*got 1"),
        ({"rows": b"\xe4\x1b"}, TypeError, "list or tuple"),
        ({"rows": [b"\xe4", b""]}, ValueError, r"`rows\[1\]` must have at least 1 bytes, got 0"),
        ({"rows": [b"\xe4", 5]}, TypeError, r"`rows\[1\]`.*got int"),
        ({"n_neurons": 0}, ValueError, "`n_neurons`"),
        ({"row_group": 0}, ValueError, "`row_group`"),
        ({"row_group": 2}, ValueError, "`maxima_starts` must have shape"),
        ({"n_inputs": -1}, ValueError, "`n_inputs`"),
        ({"n_inputs": 2**60, "row_group": 1}, ValueError, ""),
        ({"n_bits": 0}, ValueError, "`n_bits`"),
        ({"n_bits": 3}, ValueError, r"`tables` must have shape \(2, 8, 2\), got \(2, 4, 2\)"),
        ({"tables": np.zeros((2, 4, 2), np.float32)}, TypeError, "float64, got float32"),
        ({"tables": np.zeros((1, 4, 2))}, ValueError, "`tables`"),
        ({"maxima_terms": [None]}, ValueError, "one item per neuron, 2, got 1"),
        ({"maxima_terms": 3}, TypeError, "`maxima_terms`"),
        ({"maxima_terms": [np.zeros((1, 3)), None]}, ValueError, r"shape \(m, 2\)"),
        ({"maxima_terms": [np.zeros(2), None]}, ValueError, r"`maxima_terms\[0\]` must have 2 axes"),
        ({"maxima_terms": [np.zeros((0, 2)), None]}, ValueError, r"ascend inside \[0, 0\]"),
        ({"maxima_starts": None}, ValueError, "`maxima_starts` is needed"),
        ({"maxima_starts": np.array([[1, 0], [0, 0]])}, ValueError, "ascend"),
        ({"maxima_starts": np.array([[-1, 0], [0, 0]])}, ValueError, "ascend"),
        ({"maxima_starts": np.array([[0, 2], [0, 0]])}, ValueError, "ascend"),
        ({"maxima_starts": np.zeros((2, 3), np.int64)}, ValueError, r"shape \(2, 2\), got \(2, 3\)"),
        ({"maxima_starts": np.zeros((2, 2), np.int32)}, TypeError, "int64"),
        ({"rows": [b"\x00", b"\x1b"]}, ValueError, "neuron 0 .* has 0 inputs with code 3 .* expected 1"),
        ({"rows": [b"\xff", b"\x1b"]}, ValueError, "neuron 0 .* has 4 inputs with code 3 .* expected 1"),
        ({"combine": "mean"}, ValueError, "'sum', 'min' or 'max', got 'mean'"),
        ({"lower": np.empty(3)}, ValueError, "`lower` must have 4 elements, got 3"),
        ({"upper": np.empty(4, np.float32)}, TypeError, "`upper`"),
        ({"upper": READ_ONLY}, ValueError, "`upper` must be writeable"),
        ({"threads": -1}, ValueError, "`threads`"),
    ],
)
def test_bad_code_bounds(change: dict[str, Any], error: type[Exception], match: str) -> None:
    _core.code_bounds(**code_arguments())
    with pytest.raises(error, match=match or None):
        _core.code_bounds(**{**code_arguments(), **change})


def test_a_refused_call_lets_go_of_what_it_took() -> None:
    row = bytearray(b"\xe4")
    with pytest.raises(TypeError, match=r"`rows\[1\]`"):
        _core.code_bounds(**{**code_arguments(), "rows": [row, 5]})
    row.append(0)  # a BufferError while anybody holds its bytes


def value_arguments() -> dict[str, Any]:
    return {
        "columns": [bytes(16), bytes(16)],
        "n_neurons": 2,
        "row_group": 4,
        "n_inputs": 4,
        "dtype": "float32",
        "term": "abs_diff",
        "combine": "sum",
        "targets": np.zeros(2),
        "weights": np.ones(2),
        "scores": np.empty(4),
    }


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"columns": [bytes(16), bytes(15)]}, ValueError, r"`columns\[1\]` must have at least 16 bytes, got 15"),
        ({"columns": np.zeros((3, 4), np.float32)}, ValueError, "`columns` must have 2 rows, got 3"),
        ({"columns": np.zeros((2, 3), np.float32)}, ValueError, r"`columns\[0\]` must have at least 16 bytes, got 12"),
        ({"columns": np.zeros((2, 8), np.float32)[:, ::2]}, TypeError, "`columns` must be a C-contiguous array"),
        ({"columns": np.zeros((4, 2), np.float32).T}, TypeError, "`columns` must be a C-contiguous array"),
        ({"columns": np.float32(1)}, TypeError, "`columns` must be a list or tuple"),
        ({"dtype": "int8"}, ValueError, "`dtype`.*got 'int8'"),
        ({"term": "cosine"}, ValueError, "`term`.*got 'cosine'"),
        ({"targets": None}, ValueError, "`target` is needed"),
        ({"term": "value"}, ValueError, "`target` has no meaning"),
        ({"targets": np.zeros(3)}, ValueError, "`targets` must have one element per neuron, 2, got 3"),
        ({"targets": np.array([0, np.nan])}, ValueError, "`target` must be finite"),
        ({"weights": np.array([np.inf, 0])}, ValueError, "`weight` must be finite"),
        ({"weights": np.ones(2, np.int64)}, TypeError, "`weights`"),
        ({"scores": np.empty(3)}, ValueError, "`scores` must have 4 elements, got 3"),
        ({"scores": READ_ONLY}, ValueError, "`scores` must be writeable"),
    ],
)
def test_bad_value_scores(change: dict[str, Any], error: type[Exception], match: str) -> None:
    _core.value_scores(**value_arguments())
    with pytest.raises(error, match=match):
        _core.value_scores(**{**value_arguments(), **change})


def test_bad_terms() -> None:
    one = np.zeros(3)
    anything: Any = _core
    bad: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: term_table("mean", one, one), ValueError, "`term`"),
        (lambda: term_table("value", one, np.zeros(2)), ValueError, "one length, got 3 and 2"),
        (lambda: term_table("value", one, one.astype(np.float32)), TypeError, "`values_upper`"),
        (lambda: term_table("value", one.astype(int), one), TypeError, "`values_lower`"),
        (lambda: term_table("abs_diff", one, one), ValueError, "`target` is needed"),
        (lambda: term_table("value", one, one, 1.0), ValueError, "no meaning"),
        (lambda: term_table("value", one, one, None, INF), ValueError, "`weight`"),
        (lambda: _core.term_tables("value", one, one, np.array([0, 2])), ValueError, "`starts`"),
        (lambda: _core.term_tables("value", one, one, np.array([0, 2, 1, 3])), ValueError, "`starts`"),
        (lambda: _core.term_tables("value", one, one, np.array([], dtype=np.int64)), ValueError, "`starts`"),
        (lambda: _core.term_tables("value", one, one, np.array([0, 3]), None, np.zeros(2)), ValueError, "`weights`"),
        (lambda: _core.combine_terms(np.zeros((0, 3)), "sum"), ValueError, "at least one row"),
        (lambda: _core.combine_terms(np.zeros(3), "sum"), ValueError, "2 axes"),
        (lambda: anything.combine_terms(np.zeros((2, 3)), "l2"), ValueError, "`combine`"),
    ]
    for call, error, match in bad:
        with pytest.raises(error, match=match):
            call()
