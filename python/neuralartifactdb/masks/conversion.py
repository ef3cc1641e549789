"""Pixels as users give them (arrays, tensors, any fitting dtype) in the dtype of a collection; no loss in silence.

Every pixel is checked: NaN, infinities and values out of the collection's range are errors with mask, y, x and value.
Implements "an error on append, unless nodata=" of design section 5 and `convert="scale"` of section 7.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.host_arrays import array_of_tensor, is_tensor
from neuralartifactdb.masks.batch import CollectionMeta

__all__ = ["CONVERSIONS", "as_numpy", "check_convert", "check_values", "stored_pixels"]

CONVERSIONS = (None, "scale")


def check_convert(convert: Any, meta: CollectionMeta) -> None:
    """ValueError unless the conversion is known and fits the collection."""
    if not (convert is None or (isinstance(convert, str) and convert in CONVERSIONS)):
        raise InvalidValueError(f"convert must be None or 'scale', got {convert!r}")
    if convert is not None and meta.dtype not in ("uint8", "uint16"):
        raise InvalidValueError(
            f'convert="scale" maps float pixels in [0, 1] onto integers; the collection has dtype {meta.dtype}: '
            + ("give bools, such as pixels >= 0.5" if meta.dtype == "bool" else "leave convert= out")
        )


def as_numpy(pixels: Any) -> NDArray[Any]:
    """An array or tensor as NumPy; copies only what is elsewhere than in this process's memory."""
    if is_tensor(pixels):
        return array_of_tensor(pixels, "pixels")
    if isinstance(pixels, np.ma.MaskedArray):
        raise DtypeError(
            "pixels must not be a masked array: give pixels.filled(value) to a collection made with nodata=value"
        )
    try:
        return np.asarray(pixels)
    except ValueError as error:  # nested lists of different lengths
        raise InvalidValueError("a mask must be a 2-D array, got lists of different lengths") from error


def stored_pixels(pixels: NDArray[Any], meta: CollectionMeta, convert: str | None, first: int) -> NDArray[Any]:
    """Masks of one shape in the stored dtype.

    Args:
        pixels: (k, h, w), any dtype.
        meta: of the collection.
        convert: None, or "scale": floats in [0, 1] are mapped onto the collection's range (rounded to nearest, halves
            to even; NaN becomes nodata); integers are stored as they are.
        first: position of the first mask, for messages.

    Returns:
        C-contiguous (k, h, w), uint8 for bool; the input itself where it has that form.

    Raises:
        TypeError: a dtype that would lose something. ValueError: a value that the dtype does not have.
    """
    given = pixels.dtype
    target = meta.stored_dtype
    if given.kind not in "biuf":
        raise DtypeError(f"pixels must be bool, integers or floats, got dtype {given}")
    if given.kind == "b":
        return np.ascontiguousarray(pixels).view(np.uint8).astype(target, copy=False)
    if target.kind == "u" and given.kind == "f":
        if convert != "scale":
            scale = (
                "give bools, such as pixels >= 0.5"
                if meta.dtype == "bool"
                else 'convert="scale" maps floats in [0, 1] onto the value range'
            )
            raise DtypeError(f"pixels have dtype {given}, the collection keeps {meta.dtype}: {scale}")
        return _scaled(pixels, meta, target, first)
    if given.kind in "iu" and target.kind == "u":
        limits, holds = np.iinfo(given), np.iinfo(target)
        if limits.min < holds.min or limits.max > holds.max:
            wrong = (pixels < holds.min) | (pixels > holds.max)
            if wrong.any():
                _refuse(meta, *_first(wrong, pixels, first))
    elif not np.can_cast(given, target, "safe"):
        raise DtypeError(
            f"pixels have dtype {given}, which {meta.dtype} (the collection's) does not hold exactly: "
            f"round them yourself with pixels.astype(np.{target})"
        )
    return np.ascontiguousarray(pixels, dtype=target)


def check_values(pixels: list[NDArray[Any]], meta: CollectionMeta, first: int) -> None:
    """ValueError naming mask, y, x and value for the first pixel that is neither nodata nor in the value range.

    Args:
        pixels: C-contiguous 2-D arrays in the stored dtype.
        meta: of the collection.
        first: position of the first mask, for messages.
    """
    if not pixels:
        return
    shapes = np.array([mask.shape for mask in pixels], dtype=np.int32)
    low, high = meta.value_range
    found = _core.check_pixels(pixels, meta.native, shapes, float(low), float(high), meta.nodata)
    if found is not None:
        mask, y, x, value = found
        _refuse(meta, first + mask, y, x, value)


def _scaled(pixels: NDArray[Any], meta: CollectionMeta, target: np.dtype[Any], first: int) -> NDArray[Any]:
    low, high = meta.value_range
    values = pixels.astype(np.float64)
    missing = np.isnan(values)
    wrong = ~((values >= 0.0) & (values <= 1.0))
    if meta.nodata is not None:
        wrong &= ~missing
    if wrong.any():
        mask, y, x, value = _first(wrong, pixels, first)
        raise InvalidValueError(
            f'convert="scale" takes floats in [0, 1], got {value!r} at mask {mask}, y {y}, x {x}'
            + ("; give nodata= to create_masks for missing pixels" if np.isnan(value) else "")
        )
    np.multiply(values, high - low, out=values)
    np.add(values, low, out=values)
    np.rint(values, out=values)
    if meta.nodata is not None:
        values[missing] = float(meta.nodata)
    return np.ascontiguousarray(values.astype(target))


def _first(wrong: NDArray[np.bool_], pixels: NDArray[Any], first: int) -> tuple[int, int, int, float]:
    mask, y, x = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    return first + mask, y, x, pixels[mask, y, x].item()


def _refuse(meta: CollectionMeta, mask: int, y: int, x: int, value: float) -> NoReturn:
    low, high = meta.value_range
    if value != value:
        hint = "; nodata=float('nan') in create_masks lets NaN mark missing pixels"
    else:
        hint = "; value_range= and nodata= of create_masks say what a collection takes"
    if meta.dtype != "float32" and meta.dtype != "float16":
        value, low, high = int(value), int(low), int(high)
    also = "" if meta.nodata is None else f" or be nodata, {meta.nodata:g}"
    raise InvalidValueError(
        f"pixels must lie in [{low!r}, {high!r}]{also}, got {value!r} at mask {mask}, y {y}, x {x}{hint}"
    )
