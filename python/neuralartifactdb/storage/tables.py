"""Attribute tables of inputs as Parquet, written and read by DuckDB, in memory, behind NumPy columns.

DuckDB is the engine only: a private connection, which runs no user text and sees nothing but a scratch directory, turns
columns into bytes and back; the bytes are stored and checksummed like all others. Needs neither pandas nor pyarrow.
Implements "tables Parquet" of design section 6.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from neuralartifactdb.errors import DtypeError, FormatError, InvalidValueError
from neuralartifactdb.nulls import inexact_integer, is_null
from neuralartifactdb.storage import io

if TYPE_CHECKING:
    import duckdb

__all__ = ["read_table", "write_table"]

_Answer = TypeVar("_Answer")

_FILE = "table.parquet"
_EXACT_INT = 2**53
_SQL_TYPES = {
    "b": "BOOLEAN",
    "i1": "TINYINT",
    "i2": "SMALLINT",
    "i4": "INTEGER",
    "i8": "BIGINT",
    "u1": "UTINYINT",
    "u2": "USMALLINT",
}
_SQL_TYPES |= {"u4": "UINTEGER", "u8": "UBIGINT", "f4": "FLOAT", "f8": "DOUBLE"}


def write_table(columns: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Columns as the bytes of a Parquet file.

    Args:
        columns: 1-D arrays of equal length by name: integers, floats (float16 is stored as float32), bool, str, masked
            arrays of these, or object arrays that hold one of these kinds and None. None, masked entries and NaN are
            NULL.

    Raises:
        DtypeError: A column of another type, or of mixed ones.
        InvalidValueError: No columns, unequal lengths, more than one axis, names that differ in case only, text that is
            not Unicode.
    """
    prepared: dict[str, _Column] = {}
    lengths: dict[str, int] = {}
    spelled: dict[str, str] = {}
    for name, values in columns.items():
        if not isinstance(name, str) or not name or "\0" in name or not _is_unicode(name):
            raise InvalidValueError(f"column names must be non-empty text, got {name!r}")
        if name.lower() in spelled:
            raise InvalidValueError(
                f"column names must differ in more than case, got {spelled[name.lower()]!r} and {name!r}"
            )
        spelled[name.lower()] = name
        if not isinstance(values, np.ndarray) or values.ndim != 1:
            raise InvalidValueError(f"column {name!r} must be a 1-D array, got {_shape_of(values)}")
        lengths[name] = len(values)
        prepared[name] = _prepare(name, values)
    if not prepared:
        raise InvalidValueError("a table needs at least one column, got none")
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"columns must be equally long, got {lengths}")
    with _connection() as (connection, path):
        _ask(lambda: connection.register("source", _source(list(prepared.values()))))
        selected = ", ".join(column.sql(i, name) for i, (name, column) in enumerate(prepared.items()))
        copy = f"COPY (SELECT {selected} FROM source) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
        _ask(lambda: connection.execute(copy))
        return io.read_file(path, 1 << 62)


def read_table(data: bytes | memoryview) -> dict[str, npt.NDArray[Any]]:
    """The columns of a Parquet file, in its order.

    Returns:
        1-D arrays by name, read-only. With NULLs, floats have NaN there; integers become float64 with NaN if every
        value fits exactly, else object with None; bool and text are object with None. Text is always object.

    Raises:
        FormatError: The bytes are not a Parquet file that DuckDB reads.
    """
    import duckdb

    with _connection() as (connection, path):
        io.create(path, data)
        try:
            found = _ask(lambda: connection.execute(f"SELECT * FROM read_parquet('{path}')").fetchnumpy())
        except duckdb.Error as error:
            raise FormatError(
                f"attribute table: got {len(data)} bytes that are not readable Parquet ({str(error).splitlines()[0]})"
            ) from error
    columns = {name: _filled(values) for name, values in found.items()}
    for values in columns.values():
        values.flags.writeable = False
    return columns


@contextlib.contextmanager
def _connection() -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
    """A private in-memory connection that may touch one scratch directory, and the path of a file in it."""
    import duckdb

    with io.scratch_directory() as scratch:
        # pandas_analyze_sample = 0: object columns are text and are not guessed at from their first rows
        config: dict[str, Any] = {
            "threads": 1,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        connection = _ask(lambda: duckdb.connect(":memory:", config=config))
        try:
            directory = os.path.join(scratch, "").replace("'", "''")
            for setting in (
                "pandas_analyze_sample = 0",
                f"allowed_directories = ['{directory}']",
                "enable_external_access = false",
                "lock_configuration = true",
            ):
                _ask(partial(connection.execute, f"SET {setting}"))
            yield connection, os.path.join(scratch, _FILE).replace("'", "''")
        finally:
            connection.close()


def _ask(call: Callable[[], _Answer]) -> _Answer:
    """What DuckDB answers; every call of it goes through here.

    Raises:
        KeyboardInterrupt: Ctrl-C while it ran, of which it makes an error of its own.
    """
    import duckdb

    try:
        return call()
    except (RuntimeError, duckdb.Error) as error:
        if isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


class _Column(NamedTuple):
    """A column as DuckDB takes it without guessing.

    Attributes:
        values: Numbers, bool, or objects that are str and None.
        kind: The SQL type.
        null: Which numbers or bool are NULL; None if none is. (DuckDB before 2.0 does not take every masked array.)
    """

    values: npt.NDArray[Any]
    kind: str
    null: npt.NDArray[np.bool_] | None = None

    def sql(self, number: int, name: str) -> str:
        """The column of a SELECT over `_source`."""
        value = f"c{number}::{self.kind}"
        if self.null is not None:
            value = f"CASE WHEN n{number} THEN NULL ELSE {value} END"
        return f'{value} AS "{_quoted(name)}"'


def _source(columns: list[_Column]) -> dict[str, npt.NDArray[Any]]:
    values = {f"c{i}": column.values for i, column in enumerate(columns)}
    return values | {f"n{i}": column.null for i, column in enumerate(columns) if column.null is not None}


def _prepare(name: str, values: npt.NDArray[Any]) -> _Column:
    null: npt.NDArray[np.bool_] | None = None
    if isinstance(values, np.ma.MaskedArray):
        mask, values = np.ma.getmaskarray(values), values.data
        null = mask if mask.any() else None
    kind = values.dtype.kind
    if kind in "OTU":
        objects = values.astype(object)
        if null is not None:
            objects[null] = None
        return _prepare_objects(name, objects)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    sql = _SQL_TYPES.get("b" if kind == "b" else f"{kind}{values.dtype.itemsize}")
    if sql is None:
        raise DtypeError(
            f"column {name!r} has dtype {values.dtype}: expected bool, integers or floats up to 64 bits, or text"
        )
    return _Column(np.ascontiguousarray(values, values.dtype.newbyteorder("=")), sql, null)


def _prepare_objects(name: str, values: npt.NDArray[Any]) -> _Column:
    null = np.fromiter((is_null(value) for value in values), bool, len(values))
    given = values[~null].tolist()
    mask = null if null.any() else None
    if all(isinstance(value, str) for value in given):
        bad = next((value for value in given if not _is_unicode(value)), None)
        if bad is not None:
            raise InvalidValueError(f"column {name!r} holds text that is not Unicode: {bad!r}")
        texts = np.full(len(values), None, object)
        texts[~null] = [str(value) for value in given]
        return _Column(texts, "VARCHAR")
    if all(isinstance(value, bool | np.bool_) for value in given):
        return _Column(_spread(given, null, np.bool_), "BOOLEAN", mask)
    whole = [isinstance(value, int | np.integer) and not isinstance(value, bool) for value in given]
    if all(whole):
        least, greatest = min(given), max(given)
        if least >= -(2**63) and greatest < 2**63:
            return _Column(_spread(given, null, np.int64), "BIGINT", mask)
        if least >= 0 and greatest < 2**64:
            return _Column(_spread(given, null, np.uint64), "UBIGINT", mask)
        raise InvalidValueError(f"column {name!r} holds integers beyond 64 bits: {least} to {greatest}")
    if all(is_whole or isinstance(value, float | np.floating) for is_whole, value in zip(whole, given, strict=True)):
        rounded = inexact_integer(given)
        if rounded is not None:
            raise InvalidValueError(
                f"column {name!r} holds the integer {rounded} beside floats: float64 would round it; give integers "
                "and floats as two columns, or round it as float(...)"
            )
        return _Column(_spread(given, null, np.float64), "DOUBLE", mask)
    kinds = sorted({type(value).__name__ for value in given})
    raise DtypeError(
        f"column {name!r} mixes or holds {', '.join(kinds)}: expected text, bool, integers or floats, and None"
    )


def _spread(given: list[Any], null: npt.NDArray[np.bool_], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """The values that are given, and zero where there is none."""
    out = np.zeros(len(null), dtype)
    out[~null] = given
    return out


def _filled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Masked entries as NaN or None."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    null = np.ma.getmaskarray(values)
    plain = values.data
    if not null.any():
        return np.array(plain)
    if plain.dtype.kind in "iu" and all(-_EXACT_INT <= int(value) <= _EXACT_INT for value in _extremes(plain[~null])):
        plain = plain.astype(np.float64)
    out = np.array(plain) if plain.dtype.kind == "f" else plain.astype(object)
    out[null] = np.nan if out.dtype.kind == "f" else None
    return out


def _extremes(values: npt.NDArray[Any]) -> tuple[Any, ...]:
    return (values.min(), values.max()) if len(values) else ()


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _shape_of(values: object) -> str:
    return f"shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__


def _quoted(name: str) -> str:
    return name.replace('"', '""')
