"""Deleting masks: what is gone stays gone, ids are never used again, and everything else is as it was.

Implements `delete(ids | where)` and "Deletes are tombstones" of design section 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb

RNG = np.random.default_rng(9)
PIXELS = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)


def filled(db: nadb.Database) -> Any:
    masks = db.create_masks("m", dtype="uint8")
    for first in (0, 15, 30):
        last = min(first + 15, 40)
        masks.append(PIXELS[first:last], input_id=range(first, last), attrs={"n": range(first, last)})
    return masks


def test_deleted_masks_are_gone_everywhere(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        masks = filled(db)
        assert masks.delete([3, 20, 39, 20]) == 3
        with nadb.open(db_path, mode="r") as other:
            for handle in (masks, other.masks["m"]):
                left = [i for i in range(40) if i not in (3, 20, 39)]
                assert len(handle) == 37
                assert handle.table()["mask_id"].tolist() == left
                assert handle.table()["n"].tolist() == left
                assert len(handle.shapes) == 37
                assert np.array_equal(handle.pixels(left), PIXELS[left])
                assert handle.filter(nadb.area(nadb.whole) > 0).ids.tolist() == left
                assert handle.filter(nadb.count(nadb.whole, low=100) >= 0).ids.tolist() == left
                assert set(handle.top_k(nadb.count(nadb.whole, low=100), 40).ids.tolist()) == set(left)
                assert handle.count_where(nadb.column("n") >= 0) == 37
                assert len(handle.group_by("input_id").keys) == 37
                with pytest.raises(IndexError, match=r"mask 20 .*was deleted"):
                    handle.pixels([0, 20])
                with pytest.raises(IndexError, match="deleted"):
                    handle.scores(nadb.area(nadb.whole), [20])
                assert "3 deleted" in repr(handle)


def test_ids_are_never_used_again(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        masks = filled(db)
        masks.delete(range(40))
        assert len(masks) == 0
        assert masks.append(PIXELS[:2], input_id=[0, 1], attrs={"n": [7, 8]}).tolist() == [40, 41]
    with nadb.open(db_path) as db:
        masks = db.masks["m"]
        masks.delete([41])
        assert masks.append(PIXELS[:1], input_id=[0]).tolist() == [42]
        assert masks.table()["mask_id"].tolist() == [40, 42]


@pytest.mark.parametrize(
    "choose",
    [
        lambda masks: np.array([5, 9, 12]),
        lambda masks: np.isin(masks.table()["mask_id"], [5, 9, 12]),
        lambda masks: lambda ids: np.isin(ids, [5, 9, 12]),
        lambda masks: masks.filter((nadb.column("n") == 5) | (nadb.column("n") == 9) | (nadb.column("n") == 12)),
        lambda masks: (nadb.column("n") == 5) | (nadb.column("n") == 9) | (nadb.column("n") == 12),
        lambda masks: (nadb.count(nadb.whole, low=0) > 0) & (nadb.column("n") < 13) & (nadb.column("n") > 4)
        & ~((nadb.column("n") > 5) & (nadb.column("n") < 9)) & ~((nadb.column("n") > 9) & (nadb.column("n") < 12)),
    ],
)  # fmt: skip
def test_by_ids_flags_callables_results_and_conditions(db_path: Path, choose: Any) -> None:
    with nadb.open(db_path) as db:
        masks = filled(db)
        masks.delete(0)  # so that positions among the masks that are there are not their ids
        assert masks.delete(choose(masks)) == 3
        assert masks.table()["mask_id"].tolist() == [i for i in range(1, 40) if i not in (5, 9, 12)]


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (None, TypeError, "got None"),
        ([40], IndexError, r"\[0, 40\), got 40"),
        ([-1], IndexError, "got -1"),
        ([7], IndexError, "7.*deleted"),
        ([0.5], TypeError, "float64"),
        ("model = 'a'", TypeError, "text"),
        (np.ones(40, bool), ValueError, r"\(39,\), got \(40,\)"),
        (nadb.count(nadb.whole), TypeError, "condition"),
    ],
)
def test_what_is_refused_deletes_nothing(db_path: Path, what: Any, kind: type[Exception], message: str) -> None:
    with nadb.open(db_path) as db:
        masks = filled(db)
        masks.delete([7])
        with pytest.raises(kind, match=message):
            masks.delete(what)
        assert len(masks) == 39


@settings(max_examples=15)
@given(st.lists(st.one_of(st.integers(1, 6), st.sets(st.integers(0, 40), max_size=5)), max_size=8))
def test_any_order_of_appends_and_deletes(tmp_path_factory: Any, steps: list[int | set[int]]) -> None:
    with nadb.open(tmp_path_factory.mktemp("steps") / "run.nadb") as db:
        masks = db.create_masks("m", dtype="uint8")
        expected: dict[int, Any] = {}
        n = 0
        for step in steps:
            if isinstance(step, int):
                masks.append(PIXELS[:step], input_id=[n] * step)
                expected.update({n + i: PIXELS[i] for i in range(step)})
                n += step
            else:
                chosen = sorted(step & expected.keys())
                assert masks.delete(chosen) == len(chosen)
                for i in chosen:
                    del expected[i]
            assert masks.table()["mask_id"].tolist() == sorted(expected)
        assert all(np.array_equal(masks.pixels(i), mask) for i, mask in expected.items())


@pytest.mark.parametrize("big", [2**63, 2**64 - 1])
def test_ids_beyond_int64_are_shown_as_given(db_path: Path, big: int) -> None:
    with nadb.open(db_path) as db:
        masks = filled(db)
        ids = np.array([0, big], dtype=np.uint64)
        for call in (
            lambda: masks.pixels(ids),
            lambda: masks.scores(nadb.area(nadb.whole), ids),
            lambda: masks.delete(ids),
            lambda: masks.top_k(nadb.area(nadb.whole), where=ids),
        ):
            with pytest.raises(IndexError, match=rf"\[0, 40\), got {big} at position 1"):
                call()
        with pytest.raises(IndexError, match=f"got {big} at mask 1"):
            masks.append(PIXELS[:2], input_id=ids, attrs={"n": [7, 8]})
        assert len(masks) == 40


@pytest.mark.parametrize("ids", [[99], [True], "n = 3", np.ones(41, bool), [0.5], lambda ids: ids])
def test_a_bad_delete_complains_of_ids(db_path: Path, ids: Any) -> None:
    with nadb.open(db_path) as db:
        masks = filled(db)
        with pytest.raises((IndexError, TypeError, ValueError), match="`ids`") as caught:
            masks.delete(ids)
        assert "where" not in str(caught.value)
        masks.delete(5)
        with pytest.raises(IndexError, match=r"`ids`.* 5: it was deleted"):
            masks.delete([5])
