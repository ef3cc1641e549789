"""Numbers of bytes as users write them, and fractions written as bytes by mistake."""

from __future__ import annotations

import pytest

import neuralartifactdb as nadb
from neuralartifactdb.quantities import parse_bytes, refuse_fraction_text


@pytest.mark.parametrize(("text", "number"), [("0.2", "0.2"), (" .05 ", "0.05"), ("1", "1"), ("2e-1", "0.2")])
def test_a_fraction_in_quotes_is_told_to_be_a_number(text: str, number: str) -> None:
    with pytest.raises(nadb.Error, match="for a fraction write the number itself") as caught:
        refuse_fraction_text(text, "storage")
    assert isinstance(caught.value, ValueError)
    assert f"got {text!r}" in str(caught.value)
    assert str(caught.value).endswith(f"storage={number}")


@pytest.mark.parametrize("text", ["2", "4096", "1B", "0.5GB", "1 kB", "many"])
def test_bytes_and_nonsense_are_left_to_the_parser(text: str) -> None:
    refuse_fraction_text(text, "storage")


def test_a_collection_of_masks_says_so_too(tmp_path: object) -> None:
    with nadb.open(f"{tmp_path}/a.nadb") as db, pytest.raises(ValueError, match=r"storage=0\.05"):
        db.create_masks("m", dtype="uint8", storage="0.05")


def test_units() -> None:
    assert [parse_bytes(text) for text in ("1.5KiB", "2 GB", "7")] == [1536, 2 * 10**9, 7]
