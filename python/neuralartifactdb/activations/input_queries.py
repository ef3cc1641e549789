"""Filters and rankings of inputs by an expression, of a layer or across layers: arguments checked, put into words.

`Layer.filter`, `Layer.top_k`, `Database.filter` and `Database.top_k` (design section 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuralartifactdb.activations.query import View, run_query
from neuralartifactdb.activations.scores import GroupScore
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.errors import DtypeError
from neuralartifactdb.expressions.tree import Expression, as_condition
from neuralartifactdb.host_arrays import host_array
from neuralartifactdb.queries import Options, Query, checked_flag, checked_k, shown

if TYPE_CHECKING:
    from neuralartifactdb.results import Plan, Result

__all__ = ["filter_inputs", "in_words", "target_in_words", "top_k_inputs"]


def filter_inputs(view: View, call: str, condition: Any, limit: int | None, options: Options) -> Result | Plan:
    """`filter` of a layer or a database."""
    if not isinstance(condition, Expression) or not condition.is_condition:
        raise DtypeError(f"filter needs a condition such as layer[3] > 2.0, got {shown(condition)}")
    count = None if limit is None else checked_k(limit, "limit")
    extra = ("" if limit is None else f", limit={count}") + ("" if options.where is None else ", where=...")
    text = f"{call}({condition!r}{extra})"
    asked = f"Which inputs meet {condition!r}?"
    return run_query(view, Query(as_condition(condition), text, k=count, is_filter=True, question=asked), options)


def top_k_inputs(view: View, call: str, expression: Any, k: int, largest: bool, options: Options) -> Result | Plan:
    """`top_k` of a layer or a database."""
    if not isinstance(expression, Expression) or "number" not in expression.kinds:
        raise DtypeError(f"top_k needs an expression such as layer[3] - layer[7], got {shown(expression)}")
    count, largest = checked_k(k), checked_flag(largest, "largest")
    extra = ("" if largest else ", largest=False") + ("" if options.where is None else ", where=...")
    asked = f"Which {count:,} inputs have the {'largest' if largest else 'smallest'} {expression!r}?"
    text = f"{call}({expression!r}, k={count}{extra})"
    return run_query(view, Query(expression, text, k=count, largest=largest, question=asked), options)


def in_words(leaf: GroupScore, layer: str) -> str:
    """A group of neurons, for `Result.question`."""
    n = len(leaf.neurons)
    if n > 5:
        return f"{n:,} neurons of {layer}"
    return f"neuron{'' if n == 1 else 's'} {', '.join(map(str, leaf.neurons.tolist()))} of {layer}"


def target_in_words(target: Any) -> str:
    """A target, for `Result.question`."""
    if isinstance(target, (int, str, np.integer)):
        return f"input {target}"
    if isinstance(target, Key):
        return f"input {target.value}"
    array = host_array(target, "a target")
    return f"the mean of {array.size:,} inputs" if array.dtype.kind in "iu" else "the given vector"
