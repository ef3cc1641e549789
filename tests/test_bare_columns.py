"""A column of numbers is no condition: it must not pass for one, least of all where masks are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb


@pytest.fixture
def db(tmp_path: Path) -> Iterator[nadb.Database]:
    with nadb.open(tmp_path / "a.nadb") as opened:
        masks = opened.create_masks("m", dtype="uint8")
        attrs = {"w": np.arange(20) / 4, "s": [2] * 20, "b": [True, False] * 10}
        masks.append(np.zeros((20, 4, 4), np.uint8), input_id=np.arange(20), attrs=attrs)
        opened.index_arrays("f", np.arange(20, dtype=np.float32)[:, np.newaxis])
        opened.set_inputs({"label": np.arange(20), "good": [False, True] * 10})
        yield opened


@pytest.mark.parametrize(
    "ask",
    [
        lambda db: db.masks["m"].filter(nadb.column("w")),
        lambda db: db.masks["m"].filter(nadb.column("height")),
        lambda db: db.masks["m"].count_where(nadb.column("w")),
        lambda db: db.masks["m"].delete(nadb.column("s")),
        lambda db: db.masks["m"].group_by("input_id").filter(nadb.column("input_id")),
        lambda db: db.activations["f"].filter(nadb.column("label")),
        lambda db: db.filter(nadb.column("label")),
    ],
)
def test_numbers_are_refused(db: nadb.Database, ask: Callable[[nadb.Database], Any]) -> None:
    with pytest.raises(nadb.Error, match=r"is used as a condition .* compare it"):
        ask(db)
    assert len(db.masks["m"]) == 20


def test_truth_values_are_taken(db: nadb.Database) -> None:
    found = db.masks["m"].filter(nadb.column("b"))
    assert found.ids.tolist() == list(range(0, 20, 2))
    assert found.verify()
    assert db.masks["m"].count_where(nadb.column("b")) == 10
    assert db.activations["f"].filter(nadb.column("good")).ids.tolist() == list(range(1, 20, 2))
