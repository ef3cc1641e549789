"""Single values that users give or columns hold: what is NULL (None, NaN, masked, pandas.NA), what float64 rounds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["inexact_integer", "is_null"]

_EXACT = 2**53


def is_null(value: object) -> bool:
    """Whether a value is NULL.

    Example:
        >>> [is_null(value) for value in (None, float("nan"), 0, "")]
        [True, True, False, False]
    """
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType":  # the last is pandas.NA
        return True
    return isinstance(value, float | np.floating) and bool(value != value)


def inexact_integer(values: Iterable[object]) -> int | None:
    """The first integer that float64 would round; None if there is none.

    Example:
        >>> inexact_integer([0.5, 2**53, 2**53 + 1])
        9007199254740993
    """
    for value in values:
        if isinstance(value, int | np.integer) and not -_EXACT <= value <= _EXACT and int(float(value)) != value:
            return int(value)
    return None
