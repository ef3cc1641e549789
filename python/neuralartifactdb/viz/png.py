"""Arrays to 8-bit pictures and to PNG bytes, with zlib alone.

A page of results must need neither pillow nor matplotlib (design section 8). Row filters follow the PNG specification
(W3C, third edition, section 9), chosen per row by its least sum of absolute differences (section 12.7).
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.host_arrays import is_tensor

__all__ = ["as_image", "data_uri", "encode_png", "is_image", "shrink"]

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def is_image(value: object) -> bool:
    """True for arrays, tensors and PIL pictures: what `as_image` takes, as far as types tell."""
    return isinstance(value, np.ndarray) or is_tensor(value) or (hasattr(value, "convert") and hasattr(value, "mode"))


def as_image(value: Any) -> NDArray[np.uint8]:
    """A picture from whatever users hold.

    uint8 is taken as it is, bool as black and white, floats within [0, 1] as such; other numbers are stretched from
    least to greatest, NaN shown as the least. Channels may come first (1, 3 or 4 of them), as torch has them.

    Args:
        value: array or tensor (H, W), (H, W, C) or (C, H, W) with C in 1, 3, 4, or a PIL picture.

    Returns:
        uint8 (H, W) or (H, W, 3 or 4).

    Raises:
        DtypeError: not a picture, or complex.
        InvalidValueError: a shape that is none of these, or no pixels.
    """
    if hasattr(value, "convert") and hasattr(value, "mode"):
        value = np.asarray(value.convert("RGBA" if "A" in value.mode or "transparency" in value.info else "RGB"))
    elif is_tensor(value):
        tensor = value.detach().cpu()
        value = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(value, np.ndarray):
        got = f"{type(value).__module__}.{type(value).__qualname__}"
        raise DtypeError(f"a picture must be a NumPy array, a torch tensor or a PIL image, got {got}")
    if value.dtype.kind not in "biuf":
        raise DtypeError(f"a picture must be bool, integer or float, got dtype {value.dtype}")
    array, shape = value, value.shape
    if array.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise InvalidValueError(
            "a picture must have the shape (H, W), (H, W, C) or (C, H, W) with C in 1, 3, 4 and at least one pixel, "
            f"got {shape}"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    return _stretched(array.astype(np.float64))


def _stretched(array: NDArray[np.float64]) -> NDArray[np.uint8]:
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    if low == high:
        return np.full(array.shape, 128, dtype=np.uint8)
    array = np.clip(np.nan_to_num(array, nan=low, posinf=high, neginf=low), low, high)
    # Halves first: high - low of the widest range would overflow.
    return np.rint((array / 2 - low / 2) / (high / 2 - low / 2) * 255.0).astype(np.uint8)


def shrink(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """The picture, at most `max_side` pixels wide and high: larger ones are averaged in whole blocks of pixels."""
    factor = -(-max(image.shape[:2]) // max_side)
    if factor <= 1:
        return image
    height, width = image.shape[0], image.shape[1]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    total = np.add.reduceat(np.add.reduceat(image.astype(np.uint64), rows, axis=0), columns, axis=1)
    area = np.minimum(factor, height - rows)[:, None] * np.minimum(factor, width - columns)[None, :]
    area = area.reshape(area.shape + (1,) * (image.ndim - 2))
    mean: NDArray[np.uint8] = ((total + area.astype(np.uint64) // 2) // area.astype(np.uint64)).astype(np.uint8)
    return mean


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file.

    Args:
        image: uint8 (H, W), (H, W, 3) or (H, W, 4), as `as_image` gives it.

    Returns:
        The file's bytes; grey if all channels are equal.
    """
    if image.ndim == 3 and image.shape[2] == 3 and (image == image[:, :, :1]).all():
        image = image[:, :, 0]
    height, width = image.shape[0], image.shape[1]
    channels = 1 if image.ndim == 2 else image.shape[2]
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = _filtered(np.ascontiguousarray(image).reshape(height, width * channels), channels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _filtered(rows: NDArray[np.uint8], channels: int) -> bytes:
    """Each row under the filter that leaves the least absolute sum, with its filter byte."""
    left = np.zeros_like(rows)
    left[:, channels:] = rows[:, :-channels]
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    corner = np.zeros_like(rows)
    corner[1:, channels:] = rows[:-1, :-channels]
    average = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
    a, b, c = (x.astype(np.int16) for x in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where(
        (to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner)
    )
    # uint8 subtraction wraps, which is what the specification asks for.
    filtered = np.stack([rows, rows - left, rows - above, rows - average, rows - paeth])
    cost = np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=2)
    best = cost.argmin(axis=0)
    chosen = np.empty((rows.shape[0], rows.shape[1] + 1), dtype=np.uint8)
    chosen[:, 0] = best
    chosen[:, 1:] = filtered[best, np.arange(rows.shape[0])]
    return chosen.tobytes()


def data_uri(image: NDArray[np.uint8]) -> str:
    """The picture as a `data:` address for an `img` element."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")
