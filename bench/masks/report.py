"""How much the bench over masks measures, and what its sections add their tables, goals and records to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.masks.workloads import Workload
from bench.report import Gathered

__all__ = ["SCANS", "SIZES", "Report", "Size"]

SCANS = ("memory", "map", "read", "duckdb", "tiledb", "tiledb-zstd", "postgres")
"""Full scans: NumPy over an array in memory, mapped, or read anew; the others over their own files."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        name: "small" (a smoke test, not worth quoting), "standard" or "full".
        sets: (masks, side in pixels) of each workload.
        n_queries: per kind, for ours and the paper's algorithm.
        scan_queries: per kind, for the full scans.
        cold_queries: per kind, for ours.
        cold_scan_queries: per kind, for the full scans.
        n_session: queries of the session over masks seen before and new ones.
        bounds_masks: over which the bounds alone are timed.
        build_repeats: timings of a build, each next to one of writing the pixels.
        limit_queries: per filter, whose masks are read by nothing but the reads themselves.
        keeps_loaded: whether the databases of competitors are kept for the next run.
    """

    name: str
    sets: tuple[tuple[int, int], ...]
    n_queries: int
    scan_queries: int
    cold_queries: int
    cold_scan_queries: int
    n_session: int
    bounds_masks: int
    build_repeats: int
    limit_queries: int
    keeps_loaded: bool = True


SIZES = {
    "small": Size("small", ((2_000, 56),), 5, 2, 2, 1, 20, 50_000, 1, 2),
    "standard": Size("standard", ((2_000, 224), (2_000, 448)), 100, 5, 10, 3, 200, 1_000_000, 3, 20),
    "full": Size("full", ((22_275, 448), (100_000, 224)), 100, 5, 20, 3, 200, 1_000_000, 3, 20, False),
}


class Report(Gathered):
    """What the sections of this bench add to.

    Args:
        size: how much is measured.
        data: the folder of data, databases and results.
        scans: which full scans take part, of `SCANS`.
    """

    def __init__(self, size: Size, data: Path, scans: tuple[str, ...] = SCANS) -> None:
        super().__init__("bench.masks.run", size.name, data)
        self.size = size
        self.scans = scans

    @property
    def workloads(self) -> list[Workload]:
        """Those of this size."""
        return [Workload(n, side, self.data / "masks") for n, side in self.size.sets]
