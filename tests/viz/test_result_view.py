"""Results in notebooks, as pages and as figures."""

from __future__ import annotations

import errno
import math
import re
import sys

import numpy as np
import pytest
from page_outline import Outline

from neuralartifactdb.errors import ExtraMissingError, InvalidValueError, NotAttachedError
from neuralartifactdb.results import Result, Stats, Verification
from neuralartifactdb.storage import io
from neuralartifactdb.viz import html
from neuralartifactdb.viz.result_view import result_section

HOSTILE = '"><script>alert(1)</script>'


class Context:
    def __init__(self, kind="image"):
        self.kind, self.rendered = kind, []

    def input_ids(self, ids):
        return ids // 2

    def attributes(self, ids):
        if self.kind == "closed":
            raise RuntimeError("the database is closed")
        return {"label": ids % 10, HOSTILE: np.array([HOSTILE * 50] * len(ids), dtype=object)}

    def render(self, input_id):
        self.rendered.append(input_id)
        value = {
            "image": np.full((4, 4), input_id % 2, float),
            "text": HOSTILE,
            "tokens": [(HOSTILE, 1.0), ("b", -1.0)],
        }
        return value.get(self.kind)


def make(n=5, *, kind="image", **changes) -> Result:
    values = {
        "ids": np.arange(n) * 3,
        "scores": np.arange(n, 0, -1.0),
        "exact": True,
        "guarantee": HOSTILE,
        "tolerance": 0.0,
        "stats": Stats(candidates=100, settled=90, evaluated=10, batches=1),
        "query": f"layer.highest([3], where={HOSTILE!r})",
        "question": f"Which {HOSTILE}?",
        "_context": Context(kind),
    }
    return Result(**values | changes)


def test_notebook_summary_runs_nothing_and_is_small():
    result = make(100_000)
    shown = result._repr_html_()
    assert len(shown.encode()) < 300_000
    assert result._context.rendered == []
    outline = Outline(shown)
    assert "script" not in {tag for tag, _ in outline.elements}
    words = " ".join(outline.words)
    for part in ("100,000 rows", "✓ exact", "10 of 100 inputs inferred", "99,980 more rows", "label"):
        assert part in words


@pytest.mark.parametrize("context", [None, Context("closed")])
def test_notebook_summary_without_a_database(context):
    for stats in (Stats(), Stats(kind="masks")):
        assert "5 rows" in make(_context=context, stats=stats)._repr_html_()
    assert "0 rows" in make(0, _context=context)._repr_html_()


def test_a_failing_render_names_the_input(tmp_path):
    class Failing(Context):
        def render(self, input_id):
            return 1 / (input_id - 3)

    result = make(_context=Failing())
    with pytest.raises(ZeroDivisionError) as caught:
        result.save_html(tmp_path / "page.html")
    assert caught.value.__notes__ == ["neuralartifactdb was calling the function given to db.set_render for input 3"]
    assert not (tmp_path / "page.html").exists()


def test_notebook_summary_says_when_not_exact():
    shown = make(exact=False, guarantee="stopped after 64 evaluations")._repr_html_()
    assert "⚠ not exact" in shown
    assert "stopped after 64 evaluations" in shown


@pytest.mark.parametrize("kind", ["image", "text", "tokens", "none", "closed"])
def test_saved_page(tmp_path, kind):
    path = make(kind=kind).save_html(tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    outline = Outline(path.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in outline.elements]
    assert "script" not in tags
    assert tags.count("figure") == (0 if kind in ("none", "closed") else 5)
    assert tags.count("img") == (5 if kind == "image" else 0)
    words = "".join(outline.words)
    assert words.count(f"Which {HOSTILE}?") >= 2
    assert "The answer" in words
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_saved_page_shows_the_first_rows_and_renders_each_input_once(tmp_path):
    result = make(40, ids=np.arange(40), stats=Stats(kind="masks", candidates=40))
    words = "".join(Outline(result.save_html(tmp_path / "p.html", max_rows=6, title="A").read_text()).words)
    assert "The first 6 of 40 rows." in words
    assert "#3 of input 1" in words
    assert result._context.rendered == [0, 1, 2]
    assert "No rows" in make(0).save_html(tmp_path / "p.html").read_text()
    with pytest.raises(InvalidValueError, match="got 0"):
        result.save_html(tmp_path / "p.html", max_rows=0)


def test_scores_without_a_bar_and_null(tmp_path):
    for scores in ([math.nan] * 5, [1.0, -1.0, 0.0, 0.0, 0.0], [math.inf, 1, 1, 1, 1], None):
        page = make(scores=None if scores is None else np.array(scores)).save_html(tmp_path / "p.html").read_text()
        assert 'class="share"' not in page
    page = make(scores=np.array([2.0, 1.0, 0.5, math.nan, 0.0])).save_html(tmp_path / "p.html").read_text()
    assert page.count('class="share"') == 4
    assert "width:50.00%" in page


class Groups(Context):
    """Groups by their input, or by something else."""

    def __init__(self, by_input):
        super().__init__()
        self.by_input = by_input

    def input_ids(self, ids):
        return ids + 40 if self.by_input else np.full(len(ids), -1)

    def attributes(self, ids):
        return {}

    def render(self, input_id):
        return super().render(input_id) if input_id >= 0 else None


def make_groups(keys, *, by_input=False, **changes):
    ids = np.arange(len(keys))[::-1].copy()
    return make(len(keys), ids=ids, keys=keys, stats=Stats(kind="masks"), _context=Groups(by_input), **changes)


def test_groups_are_shown_by_key_and_score(tmp_path):
    keys = np.array(["vit", HOSTILE, None], dtype=object)
    result = make_groups(keys, scores=np.array([0.75, 0.5, math.nan]))
    for shown in (result._repr_html_(), result.save_html(tmp_path / "p.html").read_text(encoding="utf-8")):
        assert re.findall("<th[^>]*>([^<]*)</th>", shown) == ["rank", "key", "score"]
        cells = [re.findall("<td[^>]*>([^<]*)</td>", row) for row in re.findall("<tr>(.*?)</tr>", shown)[1:]]
        assert [row[:2] for row in cells] == [["1", "vit"], ["2", html.text(HOSTILE)], ["3", "NULL"]]
        assert [row[2] for row in cells[:2]] == ["0.75", "0.5"]
        assert "-1" not in "".join(Outline(shown).words)
    assert "<th>score" not in make_groups(keys, scores=None)._repr_html_()
    assert "3 more rows" in make_groups(np.arange(23))._repr_html_()


def test_groups_by_input_are_pictures_of_the_inputs(tmp_path):
    result = make_groups(np.array([42, 41, 40]), by_input=True)
    page = result.save_html(tmp_path / "p.html").read_text(encoding="utf-8")
    assert [word for word in Outline(page).words if word.startswith("input ")] == ["input 42", "input 41", "input 40"]
    assert result._context.rendered == [42, 41, 40]
    titles = [axis.get_title() for axis in result.plot().axes]
    assert titles == ["1. input 42\n3", "2. input 41\n2", "3. input 40\n1"]


def test_a_failed_write_leaves_the_old_page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(operation, name):
        if operation == "write":
            raise OSError(errno.ENOSPC, "full", name)

    with io.faults(full), pytest.raises(OSError, match="space"):
        make().save_html(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(FileNotFoundError):
        make().save_html(tmp_path / "missing" / "page.html")


def test_section_for_reports():
    shown = result_section(
        make(exact=False, guarantee="the first 3 are certain"),
        heading="H",
        eyebrow="E",
        lines=lambda row: [f"predicted {row.id}"],
        verification=Verification(True, 100, 0.0),
        compared_with=("recomputing everything", 2.0),
    )
    words = "".join(Outline(shown).words)
    assert words.count("the first 3 are certain") == 1
    for part in ("predicted 12", "✓ verified, 100 checked", "recomputing everything"):
        assert part in words
    assert "label" not in words.split("The rows as a table")[0]


@pytest.mark.parametrize("kind", ["image", "text", "tokens"])
def test_plot(kind):
    figure = make(7, kind=kind, question="$x$ and $").plot(columns=3, max_rows=5)
    assert len(figure.axes) == 6
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_plot_needs_rows_pictures_and_matplotlib(monkeypatch):
    with pytest.raises(InvalidValueError, match="without rows"):
        make(0).plot()
    with pytest.raises(InvalidValueError, match="got 0 and 20"):
        make().plot(columns=0)
    with pytest.raises(NotAttachedError, match="set_render"):
        make(kind="none").plot()
    monkeypatch.delitem(sys.modules, "neuralartifactdb.viz.figure")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ExtraMissingError, match=r"neuralartifactdb\[viz\]"):
        make().plot()
