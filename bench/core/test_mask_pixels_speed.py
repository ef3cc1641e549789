"""Speed of what touches every pixel (design.md, section 5): histograms, exact counts, the check on append; one thread.

Reported in GB of pixels per second. Run: `pytest bench/core`. Answers are checked against NumPy before they are timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from neuralartifactdb import _core

DTYPES = ["uint8", "uint16", "float16", "float32"]
N_BYTES = 64_000_000


def make_masks(dtype: str, size: int, n_bytes: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(3)
    n = max(2, n_bytes // (size * size * np.dtype(dtype).itemsize))
    if dtype.startswith("uint"):
        return rng.integers(0, int(np.iinfo(dtype).max) + 1, (n, size, size)).astype(dtype)
    return rng.random((n, size, size), np.float32).astype(dtype)


def spread(dtype: str, share: float) -> float:
    top = float(np.iinfo(dtype).max) if dtype.startswith("uint") else 1.0
    return float(np.dtype(dtype).type(share * top))


def shapes_of(masks: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    return np.full((len(masks), 2), masks.shape[1], np.int32)


@pytest.mark.parametrize("n_edges", [8, 16, 64])
@pytest.mark.parametrize("size", [28, 224, 448])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_histograms(benchmark: Any, note: Any, sized: Any, dtype: str, size: int, n_edges: int) -> None:
    masks, grid = make_masks(dtype, size, sized(N_BYTES)), 8
    edges = np.unique([spread(dtype, (e + 1) / (n_edges + 1)) for e in range(n_edges)])
    out = np.empty((len(edges), len(masks), grid * grid), np.uint8)
    arguments = (list(masks), dtype, shapes_of(masks), edges, grid, None, out)
    _core.mask_histograms(*arguments, threads=1)
    step = max(1, -(-((-(-size // grid)) ** 2) // 255))
    for m in (0, len(masks) - 1):
        for e, edge in enumerate(edges):
            for c in range(grid * grid):
                y = [(c // grid + k) * size // grid for k in (0, 1)]
                x = [(c % grid + k) * size // grid for k in (0, 1)]
                n = int((masks[m, y[0] : y[1], x[0] : x[1]] >= edge).sum())
                assert out[e, m, c] == -(-n // step)
    benchmark.pedantic(_core.mask_histograms, arguments, {"threads": 1}, rounds=3)
    note(GB_per_s=lambda s: masks.nbytes / s / 1e9)


@pytest.mark.parametrize("where", ["rows", "box", "narrow"])
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "memory"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_count_pixels(benchmark: Any, note: Any, sized: Any, dtype: str, cached: bool, where: str) -> None:
    masks = make_masks(dtype, 224, 1_000_000 if cached else sized(4 * N_BYTES))
    n = len(masks)
    x0, x1 = {"rows": (0, 224), "box": (30, 151), "narrow": (100, 110)}[where]
    low, high = spread(dtype, 0.3), spread(dtype, 0.8)
    sizes = [np.full(n, v, np.int32) for v in (224, x0, x1, 224)]
    arguments = (list(masks), dtype, *sizes, low, high, None)
    counts = _core.count_pixels(*arguments, threads=1)
    region = masks[:, :, x0:x1]
    assert (counts == ((region >= low) & (region < high)).sum(axis=(1, 2))).all()
    benchmark.pedantic(_core.count_pixels, arguments, {"threads": 1}, rounds=20 if cached else 3, warmup_rounds=2)
    note(GB_per_s=lambda s: region.nbytes / s / 1e9, ns_per_mask=lambda s: s / n * 1e9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_check_pixels(benchmark: Any, note: Any, sized: Any, dtype: str) -> None:
    masks = make_masks(dtype, 224, sized(N_BYTES))
    top = spread(dtype, 1.0)
    masks[0, 0, 0] = 0
    arguments = (list(masks), dtype, shapes_of(masks), 0.0, top, None)
    assert _core.check_pixels(*arguments, threads=1) is None
    assert _core.check_pixels(*arguments[:3], spread(dtype, 0.5), top, None, threads=1) == (0, 0, 0, 0)
    benchmark.pedantic(_core.check_pixels, arguments, {"threads": 1}, rounds=3)
    note(GB_per_s=lambda s: masks.nbytes / s / 1e9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_count_joint(benchmark: Any, note: Any, sized: Any, dtype: str) -> None:
    masks = make_masks(dtype, 224, sized(N_BYTES // 4))
    n = len(masks) // 2
    sizes = [np.full(n, v, np.int32) for v in (224, 20, 200, 224)]
    starts = np.arange(0, 2 * n + 1, 2, dtype=np.int64)
    low = spread(dtype, 0.4)
    ends = (np.full(2 * n, low), np.full(2 * n, np.inf), np.zeros(2 * n), np.zeros(2 * n, np.bool_))
    arguments = (list(masks[: 2 * n]), [dtype] * (2 * n), starts, *sizes, *ends)
    every, some = _core.count_joint(*arguments, threads=1)
    inside = masks[: 2 * n, :, 20:200] >= low
    assert (every == (inside[::2] & inside[1::2]).sum(axis=(1, 2))).all()
    assert (some == (inside[::2] | inside[1::2]).sum(axis=(1, 2))).all()
    benchmark.pedantic(_core.count_joint, arguments, {"threads": 1}, rounds=3)
    note(GB_per_s=lambda s: inside.size * masks.itemsize / s / 1e9)
