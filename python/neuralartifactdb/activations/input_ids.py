"""Ids of inputs as users give them, checked: a whole number or several, each of an input that can be asked about.

Compared as they are given: an id beyond int64 is out of range, and not another input after a cast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.index import LayerIndex
from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError
from neuralartifactdb.host_arrays import host_array
from neuralartifactdb.queries import shown

__all__ = ["checked_input_ids", "is_whole"]


def is_whole(value: Any) -> bool:
    """Whether it is an integer, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def checked_input_ids(ids: Any, index: LayerIndex, name: str = "ids") -> NDArray[np.int64]:
    """Ids as int64 (n,), at least one, each indexed or of the attached dataset.

    Args:
        ids: an int, or ints in a list or array of one axis.
        index: the layer that is asked.
        name: of the argument, for messages.

    Raises:
        TypeError: no ints. IndexError: out of range. ValueError: none at all.
    """
    array = np.atleast_1d(host_array(ids, name))
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "O" and all(map(is_whole, array.flat)))
    if array.ndim != 1 or (array.size and not whole):
        raise DtypeError(f"{name} must be an int or a list of ints, got {shown(ids)} ({type(ids).__name__})")
    if array.size == 0:
        raise InvalidValueError(f"{name} must name at least one input, got none")
    limit = index.n_indexed if index.source is None else max(index.n_indexed, index.source.n_inputs)
    wrong = np.flatnonzero((array < 0) | (array >= limit))
    if wrong.size:
        place = "" if np.ndim(ids) == 0 else f" at position {int(wrong[0])}"
        raise IdError(f"{name} must lie in [0, {limit}), got {int(array[wrong[0]])}{place}; the layer is {index.key}")
    return array.astype(np.int64)
