"""`ModelSource`: the values of a plain forward pass, the same bits whatever is asked together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from capture_models import (
    Attention,
    Mlp,
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
from neuralartifactdb.errors import InvalidValueError

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
