"""New inputs that a model cannot take: whatever fails says that it was the input of the query.

Implements "`input=x` = a new input" of design section 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuralartifactdb.capture import Capture, ModelSource


def stacked(items: list[Any]) -> torch.Tensor:
    return torch.stack(items)


def positive(batch: torch.Tensor) -> torch.Tensor:
    return batch > 0


@pytest.mark.parametrize(
    ("capture", "doing"),
    [
        (Capture(), "running the model on"),
        (Capture(collate_fn=stacked), "making a batch of"),
        (Capture(positions=positive, reduce="max"), "preparing a batch of"),
    ],
)
def test_a_new_input_that_fails_is_named(capture: Capture, doing: str) -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    data = torch.rand(20, 5, 4) + 1
    if capture.positions is not None:
        capture = Capture(positions=lambda batch: positive(batch)[:, :, 0], reduce="max")
    source = ModelSource.open(net, list(data) if capture.collate_fn else data, ["0"], capture)
    source.calibrate()
    assert np.isfinite(source.evaluate_items(["0"], [data[0]])["0"]).all()
    with pytest.raises(TypeError) as caught:
        source.evaluate_items(["0"], ["hello"])
    assert caught.value.__notes__[0].startswith(f"neuralartifactdb was {doing} inputs given to the query")
