"""`values` and `top_neurons` against brute force, and the facts that a layer tells about itself.

Implements `values`, `top_neurons` (by activation, and by percentile as fine as the partitions) of design section 7.
"""

from __future__ import annotations

import numpy as np
import pytest
from activation_cases import Case, Shape, built, cases, groups, ks
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle


@settings(max_examples=60)
@given(case=cases(), data=st.data())
def test_values_are_the_activations(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        neurons, flat = data.draw(groups(case.shape))
        ids = data.draw(st.lists(st.integers(0, case.n - 1), min_size=1, max_size=9))
        for wanted in (ids, np.array(ids), np.array(ids, dtype=np.uint8)):
            got = b.layer.values(wanted, neurons)
            assert got.dtype == (np.float64 if case.dtype in ("float64", "int64") else np.float32)
            assert got.tolist() == [[b.rows[i][j] for j in flat] for i in ids]
        one = b.layer.values(ids[0], neurons)
        assert one.shape == (len(flat),)
        assert one.tolist() == got[0].tolist()


@settings(max_examples=60)
@given(case=cases(), data=st.data())
def test_bounds_hold_every_score_and_evaluate_nothing(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        neurons, flat = data.draw(groups(case.shape))
        lower, upper = b.layer.bounds(b.layer.score(neurons))
        assert b.function.calls == 0
        assert len(lower) == len(upper) == case.n
        for i in range(case.n):
            truth = oracle.group_score([b.rows[i][j] for j in flat], "sum")
            assert truth is None or lower[i] <= truth <= upper[i]
        with pytest.raises(TypeError, match="bounds needs an expression"):
            b.layer.bounds(3)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(case=cases(), data=st.data())
def test_top_neurons_by_activation(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        ids, k = data.draw(st.lists(st.integers(0, case.n - 1), min_size=1, max_size=4)), data.draw(ks)
        got = b.layer.top_neurons(ids, k)
        assert got.dtype == np.int64
        assert got.tolist() == oracle.strongest_neurons([b.rows[i] for i in ids], k)
        assert b.layer.top_neurons(ids[0], k).tolist() == oracle.strongest_neurons([b.rows[ids[0]]], k)


def codes_of(segment, neuron: int) -> list[int]:
    """A neuron's partition codes, read bit by bit: row groups, neuron-major, least significant bit first."""
    raw = bytes(segment.reader.read("codes", 0, segment.reader.arrays["codes"].nbytes))
    codes: list[int] = []
    begin = 0
    for first in range(0, segment.n, segment.row_group):
        rows = min(segment.row_group, segment.n - first)
        row_bytes = -(-rows * segment.bits // 8)
        packed = int.from_bytes(raw[begin + neuron * row_bytes : begin + (neuron + 1) * row_bytes], "little")
        codes += [packed >> (i * segment.bits) & (1 << segment.bits) - 1 for i in range(rows)]
        begin += segment.n_neurons * row_bytes
    return codes


def certainly_below(b, case: Case, neuron: int, value: float) -> int:
    """Indexed inputs in partitions that lie wholly below a value; kept values one by one."""
    total = 0
    for segment in b.db._session.at().index("layer").segments:
        column = [b.rows[i][neuron] for i in range(segment.first, segment.last)]
        if segment.keeps_values:
            total += sum(v < value for v in column)
        elif segment.bits:
            codes = codes_of(segment, neuron)
            for code in set(codes):
                inside = [v for v, c in zip(column, codes, strict=True) if c == code]
                total += len(inside) if max(inside) < value else 0
    return total


@settings(max_examples=60)
@given(case=cases(), data=st.data())
def test_top_neurons_by_percentile(case: Case, data: st.DataObject) -> None:
    with built(case) as b:
        ids, k = data.draw(st.lists(st.integers(0, case.n - 1), min_size=1, max_size=3)), data.draw(ks)
        strength = [[certainly_below(b, case, j, b.rows[i][j]) for j in range(case.n_neurons)] for i in ids]
        assert b.layer.top_neurons(ids, k, by="percentile").tolist() == oracle.strongest_neurons(strength, k)


def test_facts_of_a_layer() -> None:
    case = Case("gaussian", "float32", (2, 3), 100, 0, (40,), (Shape(5, 2, 16, 4096),), 256, 0)
    with built(case) as b:
        layer = b.layer
        assert (layer.name, layer.shape, layer.n_neurons, layer.dtype) == ("layer", (2, 3), 6, "float32")
        assert (layer.n_inputs, layer.n_indexed, layer.bits, layer.storage, layer.attached) == (100, 100, 5, 0.5, True)
        assert layer.nbytes == sum(s.reader.ref.nbytes for s in b.db._session.at().index("layer").segments)
        text = repr(layer)
        assert "'layer'" in text
        assert "100 inputs" in text
        assert "5 bits" in text
        with pytest.raises(TypeError):
            iter(layer)


@pytest.mark.parametrize("spelled", [(1, 2), 5, [(1, 2)], [5], np.array([[1, 2]]), np.int64(5), slice(5, 6)])
def test_one_neuron_however_it_is_written(spelled: object) -> None:
    case = Case("gaussian", "float32", (2, 3), 20, 0, (), (Shape(None, 0, 16, 4096),), 256, 0)
    with built(case) as b:
        expected = [row[5] for row in b.rows]
        assert b.layer.values(range(20), spelled)[:, 0].tolist() == expected
        if not isinstance(spelled, slice | list | np.ndarray):
            assert b.db.top_k(b.layer[spelled], 1).scores[0] == max(expected)
