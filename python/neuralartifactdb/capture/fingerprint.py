"""Fingerprints: what must be the same for stored activations to be those of this model over this dataset, and what
else may differ.

A fingerprint is a dict of JSON values. "identity" decides whether an index is stale; "environment" only explains
deviations (device, kernels, versions, hooks), since equal bits are checked by running the stored probes. Implements
design section 4, "Fingerprint".
"""

from __future__ import annotations

import functools
import hashlib
import platform
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralartifactdb.activations.differences import Difference, DifferenceKind
from neuralartifactdb.capture.configuration import hook_names
from neuralartifactdb.capture.layers import plain_name
from neuralartifactdb.capture.module_attributes import OWN_NAMES, is_flag, is_function, seen_entries
from neuralartifactdb.capture.moving_attributes import MovingAttributes
from neuralartifactdb.capture.value_hash import hash_value

__all__ = [
    "compare_fingerprints",
    "describe_attributes",
    "describe_callable",
    "describe_environment",
    "describe_model",
    "same_model",
]

_MAX_GROUPS = 24
_MAX_ATTRIBUTES = 64
#: what of a description tells models apart
_IDENTITY = ("class", "dtypes", "hash")


# ---- the model -------------------------------------------------------------------------------------------------------


def describe_model(model: nn.Module) -> dict[str, Any]:
    """SHA-256 over names, dtypes, shapes and bytes of the whole `state_dict`, and of each top-level part of it.

    Returns:
        class, hash, parts {name: short hash} (so that a difference can be placed; none for models of more than 24
        parts), dtypes, and
        unsaved: the hash of buffers that `state_dict` leaves out (often mere caches).
    """
    whole = hashlib.sha256()
    parts: dict[str, Any] = {}
    dtypes: set[str] = set()
    state = model.state_dict()
    for name, value in state.items():
        digest = hash_value(value).encode()
        name = plain_name(name)
        whole.update(f"{name}\0".encode() + digest)
        parts.setdefault(name.split(".")[0], hashlib.sha256()).update(f"{name}\0".encode() + digest)
        dtypes.update(str(tensor.dtype).removeprefix("torch.") for _, tensor in _tensors({"": value}))
    unsaved = hashlib.sha256()
    for name, buffer in model.named_buffers():
        if name not in state:
            unsaved.update(f"{plain_name(name)}\0{hash_value(buffer)}".encode())
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "hash": whole.hexdigest(),
        "parts": {name: digest.hexdigest()[:12] for name, digest in parts.items()} if len(parts) <= _MAX_GROUPS else {},
        "dtypes": sorted(dtypes),
        "unsaved": unsaved.hexdigest()[:12],
    }


def same_model(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two results of `describe_model` are of the same model; buffers that are not saved do not count."""
    return all(first.get(name) == second.get(name) for name in _IDENTITY)


def describe_attributes(model: nn.Module, moving: MovingAttributes) -> dict[str, str]:
    """Short hashes, by name, of attributes of modules that are no flags: plain tensors, arrays, dicts, private ones.

    Where probes give other bits, they say what changed; by themselves they decide nothing, for libraries keep books in
    such attributes.

    Args:
        model: the whole model.
        moving: those that passes keep changing are left out; flags that one pass changed are taken in.
    """
    parts: dict[str, Any] = {}
    restless = moving.restless()
    for i, module in enumerate(model.modules()):
        moved = moving.get(module) or {}
        for name, value in list(vars(module).items()):
            if name in OWN_NAMES or name in restless or is_function(value):
                continue
            if name[:1] == "_" or name in moved or not is_flag(value):
                digest = parts.setdefault(f".{name}", hashlib.sha256())
                for path, one in seen_entries(value):
                    plain = isinstance(one, (Tensor, np.ndarray)) and not isinstance(one, nn.Parameter)
                    kind = type(one).__qualname__
                    digest.update(f"{i} {path!r} {hash_value(one) if plain or is_flag(one) else kind}\0".encode())
    return {name: digest.hexdigest()[:12] for name, digest in sorted(parts.items())[:_MAX_ATTRIBUTES]}


def _tensors(value: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for key, one in value.items():
        if isinstance(one, Tensor):
            yield key, one


# ---- callables -------------------------------------------------------------------------------------------------------


def describe_callable(function: Any) -> str:
    """A name for a callable, with a hash of its code where there is any, so that an edited lambda is told apart."""
    if isinstance(function, functools.partial):
        inner = ", ".join([*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())])
        return f"partial({describe_callable(function.func)}, {inner})"
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None) or getattr(vars(type(function)).get("__call__"), "__code__", None)
    if not isinstance(code, types.CodeType):
        return name
    digest = hashlib.sha256()
    for piece in _code_pieces(code):
        digest.update(piece.encode())
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_filled(cell)]
    for value in [*cells, *(getattr(function, "__defaults__", None) or ())]:
        if isinstance(value, (int, float, str, tuple, type(None))):
            digest.update(repr(value).encode())
    return f"{name}#{platform.python_version().rpartition('.')[0]}:{digest.hexdigest()[:12]}"


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is bound later
        return False


def _code_pieces(code: types.CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_pieces(constant)
        elif not isinstance(constant, frozenset):  # its order differs from process to process
            yield repr(constant)


# ---- the environment -------------------------------------------------------------------------------------------------


def describe_environment(model: nn.Module, device: torch.device) -> dict[str, Any]:
    """What may change bits of the same model and data: versions, device, numeric switches, foreign hooks."""
    environment: dict[str, Any] = {
        "torch": str(torch.__version__),
        "device": device.type,
        "device name": _device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "matmul precision": _quietly(torch.get_float32_matmul_precision),
        "allow_tf32 (matmul)": _quietly(lambda: torch.backends.cuda.matmul.allow_tf32),
        "allow_tf32 (cudnn)": _quietly(lambda: torch.backends.cudnn.allow_tf32),
        "reduced precision (fp16)": _quietly(lambda: torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
        "reduced precision (bf16)": _quietly(lambda: torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": _quietly(lambda: torch.backends.mkldnn.enabled),
        "flush denormals": _flushes_denormals(),
        "attention kernels": _attention_kernels(),
        "autocast": _autocast(device),
        "hooks": hook_names(model),
    }
    return environment


def _quietly(read: Callable[[], Any]) -> Any:
    """A switch's value; torch raises or warns where its old and new names for one switch are mixed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = read()
        except (RuntimeError, AttributeError):
            return "unknown"
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type


def _flushes_denormals() -> bool:
    return bool((torch.tensor([1e-40], dtype=torch.float32, device="cpu") * 1.0 == 0).item())


def _attention_kernels() -> list[str]:
    cuda = torch.backends.cuda
    switches = {
        "flash": cuda.flash_sdp_enabled,
        "memory efficient": cuda.mem_efficient_sdp_enabled,
        "math": cuda.math_sdp_enabled,
        "cudnn": getattr(cuda, "cudnn_sdp_enabled", lambda: False),
    }
    return [name for name, enabled in switches.items() if _quietly(enabled)]


def _autocast(device: torch.device) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not torch.is_autocast_enabled(device.type):
            return None
        return str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")


# ---- inputs, comparison ----------------------------------------------------------------------------------------------


def compare_fingerprints(
    stored: Mapping[str, Any], current: Mapping[str, Any], *, part: str = "all"
) -> list[Difference]:
    """What differs, most telling first; empty if nothing does.

    Args:
        stored: as kept with an index.
        current: of the attached model, from `fingerprint(layer, like=stored)` so that the same inputs are hashed.
        part: "identity" (the index is stale), "environment" (bits may differ), or "all".
    """
    differences: list[Difference] = []
    if part in ("all", "identity"):
        differences += [Difference(DifferenceKind.SOURCE, text) for text in _identity_differences(stored, current)]
    if part in ("all", "environment"):
        before, now = stored.get("environment", {}), current.get("environment", {})
        differences += [
            Difference(
                DifferenceKind.HOOKS if name == "hooks" else DifferenceKind.MACHINE,
                f"{name}: {before.get(name)!r} when indexed, now {now.get(name)!r}",
            )
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name)
        ]
        unsaved = [one.get("model", {}).get("unsaved") for one in (stored, current)]
        if unsaved[0] != unsaved[1]:
            differences.append(Difference(DifferenceKind.BESIDE, "buffers that are not part of state_dict differ"))
        names = _changed_attributes(stored, current)
        if names:
            text = f"attributes of modules: {', '.join(names[:8])} differ"
            differences.append(Difference(DifferenceKind.BESIDE, text))
    return differences


def _changed_attributes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Names of attributes of modules that are no flags and differ; see `describe_attributes`."""
    before, now = stored.get("attributes"), current.get("attributes")
    if before is None or now is None:
        return []
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]


def _identity_differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    before, now = stored.get("model", {}), current.get("model", {})
    differences = []
    for name, words in (("class", "the model's class"), ("dtypes", "the dtypes of weights and buffers")):
        if before.get(name) != now.get(name):
            differences.append(f"{words}: {_short(before.get(name))} when indexed, now {_short(now.get(name))}")
    if before.get("hash") != now.get("hash"):
        parts = before.get("parts") or {}
        changed = [
            name
            for name in dict.fromkeys([*parts, *now.get("parts", {})])
            if parts.get(name) != now.get("parts", {}).get(name)
        ]
        differences.append("weights or buffers" + (f" in {', '.join(changed[:8])}" if changed else ""))
    pairs = [(name, stored.get(name), current.get(name)) for name in ("layer", "shape", "dtype")]
    options = [one.get("capture", {}) for one in (stored, current)]
    pairs += [
        (f"capture's {name}", options[0].get(name), options[1].get(name))
        for name in dict.fromkeys([*options[0], *options[1]])
    ]
    differences += [
        f"{name}: {_short(first)} when indexed, now {_short(second)}"
        for name, first, second in pairs
        if not _same_option(first, second)
    ]
    return differences + _input_differences(stored.get("inputs", {}), current.get("inputs", {}))


def _same_option(first: Any, second: Any) -> bool:
    """Equality; callables agree in their code, which only one version of Python writes the same way."""
    if isinstance(first, str) and isinstance(second, str) and "#" in first and "#" in second:
        codes = [one.rpartition("#")[2].partition(":") for one in (first, second)]
        return codes[0][0] != codes[1][0] or codes[0][2] == codes[1][2]
    return bool(first == second)


def _input_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if now.get("n", 0) < before.get("n", 0):
        return [f"the dataset: {before.get('n')} inputs when indexed, now {now.get('n')}"]
    current = dict(zip(now.get("ids", []), now.get("hashes", []), strict=True))
    changed = [i for i, digest in _pairs(before) if i in current and current[i] != digest]
    if changed:
        return [
            f"the dataset: input {', '.join(map(str, changed[:4]))}{' and more' if len(changed) > 4 else ''} is not "
            "what was indexed"
        ]
    return []


def _pairs(inputs: Mapping[str, Any]) -> Sequence[tuple[int, str]]:
    return list(zip(inputs.get("ids", []), inputs.get("hashes", []), strict=True))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."
