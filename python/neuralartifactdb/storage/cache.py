"""Verified blocks in memory, least recently used first out, under a budget in bytes.

One cache per open database. Blocks are immutable `bytes`, so a read of exactly one block hands out the block itself,
and a block that is evicted while someone still reads it stays alive. Implements the block cache of design section 6.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.storage.mutex import Mutex

__all__ = ["BlockCache", "CacheCounters"]

#: What CPython spends on an entry besides its bytes: the header of the bytes, the key, the links of the dictionary.
ENTRY_OVERHEAD = 160

_BLOCKS_PER_FILE = 1 << 40


class CacheCounters(NamedTuple):
    """Work done since the cache was made."""

    hits: int
    misses: int
    bytes_read: int


class BlockCache:
    """Blocks by key, at most `budget_bytes` of them (their bookkeeping included).

    A key is `file_base(name) + block number`, one integer: cheap to hash, and nothing is allocated per lookup.

    Args:
        budget_bytes: Memory to use at most; 0 keeps nothing.

    Attributes:
        mutex: Guards `entries` and the counters; `arrays` holds it over a batch of lookups.
        entries: The blocks, least recently used first.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise InvalidValueError(f"cache_bytes must be 0 or more, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.mutex = Mutex()
        self.entries: OrderedDict[int, bytes] = OrderedDict()
        self.used_bytes = 0
        self.hits = 0
        self.misses = 0
        self.bytes_read = 0
        self._bases: dict[tuple[str, str], int] = {}

    def file_base(self, segment: str, array: str) -> int:
        """The first key of a file: equal for every reader of it, distinct from every other file's keys."""
        with self.mutex.lock:
            return self._bases.setdefault((segment, array), len(self._bases) * _BLOCKS_PER_FILE)

    def get(self, key: int) -> bytes | None:
        """The block, or None; counts a hit or a miss."""
        with self.mutex.lock:
            block = self.entries.get(key)
            if block is None:
                self.misses += 1
            else:
                self.hits += 1
                self.entries.move_to_end(key)
            return block

    def put(self, blocks: list[tuple[int, bytes]]) -> None:
        """Keep verified blocks, evicting others as needed."""
        with self.mutex.lock:
            entries = self.entries
            for key, block in blocks:
                if key in entries:
                    entries.move_to_end(key)
                    continue
                cost = len(block) + ENTRY_OVERHEAD
                if cost > self.budget_bytes:
                    continue
                entries[key] = block
                self.used_bytes += cost
            while self.used_bytes > self.budget_bytes:
                _, block = entries.popitem(last=False)
                self.used_bytes -= len(block) + ENTRY_OVERHEAD

    def count_read(self, n_bytes: int) -> None:
        """Count bytes read from disk."""
        with self.mutex.lock:
            self.bytes_read += n_bytes

    def clear(self) -> None:
        """Forget every block; the counters stay."""
        with self.mutex.lock:
            self.entries.clear()
            self.used_bytes = 0

    def counters(self) -> CacheCounters:
        """The work counters, read together."""
        with self.mutex.lock:
            return CacheCounters(self.hits, self.misses, self.bytes_read)
