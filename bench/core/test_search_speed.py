"""Speed of the bounded search (design.md, section 3): 1,000,000 candidates, k = 20, ns per candidate.

Run: `pytest bench/core`. The answer is checked before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from neuralartifactdb import _core

N, K = 1_000_000, 20


def search(truth: npt.NDArray[np.float64], width: float, block: int = 65_536) -> tuple[npt.NDArray[np.int64], int]:
    """Runs a whole search; returns the ids found and how many were refined."""
    bounded = _core.BoundedSearch(K)
    ids = np.arange(len(truth))
    for begin in range(0, len(truth), block):
        own = truth[begin : begin + block]
        bounded.offer(ids[begin : begin + block], own - width, own + width)
    while len(wave := bounded.next_wave(64, 1024)):
        bounded.refine(wave, truth[wave], truth[wave])
    return bounded.result()[0], bounded.refined_count


@pytest.mark.parametrize("order", ["random", "best last", "best first"])
@pytest.mark.parametrize("width", [0.0, 0.1, 2.0, 50.0], ids=["exact", "narrow", "wide", "hopeless"])
def test_search(benchmark: Any, note: Any, sized: Any, order: str, width: float) -> None:
    truth = np.random.default_rng(4).standard_normal(sized(N))
    every_id = np.arange(len(truth))
    if order != "random":
        truth = np.sort(truth) if order == "best last" else -np.sort(-truth)
    expected = np.lexsort((every_id, -truth))[:K]
    if width == 50.0:  # every candidate stays open: time the offers, the first wave and the plan alone
        lower, upper = truth - width, truth + width

        def first_wave() -> int:
            bounded = _core.BoundedSearch(K)
            bounded.offer(every_id, lower, upper)
            return len(bounded.next_wave(64, 1024))

        assert first_wave() == 64
        benchmark.pedantic(first_wave, rounds=5)
    else:
        ids, n_refined = search(truth, width)
        assert (ids == expected).all()
        must = int((truth + width > truth[expected[-1]]).sum()) if width else 0
        assert n_refined <= must + 64
        benchmark.pedantic(search, (truth, width), rounds=5)
    note(ns_per_candidate=lambda s: s / len(truth) * 1e9)
