"""The choice of grid and edges: budgets are kept, edges fit the dtype and the values, what the user gives is kept."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb.errors import StorageBudgetError
from neuralartifactdb.masks.batch import STORED_DTYPES, CollectionMeta
from neuralartifactdb.masks.grid import (
    LEAST_BYTES,
    checked_edges,
    checked_grid,
    checked_storage,
    choose_index,
    index_budget,
)

RANGES = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float16": (0.0, 1.0)}


def meta_of(dtype: str, **changes: Any) -> CollectionMeta:
    value_range = changes.pop("value_range", RANGES.get(dtype, (0.0, 1.0)))
    return CollectionMeta("id", dtype, value_range, **changes)


def smooth(n: int, size: int, seed: int = 3) -> list[np.ndarray]:
    """Maps of one bump each, with some noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    maps = []
    for _ in range(n):
        cy, cx, r = rng.uniform(0.2, 0.8, 3)
        noise = np.kron(rng.uniform(0, 0.1, (size // 8, size // 8)), np.ones((8, 8)))
        bump = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (0.1 + 0.1 * r)) + noise
        maps.append((255 * (bump - bump.min()) / np.ptp(bump)).astype(np.uint8))
    return maps


@given(st.data())
def test_any_choice_fits_its_budget_and_its_dtype(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(STORED_DTYPES)))
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = data.draw(st.sampled_from(["uniform", "skewed", "few", "constant"]))
    values = {
        "uniform": rng.random((3, *shape)),
        "skewed": rng.random((3, *shape)) ** 20,
        "few": rng.integers(0, 4, (3, *shape)) / 4,
        "constant": np.full((3, *shape), 0.5),
    }[kind]
    low, high = RANGES.get(dtype, (0.0, 1.0))
    masks = list((low + (high - low) * values).astype(STORED_DTYPES[dtype]))
    nodata = data.draw(st.sampled_from([None, 0.0, math.nan] if dtype.startswith("float") else [None, low, high]))
    if dtype == "bool":
        nodata = None
    storage = data.draw(st.one_of(st.integers(4, 4000), st.floats(0.001, 1.0)))
    meta = meta_of(dtype, nodata=nodata, storage=storage)
    choice = choose_index(masks, meta)
    assert choice.mask_bytes <= max(index_budget(masks, storage), LEAST_BYTES * isinstance(storage, float))
    assert 1 <= choice.grid <= max(1, min(shape))
    edges = np.array(choice.edges)
    assert len(edges) >= 1
    assert (np.diff(edges) > 0).all()
    assert (edges.astype(STORED_DTYPES[dtype]).astype(np.float64) == edges).all()
    assert edges[-1] <= high
    if nodata is None:
        assert edges[0] > low
    else:
        assert edges[0] == low
    assert meta.with_index(*choice).has_index


def test_default_budget_is_a_twentieth_of_what_zlib_makes_of_the_pixels() -> None:
    masks = smooth(64, 160)
    each = [len(zlib.compress(mask.tobytes(), 6)) for mask in masks]
    budget = index_budget(masks, 0.05)
    assert LEAST_BYTES < budget <= 0.05 * np.mean(each)
    assert budget >= 0.9 * 0.05 * np.mean(each)  # the safety margin is small
    choice = choose_index(masks, meta_of("uint8"))
    assert 0.8 * budget < choice.mask_bytes <= budget


def test_default_budget_is_never_below_256_bytes_a_mask() -> None:
    blank = [np.zeros((64, 64), np.uint8)] * 5
    assert index_budget(blank, 0.05) == index_budget([], 0.05) == LEAST_BYTES == 256
    assert index_budget(smooth(5, 160), 0.0001) == LEAST_BYTES


def test_a_few_large_masks_are_judged_by_some_of_their_rows() -> None:
    mask = np.zeros((6_000, 4_000), np.uint8)  # beyond what is compressed whole
    mask[::2] = np.random.default_rng(1).integers(0, 255, 4_000)
    budget = index_budget([mask], 0.05)
    assert 0.7 < budget / (0.05 * len(zlib.compress(mask.tobytes(), 6))) < 1.4


@pytest.mark.parametrize(("storage", "n_bytes"), [("1KiB", 1023), (300, 299), ("2kB", 1999)])
def test_budget_in_bytes_counts_checksums(storage: int | str, n_bytes: int) -> None:
    assert index_budget(smooth(2, 64), storage) == n_bytes


def test_cells_and_edges_are_in_proportion() -> None:
    """At g * g * B bytes, measured best near B = 2 g."""
    for n_bytes in (256, 512, 1_024, 2_048, 4_096):
        choice = choose_index(smooth(8, 224), meta_of("uint8", storage=n_bytes + 1))
        assert 1.2 <= len(choice.edges) / choice.grid <= 3.5, (n_bytes, choice)


def test_edges_have_equal_width_where_values_spread() -> None:
    choice = choose_index(smooth(8, 224), meta_of("uint8", storage=1_000))
    assert choice == (8, tuple(16.0 * i for i in range(1, 16)))


def test_edges_follow_values_that_use_a_part_of_the_range() -> None:
    maps = [(mask / 255 * 0.05).astype(np.float32) for mask in smooth(8, 64)]
    edges = choose_index(maps, meta_of("float32")).edges
    assert edges[-1] < 0.05
    assert len(edges) >= 4


def test_half_of_the_edges_follow_skewed_values() -> None:
    rng = np.random.default_rng(1)
    maps = [rng.lognormal(-6, 1.5, (64, 64)).clip(0, 1).astype(np.float32) for _ in range(8)]
    edges = np.array(choose_index(maps, meta_of("float32")).edges)
    median = np.median(maps)
    assert 2 <= (edges < median).sum() <= len(edges) // 2


def test_labels_get_edges_on_and_after_each_value() -> None:
    labels = [np.kron(np.array([[0, 3], [4, 9]], np.uint8), np.ones((16, 16), np.uint8))] * 4
    choice = choose_index(labels, meta_of("uint8"))
    assert choice.edges == (1.0, 3.0, 4.0, 5.0, 9.0, 10.0)
    assert choice.grid == math.isqrt(LEAST_BYTES // 6)
    assert choose_index(labels, meta_of("uint8", nodata=9.0)).edges == (0.0, 1.0, 3.0, 4.0, 5.0)


def test_bool_gets_one_edge_and_the_finest_grid() -> None:
    masks = [(mask > 99).astype(np.uint8) for mask in smooth(4, 64)]
    assert choose_index(masks, meta_of("bool")) == (16, (1.0,))
    assert choose_index([], meta_of("bool")) == (16, (1.0,))
    assert choose_index([np.zeros((64, 64), np.uint8)], meta_of("bool")) == (16, (1.0,))


def test_binary_floats_are_exact_for_any_threshold() -> None:
    masks = [(mask > 99).astype(np.float32) for mask in smooth(4, 64)]
    assert choose_index(masks, meta_of("float32")).edges == (float(np.nextafter(np.float32(0), np.float32(1))), 1.0)


def test_blank_first_masks_leave_edges_over_the_whole_range() -> None:
    choice = choose_index([np.zeros((64, 64), np.float32)] * 3, meta_of("float32"))
    assert len(choice.edges) >= 8
    assert choice.edges[0] < 0.15
    assert choice.edges[-1] > 0.85


def test_nan_and_nodata_say_nothing_of_the_values() -> None:
    maps = [(mask / 255).astype(np.float32) for mask in smooth(4, 64)]
    holes = [np.where(np.arange(64) % 3 == 0, np.float32(np.nan), mask) for mask in maps]
    marked = [np.where(np.arange(64) % 3 == 0, np.float32(-999), mask) for mask in maps]
    expected = choose_index(holes, meta_of("float32", nodata=math.nan, storage=600))
    assert expected.edges[0] == 0.0
    assert expected.edges[1] > 0.01
    assert choose_index(marked, meta_of("float32", nodata=-999.0, storage=600)) == expected


def test_tiny_masks_get_no_more_cells_than_pixels() -> None:
    choice = choose_index([np.arange(49, dtype=np.uint8).reshape(7, 7)] * 9, meta_of("uint8", storage=10_000))
    assert choice.grid <= 7


def test_what_the_user_gives_is_kept() -> None:
    masks = smooth(4, 224)
    given = choose_index(masks, meta_of("uint8", grid=5, edges=(10.0, 200.0)))
    assert given == (5, (10.0, 200.0))
    assert choose_index(masks, meta_of("uint8", edges=(10.0, 200.0), storage=513)).grid == 16
    own_grid = choose_index(masks, meta_of("uint8", grid=6, storage=361))
    assert own_grid.grid == 6
    assert len(own_grid.edges) == 10


def test_what_does_not_fit_is_an_error_that_says_so() -> None:
    masks = smooth(4, 64)
    with pytest.raises(
        StorageBudgetError, match=r"17 x 17 cells takes 289 bytes .* leaves 256 .* grid=16 or less, storage=290 or more"
    ):
        choose_index(masks, meta_of("uint8", grid=17))
    with pytest.raises(StorageBudgetError, match="16 x 16 cells takes 512 bytes"):  # nodata needs two edges
        choose_index(masks, meta_of("uint8", grid=16, nodata=255.0))
    with pytest.raises(StorageBudgetError, match=r"5 edges take 5 bytes .* is 3 B"):
        choose_index(masks, meta_of("uint8", edges=(1.0, 2.0, 3.0, 4.0, 5.0), storage=4))


def test_edges_become_values_of_the_dtype() -> None:
    assert checked_edges(None, "uint8", (0, 255), None) == ()
    assert checked_edges([0, 0.5, 127.2, 128, 255], "uint8", (0, 255), None) == (1.0, 128.0, 255.0)
    assert checked_edges([127.2], "uint8", (0, 255), 255.0) == (0.0, 128.0)
    assert checked_edges(np.array([0.7]), "float32", (0, 1), None) == (float(np.float32(0.7)),)
    assert checked_edges((0.0, 0.5), "float16", (0, 1), math.nan) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("edges", "error", "match"),
    [
        ([3, 2], ValueError, "ascend, got 3.* and then 2 at position 1"),
        ([2, 2], ValueError, "ascend"),
        ([256], ValueError, r"range \[0, 255\], got 256 at position 0"),
        ([1, math.nan], ValueError, "range .* got nan at position 1"),
        ([0], ValueError, "above the range's low end 0"),
        ([], ValueError, "above the range's low end 0"),
        ("abc", TypeError, "ascending numbers, got 'abc'"),
        ([True], TypeError, "got True"),
        (["1"], TypeError, "got '1'"),
        (7, TypeError, "got 7"),
    ],
)
def test_bad_edges(edges: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        checked_edges(edges, "uint8", (0, 255), None)


def test_too_many_edges() -> None:
    with pytest.raises(ValueError, match="at most 255, got 300"):
        checked_edges(range(1, 301), "uint16", (0, 65535), None)


@pytest.mark.parametrize(
    ("storage", "error"),
    [
        *((value, ValueError) for value in (0, -0.1, 1.5, math.nan, "much")),
        *((value, TypeError) for value in (True, None, [1])),
    ],
)
def test_bad_storage(storage: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="storage"):
        checked_storage(storage)


def test_storage_is_a_share_or_bytes() -> None:
    assert checked_storage(0.05) == 0.05
    assert checked_storage(1) == 1.0
    assert checked_storage(np.float32(0.5)) == 0.5
    assert (checked_storage("1KiB"), checked_storage(np.int64(700)), checked_storage("256")) == (1024, 700, 256)


@pytest.mark.parametrize(("grid", "error"), [(0, ValueError), (65, ValueError), (2.0, TypeError), (True, TypeError)])
def test_bad_grid(grid: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="grid must"):
        checked_grid(grid)
    assert (checked_grid(None), checked_grid(np.int32(7))) == (0, 7)
