"""Speed of choosing edges from a sample (design.md, section 4, 1): 4,096 sampled inputs, one thread, ns per value.

Run: `pytest bench/core`. The answer is checked before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuralartifactdb import _core

N_SAMPLE, N_NEURONS, BITS, TOP = 4096, 1024, 6, 40


@pytest.mark.parametrize("kind", ["relu", "normal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_choose_edges(benchmark: Any, note: Any, sized: Any, kind: str, dtype: str) -> None:
    sample = np.random.default_rng(0).standard_normal((N_SAMPLE, sized(N_NEURONS))).astype(dtype)
    if kind == "relu":
        sample = np.maximum(sample, 0)
    edges = _core.choose_edges(sample, BITS, TOP, threads=1)
    assert (np.sort(sample, axis=0)[-TOP] == edges[:, -1]).all()
    if kind == "relu":
        assert (edges[:, 0] == np.nextafter(np.array(0, dtype), np.array(1, dtype))).all()
    benchmark(_core.choose_edges, sample, BITS, TOP, threads=1)
    note(ns_per_value=lambda s: s / sample.size * 1e9)
