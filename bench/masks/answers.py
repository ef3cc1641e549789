"""What every competitor answers, and the plain reference that answers are checked against before anything is timed.

The reference counts mask by mask with NumPy and shares no code with any competitor. Order: score (best first), then id
(design section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.masks.workloads import CHUNK, Workload
from bench.report import WrongAnswerError

if TYPE_CHECKING:
    from bench.masks.queries import Question

__all__ = ["Answer", "Competitor", "check_answer", "exact_scores", "expected_ids", "top_ids"]


@dataclass(frozen=True)
class Answer:
    """Rows and what finding them took.

    Attributes:
        ids (int64[m]): mask ids ascending (a filter), or the best first; input ids for kinds of groups.
        scores (float64[m] | None): NaN where the answer did not need them; None if none are given.
        masks_read: masks of which pixels were read.
        bytes_read: bytes read from files of pixels; None if not known.
        seconds: wall time of the query.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64] | None
    masks_read: int
    bytes_read: int | None
    seconds: float


class Competitor(Protocol):
    """One way to answer queries. Open from the start; closed and opened again for a cold query."""

    name: str

    def answer(self, question: Question) -> Answer:
        """Answers one query, timed."""
        ...

    def files(self) -> list[Path]:
        """All files that a query may read; empty if nothing is on disk."""
        ...

    def close(self) -> None:
        """Lets go of files and memory."""
        ...

    def open(self) -> None:
        """Undoes `close`."""
        ...

    def delete(self) -> None:
        """Closes it for good and removes what loading it has written."""
        ...


def exact_scores(workload: Workload, questions: Sequence[Question]) -> list[NDArray[np.float64]]:
    """Scores of all masks, or of all inputs for the kinds of groups, by the definition.

    Args:
        workload: the masks.
        questions: of one kind.

    Returns:
        float64[n_masks] or float64[n_inputs] for each.
    """
    if not questions:
        return []
    kind = questions[0].kind
    pixels = np.asarray(workload.pixels())
    n = workload.n_inputs if kind == "top-25, both of two" else workload.n_masks
    counts = np.zeros((len(questions), n), dtype=np.int64)
    boxes = [question.boxes(workload) for question in questions]
    for first in range(0, n, CHUNK):
        for mask_id in range(first, min(first + CHUNK, n)):
            mask = pixels[mask_id]
            if kind == "top-25, both of two" and mask_id + workload.n_inputs < workload.n_masks:
                mask = np.minimum(mask, pixels[mask_id + workload.n_inputs])
            for i, question in enumerate(questions):
                x0, y0, x1, y1 = boxes[i][mask_id].tolist()
                counts[i, mask_id] = np.count_nonzero(mask[y0:y1, x0:x1] >= question.low)
    return [_score(workload, kind, box, count) for box, count in zip(boxes, counts, strict=True)]


def _score(workload: Workload, kind: str, boxes: NDArray[np.int32], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts to scores."""
    scores = counts.astype(np.float64)
    if kind == "top-25, ratio":
        wide, high = (boxes[:, 2] - boxes[:, 0]), (boxes[:, 3] - boxes[:, 1])
        scores = scores / (wide.astype(np.float64) * high)
    elif kind == "top-25, mean of two":
        half = workload.n_inputs
        total, members = scores[:half].copy(), np.ones(half)
        total[: workload.n_masks - half] += scores[half:]
        members[: workload.n_masks - half] = 2
        scores = total / members
    return scores


def top_ids(scores: NDArray[np.float64], k: int, *, largest: bool) -> NDArray[np.int64]:
    """Ids of the k best, best first, equal scores by id."""
    return np.argsort(-scores if largest else scores, kind="stable")[:k].astype(np.int64)


def expected_ids(question: Question, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The right answer."""
    if question.is_filter:
        return np.flatnonzero(scores > question.threshold).astype(np.int64)
    return top_ids(scores, question.k, largest=question.largest)


def check_answer(answer: Answer, question: Question, scores: NDArray[np.float64], *, name: str) -> None:
    """Raises unless an answer is the reference's: ids, their order, and all scores that it gives.

    Raises:
        WrongAnswerError: says what was expected.
    """
    expected = expected_ids(question, scores)
    problem = ""
    if not np.array_equal(answer.ids, expected):
        missing, extra = np.setdiff1d(expected, answer.ids), np.setdiff1d(answer.ids, expected)
        problem = (
            f"{len(answer.ids)} ids, expected {len(expected)}; missing {missing[:5].tolist()}, "
            f"not asked for {extra[:5].tolist()}" + ("" if len(missing) or len(extra) else "; only the order differs")
        )
    elif answer.scores is not None:
        given = ~np.isnan(answer.scores)
        wrong = np.flatnonzero(given & (answer.scores != scores[expected]))
        if len(wrong):
            i = int(wrong[0])
            problem = (
                f"score of id {expected[i]} is {float(answer.scores[i])!r}, expected {float(scores[expected[i]])!r}"
            )
        elif not question.is_filter and not given.all():
            problem = f"{int((~given).sum())} of {len(given)} scores are missing"
    if problem:
        raise WrongAnswerError(f"{name} is wrong on {question}: {problem}")
