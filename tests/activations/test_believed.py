"""What a query may believe: values of a function that reuses its memory, of a model that changes under the query or in
one weight only; and that nothing unchecked is remembered (docs/ARCHITECTURE.md, "What a query may believe").
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.activations.candidates import InputCandidates
from neuralartifactdb.activations.evaluation import Evaluator

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("storage", ["all", 0.2])
def test_a_function_may_fill_the_same_array_again(tmp_path: Path, storage) -> None:
    rows = np.random.default_rng(0).normal(size=(12_000, 64)).astype(np.float32)
    buffer = np.empty_like(rows)

    def evaluate(ids):
        np.take(rows, ids, axis=0, out=buffer[: len(ids)])
        return buffer[: len(ids)]

    with nadb.open(tmp_path / "run.nadb") as db:
        layer = db.index_function("f", evaluate, len(rows), 64, fingerprint="1", storage=storage)
        for neuron in range(0, 64, 9):
            assert layer.highest([neuron], k=5).ids.tolist() == np.argsort(-rows[:, neuron])[:5].tolist()
        target = layer.nearest(7, [1, 2, 3], k=5)
        distance = np.sqrt(((rows[:, 1:4].astype(np.float64) - rows[7, 1:4]) ** 2).sum(axis=1))
        assert target.ids.tolist() == np.argsort(distance, kind="stable")[:5].tolist()


def _network() -> torch.nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()
        ).eval()


class _Trigger:
    """A dataset that writes into the model when it is next read: any writer that runs during a query."""

    def __init__(self, inputs, write) -> None:
        self.inputs, self.write, self.armed = inputs, write, False

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i):
        if self.armed:
            self.armed = False
            self.write()
        return self.inputs[i]


@pytest.mark.parametrize("seed", range(4))
def test_values_of_a_model_that_changed_under_a_query_are_not_remembered(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, inputs = _network(), torch.from_numpy(rng.normal(size=(2_000, 16)).astype(np.float32))
    weight = model[2].weight
    before = weight.detach().clone()

    def write() -> None:
        with torch.no_grad():
            weight.add_(2e-4 * torch.from_numpy(rng.normal(size=(64, 64)).astype(np.float32)))

    dataset = _Trigger(inputs, write)
    with nadb.open(tmp_path / "run.nadb") as db:
        (layer,) = db.index_activations(model, dataset, ["3"], storage=0.2)
        group = [7, 1, 9]
        dataset.armed = True
        with pytest.raises(nadb.StaleIndexError, match="changed"):
            layer.nearest(5, group)
        with torch.no_grad():
            weight.copy_(before)
            truth = model(inputs).double().numpy()[:, group]
        result = layer.nearest(5, group)
        distance = np.sqrt(((truth - truth[5]) ** 2).sum(axis=1))
        assert result.exact
        assert result.tolerance == 0.0
        assert result.ids.tolist() == np.lexsort((np.arange(len(distance)), distance))[:20].tolist()
        assert result.verify()


def test_one_changed_weight_is_refused_where_it_shows_and_by_verify(tmp_path: Path) -> None:
    inputs = torch.from_numpy(np.random.default_rng(1).normal(size=(3_000, 16)).astype(np.float32))
    model = _network()
    with nadb.open(tmp_path / "run.nadb") as db:
        (layer,) = db.index_activations(model, inputs, ["3"], storage=0.2)
        group = [7, 1, 9]
        before = layer.nearest(1, group)
        model[2].weight.data[7, 12] += 2e-4  # counts no version, and lies between the sampled values
        with pytest.raises(nadb.StaleIndexError, match="weights or buffers in 2"):
            before.verify()
        seen = 0
        for target in range(12):
            try:
                assert layer.nearest(target, group).tolerance == 0.0
            except nadb.StaleIndexError:
                seen += 1
        assert seen
        with pytest.raises(nadb.StaleIndexError, match="weights or buffers in 2"):
            layer.highest([7, 1, 9])  # and so it stays, until the weight is back
        model[2].weight.data[7, 12] -= 2e-4
        model[2].weight.data.copy_(_network()[2].weight)
        assert layer.nearest(1, group).verify()


def test_an_array_that_was_written_to_is_refused_by_verify(tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(2_000, 32)).astype(np.float32)
    with nadb.open(tmp_path / "run.nadb") as db:
        layer = db.index_arrays("x", rows, storage=0.2)
        result = layer.nearest(3, [1, 2, 3])
        assert result.verify()
        rows *= np.float32(1.00001)
        with pytest.raises(nadb.StaleIndexError, match=r"other (values|activations)"):
            result.verify()


def test_evaluations_of_the_target_count_towards_the_limit(tmp_path: Path) -> None:
    inputs = torch.from_numpy(np.random.default_rng(3).normal(size=(3_000, 16)).astype(np.float32))
    with nadb.open(tmp_path / "run.nadb", evaluated_bytes=0) as db:
        (layer,) = db.index_activations(_network(), inputs, ["3"], storage=0.2)
        unit = layer._index.source.unit
        for most in (1, unit, unit + 1, 20, 3 * unit):
            found = layer.nearest(9, None, limits=nadb.Limits(max_evaluations=most))
            assert found.stats.inputs_inferred < most + unit + 2  # a batch and the target's own
            assert str(most) in found.guarantee or found.exact


def test_a_plan_says_what_it_does_not_know(tmp_path: Path) -> None:
    rows = np.random.default_rng(4).normal(size=(2_000, 32)).astype(np.float32)
    with nadb.open(tmp_path / "run.nadb") as db:
        layer = db.index_arrays("x", rows, storage=0.2)
        plan = layer.nearest(rows[5], None, explain=True)
        assert plan.expected_evaluations > 0
        assert plan.expected_seconds is None
        assert "time        not known" in repr(plan)


def test_verify_of_functions_that_share_their_memory(tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(3_000, 8)).astype(np.float32)
    held = np.empty_like(rows)

    def times(factor: float) -> Callable[[Any], Any]:
        def evaluate(ids: Any) -> Any:
            held[: len(ids)] = factor * rows[ids]
            return held[: len(ids)]

        return evaluate

    with nadb.open(tmp_path / "run.nadb") as db:
        first, second = (
            db.index_function(f"f{i}", times(i), 3_000, 8, fingerprint=str(i), storage=0.2) for i in (1.0, 2.0)
        )
        assert db.top_k(first[0] + second[1], 5).verify()


def test_threads_count_their_own_inputs(tmp_path: Path) -> None:
    rows = np.random.default_rng(6).normal(size=(3_000, 16)).astype(np.float32)
    with nadb.open(tmp_path / "run.nadb", evaluated_bytes=0) as db:
        layer = db.index_function("f", lambda ids: rows[ids], 3_000, 16, fingerprint="1", storage=0.1)
        alone = [layer.nearest(i, [1, 2, 3]).stats.inputs_inferred for i in range(16)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda i: layer.nearest(i, [1, 2, 3]).stats.inputs_inferred, range(16)))
        assert together == alone
        assert sum(alone) > 0


def test_a_scan_says_in_what_shape(tmp_path: Path) -> None:
    inputs = torch.from_numpy(np.random.default_rng(7).normal(size=(2_000, 16)).astype(np.float32))
    with nadb.open(tmp_path / "run.nadb", evaluated_bytes=0) as db:
        (layer,) = db.index_activations(_network(), inputs, ["3"], storage=0.2)
        source = layer._index.source
        candidates = InputCandidates(
            layer.score([1]), {layer._key: layer._index}, lambda name: pytest.fail(name), 2_000, None, Evaluator()
        )
        for n in (0, 100, 1_000):
            assert candidates.unit_after(n) == source.unit_after(n)
        assert source.unit_after(10**6) >= source.unit_after(0) == source.unit
        costs = itertools.cycle([1.0, 0.0])  # of the waves, and of one pass
        with mock.patch.object(InputCandidates, "seconds", side_effect=costs):
            plan = layer.highest(None, k=1_999, explain=True)
            result = layer.highest(None, k=1_999)
        assert plan.scan == result.stats.scanned is True
        assert result.stats.unit == candidates.max_wave
        assert plan.expected_batches == -(-plan.expected_evaluations // candidates.max_wave)
        assert result.verify()


def test_an_array_on_the_key_of_a_function_is_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(8).normal(size=(1_000, 8)).astype(np.float32)
    with nadb.open(tmp_path / "run.nadb") as db:
        db.index_function("f", lambda ids: rows[ids], 1_000, 8, fingerprint="1", storage=0.2)
        with pytest.raises(nadb.StaleIndexError, match="was indexed as a function, got an array"):
            db.attach_array("f", rows)
        with pytest.raises(ValueError, match=r"was indexed as a function, got an array.*overwrite=True"):
            db.index_arrays("f", rows, storage=0.2)
