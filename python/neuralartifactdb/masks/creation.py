"""What `create_masks` was asked for, checked, as the description of a new collection; and whether an old one is that.

Implements `create_masks` of design section 7.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NoReturn

import numpy as np

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.masks.batch import STORED_DTYPES, CollectionMeta
from neuralartifactdb.masks.grid import checked_edges, checked_grid, checked_storage

__all__ = ["Asked", "check_same", "described"]

_MODES = ("append", "lazy")
_DEFAULT_STORAGE = 0.05
_DEFAULT_INDEX = "append"


@dataclass(frozen=True)
class Asked:
    """The arguments of `create_masks` that say what a collection is; None where nothing was given.

    Attributes:
        dtype: "bool", "uint8", "uint16", "float16", "float32", or what NumPy takes for one of these.
        value_range: (low, high), both allowed; else the dtype's own, of floats (0, 1).
        nodata: a value that no range contains.
        grid: cells along each axis.
        edges: ascending values.
        storage: a share of the compressed pixels, or bytes a mask; else 0.05.
        index: "append" or "lazy"; else "append".
    """

    dtype: Any
    value_range: Any = None
    nodata: Any = None
    grid: Any = None
    edges: Any = None
    storage: Any = None
    index: Any = None

    def known_of(self, held: CollectionMeta) -> Asked:
        """The same for a collection that is there: its range and nodata, on which edges depend, unless given."""
        ends = held.value_range if self.value_range is None else self.value_range
        return replace(self, value_range=ends, nodata=held.nodata if self.nodata is None else self.nodata)


def described(asked: Asked) -> CollectionMeta:
    """A new collection, without masks.

    Raises:
        TypeError, ValueError: says which argument, and what it takes.
    """
    name = _dtype_name(asked.dtype)
    low, high = _range(name, asked.value_range)
    missing = _nodata(name, asked.nodata)
    index = _DEFAULT_INDEX if asked.index is None else asked.index
    if not isinstance(index, str) or index not in _MODES:
        raise InvalidValueError(f"index must be 'append' or 'lazy', got {index!r}")
    storage = _DEFAULT_STORAGE if asked.storage is None else asked.storage
    checked_storage(storage)
    return CollectionMeta(
        uuid.uuid4().hex,
        name,
        (low, high),
        missing,
        checked_grid(asked.grid),
        checked_edges(asked.edges, name, (low, high), missing),
        storage if isinstance(storage, str) else int(storage) if isinstance(storage, Integral) else float(storage),
        index,
    )


def check_same(name: str, held: CollectionMeta, asked: Asked) -> None:
    """ValueError unless a collection is what `exist_ok=True` asks for; what was not given may be what it is.

    Args:
        name: of the collection.
        held: what it is.
        asked: what is asked for.
    """
    if _dtype_name(asked.dtype) != held.dtype:
        _refuse(name, "dtype", held.dtype, asked.dtype)
    new = described(asked.known_of(held))
    pairs: dict[str, tuple[Any, Any]] = {
        "value_range": (held.value_range, new.value_range),
        "nodata": (held.nodata, new.nodata),
        "grid": (held.grid, new.grid),
        "edges": (held.edges, new.edges),
        "storage": (checked_storage(held.storage), checked_storage(new.storage)),
        "index": (held.index, new.index),
    }
    for what, (old, wanted) in pairs.items():
        given = getattr(asked, what)
        both_nan = isinstance(old, float) and isinstance(wanted, float) and math.isnan(old) and math.isnan(wanted)
        if given is not None and old != wanted and not both_nan:
            _refuse(name, what, held.storage if what == "storage" else old, given)


def _refuse(name: str, what: str, old: Any, given: Any) -> NoReturn:
    open_still = what in ("grid", "edges") and not old
    exists = f"without {what}=, which its first append chooses" if open_still else f"with {what}={old!r}"
    keep = "take another name" if what == "dtype" else f"leave {what}= out to keep it"
    raise InvalidValueError(
        f"collection {name!r} exists {exists}, got {what}={given!r}; {keep}, or overwrite=True replaces it"
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
        try:
            with np.errstate(over="ignore"):
                return float(np.dtype(dtype).type(float(value)))
        except OverflowError:  # an int beyond float64
            n_bits = int(value).bit_length()
            raise InvalidValueError(f"{what} must be finite in {dtype}, got an int of {n_bits:,} bits") from None
    limits = np.iinfo(STORED_DTYPES[dtype]) if dtype != "bool" else None
    least, most = (0, 1) if limits is None else (int(limits.min), int(limits.max))
    if not least <= value <= most or value != math.floor(value):  # NaN and infinities are in no range
        raise InvalidValueError(f"{what} must be a whole number in [{least}, {most}] for {dtype}, got {value!r}")
    return float(value)
