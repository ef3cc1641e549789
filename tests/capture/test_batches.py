"""Arguments by the forward's signature, valid positions, and longer padding."""

from __future__ import annotations

from collections import UserDict, namedtuple

import pytest
import torch
from capture_models import pad_left, pad_right
from torch import nn

from neuralartifactdb.capture.batches import (
    learn_length_rule,
    map_tensors,
    model_arguments,
    to_device,
    valid_positions,
)
from neuralartifactdb.errors import InvalidValueError

X, Y = torch.zeros(2, 3), torch.ones(2, 3)


def net(forward):
    return type("Net", (nn.Module,), {"forward": forward})()


def arguments(forward, batch):
    found = model_arguments(net(forward), batch)
    return found.args, found.kwargs


def test_tensors_and_tuples():
    assert arguments(lambda self, x: x, X) == ((X,), {})
    assert arguments(lambda self, x: x, (X, Y)) == ((X,), {})
    assert arguments(lambda self, x, mask=None: x, [X, Y]) == ((X,), {})
    assert arguments(lambda self, x, y: x, (X, Y)) == ((X, Y), {})
    assert arguments(lambda self, *xs: xs, (X, Y)) == ((X,), {})
    with pytest.raises(InvalidValueError, match=r"requires 2 arguments \(x, y\).*tuple of 1.*Capture\(forward="):
        arguments(lambda self, x, y: x, (X,))


def test_dicts_by_signature():
    batch = {"x": X, "y": Y, "label": [1, 2]}
    assert arguments(lambda self, x: x, batch) == ((), {"x": X})
    assert arguments(lambda self, x, y=None: x, batch) == ((), {"x": X, "y": Y})
    assert arguments(lambda self, x, **more: x, batch) == ((), {"x": X})
    assert arguments(lambda self, **more: more, batch) == ((), {"x": X, "y": Y})
    assert arguments(lambda self, x: x, (batch, Y)) == ((), {"x": X})
    assert arguments(lambda self, x, *, y: x, batch) == ((), {"x": X, "y": Y})
    ((whole,), nothing) = arguments(lambda self, batch: batch, batch)
    assert whole == batch
    assert whole is not batch
    assert nothing == {}
    with pytest.raises(
        InvalidValueError, match="requires z, which the batch does not have; its entries are x, y, label"
    ):
        arguments(lambda self, x, z: x, batch)


def test_containers_are_copied_and_keep_their_type():
    pair = namedtuple("pair", "a b")
    batch = {"x": pair(X, "text"), "y": [Y, (Y, 3)], "u": UserDict(k=X)}
    doubled = map_tensors(batch, lambda t: t + 1)
    assert isinstance(doubled["x"], pair)
    assert isinstance(doubled["u"], UserDict)
    assert doubled["x"].b == "text"
    assert doubled["y"][1][1] == 3
    assert torch.equal(doubled["u"]["k"], X + 1)
    assert batch["x"].a is X
    moved = to_device(batch, torch.device("cpu"))
    assert moved is not batch
    assert moved["y"][0] is Y


def test_valid_positions():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = mask != 0
    assert torch.equal(valid_positions({"attention_mask": mask}, None, 2), expected)
    assert torch.equal(valid_positions(({"attention_mask": mask}, Y), None, 2), expected)
    assert torch.equal(valid_positions({"src_key_padding_mask": ~expected}, None, 2), expected)
    assert valid_positions({"x": X}, None, 2) is None
    assert valid_positions(X, None, 2) is None
    assert valid_positions({"attention_mask": mask}, lambda batch: None, 2) is None
    assert torch.equal(valid_positions(X, lambda batch: mask.numpy() > 0, 2), expected)
    with pytest.raises(InvalidValueError, match=r"attention_mask must be bool\[2, T\].*\[2, 1, 3\]"):
        valid_positions({"attention_mask": mask[:, None]}, None, 2)
    with pytest.raises(InvalidValueError, match=r"Capture.positions must be bool\[3, T\]"):
        valid_positions(X, lambda batch: mask, 3)


@pytest.mark.parametrize("collate", [pad_right, pad_left])
def test_lengthening_equals_padding_further(collate):
    items = [torch.arange(1, 4), torch.arange(1, 6), torch.arange(1, 9)]
    short, long = collate(items[:1]), collate(items[1:])
    masks = [valid_positions(batch, None, n) for batch, n in ((short, 1), (long, 2))]
    rule = learn_length_rule(short, masks[0], long, masks[1])
    longer = rule.lengthen(short, 3, 8)
    expected = collate([items[0], items[2]])
    assert torch.equal(longer["input_ids"], expected["input_ids"][:1])
    assert torch.equal(longer["attention_mask"], expected["attention_mask"][:1])
    assert longer.get("text") == short.get("text")
    assert short["input_ids"].shape == (1, 3)
    assert rule.lengthen(long, 8, 8) is long


def test_a_length_rule_is_learned_only_where_it_is_certain():
    def learn(short, long):
        return learn_length_rule(short, valid_positions(short, None, 1), long, valid_positions(long, None, 2))

    one, two = pad_right([torch.arange(1, 3)]), pad_right([torch.arange(1, 6), torch.arange(1, 3)])
    assert learn(one, two) is not None
    assert learn(one, pad_right([torch.arange(1, 6), torch.arange(1, 6)])) is None  # no padding to learn from
    assert learn(pad_right([torch.arange(1, 6)]), two) is None  # no two lengths
    mixed = {**two, "input_ids": two["input_ids"] + torch.arange(5)}
    assert learn(one, mixed) is None  # padding of several values
    fixed = {"x": torch.zeros(1, 5), "attention_mask": one["attention_mask"]}
    rule = learn(fixed, {"x": torch.zeros(2, 5), "attention_mask": two["attention_mask"]})
    assert set(rule.fills) == {("attention_mask",)}  # x is 5 wide in both: features, not positions
