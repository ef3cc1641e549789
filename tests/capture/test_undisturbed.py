"""A model and its process are as before after every call, whether it succeeds, fails or is interrupted."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from capture_models import Mlp, Sentences, TextEncoder, assert_undisturbed, conv_net, images, pad_right, snapshot
from torch import nn

from neuralartifactdb.capture import Capture, ModelSource
from neuralartifactdb.capture.hooks import ForwardPass
from neuralartifactdb.capture.layers import resolve_layers
from neuralartifactdb.capture.model_state import interrupts_deferred, model_device, one_at_a_time, quiet
from neuralartifactdb.errors import InvalidValueError

LAYERS = ["0", "2", "5"]


@pytest.fixture
def net():
    model = conv_net()
    model[1].eval()  # a frozen BatchNorm among training modules
    model[3].register_forward_hook(lambda module, args, output: None)
    return model


def test_every_public_call_leaves_no_trace(net):
    torch.manual_seed(3)
    torch.rand(5)
    before = snapshot(net)
    with ModelSource.open(net, images(), LAYERS) as source:
        assert_undisturbed(before, net)
        for call in (
            source.calibrate,
            lambda: source.capture(LAYERS, np.arange(50)),
            lambda: source.evaluate(["2"], [3, 4, 5]),
            lambda: source.evaluate_items(["2"], [images()[0]]),
            lambda: source.fingerprint("2"),
            lambda: source.prefetch([[1, 2]]),
        ):
            call()
            assert_undisturbed(before, net)
    assert_undisturbed(before, net)


def test_transformers_and_the_fused_path():
    model = TextEncoder().train()
    before = snapshot(model)
    assert before["fastpath"]
    source = ModelSource.open(
        model, Sentences(), ["encoder.layers.*"], Capture(collate_fn=pad_right, reduce="max", batch_size=8)
    )
    source.calibrate()
    source.evaluate(["encoder.layers.0"], [1, 2])
    assert_undisturbed(before, model)


class Trap(nn.Module):
    """Raises when armed, from the middle of a forward pass."""

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.armed = False

    def forward(self, x):
        if self.armed:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                raise self.error
        return x


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(3), None])
def test_failures_and_interrupts_leave_no_trace(error):
    model = nn.Sequential(conv_net()[:3], Trap(error), nn.Conv2d(4, 2, 3))
    source = ModelSource.open(model, images(), ["0.0", "2"])
    source.calibrate()
    before = snapshot(model)
    model[1].armed = True
    for call in (lambda: source.capture(["0.0", "2"], [1]), lambda: source.evaluate(["2"], [1]), source.calibrate):
        with pytest.raises(KeyboardInterrupt if error is None else type(error)) as caught:
            call()
        assert_undisturbed(before, model)
        if isinstance(error, RuntimeError):
            assert "running the model on inputs" in caught.value.__notes__[0]
    model[1].armed = False
    assert source.evaluate(["2"], [1])["2"].shape == (1, 2 * 6 * 6)


@pytest.mark.parametrize("error", [OSError("no file"), KeyboardInterrupt()])
def test_a_dataset_that_fails_leaves_no_trace(net, error):
    class Data(list):
        armed = False

        def __getitem__(self, index):
            random.random()
            np.random.random()  # noqa: NPY002
            torch.rand(1)
            if self.armed:
                raise error
            return super().__getitem__(index)

    data = Data(images())
    source = ModelSource.open(net, data, LAYERS)
    before = snapshot(net)
    data.armed = True
    for call in (
        lambda: source.capture(LAYERS, [1]),
        lambda: source.evaluate(LAYERS, [1]),
        lambda: source.input_hashes([50]),
        source.calibrate,
    ):
        with pytest.raises(type(error)):
            call()
        assert_undisturbed(before, net)


def test_a_failed_probe_leaves_no_trace(net):
    before = snapshot(net)
    with pytest.raises(InvalidValueError, match="did not run on a batch"):
        ModelSource.open(net, torch.zeros(5, 3), LAYERS)
    assert_undisturbed(before, net)
    model = TextEncoder().train()
    before = snapshot(model)
    with pytest.raises(InvalidValueError, match="never called"):
        ModelSource.open(
            model, Sentences(), ["encoder.layers.0.self_attn.out_proj"], Capture(collate_fn=pad_right, reduce="max")
        )
    assert_undisturbed(before, model)


def test_written_buffers_are_put_back():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            return x

    model = nn.Sequential(Counter(), nn.Linear(2, 2))
    with pytest.raises(InvalidValueError, match=r"writes into its buffer '0.seen'"):
        ModelSource.open(model, torch.zeros(5, 2), ["1"])
    assert model[0].seen == 0


def test_training_goes_on_after_a_capture(net):
    """Tensors made under inference_mode could not be used in a training step."""

    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.table = None

        def forward(self, x):
            if self.table is None:
                self.table = torch.arange(2.0) + 1
            return self.linear(x) * self.table

    model = Caching()
    ModelSource.open(model, torch.ones(5, 2), ["linear"]).evaluate(["linear"], [1])
    model(torch.ones(1, 2)).sum().backward()
    assert model.linear.weight.grad is not None


def test_nothing_is_kept_alive():
    model, data = Mlp(), torch.randn(20, 4)
    source = ModelSource.open(model, data, ["first"])
    source.calibrate()
    values = source.capture(["first"], np.arange(20))["first"]
    expected = values.copy()
    dead = [weakref.ref(source), weakref.ref(model)]
    del source, model
    gc.collect()
    assert [ref() for ref in dead] == [None, None]
    assert np.array_equal(values, expected)  # they own their memory


def test_captured_arrays_do_not_share_memory():
    source = ModelSource.open(Mlp(), torch.randn(20, 4), ["first", "second"])
    first = source.capture(["first", "second"], np.arange(5))
    again = source.capture(["first", "second"], np.arange(5, 10))
    arrays = [*first.values(), *again.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_an_interrupt_waits_until_the_state_is_restored():
    steps = []

    def work():
        with interrupts_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("still here")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["still here"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait():
    steps = []

    def work():
        with interrupts_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("the second interrupt waited")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Sleepy(nn.Module):
    """Takes its time, and is interrupted at its third batch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.n_passes = 0
        self.interrupt_at = -1

    def forward(self, x):
        time.sleep(0.02 if self.interrupt_at >= 0 else 0)
        self.n_passes += 1
        if self.n_passes == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return self.head(x)


@pytest.mark.parametrize("call", ["evaluate", "capture", "evaluate_items"])
def test_an_interrupt_waits_for_one_batch_at_most(call):
    model, data = Sleepy(), torch.randn(200, 4)
    source = ModelSource.open(model, data, ["head"], Capture(batch_size=1))
    before = snapshot(model)
    model.n_passes, model.interrupt_at = 0, 3
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        getattr(source, call)(["head"], list(data) if call == "evaluate_items" else np.arange(200))
    assert model.n_passes == 3
    assert time.perf_counter() - began < 2  # 4 s without
    assert_undisturbed(before, model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.interrupt_at = -1
    assert source.evaluate(["head"], [1])["head"].shape == (1, 3)


def test_a_handler_that_returns_lets_the_call_go_on():
    model, data = Sleepy(), torch.randn(10, 4)
    source = ModelSource.open(model, data, ["head"], Capture(batch_size=1))
    expected = source.evaluate(["head"], np.arange(10))["head"]
    model.n_passes, model.interrupt_at, seen = 0, 3, []
    previous = signal.signal(signal.SIGINT, lambda *_: seen.append((model.n_passes, torch.is_grad_enabled())))
    try:
        found = source.evaluate(["head"], np.arange(10))["head"]
        given = source.evaluate_items(["head"], list(data))["head"]
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [(3, True)]  # the state was restored before it was called
    assert np.array_equal(found, expected)
    assert np.array_equal(given, expected)


def test_other_threads_and_handlers_are_left_alone():
    def ignore(number, frame):
        return None

    previous = signal.signal(signal.SIGINT, ignore)
    try:
        with interrupts_deferred():
            pass
        assert signal.getsignal(signal.SIGINT) is ignore
    finally:
        signal.signal(signal.SIGINT, previous)
    found = []

    def work():
        with interrupts_deferred():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_two_threads_may_query_one_source(net):
    source = ModelSource.open(net, images(), LAYERS)
    expected = source.evaluate(["2"], np.arange(100))["2"]
    before = snapshot(net)
    results: dict[int, np.ndarray] = {}

    def work(number):
        for _ in range(3):
            results[number] = source.evaluate(["2"], np.arange(100))["2"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found, expected) for found in results.values())
    assert len(results) == 3
    assert_undisturbed(before, net)


def in_threads(*works):
    """Run all at once; the errors that they raised."""
    errors = []
    start = threading.Barrier(len(works))

    def run(work):
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_threads_may_query_several_sources_over_one_model():
    model, data = conv_net(), images()
    sources = [ModelSource.open(model, data, layers, Capture(batch_size=16)) for layers in (LAYERS, ["8", "2"])]
    for source in sources:
        source.calibrate()
    expected = {layer: source.evaluate([layer], np.arange(100))[layer] for source in sources for layer in source.layers}
    before = snapshot(model)
    wrong = []

    def work(source, layer, seed):
        rng = np.random.default_rng(seed)
        for _ in range(15):
            ids = rng.permutation(100)[:20]
            if not np.array_equal(source.evaluate([layer], ids)[layer], expected[layer][ids]):
                wrong.append(layer)
            source.environment_differences(layer, {})

    assert in_threads(
        lambda: work(sources[0], "0", 0), lambda: work(sources[1], "8", 1), lambda: work(sources[0], "5", 2)
    ) == []  # fmt: skip
    assert wrong == []
    assert_undisturbed(before, model)
    hooks = [source.fingerprint(next(iter(source.layers)))["environment"]["hooks"] for source in sources]
    assert hooks == [[], []]


def test_two_models_in_two_threads_leave_the_process_as_it_was():
    class Slow(Mlp):
        def forward(self, x):
            time.sleep(0.002)
            return super().forward(x)

    nets = [Slow().train(), Slow().train()]
    sources = [ModelSource.open(net, torch.randn(20, 4), ["first"], Capture(batch_size=4)) for net in nets]
    before = [snapshot(net) for net in nets]

    def work(source, pause):
        for _ in range(6):
            source.evaluate(["first"], np.arange(7))
            time.sleep(pause)
            source.prefetch([[1]])

    assert in_threads(lambda: work(sources[0], 0.001), lambda: work(sources[1], 0.003)) == []
    assert torch.backends.mha.get_fastpath_enabled()
    for net, one in zip(nets, before, strict=True):
        assert_undisturbed(one, net)


def test_a_hook_sees_its_own_threads_pass_only():
    net = Mlp()
    target = resolve_layers(net, ["first"])[0]
    seen = []
    passing = ForwardPass([target], lambda name, value: seen.append(value))

    def forward():
        assert in_threads(lambda: net(torch.ones(3, 4))) == []  # the user's own pass, not stopped by ours
        assert seen == []
        net(torch.ones(2, 4))

    passing.run(forward)
    assert [len(value) for value in seen] == [2]
    assert passing.counts == {"first": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_beside_a_running_model_does_not_wait_for_it():
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with one_at_a_time():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        with one_at_a_time():
            os._exit(0)
    _, status = os.waitpid(child, 0)
    leave.set()
    thread.join()
    assert status == 0


def test_devices():
    net = Mlp()
    assert model_device(net, None) == torch.device("cpu")
    assert model_device(net, "cpu") == torch.device("cpu")
    assert model_device(nn.ReLU(), None) == torch.device("cpu")
    with pytest.raises(InvalidValueError, match=r"'cuda:0' but the model is on cpu.*model.to\('cuda:0'\)"):
        model_device(net, "cuda:0")


def test_quiet_turns_everything_off_and_on(net):
    before = snapshot(net)
    with quiet(net, torch.device("cpu")):
        assert not any(module.training for module in net.modules())
        assert not torch.is_grad_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
        torch.rand(3)
    assert_undisturbed(before, net)
