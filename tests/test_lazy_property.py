"""A property that is computed once, without a lock."""

from __future__ import annotations

import threading

from neuralartifactdb.lazy_property import lazy_property


class Slow:
    """Counts how often it was computed; waits for others where told to."""

    def __init__(self, barrier: threading.Barrier | None = None) -> None:
        self.computed = 0
        self._barrier = barrier

    @lazy_property
    def value(self) -> object:
        """What is computed."""
        self.computed += 1
        if self._barrier is not None:
            self._barrier.wait(timeout=10)
        return object()


def test_it_is_computed_once() -> None:
    slow = Slow()
    assert slow.value is slow.value
    assert slow.computed == 1
    assert Slow.value.__doc__ == "What is computed."
    assert isinstance(Slow.value, lazy_property)


def test_threads_do_not_wait_for_each_other_and_get_the_same() -> None:
    slow = Slow(threading.Barrier(2))  # with a lock, the second thread would never arrive
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
