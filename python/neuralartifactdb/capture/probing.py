"""Two small batches tell what an index must know before it is built: which firing counts, each layer's shape and dtype.

They also find what cannot be indexed as asked, each with the argument that mends it: modules that never run or run
several times, outputs that do not follow the batch or vary in shape, padded positions. Implements design section 4,
"Capture" (errors).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.source import LayerInfo
from neuralartifactdb.capture.batches import learn_length_rule
from neuralartifactdb.capture.calibration import choose_multiple
from neuralartifactdb.capture.hooks import never_ran
from neuralartifactdb.capture.reduction import storage_name
from neuralartifactdb.capture.runner import Runner, SeenOutput
from neuralartifactdb.errors import InvalidValueError

__all__ = ["learn_lengths", "probe_layers"]

_N_LENGTHS = 64
_LENGTHS_S = 0.25


def probe_layers(runner: Runner, n_inputs: int, build_batch: int, call: int | None, seed: int) -> dict[str, LayerInfo]:
    """Set `runner.firings` and return {layer: LayerInfo}.

    Args:
        runner: its targets are probed.
        n_inputs: of the dataset.
        build_batch: no probe has more rows, for models that take one shape only.
        call: `Capture.call`.
        seed: of the probed inputs.

    Raises:
        ValueError: see the module.
    """
    rng = np.random.default_rng([seed, n_inputs, 1])
    sizes = (2, 3) if build_batch >= 3 else tuple(range(1, build_batch + 1))
    counts = runner.count_firings(rng.integers(0, n_inputs, sizes[0]).tolist())
    runner.firings = _choose_firings(runner, counts, call)
    seen = [runner.probe(rng.integers(0, n_inputs, size).tolist()) for size in sizes]
    return {name: _layer_info(name, [one[name] for one in seen], runner.reductions[name]) for name in runner.targets}


def _choose_firings(runner: Runner, counts: Mapping[str, int], call: int | None) -> dict[str, int]:
    targets = list(runner.targets.values())
    never = [name for name, count in counts.items() if count == 0]
    if never:
        raise never_ran(never, targets, "")
    chosen: dict[str, int] = {}
    for name, count in counts.items():
        if count == 1:
            continue
        if call is None:
            raise InvalidValueError(
                f"layer {name!r} runs {count} times in one forward pass; say which one counts with Capture(call=i), i "
                f"from 0 to {count - 1}, or -1 for the last"
            )
        if call >= count:
            raise InvalidValueError(
                f"Capture.call={call} but layer {name!r} runs {count} times in one forward pass, from 0 to {count - 1}"
            )
        chosen[name] = call % count
    return chosen


def _layer_info(name: str, seen: list[SeenOutput], how: object) -> LayerInfo:
    shapes = {one.reduced_shape[1:] for one in seen}
    if how is None:
        padded = [
            one for one in seen if one.length is not None and one.output_shape is not None and len(one.output_shape) > 2
        ]
        if any(one.output_shape[1] == one.length for one in padded if one.output_shape is not None):
            raise InvalidValueError(
                f"layer {name!r} gives one vector for each position, {list(seen[0].output_shape or ())}, and the batch "
                "has a mask of positions: "
                'reduce them with Capture(reduce="max") or "mean", which leave padding out; or keep them all with '
                "Capture(positions=lambda batch: None)"
            )
    if len(shapes) > 1:
        given = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise InvalidValueError(
            f"the output of layer {name!r} varies between batches (for one input {given}), so its values are not the "
            "same neurons; "
            + (
                'reduce it with Capture(reduce="max") or "mean"'
                if how is None
                else "Capture.reduce must return one shape for all batches"
            )
        )
    shape = shapes.pop() or (1,)
    if 0 in shape:
        raise InvalidValueError(f"layer {name!r} has no neurons: its output for one input is {list(shape)}")
    return LayerInfo(tuple(int(axis) for axis in shape), storage_name(seen[0].dtype, name))


def learn_lengths(
    runner: Runner,
    layers: Mapping[str, LayerInfo],
    n_inputs: int,
    build_batch: int,
    seed: int,
    stored_multiple: int | None,
) -> None:
    """Where inputs differ in padded length, set the rule and multiple that free values from their neighbours' lengths.

    Args:
        runner: its `length_rule` and `length_multiple` are set.
        layers: {name: info} as probed.
        n_inputs: of the dataset.
        build_batch: the build's batch shape.
        seed: of the inputs looked at.
        stored_multiple: of an existing index, taken over; None to find one.
    """
    if build_batch < 2 or n_inputs < 2 or stored_multiple == 1:
        return
    lengths = _lengths(runner, n_inputs, seed)
    if len(set(lengths.values())) < 2:
        return
    by_length = sorted(lengths, key=lambda i: (lengths[i], i))
    short, long = [by_length[0]], [by_length[-1], by_length[0]]
    batches = [runner.read(ids) for ids in (short, long)]
    masks = [runner.positions(batch, len(ids)) for batch, ids in zip(batches, (short, long), strict=True)]
    if masks[0] is None or masks[1] is None:
        return
    runner.length_rule = learn_length_rule(batches[0], masks[0], batches[1], masks[1])
    if runner.length_rule is None:
        return
    if stored_multiple is not None:
        runner.length_multiple = stored_multiple
        return

    def run(ids: NDArray[np.int64], rows: NDArray[np.int64], multiple: int) -> dict[str, NDArray[Any]]:
        runner.length_multiple = multiple
        return {name: values.cpu().numpy() for name, values in runner.run(layers, [(ids, len(ids))], rows).items()}

    runner.length_multiple = choose_multiple(run, lengths, build_batch) or 1


def _lengths(runner: Runner, n_inputs: int, seed: int) -> dict[int, int]:
    """Padded lengths of single inputs, of at most 64 or as many as a quarter of a second allows."""
    lengths: dict[int, int] = {}
    deadline = time.perf_counter() + _LENGTHS_S
    drawn = np.random.default_rng([seed, n_inputs, 2]).permutation(n_inputs) if n_inputs <= 1 << 20 else None
    ids = (
        drawn[:_N_LENGTHS] if drawn is not None else np.random.default_rng([seed, 2]).integers(0, n_inputs, _N_LENGTHS)
    )
    for i in ids.tolist():
        valid = runner.positions(runner.read([i]), 1)
        if valid is None:
            return {}
        lengths[i] = int(valid.shape[1])
        if time.perf_counter() > deadline and len(lengths) >= 8:
            break
    return lengths
