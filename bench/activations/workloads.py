"""The two workloads: a network, its dataset, the layers asked about, and their true activations on disk.

Captured activations are kept under bench-data/ (git-ignored), row-major as captured and column-major, and made again
when anything that they depend on changes. They are the ground truth, and the disk of the materialising competitors.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.activations.corpus import Corpus, docstring_sentences, tokenize
from bench.activations.encoder import MLP_LAYERS, build_encoder, train_encoder
from bench.activations.forward import Reduce, stream_rows
from neuralartifactdb.demo.digits import digits
from neuralartifactdb.demo.network import LAYERS, build_network, train_network

__all__ = ["BATCH_SIZE", "Workload", "digits_workload", "text_workload"]

BATCH_SIZE = 256
"""Of captures and of recomputing: the shape at which both networks are fastest on two cores."""

_SEQUENCE_LAYERS = {"stage2.2": (32, 16, 16), "stage3.2": (64, 8, 8), "stage3.5": (64, 8, 8)}
_log = logging.getLogger("neuralartifactdb")


class _Items(torch.utils.data.Dataset[Any]):
    """Input i as the model's arguments: a tensor, or a dict of them."""

    def __init__(self, inputs: Sequence[NDArray[Any]], names: tuple[str, ...] | None) -> None:
        self._inputs = [torch.from_numpy(array) for array in inputs]
        self._names = names

    def __len__(self) -> int:
        return len(self._inputs[0])

    def __getitem__(self, index: int) -> Any:
        if self._names is None:
            return self._inputs[0][index]
        return {name: tensor[index] for name, tensor in zip(self._names, self._inputs, strict=True)}


@dataclass(frozen=True)
class Workload:
    """A network over a dataset.

    Attributes:
        name: short, also of its folder.
        model: in eval mode.
        inputs: the model's arguments for all inputs.
        layers: early, middle and late, with the shapes of their (reduced) outputs.
        more_layers: others, which only the sequence of queries visits.
        facts: accuracy or loss, training seconds, and so on, for the report.
        folder: where captures are kept.
        input_names: names of the model's arguments, for dict batches; None for one tensor.
        reduce: how a layer's output becomes one row per input; None takes all values.
        fused_tolerance: how far scores may be off, relatively, where torch uses fused kernels.
    """

    name: str
    model: torch.nn.Module
    inputs: tuple[NDArray[Any], ...]
    layers: dict[str, tuple[int, ...]]
    folder: Path
    more_layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    input_names: tuple[str, ...] | None = None
    reduce: Reduce | None = None
    fused_tolerance: float = 0.0

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return len(self.inputs[0])

    @property
    def dataset(self) -> torch.utils.data.Dataset[Any]:
        """The inputs as a PyTorch dataset."""
        return _Items(self.inputs, self.input_names)

    @property
    def middle(self) -> str:
        """The middle layer."""
        return list(self.layers)[len(self.layers) // 2]

    def rows(self, layer: str) -> NDArray[np.float32]:
        """True activations, float32[n, M], row-major, mapped from disk."""
        self._require(layer)
        held: NDArray[np.float32] = np.load(self._path(layer, "rows"), mmap_mode="r")
        return held

    def columns(self, layer: str) -> NDArray[np.float32]:
        """True activations, float32[M, n], one neuron after another, mapped from disk."""
        self._require(layer)
        held: NDArray[np.float32] = np.load(self._path(layer, "columns"), mmap_mode="r")
        return held

    def _path(self, layer: str, kind: str) -> Path:
        return self.folder / f"{self._key}-{layer}-{kind}.npy"

    @cached_property
    def _key(self) -> str:
        """Changes with weights, inputs and torch."""
        digest = hashlib.sha256(f"{torch.__version__} {BATCH_SIZE} {self.n_inputs}".encode())
        for name, value in self.model.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        for array in self.inputs:
            digest.update(array[:: max(1, len(array) // 64)].tobytes())
        return digest.hexdigest()[:12]

    def _require(self, layer: str) -> None:
        if self._path(layer, "columns").exists():
            return
        wanted = self.more_layers if layer in self.more_layers else self.layers
        missing = [name for name in wanted if not self._path(name, "columns").exists()]
        _log.info("capturing %s of %s for %d inputs", ", ".join(missing), self.name, self.n_inputs)
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name in missing:
            shape = (self.n_inputs, int(np.prod(wanted[name])))
            files[name] = np.lib.format.open_memmap(self._path(name, "rows"), "w+", np.float32, shape)
        for where, rows in stream_rows(self.model, missing, self.inputs, batch_size=BATCH_SIZE, reduce=self.reduce):
            for name, values in rows.items():
                files[name][where] = values
        for name, file in files.items():
            file.flush()
            partial = self._path(name, "partial")
            columns = np.lib.format.open_memmap(partial, "w+", np.float32, file.shape[::-1])
            step = max(1, (64 << 20) // (4 * file.shape[0]))
            for first in range(0, file.shape[1], step):
                columns[first : first + step] = file[:, first : first + step].T
            columns.flush()
            partial.rename(self._path(name, "columns"))


def digits_workload(n: int, data: Path) -> Workload:
    """The demo's convolutional network over `n` digits."""
    folder = data / "digits"
    network = build_network()
    facts = _trained(network, folder / "network-v1", lambda: _facts_of_network(train_network(digits(10_000)), network))
    network.eval()
    return Workload(f"digits-{n}", network, (digits(n).images,), dict(LAYERS), folder, dict(_SEQUENCE_LAYERS), facts)


def text_workload(data: Path, *, n: int | None = None, epochs: float = 2.0) -> Workload:
    """The encoder over the first `n` (all) sentences of the corpus; MLP activations, the largest over the words."""
    folder = data / "text"
    corpus = _corpus(folder)
    model = build_encoder(corpus.n_tokens, corpus.tokens.shape[1])

    def train() -> dict[str, float]:
        trained = train_encoder(corpus, epochs=epochs)
        model.load_state_dict(trained.model.state_dict())
        return {"loss": trained.loss, "training seconds": trained.seconds, "steps": trained.steps}

    facts = _trained(model, folder / f"encoder-v1-{corpus.n_tokens}-{round(100 * epochs)}", train)
    model.eval()
    width = model.encoder.layers[0].linear1.out_features
    return Workload(
        f"text-{len(corpus.sentences) if n is None else n}",
        model,
        (corpus.tokens[:n], corpus.attention_mask[:n]),
        dict.fromkeys(MLP_LAYERS, (width,)),
        folder,
        facts=facts,
        input_names=("input_ids", "attention_mask"),
        reduce=_max_over_words,
        fused_tolerance=1e-4,
    )


def _max_over_words(output: torch.Tensor, batch: Sequence[torch.Tensor]) -> torch.Tensor:
    """[b, t, m] -> [b, m], the largest over the positions that hold words."""
    return output.masked_fill(~batch[1][:, :, None], -torch.inf).amax(dim=1)


def _corpus(folder: Path) -> Corpus:
    """The corpus, its sentences kept on disk because reading the standard library takes seconds."""
    path = folder / "sentences.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(docstring_sentences()))
    return tokenize(json.loads(path.read_text()))


def _facts_of_network(trained: Any, network: torch.nn.Module) -> dict[str, float]:
    network.load_state_dict(trained.network.state_dict())
    return {
        "accuracy on held-out scans": trained.accuracy,
        "training seconds": trained.seconds,
        "epochs": trained.epochs,
    }


def _trained(model: torch.nn.Module, path: Path, train: Any) -> dict[str, float]:
    """Loads the weights kept at `path`, or trains and keeps them."""
    weights, facts_path = path.with_suffix(".npz"), path.with_suffix(".json")
    if facts_path.exists():
        with np.load(weights) as held:
            model.load_state_dict({name: torch.from_numpy(held[name]) for name in held.files})
        facts: dict[str, float] = json.loads(facts_path.read_text())
        return facts
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = train()
    np.savez(weights, **{name: value.numpy() for name, value in model.state_dict().items()})
    facts_path.write_text(json.dumps(facts))
    return facts
