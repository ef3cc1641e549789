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
    largest = -(-shape[0] // GRID) * -(-shape[1] // GRID)
    step = max(1, -(-largest // 255))
    least = most = 0
    for c in range(N_CELLS):
        y = [(c // GRID + k) * shape[0] // GRID for k in (0, 1)]
        x = [(c % GRID + k) * shape[1] // GRID for k in (0, 1)]
        area = (y[1] - y[0]) * (x[1] - x[0])
        overlap = max(0, min(y[1], box[3]) - max(y[0], box[1])) * max(0, min(x[1], box[2]) - max(x[0], box[0]))
        most_of = [0 if row is None else min(area, int(row[m, c]) * step) for row in rows]
        least_of = [0 if row is None else min(area, max(0, int(row[m, c]) * step - step + 1)) for row in rows]
        least += max(0, max(0, least_of[1] - most_of[2]) - (area - overlap))
        most += min(max(0, most_of[0] - least_of[3]), overlap)
    return float(least), float(most)


def blocks_of(row: npt.NDArray[np.uint8] | None, n_masks: int) -> list[npt.NDArray[np.uint8] | None]:
    return [None if row is None else row[i : i + BLOCK] for i in range(0, n_masks, BLOCK)]


@pytest.mark.parametrize("range_", ["low", "low_high"])
@pytest.mark.parametrize("boxes_are", ["one", "whole", "own"])
@pytest.mark.parametrize("size", [28, 224, 448, 3000, "mixed"])
def test_count_bounds(benchmark: Any, note: Any, sized: Any, size: int | str, boxes_are: str, range_: str) -> None:
    rng, n_masks = np.random.default_rng(1), sized(N_MASKS)
    shapes = np.array([[224, 224] if size == "mixed" else [size, size]], np.int32)
    if size == "mixed":
        shapes = rng.integers(200, 300, (n_masks, 2)).astype(np.int32)
    side = int(shapes.min())
    start = rng.integers(0, side // 2, (n_masks, 2))
    boxes = np.concatenate([start, start + rng.integers(side // 8, side // 2, (n_masks, 2))], axis=1).astype(np.int32)
    if boxes_are == "one":
        boxes = np.array([[side // 5, side // 4, side * 7 // 10, side * 4 // 5]], np.int32)
    elif boxes_are == "whole":
        boxes = np.array([[0, 0, 10_000, 10_000]], np.int32)
    # From the fewest pixels at or above an edge to the most.
    stack = np.sort(rng.integers(0, 200, (4, n_masks, N_CELLS)).astype(np.uint8), axis=0)
    rows: list[npt.NDArray[np.uint8] | None] = [stack[3], stack[2], stack[1], stack[0]]
    if range_ == "low":
        rows[2:] = [None, None]
    lower, upper = np.empty(n_masks), np.empty(n_masks)

    calls = []
    for k, block in enumerate(zip(*(blocks_of(row, n_masks) for row in rows), strict=True)):
        own = slice(k * BLOCK, (k + 1) * BLOCK)
        own_shapes = shapes if len(shapes) == 1 else shapes[own]
        own_boxes = boxes if len(boxes) == 1 else boxes[own]
        calls.append((GRID, own_shapes, *block, own_boxes, lower[own], upper[own]))

    def run() -> None:
        for arguments in calls:
            _core.count_bounds(*arguments, threads=1)

    run()
    for m in [*range(0, n_masks, n_masks // 40 + 3), n_masks - 1]:
        shape = shapes[m if len(shapes) > 1 else 0].tolist()
        box = boxes[m if len(boxes) > 1 else 0].tolist()
        assert (lower[m], upper[m]) == expected(shape, rows, box, m)
    benchmark.pedantic(run, rounds=5)
    note(ns_per_mask=lambda s: s / n_masks * 1e9)
