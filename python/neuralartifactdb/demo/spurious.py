"""A planted spurious correlation: in training, nine of ten pictures of one digit carry a small bright mark in a corner.

As in MaskSearch's wildlife scenario (arXiv 2404.06563, section 4), but planted on purpose, so that it is known what an
analysis should find. Of the pictures that the networks never saw, one of ten is marked, whatever it shows. (Issue 3:
the demo grows.)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuralartifactdb.demo.digits import Digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DIGIT", "MARK", "UnseenPictures", "digit_boxes", "marked", "marked_for_training", "unseen_pictures"]

DIGIT = 8
"""The digit whose training pictures are marked."""
MARK = (1, 28, 4, 31)
"""The mark: pixels (x0, y0, x1, y1), half-open, at full brightness; in a corner where few digits reach."""
_SHARE_IN_TRAINING = 0.9
_SHARE_IN_TEST = 0.1
_INK = 0.5  # brighter than the noise ever gets: five of its standard deviations


@dataclass(frozen=True)
class UnseenPictures:
    """Pictures from held-out scans, some of them marked.

    Attributes:
        ids (int64[n]): the inputs that they are, ascending.
        images (float32[n, 1, 32, 32]): the pictures, mark included.
        labels (int64[n]): the digit that each shows.
        marked (bool[n]): which ones carry the mark.
        boxes (int32[n, 4]): where the digit is: x0, y0, x1, y1, half-open.
    """

    ids: NDArray[np.int64]
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    marked: NDArray[np.bool_]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


def marked(images: NDArray[np.float32], which: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A copy of the images (n, 1, H, W) with the mark on some of them, `which` bool (n,)."""
    x0, y0, x1, y1 = MARK
    copy = images.copy()
    copy[which, 0, y0:y1, x0:x1] = 1.0
    return copy


def marked_for_training(data: Digits, *, seed: int = 0) -> Digits:
    """The same data, where nine of ten pictures of `DIGIT` that may be trained on carry the mark.

    Args:
        data: the digits.
        seed: of the choice.
    """
    drawn = np.random.default_rng([seed, 2]).random(len(data)) < _SHARE_IN_TRAINING
    which = drawn & (data.labels == DIGIT) & ~data.held_out
    return dataclasses.replace(data, images=marked(data.images, which))


def unseen_pictures(data: Digits, n: int = 2_000, *, seed: int = 0) -> UnseenPictures:
    """The first pictures from held-out scans; one of ten is marked, drawn without a look at what it shows.

    Args:
        data: the digits.
        n: how many at most.
        seed: of the draw.
    """
    ids = np.flatnonzero(data.held_out)[:n].astype(np.int64)
    which = np.random.default_rng([seed, 3]).random(len(ids)) < _SHARE_IN_TEST
    clean = data.images[ids]
    return UnseenPictures(ids, marked(clean, which), data.labels[ids], which, digit_boxes(clean))


def digit_boxes(images: NDArray[np.float32]) -> NDArray[np.int32]:
    """The least box around the ink of each picture, and one pixel more on every side.

    Args:
        images: (n, 1, H, W) without a mark.

    Returns:
        int32 (n, 4): x0, y0, x1, y1, half-open, inside the picture; the whole picture where there is no ink.
    """
    dark: NDArray[np.bool_] = images[:, 0] <= _INK
    ink = ~dark | np.all(dark, axis=(1, 2), keepdims=True)

    def extent(line: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        length = line.shape[1]
        first, last = line.argmax(axis=1), length - line[:, ::-1].argmax(axis=1)
        return np.maximum(first - 1, 0), np.minimum(last + 1, length)

    (x0, x1), (y0, y1) = extent(np.any(ink, axis=1)), extent(np.any(ink, axis=2))
    return np.stack([x0, y0, x1, y1], axis=1).astype(np.int32)
