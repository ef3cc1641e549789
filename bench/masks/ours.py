"""This database, through its public API; and `must`, what no correct algorithm with the same bounds can save."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import neuralartifactdb as nadb
from bench.masks.answers import Answer
from bench.masks.queries import Question
from bench.masks.workloads import MODELS, Workload
from bench.page_cache import files_under
from bench.report import WrongAnswerError
from neuralartifactdb.masks.candidates import MaskCandidates

__all__ = ["COLLECTION", "Ours", "build", "expression_of"]

COLLECTION = "cam"
_APPENDED_BYTES = 128 << 20


class Ours:
    """Queries a database of the workload.

    Args:
        path: of the database, with the collection `COLLECTION`.
        name: for the tables.
        seconds: that building took.

    Attributes:
        last: the result of the last query.
    """

    def __init__(self, path: Path, name: str = "ours", seconds: float = 0.0) -> None:
        self.name = name
        self.seconds = seconds
        self.last: nadb.Result | None = None
        self._path = path
        self._db: nadb.Database | None = None
        self.open()

    def open(self) -> None:
        """Opens the database."""
        self._db = nadb.open(self._path)
        self.masks = self._db.masks[COLLECTION]

    def close(self) -> None:
        """Closes it, and with it the block cache."""
        if self._db is not None:
            self._db.close()
            self._db, self.last = None, None

    def delete(self) -> None:
        """Removes the database."""
        self.close()
        shutil.rmtree(self._path)

    def files(self) -> list[Path]:
        """All of the database."""
        return list(files_under(self._path))

    @property
    def index_bytes_per_mask(self) -> float:
        """Bytes of the index per mask, all included."""
        return float(self.masks.index_nbytes / len(self.masks))

    def answer(self, question: Question, where: Any = None) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        expression = expression_of(question)
        if question.is_filter:
            result = self.masks.filter(expression > question.threshold, where=where)
        elif question.is_grouped:
            result = self.masks.group_by("input_id").top_k(expression, k=question.k, largest=question.largest)
        else:
            result = self.masks.top_k(expression, k=question.k, largest=question.largest)
        seconds = time.perf_counter() - start
        assert isinstance(result, nadb.Result)
        self.last = result
        return Answer(result.ids, result.scores, result.stats.masks_read, result.stats.bytes_read, seconds)

    def must(self, question: Question, scores: NDArray[np.float64]) -> tuple[int, int]:
        """What brute force over the bounds says of a query about single masks.

        Args:
            question: what is asked.
            scores (float64[n]): the true ones.

        Returns:
            The unsettled masks, for a top-k those whose optimistic bound, ties by id, is better than the true k-th row;
            and those where it equals its score but the id comes later (0 for a filter).

        Raises:
            WrongAnswerError: a true score lies outside its bounds.
        """
        lower, upper = self.bounds(question)
        outside = np.flatnonzero((scores < lower) | (scores > upper))
        if len(outside):
            i = outside[0]
            raise WrongAnswerError(
                f"{self.name}: mask {i} scores {scores[i]:.17g}, its bounds are {lower[i]:.17g}, {upper[i]:.17g}: "
                f"{question}"
            )
        if question.is_filter:
            return int(((lower <= question.threshold) & (upper > question.threshold)).sum()), 0
        optimistic, keys = (-upper, -scores) if question.largest else (lower, scores)
        unsettled = lower != upper
        if len(keys) < question.k:
            return int(unsettled.sum()), 0
        last = int(np.argsort(keys, kind="stable")[question.k - 1])
        tied = unsettled & (optimistic == keys[last])
        before = np.arange(len(keys)) < last
        return int((unsettled & (optimistic < keys[last])).sum() + (tied & before).sum()), int((tied & ~before).sum())

    def bounds(self, question: Question) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The index's intervals of the score of every mask, float64[n] each."""
        view = self.masks._store.at().masks(COLLECTION)
        ids = np.arange(len(self.masks), dtype=np.int64)  # nothing is deleted
        blocks = list(MaskCandidates(expression_of(question), view, ids).blocks(lambda: None))
        found = [intervals for _, intervals in blocks]
        return np.concatenate([one.lower for one in found]), np.concatenate([one.upper for one in found])

    def check_work(self, question: Question, answer: Answer, scores: NDArray[np.float64]) -> int | None:
        """Raises if more masks were read than `must`, ties and one batch; gives `must`, None for groups."""
        if question.is_grouped:
            return None
        must, ties = self.must(question, scores)
        scanned = self.last is not None and self.last.stats.scanned
        if answer.masks_read > must + ties + 1 and not scanned:
            raise WrongAnswerError(
                f"{self.name} read {answer.masks_read} masks, more than must {must} + later ties {ties} + 1: {question}"
            )
        return must


def expression_of(question: Question) -> Any:
    """What a question scores."""
    region = nadb.box("object") if question.box is None else nadb.box(*question.box)
    if question.kind == "top-25, both of two":
        return nadb.count(nadb.intersection(low=question.low, region=region))
    counted = nadb.count(region, low=question.low)
    if question.kind == "top-25, ratio":
        return counted / nadb.area(region)
    return nadb.mean(counted) if question.is_grouped else counted


def build(workload: Workload, path: Path, *, index: str = "append", **options: Any) -> Ours:
    """A fresh database of the workload, appended in pieces and durable; `options` go to `create_masks`."""
    shutil.rmtree(path, ignore_errors=True)
    models = np.array(MODELS)[workload.models]
    step = max(1, _APPENDED_BYTES // workload.mask_bytes)
    start = time.perf_counter()
    with nadb.open(path) as db:
        masks = db.create_masks(COLLECTION, dtype="uint8", value_range=(0, 255), index=index, **options)
        for first, pixels in workload.chunks(step):
            part = slice(first, first + len(pixels))
            masks.append(
                pixels,
                input_id=workload.input_ids[part],
                boxes={"object": workload.boxes[part]},
                attrs={"model": models[part]},
                progress=False,
            )
    return Ours(path, "ours" if index == "append" else f"ours, {index}", time.perf_counter() - start)
