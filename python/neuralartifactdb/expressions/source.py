"""Trees back to Python source, with parentheses only where Python needs them.

The `repr` of expressions, and the query text of results, are calls that work (docs: "repr is a valid call").
"""

from __future__ import annotations

import math
from typing import Final

from neuralartifactdb.errors import DtypeError
from neuralartifactdb.expressions.tree import Arithmetic, Comparison, Constant, Expression, Leaf, Logic, Negation, Not

__all__ = ["source"]

# Python's own precedence, loosest first: what binds looser than its place needs parentheses.
_COMPARISON, _OR, _AND, _SUM, _PRODUCT, _UNARY, _ATOM = range(7)
_LEVELS: Final = {"|": _OR, "&": _AND, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT}
_MAX_SOURCE: Final = 200_000


def source(expression: Expression) -> str:
    """Python source that builds the expression again; cut with `...` beyond 200,000 characters."""
    parts: list[str] = []
    length = 0
    stack: list[str | tuple[Expression, int]] = [(expression, _COMPARISON)]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
            length += len(item)
            if length > _MAX_SOURCE:
                parts.append(" ...")
                break
            continue
        node, least = item
        level, pieces = _pieces(node)
        stack.extend(reversed(["(", *pieces, ")"] if level < least else pieces))
    return "".join(parts)


def _pieces(node: Expression) -> tuple[int, list[str | tuple[Expression, int]]]:
    """The precedence of a node and its source, children still to be written with the least precedence they need."""
    match node:
        case Arithmetic(op=op) | Logic(op=op):
            level = _LEVELS[op]
            return level, [(node.left, level), f" {op} ", (node.right, level + 1)]
        case Comparison(op=op):
            return _COMPARISON, [(node.left, _COMPARISON + 1), f" {op} ", (node.right, _COMPARISON + 1)]
        case Negation(operand=operand):
            return _UNARY, ["-", (operand, _UNARY)]
        case Not(operand=operand):
            return _UNARY, ["~", (operand, _UNARY)]
        case Constant(value=value):
            if isinstance(value, float) and math.isinf(value):
                return _ATOM, [f"float('{value}')"]
            return (_UNARY if not isinstance(value, str) and value < 0 else _ATOM), [repr(value)]
        case Leaf():
            return _ATOM, [node.describe()]
    raise DtypeError(f"unknown kind of expression, got {type(node).__qualname__}; subclass Leaf to add one")
