"""Makes the bench importable, which is not part of the package: the repository's root on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def workload(tmp_path_factory):
    """41 masks of 30 x 30: one input has one mask only, and few grids divide the side."""
    from bench.masks.workloads import Workload

    return Workload(41, 30, tmp_path_factory.mktemp("masks"))
