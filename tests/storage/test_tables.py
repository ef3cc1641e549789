"""Attribute tables: what goes in comes out, by DuckDB alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralartifactdb.errors import DtypeError, FormatError, InvalidValueError
from neuralartifactdb.storage import tables
from neuralartifactdb.storage.tables import read_table, write_table


def same(found: np.ndarray, expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(
        a == b or (a is None and b is None) or (a != a and b != b)
        for a, b in zip(found.tolist(), expected, strict=True)
    )


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", ">i4", ">f8"])
def test_plain_columns_keep_dtype_and_values(dtype: str) -> None:
    values = np.array([0, 1, 1, 0, 1], dtype)
    if values.dtype.kind in "iu":
        values[:2] = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    if values.dtype.kind == "f":
        values[:4] = [np.nan, np.inf, -np.inf, np.finfo(dtype).max]
    found = read_table(write_table({"c": values}))["c"]
    assert found.dtype == values.dtype.newbyteorder("=")
    assert np.array_equal(found, values, equal_nan=values.dtype.kind == "f")
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("values", "expected", "dtype"),
    [
        (["a", None, "", "é\0'\"\n", float("nan")], ["a", None, "", "é\0'\"\n", None], "O"),
        ([None, None], [None, None], "O"),
        ([True, None, False], [True, None, False], "O"),
        ([True, False], [True, False], "?"),
        ([1, None, 3], [1.0, np.nan, 3.0], "f8"),
        ([2**60, None], [2**60, None], "O"),
        ([2**64 - 1, None], [2**64 - 1, None], "O"),
        ([2**64 - 1, 0], [2**64 - 1, 0], "u8"),
        ([1, 2], [1, 2], "i8"),
        ([1.5, None, 3], [1.5, np.nan, 3.0], "f8"),
        ([np.float32(1.5), np.int8(2), np.nan], [1.5, 2.0, np.nan], "f8"),
        ([np.str_("x"), "y"], ["x", "y"], "O"),
        ([pandas.NA, 7], [np.nan, 7.0], "f8"),
        ([np.ma.masked, "x"], [None, "x"], "O"),
    ],
)
def test_object_columns(values: list[Any], expected: list[Any], dtype: str) -> None:
    column = np.empty(len(values), object)
    column[:] = values
    found = read_table(write_table({"c": column}))["c"]
    assert found.dtype == np.dtype(dtype)
    assert same(found, expected)


def test_other_kinds_of_columns() -> None:
    table = read_table(
        write_table(
            {
                "text": np.array(["a", "bc"]),
                "masked": np.ma.MaskedArray([1, 2], [True, False]),
                "whole": np.ma.MaskedArray([1, 2]),
                "masked text": np.ma.MaskedArray(["a", "b"], [False, True]),
                "masked bool": np.ma.MaskedArray([True, True], [False, True]),
                "half": np.array([0.5, np.nan], np.float16),
                "quoted \"name\" 'x'; DROP": np.array([1, 2]),
            }
        )
    )
    assert table["masked text"].tolist() == ["a", None]
    assert table["masked bool"].tolist() == [True, None]
    assert list(table) == ["text", "masked", "whole", "masked text", "masked bool", "half", "quoted \"name\" 'x'; DROP"]
    assert table["text"].tolist() == ["a", "bc"]
    assert same(table["masked"], [np.nan, 2.0])
    assert table["whole"].tolist() == [1, 2]
    assert table["half"].dtype == np.float32
    assert same(table["half"], [0.5, np.nan])


def test_no_rows() -> None:
    table = read_table(write_table({"a": np.empty(0, np.int16), "b": np.empty(0, object)}))
    assert table["a"].dtype == np.int16
    assert [len(column) for column in table.values()] == [0, 0]


def test_text_that_appears_late_and_order_of_many_rows() -> None:
    text = np.full(300_000, None, object)
    text[250_000] = "late"
    numbers = np.random.default_rng(0).permutation(300_000)
    table = read_table(write_table({"t": text, "n": numbers}))
    assert table["t"][250_000] == "late"
    assert np.array_equal(table["n"], numbers)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=8)), max_size=30))
def test_any_text(values: list[str | None]) -> None:
    column = np.empty(len(values), object)
    column[:] = values
    assert read_table(write_table({"c": column}))["c"].tolist() == values


@pytest.mark.parametrize(
    ("columns", "error", "match"),
    [
        ({}, InvalidValueError, "at least one column"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, InvalidValueError, "equally long"),
        ({"a": np.zeros((2, 2))}, InvalidValueError, r"1-D array, got shape \(2, 2\)"),
        ({"a": [1, 2]}, InvalidValueError, "got list"),
        ({"a": np.zeros(1), "A": np.zeros(1)}, InvalidValueError, "more than case, got 'a' and 'A'"),
        ({"": np.zeros(1)}, InvalidValueError, "non-empty"),
        ({3: np.zeros(1)}, InvalidValueError, "got 3"),
        ({"a\ud800": np.zeros(1)}, InvalidValueError, "names"),
        ({"a": np.array(["\ud800"], object)}, InvalidValueError, "Unicode"),
        ({"a": np.array([1, "x"], object)}, DtypeError, "int, str"),
        ({"a": np.array([True, 2], object)}, DtypeError, "bool, int"),
        ({"a": np.array([b"x"], object)}, DtypeError, "bytes"),
        ({"a": np.array([2**70, 1], object)}, InvalidValueError, "64 bits"),
        ({"a": np.zeros(1, np.complex64)}, DtypeError, "complex64"),
        ({"a": np.zeros(1, "M8[s]")}, DtypeError, "datetime64"),
        ({"a": np.zeros(1, np.longdouble)}, DtypeError, "longdouble|float128"),
        ({"a": np.zeros(1, "S3")}, DtypeError, "S3"),
    ],
)
def test_bad_columns(columns: dict[Any, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        write_table(columns)


def test_bytes_that_are_not_parquet() -> None:
    data = write_table({"a": np.arange(100)})
    for bad in (b"", b"PAR1", data[:-1], data[:50], b"x" * 1000):
        with pytest.raises(FormatError, match="attribute table"):
            read_table(bad)


def test_the_scratch_directory_is_all_that_the_engine_sees(tmp_path: Path) -> None:
    import duckdb

    from neuralartifactdb.storage import tables

    (tmp_path / "secret.csv").write_text("a\n1\n")
    with tables._connection() as (connection, _):
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')")
        with pytest.raises(duckdb.Error):
            connection.execute("SET enable_external_access = true")


def test_needs_neither_pandas_nor_pyarrow() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pandas", "pyarrow", "polars", "fsspec"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
from neuralartifactdb.storage import tables
from neuralartifactdb.storage.tables import read_table, write_table
column = np.array(["a", None, "c"], object)
table = read_table(write_table({"t": column, "n": np.ma.MaskedArray([1, 2, 3], [1, 0, 0]), "b": np.array([True] * 3)}))
assert table["t"].tolist() == ["a", None, "c"] and table["n"][1] == 2 and table["b"].all()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_ctrl_c_while_duckdb_runs_is_a_keyboard_interrupt() -> None:
    """DuckDB makes an error of its own of it, which is no damage of the table."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            tables._ask(lambda: connection.execute("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(1000) b(i)"))
        timer.join()


@pytest.mark.parametrize("error", ["RuntimeError", "InterruptException"])
def test_an_interrupted_read_is_no_damaged_table(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    data = write_table({"c": np.arange(3)})
    kind = {"RuntimeError": RuntimeError, "InterruptException": duckdb.InterruptException}[error]

    class Interrupted:
        def execute(self, sql: str) -> None:
            raise kind("Query interrupted")

        def close(self) -> None:
            pass

    monkeypatch.setattr(duckdb, "connect", lambda *_, **__: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        read_table(data)
    with pytest.raises(KeyboardInterrupt):
        write_table({"c": np.arange(3)})
    with pytest.raises(RuntimeError, match="something else"):
        tables._ask(lambda: (_ for _ in ()).throw(RuntimeError("something else")))
