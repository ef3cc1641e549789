"""The bench's masks and queries: fixed by their seeds, right by loops in plain Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bench.masks.answers import Answer, check_answer, exact_scores, expected_ids
from bench.masks.generate import cam_maps
from bench.masks.queries import FILTERS, KINDS, Question, draw, scored
from bench.masks.workloads import Workload
from bench.report import WrongAnswerError


def test_two_models_over_the_same_inputs(workload, tmp_path):
    pixels = workload.pixels()
    maps, boxes = cam_maps(21, 30, 0)
    assert np.array_equal(pixels[:21], maps)
    assert np.array_equal(workload.boxes[:21], boxes)
    assert np.array_equal(workload.boxes[21:], boxes[:20])
    assert workload.input_ids.tolist() == [*range(21), *range(20)]
    assert workload.models.tolist() == [0] * 21 + [1] * 20
    assert pixels[21:].reshape(20, -1).min(1).max() == 0
    assert pixels[21:].reshape(20, -1).max(1).min() == 255
    same = np.corrcoef(np.array(pixels[:20]).ravel(), np.array(pixels[21:]).ravel())[0, 1]
    other = np.corrcoef(np.array(pixels[1:21]).ravel(), np.array(pixels[21:]).ravel())[0, 1]
    assert same > other + 0.1
    again = Workload(41, 30, tmp_path)
    assert np.array_equal(again.pixels(), pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_loop(workload, kind):
    pixels = workload.pixels().tolist()

    def counted(mask_ids, box, low):
        x0, y0, x1, y1 = box
        return sum(all(pixels[i][y][x] >= low for i in mask_ids) for y in range(y0, y1) for x in range(x0, x1))

    for question, scores in scored(workload, kind, 3):
        expected = []
        for i in range(21 if question.is_grouped else 41):
            members = [i, i + 21] if question.is_grouped and i < 20 else [i]
            box = workload.boxes[i].tolist() if question.box is None else question.box
            if kind == "top-25, both of two":
                expected.append(counted(members, box, question.low))
            elif kind == "top-25, mean of two":
                expected.append(sum(counted([j], box, question.low) for j in members) / len(members))
            elif kind == "top-25, ratio":
                expected.append(counted([i], box, question.low) / ((box[2] - box[0]) * (box[3] - box[1])))
            else:
                expected.append(counted([i], box, question.low))
        assert scores.tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_queries_are_what_the_issue_says(workload, kind):
    drawn = [draw(workload, kind, number) for number in range(200)]
    lows = [question.low for question in drawn]
    assert min(lows) >= 40
    assert max(lows) <= 230
    assert max(lows) - min(lows) > 150
    if kind in ("filter, object", "top-25, ratio"):
        assert all(question.box is None for question in drawn)
        return
    for x0, y0, x1, y1 in (question.box for question in drawn):
        assert 0 <= x0 < x1 <= 30
        assert 0 <= y0 < y1 <= 30
        assert 4 <= x1 - x0 <= 20
        assert 4 <= y1 - y0 <= 20
    assert [draw(workload, kind, number) for number in (7, 199)] == [drawn[7], drawn[199]]


def test_thresholds_are_quantiles_and_do_not_depend_on_the_number_of_queries(workload):
    for kind in FILTERS:
        many = list(scored(workload, kind, 12))
        few = list(scored(workload, kind, 2, first=5))
        assert [question for question, _ in few] == [question for question, _ in many[5:7]]
        for question, scores in many:
            assert question.threshold in scores
            assert (scores <= question.threshold).sum() >= 0.05 * 41 - 1
            assert (scores < question.threshold).sum() <= 0.95 * 41


def test_reference_order():
    question = Question("top-25, ratio", 0, 100, None, k=3)
    scores = np.array([0.5, 1.0, 0.5, 1.0, 0.0])
    assert expected_ids(question, scores).tolist() == [1, 3, 0]
    assert expected_ids(replace(question, largest=False), scores).tolist() == [4, 0, 2]
    assert expected_ids(Question("filter, box", 0, 100, (0, 0, 1, 1), 0.5), scores).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": np.array([1, 3])}, r"2 ids, expected 3; missing \[4\]"),
        ({"ids": np.array([1, 3, 5])}, r"missing \[4\], not asked for \[5\]"),
        ({"ids": np.array([3, 1, 4])}, "only the order differs"),
        (
            {"scores": np.array([5.0, 7.0, np.nan])},
            "score of id 3 is 7.0, expected 6.0",
        ),
    ],
)
def test_wrong_answers_are_caught(change, message):
    question = Question("filter, box", 0, 100, (0, 0, 1, 1), 4.0)
    scores = np.array([0.0, 5.0, 4.0, 6.0, 9.0, 1.0])
    right = Answer(np.array([1, 3, 4]), np.array([5.0, np.nan, 9.0]), 6, None, 0.1)
    check_answer(right, question, scores, name="x")
    check_answer(replace(right, scores=None), question, scores, name="x")
    with pytest.raises(WrongAnswerError, match=message):
        check_answer(replace(right, **change), question, scores, name="x")


def test_a_top_k_must_give_every_score():
    question = Question("top-25, ratio", 0, 100, None, k=2)
    scores = np.array([0.5, 1.0, 0.75])
    with pytest.raises(WrongAnswerError, match="1 of 2 scores are missing"):
        check_answer(Answer(np.array([1, 2]), np.array([1.0, np.nan]), 1, 1, 0.0), question, scores, name="x")


def test_scores_of_no_question(workload):
    assert exact_scores(workload, []) == []
