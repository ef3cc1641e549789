"""What the package itself costs: the time of its import, what that drags in, and bytes installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

import neuralartifactdb
from bench.activations.report import Report
from bench.tables import Table

__all__ = ["run_footprint"]

_IMPORT_WITHIN = 0.3
_INSTALLED_WITHIN = 150 << 20
_NEVER_IMPORTED = ("torch", "duckdb", "matplotlib")
_SCRIPT = """
import json, sys, time
start = time.perf_counter()
import neuralartifactdb
seconds = time.perf_counter() - start
print(json.dumps([seconds, [name for name in %r if name in sys.modules]]))
"""


def run_footprint(report: Report) -> None:
    """Imports in fresh processes, sizes from the installed files."""
    spent, dragged = [], set()
    for _ in range(7):
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT % (_NEVER_IMPORTED,)], check=True, capture_output=True, text=True
        )
        seconds, names = json.loads(done.stdout)
        spent.append(seconds)
        dragged.update(names)
    median = float(np.median(spent))
    table = Table(
        "Footprint",
        "Import: median of 7 fresh processes. Installed: files of the package and of its core dependencies, MB.",
        ("what", "value"),
    )
    table.add("import, seconds", f"{median:.3f} (worst {max(spent):.3f})")
    table.add(f"imported with it, of {', '.join(_NEVER_IMPORTED)}", ", ".join(sorted(dragged)) or "none")
    total = 0
    for name in ("neuralartifactdb", "numpy", "duckdb", "tqdm"):
        size = _package_bytes() if name == "neuralartifactdb" else _installed_bytes(name)
        total += size
        table.add(f"installed, {name}", f"{size / 1e6:.1f}")
    table.add("installed, together", f"{total / 1e6:.1f}")
    report.tables.append(table)
    report.goal(
        "import < 0.3 s, without torch, duckdb, matplotlib", f"{median:.3f} s", median < _IMPORT_WITHIN and not dragged
    )
    report.goal("package and core dependencies < 150 MB", f"{total / 1e6:.1f} MB", total < _INSTALLED_WITHIN)


def _installed_bytes(name: str) -> int:
    """Bytes of a distribution's files, compiled Python included."""
    found = distribution(name)
    return sum(
        Path(str(found.locate_file(file))).stat().st_size
        for file in found.files or []
        if _exists(found.locate_file(file))
    )


def _package_bytes() -> int:
    """Bytes of our package with its extension module, wherever a development install keeps them."""
    from neuralartifactdb import _core

    folder = Path(neuralartifactdb.__file__).parent
    files = {path for path in folder.rglob("*") if path.is_file() and path.suffix in (".py", ".pyi", ".so", ".typed")}
    files.add(Path(_core.__file__))
    return sum(path.stat().st_size for path in files)


def _exists(path: object) -> bool:
    return Path(str(path)).is_file()
