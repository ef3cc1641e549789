"""Generated saliency maps of two models on disk: one raw uint8 file per workload, boxes, inputs.

The first half of the masks are the first model's, one per input; the others are the second model's over the same
inputs, each a mixture of the first model's map and a map of its own (still a 7 x 7 map upsampled, since upsampling is
linear). Files are kept under bench-data/ (git-ignored). They are the ground truth, and NumPy's disk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.masks.generate import cam_chunks

__all__ = ["CHUNK", "MODELS", "Workload"]

CHUNK = 256
"""Masks handled at once."""

MODELS = ("first", "second")

_VERSION = 1
_MOST_MIXED = 0.7
_log = logging.getLogger("neuralartifactdb")


@dataclass(frozen=True)
class Workload:
    """`n_masks` masks of `side` x `side` pixels.

    Attributes:
        n_masks: of both models together; with an odd number the last input has one mask only.
        side: height and width.
        folder: where the file is kept.
        seed: of the generator.
    """

    n_masks: int
    side: int
    folder: Path
    seed: int = 0

    @property
    def name(self) -> str:
        """Such as `2000x224`."""
        return f"{self.n_masks}x{self.side}"

    @property
    def n_inputs(self) -> int:
        """Inputs, which is also the first model's number of masks."""
        return (self.n_masks + 1) // 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of all pixels."""
        return self.n_masks, self.side, self.side

    @property
    def mask_bytes(self) -> int:
        """Of one mask."""
        return self.side * self.side

    @property
    def nbytes(self) -> int:
        """Of all pixels."""
        return self.n_masks * self.mask_bytes

    @cached_property
    def input_ids(self) -> NDArray[np.int64]:
        """int64[n_masks]."""
        return np.arange(self.n_masks, dtype=np.int64) % self.n_inputs

    @cached_property
    def models(self) -> NDArray[np.int64]:
        """int64[n_masks], 0 or 1."""
        return np.arange(self.n_masks, dtype=np.int64) // self.n_inputs

    @cached_property
    def boxes(self) -> NDArray[np.int32]:
        """int32[n_masks, 4], the box of each mask's input's object, half-open (x0, y0, x1, y1)."""
        self._require()
        held: NDArray[np.int32] = np.load(self._path("boxes.npy"))
        return held

    @property
    def path(self) -> Path:
        """The pixels, uint8, row by row, mask by mask, without a header."""
        self._require()
        return self._path("pixels.u1")

    def pixels(self) -> NDArray[np.uint8]:
        """uint8[n_masks, side, side], mapped from disk."""
        return np.memmap(self.path, dtype=np.uint8, mode="r", shape=self.shape)

    def chunks(self, chunk: int = CHUNK) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(first mask id, uint8[<= chunk, side, side]) in order."""
        pixels = np.asarray(self.pixels())
        for first in range(0, self.n_masks, chunk):
            yield first, pixels[first : first + chunk]

    def _path(self, kind: str) -> Path:
        return self.folder / f"cam-v{_VERSION}-{self.name}-seed{self.seed}-{kind}"

    def _require(self) -> None:
        if self._path("pixels.u1").exists():
            return
        _log.info("generating %s", self.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._path("partial")
        n, half = self.n_masks, self.n_inputs
        boxes = []
        rng = np.random.default_rng([self.seed, 1])
        with partial.open("w+b") as file:
            for maps, found in cam_chunks(half, self.side, self.seed):
                maps.tofile(file)
                boxes.append(found)
            file.flush()
            at = 0
            for maps, _ in cam_chunks(n - half, self.side, self.seed + 1_000):
                firsts = np.memmap(partial, np.uint8, "r", at * self.mask_bytes, maps.shape)
                file.seek(0, 2)
                for own, other in zip(maps, firsts, strict=True):
                    _mixed(own, other, rng.uniform(0, _MOST_MIXED)).tofile(file)
                at += len(maps)
        of_inputs = np.concatenate(boxes)
        np.save(self._path("boxes.npy"), of_inputs[self.input_ids])
        partial.rename(self._path("pixels.u1"))


def _mixed(own: NDArray[np.uint8], other: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A map that shares `share` of its weight with another model's, scaled to 0..255 again."""
    mixed = np.float32(1 - share) * own + np.float32(share) * other
    low, high = mixed.min(), mixed.max()
    return np.rint((mixed - low) * (255 / max(float(high - low), 1.0))).astype(np.uint8)
