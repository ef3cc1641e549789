"""`replace_on=`: a job that runs twice leaves its masks once; one commit replaces all or nothing.

Implements `replace_on` of `append`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb

RNG = np.random.default_rng(13)


def pixels(n: int) -> Any:
    return RNG.integers(0, 256, (n, 4, 4), dtype=np.uint8)


@pytest.fixture
def masks(db_path: Path) -> Iterator[Any]:
    with nadb.open(db_path) as db:
        yield db.create_masks("m", dtype="uint8")


def test_a_job_that_runs_twice_makes_no_duplicates(masks: Any, db_path: Path) -> None:
    first, second = pixels(6), pixels(6)
    job = {"input_id": [0, 0, 1, 1, 2, 2], "attrs": {"model": ["a", "b"] * 3}, "replace_on": ("input_id", "model")}
    assert masks.append(first, **job).tolist() == list(range(6))
    versions = len(list((db_path / "versions").iterdir()))
    ids = masks.append(second, **job)
    assert ids.tolist() == list(range(6, 12))
    assert len(list((db_path / "versions").iterdir())) == versions + 1
    assert masks.table()["mask_id"].tolist() == ids.tolist()
    assert np.array_equal(masks.pixels(ids), second)


def test_only_equal_rows_are_replaced(masks: Any) -> None:
    masks.append(pixels(4), input_id=[0, 1, 2, 2], attrs={"model": ["a", "a", "a", "b"]})
    masks.append(pixels(2), input_id=[1, 2], attrs={"model": ["a", "b"]}, replace_on=["input_id", "model"])
    assert masks.table()["mask_id"].tolist() == [0, 2, 4, 5]
    masks.append(pixels(1), input_id=[2], replace_on="input_id")
    assert masks.table()["mask_id"].tolist() == [0, 4, 6]
    masks.append(pixels(1), input_id=[9], attrs={"model": "a"}, replace_on="model")
    assert masks.table()["mask_id"].tolist() == [6, 7]


def test_deleted_masks_are_not_replaced_again(masks: Any) -> None:
    masks.append(pixels(2), input_id=[0, 1])
    masks.delete([0])
    masks.append(pixels(1), input_id=[0], replace_on="input_id")
    assert masks.table()["mask_id"].tolist() == [1, 2]


def test_null_agrees_with_null_also_where_the_column_came_later(masks: Any) -> None:
    masks.append(pixels(2), input_id=[0, 1])
    masks.append(pixels(2), input_id=[0, 1], attrs={"model": [None, "a"]}, replace_on=("input_id", "model"))
    assert masks.table()["mask_id"].tolist() == [1, 2, 3]
    items = [
        {"pixels": pixels(1), "input_id": [1]},
        {"pixels": pixels(1), "input_id": [5], "attrs": {"model": "a"}},
    ]
    masks.append(items, replace_on=("input_id", "model"))
    assert masks.table()["mask_id"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("form", ["array", "iterator"])
def test_duplicates_inside_one_append_are_an_error(masks: Any, form: str) -> None:
    masks.append(pixels(1), input_id=[3], attrs={"model": "a"})
    ids, models = [3, 4, 3], ["a", "a", "a"]
    arguments: dict[str, Any] = {"input_id": ids, "attrs": {"model": models}}
    given_pixels: Any = pixels(3)
    if form == "iterator":
        pairs = zip(ids, models, strict=True)
        given_pixels = ({"pixels": pixels(1), "input_id": [i], "attrs": {"model": m}} for i, m in pairs)
        arguments = {}
    with pytest.raises(ValueError, match=r"input_id=3, model='a' at masks 0 and 2"):
        masks.append(given_pixels, **arguments, replace_on=("input_id", "model"))
    assert masks.table()["mask_id"].tolist() == [0]


@pytest.mark.parametrize(
    ("replace_on", "kind", "message"),
    [
        (("input_id", "modle"), KeyError, "did you mean 'model'"),
        ("mask_id", ValueError, "mask_id"),
        (("height",), ValueError, "height"),
        ((), ValueError, "at least one"),
        (("input_id", "input_id"), ValueError, "each once"),
        (3, TypeError, "int"),
        ((3,), TypeError, "name columns"),
        (b"model", TypeError, "bytes"),
    ],
)
def test_wrong_columns(masks: Any, replace_on: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        masks.append(pixels(1), input_id=[0], attrs={"model": "a"}, replace_on=replace_on)
    assert len(masks) == 0


def test_large_integers_are_told_apart(masks: Any) -> None:
    masks.append(pixels(2), input_id=[0, 0], attrs={"n": [2**53, 2**53 + 1]})
    masks.append(pixels(1), input_id=[0], attrs={"n": [2**53 + 1]}, replace_on="n")
    assert masks.table()["mask_id"].tolist() == [0, 2]


VALUES: dict[str, Any] = {
    "number": st.one_of(st.integers(-2, 2), st.sampled_from([0.0, -0.0, 0.5, 1.0, None, float("nan")])),
    "text": st.sampled_from(["", "a", "b", None]),
    "flag": st.sampled_from([True, False, None]),
}


@settings(max_examples=7, phases=[p for p in Phase if p is not Phase.shrink])  # an example takes many commits
@given(st.data())
def test_the_oracle_agrees(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Rows as a plain dictionary by key, for columns of every kind."""
    names = data.draw(st.lists(st.sampled_from(["input_id", *VALUES]), min_size=1, unique=True))
    row = st.fixed_dictionaries({"input_id": st.integers(0, 2), **VALUES})
    with nadb.open(tmp_path_factory.mktemp("oracle") / "run.nadb") as db:
        masks = db.create_masks("m", dtype="uint8")
        held: dict[Any, int] = {}
        for _ in range(3):
            rows = data.draw(st.lists(row, min_size=1, max_size=4))
            keys = [tuple(None if r[n] != r[n] else r[n] for n in names) for r in rows]
            columns = {n: [r[n] for r in rows] for n in VALUES}
            arguments = {"input_id": [r["input_id"] for r in rows], "attrs": columns, "replace_on": names}
            before = sorted(held.values())
            if len(set(keys)) < len(keys):
                with pytest.raises(ValueError, match="must differ"):
                    masks.append(pixels(len(rows)), **arguments)
                assert masks.table()["mask_id"].tolist() == before
                continue
            ids = masks.append(pixels(len(rows)), **arguments)
            held.update(zip(keys, ids.tolist(), strict=True))
            assert masks.table()["mask_id"].tolist() == sorted(held.values())


@pytest.mark.parametrize("null", [None, float("nan"), np.float32("nan"), pytest.importorskip("pandas").NA])
def test_a_null_agrees_with_a_null_however_it_is_given(tmp_path: Path, null: Any) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        masks = db.create_masks("m", dtype="uint8")
        for _ in range(3):
            attrs = {"model": ["a", null]}
            masks.append(np.zeros((2, 4, 4), np.uint8), input_id=[0, 1], attrs=attrs, replace_on=("input_id", "model"))
        assert len(masks) == 2
