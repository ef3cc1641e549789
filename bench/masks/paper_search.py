"""Competitor: MaskSearch's algorithm over its index, written from the paper with its errors mended.

A filter accepts and drops masks by their bounds and reads the others whole, in the order of their ids. Top-k goes
through the masks in the order of their ids, keeps the k best seen, and reads a mask unless its optimistic bound cannot
beat the k-th best; equal scores are then in the order of ids. Aggregates bound a group by its members' bounds and read
all of its members. Counts masks and bytes read, which is what it is compared in: this is NumPy, not its code.

In its favour: top-k uses both upper bounds (the published code uses one), and neither a mask nor a group whose bounds
agree is read.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.masks.answers import Answer
from bench.masks.counting import count_boxes, count_pairs
from bench.masks.paper_index import Layout, PaperIndex, layouts
from bench.masks.queries import FILTERS, Question, scored
from bench.masks.workloads import Workload

__all__ = ["PaperSearch", "best_layout"]

_CALIBRATION_SEED = 77
_CALIBRATION_MASKS = 1_000
_CALIBRATION_QUERIES = 10


class PaperSearch:
    """The algorithm over a workload.

    Args:
        workload: whose masks.
        bytes_per_mask: that the index may take.
        layout: instead of the best one at these bytes.
    """

    name = "paper's algorithm"

    def __init__(self, workload: Workload, bytes_per_mask: float, *, layout: Layout | None = None) -> None:
        self._workload = workload
        self.layout = best_layout(workload, bytes_per_mask) if layout is None else layout
        start = time.perf_counter()
        self.index = PaperIndex(workload.chunks(), workload.n_masks, self.layout)
        self.seconds = time.perf_counter() - start
        self._pixels: NDArray[np.uint8] | None = None
        self.open()

    def open(self) -> None:
        """Maps the pixels."""
        self._pixels = np.asarray(self._workload.pixels())

    def close(self) -> None:
        """Lets go of them; the index stays in memory."""
        self._pixels = None

    def files(self) -> list[Path]:
        """The pixels."""
        return [self._workload.path]

    def delete(self) -> None:
        """Lets go of the pixels, which are the workload's."""
        self.close()

    def answer(self, question: Question) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        assert self._pixels is not None
        run = _Run(self._workload, self._pixels, question)
        lower, upper = run.bounds(self.index)
        if question.is_filter:
            ids, scores = run.filter(lower, upper)
        else:
            ids, scores = run.top_k(lower, upper)
        read = run.masks_read
        return Answer(ids, scores, read, read * self._workload.mask_bytes, time.perf_counter() - start)


@dataclass
class _Run:
    """One query."""

    workload: Workload
    pixels: NDArray[np.uint8]
    question: Question
    masks_read: int = 0

    def bounds(self, index: PaperIndex) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the scores of all masks, or all inputs."""
        question, workload = self.question, self.workload
        boxes = question.boxes(workload)
        lower, upper = (held.astype(np.float64) for held in index.bounds(boxes, question.low))
        area = np.maximum(boxes[:, 2] - boxes[:, 0], 0).astype(np.float64) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
        if question.kind == "top-25, ratio":
            return lower / area, upper / area
        if question.is_grouped:
            half, paired = workload.n_inputs, workload.n_masks - workload.n_inputs
            low_of, up_of = lower[:half].copy(), upper[:half].copy()
            if question.kind == "top-25, mean of two":
                low_of[:paired] = (lower[:paired] + lower[half:]) / 2
                up_of[:paired] = (upper[:paired] + upper[half:]) / 2
            else:
                low_of[:paired] = np.maximum(0, lower[:paired] + lower[half:] - area[:paired])
                up_of[:paired] = np.minimum(upper[:paired], upper[half:])
            return low_of, up_of
        return lower, upper

    def filter(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids ascending with the scores that were computed."""
        threshold = self.question.threshold
        keep = lower > threshold
        scores = np.full(len(lower), np.nan)
        for i in np.flatnonzero(~keep & (upper > threshold)).tolist():
            scores[i] = self._read(i)
            keep[i] = scores[i] > threshold
        ids = np.flatnonzero(keep).astype(np.int64)
        return ids, scores[ids]

    def top_k(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The k best, best first. Scores are negated where the smallest are wanted."""
        sign = 1.0 if self.question.largest else -1.0
        best = (upper if self.question.largest else -lower).tolist()
        agree = (lower == upper).tolist()
        heap: list[tuple[float, int]] = []  # (signed score, -id): the worst first, of equal ones the greatest id
        k = min(self.question.k, len(best))
        for i, optimistic in enumerate(best):
            if len(heap) == k and optimistic <= heap[0][0]:
                continue
            entry = (optimistic if agree[i] else sign * self._read(i), -i)
            if len(heap) < k:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
        ordered = sorted(heap, reverse=True)
        ids = np.array([-negative for _, negative in ordered], dtype=np.int64)
        return ids, np.array([sign * score for score, _ in ordered])

    def _read(self, i: int) -> float:
        """The exact score of a mask or an input."""
        question, workload, pixels = self.question, self.workload, self.pixels
        boxes, low = question.boxes(workload), question.low
        other = i + workload.n_inputs
        if not question.is_grouped or other >= workload.n_masks:
            self.masks_read += 1
            count = int(count_boxes(pixels[i : i + 1], boxes[i], low)[0])
            if question.kind == "top-25, ratio":
                x0, y0, x1, y1 = boxes[i].tolist()
                return count / ((x1 - x0) * (y1 - y0))
            return float(count)
        self.masks_read += 2
        if question.kind == "top-25, both of two":
            assert question.box is not None
            return float(count_pairs(pixels[i : i + 1], pixels[other : other + 1], question.box, low)[0])
        counts = [int(count_boxes(pixels[j : j + 1], boxes[j], low)[0]) for j in (i, other)]
        return sum(counts) / 2


def best_layout(workload: Workload, bytes_per_mask: float) -> Layout:
    """The grid and bins that read the fewest masks for filters over a sample, with queries of another seed."""
    n = min(workload.n_masks, _CALIBRATION_MASKS)
    sample = Workload(n, workload.side, workload.folder, seed=_CALIBRATION_SEED)
    asked = [pair for kind in FILTERS for pair in scored(sample, kind, _CALIBRATION_QUERIES, seed=_CALIBRATION_SEED)]
    best: tuple[int, Layout] | None = None
    for layout in layouts(workload.side, bytes_per_mask):
        index = PaperIndex(sample.chunks(), n, layout)
        read = 0
        for question, _ in asked:
            lower, upper = index.bounds(question.boxes(sample), question.low)
            read += int(((lower <= question.threshold) & (upper > question.threshold)).sum())
        if best is None or read < best[0]:
            best = (read, layout)
    assert best is not None
    return best[1]
