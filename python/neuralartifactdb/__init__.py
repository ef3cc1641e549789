"""The database for what a neural network computes: exact queries over activations and masks.

>>> import neuralartifactdb as nadb
>>> with nadb.open("run.nadb") as db:
...     result = db.index_arrays("feats", features).highest([3, 5], k=3)
>>> result.ids.tolist()
[50, 49, 63]
"""

from __future__ import annotations

from typing import Any

from neuralartifactdb.activations.targets import key
from neuralartifactdb.build_info import build_info
from neuralartifactdb.capture.options import Capture
from neuralartifactdb.database import Database, open
from neuralartifactdb.errors import (
    DatabaseBusyError,
    Error,
    FormatError,
    NotAttachedError,
    SnapshotExpiredError,
    StaleIndexError,
    StorageBudgetError,
)
from neuralartifactdb.expressions.tree import column
from neuralartifactdb.limits import Limits
from neuralartifactdb.masks.aggregates import intersection, iou, max, mean, min, sum, union
from neuralartifactdb.masks.counts import area, box, count, mask, whole
from neuralartifactdb.results import Plan, Result, Row, Stats, Verification
from neuralartifactdb.search import Progress

__version__ = "0.1.0"

__all__ = [
    "Capture",
    "Database",
    "DatabaseBusyError",
    "Error",
    "FormatError",
    "Limits",
    "NotAttachedError",
    "Plan",
    "Progress",
    "Result",
    "Row",
    "SnapshotExpiredError",
    "StaleIndexError",
    "Stats",
    "StorageBudgetError",
    "Verification",
    "area",
    "box",
    "build_info",
    "column",
    "count",
    "intersection",
    "iou",
    "key",
    "mask",
    "max",
    "mean",
    "min",
    "open",
    "sum",
    "union",
    "whole",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    from neuralartifactdb.names import unknown_name

    raise AttributeError(unknown_name("name in neuralartifactdb", name, __all__))
