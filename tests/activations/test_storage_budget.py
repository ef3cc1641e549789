"""Bytes on disk: never above the storage that was asked for, but for 64 KiB of fixed files per database.

Implements "Storage" of design section 4, for data that would tempt an index to grow, and sizes too small for it.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from activation_cases import Function, activations, fast_directory
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb
from neuralartifactdb.activations import budget
from neuralartifactdb.activations.budget import META_ALLOWANCE, Storage, plan_segment
from neuralartifactdb.activations.dtypes import itemsize, storage_dtype
from neuralartifactdb.activations.source import LayerInfo

FIXED = 64 << 10


def bytes_on_disk(path: str | Path) -> int:
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


def check_segments(db: nadb.Database, key: str, n_neurons_of_pass: int | None = None) -> None:
    """Every segment takes the bytes it says, and no more than its plan did."""
    index = db._session.at().index(key)
    share = (1 << 30) * index.info.n_neurons // (n_neurons_of_pass or index.info.n_neurons)
    for segment in index.segments:
        ref = segment.reader.ref
        assert ref.nbytes == bytes_on_disk(Path(db.path) / "segments" / ref.id)
        plan = plan_segment(
            index.info, segment.n, index.storage, memory_limit=share, has_tolerance=segment.has_tolerance
        )
        assert ref.nbytes <= max(plan.n_bytes, META_ALLOWANCE)
        assert segment.bits == plan.bits


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["relu6", "constant", "one_hot", "gaussian", "few_values", "relu", "outliers", "sorted"]),
    dtype=st.sampled_from(["float32", "float64", "float16", "bool", "int8", "int64"]),
    n=st.sampled_from([1, 2, 7, 63, 300, 1001, 2503]),
    m=st.sampled_from([1, 3, 50]),
    storage=st.sampled_from([0.05, 0.1, 0.2, 0.37, 0.6, 0.9, 1.0, "all", "2kB", "33KB", "1MB"]),
    longest=st.sampled_from([1 << 16, 1024, 300]),
    seed=st.integers(0, 99),
)
def test_a_database_stays_within_its_storage(
    kind: str, dtype: str, n: int, m: int, storage: float | str, longest: int, seed: int
) -> None:
    def ranges(first: int, last: int, *_: object) -> list[tuple[int, int]]:
        return [(a, min(a + longest, last)) for a in range(first, last, longest)]

    array = activations(kind, dtype, n, m, seed)
    with fast_directory() as folder:
        path = folder + "/run.nadb"
        with nadb.open(path) as db, mock.patch("neuralartifactdb.activations.index_calls.segment_ranges", ranges):
            if storage == "2kB":  # less than a segment's description takes
                with pytest.raises(ValueError, match="keeps nothing"):
                    db.index_function("feats", Function(array), n, m, fingerprint="v1", storage=storage)
                assert list(db.activations) == []
                return
            layer = db.index_function("feats", Function(array), n, m, fingerprint="v1", storage=storage)
            full = 4 * n * m
            if storage == "all":
                allowed = itemsize(storage_dtype(array.dtype)) * n * m * 1.02
            elif isinstance(storage, float):
                allowed = storage * full
            else:
                allowed = {"2kB": 2_000, "33KB": 33_000, "1MB": 1_000_000}[storage]
            assert bytes_on_disk(path) <= allowed + FIXED
            if storage != "all":
                assert layer.nbytes <= max(allowed, META_ALLOWANCE * len(db._session.at().index("feats").segments))
            check_segments(db, "feats")
            assert layer.n_indexed == n


def test_layers_of_one_pass_share_bytes_and_stay_within_them(db_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 60), torch.nn.ReLU6(), torch.nn.Linear(60, 10))
    dataset = [torch.randn(8) for _ in range(1_500)]
    with nadb.open(db_path) as db:
        layers = db.index_activations(model, dataset, ["0", "1", "2"], storage="120kB")
        assert [layer.bits > 0 for layer in layers] == [True, True, False] or all(layer.bits for layer in layers)
        assert sum(layer.nbytes for layer in layers) <= 120_000
        assert bytes_on_disk(db_path) <= 120_000 + FIXED
        for layer in layers:
            check_segments(db, layer.name, 130)
            assert layer.highest([0, 3], 5).verify()


@settings(max_examples=200)
@given(
    n=st.integers(1, 70_000),
    m=st.integers(1, 5_000),
    fraction=st.floats(0.01, 1.0),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    memory=st.sampled_from([1 << 16, 1 << 20, 1 << 26, 1 << 30]),
    tolerance=st.booleans(),
)
def test_a_plan_never_exceeds_its_budget(
    n: int, m: int, fraction: float, dtype: str, memory: int, tolerance: bool
) -> None:
    storage = Storage(fraction)
    plan = plan_segment(LayerInfo((m,), dtype), n, storage, memory_limit=memory, has_tolerance=tolerance)
    assert plan.n_bytes <= storage.budget(n, m)
    assert plan.n_inputs == n
    assert plan.keeps_all or 0 <= plan.bits <= 12
    assert plan.maxima_cap <= n
    if plan.bits:
        assert plan.row_group >= 1


def test_more_storage_never_gives_fewer_bits() -> None:
    info = LayerInfo((4_096,), "float32")
    bits = [plan_segment(info, 10_000, Storage(f), memory_limit=1 << 30).bits for f in np.arange(0.04, 0.35, 0.01)]
    assert bits == sorted(bits)
    assert bits[0] == 1
    assert bits[-1] >= 8


def test_the_measured_split_at_a_fifth() -> None:
    """Design section 4: at storage 0.2 and n = 10,000, 5 bits and 3.5% maxima beat 6 bits with 0.6%."""
    plan = plan_segment(LayerInfo((4_096,), "float32"), 10_000, Storage(0.2), memory_limit=1 << 30)
    assert plan.bits == 5
    assert plan.maxima_cap / 10_000 == pytest.approx(0.035, abs=0.006)


def test_auto_keeps_everything_while_that_is_small(db_path: Path) -> None:
    with nadb.open(db_path) as db, mock.patch.object(budget, "AUTO_LIMIT", 50_000):
        small = db.index_arrays("small", np.ones((100, 10), np.float32))
        large = db.index_arrays("large", np.random.default_rng(0).standard_normal((2_000, 20)).astype(np.float32))
        assert (small.storage, small.bits) == ("all", 0)
        assert large.storage == 0.2
        assert large.bits > 0


def test_a_segment_too_small_for_codes_keeps_none_and_still_answers(db_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
    with nadb.open(db_path) as db:
        layer = db.index_arrays("tiny", array, storage=0.2)
        assert layer.bits == 0
        assert layer.storage == 0.2
        result = layer.highest(0, 3)
        assert result.ids.tolist() == np.argsort(-array[:, 0])[:3].tolist()
        assert result.stats.inputs_inferred == 40


@pytest.mark.parametrize(
    ("storage", "error", "words"),
    [
        (0, ValueError, ["above 0", "0"]),
        (-0.5, ValueError, ["above 0", "-0.5"]),
        (1.5, ValueError, ["(0, 1]", "1.5"]),
        ("lots", ValueError, ["storage", "'lots'"]),
        (None, TypeError, ["storage", "None"]),
        (True, TypeError, ["storage", "True"]),
        ([0.2], TypeError, ["storage"]),
        (float("nan"), ValueError, ["storage", "nan"]),
    ],
)
def test_a_bad_storage_says_what_is_possible(
    db_path: Path, storage: object, error: type[Exception], words: list[str]
) -> None:
    with nadb.open(db_path) as db, pytest.raises(error) as caught:
        db.index_arrays("feats", np.ones((4, 2), np.float32), storage=storage)
    assert isinstance(caught.value, nadb.Error)
    for word in words:
        assert word in str(caught.value)
    assert not db_path.exists()


@settings(max_examples=100)
@given(
    first=st.integers(0, 10_000),
    total=st.integers(0, 1_000_000),
    neurons=st.sampled_from([1, 50, 4_096, 400_000]),
    memory=st.sampled_from([1 << 12, 1 << 20, 1 << 30]),
)
def test_segments_cover_every_input_once_in_nearly_equal_parts(
    first: int, total: int, neurons: int, memory: int
) -> None:
    ranges = budget.segment_ranges(first, first + total, neurons, memory)
    assert [i for pair in ranges for i in pair][::2] == [first, *(last for _, last in ranges)][: len(ranges)]
    sizes = [last - begin for begin, last in ranges]
    assert sum(sizes) == total
    assert max(sizes, default=0) <= budget.MAX_SEGMENT_INPUTS
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@settings(max_examples=100)
@given(cap=st.integers(0, 5_000), sample=st.integers(0, 4_096), n=st.integers(1, 100_000))
def test_the_top_partition_is_aimed_below_the_cap(cap: int, sample: int, n: int) -> None:
    sample = min(sample, n)
    wanted = budget.top_count(min(cap, n), sample, n)
    assert 0 <= wanted <= sample
    assert wanted * n <= max(cap, 1) * max(sample, 1)
