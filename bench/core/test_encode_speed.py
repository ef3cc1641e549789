"""Speed of encoding (design.md, section 4, 2): codes, partition bounds, packing and maxima, one thread, ns per value.

Run: `pytest bench/core`. The answer is checked before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from neuralartifactdb import _core

N_INPUTS, N_NEURONS, ROW_GROUP = 8192, 4096, 5456
CAP = int(0.035 * N_INPUTS)
Floats = npt.NDArray[np.float32]


def activations(kind: str, n_neurons: int) -> Floats:
    values = np.random.default_rng(1).standard_normal((N_INPUTS, n_neurons), dtype=np.float32)
    return np.maximum(values, 0) if kind == "relu" else values


def append_all(
    encoder: _core.SegmentEncoder | _core.ColumnWriter, values: Floats, batch: int
) -> list[npt.NDArray[np.uint8]]:
    order = np.arange(batch, dtype=np.int32)
    groups = []
    for begin in range(0, N_INPUTS, batch):
        encoder.append(values[begin : begin + batch], None, order)
        while (group := encoder.take_row_group()) is not None:
            groups.append(group)
    return groups


@pytest.mark.parametrize("kind", ["relu", "normal"])
@pytest.mark.parametrize("batch", [64, 256, 1024])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_segment_encoder(benchmark: Any, note: Any, sized: Any, kind: str, batch: int, bits: int) -> None:
    values = activations(kind, sized(N_NEURONS))
    edges = _core.choose_edges(values[:4096], bits, 40)
    encoder = _core.SegmentEncoder(edges, N_INPUTS, ROW_GROUP, CAP, threads=1)
    groups = append_all(encoder, values, batch)
    bounds, _, _ = encoder.finish()
    for j in (0, 31, 32, values.shape[1] - 1):
        codes = np.searchsorted(edges[j], values[:, j], side="right")
        got = [_core.decode(g[j], min(ROW_GROUP, N_INPUTS - i * ROW_GROUP), bits) for i, g in enumerate(groups)]
        assert (np.concatenate(got) == codes).all()
        top = values[codes == codes.max(), j]
        assert bounds[j, codes.max()].tolist() == [top.min(), top.max()]

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (_core.SegmentEncoder(edges, N_INPUTS, ROW_GROUP, CAP, threads=1), values, batch), {}

    benchmark.pedantic(append_all, setup=fresh, rounds=5)
    note(ns_per_value=lambda s: s / values.size * 1e9)


@pytest.mark.parametrize("batch", [64, 256])
def test_column_writer(benchmark: Any, note: Any, sized: Any, batch: int) -> None:
    n_neurons = sized(N_NEURONS)
    values = activations("normal", n_neurons)
    groups = append_all(_core.ColumnWriter(N_INPUTS, ROW_GROUP, n_neurons, "float32", threads=1), values, batch)
    assert (np.concatenate([g.view(np.float32) for g in groups], axis=1) == values.T).all()

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (_core.ColumnWriter(N_INPUTS, ROW_GROUP, n_neurons, "float32", threads=1), values, batch), {}

    benchmark.pedantic(append_all, setup=fresh, rounds=5)
    note(ns_per_value=lambda s: s / values.size * 1e9)
