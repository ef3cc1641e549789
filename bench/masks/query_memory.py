"""Asks one filter in a process of its own and says how much memory that took above the open database.

`python -m bench.masks.query_memory PATH LOW X0 Y0 X1 Y1 THRESHOLD` writes one JSON object.
"""

from __future__ import annotations

import json
import sys

import neuralartifactdb as nadb
from bench.masks.ours import COLLECTION
from bench.process_memory import peak_bytes

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Asks and reports."""
    path = arguments[0]
    low, x0, y0, x1, y1 = map(int, arguments[1:6])
    with nadb.open(path, "r") as db:
        masks = db.masks[COLLECTION]

        before = peak_bytes()
        result = masks.filter(nadb.count(nadb.box(x0, y0, x1, y1), low=low) > float(arguments[6]))
        above = peak_bytes() - before
    sys.stdout.write(json.dumps({"above_bytes": above, "masks_read": result.stats.masks_read, "rows": len(result)}))


if __name__ == "__main__":
    main(sys.argv[1:])
