"""How far scores may lie from the indexed ones, where activations do not reproduce to the bit.

A tolerance per neuron becomes an interval per activation, and goes through the same terms, sums and expressions as any
interval. Implements design section 4, "What exact means", for `Result.tolerance` and `Result.verify`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.candidates import Value
from neuralartifactdb.activations.index import LayerIndex
from neuralartifactdb.activations.scores import GroupScore
from neuralartifactdb.expressions.evaluate import evaluate
from neuralartifactdb.expressions.intervals import Intervals
from neuralartifactdb.expressions.tree import Expression

__all__ = ["leaf_tolerance", "widened", "widened_leaf"]


def leaf_tolerance(leaf: GroupScore, tolerances: NDArray[np.float64]) -> float | None:
    """The most that a score may deviate, whatever the activations are; None where that depends on them.

    Args:
        leaf: the score.
        tolerances: float64 (g,), per neuron of the group.
    """
    weights = np.ones(len(tolerances)) if leaf.weights is None else np.abs(leaf.weights)
    if leaf.kind == "cosine":
        return None
    if leaf.kind == "l2":  # |norm(a) - norm(b)| <= norm(a - b)
        return float(np.sqrt((weights * tolerances * tolerances).sum()))
    if leaf.kind in ("min", "max", "linf"):
        return float((weights * tolerances).max())
    total = float((weights * tolerances).sum())
    return total / len(tolerances) if leaf.kind == "mean" else total


def widened_leaf(leaf: GroupScore, columns: NDArray[Any], tolerances: NDArray[np.float64]) -> Intervals:
    """Intervals of a score for activations that may deviate.

    Args:
        leaf: the score.
        columns: (g, n), the activations.
        tolerances: float64 (g,).
    """
    lower = columns.astype(np.float64) - tolerances[:, None]
    upper = columns.astype(np.float64) + tolerances[:, None]
    parts = []
    for pass_ in leaf.accumulations():
        g, n = lower.shape
        starts = np.arange(g + 1, dtype=np.int64) * n
        table = _core.term_tables(pass_.term, lower.ravel(), upper.ravel(), starts, pass_.targets, pass_.weights)
        ends = table.reshape(g, n, 2)
        low, high = (_core.combine_terms(np.ascontiguousarray(ends[:, :, end]), pass_.combine) for end in (0, 1))
        parts.append((low, high))
    return leaf.finish(parts)


def widened(
    expression: Expression,
    groups: list[GroupScore],
    indexes: Mapping[str, LayerIndex],
    columns: Mapping[Hashable, NDArray[Any]],
    others: Mapping[Hashable, Value],
    n: int,
) -> Intervals:
    """Intervals of an expression for activations that may deviate.

    Args:
        expression: any.
        groups: its leaves that are scores.
        indexes: by key, with the tolerances.
        columns: by leaf key, (g, n).
        others: values of its other leaves.
        n: candidates.
    """
    values: dict[Hashable, Value] = dict(others)
    for leaf in groups:
        tolerances = indexes[leaf.layer].tolerances_of(leaf.neurons)
        values[leaf.key] = widened_leaf(leaf, columns[leaf.key], tolerances)
    return evaluate(expression, values, n=n)
