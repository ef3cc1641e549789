"""Thresholds of counts: from what the user writes to the numbers that masks of a dtype are compared with.

`low <= value < high`, either side open; `equals=v` is the range that holds v alone. For float masks a threshold is
rounded to the dtype, as NumPy compares; for bool and integer masks it is rounded up, which changes no comparison
(design section 5, "Thresholds").
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any, Final

import numpy as np

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["DTYPES", "Number", "checked_thresholds", "normalised", "threshold_source", "warn_of_excluded_maximum"]

Number = int | float

#: dtypes that a collection of masks may have
DTYPES: Final = ("bool", "uint8", "uint16", "float16", "float32")
_FLOATS: Final[dict[str, type[np.floating[Any]]]] = {"float16": np.float16, "float32": np.float32}
#: the distance of a dtype's subnormal numbers, and its least normal one: both are normal in float64, so that subnormal
#: numbers that are counted in steps do not depend on the flush-to-zero mode
_SUBNORMALS: Final = {"float16": (2.0**-24, 2.0**-14), "float32": (2.0**-149, 2.0**-126)}


def checked_thresholds(low: Any, high: Any, equals: Any) -> tuple[Number | None, Number | None, Number | None]:
    """The thresholds of a count as Python numbers, None where open.

    Raises:
        DtypeError: one is not a number.
        InvalidValueError: one is NaN, or `equals` comes with `low` or `high`.
    """
    low, high, equals = _number("low", low), _number("high", high), _number("equals", equals)
    if equals is not None and (low is not None or high is not None):
        raise InvalidValueError(
            f"equals= counts one value and takes no low or high, got equals={equals!r}, low={low!r}, high={high!r}; "
            "leave out one or the other"
        )
    return low, high, equals


def _number(name: str, value: Any) -> Number | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise InvalidValueError(
                f"{name} must not be NaN, got nan: no value compares with it; leave it out for an open range"
            )
        return float(value)
    raise DtypeError(
        f"{name} must be a number or None, got {value!r} ({type(value).__module__}.{type(value).__qualname__}); for an "
        "array or tensor of one number use .item()"
    )


def normalised(
    low: Number | None, high: Number | None, equals: Number | None, dtype: str
) -> tuple[float | None, float | None]:
    """The range `low <= value < high` in terms of a dtype's values.

    Args:
        low: the least value counted; None for open.
        high: the least value no longer counted; None for open: the greatest value counts.
        equals: count this value alone.
        dtype: of the masks, one of `DTYPES`.

    Returns:
        (low, high) as exact float64 numbers: integers for bool and integer masks, values of the dtype for float masks,
        maybe infinite; None where open. low >= high counts nothing.

    Raises:
        DtypeError: masks have no such dtype.
    """
    if dtype not in DTYPES:
        raise DtypeError(f"masks are of one of {', '.join(DTYPES)}, got dtype {dtype!r}")
    if equals is None:
        return (None if low is None else _in(dtype, low)), (None if high is None else _in(dtype, high))
    value = _in(dtype, equals)
    kind = _FLOATS.get(dtype)
    if kind is None:
        whole = math.isinf(value) or value == equals
        return value, value + 1.0 if whole else value
    step, least_normal = _SUBNORMALS[dtype]
    if -least_normal <= value < least_normal:
        return value, (round(value / step) + 1) * step
    with np.errstate(over="ignore"):
        return value, float(np.nextafter(kind(value), kind(np.inf)))


def _in(dtype: str, value: Number) -> float:
    """A threshold as a value of the dtype; -0.0 is 0.0."""
    try:
        exact = float(value)
    except OverflowError:  # an int beyond float64 is beyond every mask
        exact = math.inf if value > 0 else -math.inf
    kind = _FLOATS.get(dtype)
    if kind is None:
        # ceil of the number as given: above 2**53 nothing is compared, but the order with `high` should hold
        return exact if math.isinf(exact) else float(math.ceil(exact))
    step, least_normal = _SUBNORMALS[dtype]
    if abs(exact) < least_normal:
        return round(exact / step) * step
    with np.errstate(over="ignore"):
        return float(kind(exact))


def threshold_source(low: Number | None, high: Number | None, equals: Number | None) -> str:
    """The keyword arguments that give these thresholds, such as `low=200, high=256`; empty for none."""
    given = (("low", low), ("high", high), ("equals", equals))
    return ", ".join(f"{name}={_literal(value)}" for name, value in given if value is not None)


def _literal(value: Number) -> str:
    return f"float('{value}')" if isinstance(value, float) and math.isinf(value) else repr(value)


def warn_of_excluded_maximum(high: Number | None, dtype: str, value_range: tuple[float, float], text: str) -> None:
    """Warn where `high` is the end of the range, so that the greatest value, alone, is not counted.

    A float is rarely meant so: `count(box, 0.5, 1.0)` misses the pixels of value 1.0. An int as `high` of integer masks
    is taken as meant.

    Args:
        high: as the user gave it.
        dtype: of the masks.
        value_range: of the collection, both ends included.
        text: the source of the count.
    """
    if high is None or not (isinstance(high, float) or dtype in _FLOATS):
        return
    greatest = _in(dtype, value_range[1])
    if (_in(dtype, high) if dtype in _FLOATS else high) != greatest:
        return
    warnings.warn(
        f"{text} leaves out pixels of the greatest value, {greatest:g}: high={high!r} is the end of the range "
        f"({value_range[0]:g}, {value_range[1]:g}) and is not counted itself; leave high open to include it",
        UserWarning,
        stacklevel=_frames_to_caller(),
    )


def _frames_to_caller() -> int:
    """The `stacklevel` that names the first line outside the package, whoever ran the query."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
