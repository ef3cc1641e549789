"""Boxes as users give them, into boxes as they are stored: int32 (x0, y0, x1, y1), half-open, missing = all -2**31.

Four formats, whole numbers or rounding outward, None and NaN for missing ones. Nothing is clipped here: a box past the
border is clipped where it is used. Implements the boxes of `append` (design section 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.host_arrays import host_array, is_tensor
from neuralartifactdb.masks.batch import MISSING_BOX

__all__ = ["BOX_FORMATS", "ROUNDINGS", "check_box_options", "missing_boxes", "shown_boxes", "stored_boxes"]

BOX_FORMATS = ("xyxy", "xywh", "cxcywh", "yxyx")
ROUNDINGS = (None, "outward")


def check_box_options(box_format: Any, rounding: Any) -> None:
    """ValueError unless both are known."""
    if not isinstance(box_format, str) or box_format not in BOX_FORMATS:
        raise InvalidValueError(f"box_format must be one of {', '.join(map(repr, BOX_FORMATS))}, got {box_format!r}")
    if not (rounding is None or (isinstance(rounding, str) and rounding in ROUNDINGS)):
        raise InvalidValueError(f"rounding must be None or 'outward', got {rounding!r}")


def stored_boxes(
    boxes: Any, n: int, *, box_format: str = "xyxy", rounding: str | None = None, first: int = 0
) -> dict[str, NDArray[np.int32]]:
    """Named boxes of n masks.

    Args:
        boxes: by name, n boxes of 4 numbers: an array (n, 4), a tensor, or a list in which None is a missing box; a row
            of NaN is missing too. None for no boxes.
        n: number of masks.
        box_format: "xyxy" (corners, half-open), "xywh" (corner and size), "cxcywh" (centre and size), "yxyx".
        rounding: "outward" makes fractional boxes the smallest whole ones around them; None refuses them.
        first: position of the first mask, for messages.

    Returns:
        By name int32 (n, 4): x0, y0, x1, y1.

    Raises:
        TypeError: not a dict of names, or not numbers. ValueError: a wrong shape, a half-missing or infinite box,
            fractions without `rounding`.
    """
    check_box_options(box_format, rounding)
    if boxes is None:
        return {}
    if not isinstance(boxes, Mapping):
        raise DtypeError(
            f"boxes must be a dict from a name to n boxes, such as boxes={{'object': xyxy}}, got {type(boxes).__name__}"
        )
    found: dict[str, NDArray[np.int32]] = {}
    for name, given in boxes.items():
        if not isinstance(name, str):
            raise DtypeError(f"names of boxes must be str, got {name!r} ({type(name).__name__})")
        if not name or name != name.strip() or not name.isprintable():
            raise InvalidValueError(f"names of boxes must be printable text without space around it, got {name!r}")
        numbers = _numbers(name, given, n)
        found[name] = _whole(name, numbers, box_format, rounding, first)
    return found


def missing_boxes(stored: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of some stored boxes, int32 (n, 4), are not there, bool (n,)."""
    missing: NDArray[np.bool_] = stored[:, 0] == MISSING_BOX
    return missing & (stored == MISSING_BOX).all(axis=1) if missing.any() else missing


def shown_boxes(stored: NDArray[np.int32]) -> NDArray[Any]:
    """Stored boxes as tables show them.

    Args:
        stored: int32 (n, 4).

    Returns:
        int32 (n, 4); float64 with rows of NaN where some are missing.
    """
    missing = missing_boxes(stored)
    if not missing.any():
        return stored
    shown = stored.astype(np.float64)
    shown[missing] = np.nan
    return shown


def _numbers(name: str, given: Any, n: int) -> NDArray[np.float64]:
    """float64 (n, 4), NaN where missing."""
    if is_tensor(given):
        given = host_array(given)
    elif hasattr(given, "to_numpy"):  # pandas, without importing it
        given = given.to_numpy()
    missing: NDArray[np.bool_] | None = None
    if isinstance(given, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(given)
        given = given.data
    if not isinstance(given, np.ndarray) or given.dtype == object:
        try:
            given = [(np.nan,) * 4 if row is None else host_array(row) if is_tensor(row) else row for row in given]
        except TypeError:
            raise DtypeError(
                f"boxes[{name!r}] must be an array of shape ({n}, 4) or a list of {n} boxes, got {given!r}"
            ) from None
        given = given or np.empty((0, 4))
    try:
        array = np.asarray(given)
        if array.dtype == object or array.dtype.kind not in "biufc":
            array = np.array([[np.nan if value is None else value for value in row] for row in given], np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"boxes[{name!r}] must hold {n} boxes of 4 numbers each (or None): {error}") from None
    if array.dtype.kind in "bc":
        raise DtypeError(f"boxes[{name!r}] must hold real numbers, got dtype {array.dtype}")
    if array.shape != (n, 4):
        raise InvalidValueError(
            f"boxes[{name!r}] must have one box of 4 numbers per mask, shape ({n}, 4), got {array.shape}"
        )
    numbers = array.astype(np.float64)
    if missing is not None:
        numbers[missing] = np.nan
    return numbers


def _corners(boxes: NDArray[np.float64], box_format: str) -> NDArray[np.float64]:
    """x0, y0, x1, y1."""
    if box_format == "xyxy":
        return boxes
    a, b, c, d = boxes.T
    if box_format == "yxyx":
        return np.stack([b, a, d, c], axis=1)
    if box_format == "xywh":
        return np.stack([a, b, a + c, b + d], axis=1)
    return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], axis=1)


def _whole(
    name: str, given: NDArray[np.float64], box_format: str, rounding: str | None, first: int
) -> NDArray[np.int32]:
    corners = _corners(given, box_format)
    empty = np.isnan(corners)
    missing = np.logical_and.reduce(empty, axis=1)
    half = np.flatnonzero(empty.any(axis=1) & ~missing)
    if half.size:
        what = "must have four numbers, or four NaN (or None) where it is missing"
        _refuse(name, given, box_format, int(half[0]), first, what)
    held = np.where(missing[:, None], 0.0, corners)
    if rounding == "outward":
        lows, highs = np.floor(held[:, :2]), np.ceil(held[:, 2:])
        nothing = held[:, 2:] <= held[:, :2]  # an empty side stays empty: outward would make a pixel of it
        held = np.concatenate([lows, np.where(nothing, np.minimum(highs, lows), highs)], axis=1)
    bad = np.flatnonzero(~((held > MISSING_BOX) & (held < 2**31)).all(axis=1))
    if bad.size:
        _refuse(name, given, box_format, int(bad[0]), first, "must have finite coordinates within 32 bits")
    fractional = np.flatnonzero((held != np.rint(held)).any(axis=1))
    if fractional.size:
        _refuse(
            name,
            given,
            box_format,
            int(fractional[0]),
            first,
            'must have whole coordinates; rounding="outward" takes the smallest whole box around it',
        )
    held[missing] = MISSING_BOX
    return np.ascontiguousarray(held.astype(np.int32))


def _refuse(name: str, given: NDArray[np.float64], box_format: str, row: int, first: int, what: str) -> NoReturn:
    """The box as it was given, to the last digit, and its corners where they were not given."""
    corners = _corners(given[row : row + 1], box_format)[0].tolist()
    got = ", ".join(f"{name}={value:.17g}" for name, value in zip(("x0", "y0", "x1", "y1"), corners, strict=True))
    if box_format != "xyxy":
        got = f"({', '.join(f'{value:.17g}' for value in given[row].tolist())}) as {box_format}, which is {got}"
    raise InvalidValueError(f"boxes[{name!r}] of mask {first + row} {what}; got {got}")
