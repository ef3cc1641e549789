"""Attribute columns put together from parts that come from several batches or segments; what a part lacks is NULL.

Kinds may differ between parts (integers here, integers with NULLs as floats there), so the joined column is the least
that holds all of them exactly. Serves the attributes of design section 5 for masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.nulls import is_null

__all__ = ["joined"]

_EXACT_INT = 2**53


def joined(parts: Sequence[NDArray[Any] | int], *, nulls_as_nan: bool = True) -> NDArray[Any]:
    """One column from parts that follow each other.

    Args:
        parts: 1-D arrays as `storage.tables.read_table` gives them or `write_table` takes them (NULL is NaN among
            floats, None among objects), or the length of a part that lacks the column.
        nulls_as_nan: make integers with NULLs, or beside floats, float64 with NaN if every one fits exactly, as
            `read_table` does; otherwise they become objects with None, of which `write_table` makes integers.

    Returns:
        The column, of the parts' own dtype where they agree and none is missing; floats have NaN for NULL, everything
        else is object with None.
    """
    given = [part for part in parts if not isinstance(part, int) and len(part)]
    n_missing = sum(part for part in parts if isinstance(part, int))
    if not given:
        return np.full(n_missing, np.nan)
    kinds = {part.dtype.kind for part in given}
    if not any(isinstance(part, np.ma.MaskedArray) for part in given):
        if kinds == {"f"}:
            return _spread(parts, np.result_type(*given), np.nan)
        if not n_missing and (len({part.dtype for part in given}) == 1 or kinds == {"U"}):
            return np.concatenate(given)
        if not n_missing and kinds <= {"i", "u"} and np.result_type(*given).kind != "f":  # int64 with uint64 is float
            return np.concatenate(given)
        if kinds <= {"i", "u", "f"} and nulls_as_nan and all(_fits_float(part) for part in given):
            return _spread(parts, np.dtype(np.float64), np.nan)
    return _spread(parts, np.dtype(object), None)


def _fits_float(part: NDArray[Any]) -> bool:
    return part.dtype.kind == "f" or bool(int(part.min()) >= -_EXACT_INT and int(part.max()) <= _EXACT_INT)


def _spread(parts: Sequence[NDArray[Any] | int], dtype: np.dtype[Any], null: object) -> NDArray[Any]:
    """The parts behind each other in one dtype, NULL where one is missing."""
    out = np.full(sum(part if isinstance(part, int) else len(part) for part in parts), null, dtype)
    at = 0
    for part in parts:
        if isinstance(part, int):
            at += part
            continue
        values: Any = part
        if dtype.hasobject:
            plain = part.tolist()  # Python's own numbers and text; masked entries are None
            values = np.empty(len(plain), object)
            values[:] = [None if is_null(value) else value for value in plain]
        out[at : at + len(part)] = values
        at += len(part)
    return out
