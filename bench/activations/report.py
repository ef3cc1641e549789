"""What a run of the bench gathers: sizes in, tables, goals and records out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.activations.measure import Record
from bench.activations.tables import Table, machine

__all__ = ["SIZES", "Goal", "Report", "Size"]


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
    "standard": Size("standard", 10_000, 100_000, None, 2.0, (1, 3, 10, 50), 20, 5, 5, 1, 200, 3, 400_000, 1_000_000),
    "full": Size("full", 10_000, 100_000, None, 2.0, (1, 3, 10, 50), 20, 20, 5, 5, 200, 5, 400_000, 1_000_000),
}


@dataclass(frozen=True)
class Goal:
    """Something that issue 2 asks for.

    Attributes:
        what: in words, with the number to reach.
        measured: what was found.
        met: whether it was reached; None where this size of the bench cannot say.
    """

    what: str
    measured: str
    met: bool | None


@dataclass
class Report:
    """Gathers the results of the sections.

    Args:
        size: how much is measured.
        data: the folder of captures, databases and results.
    """

    size: Size
    data: Path
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """Where databases of this run are made."""
        path = self.data / "databases"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def goal(self, what: str, measured: str, met: bool) -> None:
        """Notes a goal; a small run is too small to judge it."""
        self.goals.append(Goal(what, measured, None if self.size.name == "small" else met))

    def goals_table(self) -> Table:
        """The goals as a table."""
        table = Table("Goals", "Each number is explained by a table below.", ("goal", "measured", "met"))
        for goal in self.goals:
            table.add(goal.what, goal.measured, "not judged" if goal.met is None else "yes" if goal.met else "NO")
        return table

    def to_markdown(self, sections: Sequence[str]) -> str:
        """The whole report."""
        facts = ", ".join(f"{name} {value}" for name, value in machine().items() if value)
        head = (
            "# Benchmarks\n\nMade by `python -m bench.activations.run`; do not edit. Every answer was checked against "
            "a plain reference before its time was counted. Numbers are medians, worst cases in parentheses.\n\n"
            f"Size {self.size.name}; {', '.join(sections)}. {facts}.\n"
        )
        tables = [self.goals_table(), *self.tables] if self.goals else self.tables
        return head + "\n" + "\n\n".join(table.to_markdown() for table in tables) + "\n"

    def to_json(self, sections: Sequence[str]) -> str:
        """The whole report with every record."""
        value: dict[str, Any] = {
            "size": self.size.name,
            "sections": list(sections),
            "machine": machine(),
            "goals": [goal.__dict__ for goal in self.goals],
            "tables": [table.to_json() for table in self.tables],
            "records": [record.to_json() for record in self.records],
        }
        return json.dumps(value, indent=1)
