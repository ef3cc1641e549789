"""What every competitor answers, and the plain reference that answers are checked against before anything is timed.

The reference shares no code with any competitor: float64, left to right in the order of the group, score then id
(design section 3, "One arithmetic").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.report import WrongAnswerError

__all__ = ["Answer", "Competitor", "Query", "WrongAnswerError", "check_answer", "reference_scores", "reference_top_k"]


@dataclass(frozen=True)
class Query:
    """One question about one layer.

    Attributes:
        kind: "highest" (largest sum) or "nearest" (smallest Euclidean distance).
        group_kind: "SimTop" (the target's most active neurons) or "SimHigh" (drawn from its more active half).
        layer: name of the layer.
        target: input id that the group comes from, and that `nearest` compares with.
        group (int64[g]): flat neurons.
        k: how many inputs.
    """

    kind: str
    group_kind: str
    layer: str
    target: int
    group: NDArray[np.int64]
    k: int = 20


@dataclass(frozen=True)
class Answer:
    """The k inputs and what finding them took.

    Attributes:
        ids (int64[k]): best first.
        scores (float64[k]): their scores.
        inputs_inferred: inputs that were run through the model (or looked up in its place).
        batches: calls of the model.
        seconds: wall time of the query.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    inputs_inferred: int
    batches: int
    seconds: float


class Competitor(Protocol):
    """One way to answer queries."""

    name: str

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        ...


def reference_scores(columns: NDArray[np.floating], query: Query) -> NDArray[np.float64]:
    """Scores of all inputs by the definition.

    Args:
        columns (float[g, n]): the activations of the group's neurons, in its order.
        query: what is asked.

    Returns:
        float64[n].
    """
    total = np.zeros(columns.shape[1], dtype=np.float64)
    for column in columns:
        values = column.astype(np.float64)
        if query.kind == "highest":
            total = total + values
        else:
            difference = values - values[query.target]
            total = total + difference * difference
    return total if query.kind == "highest" else np.sqrt(total)


def reference_top_k(scores: NDArray[np.float64], query: Query) -> NDArray[np.int64]:
    """Ids of the k best, best first, equal scores by id."""
    return np.argsort(-scores if query.kind == "highest" else scores, kind="stable")[: query.k]


def check_answer(
    answer: Answer, scores: NDArray[np.float64], query: Query, *, name: str, ties: bool = True, tolerance: float = 0.0
) -> None:
    """Raises unless an answer is right.

    Args:
        answer: what the competitor says.
        scores: of all inputs, by `reference_scores`.
        query: what was asked.
        name: of the competitor, for the message.
        ties: whether equal scores must come by id; without, any of them will do.
        tolerance: how far scores may be off, relative to the largest of the answer: for float32 arithmetic.

    Raises:
        WrongAnswerError: says what was expected.
    """
    expected = reference_top_k(scores, query)
    k = min(query.k, len(scores))
    problem = ""
    if len(answer.ids) != k or len(np.unique(answer.ids)) != k:
        problem = f"{len(np.unique(answer.ids))} different ids of {len(answer.ids)}, expected {k}"
    elif tolerance == 0.0 and not np.array_equal(answer.scores, scores[expected]):
        problem = f"scores {answer.scores.tolist()}, expected {scores[expected].tolist()}"
    elif tolerance == 0.0 and not np.array_equal(scores[answer.ids], answer.scores):
        problem = f"ids {answer.ids.tolist()} do not have the scores {answer.scores.tolist()}"
    elif tolerance == 0.0 and ties and not np.array_equal(answer.ids, expected):
        problem = f"ids {answer.ids.tolist()}, expected {expected.tolist()}"
    elif tolerance > 0.0:
        # The scores that the ids really have, against the best there are: a wrong id shows whatever it claims to score.
        allowed = tolerance * max(float(np.abs(scores[expected]).max()), float(np.abs(scores).max()) * 1e-3)
        worst = float(np.abs(np.sort(scores[answer.ids]) - np.sort(scores[expected])).max())
        if worst > allowed:
            problem = f"scores of the ids are up to {worst:.3g} off the best ones, allowed {allowed:.3g}"
    if problem:
        raise WrongAnswerError(
            f"{name} is wrong on {query.kind} over {len(query.group)} neurons of {query.layer} "
            f"({query.group_kind} of input {query.target}): {problem}"
        )
