"""Counts and areas: the leaves that masks give to expressions, one number for each mask.

A count is the number of pixels of a region with `low <= value < high` (design sections 2 and 5). A leaf does not know
its collection: it means the one that is asked.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from neuralartifactdb.errors import DtypeError
from neuralartifactdb.expressions.tree import Expression, Leaf
from neuralartifactdb.masks.aggregates import JointCount, JointMask
from neuralartifactdb.masks.regions import ConstantBox, OtherMask, Region, as_region, box, mask, whole
from neuralartifactdb.masks.thresholds import (
    Number,
    checked_thresholds,
    normalised,
    threshold_source,
    warn_of_excluded_maximum,
)

__all__ = ["Area", "Count", "area", "box", "count", "mask", "warn_of_excluded_maxima", "whole"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Count(Leaf):
    """The number of pixels of a region whose value lies in a range; NULL where the region is missing.

    Attributes:
        region: where.
        low: the least value counted; None for open.
        high: the least value no longer counted; None for open.
        equals: one value instead of a range.
    """

    region: Region
    low: Number | None = None
    high: Number | None = None
    equals: Number | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "region", as_region(self.region))
        low, high, equals = checked_thresholds(self.low, self.high, self.equals)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "equals", equals)

    @property
    def key(self) -> Hashable:
        """Region and thresholds."""
        return ("count", self.region.key, self.low, self.high, self.equals)

    def describe(self) -> str:
        """Source that builds it again."""
        thresholds = threshold_source(self.low, self.high, self.equals)
        return f"nadb.count({_argument(self.region)}{', ' if thresholds else ''}{thresholds})"

    def limits(self, dtype: str) -> tuple[float | None, float | None]:
        """The range in terms of the collection's dtype, see `thresholds.normalised`."""
        return normalised(self.low, self.high, self.equals, dtype)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Area(Leaf):
    """The number of pixels of a region that lie inside the mask, whatever their values; NULL where it is missing."""

    region: Region

    def __post_init__(self) -> None:
        object.__setattr__(self, "region", as_region(self.region))

    @property
    def key(self) -> Hashable:
        """The region."""
        return ("area", self.region.key)

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.area({_argument(self.region)})"


def count(region: Any, low: Any = None, high: Any = None, *, equals: Any = None) -> Leaf:
    """The number of pixels of a region with `low <= value < high`, as part of an expression.

    An open `high` includes the greatest value. Where `low >= high` nothing is counted.

    >>> count(box("object"), low=200) / area(box("object")) < 0.1
    nadb.count(nadb.box('object'), low=200) / nadb.area(nadb.box('object')) < 0.1
    >>> count((50, 60, 170, 160), 128, 256)
    nadb.count((50, 60, 170, 160), low=128, high=256)
    >>> count(whole, equals=7)
    nadb.count(nadb.whole, equals=7)

    Args:
        region: `nadb.box(...)`, `nadb.whole`, `nadb.mask(...)` or four whole numbers (x0, y0, x1, y1), half-open
            pixels; or, over the groups of `group_by`, `nadb.intersection(...)` or `nadb.union(...)`, which have
            thresholds of their own.
        low: the least value counted; None for open.
        high: the least value no longer counted; None for open.
        equals: count one value instead, such as a label.

    Raises:
        DtypeError: the region or a threshold is of the wrong type.
        InvalidValueError: a coordinate is not whole, a threshold is NaN, or `equals` comes with `low` or `high`.
    """
    if isinstance(region, JointMask):
        if low is not None or high is not None or equals is not None:
            raise DtypeError(
                f"thresholds belong to the masks that are joined, got low={low!r}, high={high!r}, equals={equals!r} "
                f"beside {region!r}; write nadb.count(nadb.{region.kind}(low=..., high=...))"
            )
        return JointCount(region)
    return Count(region, low, high, equals)


def area(region: Any) -> Leaf:
    """The number of pixels of a region that lie inside the mask, as part of an expression.

    >>> area(box(0, 0, 10, 10))
    nadb.area((0, 0, 10, 10))

    Args:
        region: as for `count`.

    Raises:
        DtypeError: the region is of the wrong type.
        InvalidValueError: a coordinate is not whole.
    """
    return Area(region)


def warn_of_excluded_maxima(
    found: Iterable[Expression],
    dtype: str,
    value_range: tuple[float, float],
    others: dict[str, tuple[str, tuple[float, float]]] | None = None,
) -> None:
    """Warn of counts whose `high` is the end of the range, once a query knows its collection.

    Args:
        found: leaves of the query.
        dtype: of the collection.
        value_range: of the collection.
        others: (dtype, value range) by name of the collections that regions refer to.
    """
    for leaf in found:
        if isinstance(leaf, Count):
            warn_of_excluded_maximum(leaf.high, dtype, value_range, repr(leaf))
        elif isinstance(leaf, JointCount):
            warn_of_excluded_maximum(leaf.joint.high, dtype, value_range, repr(leaf))
        region = getattr(leaf, "region", None)
        if isinstance(region, OtherMask) and others is not None and region.collection in others:
            warn_of_excluded_maximum(region.high, *others[region.collection], repr(region))


def _argument(region: Region) -> str:
    """A region as the first argument of a call: constant boxes without their name."""
    if isinstance(region, ConstantBox):
        return f"({region.x0}, {region.y0}, {region.x1}, {region.y1})"
    return region.describe()
