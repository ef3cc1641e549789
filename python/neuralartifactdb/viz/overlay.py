"""A mask over its picture: the picture in grey, the mask as warmth on top, boxes as frames.

Two small PNGs stacked by the style sheet, so that a coarse picture keeps its pixels while the mask is drawn smoothly,
and a page of a hundred stays small. One more component of static pages, beside those of `html` (design section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Html
from neuralartifactdb.viz.png import as_image, data_uri, shrink

__all__ = ["overlay", "warmth"]

_COOL, _HOT = np.array([208.0, 40.0, 10.0]), np.array([255.0, 206.0, 64.0])
_OPAQUE = 240.0
_FRAMES = ("", " dashed")

Box = tuple[int, int, int, int]


def overlay(picture: Any, mask: Any, boxes: Sequence[Box | None] = (), *, alt: str = "", max_side: int = 32) -> Html:
    """A picture with a mask and boxes on top.

    Args:
        picture: what `viz.png.as_image` takes; the mask is stretched to it.
        mask: (H, W), uint8, bool or floats in [0, 1]; other numbers are stretched from least to greatest.
        boxes: (x0, y0, x1, y1) in pixels of the mask, half-open; None is left out. The first has a solid frame, others
            a dashed one.
        alt: all of it in words.
        max_side: masks are averaged down to at most this; more is hardly seen beneath a thumbnail.

    Raises:
        InvalidValueError: the mask is not 2-D.
    """
    values = as_image(mask)
    if values.ndim != 2:
        raise InvalidValueError(f"a mask must be 2-D, got shape {values.shape}")
    height, width = values.shape
    heat = warmth(shrink(values, max_side))
    frames = "".join(_frame(box, height, width, _FRAMES[min(i, 1)]) for i, box in enumerate(boxes) if box is not None)
    shown = as_image(picture)
    return Html(
        f'<span class="overlay"><span{_letterbox(*shown.shape[:2])}>{html.picture(shown, alt=alt)}'
        f'<img class="heat" alt="" src="{data_uri(heat)}">{frames}</span></span>'
    )


def warmth(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values as colours with opacity, (H, W, 4): nothing, dark red, orange, yellow."""
    share = values.astype(np.float64)[:, :, None] / 255.0
    colour = _COOL + (_HOT - _COOL) * share
    opacity = _OPAQUE * share**1.15
    # Four-bit steps of opacity cannot be told apart and compress far better.
    layer: NDArray[np.uint8] = np.rint(np.concatenate([colour, np.rint(opacity / 8.0) * 8.0], axis=2)).astype(np.uint8)
    return layer


def _letterbox(height: int, width: int) -> str:
    """The place of a picture in a square, as an attribute; none if it fills it."""
    if height == width:
        return ""
    across, down = (max(0.0, 50 * (1 - a / b)) for a, b in ((width, height), (height, width)))
    return f' style="inset:{down:.4g}% {across:.4g}%"'


def _frame(box: Box, height: int, width: int, css: str) -> str:
    x0, x1 = (min(max(int(x), 0), width) for x in (box[0], box[2]))
    y0, y1 = (min(max(int(y), 0), height) for y in (box[1], box[3]))
    if x0 >= x1 or y0 >= y1:
        return ""
    place = f"left:{100 * x0 / width:.4g}%;top:{100 * y0 / height:.4g}%"
    size = f"width:{100 * (x1 - x0) / width:.4g}%;height:{100 * (y1 - y0) / height:.4g}%"
    return f'<i class="frame{css}" style="{place};{size}"></i>'
