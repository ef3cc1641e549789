"""A thread that flushes subnormal numbers to zero, as `torch.set_flush_denormal` has it, gets the same counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.masks.thresholds import normalised

LEAST = 2.0**-149
ASKED: list[tuple[dict[str, float], list[int]]] = [
    ({"equals": 0.0}, [64, 0, 16]),
    ({"equals": 5 * LEAST}, [0, 0, 32]),
    ({"equals": -3 * LEAST}, [0, 0, 16]),
    ({"low": 1e-40}, [0, 64, 0]),
    ({"low": -1e-44}, [64, 64, 64]),
    ({"high": 1e-44}, [64, 0, 64]),
    ({"low": -LEAST, "high": LEAST}, [64, 0, 16]),
]


@pytest.fixture
def flushing() -> Iterator[None]:
    """Subnormal numbers are zero in this thread."""
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormals to zero")
    yield
    torch.set_flush_denormal(False)


def pixels() -> Any:
    bits = np.zeros((3, 8, 8), np.uint32)
    bits[1] = np.float32(0.5).view(np.uint32)
    bits[2, :4] = 5  # 5 steps above zero
    bits[2, 4:, :4] = 0x80000003  # 3 below
    return bits.view(np.float32)


@pytest.mark.parametrize("built_flushing", [True, False])
def test_counts_are_the_same(tmp_path: Path, built_flushing: bool, request: pytest.FixtureRequest) -> None:
    if built_flushing:
        request.getfixturevalue("flushing")
    with nadb.open(tmp_path / "db") as db:
        masks = db.create_masks("maps", dtype="float32", value_range=(-1.0, 1.0))
        masks.append(pixels(), input_id=[0, 1, 2])
        request.getfixturevalue("flushing")
        for thresholds, expected in ASKED:
            count = nadb.count(nadb.whole, **thresholds)
            assert masks.scores(count, [0, 1, 2]).tolist() == expected
            found = masks.top_k(count, k=3)
            assert sorted(found.scores.tolist()) == sorted(expected)
            assert found.verify().equal
            groups = masks.group_by("input_id").top_k(nadb.count(nadb.union(**thresholds)), k=3)
            assert sorted(groups.scores.tolist()) == sorted(expected)
            assert groups.verify().equal


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_thresholds_round_as_numpy_does(dtype: str) -> None:
    kind, rng = np.dtype(dtype).type, np.random.default_rng(0)
    least = float(np.finfo(dtype).smallest_subnormal)
    limit = float(np.finfo(dtype).smallest_normal)
    values = [*(rng.uniform(-4, 4, 500) * limit), *(rng.integers(-9, 9, 200) * least / 2), limit, -limit, 0.0, -0.0]
    for value in map(float, values):
        low, after = normalised(None, None, value, dtype)
        assert low == float(kind(value))
        assert after == float(np.nextafter(kind(value), kind(np.inf)))
