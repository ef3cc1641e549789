"""Chooses the histogram index of a collection, its cells and its edges, from a budget in bytes and a sample of masks.

A box is uncertain by the cells it cuts, about 1/g of it, a threshold off the edges by one bin, about 1/B; at g * g * B
bytes the sum is least near B = 2 g. Measured in bench/masks/index_choice.py. Implements design section 5, "Index".
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuralartifactdb.errors import DtypeError, InvalidValueError, StorageBudgetError
from neuralartifactdb.masks.batch import CollectionMeta
from neuralartifactdb.masks.thresholds import normalised
from neuralartifactdb.quantities import format_bytes, parse_bytes, refuse_fraction_text
from neuralartifactdb.threads import in_threads

__all__ = [
    "LEAST_BYTES",
    "SAMPLE_MASKS",
    "Deflated",
    "IndexChoice",
    "checked_edges",
    "checked_grid",
    "checked_storage",
    "choose_index",
    "deflated",
    "index_budget",
]

#: Masks that the compressed size is estimated on.
SAMPLE_MASKS = 64

#: A budget that is a share of the pixels is never less than this many bytes a mask.
LEAST_BYTES = 256

_MAX_GRID = 64
_MAX_EDGES = 255
_COMPRESSED_BYTES = 16 << 20  # compressed at most, of the whole sample
_BANDS = 4  # a large mask is judged by so many bands of rows
_COUNTED_PIXELS = 1 << 25  # integers looked at when edges are chosen, of the whole sample
_SORTED_PIXELS = 1 << 18  # floats
_CHECKSUM_SHARE = 4 / (64 << 10)  # one checksum per block of the histograms


class IndexChoice(NamedTuple):
    """Grid and edges of a histogram index.

    Attributes:
        grid: cells along each axis.
        edges: ascending values of the dtype; every cell counts its pixels at or above each.
    """

    grid: int
    edges: tuple[float, ...]

    @property
    def mask_bytes(self) -> int:
        """Bytes of a mask's row in the index, without checksums."""
        return self.grid * self.grid * len(self.edges)


class Deflated(NamedTuple):
    """What zlib makes of the pixels of a sample.

    Attributes:
        n_bytes: of their pixels as they are.
        each: float64 (n,), bytes of each mask compressed; of large ones estimated.
    """

    n_bytes: int
    each: NDArray[np.float64]

    @property
    def share(self) -> float:
        """Compressed bytes by bytes; 1 without a byte."""
        return float(self.each.sum()) / self.n_bytes if self.n_bytes else 1.0


def deflated(sample: Sequence[NDArray[Any]]) -> Deflated:
    """Compress a sample, at level 6; of more than `SAMPLE_MASKS` masks, as many are taken evenly."""
    masks = _spread([mask for mask in sample if mask.size], SAMPLE_MASKS)
    # zlib lets go of the GIL
    each = in_threads(lambda mask: _deflated(mask, _COMPRESSED_BYTES // len(masks)), masks, "nadb-deflate")
    return Deflated(sum(mask.nbytes for mask in masks), np.array(each, dtype=np.float64))


def choose_index(
    sample: Sequence[NDArray[Any]], meta: CollectionMeta, compressed: Deflated | None = None
) -> IndexChoice:
    """Choose what the collection leaves open of grid and edges; what it says already is kept.

    Args:
        sample: 2-D masks in the stored dtype, spread over the first append; of more than `SAMPLE_MASKS`, as many are
            taken evenly. It may be empty: then the range alone decides.
        meta: dtype, value_range, nodata, storage; a grid above 0 and edges are the user's own.
        compressed: `deflated(sample)`, if it is known already.

    Returns:
        For `CollectionMeta.with_index`.

    Raises:
        StorageBudgetError: the grid or the edges that were given do not fit the budget together with any of the other.

    Example:
        >>> masks = [np.tile(np.arange(224, dtype=np.uint8), (224, 1))] * 4
        >>> meta = CollectionMeta("id", "uint8", (0.0, 255.0), storage="1KiB")
        >>> choose_index(masks, meta).grid
        8
    """
    if meta.grid and meta.edges:
        return IndexChoice(meta.grid, meta.edges)
    masks = _spread([mask for mask in sample if mask.size], SAMPLE_MASKS)
    n_bytes = index_budget(masks, meta.storage, compressed)
    if meta.edges:
        return IndexChoice(_grid_for(len(meta.edges), n_bytes, _largest_grid(masks)), meta.edges)
    values = _Values(masks, meta)
    least = 2 if meta.nodata is not None else 1
    if meta.grid:
        n_edges = n_bytes // meta.grid**2
        if n_edges < least:
            raise StorageBudgetError(
                f"a grid of {meta.grid} x {meta.grid} cells takes {least * meta.grid**2} bytes a mask at least, "
                f"storage={meta.storage!r} leaves {n_bytes} beside the checksums; use "
                f"grid={max(math.isqrt(n_bytes // least), 1)} or less, "
                f"storage={math.ceil(least * meta.grid**2 * (1 + _CHECKSUM_SHARE))} or more (bytes a mask), or give "
                "edges= too"
            )
        return IndexChoice(meta.grid, values.edges(n_edges))
    largest = _largest_grid(masks)
    each = values.edges_on_values()
    if each is not None and (len(each) * 9 <= n_bytes or len(each) * largest**2 <= n_bytes):
        return IndexChoice(_grid_for(len(each), n_bytes, largest), each)
    grid = min(range(1, largest + 1), key=lambda g: _uncertainty(g, n_bytes, values.most_edges, least))
    edges = values.edges(max(n_bytes // grid**2, least))
    return IndexChoice(_grid_for(len(edges), n_bytes, largest), edges)  # fewer edges than asked for leave cells


def index_budget(masks: Sequence[NDArray[Any]], storage: float | int | str, compressed: Deflated | None = None) -> int:
    """Bytes a mask's index row may take, what its checksums take left out.

    Args:
        masks: the sample; empty for none.
        storage: a share in (0, 1] of the deflate-compressed pixels, or bytes a mask, as `checked_storage` takes them.
        compressed: `deflated(masks)`, if it is known already.
    """
    storage = checked_storage(storage)
    if isinstance(storage, int):
        return max(1, math.floor(storage / (1 + _CHECKSUM_SHARE)))
    if not masks:
        return LEAST_BYTES
    each = (compressed or deflated(masks)).each
    # the share is promised for all masks: two standard errors below the sample's mean it is kept
    error = each.std(ddof=1) / math.sqrt(len(each)) if len(each) > 1 else 0.0
    return max(LEAST_BYTES, math.floor(storage * float(each.mean() - 2 * error) / (1 + _CHECKSUM_SHARE)))


def checked_storage(storage: Any) -> float | int:
    """A budget as a share (float in (0, 1]) or as bytes a mask (int); InvalidValueError or DtypeError otherwise."""
    if isinstance(storage, bool) or not isinstance(storage, str | Real):
        raise DtypeError(
            f"storage must be a share of the compressed pixels in (0, 1] or bytes a mask such as '1KiB', "
            f"got {storage!r} ({type(storage).__name__})"
        )
    if isinstance(storage, str):
        refuse_fraction_text(storage, "storage")
    if isinstance(storage, str) or (isinstance(storage, Integral) and int(storage) > 1):
        return parse_bytes(storage if isinstance(storage, str) else int(storage), "storage")
    if not 0 < float(storage) <= 1:
        raise InvalidValueError(
            f"storage as a share of the compressed pixels must lie in (0, 1], got {storage!r}; for bytes a mask give "
            "an int or text such as '1KiB'"
        )
    return float(storage)


def checked_grid(grid: Any) -> int:
    """The user's number of cells along each axis; 0 for None."""
    if grid is None:
        return 0
    if isinstance(grid, bool) or not isinstance(grid, Integral):
        raise DtypeError(f"grid must be an int, the cells along each axis, got {grid!r} ({type(grid).__name__})")
    cells = int(grid)
    if not 1 <= cells <= _MAX_GRID:
        raise InvalidValueError(f"grid must lie in [1, {_MAX_GRID}], the cells along each axis, got {cells}")
    return cells


def checked_edges(edges: Any, dtype: str, value_range: tuple[float, float], nodata: float | None) -> tuple[float, ...]:
    """The user's edges as the index has them; () for None.

    They become values of the dtype as thresholds do. One at the low end of the range is left out, because every pixel
    is at or above it; with `nodata` it is put in, because not every pixel has a value.

    Raises:
        DtypeError: not numbers.
        InvalidValueError: not ascending, outside the range, or none left.
    """
    if edges is None:
        return ()
    if isinstance(edges, str | bytes) or not hasattr(edges, "__len__"):
        raise DtypeError(f"edges must be ascending numbers, got {edges!r} ({type(edges).__name__})")
    given: list[float] = []
    low, high = value_range
    for i, edge in enumerate(edges):
        if isinstance(edge, bool | np.bool_) or not isinstance(edge, Real):
            raise DtypeError(f"edges must be ascending numbers, got {edge!r} ({type(edge).__name__}) at position {i}")
        value = float(edge)
        if not low <= value <= high:
            raise InvalidValueError(f"edges must lie in the range [{low:g}, {high:g}], got {edge!r} at position {i}")
        if i and not value > given[-1]:
            raise InvalidValueError(f"edges must ascend, got {edges[i - 1]!r} and then {edge!r} at position {i}")
        given.append(value)
    exact = _of_dtype(np.array(given, dtype=np.float64), dtype)
    exact = np.unique(exact[(exact > low) & (exact <= high)])
    found = _with_nodata(exact, value_range, nodata)
    if not len(found):
        raise InvalidValueError(f"edges must have one above the range's low end {low:g}, got {given!r}")
    if len(found) > _MAX_EDGES:
        raise InvalidValueError(f"edges must be at most {_MAX_EDGES}, got {len(found)}")
    return found


class _Values:
    """The values of a sample, and edges among them."""

    def __init__(self, masks: Sequence[NDArray[Any]], meta: CollectionMeta) -> None:
        self._meta = meta
        self._whole = meta.dtype in ("bool", "uint8", "uint16")
        low, high = meta.value_range
        extra = 0 if meta.nodata is None else 1
        self.most_edges = min(_MAX_EDGES, int(high - low) + extra if self._whole else _MAX_EDGES)
        self._distinct, self._counts = self._table(masks)

    def edges(self, n_edges: int) -> tuple[float, ...]:
        """At most `n_edges` edges: of equal width between the least and the greatest value that are no outliers.

        Where most values would share one bin, every second edge goes where it makes bins of equal depth.
        """
        meta = self._meta
        n = min(n_edges, self.most_edges) - (meta.nodata is not None)
        if n < 1:
            return _with_nodata(np.empty(0), meta.value_range, meta.nodata) or (self._spread(1)[0],)
        found = self._spread(n)
        if len(self._distinct):
            shares = np.diff([0, *np.cumsum([0, *self._counts])[np.searchsorted(self._distinct, found)]])
            shares = np.append(shares, self._counts.sum() - shares.sum())
            commonest = self._counts.max()
            shares[np.searchsorted(found, self._distinct[self._counts.argmax()], side="right")] -= commonest
            rest = self._counts.sum() - commonest
            if n >= 3 and rest > 0 and shares.max() > 0.75 * rest:
                found = np.union1d(self._spread(n - n // 2), self._deep(n // 2))
        return _with_nodata(found, meta.value_range, meta.nodata)

    def edges_on_values(self) -> tuple[float, ...] | None:
        """Edges at and right after every value, which make any range exact per cell; None unless values are few."""
        n = len(self._distinct)
        if not 2 <= n <= min(_MAX_EDGES, int(self._counts.sum()) // 16):
            return None
        dtype, (low, high) = self._meta.dtype, self._meta.value_range
        after = [normalised(None, None, float(value), dtype)[1] for value in self._distinct]
        exact = np.unique(np.concatenate([self._distinct, np.array(after, dtype=np.float64)]))
        exact = exact[(exact > low) & (exact <= high)]
        found = _with_nodata(exact, self._meta.value_range, self._meta.nodata)
        return found if 1 <= len(found) <= _MAX_EDGES else None

    def _spread(self, n: int) -> NDArray[np.float64]:
        """Equal width."""
        low, high = self._middle()
        step = np.arange(1, n + 1) / (n + 1)
        found = _of_dtype(low + (high - low + self._whole) * step, self._meta.dtype)
        return np.unique(np.clip(found, *self._inside()))

    def _deep(self, n: int) -> NDArray[np.float64]:
        """Equal depth, the commonest value left out."""
        counts = self._counts.copy()
        counts[counts.argmax()] = 0
        reached = np.cumsum(counts) / counts.sum()
        at = np.searchsorted(reached, np.arange(1, n + 1) / (n + 1))
        return np.unique(np.clip(self._distinct[np.minimum(at, len(reached) - 1)], *self._inside()))

    def _middle(self) -> tuple[float, float]:
        """The values from the 0.1% to the 99.9% quantile, or the range's ends where these are near."""
        low, high = self._meta.value_range
        if not len(self._distinct):
            return low, high
        reached = np.cumsum(self._counts) / self._counts.sum()
        least = float(self._distinct[np.searchsorted(reached, 0.001)])
        most = float(self._distinct[min(int(np.searchsorted(reached, 0.999)), len(reached) - 1)])
        near = 0.1 * (high - low)
        least, most = (low if least - low <= near else least), (high if high - most <= near else most)
        return (least, most) if least < most else (low, high)

    def _inside(self) -> tuple[float, float]:
        """Least and greatest edge that is of use."""
        low, high = self._meta.value_range
        after = normalised(None, None, low, self._meta.dtype)[1]
        return (low if after is None else min(after, high)), high

    def _table(self, masks: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distinct values and how many pixels have each, nodata left out; of as many pixels as is quick."""
        meta = self._meta
        if self._whole:
            counts = np.zeros(1 << (8 * meta.stored_dtype.itemsize), dtype=np.int64)
            for mask in masks:
                pixels = mask.reshape(-1)[:: _stride(mask, _COUNTED_PIXELS // len(masks))]
                counts += np.bincount(pixels, minlength=len(counts))
            distinct = np.flatnonzero(counts)
            counts = counts[distinct]
        else:
            each = max(_SORTED_PIXELS // max(len(masks), 1), 1)
            taken = [mask.reshape(-1)[:: _stride(mask, each)] for mask in masks]
            held = np.concatenate([np.empty(0, meta.stored_dtype), *taken])
            distinct, counts = np.unique(held[~np.isnan(held)] + meta.stored_dtype.type(0), return_counts=True)
        values = distinct.astype(np.float64)
        low, high = meta.value_range
        kept = (values >= low) & (values <= high)
        if meta.nodata is not None:
            kept &= values != meta.nodata
        return values[kept], counts[kept].astype(np.int64)


def _uncertainty(grid: int, n_bytes: int, most_edges: int, least: int) -> float:
    """What a choice of grid leaves open of a box and of a threshold."""
    n_edges = min(n_bytes // grid**2, most_edges)
    if n_edges < least:
        return math.inf if grid > 1 else 2.0
    return 1 / grid + 1 / (n_edges + 2 - least)


def _grid_for(n_edges: int, n_bytes: int, largest: int) -> int:
    """The finest grid for so many edges."""
    if n_edges > n_bytes:
        raise StorageBudgetError(
            f"{n_edges} edges take {n_edges} bytes a mask at least, the budget is {format_bytes(n_bytes)} a mask; use "
            "fewer edges=, a larger storage=, or give grid= too"
        )
    return min(math.isqrt(n_bytes // n_edges), largest)


def _largest_grid(masks: Sequence[NDArray[Any]]) -> int:
    """Cells of less than a pixel say no more than pixels."""
    if not masks:
        return _MAX_GRID
    return max(1, min(_MAX_GRID, int(np.median([min(mask.shape) for mask in masks]))))


def _with_nodata(
    edges: NDArray[np.float64], value_range: tuple[float, float], nodata: float | None
) -> tuple[float, ...]:
    found = [float(edge) for edge in edges]
    if nodata is not None and (not found or found[0] > value_range[0]):
        found.insert(0, float(value_range[0]))
    return tuple(found)


def _of_dtype(values: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    """Values as thresholds of the dtype."""
    return np.array([normalised(float(value), None, None, dtype)[0] for value in values], dtype=np.float64)


def _spread(masks: list[NDArray[Any]], n: int) -> list[NDArray[Any]]:
    return masks if len(masks) <= n else [masks[i * len(masks) // n] for i in range(n)]


def _stride(mask: NDArray[Any], wanted: int) -> int:
    """A step that takes about `wanted` pixels and no column more often than others."""
    step = max(mask.size // wanted, 1)
    while step > 1 and math.gcd(step, mask.shape[1]) > 1:
        step += 1
    return step


def _deflated(mask: NDArray[Any], most: int) -> float:
    """Bytes of a mask's pixels by zlib at level 6; of a mask of more than `most` bytes judged by some of its rows."""
    data = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
    if data.nbytes <= most:
        return float(len(zlib.compress(data.tobytes(), 6)))
    row = mask.shape[1] * mask.itemsize
    rows = max(most // _BANDS // row, 1)
    starts = [(mask.shape[0] - rows) * band // (_BANDS - 1) for band in range(_BANDS)]
    bands = np.concatenate([data[start * row : (start + rows) * row] for start in starts])
    return len(zlib.compress(bands.tobytes(), 6)) * data.nbytes / bands.nbytes
