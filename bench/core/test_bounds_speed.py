"""Speed of the bounds of a group (design.md, section 4, 3): both ends, 1,000,000 inputs, ten neurons, one thread.

Reported in ns per input and neuron. Run: `pytest bench/core`. The answer is checked before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuralartifactdb import _core

N_INPUTS, N_NEURONS = 1_000_000, 10


@pytest.mark.parametrize("combine", ["sum", "max"])
@pytest.mark.parametrize("maxima", [False, True], ids=["table", "maxima"])
@pytest.mark.parametrize("bits", [4, 6, 8, 10])
def test_code_bounds(benchmark: Any, note: Any, sized: Any, bits: int, maxima: bool, combine: str) -> None:
    rng = np.random.default_rng(2)
    n_inputs, n_partitions, row_group = sized(N_INPUTS), 2**bits, 4096 * 8 // bits
    row_group -= row_group % 8
    n_groups = -(-n_inputs // row_group)
    rows = [rng.integers(0, 256, row_group * bits // 8, dtype=np.uint8) for _ in range(n_groups * N_NEURONS)]
    tables = np.sort(rng.standard_normal((N_NEURONS, n_partitions, 2)), axis=2)
    sizes = [min(row_group, n_inputs - r * row_group) for r in range(n_groups)]
    codes = np.stack(
        [
            np.concatenate([_core.decode(rows[r * N_NEURONS + j], sizes[r], bits) for r in range(n_groups)])
            for j in range(N_NEURONS)
        ]
    )
    terms: list[Any] | None = None
    starts = None
    expected = tables[np.arange(N_NEURONS)[:, None], codes]
    if maxima:
        starts = np.zeros((N_NEURONS, n_groups + 1), np.int64)
        terms = []
        ends = np.cumsum(sizes)
        for j in range(N_NEURONS):
            top = codes[j] == n_partitions - 1
            starts[j, 1:] = np.cumsum(top)[ends - 1]
            exact = np.repeat(rng.standard_normal((int(top.sum()), 1)), 2, axis=1)
            terms.append(np.ascontiguousarray(exact))
            expected[j, top] = exact
    total = expected[0]
    for j in range(1, N_NEURONS):
        total = total + expected[j] if combine == "sum" else np.maximum(total, expected[j])
    lower, upper = np.empty(n_inputs), np.empty(n_inputs)
    arguments = (rows, N_NEURONS, row_group, n_inputs, bits, tables, terms, starts, combine, lower, upper)
    _core.code_bounds(*arguments, threads=1)
    assert (lower == total[:, 0]).all()
    assert (upper == total[:, 1]).all()
    benchmark.pedantic(_core.code_bounds, arguments, {"threads": 1}, rounds=7)
    note(ns_per_input_and_neuron=lambda s: s / (n_inputs * N_NEURONS) * 1e9)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("term", ["value", "sq_diff"])
def test_value_scores(benchmark: Any, note: Any, sized: Any, dtype: str, term: str) -> None:
    rng = np.random.default_rng(3)
    n_inputs, row_group = sized(N_INPUTS), 1024
    n_groups = -(-n_inputs // row_group)
    values = rng.standard_normal((n_groups, N_NEURONS, row_group)).astype(dtype)
    columns = [values[r, j] for r in range(n_groups) for j in range(N_NEURONS)]
    targets = rng.standard_normal(N_NEURONS) if term == "sq_diff" else None
    total = np.zeros(n_inputs)
    for j in range(N_NEURONS):
        column = values[:, j].reshape(-1)[:n_inputs].astype(np.float64)
        own = column if targets is None else (column - targets[j]) * (column - targets[j])
        total = own if j == 0 else total + own
    out = np.empty(n_inputs)
    arguments = (columns, N_NEURONS, row_group, n_inputs, dtype, term, "sum", targets, None, out)
    _core.value_scores(*arguments, threads=1)
    assert (out == total).all()
    benchmark.pedantic(_core.value_scores, arguments, {"threads": 1}, rounds=7)
    note(ns_per_input_and_neuron=lambda s: s / (n_inputs * N_NEURONS) * 1e9)
