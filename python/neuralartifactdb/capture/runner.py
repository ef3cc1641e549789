"""Running batches of inputs through a model and keeping what chosen layers give; the only place where a user's model
is called.

Used by `ModelSource` for probing, calibrating, building and querying alike, so that all of them see the same bits.
Implements design section 4, "Capture".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuralartifactdb.activations.source import LayerInfo
from neuralartifactdb.capture.batches import LengthRule, describe_mismatch, model_arguments, to_device, valid_positions
from neuralartifactdb.capture.datasets import InputReader
from neuralartifactdb.capture.hooks import ForwardPass, can_stop_early, never_ran
from neuralartifactdb.capture.layers import Target, by_layer
from neuralartifactdb.capture.model_state import model_device, quiet
from neuralartifactdb.capture.module_attributes import tensor_version
from neuralartifactdb.capture.moving_attributes import MovingAttributes
from neuralartifactdb.capture.new_inputs import explained, refuse_unlike
from neuralartifactdb.capture.options import Capture
from neuralartifactdb.capture.reduction import choose_tensor, compute_torch_dtype, make_reduction, storage_name, widen
from neuralartifactdb.capture.row_count import RowCount
from neuralartifactdb.errors import DtypeError, Error, InvalidValueError

__all__ = ["Runner", "SeenOutput", "padded_ids"]


@dataclass(frozen=True)
class SeenOutput:
    """What a probe saw of one layer: shapes with the batch axis, the padded length of the batch if it has one."""

    output_shape: tuple[int, ...] | None
    reduced_shape: tuple[int, ...]
    dtype: torch.dtype
    length: int | None


class Runner:
    """Forward passes of one model over one dataset, for a fixed set of targets.

    Attributes:
        rows: how many this thread sent through the model, padding included.
        firings: which firing counts, for targets whose module runs several times in a pass.
        moving: attributes of modules that these passes change: each call that runs the model looks for them.
        length_rule, length_multiple: padded lengths are rounded up to this multiple; see `LengthRule`.
    """

    def __init__(self, model: nn.Module, reader: InputReader, targets: Sequence[Target], capture: Capture) -> None:
        self.model = model
        self.reader = reader
        self.targets = {target.name: target for target in targets}
        self.device = model_device(model, capture.device)
        self.rows = RowCount()
        self.firings: dict[str, int] = {}
        self.moving = MovingAttributes(model if capture.forward is None else None)
        self.length_rule: LengthRule | None = None
        self._like: Any = None  # what of the first input reaches the model, as a batch
        self.length_multiple = 1
        self._capture = capture
        self.outputs = by_layer(capture.output, targets, None, "output")
        self.reductions = by_layer(capture.reduce, targets, None, "reduce")
        self._reduce = {name: make_reduction(how, name) for name, how in self.reductions.items()}
        self._stops_early = can_stop_early(model)

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, ids: Sequence[int]) -> Any:
        """The batch of `ids` as collated, on the host."""
        try:
            return self.reader.read(ids)
        except Error:
            raise
        except Exception as error:
            error.add_note(f"neuralartifactdb was reading inputs {_some(ids)} of the dataset")
            raise

    def model_inputs(self, batch: Any) -> Any:
        """What of a batch reaches the model: the part that a fingerprint must cover."""
        if self._capture.forward is not None:
            return batch
        arguments = model_arguments(self.model, batch)
        return [list(arguments.args), arguments.kwargs]

    def positions(self, batch: Any, n_rows: int) -> Tensor | None:
        """The valid positions of a batch, bool (n_rows, T) on the host, or None for all."""
        return valid_positions(batch, self._capture.positions, n_rows)

    def _prepare(self, batch: Any, ids: Sequence[int]) -> tuple[Any, Tensor | None]:
        """A batch on the model's device, at its final padded length, and its valid positions (on the host)."""
        valid = self.positions(batch, len(ids))
        if valid is not None:
            self._refuse_without_positions(valid, ids)
            if self.length_rule is not None and valid.shape[1] % self.length_multiple:
                batch = self.length_rule.lengthen(batch, valid.shape[1], self.length_multiple)
                valid = self.positions(batch, len(ids))
        return to_device(batch, self.device), valid

    def _refuse_without_positions(self, valid: Tensor, ids: Sequence[int]) -> None:
        if any(how is not None for how in self.reductions.values()):
            empty = (~valid.any(dim=1)).nonzero()
            if len(empty):
                raise InvalidValueError(
                    f"input {ids[int(empty[0])]} has no valid position (its mask excludes all), so there is nothing to "
                    "reduce; leave it out of the dataset, or say which positions count with Capture(positions=...)"
                )

    def _forward(self, batch: Any) -> Callable[[], Any]:
        forward = self._capture.forward
        if forward is not None:
            return lambda: forward(self.model, batch)
        arguments = model_arguments(self.model, batch)
        return lambda: self.model(*arguments.args, **arguments.kwargs)

    # ---- running -----------------------------------------------------------------------------------------------------

    def run(
        self,
        layers: Mapping[str, LayerInfo],
        batches: Sequence[tuple[NDArray[np.int64], int]],
        rows: NDArray[np.int64] | None = None,
        spare: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Activations of `layers` for batches of ids.

        Args:
            layers: {name: info} of those wanted; the pass stops after the last of them.
            batches: (int64 ids, shape); padded to `shape` by repeating the last id.
            rows: of the only batch, the rows to keep; None for all that are not padding.
            spare: arrays or tensors by layer that may be overwritten and returned.

        Returns:
            {layer: (n, M)} in compute dtype, on the model's device.
        """
        n_kept = sum(len(ids) for ids, _ in batches) if rows is None else len(rows)
        values = self._empty(layers, n_kept, spare)
        first = 0

        def run_one(ids: NDArray[np.int64], shape: int) -> None:
            nonlocal first
            n_rows = len(ids) if rows is None else n_kept
            into = {name: (info, values[name][first : first + n_rows]) for name, info in layers.items()}
            padded = padded_ids(ids, shape)
            self._run_batch(into, self.read(padded), padded, rows)
            first += n_rows

        self._quietly([partial(run_one, ids, shape) for ids, shape in batches])
        return values

    def run_items(
        self, layers: Mapping[str, LayerInfo], items: Sequence[Any], shape: int, *, same_shape: bool
    ) -> dict[str, Tensor]:
        """As `run`, for items that are not in the dataset, in batches of `shape`.

        Args:
            layers: {name: info} of those wanted.
            items: as the dataset would give them.
            shape: of the batches; padded by repeating the last item.
            same_shape: whether all inputs of the dataset have one shape, which these must have, too.

        Raises:
            TypeError, ValueError: an item that the model cannot take; says what the dataset gives.
        """
        values = self._empty(layers, len(items))

        def run_one(first: int) -> None:
            some = list(items[first : first + shape])
            into = {name: (info, values[name][first : first + len(some)]) for name, info in layers.items()}
            if self._like is None:
                self._like = self.model_inputs(self.read([0]))
            for item in some if self.reader.stacks else ():
                with explained(item, self._like):
                    given = self.model_inputs(self.reader.collate([item]))
                refuse_unlike(item, given, self._like, same_shape=same_shape)
            with explained(some[0], self._like):
                batch = self.reader.collate([*some, *[some[-1]] * (shape - len(some))])
                self._run_batch(into, batch, [-1] * shape, None)

        self._quietly([partial(run_one, first) for first in range(0, len(items), shape)])
        return values

    def _quietly(self, batches: Sequence[Callable[[], None]]) -> None:
        """Run batches with the model quiet. A Ctrl-C leaves after the one under way, with the state restored; where its
        handler returns, the rest follows."""
        done = 0
        while done < len(batches):
            with quiet(self.model, self.device) as interrupted, self.moving.watched(self.model):
                while done < len(batches) and not interrupted():
                    batches[done]()
                    done += 1

    def _empty(
        self, layers: Mapping[str, LayerInfo], n_rows: int, spare: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        empty: dict[str, Tensor] = {}
        for name, info in layers.items():
            held = (spare or {}).get(name)
            if held is not None and held.shape == (n_rows, info.n_neurons):
                empty[name] = torch.as_tensor(held)
                continue
            dtype = compute_torch_dtype(info.dtype)
            empty[name] = torch.empty((n_rows, info.n_neurons), dtype=dtype, device=self.device)
        return empty

    def _run_batch(
        self,
        into: Mapping[str, tuple[LayerInfo, Tensor]],
        batch: Any,
        ids: Sequence[int],
        rows: NDArray[np.int64] | None,
    ) -> None:
        try:
            batch, valid = self._prepare(batch, ids)
        except Error:
            raise
        except Exception as error:
            error.add_note(f"neuralartifactdb was preparing a batch of inputs {_some(ids)} for the model")
            raise

        def receive(name: str, output: Any) -> None:
            info, place = into[name]
            reduced = self._reduced(name, output, valid, len(ids))
            if tuple(reduced.shape[1:]) != (info.shape if reduced.dim() > 1 else ()) or (
                reduced.dim() == 1 and info.n_neurons != 1
            ):
                raise InvalidValueError(
                    f"layer {name!r} gave {list(reduced.shape)} for inputs {_some(ids)}, expected "
                    f"{[len(ids), *info.shape]} as for others; "
                    'outputs whose axes vary between batches need Capture(reduce="max"), "mean" or a function that '
                    "returns one shape"
                )
            if storage_name(reduced.dtype, name) != info.dtype:
                raise DtypeError(
                    f"layer {name!r} gave {reduced.dtype} for inputs {_some(ids)}, but {info.dtype} for others"
                )
            kept = reduced[: len(place)] if rows is None else reduced[torch.as_tensor(rows, device=reduced.device)]
            if kept.dtype in (torch.int64, torch.uint64):
                kept = widen(kept, name)  # checks that every integer is exact
            place.view(kept.shape).copy_(kept, non_blocking=True)

        targets = [self.targets[name] for name in into]
        passing = ForwardPass(targets, receive, firings=self.firings, stops_early=self._stops_early)
        try:
            passing.run(self._forward(batch))
        except Error:
            raise
        except Exception as error:
            error.add_note(f"neuralartifactdb was running the model on inputs {_some(ids)}")
            raise
        if passing.missing:
            raise never_ran(passing.missing, targets, f" over inputs {_some(ids)}")
        self.rows.n += len(ids)

    def count_firings(self, ids: Sequence[int]) -> dict[str, int]:
        """How often each target's module runs in one whole pass over `ids`.

        Raises:
            ValueError: the model does not take the batch; it writes into its own buffers in evaluation mode (they are
                put back).
        """
        with quiet(self.model, self.device), self.moving.watched(self.model):
            batch, _ = self._prepare(self.read(ids), ids)
            passing = ForwardPass(list(self.targets.values()), lambda name, output: None, stops_early=False)
            buffers = [(name, buffer, buffer.clone()) for name, buffer in self.model.named_buffers()]
            versions = [tensor_version(buffer) for _, buffer, _ in buffers]
            try:
                passing.run(self._forward(batch))
            except (Error, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                raise InvalidValueError(
                    f"the model did not run on a batch of the dataset: {type(error).__name__}: {error}. "
                    f"{describe_mismatch(self.model, batch)}"
                ) from error
            finally:
                written = _put_back(buffers, versions)
            self.rows.n += len(ids)
        if written:
            raise InvalidValueError(
                f"the model writes into its buffer {written[0]!r} when it runs in evaluation mode, so its values "
                "depend on what ran before (observers of quantisation-aware training, running counters); disable that "
                "first. The buffer was put back"
            )
        return passing.counts

    def probe(self, ids: Sequence[int]) -> dict[str, SeenOutput]:
        """What each target gives for a small batch, run to its end."""
        seen: dict[str, SeenOutput] = {}
        with quiet(self.model, self.device), self.moving.watched(self.model):
            batch, valid = self._prepare(self.read(ids), ids)
            length = None if valid is None else int(valid.shape[1])

            def receive(name: str, output: Any) -> None:
                chosen = choose_tensor(output, self.outputs[name], name)
                reduced = self._reduced(name, output, valid, len(ids))
                shape = None if chosen.is_nested else tuple(chosen.shape)
                seen[name] = SeenOutput(shape, tuple(reduced.shape), reduced.dtype, length)

            targets = list(self.targets.values())
            passing = ForwardPass(targets, receive, firings=self.firings, stops_early=False)
            passing.run(self._forward(batch))
            self.rows.n += len(ids)
        if passing.missing:
            raise never_ran(passing.missing, targets, f" over inputs {_some(ids)}")
        return seen

    def _reduced(self, name: str, output: Any, valid: Tensor | None, n_rows: int) -> Tensor:
        chosen = choose_tensor(output, self.outputs[name], name)
        if chosen.dim() == 0 or chosen.size(0) != n_rows:
            raise InvalidValueError(
                f"axis 0 of layer {name!r} does not follow the batch: {list(chosen.shape)} for {n_rows} inputs. Put "
                "the batch first, for example with Capture(output=lambda y: y.transpose(0, 1))"
            )
        reduced = self._reduce[name](chosen, None if valid is None else valid.to(chosen.device, non_blocking=True))
        if reduced.dim() == 0 or reduced.size(0) != n_rows:
            raise InvalidValueError(
                f"Capture.reduce for layer {name!r} must keep axis 0, the batch: got {list(reduced.shape)} for "
                f"{n_rows} inputs"
            )
        return reduced


def padded_ids(ids: NDArray[np.int64], shape: int) -> list[int]:
    """`ids` filled up to `shape` with repeats of the last one."""
    return [*ids.tolist(), *[int(ids[-1])] * (shape - len(ids))]


def _put_back(buffers: list[tuple[str, Tensor, Tensor]], versions: list[int]) -> list[str]:
    """Restore buffers that were written in place; their names."""
    written = []
    for (name, buffer, copy), version in zip(buffers, versions, strict=True):
        # tensors made under inference_mode count no versions
        if tensor_version(buffer) != version or (version < 0 and not torch.equal(buffer, copy)):
            buffer.copy_(copy)
            written.append(name)
    return written


def _some(ids: Sequence[int]) -> str:
    distinct = ["given to the query" if i < 0 else i for i in dict.fromkeys(ids)]
    return f"{', '.join(map(str, distinct[:4]))}{f' and {len(distinct) - 4} more' if len(distinct) > 4 else ''}"
