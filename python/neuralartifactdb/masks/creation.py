"""What `create_masks` was asked for, checked, as the description of a new collection; and whether an old one is that.

Implements `create_masks` of design section 7.
"""

from __future__ import annotations

import math
import uuid
from numbers import Integral
from typing import Any

import numpy as np

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.masks.batch import STORED_DTYPES, CollectionMeta
from neuralartifactdb.masks.grid import checked_edges, checked_grid, checked_storage

__all__ = ["check_same", "described"]

_MODES = ("append", "lazy")


def described(
    dtype: Any, value_range: Any, nodata: Any, grid: Any, edges: Any, storage: Any, index: Any
) -> CollectionMeta:
    """A new collection, without masks.

    Args:
        dtype: "bool", "uint8", "uint16", "float16", "float32", or what NumPy takes for one of these.
        value_range: (low, high), both allowed; None for the dtype's own, of floats (0, 1).
        nodata: a value that no range contains, or None.
        grid: cells along each axis, or None.
        edges: ascending values, or None.
        storage: a share of the compressed pixels, or bytes a mask.
        index: "append" or "lazy".

    Raises:
        TypeError, ValueError: says which argument, and what it takes.
    """
    name = _dtype_name(dtype)
    low, high = _range(name, value_range)
    missing = _nodata(name, nodata)
    if not isinstance(index, str) or index not in _MODES:
        raise InvalidValueError(f"index must be 'append' or 'lazy', got {index!r}")
    checked_storage(storage)
    return CollectionMeta(
        uuid.uuid4().hex,
        name,
        (low, high),
        missing,
        checked_grid(grid),
        checked_edges(edges, name, (low, high), missing),
        storage if isinstance(storage, str) else int(storage) if isinstance(storage, Integral) else float(storage),
        index,
    )


def check_same(name: str, held: CollectionMeta, asked: CollectionMeta, given: set[str]) -> None:
    """ValueError unless a collection is what `exist_ok=True` asks for.

    Args:
        name: of the collection.
        held: what it is.
        asked: what is asked for.
        given: the arguments that were given; others may be what they are.
    """
    for what, old, new in (
        ("dtype", held.dtype, asked.dtype),
        ("value_range", held.value_range, asked.value_range),
        ("nodata", held.nodata, asked.nodata),
        ("grid", held.grid, asked.grid),
        ("edges", held.edges, asked.edges),
        ("index", held.index, asked.index),
    ):
        both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
        if what in given and old != new and not both_nan:
            raise InvalidValueError(
                f"collection {name!r} exists with {what}={old!r}, got {what}={new!r}; overwrite=True replaces it, or "
                "take another name"
            )


def _dtype_name(dtype: Any) -> str:
    text = str(dtype)
    if text.startswith("torch."):
        name = text.removeprefix("torch.")
    else:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = text
    if dtype is None or name not in STORED_DTYPES:
        raise DtypeError(f"dtype must be one of {', '.join(map(repr, STORED_DTYPES))}, got {dtype!r}")
    return name


def _range(dtype: str, value_range: Any) -> tuple[float, float]:
    if value_range is None:
        return CollectionMeta.default_range(dtype)
    try:
        low, high = value_range
    except (TypeError, ValueError):
        raise DtypeError(
            f"value_range must be (least, greatest), such as (0, 255), got {value_range!r} "
            f"({type(value_range).__name__})"
        ) from None
    ends = _value("value_range", dtype, low), _value("value_range", dtype, high)
    if not all(math.isfinite(end) for end in ends):
        raise InvalidValueError(f"value_range must be finite in {dtype}, got {value_range!r}")
    if not ends[0] < ends[1]:
        raise InvalidValueError(f"value_range must ascend, got {value_range!r}")
    return ends


def _nodata(dtype: str, nodata: Any) -> float | None:
    if nodata is None:
        return None
    if dtype == "bool":
        raise InvalidValueError(
            f"nodata is not for bool, where both values count, got {nodata!r}; use dtype='uint8' with "
            "value_range=(0, 1) and nodata=255"
        )
    return _value("nodata", dtype, nodata)


def _value(what: str, dtype: str, value: Any) -> float:
    """A number as the dtype holds it: floats rounded as NumPy does, whole numbers exactly."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (int, float)):
        raise DtypeError(f"{what} must be a number, got {value!r} ({type(value).__name__})")
    if dtype in ("float16", "float32"):
        with np.errstate(over="ignore"):
            return float(np.dtype(dtype).type(float(value)))
    limits = np.iinfo(STORED_DTYPES[dtype]) if dtype != "bool" else None
    least, most = (0, 1) if limits is None else (int(limits.min), int(limits.max))
    if value != value or value != math.floor(value) or not least <= value <= most:
        raise InvalidValueError(f"{what} must be a whole number in [{least}, {most}] for {dtype}, got {value!r}")
    return float(value)
