"""Arguments of `append` beside pixels: boxes, attributes, ids and iterators; what is refused, with its place.

Implements `append` of design section 7.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from append_cases import lookup, meta, turned
from hypothesis import given
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.masks.batch import MISSING_BOX
from neuralartifactdb.masks.batches import AppendArguments, batches_of
from neuralartifactdb.masks.boxes import stored_boxes

# ---- boxes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box_format", "given_box"),
    [("xyxy", (2, 3, 10, 9)), ("yxyx", (3, 2, 9, 10)), ("xywh", (2, 3, 8, 6)), ("cxcywh", (6, 6, 8, 6))],
)
def test_box_formats(box_format: str, given_box: tuple[int, ...]) -> None:
    for form in ([given_box], np.array([given_box]), np.array([given_box], np.float32), torch.tensor([given_box])):
        assert stored_boxes({"b": form}, 1, box_format=box_format)["b"].tolist() == [[2, 3, 10, 9]]
    assert stored_boxes({"b": pd.DataFrame([given_box])}, 1, box_format=box_format)["b"].tolist() == [[2, 3, 10, 9]]


def test_missing_boxes() -> None:
    gone = [MISSING_BOX] * 4
    nan = float("nan")
    given_boxes = [(0, 1, 2, 3), None, (nan,) * 4, (None,) * 4]
    assert stored_boxes({"b": given_boxes}, 4)["b"].tolist() == [[0, 1, 2, 3], gone, gone, gone]
    assert stored_boxes({"b": [None, None]}, 2)["b"].tolist() == [gone, gone]
    assert stored_boxes({"b": np.full((1, 4), nan)}, 1, rounding="outward", box_format="cxcywh")["b"].tolist() == [gone]
    hidden = np.ma.masked_array(np.ones((2, 4), int), mask=[[False] * 4, [True] * 4])
    assert stored_boxes({"b": hidden}, 2)["b"].tolist() == [[1, 1, 1, 1], gone]
    with pytest.raises(ValueError, match=r"boxes\['b'\] of mask 11 must have four numbers, or four NaN"):
        stored_boxes({"b": [(0, 0, 1, 1), (0, 0, nan, 1)]}, 2, first=10)


def test_fractions_need_rounding() -> None:
    with pytest.raises(ValueError, match=r"mask 1 .*whole.*rounding=\"outward\".*x0=0\.5"):
        stored_boxes({"b": [(0, 0, 1, 1), (0.5, 0, 2, 2)]}, 2)
    assert stored_boxes({"b": [(0.5, 0.1, 1.2, 3)]}, 1, rounding="outward")["b"].tolist() == [[0, 0, 2, 3]]
    assert stored_boxes({"b": [(-0.5, -3.1, 1, 2.9)]}, 1, rounding="outward")["b"].tolist() == [[-1, -4, 1, 3]]
    assert stored_boxes({"b": [(5, 5, 3, 3)]}, 1, box_format="cxcywh", rounding="outward")["b"].tolist() == [
        [3, 3, 7, 7]
    ]
    with pytest.raises(ValueError, match="'nearest'"):
        stored_boxes({}, 0, rounding="nearest")


@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 4), min_size=1, max_size=5))
def test_outward_covers_and_no_more(given_boxes: list[tuple[float, float, float, float]]) -> None:
    found = stored_boxes({"b": given_boxes}, len(given_boxes), rounding="outward")["b"]
    for box, (x0, y0, x1, y1) in zip(given_boxes, found.tolist(), strict=True):
        for low, high, start, stop in ((box[0], box[2], x0, x1), (box[1], box[3], y0, y1)):
            if low < high:  # the pixels that the side touches, one by one
                assert [i for i in range(-60, 60) if i < high and i + 1 > low] == list(range(start, stop))
            else:
                assert stop <= start


@pytest.mark.parametrize(
    ("boxes", "kind", "message"),
    [
        ([(0, 0, 1, 1)], TypeError, r"dict from a name.*list"),
        ({3: [(0, 0, 1, 1)]}, TypeError, "names of boxes"),
        ({"": [(0, 0, 1, 1)]}, ValueError, "names of boxes"),
        ({"b": [(0, 0, 1, 1)] * 2}, ValueError, r"\(1, 4\), got \(2, 4\)"),
        ({"b": (0, 0, 1, 1)}, ValueError, r"\(1, 4\), got \(4,\)"),
        ({"b": [(0, 0, 1)]}, ValueError, r"got \(1, 3\)"),
        ({"b": [(0, 0, 1, np.inf)]}, ValueError, r"finite.*y1=inf"),
        ({"b": [(0, 0, 1, 2**31)]}, ValueError, "32 bits"),
        ({"b": [(MISSING_BOX, 0, 1, 1)]}, ValueError, "32 bits"),
        ({"b": [("a", 0, 1, 1)]}, TypeError, "4 numbers"),
        ({"b": np.zeros((1, 4), bool)}, TypeError, "bool"),
        ({"b": 5}, TypeError, "got 5"),
    ],
)
def test_bad_boxes(boxes: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        turned(np.zeros((1, 2, 2), np.uint8), boxes=boxes)
    with pytest.raises(ValueError, match="'ltrb'"):
        turned(np.zeros((1, 2, 2), np.uint8), box_format="ltrb")


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_ids_and_keys_of_inputs() -> None:
    two = np.zeros((2, 2, 2), np.uint8)
    for ids in ([4, 2], np.array([4, 2], np.uint8), torch.tensor([4, 2]), pd.Series([4, 2])):
        assert turned(two, input_id=ids).input_ids.tolist() == [4, 2]
    for keys in (["cat.png", 17], [Key("cat.png"), Key(17)], np.array(["cat.png", 17], object)):
        assert turned(two, input_key=keys).input_ids.tolist() == [4, 3]
    assert turned(two[:1], input_key="dog.png").input_ids.tolist() == [2]
    assert turned(two[:1], input_id=5).input_ids.tolist() == [5]


@pytest.mark.parametrize(
    ("given_ids", "kind", "message"),
    [
        ({}, TypeError, "input_id=.*input_key=.*neither"),
        ({"input_id": [0, 1], "input_key": ["a", "b"]}, TypeError, "both"),
        ({"input_id": [0.0, 1.0]}, TypeError, "float64"),
        ({"input_id": [True, False]}, TypeError, "bool"),
        ({"input_id": ["a", "b"]}, TypeError, "input_key="),
        ({"input_id": [0]}, ValueError, "one value per mask, 2, got 1"),
        ({"input_id": [[0, 1]]}, ValueError, r"\(1, 2\)"),
        ({"input_id": [0, -1]}, IndexError, "got -1 at mask 1"),
        ({"input_id": [0, 5]}, IndexError, r"\[0, 5\), got 5 at mask 1"),
        ({"input_id": np.array([0, 2**63], np.uint64)}, IndexError, "got 9223372036854775808"),
        ({"input_key": ["cat.png"]}, ValueError, "one value per mask, 2, got 1"),
        ({"input_key": ["cat.png", "cow.png"]}, KeyError, "cow.png"),
        ({"input_key": ["cat.png", 1.5]}, TypeError, "1.5"),
    ],
)
def test_bad_inputs(given_ids: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = AppendArguments(np.zeros((2, 2, 2), np.uint8), **given_ids)
    with pytest.raises(kind, match=message):
        batches_of(arguments, meta(), lookup(5))  # before the first batch is asked for


# ---- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_are_columns_or_one_value() -> None:
    three = np.zeros((3, 2, 2), np.uint8)
    found = turned(
        three, attrs={"model": "resnet", "score": [0.5, None, 1], "n": np.arange(3), "ok": True, "t": ["a", None, "b"]}
    ).attrs
    assert found["model"].tolist() == ["resnet"] * 3
    assert found["n"].tolist() == [0, 1, 2]
    assert found["ok"].tolist() == [True] * 3
    assert found["t"].tolist() == ["a", None, "b"]
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})
    assert turned(three, attrs=frame).attrs["b"].tolist() == ["x", None, "z"]
    assert turned(three, attrs={}).attrs == {}


@pytest.mark.parametrize(
    ("attrs", "kind", "message"),
    [
        ({"a": [1, 2]}, ValueError, r"attrs\['a'\] must have one value per mask, 3.*got 2"),
        ({"a": [1, "x", 2]}, TypeError, "int, str"),
        ({"a": [1, True, None]}, TypeError, "bool, int"),
        ({"a": [[1], [2], [3]]}, ValueError, "1-D"),
        ({"mask_id": 1}, ValueError, "every collection has"),
        ({"Height": 1}, ValueError, "every collection has"),
        ({"a": 1, "A": 2}, ValueError, "case"),
        ({"": 1}, ValueError, "printable"),
        ({3: 1}, TypeError, "str"),
        ({"a": [2**70, None, None]}, ValueError, "64 bits"),
        ({"a": np.zeros(3, complex)}, TypeError, "complex"),
        ([1, 2, 3], TypeError, "list"),
        ({"b": 1}, ValueError, "as a box and as an attribute"),
    ],
)
def test_bad_attributes(attrs: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        turned(np.zeros((3, 2, 2), np.uint8), attrs=attrs, boxes={"b": [None] * 3})


# ---- iterators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "kind", "message"),
    [
        ({"pixel": 1}, KeyError, "item 1.*'pixel'.*did you mean 'pixels'"),
        ({"input_id": [0]}, ValueError, "item 1 must have 'pixels'"),
        ({"pixels": np.zeros((1, 2, 2), np.uint8)}, TypeError, "neither"),
        (3, TypeError, "int as item 1"),
    ],
)
def test_bad_items(item: Any, kind: type[Exception], message: str) -> None:
    good = {"pixels": np.zeros((1, 2, 2), np.uint8), "input_id": [0]}
    with pytest.raises(kind, match=message):
        turned(iter([good, item]))


def test_what_belongs_to_items_is_not_given_beside_them() -> None:
    for name, value in (("input_id", [0]), ("input_key", ["a"]), ("boxes", {"b": [(0, 0, 1, 1)]})):
        with pytest.raises(TypeError, match=rf"{name} must stand in the dicts"):
            batches_of(AppendArguments(iter([]), **{name: value}), meta(), lookup())


def test_a_box_is_shown_as_given_to_the_last_digit() -> None:
    words = "got (1, 2, 3, 1234567.5) as cxcywh, which is x0=-0.5, y0=-617281.75, x1=2.5"
    with pytest.raises(ValueError, match=re.escape(words)):
        stored_boxes({"o": [[1, 2, 3, 1234567.5]]}, 1, box_format="cxcywh")
    with pytest.raises(ValueError, match=r"of mask 5 must have whole.* got x0=1, y0=2, x1=3, y1=1234567\.5$"):
        stored_boxes({"o": [[1, 2, 3, 1234567.5]]}, 1, first=5)


def test_single_attributes_may_be_tensors_and_boxes_bfloat16(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        masks = db.create_masks("m", dtype="uint8")
        one = {
            "epoch": torch.tensor(3),
            "loss": torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True),
            "ok": torch.tensor(True),
            "rank": np.array(7),
        }
        corners = torch.tensor([[0, 0, 4, 4], [1, 1, 3, 2]], dtype=torch.bfloat16)
        boxes = {"whole": corners, "listed": [corners[0], None]}
        masks.append(np.zeros((2, 8, 8), np.uint8), input_id=[0, 1], attrs=one, boxes=boxes)
        table = masks.table()
        assert [table[name].tolist() for name in one] == [[3, 3], [0.5, 0.5], [True, True], [7, 7]]
        assert table["whole"].tolist() == [[0, 0, 4, 4], [1, 1, 3, 2]]
        assert table["listed"][0].tolist() == [0, 0, 4, 4]
        assert np.isnan(table["listed"][1]).all()
        for wrong in (corners.to(torch.complex64), np.zeros((2, 4), complex)):
            with pytest.raises(TypeError, match=r"boxes\['c'\] must hold real numbers, got dtype complex"):
                masks.append(np.zeros((2, 8, 8), np.uint8), input_id=[0, 1], boxes={"c": wrong})
        with pytest.raises(ValueError, match=r"x1=4\.5"):
            masks.append(np.zeros((2, 8, 8), np.uint8), input_id=[0, 1], boxes={"c": corners + 0.5})
