"""`ModelSource`: an error with its remedy for what cannot be captured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from capture_models import (
    Attention,
    Batchless,
    Mlp,
    Output,
    Sentences,
    TextEncoder,
    conv_net,
    images,
    pad_right,
)
from torch import nn

from neuralartifactdb.capture import Capture, ModelSource
from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError, UnknownNameError


def test_an_input_without_positions_is_named():
    data = [torch.ones(3, dtype=torch.int64) for _ in range(20)]

    def collate(items):
        batch = pad_right([item[0] for item in items])
        for row, (_, empty) in enumerate(items):
            if empty:
                batch["attention_mask"][row] = 0
        return batch

    model = Attention()
    items = [(item, i == 13) for i, item in enumerate(data)]
    source = ModelSource.open(model, items[:13], ["block.qkv"], Capture(collate_fn=collate, reduce="max"))
    source.capture(["block.qkv"], np.arange(13))
    with pytest.raises(InvalidValueError, match=r"input \d has no valid position.*Capture.positions="):
        ModelSource.open(model, items[13:14] * 4, ["block.qkv"], Capture(collate_fn=collate, reduce="max"))
    whole = ModelSource.open(
        model, items[:13] * 20 + items, ["block.qkv"], Capture(collate_fn=collate, reduce="max", seed=4)
    )
    with pytest.raises(InvalidValueError, match="input 273 has no valid position"):
        whole.capture(["block.qkv"], [0, 273])


def test_modules_that_run_twice_need_call():
    net, data = Mlp(), torch.randn(12, 4)
    with pytest.raises(InvalidValueError, match=r"'act' runs 2 times.*Capture\(call=i\), i from 0 to 1"):
        ModelSource.open(net, data, ["act"])
    with torch.no_grad():
        first = net.act(net.first(data))
        second = net.act(net.second(first))
    for call, expected in ((0, first), (1, second), (-1, second)):
        source = ModelSource.open(net, data, ["act", "first"], Capture(call=call, batch_size=12))
        found = source.capture(["act", "first"], np.arange(12))
        np.testing.assert_array_equal(found["act"], expected.numpy())
        np.testing.assert_array_equal(found["first"], net.first(data).detach().numpy())
    with pytest.raises(InvalidValueError, match="call=2 but layer 'act' runs 2 times"):
        ModelSource.open(net, data, ["act"], Capture(call=2))


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (
            lambda x: x.transpose(0, 1),
            {},
            r"axis 0 of layer '0' does not follow the batch.*\[4, 2\] for 2 inputs.*output=lambda",
        ),
        (lambda x: x.reshape(len(x), 2, 2).transpose(0, 1), {}, r"does not follow the batch: \[2, 3, 2\] for 3 inputs"),
        (lambda x: x.sum(), {}, r"does not follow the batch: \[\] for 2"),
        (lambda x: (x, x), {}, "tuple of 2.*output=0"),
        (lambda x: Output(x, 1), {}, "Output.*output='name'"),
        (lambda x: x[:, :0], {}, "no neurons"),
        (lambda x: x[:, : 2 + len(x) % 2], {}, r"varies between batches.*\[2\] and \[3\].*reduce=\"max\""),
        (lambda x: x, {"reduce": lambda y: y.mean()}, r"must keep axis 0, the batch: got \[\]"),
        (lambda x: x, {"reduce": lambda y: y[:, : 2 + len(y) % 2]}, "must return one shape for all batches"),
        (lambda x: x[:, :, None, None, None], {"reduce": "max"}, r"\[2, 4, 1, 1, 1\].*give the axes"),
        (lambda x: x.to(torch.complex64), {}, "complex64"),
    ],
)
def test_outputs_that_cannot_be_indexed(function, options, words):
    with pytest.raises((InvalidValueError, DtypeError), match=words):
        ModelSource.open(nn.Sequential(Layer(function)), torch.randn(9, 4), ["0"], Capture(**options))


def test_outputs_that_vary_later_are_found_then():
    model = nn.Sequential(Layer(lambda x: x[:, : 3 if float(x[0, 0]) < 0.5 else 4]))
    data = torch.zeros(1000, 4)
    data[999] = 1
    source = ModelSource.open(model, data, ["0"])
    with pytest.raises(InvalidValueError, match=r"gave \[256, 4\] for inputs 999, expected \[256, 3\].*reduce="):
        source.capture(["0"], [999])


def test_what_cannot_be_hooked():
    with pytest.raises(UnknownNameError, match="near names: first"):
        ModelSource.open(Mlp(), torch.randn(5, 4), ["frist"])
    with pytest.raises(
        InvalidValueError, match=r"never called 'layers' .ModuleList.*'encoder'|never called 'encoder.layers'"
    ):
        ModelSource.open(TextEncoder(), Sentences(), ["encoder.layers"], Capture(collate_fn=pad_right))
    with pytest.raises(DtypeError, match=r"must be a torch.nn.Module, got function.*index_function"):
        ModelSource.open(lambda x: x, torch.randn(5, 4), ["a"])
    with pytest.raises(DtypeError, match="capture must be a Capture, got dict"):
        ModelSource.open(Mlp(), torch.randn(5, 4), ["first"], {})
    with pytest.raises(InvalidValueError, match="'weight' is not initialised"):
        ModelSource.open(nn.LazyLinear(3), torch.randn(5, 4), ["output"])
    with pytest.raises(InvalidValueError, match=r"float64.*weights torch.float32: convert the dataset to float32"):
        ModelSource.open(Mlp(), np.zeros((5, 4)), ["first"])
    with pytest.raises(InvalidValueError, match=r"mask of positions.*reduce=\"max\"\).*positions=lambda batch: None"):
        ModelSource.open(TextEncoder(), Sentences(), ["encoder.layers.0"], Capture(collate_fn=pad_right))
    with pytest.raises(InvalidValueError, match=r"requires attention_mask.*entries are input_ids, ids"):
        ModelSource.open(
            Attention(), {"input_ids": torch.ones(5, 4, dtype=torch.int64), "ids": torch.arange(5)}, ["block"]
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_are_refused():
    scripted = torch.jit.script(conv_net().eval())
    with pytest.raises(
        InvalidValueError, match=r"'2' is a RecursiveScriptModule, which takes no hooks.*before torch.jit"
    ):
        ModelSource.open(scripted, images(), ["2"])
    traced = torch.jit.trace(conv_net().eval(), images(4))
    with pytest.raises(InvalidValueError, match=r"never called '2'"):
        ModelSource.open(traced, images(), ["2"])


def test_experts_without_inputs_are_found_when_it_happens():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 2)

        def forward(self, x):
            return self.one(x) if float(x.sum()) >= 0 else x[:, :2]

    data = torch.ones(1000, 4)
    data[999] = -1
    source = ModelSource.open(Experts(), data, ["one"])
    with pytest.raises(InvalidValueError, match="over inputs 999 never called 'one'"):
        source.capture(["one"], [999])


def test_wrong_ids_and_layers():
    source = ModelSource.open(Mlp(), torch.randn(5, 4), ["first"])
    for ids in ([5], [0, -1]):
        with pytest.raises(IdError, match=r"\[0, 5\), got"):
            source.evaluate(["first"], ids)
    with pytest.raises(DtypeError, match="1-D array of integers"):
        source.evaluate(["first"], [0.5])
    with pytest.raises(UnknownNameError, match="no layer 'second'; its layers are first"):
        source.capture(["second"], [0])
    with pytest.raises(DtypeError, match="got the str 'first'"):
        source.evaluate("first", [0])


def test_dependence_on_batch_mates_is_refused():
    source = ModelSource.open(Batchless(), torch.randn(50, 4), ["norm"])
    with pytest.raises(
        InvalidValueError, match=r"'norm' depend on what else is in the batch.*track_running_stats=False"
    ):
        source.calibrate()
    alone = ModelSource.open(nn.LayerNorm(4), torch.randn(50, 4), ["output"])
    alone.calibrate()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dynamic_quantisation_is_refused():
    quantised = pytest.importorskip("torch.ao.quantization")
    model = quantised.quantize_dynamic(Mlp(64), {nn.Linear}, dtype=torch.qint8)
    source = ModelSource.open(model, torch.randn(50, 4) * torch.logspace(-2, 2, 50)[:, None], ["first"])
    with pytest.raises(InvalidValueError, match="dynamic quantisation"):
        source.calibrate()


def test_random_models_and_datasets_are_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, 0.5, training=True)

    source = ModelSource.open(nn.Sequential(Noisy()), torch.randn(50, 4), ["0"])
    with pytest.raises(InvalidValueError, match="dropout that ignores eval"):
        source.calibrate()

    class Augmented(list):
        def __getitem__(self, index):
            return super().__getitem__(index) + torch.rand(1)

    with pytest.raises(InvalidValueError, match=r"reads differently each time .random augmentation"):
        ModelSource.open(Mlp(), Augmented(torch.randn(50, 4)), ["first"])
