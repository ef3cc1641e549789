"""The plain loop that a PyTorch user writes: run the model batch by batch, hook one layer, stop early.

It captures the ground truth, is the "recompute everything" competitor's engine, and evaluates inputs for NTA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Reduce", "forward_rows", "stream_rows"]

Reduce = Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]
"""(output of the layer, the batch) -> [batch, ...]: what the neurons of a layer are."""


class _StopForward(BaseException):
    """Ends a forward pass once the layer has fired."""


def forward_rows(
    model: torch.nn.Module, layers: Sequence[str], batch: Sequence[torch.Tensor], reduce: Reduce | None = None
) -> dict[str, torch.Tensor]:
    """Activations of some layers for one batch, float[b, M] each; stops after the last one that fires.

    Args:
        model: in eval mode.
        layers: dotted names.
        batch: the model's arguments.
        reduce: from the layer's output to one row per input; None takes all values.
    """
    rows: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, arguments: Any, output: torch.Tensor) -> None:
            value = output if reduce is None else reduce(output, batch)
            rows[name] = value.flatten(1).clone()
            if len(rows) == len(layers):
                raise _StopForward

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.no_grad():
            model(*batch)
    except _StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return rows


def stream_rows(
    model: torch.nn.Module,
    layers: Sequence[str],
    inputs: Sequence[NDArray[Any]],
    *,
    batch_size: int,
    reduce: Reduce | None = None,
    fused: bool = False,
) -> Iterator[tuple[slice, dict[str, NDArray[np.float32]]]]:
    """Activations of all inputs, batch by batch, in order; the last batch is padded with its last input.

    Args:
        model: in eval mode.
        layers: dotted names.
        inputs: the model's arguments for all inputs, axis 0 is the input.
        batch_size: inputs per forward pass.
        reduce: see `forward_rows`.
        fused: whether torch may use its fused transformer layers. They round differently, and torch uses them for just
            the layers without hooks; so the ground truth is taken without.
    """
    n = len(inputs[0])
    allowed = torch.backends.mha.get_fastpath_enabled()
    for first in range(0, n, batch_size):
        last = min(first + batch_size, n)
        ids = np.minimum(np.arange(first, first + batch_size), n - 1)
        if last - first == batch_size:
            batch = [torch.from_numpy(array[first:last]) for array in inputs]
        else:
            batch = [torch.from_numpy(array[ids]) for array in inputs]
        torch.backends.mha.set_fastpath_enabled(fused)
        try:
            rows = forward_rows(model, layers, batch, reduce)
        finally:
            torch.backends.mha.set_fastpath_enabled(allowed)
        yield slice(first, last), {name: value.numpy()[: last - first] for name, value in rows.items()}
