"""What a query costs: `Stats` of one that ran, the `Plan` of one that did not.

The counters that design section 3 ("Optimality") is stated in, and what `explain=True` returns (section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.quantities import format_bytes

__all__ = ["Plan", "Stats", "format_seconds"]

_EVALUATED_AS = {"activations": "inputs inferred", "masks": "masks read"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The work behind an answer.

    Attributes:
        kind: "activations" or "masks": what was evaluated.
        candidates: inputs or masks that the query was about, after `where=`.
        settled: of these, how many the bounds alone decided.
        evaluated: how many exact scores were computed, padding of batches included; of a query over masks, how many
            masks were read.
        as_regions: of these, masks that were read as the region of a candidate (`nadb.mask`), no candidates themselves.
        batches: waves of evaluations, each of one or more passes of the model (or rounds of reads).
        unit: the evaluation shape: no correct algorithm with these bounds evaluates fewer than `evaluated` - `unit`,
            ties and the target's own run left aside.
        bytes_read: from storage while the query ran, by all threads that use the database; cached reads left out.
        scanned: True if everything was evaluated in one pass because that was predicted to be cheaper.
        seconds: by stage, such as "bounds", "evaluate", "total".
    """

    kind: str = "activations"
    candidates: int = 0
    settled: int = 0
    evaluated: int = 0
    as_regions: int = 0
    batches: int = 0
    unit: int = 1
    bytes_read: int = 0
    scanned: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in _EVALUATED_AS:
            raise InvalidValueError(f"kind must be one of {', '.join(map(repr, _EVALUATED_AS))}, got {self.kind!r}")
        object.__setattr__(self, "seconds", MappingProxyType(dict(self.seconds)))

    @property
    def inputs_inferred(self) -> int:
        """Inputs run through the model (or computed by the function) for this answer."""
        return self.evaluated if self.kind == "activations" else 0

    @property
    def masks_read(self) -> int:
        """Masks whose pixels were read for this answer."""
        return self.evaluated if self.kind == "masks" else 0

    @property
    def candidates_evaluated(self) -> int:
        """`evaluated` without `as_regions`."""
        return self.evaluated - self.as_regions

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole query: the stage "total", else the sum of the stages."""
        return self.seconds["total"] if "total" in self.seconds else float(sum(self.seconds.values()))

    def summary(self) -> str:
        """Such as `27 of 10,000 inputs inferred`."""
        besides = f", and {self.as_regions:,} as regions" if self.as_regions else ""
        return f"{self.candidates_evaluated:,} of {self.candidates:,} {_EVALUATED_AS[self.kind]}{besides}"

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        names = ("kind", "candidates", "settled", "evaluated", "as_regions", "batches", "unit", "bytes_read", "scanned")
        return _stats_from, ({name: getattr(self, name) for name in names} | {"seconds": dict(self.seconds)},)


def _stats_from(values: dict[str, Any]) -> Stats:
    return Stats(**values)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a query would do, from the bounds alone; `explain=True` returns it and evaluates nothing.

    Attributes:
        kind: "activations" or "masks".
        candidates: inputs or masks that the query is about.
        settled: of these, how many the bounds decide.
        expected_evaluations: inputs to infer (or masks to read).
        expected_batches: in so many batches.
        expected_bytes: to read from storage, beyond what is in memory already.
        expected_seconds: of evaluating them, in the batch shapes that the query would run; None where what evaluates
            has not been timed (arrays, functions) or is not attached.
        scan: True if one pass over everything is expected to be cheaper.
        exact_storage: True if the index keeps every activation that is asked for, so that no model is needed.
        query: the call.
        advice: what would make it cheaper, such as more bits or `theta`.
    """

    kind: str = "activations"
    candidates: int = 0
    settled: int = 0
    expected_evaluations: int = 0
    expected_batches: int = 0
    expected_bytes: int = 0
    expected_seconds: float | None = None
    scan: bool = False
    exact_storage: bool = False
    query: str = ""
    advice: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _EVALUATED_AS:
            raise InvalidValueError(f"kind must be one of {', '.join(map(repr, _EVALUATED_AS))}, got {self.kind!r}")
        object.__setattr__(self, "advice", tuple(self.advice))

    @property
    def text(self) -> str:
        """The plan in words, a few lines."""
        what = "inputs" if self.kind == "activations" else "masks"
        verb = "infer" if self.kind == "activations" else "read"
        share = f" ({self.expected_evaluations / self.candidates:.2%})" if self.candidates else ""
        batches = f" in {self.expected_batches:,} batch{'' if self.expected_batches == 1 else 'es'}"
        work = f"about {self.expected_evaluations:,} of {self.candidates:,} {what}{share}{batches}"
        if self.exact_storage:
            work = f"none of {self.candidates:,} {what}: every activation is kept, and no model is needed"
        lines = [
            f"candidates  {self.candidates:,} {what}, {self.settled:,} settled by their bounds",
            f"{verb:<10}  {work}" + (", all in one pass, which is cheaper here" if self.scan else ""),
            f"storage     about {format_bytes(self.expected_bytes)} to read",
            f"time        {self._time()}",
        ]
        return "\n".join(lines + [f"advice      {advice}" for advice in self.advice])

    def _time(self) -> str:
        if not self.expected_evaluations:
            return "that of the bounds: nothing to evaluate"
        if self.expected_seconds is None:
            return "not known: what evaluates has not been timed, or is not attached"
        return f"about {format_seconds(self.expected_seconds)}"

    def describe(self) -> str:
        """`text` under the call."""
        return f"Plan of {self.query}\n{self.text}" if self.query else f"Plan\n{self.text}"

    def __repr__(self) -> str:
        return self.describe()


def format_seconds(seconds: float) -> str:
    """Seconds for people, three digits or so: `0.42 ms`, `12.3 ms`, `1.90 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.9995:
        ms = seconds * 1e3
        return f"{ms:.2f} ms" if ms < 9.995 else f"{ms:.1f} ms" if ms < 99.95 else f"{ms:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
