"""Regions of a mask: a constant box, a box of each mask by name, the whole mask, or another collection's mask.

Boxes are `(x0, y0, x1, y1)` in pixels, half-open, and clipped to the mask; an inverted or empty box has no pixels, a
missing one makes the count NULL (design sections 2 and 5). A region does not know its collection.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.host_arrays import host_array
from neuralartifactdb.masks.thresholds import Number, checked_thresholds, normalised, threshold_source

__all__ = ["BoxColumn", "ConstantBox", "OtherMask", "Region", "Whole", "as_region", "box", "mask", "whole"]

#: no mask is larger, and the least int32 marks a missing box
_FARTHEST: Final = 2**31 - 1


class Region:
    """Part of a mask. Regions compare by what they say."""

    __slots__ = ()

    @property
    def key(self) -> Hashable:
        """Equal for regions that are the same."""
        raise NotImplementedError(f"{type(self).__name__} must define `key`")

    def describe(self) -> str:
        """Python source that builds it again."""
        raise NotImplementedError(f"{type(self).__name__} must define `describe`")

    def __repr__(self) -> str:
        return self.describe()


@dataclass(frozen=True, repr=False, slots=True)
class ConstantBox(Region):
    """The same box in every mask.

    Attributes:
        x0: first column.
        y0: first row.
        x1: the column after the last one.
        y1: the row after the last one.
    """

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1"):
            object.__setattr__(self, name, _coordinate(name, getattr(self, name)))

    @property
    def key(self) -> Hashable:
        """The coordinates."""
        return ("box", self.x0, self.y0, self.x1, self.y1)

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.box({self.x0}, {self.y0}, {self.x1}, {self.y1})"

    def array(self) -> NDArray[np.int32]:
        """int32 (1, 4); what lies beyond any mask is moved to its edge, so no coordinate reads as missing."""
        corners = [min(max(at, -_FARTHEST), _FARTHEST) for at in (self.x0, self.y0, self.x1, self.y1)]
        return np.array([corners], dtype=np.int32)


@dataclass(frozen=True, repr=False, slots=True)
class BoxColumn(Region):
    """The box of that name that every mask was appended with; where a mask has none, NULL."""

    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _name("a box", self.name))

    @property
    def key(self) -> Hashable:
        """The name."""
        return ("box column", self.name)

    def describe(self) -> str:
        """Source that builds it again."""
        return f"nadb.box({self.name!r})"


@dataclass(frozen=True, repr=False, slots=True)
class Whole(Region):
    """All pixels of the mask."""

    @property
    def key(self) -> Hashable:
        """One for all."""
        return ("whole",)

    def describe(self) -> str:
        """Source that builds it again."""
        return "nadb.whole"

    def array(self) -> NDArray[np.int32]:
        """int32 (1, 4), a box that every mask lies within."""
        return np.array([[0, 0, _FARTHEST, _FARTHEST]], dtype=np.int32)


@dataclass(frozen=True, repr=False, slots=True)
class OtherMask(Region):
    """The pixels that are in a range of values in another collection's mask of the same input.

    An input without a mask there gives NULL, one with several is an error, as are masks of another shape.

    Attributes:
        collection: the name of the other collection.
        low: the least value of the region there; None for open.
        high: the least value no longer of the region; None for open.
        equals: one value instead of a range.
    """

    collection: str
    low: Number | None = None
    high: Number | None = None
    equals: Number | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "collection", _name("a collection", self.collection))
        low, high, equals = checked_thresholds(self.low, self.high, self.equals)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "equals", equals)

    @property
    def key(self) -> Hashable:
        """Collection and range."""
        return ("mask", self.collection, self.low, self.high, self.equals)

    def describe(self) -> str:
        """Source that builds it again."""
        thresholds = threshold_source(self.low, self.high, self.equals)
        return f"nadb.mask({self.collection!r}{', ' if thresholds else ''}{thresholds})"

    def limits(self, dtype: str) -> tuple[float | None, float | None]:
        """The range in terms of the other collection's dtype, see `thresholds.normalised`."""
        return normalised(self.low, self.high, self.equals, dtype)


#: all pixels of the mask, as a region
whole: Final = Whole()


@overload
def box(name_or_x0: str, /) -> BoxColumn: ...
@overload
def box(name_or_x0: int, y0: int, x1: int, y1: int, /) -> ConstantBox: ...
def box(name_or_x0: str | int, /, *others: int) -> Region:
    """A box as a region: one of each mask by name, or the same pixels in all of them.

    >>> box("object")
    nadb.box('object')
    >>> box(50, 60, 170, 160)
    nadb.box(50, 60, 170, 160)

    Args:
        name_or_x0: the name that `append(boxes={name: ...})` was given, or the first column.
        others: then the first row, the column after the last one, the row after the last one: half-open pixels.

    Raises:
        DtypeError: neither one name nor four numbers.
        InvalidValueError: a coordinate is not a whole number.
    """
    if not others and isinstance(name_or_x0, str):
        return BoxColumn(name_or_x0)
    if not others and isinstance(name_or_x0, tuple | list | np.ndarray):
        return _constant(name_or_x0)
    if len(others) != 3 or isinstance(name_or_x0, str):
        got = ", ".join(map(repr, (name_or_x0, *others)))
        raise DtypeError(
            f"a box is one name or four whole numbers x0, y0, x1, y1, got ({got}); write nadb.box('object') or "
            "nadb.box(50, 60, 170, 160)"
        )
    return ConstantBox(name_or_x0, *others)


def mask(collection: str, low: Number | None = None, high: Number | None = None, *, equals: Any = None) -> OtherMask:
    """Another collection's mask of the same input as a region: its pixels with `low <= value < high`.

    >>> mask("segmentation", low=1)
    nadb.mask('segmentation', low=1)
    >>> mask("segmentation", equals=7)
    nadb.mask('segmentation', equals=7)

    Args:
        collection: its name.
        low: the least value of the region; None for open.
        high: the least value beyond the region; None for open: the greatest value belongs to it.
        equals: one value instead, such as a label.

    Raises:
        DtypeError: the name is not a str, or a threshold is not a number.
        InvalidValueError: a threshold is NaN, or `equals` comes with `low` or `high`.
    """
    return OtherMask(collection, low, high, equals)


def as_region(region: Any) -> Region:
    """A region, or four whole numbers as one.

    Raises:
        DtypeError: it is neither.
        InvalidValueError: not four numbers, or not whole ones.
    """
    if isinstance(region, Region):
        return region
    if isinstance(region, tuple | list | np.ndarray):
        return _constant(region)
    hint = f"; write nadb.box({region!r})" if isinstance(region, str) else ""
    raise DtypeError(
        "a region is nadb.box(...), nadb.whole, nadb.mask(...) or four whole numbers (x0, y0, x1, y1), got "
        f"{region!r} ({type(region).__qualname__}){hint}"
    )


def _constant(coordinates: tuple[Any, ...] | list[Any] | NDArray[Any]) -> ConstantBox:
    if host_array(coordinates, "a box").shape != (4,):
        raise InvalidValueError(
            f"a box has four coordinates (x0, y0, x1, y1), got {coordinates!r}; for a box per mask append boxes= and "
            "name it: nadb.box('object')"
        )
    return ConstantBox(*coordinates)


def _coordinate(name: str, value: Any) -> int:
    """A whole number of pixels."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DtypeError(
            f"{name} of a box must be a whole number of pixels, got {value!r} ({type(value).__qualname__})"
        )
    if isinstance(value, float):
        if not math.isfinite(value) or value != int(value):
            raise InvalidValueError(
                f"{name} of a box must be a whole number of pixels, got {value!r}; round it first, as in "
                "nadb.box(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))"
            )
        return int(value)
    return int(value)


def _name(what: str, name: Any) -> str:
    if not isinstance(name, str):
        raise DtypeError(f"the name of {what} must be a str, got {name!r} ({type(name).__qualname__})")
    if not name:
        raise InvalidValueError(f"the name of {what} must not be empty, got ''")
    return str(name)
