"""Pixels given to `append`: every form of them, dtypes, ranges, nodata, and the scale of floats into integers.

Implements `append` of design section 7 and the dtypes of section 5.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from append_cases import RNG, joined, lookup, meta, same, turned

from neuralartifactdb.masks import batches
from neuralartifactdb.masks.batch import CollectionMeta
from neuralartifactdb.masks.batches import AppendArguments, batches_of

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
