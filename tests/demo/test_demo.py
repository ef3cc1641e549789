"""The demo end to end at a small size: answers equal brute force, a second run reuses, the page works offline."""

from __future__ import annotations

import dataclasses
import html.parser
import re
from pathlib import Path

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb import cli
from neuralartifactdb.demo import DATABASE_NAME, PAGE_NAME, Demo, run_demo
from neuralartifactdb.demo.figures import bounds_figure, digit_picture, probability_bars, proportion_bar
from neuralartifactdb.demo.masks_prepare import MARKED_WEIGHTS_NAME
from neuralartifactdb.demo.masks_walk import MasksWalk
from neuralartifactdb.demo.network import LAYERS
from neuralartifactdb.demo.prepare import WEIGHTS_NAME
from neuralartifactdb.demo.walk import Intervals

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("captum")

SMALL = {"n_inputs": 600, "epochs": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, list[str]]:
    said: list[str] = []
    return run_demo(tmp_path_factory.mktemp("demo") / "out", **SMALL, say=said.append), said


def test_every_answer_equals_brute_force(first):
    demo, _ = first
    assert demo.all_equal
    assert len(demo.walk.steps) == 6
    for step in demo.walk.steps:
        assert step.result.exact
        assert step.verification.n_checked == step.result.stats.candidates
        assert step.seconds > 0
    assert set(demo.walk.nearest) == set(LAYERS)


def test_recomputing_everything_gives_the_same_answers(first):
    from neuralartifactdb.demo.recompute import Recompute

    walk = first[0].walk
    brute = Recompute(walk.prepared.network, walk.prepared.data.images)
    others = np.delete(np.arange(600), walk.target)
    for name, step in walk.nearest.items():
        group = walk.groups[name]
        ids, _ = brute.nearest(name, group.values, group.neurons, len(step.result), others)
        np.testing.assert_array_equal(ids, step.result.ids)
    last = list(LAYERS)[-1]
    ids, _ = brute.highest(last, walk.groups[last].neurons, len(walk.excited.result), np.arange(600))
    np.testing.assert_array_equal(ids, walk.excited.result.ids)


def test_the_walk_is_about_a_misread_input(first):
    walk = first[0].walk
    data, read = walk.prepared.data, walk.prepared.prediction.labels
    np.testing.assert_array_equal(walk.misread.result.ids, np.flatnonzero(read != data.labels))
    assert walk.target in walk.misread.result.ids
    assert data.held_out[walk.target]
    assert (data.labels[walk.same_label.result.ids] == walk.label).all()
    for step in [*walk.nearest.values(), walk.same_label]:
        assert walk.target not in step.result.ids


def test_intervals_of_the_figure_hold_what_was_evaluated(first):
    found = first[0].walk.intervals
    known = np.isfinite(found.exact)
    assert found.evaluated.sum() <= known.sum()
    assert (found.lower[known] <= found.exact[known]).all()
    assert (found.exact[known] <= found.upper[known]).all()
    open_ = ~known & np.isfinite(found.lower)
    open_[first[0].walk.target] = False
    assert (found.lower[open_] >= found.threshold).all()  # what was never run could not be in the answer


def test_the_demo_gives_threads_back():
    from neuralartifactdb.demo.prepare import one_thread

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_second_run_reuses_weights_and_database(first):
    demo, said = first
    again_said: list[str] = []
    weights = (demo.page.parent / WEIGHTS_NAME).read_bytes()
    again = run_demo(demo.page.parent, **SMALL, say=again_said.append)
    assert again.walk.prepared.reused == {"network", "database"}
    assert again.looks.prepared.reused == {"network", "masks"}
    assert demo.walk.prepared.reused == demo.looks.prepared.reused == set()
    assert (demo.page.parent / WEIGHTS_NAME).read_bytes() == weights
    assert len(demo.steps) == len(again.steps) == 10
    for before, after in zip(demo.steps, again.steps, strict=True):
        assert before.result == after.result
    assert any("as trained before" in line for line in again_said)
    assert any("as indexed before" in line for line in again_said)
    assert not any("before" in line for line in said)


def test_other_settings_and_damaged_weights_start_anew(tmp_path):
    out = tmp_path / "out"
    tiny = {"n_inputs": 250, "epochs": 1}
    run_demo(out, **tiny)
    stored = run_demo(out, **tiny, storage=0.4)
    assert stored.walk.prepared.reused == {"network"}
    assert stored.looks.prepared.reused == {"network", "masks"}
    assert _of_layers(out, "storage") == {0.4}
    (out / WEIGHTS_NAME).write_bytes(b"not weights")
    fewer = run_demo(out, n_inputs=220, epochs=1)
    assert fewer.walk.prepared.reused == fewer.looks.prepared.reused == set()
    (out / MARKED_WEIGHTS_NAME).write_bytes(b"not weights")
    trained = run_demo(out, n_inputs=220, epochs=1)
    assert trained.looks.prepared.reused == {"masks"}  # the same weights again, so the same maps
    assert fewer.all_equal
    assert _of_layers(out, "n_indexed") == {220}


def _of_layers(out: Path, name: str) -> set[object]:
    with nadb.open(out / DATABASE_NAME, "r") as db:
        return {getattr(layer, name) for layer in db.activations.values()}


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Collects addresses, and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br", "hr", "path", "circle", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.n_pictures = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "srcset")]
        self.n_pictures += tag == "img"
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_self_contained_small_and_well_formed(first):
    demo, _ = first
    text = demo.page.read_text(encoding="utf-8")
    assert demo.page.name == PAGE_NAME
    assert len(text.encode()) < 1_000_000
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"https?://|url\(|@import", text)


def test_the_page_shows_questions_pictures_and_receipts(first):
    demo, _ = first
    walk, text = demo.walk, demo.page.read_text(encoding="utf-8")
    plain = re.sub(r"<[^>]+>", "", text)
    assert f"this {walk.label} as a {walk.predicted}?" in plain
    for name, step in walk.nearest.items():
        assert f'db.activations["{name}"]' in plain.replace("&quot;", '"')
        assert all(f"#{i}" in plain for i in step.result.ids.tolist())
    looks = demo.looks
    for step in (looks.worst, looks.apart):
        assert all(f"#{looks.prepared.pictures.ids[i]}" in plain for i in looks.positions(step)[:12])
    assert "Was it the mark?" in plain
    assert "Wrong in silence" in plain
    shown = sum(len(step.result) for step in walk.steps[1:])
    page = Page()
    page.feed(text)
    assert page.n_pictures >= shown + 5
    assert plain.count("verified") >= 10
    assert plain.count("equal") >= 10


def test_the_page_of_a_network_that_errs_nowhere(first):
    from neuralartifactdb.demo.report import report_page

    walk = first[0].walk
    right = int(np.flatnonzero(walk.prepared.prediction.labels == walk.prepared.data.labels)[0])
    with nadb.open(first[0].database, "r") as db:
        nothing = dataclasses.replace(walk.misread.result, ids=np.zeros(0, np.int64), scores=None)
        text = report_page(
            dataclasses.replace(
                walk,
                target=right,
                misread=dataclasses.replace(walk.misread, result=nothing),
                prepared=dataclasses.replace(walk.prepared, db=db),
            ),
            _with_masks(first[0], db),
        )
    plain = re.sub(r"<[^>]+>", "", text)
    assert "What does the network see in this" in plain
    assert "The network misreads no input" in plain
    assert "as it is written" not in plain
    assert "nan" not in plain.lower().replace("explanation", "")


def _with_masks(demo: Demo, db: nadb.Database) -> MasksWalk:
    """The second walk of a demo whose database is closed, over the same maps in an open one."""
    return dataclasses.replace(
        demo.looks, prepared=dataclasses.replace(demo.looks.prepared, masks=db.masks["saliency"])
    )


def test_the_target_is_the_surest_mistake_on_an_unseen_scan(first):
    from neuralartifactdb.demo.walk import _choose

    prepared = first[0].walk.prepared
    probabilities = np.full((600, 10), 0.05, np.float32)
    held_out = np.zeros(600, bool)
    held_out[[7, 9]] = True
    probabilities[[3, 7, 9], 0] = 0.9, 0.5, 0.6
    made = dataclasses.replace(
        prepared,
        data=dataclasses.replace(prepared.data, held_out=held_out),
        prediction=dataclasses.replace(prepared.prediction, probabilities=probabilities),
    )
    assert _choose(made, np.array([3, 7, 9])) == 9
    assert _choose(made, np.array([3])) == 3
    probabilities[11] = 0.01
    assert _choose(made, np.zeros(0, np.int64)) == 11


def test_the_printed_table_and_the_exit_code(first, capsys, monkeypatch):
    demo, _ = first
    asked: list[dict[str, object]] = []

    def run(out: str, **settings: object) -> Demo:
        asked.append({"out": out, **settings})
        settings["say"]("network   as trained before")  # type: ignore[operator]
        return demo

    monkeypatch.setattr("neuralartifactdb.demo.run_demo", run)
    arguments = ["demo", "--out", "x", "--inputs", "600", "--epochs", "1", "--storage", "0.3", "--seed", "4"]
    assert cli.main(arguments) == cli.OK
    out, err = capsys.readouterr()
    assert err == "network   as trained before\n"
    lines = out.strip().splitlines()
    assert lines[0].split()[:3] == ["question", "run", "or"]
    assert sum(line.endswith("equal") for line in lines) == 10
    assert str(demo.page) in out
    del asked[0]["say"]
    assert asked == [{"out": "x", "n_inputs": 600, "epochs": 1, "storage": 0.3, "seed": 4}]
    monkeypatch.setattr(Demo, "all_equal", False)
    assert cli.main(arguments) == cli.ERROR
    assert cli.main(["verify", str(demo.database)]) == cli.OK


def test_an_output_folder_that_is_a_file_is_an_error(tmp_path, capsys):
    (tmp_path / "out").write_text("x")
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == cli.ERROR
    assert capsys.readouterr().err.startswith("nadb: ")


# --- drawings ---------------------------------------------------------------------------------------------------------


def test_cells_lie_where_their_neurons_do():
    picture = digit_picture(np.zeros((8, 8), np.float32), cells=[(3, 1, 2), (9, 1, 2), (0, 3, 0)], side=4)
    assert picture.count("<i ") == 2  # two neurons share a place
    assert "left:50%;top:25%;width:25%;height:25%" in picture
    assert "left:0%;top:75%" in picture


def test_bars_always_show_the_true_digit():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05, 0, 0, 0, 0, 0, 0], np.float32)
    bars = probability_bars(probabilities, label=7, predicted=0)
    assert re.findall(r"<b>(\d)</b>", bars) == ["0", "1", "2", "7"]
    assert bars.count('class="p"') == bars.count('class="l"') == 1


def test_proportions_put_the_reading_first():
    bar = proportion_bar(np.array([4, 1, 9, 1, 0]), label=9, predicted=1)
    assert re.findall(r'<i class="(.)">(\d)</i>', bar) == [("p", "1"), ("p", "1"), ("l", "9"), ("o", "0"), ("o", "4")]


def test_the_figure_draws_each_kind_of_interval_and_survives_none():
    nan = np.nan
    found = Intervals(
        lower=np.array([0.0, 1.0, 2.0, nan]),
        upper=np.array([0.5, 1.0, 3.0, nan]),
        evaluated=np.array([True, False, False, False]),
        exact=np.array([0.25, 1.0, nan, nan]),
        threshold=1.0,
    )
    drawn = bounds_figure(found)
    assert [drawn.count(f'class="{name}" d=') for name in ("in", "dot", "known", "out")] == [1, 1, 1, 0]
    nothing = Intervals(*(np.zeros(0),) * 2, np.zeros(0, bool), np.zeros(0), 0.0)
    assert "<svg" in bounds_figure(nothing)
