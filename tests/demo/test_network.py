"""The demo's network: shapes of its layers, determinism, accuracy on held-out scans, the caller's torch state."""

from __future__ import annotations

import numpy as np
import pytest

from neuralartifactdb.demo.digits import Digits, digits
from neuralartifactdb.demo.network import LAYERS, build_network, predict, train_network
from neuralartifactdb.errors import InvalidValueError

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def data() -> Digits:
    return digits(1797)


def test_layers_have_the_shapes_that_are_promised(data):
    network = build_network().eval()
    outputs = {}
    for name in LAYERS:
        network.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: outputs.update({name: out}))
    with torch.no_grad():
        logits = network(torch.from_numpy(data.images[:3]))
    assert logits.shape == (3, 10)
    assert {name: tuple(out.shape[1:]) for name, out in outputs.items()} == LAYERS
    assert all((out >= 0).all() for out in outputs.values())


def test_training_is_deterministic_and_learns(data):
    state = torch.get_rng_state()
    first, second = (train_network(data, epochs=2, batch_size=16, max_inputs=600) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert first.accuracy > 0.5  # 76 steps; chance is 0.1
    assert not any(module.training for module in first.network.modules())
    assert first.accuracy == np.mean(predict(first.network, data.images).labels == data.labels, where=data.held_out)


def test_predict_keeps_the_mode_and_takes_no_inputs(data):
    network = build_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prediction = predict(network, data.images[:5], batch_size=2)
    assert network.training
    assert prediction.labels.shape == (5,)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert predict(network, data.images[:0]).probabilities.shape == (0, 10)


def test_bad_arguments(data):
    with pytest.raises(InvalidValueError, match="`epochs` must be at least 1, got 0"):
        train_network(data, epochs=0)
    none_held_out = Digits(data.images, data.labels, data.scans, np.zeros(len(data), dtype=bool))
    with pytest.raises(InvalidValueError, match="got 0 and 1797 among 1797"):
        train_network(none_held_out)
