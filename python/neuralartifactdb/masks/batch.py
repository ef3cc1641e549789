"""What is passed between appending, storing and querying masks: a batch of masks, and what a collection says of itself.

Values only: nothing here touches files. Implements the dtypes, value ranges and boxes of design section 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import FormatError

__all__ = [
    "INDEX_BLOCK",
    "MISSING_BOX",
    "MOST_INPUTS",
    "MOST_PIXELS",
    "RESERVED_COLUMNS",
    "STORED_DTYPES",
    "CollectionMeta",
    "MaskBatch",
    "native_dtype",
]

#: Each of the four coordinates of a box that is not there.
MISSING_BOX = -(2**31)

#: Input ids lie below it, so that the number of inputs is an int64, too.
MOST_INPUTS = 2**63 - 1

#: Pixels of the largest mask: what the core adds up in 32 bits, on the safe side.
MOST_PIXELS = 2**30

#: Masks whose index rows lie together: within a block edge after edge, within an edge mask after mask.
INDEX_BLOCK = 2048

#: Columns that every collection has; attributes may not be called so.
RESERVED_COLUMNS = ("mask_id", "input_id", "height", "width")

#: Dtype of a collection -> dtype of its pixels on disk and in batches.
STORED_DTYPES: dict[str, np.dtype[Any]] = {
    "bool": np.dtype("u1"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}

_DEFAULT_RANGES = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}


def native_dtype(dtype: str) -> str:
    """Name of a collection's dtype as `_core` knows it: bool is stored as uint8."""
    return "uint8" if dtype == "bool" else dtype


@dataclass(frozen=True)
class MaskBatch:
    """Masks that are stored together.

    Attributes:
        pixels: n 2-D C-contiguous arrays in the stored dtype (bool as uint8 0 and 1), of any sizes.
        input_ids: int64 (n,).
        boxes: int32 (n, 4) by name, (x0, y0, x1, y1) half-open; a missing box is four times `MISSING_BOX`.
        attrs: 1-D arrays of length n by name.
    """

    pixels: list[NDArray[Any]]
    input_ids: NDArray[np.int64]
    boxes: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    attrs: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shapes(self) -> NDArray[np.int32]:
        """Height and width of each mask, int32 (n, 2)."""
        return np.array([mask.shape for mask in self.pixels], dtype=np.int32).reshape(-1, 2)


@dataclass(frozen=True)
class CollectionMeta:
    """What a collection says of itself; kept in `MaskEntry.meta`.

    Attributes:
        id: changes when the collection is replaced by another of the same name.
        dtype: "bool", "uint8", "uint16", "float16" or "float32".
        value_range: least and greatest pixel value, both allowed.
        nodata: value of pixels that no range contains, perhaps NaN; None if there is none.
        grid: cells along each axis of the index; 0 while none was chosen.
        edges: ascending values that the index counts from; empty while none were chosen.
        storage: bytes for the index as the user gave them: a share of the compressed pixels, or text such as "1KiB".
        index: "append" or "lazy".
        next_id: the id that the next mask gets.
        deflated: deflate-compressed bytes of the pixels by their bytes, as estimated on a sample of the first append;
            None before it.
    """

    id: str
    dtype: str
    value_range: tuple[float, float]
    nodata: float | None = None
    grid: int = 0
    edges: tuple[float, ...] = ()
    storage: float | int | str = 0.05
    index: str = "append"
    next_id: int = 0
    deflated: float | None = None

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Dtype of pixels on disk."""
        return STORED_DTYPES[self.dtype]

    @property
    def native(self) -> str:
        """Name of the dtype of stored pixels as `_core` knows it."""
        return native_dtype(self.dtype)

    @property
    def is_lazy(self) -> bool:
        """Whether queries fill in the index."""
        return self.index == "lazy"

    @property
    def has_index(self) -> bool:
        """Whether a grid and edges were chosen."""
        return self.grid > 0 and len(self.edges) > 0

    def with_index(self, grid: int, edges: tuple[float, ...], deflated: float | None = None) -> CollectionMeta:
        """The same with a grid and edges, and what compression makes of the pixels."""
        return replace(self, grid=int(grid), edges=tuple(float(edge) for edge in edges), deflated=deflated)

    def to_json(self) -> dict[str, Any]:
        """JSON values; numbers that JSON lacks are text ("nan", "inf", "-inf")."""
        return {
            "id": self.id,
            "dtype": self.dtype,
            "value_range": [_to_json(end) for end in self.value_range],
            "nodata": None if self.nodata is None else _to_json(self.nodata),
            "grid": self.grid,
            "edges": [_to_json(edge) for edge in self.edges],
            "storage": self.storage,
            "index": self.index,
            "next_id": self.next_id,
            "deflated": self.deflated,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CollectionMeta:
        """Parse; FormatError for anything that `to_json` does not give."""
        try:
            low, high = value["value_range"]
            nodata, deflated = value["nodata"], value.get("deflated")
            meta = cls(
                str(value["id"]),
                str(value["dtype"]),
                (float(low), float(high)),
                None if nodata is None else float(nodata),
                int(value["grid"]),
                tuple(float(edge) for edge in value["edges"]),
                value["storage"],
                str(value["index"]),
                int(value["next_id"]),
                None if deflated is None else float(deflated),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"mask collection: got the description {dict(value)!r}, expected the keys of a collection "
                f"({type(error).__name__}: {error})"
            ) from error
        if (
            meta.dtype not in STORED_DTYPES
            or meta.index not in ("append", "lazy")
            or not isinstance(meta.storage, int | float | str)
            or meta.grid < 0
            or meta.next_id < 0
            or not (meta.deflated is None or meta.deflated > 0)
            or any(a >= b for a, b in zip(meta.edges, meta.edges[1:], strict=False))
        ):
            raise FormatError(
                f"mask collection: got the description {dict(value)!r}, expected a dtype of {sorted(STORED_DTYPES)}, "
                "index 'append' or 'lazy', ascending edges, and no negative numbers"
            )
        return meta

    @staticmethod
    def default_range(dtype: str) -> tuple[float, float]:
        """The value range of a dtype unless one is given."""
        return _DEFAULT_RANGES.get(dtype, (0.0, 1.0))


def _to_json(value: float) -> float | str:
    return float(value) if math.isfinite(value) else repr(float(value))
