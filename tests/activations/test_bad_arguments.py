"""Bad arguments of queries: the class of the error, and a message with what was wrong, got and expected, and the fix.

Implements "Errors by class" of design section 7 and "Errors" of the house style, for activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from activation_cases import Built, Case, Shape, built

import neuralartifactdb as nadb

CASE = Case("gaussian", "float32", (2, 3), 40, 2, (), (Shape(3, 0, 16, 4096),), 256, 0)


@pytest.fixture(scope="module")
def b() -> Iterator[Built]:
    with built(CASE) as held:
        held.db.set_inputs({"name": [f"n{i}" for i in range(40)], "x": np.arange(40)}, key="name")
        yield held


Bad = tuple[Callable[[Any, Any], Any], type[Exception], list[str]]

GROUPS: dict[str, Bad] = {
    "out of range": (lambda la, _: la.highest([0, 6]), IndexError, ["[0, 6)", "6 at position 1", "layer", "(2, 3)"]),
    "negative": (lambda la, _: la.highest(-1), IndexError, ["[0, 6)", "-1"]),
    "an array out of range": (lambda la, _: la.highest(np.array([1, 9])), IndexError, ["9 at position 1"]),
    "coordinate out of range": (lambda la, _: la.highest([(1, 3)]), IndexError, ["(1, 3)", "[0, 3)", "coordinate 1"]),
    "too few coordinates": (lambda la, _: la.highest((1,)), IndexError, ["2 coordinates", "(1,)", "a list is a group"]),
    "a tuple that was meant as a group": (lambda la, _: la.highest((0, 1, 2)), IndexError, ["a list is a group"]),
    "empty": (lambda la, _: la.highest([]), ValueError, ["at least one", "empty"]),
    "an empty slice": (lambda la, _: la.highest(slice(4, 2)), ValueError, ["at least one"]),
    "no bool is true": (lambda la, _: la.highest(np.zeros((2, 3), bool)), ValueError, ["at least one"]),
    "duplicates": (lambda la, _: la.highest([1, 4, 1]), ValueError, ["distinct", "1 again at position 2", "weights="]),
    "duplicates in two spellings": (lambda la, _: la.highest([4, (1, 1)]), ValueError, ["distinct", "4 again"]),
    "bools of another shape": (lambda la, _: la.highest(np.ones(5, bool)), ValueError, ["(2, 3)", "(5,)"]),
    "floats": (lambda la, _: la.highest([0.0]), TypeError, ["ints", "0.0"]),
    "a float array": (lambda la, _: la.highest(np.array([0.5])), TypeError, ["ints or bools", "float64"]),
    "text": (lambda la, _: la.highest("conv1"), TypeError, ["str"]),
    "a bool": (lambda la, _: la.highest([True]), TypeError, ["True"]),
    "a matrix": (lambda la, _: la.highest(np.zeros((2, 5), int)), ValueError, ["(g, 2)", "(2, 5)"]),
    "beyond int64": (lambda la, _: la.highest(np.array([2**63 + 1], np.uint64)), IndexError, [str(2**63 + 1)]),
    "a slice of text": (lambda la, _: la.highest(slice("a", "b")), TypeError, ["slice", "'a'"]),
    "a slice that stands still": (lambda la, _: la.highest(slice(0, 4, 0)), TypeError, ["step other than 0"]),
    "a set": (lambda la, _: la.highest({1, 2}), TypeError, ["list", "{1, 2} (set)"]),
    "a group in brackets": (lambda la, _: la[[0, 1]], TypeError, ["group of 2", "score"]),
}
NUMBERS: dict[str, Bad] = {
    "k = 0": (lambda la, _: la.highest(0, 0), ValueError, ["k", "at least 1", "0"]),
    "k < 0": (lambda la, _: la.nearest(0, 0, -3), ValueError, ["k", "-3"]),
    "k is a float": (lambda la, _: la.highest(0, 2.0), TypeError, ["k", "2.0"]),
    "k is a bool": (lambda la, _: la.highest(0, True), TypeError, ["k", "True"]),
    "limit = 0": (lambda la, _: la.filter(la[0] > 1, limit=0), ValueError, ["limit", "0"]),
    "k of top_k": (lambda la, _: la.top_k(la[0], 0), ValueError, ["k", "0"]),
    "on_progress is no function": (lambda la, _: la.nearest(0, on_progress=3), TypeError, ["on_progress", "3 (int)"]),
    "limits are none": (lambda la, _: la.nearest(0, limits=3), TypeError, ["nadb.Limits", "int"]),
    "largest is text": (
        lambda la, _: la.highest(0, largest="no"),
        TypeError,
        ["largest", "True or False", "'no' (str)"],
    ),
    "largest is None": (lambda la, _: la.top_k(la[0], largest=None), TypeError, ["largest", "None"]),
    "include_target": (lambda la, _: la.nearest(0, include_target=0), TypeError, ["include_target", "0 (int)"]),
    "explain": (lambda la, _: la.highest(0, explain="yes"), TypeError, ["explain", "'yes'"]),
    "k of top_neurons": (lambda la, _: la.top_neurons(0, 0), ValueError, ["k", "0"]),
}
SCORES: dict[str, Bad] = {
    "unknown score": (lambda la, _: la.highest(0, score="median"), ValueError, ["'sum'", "'l2'", "'median'"]),
    "scores": (lambda la, _: la.highest(0, score=np.array(["sum", "max"])), ValueError, ["'sum'", "array"]),
    "weights of unequal lengths": (lambda la, _: la.highest([0, 1], weights=[[1], [1, 2]]), ValueError, ["weights"]),
    "one weight": (lambda la, _: la.highest([0, 1], weights=2), ValueError, ["(2,)", "got ()"]),
    "unknown metric": (lambda la, _: la.nearest(0, 0, metric="hamming"), ValueError, ["'cosine'", "'hamming'"]),
    "unknown by": (lambda la, _: la.top_neurons(0, by="rank"), ValueError, ["'percentile'", "'rank'"]),
    "weights with max": (lambda la, _: la.highest([0, 1], score="max", weights=[1, 2]), ValueError, ["sum", "'max'"]),
    "weights with cosine": (lambda la, _: la.nearest(0, 0, metric="cosine", weights=[1]), ValueError, ["cosine"]),
    "too many weights": (lambda la, _: la.highest([0, 1], weights=[1, 2, 3]), ValueError, ["(2,)", "(3,)"]),
    "weights not finite": (lambda la, _: la.highest([0, 1], weights=[1, np.inf]), ValueError, ["inf", "position 1"]),
    "weights as text": (lambda la, _: la.highest([0], weights=["a"]), TypeError, ["numbers"]),
    "a negative weight of a distance": (
        lambda la, _: la.nearest(0, [0, 1], weights=[1, -2]),
        ValueError,
        ["negative", "-2", "position 1"],
    ),
}
TARGETS: dict[str, Bad] = {
    "id out of range": (lambda la, _: la.nearest(40), IndexError, ["[0, 40)", "40"]),
    "negative id": (lambda la, _: la.nearest(-1), IndexError, ["[0, 40)", "-1"]),
    "one of several ids": (lambda la, _: la.nearest([1, 77]), IndexError, ["77"]),
    "no ids": (lambda la, _: la.nearest(np.empty(0, int)), ValueError, ["at least one"]),
    "the same id twice": (lambda la, _: la.nearest([2, 2]), ValueError, ["distinct", "[2, 2]"]),
    "a vector of another length": (lambda la, _: la.nearest(np.zeros(5)), ValueError, ["(6,)", "(5,)"]),
    "a vector with NaN": (lambda la, _: la.nearest(np.array([np.nan]), 0), ValueError, ["finite", "position 0"]),
    "a bool": (lambda la, _: la.nearest(True), TypeError, ["True"]),
    "a dict": (lambda la, _: la.nearest({"a": 1}), TypeError, ["dict"]),
    "a matrix": (lambda la, _: la.nearest([[1, 2]]), TypeError, ["(1, 2)"]),
    "an unknown key": (lambda la, _: la.nearest("n39x"), KeyError, ["'n39x'", "'name'", "'n39'"]),
    "a key of another type": (lambda la, _: la.nearest(nadb.key(3)), KeyError, ["3", "type str"]),
    "an id beyond int64": (lambda la, _: la.nearest(2**70), IndexError, ["[0, 40)", str(2**70)]),
    "ids beyond int64": (lambda la, _: la.nearest(np.array([2**63 + 1], np.uint64)), IndexError, [str(2**63 + 1)]),
    "rows of unequal lengths": (lambda la, _: la.nearest([[1], [1, 2]]), ValueError, ["a target", "one length"]),
    "nothing": (lambda la, _: la.nearest([]), ValueError, ["target", "at least one", "empty"]),
    "a new input without a model": (
        lambda la, _: la.nearest(input=np.zeros(6)),
        nadb.NotAttachedError,
        ["a function is attached", "float vector of length 6"],
    ),
    "no key at all": (lambda la, _: nadb.key(1.5), TypeError, ["1.5", "int or a str"]),
}
IDS: dict[str, Bad] = {
    "values out of range": (lambda la, _: la.values([0, 40]), IndexError, ["[0, 40)", "40 at position 1"]),
    "negative": (lambda la, _: la.values(-1), IndexError, ["-1"]),
    "none": (lambda la, _: la.values([]), ValueError, ["at least one"]),
    "floats": (lambda la, _: la.values([0.5]), TypeError, ["ints"]),
    "beyond int64": (lambda la, _: la.values(2**70), IndexError, ["[0, 40)", str(2**70)]),
    "of unequal lengths": (lambda la, _: la.values([[1], [1, 2]]), ValueError, ["ids", "one length"]),
    "top_neurons out of range": (lambda la, _: la.top_neurons(40), IndexError, ["40"]),
}
EXPRESSIONS: dict[str, Bad] = {
    "an unknown layer": (lambda _, db: db.activations["layr"], KeyError, ["'layr'", "'layer'"]),
    "an unknown column": (lambda la, _: la.filter(nadb.column("nam") == "n1"), KeyError, ["'nam'", "'name'"]),
    "a number as a condition": (lambda la, _: la.filter(la[0]), TypeError, ["condition", "layer[3] > 2.0"]),
    "a condition as a number": (lambda la, _: la.top_k(la[0] > 1), TypeError, ["expression"]),
    "a bool": (lambda la, _: la.filter(True), TypeError, ["condition", "True"]),
    "text in arithmetic": (lambda la, _: la.top_k(nadb.column("name") + 1), TypeError, ["text", "nadb.column('name')"]),
    "text against a number": (lambda la, _: la.filter(nadb.column("name") > 1), TypeError, ["text"]),
    "python's and": (lambda la, _: la.filter(la[0] > 1 and la[1] > 1), TypeError, ["&", "and"]),
    "a chained comparison": (lambda la, _: la.filter(0 < la[0] < 1), TypeError, ["chained"]),
}
BAD = {
    f"{kind}: {name}": bad
    for kind, table in {
        "group": GROUPS,
        "number": NUMBERS,
        "score": SCORES,
        "target": TARGETS,
        "ids": IDS,
        "expression": EXPRESSIONS,
    }.items()
    for name, bad in table.items()
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_refused_before_anything_is_evaluated(b: Built, name: str) -> None:
    call, error, words = BAD[name]
    b.function.forget()
    with pytest.raises(error) as caught:
        call(b.layer, b.db)
    assert isinstance(caught.value, nadb.Error)
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert b.function.calls == 0


BUILDS: dict[str, tuple[Callable[[nadb.Database], Any], type[Exception], list[str]]] = {
    "one axis": (
        lambda db: db.index_arrays("a", np.zeros(5)),
        ValueError,
        ["(n_inputs, ...)", "(5,)", "array[:, None]"],
    ),
    "complex numbers": (
        lambda db: db.index_arrays("a", np.zeros((5, 2), complex)),
        TypeError,
        ["complex128", "float32"],
    ),
    "text": (lambda db: db.index_arrays("a", np.array([["x"]])), TypeError, ["float32"]),
    "no neurons": (lambda db: db.index_arrays("a", np.zeros((5, 0))), ValueError, ["neurons", "(0,)"]),
    "a missing file": (lambda db: db.index_arrays("a", "nowhere/at/all.npy"), FileNotFoundError, ["all.npy"]),
    "a directory": (lambda db: db.index_arrays("a", "/"), ValueError, ["/: got a directory", ".npy"]),
    "a fraction in quotes": (
        lambda db: db.index_arrays("a", np.zeros((5, 2)), storage="0.2"),
        ValueError,
        ["got '0.2'", "storage=0.2"],
    ),
    "storage in capitals": (
        lambda db: db.index_arrays("a", np.zeros((5, 2)), storage="AUTO"),
        ValueError,
        ["'all'", "(0, 1]", "got 'AUTO'", "did you mean 'auto'?"],
    ),
    "storage in words": (
        lambda db: db.index_arrays("a", np.zeros((5, 2)), storage="abc"),
        ValueError,
        ["'auto', 'all'", "(0, 1]", "'2GB'", "got 'abc'"],
    ),
    "infinite storage": (
        lambda db: db.index_arrays("a", np.zeros((5, 2)), storage=float("inf")),
        ValueError,
        ["finite", "inf"],
    ),
    "so few bytes that nothing is kept": (
        lambda db: db.index_arrays("a", np.random.default_rng(0).normal(size=(500, 8)), storage=10),
        ValueError,
        ["storage=10 keeps nothing", "500 inputs", "8 neurons", "KiB", "storage=0.2"],
    ),
    "a shape that is text": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 3)), 5, "3", fingerprint="1"),
        TypeError,
        ["shape", "tuple of ints", "'3' (str)"],
    ),
    "a shape with half an axis": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 2)), 5, (2.5,), fingerprint="1"),
        TypeError,
        ["shape", "(2.5,)"],
    ),
    "a shape that is missing": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 2)), 5, None, fingerprint="1"),
        TypeError,
        ["shape", "None"],
    ),
    "a function without return": (
        lambda db: db.index_function("a", lambda ids: None, 5, 2, fingerprint="1"),
        TypeError,
        ["evaluate(1 ids)", "(1, 2)", "got None", "return"],
    ),
    "a function of dicts": (
        lambda db: db.index_function("a", lambda ids: {"x": 1}, 5, 2, fingerprint="1"),
        TypeError,
        ["evaluate(1 ids)", "(1, 2)", "got dict"],
    ),
    "a function of ragged lists": (
        lambda db: db.index_function("a", lambda ids: [[1, 2], [3]], 5, 2, fingerprint="1"),
        TypeError,
        ["evaluate(1 ids)", "got list"],
    ),
    "integers that no float holds": (
        lambda db: db.index_arrays("a", np.full((5, 2), 2**53 + 1)),
        ValueError,
        ["2**53", str(2**53 + 1)],
    ),
    "a name that is no text": (lambda db: db.index_arrays(3, np.zeros((5, 2))), TypeError, ["3"]),
    "an empty name": (lambda db: db.index_arrays("", np.zeros((5, 2))), ValueError, ["printable", "''"]),
    "a name with space": (lambda db: db.index_arrays(" a", np.zeros((5, 2))), ValueError, ["' a'"]),
    "a function that is none": (
        lambda db: db.index_function("a", np.zeros((5, 2)), 5, 2, fingerprint="1"),
        TypeError,
        ["evaluate", "ndarray"],
    ),
    "a function of another shape": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 3)), 5, 2, fingerprint="1"),
        ValueError,
        ["(1, 2)", "(1, 3)", "axis 0"],
    ),
    "a function of too few rows": (
        lambda db: db.index_function("a", lambda ids: np.zeros((1, 2)), 5, 2, fingerprint="1"),
        ValueError,
        ["(5, 2)", "(1, 2)"],
    ),
    "no fingerprint": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 2)), 5, 2, fingerprint=""),
        TypeError,
        ["fingerprint", "version"],
    ),
    "a bad shape": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 2)), 5, (2, 0), fingerprint="1"),
        ValueError,
        ["(2, 0)"],
    ),
    "a negative number of inputs": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 2)), -1, 2, fingerprint="1"),
        ValueError,
        ["n_inputs", "-1"],
    ),
    "a float number of inputs": (
        lambda db: db.index_function("a", lambda ids: np.zeros((len(ids), 2)), 5.0, 2, fingerprint="1"),
        TypeError,
        ["n_inputs", "5.0 (float)"],
    ),
    "a memory limit in words": (
        lambda db: db.index_arrays("a", np.zeros((5, 2)), memory_limit="much"),
        ValueError,
        ["memory_limit", "'much'", "1GiB"],
    ),
    "a progress that is no bar": (
        lambda db: db.index_arrays("a", np.zeros((5, 2)), progress=3),
        TypeError,
        ["progress", "3"],
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_bad_build_is_refused_and_leaves_no_index(db_path: Any, name: str) -> None:
    call, error, words = BUILDS[name]
    with nadb.open(db_path) as db:
        with pytest.raises(error) as caught:
            call(db)
        assert isinstance(caught.value, nadb.Error | FileNotFoundError)
        for word in words:
            assert word in str(caught.value), str(caught.value)
        assert list(db.activations) == []


def test_a_dtype_that_changes_between_calls_is_stale(db_path: Any) -> None:
    calls = []

    def evaluate(ids: Any) -> Any:
        calls.append(ids)
        return np.ones((len(ids), 2), np.float32 if len(calls) == 1 else np.float64)

    with nadb.open(db_path) as db, pytest.raises(nadb.StaleIndexError, match=r"float64.*float32"):
        db.index_function("a", evaluate, 5, 2, fingerprint="1")


def test_an_expression_of_another_database_names_both(tmp_path: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    with nadb.open(tmp_path / "a.nadb") as one, nadb.open(tmp_path / "b.nadb") as two:
        mine, theirs = one.index_arrays("x", rows), two.index_arrays("x", rows)
        asked: list[Callable[[], Any]] = [
            lambda: one.top_k(theirs[3]),
            lambda: mine.filter(theirs[3] > 0),
            lambda: one.top_k(mine[0] - theirs[1]),
        ]
        for ask in asked:
            with pytest.raises(ValueError, match=r"one database|belongs to another database") as caught:
                ask()
            assert repr(str(tmp_path / "a.nadb")) in str(caught.value)
            assert repr(str(tmp_path / "b.nadb")) in str(caught.value)
            assert "uuid" not in str(caught.value)
            assert "', '" not in str(caught.value)  # no tuples


def test_numbers_of_numpy_are_storage(db_path: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 8))
    with nadb.open(db_path) as db:
        for given, plain in ((np.float32(0.25), 0.25), (np.int64(9_000), 9_000)):
            plan = db.index_arrays("a", rows, storage=given, explain=True)
            assert str(plan) == str(db.index_arrays("a", rows, storage=plain, explain=True))


def test_a_share_that_keeps_nothing_is_said_in_the_plan_and_by_the_layer(db_path: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 8))
    with nadb.open(db_path) as db:
        plan = str(db.index_arrays("a", rows, storage=1e-6, explain=True))
        assert "nothing: one bit per activation takes" in plan
        assert "every query will evaluate all inputs" in plan
        layer = db.index_arrays("a", rows, storage=1e-6)
        assert "keeps nothing" in repr(layer)
        assert layer.highest(0, 3).stats.inputs_inferred == 500
