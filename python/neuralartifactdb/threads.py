"""How many threads Python code uses, and the one way to share work out to them.

The core's loops and these pools ask the same: `NADB_THREADS`, else every thread of the hardware (style, "Bindings").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from neuralartifactdb import _core

__all__ = ["in_threads", "thread_count"]

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")

#: threads by hardware thread where each waits for the disk about half of the time
_WAITING: Final = 2


def thread_count(*, waiting: bool = False) -> int:
    """How many threads to use; never more than `NADB_THREADS`, if that is set.

    Args:
        waiting: whether they wait for the disk about half of the time, so that more of them keep the hardware busy.

    Raises:
        ValueError: `NADB_THREADS` is not a whole number from 1 to 1024.
    """
    n = _core.thread_count()
    return n * _WAITING if waiting and not os.environ.get("NADB_THREADS") else n


def in_threads(
    do: Callable[[_Item], _Done], items: Sequence[_Item], name: str, *, most: int | None = None, waiting: bool = False
) -> list[_Done]:
    """What `do` gives for each item, in their order; by the calling thread where one is enough.

    Args:
        do: for one item; its first exception is raised here.
        items: the pieces of work.
        name: of the threads.
        most: threads at once, where memory sets a limit.
        waiting: as for `thread_count`.

    Example:
        >>> in_threads(abs, [-1, 2], "nadb-example")
        [1, 2]
    """
    n_threads = min(thread_count(waiting=waiting), len(items), len(items) if most is None else most)
    if n_threads <= 1:
        return [do(item) for item in items]
    with ThreadPoolExecutor(n_threads, thread_name_prefix=name) as pool:
        return list(pool.map(do, items))
