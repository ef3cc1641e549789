"""The bench's adapter to this database: right answers, `must` by brute force, and work beyond it is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bench.masks.answers import check_answer
from bench.masks.measure import Entrant, measure, pick
from bench.masks.numpy_scan import NumpyScan
from bench.masks.ours import build
from bench.masks.paper_search import PaperSearch
from bench.masks.queries import KINDS, scored
from bench.masks.sections.cells import not_resident
from bench.masks.sections.session import targets
from bench.report import WrongAnswerError


@pytest.fixture
def ours(workload, tmp_path):
    held = build(workload, tmp_path / "masks.nadb")
    yield held
    held.close()


@pytest.mark.parametrize("kind", KINDS)
def test_measured_warm_and_cold(workload, ours, kind):
    scans = [Entrant(NumpyScan(workload, "map"), 2, 1), Entrant(NumpyScan(workload, "memory"))]
    paper = PaperSearch(workload, 200)
    records = measure(workload, list(scored(workload, kind, 3)), Entrant(ours, None, 1), [Entrant(paper)], scans)
    assert len(pick(records, competitor="ours", cold=False)) == 3
    assert [record.number for record in pick(records, competitor="ours", cold=False)] == [0, 1, 2]
    assert len(pick(records, competitor=paper.name)) == 3
    assert len(pick(records, competitor="NumPy, mapped", cold=False)) == 2
    assert len(pick(records, competitor="NumPy, in memory")) == 3
    for record in records:
        assert (record.resident is None) == (record.cold or record.competitor == "NumPy, in memory")
        assert record.resident is None or record.resident > 0.99
    assert [record.competitor for record in pick(records, cold=True)] == ["ours", "NumPy, mapped"]
    assert all(record.must is not None for record in pick(records, competitor="ours"))


def test_files_that_left_the_page_cache_are_said(workload, ours, monkeypatch):
    shares = {"ours": iter([1.0, 1.0, 0.994]), "NumPy, mapped": iter([0.5])}
    names = {tuple(ours.files()): "ours", (workload.path,): "NumPy, mapped"}
    monkeypatch.setattr("bench.masks.measure.resident_share", lambda files: next(shares[names[tuple(files)]]))
    scans = [Entrant(NumpyScan(workload, "map"), 1)]
    records = measure(workload, list(scored(workload, KINDS[0], 2)), Entrant(ours), [], scans)
    assert [record.resident for record in pick(records, competitor="ours")] == [0.994, 1.0]
    assert not_resident(pick(records, competitor="ours")) == []
    assert not_resident(records) == [
        "NumPy, mapped: not resident, 50% of its files were in the page cache before a query."
    ]


def test_must_is_what_the_bounds_leave_open(workload, ours):
    for kind in KINDS:
        for question, scores in scored(workload, kind, 4):
            question = replace(question, k=5)
            lower, upper = ours.bounds(question)
            assert (lower <= scores).all()
            assert (scores <= upper).all()
            must, _ = ours.must(question, scores)
            if question.is_filter:
                decided = (lower > question.threshold) | (upper <= question.threshold)
                expected = int((~decided).sum())
            else:
                sign = -1 if question.largest else 1
                optimistic = np.where(sign < 0, -upper, lower)
                rows = sorted((sign * score, i) for i, score in enumerate(scores))
                reads = ours.reads(question)
                expected = sum(
                    reads[i] for i in range(len(scores)) if lower[i] != upper[i] and (optimistic[i], i) < rows[4]
                )
                if question.is_grouped:  # the last input has one mask
                    assert len(reads) == 21
                    assert reads.max() == 2
                    assert reads[20] <= 1
            assert must == expected
            answer = ours.answer(question)
            check_answer(answer, question, scores, name=ours.name)
            assert ours.check_work(question, answer, scores) == must
            if not ours.last.stats.scanned:
                with pytest.raises(WrongAnswerError, match=f"read 1000 masks, more than must {must} "):
                    ours.check_work(question, replace(answer, masks_read=1_000), scores)
            with pytest.raises(WrongAnswerError, match="its bounds are"):
                ours.must(question, scores + 1_000_000)


def test_targets_of_a_session():
    found = targets(1_000, 40)
    seen: set[int] = set()
    for number, ids in enumerate(found):
        assert len(np.unique(ids)) == len(ids) == 50
        assert (np.diff(ids) > 0).all()
        new = set(ids.tolist()) - seen
        if number == 0:
            assert len(new) == 50
        elif len(seen) <= 975:
            assert len(new) == 25
        seen |= new
    assert seen == set(range(1_000))
