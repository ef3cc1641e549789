"""Generated saliency maps with the statistics of Grad-CAM: 7 x 7 maps of one or more objects, upsampled, with boxes.

Stands in for the papers' data sets, which cannot be shipped: what matters to an index is that such maps are smooth,
non-negative, mostly dark, and peak somewhere near an object. One seed gives the same maps at every size and whatever
the length of the chunks. Implements the data of the masks bench (design section 5).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAM_SIDE", "cam_chunks", "cam_maps"]

CAM_SIDE = 7
"""Side of the maps before upsampling: the last convolution of a ResNet at 224 x 224."""

_BLOCK = 256  # maps that share a random stream: chunks of any length see the same maps
_MAX_OBJECTS = 3
_STRAYING = 0.25  # share of maps that look elsewhere than at their object: what the queries are after


def cam_maps(n: int, size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """All maps at once.

    Args:
        n: maps.
        size: side in pixels.
        seed: names the data set; the maps of one seed are the same at every size, but for the sampling.

    Returns:
        uint8 (n, size, size), each map scaled to reach from 0 to 255, and int32 (n, 4), the half-open box
        (x0, y0, x1, y1) of each map's first object.
    """
    maps, boxes = np.empty((n, size, size), np.uint8), np.empty((n, 4), np.int32)
    at = 0
    for part, part_boxes in cam_chunks(n, size, seed):
        maps[at : at + len(part)], boxes[at : at + len(part)] = part, part_boxes
        at += len(part)
    return maps, boxes


def cam_chunks(
    n: int, size: int, seed: int, chunk: int = 1024
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """The maps of `cam_maps` in order, `chunk` at a time (the last chunk may be shorter)."""
    if n < 0 or size < 1 or chunk < 1:
        raise ValueError(f"expected n >= 0, size >= 1 and chunk >= 1, got {n}, {size} and {chunk}")
    rows = _upsampling(size)
    block, coarse, shares = -1, np.empty(0), np.empty(0)
    for first in range(0, n, chunk):
        last = min(first + chunk, n)
        maps, boxes = np.empty((last - first, size, size), np.uint8), np.empty((last - first, 4), np.int32)
        at = first
        while at < last:
            if at // _BLOCK != block:
                block = at // _BLOCK
                coarse, shares = _coarse(np.random.default_rng([seed, block]))
            end = min(last, (block + 1) * _BLOCK)
            part = slice(at - block * _BLOCK, end - block * _BLOCK)
            maps[at - first : end - first] = _upsampled(coarse[part], rows)
            boxes[at - first : end - first] = _boxes(shares[part], size)
            at = end
        yield maps, boxes


def _coarse(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """One block of maps before upsampling, float32 (_BLOCK, 7, 7), and boxes as shares of the side."""
    n = _BLOCK
    centre = rng.uniform(0.12, 0.88, (n, _MAX_OBJECTS, 2))  # x, y
    radius = rng.uniform(0.06, 0.22, (n, _MAX_OBJECTS, 2))
    height = rng.uniform(0.3, 1.0, (n, _MAX_OBJECTS))
    height[:, 0] = 1.0
    objects = rng.choice(_MAX_OBJECTS, n, p=(0.6, 0.28, 0.12)) + 1
    height[np.arange(_MAX_OBJECTS) >= objects[:, None]] = 0
    half = radius[:, 0] * rng.uniform(1.1, 1.9, (n, 2))
    middle = centre[:, 0] + rng.normal(0, 0.03, (n, 2))
    shares = np.clip(np.concatenate([middle - half, middle + half], axis=1), 0, 1)
    straying = rng.random(n) < _STRAYING  # the box stays, what the network looks at moves
    centre[straying, 0] = rng.uniform(0.05, 0.95, (int(straying.sum()), 2))
    at = (np.arange(CAM_SIDE) + 0.5) / CAM_SIDE
    away = ((at - centre[..., None]) / radius[..., None]) ** 2  # (n, objects, 2, 7)
    bumps = np.exp(-0.5 * (away[:, :, 1, :, None] + away[:, :, 0, None, :]))
    noise = rng.normal(0, 1, (n, CAM_SIDE + 2, CAM_SIDE + 2))
    smooth = sum(noise[:, i : i + CAM_SIDE, j : j + CAM_SIDE] for i in range(3) for j in range(3)) / 3
    level = rng.uniform(0.03, 0.14, (n, 1, 1))
    maps = np.einsum("no,noyx->nyx", height, bumps) + level * (smooth + 0.4 * noise[:, 1:-1, 1:-1])
    maps = np.maximum(maps, 0)  # Grad-CAM ends in a ReLU
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps /= np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-9)
    return maps.astype(np.float32), shares


def _upsampling(size: int) -> NDArray[np.float32]:
    """Weights of bilinear interpolation between pixel centres, float32 (size, 7); borders repeat."""
    position = np.clip((np.arange(size) + 0.5) * CAM_SIDE / size - 0.5, 0, CAM_SIDE - 1)
    below = np.minimum(position.astype(np.int64), CAM_SIDE - 2)
    weights = np.zeros((size, CAM_SIDE), np.float32)
    weights[np.arange(size), below] = 1 - (position - below)
    weights[np.arange(size), below + 1] += position - below
    return weights


def _upsampled(coarse: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Full-size maps, scaled to 0..255 after interpolation, as Grad-CAM implementations do."""
    out = np.empty((len(coarse), len(rows), len(rows)), np.uint8)
    for first in range(0, len(coarse), 32):  # a few megabytes at a time
        fine = rows @ (coarse[first : first + 32] @ rows.T)
        low = fine.min(axis=(1, 2), keepdims=True)
        fine -= low
        fine *= 255 / np.maximum(fine.max(axis=(1, 2), keepdims=True), 1e-9)
        out[first : first + 32] = np.rint(fine, out=fine)
    return out


def _boxes(shares: NDArray[np.float64], size: int) -> NDArray[np.int32]:
    """Boxes in pixels, at least one pixel wide and high."""
    boxes = np.rint(shares * size).astype(np.int32)
    boxes[:, :2] = np.minimum(boxes[:, :2], size - 1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes
