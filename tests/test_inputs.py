"""Attributes of inputs: what `set_inputs` takes, keys, NULLs, and what it refuses.

Implements `set_inputs` of design section 7 and "tables Parquet" of section 6, as users see them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb


def test_columns_come_back_as_they_went_in(db_path: Path) -> None:
    columns: dict[str, Any] = {
        "label": np.array([3, -1, 2**53, 0]),
        "small": np.array([1, 2, 3, 255], np.uint8),
        "score": np.array([0.1, -0.0, np.inf, 5e-324]),
        "half": np.array([0.5, 1, 2, 3], np.float32),
        "flag": [True, False, False, True],
        "name": ["a", "ä", "", "日本"],
    }
    with nadb.open(db_path) as db:
        db.set_inputs(columns)
        assert db.n_inputs == 4
    with nadb.open(db_path, mode="r") as db:
        assert list(db.inputs) == list(columns)
        assert len(db.inputs) == 6
        for name, values in columns.items():
            got = db.inputs[name]
            assert got.tolist() == np.asarray(values).tolist()
            assert not got.flags.writeable
        assert db.inputs["small"].dtype == np.uint8
        assert db.inputs["half"].dtype == np.float32
        assert "label: int64" in repr(db.inputs)


def test_missing_values_are_null(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.set_inputs(
            {"n": [1, None, 3], "x": [0.5, float("nan"), None], "t": ["a", None, "b"], "f": [None, True, False]}
        )
        assert db.filter(nadb.column("n") != 1).ids.tolist() == [2]
        assert db.filter(nadb.column("x") < 1).ids.tolist() == [0]
        assert db.filter(nadb.column("t") != "a").ids.tolist() == [2]
        assert db.filter(~(nadb.column("f") == True)).ids.tolist() == [2]  # noqa: E712
        assert db.filter(nadb.column("f") | (nadb.column("n") == 3)).ids.tolist() == [1, 2]


@pytest.mark.parametrize("values", [["a", None], [True, None], [1, None], [0.5, float("nan")]])
def test_a_column_of_nulls_alone_compares_with_anything(db_path: Path, values: list[Any]) -> None:
    """What NULLs were to stand for is not known any more; nothing is true of them, and nothing is an error."""
    with nadb.open(db_path) as db:
        db.set_inputs({"gone": [None, None], "kind": values})
        gone = nadb.column("gone")
        for condition in (gone == "a", gone < 3, gone == True, ~(gone == "a"), gone != gone, gone):  # noqa: E712
            assert db.filter(condition).ids.tolist() == []
        assert db.filter((gone == "a") | (nadb.column("kind") == values[0])).ids.tolist() == [0]
        assert np.isnan(db.top_k(gone + 1, 2).scores).all()


def test_pandas_and_torch_columns(db_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"label": [1, 2, 3], "when": ["x", None, "z"], "size": pd.array([1, None, 3], dtype="Int64")})
    with nadb.open(db_path) as db:
        db.set_inputs(frame, key="label")
        assert db.inputs["label"].tolist() == [1, 2, 3]
        assert db.inputs["when"].tolist() == ["x", None, "z"]
        assert db.filter(nadb.column("size") >= 1).ids.tolist() == [0, 2]
        back = db.inputs.to_pandas()
        assert list(back.columns) == ["label", "when", "size"]
        torch = pytest.importorskip("torch")
        db.set_inputs({"t": torch.tensor([0.5, 1.5, 2.5])})
        assert db.inputs["t"].tolist() == [0.5, 1.5, 2.5]


def test_more_calls_add_columns_and_replace_says_so(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.set_inputs({"a": [1, 2], "k": ["x", "y"]}, key="k")
        db.set_inputs({"b": [3, 4]})
        assert list(db.inputs) == ["a", "k", "b"]
        assert db.inputs.key == "k"
        with pytest.raises(ValueError, match=r"'a'.*replace=True"):
            db.set_inputs({"a": [5, 6]})
        db.set_inputs({"a": [5, 6]}, replace=True)
        assert db.inputs["a"].tolist() == [5, 6]
        with pytest.raises(ValueError, match=r"2.*3.*replace=True"):
            db.set_inputs({"c": [1, 2, 3]})
        with pytest.raises(ValueError, match="replace=True"):
            db.set_inputs({"a": [1, 2, 3]}, replace=True)  # the others would be too short
        db.set_inputs({"a": [1, 2, 3], "k": ["x", "y", "z"], "b": [0, 0, 0]}, replace=True)
        assert db.n_inputs == 3


def test_keys_name_inputs(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.set_inputs({"path": ["c.png", "a.png", "b.png"]}, key="path")
        layer = db.index_arrays("feats", np.array([[0.0], [5.0], [1.0]], np.float32))
        assert layer.nearest("a.png", None, 1).ids.tolist() == [1]
        db.set_inputs({"number": [30, 10, 20]}, key="number")
        assert layer.nearest(nadb.key(20), None, 2).ids.tolist() == [2, 0]
        with pytest.raises(KeyError, match=r"'a\.png'.*type int"):
            layer.nearest("a.png")


BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], list[str]]] = {
    "unequal lengths": ({"a": [1], "b": [1, 2]}, {}, ValueError, ["'a': 1", "'b': 2"]),
    "two axes": ({"a": np.zeros((2, 2))}, {}, ValueError, ["'a'", "(2, 2)"]),
    "no columns": ({}, {}, ValueError, ["at least one"]),
    "not a table": ([1, 2], {}, TypeError, ["dict", "list"]),
    "a name that is no text": ({1: [1]}, {}, TypeError, ["1"]),
    "names that differ in case": ({"a": [1], "A": [1]}, {}, ValueError, ["'a'", "'A'"]),
    "complex": ({"a": np.zeros(2, complex)}, {}, TypeError, ["'a'", "complex128"]),
    "mixed kinds": ({"a": ["x", 1]}, {}, TypeError, ["'a'", "int", "str"]),
    "an unknown key": ({"path": ["x"]}, {"key": "pth"}, KeyError, ["'pth'", "'path'"]),
    "duplicate keys": ({"p": ["x", "y", "x"]}, {"key": "p"}, ValueError, ["'x'", "0 and 2", "'p'"]),
    "a NULL key": ({"p": ["x", None]}, {"key": "p"}, ValueError, ["NULL", "position 1"]),
    "a float key": ({"p": [0.5, 1.5]}, {"key": "p"}, TypeError, ["ints or text", "float64"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_columns_are_refused_and_nothing_changes(db_path: Path, name: str) -> None:
    columns, options, error, words = BAD[name]
    with nadb.open(db_path) as db:
        db.set_inputs({"kept": [7, 8, 9]}) if "key" in options and len(next(iter(columns.values()))) == 3 else None
        before = list(db.inputs)
        with pytest.raises(error) as caught:
            db.set_inputs(columns, **options)
        assert isinstance(caught.value, nadb.Error)
        for word in words:
            assert word in str(caught.value), str(caught.value)
        assert list(db.inputs) == before


def test_inputs_and_indexes_are_about_the_same_inputs(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.index_arrays("feats", np.zeros((5, 2), np.float32))
        with pytest.raises(ValueError, match=r"5.*got 4"):
            db.set_inputs({"a": [1, 2, 3, 4]})
        db.set_inputs({"a": np.arange(5)})
        with pytest.raises(ValueError, match=r"5 inputs.*6 inputs.*replace=True"):
            db.index_arrays("more", np.zeros((6, 2), np.float32))
        db.set_inputs({"a": np.arange(6)}, replace=True)
        assert db.index_arrays("more", np.zeros((6, 2), np.float32)).n_inputs == 6


def test_an_unknown_column_shows_near_ones(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        with pytest.raises(KeyError, match="set_inputs"):
            db.inputs["label"]
        db.set_inputs({"label": [1]})
        with pytest.raises(KeyError, match=r"'labl'.*'label'"):
            db.inputs["labl"]


def test_a_column_of_integers_beyond_float64_is_refused_where_it_is_used(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.set_inputs({"big": [2**53 + 1, 1]})
        assert db.inputs["big"].tolist() == [2**53 + 1, 1]
        with pytest.raises(ValueError, match=str(2**53 + 1)):
            db.filter(nadb.column("big") > 0)


def test_a_text_is_no_column_and_no_null_is_a_key(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with nadb.open(tmp_path / "a.nadb") as db:
        for wrong in ("abc", b"abc", 5):
            with pytest.raises(TypeError, match=r"column 'a' must be a list or array .* got"):
                db.set_inputs({"a": wrong})
        for null in (None, float("nan"), pandas.NA):
            with pytest.raises(ValueError, match="must not have NULLs, got one at position 2"):
                db.set_inputs({"k": ["a", "b", null]}, key="k")
        db.set_inputs({"k": ["a", "b", "c"]}, key="k")


def test_masked_values_are_no_activations(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        hidden = np.ma.masked_greater(np.arange(6.0).reshape(3, 2), 4.0)
        with pytest.raises(ValueError, match=r"1 masked values; fill them in"):
            db.index_arrays("f", hidden)
        layer = db.index_arrays("f", np.ma.masked_greater(np.arange(6.0).reshape(3, 2), 9.0))
        assert layer.highest(0, k=2**63).ids.tolist() == [2, 1, 0]
        with pytest.raises(ValueError, match="n_inputs must lie in"):
            db.index_function("g", lambda ids: ids, 10**30, 1, fingerprint="1")
