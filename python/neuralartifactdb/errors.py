"""Every error of the package, each also the builtin that a user would catch.

Messages say what was wrong, what was got, what was expected and how to mend it (design: "Public
names", errors by class).
"""

from __future__ import annotations

__all__ = [
    "ClosedDatabaseError",
    "DatabaseBusyError",
    "DtypeError",
    "Error",
    "ExtraMissingError",
    "FormatError",
    "IdError",
    "InvalidValueError",
    "MissingFileError",
    "NotAttachedError",
    "SnapshotExpiredError",
    "StaleIndexError",
    "StorageBudgetError",
    "UnknownNameError",
]


class Error(Exception):
    """Base of every error that the package raises on purpose."""


class UnknownNameError(Error, KeyError):
    """A layer, collection, column or key that the database does not have."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class IdError(Error, IndexError):
    """A neuron, an input id or a mask id out of range."""


class DtypeError(Error, TypeError):
    """A wrong dtype or type."""


class InvalidValueError(Error, ValueError):
    """A wrong shape, a NaN, a duplicate, an empty group, a k below 1."""


class ClosedDatabaseError(InvalidValueError):
    """The database, or the one behind a layer or a result, was closed."""


class FormatError(Error, ValueError):
    """A damaged, truncated, foreign or newer file: names the file, the offset, what was got and expected."""


class StaleIndexError(Error, RuntimeError):
    """The attached model or data is not the one that was indexed."""


class SnapshotExpiredError(Error, RuntimeError):
    """The version that a reader holds was removed by `vacuum`."""


class NotAttachedError(Error, RuntimeError):
    """The index alone cannot settle the query, and nothing is attached that could evaluate inputs."""


class StorageBudgetError(Error, RuntimeError):
    """The bytes asked for do not suffice."""


class DatabaseBusyError(Error, TimeoutError):
    """Another process holds the writer's lock."""


class MissingFileError(Error, FileNotFoundError):
    """A file or directory that was named does not exist."""


class ExtraMissingError(Error, ImportError):
    """An optional dependency is not installed; the message names the extra."""
