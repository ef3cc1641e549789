"""Runs the first Python block of the README and compares what it prints: `smoke.py README.md`.

Needs no test runner, so that it can run in an environment that holds nothing but the wheel and its core dependencies.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path


def main(readme: str) -> int:
    """0 if the block prints what the README says that it prints."""
    import neuralartifactdb

    text = Path(readme).read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", text, re.DOTALL)
    if found is None:
        sys.stderr.write(f"{readme}: got no Python block followed by a text block, expected one\n")
        return 1
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(found[1], "README, first block", "exec"), {"__name__": "__main__"})
    if printed.getvalue().strip() != found[2].strip():
        sys.stderr.write(f"the README's first block printed\n{printed.getvalue()}\nexpected\n{found[2]}\n")
        return 1
    sys.stdout.write(f"README, first block: as printed there, with {neuralartifactdb.__file__}\n")
    sys.stdout.write(f"without {', '.join(n for n in ('torch', 'pandas', 'matplotlib') if n not in sys.modules)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
