"""New inputs that a model cannot take: the error says what was given, what the dataset gives, and what to do.

Implements "`input=x` = a new input" of design section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from capture_models import Attention, Sentences, assert_undisturbed, pad_right, snapshot
from torch import nn

from neuralartifactdb.capture import Capture, ModelSource


def stacked(items: list[Any]) -> torch.Tensor:
    return torch.stack(items)


def source_of(data: Any, capture: Capture | None = None, net: nn.Module | None = None) -> ModelSource:
    source = ModelSource.open(net or nn.Sequential(nn.Linear(4, 3)), data, ["0"], capture)
    source.calibrate()
    return source


DATA = torch.rand(20, 4) + 1
PAIRS = [(row, i) for i, row in enumerate(DATA)]
NAMED = {"input": DATA, "label": torch.arange(20)}

WRONG: dict[str, tuple[Any, Callable[[], ModelSource], type[Exception], list[str]]] = {
    "too long": (torch.zeros(5), lambda: source_of(DATA), ValueError, ["shape [4]", "got float32 of shape [5]"]),
    "a batch": (DATA[:1], lambda: source_of(DATA), ValueError,
                ["shape [4]", "of shape [1, 4]", "without a batch axis"]),
    "float64": (np.zeros(4), lambda: source_of(DATA), TypeError, ["float32 of shape [4]", "float64 array[4]"]),
    "integers": (torch.zeros(4, dtype=torch.uint8), lambda: source_of(DATA), TypeError, ["got uint8", "to float32"]),
    "text": ("hello", lambda: source_of(DATA), TypeError, ["float32 of shape [4]", "got str", "dataset[0]"]),
    "a list": ([1.0, 2.0, 3.0, 4.0], lambda: source_of(DATA), TypeError, ["shape [4]", "list of 4"]),
    "an object": (object(), lambda: source_of(DATA), TypeError, ["float32 of shape [4]", "got object"]),
    "of a list": (torch.zeros(3), lambda: source_of(list(DATA)), ValueError, ["shape [4]", "of shape [3]"]),
    "of pairs": ((torch.zeros(3), 1), lambda: source_of(PAIRS), ValueError,
                 ["shape [4]", "tuple of 2 (float32[3], int)"]),
    "no entry": ({"labels": 3}, lambda: source_of(NAMED), TypeError, ["float32 of shape [4]", "dict {'labels': int}"]),
    "collated": (torch.zeros(3), lambda: source_of(list(DATA), Capture(collate_fn=stacked)), ValueError,
                 ["float32 of shape [4]", "got float32[3]", "RuntimeError", "mat1 and mat2"]),
    "not collated": ("hello", lambda: source_of(list(DATA), Capture(collate_fn=stacked)), TypeError,
                     ["float32 of shape [4]", "got str", "TypeError"]),
    "masked": (torch.zeros(2, 4), lambda: source_of(
        torch.ones(20, 5, 4), Capture(positions=lambda batch: batch[:, :, 0] > 0, reduce="max")
    ), ValueError, ["shape [5, 4]", "shape [2, 4]"]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_new_input_that_the_model_cannot_take(what: str) -> None:
    item, open_source, error, words = WRONG[what]
    source = open_source()
    model = source._runner.model
    before = snapshot(model)
    for _ in range(2):
        with pytest.raises(error) as caught:
            source.evaluate_items(["0"], [item])
        text = str(caught.value)
        assert text.startswith("input= must be what the dataset gives for one input")
        for word in words:
            assert word in text
        assert_undisturbed(before, model)


@pytest.mark.parametrize("data", [DATA, list(DATA), PAIRS, NAMED, DATA.numpy()])
def test_whatever_gives_the_model_the_same_is_taken(data: Any) -> None:
    source = source_of(data)
    expected = source.evaluate(["0"], [7])["0"]
    for item in (DATA[7], DATA[7].numpy(), (DATA[7], 3), {"input": DATA[7]}, (DATA[7].numpy(),)):
        np.testing.assert_array_equal(source.evaluate_items(["0"], [item])["0"], expected)
    items = [DATA[i] for i in range(20)]
    np.testing.assert_array_equal(source.evaluate_items(["0"], items)["0"], source.evaluate(["0"], np.arange(20))["0"])


def test_one_wrong_input_of_many_is_named() -> None:
    source = source_of(DATA)
    with pytest.raises(ValueError, match=r"got float32 of shape \[9\]"):
        source.evaluate_items(["0"], [*DATA, torch.zeros(9)])


def test_inputs_of_any_length_may_be_new_ones() -> None:
    torch.manual_seed(0)
    capture = Capture(collate_fn=pad_right, reduce="max", output=0, batch_size=8)
    source = ModelSource.open(Attention(), Sentences(), ["block"], capture)
    source.calibrate()
    assert source.evaluate_items(["block"], [torch.arange(1, 49)])["block"].shape == (1, 16)
    with pytest.raises(ValueError, match=r"int64 of shape \[\d+\].*got int64\[2\], which failed: IndexError"):
        source.evaluate_items(["block"], [torch.tensor([1, 99])])


def test_inputs_of_unequal_size_run_one_by_one() -> None:
    images = [torch.rand(1, 8 + i % 3, 8) for i in range(10)]
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1))
    source = ModelSource.open(net, images, ["1"], Capture(batch_size=1))
    source.calibrate()
    np.testing.assert_array_equal(source.evaluate_items(["1"], [images[4]])["1"], source.evaluate(["1"], [4])["1"])
    with pytest.raises(ValueError, match=r"shape \[1, 8, 8\]; got float32 of shape \[8, 8\]"):
        source.evaluate_items(["1"], [torch.rand(8, 8)])
