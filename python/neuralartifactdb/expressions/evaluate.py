"""Evaluates an expression over intervals: for bounds with what an index knows, for verification with exact values.

One evaluator for both, so that they cannot disagree (design section 3, "One arithmetic"; section 5, "Expressions").
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from neuralartifactdb.errors import DtypeError, InvalidValueError, UnknownNameError
from neuralartifactdb.expressions import arithmetic, truth
from neuralartifactdb.expressions.intervals import Intervals, Texts
from neuralartifactdb.expressions.source import source
from neuralartifactdb.expressions.tree import (
    Arithmetic,
    Comparison,
    Condition,
    Constant,
    Expression,
    Leaf,
    Logic,
    Negation,
    Not,
)

__all__ = ["evaluate"]

_ARITHMETIC = {
    "+": arithmetic.add,
    "-": arithmetic.subtract,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
}
_LOGIC = {"&": truth.logical_and, "|": truth.logical_or}

Value = Intervals | Texts


def evaluate(expression: Expression, leaf_intervals: Mapping[Hashable, Value], *, n: int | None = None) -> Intervals:
    """The intervals of an expression, from those of its leaves.

    With points for leaves the result is the exact value: float64 operations in the order of the tree. A condition gives
    truth intervals in {0, 1}. NULL is (NaN, NaN, True).

    Args:
        expression: any tree.
        leaf_intervals: by `Leaf.key`, all of one length; `Texts` for columns of strings.
        n: the number of candidates; needed only where the expression has no leaves.

    Returns:
        Intervals of n candidates.

    Raises:
        UnknownNameError: a leaf has no intervals.
        DtypeError: the values do not fit the operation (a text in arithmetic, a number where a condition is due).
        InvalidValueError: lengths differ, or the expression has no leaves and `n` is missing.
    """
    order, uses = _schedule(expression)
    values: dict[int, Value] = {}
    for node in order:
        operands = [values[id(child)] for child in node.children]
        for child in node.children:
            uses[id(child)] -= 1
            if not uses[id(child)]:
                del values[id(child)]  # a wide sum would otherwise keep every partial sum
        if isinstance(node, Leaf):
            leaf = _leaf_value(node, leaf_intervals)
            n = len(leaf) if n is None else n
            if len(leaf) != n:
                raise InvalidValueError(f"all leaves must have one length, got {len(leaf)} for {node!r}, expected {n}")
            values[id(node)] = leaf
        else:
            values[id(node)] = _apply(node, operands)
    result = values[id(expression)]
    if isinstance(result, Texts):
        raise DtypeError(
            f"an expression must give a number or a condition, got the text {source(expression)}; compare it with one"
        )
    if n is None:
        raise InvalidValueError(f"`n` is needed for an expression without leaves, got {source(expression)}")
    return result.broadcast(n)


def _schedule(expression: Expression) -> tuple[list[Expression], dict[int, int]]:
    """Every node once, operands before what uses them, and how often each is used."""
    order: list[Expression] = []
    uses: dict[int, int] = {}
    stack: list[tuple[Expression, bool]] = [(expression, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
            continue
        uses[id(node)] = uses.get(id(node), 0) + 1
        if uses[id(node)] > 1:
            continue
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.children))
    return order, uses


def _leaf_value(leaf: Leaf, leaf_intervals: Mapping[Hashable, Value]) -> Value:
    try:
        return leaf_intervals[leaf.key]
    except KeyError:
        known = ", ".join(map(repr, list(leaf_intervals)[:10])) or "none"
        raise UnknownNameError(f"no intervals for {leaf!r} (key {leaf.key!r}); there are: {known}") from None


def _apply(node: Expression, operands: list[Value]) -> Value:
    match node:
        case Constant(value=value):
            if isinstance(value, str):
                return Texts(np.array([value], dtype=object))
            return Intervals.points(np.array([float(value)]))
        case Comparison(op=op):
            try:
                return truth.compare(op, operands[0], operands[1])
            except DtypeError as error:
                raise DtypeError(f"{error} (in {source(node)})") from None
        case Arithmetic(op=op):
            return _ARITHMETIC[op](_number(node, 0, operands), _number(node, 1, operands))
        case Negation():
            return arithmetic.negate(_number(node, 0, operands))
        case Logic(op=op):
            return _LOGIC[op](_truth(node, 0, operands), _truth(node, 1, operands))
        case Not():
            return truth.logical_not(_truth(node, 0, operands))
    raise DtypeError(f"unknown kind of expression, got {type(node).__qualname__}; subclass Leaf to add one")


def _number(node: Expression, position: int, operands: list[Value]) -> Intervals:
    value = operands[position]
    if isinstance(value, Texts):
        raise DtypeError(f"arithmetic needs numbers, got the text {source(node.children[position])} in {source(node)}")
    return value


def _truth(node: Expression, position: int, operands: list[Value]) -> Intervals:
    """An operand of & | ~: a condition, or a column that turns out to hold truth values."""
    child, value = node.children[position], operands[position]
    if isinstance(value, Intervals):
        if isinstance(child, Condition | Constant):
            return value
        is_truth = (value.lower == 0) | (value.lower == 1) | np.isnan(value.lower)
        is_truth &= (value.upper == 0) | (value.upper == 1) | np.isnan(value.upper)
        wrong = np.flatnonzero(~is_truth)
        if not wrong.size:
            return value
        got = f"{float(value.lower[wrong[0]])!r} at position {int(wrong[0])}"
    else:
        got = "text"
    raise DtypeError(
        f"{source(child)} is used as a condition in {source(node)}, but holds {got}; compare it, as in (x == 1)"
    )
