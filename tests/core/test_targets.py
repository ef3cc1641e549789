"""Every compiled target that this machine can run gives the bits of scalar (style.md, "Kernels")."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import neuralartifactdb as nadb

OUTPUTS = Path(__file__).with_name("kernel_outputs.py")


def outputs(target: str) -> dict[str, Any]:
    environment = {**os.environ, "NADB_FORCE_KERNELS": target}
    done = subprocess.run([sys.executable, str(OUTPUTS)], env=environment, capture_output=True, text=True, check=False)
    if "not supported by this CPU" in done.stderr:
        pytest.skip(f"this CPU cannot run {target}")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    assert printed["kernels"] == target
    return printed["digests"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def scalar() -> dict[str, Any]:
    return outputs("scalar")


@pytest.mark.parametrize("target", [name for name in nadb.build_info().kernels_compiled if name != "scalar"])
def test_a_target_equals_scalar_bit_for_bit(target: str, scalar: dict[str, Any]) -> None:
    assert outputs(target) == scalar
    assert all(n_arrays > 0 for n_arrays, _ in scalar.values())
