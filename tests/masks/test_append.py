"""Appending to a collection: what comes back, many calls, the index on the way, and what is refused leaves no trace.

Implements `create_masks` and `append` of design section 7 through the public names.
"""

from __future__ import annotations

import logging
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb.masks import batches

RNG = np.random.default_rng(11)


def uint8_masks(n: int, *shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (n, *(shape or (9, 7))), dtype=np.uint8)


@pytest.fixture
def db(db_path: Path) -> Iterator[nadb.Database]:
    with nadb.open(db_path) as opened:
        yield opened


def files_of(path: Path) -> list[str]:
    return sorted(p.name for p in (path / "segments").iterdir()) if (path / "segments").exists() else []


# ---- what comes back -------------------------------------------------------------------------------------------------


def test_masks_come_back_as_they_went_in(db: nadb.Database, db_path: Path) -> None:
    masks = db.create_masks("maps", dtype="uint8")
    pixels = uint8_masks(20)
    boxes = [(0, 1, 5, 9), None] * 10
    ids = masks.append(
        pixels, input_id=np.arange(20) * 3, boxes={"object": boxes}, attrs={"model": "a", "score": np.arange(20) / 7}
    )
    assert ids.dtype == np.int64
    assert ids.tolist() == list(range(20))
    with nadb.open(db_path, mode="r") as other:
        found = other.masks["maps"]
        assert np.array_equal(found.pixels(ids), pixels)
        table = found.table()
        assert list(table) == ["mask_id", "input_id", "height", "width", "model", "score", "object"]
        assert table["input_id"].tolist() == [3 * i for i in range(20)]
        assert (table["height"] == 9).all()
        assert (table["width"] == 7).all()
        assert table["model"].tolist() == ["a"] * 20
        assert table["score"].tolist() == [i / 7 for i in range(20)]
        assert table["object"][0].tolist() == [0, 1, 5, 9]
        assert np.isnan(table["object"][1]).all()
        assert table["object"].shape == (20, 4)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "float16", "float32"])
def test_every_dtype_and_size(db: nadb.Database, dtype: str) -> None:
    masks = db.create_masks("m", dtype=dtype, value_range=(0, 1), nodata=None)
    given_masks = [(RNG.random(shape) > 0.5).astype(dtype) for shape in ((1, 1), (3, 17), (40, 2), (1, 300))]
    masks.append(given_masks, input_id=range(4))
    back = masks.pixels([3, 0, 1, 2, 1])
    for mask, i in zip(back, [3, 0, 1, 2, 1], strict=True):
        assert mask.dtype == np.dtype(dtype)
        assert np.array_equal(mask, given_masks[i])
    assert masks.shapes.tolist() == [[1, 1], [3, 17], [40, 2], [1, 300]]
    assert np.array_equal(masks.pixels(1), given_masks[1])
    assert masks.pixels([1]).shape == (1, 3, 17)


def test_the_extremes_of_floats_survive(db: nadb.Database) -> None:
    pixels = np.array([[[np.nan, -0.0, 1e-45, 0.7]]], np.float32)
    masks = db.create_masks("m", dtype="float32", nodata=float("nan"))
    masks.append(pixels, input_id=[0])
    assert masks.pixels([0]).tobytes() == pixels.tobytes()


@settings(max_examples=15)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=0, max_size=5), min_size=1, max_size=4),
    st.booleans(),
)
def test_many_appends_are_one_collection(tmp_path_factory: Any, calls: list[list[tuple[int, int]]], lazy: bool) -> None:
    with nadb.open(tmp_path_factory.mktemp("many") / "run.nadb") as db:
        masks = db.create_masks("m", dtype="uint8", index="lazy" if lazy else "append")
        everything: list[Any] = []
        for number, shapes in enumerate(calls):
            new = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
            ids = masks.append(new, input_id=[number] * len(new), attrs={f"only_{number}": number, "all": number})
            assert ids.tolist() == list(range(len(everything), len(everything) + len(new)))
            everything += new
        assert len(masks) == len(everything)
        back = masks.pixels(np.arange(len(everything)))
        assert all(np.array_equal(a, b) for a, b in zip(back, everything, strict=True))
        table = masks.table()
        owners = [number for number, shapes in enumerate(calls) for _ in shapes]
        assert table["input_id"].tolist() == owners
        if everything:
            assert table["all"].tolist() == owners
            for number in set(owners):
                column = table[f"only_{number}"]
                assert [None if v is None or v != v else int(v) for v in column.tolist()] == [
                    number if owner == number else None for owner in owners
                ]


def test_batches_smaller_than_an_index_block_and_larger(db: nadb.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_BATCH_MASKS", 700)
    masks = db.create_masks("m", dtype="uint8", grid=2, edges=[100, 200])
    pixels = uint8_masks(5_000, 4, 4)
    masks.append(pixels, input_id=np.arange(5_000))
    assert np.array_equal(masks.pixels(np.arange(5_000)), pixels)
    view = masks._view
    for segment in view.segments:
        for first in range(0, segment.n, 2_048):
            last = min(first + 2_048, segment.n)
            for edge, value in enumerate((100, 200)):
                rows = np.frombuffer(segment.index_rows(edge, first, last), np.uint8).reshape(-1, 2, 2)
                cells = (pixels[segment.first + first : segment.first + last] >= value).reshape(-1, 2, 2, 2, 2)
                assert np.array_equal(rows, cells.sum(axis=(2, 4)))


def test_an_iterator_is_never_held_whole(db: nadb.Database) -> None:
    given_arrays: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def items() -> Iterator[dict[str, Any]]:
        for i in range(90):
            array = uint8_masks(3)
            given_arrays.append(weakref.ref(array))
            yield {"pixels": array, "input_id": [i] * 3}
            del array
            alive.append(sum(held() is not None for held in given_arrays))

    seen: list[tuple[int, int]] = []
    masks = db.create_masks("m", dtype="uint8")
    ids = masks.append(items(), attrs={"model": "x"}, progress=lambda done, total: seen.append((done, total)))
    assert len(ids) == len(masks) == 270
    assert max(alive) <= 23  # the 64 masks that the index is chosen from
    assert max(alive[30:]) <= 2
    assert seen == [(3 * i, 3 * i) for i in range(1, 91)]
    assert masks.table()["model"].tolist() == ["x"] * 270


def test_progress_is_told(
    db: nadb.Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_BATCH_MASKS", 4)
    masks = db.create_masks("m", dtype="uint8")
    seen: list[tuple[int, int]] = []
    masks.append(uint8_masks(10), input_id=range(10), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]
    masks.append(uint8_masks(10), input_id=range(10), progress=False)
    assert capsys.readouterr() == ("", "")
    masks.append(uint8_masks(10), input_id=range(10), progress=True)
    assert "10/10" in capsys.readouterr().err
    with pytest.raises(TypeError, match="progress"):
        masks.append(uint8_masks(1), input_id=[0], progress="yes")


def test_progress_without_a_total(db: nadb.Database, capsys: pytest.CaptureFixture[str]) -> None:
    masks = db.create_masks("m", dtype="uint8")
    masks.append(({"pixels": uint8_masks(3), "input_id": [0, 1, 2]} for _ in range(4)), progress=True)
    shown = capsys.readouterr().err
    assert "12masks" in shown.replace(" ", "")
    assert "%|" not in shown
    masks.append({"pixels": uint8_masks(3), "input_id": [0, 1, 2]} for _ in range(4))  # nobody is watching
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("chosen", [{}, {"grid": 3}, {"grid": 3, "edges": [50, 100]}, {"index": "lazy"}])
def test_the_index_is_said_as_a_share_of_the_deflated_pixels(
    db: nadb.Database, chosen: dict[str, Any], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "neuralartifactdb")
    masks = db.create_masks("m", dtype="uint8", **chosen)
    assert "%" not in repr(masks)
    pixels = np.repeat(uint8_masks(40), 3, axis=1)
    masks.append(pixels, input_id=range(40), progress=True)
    deflated = sum(len(zlib.compress(mask.tobytes(), 6)) for mask in pixels)
    of_deflated, of_pixels = masks.index_nbytes / deflated, masks.index_nbytes / pixels.nbytes
    shares = f"(about {of_deflated:.2%} of the pixels deflated, {of_pixels:.2%} as they are)"
    assert shares in repr(masks)
    assert shares in caplog.text
    row = masks.grid**2 * len(masks.edges) * 40
    said = capsys.readouterr()
    assert f"about {row / deflated:.2%} of the pixels deflated, {row / pixels.nbytes:.2%} as they are" in (
        said.out + said.err
    )
    caplog.clear()
    masks.append(pixels[:3], input_id=range(3), progress=True)
    assert "deflated" not in "".join([*capsys.readouterr(), caplog.text])
    estimated = round(deflated / pixels.nbytes * (pixels.nbytes + pixels[:3].nbytes))
    assert f"(about {masks.index_nbytes / estimated:.2%} of the pixels deflated, " in repr(masks)


def test_nothing_appended_changes_nothing(db: nadb.Database, db_path: Path) -> None:
    masks = db.create_masks("m", dtype="uint8")
    before = sorted(p.name for p in (db_path / "versions").iterdir())
    for nothing in (np.empty((0, 4, 4), np.uint8), [], iter([]), torch.empty((0, 4, 4), dtype=torch.uint8)):
        given_ids: dict[str, Any] = {} if hasattr(nothing, "__next__") else {"input_id": []}
        ids = masks.append(nothing, **given_ids)
        assert ids.dtype == np.int64
        assert ids.tolist() == []
    assert sorted(p.name for p in (db_path / "versions").iterdir()) == before
    assert masks.pixels([]).shape == (0, 0, 0)


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_by_key_and_by_id(db: nadb.Database) -> None:
    db.set_inputs({"path": ["a.png", "b.png", "c.png"], "label": [0, 1, 2]}, key="path")
    masks = db.create_masks("m", dtype="uint8")
    masks.append(uint8_masks(3), input_key=["c.png", "a.png", "c.png"])
    masks.append(uint8_masks(1), input_id=[1])
    assert masks.table()["input_id"].tolist() == [2, 0, 2, 1]
    with pytest.raises(KeyError, match=r"d\.png"):
        masks.append(uint8_masks(1), input_key=["d.png"])
    with pytest.raises(IndexError, match=r"\[0, 3\), got 3 at mask 1"):
        masks.append(uint8_masks(2), input_id=[0, 3])
    assert len(masks) == 4


def test_the_database_knows_inputs_from_masks(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="uint8")
    with pytest.raises(KeyError, match="set_inputs"):
        masks.append(uint8_masks(1), input_key=["a.png"])
    masks.append(uint8_masks(2), input_id=[4, 41])
    masks.append(uint8_masks(1), input_id=[3])
    assert db.n_inputs == 42
    with pytest.raises(ValueError, match="each of the 42 inputs, got 10"):
        db.set_inputs({"label": range(10)})
    db.set_inputs({"label": range(50)})
    assert db.n_inputs == 50


# ---- boxes and attributes over appends -------------------------------------------------------------------------------


def test_boxes_and_attributes_that_come_later_are_missing_before(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="uint8")
    masks.append(uint8_masks(2), input_id=[0, 1], attrs={"n": [1, 2]})
    masks.append(uint8_masks(1), input_id=[2], boxes={"b": [(1, 2, 3, 4)]}, attrs=pd.DataFrame({"model": ["x"]}))
    table = masks.table()
    assert np.isnan(table["b"][:2]).all()
    assert table["b"][2].tolist() == [1, 2, 3, 4]
    assert table["model"].tolist() == [None, None, "x"]
    assert table["n"][:2].tolist() == [1, 2]
    assert np.isnan(table["n"][2])
    assert (masks.boxes, sorted(masks.attributes)) == (["b"], ["model", "n"])


@pytest.mark.parametrize(
    ("attrs", "boxes", "kind", "message"),
    [
        ({"n": "one"}, None, TypeError, r"attrs\['n'\] holds text.*number"),
        ({"N": 1}, None, ValueError, "case"),
        ({"b": 1}, None, ValueError, "'b' is a box and an attribute"),
        (None, {"n": [(0, 0, 1, 1)]}, ValueError, "'n' is a box and an attribute"),
    ],
)
def test_columns_keep_their_kind(
    db: nadb.Database, attrs: Any, boxes: Any, kind: type[Exception], message: str
) -> None:
    masks = db.create_masks("m", dtype="uint8")
    masks.append(uint8_masks(1), input_id=[0], attrs={"n": 1, "gone": None}, boxes={"b": [(0, 0, 1, 1)]})
    with pytest.raises(kind, match=message):
        masks.append(uint8_masks(1), input_id=[0], attrs=attrs, boxes=boxes)
    masks.append(uint8_masks(1), input_id=[0], attrs={"n": 2.5, "gone": "text"})
    assert len(masks) == 2
    with pytest.raises(kind, match=message):
        masks.append(iter([{"pixels": uint8_masks(1), "input_id": [1], "attrs": attrs, "boxes": boxes}]))


# ---- all or nothing --------------------------------------------------------------------------------------------------


def test_a_bad_mask_in_the_middle_leaves_nothing(
    db: nadb.Database, db_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_BATCH_MASKS", 4)
    masks = db.create_masks("m", dtype="float32")
    good = RNG.random((10, 5, 5)).astype(np.float32)
    masks.append(good, input_id=range(10))
    before = files_of(db_path)
    bad = good.copy()
    bad[9, 3, 2] = np.nan
    with pytest.raises(ValueError, match=r"nan at mask 9, y 3, x 2; nodata="):
        masks.append(bad, input_id=range(10))

    def items() -> Iterator[dict[str, Any]]:
        yield {"pixels": good, "input_id": range(10)}
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="the generator broke"):
        masks.append(items())
    assert files_of(db_path) == before
    assert len(masks) == 10
    assert masks.append(good, input_id=range(10))[0] == 10


def test_first_append_that_fails_chooses_no_index(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="uint8", value_range=(0, 100))
    with pytest.raises(ValueError, match="got 101"):
        masks.append(np.full((3, 4, 4), 101, np.uint8), input_id=range(3))
    assert (masks.grid, masks.edges) == (0, ())


def test_the_share_of_the_index_is_logged_once(db: nadb.Database, caplog: pytest.LogCaptureFixture) -> None:
    masks = db.create_masks("m", dtype="uint8")
    with caplog.at_level(logging.INFO, logger="neuralartifactdb"):
        masks.append(uint8_masks(80, 64, 64), input_id=range(80))
        assert [r.message for r in caplog.records if "cells" in r.message and "% of" in r.message] != []
        caplog.clear()
        masks.append(uint8_masks(80, 64, 64), input_id=range(80))
        assert not [r for r in caplog.records if "cells" in r.message]


# ---- create_masks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dtype": "float64"}, TypeError, "'float32', got 'float64'"),
        ({"dtype": None}, TypeError, "got None"),
        ({"dtype": "maps"}, TypeError, "'maps'"),
        ({"dtype": "uint8", "value_range": (0, 256)}, ValueError, r"\[0, 255\].*256"),
        ({"dtype": "uint8", "value_range": (0.5, 20)}, ValueError, "whole"),
        ({"dtype": "uint8", "value_range": (20, 20)}, ValueError, "ascend"),
        ({"dtype": "uint8", "value_range": 255}, TypeError, r"\(0, 255\), got 255"),
        ({"dtype": "uint8", "value_range": ("a", "b")}, TypeError, "number"),
        ({"dtype": "float16", "value_range": (0, 70_000)}, ValueError, "finite in float16"),
        ({"dtype": "float32", "value_range": (0, float("nan"))}, ValueError, "finite"),
        ({"dtype": "bool", "nodata": 1}, ValueError, "nodata is not for bool"),
        ({"dtype": "uint8", "nodata": float("nan")}, ValueError, "whole"),
        ({"dtype": "uint8", "nodata": float("inf")}, ValueError, r"whole number in \[0, 255\].*inf"),
        ({"dtype": "float32", "value_range": (0, 10**400)}, ValueError, "finite in float32, got an int of 1,329 bits"),
        ({"dtype": "uint8", "edges": [3, 3]}, ValueError, "got 3 and then 3 at position 1"),
        ({"dtype": "uint8", "edges": [256]}, ValueError, r"edges must lie in the range \[0, 255\], got 256"),
        ({"dtype": "uint8", "index": "later"}, ValueError, "'later'"),
        ({"dtype": "uint8", "grid": 0}, ValueError, "grid"),
        ({"dtype": "uint8", "grid": 2.5}, TypeError, "grid"),
        ({"dtype": "uint8", "edges": [5, 3]}, ValueError, "ascend"),
        ({"dtype": "uint8", "edges": [300]}, ValueError, "300"),
        ({"dtype": "uint8", "storage": 0}, ValueError, "storage"),
        ({"dtype": "uint8", "storage": "5 apples"}, ValueError, "storage"),
        ({"dtype": "uint8", "exist_ok": True, "overwrite": True}, ValueError, "one of them"),
    ],
)
def test_wrong_options(
    db: nadb.Database, db_path: Path, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        db.create_masks("m", **options)
    assert not db_path.exists()


@pytest.mark.parametrize("name", ["", " m", "a\nb", "x" * 600])
def test_wrong_names(db: nadb.Database, name: str) -> None:
    with pytest.raises(ValueError, match="name of a collection"):
        db.create_masks(name, dtype="uint8")
    with pytest.raises(TypeError, match="name of a collection"):
        db.create_masks(3, dtype="uint8")  # type: ignore[arg-type]


def test_dtypes_by_any_name(db: nadb.Database) -> None:
    for i, (given_dtype, expected) in enumerate(
        [(np.uint8, "uint8"), (bool, "bool"), (np.dtype("f2"), "float16"), (torch.float32, "float32"), ("u2", "uint16")]
    ):
        assert db.create_masks(str(i), dtype=given_dtype).dtype == expected


def test_float_ranges_are_of_the_dtype(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="float32", value_range=(0, 0.3), nodata=-0.1)
    top = np.full((1, 1, 2), [0.3, -0.1], np.float32)  # float32 has no 0.3; its neighbour is above it
    assert float(top[0, 0, 0]) > 0.3
    masks.append(top, input_id=[0])
    assert np.array_equal(masks.pixels([0]), top)


def test_a_collection_is_made_once(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="uint8", value_range=(0, 9), nodata=255, grid=4)
    masks.append(np.full((1, 4, 4), 255, np.uint8), input_id=[0])
    with pytest.raises(ValueError, match="exists already"):
        db.create_masks("m", dtype="uint8")
    assert len(db.create_masks("m", dtype="uint8", exist_ok=True)) == 1
    assert len(db.create_masks("m", dtype="uint8", value_range=(0, 9), nodata=255, grid=4, exist_ok=True)) == 1
    for changed in ({"dtype": "uint16"}, {"value_range": (0, 10)}, {"nodata": 254}, {"grid": 5}, {"index": "lazy"}):
        with pytest.raises(ValueError, match=rf"exists with {next(iter(changed))}=.*overwrite=True"):
            db.create_masks("m", **{"dtype": "uint8", "exist_ok": True, **changed})
    before = db.create_masks("m", dtype="float32", overwrite=True)
    assert (len(before), masks.dtype, len(masks)) == (0, "float32", 0)
    nan = db.create_masks("n", dtype="float32", nodata=float("nan"))
    assert np.isnan(nan.nodata)
    assert np.isnan(db.create_masks("n", dtype="float32", nodata=float("nan"), exist_ok=True).nodata)


@pytest.mark.parametrize(
    ("made", "asked", "words"),
    [
        ({"storage": "1KiB"}, {"storage": 512}, ["storage='1KiB'", "got storage=512", "leave storage= out"]),
        ({}, {"storage": 0.1}, ["storage=0.05", "got storage=0.1"]),
        ({"grid": 4}, {"grid": 5}, ["grid=4", "got grid=5"]),
        ({}, {"grid": 5}, ["without grid=", "first append chooses", "got grid=5"]),
        ({}, {"edges": [5]}, ["without edges=", "got edges=[5]"]),
        ({"edges": [5, 9]}, {"edges": [5, 10]}, ["edges=(5.0, 9.0)", "got edges=[5, 10]"]),
        ({"value_range": (0, 9)}, {"value_range": (0, 10)}, ["value_range=(0.0, 9.0)", "got value_range=(0, 10)"]),
        ({"nodata": 255}, {"nodata": 0}, ["nodata=255.0", "got nodata=0"]),
        ({}, {"nodata": 0}, ["nodata=None", "got nodata=0"]),
        ({"index": "lazy"}, {"index": "append"}, ["index='lazy'", "got index='append'"]),
        ({}, {"dtype": "uint16"}, ["dtype='uint8'", "got dtype='uint16'", "another name"]),
    ],
)
def test_exist_ok_refuses_what_is_another_collection(
    db: nadb.Database, made: dict[str, Any], asked: dict[str, Any], words: list[str]
) -> None:
    db.create_masks("m", **{"dtype": "uint8", **made})
    with pytest.raises(ValueError, match="collection 'm' exists") as caught:
        db.create_masks("m", **{"dtype": "uint8", **asked}, exist_ok=True)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({"index": "lazy", "storage": "1KiB"}, {}),
        ({"storage": "1KiB"}, {"storage": 1024}),
        ({"dtype": "float32", "nodata": float("nan")}, {"dtype": "float32", "nodata": np.nan}),
        ({"dtype": "float32", "value_range": (0, 10), "edges": [2, 5]}, {"dtype": "float32", "edges": (2, 5)}),
        ({"nodata": 0, "edges": [7]}, {"edges": [7]}),
        ({"value_range": (0, 255), "grid": 8}, {"grid": np.int8(8), "value_range": [0, 255]}),
    ],
)
def test_exist_ok_returns_what_is_asked_for(db: nadb.Database, made: dict[str, Any], asked: dict[str, Any]) -> None:
    db.create_masks("m", **{"dtype": "uint8", **made})
    assert db.create_masks("m", **{"dtype": "uint8", **asked}, exist_ok=True).name == "m"


@pytest.mark.parametrize("given", ["array", "list"])
def test_a_mask_of_too_many_pixels_is_refused_before_any_is_read(db: nadb.Database, given: str) -> None:
    masks = db.create_masks("m", dtype="uint8")
    pixels: Any = np.broadcast_to(np.uint8(0), (1, 2**15 + 1, 2**15))
    with pytest.raises(ValueError, match=r"at most 2\*\*30 = .* got 32,769 x 32,768 = 1,073,774,592 at mask 0.*tiles"):
        masks.append(pixels if given == "array" else [pixels[0]], input_id=[0])


def test_scale_stores_integers_and_bools_as_they_are(db: nadb.Database) -> None:
    masks = db.create_masks("m", dtype="uint8", value_range=(0, 200))
    whole = np.array([[[0, 1], [7, 200]]])
    masks.append(whole, input_id=[0], convert="scale")
    masks.append(whole > 1, input_id=[1], convert="scale")
    masks.append(np.array([[[0.0, 1.0], [0.5, 0.0025]]]), input_id=[2], convert="scale")
    assert masks.pixels(0).tolist() == [[0, 1], [7, 200]]
    assert masks.pixels(1).tolist() == [[0, 0], [1, 1]]
    assert masks.pixels(2).tolist() == [[0, 200], [100, 0]]  # to the nearest, halves to even
    with pytest.raises(ValueError, match=r"\[0, 200\].*got 201 at mask 0, y 1, x 1"):
        masks.append(whole + 1, input_id=[3], convert="scale")
