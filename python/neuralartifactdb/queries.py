"""What is asked of the database, whatever it is asked about: the query, its options, checked numbers of rows.

Shared by queries over inputs, over masks and over groups of masks (design section 7: the keyword arguments that every
query has).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions.tree import Expression
from neuralartifactdb.limits import Limits
from neuralartifactdb.results import Result, ResultContext, Verification
from neuralartifactdb.search import Progress

__all__ = ["Options", "Query", "QueryContext", "checked_flag", "checked_k", "shown"]


class QueryContext(ResultContext, Protocol):
    """The database behind results, before a query has given it the check by brute force."""

    def with_verification(self, check: Callable[[Result, int | None], Verification]) -> ResultContext:
        """The same with that check."""
        ...


@dataclass(frozen=True)
class Query:
    """What is asked: an expression, how many, in which order."""

    expression: Expression
    text: str
    k: int | None = None
    largest: bool = True
    is_filter: bool = False
    exclude: NDArray[np.int64] | None = None
    #: the same in words
    question: str = ""


@dataclass(frozen=True)
class Options:
    """How it is asked: the keyword arguments that every query has. Made first of all: the call begins here."""

    where: Any = None
    limits: Limits | None = None
    on_progress: Callable[[Progress], object] | None = None
    explain: bool = False
    #: `time.perf_counter()` at the call
    began: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", time.perf_counter())
        checked_limits(self.limits)
        checked_flag(self.explain, "explain")
        if self.on_progress is not None and not callable(self.on_progress):
            raise DtypeError(
                f"on_progress must be a function of a nadb.Progress, got {self.on_progress!r} "
                f"({type(self.on_progress).__name__})"
            )


def checked_k(k: Any, name: str = "k") -> int:
    """A positive int."""
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, np.integer)):
        raise DtypeError(f"{name} must be an int, got {k!r} ({type(k).__name__})")
    if k < 1:
        raise InvalidValueError(f"{name} must be at least 1, got {k}")
    return min(int(k), 2**62)  # more than any number of candidates, and a number that the core can hold


def checked_flag(value: Any, name: str) -> bool:
    """A bool: text such as "no" would be true."""
    if not isinstance(value, (bool, np.bool_)):
        raise DtypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
    return bool(value)


def checked_limits(limits: Any) -> None:
    """Refuse what is not a `Limits`."""
    if limits is not None and not isinstance(limits, Limits):
        raise DtypeError(
            f"limits must be a nadb.Limits, got {type(limits).__name__}; write limits=nadb.Limits(theta=1.1)"
        )


def shown(value: Any) -> str:
    """A short valid source of an argument, or `...`."""
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= 12 else None
        return "..." if value is None else repr(value)
    text = repr(value)
    return text if len(text) <= 80 else "..."
