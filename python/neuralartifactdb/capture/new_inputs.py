"""Inputs that are not in the dataset, as `nearest(input=x)` takes them: refused in words where the model would fail.

What reaches the model must look as it does for an input of the dataset. Implements design section 7, "A target".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from neuralartifactdb.capture.batches import tensors_of
from neuralartifactdb.capture.reduction import describe_value
from neuralartifactdb.errors import DtypeError, Error, InvalidValueError

__all__ = ["explained", "refuse_unlike"]


def refuse_unlike(item: Any, given: Any, like: Any, *, same_shape: bool) -> None:
    """Compare what of a new input reaches the model with what of one of the dataset does.

    Args:
        item: as the user gave it, for the message.
        given: its batch, as far as it reaches the model.
        like: the same of an input of the dataset.
        same_shape: whether all inputs of the dataset have one shape; else the number of axes must agree.

    Raises:
        TypeError: no tensor, or one of another dtype, in the place of a tensor. ValueError: one of another shape.
    """
    found, wanted = dict(tensors_of(given)), dict(tensors_of(like))
    if len(found) == len(wanted) == 1:  # by name or by position: the model gets the same
        found = dict(zip(wanted, found.values(), strict=True))
    for path, expected in wanted.items():
        words = f"{_dtype(expected)} of shape {list(expected.shape[1:])}"
        place = f" as {path[-1]!r}" if path and isinstance(path[-1], str) else ""
        tensor = found.get(path)
        if tensor is None:
            raise DtypeError(
                f"input= must be what the dataset gives for one input, for the model {words}{place}; got "
                f"{describe_value(item)}, which has none; convert it as the dataset does, as dataset[0] shows"
            )
        got = f"{_dtype(tensor)} of shape {list(tensor.shape[1:])}{place} (from {describe_value(item)})"
        if tensor.dtype != expected.dtype:
            raise DtypeError(
                f"input= must be what the dataset gives for one input, for the model {words}{place}; got {got}; "
                f"convert its values to {_dtype(expected)}, and scale them as the dataset does"
            )
        if tensor.shape[1:] != expected.shape[1:] and (same_shape or tensor.dim() != expected.dim()):
            raise InvalidValueError(
                f"input= must be what the dataset gives for one input, for the model {words}{place}; got {got}; give "
                "one input, without a batch axis, resized or padded as the dataset does"
            )


@contextlib.contextmanager
def explained(item: Any, like: Any) -> Iterator[None]:
    """Say of what fails inside that it was the new input, and what the dataset gives.

    Args:
        item: as the user gave it.
        like: what of an input of the dataset reaches the model, as a batch.

    Raises:
        TypeError: for a TypeError. ValueError: for what torch and indexing raise; other errors stay what they are.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        kind = DtypeError if isinstance(error, TypeError) else InvalidValueError
        expected = ", ".join(f"{_dtype(one)} of shape {list(one.shape[1:])}" for _, one in tensors_of(like))
        what = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
        raise kind(
            "input= must be what the dataset gives for one input"
            + (f" (of which the model gets {expected})" if expected else "")
            + f", got {describe_value(item)}, which failed: {what}"
        ) from error
    except Exception as error:
        error.add_note("neuralartifactdb was running the input given to the query as input=")
        raise


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
