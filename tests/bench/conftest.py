"""Makes the bench importable, which is not part of the package: the repository's root on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
