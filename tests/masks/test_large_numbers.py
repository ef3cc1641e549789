"""Numbers at the ends of 64 bits and beyond float64, in ids, columns and expressions: exact, or clearly refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
COUNT = nadb.count(nadb.whole, low=100)
INEXACT = 2**53 + 1


@pytest.fixture
def masks(tmp_path: Path) -> Any:
    with nadb.open(tmp_path / "a.nadb") as db:
        made = db.create_masks("m", dtype="uint8")
        made.append(PIXELS, input_id=range(6))
        yield made


@pytest.mark.parametrize("given", [2**63 - 1, 2**63, 2**64, 10**30, -1, -(2**63) - 1])
@pytest.mark.parametrize("form", [lambda i: i, lambda i: [i], lambda i: np.array([i])], ids=["int", "list", "array"])
def test_input_ids_lie_below_the_greatest_int64(masks: Any, given: int, form: Callable[[int], Any]) -> None:
    with pytest.raises(IndexError, match=rf"input_id must lie in \[0, 2\*\*63 - 1\), got {given} at mask 0"):
        masks.append(PIXELS[:1], input_id=form(given))
    assert len(masks) == 6


def test_the_greatest_input_id(tmp_path: Path) -> None:
    for reopened in (False, True):
        with nadb.open(tmp_path / "a.nadb") as db:
            if not reopened:
                masks = db.create_masks("m", dtype="uint8")
                masks.append(PIXELS[:2], input_id=[2**63 - 2, 0])
            masks = db.masks["m"]
            assert db.n_inputs == 2**63 - 1
            assert masks.table()["input_id"].tolist() == [2**63 - 2, 0]
            assert masks.filter(COUNT > 0).input_ids.tolist() == [2**63 - 2, 0]
            assert masks.group_by("input_id").top_k(nadb.sum(COUNT), k=2, where=[0]).keys.tolist() == [2**63 - 2]
            with pytest.raises(ValueError, match=f"exact in float64.*got {2**63 - 2}"):
                masks.filter(nadb.column("input_id") > 3)


ASKED: dict[str, Callable[[Any, Any], object]] = {
    "pixels": lambda masks, ids: masks.pixels(ids),
    "scores": lambda masks, ids: masks.scores(COUNT, ids),
    "delete": lambda masks, ids: masks.delete(ids),
    "where": lambda masks, ids: masks.filter(COUNT > 0, where=ids),
    "where of groups": lambda masks, ids: masks.group_by("input_id").top_k(nadb.sum(COUNT), where=ids),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("given", [[2**63], [0, 2**63], [0, 2**64], [0, 2**63 - 1], [2, -(2**63) - 1], (0, 2**63)])
def test_ids_beyond_64_bits_are_out_of_range(masks: Any, ask: Callable[[Any, Any], object], given: Any) -> None:
    at = len(given) - 1
    with pytest.raises(IndexError, match=rf"in \[0, 6\), got {given[at]} at position {at}"):
        ask(masks, given)


def test_integers_beside_floats_are_never_rounded(masks: Any) -> None:
    for column in ([INEXACT, 0.5], [INEXACT, None, 0.5], np.array([INEXACT, 0.5], object)):
        n = len(column)
        with pytest.raises(ValueError, match=f"'z' holds the integer {INEXACT} beside floats"):
            masks.append(PIXELS[:n], input_id=range(n), attrs={"z": column})
    assert masks.append(PIXELS[:2], input_id=[0, 1], attrs={"z": [INEXACT, 5]}).tolist() == [6, 7]
    masks.append(PIXELS[:2], input_id=[0, 1], attrs={"z": [0.5, 2.0**60]})  # another append: kept as given
    assert masks.table()["z"][6:].tolist() == [INEXACT, 5, 0.5, 2.0**60]
    with pytest.raises(ValueError, match=f"exact in float64.*got {INEXACT} at position 6"):
        masks.filter(nadb.column("z") > 1)
    with pytest.raises(ValueError, match=f"exact in float64, got {INEXACT}"):
        masks.filter(nadb.count(nadb.whole) + INEXACT > 1)
    masks.delete([6])
    assert masks.filter(nadb.column("z") > 1).ids.tolist() == [7, 9]


def test_integers_beside_floats_among_inputs(masks: Any, tmp_path: Path) -> None:
    with nadb.open(tmp_path / "b.nadb") as db:
        with pytest.raises(ValueError, match=f"'f' holds the integer {INEXACT} beside floats"):
            db.set_inputs({"f": [INEXACT, 0.5]})
        db.set_inputs({"f": [INEXACT, 3], "g": [2**53, 0.5]})
        assert db.inputs["f"].tolist() == [INEXACT, 3]
        assert db.inputs["g"].tolist() == [2.0**53, 0.5]


def test_groups_of_another_collection_say_why_they_do_not_fit(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        mine, other = (db.create_masks(name, dtype="uint8") for name in ("m", "n"))
        mine.append(PIXELS, input_id=range(6))
        other.append(PIXELS, input_id=range(6), attrs={"who": list("xxyyzz")})

        def groups(column: str) -> Any:
            return other.group_by(column).top_k(nadb.sum(COUNT), k=2)

        with pytest.raises(
            ValueError, match=r"groups by 'who' of 'n'.*'m' by their own column 'who'.*input_id, height"
        ):
            mine.filter(COUNT > 0, where=groups("who"))
        with pytest.raises(ValueError, match="mask ids of 'n' mean nothing among the masks of 'm'"):
            mine.filter(COUNT > 0, where=groups("mask_id"))
        assert mine.filter(nadb.area(nadb.whole) > 0, where=groups("width")).ids.tolist() == list(range(6))
