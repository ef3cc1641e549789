"""Interval arithmetic: + - * / over intervals, each with its proof that the exact result lies inside.

Containment, for all operations here. Write fl(x op y) for the float64 result. Rounding is monotone, so where `op` is
monotone in an argument, fl(x op y) is too. Over a box [al, au] x [bl, bu] the least and greatest results therefore
stand at corners, and taking the rounded corners needs no slack. What float64 cannot say (a division by zero, inf - inf,
0 * inf, inf / inf) is NULL. For two points every operation is the plain float64 one (design section 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuralartifactdb.expressions.intervals import Bools, Floats, Intervals, are_points, either_null, joint_nulls

__all__ = ["add", "divide", "multiply", "negate", "subtract"]


def _point_result(values: Floats, a: Intervals, b: Intervals) -> Intervals:
    """The result for two points: NaN, which is all that float64 says of the undefined, becomes NULL."""
    missing = np.isnan(values)
    null = joint_nulls(a, b, values.shape)
    return Intervals(values, values, either_null(null, missing) if missing.any() else null)


def _box_result(
    lower: Floats, upper: Floats, a: Intervals, b: Intervals, undefined: Callable[[], Bools], null: Bools | None = None
) -> Intervals:
    """The result for two intervals, from the least and greatest corner.

    A NaN corner says nothing about its neighbours, so it widens to unbounded, except where both sides are points: there
    the corner is the only result and it is NULL, as it is where a side is certainly NULL. `undefined` marks the boxes
    that hold a pair without a result; it is only asked when a bound is not finite, since such a pair needs an infinite
    end, which leaves its trace in a corner.
    """
    null = either_null(null, joint_nulls(a, b, lower.shape))
    if np.isfinite(lower).all() and np.isfinite(upper).all():
        return Intervals(lower, upper, null)
    unknown = np.isnan(lower) | np.isnan(upper)
    certain = np.isnan(a.lower) | np.isnan(b.lower) | (unknown & (a.lower == a.upper) & (b.lower == b.upper))
    lower = np.where(certain, np.nan, np.where(unknown, -np.inf, lower))
    upper = np.where(certain, np.nan, np.where(unknown, np.inf, upper))
    null = either_null(null, np.broadcast_to(certain | undefined(), lower.shape))
    return Intervals(lower, upper, null if null is not None and null.any() else None)


def negate(a: Intervals) -> Intervals:
    """-a. Exact and decreasing: the ends change places."""
    lower = -a.upper
    return Intervals(lower, lower if a.lower is a.upper else -a.lower, a.may_be_null)


def add(a: Intervals, b: Intervals) -> Intervals:
    """a + b. Increasing in both: lower with lower, upper with upper. inf - inf is NULL."""
    with np.errstate(all="ignore"):
        if are_points(a, b):
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
        if are_points(a, b):
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
    b = _with_null_for_zero(b)
    with np.errstate(all="ignore"):
        if are_points(a, b):
            return _point_result(a.lower / b.lower, a, b)
        around_zero = (b.lower <= 0) & (b.upper >= 0)
        null = None
        if not around_zero.any():
            ends = (b.lower,) if b.lower is b.upper else (b.lower, b.upper)
            corners = [x / y for x in (a.lower, a.upper) for y in ends]
            lower, upper = np.minimum.reduce(corners), np.maximum.reduce(corners)
        else:
            # A zero at the lower end must be +0.0, at the upper end -0.0; both forms keep other numbers as they are.
            ends = (b.lower + 0.0, -(0.0 - b.upper))
            corners = [np.where((x == 0) & (y == 0), 0.0, x / y) for x in (a.lower, a.upper) for y in ends]
            inside = (b.lower < 0) & (b.upper > 0)
            lower = np.where(inside, -np.inf, np.minimum.reduce(corners))
            upper = np.where(inside, np.inf, np.maximum.reduce(corners))
            null = np.broadcast_to(around_zero, lower.shape)
        return _box_result(lower, upper, a, b, lambda: _meets_two_infinities(a, b), null)


def _with_null_for_zero(b: Intervals) -> Intervals:
    """The divisor with NULL where it is certainly 0, so that the quotient is NULL whatever is divided."""
    zero = (b.lower == 0) & (b.upper == 0)
    if not zero.any():
        return b
    lower = np.where(zero, np.nan, b.lower)
    upper = lower if b.upper is b.lower else np.where(zero, np.nan, b.upper)
    return Intervals(lower, upper, either_null(b.may_be_null, zero))


def _meets_two_infinities(a: Intervals, b: Intervals) -> Bools:
    return (np.isinf(a.lower) | np.isinf(a.upper)) & (np.isinf(b.lower) | np.isinf(b.upper))
