"""What the demo's walk starts from: digits, a trained network, and a database that holds three of its layers.

What an earlier run left in the folder is used again if it fits: the weights if they were trained the same way, the
database because `index_activations` itself sees that there is nothing left to do. (Issue 2: the demo.)
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import neuralartifactdb
from neuralartifactdb.demo.digits import Digits, digits
from neuralartifactdb.demo.network import LAYERS, Prediction, predict, train_network
from neuralartifactdb.demo.weights import load_weights, save_weights
from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds

if TYPE_CHECKING:
    import torch

    from neuralartifactdb.database import Database

__all__ = ["DATABASE_NAME", "WEIGHTS_NAME", "Prepared", "Settings", "one_thread", "prepare"]

DATABASE_NAME = "digits.nadb"
WEIGHTS_NAME = "network.npz"


@dataclass(frozen=True)
class Settings:
    """What the demo is made from.

    Attributes:
        n_inputs: digits to make and to index.
        epochs: of training.
        storage: share of float32 that the indexes may use.
        seed: of data and weights.
    """

    n_inputs: int = 10_000
    epochs: int = 3
    storage: float = 0.2
    seed: int = 0

    @property
    def of_weights(self) -> str:
        """Those that the weights depend on, as JSON."""
        return json.dumps({"n_inputs": self.n_inputs, "epochs": self.epochs, "seed": self.seed})


@dataclass(frozen=True)
class Prepared:
    """Everything that questions can be asked of.

    Attributes:
        settings: it was made with.
        data: the inputs.
        network (torch.nn.Sequential): in eval mode.
        prediction: what the network says of every input.
        accuracy: on inputs from held-out scans.
        db: open, with network and data attached, the attributes set, and pictures as the way to show an input.
        seconds: by stage: "digits", "training" (absent if the weights were there), "predicting", "indexing".
        reused: what was there already: any of "network", "database".
    """

    settings: Settings
    data: Digits
    network: torch.nn.Sequential
    prediction: Prediction
    accuracy: float
    db: Database
    seconds: dict[str, float]
    reused: frozenset[str]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread, and back to what it was.

    The batches are small, so more threads gain little where the machine is quiet, and wait for each other at every
    layer where it is not. And the weights then depend on the seed alone: everybody sees the same digit misread.
    """
    try:
        import torch
    except ImportError:  # whatever needs torch will say so
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(folder: str | os.PathLike[str], settings: Settings, *, say: Callable[[str], object]) -> Prepared:
    """Make the data, train the network or load it, index it or find it indexed.

    Args:
        folder: where weights and database are kept.
        settings: what to make.
        say: told in words what is being done.

    Raises:
        ExtraMissingError: torch or scikit-learn is not installed.
        OSError: the folder cannot be written.
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    reused: set[str] = set()

    start = time.perf_counter()
    data = digits(settings.n_inputs, seed=settings.seed)
    seconds["digits"] = time.perf_counter() - start
    say(f"digits    {len(data):,} inputs of 32 x 32 out of 1,797 real scans, {format_seconds(seconds['digits'])}")

    network = load_weights(out / WEIGHTS_NAME, settings.of_weights)
    if network is None:
        trained = train_network(data, seed=settings.seed, epochs=settings.epochs)
        network, seconds["training"] = trained.network, trained.seconds
        save_weights(out / WEIGHTS_NAME, network, settings.of_weights)
    else:
        reused.add("network")
    start = time.perf_counter()
    prediction = predict(network, data.images)
    seconds["predicting"] = time.perf_counter() - start
    held_out = data.held_out
    right = prediction.labels == data.labels
    accuracy = float(right[held_out].mean()) if held_out.any() else float("nan")
    how = f"{format_seconds(seconds['training'])} of training" if "training" in seconds else "as trained before"
    say(f"network   reads {accuracy:.1%} of {int(held_out.sum()):,} held-out inputs rightly, {how}")

    db = neuralartifactdb.open(out / DATABASE_NAME)
    try:
        start = time.perf_counter()
        if _index(db, network, data, prediction, settings, fresh="network" not in reused):
            reused.add("database")
        seconds["indexing"] = time.perf_counter() - start
    except BaseException:
        db.close()
        raise
    n_neurons = sum(layer.n_neurons for layer in db.activations.values())
    n_bytes = sum(layer.nbytes for layer in db.activations.values())
    full = 4 * n_neurons * len(data)
    how = "as indexed before, checked in" if "database" in reused else "indexed in"
    say(
        f"database  {len(db.activations)} layers, {n_neurons:,} neurons, {format_bytes(n_bytes)} instead of "
        f"{format_bytes(full)}, {how} {format_seconds(seconds['indexing'])}"
    )
    db.set_render(lambda input_id: data.images[input_id, 0])
    return Prepared(settings, data, network, prediction, accuracy, db, seconds, frozenset(reused))


def _index(
    db: Database,
    network: torch.nn.Sequential,
    data: Digits,
    prediction: Prediction,
    settings: Settings,
    *,
    fresh: bool,
) -> bool:
    """Attributes and indexes; True if all was there. `fresh`: the weights are new, what is there is not theirs."""
    if fresh:
        _drop(db)
        for name in list(db.masks):  # maps of the network that was, of inputs that there may be no more
            del db.masks[name]
    columns = {"label": data.labels, "predicted": prediction.labels, "held_out": data.held_out, "scan": data.scans}
    if any(name not in db.inputs or not np.array_equal(db.inputs[name], values) for name, values in columns.items()):
        db.set_inputs(columns, replace=True)
    complete = all(name in db.activations and _is_complete(db.activations[name]) for name in LAYERS)
    try:
        db.index_activations(network, data, list(LAYERS), storage=settings.storage)
    except InvalidValueError:  # of another storage, or of other weights that were put in the folder by hand
        if not len(db.activations):
            raise
        _drop(db)
        db.index_activations(network, data, list(LAYERS), storage=settings.storage)
        return False
    return complete


def _is_complete(layer: Any) -> bool:
    return bool(layer.n_indexed == layer.n_inputs)


def _drop(db: Database) -> None:
    for key in list(db.activations):
        del db.activations[key]
