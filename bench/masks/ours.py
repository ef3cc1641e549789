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
from neuralartifactdb.masks.group_candidates import GroupCandidates, GroupValues, checked_group_leaves
from neuralartifactdb.masks.group_members import Members, grouped
from neuralartifactdb.masks.view import MaskView

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
        """What brute force over the bounds says of a query, in masks.

        Args:
            question: what is asked.
            scores (float64[n]): the true ones of the masks, or of the inputs.

        Returns:
            The unsettled masks, for a top-k those whose optimistic bound, ties by id, is better than the true k-th row;
            and those where it equals its score but the id comes later (0 for a filter). A group counts as the masks
            that settling it reads.

        Raises:
            WrongAnswerError: a true score lies outside its bounds.
        """
        lower, upper = self.bounds(question)
        outside = np.flatnonzero((scores < lower) | (scores > upper))
        if len(outside):
            i, what = outside[0], "input" if question.is_grouped else "mask"
            raise WrongAnswerError(
                f"{self.name}: {what} {i} scores {scores[i]:.17g}, its bounds are {lower[i]:.17g}, {upper[i]:.17g}: "
                f"{question}"
            )
        if question.is_filter:
            return int(((lower <= question.threshold) & (upper > question.threshold)).sum()), 0
        optimistic, keys = (-upper, -scores) if question.largest else (lower, scores)
        unsettled = (lower != upper) * self.reads(question)
        if len(keys) < question.k:
            return int(unsettled.sum()), 0
        last = int(np.argsort(keys, kind="stable")[question.k - 1])
        before = np.arange(len(keys)) < last
        tied = optimistic == keys[last]
        needed = (optimistic < keys[last]) | (tied & before)
        return int(unsettled[needed].sum()), int(unsettled[tied & ~before].sum())

    def bounds(self, question: Question) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The index's intervals of the score of every mask, or every input, float64[n] each."""
        expression = expression_of(question)
        candidates: MaskCandidates | GroupCandidates
        if question.is_grouped:
            values, members = self._groups(question)
            candidates = GroupCandidates(expression, values, members)
        else:
            candidates = MaskCandidates(expression, self._view(), self._ids())
        found = [intervals for _, intervals in candidates.blocks(lambda: None)]
        return np.concatenate([one.lower for one in found]), np.concatenate([one.upper for one in found])

    def reads(self, question: Question) -> NDArray[np.int64]:
        """int64[n], the masks that settling every mask, or every input, reads: a group's that are not settled."""
        if not question.is_grouped:
            return np.ones(len(self.masks), dtype=np.int64)
        values, members = self._groups(question)
        of_masks = list(values.of_masks().values())
        if not of_masks:  # pixels are joined: all masks of a group
            return members.sizes
        is_open = np.logical_or.reduce([~intervals.is_exact for intervals in of_masks])
        return np.bincount(members.ranks[is_open], minlength=len(members)).astype(np.int64)

    def _view(self) -> MaskView:
        return self.masks._store.at().masks(COLLECTION)

    def _ids(self) -> NDArray[np.int64]:
        """All masks: nothing is deleted."""
        return np.arange(len(self.masks), dtype=np.int64)

    def _groups(self, question: Question) -> tuple[GroupValues, Members]:
        """The masks by input, and what is known of them."""
        view = self._view()
        members, keys = grouped(self._ids(), view.input_ids)
        found = checked_group_leaves(expression_of(question), "input_id")
        return GroupValues(view, found, members, keys, "input_id"), members

    def check_work(self, question: Question, answer: Answer, scores: NDArray[np.float64]) -> int:
        """Raises if more masks were read than `must`, ties and one batch (a mask, or a group); gives `must`."""
        must, ties = self.must(question, scores)
        batch = int(self.reads(question).max(initial=1))
        scanned = self.last is not None and self.last.stats.scanned
        if answer.masks_read > must + ties + batch and not scanned:
            raise WrongAnswerError(
                f"{self.name} read {answer.masks_read} masks, more than must {must} + later ties {ties} + {batch}: "
                f"{question}"
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
