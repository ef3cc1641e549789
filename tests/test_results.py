"""Results, their receipts, their conversions; limits. A context made by hand stands for the database."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from neuralartifactdb.errors import DtypeError, ExtraMissingError, IdError, InvalidValueError, NotAttachedError
from neuralartifactdb.limits import Limits
from neuralartifactdb.results import Plan, Result, Row, Stats, Verification, format_seconds


class Context:
    """Masks: the input of mask m is m // 2."""

    def __init__(self):
        self.sample = None

    def input_ids(self, ids):
        return ids // 2

    def attributes(self, ids):
        return {
            "label": ids % 10,
            "name": np.array([None if i == 3 else f"n{i}" for i in ids], dtype=object),
            "score": ids,
        }

    def render(self, input_id):
        return None

    def verify(self, result, sample):
        self.sample = sample
        return Verification(True, len(result), 0.0)


def make(**changes) -> Result:
    values = {
        "ids": np.array([7, 3, 5]),
        "scores": np.array([2.5, 1.0, math.nan]),
        "exact": True,
        "guarantee": "equal to brute force",
        "tolerance": 0.0,
        "stats": Stats(kind="masks", candidates=10_000, settled=9_973, evaluated=27, batches=2),
        "query": "masks.top_k(ratio, k=3)",
        "question": "Which masks?",
        "_context": Context(),
    }
    return Result(**values | changes)


def test_rows():
    result = make()
    assert len(result) == 3
    assert list(result)[:2] == [Row(7, 3, 2.5), Row(3, 1, 1.0)]
    assert result[0] == Row(id=7, input_id=3, score=2.5)
    assert math.isnan(result[-1].score)
    assert result[np.int64(1)].id == 3
    assert [row.id for row in result[1:]] == [3, 5]
    assert make(scores=None)[0].score is None
    assert [row.score for row in make(scores=None)] == [None] * 3
    assert all(isinstance(row.id, int) and isinstance(row.input_id, int) for row in result)


def test_activation_ids_are_input_ids_without_a_database():
    result = make(stats=Stats(), _context=None)
    assert result.input_ids is result.ids
    assert result[0] == Row(7, 7, 2.5)


@pytest.mark.parametrize(("index", "error"), [(3, IdError), (-4, IdError), ("a", DtypeError), (1.0, DtypeError)])
def test_bad_index(index, error):
    with pytest.raises(error, match="got"):
        make()[index]


def test_frozen_and_read_only_without_touching_the_callers_array():
    ids = np.array([1, 2, 3])
    result = make(ids=ids)
    with pytest.raises(FrozenInstanceError):
        result.exact = False
    with pytest.raises(ValueError, match="read-only"):
        result.ids[0] = 9
    with pytest.raises(ValueError, match="read-only"):
        result.scores[0] = 9
    assert ids.flags.writeable
    with pytest.raises(TypeError):
        result.stats.seconds["bounds"] = 1.0


def test_shapes_are_checked():
    with pytest.raises(InvalidValueError, match=r"\(3,\) and \(2,\)"):
        make(scores=np.zeros(2))


def test_equality_is_about_rows_and_certainty_not_work():
    assert make() == make()
    assert make() == make(stats=Stats(kind="masks", candidates=1, evaluated=1), query="")
    assert make() != make(ids=np.array([7, 5, 3]))
    assert make() != make(scores=np.array([2.5, 1.0, 0.0]))
    assert make() != make(scores=None)
    assert make() != make(exact=False)
    assert make() != make(tolerance=1e-6)
    assert make() != make(stats=Stats())
    assert make() != 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(make())


def test_repr():
    text = repr(make())
    assert text.splitlines()[0] == "Result(3 rows, exact, 27 of 10,000 masks read)"
    assert text.splitlines()[2].split() == ["1", "7", "2.5"]
    assert text.splitlines()[4].split() == ["3", "5", "-"]
    long = make(ids=np.arange(1000), scores=np.arange(1000.0), stats=Stats(candidates=5), exact=False)
    assert len(repr(long).splitlines()) <= 20
    assert "1,000 rows, not exact, 0 of 5 inputs inferred" in repr(long)
    assert "guarantee: equal to brute force" in repr(long)
    assert "... 990 more" in repr(long)
    assert repr(make(ids=[], scores=[])).startswith("Result(0 rows")
    assert repr(make(ids=[4], scores=[1], tolerance=3.1e-7)).startswith("Result(1 row, exact within 3.1e-07")


def test_pandas_and_arrow_say_the_same():
    frame, table = make().to_pandas(), make().to_arrow()
    names = ["rank", "id", "input_id", "score", "label", "name", "attribute_score"]
    assert list(frame.columns) == table.column_names == names
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame["input_id"].tolist() == [3, 1, 2]
    assert frame["name"].tolist()[::2] == ["n7", "n5"]
    assert frame["name"].isna().tolist() == [False, True, False]
    assert math.isnan(frame["score"][2])
    frame.loc[0, "score"] = 0.0  # a copy: the result stays
    assert make().scores[0] == 2.5
    assert table["score"].to_pylist() == [2.5, 1.0, None]
    assert table["name"].to_pylist() == ["n7", None, "n5"]
    assert make(scores=None).to_arrow()["score"].to_pylist() == [None] * 3
    assert list(make(ids=[], scores=[], stats=Stats(), _context=None).to_pandas().columns) == names[:4]


@pytest.mark.parametrize(("module", "call"), [("pandas", "to_pandas"), ("pyarrow", "to_arrow")])
def test_missing_extras_are_named(monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    extra = {"pandas": "pandas", "pyarrow": "arrow"}[module]
    with pytest.raises(ExtraMissingError, match=rf"pip install neuralartifactdb\[{extra}\]"):
        getattr(make(), call)()


def test_verify():
    result = make()
    assert result.verify()
    assert result._context.sample is None
    assert result.verify(sample=5).n_checked == 3
    assert result._context.sample == 5
    assert not Verification(False, 3, 0.5)
    with pytest.raises(InvalidValueError, match="got 0"):
        result.verify(sample=0)
    for bad in ("a", 1.5, True):
        with pytest.raises(DtypeError, match=r"sample must be an int or None, got .*\("):
            result.verify(bad)


def test_pickle_and_copy_keep_the_rows_and_leave_the_database():
    result = pickle.loads(pickle.dumps(make()))
    assert result == make()
    assert result.stats == make().stats
    assert not result.ids.flags.writeable
    with pytest.raises(NotAttachedError, match=r"masks\.top_k\(ratio, k=3\)"):
        result.verify()
    assert copy.copy(make()) == make()


def test_stats():
    activations, masks = Stats(candidates=9, evaluated=3), Stats(kind="masks", candidates=9, evaluated=3)
    assert (activations.inputs_inferred, activations.masks_read) == (3, 0)
    assert (masks.inputs_inferred, masks.masks_read) == (0, 3)
    assert Stats(seconds={"bounds": 0.5, "evaluate": 0.25}).total_seconds == 0.75
    assert Stats(seconds={"bounds": 0.5, "total": 0.6}).total_seconds == 0.6
    with pytest.raises(InvalidValueError, match="'mask'"):
        Stats(kind="mask")


def test_plan():
    plan = Plan(
        candidates=10_000,
        settled=9_900,
        expected_evaluations=64,
        expected_batches=1,
        expected_bytes=3 << 20,
        expected_seconds=0.0123,
        query="layer.highest([3], k=20)",
        advice=["more bits: 8 would infer about 20"],
    )
    text = repr(plan)
    assert text == plan.describe()
    for part in (
        "Plan of layer.highest([3], k=20)",
        "64 of 10,000 inputs (0.64%) in 1 batch\n",
        "3.00 MiB",
        "12.3 ms",
        "8 would infer",
    ):
        assert part in text
    assert "one pass" in Plan(scan=True).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 ms"),
        (0.00042, "0.42 ms"),
        (0.0123, "12.3 ms"),
        (0.4567, "457 ms"),
        (0.9996, "1.00 s"),
        (1.9, "1.90 s"),
        (42.0, "42.0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_limits():
    assert Limits() == Limits(theta=1, epsilon=0, max_evaluations=None, timeout_s=None)
    assert Limits().is_exact
    assert not Limits(theta=1.5).is_exact
    assert not Limits(timeout_s=0).is_exact
    made = Limits(theta=np.float32(2), max_evaluations=np.int64(5), timeout_s=3)
    assert (type(made.theta), type(made.max_evaluations), type(made.timeout_s)) == (float, int, float)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"theta": 0.99}, InvalidValueError),
        ({"theta": math.nan}, InvalidValueError),
        ({"theta": math.inf}, InvalidValueError),
        ({"theta": "2"}, DtypeError),
        ({"theta": True}, DtypeError),
        ({"epsilon": -1e-9}, InvalidValueError),
        ({"epsilon": None}, DtypeError),
        ({"max_evaluations": -1}, InvalidValueError),
        ({"max_evaluations": 2.0}, DtypeError),
        ({"max_evaluations": True}, DtypeError),
        ({"timeout_s": -1}, InvalidValueError),
        ({"timeout_s": "1s"}, DtypeError),
    ],
)
def test_bad_limits(options, error):
    (name, value), *_ = options.items()
    with pytest.raises(error, match=name) as caught:
        Limits(**options)
    assert f"got {value!r}" in str(caught.value)


def test_keys_of_groups():
    keys = np.array(["vit", None, "resnet"], dtype=object)
    result = make(keys=keys)
    assert result.keys.tolist() == ["vit", None, "resnet"]
    assert not result.keys.flags.writeable
    assert result == make(keys=keys.copy())
    assert result != make()
    assert result != make(keys=keys[::-1].copy())
    assert make(keys=np.array([1.0, math.nan, 2.0])) == make(keys=np.array([1.0, math.nan, 2.0]))
    assert "vit" in repr(result)
    assert result.to_arrow()["key"].to_pylist() == ["vit", None, "resnet"]
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(InvalidValueError, match="one key per row"):
        make(keys=keys[:2])
