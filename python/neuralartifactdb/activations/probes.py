"""Probes: activations of a few inputs, stored with an index, by which one sees that a source still computes the same.

Implements design section 4, "What exact means" (the stored probe inputs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.source import Source

__all__ = ["STALE_SHARE", "hooks_in_words", "make_probes", "probe_deviation", "probe_differences", "run_probes"]

#: a deviation beyond this share of the neuron's range is not numerical noise
STALE_SHARE = 0.01
_PROBED_INPUTS = 4
_PROBED_NEURONS = 16


def make_probes(source: Source, layer: str) -> dict[str, Any]:
    """What is stored: `values` at `ids` x `neurons`, and `bits`, a hash of each input's row."""
    n = source.n_inputs
    ids = np.unique(np.linspace(0, n - 1, min(_PROBED_INPUTS, n)).astype(np.int64)) if n else np.empty(0, np.int64)
    n_neurons = source.layers[layer].n_neurons
    neurons = np.unique(np.linspace(0, n_neurons - 1, min(_PROBED_NEURONS, n_neurons)).astype(np.int64))
    rows = source.evaluate([layer], ids)[layer] if len(ids) else np.empty((0, n_neurons), np.float32)
    return {
        "ids": ids.tolist(),
        "neurons": neurons.tolist(),
        "values": rows[:, neurons].tolist(),
        "bits": [_bits(row) for row in rows],
    }


def _bits(row: NDArray[Any]) -> str:
    """A hash of one input's activations, -0.0 taken as 0.0."""
    return hashlib.blake2b((row + 0.0).tobytes(), digest_size=8).hexdigest()


def probe_differences(source: Source, layer: str, probes: Mapping[str, Any]) -> list[str]:
    """What is wrong with the probe inputs' activations: a deviation beyond what may be numerical."""
    ids, expected, rows = run_probes(source, layer, probes)
    if not len(ids):
        return []
    neurons = np.array(probes["neurons"], dtype=np.int64)
    values = rows[:, neurons].astype(np.float64)
    tolerance = source.tolerance(layer)
    allowed = np.zeros(len(neurons)) if tolerance is None else tolerance[neurons]
    wrong = ~(np.abs(values - expected) <= np.maximum(allowed, STALE_SHARE * _probe_scale(expected)))
    if not wrong.any():
        return []
    i, j = np.argwhere(wrong)[0].tolist()
    was, now = float(expected[i, j]), float(values[i, j])
    return [f"the model: input {int(ids[i])}, neuron {int(neurons[j])} of {layer} was {was!r}, is {now!r}"]


def probe_deviation(source: Source, layer: str, probes: Mapping[str, Any]) -> float:
    """How far the probes' activations lie from the indexed ones, as a share of a neuron's range; 0 if every bit agrees.

    Other hardware, kernels or versions may compute other bits though model and data are the same.
    """
    _, expected, rows = run_probes(source, layer, probes)
    if all(_bits(row) == bits for row, bits in zip(rows, probes["bits"], strict=False)):  # later probes may be gone
        return 0.0
    values = rows[:, np.array(probes["neurons"], dtype=np.int64)].astype(np.float64)
    return max(float((np.abs(values - expected) / _probe_scale(expected)).max()), float(np.finfo(rows.dtype).eps))


def run_probes(
    source: Source, layer: str, probes: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]:
    """The probes' ids int64 (n,), their stored values (n, neurons), and their activations as they are now (n, M)."""
    ids = np.array([i for i in probes["ids"] if i < source.n_inputs], dtype=np.int64)
    expected = np.array(probes["values"][: len(ids)], dtype=np.float64).reshape(len(ids), len(probes["neurons"]))
    if not len(ids):
        return ids, expected, np.empty((0, source.layers[layer].n_neurons), np.float32)
    return ids, expected, source.evaluate([layer], ids)[layer]


def _probe_scale(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a deviation is a share of: a neuron's largest probe, or a share of the layer's where that is small."""
    largest = np.abs(expected).max(axis=0)
    floor = max(float(largest.max()) / 20, float(np.finfo(np.float32).tiny))
    scale: NDArray[np.float64] = np.maximum(largest, floor)
    return scale


def hooks_in_words(stored: Mapping[str, Any], source: Source) -> str:
    """Which hooks of others came and went since a fingerprint was stored, or those there are; "" if there are none."""
    before, now = stored.get("environment", {}).get("hooks", []), source.hooks()
    changed = [f"{one} is new" for one in now if one not in before]
    changed += [f"{one} is gone" for one in before if one not in now]
    return ", ".join(changed or [one for one in now if not one.startswith("function")])
