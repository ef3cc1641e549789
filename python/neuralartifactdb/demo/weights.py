"""Weights of the demo's networks on disk: plain arrays, with the settings that they were trained with.

A file of other settings, or a damaged one, counts as absent, so that a run never uses what it would not have made
itself. (Issue 2: the demo.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralartifactdb.demo.network import build_network

if TYPE_CHECKING:
    import torch

__all__ = ["load_weights", "save_weights"]

_SETTINGS = "__settings__"


def save_weights(path: Path, network: torch.nn.Sequential, settings: str) -> None:
    """Write them; the file gets its name when it is whole.

    Args:
        path: of the file, replaced if it exists.
        network: as `train_network` returns it.
        settings: what the weights depend on, as text.
    """
    arrays: dict[str, Any] = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    arrays[_SETTINGS] = np.array(settings)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(path: Path, settings: str) -> torch.nn.Sequential | None:
    """The network as saved, in eval mode, or None if there is none that was trained with these settings."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = dict(held)
    except (OSError, ValueError, EOFError):
        return None
    if str(arrays.pop(_SETTINGS, "")) != settings:
        return None
    network = build_network()
    import torch

    try:
        network.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    except (RuntimeError, TypeError):
        return None
    return network.eval()
