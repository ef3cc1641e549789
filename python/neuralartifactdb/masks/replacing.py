"""`replace_on=`: which masks a new append replaces, those that agree with a new one in the columns named.

So a job that runs twice leaves no duplicates. NULL agrees with NULL. Implements `replace_on` of `append`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError, UnknownNameError
from neuralartifactdb.masks.columns import joined
from neuralartifactdb.masks.view import MaskView
from neuralartifactdb.names import unknown_name
from neuralartifactdb.nulls import is_null

__all__ = ["NewColumns", "checked_replace_on", "replaced_ids"]


class NewColumns:
    """The columns of the masks of one append that `replace_on` names, gathered batch by batch.

    Attributes:
        names: of the columns.
        n: masks so far.
        n_inputs: one more than their greatest input id.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.n = 0
        self.n_inputs = 0
        self._parts: dict[str, list[NDArray[Any] | int]] = {name: [] for name in self.names}
        self._given: dict[str, None] = {}

    def add(self, input_ids: NDArray[np.int64], attrs: Mapping[str, NDArray[Any]]) -> None:
        """Take the columns of a batch; an attribute that it lacks is NULL."""
        self.n += len(input_ids)
        self.n_inputs = max(self.n_inputs, int(input_ids.max(initial=-1)) + 1)
        for name, parts in self._parts.items():
            values = input_ids if name == "input_id" else attrs.get(name)
            parts.append(len(input_ids) if values is None else values)
        self._given.update(dict.fromkeys(["input_id", *attrs]))

    def column(self, name: str) -> list[NDArray[Any] | int]:
        """Values in parts, see `columns.joined`.

        Raises:
            UnknownNameError: no batch had it.
        """
        if name not in self._given:
            raise UnknownNameError(
                f"replace_on: {unknown_name('column of the masks appended named', name, self._given)}"
            )
        return self._parts[name]


def checked_replace_on(replace_on: Any) -> tuple[str, ...]:
    """Names of columns; () for None."""
    if replace_on is None:
        return ()
    names = (replace_on,) if isinstance(replace_on, str) else tuple(replace_on) if _is_listed(replace_on) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise DtypeError(
            f"replace_on must name columns, such as ('input_id', 'model'), got {replace_on!r} "
            f"({type(replace_on).__name__})"
        )
    if not names or len(set(names)) < len(names):
        raise InvalidValueError(f"replace_on must name at least one column, each once, got {replace_on!r}")
    if fixed := [name for name in names if name in ("mask_id", "height", "width")]:
        raise InvalidValueError(f"replace_on must name input_id or attributes, got {fixed[0]!r}")
    return names


def replaced_ids(view: MaskView, new: NewColumns) -> NDArray[np.int64]:
    """Ids of the live masks that agree with a new one in every column of `new`, ascending.

    Raises:
        InvalidValueError: two of the new masks agree with each other.
        UnknownNameError: a column that none of the new masks has.
    """
    live = view.live_ids
    rows = view.positions(live)
    codes = np.zeros(len(live) + new.n, dtype=np.int64)
    for name in new.names:
        has = name == "input_id" or name in view.attribute_names
        held: NDArray[Any] | int = view.column(name)[rows] if has else len(live)
        column = _codes(joined([held, *new.column(name)]))
        _, codes = np.unique(codes * (int(column.max(initial=0)) + 1) + column, return_inverse=True)
    fresh = codes[len(live) :]
    order = np.argsort(fresh, kind="stable")
    twice = np.flatnonzero(fresh[order][1:] == fresh[order][:-1])
    if twice.size:
        first, second = sorted(order[twice[0] : twice[0] + 2].tolist())
        values = {name: joined(new.column(name))[first : first + 1].tolist()[0] for name in new.names}
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise InvalidValueError(
            f"masks of one append must differ in the columns of replace_on, got {shown} at masks {first} and {second}"
        )
    replaced: NDArray[np.int64] = live[np.isin(codes[: len(live)], fresh)]
    return replaced


def _codes(values: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each distinct value; NULLs are one value."""
    if values.dtype.kind == "O":
        known: dict[Any, int] = {}
        plain = (None if is_null(value) else value for value in values.tolist())
        return np.fromiter((known.setdefault(value, len(known)) for value in plain), np.int64, len(values))
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _is_listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, bytes)
