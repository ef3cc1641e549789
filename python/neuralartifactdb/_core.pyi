"""The C++ core. Not public: the package's Python modules are its only callers.

Input arrays, the same as in src/cpp/python/arrays.h: NumPy, C-contiguous, aligned, of exactly the dtype named; anything
else is a TypeError (type, dtype) or a ValueError (shape, layout, value). Nothing is cast or copied silently. "Real" is
float32 or float64. `threads=0` means NADB_THREADS, else every hardware thread. Long calls release the GIL.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

_Real = TypeVar("_Real", np.float32, np.float64)
_Floats: TypeAlias = npt.NDArray[np.float64]
_Ids: TypeAlias = npt.NDArray[np.int64]
_Ints: TypeAlias = npt.NDArray[np.int32]
_Codes: TypeAlias = npt.NDArray[np.uint16]
_Bytes: TypeAlias = npt.NDArray[np.uint8]
_Buffer: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]  # anything contiguous that is bytes-like
_Rows: TypeAlias = "Spans | npt.NDArray[Any] | list[Any] | tuple[Any, ...]"  # an array's rows, or bytes-like objects
_IndexRow: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[np.uint8] | None

class EndOfFileError(ValueError):
    """A file ends too early.

    Attributes:
        descriptor: Of the file.
        position: Bytes of the array's data that it has.
    """

    descriptor: int
    position: int

class ChecksumError(ValueError):
    """A block's bytes are not those that were written.

    Attributes:
        descriptor: Of the file.
        block: Its number in the array.
        found: CRC-32 of the bytes.
    """

    descriptor: int
    block: int
    found: int

class ReadError(ValueError):
    """The system refused to read.

    Attributes:
        descriptor: Of the file.
        errno: Why.
    """

    descriptor: int
    errno: int

class StoredArray:
    """An array in a file, which functions of the core read block by verified block. Safe in threads.

    Args:
        descriptor: An open file, borrowed.
        data_at: Where the data begins in it, in bytes.
        n_bytes: Of the data.
        block_bytes: At least 1; the last block may be shorter.
        checksums (uint32 (blocks,)): CRC-32 of each block.

    Attributes:
        bytes_read: So far.
    """

    def __init__(
        self, descriptor: int, data_at: int, n_bytes: int, block_bytes: int, checksums: npt.NDArray[np.uint32]
    ) -> None: ...
    def in_memory(self, at: int) -> bool:
        """Whether the block of the byte at a position can be read without waiting for the disk; True if unknown."""

    def announce(self, offset: int, length: int) -> None:
        """Let the system fetch the blocks of a range of bytes while something else is worked on."""

    @property
    def bytes_read(self) -> int: ...

class Spans:
    """Ranges of a stored array, in the order asked for; usable once `complete`, or after `BlockCache.fill`.

    Functions that take rows take it as it is. An item is uint8 (length,), read-only, and keeps the ranges alive.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> _Bytes: ...
    def __iter__(self) -> Iterator[_Bytes]: ...
    def join(self) -> _Bytes:
        """The ranges end to end, a copy."""

    @property
    def complete(self) -> bool:
        """Whether every block was in memory."""

class CachedFile:
    """A file whose blocks a `BlockCache` keeps, for one who reads it: the cache knows the name while somebody does."""

class BlockCache:
    """Verified blocks in memory, least recently used first out, under a budget in bytes. Safe in threads and forks.

    Args:
        budget_bytes: Memory to use at most, bookkeeping included; 0 keeps nothing.

    Attributes:
        used_bytes: Memory in use.
        hits: Ranges that were answered from memory.
        misses: The others.
        bytes_read: What `count_read` was given.
        n_files: Files that somebody reads or that blocks in memory are of.
    """

    def __init__(self, budget_bytes: int) -> None: ...
    def __len__(self) -> int: ...
    def file(self, name: str) -> CachedFile:
        """A file by its name; blocks kept for one of that name serve all of that name."""

    def find(self, file: CachedFile, n_bytes: int, block_bytes: int, ranges: _Ids) -> Spans:
        """Look up ranges, int64 (n, 2) of offset and length, of an array of `n_bytes` in blocks of `block_bytes`."""

    def holds(self, file: CachedFile, n_bytes: int, block_bytes: int, ranges: _Ids) -> npt.NDArray[np.bool_]:
        """Which ranges are in memory, bool (n,), arguments as for `find`; it counts nothing and uses nothing."""

    def fill(self, spans: Spans, stored: StoredArray, *, threads: int = 0) -> None:
        """Read the blocks that `spans` lacks from the array that it is of, and keep them.

        Raises:
            EndOfFileError, ChecksumError, ReadError: The file is truncated, damaged or cannot be read.
        """

    def clear(self) -> None:
        """Forget every block; the counters stay."""

    def count_read(self, n_bytes: int) -> None:
        """Count bytes that came from disk."""

    @property
    def n_files(self) -> int: ...
    @property
    def budget_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...

def crc32(data: _Buffer, start: int = 0) -> int:
    """CRC-32 as `zlib.crc32(data, start)`."""

def block_crcs(data: _Buffer, block_bytes: int) -> npt.NDArray[np.uint32]:
    """CRC-32 of each block of `block_bytes`, the last one perhaps short; uint32 (blocks,)."""

class NonFiniteError(ValueError):
    """A NaN or an infinity among activations.

    Attributes:
        row: Row of the sample, or index into `order` of an append.
        neuron: Flat index of the neuron.
        value: The value found.
    """

    row: int
    neuron: int
    value: float

class _BuildInfo(TypedDict):
    version: str
    compiler: str
    flags: str
    cpp_standard: str
    kernels_compiled: list[str]
    kernels: str
    threads: int

def build_info() -> _BuildInfo:
    """Facts of this build; see `neuralartifactdb.build_info`."""

def thread_count() -> int:
    """Threads that a long loop uses: the environment variable `NADB_THREADS`, else all of the hardware.

    Raises:
        ValueError: `NADB_THREADS` is not a whole number from 1 to 1024.
    """

def choose_edges(sample: npt.NDArray[_Real], n_bits: int, top_count: int, *, threads: int = 0) -> npt.NDArray[_Real]:
    """Chooses where to cut each neuron's values into 2**n_bits partitions (design, section 4, 1).

    The code of a value is the number of edges that are <= it, compared as order-preserving integers with -0.0 as 0.0.
    Values held by more than 1/2**n_bits of the sample get partitions of zero width; where a neuron has few distinct
    values, each gets its own. Edges that a neuron has no use for are -inf, in front.

    Args:
        sample (Real (n_sample, n_neurons)): Sampled activations, finite, at least one row.
        n_bits: 1 to 12.
        top_count: At most so many sample values of a neuron are >= its last edge, none of them heavy (and then just
            above the greatest, if nothing else qualifies). 0: the last edge is like the others.

    Returns:
        Real (n_neurons, 2**n_bits - 1): Edges, ascending per neuron.

    Raises:
        NonFiniteError: The sample holds a NaN or an infinity.
    """

class SegmentEncoder:
    """Turns captured rows into packed codes, partition bounds and maxima, in one pass (design, section 4, 2).

    Args:
        edges (Real (n_neurons, 2**b - 1)): Ascending per neuron, not NaN; copied.
        n_inputs: Inputs of the segment, at least 1.
        row_group: Inputs per row group, at least 1; the last group may be shorter.
        maxima_cap: Most maxima kept per neuron; beyond it the neuron keeps none. 0: none at all.
    """

    def __init__(
        self, edges: npt.NDArray[Any], n_inputs: int, row_group: int, maxima_cap: int, *, threads: int = 0
    ) -> None: ...
    def append(self, batch: npt.NDArray[Any], sample: npt.NDArray[Any] | None, order: npt.NDArray[np.int32]) -> None:
        """Encodes the next rows: row i is batch[order[i]], or sample[~order[i]] where order[i] is negative.

        Args:
            batch (Real (n_batch, n_neurons)): Of the edges' dtype. Not copied, not kept.
            sample (Real (n_sample, n_neurons)): The kept sample, or None.
            order (int32 (n,)): At most as many as inputs are left.

        Raises:
            NonFiniteError: A row holds a NaN or an infinity. The encoder is as before the call.
        """

    def take_row_group(self) -> _Bytes | None:
        """The next complete row group, uint8 (n_neurons, ceil(n_rows * b / 8)), or None: none is complete."""

    def finish(self) -> tuple[npt.NDArray[Any], _Ids, npt.NDArray[Any]]:
        """Closes the encoder; needs all n_inputs.

        Returns:
            bounds: Real (n_neurons, 2**b, 2), least and greatest value of each partition; (inf, -inf) if empty.
            starts: int64 (n_neurons, n_row_groups + 1); the maxima of neuron j in row group g are
                maxima[starts[j, g]:starts[j, g + 1]], in input order. Constant where neuron j keeps none.
            maxima: Real (total,), values of the inputs with code 2**b - 1.
        """

    @property
    def n_appended(self) -> int:
        """Inputs appended so far."""

class ColumnWriter:
    """Turns captured rows into columns of kept values; append and take_row_group as in SegmentEncoder.

    `dtype` is "float32" or "float64".

    -0.0 is kept as 0.0. A row group is uint8 (n_neurons, n_rows * itemsize): the values of neuron after neuron.
    """

    def __init__(
        self,
        n_inputs: int,
        row_group: int,
        n_neurons: int,
        dtype: str,
        *,
        threads: int = 0,
    ) -> None: ...
    def append(self, batch: npt.NDArray[Any], sample: npt.NDArray[Any] | None, order: npt.NDArray[np.int32]) -> None:
        """Appends rows; see `SegmentEncoder.append`."""

    def take_row_group(self) -> _Bytes | None:
        """The next complete row group, or None."""

    def finish(self) -> None:
        """Checks that all n_inputs were appended."""

    @property
    def n_appended(self) -> int:
        """Inputs appended so far."""

def term_tables(
    term: str,
    values_lower: npt.NDArray[_Real],
    values_upper: npt.NDArray[_Real],
    starts: _Ids,
    targets: _Floats | None = None,
    weights: _Floats | None = None,
) -> _Floats:
    """Intervals of each neuron's term over intervals of its value (design, section 3, "One arithmetic").

    Terms: value w*v; square w*(v*v); abs_diff w*|v-t|; sq_diff w*((v-t)*(v-t)); product w*(t*v); without a weight the
    factor is left out. The ends go through the operations of the exact value, so lower == upper gives the exact term.
    inf * 0 and inf - inf widen to (-inf, inf). What an empty value interval (lower > upper) gives has no meaning.

    Args:
        values_lower, values_upper (Real (n,)): One dtype; neuron after neuron.
        starts (int64 (g + 1,)): Neuron j has the intervals [starts[j], starts[j + 1]).
        targets (float64 (g,)): Needed by abs_diff, sq_diff and product; None for the others. Finite.
        weights (float64 (g,)): Finite, any sign, or None.

    Returns:
        float64 (n, 2): Lower and upper end.
    """

def code_bounds(
    rows: _Rows,
    n_neurons: int,
    row_group: int,
    n_inputs: int,
    n_bits: int,
    tables: _Floats,
    maxima_terms: list[_Floats | None] | tuple[_Floats | None, ...] | None,
    maxima_starts: _Ids | None,
    combine: str,
    lower: _Floats,
    upper: _Floats,
    *,
    goes_on: bool = False,
    threads: int = 0,
) -> None:
    """Bounds of a group for every input of a segment, from its packed codes.

    Accumulates left to right over the neurons, from the first term on. NaN (inf - inf) widens to an unbounded end.

    Args:
        rows: n_row_groups * n_neurons bytes-like objects, at r * n_neurons + j; each ceil(n_rows * n_bits / 8) bytes or
            more.
        tables (float64 (n_neurons, 2**n_bits, 2)): The term's interval per code.
        maxima_terms: Per neuron float64 (m, 2) or None. Where neuron j keeps maxima, inputs with code 2**n_bits - 1
            take the next entry instead of the table's.
        maxima_starts (int64 (n_neurons, n_row_groups + 1)): Positions in the neuron's own maxima_terms; needed only
            with maxima_terms. A constant row means that the neuron keeps none.
        combine: "sum", "min" or "max".
        lower, upper (float64 (n_inputs,)): Outputs.
        goes_on: The outputs hold what the group's neurons before these gave, and these are added.

    Raises:
        ValueError: Bad arguments, or a row whose number of top codes is not that of its maxima.
    """

def value_scores(
    columns: _Rows,
    n_neurons: int,
    row_group: int,
    n_inputs: int,
    dtype: str,
    term: str,
    combine: str,
    targets: _Floats | None,
    weights: _Floats | None,
    scores: _Floats,
    *,
    goes_on: bool = False,
    threads: int = 0,
) -> None:
    """Exact scores of a group for every input of a segment, from kept values.

    The same arithmetic as `code_bounds` over tables of `term_tables`, bit for bit.

    Args:
        columns: As `rows` of `code_bounds`; each n_rows values of `dtype`.
        dtype: "float16", "bfloat16", "float32" or "float64".
        term: As in `term_tables`.
        combine: "sum", "min" or "max". A term that is NaN (inf * 0) makes the score NaN, wherever it stands.
        targets, weights (float64 (n_neurons,)): Or None.
        scores (float64 (n_inputs,)): Output; NaN stays NaN.
        goes_on: As in `code_bounds`.
    """

def combine_terms(terms: _Floats, combine: str) -> _Floats:
    """Combines float64 (n_terms, n) over the first axis ("sum", "min" or "max"), left to right, into
    float64 (n,).
    """

def decode(row: _Buffer, n: int, n_bits: int) -> _Codes:
    """The first n codes of a packed row, uint16 (n,)."""

def decode_at(rows: _Rows, n_neurons: int, groups: _Ids, positions: _Ids, n_bits: int) -> _Codes:
    """Codes of some inputs, uint16 (n_neurons, n).

    Args:
        rows: Packed rows of some row groups, row group after row group.
        n_neurons: Rows of a row group.
        groups (int64 (n,)): In which of them an input lies.
        positions (int64 (n,)): Where in it.
        n_bits: Of a code.
    """

def rank_at(rows: _Rows, n_neurons: int, groups: _Ids, positions: _Ids, n_bits: int, code: int) -> _Ids:
    """How many inputs before it in its row group have the code `code` too, int64 (n_neurons, n); -1 if it has not.

    Arguments as for `decode_at`.
    """

def check_pixels(
    masks: _Rows,
    dtype: str,
    shapes: _Ints,
    low: float,
    high: float,
    nodata: float | None,
    *,
    threads: int = 0,
) -> tuple[int, int, int, float] | None:
    """Finds the first pixel that is neither in [low, high] nor `nodata` (design, section 5).

    NaN is allowed only as `nodata`; infinities only inside the range or as `nodata`.

    Args:
        masks: n bytes-like objects of exactly height * width pixels each, of any alignment.
        dtype: "uint8" (also for bool), "uint16", "float16" or "float32".
        shapes (int32 (n, 2)): Heights and widths; at most 2**30 pixels each.
        low, high: Both included.
        nodata: A value of the dtype, or None.

    Returns:
        None, or (mask, y, x, value), the first by mask, row and column; the value is an int for integer dtypes.
    """

def mask_histograms(
    masks: _Rows,
    dtype: str,
    shapes: _Ints,
    edges: _Floats,
    grid: int,
    nodata: float | None,
    out: _Bytes,
    *,
    threads: int = 0,
) -> None:
    """Counts pixels at or above each edge in each cell of a relative grid (design, section 5, "Index").

    Cell (i, j) has rows [i*H//grid, (i+1)*H//grid) and columns [j*W//grid, (j+1)*W//grid). The number N of its pixels
    >= the edge, NaN and `nodata` not counted, is stored as ceil(N / s) with
    s = max(1, ceil(ceil(H/grid) * ceil(W/grid) / 255)): 1 for cells of at most 255 pixels.

    Args:
        masks, dtype, shapes, nodata: As in `check_pixels`.
        edges (float64 (B,)): Ascending, each a value of the dtype; may be empty.
        grid: 1 to 256.
        out (uint8 (B, n, grid * grid)): Output.
    """

def count_bounds(
    grid: int,
    shapes: _Ints,
    low_upper: _IndexRow,
    low_lower: _IndexRow,
    high_upper: _IndexRow,
    high_lower: _IndexRow,
    boxes: _Ints,
    lower: _Floats,
    upper: _Floats,
    *,
    threads: int = 0,
) -> None:
    """Certain bounds of the number of pixels with low <= value < high in a box (design, section 5, "Bounds").

    A row is n * grid * grid bytes of the index. None: for low_* that every pixel of a cell is at or above `low`, for
    high_* that none is at or above `high`; b"" the opposite.

    Args:
        shapes (int32 (n, 2) or (1, 2)): Heights and widths, or one for all masks.
        low_upper, high_upper: Rows of the greatest edges <= low and <= high.
        low_lower, high_lower: Rows of the least edges >= low and >= high.
        boxes (int32 (n, 4) or (1, 4)): Half-open (x0, y0, x1, y1), or one for all masks; need no clipping. Missing
            (-2**31 four times), empty and inverted ones give [0, 0].
        lower, upper (float64 (n,)): Outputs.
    """

def strip_bounds(
    grid: int,
    shapes: _Ints,
    low_upper: _IndexRow,
    low_lower: _IndexRow,
    high_upper: _IndexRow,
    high_lower: _IndexRow,
    n_masks: int,
    positions: _Ids,
    boxes: _Ints,
    lower: _Floats,
    upper: _Floats,
) -> None:
    """As `count_bounds`, of the part of the box in every row of cells, for some of the masks.

    Args:
        n_masks: How many the rows of the index have.
        positions (int64 (k,)): Which of them.
        boxes (int32 (k, 4) or (1, 4)): Theirs, or one for all.
        lower, upper (float64 (k, grid)): Outputs.
    """

def cell_bounds(
    grid: int,
    shapes: _Ints,
    low_upper: _IndexRow,
    low_lower: _IndexRow,
    high_upper: _IndexRow,
    high_lower: _IndexRow,
    lower: _Ints,
    upper: _Ints,
    *,
    threads: int = 0,
) -> None:
    """As `count_bounds`, of every whole cell.

    Args:
        lower, upper (int32 (n, grid * grid)): Outputs.
    """

def cell_overlaps(grid: int, shapes: _Ints, boxes: _Ints) -> tuple[_Ints, _Ints]:
    """Pixels of every cell, and how many of them lie in the box.

    Args:
        shapes (int32 (n, 2) or (1, 2)): Heights and widths.
        boxes (int32 (n, 4) or (1, 4)): As in `count_bounds`.

    Returns:
        areas, overlaps: int32 (n, grid * grid); one row with one shape and one box.
    """

def count_pixels(
    rows: _Rows,
    dtype: str,
    widths: _Ints,
    x0: _Ints,
    x1: _Ints,
    n_rows: _Ints,
    low: float | None,
    high: float | None,
    nodata: float | None,
    *,
    threads: int = 0,
) -> _Ids:
    """Counts pixels with low <= value < high, NaN and `nodata` not counted.

    Thresholds are compared as real numbers with the pixels; any but NaN is allowed.

    Args:
        rows: n bytes-like objects of exactly n_rows[i] whole rows of widths[i] pixels.
        dtype: As in `check_pixels`.
        widths, x0, x1, n_rows (int32 (n,)): Columns [x0, x1) count, inside [0, width]; none where x1 <= x0.
        low, high: None is open; an open `high` includes the greatest value.

    Returns:
        int64 (n,).
    """

def count_stored(
    arrays: list[StoredArray],
    array_of: _Ints,
    dtype: str,
    offsets: _Ids,
    widths: _Ints,
    boxes: _Ints,
    limits: list[tuple[float | None, float | None]],
    nodata: float | None,
    *,
    threads: int = 0,
) -> _Ids:
    """Counts, in boxes of masks that are read from their files, pixels with low <= value < high, not NaN or `nodata`.

    Of each mask the blocks from the first row of its boxes to the last are read and verified, by all threads. Masks
    that follow each other in a file and in the order given come with one read.

    Args:
        arrays: Of pixels, mask after mask, row after row; blocks hold whole pixels.
        array_of (int32 (n,)): Position in `arrays` of the one that holds the mask.
        dtype: As in `check_pixels`.
        offsets (int64 (n,)): Bytes from the first element of the array to the mask's first pixel.
        widths (int32 (n,)): Of each mask.
        boxes (int32 (leaves, n, 4)): 0 <= x0 <= x1 <= width, 0 <= y0 <= y1, and rows up to y1 are in the array.
        limits: (low, high) of each leaf, as in `count_pixels`.

    Returns:
        int64 (leaves, n).

    Raises:
        EndOfFileError, ChecksumError, ReadError: A file is truncated, damaged or cannot be read.
    """

def choose_strips(
    starts: _Ints, boxes: _Ints, lower: _Floats, upper: _Floats, at: _Ids, n_strips: _Ints
) -> tuple[_Ints, _Ints, _Ints]:
    """Which strips (rows of cells) of some masks to read next; a strip is open where its ends differ.

    Args:
        starts (int32 (n, grid + 1)): First row of each strip, then the height.
        boxes (int32 (leaves, n, 4)): Clipped.
        lower, upper (float64 (leaves, n, grid)): Certain bounds of the counts in the strips of the boxes.
        at (int64 (k,)): Positions of the masks.
        n_strips (int32 (k,)): How many, at least 1: those that leave most open, all leaves together, the first of
            equals.

    Returns:
        first, last (int32 (k,)): Strips [first, last) from the first to the last of those, empty where none is open.
        parts (int32 (leaves, k, 4)): The boxes within them; empty where the leaf has no open strip among them.
    """

def put_strips(
    starts: _Ints,
    boxes: _Ints,
    lower: _Floats,
    upper: _Floats,
    at: _Ids,
    first: _Ints,
    last: _Ints,
    counts: npt.NDArray[np.int64],
) -> tuple[int, int, float, float] | None:
    """Writes into `lower` and `upper` what counts in the parts that `choose_strips` gave tell.

    Args:
        counts (int64 (leaves, k)): Exact.

    Returns:
        None, or position in `at`, leaf, least and greatest possible count of the first count outside its bounds; it
        and those after it are not written.
    """

def count_joint(
    rows: _Rows,
    dtypes: list[str] | tuple[str, ...],
    starts: _Ids,
    widths: _Ints,
    x0: _Ints,
    x1: _Ints,
    n_rows: _Ints,
    lows: _Floats,
    highs: _Floats,
    nodatas: _Floats,
    has_nodata: npt.NDArray[np.bool_],
    *,
    threads: int = 0,
) -> tuple[_Ids, _Ids]:
    """Counts, in groups of masks of one shape, where every and where some mask is in its range of values.

    Args:
        rows: m bytes-like objects; those of group i are [starts[i], starts[i + 1]), each of n_rows[i] whole rows of
            widths[i] pixels.
        dtypes: m names, as in `check_pixels`.
        starts (int64 (n + 1,)): From 0 to m; every group has a member.
        widths, x0, x1, n_rows (int32 (n,)): As in `count_pixels`, per group.
        lows, highs (float64 (m,)): low <= value < high; -inf and inf are open.
        nodatas (float64 (m,)), has_nodata (bool (m,)): A value of the member's dtype that is never in range, where
            has_nodata.

    Returns:
        every, some: int64 (n,).
    """

class BoundedSearch:
    """Ranks candidates whose scores are known as intervals, refining as few as possible (design, section 3).

    Best score first, ties by id ascending, NULL after every score. Not for several threads at once (RuntimeError).

    Args:
        k: Results wanted, at least 1; None: all.
        largest: Whether the largest or the smallest score is best.
        floor: Results worse than this, and NULL, are no results. A filter is: score = truth in {0, 1}, floor=1.0.
        theta: At least 1. With theta_on="distance" (smallest first) stop once the k-th <= theta * the next bound; with
            "score" (largest first) once theta * the k-th >= the next bound, if all offered lower ends are >= 0.
        epsilon: At least 0; stop once the k-th is within epsilon of the next bound.
        theta_on: "none", "distance" or "score".
    """

    def __init__(
        self,
        k: int | None,
        *,
        largest: bool = True,
        floor: float | None = None,
        theta: float = 1.0,
        epsilon: float = 0.0,
        theta_on: str = "none",
    ) -> None: ...
    def offer(
        self, ids: _Ids, lower: _Floats, upper: _Floats, may_be_null: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Adds candidates, in any order of blocks; drops what is certainly out.

        Args:
            ids (int64 (n,)): Distinct over all blocks.
            lower, upper (float64 (n,)): Certain intervals. Equal ends are an exact score, NaN at both ends an
                exact NULL.
            may_be_null (bool (n,)): Where True the score may be NULL, and equal ends are not exact.

        Raises:
            ValueError: lower > upper, or one NaN end; nothing is changed.
        """

    def next_wave(self, unit: int, max_wave: int) -> _Ids:
        """The next ids to refine, best optimistic end first (with k=None: ids ascending); empty when finished.

        All open candidates that are certain to be needed, rounded up to a multiple of `unit` with the next ones that
        are still in the race, at most `max_wave` (a multiple of `unit`). Ids handed out and not refined are open again.

        Raises:
            ValueError: Bad sizes, or an id was offered twice.
        """

    def refine(
        self, ids: _Ids, lower: _Floats, upper: _Floats, may_be_null: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Gives tighter intervals for open ids; those that are not exact yet are handed out again. Call before offering
        more.

        Raises:
            ValueError: An id that is not open, or an interval that does not meet the earlier one; nothing is changed.
        """

    def copy(self) -> BoundedSearch:
        """An independent search that knows the same."""

    def rehearse(self, unit: int, max_wave: int) -> _Ids:
        """`next_wave`, and each candidate of it refined to the middle of its interval: on a copy, a prediction.

        An unbounded interval, or one that may be NULL, counts as its worst end.
        """

    def result(self) -> tuple[_Ids, _Floats, npt.NDArray[np.bool_]]:
        """Exact candidates in the race: ids, scores (NaN where NULL), is_null; in rank order, at most k.

        With k=None and a floor: ids ascending.
        """

    @property
    def threshold(self) -> float | None:
        """A candidate whose optimistic end is worse than this is certainly out. None: nothing known.

        The k-th best pessimistic end, or the floor where that is better. May lag behind large offers, never ahead.
        """

    @property
    def kth(self) -> float | None:
        """The k-th best exact score, None while there are fewer (or it is NULL)."""

    @property
    def peek_bound(self) -> float | None:
        """The optimistic end of the best open candidate, or None."""

    @property
    def candidate_count(self) -> int:
        """Candidates offered."""

    @property
    def open_count(self) -> int:
        """Candidates neither exact nor dropped."""

    @property
    def settled_count(self) -> int:
        """Candidates dropped or exact without a refinement."""

    @property
    def refined_count(self) -> int:
        """Distinct candidates refined."""
