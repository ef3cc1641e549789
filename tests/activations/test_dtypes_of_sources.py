"""Where activations come from and in which dtype: arrays, `.npy` files, tensors, functions; nothing is ever cast.

Implements "Activations may be float16, bfloat16, ..." of design section 4, and the sources that need no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activation_cases import Case, Shape, activations, built, check_ranking, without_fsync

import neuralartifactdb as nadb
import oracle

STORED = {
    "float16": "float16",
    "float32": "float32",
    "float64": "float64",
    "bool": "float16",
    "int8": "float16",
    "uint8": "float16",
    "int16": "float32",
    "uint16": "float32",
    "int32": "float64",
    "uint32": "float64",
    "int64": "float64",
}


def check(layer: Any, array: np.ndarray) -> None:
    rows = oracle.plain_rows(array)
    for flat, k in (([0], 400), ([2, 1], 5)):
        scores = [oracle.group_score([r[j] for j in flat], "sum") for r in rows]
        for largest in (True, False):
            expected = oracle.rank(scores, range(len(rows)), k, largest=largest)
            check_ranking(layer.highest(flat, k, largest=largest), expected)
    distances = [oracle.distance(r, rows[9], "l2") for r in rows]
    check_ranking(layer.nearest(9, None, 7), oracle.rank(distances, range(len(rows)), 7, largest=False))
    assert layer.values(range(len(rows))).tolist() == rows


@pytest.mark.parametrize("storage", [0.3, "all"])
@pytest.mark.parametrize("dtype", STORED)
def test_every_dtype_is_kept_in_the_least_float_that_holds_it(db_path: Path, dtype: str, storage: float | str) -> None:
    rng = np.random.default_rng(1)
    if dtype == "bool":
        array = rng.random((1_500, 4)) < 0.3
    elif np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        array = rng.integers(max(info.min, -(2**53)), min(info.max, 2**53), (1_500, 4), dtype=dtype, endpoint=True)
    else:
        array = rng.standard_normal((1_500, 4)).astype(dtype)
    with without_fsync(), nadb.open(db_path) as db:
        layer = db.index_arrays("feats", array, storage=storage)
        assert layer.dtype == STORED[dtype]
        check(layer, array)


@pytest.mark.parametrize("storage", [0.3, "all"])
@pytest.mark.parametrize("how", ["tensor", "function"])
def test_bfloat16_tensors(db_path: Path, how: str, storage: float | str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    tensor = torch.randn(1_500, 4).to(torch.bfloat16)
    tensor[::3] = 0
    array = tensor.float().numpy()
    with without_fsync(), nadb.open(db_path) as db:
        if how == "tensor":
            layer = db.index_arrays("feats", tensor, storage=storage)
        else:
            layer = db.index_function(
                "feats", lambda ids: tensor[torch.from_numpy(ids)], 1_500, 4, fingerprint="v1", storage=storage
            )
        assert layer.dtype == "bfloat16"
        check(layer, array)
    with nadb.open(db_path) as db:
        if how == "tensor":
            check(db.attach_array("feats", tensor), array)
            with pytest.raises(nadb.StaleIndexError, match="bfloat16"):
                db.attach_array("feats", tensor.float())


def test_tensors_that_need_gradients(db_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.randn(300, 4, requires_grad=True)
    with nadb.open(db_path) as db:
        check(db.index_arrays("a", tensor), tensor.detach().numpy())
        check(
            db.index_function("f", lambda ids: tensor[torch.from_numpy(ids)] * 2, 300, 4, fingerprint="v1"),
            tensor.detach().numpy() * 2,
        )


@pytest.mark.parametrize("order", ["C", "F"])
def test_files_and_strided_arrays(tmp_path: Path, order: str) -> None:
    array = np.asarray(activations("relu", "float32", 1_200, 12, 3).reshape(1_200, 3, 4), order=order)
    np.save(tmp_path / "array.npy", np.ascontiguousarray(array))
    sources = {"file": tmp_path / "array.npy", "array": array, "strided": np.repeat(array, 2, 0)[::2]}
    with without_fsync(), nadb.open(tmp_path / "run.nadb") as db:
        for key, source in sources.items():
            layer = db.index_arrays(key, source, storage=0.3)
            assert layer.shape == (3, 4)
            check(layer, array)


@pytest.mark.parametrize("memory_limit", ["8KiB", "64KiB", "1GiB"])
@pytest.mark.parametrize("kind", ["gaussian", "relu", "few_values"])
def test_little_memory_gives_the_same_answers(db_path: Path, memory_limit: str, kind: str) -> None:
    """Small samples, many row groups, several batches per segment."""
    array = activations(kind, "float32", 5_003, 5, 3)
    with without_fsync(), nadb.open(db_path) as db:
        layer = db.index_arrays("feats", array, storage=0.4, memory_limit=memory_limit)
        assert layer.bits > 0
        check(layer, array)


def test_an_index_of_nothing_may_become_one_of_something(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        db.index_function("feats", lambda ids: np.empty((len(ids), 3)), 0, 3, fingerprint="v1")
        versions = len(list((db_path / "versions").iterdir()))
        db.index_function("feats", lambda ids: np.empty((len(ids), 3)), 0, 3, fingerprint="v1")
        assert len(list((db_path / "versions").iterdir())) == versions
        array = activations("gaussian", "float64", 300, 3, 1)
        check(db.index_function("feats", lambda ids: array[ids], 300, 3, fingerprint="v1"), array)


def test_layers_that_are_indexed_unequally_far(db_path: Path) -> None:
    array = activations("gaussian", "float32", 400, 3, 1)
    with nadb.open(db_path) as db:
        long, short = db.index_arrays("long", array), db.index_arrays("short", array[:150] * 2)
        result = db.top_k(long[0] + short[1], 5)
        expected = [float(r[0]) + float(2 * r[1]) for r in array[:150]]
        assert result.ids.tolist() == [i for i, _ in oracle.rank(expected, range(150), 5, largest=True)]
        assert result.stats.candidates == 150
        assert "250 later ones are not indexed" in result.guarantee
        assert db.filter((long[0] > 0) & (short[1] > 0), where=np.arange(100, 400)).stats.candidates == 50
        assert long.highest(0, 3).guarantee == "exact"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bits", [1, 3, 6, None])
def test_a_build_that_flushes_denormals_changes_nothing(dtype: str, bits: int | None) -> None:
    """PyTorch can make a thread treat denormals as zeros; what an index says of them must not depend on it."""
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    case = Case("denormals", dtype, (4,), 200, 3, (90,), (Shape(bits, 5, 16, 4096),), 256, 0)
    torch.set_flush_denormal(True)
    try:
        with built(case) as b:
            torch.set_flush_denormal(False)
            for flat in ([0], [3, 1, 2]):
                scores = [oracle.group_score([r[j] for j in flat], "sum") for r in b.rows]
                check_ranking(b.layer.highest(flat, 30), oracle.rank(scores, range(200), 30, largest=True))
    finally:
        torch.set_flush_denormal(False)
