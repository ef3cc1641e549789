"""How fast the index bounds counts: both ends for every mask, one thread, index in memory and no pixels at all.

Issue 3: at most 100 ns per mask for a constant box and for a box column, at 1,000,000 masks, 8 x 8 cells, 16 edges.
"""

from __future__ import annotations

import time

import numpy as np

from bench.masks.report import Report
from bench.tables import Table
from neuralartifactdb import _core

__all__ = ["run_bounds"]

_GRID, _EDGES, _SIDE = 8, 16, 224
_BLOCK = 2_048
_REPEATS = 5
_AT_MOST_NS = 100.0


def run_bounds(report: Report) -> None:
    """Times generated index blocks, laid out as in a segment: edge after edge, inside an edge mask after mask."""
    n = report.size.bounds_masks
    rng = np.random.default_rng(0)
    blocks = []
    for first in range(0, n, _BLOCK):
        held = rng.integers(0, 256, (_EDGES, min(_BLOCK, n - first), _GRID * _GRID), dtype=np.uint8)
        blocks.append(-np.sort(-held, axis=0))  # cumulative: fewer pixels at higher edges
    shapes = np.full((1, 2), _SIDE, dtype=np.int32)
    corners = rng.integers(0, _SIDE // 2, (n, 2), dtype=np.int32)
    column = np.concatenate([corners, corners + rng.integers(20, _SIDE // 2, (n, 2), dtype=np.int32)], axis=1)
    table = Table(
        "Bounds of a count",
        f"{n:,} masks, {_GRID} x {_GRID} cells, {_EDGES} edges, generated; low between two edges; one thread, "
        f"best of {_REPEATS}; nanoseconds per mask.",
        ("region", "ns per mask"),
    )
    for region, boxes in (("constant box", np.array([[30, 50, 150, 170]], dtype=np.int32)), ("box column", column)):
        best = min(_seconds(blocks, shapes, boxes) for _ in range(_REPEATS)) / n * 1e9
        table.add(region, f"{best:.1f}")
        report.goal(f"bounds, {region}: <= 100 ns per mask", f"{best:.1f} ns", best <= _AT_MOST_NS)
    report.tables.append(table)


def _seconds(blocks: list[np.ndarray], shapes: np.ndarray, boxes: np.ndarray) -> float:
    lower, upper = np.empty(_BLOCK), np.empty(_BLOCK)
    start, first = time.perf_counter(), 0
    for block in blocks:
        n = block.shape[1]
        part = boxes if len(boxes) == 1 else boxes[first : first + n]
        first += n
        _core.count_bounds(_GRID, shapes, block[7], block[8], None, None, part, lower[:n], upper[:n], threads=1)
    return time.perf_counter() - start
