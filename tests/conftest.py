"""What every test shares: Hypothesis profiles, a place for databases, one thread per pool.

`HYPOTHESIS_PROFILE=ci` (or CI=1) repeats the same examples on every run; the default draws new ones and prints how to
repeat a failure. Implements the "Tests" section of the house style.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

_SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=_SLOW_IS_FINE)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.register_profile("soak", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    """Where a database may be created; nothing is there yet."""
    return tmp_path / "run.nadb"


@pytest.fixture
def read_only_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that cannot be written to, even by an owner; skipped for a superuser, whom no mode stops."""
    directory = tmp_path / "locked"
    directory.mkdir()
    directory.chmod(0o555)
    if os.access(directory, os.W_OK):
        directory.chmod(0o755)
        pytest.skip("this user may write everywhere")
    yield directory
    directory.chmod(0o755)
