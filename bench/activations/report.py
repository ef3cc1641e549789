"""How much the bench over activations measures, and what its sections add their tables, goals and records to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.report import Gathered

__all__ = ["SIZES", "Report", "Size"]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        name: "small" (a smoke test, not worth quoting), "standard" or "full".
        digits: inputs of the digits workload.
        many_digits: inputs of the large digits workload; 0 leaves it out.
        sentences: of the text workload; None for all.
        text_epochs: of the encoder's training.
        groups: sizes of groups.
        n_queries: per cell.
        many_queries: per cell of the large digits workload.
        recompute_repeats: timings of recomputing, per layer.
        many_repeats: the same for the large digits workload.
        n_session: queries of the session.
        build_repeats: timings of a build, each next to one of the plain forward passes.
        memory_neurons: of the layer whose build's memory is measured.
        bounds_inputs: inputs over which group bounds are timed.
    """

    name: str
    digits: int
    many_digits: int
    sentences: int | None
    text_epochs: float
    groups: tuple[int, ...]
    n_queries: int
    many_queries: int
    recompute_repeats: int
    many_repeats: int
    n_session: int
    build_repeats: int
    memory_neurons: int
    bounds_inputs: int


SIZES = {
    "small": Size("small", 2_000, 0, 400, 0.02, (1, 3, 10), 2, 0, 1, 0, 12, 1, 50_000, 100_000),
    "standard": Size("standard", 10_000, 100_000, None, 2.0, (1, 3, 10, 50), 20, 20, 5, 5, 200, 3, 400_000, 1_000_000),
    "full": Size("full", 10_000, 100_000, None, 2.0, (1, 3, 10, 50), 20, 20, 5, 5, 200, 5, 400_000, 1_000_000),
}


class Report(Gathered):
    """What the sections of this bench add to.

    Args:
        size: how much is measured.
        data: the folder of captures, databases and results.
    """

    def __init__(self, size: Size, data: Path) -> None:
        super().__init__("bench.activations.run", size.name, data)
        self.size = size
