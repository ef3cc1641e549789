"""Arguments of `append` as batches: every form of pixels, boxes, attributes and ids; what is refused, with its place.

Implements `append` of design section 7 and the dtypes of section 5.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import neuralartifactdb as nadb
from neuralartifactdb.activations.targets import Key
from neuralartifactdb.errors import UnknownNameError
from neuralartifactdb.masks import batches
from neuralartifactdb.masks.batch import MISSING_BOX, CollectionMeta, MaskBatch
from neuralartifactdb.masks.batches import AppendArguments, InputLookup, batches_of
from neuralartifactdb.masks.boxes import stored_boxes

RNG = np.random.default_rng(7)
KEYS = {"cat.png": 4, "dog.png": 2, 17: 3}


def lookup(n_inputs: int | None = None) -> InputLookup:
    def id_of(key: Key) -> int:
        if key.value not in KEYS:
            raise UnknownNameError(f"no key {key.value!r}")
        return KEYS[key.value]

    return InputLookup(n_inputs, id_of)


def meta(dtype: str = "uint8", value_range: tuple[float, float] | None = None, nodata: Any = None) -> CollectionMeta:
    return CollectionMeta("id", dtype, value_range or CollectionMeta.default_range(dtype), nodata)


def turned(pixels: Any, collection: CollectionMeta | None = None, **given: Any) -> MaskBatch:
    """All batches as one."""
    if "input_id" not in given and "input_key" not in given and hasattr(pixels, "__len__") and not _are_items(pixels):
        given["input_id"] = np.arange(len(pixels))
    inputs = given.pop("inputs", lookup())
    found = list(batches_of(AppendArguments(pixels, **given), collection or meta(), inputs))
    return joined(found)


def _are_items(pixels: Any) -> bool:
    return len(pixels) > 0 and isinstance(pixels[0], dict)


def joined(found: list[MaskBatch]) -> MaskBatch:
    assert all(len(b.pixels) == len(b.input_ids) for b in found)
    return MaskBatch(
        [mask for b in found for mask in b.pixels],
        np.concatenate([b.input_ids for b in found]) if found else np.empty(0, np.int64),
        {name: np.concatenate([b.boxes[name] for b in found]) for name in (found[0].boxes if found else ())},
        {name: np.concatenate([b.attrs[name] for b in found]) for name in (found[0].attrs if found else ())},
    )


def same(got: list[NDArray[Any]], expected: Any, dtype: str) -> bool:
    return len(got) == len(expected) and all(
        mask.dtype == np.dtype(dtype)
        and mask.flags.c_contiguous
        and np.array_equal(mask, other, equal_nan=dtype[0] == "f")
        for mask, other in zip(got, expected, strict=True)
    )


# ---- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [np.asarray, torch.from_numpy, list, tuple, lambda a: [torch.from_numpy(m) for m in a]]
)
def test_every_form_of_pixels_gives_the_same_masks(form: Any) -> None:
    array = RNG.integers(0, 256, (5, 4, 7), dtype=np.uint8)
    assert same(turned(form(array)).pixels, array, "uint8")


def test_lists_hold_masks_of_different_sizes() -> None:
    masks = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((1, 1), (3, 9), (8, 2))]
    assert same(turned(masks).pixels, masks, "uint8")
    ragged = np.empty(3, object)
    ragged[:] = masks
    assert same(turned(ragged).pixels, masks, "uint8")


def test_iterators_of_dicts_give_batch_after_batch() -> None:
    masks = [RNG.integers(0, 256, (n, 3, 3), dtype=np.uint8) for n in (2, 1, 3)]

    def items() -> Iterator[dict[str, Any]]:
        for i, pixels in enumerate(masks):
            ids = [10 * i + j for j in range(len(pixels))]
            yield {"pixels": pixels, "input_id": ids, "attrs": {"i": i}, "boxes": {"b": [(0, 1, 2, 3)] * len(pixels)}}

    found = turned(items(), attrs={"model": "a"})
    assert same(found.pixels, np.concatenate(masks), "uint8")
    assert found.input_ids.tolist() == [0, 1, 10, 20, 21, 22]
    assert found.attrs["i"].tolist() == [0, 0, 1, 2, 2, 2]
    assert found.attrs["model"].tolist() == ["a"] * 6
    assert found.boxes["b"].tolist() == [[0, 1, 2, 3]] * 6
    assert same(turned(list(items())).pixels, np.concatenate(masks), "uint8")


def test_an_iterator_is_read_batch_by_batch() -> None:
    taken = itertools.count()

    def items() -> Iterator[dict[str, Any]]:
        for i in range(5):
            next(taken)
            yield {"pixels": np.zeros((1, 2, 2), np.uint8), "input_id": [i]}

    found = batches_of(AppendArguments(items()), meta(), lookup())
    next(found)
    assert next(taken) == 1


def test_large_arrays_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_BATCH_BYTES", 100)
    array = RNG.integers(0, 256, (23, 5, 4), dtype=np.uint8)
    found = list(
        batches_of(AppendArguments(array, input_id=np.arange(23), attrs={"a": np.arange(23)}), meta(), lookup())
    )
    assert [len(b.pixels) for b in found] == [5, 5, 5, 5, 3]
    both = joined(found)
    assert same(both.pixels, array, "uint8")
    assert both.attrs["a"].tolist() == both.input_ids.tolist() == list(range(23))
    of_list = list(batches_of(AppendArguments(list(array), input_id=np.arange(23)), meta(), lookup()))
    assert [len(b.pixels) for b in of_list] == [5, 5, 5, 5, 3]
    bad = array.astype(np.int64)
    bad[17, 2, 3] = 300
    with pytest.raises(ValueError, match=r"got 300 at mask 17, y 2, x 3"):
        turned(bad)


def test_datasets_in_files_are_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_BATCH_BYTES", 100)
    array = RNG.integers(0, 256, (23, 5, 4), dtype=np.uint8)

    class Dataset:
        shape, dtype, most = array.shape, array.dtype, 0

        def __len__(self) -> int:
            return len(array)

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise AssertionError("read whole")

        def __getitem__(self, which: slice) -> Any:
            self.most = max(self.most, len(array[which]))
            return array[which]

    dataset = Dataset()
    assert same(turned(dataset).pixels, array, "uint8")
    assert dataset.most == 5


def test_no_masks_give_no_batches() -> None:
    for nothing in (np.empty((0, 3, 3), np.uint8), []):
        assert list(batches_of(AppendArguments(nothing, input_id=[]), meta(), lookup())) == []


def test_memory_layout_does_not_matter() -> None:
    array = RNG.integers(0, 256, (6, 8, 5), dtype=np.uint8)
    assert same(turned(array[::2, ::-1, ::2]).pixels, array[::2, ::-1, ::2], "uint8")
    assert same(turned(array.transpose(0, 2, 1)).pixels, array.transpose(0, 2, 1), "uint8")
    big = array.astype(">u2")
    assert same(turned(big, meta("uint16")).pixels, array, "uint16")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("bool", "bool"),
        ("bool", "uint8"),
        ("bool", "float32"),
        ("uint8", "bool"),
        ("int64", "uint8"),
        ("int32", "uint16"),
        ("uint16", "uint8"),
        ("float16", "float32"),
        ("float16", "float16"),
        ("uint8", "float16"),
        ("uint16", "float32"),
    ],
)
def test_dtypes_that_lose_nothing_are_taken(source: str, target: str) -> None:
    array = RNG.integers(0, 2, (3, 4, 5)).astype(source)
    stored = "uint8" if target == "bool" else target
    assert same(turned(array, meta(target)).pixels, array.astype(stored), stored)


def test_bfloat16_is_widened() -> None:
    tensor = torch.rand(2, 3, 4, dtype=torch.float32).to(torch.bfloat16).requires_grad_(True)
    assert same(turned(tensor, meta("float32")).pixels, tensor.detach().float().numpy(), "float32")


@pytest.mark.parametrize(
    ("array", "target", "message"),
    [
        (np.zeros((1, 2, 2), np.float32), "uint8", r'float32.*uint8.*convert="scale"'),
        (np.zeros((1, 2, 2), np.float64), "bool", r"pixels >= 0\.5"),
        (np.zeros((1, 2, 2), np.float64), "float32", r"float64.*float32.*astype\(np\.float32\)"),
        (np.zeros((1, 2, 2), np.float32), "float16", r"float32.*float16.*astype"),
        (np.zeros((1, 2, 2), np.int64), "float32", r"int64.*float32.*astype"),
        (np.zeros((1, 2, 2), np.uint16), "float16", r"uint16.*float16"),
        (np.zeros((1, 2, 2), np.complex64), "float32", r"complex64"),
        (np.full((1, 2, 2), "a"), "uint8", r"<U1"),
        (np.ma.masked_array(np.zeros((1, 2, 2), np.uint8), mask=True), "uint8", r"masked.*filled.*nodata"),
        ([np.ma.masked_array(np.zeros((2, 2), np.uint8), mask=True)], "uint8", r"masked.*filled.*nodata"),
        ("mask.png", "uint8", r"got str"),
        (7, "uint8", r"got int"),
        ({"pixels": 1}, "uint8", r"got dict"),
        (iter([np.zeros((2, 2), np.uint8)]), "uint8", r"ndarray as item 0.*given as a list"),
        (None, "uint8", r"got NoneType"),
    ],
)
def test_wrong_dtypes_and_types_are_type_errors(array: Any, target: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        turned(array, meta(target), input_id=None if hasattr(array, "__next__") else [0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\); one mask is pixels\[None\]"),
        (np.zeros((2, 1, 4, 4), np.uint8), r"\(2, 1, 4, 4\); drop the channel axis"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"\(2, 3, 4, 4\)"),
        (torch.zeros(4, dtype=torch.uint8), r"\(4,\)"),
        ([np.zeros((4, 4), np.uint8), np.zeros(4, np.uint8)], r"\(4,\) at mask 1"),
        ([np.zeros((4, 4), np.uint8), np.zeros((0, 4), np.uint8)], r"at least one pixel.*\(0, 4\) at mask 1"),
        (np.zeros((2, 0, 4), np.uint8), r"at least one pixel"),
        ([[[1, 2], [3]]], r"2-D array"),
    ],
)
def test_wrong_shapes_are_value_errors(array: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        turned(array)


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("collection", "value"),
    [
        (meta("float32"), np.nan),
        (meta("float32"), np.inf),
        (meta("float32"), -np.inf),
        (meta("float32"), 1.0009765625),
        (meta("float16"), -0.5),
        (meta("uint8", (10, 20)), 9),
        (meta("uint8", (10, 20)), 21),
        (meta("uint16", (0, 300)), 301),
        (meta("bool"), 2),
        (meta("float32", nodata=-1.0), -2.0),
        (meta("float32", nodata=-1.0), np.nan),
    ],
)
def test_a_bad_pixel_is_named_with_mask_y_x_and_value(collection: CollectionMeta, value: float) -> None:
    array = np.full((6, 3, 4), collection.value_range[0]).astype(collection.stored_dtype)
    array[4, 2, 1] = value
    array[5, 0, 0] = value
    shown = repr(float(value)).replace("-", r"\-") if collection.dtype.startswith("float") else str(value)
    for form in (array, list(array)):
        with pytest.raises(ValueError, match=rf"got {shown} at mask 4, y 2, x 1"):
            turned(form, collection)


def test_wide_integers_are_not_wrapped() -> None:
    for dtype, value in (("int64", 256), ("int64", -1), ("uint16", 257), ("int8", -128), ("uint64", 2**63)):
        array = np.zeros((2, 2, 2), dtype)
        array[1, 0, 1] = value
        with pytest.raises(ValueError, match=rf"got {value} at mask 1, y 0, x 1"):
            turned(array)


def test_the_position_counts_over_items() -> None:
    items = [
        {"pixels": np.zeros((3, 2, 2), np.uint8), "input_id": [0, 1, 2]},
        {"pixels": np.full((2, 2, 2), 9, np.int32) * np.array([[[1]], [[100]]]), "input_id": [3, 4]},
    ]
    with pytest.raises(ValueError, match=r"got 900 at mask 4, y 0, x 0"):
        turned(items)


def test_nodata_is_taken_and_nothing_else() -> None:
    array = np.array([[[0.5, np.nan]]], np.float32)
    assert same(turned(array, meta("float32", nodata=float("nan"))).pixels, array, "float32")
    labels = np.array([[[3, 255]]], np.uint8)
    assert same(turned(labels, meta("uint8", (0, 20), 255)).pixels, labels, "uint8")
    with pytest.raises(ValueError, match=r"\[0, 20\] or be nodata, 255, got 254"):
        turned(labels - np.array([0, 1], np.uint8), meta("uint8", (0, 20), 255))


# ---- convert="scale" -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "span"), [("uint8", (0, 255)), ("uint8", (10, 30)), ("uint16", (0, 65535))])
def test_scale_maps_zero_to_one_onto_the_range(dtype: str, span: tuple[int, int]) -> None:
    maps = RNG.random((4, 6, 6)).astype(np.float32)
    maps[0, 0, :2] = 0, 1
    found = np.stack(turned(maps, meta(dtype, span), convert="scale").pixels)
    assert found.dtype == np.dtype(dtype)
    assert found[0, 0, :2].tolist() == list(span)
    exact = span[0] + maps.astype(np.float64) * (span[1] - span[0])
    assert np.abs(found - exact).max() <= 0.5
    integers = np.full((1, 2, 2), 20, np.uint8)
    assert same(turned(integers, meta(dtype, span), convert="scale").pixels, integers, dtype)


def test_scale_is_for_floats_in_zero_to_one_into_integers() -> None:
    maps = np.full((2, 2, 2), 0.5, np.float64)
    maps[1, 1, 0] = 1.25
    with pytest.raises(ValueError, match=r"got 1\.25 at mask 1, y 1, x 0"):
        turned(maps, convert="scale")
    maps[1, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"got nan at mask 1, y 1, x 0; give nodata="):
        turned(maps, convert="scale")
    assert turned(maps, meta("uint8", (0, 200), 255), convert="scale").pixels[1].tolist() == [[100, 100], [255, 100]]
    for dtype in ("bool", "float32"):
        with pytest.raises(ValueError, match=rf"the collection has dtype {dtype}"):
            turned(maps, meta(dtype), convert="scale")
    with pytest.raises(ValueError, match="'stretch'"):
        turned(maps, convert="stretch")
    item = {"pixels": np.ones((1, 1, 1), np.float32), "input_id": [0], "convert": "scale"}
    assert turned([item]).pixels[0].tolist() == [[255]]


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
