"""Static pages: well-formed, self-contained, and text never becomes markup."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_outline import Outline

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.results import Stats, Verification
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html


def everything(text: str) -> str:
    """A page with the text in every place that takes one."""
    stats = Stats(candidates=9, evaluated=3, batches=1, bytes_read=5, seconds={text: 0.1})
    return html.page(
        text,
        [
            html.section(text, text, lead=text, eyebrow=text),
            html.paragraph(text),
            html.gallery(
                [Card(np.zeros((2, 2)), text, text, [text], rank=1, share=0.5, mark="target"), Card(text, text)]
            ),
            html.tokens([(text, 1.0), (text, -0.5)]),
            html.receipt(stats, certainty=text, guarantee=text, compared_with=(text, 3.0)),
            html.table([text, "n"], [["x" + text, 1]], caption=text),
            html.callout(text),
            html.details(text, text),
            html.badge(text),
            html.picture(np.zeros((1, 1)), alt=text),
        ],
        subtitle=text,
        top_facts=[(text, text)],
        footer=text,
    )


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title><svg onload=alert(1)>",
    "<!--",
    "&lt;script&gt;",
    "]]>",
    "\ud800\0",
    "javascript:alert(1)",
]


@given(st.one_of(st.sampled_from(HOSTILE), st.text(alphabet="<>&\"'/=!-abc \n\0", min_size=1)))
def test_no_text_becomes_markup(hostile):
    assert Outline(everything(hostile)).elements == Outline(everything("x")).elements


@given(st.text(alphabet="<>&\"'/=()[]#\\\n\t abc123é"))
def test_code_shows_exactly_the_source(source):
    outline = Outline(html.code(source))
    assert "".join(outline.words) == source.replace("\0", "\ufffd")
    assert {tag for tag, _ in outline.elements} <= {"pre", "code", "span"}


def test_code_is_coloured():
    marked = html.code('layer.highest([3], where="a")  # é')
    assert '<span class="n">3</span>' in marked
    assert '<span class="s">&quot;a&quot;</span>' in marked
    assert '<span class="c"># é</span>' in marked


def test_a_page_asks_for_nothing_from_outside():
    page = everything("x")
    assert "http:" not in page.replace("http-equiv", "")
    assert "https:" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page


@pytest.mark.parametrize(
    ("evaluated", "candidates", "lit"), [(0, 10, 0), (0, 0, 0), (1, 10**9, 1), (150, 300, 150), (20, 10, 300)]
)
def test_dots_show_the_share_and_never_hide_a_little(evaluated, candidates, lit):
    receipt = html.receipt(Stats(candidates=candidates, evaluated=evaluated))
    path = receipt.split('class="lit" d="')[1].split('"')[0]
    ends = [int(piece.split("H")[1].split(".")[0]) for piece in path.split("M")[1:]]
    assert sum((end + 5) // 10 for end in ends) == lit


def test_receipt_says_what_there_is():
    stats = Stats(candidates=10_000, settled=9_973, evaluated=27, batches=1, bytes_read=2048, seconds={"total": 0.01})
    text = " ".join(
        Outline(
            html.receipt(stats, verification=Verification(True, 10_000, 0.0), compared_with=("recomputing", 1.9))
        ).words
    )
    for part in (
        "27",
        "of 10,000 inputs inferred",
        "✓ exact",
        "✓ verified, 10,000 checked",
        "10.0 ms",
        "190× faster than",
    ):
        assert part in text
    assert "2.00 KiB" in text
    differs = html.receipt(stats, certainty="not exact", verification=Verification(False, 5, 0.25))
    assert "⚠ not exact" in differs
    assert "⚠ differs by 0.25, 5 checked" in differs
    assert "masks read" in html.receipt(Stats(kind="masks"))
    assert "4.0× slower than" in html.receipt(stats, compared_with=("x", 0.0025))


def test_tokens_are_coloured_by_sign_and_strength():
    shown = html.tokens([("a", 2.0), ("b", -1.0), ("c", 0.0), ("\n", math.nan)])
    assert 'title="2" style="background:rgb(255 110 40/0.750)">a<' in shown
    assert 'title="-1" style="background:rgb(60 130 246/0.375)">b<' in shown
    assert '<span title="0">c</span>' in shown
    assert "↵" in shown


def test_content_by_type():
    assert html.content("a < b") == '<div class="text">a &lt; b</div>'
    assert html.content([("a", np.float32(1))]).startswith('<div class="text tokens">')
    assert html.content(np.zeros((2, 2))).startswith('<img class="small" width="2" height="2"')
    assert html.content(Html("<b>x</b>")) == "<b>x</b>"
    assert 'width="50" height="100"' in html.picture(np.zeros((400, 200)), max_side=100)
    for value in (3, [("a", "b")], [("a", 1, 2)], {"a": 1}, None):
        with pytest.raises(DtypeError, match="set_render"):
            html.content(value)


def test_table_aligns_numbers_and_checks_rows():
    shown = html.table(["name", "n", "time"], [["a", 1, "12.3 ms"], ["b", None, "158×"], ["c", math.nan, "-"]])
    assert shown.count('class="r"') == 8
    assert "<td>a</td>" in shown
    assert shown.count("–") == 2
    with pytest.raises(InvalidValueError, match="2 cells, got 1 in row 0"):
        html.table(["a", "b"], [[1]])
    Outline(html.table(["a"], []))


def test_wide_gallery_for_texts_and_bad_shares():
    shown = html.gallery([Card("text", share=math.nan), Card(np.zeros((1, 1)), share=7.0)])
    assert 'class="gallery wide"' in shown
    assert shown.count('class="share"') == 1
    assert "width:100.00%" in shown
