"""Attributes of inputs: labels, predictions, file names; columns beside the activations, kept as Parquet.

Implements `set_inputs`, keys and columns of design section 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.candidates import Value
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.errors import DtypeError, ExtraMissingError, InvalidValueError, UnknownNameError
from neuralartifactdb.expressions.intervals import Intervals, Texts
from neuralartifactdb.host_arrays import host_array, is_tensor
from neuralartifactdb.names import check_known, unknown_name
from neuralartifactdb.nulls import inexact_integer, is_null
from neuralartifactdb.storage.directory import DatabaseDirectory, WriteTransaction
from neuralartifactdb.storage.state import State
from neuralartifactdb.storage.tables import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped, unused-ignore]

__all__ = ["Inputs", "as_columns", "check_key", "column_value", "read_inputs", "with_columns", "write_inputs"]


#: what expressions compute with
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


class Inputs(Mapping[str, NDArray[Any]]):
    """The attribute columns at one version, `db.inputs`: a mapping from name to array.

    >>> db.inputs["label"][:6] == 4
    array([False, False, False, False,  True, False])

    Args:
        columns: 1-D arrays of one length.
        key: name of the key column, or None.
    """

    def __init__(self, columns: Mapping[str, NDArray[Any]], key: str | None) -> None:
        self._columns = dict(columns)
        self.key = key
        self._ids_by_key: dict[Any, int] | None = None

    @property
    def n_inputs(self) -> int:
        """Length of every column; 0 without columns."""
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        hint = "" if self._columns else "; call db.set_inputs({...}) first"
        check_known("column of the inputs", name, self._columns, hint)
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}: {values.dtype}" for name, values in self._columns.items())
        key = f", key={self.key!r}" if self.key else ""
        return f"Inputs({self.n_inputs:,} inputs{key}, {columns or 'no columns'})"

    def value(self, name: str) -> Value:
        """A column as an operand of expressions."""
        return column_value(self[name])

    def id_of(self, key: Key) -> int:
        """The input with that key."""
        if self.key is None:
            raise UnknownNameError(
                f"there is no key column to look {key.value!r} up in; call db.set_inputs({{...}}, key='column') first"
            )
        if self._ids_by_key is None:
            self._ids_by_key = {value: i for i, value in enumerate(self[self.key].tolist())}
        try:
            return self._ids_by_key[key.value]
        except KeyError:
            kind = (
                ""
                if type(key.value) is type(next(iter(self._ids_by_key), None))
                else f" (the keys are of type {type(next(iter(self._ids_by_key), None)).__name__})"
            )
            raise UnknownNameError(
                unknown_name(f"key in column {self.key!r}", key.value, self._ids_by_key) + kind
            ) from None

    def to_pandas(self) -> pd.DataFrame:
        """All columns as a DataFrame; row i is input i.

        Example:
            >>> db.inputs.to_pandas().tail(2)
                  name  label
            98  98.png      8
            99  99.png      9
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ExtraMissingError(
                f"to_pandas() needs pandas ({error}); pip install neuralartifactdb[pandas]"
            ) from error
        return pd.DataFrame({name: np.array(values) for name, values in self._columns.items()})


def column_value(values: NDArray[Any]) -> Value:
    """A column's values as an operand of expressions: numbers and bool as points, text as it is; None and NaN are NULL.

    Args:
        values: 1-D, as `storage.tables.read_table` gives them.
    """
    if values.dtype.kind in "biuf":
        return Intervals.points(values)
    if values.dtype.kind != "O" or not all(v is None or isinstance(v, _NUMBERS) for v in values):
        return Texts(values)
    null = np.array([v is None for v in values], dtype=np.bool_)
    rounded = inexact_integer(values)
    if rounded is not None:
        raise InvalidValueError(
            f"integers in expressions must be exact in float64 (up to 2**53), got {rounded} at position "
            f"{values.tolist().index(rounded)} of a column; keep such numbers as text, and compare them as text"
        )
    return Intervals.points(np.array([0.0 if v is None else float(v) for v in values]), null)


def as_columns(data: Any) -> dict[str, NDArray[Any]]:
    """Columns from a dict of array-likes or a pandas DataFrame, checked to be 1-D and of one length."""
    if hasattr(data, "columns") and hasattr(data, "to_dict"):  # pandas, without importing it
        data = {str(name): _from_series(data[name]) for name in data.columns}
    if not isinstance(data, Mapping):
        raise DtypeError(f"inputs must be a dict of columns or a pandas DataFrame, got {type(data).__name__}")
    if not data:
        raise InvalidValueError("inputs must have at least one column, got none")
    columns: dict[str, NDArray[Any]] = {}
    for name, values in data.items():
        if not isinstance(name, str):
            raise DtypeError(f"column names must be str, got {name!r} ({type(name).__name__})")
        if is_tensor(values):
            values = host_array(values)
        array = values if isinstance(values, np.ndarray) else _from_list(name, values)
        if array.ndim != 1:
            raise InvalidValueError(f"column {name!r} must be 1-D with one value per input, got shape {array.shape}")
        columns[name] = array
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"columns must all have one value per input, got lengths {lengths}")
    return columns


def _from_list(name: str, values: Any) -> NDArray[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DtypeError(f"column {name!r} must be a list or array with one value per input, got {values!r}")
    listed = list(values)
    if any(v is None or isinstance(v, str) for v in listed):
        return np.array(listed, dtype=object)
    try:
        array = np.array(listed)
    except ValueError as error:
        sizes = [np.size(one) if np.ndim(one) == 0 else len(one) for one in listed[:8]]
        raise InvalidValueError(
            f"column {name!r} must be 1-D with one value per input, got lists of unequal lengths ({sizes}"
            f"{' and more' if len(listed) > 8 else ''}); give one number, bool or text per input"
        ) from error
    if array.dtype.kind == "f" and inexact_integer(listed) is not None:
        return np.array(listed, dtype=object)  # not rounded: whoever writes the column says what is wrong, if anything
    return array


def _from_series(series: Any) -> NDArray[Any]:
    """A pandas column; missing values become None or NaN."""
    if getattr(series.dtype, "kind", "O") in "biuf" and isinstance(series.dtype, np.dtype):
        return np.asarray(series.to_numpy())
    values = series.to_numpy(dtype=object, na_value=None)
    return np.asarray(values, dtype=object)


def with_columns(
    held: Inputs, new: Mapping[str, NDArray[Any]], key: str | None, *, replace: bool, n_used: int
) -> Inputs:
    """The attributes after `db.set_inputs`; see there.

    Args:
        held: those there are.
        new: columns of one length.
        key: name of the key column; None keeps the one there is.
        replace: whether columns of `held` may be replaced, or all of them by ones of another length.
        n_used: inputs that must have a row, because they are indexed or have masks.

    Raises:
        InvalidValueError, UnknownNameError, DtypeError: as `db.set_inputs` says.
    """
    n = len(next(iter(new.values())))
    if n < n_used:
        raise InvalidValueError(f"columns must have a value for each of the {n_used:,} inputs, got {n:,}")
    if len(held) and held.n_inputs != n:
        missing = [name for name in held if name not in new]
        if not replace or missing:
            raise InvalidValueError(
                f"columns must be as long as the ones there are, {held.n_inputs:,}, got {n:,}; "
                f"give all columns again ({', '.join(held)}) with replace=True"
            )
        held = Inputs({}, held.key)
    taken = [name for name in new if name in held]
    if taken and not replace:
        raise InvalidValueError(f"column {taken[0]!r} exists already; replace=True replaces it")
    columns = {**held, **new}
    key = held.key if key is None else key
    if key is not None:
        check_key(columns, key)
    return Inputs(columns, key)


def read_inputs(directory: DatabaseDirectory, state: State) -> Inputs:
    """The attributes at a version, from their files."""
    columns: dict[str, NDArray[Any]] = {}
    for ref in state.inputs["segments"]:
        columns.update(read_table(directory.reader(ref).file("table.parquet")))
    return Inputs(columns, state.inputs["key"])


def write_inputs(transaction: WriteTransaction, inputs: Inputs) -> None:
    """Commit attributes, in the place of all that there are."""
    writer = transaction.new_segment("inputs")
    writer.create_file("table.parquet").write(write_table(dict(inputs)))
    ref = writer.commit({"n": inputs.n_inputs})
    transaction.commit([{"op": "set_inputs", "segments": [ref], "key": inputs.key, "meta": {}}])


def check_key(columns: Mapping[str, NDArray[Any]], key: str) -> None:
    """A key column must be there, unique, without NULLs, of ints or text."""
    if key not in columns:
        raise UnknownNameError(unknown_name("key column", key, columns))
    values = columns[key]
    if values.dtype.kind not in "iuOUT":
        raise DtypeError(f"key column {key!r} must hold ints or text, got {values.dtype}")
    listed = values.tolist()
    seen: dict[Any, int] = {}
    for position, value in enumerate(listed):
        if is_null(value):
            raise InvalidValueError(f"key column {key!r} must not have NULLs, got one at position {position}")
        if value in seen:
            raise InvalidValueError(
                f"keys must be unique, got {value!r} at positions {seen[value]} and {position} of column {key!r}"
            )
        seen[value] = position
