"""Prints, as JSON, a digest of what each part of the core gives on lengths around its vectors' widths.

Run by test_targets.py in one process per compiled target: what they print must be the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from neuralartifactdb import _core

LENGTHS = [*range(3 * 32 + 2), 255, 257, 511, 513, 1023, 1025]  # 0 to 3 vectors of bytes + 1, and around blocks
DTYPES = ["uint8", "uint16", "float16", "float32"]
Array = npt.NDArray[Any]


def codes() -> Iterator[Array]:
    rng = np.random.default_rng(1)
    for bits in range(1, 13):
        for n in LENGTHS:
            yield _core.decode(rng.integers(0, 256, -(-n * bits // 8), dtype=np.uint8), n, bits)


def code_bounds() -> Iterator[Array]:
    rng = np.random.default_rng(2)
    for bits in (1, 4, 6, 8, 11, 12):
        for i, n in enumerate(LENGTHS[1:]):
            n_neurons, top = 1 + i % 19, (1 << bits) - 1
            tables = np.sort(rng.standard_normal((n_neurons, top + 1, 2)), axis=2)
            tables[rng.random(tables.shape[:2]) < 0.02] = [-np.inf, np.inf]
            share = rng.choice([0.0, 0.05, 1.0], p=[0.2, 0.7, 0.1])
            rows, terms = [], []
            starts = np.zeros((n_neurons, 2), np.int64)
            for j in range(n_neurons):
                own = np.where(rng.random(n) < share, top, rng.integers(0, top + 1, n))
                bit_rows = ((own[:, None] >> np.arange(bits)) & 1).astype(np.uint8)
                rows.append(np.packbits(bit_rows.ravel(), bitorder="little").tobytes())
                starts[j, 1] = np.count_nonzero(own == top)
                terms.append(np.repeat(rng.standard_normal((starts[j, 1], 1)), 2, axis=1))
            for how in ("sum", "min", "max"):
                for maxima in ((terms, starts), (None, None)):
                    lower, upper = np.empty(n), np.empty(n)
                    _core.code_bounds(rows, n_neurons, n, n, bits, tables, *maxima, how, lower, upper)
                    yield np.stack([lower, upper])


def value_scores() -> Iterator[Array]:
    rng = np.random.default_rng(3)
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        for term in ("value", "square", "abs_diff", "sq_diff", "product"):
            for n in LENGTHS[1:]:
                values = rng.standard_normal((3, n)) * 10.0 ** rng.integers(-6, 4, (3, n))
                if dtype == "bfloat16":
                    columns = [(v.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes() for v in values]
                else:
                    columns = [v.astype(dtype).tobytes() for v in values]
                targets = rng.standard_normal(3) if term in ("abs_diff", "sq_diff", "product") else None
                group = (columns, 3, n, n, dtype, term, ("sum", "min", "max")[n % 3], targets, rng.standard_normal(3))
                scores = np.empty(n)
                _core.value_scores(*group, scores)
                yield scores


def undefined_scores() -> Iterator[Array]:
    """0 * inf at every place of a group."""
    rng = np.random.default_rng(7)
    for how in ("sum", "min", "max"):
        for n in LENGTHS[1:]:
            columns = [np.where(rng.random(n) < 0.3, 1e308, rng.standard_normal(n)).tobytes() for _ in range(3)]
            weights = np.roll([0.0, 1.0, 2.0], n)
            out = np.empty(n)
            _core.value_scores(columns, 3, n, n, "float64", "abs_diff", how, np.full(3, -1e308), weights, out)
            yield np.isnan(out)
            yield out[~np.isnan(out)]


def encoders() -> Iterator[Array]:
    rng = np.random.default_rng(4)
    for dtype in (np.float32, np.float64):
        for bits in (1, 3, 6, 8, 9):
            for n in LENGTHS[1::7]:
                values = np.maximum(rng.standard_normal((n, 33)), -0.5).astype(dtype)
                edges = _core.choose_edges(values, bits, 2)
                encoder = _core.SegmentEncoder(edges, n, n, 40)
                encoder.append(values, None, np.arange(n, dtype=np.int32))
                group = encoder.take_row_group()
                assert group is not None
                yield from (edges, group, *encoder.finish())


def pixels() -> Iterator[Array]:
    rng = np.random.default_rng(5)
    for dtype in DTYPES:
        for n in LENGTHS[1:]:
            masks = [(rng.random((5, n)) * 200 - 20 * dtype.startswith("f")).astype(dtype) for _ in range(3)]
            x0 = rng.integers(0, n, 3).astype(np.int32)
            x1 = rng.integers(x0, n + 1).astype(np.int32)
            widths, n_rows = np.full(3, n, np.int32), np.full(3, 5, np.int32)
            for low, high in ((30.0, 150.0), (-5.0, 60.0), (None, 90.0)):
                yield _core.count_pixels(masks, dtype, widths, x0, x1, n_rows, low, high, None)
            shapes = np.full((3, 2), [5, n], np.int32)
            edges = np.arange(10.0, 180.0, 12 + n % 40)
            out = np.empty((len(edges), 3, 9), np.uint8)
            _core.mask_histograms(masks, dtype, shapes, edges, 3, None, out)
            yield out
            yield np.array(_core.check_pixels(masks, dtype, shapes, -20.0, float(masks[2].max()) - 1, None) or ())
            ends = (np.full(3, 40.0), np.full(3, 90.0), np.zeros(3), np.zeros(3, np.bool_))
            one = (widths[:1], x0[:1], x1[:1], n_rows[:1])
            yield from _core.count_joint(masks, [dtype] * 3, np.array([0, 3], np.int64), *one, *ends)


def cells() -> Iterator[Array]:
    rng = np.random.default_rng(6)
    for grid in (1, 3, 5, 8, 9, 16):
        for side in (28, 224, 3000):
            n = 40
            rows = np.sort(rng.integers(0, 256, (4, n, grid * grid)).astype(np.uint8), axis=0)[::-1].copy()
            start = rng.integers(0, side, (n, 2))
            boxes = np.concatenate([start, start + rng.integers(0, side, (n, 2))], axis=1).astype(np.int32)
            for own in (boxes, boxes[:1].copy()):
                for chosen in (list(rows), [rows[0], rows[1], None, None], [None, None, rows[2], rows[3]]):
                    lower, upper = np.empty(n), np.empty(n)
                    _core.count_bounds(grid, np.array([[side, side]], np.int32), *chosen, own, lower, upper)
                    yield np.stack([lower, upper])


PARTS: list[Callable[[], Iterator[Array]]] = [
    codes,
    code_bounds,
    value_scores,
    undefined_scores,
    encoders,
    pixels,
    cells,
]


def main() -> None:
    digests = {}
    for part in PARTS:
        digest, n_arrays = hashlib.sha256(), 0
        for array in part():
            digest.update(np.ascontiguousarray(array).tobytes())
            n_arrays += 1
        digests[part.__name__] = [n_arrays, digest.hexdigest()]
    print(json.dumps({"kernels": _core.build_info()["kernels"], "digests": digests}))


if __name__ == "__main__":
    main()
