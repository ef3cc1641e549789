"""Aggregates over the masks of a group: sum, mean, min, max of an expression; pixelwise intersection and union.

They are leaves of expressions over groups, `masks.group_by(...)` gives them their values (design section 5, "Groups").
NULL is skipped, as SQL does. An aggregate does not know its collection: it means the one that is asked.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.expressions.tree import Constant, Expression, Leaf, leaves
from neuralartifactdb.masks.regions import OtherMask, Region, Whole, as_region, whole
from neuralartifactdb.masks.thresholds import Number, checked_thresholds, normalised, threshold_source

__all__ = [
    "Aggregate",
    "JointCount",
    "JointMask",
    "JointRatio",
    "intersection",
    "iou",
    "max",
    "mean",
    "min",
    "sum",
    "union",
]

_OPERATIONS: Final = ("sum", "mean", "min", "max")
_KINDS: Final = ("intersection", "union")


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Aggregate(Leaf):
    """Sum, mean, min or max of an expression over the masks of a group, in mask_id order, NULL skipped.

    Attributes:
        op: one of sum, mean, min, max.
        expression: of each mask: counts, areas, columns.
    """

    op: str
    expression: Expression

    def __post_init__(self) -> None:
        if self.op not in _OPERATIONS:
            raise InvalidValueError(f"an aggregate is one of {', '.join(_OPERATIONS)}, got {self.op!r}")
        if not isinstance(self.expression, Expression):
            raise DtypeError(
                f"nadb.{self.op} aggregates an expression over the masks of a group, got {self.expression!r} "
                f"({type(self.expression).__qualname__}); write nadb.{self.op}(nadb.count(nadb.whole, low=128)); for "
                f"numbers use Python's own {self.op}"
            )
        nested = next((leaf for leaf in leaves(self.expression) if isinstance(leaf, Aggregate | JointCount)), None)
        if nested is not None:
            raise InvalidValueError(
                f"an aggregate is over the masks of one group and cannot hold another one, got {nested!r} inside "
                f"nadb.{self.op}(...); combine aggregates with + - * / instead"
            )
        if not leaves(self.expression):
            raise InvalidValueError(
                f"an aggregate needs something that differs between masks, got nadb.{self.op}({self.expression!r})"
            )

    @property
    def key(self) -> Hashable:
        """Operation and structure of the expression."""
        return ("aggregate", self.op, _structure(self.expression))

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.{self.op}({self.expression!r})"


@dataclass(frozen=True, slots=True, repr=False)
class JointMask:
    """The pixels in which every mask (intersection), or some mask (union), of a group is in a range of values.

    Attributes:
        kind: "intersection" or "union".
        low: the least value; None for open.
        high: the least value beyond; None for open.
        equals: one value instead of a range.
        region: only its pixels. Of a box by name, every mask of a group must have the same box.
        name: of the function that makes it, for messages; the kind by default.
    """

    kind: str
    low: Number | None = None
    high: Number | None = None
    equals: Number | None = None
    region: Region = whole
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InvalidValueError(f"masks are joined by {' or '.join(_KINDS)}, got {self.kind!r}")
        name = self.name or self.kind
        low, high, equals = checked_thresholds(self.low, self.high, self.equals)
        if low is None and high is None and equals is None:
            raise InvalidValueError(
                f"nadb.{name} joins thresholded masks and needs low=, high= or equals=, got none; write "
                f"nadb.{name}(low=0.5)"
            )
        region = as_region(self.region)
        if isinstance(region, OtherMask):
            raise DtypeError(
                f"the region of nadb.{name} is a box or the whole mask, got {region!r}; another mask has no place "
                "in a pixelwise aggregate"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "equals", equals)
        object.__setattr__(self, "region", region)

    @property
    def key(self) -> Hashable:
        """Equal for the same pixels."""
        return (self.kind, self.low, self.high, self.equals, self.region.key)

    def __repr__(self) -> str:
        return f"nadb.{self.kind}({self.arguments()})"

    def arguments(self) -> str:
        """The source of the arguments."""
        thresholds = threshold_source(self.low, self.high, self.equals)
        return thresholds if isinstance(self.region, Whole) else f"{thresholds}, region={self.region.describe()}"

    def limits(self, dtype: str) -> tuple[float | None, float | None]:
        """The range in terms of the collection's dtype, see `thresholds.normalised`."""
        return normalised(self.low, self.high, self.equals, dtype)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class JointCount(Leaf):
    """The number of pixels of a `JointMask`, for a group of masks of one shape."""

    joint: JointMask

    def __post_init__(self) -> None:
        if not isinstance(self.joint, JointMask):
            raise DtypeError(f"a joint count counts nadb.intersection(...) or nadb.union(...), got {self.joint!r}")

    @property
    def key(self) -> Hashable:
        """That of the pixels."""
        return ("joint count", self.joint.key)

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.count({self.joint!r})"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class JointRatio(JointCount):
    """The pixels of an intersection by those of the union, for a group of masks of one shape; NULL where that is empty.

    A leaf, and not the quotient of two counts, since their bounds are not reached together: the intersection is large
    where the union is.

    Attributes:
        joint: the intersection.
    """

    @property
    def key(self) -> Hashable:
        """That of the intersection."""
        return ("iou", self.joint.key)

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.iou({self.joint.arguments()})"


def intersection(low: Any = None, high: Any = None, *, equals: Any = None, region: Any = whole) -> JointMask:
    """The pixels in which every mask of a group is in the range; the first argument of `count`.

    >>> from neuralartifactdb.masks.counts import count
    >>> count(intersection(low=0.5)) / count(union(low=0.5))
    nadb.count(nadb.intersection(low=0.5)) / nadb.count(nadb.union(low=0.5))

    Args:
        low: the least value; None for open.
        high: the least value beyond; None for open.
        equals: one value instead of a range.
        region: only the pixels of a box.

    Raises:
        DtypeError: a threshold or the region is of the wrong type.
        InvalidValueError: no threshold at all, a NaN, or `equals` with `low` or `high`.
    """
    return JointMask("intersection", low, high, equals, region)


def union(low: Any = None, high: Any = None, *, equals: Any = None, region: Any = whole) -> JointMask:
    """The pixels in which some mask of a group is in the range; the first argument of `count`.

    >>> union(low=0.5)
    nadb.union(low=0.5)

    Args and errors are those of `intersection`.
    """
    return JointMask("union", low, high, equals, region)


def iou(low: Any = None, high: Any = None, *, equals: Any = None, region: Any = whole) -> JointRatio:
    """Intersection over union of the thresholded masks of a group; NULL where the union is empty.

    >>> iou(low=0.5)
    nadb.iou(low=0.5)

    Args and errors are those of `intersection`.
    """
    return JointRatio(JointMask("intersection", low, high, equals, region, name="iou"))


def sum(expression: Expression) -> Aggregate:
    """The sum of an expression over the masks of a group, NULL skipped; NULL where all are.

    Of a condition: how many masks meet it.

    >>> from neuralartifactdb.masks.counts import count
    >>> sum(count(whole, low=128))
    nadb.sum(nadb.count(nadb.whole, low=128))

    Args:
        expression: of each mask.

    Raises:
        DtypeError: not an expression.
        InvalidValueError: it holds an aggregate, or nothing that differs between masks.
    """
    return Aggregate("sum", expression)


def mean(expression: Expression) -> Aggregate:
    """The mean of an expression over the masks of a group that are not NULL; of a condition: the share that meets it.

    Args and errors are those of `sum`.
    """
    return Aggregate("mean", expression)


def min(expression: Expression) -> Aggregate:
    """The least value of an expression over the masks of a group, NULL skipped.

    Args and errors are those of `sum`.
    """
    return Aggregate("min", expression)


def max(expression: Expression) -> Aggregate:
    """The greatest value of an expression over the masks of a group, NULL skipped.

    Args and errors are those of `sum`.
    """
    return Aggregate("max", expression)


def _structure(expression: Expression) -> Hashable:
    """Equal for expressions of the same operations over the same leaves: the nodes, each before its operands.

    A flat tuple, since hashing a nested one would recurse into a deep tree.
    """
    parts: list[Hashable] = []
    stack = [expression]
    while stack:
        node = stack.pop()
        if isinstance(node, Leaf):
            parts.append(("leaf", node.key))
        elif isinstance(node, Constant):
            parts.append(("constant", type(node.value).__name__, node.value))
        else:
            parts.append((type(node).__name__, getattr(node, "op", None), len(node.children)))
            stack.extend(reversed(node.children))
    return tuple(parts)
