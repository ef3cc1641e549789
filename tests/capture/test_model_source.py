"""`ModelSource`: the same bits whatever is asked together; an error with its remedy for what cannot be captured."""

from __future__ import annotations

import gc

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
    pad_left,
    pad_right,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neuralartifactdb.activations.source import LayerInfo, Source
from neuralartifactdb.capture import Capture, ModelSource
from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError, UnknownNameError

RNG = np.random.default_rng(0)


def assert_reproducible(source, n):
    """Values of a build over ids in order equal those of queries in any company."""
    layers = list(source.layers)
    source.calibrate()
    assert all(source.tolerance(layer) is None for layer in layers)
    built = {layer: [] for layer in layers}
    for begin in range(0, n, source.build_batch):
        for layer, values in source.capture(layers, np.arange(begin, min(begin + source.build_batch, n))).items():
            built[layer].append(values)
    whole = {layer: np.concatenate(parts) for layer, parts in built.items()}
    for size in (1, 3, 17):
        ids = RNG.permutation(n)[: 2 * size]
        for part in (ids[:size], ids[size:]):
            for layer, values in source.evaluate(layers, part).items():
                assert values.flags.c_contiguous
                np.testing.assert_array_equal(values, whole[layer][part])
    return whole


def test_conv_net_equals_a_plain_forward_pass():
    net, data = conv_net(), images(90)
    source = ModelSource.open(net, data, ["0", "2", "5", "8", "0:input"], Capture(batch_size=32))
    assert isinstance(source, Source)
    assert source.layers == {
        "0": LayerInfo((4, 8, 8), "float32"),
        "2": LayerInfo((4, 8, 8), "float32"),
        "5": LayerInfo((8, 4, 4), "float32"),
        "8": LayerInfo((5,), "float32"),
        "0:input": LayerInfo((1, 8, 8), "float32"),
    }
    whole = assert_reproducible(source, 90)
    net.eval()
    with torch.no_grad():
        for begin in range(0, 64, 32):
            x = data[begin : begin + 32]
            np.testing.assert_array_equal(whole["0"][begin : begin + 32], net[0](x).flatten(1).numpy())
            np.testing.assert_array_equal(whole["5"][begin : begin + 32], net[:6](x).flatten(1).numpy())
            np.testing.assert_array_equal(whole["8"][begin : begin + 32], net(x).numpy())
    np.testing.assert_array_equal(whole["0:input"], data.flatten(1).numpy())
    assert whole["0"].min() < 0 <= whole["2"].min()  # the in-place ReLU after BatchNorm did not rewrite layer 0
    before = ModelSource.open(net, data, ["1"], Capture(batch_size=32)).capture(["1"], [0])["1"]
    assert before.min() < 0  # ... nor the BatchNorm that it works on


@pytest.mark.parametrize("collate", [pad_right, pad_left])
@pytest.mark.parametrize("how", ["max", "mean"])
def test_transformer_over_padded_batches(collate, how):
    torch.manual_seed(1)
    model, data = TextEncoder(), Sentences()
    capture = Capture(batch_size=16, collate_fn=collate, reduce=how)
    source = ModelSource.open(model, data, ["encoder.layers.*", "**.linear1"], capture)
    assert source.layers["encoder.layers.1"] == LayerInfo((32,), "float32")
    whole = assert_reproducible(source, 60)
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            for i in (0, 17, 59):
                tokens = data[i] if collate is pad_right else data[i].flip(0)
                alone = model(tokens[None])[0]
                expected = alone.amax(0) if how == "max" else alone.mean(0)
                np.testing.assert_allclose(whole["encoder.layers.1"][i], expected.numpy(), rtol=1e-4, atol=1e-5)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_lengths_beside_an_input_do_not_matter():
    model, data = TextEncoder(), Sentences()
    capture = Capture(batch_size=16, collate_fn=pad_right, reduce="mean")
    source = ModelSource.open(model, data, ["encoder.layers.1"], capture)
    assert source.fingerprint("encoder.layers.1")["build"] == {"batch": 16, "length_multiple": 16}
    again = ModelSource.open(model, data, ["encoder.layers.1"], capture, indexed=source.fingerprint("encoder.layers.1"))
    order = RNG.permutation(60)
    one, other = source.capture(["encoder.layers.1"], np.arange(60)), again.capture(["encoder.layers.1"], order)
    np.testing.assert_array_equal(one["encoder.layers.1"][order], other["encoder.layers.1"])


def test_hand_written_attention_with_tuples():
    model = Attention()
    data = Sentences(40, 12)
    capture = Capture(
        batch_size=8, collate_fn=pad_right, reduce={"block": "max", "block.qkv": ("mean", 1)}, output={"block": 0}
    )
    source = ModelSource.open(model, data, ["block", "block.qkv", "pool"], capture)
    assert {name: info.shape for name, info in source.layers.items()} == {
        "block": (16,),
        "block.qkv": (48,),
        "pool": (16,),
    }
    assert_reproducible(source, 40)
    maps = ModelSource.open(
        model, data, ["block"], Capture(batch_size=8, collate_fn=pad_right, output=1, reduce=lambda w: w[:, 0].amax(1))
    )
    assert maps.layers["block"].shape == (1,)
    assert maps.capture(["block"], [0, 1])["block"].shape == (2, 1)


def test_positions_choose_what_counts():
    model, data = Attention(), Sentences(20, 10)

    def first_only(batch):
        mask = torch.zeros_like(batch["attention_mask"])
        mask[:, 0] = 1
        return mask

    chosen = ModelSource.open(
        model, data, ["block.qkv"], Capture(collate_fn=pad_right, reduce="max", positions=first_only)
    )
    by_hand = ModelSource.open(model, data, ["block.qkv"], Capture(collate_fn=pad_right, reduce=lambda y: y[:, 0]))
    np.testing.assert_array_equal(
        chosen.capture(["block.qkv"], [3, 4])["block.qkv"], by_hand.capture(["block.qkv"], [3, 4])["block.qkv"]
    )
    everything = ModelSource.open(
        model,
        [torch.ones(5, dtype=torch.int64)] * 4,
        ["block.qkv"],
        Capture(collate_fn=pad_right, positions=lambda b: None),
    )
    assert everything.layers["block.qkv"].shape == (5, 48)


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


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float32, "float32"), (torch.float64, "float64")],
)
def test_model_dtypes(dtype, stored):
    net, data = Mlp(16).to(dtype), torch.randn(30, 4).to(dtype)
    source = ModelSource.open(net, data, ["first", "act"], Capture(batch_size=8, call=1))
    assert {info.dtype for info in source.layers.values()} == {stored}
    whole = assert_reproducible(source, 30)
    assert whole["first"].dtype == (np.float64 if stored == "float64" else np.float32)
    expected = net.first(data[:8]).detach()
    np.testing.assert_array_equal(whole["first"][:8], expected.double().numpy())


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_outputs(dtype):
    class Cast(nn.Module):
        def forward(self, x):
            return x.to(dtype)

    data = torch.randint(0, 2, (10, 3)).float()
    source = ModelSource.open(nn.Sequential(Cast()), data, ["0"])
    np.testing.assert_array_equal(source.capture(["0"], np.arange(10))["0"], data.numpy())
    if dtype == torch.int64:
        data = torch.full((10, 3), 2.0**60)
        with pytest.raises(InvalidValueError, match=r"2\*\*53"):
            ModelSource.open(nn.Sequential(Cast()), data, ["0"]).capture(["0"], [1])


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


def test_early_stop_runs_nothing_after_the_last_wanted_layer():
    runs = []
    net = Mlp()
    net.head.register_forward_hook(lambda *args: runs.append("head"))
    source = ModelSource.open(net, torch.randn(5, 4), ["second", "first"])
    runs.clear()
    source.evaluate(["first"], [0])
    source.capture(["first", "second"], [0])
    assert runs == []
    net.first._hf_hook = object()  # a wrapper that must see the end of the pass
    wrapped = ModelSource.open(net, torch.randn(5, 4), ["first"])
    runs.clear()
    wrapped.evaluate(["first"], [0])
    assert runs == ["head"]


def test_models_that_swallow_exceptions_still_stop():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Mlp()
            self.fell_back = False

        def forward(self, x):
            try:
                return self.inner(x)
            except Exception:
                self.fell_back = True
                return x

    model = Careful()
    ModelSource.open(model, torch.randn(5, 4), ["inner.first"]).evaluate(["inner.first"], [0])
    assert not model.fell_back


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


def test_ambient_modes_do_not_matter():
    net, data = conv_net(), images()
    expected = ModelSource.open(net, data, ["2"]).capture(["2"], [1, 2])["2"]
    for mode in (torch.inference_mode(), torch.enable_grad(), torch.device("meta")):
        with mode:
            source = ModelSource.open(net, data, ["2"])
            source.calibrate()
            source.fingerprint("2")
            np.testing.assert_array_equal(source.capture(["2"], [1, 2])["2"], expected)
    with torch.inference_mode():
        born = conv_net()
    source = ModelSource.open(born, data, ["2"])
    source.calibrate()
    assert source.fingerprint("2")["model"] == ModelSource.open(net, data, ["2"]).fingerprint("2")["model"]
    stored = ModelSource.open(net, data, ["0"]).fingerprint("0")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = ModelSource.open(net, data, ["0"])
        assert autocast.layers["0"].dtype == "bfloat16"
        assert any("autocast" in one.text for one in autocast.environment_differences("0", stored))


def test_long_runs_keep_no_tensors():
    source = ModelSource.open(conv_net(), images(), ["2", "5"])
    source.calibrate()
    for _ in range(2):
        source.capture(["2", "5"], np.arange(100))
    gc.collect()
    before = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
    for _ in range(20):
        source.capture(["2", "5"], np.arange(100))
        source.evaluate(["2"], np.arange(9))
    gc.collect()
    assert sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()) <= before


def test_a_batch_of_ids_and_mask_without_names():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = TextEncoder()

        def forward(self, ids, mask):
            return self.encoder(ids, mask)

    def collate(items):
        batch = pad_right(items)
        return batch["input_ids"], batch["attention_mask"]

    torch.manual_seed(1)
    capture = Capture(batch_size=16, collate_fn=collate, reduce="mean", positions=lambda batch: batch[1])
    source = ModelSource.open(Pair(), Sentences(), ["encoder.encoder.layers.1"], capture)
    assert source.fingerprint("encoder.encoder.layers.1")["build"]["length_multiple"] > 1
    assert_reproducible(source, 60)


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


def test_forward_tuples_and_loaders():
    net, x = Mlp(), torch.randn(20, 4)
    expected = net.first(x).detach().numpy()[:8]
    labelled = TensorDataset(x, torch.arange(20))
    for dataset, capture in (
        (labelled, Capture(batch_size=8)),
        (DataLoader(labelled, batch_size=8), Capture()),
        ([{"x": row, "label": 3} for row in x], Capture(batch_size=8)),
        ([{"image": row} for row in x], Capture(batch_size=8, forward=lambda model, batch: model(batch["image"]))),
        (list(x), Capture(batch_size=8, collate_fn=torch.stack)),
    ):
        source = ModelSource.open(net, dataset, ["first"], capture)
        assert source.build_batch == 8
        np.testing.assert_array_equal(source.capture(["first"], np.arange(8))["first"], expected)


def test_compiled_and_wrapped_models():
    net, x = conv_net(), images(20)
    expected = ModelSource.open(net, x, ["2"]).capture(["2"], np.arange(20))["2"]
    wrapped = ModelSource.open(nn.DataParallel(net), x, ["2", "module.5"])
    assert list(wrapped.layers) == ["2", "5"]
    np.testing.assert_array_equal(wrapped.capture(["2"], np.arange(20))["2"], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_models_run_eagerly():
    net, x = conv_net().eval(), images(20)
    expected = ModelSource.open(net, x, ["2"]).capture(["2"], np.arange(20))["2"]
    compiled = torch.compile(net, backend="eager")
    compiled(x[:4])  # compiled before any hook is there
    inner = nn.Sequential(torch.compile(net[0], backend="eager"), *net[1:]).eval()
    inner(x[:4])
    in_place = conv_net().eval()
    in_place.compile(backend="eager")
    in_place(x[:4])
    for model in (compiled, inner, in_place):
        source = ModelSource.open(model, x, ["0", "2"])
        assert list(source.layers) == ["0", "2"]
        np.testing.assert_array_equal(source.capture(["2"], np.arange(20))["2"], expected)
        assert source.evaluate(["0"], [3])["0"].shape == (1, 256)
    assert torch.compiler.is_compiling() is False


def test_batches_of_evaluate_and_rows_run():
    source = ModelSource.open(conv_net(), images(100), ["8"], Capture(batch_size=32))
    assert source.query_batches == (32,)  # before calibration: the build's shape alone
    before = source.rows_run
    source.evaluate(["8"], np.arange(33))
    assert source.rows_run - before == 64
    source.calibrate()
    least = source.query_batches[0]
    assert least < 32
    assert source.query_batches[-1] == 32
    assert source.unit in source.query_batches
    assert source.unit <= 16
    assert set(source.seconds_per_input) == set(source.query_batches)
    assert all(seconds > 0 for seconds in source.seconds_per_input.values())
    for n in (1, least, 37, 64, 65):
        before = source.rows_run
        values = source.evaluate(["8"], RNG.integers(0, 100, n))["8"]
        assert values.shape == (n, 5)
        assert source.rows_run - before == -(-n // least) * least
    before = source.rows_run
    source.capture(["8"], np.arange(33))
    assert source.rows_run - before == 64
    assert source.evaluate(["8"], np.empty(0, dtype=np.int64))["8"].shape == (0, 5)


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


def test_a_stored_batch_shape_shrinks_when_it_does_not_fit(caplog):
    net, data = nn.Sequential(nn.Linear(4, 1000), nn.Linear(1000, 1000)), torch.zeros(1000, 4)
    stored = ModelSource.open(net, data, ["0"], Capture(memory_limit="2MiB")).fingerprint("0")
    assert stored["build"]["batch"] == 64

    def batch(layers, limit):
        with caplog.at_level("INFO", "neuralartifactdb"):
            caplog.clear()
            return ModelSource.open(net, data, layers, Capture(memory_limit=limit), indexed=stored).build_batch

    assert batch(["0"], "2MiB") == 64
    assert caplog.text == ""
    assert batch(["0"], "1GiB") == 64
    assert caplog.text == ""
    assert batch(["0", "1"], "2MiB") == 32
    assert "built in batches of 64" in caplog.text
    assert "batches of 32" in caplog.text
    assert batch(["0"], "1MiB") == 32


def test_a_batch_size_that_yields_to_the_stored_one_is_told(caplog):
    net, data = nn.Linear(4, 3), torch.zeros(1000, 4)
    stored = ModelSource.open(net, data, [""], Capture(batch_size=16)).fingerprint("output")
    for asked, told in ((64, True), (16, False), (256, False)):
        with caplog.at_level("INFO", "neuralartifactdb"):
            caplog.clear()
            source = ModelSource.open(net, data, [""], Capture(batch_size=asked), indexed=stored)
        assert source.build_batch == 16
        assert ("batches of 16 inputs instead of 64" in caplog.text) == told, caplog.text
    few = ModelSource.open(net, data[:10], [""], Capture(batch_size=64))
    assert few.build_batch == 16
    with caplog.at_level("INFO", "neuralartifactdb"):
        caplog.clear()
        ModelSource.open(net, data[:10], [""], Capture(batch_size=64), indexed=few.fingerprint("output"))
    assert caplog.text == ""


def test_batches_shrink_to_the_memory_limit():
    net, data = nn.Sequential(nn.Linear(4, 1000)), torch.randn(300, 4)
    assert ModelSource.open(net, data, ["0"], Capture(memory_limit="1MiB")).build_batch == 32
    assert ModelSource.open(net, data, ["0"], Capture(memory_limit=1000)).build_batch == 1
    assert ModelSource.open(net, data, ["0"]).build_batch == 256
    assert ModelSource.open(net, data[:7], ["0"]).build_batch == 8


def test_new_inputs():
    data = images(30)
    net = conv_net()
    source = ModelSource.open(net, data, ["2"])
    source.calibrate()
    expected = source.evaluate(["2"], np.arange(10))["2"]
    np.testing.assert_array_equal(source.evaluate_items(["2"], list(data[:10]))["2"], expected)
    np.testing.assert_array_equal(source.evaluate_items(["2"], [data[3].numpy()])["2"], expected[3:4])
    text = ModelSource.open(
        TextEncoder(), Sentences(), ["encoder.layers.0"], Capture(collate_fn=pad_right, reduce="max", batch_size=8)
    )
    text.calibrate()
    np.testing.assert_array_equal(
        text.evaluate_items(["encoder.layers.0"], [Sentences()[5]])["encoder.layers.0"],
        text.evaluate(["encoder.layers.0"], [5])["encoder.layers.0"],
    )


def test_workers_give_the_same_values():
    net, data = conv_net(), list(images(40))
    expected = ModelSource.open(net, data, ["2"], Capture(batch_size=16)).capture(["2"], np.arange(40))["2"]
    with ModelSource.open(net, data, ["2"], Capture(batch_size=16, num_workers=1)) as source:
        chunks = [np.arange(b, min(b + 16, 40)) for b in range(0, 40, 16)]
        source.prefetch(chunks)
        found = np.concatenate([source.capture(["2"], chunk)["2"] for chunk in chunks])
    np.testing.assert_array_equal(found, expected)


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


@pytest.mark.cuda
def test_on_cuda_values_stay_on_the_device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net, data = conv_net().cuda(), images(90)
    source = ModelSource.open(net, data, ["2", "5"], Capture(batch_size=32))
    source.calibrate()
    values = source.capture(["2", "5"], np.arange(32))
    assert values["2"].is_cuda
    found = source.evaluate(["2", "5"], np.arange(32))
    for layer, rows in values.items():
        np.testing.assert_array_equal(found[layer], rows.cpu().numpy())
    edges = np.zeros((256, 3), dtype=np.float32)
    assert source.make_encoder("2", edges, 90, 64, 3) is not None


def test_spare_memory_is_used_again_and_nothing_else_is() -> None:
    net, data = conv_net(), images(100)
    source = ModelSource.open(net, data, ["2", "5"], Capture(batch_size=16))
    expected = source.capture(["2", "5"], np.arange(16, 32))
    spare = source.capture(["2", "5"], np.arange(16))
    again = source.capture(["2", "5"], np.arange(16, 32), spare)
    for layer in ("2", "5"):
        assert np.shares_memory(again[layer], spare[layer])
        np.testing.assert_array_equal(again[layer], expected[layer])
    shorter = source.capture(["2"], np.arange(3), again)["2"]  # does not fit
    assert not np.shares_memory(shorter, again["2"])
    np.testing.assert_array_equal(again["2"], expected["2"])
