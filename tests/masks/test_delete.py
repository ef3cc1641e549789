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
from neuralartifactdb.cli.info import describe

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
        masks.delete(left)
        assert repr(masks).startswith("Masks('m': 0 masks, all of them deleted, uint8")
        assert "40 deleted" in repr(masks)


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


def test_facts_are_about_masks_that_are_there(db_path: Path) -> None:
    """Nothing that only deleted masks had is told: sizes, names of boxes and attributes, dtypes of columns, inputs."""
    with nadb.open(db_path) as db:
        masks = db.create_masks("m", dtype="uint8")
        masks.append(PIXELS[:3], input_id=[0, 1, 2], attrs={"n": [1, 2, 3]}, boxes={"object": [(0, 0, 2, 2)] * 3})
        both = [PIXELS[3], np.zeros((9, 9), np.uint8)]
        boxes = {"object": [(0, 0, 1, 1), None], "head": [None, (0, 0, 3, 3)], "never": [None, None]}
        attrs = {"n": [4, 5], "who": [None, "ann"], "unset": [None, None], "size": ["small", "large"]}
        masks.append(both, input_id=[3, 99], boxes=boxes, attrs=attrs)
        masks.append(PIXELS[5:6], input_id=[98], boxes={"tail": [(0, 0, 1, 1)]}, attrs={"note": "x"})
        assert masks.boxes == ["object", "head", "never", "tail"]
        assert db.n_inputs == 100
        assert masks.delete([4, 5]) == 2
        with nadb.open(db_path, mode="r") as reader:
            for handle, opened in ((masks, db), (reader.masks["m"], reader)):
                assert handle.boxes == ["object", "never"]
                assert handle.attributes == ["n", "unset", "size"]
                assert handle.shapes.tolist() == [[6, 5]] * 4
                assert "4 masks, 6 x 5" in repr(handle)
                assert "head" not in repr(handle)
                table = handle.table()
                assert list(table) == [
                    "mask_id",
                    "input_id",
                    "height",
                    "width",
                    "n",
                    "unset",
                    "size",
                    "object",
                    "never",
                ]
                assert table["n"].dtype == np.int64
                assert table["n"].tolist() == [1, 2, 3, 4]
                assert table["size"].tolist() == [None, None, None, "small"]
                assert table["object"].dtype == np.int32
                assert handle.pixels([]).shape == (0, 6, 5)
                assert opened.n_inputs == 4
                # still asked without an error, so that a script may run twice: nobody has one
                assert handle.filter(nadb.column("who") == "ann").ids.size == 0
                assert handle.filter(nadb.count(nadb.box("head"), low=0) >= 0).ids.size == 0
                with pytest.raises(KeyError, match=r"who2'(?!.*\bwho\b)(?!.*note)"):
                    handle.filter(nadb.column("who2") == "ann")
                with pytest.raises(KeyError, match=r"heads'(?!.*\bhead\b)(?!.*tail)"):
                    handle.filter(nadb.count(nadb.box("heads")) > 0)
        facts = describe(db_path).facts
        assert facts["n_inputs"] == 4
        [told] = facts["masks"]
        assert (told["shapes"], told["boxes"], told["attributes"]) == (
            [[6, 5, 4]],
            ["object", "never"],
            ["n", "unset", "size"],
        )
        assert (told["n_masks"], told["n_deleted"], told["n_indexed"]) == (4, 2, 4)


def test_a_kind_that_only_deleted_masks_had_binds_nobody(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        masks = db.create_masks("m", dtype="uint8")
        masks.append(PIXELS[:2], input_id=[0, 1], attrs={"n": ["one", "two"], "big": [2**53 + 1, 3]})
        with pytest.raises(TypeError, match="holds number"):
            masks.append(PIXELS[2:4], input_id=[2, 3], attrs={"n": [3, 4]})
        masks.delete([0, 1])
        masks.append(PIXELS[2:4], input_id=[2, 3], attrs={"n": [3, 4], "big": [0.5, 7.0]})
        assert masks.table()["n"].tolist() == [3, 4]
        assert masks.table()["big"].tolist() == [0.5, 7.0]
        assert masks.filter((nadb.column("n") > 3) & (nadb.column("big") > 0.5)).ids.tolist() == [3]
        assert masks.group_by("n").keys.tolist() == [3, 4]
    with nadb.open(db_path) as db:
        assert db.masks["m"].scores(nadb.column("n") + nadb.column("big"), [2, 3]).tolist() == [3.5, 11.0]
