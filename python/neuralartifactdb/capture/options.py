"""`Capture`: how a model is run and what is kept of a layer's output. Public as `nadb.Capture`; imports no torch.

Options grow here instead of in parameter lists (design section 7). What each one does is design section 4, "Capture".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.quantities import parse_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["Capture", "OutputChoice", "Reduction"]

# : None, "max", "mean", ("max" | "mean", axis or axes), or a callable of the output (and, with two arguments, of the
# valid positions)
Reduction: TypeAlias = "str | tuple[str, int | tuple[int, ...]] | Callable[..., Any] | None"
#: a callable, or the index or key of the tensor inside a tuple, dict or dataclass
OutputChoice: TypeAlias = "Callable[[Any], Any] | int | str | None"

_NAMED = ("max", "mean")


@dataclass(frozen=True)
class Capture:
    """How to run the model and which scalar values of an output are its neurons.

    Args:
        batch_size: inputs per forward pass while building; every batch has this shape, the last one is padded. A
            `DataLoader`'s own batch size is taken unless this differs from the default.
        device: where batches are sent; None for the device of the model's parameters. The model itself is never moved.
        reduce: None: every value of the output is a neuron. "max" or "mean": over axis 1 of 3-D outputs (tokens) and
            axes 2, 3 of 4-D ones (pixels of NCHW). ("max", axes): over these axes of the output, whose axis 0 is the
            batch. A callable gets the output and returns (batch, ...); with two required arguments it also gets the
            valid positions, bool[B, T], or None. A dict gives one of these by layer name or glob; layers it does not
            name are not reduced.
        positions: batch -> bool[B, T], the positions that count in a reduction; by default the batch's
            `attention_mask`. It gets the batch as collated, on the host; None from it means all. A sum of maxima may
            come from different positions.
        collate_fn: list of items -> batch, as in `DataLoader`.
        forward: (model, batch) -> anything; runs the model when its arguments cannot be told from the batch.
        output: which tensor of an output that is a tuple, dict or dataclass; a callable is applied to any output. A
            dict gives this by layer.
        call: which firing of a module that runs several times in one forward pass, from 0; -1 is the last.
        num_workers: processes that read the dataset while the model runs.
        memory_limit: bytes above model and batch, as an int or a text such as "1GiB".
        seed: of every random choice (sampled inputs).

    Raises:
        TypeError, ValueError: an option that cannot be meant, with what is expected.

    Example:
        >>> Capture(batch_size=64, reduce="max").batch_size
        64
    """

    batch_size: int = 256
    device: str | torch.device | None = None
    reduce: Reduction | Mapping[str, Reduction] = None
    positions: Callable[[Any], Any] | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None
    forward: Callable[[Any, Any], Any] | None = None
    output: OutputChoice | Mapping[str, OutputChoice] = None
    call: int | None = None
    num_workers: int = 0
    memory_limit: int | str = "1GiB"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_int("batch_size", self.batch_size, at_least=1)
        _check_int("num_workers", self.num_workers, at_least=0)
        _check_int("seed", self.seed, at_least=0)
        if self.call is not None:
            _check_int("call", self.call, at_least=-1)
        for name in ("positions", "collate_fn", "forward"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise DtypeError(
                    f"Capture.{name} must be a function or None, got {value!r} of type {type(value).__name__}"
                )
        if isinstance(self.reduce, Mapping):
            for layer, one in self.reduce.items():
                _check_reduction(f"Capture.reduce[{layer!r}]", one)
        else:
            _check_reduction("Capture.reduce", self.reduce)
        outputs: list[tuple[str | None, Any]] = (
            list(self.output.items()) if isinstance(self.output, Mapping) else [(None, self.output)]
        )
        for key, choice in outputs:
            if (
                choice is not None
                and not callable(choice)
                and (isinstance(choice, bool) or not isinstance(choice, (int, str)))
            ):
                where = "Capture.output" if key is None else f"Capture.output[{key!r}]"
                raise DtypeError(f"{where} must be a function, an index, a key or None, got {choice!r}")
        if self.device is not None and not isinstance(self.device, str) and type(self.device).__name__ != "device":
            raise DtypeError(
                f'Capture.device must be a text such as "cuda:0", a torch.device or None, got {self.device!r}'
            )
        parse_bytes(self.memory_limit, "Capture.memory_limit")

    @property
    def memory_limit_bytes(self) -> int:
        """`memory_limit` as a number of bytes."""
        return parse_bytes(self.memory_limit, "Capture.memory_limit")


def _check_int(name: str, value: Any, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise DtypeError(f"Capture.{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < at_least:
        raise InvalidValueError(f"Capture.{name} must be at least {at_least}, got {value}")


def _check_reduction(where: str, value: Any) -> None:
    expected = 'None, "max", "mean", ("max", axes), ("mean", axes) or a function of the output'
    if value is None or (callable(value) and not isinstance(value, str)):
        return
    if isinstance(value, str):
        if value not in _NAMED:
            raise InvalidValueError(f"{where} must be {expected}, got {value!r}")
        return
    if not isinstance(value, tuple):
        raise DtypeError(f"{where} must be {expected}, got {value!r} of type {type(value).__name__}")
    if len(value) != 2 or value[0] not in _NAMED:
        raise InvalidValueError(f"{where} must be {expected}, got {value!r}")
    axes = value[1] if isinstance(value[1], tuple) else (value[1],)
    if not axes or any(isinstance(axis, bool) or not isinstance(axis, Integral) for axis in axes):
        raise DtypeError(f"{where} must give its axes as an int or a tuple of ints, got {value[1]!r}")
    if 0 in axes or len(set(axes)) != len(axes):
        raise InvalidValueError(f"{where} must give distinct axes other than 0, the batch, got {value[1]!r}")
