"""Interval arithmetic with NULL: the one arithmetic of bounds and of exact scores.

An exact value is the interval [v, v], and every operation gives for two such intervals what plain float64 gives, so
bounds and verification run the same code and must agree bit for bit (design section 3, "One arithmetic", "NULL").

Containment, for all operations here. Write fl(x op y) for the float64 result. Rounding is monotone, so where `op` is
monotone in an argument, fl(x op y) is too. Over a box [al, au] x [bl, bu] the least and greatest results therefore
stand at corners, and taking the rounded corners needs no slack. What float64 cannot say (a division by zero, inf - inf,
0 * inf, inf / inf) is NULL.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = [
    "COMPARISONS",
    "Intervals",
    "Texts",
    "add",
    "compare",
    "divide",
    "logical_and",
    "logical_not",
    "logical_or",
    "multiply",
    "negate",
    "subtract",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


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
                    f"{int(bad[0])}; "
                    "compare such a column as text"
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

    @classmethod
    def validated(cls, lower: ArrayLike, upper: ArrayLike, may_be_null: ArrayLike | None = None) -> Intervals:
        """Intervals from outside, checked: float64[n], lower <= upper, NaN in both ends or in none.

        Raises:
            InvalidValueError: shapes differ, an end alone is NaN, or a lower bound is above its upper bound.
        """
        low = np.asarray(lower, dtype=np.float64)
        high = low if upper is lower else np.asarray(upper, dtype=np.float64)
        null = None if may_be_null is None else np.asarray(may_be_null, dtype=np.bool_)
        if low.ndim != 1 or high.shape != low.shape or (null is not None and null.shape != low.shape):
            shapes = (low.shape, high.shape, None if null is None else null.shape)
            raise InvalidValueError(
                f"lower, upper and may_be_null must be one-dimensional of one length, got shapes {shapes}"
            )
        missing = np.isnan(low)
        bad = np.flatnonzero(~(low <= high) & ~(missing & np.isnan(high)))
        if bad.size:
            i = int(bad[0])
            raise InvalidValueError(f"lower must not exceed upper, got [{low[i]!r}, {high[i]!r}] at position {i}")
        if missing.any():
            null = missing if null is None else null | missing
        return cls(low, high, null)

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
    """

    values: NDArray[Any]
    is_null: Bools | None = None

    def __post_init__(self) -> None:
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


def _either(a: Bools | None, b: Bools | None) -> Bools | None:
    """NULL if one of both is."""
    if a is None or b is None:
        return a if b is None else b
    return a | b


def _nulls(a: Intervals, b: Intervals, shape: tuple[int, ...]) -> Bools | None:
    """Where an operand may be NULL, for every candidate of the result: a constant has one entry for all."""
    null = _either(a.may_be_null, b.may_be_null)
    return null if null is None or null.shape == shape else np.broadcast_to(null, shape)


def _point_result(values: Floats, a: Intervals, b: Intervals) -> Intervals:
    """The result for two points: NaN, which is all that float64 says of the undefined, becomes NULL."""
    missing = np.isnan(values)
    null = _nulls(a, b, values.shape)
    return Intervals(values, values, _either(null, missing) if missing.any() else null)


def _box_result(
    lower: Floats, upper: Floats, a: Intervals, b: Intervals, undefined: Callable[[], Bools], null: Bools | None = None
) -> Intervals:
    """The result for two intervals, from the least and greatest corner.

    A NaN corner says nothing about its neighbours, so it widens to unbounded, except where both sides are points: there
    the corner is the only result and it is NULL, as it is where a side is certainly NULL. `undefined` marks the boxes
    that hold a pair without a result; it is only asked when a bound is not finite, since such a pair needs an infinite
    end, which leaves its trace in a corner.
    """
    null = _either(null, _nulls(a, b, lower.shape))
    if np.isfinite(lower).all() and np.isfinite(upper).all():
        return Intervals(lower, upper, null)
    unknown = np.isnan(lower) | np.isnan(upper)
    certain = np.isnan(a.lower) | np.isnan(b.lower) | (unknown & (a.lower == a.upper) & (b.lower == b.upper))
    lower = np.where(certain, np.nan, np.where(unknown, -np.inf, lower))
    upper = np.where(certain, np.nan, np.where(unknown, np.inf, upper))
    null = _either(null, np.broadcast_to(certain | undefined(), lower.shape))
    return Intervals(lower, upper, null if null is not None and null.any() else None)


def _are_points(a: Intervals, b: Intervals) -> bool:
    return a.lower is a.upper and b.lower is b.upper


def negate(a: Intervals) -> Intervals:
    """-a. Exact and decreasing: the ends change places."""
    lower = -a.upper
    return Intervals(lower, lower if a.lower is a.upper else -a.lower, a.may_be_null)


def add(a: Intervals, b: Intervals) -> Intervals:
    """a + b. Increasing in both: lower with lower, upper with upper. inf - inf is NULL."""
    with np.errstate(all="ignore"):
        if _are_points(a, b):
            return _point_result(a.lower + b.lower, a, b)

        def undefined() -> Bools:
            opposite: Bools = ((a.lower == -np.inf) & (b.upper == np.inf)) | (
                (a.upper == np.inf) & (b.lower == -np.inf)
            )
            return opposite

        return _box_result(a.lower + b.lower, a.upper + b.upper, a, b, undefined)


def subtract(a: Intervals, b: Intervals) -> Intervals:
    """a - b, which float64 defines as a + (-b), bit for bit."""
    return add(a, negate(b))


def multiply(a: Intervals, b: Intervals) -> Intervals:
    """a * b. For a fixed y, x * y is monotone in x (and the reverse), so the four corners hold the extremes.

    0 * inf is NULL. Taken as 0 it would keep the product monotone in each side, so the pairs around it never pass the
    corners.
    """
    with np.errstate(all="ignore"):
        if _are_points(a, b):
            return _point_result(a.lower * b.lower, a, b)
        if a.lower is a.upper:
            a, b = b, a
        first, second = a.lower * b.lower, a.upper * b.lower
        lower, upper = np.minimum(first, second), np.maximum(first, second)
        if b.lower is not b.upper:
            first, second = a.lower * b.upper, a.upper * b.upper
            lower = np.minimum(lower, np.minimum(first, second))
            upper = np.maximum(upper, np.maximum(first, second))
        return _box_result(lower, upper, a, b, lambda: _meets_zero_times_infinity(a, b))


def _meets_zero_times_infinity(a: Intervals, b: Intervals) -> Bools:
    a_zero, b_zero = (a.lower <= 0) & (a.upper >= 0), (b.lower <= 0) & (b.upper >= 0)
    a_infinite, b_infinite = np.isinf(a.lower) | np.isinf(a.upper), np.isinf(b.lower) | np.isinf(b.upper)
    return (a_zero & b_infinite) | (b_zero & a_infinite)


def divide(a: Intervals, b: Intervals) -> Intervals:
    """a / b; NULL where b is 0, of either sign.

    - b keeps its sign: x / y is monotone in x and in y, so the four corners hold the extremes.
    - b ends in 0: only the values beyond 0 count, and their quotients tend to x / +0 (or x / -0), an infinity, or stay
      0 for x = 0. That limit takes the corner's place.
    - 0 lies inside b: quotients of both signs without bound. b is 0: NULL.
    """
    with np.errstate(all="ignore"):
        by_zero = (b.lower <= 0) & (b.upper >= 0)
        if _are_points(a, b):
            values = a.lower / b.lower
            return _point_result(np.where(by_zero, np.nan, values) if by_zero.any() else values, a, b)
        if not by_zero.any():
            corners = [x / y for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
            lower, upper = np.minimum.reduce(corners), np.maximum.reduce(corners)
            return _box_result(lower, upper, a, b, lambda: _meets_two_infinities(a, b))
        # A zero at the lower end must be +0.0 and one at the upper end -0.0; both forms leave other numbers as they
        # are.
        corners = [
            np.where((x == 0) & (y == 0), 0.0, x / y)
            for x in (a.lower, a.upper)
            for y in (b.lower + 0.0, -(0.0 - b.upper))
        ]
        inside = (b.lower < 0) & (b.upper > 0)
        zero = (b.lower == 0) & (b.upper == 0)
        lower = np.where(zero, np.nan, np.where(inside, -np.inf, np.minimum.reduce(corners)))
        upper = np.where(zero, np.nan, np.where(inside, np.inf, np.maximum.reduce(corners)))
        null = np.broadcast_to(by_zero, lower.shape)
        result = _box_result(lower, upper, a, b, lambda: _meets_two_infinities(a, b), null)
        if not zero.any():
            return result
        # Unlike an undefined corner, a divisor that is certainly 0 leaves no other pair: NULL whatever a is.
        return Intervals(
            np.where(zero, np.nan, result.lower),
            np.where(zero, np.nan, result.upper),
            _either(result.may_be_null, null),
        )


def _meets_two_infinities(a: Intervals, b: Intervals) -> Bools:
    return (np.isinf(a.lower) | np.isinf(a.upper)) & (np.isinf(b.lower) | np.isinf(b.upper))


def compare(op: str, a: Intervals | Texts, b: Intervals | Texts) -> Intervals:
    """The truth of `a op b` as an interval in {0, 1}; NULL where a side is.

    `a < b` is certain where au < bl, impossible where al >= bu. `a == b` is certain only for two equal points,
    impossible where the intervals are disjoint. The other four are these with the sides swapped or the truth turned
    round.

    Raises:
        DtypeError: a text is compared with a number.
    """
    if isinstance(a, Texts) or isinstance(b, Texts):
        return _compare_texts(op, a, b)
    null = _nulls(a, b, np.broadcast_shapes(a.lower.shape, b.lower.shape))
    with np.errstate(invalid="ignore"):
        if _are_points(a, b):
            truth = COMPARISONS[op](a.lower, b.lower).astype(np.float64)
            if null is not None:
                truth = np.where(np.isnan(a.lower) | np.isnan(b.lower), np.nan, truth)
            return Intervals(truth, truth, null)
        if op in (">", ">="):
            a, b, op = b, a, {">": "<", ">=": "<="}[op]
        if op == "<":
            always, possible = a.upper < b.lower, a.lower < b.upper
        elif op == "<=":
            always, possible = a.upper <= b.lower, a.lower <= b.upper
        else:
            # Four comparisons and not al == bl only: an interval and a point may share an end without being equal.
            always = (a.lower == a.upper) & (b.lower == b.upper) & (a.lower == b.lower)
            possible = (a.lower <= b.upper) & (b.lower <= a.upper)
            if op == "!=":
                always, possible = ~possible, ~always
        lower, upper = always.astype(np.float64), possible.astype(np.float64)
        if null is not None:
            certain = np.isnan(a.lower) | np.isnan(b.lower)
            lower, upper = np.where(certain, np.nan, lower), np.where(certain, np.nan, upper)
    return Intervals(lower, upper, null)


def _compare_texts(op: str, a: Intervals | Texts, b: Intervals | Texts) -> Intervals:
    if not (isinstance(a, Texts) and isinstance(b, Texts)):
        raise DtypeError(
            f"a text can only be compared with a text, got a number on one side of `{op}`; quote the value"
        )
    truth = np.asarray(COMPARISONS[op](a.values, b.values)).astype(np.float64)
    null = _either(a.is_null, b.is_null)
    if null is not None:
        truth = np.where(null, np.nan, truth)
        null = np.isnan(truth)
    return Intervals(truth, truth, null)


def logical_not(a: Intervals) -> Intervals:
    """Kleene's NOT: 1 - a, NULL stays NULL. On {0, 1} the difference is exact."""
    lower = 1.0 - a.upper
    return Intervals(lower, lower if a.lower is a.upper else 1.0 - a.lower, a.may_be_null)


def logical_and(a: Intervals, b: Intervals) -> Intervals:
    """Kleene's AND: false if a side is false, else NULL if a side is NULL, else true.

    A truth interval says exactly which of {false, true, NULL} are possible, so the rule is applied to those three sets.
    """
    if a.may_be_null is None and b.may_be_null is None:
        lower = np.minimum(a.lower, b.lower)
        return Intervals(lower, lower if _are_points(a, b) else np.minimum(a.upper, b.upper))
    (a_false, a_true, a_null), (b_false, b_true, b_null) = _possible(a), _possible(b)
    can_true, can_false = a_true & b_true, a_false | b_false
    can_null = (a_null & (b_null | b_true)) | (b_null & a_true)
    certain = ~can_true & ~can_false
    lower = np.where(certain, np.nan, (~can_false).astype(np.float64))
    upper = np.where(certain, np.nan, can_true.astype(np.float64))
    return Intervals(lower, upper, can_null)


def logical_or(a: Intervals, b: Intervals) -> Intervals:
    """Kleene's OR, by De Morgan's law: true if a side is true, else NULL if a side is NULL, else false."""
    return logical_not(logical_and(logical_not(a), logical_not(b)))


def _possible(a: Intervals) -> tuple[Bools, Bools, Bools]:
    """Which of false, true and NULL a truth interval allows; comparisons with NaN are false, as they must be here."""
    null = np.zeros(len(a), dtype=np.bool_) if a.may_be_null is None else a.may_be_null
    return a.lower == 0.0, a.upper == 1.0, null
