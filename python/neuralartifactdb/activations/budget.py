"""From a storage budget to a plan: how many bits, how many exact maxima, how large a row group and a segment.

The plan's bytes are those of the files that will be written, headers and checksums included, so the budget can never be
exceeded. Implements design section 4, "Storage" and step 1 and 2 of "Build".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from neuralartifactdb.activations.dtypes import compute_dtype, itemsize
from neuralartifactdb.activations.source import LayerInfo
from neuralartifactdb.errors import DtypeError, InvalidValueError, StorageBudgetError
from neuralartifactdb.quantities import format_bytes, parse_bytes, refuse_fraction_text
from neuralartifactdb.storage.arrays import segment_nbytes

__all__ = [
    "BuildPlan",
    "LayerPlan",
    "SegmentPlan",
    "Storage",
    "parse_storage",
    "plan_segment",
    "segment_ranges",
    "top_count",
]

AUTO_LIMIT = 1 << 30
AUTO_FRACTION = 0.2
MAX_BITS = 12
MAX_SEGMENT_INPUTS = 65_536
#: bytes kept aside per segment for its own description and its line in a version file
META_ALLOWANCE = 2_048
#: bytes of one neuron's codes in one row group: one checksummed block, one read
_CODE_ROW_BYTES = 16_384
_BLOCK_BYTES = 4_096
_VALUE_ROW_BYTES = 65_536
_ALLOWED = "'auto', 'all', a fraction in (0, 1] or bytes such as '2GB'"
_SMALLEST_SAMPLE, _LARGEST_SAMPLE = 256, 4_096


@dataclass(frozen=True)
class Storage:
    """How much may be kept: everything, or a fraction of 4 bytes x inputs x neurons."""

    fraction: float | None
    #: the total in bytes that was asked for, None if a fraction was
    n_bytes: int | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether every activation is kept."""
        return self.fraction is None

    def budget(self, n_inputs: int, n_neurons: int) -> int:
        """Bytes allowed for `n_inputs` of a layer."""
        assert self.fraction is not None
        return math.floor(self.fraction * 4 * n_inputs * n_neurons)

    def to_json(self) -> dict[str, Any]:
        """As kept in an index's description."""
        return {"fraction": self.fraction, "n_bytes": self.n_bytes}


def parse_storage(storage: Any, layers: Mapping[str, LayerInfo], n_inputs: int) -> dict[str, Storage]:
    """What each layer of a pass may keep.

    A number of bytes is for the whole pass: each layer gets the same fraction of its float32 size.

    Args:
        storage: `"auto"`, `"all"`, a fraction in (0, 1], or bytes (an int above 1, or text such as `"2GB"`).
        layers: the layers of the pass.
        n_inputs: inputs known now.
    """
    if isinstance(storage, str) and storage == "all":
        return {name: Storage(None) for name in layers}
    if isinstance(storage, str) and storage == "auto":
        return {
            name: Storage(None if info.n_neurons * n_inputs * itemsize(info.dtype) < AUTO_LIMIT else AUTO_FRACTION)
            for name, info in layers.items()
        }
    if isinstance(storage, bool) or not isinstance(storage, (str, Real)):
        raise DtypeError(f"storage must be {_ALLOWED}, got {storage!r} ({type(storage).__name__})")
    given: Any = storage
    if isinstance(storage, str):
        if not any(letter.isdigit() for letter in storage):
            meant = storage.strip().lower()
            guess = f"; did you mean {meant!r}?" if meant in ("auto", "all") else ""
            raise InvalidValueError(f"storage must be {_ALLOWED}, got {storage!r}{guess}")
        refuse_fraction_text(storage, "storage")
    elif not 0 < given < math.inf:
        raise InvalidValueError(f"storage must be above 0 and finite, got {storage!r}: it is {_ALLOWED}")
    elif given <= 1:
        return {name: Storage(float(given)) for name in layers}
    elif given != int(given):
        raise InvalidValueError(
            f"a storage fraction must lie in (0, 1], got {storage!r}; for bytes give an int or text such as '2GB'"
        )
    total = parse_bytes(storage if isinstance(storage, str) else int(given), "storage")
    full = sum(4 * n_inputs * info.n_neurons for info in layers.values())
    fraction = total / full if full else 1.0
    return {
        name: Storage(fraction, math.floor(fraction * 4 * n_inputs * info.n_neurons)) for name, info in layers.items()
    }


@dataclass(frozen=True)
class SegmentPlan:
    """One segment's shape on disk. `bits` 0 and `keeps_all` False: no codes, its inputs are unsettled; one bit for each
    of its activations would have taken `least_bytes`.
    """

    n_inputs: int
    keeps_all: bool
    bits: int
    maxima_cap: int
    row_group: int
    code_block_bytes: int
    n_bytes: int
    least_bytes: int = 0

    @property
    def keeps_nothing(self) -> bool:
        """Whether the budget is too small for even one bit."""
        return not self.keeps_all and self.bits == 0

    @property
    def n_partitions(self) -> int:
        """2**bits."""
        return 1 << self.bits


@dataclass(frozen=True)
class LayerPlan:
    """What will be written for one layer, for people to read."""

    layer: str
    info: LayerInfo
    n_inputs: int
    segments: tuple[SegmentPlan, ...]

    @property
    def n_bytes(self) -> int:
        """Largest size on disk, everything included."""
        return sum(s.n_bytes for s in self.segments)

    @property
    def least_bytes(self) -> int:
        """About what one bit per activation takes, where nothing is kept."""
        return sum(s.least_bytes for s in self.segments)

    @property
    def least_share(self) -> float:
        """The least fraction as `storage=` with which a part that keeps nothing would keep codes, three digits rounded
        up; 0 if each part keeps something."""
        neurons = self.info.n_neurons
        shares = [s.least_bytes / (4 * s.n_inputs * neurons) for s in self.segments if s.keeps_nothing]
        share = max(shares, default=0.0)
        digits = 0 if share <= 0 else max(0, 2 - math.floor(math.log10(share)))
        scale = float(10**digits)
        return math.ceil(share * scale + 1e-9) / scale

    @property
    def keeps_nothing(self) -> bool:
        """Whether there are inputs and nothing is kept of any."""
        return bool(self.segments) and all(s.keeps_nothing for s in self.segments)

    @property
    def how_to_keep(self) -> str:
        """The storage that keeps something, in words."""
        if self.least_share <= 1:
            return f"storage={self.least_share:g} is the least that keeps something"
        return "so few inputs need storage='all'"

    @property
    def bits(self) -> int:
        """Bits per code in the first segment (0: values are kept, or nothing is)."""
        return self.segments[0].bits if self.segments else 0

    def __str__(self) -> str:
        full = 4 * self.n_inputs * self.info.n_neurons
        share = f"{100 * self.n_bytes / full:.1f}%" if full else "0%"
        if self.segments and self.segments[0].keeps_all:
            kept = f"every activation as {self.info.dtype}, so that queries need no model"
        elif self.bits:
            cap = self.segments[0].maxima_cap / self.segments[0].n_inputs
            kept = f"{self.bits} bit{'' if self.bits == 1 else 's'} per activation"
            kept += f" and the {100 * cap:.1f}% largest exactly" if cap else ""
        elif self.keeps_nothing:
            kept = (
                f"nothing: one bit per activation takes {format_bytes(self.least_bytes)}, so every query will evaluate "
                f"all inputs; {self.how_to_keep}"
            )
        else:
            kept = "no inputs yet"
        return f"{self.layer} {self.info.shape}: {format_bytes(self.n_bytes)} at most ({share} of float32), {kept}"


@dataclass(frozen=True)
class BuildPlan:
    """What an `index_*` call is about to do: shown before the first forward pass, returned by `explain=True`."""

    layers: tuple[LayerPlan, ...]
    n_inputs: int
    n_new: int
    expected_seconds: float | None

    @property
    def n_bytes(self) -> int:
        """Largest size on disk of what will be written."""
        return sum(p.n_bytes for p in self.layers)

    def __str__(self) -> str:
        seconds = "" if self.expected_seconds is None else f", about {self.expected_seconds:.0f} s of forward passes"
        head = f"{self.n_new:,} of {self.n_inputs:,} inputs to index, {format_bytes(self.n_bytes)} at most{seconds}"
        return "\n  ".join([head, *map(str, self.layers)])

    __repr__ = __str__


def sample_size(n_inputs: int, n_neurons: int, memory_limit: int) -> int:
    """Inputs in the random sample that chooses the edges: limit / (8 x neurons), from 256 to 4,096."""
    wanted = memory_limit // (8 * max(1, n_neurons))
    return min(n_inputs, max(_SMALLEST_SAMPLE, min(_LARGEST_SAMPLE, wanted)))


def segment_ranges(first: int, last: int, n_neurons: int, memory_limit: int) -> list[tuple[int, int]]:
    """Cut [first, last) into nearly equal segments, short enough that their maxima fit an eighth of the memory limit.

    `n_neurons` counts all layers of the pass. 4% of a segment's values is about what the maxima may be.
    """
    total = last - first
    if total <= 0:
        return []
    fits = int(memory_limit / 8 / (0.04 * 8 * max(1, n_neurons)))
    longest = max(1_024, min(MAX_SEGMENT_INPUTS, fits))
    n_segments = -(-total // longest)
    cuts = [first + total * i // n_segments for i in range(n_segments + 1)]
    return list(itertools.pairwise(cuts))


def top_count(cap: int, sample: int, n_inputs: int) -> int:
    """Sampled values that may lie in the top partition, so that at most 1% of the neurons exceed `cap` of `n_inputs`.

    The number of the other inputs above the sample's r-th largest value has mean about r (n / S) and a relative
    deviation of about 1/sqrt(r), less what the sample itself already covers; 2.33 deviations leave 1% above.
    """
    if cap <= 0 or sample <= 0:
        return 0
    if sample >= n_inputs:
        return min(cap, sample)
    target = cap * sample / n_inputs
    spread = 2.33 * math.sqrt(1 - sample / n_inputs)
    root = (-spread + math.sqrt(spread * spread + 4 * target)) / 2
    return max(0, math.floor(root * root))


def _row_group(n_inputs: int, wanted: int, largest: int) -> int:
    """Inputs per row group: nearly equal groups of about `wanted`, at most `largest`, a multiple of 8."""
    rows = max(8, min(wanted, largest, n_inputs))
    n_groups = -(-n_inputs // rows)
    return min(-(-n_inputs // n_groups) + 7 & ~7, max(8, rows + 7 & ~7))


def _code_bytes(n_inputs: int, row_group: int, bits: int, n_neurons: int) -> int:
    full, rest = divmod(n_inputs, row_group)
    return n_neurons * (full * (-(-row_group * bits // 8)) + -(-rest * bits // 8))


def plan_segment(
    info: LayerInfo, n_inputs: int, storage: Storage, *, memory_limit: int, has_tolerance: bool = False
) -> SegmentPlan:
    """The best shape of one segment within its budget.

    More bits sharpen every bound, exact maxima the best candidates of `highest`; measured on real layers the best split
    keeps as many bits as leave about 1% of maxima (3 bits or fewer are taken before any maxima).

    Args:
        info: the layer.
        n_inputs: inputs of the segment.
        storage: the budget.
        memory_limit: this layer's share of the build's memory limit, in bytes.
        has_tolerance: whether a tolerance per neuron is stored too.
    """
    neurons, item = info.n_neurons, itemsize(info.dtype)
    tolerance = [(4 * neurons, _BLOCK_BYTES)] if has_tolerance else []
    value_rows = _row_group(n_inputs, _VALUE_ROW_BYTES // item, max(8, memory_limit // 4 // (neurons * item)))
    value_block = min(_VALUE_ROW_BYTES, max(512, value_rows * item))
    all_bytes = segment_nbytes([(neurons * n_inputs * item, value_block), *tolerance], META_ALLOWANCE)
    if storage.keeps_all or all_bytes <= storage.budget(n_inputs, neurons):
        return SegmentPlan(n_inputs, True, 0, 0, value_rows, value_block, all_bytes)
    budget = storage.budget(n_inputs, neurons)
    best: SegmentPlan | None = None
    least = all_bytes
    sample = sample_size(n_inputs, neurons, memory_limit)
    for bits in range(1, MAX_BITS + 1):
        partitions = 1 << bits
        if bits > 1 and (
            4 * partitions > sample or 3 * partitions * neurons * compute_dtype(info.dtype).itemsize > memory_limit // 4
        ):
            break
        rows = _row_group(n_inputs, _CODE_ROW_BYTES * 8 // bits, max(8, memory_limit // 8 * 8 // (neurons * bits)))
        row_bytes = -(-rows * bits // 8)
        block = row_bytes if row_bytes >= 2_048 else _BLOCK_BYTES
        n_groups = -(-n_inputs // rows)
        fixed = [
            (_code_bytes(n_inputs, rows, bits, neurons), block),
            (neurons * partitions * 2 * item, _BLOCK_BYTES),
            *tolerance,
        ]
        plain = segment_nbytes(fixed, META_ALLOWANCE)
        if bits == 1:
            least = min(plain, all_bytes)
        if plain > budget:
            break
        starts = (neurons * (n_groups + 1) * 8, _BLOCK_BYTES)
        left = budget - segment_nbytes([*fixed, starts, (0, _BLOCK_BYTES)], META_ALLOWANCE)
        cap = 0
        if left > 0:
            # one checksum of 4 bytes per block of 4 KiB, and one block more for the rounding
            cap = max(0, (left - 4) * _BLOCK_BYTES // (_BLOCK_BYTES + 4) // (neurons * item))
            cap = min(cap, n_inputs, 1 << (31 if neurons * n_inputs < 1 << 31 else 62))
        fits = memory_limit // 8 // (neurons * compute_dtype(info.dtype).itemsize)
        cap = min(cap, max(fits, 0))
        n_bytes = (
            plain
            if cap == 0
            else segment_nbytes([*fixed, starts, (neurons * cap * item, _BLOCK_BYTES)], META_ALLOWANCE)
        )
        if best is not None and bits > 3 and cap < 0.01 * n_inputs and best.maxima_cap > cap:
            break
        best = SegmentPlan(n_inputs, False, bits, cap, rows, block, n_bytes)
    return best or SegmentPlan(n_inputs, False, 0, 0, 0, 0, 0, least)


def check_appendable(storage: Storage, n_bytes_used: int, n_bytes_new: int, layer: str) -> None:
    """StorageBudgetError when an append would pass a budget that was given in bytes."""
    if storage.n_bytes is not None and n_bytes_used + n_bytes_new > storage.n_bytes:
        raise StorageBudgetError(
            f"{layer} was given {format_bytes(storage.n_bytes)} for the inputs known when it was first built; it uses "
            f"{format_bytes(n_bytes_used)} and the new inputs need up to {format_bytes(n_bytes_new)} more; index again "
            "with overwrite=True and a larger storage=, or with a fraction such as storage=0.2, which grows with the "
            "inputs"
        )
