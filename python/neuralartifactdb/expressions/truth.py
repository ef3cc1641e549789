"""Comparisons and Kleene's logic over intervals: truth is an interval in {0, 1}, NULL if an operand is.

Implements design section 3, "NULL": a truth interval with its `may_be_null` says exactly which of false, true and NULL
are possible, so a filter is settled true only where [1, 1] cannot be NULL.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from neuralartifactdb.errors import DtypeError
from neuralartifactdb.expressions.intervals import Bools, Intervals, Texts, are_points, either_null, joint_nulls

__all__ = ["compare", "logical_and", "logical_not", "logical_or"]

_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


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
    null = joint_nulls(a, b, np.broadcast_shapes(a.lower.shape, b.lower.shape))
    with np.errstate(invalid="ignore"):
        if are_points(a, b):
            truth = _COMPARISONS[op](a.lower, b.lower).astype(np.float64)
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
        number, other = (a, b) if isinstance(a, Intervals) else (b, a)
        if isinstance(number, Intervals) and np.isnan(number.lower).all():  # a column of NULLs alone has no type
            unknown = np.full(np.broadcast_shapes(number.lower.shape, (len(other),)), np.nan)
            return Intervals(unknown, unknown, np.isnan(unknown))
        raise DtypeError(
            f"a text can only be compared with a text, got a number on one side of `{op}`; quote the value"
        )
    truth = np.asarray(_COMPARISONS[op](a.values, b.values)).astype(np.float64)
    null = either_null(a.is_null, b.is_null)
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
        return Intervals(lower, lower if are_points(a, b) else np.minimum(a.upper, b.upper))
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
