"""A mutex that a forked child finds unlocked.

Queries run in threads, and data loaders fork while they do. A `threading.Lock` that some other thread holds at the
moment of the fork stays locked in the child for ever; this one is renewed there. Implements the "safe under fork" of
design section 6.
"""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["Mutex"]


class Mutex:
    """Holds a lock, used as `with mutex.lock:`; forked children get a new one.

    The lock is CPython's own, and not wrapped: a Ctrl-C that arrives in a Python `__enter__`, after the lock was taken,
    would leave it taken.
    """

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        _live.add(self)


_live: weakref.WeakSet[Mutex] = weakref.WeakSet()


def _renew_all() -> None:
    for mutex in list(_live):
        mutex.lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_all)
