"""Small collections with ugly masks, and random questions about them, each with its brute-force formula.

A `Case` says dtype, sizes, index, boxes, attributes, batches (one segment each) and what was deleted; `built` makes the
database. Serves the "Tests" section of the house style: sizes that no cell divides, boxes missing, inverted, past the
border and inside one cell, thresholds on and off the edges, all-equal pixels, ties.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import mask_oracle
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import neuralartifactdb as nadb
import oracle
from neuralartifactdb.masks import stored_counts

DTYPES = ("uint8", "bool", "float32", "float16", "uint16")
EDGES = {
    "uint8": [(64, 128, 192), (1, 40, 41, 200, 255), (100,), tuple(range(16, 256, 16))],
    "bool": [(1,)],
    "uint16": [(1_000, 30_000, 60_000), (1, 2, 3)],
    "float16": [(0.25, 0.5, 0.75), (0.5,)],
    "float32": [(0.25, 0.5, 0.75), (0.125, 0.5, 0.875)],
}
THRESHOLDS: dict[str, list[Any]] = {
    "uint8": [0, 1, 40, 64, 100, 128, 200, 255, 256, 300, -1, 99.5, 127.99],
    "bool": [0, 1, 2, 0.5, True],
    "uint16": [0, 1, 2, 3, 500, 30_000, 60_000, 65_535, 65_536, 0.5],
    "float16": [0.0, 0.1, 0.25, 0.5, 0.7, 0.75, 0.999, 1.5, -0.0],
    "float32": [0.0, 0.1, 0.25, 0.5, 0.7, 0.75, 0.999, 1.5, -1.0, 1e-40],
}
NODATA: dict[str, list[float]] = {"uint8": [0, 255, 7], "uint16": [0, 65_535], "float32": [float("nan"), 0.0, -1.0]}


@st.composite
def any_box(draw: st.DrawFn, size: int = 24) -> mask_oracle.Box:
    """Any box: within the mask, over its border, inverted, empty, far away."""
    edge = st.one_of(st.integers(0, size), st.integers(-5, size + 8), st.sampled_from([-(2**31) + 1, 2**31 - 1]))
    box = (draw(edge), draw(edge), draw(edge), draw(edge))
    if draw(st.integers(0, 3)):
        x0, x1 = sorted((box[0], box[2]))
        y0, y1 = sorted((box[1], box[3]))
        box = (x0, y0, x1, y1)
    return box


@dataclass(frozen=True)
class Case:
    """A collection to build and to ask."""

    dtype: str = "uint8"
    nodata: float | None = None
    shapes: tuple[tuple[int, int], ...] = ((16, 16),)
    batches: tuple[int, ...] = (20,)
    grid: int = 4
    edges: tuple[float, ...] = (64, 128, 192)
    kind: str = "smooth"
    deleted: tuple[int, ...] = ()
    index: str = "append"
    seed: int = 0
    strips: bool = False  # whether rows are read strip by strip, as those of large masks are

    @property
    def n(self) -> int:
        return sum(self.batches)


@st.composite
def cases(draw: st.DrawFn, *, max_masks: int = 40, dtypes: tuple[str, ...] = DTYPES) -> Case:
    """Any case; a shrunk one is uint8, 16 x 16, in one segment."""
    dtype = draw(st.sampled_from(dtypes))
    batches = tuple(draw(st.lists(st.integers(1, max(1, max_masks // 2)), min_size=1, max_size=3)))
    sides = st.sampled_from([16, 17, 5, 24, 3, 1])
    shapes = tuple(draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=3)))
    nodata = draw(st.sampled_from([None, None, *NODATA.get(dtype, [])]))
    edges = draw(st.sampled_from(EDGES[dtype]))
    return Case(
        dtype=dtype,
        nodata=nodata,
        shapes=shapes,
        batches=batches,
        grid=draw(st.sampled_from([4, 1, 2, 3, 8, 20])),
        edges=edges,
        kind=draw(st.sampled_from(["smooth", "noise", "constant", "few"])),
        deleted=tuple(draw(st.sets(st.integers(0, sum(batches) - 1), max_size=4))),
        index=draw(st.sampled_from(["append", "append", "lazy"])),
        seed=draw(st.integers(0, 2**16)),
        strips=draw(st.booleans()),
    )


def generated(case: Case, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[Any]:
    """One mask of a case."""
    height, width = shape
    if case.kind == "noise":
        unit = rng.random(shape)
    elif case.kind == "constant":
        unit = np.full(shape, rng.choice([0.0, 0.25, 0.5, 1.0]))
    elif case.kind == "few":
        unit = rng.choice([0.0, 0.25, 0.5, 1.0], shape)
    else:
        y, x = np.mgrid[0:height, 0:width]
        cy, cx, spread = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, 12)
        unit = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * spread**2))
    if case.dtype == "bool":
        return unit >= 0.5
    if case.dtype.startswith("float"):
        mask = unit.astype(case.dtype)
    else:
        mask = np.round(unit * np.iinfo(case.dtype).max).astype(case.dtype)
    if case.nodata is not None:
        holes = rng.random(shape) < 0.2
        mask[holes] = case.nodata
    return mask


@dataclass
class Built:
    """A database with one case's collection `m`, and what is in it."""

    db: Any
    masks: Any
    case: Case
    pixels: list[NDArray[Any]]
    boxes: list[mask_oracle.Box | None]
    inputs: list[int]
    models: list[str | None]
    weights: list[float | None]
    live: list[int] = field(default_factory=list)


@contextlib.contextmanager
def fast_directory() -> Iterator[str]:
    """A directory in memory where there is one, without fsync: for hundreds of databases."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="nadb-test-", dir=where) as folder,
        mock.patch.object(os, "fsync", return_value=None),
    ):
        yield folder


@contextlib.contextmanager
def database() -> Iterator[Any]:
    """An empty database, in a directory of its own."""
    with fast_directory() as folder, nadb.open(os.path.join(folder, "run.nadb")) as db:
        yield db


def random_box(rng: np.random.Generator, shape: tuple[int, int]) -> mask_oracle.Box | None:
    """A box as detectors give them, and as they should not."""
    height, width = shape
    kind = rng.integers(0, 8)
    if kind == 0:
        return None
    x0, x1 = sorted(rng.integers(0, width + 1, 2).tolist())
    y0, y1 = sorted(rng.integers(0, height + 1, 2).tolist())
    if kind == 1:
        return (x1, y1, x0, y0)
    if kind == 2:
        return (x0 - 9, y0 - 9, x1 + 9, y1 + 9)
    return (x0, y0, x1, y1)


@contextlib.contextmanager
def built(case: Case) -> Iterator[Built]:
    """The case's database, in a directory of its own."""
    rng = np.random.default_rng(case.seed)
    from_bytes = 0 if case.strips else stored_counts.STRIPS_FROM_BYTES
    with mock.patch.object(stored_counts, "STRIPS_FROM_BYTES", from_bytes), database() as db:
        settings: dict[str, Any] = {} if case.nodata is None else {"nodata": case.nodata}
        edges = list(case.edges)
        if case.nodata is not None:
            edges = sorted({0.0 if case.dtype.startswith("float") else 0, *edges})
        masks = db.create_masks("m", dtype=case.dtype, grid=case.grid, edges=edges, index=case.index, **settings)
        b = Built(db, masks, case, [], [], [], [], [])
        for size in case.batches:
            uniform = len(case.shapes) == 1
            first = len(b.pixels)
            for i in range(size):
                shape = case.shapes[0] if uniform else case.shapes[rng.integers(0, len(case.shapes))]
                b.pixels.append(generated(case, shape, rng))
                b.boxes.append(random_box(rng, shape))
                b.inputs.append((first + i) // 2)
                b.models.append([None, "resnet", "vit"][rng.integers(0, 3)])
                b.weights.append([None, 0.0, 1.5, -2.0][rng.integers(0, 4)])
            here = slice(first, first + size)
            append(masks, b, here)
        if case.deleted:
            masks.delete(list(case.deleted))
        b.live = [i for i in range(case.n) if i not in case.deleted]
        yield b


def append(masks: Any, b: Built, here: slice) -> None:
    """One batch of what is held."""
    corners = [(np.nan,) * 4 if box is None else box for box in b.boxes[here]]
    ids = masks.append(
        b.pixels[here],
        input_id=b.inputs[here],
        boxes={"object": np.array(corners, dtype=float)},
        attrs={"model": b.models[here], "weight": np.array([np.nan if w is None else w for w in b.weights[here]])},
    )
    assert ids.tolist() == list(range(here.start, here.stop))


# ---- questions -------------------------------------------------------------------------------------------------------

Question = tuple[Any, Callable[[int], Any]]


@st.composite
def thresholds(draw: st.DrawFn, dtype: str) -> dict[str, Any]:
    """low, high and equals as a user gives them; at least one."""
    some = st.sampled_from(THRESHOLDS[dtype])
    kind = draw(st.sampled_from(["low", "both", "high", "equals"]))
    if kind == "equals":
        return {"equals": draw(some)}
    given: dict[str, Any] = {}
    if kind in ("low", "both"):
        given["low"] = draw(some)
    if kind in ("high", "both"):
        given["high"] = draw(some)
    return given


@st.composite
def counts(draw: st.DrawFn, b: Built, *, areas: bool = True) -> Question:
    """A count or an area over a box, a box of each mask, or the whole."""
    kind = draw(st.sampled_from(["box", "object", "whole"]))
    region: Any
    if kind == "box":
        box = draw(any_box())
        region = draw(st.sampled_from([box, nadb.box(*box)]))
        of = [box] * len(b.pixels)
    elif kind == "object":
        region, of = nadb.box("object"), b.boxes
    else:
        region, of = nadb.whole, [mask_oracle.everywhere(mask) for mask in b.pixels]
    if areas and not draw(st.integers(0, 3)):
        return nadb.area(region), lambda i: mask_oracle.area(b.pixels[i], of[i])
    given = draw(thresholds(b.case.dtype))
    nodata = b.case.nodata
    return (
        nadb.count(region, **given),
        lambda i: mask_oracle.count(b.pixels[i], of[i], **given, nodata=nodata),
    )


@st.composite
def numbers(draw: st.DrawFn, b: Built, depth: int = 2) -> Question:
    """An expression with a number for each mask."""
    kind = draw(st.sampled_from(["count", "count", "constant", "column", "arithmetic", "arithmetic"]))
    if kind == "constant" and depth < 2:
        value = draw(st.sampled_from([0, 1, 2.5, -3]))
        return value, lambda _: float(value)
    if kind == "column":
        name = draw(st.sampled_from(["weight", "input_id", "mask_id", "height", "width"]))
        values = {
            "weight": b.weights,
            "input_id": b.inputs,
            "mask_id": list(range(b.case.n)),
            "height": [mask.shape[0] for mask in b.pixels],
            "width": [mask.shape[1] for mask in b.pixels],
        }[name]
        return nadb.column(name), lambda i: None if values[i] is None else float(values[i])
    if kind == "arithmetic" and depth:
        left, left_formula = draw(numbers(b, depth - 1))
        right, right_formula = draw(numbers(b, depth - 1))
        if isinstance(left, int | float) and isinstance(right, int | float):
            left, left_formula = draw(counts(b))
        op = draw(st.sampled_from(["/", "-", "+", "*"]))
        apply = {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right}
        return (left / right if op == "/" else apply[op]()), oracle.arithmetic(op, left_formula, right_formula)
    return draw(counts(b))


@st.composite
def conditions(draw: st.DrawFn, b: Built, depth: int = 1) -> Question:
    """A condition on each mask."""
    kind = draw(st.sampled_from(["compared", "compared", "model", "joined", "negated"]))
    if kind == "model":
        name = draw(st.sampled_from(["resnet", "vit", "other"]))
        return (
            nadb.column("model") == name,
            lambda i: None if b.models[i] is None else b.models[i] == name,
        )
    if depth and kind == "joined":
        left, left_formula = draw(conditions(b, depth - 1))
        right, right_formula = draw(conditions(b, depth - 1))
        op = draw(st.sampled_from(["&", "|"]))
        return (left & right if op == "&" else left | right), oracle.joined(op, left_formula, right_formula)
    if depth and kind == "negated":
        inner, formula = draw(conditions(b, depth - 1))
        return ~inner, oracle.negated(formula)
    left, left_formula = draw(numbers(b, 1))
    if isinstance(left, int | float):
        left, left_formula = draw(counts(b))
    known = [v for i in range(b.case.n) if (v := left_formula(i)) is not None]
    value = draw(st.sampled_from([0.0, 1.0, 10.0, 0.5, *known[:10]]))
    op = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    built_condition = {
        "<": lambda: left < value,
        "<=": lambda: left <= value,
        ">": lambda: left > value,
        ">=": lambda: left >= value,
        "==": lambda: left == value,
        "!=": lambda: left != value,
    }[op]()
    return built_condition, oracle.compared(op, left_formula, lambda _: value)


def check_ranking(result: Any, expected: list[tuple[int, float | None]]) -> None:
    """A result equals the oracle's rows: ids, order, scores."""
    assert result.ids.tolist() == [i for i, _ in expected]
    for got, (i, score) in zip(result.scores.tolist(), expected, strict=True):
        same = np.isnan(got) if score is None else got == score
        assert same, f"mask {i}: got {got!r}, expected {score!r}"
    assert result.exact
    assert result.guarantee == "exact"
    assert result.tolerance == 0.0
    assert result.kind == "masks"
