"""NTA, as written from the paper, is exact: against brute force on random and on tied data, and it keeps its budget."""

from __future__ import annotations

import numpy as np
import pytest
from bench.activations.answers import Query, check_answer, reference_scores
from bench.activations.nta import Nta
from bench.activations.nta_index import NtaIndex, NtaSizes, sizes_for
from hypothesis import given
from hypothesis import strategies as st


def _data(rng: np.random.Generator, n: int, m: int, kind: str) -> np.ndarray:
    columns = rng.standard_normal((m, n)).astype(np.float32)
    if kind == "relu":
        return np.maximum(columns, 0)
    if kind == "ties":
        return np.round(columns)
    if kind == "constant":
        return np.ones_like(columns)
    return columns


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 120),
    g=st.integers(1, 6),
    k=st.integers(1, 25),
    data=st.sampled_from(["normal", "relu", "ties", "constant"]),
    kind=st.sampled_from(["nearest", "highest"]),
    partitions=st.sampled_from([2, 4, 16]),
    share=st.floats(0, 1),
    batch=st.sampled_from([1, 7, 64]),
)
def test_answers_equal_brute_force(seed, n, g, k, data, kind, partitions, share, batch):
    rng = np.random.default_rng(seed)
    columns = _data(rng, n, 8, data)
    group = rng.choice(8, g, replace=False)
    query = Query(kind, "SimHigh", "layer", int(rng.integers(n)), group, k)
    run: list[int] = []

    def evaluate_for(neurons):
        held = columns[neurons]

        def evaluate(ids):
            run.extend(ids.tolist())
            return held[:, ids]

        return evaluate

    nta = Nta(NtaIndex(columns, NtaSizes(partitions, int(share * n), 0.0)), evaluate_for, batch_size=batch)
    answer = nta.answer(query)
    check_answer(answer, reference_scores(columns[group], query), query, name="NTA", ties=False)
    assert len(run) == len(set(run)), "an input was run twice"
    assert answer.inputs_inferred <= len(run) <= n
    if batch > 1:
        assert answer.inputs_inferred == len(run)


def test_it_stops_long_before_the_end_for_few_neurons():
    columns = np.random.default_rng(0).standard_normal((4, 20_000)).astype(np.float32)
    index = NtaIndex(columns, sizes_for(20_000, 0.2))
    counts = {}
    for g in (1, 2):
        query = Query("highest", "SimTop", "layer", 0, np.arange(g))
        counts[g] = Nta(index, lambda group: lambda ids: columns[group][:, ids]).answer(query).inputs_inferred
    assert counts[1] == 0  # the maxima know
    assert 20 <= counts[2] < 2_000


@pytest.mark.parametrize(("storage", "partitions"), [(0.2, 32), (0.1, 8), (0.5, 256)])
def test_the_budget_is_spent_and_kept(storage, partitions):
    sizes = sizes_for(10_000, storage, batch_size=32)
    assert sizes.n_partitions == partitions
    assert 0.99 * 40_000 * storage < sizes.nbytes <= 40_000 * storage


def test_partitions_are_not_smaller_than_a_batch():
    assert sizes_for(1_000, 1.0, batch_size=64).n_partitions == 8
    with pytest.raises(ValueError, match="two partitions need 1266"):
        sizes_for(10_000, 0.03)


def test_partitions_hold_every_input_once_in_descending_order():
    columns = np.random.default_rng(1).standard_normal((1, 1_000)).astype(np.float32)
    neuron = NtaIndex(columns, NtaSizes(8, 30, 0.0)).neuron(0)
    everyone = np.concatenate([neuron.maxima_ids, *neuron.members])
    np.testing.assert_array_equal(np.sort(everyone), np.arange(1_000))
    values = columns[0].astype(np.float64)
    assert values[everyone[:30]].min() >= values[everyone[30:]].max()
    for ids, low, up in zip(neuron.members, neuron.lower, neuron.upper, strict=True):
        assert (values[ids].min(), values[ids].max()) == (low, up)
