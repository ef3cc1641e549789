"""Calibration against made-up machines: which shapes reproduce, tolerances, refusals, the time it may take."""

from __future__ import annotations

import numpy as np
import pytest

from neuralartifactdb.capture.calibration import batch_shapes, calibrate, choose_multiple, wave_unit
from neuralartifactdb.errors import InvalidValueError

POOL = np.arange(1000, 1100)
TABLE = np.random.default_rng(0).standard_normal((2000, 5)).astype(np.float32)


class Machine:
    """A 'model' whose bits depend on batch shape, place and neighbours as told."""

    def __init__(self, deviate=None, noise=1e-6):
        self.deviate = deviate or (lambda shape, row, ids: False)
        self.noise = noise
        self.shapes = []

    def __call__(self, ids, rows):
        self.shapes.append(len(ids))
        values = TABLE[ids[rows]].copy()
        for i, row in enumerate(rows):
            if self.deviate(len(ids), row, ids):
                values[i] += self.noise * (1 + row)
        return {"a": values, "b": TABLE[ids[rows]].astype(np.float64)}


DTYPES = {"a": "float32", "b": "float64"}


def test_shapes_ascend_to_the_builds():
    assert batch_shapes(1) == (1,)
    assert batch_shapes(8) == (1, 2, 4, 8)
    assert batch_shapes(100) == (1, 2, 4, 8, 16, 32, 64, 100)


def test_only_shapes_with_the_builds_bits_are_used():
    machine = Machine(lambda shape, row, ids: shape in (1, 8))
    found = calibrate(machine, POOL, 64, DTYPES, seed=0)
    assert found.query_batches == (2, 4, 16, 32, 64)
    assert found.tolerance == {"a": None, "b": None}
    assert set(found.seconds_per_input) == {2, 4, 16, 32, 64}
    assert set(machine.shapes) == set(batch_shapes(64))


def test_without_any_smaller_shape_the_builds_remains():
    found = calibrate(Machine(lambda shape, row, ids: shape != 64), POOL, 64, DTYPES, seed=0)
    assert found.query_batches == (64,)
    assert found.tolerance["a"] is None


def test_a_shape_that_fails_at_one_place_only_is_not_used():
    found = calibrate(Machine(lambda shape, row, ids: shape == 32 and row >= 28), POOL, 64, DTYPES, seed=0)
    assert 32 not in found.query_batches
    assert 16 in found.query_batches


def test_a_shape_that_fails_beside_padding_only_is_not_used():
    found = calibrate(
        Machine(lambda shape, row, ids: shape == 16 and len(set(ids.tolist())) <= 8), POOL, 64, DTYPES, seed=0
    )
    assert 16 not in found.query_batches


@pytest.mark.parametrize("place", range(64))
def test_every_place_of_a_batch_is_tried(place):
    found = calibrate(Machine(lambda shape, row, ids: shape == 64 and row == place), POOL, 128, DTYPES, seed=place)
    assert found.query_batches == (1, 2, 4, 8, 16, 32, 128)


def test_wide_layers_are_compared_at_some_places(monkeypatch):
    monkeypatch.setattr("neuralartifactdb.capture.calibration._KEPT_VALUES", 200)
    kept = []

    def run(ids, rows):
        kept.append(len(rows))
        return {"a": TABLE[ids[rows]], "b": TABLE[ids[rows]].astype(np.float64)}

    assert calibrate(run, POOL, 64, DTYPES, seed=0).query_batches == batch_shapes(64)
    assert max(kept) == 20


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_small_builds(batch):
    assert calibrate(Machine(), POOL[:1], batch, DTYPES, seed=0).query_batches == batch_shapes(batch)


def test_rounding_in_the_builds_own_shape_gives_a_tolerance(caplog):
    found = calibrate(Machine(lambda shape, row, ids: row % 2), POOL, 16, DTYPES, seed=0)
    tolerance = found.tolerance["a"]
    assert tolerance is not None
    assert tolerance.dtype == np.float64
    assert (tolerance >= 16 * 1e-6).all()
    assert (tolerance <= 16 * 16 * 4e-6).all()
    assert "tolerance" in caplog.text
    assert not found.tolerance["b"].any()  # bits of the other layer never moved
    assert found.query_batches[-1] == 16


def test_nan_that_stays_nan_is_no_deviation():
    def run(ids, rows):
        return {"a": np.full((len(rows), 2), np.nan, dtype=np.float32)}

    assert calibrate(run, POOL, 4, {"a": "float32"}, seed=0).tolerance["a"] is None


@pytest.mark.parametrize(
    ("dtype", "noise", "refused"), [("float32", 1e-2, True), ("bfloat16", 1e-3, False), ("float64", 1e-6, True)]
)
def test_dependence_on_batch_mates_is_refused(dtype, noise, refused):
    machine = Machine(lambda shape, row, ids: row % 2, noise)
    dtypes = {"a": dtype, "b": "float64"}
    if not refused:
        assert calibrate(machine, POOL, 4, dtypes, seed=0).tolerance["a"] is not None
        return
    with pytest.raises(
        InvalidValueError, match=r"layer 'a' depend on what else is in the batch: neuron \d.*quantisation"
    ):
        calibrate(machine, POOL, 16, dtypes, seed=0)


def test_a_slow_model_is_not_run_at_every_shape(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("neuralartifactdb.capture.calibration.time.perf_counter", lambda: clock[0])
    machine = Machine()

    def slow(ids, rows):
        clock[0] += len(ids)
        return machine(ids, rows)

    found = calibrate(slow, POOL, 64, DTYPES, seed=0)
    assert found.query_batches == (1, 64)
    assert machine.shapes.count(64) == 3
    assert sum(machine.shapes) <= 3 * 64 + 8
    assert found.seconds_per_input == {1: 1.0, 64: 1.0}


def test_useful_shapes_are_tried_first(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("neuralartifactdb.capture.calibration.time.perf_counter", lambda: clock[0])

    def run_within(seconds, deviate):
        machine = Machine(deviate)
        clock[0] = 0.0

        def run(ids, rows):
            clock[0] += 1.0
            return machine(ids, rows)

        found = calibrate(run, POOL, 512, DTYPES, seed=0, budget_s=seconds)
        return found.query_batches, list(dict.fromkeys(machine.shapes))

    only_above_1 = lambda shape, row, ids: shape == 1  # noqa: E731
    assert run_within(1e9, only_above_1) == (
        (2, 4, 8, 16, 32, 64, 128, 256, 512),
        [512, 1, 2, 16, 4, 32, 8, 64, 128, 256],
    )
    assert run_within(13, only_above_1) == ((2, 16, 512), [512, 1, 2, 16])  # 3 of 512, 1 of 1, 8 of 2
    assert run_within(1e9, None)[1] == [512, 1, 16, 4, 32, 8, 64, 128, 256, 2]
    not_below_8 = lambda shape, row, ids: shape < 8  # noqa: E731
    assert run_within(1e9, not_below_8)[1] == [512, 1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_the_multiple_that_frees_values_from_lengths():
    lengths = {i: 3 + i for i in range(40)}

    def run(ids, rows, multiple):
        padded = -(-max(lengths[i] for i in ids.tolist()) // multiple) * multiple
        kernel = padded < needed[0]  # two kernels: the values depend on which one ran
        return {"a": TABLE[ids[rows]] + np.float32(1e-6 * kernel)}

    needed = [0]
    for needed[0], expected in ((10, 16), (17, 32), (40, 64), (4000, 16)):
        assert choose_multiple(run, lengths, 8) == expected

    def never(ids, rows, multiple):
        return {"a": TABLE[ids[rows]] + np.float32(1e-6 * max(lengths[i] for i in ids.tolist()))}

    assert choose_multiple(never, lengths, 8) is None
    assert choose_multiple(run, lengths, 1) is None


def test_candidates_are_evaluated_in_the_shape_that_saves_passes():
    waits = {1: 1.0, 2: 0.5, 4: 0.25, 8: 0.2, 16: 0.2, 32: 0.1, 64: 0.06}  # passes of 1, 1, 1, 1.6, 3.2, 3.2, 3.84
    assert wave_unit(waits) == 16  # queries need a few dozen inputs: no more than 16 at a time
    assert wave_unit(dict.fromkeys((1, 2, 4, 8, 64), 1.0)) == 4
    assert wave_unit({2: 0.3, 8: 0.3}) == 8
    assert wave_unit({2: 0.3, 16: 0.3}) == 2
    assert wave_unit({64: 0.1}) == 64


def test_many_evaluations_go_on_in_larger_shapes_that_take_less_time_per_input():
    seconds = {2: 0.5, 16: 0.2, 32: 0.15, 64: 0.16, 128: 0.1, 256: 0.3}
    assert [wave_unit(seconds, n) for n in (0, 63, 64, 255, 256, 10**6)] == [16, 16, 32, 32, 128, 128]
