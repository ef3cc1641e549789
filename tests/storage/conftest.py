"""Fixtures of the tests of storage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_database import STEPS, content

from neuralartifactdb.storage import DatabaseDirectory


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of commits without waiting for a disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="nadb-test-", dir=shared if os.access(shared, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the database holds before the first step and after each one."""
    with DatabaseDirectory(tmp_path_factory.mktemp("contents") / "db.nadb") as directory:
        out = [content(directory)]
        for step in STEPS:
            step(directory)
            out.append(content(directory))
    return out


@pytest.fixture
def small(memory_path: Path) -> Path:
    """The database after all steps."""
    with DatabaseDirectory(memory_path / "db.nadb") as directory:
        for step in STEPS:
            step(directory)
    return memory_path / "db.nadb"
