"""Fails if `import neuralartifactdb` takes 0.3 s or more, or imports what must wait until it is needed.

Implements the last sentence of design section 8: scripts and command lines must start at once.
"""

from __future__ import annotations

import subprocess
import sys

LIMIT_S = 0.3
HEAVY = ("torch", "duckdb", "matplotlib", "pandas", "pyarrow", "sklearn")
SCRIPT = f"""
import sys, time
start = time.perf_counter()
import neuralartifactdb
print(time.perf_counter() - start, *[name for name in {HEAVY!r} if name in sys.modules])
"""


def main() -> int:
    """Import in five fresh processes; the quickest counts, for others only show what else the machine was doing."""
    command = [sys.executable, "-c", SCRIPT]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(5)]
    seconds, heavy = min(float(run[0]) for run in runs), runs[0][1:]
    imported = ", ".join(heavy) or "none"
    sys.stdout.write(f"import neuralartifactdb: {seconds:.3f} s (limit {LIMIT_S} s), heavy modules: {imported}\n")
    return int(seconds >= LIMIT_S or bool(heavy))


if __name__ == "__main__":
    sys.exit(main())
