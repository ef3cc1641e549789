"""Two builds of the extension in one process, as for timing them in turn: their classes and errors are apart."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuralartifactdb import _core

CLASSES = ["BoundedSearch", "ColumnWriter", "SegmentEncoder", "StoredArray"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = shutil.copy(_core.__file__, tmp_path_factory.mktemp("build") / Path(_core.__file__).name)
    spec = importlib.util.spec_from_file_location("other_build._core", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CLASSES)
def test_each_build_has_its_own_classes(other: ModuleType, name: str) -> None:
    assert getattr(other, name) is not getattr(_core, name)


def test_both_builds_search(other: ModuleType) -> None:
    values = np.array([2.0, 3.0, 1.0])
    for module in (_core, other):
        search = module.BoundedSearch(2)
        search.offer(np.arange(3), values, values)
        assert search.result()[0].tolist() == [1, 0]


def test_each_build_raises_its_own_errors(other: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(16))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for module in (_core, other, _core):
            writer = module.ColumnWriter(1, 8, 1, "float32")
            with pytest.raises(module.NonFiniteError):
                writer.append(np.full((1, 1), np.nan, np.float32), None, np.zeros(1, np.int32))
            stored = module.StoredArray(descriptor, 0, 16, 16, np.ones(1, np.uint32))
            arguments = ([stored], np.zeros(1, np.int32), "uint8", np.zeros(1, np.int64), np.full(1, 4, np.int32))
            with pytest.raises(module.ChecksumError):
                module.count_stored(*arguments, np.array([[[0, 0, 4, 4]]], np.int32), [(1.0, None)], None)
    finally:
        os.close(descriptor)
