"""A mutex that a forked child finds unlocked.

Queries run in threads, and data loaders fork while they do. A `threading.Lock` that some other thread holds at the
moment of the fork stays locked in the child for ever; this one is renewed there. Implements the "safe under fork" of
design section 6.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType

__all__ = ["Mutex"]


class Mutex:
    """A non-reentrant lock used with `with`; renewed in forked children."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _live.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Replace the lock by a fresh one; only right in a process that has no other thread yet."""
        self._lock = threading.Lock()


_live: weakref.WeakSet[Mutex] = weakref.WeakSet()


def _renew_all() -> None:
    for mutex in list(_live):
        mutex.renew()


os.register_at_fork(after_in_child=_renew_all)
