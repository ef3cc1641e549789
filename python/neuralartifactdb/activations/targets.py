"""Targets of `nearest`: an id, ids (their mean), a key, a vector, or a new input; as a float64 vector over the group.

Implements design section 7, "A target".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb import _core
from neuralartifactdb.activations.evaluation import Evaluator
from neuralartifactdb.activations.index import LayerIndex, how_to_attach
from neuralartifactdb.activations.input_ids import checked_input_ids
from neuralartifactdb.errors import DtypeError, InvalidValueError, NotAttachedError
from neuralartifactdb.host_arrays import holds_integers, host_array, is_tensor
from neuralartifactdb.queries import shown

__all__ = ["Key", "Target", "activations_of", "key", "plain_target", "resolve_target"]

#: neurons in which the index is asked first whether it has a target's activations
_FIRST_LOOK = 4
_ATTACHED = {None: "nothing", "array": "an array", "function": "a function", "model": "a model"}


@dataclass(frozen=True)
class Key:
    """A key of an input, told apart from an id; made by `nadb.key`."""

    value: int | str


def key(value: int | str) -> Key:
    """An input's key, where a plain integer would be an id.

    >>> key(4017)
    Key(value=4017)

    Args:
        value: as in the key column of `set_inputs(..., key=)`.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, str, np.integer)):
        raise DtypeError(f"a key must be an int or a str, got {value!r} ({type(value).__name__})")
    return Key(value if isinstance(value, str) else int(value))


@dataclass(frozen=True)
class Target:
    """A target made concrete."""

    values: NDArray[np.float64]
    #: the dataset's inputs that it was made of
    ids: NDArray[np.int64]


def plain_target(target: Any) -> Any:
    """A target without torch: a tensor becomes an array, an integer in an array of no axes an int."""
    if is_tensor(target):
        target = host_array(target)
    if isinstance(target, np.ndarray) and target.ndim == 0 and target.dtype.kind in "iub":
        return target.item()
    return target


def resolve_target(
    target: Any, index: LayerIndex, neurons: NDArray[np.int64], evaluator: Evaluator, id_of_key: Callable[[Key], int]
) -> Target:
    """The vector that distances are measured from.

    Args:
        target: as `plain_target` gives it. Integer = id; str or `Key` = key; integers = ids whose mean activation it
            is; floats = the vector itself.
        index: the layer.
        neurons: the group, int64 (g,).
        evaluator: runs the target's inputs.
        id_of_key: looks up keys.
    """
    if isinstance(target, (bool, np.bool_)):
        raise DtypeError(f"a target must be an id, a key, ids, or a float vector, got {target!r} (bool)")
    if isinstance(target, str):
        target = Key(target)
    if isinstance(target, Key):
        target = id_of_key(target)
    if isinstance(target, (int, np.integer)):
        ids = checked_input_ids(target, index, "a target id")
    else:
        array = host_array(target, "a target")
        if array.size == 0 and array.ndim == 1:
            raise InvalidValueError(
                "a target of ids must name at least one, and a vector has one value per neuron; got an empty one"
            )
        if array.dtype.kind == "f":
            return Target(_vector(array, len(neurons)), np.empty(0, dtype=np.int64))
        if not holds_integers(array) or array.ndim != 1:
            raise DtypeError(
                f"a target must be an id (int), a key (str or nadb.key(...)), ids, or a float vector of length "
                f"{len(neurons)}, got {shown(target)} ({type(target).__name__}, dtype {array.dtype}, shape "
                f"{array.shape})"
            )
        ids = checked_input_ids(array, index, "the ids of a target")
        if len(np.unique(ids)) != len(ids):
            raise InvalidValueError(f"the ids of a target must be distinct, got {shown(ids)}")
    columns = target_columns(index, neurons, ids, evaluator).astype(np.float64)
    values = columns[:, 0]
    if len(ids) > 1:
        values = _core.combine_terms(np.ascontiguousarray(columns.T), "sum") / len(ids)
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        what = f"input {ids[0]}" if len(ids) == 1 else f"the mean of inputs {shown(ids)}"
        raise InvalidValueError(
            f"a target must have finite activations, got {values[wrong[0]]} of {what} at neuron {neurons[wrong[0]]} of "
            f"{index.key}; choose another target, or neurons without that one"
        )
    return Target(np.ascontiguousarray(values), ids)


def activations_of(
    item: Any, index: LayerIndex, neurons: NDArray[np.int64], evaluator: Evaluator
) -> NDArray[np.float64]:
    """What a group of neurons computes for an input that is not in the dataset, float64 (g,)."""
    source = index.source
    evaluate_items = getattr(source, "evaluate_items", None)
    if source is None or evaluate_items is None:
        advice = f"call {how_to_attach(index)}, or " if index.meta["kind"] == "model" else ""
        raise NotAttachedError(
            f"input= runs the model on a new input, and {_ATTACHED[source.kind if source is not None else None]} is "
            f"attached to {index.key}; {advice}give the input's activations of the group, a float vector of length "
            f"{len(neurons)}, as the target"
        )
    evaluator.use(index)
    before = source.rows_run
    rows = evaluate_items([index.layer], [item])[index.layer]
    evaluator.inputs_inferred += source.rows_run - before
    evaluator.batches += 1
    return np.ascontiguousarray(rows[0, neurons], dtype=np.float64)


def target_columns(
    index: LayerIndex, neurons: NDArray[np.int64], ids: NDArray[np.int64], evaluator: Evaluator
) -> NDArray[Any]:
    """Exact activations of the target's inputs, (g, n): from the index where it has them all, else by running them."""
    if index.segments and int(ids.max()) < index.n_indexed:
        few = _stored_columns(index, neurons[:_FIRST_LOOK], ids)  # nearly always tells, and costs little
        stored = few if few is None or len(neurons) <= _FIRST_LOOK else _stored_columns(index, neurons, ids)
        if stored is not None:
            return stored
    columns = evaluator.columns({index.key: (index, neurons)}, ids)[index.key]
    if not np.isfinite(columns).all():  # nothing can be searched for: say first that this was not indexed
        evaluator.finish()
    return columns


def _stored_columns(index: LayerIndex, neurons: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[Any] | None:
    """Exact activations that the index has, float64 (g, n), or None if it has not all of them."""
    stored = np.empty((len(neurons), len(ids)))
    for segment, where in index.by_segment(ids):
        lower, upper = segment.value_bounds_at(neurons, ids[where])
        if not np.array_equal(lower, upper):
            return None
        stored[:, where] = lower
    return stored


def _vector(array: NDArray[Any], n_neurons: int) -> NDArray[np.float64]:
    if array.shape != (n_neurons,):
        raise InvalidValueError(
            f"a target vector must have one value per neuron of the group, shape ({n_neurons},), got {array.shape}"
        )
    wrong = np.flatnonzero(~np.isfinite(array))
    if wrong.size:
        raise InvalidValueError(f"a target vector must be finite, got {array[wrong[0]]} at position {int(wrong[0])}")
    return np.ascontiguousarray(array, dtype=np.float64)
