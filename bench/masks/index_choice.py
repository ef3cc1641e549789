"""Which grid and how many edges read the fewest masks at the same bytes: the measurement behind `masks/grid.py`.

Run with `python -m bench.masks.index_choice`. Indexes of several shapes are built over the same generated maps and
asked the paper's queries; counted is what no search with their bounds could leave unread. The table is in
docs/ARCHITECTURE.md, section "Masks".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.masks.queries import KINDS, Question, scored
from bench.masks.workloads import Workload
from bench.tables import Table
from neuralartifactdb import _core
from neuralartifactdb.masks.batch import CollectionMeta
from neuralartifactdb.masks.grid import SAMPLE_MASKS, choose_index, index_budget

__all__ = ["GRIDS", "Histograms", "edges_of", "main", "masks_read", "measure"]

GRIDS = (4, 5, 6, 7, 8, 9, 10, 12, 16)
_KINDS = KINDS[:3]
_META = CollectionMeta("bench", "uint8", (0.0, 255.0))


class Histograms:
    """A histogram index over all masks of a workload.

    Args:
        workload: the masks.
        grid: cells along each axis.
        edges: ascending values.
    """

    def __init__(self, workload: Workload, grid: int, edges: Sequence[float]) -> None:
        self.grid = grid
        self.edges = np.array(edges, dtype=np.float64)
        self._shape = np.array([[workload.side, workload.side]], dtype=np.int32)
        parts = []
        for _, pixels in workload.chunks():
            rows = np.empty((len(edges), len(pixels), grid * grid), dtype=np.uint8)
            shapes = np.tile(self._shape, (len(pixels), 1))
            _core.mask_histograms(list(pixels), "uint8", shapes, self.edges, grid, None, rows)
            parts.append(rows)
        self._rows = np.concatenate(parts, axis=1)

    def bounds(self, boxes: NDArray[np.int32], low: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of how many pixels of each mask's box are at least `low`, float64[n] twice."""
        n = self._rows.shape[1]
        below = int(np.searchsorted(self.edges, low, side="right")) - 1
        above = int(np.searchsorted(self.edges, low, side="left"))
        upper_row: Any = self._rows[below].data if below >= 0 else None
        lower_row: Any = self._rows[above].data if above < len(self.edges) else b""
        lower, upper = np.empty(n), np.empty(n)
        _core.count_bounds(self.grid, self._shape, upper_row, lower_row, None, None, boxes, lower, upper, threads=1)
        return lower, upper


def edges_of(workload: Workload, n_edges: int, kind: str) -> tuple[float, ...]:
    """Edges of equal width over 0..255 ("width"), of equal depth among pixels above 0 ("depth"), or in the middle."""
    share = np.arange(1, n_edges + 1) / (n_edges + 1)
    width = np.ceil(256 * share)
    values = np.asarray(workload.pixels()[:: max(workload.n_masks // SAMPLE_MASKS, 1)]).reshape(-1)
    depth = np.maximum(np.quantile(values[values > 0][::7], share), 1)
    chosen = {"width": width, "depth": depth, "middle": (width + depth) / 2}[kind]
    return tuple(np.unique(np.round(chosen)).tolist())


def masks_read(index: Histograms, workload: Workload, question: Question, scores: NDArray[np.float64]) -> int:
    """Masks that any search with the bounds of this index must read; the bounds are checked against the scores."""
    boxes = workload.boxes if question.box is None else np.array([question.box], dtype=np.int32)
    lower, upper = index.bounds(boxes, question.low)
    if not question.is_filter:
        areas = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float64)
        lower, upper = lower / areas, upper / areas
    if not ((lower <= scores) & (scores <= upper)).all():
        raise AssertionError(f"bounds of {question} do not hold the exact scores")
    if question.is_filter:
        return int(((lower <= question.threshold) & (upper > question.threshold)).sum())
    if not question.largest:
        lower, upper, scores = -upper, -lower, -scores
    best = np.sort(scores)[-question.k]
    return int(((upper > best) & (lower < upper)).sum())


def measure(workload: Workload, n_queries: int) -> Table:
    """The table for one workload, at the bytes that the default budget gives."""
    sample = [np.asarray(mask) for mask in workload.pixels()[:: max(workload.n_masks // SAMPLE_MASKS, 1)]]
    n_bytes = index_budget(sample, 0.05)
    choice = choose_index(sample, _META)
    asked = [asked for kind in _KINDS for asked in scored(workload, kind, n_queries)]
    table = Table(
        f"Masks read by shape of index, {workload.name}",
        f"{n_bytes} bytes a mask; {n_queries} queries a kind; mean (median) share of masks for filters, "
        "mean (worst) number of masks for top-25 by ratio; * is what is chosen",
        ("grid", "edges", "spacing", "bytes", *_KINDS),
    )
    for grid, kind in _shapes(n_bytes, choice.grid):
        edges = choice.edges if kind == "chosen" else edges_of(workload, n_bytes // grid**2, kind)
        index = Histograms(workload, grid, edges)
        read: dict[str, list[int]] = {name: [] for name in _KINDS}
        for question, scores in asked:
            read[question.kind].append(masks_read(index, workload, question, scores))
        shares = [np.array(read[name]) / workload.n_masks for name in _KINDS[:2]]
        top = np.array(read[_KINDS[2]])
        table.add(
            f"{grid} x {grid}{' *' if kind == 'chosen' else ''}",
            len(edges),
            "width" if kind == "chosen" else kind,
            len(edges) * grid**2,
            *(f"{share.mean():.3f} ({np.median(share):.3f})" for share in shares),
            f"{top.mean():.0f} ({top.max()})",
        )
    return table


def _shapes(n_bytes: int, chosen: int) -> Iterator[tuple[int, str]]:
    """Grids and spacings to measure."""
    for grid in sorted({*GRIDS, chosen}):
        if grid**2 <= n_bytes:
            yield grid, "chosen" if grid == chosen else "width"
    yield chosen, "middle"
    yield chosen, "depth"


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.masks.index_choice", description=__doc__)
    parser.add_argument("--masks", type=int, default=1_500)
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 448])
    parser.add_argument("--queries", type=int, default=60, help="of each kind")
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="generated maps are kept here")
    options = parser.parse_args(arguments)
    for side in options.sides:
        table = measure(Workload(options.masks, side, options.data), options.queries)
        sys.stdout.write(table.to_text() + "\n\n" + table.to_markdown() + "\n\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
