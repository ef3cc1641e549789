"""What the tests of `append` share: a lookup of keys, a collection, and all batches of some arguments as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.activations.targets import Key
from neuralartifactdb.errors import UnknownNameError
from neuralartifactdb.masks.batch import CollectionMeta, MaskBatch
from neuralartifactdb.masks.batches import AppendArguments, InputLookup, batches_of

RNG = np.random.default_rng(7)
KEYS = {"cat.png": 4, "dog.png": 2, 17: 3}


def lookup(n_inputs: int | None = None) -> InputLookup:
    def id_of(key: Key) -> int:
        if key.value not in KEYS:
            raise UnknownNameError(f"no key {key.value!r}")
        return KEYS[key.value]

    return InputLookup(n_inputs, id_of)


def meta(dtype: str = "uint8", value_range: tuple[float, float] | None = None, nodata: Any = None) -> CollectionMeta:
    return CollectionMeta("id", dtype, value_range or CollectionMeta.default_range(dtype), nodata)


def turned(pixels: Any, collection: CollectionMeta | None = None, **given: Any) -> MaskBatch:
    """All batches as one."""
    if "input_id" not in given and "input_key" not in given and hasattr(pixels, "__len__") and not _are_items(pixels):
        given["input_id"] = np.arange(len(pixels))
    inputs = given.pop("inputs", lookup())
    found = list(batches_of(AppendArguments(pixels, **given), collection or meta(), inputs))
    return joined(found)


def _are_items(pixels: Any) -> bool:
    return len(pixels) > 0 and isinstance(pixels[0], dict)


def joined(found: list[MaskBatch]) -> MaskBatch:
    assert all(len(b.pixels) == len(b.input_ids) for b in found)
    return MaskBatch(
        [mask for b in found for mask in b.pixels],
        np.concatenate([b.input_ids for b in found]) if found else np.empty(0, np.int64),
        {name: np.concatenate([b.boxes[name] for b in found]) for name in (found[0].boxes if found else ())},
        {name: np.concatenate([b.attrs[name] for b in found]) for name in (found[0].attrs if found else ())},
    )


def same(got: list[NDArray[Any]], expected: Any, dtype: str) -> bool:
    return len(got) == len(expected) and all(
        mask.dtype == np.dtype(dtype)
        and mask.flags.c_contiguous
        and np.array_equal(mask, other, equal_nan=dtype[0] == "f")
        for mask, other in zip(got, expected, strict=True)
    )
