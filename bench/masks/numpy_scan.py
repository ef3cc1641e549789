"""Competitor: NumPy over the whole array, in memory, mapped from a file, or read from it in pieces.

What a user without a database writes, and writes well: only the box's pixels are compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.masks.answers import Answer, expected_ids
from bench.masks.counting import count_boxes, count_pairs
from bench.masks.queries import Question
from bench.masks.workloads import CHUNK, Workload

__all__ = ["NumpyScan", "answer_of_scores", "scores_of_counts"]


class NumpyScan:
    """A full scan.

    Args:
        workload: whose file of pixels.
        how: "memory", "map" or "read".
    """

    _NAMES: ClassVar = {"memory": "NumPy, in memory", "map": "NumPy, mapped", "read": "NumPy, reading"}

    def __init__(self, workload: Workload, how: str) -> None:
        self.name = self._NAMES[how]
        self._workload, self._how = workload, how
        self._pixels: NDArray[np.uint8] | None = None
        self.open()

    def open(self) -> None:
        """Maps or loads the file."""
        if self._how == "memory":
            self._pixels = np.fromfile(self._workload.path, dtype=np.uint8).reshape(self._workload.shape)
        elif self._how == "map":
            self._pixels = np.asarray(self._workload.pixels())  # the subclass makes every slice slower

    def close(self) -> None:
        """Lets go of the file."""
        self._pixels = None

    def files(self) -> list[Path]:
        """The pixels, unless they are in memory."""
        return [] if self._how == "memory" else [self._workload.path]

    def delete(self) -> None:
        """Lets go of the file, which is the workload's."""
        self.close()

    def answer(self, question: Question) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        workload = self._workload
        if question.kind == "top-25, both of two":
            scores = self._both(question)
        else:
            counts = np.empty(workload.n_masks, dtype=np.int64)
            constant = None if question.box is None else np.array(question.box, dtype=np.int32)
            for first, pixels in self._pieces(0, workload.n_masks):
                boxes = workload.boxes[first : first + len(pixels)] if constant is None else constant
                counts[first : first + len(pixels)] = count_boxes(pixels, boxes, question.low)
            scores = scores_of_counts(workload, question, counts)
        return answer_of_scores(workload, question, scores, start)

    def _both(self, question: Question) -> NDArray[np.float64]:
        workload = self._workload
        half, n = workload.n_inputs, workload.n_masks
        assert question.box is not None
        counts = np.empty(half, dtype=np.int64)
        for (first, ones), (_, others) in zip(self._pieces(0, n - half), self._pieces(half, n), strict=True):
            counts[first : first + len(ones)] = count_pairs(ones, others, question.box, question.low)
        for first, alone in self._pieces(n - half, half):
            counts[first : first + len(alone)] = count_pairs(alone, alone, question.box, question.low)
        return counts.astype(np.float64)

    def _pieces(self, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        if self._pixels is not None:
            if last > first:
                yield first, self._pixels[first:last]
            return
        size = self._workload.mask_bytes
        with self._workload.path.open("rb") as file:
            for at in range(first, last, CHUNK):
                n = min(CHUNK, last - at)
                file.seek(at * size)
                yield at, np.fromfile(file, np.uint8, n * size).reshape(n, *self._workload.shape[1:])


def scores_of_counts(workload: Workload, question: Question, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts of all masks' boxes to the scores of a question about single masks, or about the mean of two."""
    if question.kind == "top-25, ratio":
        boxes = workload.boxes.astype(np.int64)
        return counts / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    if question.kind == "top-25, mean of two":
        inputs = workload.input_ids
        return np.bincount(inputs, weights=counts) / np.bincount(inputs)
    return counts.astype(np.float64)


def answer_of_scores(
    workload: Workload, question: Question, scores: NDArray[np.float64], start: float, bytes_read: int | None = None
) -> Answer:
    """The answer of a competitor that has computed every score."""
    ids = expected_ids(question, scores)
    seconds = time.perf_counter() - start
    return Answer(ids, scores[ids], workload.n_masks, bytes_read, seconds)
