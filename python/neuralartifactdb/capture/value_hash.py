"""Hashes of nested values: weights, attributes of modules, and what a dataset gives for an input.

The same in every process, so they leave out what lies where in memory. Implements design section 4, "Fingerprint".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralartifactdb.capture.module_attributes import int_text

__all__ = ["hash_value"]


def hash_value(value: Any) -> str:
    """SHA-256 (hex) of a nested value: tensors and arrays by dtype, shape and bytes, containers entry by entry."""
    digest = hashlib.sha256()
    for piece in _pieces(value):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    if isinstance(value, Tensor):
        yield from _tensor_pieces(value)
    elif isinstance(value, (np.ndarray, np.void)) and value.dtype.hasobject and value.dtype.names:
        yield f"fields {value.shape} ".encode()
        for name in value.dtype.names:
            yield f"{name!r}:".encode()
            yield from _pieces(value[name])
    elif isinstance(value, np.ndarray) and value.dtype.hasobject and not value.ndim:
        yield b"array of one "
        yield from _pieces(value.item())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"array {value.dtype.str} {value.shape} ".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)} ".encode()
        for key in value:
            yield f"{_text(key)}:".encode()
            yield from _pieces(value[key])
    elif isinstance(value, (tuple, list, np.ndarray)):
        yield f"sequence {len(value)} ".encode()
        for one in value:
            yield from _pieces(one)
    elif isinstance(value, bytes):
        yield f"bytes {len(value)} ".encode() + value
    elif value is None or isinstance(value, (str, int, float, complex, bool, np.generic, torch.dtype)):
        yield f"{type(value).__name__} {_text(value)} ".encode()
    elif callable(getattr(value, "tobytes", None)):  # PIL images and array scalars of other libraries
        yield f"{type(value).__qualname__} {getattr(value, 'size', '')} {getattr(value, 'mode', '')} ".encode()
        yield value.tobytes()
    elif hasattr(value, "__dict__") and not callable(value):
        yield f"{type(value).__qualname__} ".encode()
        yield from _pieces({key: one for key, one in vars(value).items() if not key.startswith("__")})
    else:
        yield f"{type(value).__module__}.{type(value).__qualname__} ".encode()


def _text(value: Any) -> str:
    return int_text(value) if type(value) is int else repr(value)


def _tensor_pieces(tensor: Tensor) -> Iterator[bytes | memoryview]:
    tensor = tensor.detach()
    yield f"tensor {tensor.dtype} {tuple(tensor.shape) if not tensor.is_nested else 'nested'} ".encode()
    if tensor.device.type == "meta":
        yield b"meta"
    elif tensor.is_nested:
        for one in tensor.unbind():
            yield from _tensor_pieces(one)
    elif tensor.is_quantized:
        yield from _tensor_pieces(tensor.int_repr())
        yield repr(tensor.qscheme()).encode()
        per_channel = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        yield repr(
            tensor.q_per_channel_scales().tolist() if per_channel else (tensor.q_scale(), tensor.q_zero_point())
        ).encode()
    elif tensor.layout != torch.strided:
        dense = tensor.to_dense()
        yield from _tensor_pieces(dense)
    else:
        if hasattr(tensor, "full_tensor"):  # sharded over devices
            tensor = tensor.full_tensor()
        host = tensor.to("cpu").contiguous().resolve_conj().resolve_neg().reshape(-1)
        yield host.view(torch.uint8).numpy().data
