"""Intervals with NULL: what is known of a value for each candidate, and texts, which are always exact.

An exact value is the interval [v, v], so bounds and exact scores go through the same operations, which stand in
`arithmetic` and `truth` (design section 3, "One arithmetic", "NULL").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["Bools", "Floats", "Intervals", "Texts", "are_points", "either_null", "joint_nulls"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """One interval per candidate: every value that is not NULL lies in [lower, upper].

    Arrays belong to the interval once given: nobody writes to them afterwards. An interval with `lower is upper` (the
    same array) is a point everywhere, which the operations use to do half the work.

    Attributes:
        lower: float64[n], the least possible value; NaN exactly where the value is certainly NULL.
        upper: float64[n], the greatest possible value; NaN where `lower` is.
        may_be_null: bool[n], true where the value may be NULL (always where the bounds are NaN); None where it never
            is.
    """

    lower: Floats
    upper: Floats
    may_be_null: Bools | None = None

    @classmethod
    def points(cls, values: ArrayLike, is_null: ArrayLike | None = None) -> Intervals:
        """Exact values as intervals; a NaN is a NULL.

        Args:
            values: [n] of a bool, integer or float dtype that float64 holds exactly.
            is_null: bool[n], true where the value is NULL whatever `values` says.

        Raises:
            DtypeError: the values are not numbers.
            InvalidValueError: an integer has no exact float64, or the shapes differ.
        """
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"values must be bool, integer or float, got dtype {array.dtype}")
        if array.ndim != 1:
            raise InvalidValueError(f"values must be one-dimensional, got shape {array.shape}")
        exact = array.astype(np.float64, copy=False)
        if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
            bad = np.flatnonzero(np.abs(exact) >= 2.0**53)
            bad = bad[[int(array[i]) != int(exact[i]) for i in bad]] if bad.size else bad
            if bad.size:
                raise InvalidValueError(
                    f"integers must be exact in float64 (up to 2**53), got {int(array[bad[0]])} at position "
                    f"{int(bad[0])}; keep such numbers as text, and compare them as text"
                )
        elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
            raise DtypeError(f"values must be exact in float64, got dtype {array.dtype}; cast them to float64")
        if is_null is not None:
            null = np.asarray(is_null, dtype=np.bool_)
            if null.shape != exact.shape:
                raise InvalidValueError(f"is_null must have the shape of values, {exact.shape}, got {null.shape}")
            exact = np.where(null, np.nan, exact)
        missing = np.isnan(exact)
        return cls(exact, exact, missing if missing.any() else None)

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.lower)

    @property
    def is_exact(self) -> Bools:
        """bool[n]: nothing is open, the value (or that it is NULL) is known."""
        exact: Bools = self.lower == self.upper
        if self.may_be_null is None:
            return exact
        return np.isnan(self.lower) | (exact & ~self.may_be_null)

    def take(self, which: slice | NDArray[np.int64]) -> Intervals:
        """Those of some candidates, by slice or positions; points stay points."""
        lower = self.lower[which]
        upper = lower if self.upper is self.lower else self.upper[which]
        return Intervals(lower, upper, None if self.may_be_null is None else self.may_be_null[which])

    def broadcast(self, n: int) -> Intervals:
        """The same intervals for n candidates: a constant has one.

        Raises:
            InvalidValueError: the length is neither 1 nor n.
        """
        if len(self) == n:
            return self
        if len(self) != 1:
            raise InvalidValueError(f"expected intervals of {n} candidates, got {len(self)}")
        lower = np.full(n, self.lower[0])
        upper = lower if self.upper is self.lower else np.full(n, self.upper[0])
        return Intervals(lower, upper, None if self.may_be_null is None else np.full(n, self.may_be_null[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Exact text values, for a column of strings; they can be compared and nothing else.

    Attributes:
        values: [n] of strings (dtype object, `U` or `T`); None is NULL. Ordered by code point, as Python and SQL do.
        is_null: bool[n] or None; which are NULL besides the Nones.
        checked: True only from `take`: every value was looked at when the column was made.
    """

    values: NDArray[Any]
    is_null: Bools | None = None
    checked: bool = False

    def __post_init__(self) -> None:
        if self.checked:
            return
        array = np.asarray(self.values)
        if array.ndim != 1 or array.dtype.kind not in "OUT":
            raise DtypeError(
                f"texts must be a one-dimensional array of strings, got dtype {array.dtype}, shape {array.shape}"
            )
        null = None if self.is_null is None else np.asarray(self.is_null, dtype=np.bool_)
        if array.dtype.kind == "O":
            missing = np.array([value is None for value in array], dtype=np.bool_)
            if missing.any():
                array = np.where(missing, "", array)
                null = missing if null is None else null | missing
            wrong = next((i for i, value in enumerate(array) if not isinstance(value, str)), None)
            if wrong is not None:
                got = array[wrong]
                raise DtypeError(
                    f"texts must be strings or None, got {got!r} ({type(got).__name__}) at position {wrong}"
                )
        object.__setattr__(self, "values", array)
        object.__setattr__(self, "is_null", null)

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.values)

    def take(self, which: slice | NDArray[np.int64]) -> Texts:
        """Those of some candidates, by slice or positions, without looking at every string again."""
        return Texts(self.values[which], None if self.is_null is None else self.is_null[which], checked=True)


def either_null(a: Bools | None, b: Bools | None) -> Bools | None:
    """NULL if one of both is; None is never."""
    if a is None or b is None:
        return a if b is None else b
    return a | b


def joint_nulls(a: Intervals, b: Intervals, shape: tuple[int, ...]) -> Bools | None:
    """Where an operand may be NULL, for every candidate of the result: a constant has one entry for all."""
    null = either_null(a.may_be_null, b.may_be_null)
    return null if null is None or null.shape == shape else np.broadcast_to(null, shape)


def are_points(a: Intervals, b: Intervals) -> bool:
    """Whether both sides are known to be points by their arrays alone."""
    return a.lower is a.upper and b.lower is b.upper
