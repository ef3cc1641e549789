"""Attributes that passes change: what one source's passes change tells nothing of what users change for another."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
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
FACTOR = 1 + 2e-4  # too slight for any bound


class Mode(nn.Module):
    """Is told its mode, as an argument or by whoever sets it, and keeps the length of the longest batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = 1.0
        self.longest = 4
        self.fill = float("nan")
        self.n_calls = 0

    def forward(self, x: Any, mode: Any = None) -> Any:
        self.n_calls += 1
        if mode is not None:
            self.mode = float(mode[0])
        self.longest = max(self.longest, len(x) if bool((x > 40).any()) else 0)
        return torch.relu(x) * self.mode


class Told(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 32), Mode()

    def forward(self, x: Any, mode: Any = None) -> Any:
        return self.second(self.first(x), mode)


def make_model() -> Any:
    torch.manual_seed(0)
    return Told()


def setting(mode: float) -> Callable[[Any, Any], Any]:
    def forward(model: Any, batch: Any) -> Any:
        model.second.mode = mode
        return model(batch)

    return forward


def with_mode(mode: float) -> Any:
    return {"x": IMAGES, "mode": torch.full((len(IMAGES),), mode)}


def ask(db: nadb.Database, k: int = 5) -> nadb.Result:
    return ask_anew(db, "second", k)


def index(path: Path, model: Any, data: Any = IMAGES, **capture: Any) -> nadb.Database:
    db = nadb.open(path)
    db.index_activations(model, data, "second", storage=0.3, capture=nadb.Capture(batch_size=16, **capture))
    return db


def test_what_another_forward_sets_is_noticed_where_nobody_sets_it(tmp_path: Path) -> None:
    model = make_model()
    for mode in (2.0, 3.0):
        index(tmp_path / f"{mode}.nadb", model, forward=setting(mode)).close()
    model.second.mode = 1.0
    with index(tmp_path / "plain.nadb", model) as db:
        expected = ask(db)
        for mode in (FACTOR, 5.0):
            model.second.mode = mode
            with pytest.raises(nadb.StaleIndexError, match=r"second\.mode: 1\.0 when indexed, now"):
                ask(db)
            with pytest.raises(nadb.StaleIndexError, match=r"second\.mode"):
                expected.verify()
        model.second.mode = 1.0
        assert ask(db) == expected


def test_what_forward_sets_in_each_pass_is_nobody_elses(tmp_path: Path) -> None:
    model = make_model()
    with (
        index(tmp_path / "two.nadb", model, forward=setting(2.0)) as two,
        index(tmp_path / "three.nadb", model, forward=setting(3.0)) as three,
    ):
        expected = [ask(two), ask(three)]
        for mode in (None, 1.0, 7.0):
            if mode is not None:
                model.second.mode = mode
            assert [ask(two), ask(three)] == expected
        assert all(result.verify() for result in expected)


def test_what_batches_set_elsewhere_is_noticed_where_they_do_not(tmp_path: Path) -> None:
    model = make_model()
    for mode in (2.0, 3.0):
        index(tmp_path / f"{mode}.nadb", model, with_mode(mode)).close()
    model.second.mode = 1.0
    with index(tmp_path / "plain.nadb", model) as db:
        expected = ask(db)
        model.second.mode = FACTOR
        with pytest.raises(nadb.StaleIndexError, match=r"attributes of modules \(mode\)"):
            ask(db)
        model.second.mode = 1.0
        assert ask(db) == expected


def test_what_rare_inputs_of_one_dataset_set_does_another_no_harm(tmp_path: Path) -> None:
    model, large = make_model(), IMAGES.clone()
    large[313] = 900.0
    with index(tmp_path / "train.nadb", model) as train:
        expected = ask(train)
        with index(tmp_path / "test.nadb", model, large) as test:
            assert model.second.longest == 16  # by the build, not by the probes
            assert ask(train) == expected
            again = ask(test)
        with index(tmp_path / "later.nadb", model) as later:
            assert ask(later) == expected
    for name, data, wanted in (("train", IMAGES, expected), ("test", large, again), ("later", IMAGES, expected)):
        with nadb.open(tmp_path / f"{name}.nadb") as db:
            db.attach(make_model(), data)  # which has seen nothing
            assert ask(db) == wanted


def test_what_a_users_own_pass_set_can_be_set_back(tmp_path: Path) -> None:
    model = make_model()
    with index(tmp_path / "a.nadb", model) as db:
        expected = ask(db)
        model(torch.full((40, 12), 900.0))
        assert model.second.longest == 40
        way = "set back the attributes that you, or forward passes of your own, changed; or attach"
        with pytest.raises(nadb.StaleIndexError, match=rf"second\.longest: 4 when indexed, now 40; {way}"):
            ask(db)
        with nadb.open(db.path) as later, pytest.raises(nadb.StaleIndexError, match=way):
            later.attach(model, IMAGES)
        with pytest.raises(ValueError, match="set back the attributes"):
            db.index_activations(model, IMAGES, "second")
        model.second.longest = 4
        assert ask(db) == expected


def test_a_flag_that_is_no_number_does_not_move(tmp_path: Path) -> None:
    model, moving = make_model(), MovingAttributes()
    for _ in range(2):
        with moving.watched(model):
            model(IMAGES[:4])
    assert moving.get(model.second) == {"n_calls": 2}
    before = model_stamp(model, moving)
    model.second.fill = 0.0
    assert model_stamp(model, moving).flags != before.flags


def test_sources_know_what_their_own_passes_keep_changing() -> None:
    model = make_model()
    first, second, private = MovingAttributes(model), MovingAttributes(model), MovingAttributes()
    for _ in range(2):
        with first.watched(model):
            model(IMAGES[:4], torch.full((4,), model.second.mode + 1))
    assert first.get(model.second) == {"mode": 2, "n_calls": 2}
    assert second.get(model.second) == {"mode": 1, "n_calls": 1}
    assert private.get(model.second) is None
    assert MovingAttributes(model).get(model.second) == {"mode": 1, "n_calls": 1}
    assert [moving.restless() for moving in (first, second, private)] == [{"mode", "n_calls"}, set(), set()]


def test_what_moves_may_be_asked_while_another_thread_runs_the_model() -> None:
    moving = MovingAttributes()
    models = [nn.Sequential(*[nn.Identity() for _ in range(300)]) for _ in range(40)]
    failed: list[BaseException] = []
    ready, done = threading.Event(), threading.Event()

    def ask_on() -> None:
        ready.set()
        try:
            while not done.is_set():
                moving.restless()
        except BaseException as error:
            failed.append(error)

    asking = threading.Thread(target=ask_on)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asking.start()
        ready.wait()
        for model in models:
            with moving.watched(model):
                for module in model:
                    module.seen = 1
    finally:
        done.set()
        asking.join()
        sys.setswitchinterval(interval)
    assert not failed
