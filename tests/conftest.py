"""What every test shares: Hypothesis profiles, a place for databases, one thread per pool.

`HYPOTHESIS_PROFILE=ci` (or CI=1) repeats the same examples on every run; the default draws new ones and prints how to
repeat a failure. Implements the "Tests" section of the house style.
"""

from __future__ import annotations

import os
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
