"""A session of many queries over part of the masks, half of them seen before and half new, with lazy indexing.

Issue 3, item 8, after the multi-query workloads of the MaskSearch paper: what is the price of an index that nobody has
built yet, against one built on append and against reading the masks each time. Seconds are cumulative and include the
append, or for the scan nothing.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.masks.answers import Answer, check_answer
from bench.masks.counting import count_boxes
from bench.masks.ours import build
from bench.masks.queries import FILTERS, Question, scored
from bench.masks.report import Report
from bench.masks.workloads import Workload
from bench.tables import Table, milliseconds, seconds

__all__ = ["run_session", "targets"]

_SHARE_OF_A_QUERY = 0.05
_SEEN = 0.5
_SHOWN = (1, 10, 50, 100, 200)


def targets(n_masks: int, n_queries: int, *, seed: int = 0) -> list[NDArray[np.int64]]:
    """The masks that each query is about: half of them seen before, half new, while there are new ones.

    Returns:
        int64 ids, ascending, one array per query.
    """
    rng = np.random.default_rng([seed, 200])
    each = max(1, round(_SHARE_OF_A_QUERY * n_masks))
    order = rng.permutation(n_masks).astype(np.int64)
    n_seen, found = 0, []
    for _ in range(n_queries):
        n_old = min(n_seen, round(_SEEN * each)) if n_seen else 0
        n_new = min(each - n_old, n_masks - n_seen)
        n_old = min(each - n_new, n_seen)
        old = rng.choice(order[:n_seen], n_old, replace=False) if n_old else order[:0]
        found.append(np.sort(np.concatenate([old, order[n_seen : n_seen + n_new]])))
        n_seen += n_new
    return found


def run_session(report: Report) -> None:
    """Runs the same session against an index built on append, a lazy one and a scan, for the first workload."""
    workload = report.workloads[0]
    n_queries = report.size.n_session
    pairs = [list(scored(workload, kind, n_queries // 2, seed=1)) for kind in FILTERS]
    asked = [pair for both in zip(*pairs, strict=True) for pair in both]
    about = targets(workload.n_masks, len(asked))
    answers: dict[str, list[Answer]] = {}
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for index in ("append", "lazy"):
        ours = build(workload, report.scratch / f"{workload.name}.session.nadb", index=index)
        name = f"ours, index on {index}" if index == "append" else "ours, lazy index"
        before[name], answers[name] = ours.seconds, []
        for (question, scores), ids in zip(asked, about, strict=True):
            answer = ours.answer(question, where=ids)
            _check(answer, question, scores, ids, name)
            answers[name].append(answer)
        start = time.perf_counter()
        ours.close()  # what queries learned becomes durable here
        after[name] = time.perf_counter() - start
        ours.delete()
    name = "NumPy, mapped"
    before[name], after[name], answers[name] = 0.0, 0.0, []
    pixels = np.asarray(workload.pixels())
    for (question, scores), ids in zip(asked, about, strict=True):
        answer = _scan(workload, pixels, question, ids)
        _check(answer, question, scores, ids, name)
        answers[name].append(answer)
    del pixels
    shown = sorted({n for n in _SHOWN if n <= len(asked)} | {len(asked)})
    table = Table(
        f"A session of {len(asked)} filters: {workload.name}",
        f"{workload.n_masks:,} masks of {workload.side} x {workload.side}; each query is about {_SHARE_OF_A_QUERY:.0%} "
        "of them, half seen before and half new while there are new ones; warm. Cumulative seconds, the "
        "append included.",
        (
            "",
            "append",
            *(f"after {n}" for n in shown),
            "closed",
            "ms a query",
            "masks read",
            "of those asked",
            "MB read",
        ),
    )
    n_asked = sum(map(len, about))
    for name, held in answers.items():
        spent = [answer.seconds for answer in held]
        total = before[name] + np.cumsum(spent)
        read = sum(answer.masks_read for answer in held)
        n_bytes = [answer.bytes_read for answer in held if answer.bytes_read is not None]
        table.add(
            name,
            seconds(before[name]),
            *(seconds(total[n - 1]) for n in shown),
            seconds(total[-1] + after[name]),
            f"{milliseconds(float(np.median(spent)))} ({milliseconds(max(spent))})",
            f"{read:,}",
            f"{read / n_asked:.1%}",
            f"{sum(n_bytes) / 1e6:,.1f}" if n_bytes else "",
        )
    report.tables.append(table)


def _check(answer: Answer, question: Question, scores: NDArray[np.float64], ids: NDArray[np.int64], name: str) -> None:
    """Checks an answer about some masks, as one about masks of their own."""
    local = np.searchsorted(ids, answer.ids)
    inside = local < len(ids)
    if not (inside.all() and np.array_equal(ids[local], answer.ids)):
        local = np.where(inside, local, -1)
    check_answer(replace(answer, ids=local.astype(np.int64)), question, scores[ids], name=name)


def _scan(workload: Workload, pixels: NDArray[np.uint8], question: Question, ids: NDArray[np.int64]) -> Answer:
    start = time.perf_counter()
    boxes = question.boxes(workload)[ids]
    counts = np.empty(len(ids), dtype=np.int64)
    for i, mask_id in enumerate(ids.tolist()):
        counts[i] = count_boxes(pixels[mask_id : mask_id + 1], boxes[i], question.low)[0]
    keep = counts > question.threshold
    return Answer(ids[keep], counts[keep].astype(np.float64), len(ids), None, time.perf_counter() - start)
