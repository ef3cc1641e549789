"""Speed of the bounds of a count (design.md, section 5, "Bounds"): 8 x 8 cells, 200,000 masks, one thread.

Reported in ns per mask. Run: `pytest bench/core`. Some masks are checked against the formula before anything is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from neuralartifactdb import _core

N_MASKS, GRID, BLOCK = 200_000, 8, 2048
N_CELLS = GRID * GRID


def expected(
    shape: tuple[int, int], rows: list[npt.NDArray[np.uint8] | None], box: list[int], m: int
) -> tuple[float, float]:
    step = -(-shape[0] // GRID) * -(-shape[1] // GRID) // 256 + 1
    least = most = 0
    for c in range(N_CELLS):
        y = [(c // GRID + k) * shape[0] // GRID for k in (0, 1)]
        x = [(c % GRID + k) * shape[1] // GRID for k in (0, 1)]
        area = (y[1] - y[0]) * (x[1] - x[0])
        overlap = max(0, min(y[1], box[3]) - max(y[0], box[1])) * max(0, min(x[1], box[2]) - max(x[0], box[0]))
        q = [0 if row is None else int(row[m, c]) * step for row in rows]
        upper = [0 if row is None else min(area, n + step - 1) for row, n in zip(rows, q, strict=True)]
        least += max(0, max(0, min(area, q[1]) - upper[2]) - (area - overlap))
        most += min(max(0, upper[0] - min(area, q[3])), overlap)
    return float(least), float(most)


def blocks_of(row: npt.NDArray[np.uint8] | None) -> list[npt.NDArray[np.uint8] | None]:
    return [None if row is None else row[i : i + BLOCK] for i in range(0, N_MASKS, BLOCK)]


@pytest.mark.parametrize("range_", ["low", "low_high"])
@pytest.mark.parametrize("boxes_are", ["one", "whole", "own"])
@pytest.mark.parametrize("size", [28, 224, 448, 3000, "mixed"])
def test_count_bounds(benchmark: Any, size: int | str, boxes_are: str, range_: str) -> None:
    rng = np.random.default_rng(1)
    shapes = np.array([[224, 224] if size == "mixed" else [size, size]], np.int32)
    if size == "mixed":
        shapes = rng.integers(200, 300, (N_MASKS, 2)).astype(np.int32)
    side = int(shapes.min())
    start = rng.integers(0, side // 2, (N_MASKS, 2))
    boxes = np.concatenate([start, start + rng.integers(side // 8, side // 2, (N_MASKS, 2))], axis=1).astype(np.int32)
    if boxes_are == "one":
        boxes = np.array([[side // 5, side // 4, side * 7 // 10, side * 4 // 5]], np.int32)
    elif boxes_are == "whole":
        boxes = np.array([[0, 0, 10_000, 10_000]], np.int32)
    # From the fewest pixels at or above an edge to the most.
    stack = np.sort(rng.integers(0, 200, (4, N_MASKS, N_CELLS)).astype(np.uint8), axis=0)
    rows: list[npt.NDArray[np.uint8] | None] = [stack[3], stack[2], stack[1], stack[0]]
    if range_ == "low":
        rows[2:] = [None, None]
    lower, upper = np.empty(N_MASKS), np.empty(N_MASKS)

    calls = []
    for k, block in enumerate(zip(*(blocks_of(row) for row in rows), strict=True)):
        own = slice(k * BLOCK, (k + 1) * BLOCK)
        own_shapes = shapes if len(shapes) == 1 else shapes[own]
        own_boxes = boxes if len(boxes) == 1 else boxes[own]
        calls.append((GRID, own_shapes, *block, own_boxes, lower[own], upper[own]))

    def run() -> None:
        for arguments in calls:
            _core.count_bounds(*arguments, threads=1)

    run()
    for m in [*range(0, N_MASKS, 5003), N_MASKS - 1]:
        shape = shapes[m if len(shapes) > 1 else 0].tolist()
        box = boxes[m if len(boxes) > 1 else 0].tolist()
        assert (lower[m], upper[m]) == expected(shape, rows, box, m)
    benchmark.pedantic(run, rounds=5)
    benchmark.extra_info["ns_per_mask"] = benchmark.stats["median"] / N_MASKS * 1e9
