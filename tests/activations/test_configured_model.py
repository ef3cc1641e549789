"""A model whose configuration or hooks are not those that were indexed, in the same session and in a later one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import ask_anew
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralartifactdb as nadb

torch = pytest.importorskip("torch")

from neuralartifactdb.activations.differences import in_words  # noqa: E402
from neuralartifactdb.capture.configuration import Configuration  # noqa: E402
from neuralartifactdb.capture.model_stamp import model_stamp  # noqa: E402

nn = torch.nn
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32))


class Scaled(nn.Module):
    """Has flags of its own, one of which every pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.5
        self.how = ("mean", 2)
        self.n_calls = 0
        self.last_shape: tuple[int, ...] | None = None
        self.activation = torch.tanh

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        self.last_shape = tuple(x.shape)
        return self.activation(x) * self.scale


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 32),
        nn.BatchNorm1d(32),
        nn.LeakyReLU(0.1),
        Scaled(),
        nn.Dropout(0.4),
        nn.Linear(32, 16),
        nn.ReLU(),
    )


def ablate(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 0


def ablate_before(module: Any, args: Any) -> Any:
    return (args[0] * 0,)


def log(module: Any, args: Any, *output: Any) -> None:
    return None


def replace_forward(model: Any) -> None:
    model[3].forward = lambda x: x * 0


def add_global_hook(model: Any) -> Any:
    return torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output * 0 if isinstance(module, Scaled) else None
    )


def ask(db: nadb.Database, k: int = 5) -> nadb.Result:
    return ask_anew(db, "3", k)


@pytest.fixture
def model() -> torch.nn.Module:
    return make_model()


@pytest.fixture
def db(tmp_path: Path, model: torch.nn.Module) -> Iterator[nadb.Database]:
    with nadb.open(tmp_path / "a.nadb") as db:
        db.index_activations(model, IMAGES, "3", storage=0.3)
        yield db


CHANGES: dict[str, tuple[Callable[[Any], None], Callable[[Any], None], str]] = {
    "slope": (
        lambda m: setattr(m[2], "negative_slope", 0.1 + 1e-9),
        lambda m: setattr(m[2], "negative_slope", 0.1),
        r"2\.negative_slope: 0\.1 when indexed, now 0\.100000001",
    ),
    "eps": (
        lambda m: setattr(m[1], "eps", 1e-4),
        lambda m: setattr(m[1], "eps", 1e-5),
        r"1\.eps: 1e-05 when indexed, now 0\.0001",
    ),
    "scale": (
        lambda m: setattr(m[3], "scale", 1.5001),
        lambda m: setattr(m[3], "scale", 1.5),
        r"3\.scale: 1\.5 when indexed, now 1\.5001",
    ),
    "tuple": (
        lambda m: setattr(m[3], "how", ("sum", 2)),
        lambda m: setattr(m[3], "how", ("mean", 2)),
        r"3\.how: \('mean', 2\) when indexed, now \('sum', 2\)",
    ),
    "new": (lambda m: setattr(m[3], "shift", 1), lambda m: delattr(m[3], "shift"), r"3\.shift: absent .*, now 1"),
    "dtype": (
        lambda m: setattr(m[3], "as_type", torch.float64),
        lambda m: delattr(m[3], "as_type"),
        r"3\.as_type: absent when indexed, now torch\.float64",
    ),
    "gone": (
        lambda m: delattr(m[3], "how"),
        lambda m: setattr(m[3], "how", ("mean", 2)),
        r"3\.how: .* when indexed, now absent",
    ),
    "class": (
        lambda m: m.__setitem__(6, nn.ELU()),
        lambda m: m.__setitem__(6, nn.ReLU()),
        r"the class of 6: ReLU when indexed, now ELU",
    ),
    "one more": (
        lambda m: m.append(nn.Tanh()),
        lambda m: m.__delitem__(7),
        r"the modules of the model: 8 when indexed, now 9.*Tanh x 0 when indexed, now x 1",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_flag_is_noticed_until_it_is_back(db: nadb.Database, model: Any, what: str) -> None:
    change, restore, words = CHANGES[what]
    expected = ask(db)
    change(model)
    for _ in range(2):
        with pytest.raises(nadb.StaleIndexError, match=words):
            ask(db)
        with pytest.raises(nadb.StaleIndexError, match=words):
            expected.verify()
        with nadb.open(db.path) as later:
            with pytest.raises(nadb.StaleIndexError, match=words):
                later.attach(model, IMAGES)
            assert not later.activations["3"].attached
        with pytest.raises(ValueError, match=words):
            db.index_activations(model, IMAGES, "3")
    restore(model)
    assert ask(db) == expected
    with nadb.open(db.path) as later:
        later.attach(model, IMAGES)
        assert ask(later) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m[4], "p", 0.1),
        lambda m: setattr(m[1], "momentum", 0.5),
        lambda m: setattr(m[3], "n_calls", 1_000_000),
        lambda m: setattr(m[3], "last_shape", None),
        lambda m: setattr(m[3], "_private", 3),
        lambda m: m.train(not m.training),
        lambda m: m.requires_grad_(False),
    ],
)
def test_what_decides_no_value_does_not_count(db: nadb.Database, model: Any, change: Callable[[Any], None]) -> None:
    expected = ask(db)
    change(model)
    assert ask(db) == expected
    assert expected.verify()
    with nadb.open(db.path) as later:
        later.attach(make_model(), IMAGES)  # whose counters begin again
        assert ask(later) == expected


def test_flags_that_a_pass_changes_are_told_in_the_record(db: nadb.Database) -> None:
    fingerprint = db._session.directory.state().indexes["3"].meta["fingerprint"]
    assert set(fingerprint["configuration"]["moving"]) == {".n_calls", ".last_shape"}
    assert ".scale" in fingerprint["configuration"]["flags"]


HARMLESS: dict[str, Callable[[Any], Any]] = {
    "a logging hook": lambda m: m[3].register_forward_hook(log),
    "a logging pre-hook": lambda m: m[2].register_forward_pre_hook(log),
    "an ablation behind the layer": lambda m: m[5].register_forward_hook(ablate),
    "an ablating pre-hook behind the layer": lambda m: m[4].register_forward_pre_hook(ablate_before),
}
HARMFUL: dict[str, tuple[Callable[[Any], Any], str]] = {
    "on the layer": (lambda m: m[3].register_forward_hook(ablate), "forward hook ablate on 3"),
    "before the layer": (lambda m: m[1].register_forward_hook(ablate), "forward hook ablate on 1"),
    "a pre-hook": (lambda m: m[3].register_forward_pre_hook(ablate_before), "forward pre-hook ablate_before on 3"),
    "a replaced forward": (replace_forward, "function replace_forward.<locals>.<lambda> as forward of 3"),
    "a replaced function": (lambda m: setattr(m[3], "activation", torch.relu), "as activation of 3"),
    "a hook on all modules": (add_global_hook, "on every module"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_hooks_that_change_nothing_are_accepted(db: nadb.Database, model: Any, what: str) -> None:
    expected = ask(db)
    handle = HARMLESS[what](model)
    source = db._session.at().index("3").source
    rows = source.rows_run
    assert ask(db) == expected
    first = source.rows_run - rows
    assert ask(db) == expected
    assert source.rows_run - rows < 2 * first  # the probes ran once
    assert expected.verify()
    with nadb.open(db.path) as later:
        later.attach(model, IMAGES)
        assert ask(later) == expected
    handle.remove()
    assert ask(db) == expected


@pytest.mark.parametrize("what", HARMFUL)
def test_hooks_that_change_values_are_refused(db: nadb.Database, model: Any, what: str) -> None:
    add, words = HARMFUL[what]
    expected = ask(db)
    before = vars(model[3]).copy()
    handle = add(model)
    try:
        for _ in range(2):
            with pytest.raises(nadb.StaleIndexError) as caught:
                ask(db)
            assert words in str(caught.value)
            assert "remove the hooks" in str(caught.value)
            with pytest.raises(nadb.StaleIndexError):
                expected.verify()
        with nadb.open(db.path) as later:
            with pytest.raises(nadb.StaleIndexError):
                later.attach(model, IMAGES)
            assert not later.activations["3"].attached
    finally:
        if handle is not None:
            handle.remove()
        vars(model[3]).clear()
        vars(model[3]).update(before)
    assert ask(db) == expected


def faint(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output * (1 + 1e-6)


def test_a_hook_that_changes_too_little_for_any_bound_is_refused(db: nadb.Database, model: Any) -> None:
    with model[3].register_forward_hook(faint):
        with pytest.raises(nadb.StaleIndexError, match="forward hook faint on 3"):
            ask(db)
        with (
            nadb.open(db.path) as later,
            pytest.raises(nadb.StaleIndexError, match="hook faint on 3 is new, and"),
        ):
            later.attach(model, IMAGES)


def test_an_index_of_a_hooked_model_needs_the_hook(tmp_path: Path, model: Any) -> None:
    with nadb.open(tmp_path / "b.nadb") as db:
        with model[3].register_forward_hook(faint):
            db.index_activations(model, IMAGES, "3", storage=0.3)
            expected = ask(db)
        with pytest.raises(nadb.StaleIndexError, match=r"range\): forward hook faint on 3 is gone"):
            ask(db)
        with nadb.open(db.path) as later:
            with pytest.raises(nadb.StaleIndexError, match="hooks: forward hook faint on 3 is gone"):
                later.attach(model, IMAGES)
            with model[3].register_forward_hook(faint):
                later.attach(model, IMAGES)
                assert ask(later) == expected


def test_one_layer_may_be_refused_and_an_earlier_one_not(tmp_path: Path, model: Any) -> None:
    with nadb.open(tmp_path / "b.nadb") as db:
        early, late = db.index_activations(model, IMAGES, ["2", "6"], storage=0.3)
        with model[3].register_forward_hook(ablate):
            assert early.nearest(4, [0, 1, 2], k=5).exact
            with pytest.raises(nadb.StaleIndexError, match="ablate on 3"):
                late.nearest(4, [0, 1, 2], k=5)
            assert early.nearest(5, [0, 1, 2], k=5).exact


VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.none(),
    st.sampled_from([torch.float32, torch.int8, np.float32(0.1), np.int64(3), 1e300, -0.0]),
    st.tuples(st.floats(), st.text(max_size=3)),
    st.lists(st.integers(), max_size=3),
)
FLAGS = st.lists(st.dictionaries(st.sampled_from(["alpha", "beta", "gamma"]), VALUES), min_size=1, max_size=6)


def bare(flags: list[dict[str, Any]]) -> Any:
    model = nn.Sequential(*[nn.Identity() for _ in flags])
    for module, held in zip(model, flags, strict=True):
        vars(module).update(held)
    return model


def written(value: Any) -> str:
    """What tells flags apart, worked out another way than in the package."""
    if isinstance(value, (list, tuple)):
        return "(" + ",".join(map(written, value)) + ")"
    value = value.item() if isinstance(value, np.generic) else value
    return f"{type(value).__name__}:{value!r}"


@settings(max_examples=150)
@given(first=FLAGS, second=FLAGS, data=st.data())
def test_a_record_tells_models_apart_exactly_if_their_flags_differ(first: Any, second: Any, data: Any) -> None:
    if data.draw(st.booleans()):
        second = [dict(held) for held in first]
        at, name = data.draw(st.integers(0, len(first) - 1)), data.draw(st.sampled_from(["alpha", "beta"]))
        second[at][name] = data.draw(VALUES)
    stored = json.loads(json.dumps(Configuration(bare(first), {}).record()))
    found = Configuration(bare(second), {}).differences(stored)
    plain = [[{name: written(value) for name, value in held.items()} for held in flags] for flags in (first, second)]
    assert bool(found) == (plain[0] != plain[1])
    if len(first) == len(second):
        wanted = {
            f"{i}.{name}"
            for i, (a, b) in enumerate(zip(*plain, strict=True))
            for name in {*a, *b}
            if a.get(name) != b.get(name)
        }
        assert {one.text.partition(":")[0] for one in found if " more " not in one.text} <= wanted
        assert len(found) == min(len(wanted), 9)


@settings(max_examples=100)
@given(flags=FLAGS, at=st.integers(0, 5), name=st.sampled_from(["alpha", "beta", "delta"]), value=VALUES)
def test_a_stamp_sees_what_a_record_sees(flags: Any, at: int, name: str, value: Any) -> None:
    model = bare(flags)
    stamp, stored = model_stamp(model), Configuration(model, {}).record()
    assert model_stamp(model) == stamp
    setattr(model[at % len(flags)], name, value)
    if Configuration(model, {}).differences(stored):
        held = flags[at % len(flags)].get(name)
        alike = isinstance(held, (tuple, list)) == isinstance(value, (tuple, list))  # else NumPy compares each element
        assert model_stamp(model) != stamp or (alike and held == value)  # True is 1, and 0.0 is -0.0, in Python


def test_a_record_is_small_and_still_tells_what_it_does_not_keep() -> None:
    def build(odd: int) -> Any:
        layers = [nn.Identity() for _ in range(500)]
        for i, layer in enumerate(layers):
            layer.layer_name = f"layer number {i * (i + odd * (i == 77))}"
            layer.eps = 1e-5
        return nn.Sequential(*layers)

    stored = json.loads(json.dumps(Configuration(build(0), {}).record()))
    assert len(json.dumps(stored)) < 8192
    assert Configuration(build(0), {}).differences(stored) == []
    assert in_words(Configuration(build(1), {}).differences(stored)) == "attributes of modules (among layer_name)"
    other = build(0)
    other[3].eps = 1e-4
    assert in_words(Configuration(other, {}).differences(stored)) == "3.eps: 1e-05 when indexed, now 0.0001"
    moving = build(1)
    assert Configuration(moving, {moving[77]: {"layer_name": 2}}).differences(stored) == []


class Gained(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor(1.0), persistent=False)
        self.nested = [[1.0]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain * self.nested[0][0]


def scale_gain(module: Any, factor: float) -> None:
    module.gain.mul_(factor)


def scale_nested(module: Any, factor: float) -> None:
    module.nested[0][0] *= factor


@pytest.mark.parametrize("change", [scale_gain, scale_nested])
def test_buffers_that_are_not_saved_and_nested_flags_count(tmp_path: Path, change: Any) -> None:
    model = torch.nn.Sequential(*make_model(), Gained())
    with nadb.open(tmp_path / "g.nadb") as db:
        layer = db.index_activations(model, IMAGES, str(len(model) - 1), storage=0.3)[0]
        expected = layer.nearest(4, [0, 1, 2], k=5)
        change(model[-1], 1.0003)
        db._session.evaluated.forget()
        with pytest.raises(nadb.StaleIndexError):
            layer.nearest(4, [0, 1, 2], k=5)
        change(model[-1], 1 / 1.0003)
        if change is scale_nested:
            model[-1].nested[0][0] = 1.0
        else:
            model[-1].gain.fill_(1.0)
        again = layer.nearest(4, [0, 1, 2], k=5)
        assert again.scores.tolist() == expected.scores.tolist()
