"""What counts as NULL among single values that users give or columns hold: None, NaN, masked, pandas.NA."""

from __future__ import annotations

import numpy as np

__all__ = ["is_null"]


def is_null(value: object) -> bool:
    """Whether a value is NULL.

    Example:
        >>> [is_null(value) for value in (None, float("nan"), 0, "")]
        [True, True, False, False]
    """
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType":  # the last is pandas.NA
        return True
    return isinstance(value, float | np.floating) and bool(value != value)
