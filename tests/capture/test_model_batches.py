"""`ModelSource`: in which batches inputs are run, how far, and what is kept of them."""

from __future__ import annotations

import gc

import numpy as np
import torch
from capture_models import (
    Mlp,
    conv_net,
    images,
)
from torch import nn

from neuralartifactdb.capture import Capture, ModelSource

RNG = np.random.default_rng(0)


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


def test_workers_give_the_same_values():
    net, data = conv_net(), list(images(40))
    expected = ModelSource.open(net, data, ["2"], Capture(batch_size=16)).capture(["2"], np.arange(40))["2"]
    with ModelSource.open(net, data, ["2"], Capture(batch_size=16, num_workers=1)) as source:
        chunks = [np.arange(b, min(b + 16, 40)) for b in range(0, 40, 16)]
        source.prefetch(chunks)
        found = np.concatenate([source.capture(["2"], chunk)["2"] for chunk in chunks])
    np.testing.assert_array_equal(found, expected)


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
