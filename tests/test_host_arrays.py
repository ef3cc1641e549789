"""Tensors and lists that are no arrays: every argument that takes an array says what is wrong, and what to give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuralartifactdb as nadb
from neuralartifactdb.errors import DtypeError, UnknownNameError
from neuralartifactdb.host_arrays import array_of_tensor

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch: sparse CSR, quantized tensors

UNREADABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: torch.eye(4).to_sparse(), "torch.sparse_coo; give tensor.to_dense"),
    "sparse rows": (lambda: torch.eye(4).to_sparse_csr(), "torch.sparse_csr; give tensor.to_dense"),
    "meta": (lambda: torch.empty(4, 4, device="meta"), "which has no values"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "nested"),
    "nested, strided": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.rand(4, 4), 0.1, 0, torch.quint8), "give tensor.dequantize"),
    "float8": (lambda: torch.ones(4, 4).to(torch.float8_e4m3fn), "which NumPy does not have"),
    "complex32": (lambda: torch.ones(4, 4, dtype=torch.complex32), "which NumPy does not have"),
}


def stacked(given: Any) -> Any:
    """One mask as an array of masks; two layouts of tensors cannot be that."""
    whole = not torch.is_tensor(given) or given.is_nested or given.layout is torch.sparse_csr
    return [given] if whole else given[None]


ARGUMENTS: dict[str, Callable[[nadb.Database, Any], Any]] = {
    "index_arrays": lambda db, given: db.index_arrays("x", given),
    "columns": lambda db, given: db.set_inputs({"q": given}),
    "neurons": lambda db, given: db.activations["l"].highest(given),
    "weights": lambda db, given: db.activations["l"].highest([0, 1], weights=given),
    "target": lambda db, given: db.activations["l"].nearest(given),
    "ids": lambda db, given: db.activations["l"].values(given),
    "where": lambda db, given: db.activations["l"].highest([0], where=given),
    "pixels": lambda db, given: db.masks["m"].append(stacked(given), input_id=[0]),
    "pixels as they are": lambda db, given: db.masks["m"].append(given, input_id=[0]),
    "a list of pixels": lambda db, given: db.masks["m"].append([given], input_id=[0]),
    "input_id": lambda db, given: db.masks["m"].append(np.zeros((1, 4, 4)), input_id=given),
    "boxes": lambda db, given: db.masks["m"].append(np.zeros((1, 4, 4)), input_id=[0], boxes={"o": given}),
    "attrs": lambda db, given: db.masks["m"].append(np.zeros((1, 4, 4)), input_id=[0], attrs={"a": given}),
    "where of masks": lambda db, given: db.masks["m"].filter(nadb.count(nadb.whole, 1) > 0, where=given),
    "ids of masks": lambda db, given: db.masks["m"].pixels(given),
}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> nadb.Database:
    found = nadb.open(tmp_path_factory.mktemp("unreadable") / "db")
    found.index_arrays("l", np.random.default_rng(0).random((40, 4), dtype=np.float32))
    found.create_masks("m", dtype="float32").append(np.zeros((2, 4, 4), np.float32), input_id=[0, 1])
    return found


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_tensors_that_are_no_arrays(db: nadb.Database, kind: str, argument: str) -> None:
    make, advice = UNREADABLE[kind]
    with pytest.raises(DtypeError, match=rf"cannot be read as a NumPy array, got .*{advice}"):
        ARGUMENTS[argument](db, make())
    assert sorted(db.activations) == ["l"]
    assert len(db.masks["m"]) == 2


@pytest.mark.parametrize("argument", ["index_arrays", "weights", "target", "pixels", "where"])
@pytest.mark.parametrize("given", [[[1, 2], [3]], [torch.ones(2), torch.ones(3)]])
def test_ragged_lists(db: nadb.Database, given: Any, argument: str) -> None:
    with pytest.raises(nadb.Error, match=r"(one length|2-D|at mask 0)"):
        ARGUMENTS[argument](db, given)


def test_regions_of_ragged_lists() -> None:
    for region in (nadb.box, nadb.count):
        with pytest.raises(nadb.Error, match=r"(one length|a box is one name)"):
            region([[1, 2], [3]])


@pytest.mark.parametrize("name", [["l"], None, 3, ("l",), np.array(["l"])])
def test_names_that_are_no_text(db: nadb.Database, name: Any) -> None:
    for held in (db.activations, db.masks, db.inputs):
        with pytest.raises(UnknownNameError, match=r"no (activation index|collection of masks|column)"):
            held[name]


@pytest.mark.parametrize("name", [["l"], None, {"l": 1}, np.array(["l"])])
def test_names_that_are_no_text_name_nothing_to_drop(db: nadb.Database, name: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"no activation index .*; there are: l"):
        del db.activations[name]
    with pytest.raises(UnknownNameError, match=r"no collection of masks .*; there are: m"):
        del db.masks[name]


def test_tensors_that_are(tmp_path: Path) -> None:
    ones = torch.ones(3, 4)
    for tensor in (
        ones,
        ones.bfloat16(),
        ones.half(),
        ones.requires_grad_(),
        ones.t(),
        torch.zeros(0),
        torch.tensor(3),
    ):
        assert np.array_equal(array_of_tensor(tensor, "x"), tensor.detach().float().numpy())
    turned = torch.ones(3, 4, dtype=torch.complex64).mul(1j).conj()
    assert np.array_equal(array_of_tensor(turned, "x"), np.full((3, 4), -1j, np.complex64))
    assert np.array_equal(array_of_tensor(turned.imag, "x"), -np.ones((3, 4), np.float32))
    with pytest.raises(DtypeError, match="complex64"):
        nadb.open(tmp_path / "db").index_arrays("x", turned)


def test_other_errors_are_not_explained_away() -> None:
    class Lost:
        is_nested = is_meta = is_quantized = False
        layout, dtype = "torch.strided", "torch.float32"

        def detach(self) -> Any:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        array_of_tensor(Lost(), "x")
