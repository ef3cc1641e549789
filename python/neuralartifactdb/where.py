"""`where=`: what a query is about, as ascending distinct ids of a domain: the inputs, or the masks of a collection.

A bool array, ids, a callable of ids, or a Result. Implements design section 7, "`where`".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError
from neuralartifactdb.expressions.tree import Column, Expression, leaves
from neuralartifactdb.host_arrays import host_array
from neuralartifactdb.results import Result

__all__ = ["Domain", "ids_where", "input_domain"]

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Domain:
    """What ids there are.

    Attributes:
        what: one of them, "input" or "mask".
        n: ids lie in [0, n).
        live: int64 ascending, those that are there; None for all. A bool array has one value for each.
        token: identifies the database.
        columns: source of the mapping from the names of attributes to their values, for messages.
        of_result: the ids that the rows of a Result of the same database stand for, in any order.
    """

    what: str
    n: int
    live: Ids | None
    token: Any
    columns: str
    of_result: Callable[[Result], Ids]

    @property
    def ids(self) -> Ids:
        """int64, all ids that are there."""
        return np.arange(self.n, dtype=np.int64) if self.live is None else self.live

    @property
    def n_live(self) -> int:
        """How many are there."""
        return self.n if self.live is None else len(self.live)


def input_domain(n_inputs: int, token: Any) -> Domain:
    """The inputs of a database; a Result stands for its inputs.

    Args:
        n_inputs: inputs of the database; a bool array has this length.
        token: a Result must come from the same database.
    """

    def of_result(result: Result) -> Ids:
        ids = np.asarray(result.input_ids, dtype=np.int64)
        if result.kind == "activations":
            return ids
        if result.keys is not None and (ids < 0).any():
            raise InvalidValueError(
                "`where` is a Result over groups that are not inputs; group by 'input_id' to restrict inputs by it"
            )
        return ids[(ids >= 0) & (ids < n_inputs)]  # masks may be of inputs that no layer knows

    return Domain("input", n_inputs, None, token, "db.inputs", of_result)


def ids_where(where: Any, domain: Domain) -> Ids | None:
    """Ids that `where` admits, int64, ascending, distinct; None for all.

    Args:
        where: what the user gave.
        domain: what ids there are.

    Raises:
        TypeError, IndexError, ValueError: not one of the kinds; an id out of range; a wrong length.
    """
    if where is None:
        return None
    if isinstance(where, str):
        raise DtypeError(
            f"`where` must be a bool array, ids, a callable of ids or a Result, got text; build it from "
            f"{domain.columns}, such as where={domain.columns}['label'] == 4"
        )
    if isinstance(where, Expression):
        raise DtypeError(
            f"`where` must be a bool array, ids, a callable of ids or a Result, got the expression {where!r}; "
            f"{_instead(where, domain)}"
        )
    if isinstance(where, Result):
        if getattr(where._context, "database_token", None) != domain.token:
            raise InvalidValueError("`where` is a Result of another database; ids of one mean nothing in the other")
        return _distinct(domain.of_result(where), domain)
    if callable(where):
        ids = domain.ids
        flags = np.asarray(where(ids.copy()))
        if flags.dtype != np.bool_ or flags.shape != ids.shape:
            raise DtypeError(
                f"`where` as a callable gets int64 ids of shape ({domain.n_live},) and must return as many bools, got "
                f"{flags.dtype} of shape {flags.shape}"
            )
        admitted: Ids = ids[flags]
        return admitted
    array = host_array(where, "`where`")
    if array.dtype == np.bool_:
        if array.shape != (domain.n_live,):
            raise InvalidValueError(
                f"`where` as a bool array must have one bool per {domain.what}, shape ({domain.n_live},), got "
                f"{array.shape}"
            )
        flagged: Ids = domain.ids[array]
        return flagged
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DtypeError(
            "`where` must be a bool array, ids, a callable of ids or a Result, got "
            f"{type(where).__name__} (dtype {array.dtype}, shape {array.shape})"
        )
    ids = _distinct(array.astype(np.int64), domain)
    if domain.live is not None:
        gone = np.setdiff1d(ids, domain.live, assume_unique=True)
        if len(gone):
            raise IdError(f"`where` must hold ids of {domain.what}s that are there, got {int(gone[0])}: it was deleted")
    return ids


def _instead(where: Expression, domain: Domain) -> str:
    """What to write in place of an expression: of columns alone, the same over their arrays."""
    text, filtered = repr(where), "give the expression to filter, and its Result to where="
    for leaf in leaves(where):
        if not isinstance(leaf, Column):
            return filtered
        text = text.replace(repr(leaf), f"{domain.columns}[{leaf.name!r}]")
    return f"write where={text}, or {filtered}"


def _distinct(ids: Ids, domain: Domain) -> Ids:
    wrong = np.flatnonzero((ids < 0) | (ids >= domain.n))
    if wrong.size:
        raise IdError(f"`where` must hold ids in [0, {domain.n}), got {int(ids[wrong[0]])} at position {int(wrong[0])}")
    return np.unique(ids)
