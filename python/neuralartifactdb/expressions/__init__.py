"""Expressions over neurons, counts of pixels and attributes: trees, interval arithmetic, one evaluator.

Knows nothing of where leaves come from (design sections 3, 5 and 7; docs/ARCHITECTURE.md, "Layers of the code").
"""

from __future__ import annotations

from neuralartifactdb.expressions.evaluate import evaluate
from neuralartifactdb.expressions.intervals import Intervals, Texts
from neuralartifactdb.expressions.source import source
from neuralartifactdb.expressions.tree import (
    Column,
    Condition,
    Constant,
    Expression,
    Leaf,
    column,
    leaves,
    scored,
)

__all__ = [
    "Column",
    "Condition",
    "Constant",
    "Expression",
    "Intervals",
    "Leaf",
    "Texts",
    "column",
    "evaluate",
    "leaves",
    "scored",
    "source",
]
