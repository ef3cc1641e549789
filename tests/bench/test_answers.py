"""The reference and the check catch wrong answers; the NumPy and faiss competitors pass it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bench.activations.answers import (
    Answer,
    Query,
    WrongAnswerError,
    check_answer,
    reference_scores,
    reference_top_k,
)
from bench.activations.materialised import MaterialisedColumns, MaterialisedRows, numpy_top_k
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def case():
    columns = np.random.default_rng(3).standard_normal((4, 200)).astype(np.float32)
    query = Query("nearest", "SimTop", "layer", 17, np.array([2, 0, 3]), 5)
    scores = reference_scores(columns[query.group], query)
    ids = reference_top_k(scores, query)
    return columns, query, scores, Answer(ids, scores[ids], 0, 0, 0.0)


def test_the_reference_is_the_definition(case):
    columns, _, scores, answer = case
    plain = []
    for i in range(200):
        total = 0.0
        for neuron in (2, 0, 3):
            difference = float(columns[neuron, i]) - float(columns[neuron, 17])
            total += difference * difference
        plain.append(total**0.5)
    assert scores.tolist() == plain
    assert answer.ids.tolist() == sorted(range(200), key=lambda i: (plain[i], i))[:5]


def test_a_right_answer_passes(case):
    _, query, scores, answer = case
    check_answer(answer, scores, query, name="right")
    check_answer(answer, scores, query, name="right", tolerance=1e-6)


def _swapped(values):
    return np.concatenate([values[1::-1], values[2:]])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: replace(a, ids=np.concatenate([a.ids[:4], a.ids[:1]])),
        lambda a: replace(a, ids=a.ids[:4], scores=a.scores[:4]),
        lambda a: replace(a, scores=np.nextafter(a.scores, np.inf)),
        lambda a: replace(a, ids=_swapped(a.ids)),
        lambda a: replace(a, ids=_swapped(a.ids), scores=_swapped(a.scores)),
    ],
    ids=["twice", "too few", "last bit", "ids swapped", "order"],
)
def test_a_wrong_answer_is_caught(case, spoil):
    _, query, scores, answer = case
    with pytest.raises(WrongAnswerError, match="nearest over 3 neurons of layer"):
        check_answer(spoil(answer), scores, query, name="wrong")


def test_a_tolerance_looks_at_the_true_scores_of_the_ids(case):
    _, query, scores, answer = case
    wrong = answer.ids.copy()
    wrong[-1] = np.argsort(scores)[50]  # whatever it claims to score
    with pytest.raises(WrongAnswerError, match="off the best ones"):
        check_answer(replace(answer, ids=wrong), scores, query, name="wrong", tolerance=1e-4)


def test_ties_may_be_any_only_where_allowed():
    columns = np.zeros((1, 10), dtype=np.float32)
    query = Query("highest", "SimTop", "layer", 0, np.array([0]), 2)
    answer = Answer(np.array([7, 3]), np.zeros(2), 0, 0, 0.0)
    scores = reference_scores(columns, query)
    check_answer(answer, scores, query, name="NTA", ties=False)
    with pytest.raises(WrongAnswerError, match=r"ids \[7, 3\], expected \[0, 1\]"):
        check_answer(answer, scores, query, name="ours")


@given(
    seed=st.integers(0, 1_000),
    n=st.integers(1, 60),
    k=st.integers(1, 70),
    kind=st.sampled_from(["nearest", "highest"]),
    rounded=st.booleans(),
)
def test_numpy_top_k_equals_the_reference(seed, n, k, kind, rounded):
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((3, n)).astype(np.float32)
    columns = np.round(columns) if rounded else columns
    query = Query(kind, "SimHigh", "layer", int(rng.integers(n)), np.arange(3), k)
    ids, scores = numpy_top_k(columns, query)
    check_answer(Answer(ids, scores, 0, 0, 0.0), reference_scores(columns, query), query, name="NumPy")


@pytest.mark.parametrize("kind", ["nearest", "highest"])
def test_materialised_and_faiss_competitors(case, kind):
    columns, query, _, _ = case
    query = replace(query, kind=kind)
    scores = reference_scores(columns[query.group], query)
    workload = SimpleNamespace(layers=["layer"], columns=lambda layer: columns, rows=lambda layer: columns.T.copy())
    for competitor in (MaterialisedColumns(workload), MaterialisedRows(workload)):
        check_answer(competitor.answer(query), scores, query, name=competitor.name)
    pytest.importorskip("faiss")
    from bench.activations.faiss_flat import FaissFlat

    flat = FaissFlat(workload)
    check_answer(flat.answer(query), scores, query, name=flat.name, tolerance=1e-4)
