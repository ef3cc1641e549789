"""Fingerprints: every change that matters is named, nothing else is; probes; calibrations that are taken over."""

from __future__ import annotations

import copy
import functools
import json
import time

import numpy as np
import pytest
import torch
from capture_models import Mlp, conv_net, images
from PIL import Image
from torch import nn

from neuralartifactdb.activations.differences import DifferenceKind, in_words
from neuralartifactdb.activations.source import sampled_ids
from neuralartifactdb.capture import Capture, ModelSource, compare_fingerprints
from neuralartifactdb.capture import model_stamp as model_stamps
from neuralartifactdb.capture.fingerprint import describe_callable, describe_model
from neuralartifactdb.capture.model_stamp import model_stamp
from neuralartifactdb.capture.module_attributes import glance, modules_of
from neuralartifactdb.capture.value_hash import hash_value
from neuralartifactdb.errors import InvalidValueError


def source_of(net=None, data=None, layers=("2",), **capture):
    return ModelSource.open(
        conv_net() if net is None else net, images() if data is None else data, list(layers), Capture(**capture)
    )


@pytest.fixture
def stored():
    source = source_of()
    return json.loads(json.dumps(source.fingerprint("2")))  # as it comes back from disk


def differences(stored, source, part="identity"):
    now = source.fingerprint(next(iter(source.layers)), like=stored)
    return [one.text for one in compare_fingerprints(stored, now, part=part)]


def test_the_same_again(stored):
    assert differences(stored, source_of(), "all") == []
    assert source_of().differences("2", stored) == []
    eval_mode = conv_net().eval().requires_grad_(False)
    assert differences(stored, source_of(eval_mode), "all") == []
    assert differences(stored, source_of(nn.DataParallel(conv_net()))) == []


def change(name):
    net = conv_net()
    with torch.no_grad():
        dict(net.state_dict())[name].view(-1)[0] += 1
    return net


@pytest.mark.parametrize("name", ["0.weight", "8.bias", "1.running_mean", "4.num_batches_tracked"])
def test_one_changed_weight_or_buffer_is_named(stored, name):
    found = differences(stored, source_of(change(name)))
    assert found == [f"weights or buffers in {name.split('.')[0]}"]


def test_another_model_is_told(stored):
    class Other(nn.Sequential):
        pass

    assert "model's class" in differences(stored, source_of(Other(*conv_net())))[0]
    assert any("dtypes" in one for one in differences(stored, source_of(conv_net().double(), images().double())))
    wider = conv_net()
    wider[0], wider[1] = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
    found = differences(stored, source_of(wider[:3]))
    assert any(one.startswith("shape: [4, 8, 8] when indexed, now [6, 8, 8]") for one in found)


def test_options_are_told(stored):
    assert any("reduce: None when indexed, now 'max'" in one for one in differences(stored, source_of(reduce="max")))
    assert any("output" in one for one in differences(stored, source_of(output=lambda y: y)))
    axes = json.loads(json.dumps(source_of(reduce=("max", (2, 3))).fingerprint("2")))
    assert differences(axes, source_of(reduce=("max", (2, 3)))) == []
    assert len(differences(axes, source_of(reduce=("max", (1, 3))))) >= 1


def test_an_edited_function_is_told_and_the_same_one_is_not():
    def make(axis):
        return lambda y: y.amax(axis)

    before = source_of(reduce=make((2, 3))).fingerprint("2")
    assert differences(before, source_of(reduce=make((2, 3)))) == []
    assert any("reduce" in one for one in differences(before, source_of(reduce=make((1, 3)))))
    assert any("reduce" in one for one in differences(before, source_of(reduce=lambda y: y.amin((2, 3)))))
    other_python = copy.deepcopy(before)
    other_python["capture"]["reduce"] = other_python["capture"]["reduce"].partition("#")[0] + "#2.7:0123"
    assert differences(other_python, source_of(reduce=make((2, 3)))) == []  # bytecode cannot be compared


def test_another_dataset_is_told(stored):
    changed = images().clone()
    changed[0, 0, 0, 0] += 1
    assert differences(stored, source_of(data=changed)) == ["the dataset: input 0 is not what was indexed"]
    assert differences(stored, source_of(data=images()[:99])) == ["the dataset: 100 inputs when indexed, now 99"]
    longer = torch.cat([images(), images(50, 7)])
    assert differences(stored, source_of(data=longer), "all") == []
    assert differences(stored, source_of(data=longer.flip(0))) != []


def test_labels_that_the_model_does_not_see_do_not_count():
    x = images()
    before = source_of(data=list(zip(x, range(100), strict=True))).fingerprint("2")
    assert differences(before, source_of(data=list(zip(x, range(1, 101), strict=True)))) == []


def test_what_only_may_change_bits_is_environment(stored):
    net = conv_net()
    net[0].register_forward_hook(lambda *args: None)
    source = source_of(net)
    assert differences(stored, source) == []
    assert any(
        one.kind is DifferenceKind.HOOKS and "<lambda> on 0" in one.text
        for one in source.environment_differences("2", stored)
    )
    torch.use_deterministic_algorithms(True)
    try:
        assert any("deterministic" in one.text for one in source_of().environment_differences("2", stored))
    finally:
        torch.use_deterministic_algorithms(False)
    elsewhere = copy.deepcopy(stored)
    elsewhere["environment"].update({"torch": "1.0", "device": "cuda", "attention kernels": ["flash"]})
    found = source_of().environment_differences("2", elsewhere)
    assert len(found) == 3
    assert {one.kind for one in found} == {DifferenceKind.MACHINE}
    assert found[0].text.startswith("torch: '1.0' when indexed, now ")
    plain, buffered = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())
    buffered[0].register_buffer("cache", torch.ones(1), persistent=False)
    before = source_of(plain, layers=("0",)).fingerprint("0")
    assert differences(before, source_of(buffered, layers=("0",)), "all") == [
        "buffers that are not part of state_dict differ"
    ]


def train(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.ones(3, 4)).sum().backward()
    optimizer.step()


def test_training_is_noticed_until_the_old_weights_are_back():
    net = Mlp()
    source = ModelSource.open(net, torch.randn(20, 4), ["first", "second"])
    assert not source.model_changed()
    before = {layer: source.fingerprint(layer) for layer in source.layers}
    old = copy.deepcopy(net.state_dict())
    assert not source.model_changed()
    train(net)
    for _ in range(2):
        for layer in source.layers:  # one layer's error does not clear the guard for the others
            assert source.model_changed()
            assert in_words(source.differences(layer, before[layer])) == "weights or buffers in first, second, head"
            assert source.fingerprint(layer) != before[layer]
            assert source.environment_differences(layer, before[layer]) == []
    train(net)
    assert source.model_changed()
    net.load_state_dict(old)
    assert not source.model_changed()
    assert source.differences("first", before["first"]) == []
    net.load_state_dict(Mlp().state_dict())
    assert source.model_changed()


def test_the_model_that_was_stored_is_the_one_believed():
    net, data = Mlp(), torch.randn(20, 4)
    stored = ModelSource.open(net, data, ["first"]).fingerprint("first")
    old = copy.deepcopy(net.state_dict())
    train(net)
    source = ModelSource.open(net, data, ["first"])
    assert source.environment_differences("first", stored) == []
    assert source.differences("first", stored) != []  # another model is not believed by being refused
    net.load_state_dict(old)
    assert source.differences("first", stored) == []
    assert not source.model_changed()
    train(net)
    assert source.model_changed()


def test_a_changed_model_is_hashed_once(monkeypatch):
    net = Mlp()
    source = ModelSource.open(net, torch.randn(20, 4), ["first"])
    hashed = []
    monkeypatch.setattr(
        "neuralartifactdb.capture.model_watch.describe_model", lambda model: hashed.append(1) or describe_model(model)
    )
    source.fingerprint("first")
    train(net)
    assert all(source.model_changed() for _ in range(5))
    assert len(hashed) == 2
    touched = net.first.weight.detach()
    touched.mul_(1)  # a write that changes nothing
    assert all(source.model_changed() for _ in range(5))
    assert len(hashed) == 3


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn]
)
def test_writes_to_data_are_noticed(dtype):
    net = Mlp()
    net.register_buffer("table", torch.zeros(40, 30).to(dtype))
    net.register_buffer("crosswise", torch.zeros(40, 30).to(dtype).t())
    net.register_buffer("empty", torch.zeros(0, 3))
    net.register_buffer("one", torch.zeros(()))
    source = ModelSource.open(net, torch.randn(20, 4), ["first"])
    source.fingerprint("first")
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.numel():
            old = tensor.data.clone()
            stamp = model_stamp(net)
            tensor.data.copy_(torch.ones_like(tensor, dtype=torch.float32).to(tensor.dtype))
            assert model_stamp(net)[0] == stamp[0]  # versions and addresses do not tell
            assert source.model_changed(), name
            tensor.data.copy_(old)
            assert not source.model_changed(), name


def test_stamps_of_unusual_tensors():
    net = nn.Module()
    odd = {
        "sparse": torch.eye(3).to_sparse(), "meta": torch.zeros(3, device="meta"), "lazy": torch.tensor([1j]).conj(),
        "wide": torch.zeros(3, 1).expand(3, 5), "nhwc": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "complex": torch.zeros(3, dtype=torch.complex64), "nan": torch.full((3,), torch.nan),
    }  # fmt: skip
    for name, tensor in odd.items():
        net.register_buffer(name, tensor)
    with torch.inference_mode():
        net.register_buffer("inference", torch.zeros(4))
    assert model_stamp(net) == model_stamp(net)


def test_a_stamp_takes_little_time():
    net = conv_net()
    model_stamp(net)
    took = []
    for _ in range(50):
        began = time.perf_counter()
        model_stamp(net)
        took.append(time.perf_counter() - began)
    assert min(took) < 1e-3  # 0.1 ms on a quiet machine


def test_each_check_of_a_model_takes_one_stamp(monkeypatch):
    taken = []
    monkeypatch.setattr(
        "neuralartifactdb.capture.model_watch.model_stamp", lambda *args: taken.append(1) or model_stamp(*args)
    )
    source = source_of()
    source.fingerprint("2")
    taken.clear()
    assert not source.model_changed()
    assert not source.changes_beside("2")
    assert len(taken) == 1


def test_flags_and_hooks_are_a_small_part_of_a_stamp():
    net = nn.Sequential(*[nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.LeakyReLU()) for _ in range(6)])
    modules = modules_of(net)
    flags, stamps = [], []
    for _ in range(50):
        began = time.perf_counter()
        glance(modules, {})
        model_stamps._hooks(modules)
        flags.append(time.perf_counter() - began)
        began = time.perf_counter()
        model_stamp(net)
        stamps.append(time.perf_counter() - began)
    assert min(flags) < min(stamps) / 2  # 0.04 of 0.17 ms on a quiet machine, for 25 modules


def test_fingerprints_are_small_and_json():
    big = nn.Sequential(*[nn.Linear(4, 4) for _ in range(300)])
    text = json.dumps(ModelSource.open(big, torch.randn(5000, 4), ["299"]).fingerprint("299"))
    assert len(text) < 4096
    assert json.loads(text)["path"] == "299"


def test_sampled_ids_cover_the_ends():
    assert sampled_ids(3, 0) == [0, 1, 2]
    assert len(sampled_ids(10_000, 0)) <= 16
    assert {0, 9_999} <= set(sampled_ids(10_000, 0))
    assert sampled_ids(10_000, 0) == sampled_ids(10_000, 0) != sampled_ids(10_000, 1)


def records():
    """Structured arrays, each other than the rest; new objects at each call."""
    dtype = [("a", "f4"), ("b", "O"), ("c", "i4", (2,))]
    arrays = [np.zeros(3, dtype) for _ in range(6)]
    arrays[1]["a"][1] = 1
    arrays[2]["b"][2] = "text"
    arrays[3]["c"][0, 1] = 7
    arrays[4]["b"] = [object(), None, {"a": 1}]
    arrays[5]["b"][0] = np.arange(3)
    return [*arrays, arrays[1][1], np.zeros(3, [("a", "f4"), ("c", "i4")])]


def test_every_value_has_a_hash():
    tensors = [
        torch.zeros(3), torch.zeros(3, dtype=torch.float64), torch.zeros(1, 3), torch.ones(3),
        torch.zeros(3, dtype=torch.bfloat16), torch.zeros((), dtype=torch.bool), torch.zeros(0),
        torch.eye(3).to_sparse(), torch.zeros(3, device="meta"), torch.tensor([1 + 2j]).conj(),
    ]  # fmt: skip
    others = [
        np.zeros(3), np.zeros(3, dtype=">f8"), [1, 2], (1, 2.0), {"a": 1}, {"a": 2}, {"b": 1}, "a", b"a", None, 1, 1.0,
        True, np.float32(1), Image.new("L", (2, 2)), Image.new("L", (1, 4)), Image.new("L", (2, 2), 7), np.array(["a",
        "b"], dtype=object), np.array("a", dtype=object), 10**5000, 10**5000 + 1, {10**5000: 1}, *records(),
    ]  # fmt: skip
    assert [hash_value(value) for value in records()] == [hash_value(value) for value in records()]
    hashes = [hash_value(value) for value in [*tensors, *others]]
    assert len(set(hashes)) == len(hashes)
    assert hash_value(torch.eye(4)[:, 1]) == hash_value(torch.eye(4)[:, 1].contiguous())
    assert hash_value([1, 2]) == hash_value([1, 2])


def test_callables_have_names():
    def function(y, axis=1):
        return y.amax(axis)

    assert "function" in describe_callable(function)
    assert "amax" in describe_callable(torch.amax) or "amax" in repr(torch.amax)
    one, other = functools.partial(function, axis=1), functools.partial(function, axis=2)
    assert describe_callable(one) != describe_callable(other)
    assert describe_callable(one).startswith("partial(")
    assert "Capture" in describe_callable(Capture)


def test_an_index_keeps_its_batch_shape():
    stored = source_of(batch_size=16).fingerprint("2")
    again = ModelSource.open(conv_net(), images(), ["2"], Capture(batch_size=64), indexed=stored)
    assert again.build_batch == 16
    assert again.fingerprint("2")["build"] == stored["build"]


def test_an_augmented_input_is_refused_when_it_is_hashed():
    class Late(list):
        noisy = False

        def __getitem__(self, index):
            return super().__getitem__(index) + (torch.rand(1) if self.noisy else 0)

    data = Late(images())
    source = source_of(data=data)
    data.noisy = True
    unseen = next(i for i in range(100) if i not in source.fingerprint("2")["inputs"]["ids"])
    with pytest.raises(InvalidValueError, match=f"input {unseen} of the dataset reads differently"):
        source.input_hashes([unseen])
