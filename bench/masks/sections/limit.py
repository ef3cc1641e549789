"""How far a filter is from its limit: the masks that must be read, each by one read of its box's rows, on all cores.

Issue 3: "say how far that is from the limit ..., and what a finer second level would give". The reads alone, with no
bounds, no checksums and no counting, from the file of raw pixels. A second level is a finer index of which only the
rows of masks that the first one leaves open are read; it leaves open what a whole index of its bytes leaves open.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.masks.ours import Ours, build
from bench.masks.queries import FILTERS, Question, scored
from bench.masks.report import Report
from bench.masks.workloads import Workload
from bench.page_cache import drop
from bench.tables import Table, count, milliseconds, times

__all__ = ["run_limit"]

_FINER = 8
_FINER_MASKS = 2_000


def run_limit(report: Report) -> None:
    """Times the reads of what must be read, warm and cold, next to our queries."""
    for workload in report.workloads:
        path = report.scratch / f"{workload.name}.nadb"
        ours = Ours(path) if path.exists() else build(workload, path)
        table = Table(
            f"The limit of a filter: {workload.name}",
            f"{workload.n_masks:,} masks of {workload.side} x {workload.side}; medians of {report.size.limit_queries} "
            f"queries, milliseconds. The reads alone: one of the box's rows per mask, {_threads()} threads, no "
            "checksum, nothing counted.",
            ("query", "must", "reads, warm", "ours, warm", "x", "reads, cold", "ours, cold", "x"),
        )
        for kind in FILTERS:
            found = [
                _both(workload, ours, question) for question, _ in scored(workload, kind, report.size.limit_queries)
            ]
            warm, ours_warm, cold, ours_cold = (
                float(np.median([getattr(one, name) for one in found])) for name in _FIELDS
            )
            table.add(
                kind,
                count(float(np.median([one.must for one in found]))),
                milliseconds(warm),
                milliseconds(ours_warm),
                times(ours_warm / warm) if warm else "",
                milliseconds(cold),
                milliseconds(ours_cold),
                times(ours_cold / cold) if cold else "",
            )
        ours.close()
        table.notes.append(_second_level(report, workload))
        report.tables.append(table)


@dataclass(frozen=True)
class _Limit:
    """One query; times in seconds."""

    must: int
    reads_warm: float
    ours_warm: float
    reads_cold: float
    ours_cold: float


_FIELDS = ("reads_warm", "ours_warm", "reads_cold", "ours_cold")


def _threads() -> int:
    return os.cpu_count() or 1


def _open_masks(ours: Ours, question: Question) -> NDArray[np.int64]:
    lower, upper = ours.bounds(question)
    return np.flatnonzero((lower <= question.threshold) & (upper > question.threshold))


def _both(workload: Workload, ours: Ours, question: Question) -> _Limit:
    open_ = _open_masks(ours, question)
    boxes = question.boxes(workload)[open_].astype(np.int64)
    offsets = (open_ * workload.side + boxes[:, 1]) * workload.side
    lengths = (boxes[:, 3] - boxes[:, 1]) * workload.side
    _read(workload, offsets, lengths)
    reads_warm = _read(workload, offsets, lengths)
    ours.answer(question)
    ours_warm = ours.answer(question).seconds
    drop([workload.path])
    reads_cold = _read(workload, offsets, lengths)
    ours.close()
    drop(ours.files())
    ours.open()
    return _Limit(len(open_), reads_warm, ours_warm, reads_cold, ours.answer(question).seconds)


def _read(workload: Workload, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> float:
    """Seconds to read these ranges, in order, a run of them per thread."""
    parts = np.array_split(np.arange(len(offsets)), _threads())
    plans = [list(zip(lengths[part].tolist(), offsets[part].tolist(), strict=True)) for part in parts]
    file = os.open(workload.path, os.O_RDONLY)

    def run(plan: Sequence[tuple[int, int]]) -> None:
        for length, offset in plan:
            os.pread(file, length, offset)

    try:
        with ThreadPoolExecutor(len(plans)) as pool:
            start = time.perf_counter()
            list(pool.map(run, plans))
            return time.perf_counter() - start
    finally:
        os.close(file)


def _second_level(report: Report, workload: Workload) -> str:
    """What an index of `_FINER` times the bytes leaves open, over the first masks; in words."""
    sample = Workload(min(_FINER_MASKS, workload.n_masks), workload.side, workload.folder)
    first = build(sample, report.scratch / f"{sample.name}.first.nadb")
    n_bytes = int(_FINER * first.index_bytes_per_mask)
    second = build(sample, report.scratch / f"{sample.name}.second.nadb", storage=n_bytes)
    left: dict[str, list[int]] = {"first": [], "second": []}
    for kind in FILTERS:
        for question, _ in scored(sample, kind, report.size.limit_queries):
            left["first"].append(len(_open_masks(first, question)))
            left["second"].append(len(_open_masks(second, question)))
    sizes = [f"{one.index_bytes_per_mask:,.0f}" for one in (first, second)]
    first.delete()
    second.delete()
    shares = [float(np.mean(left[name])) / sample.n_masks for name in ("first", "second")]
    return (
        f"A finer second level: an index of {sizes[1]} bytes a mask leaves {shares[1]:.1%} of {sample.n_masks:,} masks "
        f"open, ours of {sizes[0]} bytes {shares[0]:.1%} (means of both filters)."
    )
