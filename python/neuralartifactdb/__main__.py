"""`python -m neuralartifactdb` is the command `nadb` (design section 7)."""

from __future__ import annotations

import sys

from neuralartifactdb.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
