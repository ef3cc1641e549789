"""The small convolutional network of the demo and the benches, and its training.

Shaped like VGG: three stages of two 3 x 3 convolutions, ReLU and a pooling, whose outputs have 4,096, 2,048 and 1,024
neurons, and a linear classifier. It trains in well under a minute on two cores. (Issue 2: the demo.)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralartifactdb.errors import ExtraMissingError, InvalidValueError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from neuralartifactdb.demo.digits import Digits

__all__ = ["LAYERS", "Prediction", "Trained", "build_network", "predict", "train_network"]

LAYERS = {"stage1": (16, 16, 16), "stage2": (32, 8, 8), "stage3": (64, 4, 4)}
"""The layers worth indexing and the shapes of their outputs per input: 4,096, 2,048 and 1,024 neurons."""


@dataclass(frozen=True)
class Trained:
    """A trained network and how well it does.

    Attributes:
        network (torch.nn.Sequential): in eval mode, on the device asked for.
        accuracy: share of the inputs from held-out scans that it classifies correctly.
        accuracy_train: the same for the inputs that it was trained on.
        seconds: the time that training took, evaluation not included.
        epochs: passes over the training inputs.
    """

    network: torch.nn.Sequential
    accuracy: float
    accuracy_train: float
    seconds: float
    epochs: int


@dataclass(frozen=True)
class Prediction:
    """What a network says of some inputs.

    Attributes:
        labels (int64[n]): the most probable digit of each.
        probabilities (float32[n, 10]): how probable it holds each digit.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def build_network(*, seed: int = 0) -> torch.nn.Sequential:
    """Builds the untrained network; the caller's random state stays as it was.

    Args:
        seed: of the initial weights.

    Returns:
        A module with the children "stage1", "stage2", "stage3", "flatten" and "classifier", on the CPU.

    Raises:
        ExtraMissingError: torch is not installed.
    """
    torch_ = _import_torch()
    nn = torch_.nn

    def stage(n_in: int, n_middle: int, n_out: int) -> torch.nn.Sequential:
        layers: torch.nn.Sequential = nn.Sequential(
            nn.Conv2d(n_in, n_middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_middle),
            nn.ReLU(),
            nn.Conv2d(n_middle, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        return layers

    with torch_.random.fork_rng(devices=[]):
        torch_.manual_seed(seed)
        network: torch.nn.Sequential = nn.Sequential(
            OrderedDict(
                stage1=stage(1, 16, 16),
                stage2=stage(16, 32, 32),
                stage3=stage(32, 64, 64),
                flatten=nn.Flatten(),
                classifier=nn.Linear(64 * 4 * 4, 10),
            )
        )
    return network


def train_network(
    data: Digits, *, seed: int = 0, epochs: int = 3, batch_size: int = 64, device: str = "cpu", max_inputs: int = 12_000
) -> Trained:
    """Trains the network on the inputs whose scans are not held out.

    Adam in one cycle: the learning rate rises for the first tenth of the steps and then falls linearly to
    zero. The same seed, machine and thread count give the same weights.

    Args:
        data: the inputs; at least one must be held out and one not.
        seed: of the weights and of the order of the batches.
        epochs: passes over the training inputs, at least 1.
        batch_size: inputs per step.
        device: where to train; the network stays there.
        max_inputs: train on the first so many only, so that a large dataset trains as fast as a small one.

    Returns:
        The network in eval mode with its accuracy.

    Raises:
        InvalidValueError: `epochs` below 1, or nothing to train on or to test with.
        ExtraMissingError: torch is not installed.
    """
    if epochs < 1:
        raise InvalidValueError(f"`epochs` must be at least 1, got {epochs}")
    train_ids = np.flatnonzero(~data.held_out)[:max_inputs]
    test_ids = np.flatnonzero(data.held_out)
    if len(train_ids) == 0 or len(test_ids) == 0:
        raise InvalidValueError(
            f"training needs inputs of held-out scans and others, got {len(test_ids)} and {len(train_ids)} "
            f"among {len(data)} inputs; make more with digits(n)"
        )
    torch_ = _import_torch()
    images = torch_.from_numpy(data.images[train_ids]).to(device)
    labels = torch_.from_numpy(data.labels[train_ids]).to(device)
    network = build_network(seed=seed).to(device)
    optimizer = torch_.optim.Adam(network.parameters(), lr=3e-3)
    n_steps = epochs * -(-len(train_ids) // batch_size)
    warm = max(1, n_steps // 10)
    schedule = torch_.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm))
    )
    generator = torch_.Generator().manual_seed(seed)

    start = time.perf_counter()
    network.train()
    for _ in range(epochs):
        for batch in torch_.randperm(len(train_ids), generator=generator).to(device).split(batch_size):
            loss = torch_.nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    seconds = time.perf_counter() - start

    def accuracy(ids: NDArray[np.int64]) -> float:
        return float(np.mean(predict(network, data.images[ids]).labels == data.labels[ids]))

    return Trained(network, accuracy(test_ids[:5_000]), accuracy(train_ids[:5_000]), seconds, epochs)


def predict(network: torch.nn.Module, images: NDArray[np.float32], *, batch_size: int = 256) -> Prediction:
    """Classifies inputs; the network keeps its mode.

    Args:
        network: as `train_network` returns it.
        images (float32[n, 1, 32, 32]): the inputs.
        batch_size: inputs per forward pass.

    Returns:
        The predicted digits and their probabilities.
    """
    torch_ = _import_torch()
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        with torch_.no_grad():
            outputs = [
                network(torch_.from_numpy(images[first : first + batch_size]).to(device)).softmax(dim=1).cpu()
                for first in range(0, len(images), batch_size)
            ]
    finally:
        network.train(was_training)
    probabilities: NDArray[np.float32] = torch_.cat(outputs).numpy() if outputs else np.empty((0, 10), np.float32)
    return Prediction(probabilities.argmax(axis=1).astype(np.int64), probabilities)


def _import_torch() -> Any:
    """Imports torch when it is first needed."""
    try:
        import torch as module
    except ImportError as error:
        raise ExtraMissingError(
            "the demo's network needs torch, which is not installed; "
            "install it with: pip install 'neuralartifactdb[demo]'"
        ) from error
    return module
