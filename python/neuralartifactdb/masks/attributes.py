"""Attributes of masks as users give them: columns checked, single values repeated, kinds that stay the same.

A column keeps its kind (bool, number or text) as long as a mask has it, so that a condition means the same for every
mask. Implements `attrs` of design section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.host_arrays import host_array, is_tensor
from neuralartifactdb.inputs import as_columns
from neuralartifactdb.masks.batch import RESERVED_COLUMNS
from neuralartifactdb.nulls import is_null

__all__ = ["attribute_columns", "check_kinds", "kind_of"]

_INT64 = (-(2**63), 2**64)


def attribute_columns(attrs: Any, n: int) -> dict[str, NDArray[Any]]:
    """Attributes of n masks.

    Args:
        attrs: a dict from name to n values (array-like), or to one value for all masks; or a pandas DataFrame of n
            rows; None for no attributes. None and NaN are NULL.
        n: number of masks.

    Returns:
        1-D arrays of length n: bool, integers, floats, or objects that are text or None, or bool or int or None.

    Raises:
        TypeError: another type, or a column of mixed kinds. ValueError: a wrong length, a reserved or unusable name.
    """
    if attrs is None:
        return {}
    if isinstance(attrs, Mapping):
        if not attrs:
            return {}
        attrs = {name: [_plain(value)] * n if _is_single(value) else value for name, value in attrs.items()}
    elif not (hasattr(attrs, "columns") and hasattr(attrs, "to_dict")):
        raise DtypeError(f"attrs must be a dict of columns or a pandas DataFrame, got {type(attrs).__name__}")
    elif not len(attrs.columns):
        return {}
    columns = as_columns(attrs)
    spelled: dict[str, str] = {}
    for name, values in columns.items():
        if name.lower() in RESERVED_COLUMNS:
            raise InvalidValueError(
                f"{name!r} is a column that every collection has ({', '.join(RESERVED_COLUMNS)}): give the attribute "
                "another name"
            )
        if not name or name != name.strip() or not name.isprintable():
            raise InvalidValueError(f"names of attributes must be printable text without space around it, got {name!r}")
        if name.lower() in spelled:
            raise InvalidValueError(
                f"names of attributes must differ in more than case, got {spelled[name.lower()]!r} and {name!r}"
            )
        spelled[name.lower()] = name
        if len(values) != n:
            raise InvalidValueError(
                f"attrs[{name!r}] must have one value per mask, {n}, or be one value for all, got {len(values)} values"
            )
        kind_of(name, values)
    return {name: values.astype(object) if values.dtype.kind in "UT" else values for name, values in columns.items()}


def kind_of(name: str, values: NDArray[Any]) -> str | None:
    """ "bool", "number" or "text"; None where every value is NULL.

    Raises:
        TypeError: of another kind, or mixed. ValueError: integers beyond 64 bits.
    """
    kind = values.dtype.kind
    if kind == "b":
        return "bool"
    if kind in "iuf" and values.dtype.itemsize <= 8:
        return None if kind == "f" and np.isnan(values).all() else "number"
    if kind in "UT":
        return "text"
    if kind != "O":
        raise DtypeError(
            f"attrs[{name!r}] has dtype {values.dtype}: expected bool, integers or floats up to 64 bits, or text"
        )
    given = [value for value in values if not is_null(value)]
    if not given:
        return None
    if all(isinstance(value, str) for value in given):
        return "text"
    if all(isinstance(value, (bool, np.bool_)) for value in given):
        return "bool"
    if all(isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) for value in given):
        beyond = next((v for v in given if isinstance(v, int) and not _INT64[0] <= v < _INT64[1]), None)
        if beyond is not None:
            raise InvalidValueError(f"attrs[{name!r}] holds an integer beyond 64 bits: {beyond}")
        return "number"
    kinds = sorted({type(value).__name__ for value in given})
    raise DtypeError(
        f"attrs[{name!r}] mixes or holds {', '.join(kinds)}: expected text, bool, integers or floats, and None"
    )


def check_kinds(held: dict[str, str], columns: Mapping[str, NDArray[Any]]) -> None:
    """TypeError if a column has another kind than before; ValueError for a name that differs in case only.

    Args:
        held: kinds of the columns so far; gets those of the new ones.
        columns: new values.
    """
    spelled = {name.lower(): name for name in held}
    for name, values in columns.items():
        if name not in held and name.lower() in spelled:
            raise InvalidValueError(
                f"names of attributes must differ in more than case: the collection has {spelled[name.lower()]!r}, got "
                f"{name!r}"
            )
        kind = kind_of(name, values)
        if kind is None:
            continue
        if held.setdefault(name, kind) != kind:
            raise DtypeError(
                f"attrs[{name!r}] holds {kind}, the collection's column of that name {held[name]}: convert the values, "
                "or give the attribute another name"
            )


def _is_single(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (str, bool, int, float, np.generic))
        or ((isinstance(value, np.ndarray) or is_tensor(value)) and value.ndim == 0)
    )


def _plain(value: Any) -> Any:
    """A single value without the tensor around it."""
    return host_array(value).item() if is_tensor(value) else value
