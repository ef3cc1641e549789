"""Attributes of modules that are no flags, and those that the model changes by itself: what the stored probes judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ask_anew

import neuralartifactdb as nadb

torch = pytest.importorskip("torch")

from neuralartifactdb.capture.model_stamp import model_stamp  # noqa: E402
from neuralartifactdb.capture.moving_attributes import MovingAttributes  # noqa: E402

nn = torch.nn
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32))
IMAGES[313, 0] = 900.0  # the only one beyond 40 in the second layer


class Held(nn.Module):
    """Has values in attributes of every kind, books that change no value, and flags that rare inputs set."""

    def __init__(self) -> None:
        super().__init__()
        self.tensor = torch.tensor(2.0)
        self.array = np.array([1.5, 0.5])
        self.options = {"gain": 1.25, "parts": [{"shift": torch.tensor(0.25)}]}
        self._scale = 0.75
        self._late: float | None = None
        self.late: float | None = None
        self.saw_large = False
        self.longest = 0
        self._books = 0
        self.last: Any = None

    def forward(self, x: Any) -> Any:
        if self.late is None:
            self.late, self._late, self.first_set = 1.1, 0.9, 0.7
        self.saw_large = self.saw_large or bool((x > 40).any())
        self.longest = max(self.longest, len(x))
        y = x * self.tensor * float(self.array[0]) * self.options["gain"] + self.options["parts"][0]["shift"]
        self.last = y * (self._scale * self.late * self._late * self.first_set)
        return self.last


def make_model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), Held())


def ask(db: nadb.Database, k: int = 5) -> nadb.Result:
    return ask_anew(db, "1", k)


@pytest.fixture
def model() -> Any:
    return make_model()


@pytest.fixture
def db(tmp_path: Path, model: Any) -> Iterator[nadb.Database]:
    with nadb.open(tmp_path / "a.nadb") as db:
        db.index_activations(model, IMAGES, "1", storage=0.3, capture=nadb.Capture(batch_size=16))
        yield db


FACTOR = 1 + 2e-4  # too slight for any bound
CHANGES: dict[str, Callable[[Any], Any]] = {
    "tensor": lambda m: setattr(m, "tensor", m.tensor * FACTOR),
    "tensor written": lambda m: m.tensor.mul_(FACTOR),
    "tensor's data written": lambda m: m.tensor.data.mul_(FACTOR),
    "array": lambda m: setattr(m, "array", m.array * FACTOR),
    "array written": lambda m: m.array.__imul__(FACTOR),
    "dict": lambda m: m.options.update(gain=1.25 * FACTOR),
    "tensor in a dict": lambda m: m.options["parts"][0]["shift"].add_(1e-3),
    "private": lambda m: setattr(m, "_scale", 0.75 * FACTOR),
    "private, set by the first pass": lambda m: setattr(m, "_late", 0.9 * FACTOR),
    "None at first": lambda m: setattr(m, "late", 1.1 * FACTOR),
    "absent at first": lambda m: setattr(m, "first_set", 0.7 * FACTOR),
}


@pytest.mark.parametrize("what", CHANGES)
def test_attributes_that_change_values_are_noticed(db: nadb.Database, model: Any, what: str) -> None:
    expected = ask(db)
    CHANGES[what](model[1])
    for _ in range(2):
        with pytest.raises(nadb.StaleIndexError, match=r"changed in its attributes of modules \("):
            ask(db)
    with pytest.raises(nadb.StaleIndexError, match="attributes of modules"):
        expected.verify()
    with nadb.open(db.path) as later:
        with pytest.raises(nadb.StaleIndexError, match=r"attributes of modules: .* give other values"):
            later.attach(model, IMAGES)
        later.attach(make_model(), IMAGES)
        assert ask(later) == expected


HARMLESS: dict[str, Callable[[Any], Any]] = {
    "private": lambda m: setattr(m, "_books", 7),
    "new and private": lambda m: setattr(m, "_handle", "x"),
    "new tensor": lambda m: setattr(m, "spare", torch.ones(3)),
    "new dict": lambda m: setattr(m, "books", {"n": 1}),
    "equal tensor": lambda m: setattr(m, "tensor", m.tensor.clone()),
    "no name": lambda m: setattr(m, "", {"n": 1}),
    "moves in every pass": lambda m: setattr(m, "last", None),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_attributes_that_change_no_value_do_no_harm(db: nadb.Database, model: Any, what: str) -> None:
    expected = ask(db)
    HARMLESS[what](model[1])
    source = db._session.at().index("1").source
    rows = source.rows_run
    assert ask(db) == expected
    first = source.rows_run - rows
    assert ask(db) == expected
    assert source.rows_run - rows <= 2 * first  # the probes ran once at most
    assert expected.verify()
    with nadb.open(db.path) as later:
        later.attach(model, IMAGES)
        assert ask(later) == expected


def test_flags_that_rare_inputs_set_do_no_harm(db: nadb.Database, model: Any) -> None:
    assert model[1].saw_large  # by the build, not by the probes
    meta = db._session.directory.state().indexes["1"].meta
    assert {".saw_large", ".last"} <= set(meta["fingerprint"]["configuration"]["moving"])
    expected = ask(db)
    assert db.activations["1"].values([313], [0]).size
    assert expected.verify()
    with nadb.open(db.path) as later:
        later.attach(model, IMAGES)  # which has seen it
        assert ask(later) == expected
    with nadb.open(db.path) as later:
        fresh = make_model()
        later.attach(fresh, IMAGES)
        assert ask(later) == expected
        later.activations["1"].values([313], [0])  # sets it in the middle of a session
        assert fresh[1].saw_large
        assert ask(later) == expected


def test_a_public_flag_set_in_a_query_does_no_harm(tmp_path: Path) -> None:
    few = torch.cat([IMAGES[:313], IMAGES[314:]])  # nothing beyond 40
    model = make_model()
    with nadb.open(tmp_path / "b.nadb") as db:
        layer = db.index_activations(model, few, "1", storage=0.3)[0]
        expected = ask(db)
        layer.nearest(input=IMAGES[313], neurons=[0, 1], k=2)
        assert model[1].saw_large
        assert ask(db) == expected
        assert expected.verify()


def test_a_flag_set_by_a_user_is_not_taken_for_the_models_own(db: nadb.Database, model: Any) -> None:
    expected = ask(db)
    model[1].extra = 3.0
    with pytest.raises(nadb.StaleIndexError, match=r"1\.extra: absent when indexed, now 3"):
        ask(db)
    del model[1].extra
    assert ask(db) == expected


def test_a_derived_dropout_may_use_its_rate(tmp_path: Path) -> None:
    class Scaling(nn.Dropout):
        def forward(self, x: Any) -> Any:
            return x * self.p

    model = nn.Sequential(nn.Linear(12, 32), Scaling(0.5))
    with nadb.open(tmp_path / "d.nadb") as db:
        db.index_activations(model, IMAGES, "1", storage=0.3)
        ask(db)
        model[1].p = 0.5001
        with pytest.raises(nadb.StaleIndexError, match=r"1\.p: 0\.5 when indexed, now 0\.5001"):
            ask(db)


def test_odd_names_and_lists_that_contain_themselves(tmp_path: Path) -> None:
    model = make_model()
    endless: list[Any] = [1]
    endless.append(endless)
    around: dict[str, Any] = {"n": 1}
    around["self"] = around
    setattr(model[1], "", 3)
    model[1].endless, model[1].around, model[1]._wide = endless, around, [[endless] * 50] * 50
    assert model_stamp(model) == model_stamp(model)
    with nadb.open(tmp_path / "e.nadb") as db:
        db.index_activations(model, IMAGES, "1", storage=0.3)
        expected = ask(db)
        endless[0] = 2
        assert ask(db) == expected
        with nadb.open(db.path) as later:
            later.attach(model, IMAGES)
            assert ask(later) == expected
        setattr(model[1], "", 4)
        with pytest.raises(nadb.StaleIndexError, match=r"1\.: 3 when indexed, now 4"):
            ask(db)


HUGE = 10**5000  # Python refuses to write it in decimal


def records() -> Any:
    return np.array([(1.5, "text"), (2.5, None)], [("gain", "f8"), ("note", "O")])


def test_structured_arrays_and_huge_integers_are_attributes_like_others(tmp_path: Path) -> None:
    def make() -> Any:
        model = make_model()
        model[1].huge, model[1]._huge, model[1].sizes = HUGE, HUGE, (1, HUGE)
        model[1].records, model[1]._records, model[1].by_size = records(), records(), {HUGE: HUGE}
        return model

    model = make()
    with nadb.open(tmp_path / "h.nadb") as db:
        db.index_activations(model, IMAGES, "1", storage=0.3)
        expected = ask(db)
        model[1]._huge, model[1]._records["note"][1] = HUGE + 1, "more"
        assert ask(db) == expected
        for attached in (model, make()):
            with nadb.open(db.path) as later:
                later.attach(attached, IMAGES)
                assert ask(later) == expected
        for name, other in (("huge", HUGE + 1), ("sizes", (1, HUGE - 1))):
            held = getattr(model[1], name)
            setattr(model[1], name, other)
            with pytest.raises(nadb.StaleIndexError, match=rf"1\.{name}: .*0x[0-9a-f]+\.\.\. #\w+ when indexed, now"):
                ask(db)
            setattr(model[1], name, held)
        assert ask(db) == expected


def test_what_passes_change_is_told_from_what_they_set_once() -> None:
    model = make_model()
    moving = MovingAttributes()
    for _ in range(3):
        with moving.watched(model):
            model(IMAGES[:4])
    assert moving.get(model[1]) == {"late": 1, "_late": 1, "first_set": 1, "longest": 1, "last": 2}
    assert moving.restless() == {"last"}
    before = model_stamp(model, moving)
    model[1].last = None
    assert model_stamp(model, moving) == before
    model[1].late = 2.0
    after = model_stamp(model, moving)
    assert after.flags == before.flags
    assert after.attributes != before.attributes


class Early(nn.Module):
    """Has an attribute from before torch's own are there."""

    def __init__(self) -> None:
        self._early = 1.5
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x * self._early


def test_attributes_from_before_torchs_own_are_seen() -> None:
    model = nn.Sequential(Early())
    before = model_stamp(model)
    model[0]._early = 2.5
    assert model_stamp(model).attributes != before.attributes


@pytest.mark.parametrize("name", ["public", "_private"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (10**5000, 10**5000 + 1),
        (-(10**5000), 10**5000),
        ((10**5000, 1), (10**5000, 2)),
        ({"a": 10**5000}, {"a": 1}),
        (np.array([(1, "a")], dtype=[("a", "i4"), ("b", object)]), np.zeros(2)),
        (np.array([1, "a", None], dtype=object), np.zeros(2)),
    ],
    ids=["int", "negative", "tuple", "dict", "structured", "objects"],
)
def test_values_that_do_not_print_or_have_no_bytes(tmp_path: Path, name: str, before: Any, after: Any) -> None:
    model = make_model()
    setattr(model[1], name, before)
    with nadb.open(tmp_path / "v.nadb") as db:
        db.index_activations(model, IMAGES, "1", storage=0.3)
        expected = ask(db)
        setattr(model[1], name, after)
        if name == "public" and isinstance(before, (int, tuple)):
            with pytest.raises(nadb.StaleIndexError, match=r"1\.public: .* when indexed, now"):
                ask(db)
        else:
            assert ask(db) == expected  # the probes give the same bits
    with nadb.open(tmp_path / "v.nadb") as db:
        setattr(model[1], name, before)
        db.attach(model, IMAGES)
        assert ask(db) == expected
