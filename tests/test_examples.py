"""Every example of the package's docstrings, run as it is shown.

An example finds what it talks about: `nadb`, `np`, an open `db` with one `layer` and attributes, a `result` of it, the
`features` it was made of; and, where it names them, a `model` and its `dataset`, or `masks` and the `maps` in them.
House style: "Every public name has a runnable example".
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.activations.layer import Layer
from neuralartifactdb.masks.collection import Masks
from neuralartifactdb.masks.groups import Groups

ROOT = Path(nadb.__file__).parent


def found() -> Iterator[doctest.DocTest]:
    for path in sorted(ROOT.rglob("*.py")):
        if ">>> " in path.read_text():
            parts = ("neuralartifactdb", *path.relative_to(ROOT).with_suffix("").parts)
            module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
            yield from (test for test in doctest.DocTestFinder().find(module) if test.examples)


EXAMPLES = {test.name: test for test in found() if not any(doctest.SKIP in part.options for part in test.examples)}


def features() -> np.ndarray:
    """100 inputs of 8 neurons, float32 without rounding; no two inputs give a neuron the same value."""
    return (np.arange(100)[:, None] * np.arange(3, 11) % 101 / 8).astype(np.float32)


def maps() -> np.ndarray:
    """20 masks of 8 x 8 pixels, uint8; two for each of ten inputs."""
    return (np.arange(64).reshape(8, 8) * np.arange(1, 21)[:, None, None] % 256).astype(np.uint8)


def collection(db: nadb.Database) -> Masks:
    masks = db.create_masks("saliency", dtype="uint8", grid=2, edges=[64, 128, 192])
    boxes = {"object": [(2, 2, 6, 6)] * 20}
    masks.append(maps(), input_id=np.arange(20) // 2, boxes=boxes, attrs={"model": ["resnet50", "vit"] * 10})
    return masks


def network() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()), torch.randn(100, 4)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = EXAMPLES[name]
    source = "".join(example.source for example in test.examples)
    monkeypatch.chdir(tmp_path)
    with nadb.open("run.nadb") as db:
        db.set_inputs({"name": [f"{i:02d}.png" for i in range(100)], "label": np.arange(100) % 10}, key="name")
        layer = db.index_arrays("layer3", features())
        shared = {"nadb": nadb, "np": np, "db": db, "layer": layer, "features": features()}
        shared["result"] = layer.highest([3, 5], k=3)
        if "model" in source:
            shared["model"], shared["dataset"] = network()
        if re.search(r"\b(masks|maps)\b", source):
            shared["masks"], shared["maps"] = collection(db), maps()
        test.globs = {**test.globs, **shared}
        said = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert runner.run(test, out=said.write, clear_globs=False).failed == 0, said.getvalue()


@pytest.mark.parametrize("kind", [nadb.Database, Layer, nadb.Result, Masks, Groups])
def test_every_public_method_has_an_example_that_runs(kind: type) -> None:
    for name, member in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(member):
            assert f"{kind.__module__}.{kind.__name__}.{name}" in EXAMPLES, name
