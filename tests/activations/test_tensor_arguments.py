"""Torch tensors as arguments of queries: attached to a graph, bfloat16, of no axes; as good as their arrays.

Implements "A target" of design section 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from activation_cases import Built, Case, Shape, built

import neuralartifactdb as nadb

torch = pytest.importorskip("torch")

CASE = Case("gaussian", "float32", (6,), 40, 2, (), (Shape(3, 0, 16, 4096),), 256, 0)
GROUP = [0, 2, 5]
VECTOR = np.array([0.5, -1.25, 2.0], np.float32)  # exact in bfloat16


@pytest.fixture(scope="module")
def b() -> Iterator[Built]:
    with built(CASE) as held:
        yield held


@pytest.mark.parametrize(
    "target",
    [
        torch.tensor(VECTOR),
        torch.tensor(VECTOR, requires_grad=True),
        torch.nn.Parameter(torch.tensor(VECTOR)),
        torch.tensor(VECTOR).bfloat16(),
        torch.tensor(VECTOR).half(),
        torch.tensor(VECTOR).double().requires_grad_() * 1,
    ],
)
def test_a_vector(b: Built, target: Any) -> None:
    expected = b.layer.nearest(VECTOR, GROUP, 5)
    found = b.layer.nearest(target, GROUP, 5)
    assert found == expected
    assert found.question == expected.question
    assert found.verify()
    (score,) = b.layer.top_k(b.layer.distance(target, GROUP), 1, largest=False).scores
    assert score == expected.scores[0]


@pytest.mark.parametrize("target", [torch.tensor(3), torch.tensor(3, dtype=torch.uint8), np.array(3), np.int64(3)])
def test_an_id(b: Built, target: Any) -> None:
    found = b.layer.nearest(target, GROUP, 5)
    assert found == b.layer.nearest(3, GROUP, 5)
    assert "like input 3 " in found.question
    assert "nearest(3, " in found.query.replace("np.int64(3)", "3")


def test_ids(b: Built) -> None:
    assert b.layer.nearest(torch.tensor([3, 7]), GROUP, 5) == b.layer.nearest([3, 7], GROUP, 5)


def test_what_a_tensor_cannot_be(b: Built) -> None:
    for target, error in (
        (torch.tensor(True), TypeError),
        (torch.tensor(1.5), ValueError),
        (torch.tensor(VECTOR)[:2], ValueError),
        (torch.tensor([[1, 2]]), TypeError),
        (torch.tensor([1j]), TypeError),
    ):
        with pytest.raises(error) as caught:
            b.layer.nearest(target, GROUP, 5)
        assert isinstance(caught.value, nadb.Error)


def test_weights_groups_and_where(b: Built) -> None:
    weights, where = np.array([1.0, -2.0, 0.5]), np.arange(40) % 3 == 0
    expected = b.layer.highest(GROUP, 5, weights=weights, where=where)
    parameter = torch.tensor(weights, requires_grad=True)
    assert b.layer.highest(torch.tensor(GROUP), 5, weights=parameter, where=torch.tensor(where)) == expected
    assert b.layer.highest(GROUP, 5, weights=parameter.bfloat16(), where=np.flatnonzero(where)) == expected


def test_columns(db_path: Any) -> None:
    with nadb.open(db_path) as db:
        db.set_inputs({"a": torch.tensor([1.5, 2.0]).bfloat16(), "b": torch.tensor([1.0, 2.0], requires_grad=True)})
        assert db.inputs["a"].tolist() == [1.5, 2.0]
        assert db.inputs["b"].tolist() == [1.0, 2.0]
