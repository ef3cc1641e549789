"""Counts straight from files: as NumPy counts, whatever the blocks are, and never from damaged or missing bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuralartifactdb import _core

DTYPES = ["uint8", "uint16", "float16", "float32"]
DATA_AT = 128


class StoredFile:
    """Masks of a dtype one after another in a file, in blocks."""

    def __init__(self, path: Path, masks: list[NDArray[Any]], block_bytes: int) -> None:
        data = b"".join(mask.tobytes() for mask in masks)
        path.write_bytes(bytes(DATA_AT) + data)
        sizes = [mask.nbytes for mask in masks]
        self.offsets = np.cumsum([0, *sizes], dtype=np.int64)[:-1]
        self.widths = np.array([mask.shape[1] for mask in masks], dtype=np.int32)
        self.crcs = np.array(
            [zlib.crc32(data[at : at + block_bytes]) for at in range(0, len(data), block_bytes)], dtype=np.uint32
        )
        self.n_bytes, self.block_bytes = len(data), block_bytes
        self.descriptor = os.open(path, os.O_RDONLY)

    def opened(self) -> _core.StoredArray:
        return _core.StoredArray(self.descriptor, DATA_AT, self.n_bytes, self.block_bytes, self.crcs)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Callable[..., StoredFile]]:
    """Writes masks to new files; closes them in the end."""
    made: list[StoredFile] = []

    def write(masks: list[NDArray[Any]], block_bytes: int) -> StoredFile:
        made.append(StoredFile(tmp_path / f"{len(made)}.npy", masks, block_bytes))
        return made[-1]

    yield write
    for file in made:
        os.close(file.descriptor)


def random_masks(rng: np.random.Generator, dtype: str, shapes: list[tuple[int, int]]) -> list[NDArray[Any]]:
    if dtype.startswith("uint"):
        return [rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype) for shape in shapes]
    masks = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    for mask in masks:
        mask[rng.random(mask.shape) < 0.05] = np.nan
    return masks


def random_boxes(rng: np.random.Generator, masks: list[NDArray[Any]], n_leaves: int) -> NDArray[np.int32]:
    boxes = np.zeros((n_leaves, len(masks), 4), dtype=np.int32)
    for leaf in range(n_leaves):
        for i, mask in enumerate(masks):
            y, x = (np.sort(rng.integers(0, size + 1, 2)) for size in mask.shape)
            boxes[leaf, i] = x[0], y[0], x[1], y[1]
    return boxes


def plain_counts(
    masks: list[NDArray[Any]],
    boxes: NDArray[np.int32],
    limits: list[tuple[float | None, float | None]],
    nodata: float | None,
) -> NDArray[np.int64]:
    out = np.zeros(boxes.shape[:2], dtype=np.int64)
    for leaf, (low, high) in enumerate(limits):
        for i, mask in enumerate(masks):
            x0, y0, x1, y1 = boxes[leaf, i]
            pixels = mask[y0:y1, x0:x1].astype(np.float64)
            inside = ~np.isnan(pixels)
            if low is not None:
                inside &= pixels >= low
            if high is not None:
                inside &= pixels < high
            if nodata is not None:
                inside &= pixels != nodata
            out[leaf, i] = inside.sum()
    return out


side = st.integers(0, 40)


@given(
    st.sampled_from(DTYPES),
    st.lists(st.tuples(side, side), min_size=1, max_size=12),
    st.sampled_from([4, 12, 64, 1000, 1 << 16]),
    st.integers(0, 3),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_counts_are_numpys(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shapes: list[tuple[int, int]],
    block_bytes: int,
    n_leaves: int,
    has_nodata: bool,
    threads: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    masks = random_masks(rng, dtype, shapes)
    file = StoredFile(tmp_path_factory.mktemp("stored") / "pixels.npy", masks, block_bytes)
    order = rng.permutation(len(masks)) if seed % 2 else np.arange(len(masks))
    masks = [masks[i] for i in order]
    top = float(np.iinfo(dtype).max) if dtype.startswith("uint") else 1.0
    choices = [None, 0.0, 0.25 * top, 0.5 * top, top]
    limits = [(choices[rng.integers(5)], choices[rng.integers(5)]) for _ in range(n_leaves)]
    nodata = 0.0 if has_nodata else None
    boxes = random_boxes(rng, masks, n_leaves)
    try:
        counts = _core.count_stored(
            [file.opened()],
            np.zeros(len(masks), np.int32),
            dtype,
            file.offsets[order],
            file.widths[order],
            boxes,
            limits,
            nodata,
            threads=threads,
        )
    finally:
        os.close(file.descriptor)
    assert counts.dtype == np.int64
    assert (counts == plain_counts(masks, boxes, limits, nodata)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_longer_than_a_strip(store: Callable[..., StoredFile], dtype: str) -> None:
    rng = np.random.default_rng(2)
    # blocks that cut rows, rows longer than a strip of blocks, strips that begin and end anywhere in a box
    masks = random_masks(rng, dtype, [(700, 500), (3, 200_000), (1, 1), (1500, 130), (1, 600_000)])
    limits: list[tuple[float | None, float | None]] = [(0.3, None), (None, 100.0), (0.0, 0.5)]
    for block_bytes in (4096, 60_000, 1 << 20):
        file = store(masks, block_bytes)
        for _ in range(4):
            boxes = random_boxes(rng, masks, 3)
            counts = _core.count_stored(
                [file.opened()], np.zeros(5, np.int32), dtype, file.offsets, file.widths, boxes, limits, None
            )
            assert (counts == plain_counts(masks, boxes, limits, None)).all()


def test_several_files_and_only_the_blocks_that_are_needed(store: Callable[..., StoredFile]) -> None:
    rng = np.random.default_rng(3)
    masks = random_masks(rng, "uint8", [(32, 64)] * 30)
    files = [store(masks[:10], 256), store(masks[10:14], 1024), store(masks[14:], 64)]
    arrays = [file.opened() for file in files]
    array_of = np.repeat(np.arange(3, dtype=np.int32), [10, 4, 16])
    offsets = np.concatenate([file.offsets for file in files])
    widths = np.full(30, 64, np.int32)
    boxes = np.broadcast_to(np.array([5, 8, 60, 12], np.int32), (1, 30, 4)).copy()  # rows [8, 12): 256 bytes
    counts = _core.count_stored(arrays, array_of, "uint8", offsets, widths, boxes, [(100.0, 200.0)], None)
    assert (counts == plain_counts(masks, boxes, [(100.0, 200.0)], None)).all()
    assert [array.bytes_read for array in arrays] == [10 * 256, 4 * 1024, 16 * 256]
    boxes[:] = 0, 0, 64, 32  # whole masks: neighbours come with one read, and no block is read twice by a task
    arrays = [file.opened() for file in files]
    _core.count_stored(arrays, array_of, "uint8", offsets, widths, boxes, [(100.0, 200.0)], None, threads=1)
    assert sum(array.bytes_read for array in arrays) == 30 * 32 * 64


def test_damage_and_truncation(store: Callable[..., StoredFile], tmp_path: Path) -> None:
    masks = random_masks(np.random.default_rng(4), "uint8", [(40, 50)] * 20)
    good, bad = store(masks, 500), store(masks, 500)
    path = tmp_path / "1.npy"
    whole = path.read_bytes()
    boxes = np.broadcast_to(np.array([0, 10, 50, 20], np.int32), (1, 20, 4)).copy()
    array_of = np.ones(20, np.int32)

    def count() -> Any:
        arrays = [good.opened(), bad.opened()]
        return _core.count_stored(arrays, array_of, "uint8", bad.offsets, bad.widths, boxes, [(9.0, None)], None)

    expected = count()
    at = 7 * 2000 + 12 * 50  # row 12 of mask 7
    path.write_bytes(whole[: DATA_AT + at] + bytes([whole[DATA_AT + at] ^ 1]) + whole[DATA_AT + at + 1 :])
    with pytest.raises(_core.ChecksumError) as damaged:
        count()
    assert damaged.value.block == at // 500
    assert damaged.value.found != bad.crcs[at // 500]
    assert damaged.value.descriptor == bad.descriptor
    outside = 7 * 2000 + 25 * 50  # a row that is not asked for
    path.write_bytes(whole[: DATA_AT + outside] + b"?" + whole[DATA_AT + outside + 1 :])
    assert (count() == expected).all()
    path.write_bytes(whole[: DATA_AT + 19 * 2000 + 600])
    with pytest.raises(_core.EndOfFileError) as truncated:
        count()
    assert truncated.value.position == 19 * 2000 + 600
    assert truncated.value.descriptor == bad.descriptor
    os.close(bad.descriptor)
    bad.descriptor = os.open(tmp_path, os.O_RDONLY)  # a directory cannot be read
    with pytest.raises(_core.ReadError) as refused:
        count()
    assert refused.value.errno == 21
    assert refused.value.descriptor == bad.descriptor


def test_ctrl_c_stops_reading(store: Callable[..., StoredFile]) -> None:
    masks = [np.zeros((1000, 1000), np.uint8)]
    file = store(masks, 4096)
    n = 200_000
    arguments = (np.zeros(n, np.int32), "uint8", np.zeros(n, np.int64), np.full(n, 1000, np.int32))
    boxes = np.broadcast_to(np.array([0, 0, 1000, 1000], np.int32), (1, n, 4)).copy()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    stored = file.opened()
    try:
        with pytest.raises(KeyboardInterrupt):
            _core.count_stored([stored], *arguments, boxes, [(1.0, None)], None)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert stored.bytes_read < n * 1_000_000 / 2


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"arrays": [None]}, TypeError, "`arrays` must hold StoredArray, got None"),
    ({"arrays": []}, ValueError, "`array_of` must lie in"),
    ({"array_of": np.array([0, -1], np.int32)}, ValueError, "`array_of` must lie in .* got -1 at position 1"),
    ({"array_of": np.array([0, 1], np.int32)}, ValueError, "`array_of` must lie in .* got 1 at position 1"),
    ({"dtype": "int8"}, ValueError, "`dtype` must be"),
    ({"offsets": np.array([0], np.int64)}, ValueError, "`offsets` must have 2 rows"),
    ({"offsets": np.array([0, -2], np.int64)}, ValueError, "`offsets` must be multiples of 2 in"),
    ({"offsets": np.array([0, 1], np.int64)}, ValueError, "`offsets` must be multiples of 2 in"),
    ({"offsets": np.array([0, 402], np.int64)}, ValueError, "`offsets` must be multiples of 2 in"),
    ({"offsets": np.array([0, 202], np.int64)}, ValueError, "`boxes` must lie within"),
    ({"widths": np.array([10, 9], np.int32)}, ValueError, "`boxes` must lie within .* width 9 at position 1"),
    ({"widths": np.array([10], np.int32)}, ValueError, "`widths` must have 2 rows"),
    ({"boxes": np.zeros((2, 2, 4), np.int32)}, ValueError, "`boxes` must have shape"),
    ({"boxes": np.zeros((1, 3, 4), np.int32)}, ValueError, "`boxes` must have shape"),
    ({"boxes": np.array([[[0, 0, 10, 10], [3, 0, 2, 1]]], np.int32)}, ValueError, "`boxes` must lie within"),
    ({"boxes": np.array([[[0, 0, 10, 10], [0, -1, 2, 1]]], np.int32)}, ValueError, "`boxes` must lie within"),
    ({"boxes": np.array([[[0, 0, 10, 10], [0, 0, 10, 11]]], np.int32)}, ValueError, "`boxes` must lie within"),
    ({"boxes": np.array([[[0, 0, 10, 10], [0, 0, 10, 2**31 - 1]]], np.int32)}, ValueError, "`boxes` must lie within"),
    ({"limits": [(float("nan"), None)]}, ValueError, "`limits` must not be NaN"),
    ({"nodata": 0.5}, ValueError, "`nodata` must be a value of dtype uint16"),
])  # fmt: skip
def test_bad_arguments(store: Callable[..., StoredFile], change: dict[str, Any], error: Any, match: str) -> None:
    masks = random_masks(np.random.default_rng(5), "uint16", [(10, 10)] * 2)
    file = store(masks, 100)
    arguments: dict[str, Any] = {
        "arrays": [file.opened()],
        "array_of": np.zeros(2, np.int32),
        "dtype": "uint16",
        "offsets": file.offsets,
        "widths": file.widths,
        "boxes": np.broadcast_to(np.array([0, 0, 10, 10], np.int32), (1, 2, 4)).copy(),
        "limits": [(5.0, None)],
        "nodata": None,
    }
    assert _core.count_stored(**arguments).shape == (1, 2)
    with pytest.raises(error, match=match):
        _core.count_stored(**{**arguments, **change})


def test_bad_arrays(store: Callable[..., StoredFile]) -> None:
    file = store(random_masks(np.random.default_rng(6), "uint16", [(4, 4)]), 7)
    nothing = np.zeros((0, 1, 4), np.int32)
    with pytest.raises(ValueError, match="blocks of whole pixels of 2 bytes, got 7"):
        _core.count_stored(
            [file.opened()], np.zeros(1, np.int32), "uint16", file.offsets, file.widths, nothing, [], None
        )
    for n_bytes, block_bytes, match in (
        (32, 0, "block_bytes"),
        (-1, 7, "n_bytes"),
        (36, 7, "one element for each of 6"),
    ):
        with pytest.raises(ValueError, match=match):
            _core.StoredArray(file.descriptor, 0, n_bytes, block_bytes, file.crcs)
    with pytest.raises(ValueError, match="data_at"):
        _core.StoredArray(file.descriptor, -1, 32, 7, file.crcs)


@pytest.mark.parametrize("kernels", ["scalar", "avx2"])
def test_every_kernel_counts_the_same(tmp_path: Path, kernels: str) -> None:
    code = f"""
import numpy as np, os, zlib
from neuralartifactdb import _core
pixels = np.random.default_rng(0).integers(0, 256, (20, 61, 67), dtype=np.uint8)
open({str(tmp_path / "a")!r}, "wb").write(pixels.tobytes())
crcs = np.array([zlib.crc32(pixels.tobytes()[at : at + 999]) for at in range(0, pixels.nbytes, 999)], np.uint32)
fd = os.open({str(tmp_path / "a")!r}, os.O_RDONLY)
stored = _core.StoredArray(fd, 0, pixels.nbytes, 999, crcs)
boxes = np.broadcast_to(np.array([3, 5, 66, 60], np.int32), (1, 20, 4)).copy()
found = _core.count_stored([stored], np.zeros(20, np.int32), "uint8", np.arange(20, dtype=np.int64) * 61 * 67,
                           np.full(20, 67, np.int32), boxes, [(50.0, 99.0)], None)
inside = (pixels[:, 5:60, 3:66] >= 50) & (pixels[:, 5:60, 3:66] < 99)
assert (found[0] == inside.sum(axis=(1, 2))).all()
print(_core.build_info()["kernels"])
"""
    environment = {**os.environ, "NADB_FORCE_KERNELS": kernels}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if "not supported" in done.stderr or "must name kernels" in done.stderr:
        pytest.skip(f"{kernels} is not here")
    assert done.stdout.strip() == kernels, done.stderr
