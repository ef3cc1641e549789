"""Which kernels run, and that the choice can be forced and seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import neuralartifactdb as nadb


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


SHOW = "from neuralartifactdb import _core; print(_core.build_info()['kernels'])"


def test_build_info_says_what_runs() -> None:
    info = nadb.build_info()
    assert info.version == nadb.__version__
    assert info.kernels in info.kernels_compiled
    assert info.kernels_compiled[-1] == "scalar"  # the specification is always compiled
    assert "-ffp-contract=off" in info.flags
    assert info.cpp_standard == "C++17"
    assert info.compiler
    assert info.threads >= 1


def test_kernels_can_be_forced() -> None:
    for name in nadb.build_info().kernels_compiled:
        done = run(SHOW, NADB_FORCE_KERNELS=name)
        assert done.stdout.strip() == name or "not supported by this CPU" in done.stderr


def test_unknown_kernels_are_an_import_error_that_lists_what_there_is() -> None:
    done = run(SHOW, NADB_FORCE_KERNELS="quantum")
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "got 'quantum'" in done.stderr
    assert "scalar" in done.stderr


def test_ctrl_c_stops_a_long_loop() -> None:
    code = """
import signal
import numpy as np
from neuralartifactdb import _core
n, g, row_group = 2_000_000, 300, 4096
rows = [bytes(3072)] * (-(-n // row_group) * g)
lower, upper = np.full(n, np.nan), np.full(n, np.nan)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    _core.code_bounds(rows, g, row_group, n, 6, np.zeros((g, 64, 2)), None, None, "sum", lower, upper, threads=2)
except KeyboardInterrupt:
    print("stopped early" if np.isnan(lower[-1]) else "stopped at the end")
"""
    done = run(code)
    assert done.stdout.strip() == "stopped early", done.stderr


SOURCES = Path(__file__).parents[2] / "src" / "cpp"
TARGET_FLAGS: dict[str, list[str]] = {"avx2": ["-mavx2", "-mpclmul"], "scalar": []}  # as in CMakeLists.txt


@pytest.mark.skipif(not (shutil.which("c++") and shutil.which("nm")), reason="needs a C++ compiler and nm")
def test_a_target_shares_no_code_with_the_rest(tmp_path: Path) -> None:
    # A weak symbol compiled for a newer CPU may be the one that the linker keeps for everybody.
    targets = nadb.build_info().kernels_compiled
    assert set(targets) <= set(TARGET_FLAGS)
    for target in targets:
        built = tmp_path / f"{target}.o"
        flags = ["-std=c++17", "-O1", "-fPIC", "-fno-exceptions", *TARGET_FLAGS[target], f"-I{SOURCES}"]
        subprocess.run(["c++", *flags, "-c", str(SOURCES / "kernels" / f"{target}.cpp"), "-o", str(built)], check=True)
        symbols = subprocess.run(["nm", str(built)], check=True, capture_output=True, text=True).stdout
        kinds = [line.split()[-2] for line in symbols.splitlines()]
        assert not {"W", "w", "V", "v", "u"} & set(kinds), symbols
        assert sum(kind.isupper() and kind != "U" for kind in kinds) == 1  # the table
