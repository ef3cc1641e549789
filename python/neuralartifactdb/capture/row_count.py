"""A counter of evaluated inputs for each thread: a query counts its own, whoever else uses the source meanwhile."""

from __future__ import annotations

import threading

__all__ = ["RowCount"]


class RowCount(threading.local):
    """Inputs evaluated so far.

    Attributes:
        n: by this thread.
    """

    n = 0
