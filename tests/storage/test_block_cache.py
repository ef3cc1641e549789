"""The block cache: never above its budget, least recently used first out."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.storage.cache import ENTRY_OVERHEAD, BlockCache


def test_least_recently_used_goes_first() -> None:
    cache = BlockCache(3 * (10 + ENTRY_OVERHEAD))
    cache.put([(key, bytes(10)) for key in (1, 2, 3)])
    assert cache.get(1) is not None
    cache.put([(4, bytes(10))])
    cache.count_read(10)
    assert [cache.get(key) is not None for key in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.counters() == (4, 1, 10)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 400)), max_size=60), st.integers(0, 2000))
def test_budget_holds(puts: list[tuple[int, int]], budget: int) -> None:
    cache = BlockCache(budget)
    for key, size in puts:
        cache.put([(key, bytes(size))])
        assert cache.used_bytes == sum(len(block) + ENTRY_OVERHEAD for block in cache.entries.values()) <= budget


def test_files_do_not_share_keys() -> None:
    cache = BlockCache(10_000)
    a, b, again = cache.file_base("s1", "codes"), cache.file_base("s2", "codes"), cache.file_base("s1", "codes")
    assert a == again != b
    cache.put([(a, b"a"), (a + 7, b"a7"), (b, b"b")])
    assert [cache.get(key) for key in (a, a + 7, b)] == [b"a", b"a7", b"b"]
    cache.clear()
    assert cache.get(a) is None
    assert cache.used_bytes == 0


def test_negative_budget_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="got -1"):
        BlockCache(-1)


def test_threads() -> None:
    cache = BlockCache(50 * (10 + ENTRY_OVERHEAD))
    wrong = []

    def work(seed: int) -> None:
        for i in range(2000):
            key = (i * seed) % 101
            block = cache.get(key)
            if block is not None and block != key.to_bytes(10, "little"):
                wrong.append(key)
            cache.put([(key, key.to_bytes(10, "little"))])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.used_bytes == len(cache.entries) * (10 + ENTRY_OVERHEAD) <= cache.budget_bytes
