"""Sources that are not what was indexed, and queries without a source.

Implements "What exact means" of design section 4: what a query does with a value that deviates, slightly or wildly; and
`NotAttachedError`, whose message names the call that helps.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activation_cases import Case, Function, Shape, activations, built, check_ranking, fast_directory, forced
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import neuralartifactdb as nadb
import oracle

CODED = (Shape(4, 2, 16, 4096),)
CASE = Case("gaussian", "float32", (4,), 300, 4, (120,), CODED, 256, 0)


class Deviating(Function):
    """Adds something deterministic to every value, once it is told to."""

    amount: Any = 0.0

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        return super().__call__(ids) + np.asarray(self.amount, dtype=self.array.dtype)


def deviating(
    db: nadb.Database, array: NDArray[Any], cuts: tuple[int, ...] = (120,), shapes: Any = CODED
) -> tuple[Any, Deviating]:
    function = Deviating(array)
    with forced(cuts, shapes, 256):
        layer = db.index_function("layer", function, len(array), array.shape[1:], fingerprint="v1", storage=0.5)
    function.forget()
    return layer, function


QUERIES: dict[str, Callable[[Any], Any]] = {
    "highest": lambda layer: layer.highest([0, 1], 10),
    "nearest": lambda layer: layer.nearest(5, None, 10),
    "nearest to a vector": lambda layer: layer.nearest(np.zeros(4), None, 10),
    "filter": lambda layer: layer.filter(layer[0] > 0.1),
    "top_k": lambda layer: layer.top_k(layer[0] * layer[1], 10),
    "values": lambda layer: layer.values(range(50)),
    "top_neurons": lambda layer: layer.top_neurons([3, 4, 5], 2),
    "distance": lambda layer: layer.distance(5),
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("amount", [1e3, -0.5, float("nan"), float("inf")])
def test_another_function_at_query_time_is_stale(db_path: Path, query: str, amount: float) -> None:
    with nadb.open(db_path) as db:
        layer, function = deviating(db, CASE.array)
        function.amount = amount
        with pytest.raises(nadb.StaleIndexError) as caught:
            QUERIES[query](layer)
        text = str(caught.value)
        for word in ("layer", "input ", "neuron ", "bounds", "overwrite=True", "attach"):
            assert word in text
        assert isinstance(caught.value, RuntimeError)
        function.amount = 0.0
        QUERIES[query](layer)  # nothing wrong was remembered


@pytest.mark.parametrize("query", QUERIES)
def test_a_slight_deviation_widens_the_tolerance_and_answers(db_path: Path, query: str) -> None:
    with nadb.open(db_path, evaluated_bytes=0) as db:
        layer, function = deviating(db, CASE.array)
        function.amount = 3e-6
        result = QUERIES[query](layer)
        if not isinstance(result, nadb.Result):
            return
        assert 0 < result.tolerance < 0.1
        assert result.exact
        assert result.verify()
        again = QUERIES[query](layer)
        assert again.tolerance == result.tolerance
        assert again.ids.tolist() == result.ids.tolist()


def test_an_answer_within_a_tolerance_is_right_within_it(db_path: Path) -> None:
    rng = np.random.default_rng(5)
    array = CASE.array
    with nadb.open(db_path) as db:
        layer, function = deviating(db, array)
        noise = (rng.uniform(-1, 1, array.shape) * 2e-6).astype(np.float32)
        function.array = array + noise
        result = layer.highest([0, 1, 2], 15)
        scores = [oracle.group_score(r[:3], "sum") for r in oracle.plain_rows(array)]
        best = [s for _, s in oracle.rank(scores, range(300), 15, largest=True)]
        slack = 2 * 3 * result.tolerance
        assert all(abs(a - b) <= slack for a, b in zip(result.scores.tolist(), best, strict=True))
        assert "within" in result.certainty


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["relu", "relu6", "gaussian", "few_values", "constant", "one_hot"]),
    bits=st.sampled_from([1, 2, 4, 6]),
    cap=st.sampled_from([0, 5, 40]),
    seed=st.integers(0, 2**16),
    memory=st.sampled_from([0, 1 << 20]),
)
def test_noise_never_breaks_a_query(kind: str, bits: int, cap: int, seed: int, memory: int) -> None:
    """Stored values stand beside evaluated ones that deviate: scores stay within the tolerance, whatever the group."""
    array = activations(kind, "float32", 120, 4, seed)
    rng = np.random.default_rng(seed)
    with (
        fast_directory() as folder,
        nadb.open(folder + "/run.nadb", evaluated_bytes=memory) as db,
    ):
        layer, function = deviating(db, array, (50,), (Shape(bits, cap, 16, 4096),))
        function.array = (array + rng.uniform(-1e-6, 1e-6, array.shape)).astype(np.float32)
        rows = oracle.plain_rows(array)
        for flat in ([0], [1, 2], [3, 0, 1, 2]):
            scores = [oracle.group_score([r[j] for j in flat], "sum") for r in rows]
            for k, largest in ((3, True), (30, False), (120, True)):
                result = layer.highest(flat, k, largest=largest)
                assert result.exact
                allowed = len(flat) * (result.tolerance + 1.5e-6)  # noise inside a partition goes unseen
                best = oracle.rank(scores, range(120), k, largest=largest)
                for i, score, (_, expected) in zip(result.ids.tolist(), result.scores.tolist(), best, strict=True):
                    assert abs(score - scores[i]) <= allowed
                    assert abs(score - expected) <= 2 * allowed
                assert result.tolerance < 1.2e-6 or result.verify()  # less was learnt than there is


def test_rows_remembered_for_one_group_are_checked_for_another(db_path: Path) -> None:
    """A query compares the neurons of its own group; what it remembers of the others is no less certain."""
    with nadb.open(db_path) as db:
        layer, function = deviating(db, CASE.array)
        function.amount = np.array([0, 0, 0, 1e3])
        first = layer.highest([0, 1], 10)
        assert first.stats.inputs_inferred
        for query in (
            lambda: layer.highest(3, 300),
            lambda: layer.values(first.ids, 3),
            lambda: layer.nearest(int(first.ids[0]), 3, 5),
            lambda: layer.filter(layer[3] > 500),
        ):
            layer.highest([0, 1], 10)
            with pytest.raises(nadb.StaleIndexError):
                query()


def test_a_tolerance_belongs_to_its_layer_and_ends_with_what_is_attached(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer, function = deviating(db, CASE.array)
        other = db.index_arrays("other", CASE.array, storage="all")
        function.amount = 3e-6
        assert layer.highest([0, 1], 10).tolerance > 0
        assert other.highest([0, 1], 10).tolerance == 0
        function.amount = 0.0
        layer = db.attach_function("layer", function)
        assert layer.highest([0, 1], 10).tolerance == 0


def test_one_wrong_neuron_of_a_large_group_is_never_a_wrong_answer(db_path: Path) -> None:
    """Not every neuron of a large group is compared with its bounds at every evaluation; the search still notices."""
    array = activations("gaussian", "float32", 100, 520, 3)
    for neuron in (1, 519):
        with nadb.open(db_path) as db:
            layer, function = deviating(db, array)
            function.amount = np.where(np.arange(520) == neuron, 10_000.0, 0.0)
            with pytest.raises(nadb.StaleIndexError, match="overwrite=True"):
                layer.highest(None, 5)
            function.amount = np.where(np.arange(520) == neuron, 1e-5, 0.0)
            layer.highest(None, 5, largest=False)
        shutil.rmtree(db_path)


def test_kept_values_need_no_function_and_cannot_go_stale(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer, function = deviating(db, CASE.array, shapes=(Shape(None, 0, 16, 4096),))
        function.amount = 1e3
        rows = oracle.plain_rows(CASE.array)
        check_ranking(layer.highest(0, 5), oracle.rank([r[0] for r in rows], range(300), 5, largest=True))
        assert function.calls == 0


# ---- what is attached ------------------------------------------------------------------------------------------------


def test_without_a_source_the_error_names_the_call_that_helps(tmp_path: Path) -> None:
    with nadb.open(tmp_path / "f.nadb") as db:
        deviating(db, CASE.array)
        db.index_arrays("feats", activations("gaussian", "float32", 3_000, 5, 1), storage=0.2)
    with nadb.open(tmp_path / "f.nadb") as db:
        layer = db.activations["layer"]
        assert not layer.attached
        assert "attach" in repr(layer)
        for query in QUERIES.values():
            with pytest.raises(nadb.NotAttachedError) as caught:
                query(layer)
            assert "db.attach_function('layer', evaluate)" in str(caught.value)
        with pytest.raises(nadb.NotAttachedError, match=r"db\.attach_array\('feats', array\)"):
            db.activations["feats"].highest([0, 1], 20)
        result = layer.filter(layer[0] < -1e6)  # settled by bounds alone
        assert (len(result), result.exact) == (0, True)
        with pytest.raises(nadb.NotAttachedError, match="attach"):
            result.verify()


def test_an_index_answers_alone_what_it_can_settle(db_path: Path) -> None:
    """Maxima, kept values and zero-width partitions need nothing attached; `verify` of kept values neither."""
    array = activations("one_hot", "float32", 200, 5, 1)
    with nadb.open(db_path) as db:
        deviating(db, array)
        db.index_arrays("kept", array)
    with nadb.open(db_path, mode="r") as db:
        rows = oracle.plain_rows(array)
        for key in ("layer", "kept"):
            layer = db.activations[key]
            check_ranking(
                layer.nearest(7, None, 12),
                oracle.rank([oracle.distance(r, rows[7], "l2") for r in rows], range(200), 12, largest=False),
            )
        assert db.activations["kept"].highest([1, 2], 5).verify()
        assert db.activations["kept"].values([3, 4]).tolist() == rows[3:5]
        assert db.activations["kept"].top_neurons(3, 1).tolist() == [rows[3].index(1.0)]


def test_attaching_again_gives_the_same_answers(db_path: Path) -> None:
    with built(CASE) as b:
        expected = b.layer.nearest(8, [0, 3], 10)
        with nadb.open(b.db.path) as db:
            layer = db.attach_function("layer", Function(CASE.array))
            assert layer.attached
            assert layer.nearest(8, [0, 3], 10) == expected


def test_an_array_or_its_file_may_be_attached(tmp_path: Path) -> None:
    array = activations("gaussian", "float32", 3_000, 5, 1)
    np.save(tmp_path / "array.npy", array)
    with nadb.open(tmp_path / "run.nadb") as db:
        expected = db.index_arrays("feats", tmp_path / "array.npy", storage=0.2).highest([0, 1], 9)
    for spelled in (array, tmp_path / "array.npy", str(tmp_path / "array.npy")):
        with nadb.open(tmp_path / "run.nadb", mode="r") as db:
            assert db.attach_array("feats", spelled).highest([0, 1], 9) == expected
    rows = oracle.plain_rows(array)
    check_ranking(
        expected, oracle.rank([oracle.group_score(r[:2], "sum") for r in rows], range(3_000), 9, largest=True)
    )


WRONG: dict[str, tuple[Callable[[nadb.Database], Any], list[str]]] = {
    "other values": (lambda db: db.attach_function("layer", Function(CASE.array * 2)), ["input 0"]),
    "another version": (
        lambda db: db.attach_function("layer", Function(CASE.array), fingerprint="v2"),
        ["'v1'", "'v2'"],
    ),
    "another dtype": (
        lambda db: db.attach_function("layer", Function(CASE.array.astype(np.float64))),
        ["float32", "float64"],
    ),
    "fewer inputs": (lambda db: db.attach_function("layer", Function(CASE.array), n_inputs=299), ["300", "299"]),
    "another array": (lambda db: db.attach_array("feats", CASE.array + 1), ["input 0"]),
    "a wider array": (lambda db: db.attach_array("feats", np.ones((300, 5), np.float32)), ["(4,)", "(5,)"]),
    "a shorter array": (lambda db: db.attach_array("feats", CASE.array[:100]), ["300", "100"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_attaching_something_else_is_stale(db_path: Path, what: str) -> None:
    call, words = WRONG[what]
    with nadb.open(db_path) as db:
        deviating(db, CASE.array)
        db.index_arrays("feats", CASE.array)
    with nadb.open(db_path) as db:
        with pytest.raises(nadb.StaleIndexError) as caught:
            call(db)
        for word in words:
            assert word in str(caught.value)
        assert not db.activations["layer"].attached


def test_attaching_an_unknown_name_shows_near_ones(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        deviating(db, CASE.array)
        for call in (db.attach_function, db.attach_array):
            with pytest.raises(KeyError, match=r"'layr'.*'layer'"):
                call("layr", Function(CASE.array))


def test_more_inputs_than_are_indexed_may_be_attached(db_path: Path) -> None:
    """A longer dataset is allowed; the extra inputs are targets and have values, but are no candidates."""
    longer = np.concatenate([CASE.array, CASE.array[:7] * 3])
    with nadb.open(db_path) as db:
        deviating(db, CASE.array)
    with nadb.open(db_path) as db:
        layer = db.attach_function("layer", Function(longer), n_inputs=307)
        rows = oracle.plain_rows(longer)
        assert layer.n_inputs == 300
        assert layer.values([306, 2]).tolist() == [rows[306], rows[2]]
        assert layer.top_neurons(305, 4).tolist() == oracle.strongest_neurons([rows[305]], 4)
        distances = [oracle.distance(r, rows[303], "l2") for r in rows[:300]]
        told = "exact over the 300 indexed inputs; 7 later ones are not indexed"
        check_ranking(layer.nearest(303, None, 5), oracle.rank(distances, range(300), 5, largest=False), told)
        mean = oracle.mean_row([rows[303], rows[4]])
        distances = [oracle.distance(r, mean, "l2") for r in rows[:300]]
        check_ranking(layer.nearest([303, 4], None, 5), oracle.rank(distances, range(300), 5, largest=False), told)
        with pytest.raises(IndexError, match=r"\[0, 307\).*307"):
            layer.values(307)


def test_a_random_function_is_refused(db_path: Path) -> None:
    rng = np.random.default_rng(0)
    with nadb.open(db_path) as db, pytest.raises(ValueError, match="deterministic"):
        db.index_function("layer", lambda ids: rng.standard_normal((len(ids), 3)), 50, 3, fingerprint="v1")


def test_a_function_whose_values_depend_on_the_batch_is_refused(db_path: Path) -> None:
    def centred(ids: NDArray[np.int64]) -> NDArray[Any]:
        rows = CASE.array[ids]
        return rows - rows.mean(axis=0)

    with nadb.open(db_path) as db, pytest.raises(ValueError):
        db.index_function("layer", centred, 300, 4, fingerprint="v1", storage=0.4)


def test_a_new_input_needs_a_model(db_path: Path) -> None:
    with nadb.open(db_path) as db:
        layer, _ = deviating(db, CASE.array)
        with pytest.raises(nadb.NotAttachedError, match="float vector"):
            layer.nearest(input=np.zeros(3), neurons=[0], k=3)
        with pytest.raises(TypeError, match="input="):
            layer.nearest()
