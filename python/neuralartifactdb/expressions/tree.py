"""Expression trees: the one language of conditions and scores over neurons, counts and attributes.

Python's operators build them, nothing is computed here (design section 5, "Expressions"; section 7). Nodes are frozen
and compare by identity, since `==` builds a condition. Walks use their own stack: a sum over a whole layer is a deep
tree.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NoReturn

import numpy as np

from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = [
    "Arithmetic",
    "Column",
    "Comparison",
    "Condition",
    "Constant",
    "Expression",
    "Leaf",
    "Logic",
    "Negation",
    "Not",
    "as_condition",
    "column",
    "leaves",
    "scored",
]

Operand = "Expression | int | float | bool | str"

_NUMBER: Final = frozenset({"number"})
_TRUTH: Final = frozenset({"truth"})
_TEXT: Final = frozenset({"text"})


class Expression:
    """A node of a tree. Combine with + - * /, compare with < <= > >= == !=, join conditions with & | ~.

    Attributes:
        kinds: what the value can be: of "number", "truth", "text"; a column may be any until its values are seen.
        database_token: names the database that the leaves belong to; None for none in particular.
        children: the operands, left to right.
    """

    __slots__ = ()
    __array_ufunc__: ClassVar[None] = None  # NumPy scalars leave `np.float64(2) * x` to us instead of looping over x
    __hash__ = object.__hash__

    @property
    def kinds(self) -> frozenset[str]:
        """What the value can be."""
        return _NUMBER

    @property
    def database_token(self) -> Hashable:
        """The database of the leaves, or None."""
        return None

    @property
    def children(self) -> tuple[Expression, ...]:
        """The operands, left to right."""
        return ()

    @property
    def is_condition(self) -> bool:
        """True if a filter can ask for it."""
        return "truth" in self.kinds

    def __repr__(self) -> str:
        from neuralartifactdb.expressions.source import source  # it knows the nodes, so it cannot come first

        return source(self)

    def __bool__(self) -> NoReturn:
        raise DtypeError(
            "an expression has no truth value until a query runs it, so `and`, `or`, `not`, `if`, `in` and a chained "
            "`1 < x < 2` "
            f"cannot use it; write (a > 1) & (b < 2), | for or, ~ for not; the expression is {_shortened(self)}"
        )

    def __add__(self, other: object) -> Expression:
        return Arithmetic("+", self, _operand(other))

    def __radd__(self, other: object) -> Expression:
        return Arithmetic("+", _operand(other), self)

    def __sub__(self, other: object) -> Expression:
        return Arithmetic("-", self, _operand(other))

    def __rsub__(self, other: object) -> Expression:
        return Arithmetic("-", _operand(other), self)

    def __mul__(self, other: object) -> Expression:
        return Arithmetic("*", self, _operand(other))

    def __rmul__(self, other: object) -> Expression:
        return Arithmetic("*", _operand(other), self)

    def __truediv__(self, other: object) -> Expression:
        return Arithmetic("/", self, _operand(other))

    def __rtruediv__(self, other: object) -> Expression:
        return Arithmetic("/", _operand(other), self)

    def __neg__(self) -> Expression:
        return Negation(self)

    def __pos__(self) -> Expression:
        return self

    def __lt__(self, other: object) -> Condition:
        return Comparison("<", self, _operand(other))

    def __le__(self, other: object) -> Condition:
        return Comparison("<=", self, _operand(other))

    def __gt__(self, other: object) -> Condition:
        return Comparison(">", self, _operand(other))

    def __ge__(self, other: object) -> Condition:
        return Comparison(">=", self, _operand(other))

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return Comparison("==", self, _operand(other))

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return Comparison("!=", self, _operand(other))

    def __and__(self, other: object) -> Condition:
        return Logic("&", self, _operand(other))

    def __rand__(self, other: object) -> Condition:
        return Logic("&", _operand(other), self)

    def __or__(self, other: object) -> Condition:
        return Logic("|", self, _operand(other))

    def __ror__(self, other: object) -> Condition:
        return Logic("|", _operand(other), self)

    def __invert__(self) -> Condition:
        return Not(self)


class Condition(Expression):
    """An expression that is true, false or NULL for each candidate."""

    __slots__ = ()

    @property
    def kinds(self) -> frozenset[str]:
        """A truth value."""
        return _TRUTH


class Leaf(Expression):
    """A value that the database supplies: a neuron, a count of pixels, a column.

    Subclasses are frozen dataclasses with `eq=False` and `repr=False`, or plain classes; they give `key` and
    `describe`.
    """

    __slots__ = ()

    @property
    def key(self) -> Hashable:
        """Equal for leaves with equal values: such a leaf is bounded and evaluated once."""
        raise NotImplementedError(f"{type(self).__name__} must define `key`")

    def describe(self) -> str:
        """Python source that builds this leaf again, such as `layer[3]`."""
        raise NotImplementedError(f"{type(self).__name__} must define `describe`")


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Constant(Expression):
    """A number, truth value or text written into the expression."""

    value: int | float | bool | str

    def __post_init__(self) -> None:
        value = self.value.item() if isinstance(self.value, np.generic) else self.value
        if isinstance(value, float):
            value = float(value)  # NumPy's float64 is a float whose repr is not valid source
            if math.isnan(value):
                raise InvalidValueError(
                    "a constant must not be NaN, got nan: every comparison with it would fail; NULL cannot be written"
                )
        elif isinstance(value, int) and not isinstance(value, bool):
            value = int(value)
            try:
                exact = int(float(value)) == value
            except OverflowError:
                exact = False
            if not exact:
                raise InvalidValueError(
                    f"an integer constant must be exact in float64, got {value}; write it as a float to round it"
                )
        elif not isinstance(value, bool | str):
            raise DtypeError(
                "an operand must be an expression, a number, a bool or a str, got "
                f"{_shortened(value)} ({type(value).__module__}.{type(value).__qualname__}); "
                "for an array or tensor of one number use .item()"
            )
        object.__setattr__(self, "value", str(value) if isinstance(value, str) else value)

    @property
    def kinds(self) -> frozenset[str]:
        """By the value's type; a bool counts as 0 or 1 too."""
        if isinstance(self.value, str):
            return _TEXT
        return _NUMBER | _TRUTH if isinstance(self.value, bool) else _NUMBER


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Column(Leaf):
    """An attribute of the inputs or masks, by name."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DtypeError(f"a column's name must be a str, got {self.name!r} ({type(self.name).__name__})")
        if not self.name:
            raise InvalidValueError("a column's name must not be empty, got ''")

    @property
    def kinds(self) -> frozenset[str]:
        """Any: the values decide when a query runs."""
        return _NUMBER | _TRUTH | _TEXT

    @property
    def key(self) -> Hashable:
        """The name."""
        return ("column", self.name)

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.column({self.name!r})"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class _Unary(Expression):
    """One operand; the database is the operand's."""

    operand: Expression
    _token: Hashable = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "_token", self.operand.database_token)

    def _check(self) -> None:
        raise NotImplementedError

    @property
    def database_token(self) -> Hashable:
        """The operand's."""
        return self._token

    @property
    def children(self) -> tuple[Expression, ...]:
        """The operand."""
        return (self.operand,)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class _Binary(Expression):
    """`left op right`; both sides belong to one database. The token is kept, since looking it up would walk the
    tree."""

    op: str
    left: Expression
    right: Expression
    _token: Hashable = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "_token", _joint_token(self.left, self.right))

    def _check(self) -> None:
        raise NotImplementedError

    @property
    def database_token(self) -> Hashable:
        """That of both sides."""
        return self._token

    @property
    def children(self) -> tuple[Expression, ...]:
        """Left, right."""
        return (self.left, self.right)


class Negation(_Unary):
    """Unary minus."""

    __slots__ = ()

    def _check(self) -> None:
        _require("number", "-", self.operand)


class Arithmetic(_Binary):
    """`left op right` with op one of + - * /, in float64."""

    __slots__ = ()

    def _check(self) -> None:
        _require("number", self.op, self.left, self.right)


class Comparison(Condition, _Binary):
    """`left op right` with op one of < <= > >= == !=; numbers as float64, texts by code point."""

    __slots__ = ()

    def _check(self) -> None:
        left, right = self.left, self.right
        if not (left.kinds & right.kinds & (_NUMBER | _TEXT)):
            raise DtypeError(
                f"`{self.op}` compares two numbers or two texts, got {_described(left)} and {_described(right)}; text "
                "can be compared with a column, and conditions are joined with & | ~, each in parentheses: "
                "(a > 1) & (b < 2)"
            )


class Logic(Condition, _Binary):
    """`left & right` or `left | right`, by Kleene's rules."""

    __slots__ = ()

    def _check(self) -> None:
        _require("truth", self.op, self.left, self.right)


class Not(Condition, _Unary):
    """`~operand`; NULL stays NULL."""

    __slots__ = ()

    def _check(self) -> None:
        _require("truth", "~", self.operand)


def column(name: str) -> Column:
    """An attribute of the inputs as part of an expression.

    >>> column("label") == 4
    nadb.column('label') == 4
    >>> (column("split") == "test") & (column("width") / column("height") > 1.5)
    (nadb.column('split') == 'test') & (nadb.column('width') / nadb.column('height') > 1.5)

    Args:
        name: as given to `set_inputs`.

    Raises:
        DtypeError: the name is not a str.
        InvalidValueError: it is empty.
    """
    return Column(name)


def leaves(expression: Expression) -> list[Leaf]:
    """The distinct leaves by key, in the order in which the source shows them."""
    found: dict[Hashable, Leaf] = {}
    seen: set[int] = set()
    stack = [expression]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Leaf):
            found.setdefault(node.key, node)
        stack.extend(reversed(node.children))
    return list(found.values())


def as_condition(expression: Expression) -> Expression:
    """A tree whose root is a condition: what else can be one, a column, is joined with itself, for the values of what
    & joins are looked at. A column of numbers is no condition."""
    return expression if isinstance(expression, Condition) else expression & expression


def scored(condition: Expression) -> Expression | None:
    """What a filter reports as scores: `expr` of `expr op number` (either way round), None for any other condition."""
    if not isinstance(condition, Comparison):
        return None
    for expression, other in ((condition.left, condition.right), (condition.right, condition.left)):
        if isinstance(other, Constant) and not isinstance(other.value, str) and not isinstance(expression, Constant):
            return expression
    return None


def _operand(value: object) -> Expression:
    return value if isinstance(value, Expression) else Constant(value)  # type: ignore[arg-type]


def _require(kind: str, op: str, *operands: Expression) -> None:
    for operand in operands:
        if kind in operand.kinds:
            continue
        if kind == "number":
            raise DtypeError(
                f"`{op}` computes with numbers, got {_described(operand)}; conditions are joined with & | ~"
            )
        raise DtypeError(
            f"`{op}` joins conditions, got {_described(operand)}; & and | bind tighter than comparisons, so each one "
            "needs parentheses: (a > 1) & (b < 2)"
        )


def _joint_token(left: Expression, right: Expression) -> Hashable:
    a, b = left.database_token, right.database_token
    if a is not None and b is not None and a != b:
        raise InvalidValueError(
            f"one expression must stay within one database, got {_shortened(left)} of {a} and {_shortened(right)} of "
            f"{b}; query each, and give the ids of one result as where= of the other"
        )
    return b if a is None else a


def _described(operand: Expression) -> str:
    return f"the {' or '.join(sorted(operand.kinds))} {_shortened(operand)}"


def _shortened(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
