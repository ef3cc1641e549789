"""Small databases with ugly data, for the tests of activation queries against brute force.

A `Case` says which activations, how they are cut into segments, and which shape each segment has on disk (bits,
maxima, row groups), which small data would never get from a budget. `built` makes the database. Serves the "Tests"
section of the house style: ties, equal columns, ReLU zeros, one-hot, -0.0, denormals, one neuron, one input, odd sizes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.activations import build, index_calls
from neuralartifactdb.activations.budget import SegmentPlan
from neuralartifactdb.activations.dtypes import itemsize

KINDS = (
    "gaussian",
    "relu",
    "relu6",
    "one_hot",
    "constant",
    "few_values",
    "signed_zeros",
    "denormals",
    "wide",
    "sorted",
    "outliers",
)
DTYPES = ("float32", "float64", "float16", "bool", "int8", "int64")


def activations(kind: str, dtype: str, n: int, m: int, seed: int) -> NDArray[Any]:
    """(n, m) values of one kind in one dtype, always finite."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((n, m))
    if kind == "relu":
        normal = np.maximum(normal, 0)
    elif kind == "relu6":
        normal = np.clip(4 * normal, 0, 6)
    elif kind == "one_hot":
        normal = np.zeros((n, m))
        normal[np.arange(n), rng.integers(0, m, n)] = 1
    elif kind == "constant":
        normal = np.broadcast_to(rng.choice([-1.5, -0.0, 0.0, 2.0], m), (n, m)).copy()
    elif kind == "few_values":
        normal = rng.integers(-2, 3, (n, m)).astype(float)
    elif kind == "signed_zeros":
        normal = rng.choice([-0.0, 0.0, 1.0, -1.0], (n, m))
    elif kind == "denormals" and dtype.startswith("float"):
        return (rng.integers(-6, 7, (n, m)) * float(np.finfo(dtype).smallest_subnormal)).astype(dtype)
    elif kind == "wide":
        normal = normal * 10.0 ** rng.uniform(
            -3 if dtype == "float16" else -30, 3 if dtype == "float16" else 30, (n, m)
        )
    elif kind == "sorted":
        normal = np.sort(normal, axis=0)
    elif kind == "outliers":
        normal[rng.random((n, m)) < 0.1] *= 1000
    if dtype == "bool":
        return normal > 0
    if dtype == "int8":
        return np.clip(np.round(normal * 3), -128, 127).astype(np.int8)
    if dtype == "int64":
        return np.clip(np.round(normal * 2.0**50), -(2**53), 2**53).astype(np.int64)
    if dtype == "float16":
        normal = np.clip(normal, -60_000, 60_000)
    return normal.astype(dtype)


@dataclass(frozen=True)
class Shape:
    """One segment on disk: `bits` None keeps every value, 0 keeps nothing."""

    bits: int | None
    maxima_cap: int
    row_group: int
    block_bytes: int


@dataclass(frozen=True)
class Case:
    """An index to build and to ask."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    n: int
    seed: int
    cuts: tuple[int, ...]
    shapes: tuple[Shape, ...]
    sample: int
    evaluated_bytes: int

    @property
    def n_neurons(self) -> int:
        return int(np.prod(self.shape))

    @property
    def array(self) -> NDArray[Any]:
        """(n, *shape) activations."""
        return activations(self.kind, self.dtype, self.n, self.n_neurons, self.seed).reshape(self.n, *self.shape)


@st.composite
def cases(draw: st.DrawFn, *, min_inputs: int = 1, max_inputs: int = 60, max_neurons: int = 8) -> Case:
    """Any case; a shrunk one is small, Gaussian, float32, in one segment of one bit."""
    n = draw(st.integers(min_inputs, max_inputs))
    shape = draw(
        st.one_of(
            st.tuples(st.integers(1, max_neurons)),
            st.sampled_from([(2, 3), (1, 2, 2), (2, 2, 2)]),
        )
    )
    segment = st.builds(
        Shape,
        bits=st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 0, None]),
        maxima_cap=st.sampled_from([0, 1, 2, 5, 60]),
        row_group=st.sampled_from([8, 16, 1, 3, 7, 64]),
        block_bytes=st.sampled_from([4096, 1, 7, 64]),
    )
    return Case(
        kind=draw(st.sampled_from(KINDS)),
        dtype=draw(st.sampled_from(DTYPES)),
        shape=shape,
        n=n,
        seed=draw(st.integers(0, 2**16)),
        cuts=tuple(sorted(draw(st.sets(st.integers(1, max(1, n - 1)), max_size=3)))) if n > 1 else (),
        shapes=tuple(draw(st.lists(segment, min_size=1, max_size=3))),
        sample=draw(st.sampled_from([256, 1, 2, 9])),
        evaluated_bytes=draw(st.sampled_from([1 << 20, 0, 200])),
    )


class Function:
    """`evaluate` over held activations; counts what it was asked for."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.asked: list[int] = []
        self.calls = 0

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        self.calls += 1
        self.asked.extend(ids.tolist())
        return self.array[ids]

    def forget(self) -> None:
        self.asked.clear()
        self.calls = 0


@contextlib.contextmanager
def forced(cuts: tuple[int, ...], shapes: tuple[Shape, ...], sample: int) -> Iterator[None]:
    """Builds cut their segments at `cuts` and give them `shapes` in turn, with edges from `sample` inputs."""

    def ranges(first: int, last: int, n_neurons: int, memory_limit: int) -> list[tuple[int, int]]:
        points = [first, *(c for c in cuts if first < c < last), last]
        return [(a, b) for a, b in itertools.pairwise(points) if a < b]

    def plan(info: Any, n_inputs: int, storage: Any, **_: Any) -> SegmentPlan:
        shape = shapes[n_inputs % len(shapes)]
        if storage.keeps_all or shape.bits is None:
            size = shape.row_group * itemsize(info.dtype)
            return SegmentPlan(n_inputs, True, 0, 0, shape.row_group, max(size, shape.block_bytes), 1 << 40)
        if shape.bits == 0:
            return SegmentPlan(n_inputs, False, 0, 0, 0, 0, 0)
        return SegmentPlan(n_inputs, False, shape.bits, shape.maxima_cap, shape.row_group, shape.block_bytes, 1 << 40)

    def sample_size(n_inputs: int, *_: Any) -> int:
        return min(n_inputs, sample)

    with (
        mock.patch.object(index_calls, "segment_ranges", ranges),
        mock.patch.object(build, "plan_segment", plan),
        mock.patch.object(build, "sample_size", sample_size),
    ):
        yield


@contextlib.contextmanager
def without_fsync() -> Iterator[None]:
    """Durability is not under test here, and costs more than everything else."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


@contextlib.contextmanager
def fast_directory() -> Iterator[str]:
    """A directory in memory where there is one, without fsync: for hundreds of databases."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="nadb-test-", dir=where) as folder, without_fsync():
        yield folder


@dataclass
class Built:
    """A database over one case."""

    db: nadb.Database
    layer: Any
    function: Function
    rows: oracle.Rows


@contextlib.contextmanager
def built(case: Case, *, key: str = "layer") -> Iterator[Built]:
    """The case's database, in a directory of its own."""
    array = case.array
    function = Function(array)
    with (
        fast_directory() as folder,
        nadb.open(os.path.join(folder, "run.nadb"), evaluated_bytes=case.evaluated_bytes) as db,
    ):
        with forced(case.cuts, case.shapes, case.sample):
            layer = db.index_function(key, function, case.n, case.shape, fingerprint="v1", storage=0.5)
        function.forget()
        yield Built(db, layer, function, oracle.plain_rows(array))


# ---- what queries take -----------------------------------------------------------------------------------------------


@st.composite
def groups(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Any, list[int]]:
    """A group of neurons as a user writes it, and the flat indices that it means."""
    m = int(np.prod(shape))
    order = draw(st.permutations(range(m)))
    flat = list(order[: draw(st.integers(1, m))])
    spelled = draw(st.sampled_from(["list", "one", "tuple", "array", "coordinates", "slice", "bools", "whole"]))
    if spelled == "one":
        return flat[0], flat[:1]
    if spelled == "tuple":
        return tuple(int(c) for c in np.unravel_index(flat[0], shape)), flat[:1]
    if spelled == "array":
        return np.array(flat, dtype=np.int32), flat
    if spelled == "coordinates":
        return [tuple(int(c) for c in np.unravel_index(j, shape)) for j in flat], flat
    if spelled == "slice":
        begin = min(flat[0], m - 1)
        return slice(begin, None, 2), list(range(m))[begin::2]
    if spelled == "bools":
        mask = np.zeros(m, dtype=bool)
        mask[flat] = True
        return mask.reshape(shape), sorted(flat)
    if spelled == "whole":
        return None, list(range(m))
    return flat, flat


@st.composite
def restrictions(draw: st.DrawFn, n: int) -> tuple[Any, list[int]]:
    """A `where=` and the ids that it admits."""
    spelled = draw(st.sampled_from(["all", "bools", "ids", "callable", "none"]))
    if spelled == "all":
        return None, list(range(n))
    if spelled == "none":
        return draw(st.sampled_from([[], np.zeros(n, dtype=bool)])), []
    chosen = draw(st.lists(st.integers(0, n - 1), max_size=2 * n))
    allowed = sorted(set(chosen))
    if spelled == "ids":
        return chosen, allowed
    mask = np.zeros(n, dtype=bool)
    mask[allowed] = True
    if spelled == "bools":
        return mask, allowed
    return (lambda ids: mask[ids]), allowed


ks = st.sampled_from([1, 2, 3, 5, 20, 1_000])


def numbers(case: Case) -> st.SearchStrategy[float]:
    """Thresholds and weights worth trying: round ones, tiny ones, values that occur."""
    values = case.array.astype(np.float64).reshape(-1)
    return st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 1e-300, -0.0]),
        st.sampled_from(sorted(set(values.tolist()))) if values.size else st.just(0.0),
    )


def same_score(got: float, expected: float | None) -> bool:
    """Bit for bit; NaN is NULL, and a zero has no sign."""
    return np.isnan(got) if expected is None else got == expected


def check_ranking(result: Any, expected: list[tuple[int, float | None]], guarantee: str = "exact") -> None:
    """A result equals the oracle's rows: ids, order, scores."""
    assert result.ids.tolist() == [i for i, _ in expected]
    for got, (i, score) in zip(result.scores.tolist(), expected, strict=True):
        assert same_score(got, score), f"input {i}: got {got!r}, expected {score!r}"
    assert result.exact
    assert result.guarantee == guarantee
    assert result.tolerance == 0.0
