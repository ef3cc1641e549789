"""What a run of any bench gathers: tables, goals and records, written as text, Markdown and JSON.

Every bench folder has its own sizes and sections; what they share is here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.tables import Table, machine

__all__ = ["Gathered", "Goal", "Jsonable", "WrongAnswerError"]


class WrongAnswerError(AssertionError):
    """A competitor's answer is not the reference's; nothing about it is worth timing."""


class Jsonable(Protocol):
    """A record of one measurement."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        ...


@dataclass(frozen=True)
class Goal:
    """Something that an issue asks for.

    Attributes:
        what: in words, with the number to reach.
        measured: what was found.
        met: whether it was reached; None where this size of the bench cannot say.
    """

    what: str
    measured: str
    met: bool | None


@dataclass
class Gathered:
    """Gathers the results of the sections.

    Args:
        module: what was run, for the heading.
        size_name: "small", "standard" or "full"; goals of a small run are not judged.
        data: the folder of data, databases and results.
    """

    module: str
    size_name: str
    data: Path
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    records: list[Jsonable] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """Where databases of this run are made."""
        path = self.data / "databases"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def goal(self, what: str, measured: str, met: bool) -> None:
        """Notes a goal; a small run is too small to judge it."""
        self.goals.append(Goal(what, measured, None if self.size_name == "small" else met))

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
            f"# Benchmarks\n\nMade by `python -m {self.module}`; do not edit. Every answer was checked against "
            "a plain reference before its time was counted. Numbers are medians, worst cases in parentheses.\n\n"
            f"Size {self.size_name}; {', '.join(sections)}. {facts}.\n"
        )
        tables = [self.goals_table(), *self.tables] if self.goals else self.tables
        return head + "\n" + "\n\n".join(table.to_markdown() for table in tables) + "\n"

    def to_json(self, sections: Sequence[str]) -> str:
        """The whole report with every record."""
        value: dict[str, Any] = {
            "size": self.size_name,
            "sections": list(sections),
            "machine": machine(),
            "goals": [goal.__dict__ for goal in self.goals],
            "tables": [table.to_json() for table in self.tables],
            "records": [record.to_json() for record in self.records],
        }
        return json.dumps(value, indent=1)
