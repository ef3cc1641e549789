"""Reading inputs by id from whatever users have: map-style datasets, lists, arrays, dicts of arrays, DataLoaders.

Exact answers re-read single inputs, so a dataset must have `len()` and give the same item for the same id every time;
one that cannot is refused with the line that helps. Implements design section 4, "Capture" (datasets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from neuralartifactdb.capture.fingerprint import describe_callable
from neuralartifactdb.capture.options import Capture
from neuralartifactdb.errors import DtypeError, InvalidValueError

__all__ = ["InputReader", "open_reader"]


class InputReader:
    """Batches of inputs by id.

    Args:
        dataset: with `len()` and access by position.
        collate_fn: list of items -> batch; None for arrays, whose rows are the inputs.
        batch_size: what a DataLoader that was given asks for, or None.
        num_workers: as in DataLoader.
    """

    def __init__(
        self,
        dataset: Any,
        collate_fn: Callable[[list[Any]], Any] | None,
        *,
        batch_size: int | None = None,
        num_workers: int = 0,
        worker_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._dataset = dataset
        self._collate_fn = collate_fn
        self.batch_size = batch_size
        self._num_workers = num_workers
        self._worker_options = dict(worker_options or {})
        self.n_inputs = len(_first_array(dataset)) if collate_fn is None else len(dataset)
        self._ahead: Iterator[tuple[list[int], Any]] | None = None

    def read(self, ids: Sequence[int]) -> Any:
        """The batch of `ids` in this order; an id may come several times and is read once."""
        wanted = list(ids)
        if self._ahead is not None:
            announced, batch = next(self._ahead, (None, None))
            if announced == wanted:
                return batch
            self._ahead = None  # another order than announced: read directly from here on
        return self._read_now(wanted)

    def announce(self, batches: Sequence[Sequence[int]]) -> None:
        """Say which batches will be read next, so that worker processes (if any) read ahead of the model."""
        self._ahead = None
        if self._num_workers and batches:
            loader = DataLoader(
                _Batches(self, [list(ids) for ids in batches]),
                batch_size=None,
                sampler=SequentialSampler(range(len(batches))),
                num_workers=self._num_workers,
                collate_fn=_unchanged,
                **self._worker_options,
            )
            self._ahead = iter(loader)

    @property
    def stacks(self) -> bool:
        """Whether items are stacked as they are, so that all have one dtype and, in batches of several, one shape."""
        return self._collate_fn in (None, default_collate)

    def collate_name(self) -> str:
        """How items become batches, for the fingerprint."""
        return "default" if self.stacks else describe_callable(self._collate_fn)

    def close(self) -> None:
        """Let go of worker processes."""
        self._ahead = None

    def _read_now(self, ids: list[int]) -> Any:
        if self._collate_fn is None:
            return _rows(self._dataset, ids)
        distinct = list(dict.fromkeys(ids))
        many = getattr(self._dataset, "__getitems__", None)
        items = many(distinct) if many else [self._dataset[i] for i in distinct]
        by_id = dict(zip(distinct, items, strict=True))
        return self.collate([by_id[i] for i in ids])

    def collate(self, items: list[Any]) -> Any:
        """Items, in the form in which the dataset gives them, as a batch."""
        if self._collate_fn is not None and self._collate_fn is not default_collate:
            return self._collate_fn(items)
        _refuse_number_lists(items[0])
        try:
            return default_collate(items)
        except (TypeError, RuntimeError, ValueError, KeyError) as error:
            raise _not_collatable(items, error) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": None}


def _unchanged(batch: Any) -> Any:
    return batch


class _Batches(Dataset[Any]):
    """A dataset of whole batches, for DataLoader's workers."""

    def __init__(self, reader: InputReader, batches: list[list[int]]) -> None:
        self._reader = reader
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[list[int], Any]:
        ids = self._batches[number]
        return ids, self._reader._read_now(ids)


def open_reader(dataset: Any, capture: Capture) -> InputReader:
    """The reader for a dataset.

    Raises:
        TypeError, ValueError: no `len()`, an order of its own, no inputs; with the line that helps.
    """
    if isinstance(dataset, DataLoader):
        return _open_loader(dataset, capture)
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DtypeError(
            "the dataset must have len() and access by position, since queries read single inputs again; got "
            f"{type(dataset).__name__}. Materialise it first: dataset = list(dataset)"
        )
    if isinstance(dataset, (str, bytes)):
        raise DtypeError(f"the dataset must be a collection of inputs, got {type(dataset).__name__}; load it first")
    is_arrays = _is_array(dataset) or type(dataset) is TensorDataset or isinstance(dataset, Mapping)
    if is_arrays:
        _check_arrays(dataset)
    collate_fn = capture.collate_fn
    if collate_fn is not None and isinstance(dataset, Mapping):
        dataset = _Rows(dataset)
    if collate_fn is None and not is_arrays:
        collate_fn = default_collate
    reader = InputReader(dataset, collate_fn, num_workers=capture.num_workers)
    if reader.n_inputs == 0:
        raise InvalidValueError("the dataset has no inputs; a model can only be indexed over at least one")
    return reader


def _open_loader(loader: DataLoader[Any], capture: Capture) -> InputReader:
    helping = "pass the dataset itself, loader.dataset, with capture=Capture(batch_size=..., collate_fn=...)"
    if isinstance(loader.dataset, IterableDataset):
        raise DtypeError(
            "the DataLoader's dataset is iterable, without len() and access by position, and queries read single "
            "inputs again; materialise it first: dataset = list(loader.dataset)"
        )
    if isinstance(loader.sampler, RandomSampler):
        raise InvalidValueError(
            f"the DataLoader shuffles, so a position would not name an input; use shuffle=False, or {helping}"
        )
    if loader.drop_last:
        raise InvalidValueError(
            f"the DataLoader drops the last inputs (drop_last=True); use drop_last=False, or {helping}"
        )
    batch_sampler = loader.batch_sampler
    if batch_sampler is None or type(batch_sampler) is not torch.utils.data.BatchSampler:
        raise InvalidValueError(
            "the DataLoader forms batches of its own "
            f"({type(batch_sampler).__name__ if batch_sampler else 'batch_size=None'}); {helping}"
        )
    if type(loader.sampler) is not SequentialSampler:
        raise InvalidValueError(
            f"the DataLoader reads in an order of its own ({type(loader.sampler).__name__}), so a position would not "
            f"name an input; index a torch.utils.data.Subset for a part, or {helping}"
        )
    reader = InputReader(
        loader.dataset,
        capture.collate_fn or loader.collate_fn,
        batch_size=loader.batch_size,
        num_workers=capture.num_workers or loader.num_workers,
        worker_options={
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
        },
    )
    if reader.n_inputs == 0:
        raise InvalidValueError("the DataLoader's dataset has no inputs; a model can only be indexed over at least one")
    return reader


# ---- arrays: rows are inputs -----------------------------------------------------------------------------------------


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _arrays(dataset: Any) -> list[tuple[str, Any]]:
    if _is_array(dataset):
        return [("the array", dataset)]
    if isinstance(dataset, TensorDataset):
        return [(f"tensor {i}", tensor) for i, tensor in enumerate(dataset.tensors)]
    return [(f"entry {key!r}", value) for key, value in dataset.items()]


def _first_array(dataset: Any) -> Any:
    return _arrays(dataset)[0][1]


def _check_arrays(dataset: Any) -> None:
    arrays = _arrays(dataset)
    if not arrays:
        raise InvalidValueError("the dataset is an empty dict; give at least one array of inputs")
    for name, array in arrays:
        if not _is_array(array):
            raise DtypeError(
                f"{name} of the dataset must be a tensor or array whose axis 0 is the input, got "
                f"{type(array).__name__}; give ragged or mixed inputs as a list of dicts with Capture(collate_fn=...)"
            )
        if array.ndim < 1:
            raise InvalidValueError(
                f"{name} of the dataset must have an axis of inputs, got shape {tuple(array.shape)}"
            )
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc":
            raise DtypeError(
                f"{name} of the dataset must be numeric, got dtype {array.dtype}; convert it first, or give a list"
            )
    lengths = {name: len(array) for name, array in arrays}
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"the arrays of the dataset must agree in their number of inputs, got {lengths}")


def _take(array: Any, ids: list[int]) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach()[torch.tensor(ids, dtype=torch.int64, device=array.device)]
    rows = array[np.asarray(ids, dtype=np.int64)]
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("=")))


def _rows(dataset: Any, ids: list[int]) -> Any:
    if _is_array(dataset):
        return _take(dataset, ids)
    if isinstance(dataset, TensorDataset):
        return tuple(_take(tensor, ids) for tensor in dataset.tensors)
    return {key: _take(array, ids) for key, array in dataset.items()}


class _Rows:
    """A dict of arrays as a sequence of dicts, for a `collate_fn` of the user's."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(_first_array(self._arrays))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {key: array[index] for key, array in self._arrays.items()}


def _refuse_number_lists(item: Any) -> None:
    """default_collate turns lists of numbers into a list of columns, which no model takes."""
    for key, one in item.items() if isinstance(item, Mapping) else []:
        if isinstance(one, list) and one and isinstance(one[0], (int, float)):
            raise InvalidValueError(
                f"the dataset gives lists of numbers (entry {key!r}, of length {len(one)}); give tensors (a Hugging "
                "Face dataset: "
                'dataset.with_format("torch")), and Capture(collate_fn=...) where they differ in length'
            )


def _not_collatable(items: list[Any], error: Exception) -> Exception:
    """What default_collate could not stack, and the line that helps."""
    shapes = sorted({tuple(tensor.shape) for item in items for tensor in _leading_tensors(item)})
    kind = type(items[0]).__name__
    if any(type(one).__module__.split(".")[0] == "PIL" for item in items[:1] for one in _leaves(item)):
        return DtypeError(
            "the dataset gives PIL images; make tensors of them, for example with "
            f"transform=torchvision.transforms.ToTensor(), or with Capture(collate_fn=...) ({error})"
        )
    if len(shapes) > 1:
        return InvalidValueError(
            f"the inputs of a batch differ in shape, for example {list(shapes[0])} and {list(shapes[-1])}; resize "
            "them, or pad them with Capture(collate_fn=lambda items: torch.nn.utils.rnn.pad_sequence(items, "
            "batch_first=True), positions=...)"
        )
    return DtypeError(
        f"inputs of type {kind} cannot be made a batch: {error}; give Capture(collate_fn=lambda items: ...)"
    )


def _leaves(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return [leaf for one in item.values() for leaf in _leaves(one)]
    if isinstance(item, tuple):
        return [leaf for one in item for leaf in _leaves(one)]
    return [item]


def _leading_tensors(item: Any) -> list[Any]:
    return [one for one in _leaves(item)[:1] if _is_array(one)]
