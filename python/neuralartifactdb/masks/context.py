"""What queries over masks and their results ask of the database, and what ids mean to `where=`.

A result belongs to one version of one collection; its rows are masks, or groups of them by a column (design section 7,
`Result` and "`where`").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.masks.lazy import IndexFiller
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.nulls import is_null
from neuralartifactdb.results import Result, Verification
from neuralartifactdb.where import Domain

__all__ = ["MaskContext", "MaskDatabaseView", "mask_domain", "same_keys"]

Ids = NDArray[np.int64]
Check = Callable[[Result, int | None], Verification]


class MaskDatabaseView(Protocol):
    """The database at one version, as queries over masks need it."""

    @property
    def token(self) -> Any:
        """Identifies the database; results of another one are refused."""
        ...

    @property
    def path(self) -> str:
        """Its directory, for messages."""
        ...

    @property
    def index_filler(self) -> IndexFiller | None:
        """Keeps index rows that queries compute."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes read from files so far."""
        ...

    def masks(self, name: str) -> MaskView:
        """A collection; UnknownNameError with near names if there is none."""
        ...

    def render(self, input_id: int) -> object | None:
        """The picture of an input; None if no `set_render` was called."""
        ...


class MaskContext:
    """The database behind a result over masks, or over groups of them.

    Args:
        database: at the version of the query.
        view: the collection.
        check: compares with brute force.
        group_column: the column of a query over groups; None for one over masks.
        keys: of a query over groups, all keys in their order: `ids` are positions in it.
    """

    def __init__(
        self,
        database: MaskDatabaseView,
        view: MaskView,
        check: Check,
        group_column: str | None = None,
        keys: NDArray[Any] | None = None,
    ) -> None:
        self._database = database
        self._view = view
        self._check = check
        self._keys = keys
        self.database_token = database.token
        self.collection = view.name
        self.collection_id = view.meta.id
        self.group_column = group_column

    def input_ids(self, ids: Ids) -> Ids:
        """The input of each row; -1 where a row is a group by another column."""
        if self.group_column is None:
            return self._view.input_ids[self._view.positions(ids)]
        if self.group_column == "input_id" and self._keys is not None:
            return np.asarray(self._keys[ids], dtype=np.int64)
        return np.full(len(ids), -1, dtype=np.int64)

    def attributes(self, ids: Ids) -> Mapping[str, NDArray[Any]]:
        """The columns of the masks; none for groups, whose keys are in the result."""
        if self.group_column is not None:
            return {}
        at = self._view.positions(ids)
        return {name: self._view.column(name)[at] for name in self._view.attribute_names}

    def render(self, input_id: int) -> object | None:
        """The picture of an input; None for a row that is not one."""
        return None if input_id < 0 else self._database.render(input_id)

    def verify(self, result: Result, sample: int | None) -> Verification:
        """Compare with brute force."""
        return self._check(result, sample)


def mask_domain(view: MaskView, token: Any) -> Domain:
    """The masks of a collection as what `where=` is about.

    A Result restricts them by mask_id if it is over the same collection, by input_id if it is over another one or over
    activations, and by the key of the group if it is over groups.
    """
    live = view.live_ids

    def of_result(result: Result) -> Ids:
        context: Any = result._context
        at = view.positions(live)
        if result.keys is not None:
            column = context.group_column
            if column == "input_id":
                return live[np.isin(view.input_ids[at], result.input_ids)]
            if context.collection_id != view.meta.id:
                _check_shared(column, context.collection, view)
            return live[same_keys(view.column(column)[at], result.keys)]
        if result.kind == "masks" and context.collection_id == view.meta.id:
            return np.intersect1d(result.ids, live)
        return live[np.isin(view.input_ids[at], result.input_ids)]

    return Domain("mask", view.n_masks, live, token, f"db.masks[{view.name!r}].table()", of_result)


def _check_shared(column: str, other: str, view: MaskView) -> None:
    """Refuse groups of another collection by a column that says nothing of the masks of this one."""
    if column in view.column_names and column != "mask_id":
        return
    groups = f"`where` is a Result over groups by {column!r} of {other!r}"
    if column == "mask_id":
        reason = f"mask ids of {other!r} mean nothing among the masks of {view.name!r}"
    else:
        names = ", ".join(name for name in view.column_names if name != "mask_id")
        reason = (
            f"it would restrict the masks of {view.name!r} by their own column {column!r}, and they have none, but "
            f"{names}"
        )
    raise InvalidValueError(f"{groups}: {reason}; group {other!r} by 'input_id', or by a column that both have")


def same_keys(values: NDArray[Any], keys: NDArray[Any]) -> NDArray[np.bool_]:
    """bool (n,): values that are among keys; NULL is equal to NULL."""
    wanted = {None if is_null(key) else key for key in keys.tolist()}
    plain = values.tolist()
    return np.fromiter(((None if is_null(v) else v) in wanted for v in plain), dtype=np.bool_, count=len(plain))
