"""The arguments of `append` as checked batches: arrays, lists, tensors, iterators of dicts, in bounded memory.

Lengths, ids, boxes and attributes are checked before any pixel is read; pixels are converted and checked in pieces.
Implements `append` of design section 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.targets import Key
from neuralartifactdb.errors import DtypeError, IdError, InvalidValueError, UnknownNameError
from neuralartifactdb.host_arrays import holds_integers, host_array, is_tensor, why_no_array
from neuralartifactdb.masks.attributes import attribute_columns
from neuralartifactdb.masks.batch import MOST_INPUTS, MOST_PIXELS, CollectionMeta, MaskBatch
from neuralartifactdb.masks.boxes import check_box_options, stored_boxes
from neuralartifactdb.masks.conversion import as_numpy, check_convert, check_values, stored_pixels
from neuralartifactdb.names import unknown_name

__all__ = ["AppendArguments", "InputLookup", "batches_of", "number_of_masks", "sample_of"]

#: pixels in one batch: bytes as given, and masks
_BATCH_BYTES = 32 << 20
_BATCH_MASKS = 2_048


@dataclass(frozen=True)
class AppendArguments:
    """What `append` was given for some masks."""

    pixels: Any = None
    input_id: Any = None
    input_key: Any = None
    boxes: Any = None
    attrs: Any = None
    box_format: Any = "xyxy"
    rounding: Any = None
    convert: Any = None


@dataclass(frozen=True)
class InputLookup:
    """What is known of the inputs.

    Attributes:
        n_inputs: input ids lie below it; None where nothing is known.
        id_of: the input with a key.
    """

    n_inputs: int | None
    id_of: Callable[[Key], int]


def batches_of(given: AppendArguments, meta: CollectionMeta, inputs: InputLookup) -> Iterator[MaskBatch]:
    """Batches of at most 2,048 masks, checked, in the order given.

    An array-like that is neither NumPy's nor a tensor is read slice by slice.

    Args:
        given: pixels are (n, h, w), a list of 2-D arrays, tensors of either form, or an iterable of dicts of append's
            arguments; beside an iterable of dicts the other arguments are defaults of its items (attributes are
            added to theirs).
        meta: of the collection.
        inputs: looks input keys up.

    Raises:
        TypeError, ValueError, KeyError, IndexError: bad input, named with its place; raised before the first batch
            where it can be seen without reading pixels or iterating.
    """
    check_box_options(given.box_format, given.rounding)
    check_convert(given.convert, meta)
    if _is_array(given.pixels):
        return _batches_of_masks(given, meta, inputs, 0)
    if isinstance(given.pixels, (str, bytes, Mapping)) or not isinstance(given.pixels, Iterable):
        raise DtypeError(
            "pixels must be an array (n, height, width), a list of 2-D arrays, a tensor, or an iterator of dicts of "
            f"append's arguments, got {type(given.pixels).__name__}"
        )
    if isinstance(given.pixels, (list, tuple)) and not (given.pixels and isinstance(given.pixels[0], Mapping)):
        return _batches_of_masks(given, meta, inputs, 0)
    for name in ("input_id", "input_key", "boxes"):
        if getattr(given, name) is not None:
            raise DtypeError(f"{name} must stand in the dicts that the iterator gives, got it beside the iterator")
    return _batches_of_items(given, meta, inputs)


def number_of_masks(given: AppendArguments) -> int | None:
    """How many masks there are; None for an iterable of dicts, which tells when it ends. Call `batches_of` before."""
    if _is_array(given.pixels):
        return int(given.pixels.shape[0])
    if isinstance(given.pixels, (list, tuple)) and not (given.pixels and isinstance(given.pixels[0], Mapping)):
        return len(given.pixels)
    return None


def sample_of(given: AppendArguments, meta: CollectionMeta, n: int) -> list[NDArray[Any]]:
    """At most n masks, spread evenly over an array or list, as they will be stored. Call `batches_of` before."""
    total = number_of_masks(given) or 0
    sample = []
    for i in range(min(n, total)):
        position = i * total // min(n, total)
        mask = stored_pixels(as_numpy(given.pixels[position])[None], meta, given.convert, position)[0]
        check_values([mask], meta, position)
        sample.append(mask)
    return sample


def _batches_of_items(given: AppendArguments, meta: CollectionMeta, inputs: InputLookup) -> Iterator[MaskBatch]:
    names = [field.name for field in fields(AppendArguments)]
    first = 0
    for position, item in enumerate(given.pixels):
        if not isinstance(item, Mapping):
            raise DtypeError(
                f"an iterator must give dicts of append's arguments, got {type(item).__name__} as item {position}; a "
                "list of 2-D arrays is given as a list"
            )
        for name in item:
            if name not in names:
                raise UnknownNameError(f"item {position}: {unknown_name('argument of append', name, names)}")
        if "pixels" not in item:
            raise InvalidValueError(f"item {position} must have 'pixels', got {', '.join(map(str, item)) or 'nothing'}")
        merged = replace(given, **item)
        if given.attrs is not None and item.get("attrs") is not None:
            n = _count(merged.pixels, first)
            both = {**attribute_columns(given.attrs, n), **attribute_columns(item["attrs"], n)}
            merged = replace(merged, attrs=both)
        check_convert(merged.convert, meta)
        for batch in _batches_of_masks(merged, meta, inputs, first):
            yield batch
            first += len(batch.pixels)


def _batches_of_masks(
    given: AppendArguments, meta: CollectionMeta, inputs: InputLookup, first: int
) -> Iterator[MaskBatch]:
    """Batches of one array or list; what can be checked without pixels is checked at once."""
    n = _count(given.pixels, first)
    ids = _input_ids(given, n, inputs, first)
    boxes = stored_boxes(given.boxes, n, box_format=given.box_format, rounding=given.rounding, first=first)
    attrs = attribute_columns(given.attrs, n)
    for name in attrs:
        if name in boxes:
            raise InvalidValueError(f"{name!r} is given as a box and as an attribute: rename one of them")
    return _read(given, meta, ids, boxes, attrs, first)


def _read(
    given: AppendArguments,
    meta: CollectionMeta,
    ids: NDArray[np.int64],
    boxes: dict[str, NDArray[np.int32]],
    attrs: dict[str, NDArray[Any]],
    first: int,
) -> Iterator[MaskBatch]:
    begin = 0
    for masks in _pieces(given, meta, first):
        end = begin + len(masks)
        check_values(masks, meta, first + begin)
        yield MaskBatch(
            pixels=masks,
            input_ids=ids[begin:end],
            boxes={name: values[begin:end] for name, values in boxes.items()},
            attrs={name: values[begin:end] for name, values in attrs.items()},
        )
        begin = end


def _pieces(given: AppendArguments, meta: CollectionMeta, first: int) -> Iterator[list[NDArray[Any]]]:
    """Masks in the stored dtype, a bounded number at a time."""
    pixels, convert = given.pixels, given.convert
    n = len(pixels)
    if _is_array(pixels) and not _is_object_array(pixels):
        one = max(1, int(pixels.shape[1]) * int(pixels.shape[2]) * _item_bytes(pixels))
        step = max(1, min(_BATCH_MASKS, _BATCH_BYTES // one))
        for begin in range(0, n, step):
            yield list(stored_pixels(as_numpy(pixels[begin : begin + step]), meta, convert, first + begin))
        return
    begin, held, n_bytes = 0, [], 0
    for position in range(n):
        mask = as_numpy(pixels[position])
        held.append(stored_pixels(mask[None], meta, convert, first + position)[0])
        n_bytes += mask.nbytes
        if len(held) == _BATCH_MASKS or n_bytes >= _BATCH_BYTES:
            yield held
            begin, held, n_bytes = position + 1, [], 0
    if held:
        yield held


def _is_array(pixels: Any) -> bool:
    """An array, a tensor, or what is read like one slice by slice, such as a dataset in a file."""
    if is_tensor(pixels):
        return True  # a nested one raises where it is asked for its shape
    return hasattr(pixels, "shape") and hasattr(pixels, "dtype") and hasattr(pixels, "__getitem__")


def _is_object_array(pixels: Any) -> bool:
    return isinstance(pixels, np.ndarray) and pixels.dtype == object


def _is_no_array(pixels: Any) -> bool:
    """Whether it is a tensor that `as_numpy` refuses; its sides may be no integers, and it may not be sliced."""
    return is_tensor(pixels) and why_no_array(pixels) is not None


def _item_bytes(pixels: Any) -> int:
    return int(pixels.element_size()) if hasattr(pixels, "element_size") else np.dtype(pixels.dtype).itemsize


def _count(pixels: Any, first: int) -> int:
    """Number of masks, their shapes checked."""
    if isinstance(pixels, np.ma.MaskedArray) or _is_no_array(pixels):
        as_numpy(pixels)  # refuses it
    if _is_array(pixels) and not _is_object_array(pixels):
        shape = tuple(int(side) for side in pixels.shape)
        if len(shape) != 3:
            one = "; one mask is pixels[None]" if len(shape) == 2 else ""
            one = "; drop the channel axis, such as pixels[:, 0]" if len(shape) == 4 and shape[1] == 1 else one
            raise InvalidValueError(f"pixels must have shape (n, height, width), got {shape}{one}")
        if shape[0]:
            _check_size(shape[1:], first)
        return shape[0]
    if isinstance(pixels, Mapping) or not hasattr(pixels, "__len__") or not hasattr(pixels, "__getitem__"):
        raise DtypeError(
            f"pixels must be an array (n, height, width), a list of 2-D arrays or a tensor, got {type(pixels).__name__}"
        )
    for position in range(len(pixels)):
        mask = pixels[position]
        try:
            has_shape = not _is_no_array(mask) and hasattr(mask, "shape")
            shape = tuple(mask.shape) if has_shape else as_numpy(mask).shape
        except InvalidValueError as error:
            raise InvalidValueError(f"{error} at mask {first + position}") from None
        if len(shape) != 2:
            raise InvalidValueError(
                f"a list of pixels must hold 2-D arrays (height, width), got shape {shape} at mask {first + position}"
            )
        _check_size(shape, first + position)
    return len(pixels)


def _check_size(shape: tuple[int, ...], position: int) -> None:
    n_pixels = math.prod(int(side) for side in shape)
    if not n_pixels:
        raise InvalidValueError(f"masks must have at least one pixel, got shape {shape} at mask {position}")
    if n_pixels > MOST_PIXELS:
        raise InvalidValueError(
            f"a mask may have at most 2**30 = {MOST_PIXELS:,} pixels, got {shape[0]:,} x {shape[1]:,} = {n_pixels:,} "
            f"at mask {position}; append it in tiles, with an attribute that says which, or at a lower resolution"
        )


def _input_ids(given: AppendArguments, n: int, inputs: InputLookup, first: int) -> NDArray[np.int64]:
    if (given.input_id is None) == (given.input_key is None):
        raise DtypeError(
            "append needs either input_id= (int64 positions in the dataset) or input_key= (values of the key column), "
            "got " + ("neither" if given.input_id is None else "both")
        )
    if given.input_id is None:
        keys = _keys(given.input_key)
        _check_length("input_key", len(keys), n)
        return np.array([inputs.id_of(key) for key in keys], dtype=np.int64)
    if isinstance(given.input_id, np.ma.MaskedArray):
        raise DtypeError("input_id must not be a masked array: every mask is of an input")
    array = host_array(given.input_id, "input_id")
    if array.ndim == 0:
        array = array[None]
    if array.size and not holds_integers(array):
        raise DtypeError(
            f"input_id must hold integers, got dtype {array.dtype}; names of inputs are given as input_key="
        )
    if array.ndim != 1:
        raise InvalidValueError(f"input_id must be 1-D with one id per mask, got shape {array.shape}")
    _check_length("input_id", len(array), n)
    last = MOST_INPUTS - 1 if inputs.n_inputs is None else inputs.n_inputs - 1
    wrong = np.flatnonzero((array < 0) | (array > last))
    if wrong.size:
        at = int(wrong[0])
        known = "" if inputs.n_inputs is None else f", for the database has attributes of {inputs.n_inputs:,} inputs"
        expected = f"lie in [0, {'2**63 - 1' if inputs.n_inputs is None else inputs.n_inputs})"
        raise IdError(f"input_id must {expected}, got {int(array[at])} at mask {first + at}{known}")
    return np.ascontiguousarray(array, dtype=np.int64)


def _keys(given: Any) -> list[Key]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        given = [given]
    keys = []
    for position, value in enumerate(given):
        if isinstance(value, Key):
            keys.append(value)
            continue
        value = value.item() if isinstance(value, np.generic) or is_tensor(value) else value
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise DtypeError(
                f"input_key must hold ints or text, as the key column does, got {value!r} "
                f"({type(value).__name__}) at position {position}"
            )
        keys.append(Key(value))
    return keys


def _check_length(name: str, got: int, n: int) -> None:
    if got != n:
        raise InvalidValueError(f"{name} must have one value per mask, {n}, got {got}")
