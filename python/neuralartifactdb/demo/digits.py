"""Handwritten digits for the demo and the benches: scikit-learn's 1,797 real scans, varied to any number of inputs.

Each input is one scan under a small rotation, scale and shift, with pixel noise, drawn at 32 x 32. It is deterministic,
and input i is the same whatever the number asked for, so that a longer dataset is the shorter one with more inputs
appended. The held-out split goes by scan: no variation of a held-out scan is ever trained on. (Issue 2: the demo.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralartifactdb.errors import ExtraMissingError, InvalidValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Digits", "digits"]

_SIDE = 32  # of an input, in pixels
_FINE = 96  # of a scan once enlarged: three samples per pixel, so that the nearest one is close enough
_ZOOM = 0.82  # a scan at scale 1 covers this share of the input's side, which leaves room to turn and shift
_ROTATION = 20.0  # greatest, degrees either way
_SHIFT = 3.0  # greatest, pixels either way
_SCALE = (0.85, 1.15)
_NOISE = 0.1  # standard deviation; pixels lie in [0, 1]


@dataclass(frozen=True)
class Digits:
    """A varied dataset of handwritten digits.

    Attributes:
        images (float32[n, 1, 32, 32]): the inputs, pixels in [0, 1].
        labels (int64[n]): the digit that each shows.
        scans (int64[n]): the scan, 0 to 1796, that each was made from.
        held_out (bool[n]): true where the scan is one of the fifth kept out of training.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    scans: NDArray[np.int64]
    held_out: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
        """Input `index` as a (float32[1, 32, 32], label) pair: what a DataLoader wants of a dataset."""
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        return f"Digits(n={len(self)}, scans={len(np.unique(self.scans))}, held_out={int(self.held_out.sum())})"


def digits(n: int = 10_000, *, seed: int = 0) -> Digits:
    """Makes `n` inputs out of scikit-learn's handwritten digits.

    Args:
        n: number of inputs, at least 1. Input i does not depend on it.
        seed: changes the variations, the order and the held-out scans.

    Returns:
        The inputs, with their labels, scans and split. 100,000 take a few seconds.

    Raises:
        InvalidValueError: `n` below 1.
        ExtraMissingError: scikit-learn is not installed.

    Example:
        >>> data = digits(2000)
        >>> data.images.shape, data.images.dtype
        ((2000, 1, 32, 32), dtype('float32'))
    """
    if n < 1:
        raise InvalidValueError(f"`n` must be at least 1, got {n}: the number of inputs to make")
    scans8, scan_labels = _scans()
    fine = _enlarge(scans8)
    n_scans = len(scan_labels)
    held_out_scans = np.zeros(n_scans, dtype=np.bool_)
    held_out_scans[np.random.default_rng([seed, 0]).permutation(n_scans)[: n_scans // 5]] = True

    images = np.empty((n, _SIDE * _SIDE), dtype=np.float32)
    scans = np.empty(n, dtype=np.int64)
    # One generator per block of inputs, each block a permutation of all scans: so input i does not depend on n.
    for first in range(0, n, n_scans):
        rng = np.random.default_rng([seed, 1, first // n_scans])
        order = rng.permutation(n_scans)
        varied = _vary(fine, order, rng)
        last = min(first + n_scans, n)
        images[first:last] = varied[: last - first]
        scans[first:last] = order[: last - first]
    return Digits(images.reshape(n, 1, _SIDE, _SIDE), scan_labels[scans], scans, held_out_scans[scans])


def _scans() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The real scans (float32[1797, 8, 8] in [0, 1]) and their labels (int64[1797]); nothing is downloaded."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ExtraMissingError(
            "the demo's digits come with scikit-learn, which is not installed; "
            "install it with: pip install 'neuralartifactdb[demo]'"
        ) from error
    bunch: Any = load_digits()
    return (bunch.images / 16.0).astype(np.float32), bunch.target.astype(np.int64)


def _enlarge(scans: NDArray[np.float32]) -> NDArray[np.float32]:
    """Enlarges 8 x 8 scans to 96 x 96 with Catmull-Rom splines, as a product with one weight matrix per axis.

    Returns:
        float32[n, 96 * 96 + 1]: flat pixels in [0, 1], and one more, 0, which stands for everything outside.
    """
    side = scans.shape[1]
    at = (np.arange(_FINE) + 0.5) * (side / _FINE) - 0.5
    weights = np.zeros((_FINE, side), dtype=np.float64)
    for tap in range(-1, 3):
        pixel = np.floor(at).astype(np.int64) + tap
        d = np.abs(at - pixel)
        w = np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2)
        inside = (pixel >= 0) & (pixel < side)  # the paper around a scan is blank: outside counts as 0
        weights[np.arange(_FINE)[inside], pixel[inside]] += w[inside]
    w32 = weights.astype(np.float32)
    fine = np.clip(w32 @ scans @ w32.T, 0.0, 1.0).reshape(len(scans), -1)
    return np.concatenate([fine, np.zeros((len(scans), 1), dtype=np.float32)], axis=1)


def _vary(fine: NDArray[np.float32], order: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """One variation of each scan in `order`, float32[len(order), 32 * 32]: turned, scaled, shifted, with noise."""
    n = len(order)
    angle = np.deg2rad(rng.uniform(-_ROTATION, _ROTATION, n))
    scale = rng.uniform(*_SCALE, n)
    shift_x, shift_y = rng.uniform(-_SHIFT, _SHIFT, (2, n))

    # For every pixel of the input, where in the enlarged scan it comes from (the inverse of the variation).
    grid = np.arange(_SIDE, dtype=np.float32) - (_SIDE - 1) / 2
    step = (_FINE / _SIDE / _ZOOM) / scale
    cos, sin = (step * np.cos(angle)).astype(np.float32), (step * np.sin(angle)).astype(np.float32)
    dx = (grid - shift_x.astype(np.float32)[:, None])[:, None, :]
    dy = (grid - shift_y.astype(np.float32)[:, None])[:, :, None]
    centre = np.float32(_FINE / 2)
    column = np.floor(cos[:, None, None] * dx + sin[:, None, None] * dy + centre).astype(np.int32)
    row = np.floor(cos[:, None, None] * dy - sin[:, None, None] * dx + centre).astype(np.int32)
    outside = (column < 0) | (column >= _FINE) | (row < 0) | (row >= _FINE)
    source = np.where(outside, np.int32(_FINE * _FINE), row * np.int32(_FINE) + column).reshape(n, -1)
    source += (order * fine.shape[1]).astype(np.int32)[:, None]

    images = fine.reshape(-1)[source]
    images += rng.standard_normal(images.shape, dtype=np.float32) * np.float32(_NOISE)
    return np.clip(images, 0.0, 1.0, out=images)
