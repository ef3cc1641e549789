"""Limits: how far a query may stop short of the exact answer, and how much it may spend.

Options of queries grow here and not in parameter lists (design section 3, "theta"; section 7, `Limits`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.quantities import shortened

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a query's work; a limit never raises, the result says what is still guaranteed.

    >>> Limits(theta=1.1, max_evaluations=500)
    Limits(theta=1.1, epsilon=0.0, max_evaluations=500, timeout_s=None)

    Attributes:
        theta: at least 1. Nearest: every returned distance is at most theta times any distance not returned; highest:
            the same for scores, if all lower bounds are at least 0. 1.0 is exact. Filters are exact whatever it is.
        epsilon: at least 0, in units of the score: no score that was not returned is better than a returned one by
            more. Filters are exact whatever it is.
        max_evaluations: at most so many inputs are inferred, rounded up to one batch; or at most so many masks are
            read, those that are regions of others and all masks of a group included: a group that would read more
            than are left is not evaluated. None for no limit.
        timeout_s: no new batch is started once so many seconds have passed since the call; None for no limit. A batch
            that runs is not interrupted, and a target that the index does not know is run all the same.

    Raises:
        DtypeError: a value is not a number (or, for max_evaluations, not an integer).
        InvalidValueError: a value is out of range.
    """

    theta: float = 1.0
    epsilon: float = 0.0
    max_evaluations: int | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "theta", _number("theta", self.theta, least=1.0, fix="1.0 is exact, 1.1 allows 10% more")
        )
        object.__setattr__(self, "epsilon", _number("epsilon", self.epsilon, least=0.0, fix="0.0 is exact"))
        if self.max_evaluations is not None:
            count = self.max_evaluations
            if isinstance(count, bool) or not isinstance(count, Integral):
                raise DtypeError(
                    f"max_evaluations must be an integer, got {count!r} ({type(count).__name__}); None means no limit"
                )
            count = int(count)
            if count < 0:
                raise InvalidValueError(f"max_evaluations must be at least 0, got {count}; None means no limit")
            object.__setattr__(self, "max_evaluations", count)
        if self.timeout_s is not None:
            object.__setattr__(
                self, "timeout_s", _number("timeout_s", self.timeout_s, least=0.0, fix="None means no limit")
            )

    @property
    def is_exact(self) -> bool:
        """True if only the exact answer will do, however long it takes."""
        return self.theta == 1.0 and self.epsilon == 0.0 and self.max_evaluations is None and self.timeout_s is None


def _number(name: str, value: Any, *, least: float, fix: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DtypeError(f"{name} must be a number, got {value!r} ({type(value).__name__}); {fix}")
    try:
        number = float(value)
    except OverflowError:
        raise InvalidValueError(
            f"{name} must be finite and at least {least:g}, got a number beyond float64, {shortened(value)}; {fix}"
        ) from None
    if not math.isfinite(number) or number < least:
        raise InvalidValueError(f"{name} must be finite and at least {least:g}, got {number!r}; {fix}")
    return number
