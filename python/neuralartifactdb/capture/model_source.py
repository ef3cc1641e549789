"""`ModelSource`: a torch model with a dataset as a source of exact activations.

Opening it resolves the layers and probes them with small batches; calibrating finds the batch shapes that queries may
use; after that it evaluates ids. The model is left as it was after every call. Implements the source contract of
docs/ARCHITECTURE.md and design section 4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from neuralartifactdb.activations.differences import Difference
from neuralartifactdb.activations.source import LayerInfo, batch_shapes_of, sampled_ids
from neuralartifactdb.capture.calibration import Calibration, calibrate, wave_unit
from neuralartifactdb.capture.configuration import hook_names
from neuralartifactdb.capture.datasets import open_reader
from neuralartifactdb.capture.device_encoder import TorchSegmentEncoder
from neuralartifactdb.capture.fingerprint import (
    compare_fingerprints,
    describe_attributes,
    describe_callable,
    describe_environment,
)
from neuralartifactdb.capture.layers import resolve_layers, unwrap
from neuralartifactdb.capture.model_state import one_at_a_time, rng_kept
from neuralartifactdb.capture.model_watch import ModelWatch
from neuralartifactdb.capture.options import Capture
from neuralartifactdb.capture.probing import learn_lengths, probe_layers
from neuralartifactdb.capture.runner import Runner, padded_ids
from neuralartifactdb.capture.value_hash import hash_value
from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError, UnknownNameError

__all__ = ["ModelSource"]

_log = logging.getLogger("neuralartifactdb")

_DEFAULT_BATCH = Capture().batch_size
_N_PROBES = 8
_BATCH_SHARE = 8


class ModelSource:
    """What layers of a model give for the inputs of a dataset. Made by `ModelSource.open`.

    Attributes:
        n_inputs: inputs in the dataset.
        layers: {name: LayerInfo(shape, storage dtype)}, in the order asked for.
        build_batch: the batch shape of an index's build.
        device: where batches are sent.
    """

    kind = "model"

    def __init__(self, runner: Runner, capture: Capture, layers: dict[str, LayerInfo], build_batch: int) -> None:
        self._runner = runner
        self._capture = capture
        self._calibration: Calibration | None = None
        self._watch = ModelWatch(runner.model, runner.moving)
        self._input_hashes: dict[int, str] = {}
        self.n_inputs = runner.reader.n_inputs
        self.device = runner.device
        self.layers = layers
        self.build_batch = build_batch

    @classmethod
    def open(
        cls,
        model: Any,
        dataset: Any,
        layers: Any,
        capture: Capture | None = None,
        *,
        indexed: Mapping[str, Any] | None = None,
    ) -> ModelSource:
        """Resolve and probe `layers` of `model` over `dataset`.

        Args:
            model: a torch.nn.Module; compiled and data-parallel ones are unwrapped.
            dataset: map-style dataset, list, array, dict of arrays, or a DataLoader that keeps the order.
            layers: names, globs, modules, or a dict {name: module}; see `capture.layers`.
            capture: how to run it.
            indexed: the fingerprint stored with an existing index, whose batch shape is taken over so that bits can
                agree, if all `layers` together fit the memory limit in it.

        Raises:
            KeyError, TypeError, ValueError: what does not fit, and the argument that mends it.
        """
        if not isinstance(model, nn.Module):
            raise DtypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}; for anything else use "
                "index_function(name, evaluate, ...)"
            )
        capture = Capture() if capture is None else capture
        if not isinstance(capture, Capture):
            raise DtypeError(
                f"capture must be a Capture, got {type(capture).__name__}; write capture=nadb.Capture(...)"
            )
        model = unwrap(model)
        _refuse_uninitialised(model)
        runner = Runner(model, open_reader(dataset, capture), resolve_layers(model, layers), capture)
        build = (indexed or {}).get("build", {})
        asked = _batch_size(capture, runner)
        with rng_kept():
            stored = build.get("batch")
            batch = asked if stored is None else int(stored)
            infos = probe_layers(runner, runner.reader.n_inputs, batch, capture.call, capture.seed)
            batch = _choose_batch(asked, stored, infos, capture)
            learn_lengths(runner, infos, runner.reader.n_inputs, batch, capture.seed, build.get("length_multiple"))
        source = cls(runner, capture, infos, batch)
        source.input_hashes(sampled_ids(source.n_inputs, capture.seed))
        return source

    def __enter__(self) -> ModelSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of worker processes. Between calls the model holds nothing of ours at any time."""
        self._runner.reader.close()

    # ---- evaluating

    @property
    def rows_run(self) -> int:
        """Rows that this thread sent through the model so far, padding included."""
        return self._runner.rows.n

    @property
    def query_batches(self) -> tuple[int, ...]:
        """Batch shapes that give the build's bits, ascending; before `calibrate` the build's alone."""
        return (self.build_batch,) if self._calibration is None else self._calibration.query_batches

    @property
    def unit(self) -> int:
        """What queries evaluate candidates in multiples of; before `calibrate` the build's batch."""
        return self.unit_after(0)

    def unit_after(self, evaluated: int) -> int:
        """As `unit`, for a query that has evaluated so many: larger shapes, which take less time per input."""
        if self._calibration is None:
            return self.build_batch
        return wave_unit(self._calibration.seconds_per_input, evaluated)

    @property
    def seconds_per_input(self) -> dict[int, float]:
        """Seconds by batch shape, reading included; empty before `calibrate`."""
        return {} if self._calibration is None else dict(self._calibration.seconds_per_input)

    def evaluate(self, layers: Sequence[str], ids: Any) -> dict[str, NDArray[Any]]:
        """Exact activations of `ids`, run in the reproducible batch shapes.

        Args:
            layers: names of `self.layers`; the forward pass stops after the last of them.
            ids: int64[n]; largest shapes first, the rest padded to `query_batches[0]`.

        Returns:
            {layer: (n, M) in compute dtype}, C-contiguous, on the host.
        """
        wanted = self._checked_ids(ids)
        batches: list[tuple[NDArray[np.int64], int]] = []
        first = 0
        for shape in batch_shapes_of(len(wanted), self.query_batches):
            batches.append((wanted[first : first + shape], shape))
            first += shape
        values = self._runner.run(self._infos(layers), batches)
        return {name: rows.cpu().numpy() for name, rows in values.items()}

    def capture(self, layers: Sequence[str], ids: Any, spare: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Activations of `ids` in batches of the build's shape, the last one padded.

        Args:
            layers: names of `self.layers`.
            ids: int64[n].
            spare: what an earlier call returned and nobody needs any more; its memory is used again where it fits.

        Returns:
            {layer: (n, M) in compute dtype}: NumPy arrays that own their memory, or tensors where the model is on
            another device.
        """
        wanted = self._checked_ids(ids)
        step = self.build_batch
        batches = [(wanted[i : i + step], step) for i in range(0, len(wanted), step)]
        values = self._runner.run(self._infos(layers), batches, spare=spare)
        return {name: rows.numpy() if rows.device.type == "cpu" else rows for name, rows in values.items()}

    def evaluate_items(self, layers: Sequence[str], items: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """Exact activations of inputs that are not in the dataset, given as the dataset would give them.

        Args:
            layers: names of `self.layers`.
            items: at least one; each what `dataset[i]` returns (of arrays: a row, or the rows of all of them).

        Returns:
            {layer: (len(items), M) in compute dtype}, run in batches of `query_batches[0]`.
        """
        shape = self.query_batches[0]
        values = self._runner.run_items(self._infos(layers), items, shape, same_shape=self.build_batch > 1)
        return {name: rows.cpu().numpy() for name, rows in values.items()}

    def prefetch(self, batches: Iterable[Any]) -> None:
        """Announce the ids of the next calls of `capture`, so that `Capture(num_workers=)` processes read ahead of the
        model.

        Each is what one call will ask for, at most `build_batch` ids. Optional: other ids than announced are read
        directly.
        """
        announced = [padded_ids(ids, self.build_batch) for ids in map(self._checked_ids, batches) if len(ids)]
        with rng_kept():
            self._runner.reader.announce(announced)

    def make_encoder(
        self, layer: str, edges: NDArray[Any], n_inputs: int, row_group: int, maxima_cap: int
    ) -> TorchSegmentEncoder | None:
        """An encoder that works where the batches are: None on the host, whose encoder is `_core.SegmentEncoder`."""
        self._infos([layer])
        if self.device.type == "cpu":
            return None
        return TorchSegmentEncoder(edges, n_inputs, row_group, maxima_cap, device=self.device)

    def _infos(self, layers: Sequence[str]) -> dict[str, LayerInfo]:
        if isinstance(layers, str):
            raise DtypeError(f"layers must be a list of names, got the str {layers!r}")
        for name in layers:
            if name not in self.layers:
                raise UnknownNameError(f"the source has no layer {name!r}; its layers are {', '.join(self.layers)}")
        return {name: self.layers[name] for name in layers}

    def _checked_ids(self, ids: Any) -> NDArray[np.int64]:
        wanted = np.asarray(ids)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise DtypeError(f"ids must be a 1-D array of integers, got {wanted.dtype} of shape {wanted.shape}")
        wanted = wanted.astype(np.int64)
        outside = np.flatnonzero((wanted < 0) | (wanted >= self.n_inputs))
        if outside.size:
            raise IdError(f"ids must lie in [0, {self.n_inputs}), got {wanted[outside[0]]} at position {outside[0]}")
        return wanted

    # ---- calibrating

    def calibrate(self, *, budget_s: float = 1.0) -> Calibration:
        """Find the batch shapes that queries may use, and how long an input takes in each.

        Args:
            budget_s: see `calibration.calibrate`.

        Raises:
            ValueError: values depend on what else is in the batch.
        """
        rng = np.random.default_rng([self._capture.seed, self.n_inputs, 3])
        n_pool = min(self.n_inputs, self.build_batch + _N_PROBES)
        pool = (
            rng.choice(self.n_inputs, n_pool, replace=False)
            if self.n_inputs <= 1 << 20
            else rng.integers(0, self.n_inputs, n_pool)
        )

        def run(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
            values = self._runner.run(self.layers, [(ids, len(ids))], rows)
            return {name: kept.cpu().numpy() for name, kept in values.items()}

        dtypes = {name: info.dtype for name, info in self.layers.items()}
        self._calibration = calibrate(
            run, pool.astype(np.int64), self.build_batch, dtypes, seed=self._capture.seed, budget_s=budget_s
        )
        return self._calibration

    def tolerance(self, layer: str) -> NDArray[np.float64] | None:
        """Per neuron, how far a re-evaluated value may lie from the indexed one; None if bits reproduce."""
        self._infos([layer])
        return None if self._calibration is None else self._calibration.tolerance[layer]

    # ---- fingerprints

    def fingerprint(self, layer: str, *, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What must be the same for stored activations to be this source's, as JSON values; see `compare_fingerprints`.

        Args:
            layer: one of `self.layers`.
            like: a stored fingerprint; its inputs are hashed (those that this dataset has), so that the two can be
                compared.

        Raises:
            ValueError: an input reads differently twice (random augmentation).
        """
        current = self._fingerprint(layer, like)
        self._watch.believe(like, self.layers)
        return current

    def _fingerprint(self, layer: str, like: Mapping[str, Any] | None) -> dict[str, Any]:
        self._infos([layer])
        info, seen = self.layers[layer], self._watch.look()
        if like is None:
            ids = sampled_ids(self.n_inputs, self._capture.seed)
        else:
            ids = [int(i) for i in like.get("inputs", {}).get("ids", []) if int(i) < self.n_inputs]
        return {
            "kind": "model",
            "model": seen.weights,
            "configuration": seen.configuration.record(),
            "attributes": describe_attributes(self._runner.model, self._runner.moving),
            "layer": layer,
            "path": self._runner.targets[layer].path,
            "shape": list(info.shape),
            "dtype": info.dtype,
            "capture": self._capture_description(layer),
            "build": self._build_shape(),
            "inputs": {"n": self.n_inputs, "ids": ids, "hashes": self.input_hashes(ids)},
            "environment": self._environment(),
        }

    def differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """What makes an index with the fingerprint `stored` stale; inputs that came later do not count."""
        found = compare_fingerprints(stored, self.fingerprint(layer, like=stored), part="identity")
        return found + self._watch.look().configuration.differences(stored.get("configuration", {}))

    def environment_differences(self, layer: str, stored: Mapping[str, Any]) -> list[Difference]:
        """What may make bits differ though model and data are the same: device, kernels, versions, switches, hooks."""
        return compare_fingerprints(stored, self._fingerprint(layer, stored), part="environment")

    def model_changed(self) -> bool:
        """Whether the model is another than the validated one, that of the first `fingerprint` or of the first
        `differences` that found it to be the stored one.

        Stays true until the old weights and flags are back, whatever is called meanwhile. Takes microseconds, but for
        the first call after a write, which hashes the weights.
        """
        return self._watch.changed()

    def hooks(self) -> list[str]:
        """Hooks of others around the model's modules, in words."""
        with one_at_a_time():
            return hook_names(self._runner.model)

    def changes_beside(self, layer: str) -> list[str]:
        """What the last look at the model saw beside weights and flags (code, hooks, other attributes) that was another
        when the layer's values were last known to be those of the index, in words."""
        return self._watch.changes_beside(layer)

    def believe_beside(self, layer: str) -> None:
        """The layer's values with what the last look saw are those of the index."""
        self._watch.believe_beside(layer)

    def with_moving(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A fingerprint of the model with all that passes were seen to change since left out of its configuration."""
        record = self._watch.record(stored.get("configuration", {}))
        restless = {f".{name}" for name in self._runner.moving.restless()}
        found = {**stored, "configuration": record}
        if "attributes" in stored:
            found["attributes"] = {name: one for name, one in stored["attributes"].items() if name not in restless}
        return found

    def look_again(self) -> None:
        """Forget hashes of weights and inputs: a write through `.data` of one weight leaves no other trace."""
        self._watch.forget()
        self._input_hashes.clear()

    def input_hashes(self, ids: Sequence[int]) -> list[str]:
        """One hash per id, of what the model reads for it. The dataset is read twice at the first call for an id.

        Raises:
            ValueError: the two reads differ.
        """
        wanted = self._checked_ids(np.asarray(ids, dtype=np.int64)).tolist()
        new = [i for i in dict.fromkeys(wanted) if i not in self._input_hashes]
        with rng_kept():  # once around all: restored between two reads, it would make random augmentation repeat itself
            for i in new:
                first, second = (hash_value(self._runner.model_inputs(self._runner.read([i])))[:16] for _ in range(2))
                if first != second:
                    raise InvalidValueError(
                        f"input {i} of the dataset reads differently each time (random augmentation?), so no answer "
                        "could be exact; index a dataset without random transforms, or one that seeds them by index"
                    )
                self._input_hashes[i] = first
        return [self._input_hashes[i] for i in wanted]

    def _environment(self) -> dict[str, Any]:
        with one_at_a_time():  # hooks of a pass in another thread are not foreign ones
            return describe_environment(self._runner.model, self.device)

    def _build_shape(self) -> dict[str, int]:
        return {"batch": self.build_batch, "length_multiple": self._runner.length_multiple}

    def _capture_description(self, layer: str) -> dict[str, Any]:
        capture, target = self._capture, self._runner.targets[layer]
        how, output = self._runner.reductions[layer], self._runner.outputs[layer]
        return {
            "module": type(target.module).__qualname__,
            "takes_input": target.takes_input,
            "reduce": describe_callable(how) if callable(how) else _plain(how),
            "output": describe_callable(output) if callable(output) else output,
            "call": self._runner.firings.get(layer),
            "positions": describe_callable(capture.positions) if capture.positions else None,
            "forward": describe_callable(capture.forward) if capture.forward else None,
            "collate_fn": self._runner.reader.collate_name(),
        }


def _plain(value: Any) -> Any:
    """A reduction as JSON gives it back: tuples as lists."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _batch_size(capture: Capture, runner: Runner) -> int:
    """The batch size asked for; of few inputs the power of two that holds them: odd shapes reproduce less often."""
    loader = runner.reader.batch_size
    asked = loader if loader is not None and capture.batch_size == _DEFAULT_BATCH else capture.batch_size
    return min(asked, 1 << (runner.reader.n_inputs - 1).bit_length())


def _choose_batch(asked: int, stored: int | None, layers: Mapping[str, LayerInfo], capture: Capture) -> int:
    """The build's batch shape: the stored one of an existing index, or the one asked for, where it fits the memory."""
    wanted = asked if stored is None else int(stored)
    fitting = _fit_to_memory(wanted, layers, capture.memory_limit_bytes)
    if fitting < wanted and stored is None:
        _log.info(
            "batches of %d instead of %d inputs, so that the captured activations stay within memory_limit",
            fitting,
            wanted,
        )
    elif fitting < wanted:
        _log.warning(
            "the index was built in batches of %d inputs, in which the activations of all layers asked for do not stay "
            "within memory_limit=%r; batches of %d are used, whose bits may differ. A larger Capture(memory_limit=...) "
            "keeps the batches",
            wanted,
            capture.memory_limit,
            fitting,
        )
    elif stored is not None and capture.batch_size != _DEFAULT_BATCH:
        own = _fit_to_memory(asked, layers, capture.memory_limit_bytes)
        if own != wanted:
            _log.info("batches of %d inputs instead of %d, as the index was built, so that bits agree", wanted, own)
    return fitting


def _fit_to_memory(batch: int, layers: Mapping[str, LayerInfo], memory_limit: int) -> int:
    """The largest batch, `batch` or it halved, whose captured activations take at most an eighth of the memory limit.

    Two of them are alive at a time, the one being encoded and the next, beside the raw sample.
    """
    per_input = sum(info.n_neurons * (8 if info.dtype == "float64" else 4) for info in layers.values())
    fitting = batch
    while fitting > 1 and fitting * per_input > memory_limit // _BATCH_SHARE:
        fitting //= 2
    return fitting


def _refuse_uninitialised(model: nn.Module) -> None:
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(parameter):
            raise InvalidValueError(
                f"the model's {name!r} is not initialised (a lazy module); run the model once on a batch before "
                "indexing it"
            )
