"""Capture: running a torch model over a dataset and keeping what chosen layers compute, the model left as it was.

This folder is the only code of the package that imports torch, and it does so on first use: importing `capture` or
`Capture` needs no torch. Implements design section 4, "Capture" and "What exact means".
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neuralartifactdb.capture.options import Capture
from neuralartifactdb.errors import ExtraMissingError

if TYPE_CHECKING:
    from neuralartifactdb.capture.device_encoder import TorchSegmentEncoder
    from neuralartifactdb.capture.fingerprint import compare_fingerprints
    from neuralartifactdb.capture.model_source import ModelSource

__all__ = ["Capture", "ModelSource", "TorchSegmentEncoder", "compare_fingerprints"]

_HOMES = {"ModelSource": "model_source", "TorchSegmentEncoder": "device_encoder", "compare_fingerprints": "fingerprint"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "torch":
            raise ExtraMissingError(
                "indexing a model needs torch, which is not installed; pip install 'neuralartifactdb[torch]', or give "
                "the activations themselves to index_arrays or index_function"
            ) from error
        raise


def __dir__() -> list[str]:
    return __all__
