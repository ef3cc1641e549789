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
from neuralartifactdb.host_arrays import holds_integers, host_array
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


def ids_where(where: Any, domain: Domain, argument: str = "where") -> Ids | None:
    """Ids that `where` admits, int64, ascending, distinct; None for all.

    Args:
        where: what the user gave.
        domain: what ids there are.
        argument: the name that it was given by, for messages.

    Raises:
        TypeError, IndexError, ValueError: not one of the kinds; an id out of range; a wrong length.
    """
    if where is None:
        return None
    if isinstance(where, str):
        raise DtypeError(
            f"`{argument}` must be a bool array, ids, a callable of ids or a Result, got text {where!r}; build it from "
            f"{domain.columns}, such as {argument}={domain.columns}['label'] == 4"
        )
    if isinstance(where, Expression):
        raise DtypeError(
            f"`{argument}` must be a bool array, ids, a callable of ids or a Result, got the expression {where!r}; "
            f"{_instead(where, domain, argument)}"
        )
    if isinstance(where, Result):
        if getattr(where._context, "database_token", None) != domain.token:
            raise InvalidValueError(
                f"`{argument}` is a Result of another database; ids of one mean nothing in the other"
            )
        return _distinct(domain.of_result(where), domain, argument)
    if callable(where):
        ids = domain.ids
        flags = np.asarray(where(ids.copy()))
        if flags.dtype != np.bool_ or flags.shape != ids.shape:
            raise DtypeError(
                f"`{argument}` as a callable gets int64 ids of shape ({domain.n_live},) and must return as many "
                f"bools, got {flags.dtype} of shape {flags.shape}"
            )
        admitted: Ids = ids[flags]
        return admitted
    array = host_array(where, "`where`")
    if array.dtype == np.bool_:
        if array.shape != (domain.n_live,):
            raise InvalidValueError(
                f"`{argument}` as a bool array must have one bool per {domain.what}, shape ({domain.n_live},), got "
                f"{array.shape}"
            )
        flagged: Ids = domain.ids[array]
        return flagged
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if not holds_integers(array) or array.ndim != 1:
        raise DtypeError(
            f"`{argument}` must be a bool array, ids, a callable of ids or a Result, got "
            f"{type(where).__name__} (dtype {array.dtype}, shape {array.shape})"
        )
    ids = _distinct(array, domain, argument)
    if domain.live is not None:
        gone = np.setdiff1d(ids, domain.live, assume_unique=True)
        if len(gone):
            raise IdError(
                f"`{argument}` must hold ids of {domain.what}s that are there, got {int(gone[0])}: it was deleted"
            )
    return ids


def _instead(where: Expression, domain: Domain, argument: str) -> str:
    """What to write in place of an expression: of columns alone, the same over their arrays."""
    text, filtered = repr(where), f"give the expression to filter, and its Result to {argument}="
    for leaf in leaves(where):
        if not isinstance(leaf, Column):
            return filtered
        text = text.replace(repr(leaf), f"{domain.columns}[{leaf.name!r}]")
    return f"write {argument}={text}, or {filtered}"


def _distinct(ids: NDArray[Any], domain: Domain, argument: str) -> Ids:
    wrong = np.flatnonzero((ids < 0) | (ids >= domain.n))
    if wrong.size:
        got = f"got {int(ids[wrong[0]])} at position {int(wrong[0])}"
        there = f"hold ids in [0, {domain.n})" if domain.n else f"be empty, for there is no {domain.what}"
        raise IdError(f"`{argument}` must {there}, {got}")
    return np.unique(ids.astype(np.int64))
