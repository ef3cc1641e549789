"""Every public call of a database, its layers and its results leaves model and process as they were, failing or not.

`CALLS` is a table of calls, several for each public name; a test compares its names with those of the classes, so that
a new one cannot be forgotten. Implements design section 4, "Capture" ("leaves the model as it was").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from capture_models import assert_undisturbed, snapshot
from torch import nn

import neuralartifactdb as nadb
from neuralartifactdb.activations.layer import Layer
from neuralartifactdb.database import Activations, Database

pytest.importorskip("matplotlib").use("agg")
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 12)).astype(np.float32))
FEATURES = IMAGES.numpy()
GROUP = [0, 1, 2]


class BrokenError(Exception):
    """What armed code raises."""


class Armed:
    """Raises once it is told to, at its nth use; what is used inside a capture draws from every random state, too."""

    def __init__(self, *, draws: bool) -> None:
        self.draws = draws
        self.error: BaseException | None = None
        self.uses_left = 0

    def arm(self, error: BaseException, uses_left: int = 0) -> None:
        self.error, self.uses_left = error, uses_left

    def use(self) -> None:
        if self.draws:
            torch.rand(1), random.random(), np.random.random()  # noqa: NPY002
        if self.error is not None:
            self.uses_left -= 1
            if self.uses_left < 0:
                raise self.error


class Part(nn.Module):
    """A module that uses something armed and passes on what it gets."""

    def __init__(self, armed: Armed) -> None:
        super().__init__()
        self._armed = [armed]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._armed[0].use()
        return x


class Data(list[Any]):
    """A dataset that uses something armed."""

    armed: Armed

    def __getitem__(self, index: Any) -> Any:
        self.armed.use()
        return super().__getitem__(index)


def make_model(armed: Armed) -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(12, 32),
        nn.BatchNorm1d(32),
        Part(armed),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(32, 6),
    )
    net.train()
    net(torch.randn(64, 12))  # running statistics that differ from the initial ones
    net(torch.randn(64, 12)).sum().backward()
    net[1].eval()
    net[0].requires_grad_(False)
    net[0].register_forward_hook(lambda module, args, output: None)
    net[5].register_forward_pre_hook(lambda module, args: None)
    net[5].register_full_backward_hook(lambda module, inputs, outputs: None)
    return net


@dataclass
class World:
    """A database with an indexed model, and everything of a user's that may fail."""

    path: Path
    armed: dict[str, Armed] = field(default_factory=lambda: {name: Armed(draws=name in RUNNING) for name in PLACES})

    def __post_init__(self) -> None:
        self.model = make_model(self.armed["model"])
        before = snapshot(self.model)
        self.data = self.dataset(400)
        self.db = nadb.open(self.path / "a.nadb")
        self.db.set_inputs(
            {"label": [i % 10 for i in range(600)], "name": [f"{i}.png" for i in range(600)]}, key="name"
        )
        (self.layer,) = self.db.index_activations(self.model, self.data, "2", storage=0.3, capture=self.capture)
        self.result: Any = self.layer.highest(GROUP, k=5)
        self.db._session.evaluated.forget()  # or calls would not run the model
        assert_undisturbed(before, self.model)  # what building altered would not be missed later

    def dataset(self, n: int) -> Data:
        rows = torch.cat([IMAGES, IMAGES * 2])[:n]
        data = Data(list(rows))
        data.armed = self.armed["dataset"]
        return data

    @property
    def capture(self) -> nadb.Capture:
        def use(name: str, value: Any) -> Any:
            self.armed[name].use()
            return value

        return nadb.Capture(
            batch_size=32,
            collate_fn=lambda items: use("collate_fn", torch.stack(items)),
            positions=lambda batch: use("positions", torch.ones(batch.shape, dtype=torch.bool)),
            forward=lambda model, batch: model(use("forward", batch)),
            reduce=lambda values: use("reduce", values),
            output=lambda values: use("output", values),
        )

    def call(self, name: str) -> Callable[..., Any]:
        """A function for an argument of a query that uses something armed."""

        def used(*args: Any) -> Any:
            self.armed[name].use()
            return np.ones(np.shape(args[0]), dtype=bool) if args and isinstance(args[0], np.ndarray) else "text"

        return used

    def index(self, **options: Any) -> Any:
        return self.db.index_activations(
            options.pop("model", self.model),
            options.pop("data", self.data),
            options.pop("layers", "2"),
            **{"storage": 0.3, "capture": self.capture, **options},
        )

    def attach(self, model: Any = None, data: Any = None, **options: Any) -> Any:
        with nadb.open(self.db.path) as later:
            return later.attach(model or self.model, data or self.data, **{"capture": self.capture, **options})


PLACES = (
    "model", "dataset", "collate_fn", "positions", "forward", "reduce", "output", "where", "on_progress", "progress",
    "render", "function",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One row: what is called, and what it raises.

    Attributes:
        names: of the public callables that it is about, `Class.name`.
        what: the case, in words.
        run: the call.
        raises: what it must raise; None if it must succeed.
        armed: what of the user's fails, and at which use; its error is what the call must raise.
    """

    names: str
    what: str
    run: Callable[[World], Any]
    raises: type[BaseException] | None = None
    armed: str | None = None
    uses_left: int = 0
    error: type[BaseException] = BrokenError


def at_places(names: str, run: Callable[[World], Any], places: tuple[str, ...], uses_left: int = 0) -> Iterator[Call]:
    """A call in which one thing of the user's after another fails, or is interrupted."""
    for place in places:
        for error in (BrokenError, KeyboardInterrupt) if place in ("model", "dataset") else (BrokenError,):
            what = f"{place} {'fails' if error is BrokenError else 'is interrupted'} at use {uses_left}"
            yield Call(names, what, run, error, place, uses_left, error)


RUNNING = PLACES[:7]
QUERY = (*RUNNING, "where", "on_progress")


def queries() -> Iterator[Call]:
    """Every query: answered, cut short, explained; with whatever may fail in it."""
    options: dict[str, Callable[[World], dict[str, Any]]] = {
        "answered": lambda w: {},
        "cut short": lambda w: {"limits": nadb.Limits(max_evaluations=1)},
        "explained": lambda w: {"explain": True},
        "restricted": lambda w: {"where": w.db.inputs["label"] == 4},
    }
    own: dict[str, Callable[..., Any]] = {
        "Layer.highest": lambda w, **o: w.layer.highest(GROUP, k=30, **o),
        "Layer.nearest": lambda w, **o: w.layer.nearest(7, GROUP, k=5, **o),
        "Layer.filter": lambda w, **o: w.layer.filter(w.layer[0] + w.layer[1] > 1, **o),
        "Layer.top_k": lambda w, **o: w.layer.top_k(w.layer[0] - w.layer[1], k=5, **o),
        "Database.filter": lambda w, **o: w.db.filter(w.layer[0] + w.layer[1] > 1, **o),
        "Database.top_k": lambda w, **o: w.db.top_k(w.layer[0] - w.layer[1], k=5, **o),
    }

    def with_callables(ask: Callable[..., Any]) -> Callable[[World], Any]:
        return lambda w: ask(w, where=w.call("where"), on_progress=w.call("on_progress"))

    for names, ask in own.items():
        for what, chosen in options.items():
            yield Call(names, what, lambda w, ask=ask, chosen=chosen: ask(w, **chosen(w)))
        yield from at_places(names, with_callables(ask), QUERY)
        wrong = lambda w, ask=ask: ask(w, where=np.zeros(3, dtype=bool))  # noqa: E731
        yield Call(names, "a wrong where", wrong, ValueError)
        yield Call(names, "a changed model", lambda w, ask=ask: changed(w, lambda: ask(w)), nadb.StaleIndexError)


def changed(w: World, call: Callable[[], Any]) -> Any:
    """Call with a flag that the model did not have when it was indexed; it is put back."""
    w.model[3].inplace = False
    before = snapshot(w.model)
    try:
        return call()
    finally:
        assert_undisturbed(before, w.model)
        w.model[3].inplace = True


def finished(call: Callable[[World], Any]) -> Callable[[World], Any]:
    """After a build that failed: the build again, which goes on where it was."""

    def run(w: World) -> None:
        armed = w.armed["model"]
        armed.arm(KeyboardInterrupt(), 12)
        with suppress(KeyboardInterrupt):
            call(w)
        armed.error = None
        call(w)

    return run


def wrong_length(w: World) -> Any:
    return w.db.index_function("f", lambda ids: FEATURES[ids][:, :1], 400, 12, fingerprint="v1")


def index_function(w: World) -> Any:
    def evaluate(ids: Any) -> Any:
        w.armed["function"].use()
        return FEATURES[ids]

    return w.db.index_function("f", evaluate, 400, 12, fingerprint="v1", storage=0.3)


def rendered(w: World) -> World:
    w.db.set_render(w.call("render"))
    return w


INDEX = "Database.index_activations"
CALLS: list[Call] = [
    *queries(),
    # the database
    Call("Database.path Database.n_inputs Database.nbytes Database.inputs", "read",
         lambda w: (w.db.path, w.db.n_inputs, w.db.nbytes, w.db.inputs)),
    Call("Database.__repr__ Database.__init__", "printed", lambda w: repr(w.db)),
    Call("Database.close", "twice", lambda w: (w.db.close(), w.db.close())),
    Call("Database.__enter__ Database.__exit__", "a block", lambda w: w.db.__enter__().__exit__(None, None, None)),
    Call("Database.set_inputs", "a column", lambda w: w.db.set_inputs({"more": np.arange(600)})),
    Call("Database.set_inputs", "too few", lambda w: w.db.set_inputs({"more": [1, 2]}), ValueError),
    Call("Database.set_render", "a function", lambda w: w.db.set_render(w.call("render"))),
    Call("Database.set_render", "no function", lambda w: w.db.set_render(3), TypeError),
    Call("Database.create_masks", "new", lambda w: w.db.create_masks("m", dtype="uint8")),
    Call("Database.create_masks", "wrong", lambda w: w.db.create_masks("m", dtype="int7"), TypeError),
    # builds
    Call(INDEX, "again", lambda w: w.index()),
    Call(INDEX, "several layers", lambda w: w.index(layers=["0", "3", "4:input", "5"], name="more")),
    Call(INDEX, "explained", lambda w: w.index(name="more", explain=True)),
    Call(INDEX, "appended to", lambda w: w.index(data=w.dataset(500))),
    Call(INDEX, "replaced", lambda w: w.index(storage=0.5, overwrite=True)),
    Call(INDEX, "resumed", finished(lambda w: w.index(name="more"))),
    Call(INDEX, "other storage", lambda w: w.index(storage=0.5), ValueError),
    Call(INDEX, "unknown layer", lambda w: w.index(layers="conv"), KeyError),
    Call(INDEX, "no model", lambda w: w.index(model=3), TypeError),
    Call(INDEX, "no dataset", lambda w: w.index(data=3), TypeError),
    Call(INDEX, "a shorter dataset", lambda w: w.index(data=w.dataset(300)), ValueError),
    Call(INDEX, "a longer dataset than attributes", lambda w: w.index(data=w.dataset(800)), ValueError),
    Call(INDEX, "inputs that do not fit", lambda w: w.index(data=[torch.zeros(5)] * 9, name="more"), ValueError),
    Call(INDEX, "a wrong device", lambda w: w.index(capture=nadb.Capture(device="cuda:7")), ValueError),
    Call(INDEX, "too small a storage", lambda w: w.index(name="more", storage=-1), ValueError),
    Call(INDEX, "a changed model", lambda w: changed(w, lambda: w.index()), ValueError),
    *at_places(INDEX, lambda w: w.index(name="more"), RUNNING),
    *at_places(INDEX, lambda w: w.index(name="more"), RUNNING, 7),
    *at_places(INDEX, lambda w: w.index(name="more", progress=w.call("progress")), ("progress",)),
    *at_places(INDEX, lambda w: w.index(data=w.dataset(500)), RUNNING, 3),
    Call("Database.index_arrays", "an array", lambda w: w.db.index_arrays("a", FEATURES)),
    Call("Database.index_arrays", "a tensor", lambda w: w.db.index_arrays("a", w.model[0].weight)),
    Call("Database.index_arrays", "NaN", lambda w: w.db.index_arrays("a", FEATURES * np.nan), ValueError),
    Call("Database.index_function", "a function", index_function),
    Call("Database.index_function", "of another shape", wrong_length, ValueError),
    *at_places("Database.index_function", index_function, ("function",), 2),
    # attaching
    Call("Database.attach", "the same", lambda w: w.attach()),
    Call("Database.attach", "again", lambda w: w.db.attach(w.model, w.data, capture=w.capture)),
    Call("Database.attach", "more inputs", lambda w: w.attach(data=w.dataset(500))),
    Call("Database.attach", "fewer inputs", lambda w: w.attach(data=w.dataset(300)), nadb.StaleIndexError),
    Call("Database.attach", "another model", lambda w: changed(w, w.attach), nadb.StaleIndexError),
    Call("Database.attach", "other options", lambda w: w.attach(capture=None), nadb.StaleIndexError),
    Call("Database.attach", "unknown", lambda w: w.attach(name="other"), KeyError),
    *at_places("Database.attach", lambda w: w.attach(), RUNNING),
    *at_places("Database.attach", lambda w: w.attach(), RUNNING, 5),
    Call("Database.attach_array", "of another kind", lambda w: w.db.attach_array("2", FEATURES), nadb.StaleIndexError),
    Call("Database.attach_array", "unknown", lambda w: w.db.attach_array("a", FEATURES), KeyError),
    Call("Database.attach_function", "the same",
         lambda w: (index_function(w), w.db.attach_function("f", lambda ids: FEATURES[ids]))),
    Call("Database.attach_function", "unknown", lambda w: w.db.attach_function("a", len), KeyError),
    # layers
    Call("Layer.name Layer.shape Layer.dtype Layer.n_neurons Layer.n_inputs Layer.n_indexed Layer.bits Layer.nbytes "
         "Layer.storage Layer.attached", "read",
         lambda w: [getattr(w.layer, name) for name in dir(w.layer) if not name.startswith("_")]),
    Call("Layer.__repr__ Layer.__init__", "printed", lambda w: repr(w.layer)),
    Call("Layer.__getitem__", "a neuron", lambda w: w.layer[3] > 2),
    Call("Layer.__getitem__", "out of range", lambda w: w.layer[99], IndexError),
    Call("Layer.score", "a group", lambda w: w.layer.score(GROUP, "max")),
    Call("Layer.score", "unknown", lambda w: w.layer.score(GROUP, "most"), ValueError),
    Call("Layer.distance", "to an input", lambda w: w.layer.distance(7, GROUP)),
    *at_places("Layer.distance", lambda w: w.layer.distance(7, GROUP), RUNNING),
    Call("Layer.nearest", "to a new input", lambda w: w.layer.nearest(input=IMAGES[3], neurons=GROUP, k=3)),
    Call("Layer.nearest", "to a new input of a wrong shape",
         lambda w: w.layer.nearest(input=torch.zeros(5), neurons=GROUP, k=3), ValueError),
    *at_places("Layer.nearest", lambda w: w.layer.nearest(input=IMAGES[3], neurons=GROUP, k=3), ("model",)),
    Call("Layer.nearest", "to a key", lambda w: w.layer.nearest("7.png", GROUP, k=3)),
    Call("Layer.nearest", "to nothing", lambda w: w.layer.nearest(neurons=GROUP, k=3), TypeError),
    Call("Layer.bounds", "a neuron", lambda w: w.layer.bounds(w.layer[3])),
    Call("Layer.bounds", "no expression", lambda w: w.layer.bounds(3), TypeError),
    Call("Layer.values", "some", lambda w: w.layer.values([1, 2, 3])),
    Call("Layer.values", "out of range", lambda w: w.layer.values(400), IndexError),
    *at_places("Layer.values", lambda w: w.layer.values([1, 2, 3]), RUNNING),
    Call("Layer.top_neurons", "some", lambda w: (w.layer.top_neurons(3), w.layer.top_neurons(3, by="percentile"))),
    Call("Layer.top_neurons", "unknown", lambda w: w.layer.top_neurons(3, by="size"), ValueError),
    *at_places("Layer.top_neurons", lambda w: w.layer.top_neurons([1, 2]), RUNNING),
    # the mapping of layers
    Call("Activations.__getitem__ Activations.get Activations.__contains__ Activations.__init__", "looked up",
         lambda w: (w.db.activations["2"], w.db.activations.get("x"), "2" in w.db.activations)),
    Call("Activations.__getitem__", "unknown", lambda w: w.db.activations["x"], KeyError),
    Call("Activations.__iter__ Activations.__len__ Activations.keys Activations.items Activations.values", "listed",
         lambda w: (list(w.db.activations), len(w.db.activations), list(w.db.activations.items()),
                    list(w.db.activations.keys()), list(w.db.activations.values()))),
    Call("Activations.__repr__ Activations.__eq__", "printed",
         lambda w: (repr(w.db.activations), w.db.activations == {})),
    Call("Activations.__delitem__", "dropped", lambda w: w.db.activations.__delitem__("2")),
    Call("Activations.__delitem__", "unknown", lambda w: w.db.activations.__delitem__("x"), KeyError),
    # results
    Call("Result.kind Result.input_ids Result.certainty Result.__len__ Result.__iter__ Result.__getitem__", "read",
         lambda w: (w.result.kind, w.result.input_ids, w.result.certainty, len(w.result), list(w.result), w.result[0])),
    Call("Result.__getitem__", "out of range", lambda w: w.result[99], IndexError),
    Call("Result.__eq__ Result.__repr__ Result._repr_html_", "printed",
         lambda w: (w.result == w.result, repr(w.result), rendered(w).result._repr_html_())),
    Call("Result.attributes Result.to_pandas Result.to_arrow", "as tables",
         lambda w: (w.result.attributes(), w.result.to_pandas(), w.result.to_arrow())),
    Call("Result.attributes", "after closing", lambda w: (w.db.close(), w.result.attributes()), nadb.Error),
    Call("Result.verify", "all", lambda w: w.result.verify()),
    Call("Result.verify", "a sample", lambda w: w.result.verify(sample=10)),
    Call("Result.verify", "a wrong sample", lambda w: w.result.verify(sample=0), ValueError),
    Call("Result.verify", "another model", lambda w: changed(w, w.result.verify), nadb.StaleIndexError),
    *at_places("Result.verify", lambda w: w.result.verify(), RUNNING),
    *at_places("Result.verify", lambda w: w.result.verify(), ("model", "dataset"), 3),
    Call("Result.render", "a picture", lambda w: rendered(w).result.render(3)),
    *at_places("Result.render", lambda w: rendered(w).result.render(3), ("render",)),
    Call("Result.save_html", "a page", lambda w: rendered(w).result.save_html(w.path / "page.html")),
    *at_places("Result.save_html", lambda w: rendered(w).result.save_html(w.path / "page.html"), ("render",)),
    Call("Result.plot", "a figure", lambda w: rendered(w).result.plot()),
    Call("Result.plot", "no pictures", lambda w: w.result.plot(), nadb.NotAttachedError),
    *at_places("Result.plot", lambda w: rendered(w).result.plot(), ("render",)),
]  # fmt: skip

#: what users do not call, or what runs nothing of theirs: the machinery of dataclasses, mappings and pickle
NOT_CALLED = frozenset({
    "__class_getitem__", "__delattr__", "__getstate__", "__hash__", "__init__", "__post_init__", "__replace__",
    "__reversed__", "__setattr__", "__setstate__", "__subclasshook__",
})  # fmt: skip


def public_names(of: type) -> set[str]:
    """Public methods and properties of a class, and the special methods that it defines."""
    names = {name for name in dir(of) if not name.startswith("_")}
    names |= {name for base in of.__mro__ if base is not object for name in vars(base) if name.startswith("__")}
    names |= {"_repr_html_"} & set(dir(of))
    kept = (
        name
        for name in names - NOT_CALLED
        if isinstance(getattr(of, name, None), property) or callable(getattr(of, name))
    )
    return {f"{of.__name__}.{name}" for name in kept}


@pytest.mark.parametrize("of", [Database, Layer, nadb.Result, Activations])
def test_the_table_names_every_public_call(of: type) -> None:
    named = {name for call in CALLS for name in call.names.split() if name.startswith(f"{of.__name__}.")}
    assert named - {f"{of.__name__}.__init__"} == public_names(of)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.db.close()


@pytest.mark.parametrize("call", CALLS, ids=[f"{call.names.split()[0]}: {call.what}" for call in CALLS])
@pytest.mark.filterwarnings("ignore:.*figures have been opened:RuntimeWarning")
def test_a_call_leaves_no_trace(world: World, call: Call) -> None:
    torch.manual_seed(3)
    torch.rand(5)
    before = snapshot(world.model)
    if call.armed is not None:
        world.armed[call.armed].arm(call.error(), call.uses_left)
    if call.raises is None:
        call.run(world)
    else:
        with pytest.raises((call.raises, ValueError)) as caught:
            call.run(world)
        assert isinstance(caught.value, call.raises) or isinstance(caught.value.__cause__, call.raises)
    assert_undisturbed(before, world.model)
