"""Brute force, as plain as it can be: what every query over activations must equal, bit for bit, and may cost.

Python floats in plain loops, left to right in the order of the group; nothing of the package is imported. None is NULL.
Implements "One arithmetic", "Order of results", "NULL" and "Optimality" of design section 3 a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Number = float | None
Truth = bool | None
Rows = list[list[float]]


def plain_rows(array: Any) -> Rows:
    """Rows of an (n, ...) array as Python floats; -0.0 becomes 0.0, as in an index."""
    flat = array.reshape(len(array), -1) if len(array) else array
    return [[float(v) + 0.0 for v in row] for row in flat.tolist()]


def _defined(value: float) -> Number:
    return None if math.isnan(value) else value + 0.0


def group_score(values: Sequence[float], kind: str, weights: Sequence[float] | None = None) -> Number:
    """`highest`: the score of one input from its activations in the order of the group."""
    if kind == "l2":
        return math.sqrt(_total([v * v for v in values]))
    if kind in ("min", "max"):
        best = values[0]
        for v in values[1:]:
            if (v < best) if kind == "min" else (v > best):
                best = v
        return best + 0.0
    terms = list(values) if weights is None else [w * v for w, v in zip(weights, values, strict=True)]
    total = _total(terms)
    return _defined(total / len(values) if kind == "mean" else total)


def _total(terms: Sequence[float]) -> float:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def distance(
    values: Sequence[float], target: Sequence[float], metric: str, weights: Sequence[float] | None = None
) -> Number:
    """`nearest`: how far one input lies from the target."""
    if metric == "cosine":
        norm = math.sqrt(_total([v * v for v in values])) * math.sqrt(_total([t * t for t in target]))
        if norm == 0:
            return None
        dot = _total([t * v for t, v in zip(target, values, strict=True)])
        return _defined(1.0 - dot / norm)
    differences = [v - t for v, t in zip(values, target, strict=True)]
    terms = [d * d for d in differences] if metric == "l2" else [abs(d) for d in differences]
    if weights is not None:
        terms = [w * term for w, term in zip(weights, terms, strict=True)]
    if metric == "linf":
        worst = terms[0]
        for term in terms[1:]:
            if term > worst or math.isnan(term):
                worst = term
        return _defined(worst)
    total = _total(terms)
    return _defined(math.sqrt(total) if metric == "l2" else total)


def mean_row(rows: Sequence[Sequence[float]]) -> list[float]:
    """The target that several ids make: per neuron the mean of their activations, in the order of the ids."""
    if len(rows) == 1:
        return list(rows[0])
    return [_total([row[j] for row in rows]) / len(rows) for j in range(len(rows[0]))]


def rank(scores: Sequence[Number], ids: Iterable[int], k: int, *, largest: bool) -> list[tuple[int, Number]]:
    """The k best of `ids` by (score, id); NULL after every score."""

    def order(i: int) -> tuple[bool, float, int]:
        score = scores[i]
        return (True, 0.0, i) if score is None else (False, -score if largest else score, i)

    return [(i, scores[i]) for i in sorted(ids, key=order)[:k]]


Bounds = tuple[Sequence[float], Sequence[float], Sequence[bool]]
"""Lower ends, upper ends (NaN for what is certainly NULL), and whether each may be NULL."""


def needed(
    bounds: Bounds, scores: Sequence[Number], k: int, *, largest: bool, costs: Sequence[int] | None = None
) -> tuple[int, int]:
    """`must` of a top-k, "Optimality" of design section 3.

    Args:
        bounds: certain intervals of the scores.
        scores: the true ones.
        k: how many are wanted.
        largest: whether the largest are.
        costs: evaluations that settle each candidate; one each if not given.

    Returns:
        Evaluations of the unsettled whose optimistic bound is better than the k-th score, and of those that tie.
    """
    ranked = rank(scores, range(len(scores)), k, largest=largest)
    last = ranked[-1][1]
    must = ties = 0
    for low, high, null, cost in zip(*bounds, costs or [1] * len(scores), strict=True):
        if math.isnan(low) or (low == high and not null):
            continue
        best = high if largest else low
        if last is None or len(ranked) < k or (best > last if largest else best < last):
            must += cost
        elif best == last:
            ties += cost
    return must, ties


def filtered(truths: Sequence[Truth], ids: Iterable[int], limit: int | None) -> list[int]:
    """The ids whose truth is certain, ascending."""
    return [i for i in sorted(ids) if truths[i] is True][:limit]


# ---- expressions: functions of an input id, NULL in, NULL out --------------------------------------------------------

Formula = Callable[[int], Any]


def arithmetic(op: str, left: Formula, right: Formula) -> Formula:
    """left op right in float64; a division by zero and what is not a number are NULL."""

    def compute(i: int) -> Number:
        a, b = left(i), right(i)
        if a is None or b is None:
            return None
        a, b = float(a), float(b)
        if op == "+":
            return _defined(a + b)
        if op == "-":
            return _defined(a - b)
        if op == "*":
            return _defined(a * b)
        return None if b == 0 else _defined(a / b)

    return compute


def compared(op: str, left: Formula, right: Formula) -> Formula:
    """The truth of left op right; NULL if a side is."""

    def compute(i: int) -> Truth:
        a, b = left(i), right(i)
        if a is None or b is None:
            return None
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}[op]

    return compute


def joined(op: str, left: Formula, right: Formula) -> Formula:
    """Kleene's AND and OR."""

    def compute(i: int) -> Truth:
        a, b = left(i), right(i)
        decides = op == "|"
        if a is decides or b is decides:
            return decides
        return None if a is None or b is None else not decides

    return compute


def negated(operand: Formula) -> Formula:
    """Kleene's NOT."""

    def compute(i: int) -> Truth:
        a = operand(i)
        return None if a is None else not a

    return compute


def strongest_neurons(rows: Sequence[Sequence[float]], k: int) -> list[int]:
    """`top_neurons`: by the least activation over the inputs, ties by index."""
    shared = [min(row[j] for row in rows) for j in range(len(rows[0]))]
    return sorted(range(len(shared)), key=lambda j: (-shared[j], j))[:k]
