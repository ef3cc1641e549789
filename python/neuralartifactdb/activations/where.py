"""`where=`: which inputs a query is about, as ascending distinct ids.

A bool array, ids, a callable of ids, or a Result (by input_id). Implements design section 7, "`where`".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError
from neuralartifactdb.results import Result

__all__ = ["ids_where"]


def ids_where(where: Any, n_inputs: int, database_token: Any) -> NDArray[np.int64] | None:
    """Ids that `where` admits, int64, ascending, distinct; None for all.

    Args:
        where: what the user gave.
        n_inputs: inputs of the database; a bool array has this length.
        database_token: a Result must come from the same database.

    Raises:
        TypeError, IndexError, ValueError: not one of the kinds; an id out of range; a wrong length.
    """
    if where is None:
        return None
    if isinstance(where, str):
        raise DtypeError(
            "`where` must be a bool array, ids, a callable of ids or a Result, got text; build the condition from "
            "db.inputs, such as where=db.inputs['label'] == 4"
        )
    if isinstance(where, Result):
        if getattr(where._context, "database_token", None) != database_token:
            raise InvalidValueError("`where` is a Result of another database; ids of one mean nothing in the other")
        return _distinct(np.asarray(where.input_ids, dtype=np.int64), n_inputs)
    if callable(where):
        ids = np.arange(n_inputs, dtype=np.int64)
        flags = np.asarray(where(ids))
        if flags.dtype != np.bool_ or flags.shape != ids.shape:
            raise DtypeError(
                f"`where` as a callable gets int64 ids of shape ({n_inputs},) and must return as many bools, got "
                f"{flags.dtype} "
                f"of shape {flags.shape}"
            )
        return np.flatnonzero(flags).astype(np.int64)
    array = np.asarray(where)
    if array.dtype == np.bool_:
        if array.shape != (n_inputs,):
            raise InvalidValueError(
                f"`where` as a bool array must have one bool per input, shape ({n_inputs},), got {array.shape}"
            )
        return np.flatnonzero(array).astype(np.int64)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DtypeError(
            "`where` must be a bool array, ids, a callable of ids or a Result, got "
            f"{type(where).__name__} (dtype {array.dtype}, shape {array.shape})"
        )
    return _distinct(array.astype(np.int64), n_inputs)


def _distinct(ids: NDArray[np.int64], n_inputs: int) -> NDArray[np.int64]:
    wrong = np.flatnonzero((ids < 0) | (ids >= n_inputs))
    if wrong.size:
        raise IdError(f"`where` must hold ids in [0, {n_inputs}), got {int(ids[wrong[0]])} at position {int(wrong[0])}")
    return np.unique(ids)
