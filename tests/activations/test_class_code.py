"""Classes of modules whose code changes while an index is in use: patched, reloaded, defined again in a notebook."""

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

nn = torch.nn
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32))
FACTOR = 1 + 2e-4  # too slight for any bound


def define() -> Any:
    """New classes at each call, as a cell of a notebook makes them: of the same names, with the same code."""

    class Base(nn.Module):
        def shifted(self, x: Any) -> Any:
            return self.centred(x) + 0.5

        def centred(self, x: Any) -> Any:
            return x

    class Act(Base):
        gain = 1.0

        def __call__(self, x: Any) -> Any:
            return super().__call__(x) * 1.0

        def shifted(self, x: Any) -> Any:
            return super().shifted(x)

        @staticmethod
        def squashed(x: Any) -> Any:
            return torch.tanh(x)

        @property
        def doubled(self) -> float:
            return 2.0

        def forward(self, x: Any) -> Any:
            return self.squashed(self.shifted(x)) * self.doubled * self.gain

    return Act


def ask(db: nadb.Database, k: int = 5) -> nadb.Result:
    return ask_anew(db, "2", k)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), define()(), nn.ReLU())


@pytest.fixture
def db(tmp_path: Path, model: Any) -> Iterator[nadb.Database]:
    with nadb.open(tmp_path / "a.nadb") as db:
        db.index_activations(model, IMAGES, "2", storage=0.3, capture=nadb.Capture(batch_size=16))
        yield db


def scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: function(*args) * FACTOR


def log(module: Any) -> None:
    forward = type(module).forward
    type(module).forward = lambda *args: forward(*args)


def of_gain(gain: float) -> Callable[..., Any]:
    return lambda self, x: self.squashed(self.shifted(x)) * self.doubled * gain


def redefine(module: Any) -> None:
    module.__class__ = define()
    module.__class__.forward = scaled(module.__class__.forward)


def reload_body(module: Any) -> None:
    def shifted(self: Any, x: Any) -> Any:
        return x * 1.0002 + 0.5

    type(module).__base__.shifted.__code__ = shifted.__code__


def reload_static_body(module: Any) -> None:
    type(module).squashed.__code__ = (lambda x: torch.tanh(x) * 1.0002).__code__


def reload_property_body(module: Any) -> None:
    type(module).doubled.fget.__code__ = (lambda self: 2.0004).__code__


CHANGES: dict[str, Callable[[Any], None]] = {
    "forward": lambda m: setattr(type(m), "forward", scaled(type(m).forward)),
    "__call__": lambda m: setattr(type(m), "__call__", scaled(type(m).__call__)),
    "a method that forward calls": lambda m: setattr(type(m), "shifted", scaled(type(m).shifted)),
    "what a method of the same name calls": lambda m: setattr(
        type(m).__base__, "shifted", scaled(type(m).__base__.shifted)
    ),
    "a method of a base class": lambda m: setattr(type(m).__base__, "centred", lambda self, x: x + 5e-4),
    "the body of a static method": reload_static_body,
    "the body of a property": reload_property_body,
    "a static method": lambda m: setattr(type(m), "squashed", staticmethod(scaled(type(m).squashed))),
    "a property": lambda m: setattr(type(m), "doubled", property(lambda self: 2.0 * FACTOR)),
    "a constant": lambda m: setattr(type(m), "gain", FACTOR),
    "a body": reload_body,
    "the class": redefine,
}


@pytest.mark.parametrize("what", CHANGES)
def test_code_that_changes_values_is_noticed_until_it_is_back(db: nadb.Database, model: Any, what: str) -> None:
    expected = ask(db)
    of = type(model[1])
    held = {one: dict(vars(one)) for one in of.__mro__[:2]}
    functions = [held[of.__base__]["shifted"], held[of]["squashed"].__func__, held[of]["doubled"].fget]
    bodies = [function.__code__ for function in functions]
    CHANGES[what](model[1])
    for _ in range(2):
        with pytest.raises(nadb.StaleIndexError, match=r"changed in its code of classes \(.*(Act|Base)\), and the"):
            ask(db)
        with pytest.raises(nadb.StaleIndexError, match="code of classes"):
            expected.verify()
    model[1].__class__ = of
    for function, body in zip(functions, bodies, strict=True):
        function.__code__ = body
    for one, members in held.items():
        for name in set(vars(one)) - set(members):
            delattr(one, name)
        for name, value in members.items():
            if vars(one)[name] is not value:
                setattr(one, name, value)
    assert ask(db) == expected
    assert expected.verify()


HARMLESS: dict[str, Callable[[Any], None]] = {
    "the same class again": lambda m: setattr(m, "__class__", define()),
    "a forward around it": log,
    "a method more": lambda m: setattr(type(m), "described", lambda self: "Act"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_code_that_changes_no_value_does_no_harm(db: nadb.Database, model: Any, what: str) -> None:
    expected = ask(db)
    HARMLESS[what](model[1])
    source = db._session.at().index("2").source
    rows = source.rows_run
    assert ask(db) == expected
    first = source.rows_run - rows
    assert ask(db) == expected
    assert source.rows_run - rows < 2 * first  # the probes ran once
    assert expected.verify()


def test_torchs_own_classes_count(db: nadb.Database, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ask(db)
    with monkeypatch.context() as patched:
        patched.setattr(nn.Linear, "forward", scaled(nn.Linear.forward))
        with pytest.raises(nadb.StaleIndexError, match=r"code of classes \(Linear\)"):
            ask(db)
    assert ask(db) == expected


def test_a_stamp_holds_code_once_per_class() -> None:
    of = define()
    few, many = nn.Sequential(of(), nn.Linear(2, 2)), nn.Sequential(*[of() for _ in range(50)], nn.Linear(2, 2))
    names = {code.of.__name__ for code in model_stamp(few).code}
    assert {"Act", "Base", "Linear", "Sequential", "Module"} <= names
    assert {code.of for code in model_stamp(few).code} == {code.of for code in model_stamp(many).code}
    assert len(model_stamp(many).code) == len(model_stamp(few).code)


def test_functions_of_one_body_may_compute_otherwise(db: nadb.Database, model: Any) -> None:
    type(model[1]).forward = of_gain(1.0)
    expected = ask(db)
    type(model[1]).forward = of_gain(FACTOR)  # the same code, another value around it
    with pytest.raises(nadb.StaleIndexError, match=r"code of classes \(.*Act\)"):
        ask(db)
    type(model[1]).forward = of_gain(1.0)
    assert ask(db) == expected
