"""Which database something belongs to: expressions and results of one mean nothing in another (design section 7)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DatabaseToken"]


class DatabaseToken(NamedTuple):
    """Equal for all handles of a database.

    >>> str(DatabaseToken("/data/run.nadb", "fb4c34bc"))
    "'/data/run.nadb'"

    Attributes:
        path: the directory.
        uuid: made with the database; None before its first write.
    """

    path: str
    uuid: str | None

    def __str__(self) -> str:
        return repr(self.path)
