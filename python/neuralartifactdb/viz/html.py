"""Components of static pages: page, section, gallery, receipt, tokens, table, code. Pure functions that return `Html`.

No script, no font, no address is loaded, and text cannot become markup: whatever is not `Html` already is escaped where
it is put in (design section 7, `save_html`). Results and the demo's report are made of these.
"""

from __future__ import annotations

import html
import io
import keyword
import math
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.receipts import Stats, format_seconds
from neuralartifactdb.results import Verification
from neuralartifactdb.viz.png import as_image, data_uri, is_image, shrink
from neuralartifactdb.viz.style import STYLE

__all__ = [
    "Card",
    "Html",
    "badge",
    "callout",
    "code",
    "content",
    "details",
    "facts",
    "fragment",
    "gallery",
    "join",
    "page",
    "paragraph",
    "picture",
    "receipt",
    "section",
    "table",
    "text",
    "tokens",
]

_LOGO_LIT = {(1, 1), (2, 1), (2, 2)}
_DOT_COLUMNS, _DOT_ROWS = 60, 5


class Html(str):
    """Markup. Only the functions of this module make it, so a plain str is always text."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as escaped text, also safe inside a quoted attribute; `Html` stays as it is."""
    if isinstance(value, Html):
        return value
    # A lone surrogate cannot be written as UTF-8, and HTML has no NUL.
    plain = str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return Html(html.escape(plain, quote=True))


def join(parts: Iterable[object]) -> Html:
    """The parts one after another, each escaped unless it is `Html`."""
    return Html("".join(text(part) for part in parts))


def paragraph(*parts: object, note: bool = False) -> Html:
    """A paragraph; `note=True` sets it small and grey."""
    return Html(f"<p{' class=note' if note else ''}>{join(parts)}</p>")


def code(source: str) -> Html:
    """A block of Python, lightly coloured."""
    return Html(f'<pre class="code"><code>{_highlighted(str(source))}</code></pre>')


def _highlighted(source: str) -> Html:
    classes = {tokenize.STRING: "s", tokenize.NUMBER: "n", tokenize.COMMENT: "c"}
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    parts: list[object] = []
    done = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            kind = classes.get(token.type)
            if token.type == tokenize.NAME and keyword.iskeyword(token.string):
                kind = "k"
            if kind:
                start = starts[token.start[0] - 1] + token.start[1]
                end = starts[token.end[0] - 1] + token.end[1]
                parts += [source[done:start], Html(f'<span class="{kind}">{text(source[start:end])}</span>')]
                done = end
    except (tokenize.TokenError, SyntaxError, IndexError):
        pass  # not Python, or cut short: the rest stays plain
    return join([*parts, source[done:]])


def picture(value: Any, *, alt: str = "", max_side: int = 224) -> Html:
    """An inline PNG.

    Args:
        value: what `viz.png.as_image` takes.
        alt: the picture in words.
        max_side: larger ones are averaged down to at most this, in pixels.
    """
    image = shrink(as_image(value), max_side)
    height, width = image.shape[:2]
    small = ' class="small"' if max(height, width) <= 96 else ""
    return Html(f'<img{small} width="{width}" height="{height}" alt="{text(alt)}" src="{data_uri(image)}">')


def tokens(pairs: Sequence[tuple[str, float]]) -> Html:
    """Tokens coloured by their value (positive warm, negative cool, strongest opaque), the value shown on hover."""
    finite = [abs(float(value)) for _, value in pairs if math.isfinite(value)]
    scale = max(finite, default=0.0) or 1.0
    parts = []
    for token, value in pairs:
        number = float(value)
        strength = min(abs(number) / scale, 1.0) if math.isfinite(number) else 0.0
        colour = "255 110 40" if number >= 0 else "60 130 246"
        style = f' style="background:rgb({colour}/{0.75 * strength:.3f})"' if strength >= 0.01 else ""
        shown = str(token).replace("\n", "\u21b5\n") or "\u2205"
        parts.append(f'<span title="{text(f"{number:.6g}")}"{style}>{text(shown)}</span>')
    return Html(f'<div class="text tokens">{"".join(parts)}</div>')


def content(value: object, *, alt: str = "", max_side: int = 224) -> Html:
    """What `db.set_render` gave: a picture, a text, or [(token, value)].

    Raises:
        DtypeError: none of these.
    """
    if isinstance(value, Html):
        return value
    if is_image(value):
        return picture(value, alt=alt, max_side=max_side)
    if isinstance(value, str):
        return Html(f'<div class="text">{text(value)}</div>')
    if isinstance(value, list | tuple) and all(_is_token(item) for item in value):
        return tokens(value)
    got = f"{value!r:.60} ({type(value).__module__}.{type(value).__qualname__})"
    raise DtypeError(
        f"a rendered input must be an image, a text or a list of (token, value), got {got}; see db.set_render"
    )


def _is_token(item: object) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) and _is_number(item[1])


def _is_number(value: object) -> bool:
    return not isinstance(value, str) and hasattr(value, "__float__")


@dataclass(frozen=True)
class Card:
    """One item of a gallery.

    Attributes:
        content: a picture, a text, [(token, value)] or `Html`.
        title: in bold below it.
        score: beside the title, to the right.
        lines: smaller, below the title.
        rank: shown in the corner.
        share: in [0, 1], drawn as a bar; None for none.
        mark: "target", "good" or "bad" set it apart.
    """

    content: object
    title: str = ""
    score: str = ""
    lines: Sequence[object] = field(default=())
    rank: int | None = None
    share: float | None = None
    mark: Literal["target", "good", "bad"] | None = None


def gallery(items: Iterable[Card], *, max_side: int = 224) -> Html:
    """Pictures in a grid with their labels; texts and tokens get wider columns."""
    cards = list(items)
    views = [content(card.content, alt=card.title, max_side=max_side) for card in cards]
    wide = " wide" if any(view.startswith("<div") for view in views) else ""
    parts = [f'<div class="gallery{wide}">']
    for card, view in zip(cards, views, strict=True):
        mark = f" {card.mark}" if card.mark in ("target", "good", "bad") else ""
        rank = "" if card.rank is None else f'<span class="rank">{card.rank:d}</span>'
        bar = ""
        if card.share is not None and math.isfinite(card.share):
            bar = f'<span class="share"><i style="width:{min(max(card.share, 0.0), 1.0):.2%}"></i></span>'
        score = f'<span class="score">{text(card.score)}</span>' if card.score else ""
        title = f'<span class="title">{text(card.title)}{score}</span>' if card.title or score else ""
        lines = "".join(f'<span class="line">{text(line)}</span>' for line in card.lines)
        caption = f"<figcaption>{title}{lines}</figcaption>" if title or lines else ""
        parts.append(f'<figure class="card{mark}"><div class="view">{rank}{view}</div>{bar}{caption}</figure>')
    return Html("".join(parts) + "</div>")


def badge(label: object, *, good: bool = True) -> Html:
    """A pill: a check mark and green, or a warning and red."""
    return Html(f'<span class="badge {"good" if good else "bad"}">{"✓" if good else "⚠"} {text(label)}</span>')


def receipt(
    stats: Stats,
    *,
    certainty: str = "exact",
    guarantee: str = "",
    verification: Verification | None = None,
    compared_with: tuple[str, float] | None = None,
) -> Html:
    """What an answer cost and how certain it is.

    Args:
        stats: of the result.
        certainty: `Result.certainty`; anything that does not begin with "exact" is shown as a warning.
        guarantee: in words, below.
        verification: shown if the answer was checked.
        compared_with: a name and its seconds, such as ("recomputing everything", 1.9).
    """
    verb = "inputs inferred" if stats.kind == "activations" else "masks read"
    seconds = stats.total_seconds
    marks = [badge(certainty, good=certainty.startswith("exact"))]
    if verification is not None:
        checked = f"{verification.n_checked:,} checked"
        label = (
            f"verified, {checked}"
            if verification.equal
            else f"differs by {verification.largest_difference:.2g}, {checked}"
        )
        marks.append(badge(label, good=verification.equal))
    items = [Html(f"<b>{text(format_seconds(seconds))}</b>")]
    if compared_with is not None:
        name, other = compared_with
        items.append(Html(f"<b>{_times(other, seconds)}</b> {text(name)} ({text(format_seconds(other))})"))
    if stats.evaluated:
        items.append(Html(f"<b>{stats.batches:,}</b> batch{'' if stats.batches == 1 else 'es'}"))
    if stats.as_regions:
        items.append(Html(f"<b>{stats.as_regions:,}</b> masks read as regions besides"))
    items.append(Html(f"<b>{stats.settled:,}</b> settled by bounds"))
    if stats.bytes_read:
        items.append(Html(f"<b>{text(format_bytes(stats.bytes_read))}</b> read"))
    if stats.scanned:
        items.append(Html("one pass over everything was cheaper"))
    rest = "".join(f'<span class="item">{item}</span>' for item in items)
    why = f'<p class="why">{text(guarantee[:1].upper() + guarantee[1:])}</p>' if guarantee else ""
    dots = _dots(stats.candidates_evaluated, stats.candidates, verb)
    return Html(
        f'<div class="receipt"><div class="top"><div><div class="big">{stats.candidates_evaluated:,}</div>'
        f'<div class="of">of {stats.candidates:,} {verb}</div></div>{dots}</div>'
        f'<div class="rest"><span class="badges">{"".join(marks)}</span>{rest}</div>{why}</div>'
    )


def _times(other: float, seconds: float) -> str:
    if seconds <= 0.0 or other <= 0.0:
        return "against"
    ratio = other / seconds
    if ratio >= 1.0:
        return f"{ratio:,.0f}× faster than" if ratio >= 10.0 else f"{ratio:.1f}× faster than"
    return f"{1 / ratio:,.0f}× slower than" if ratio <= 0.1 else f"{1 / ratio:.1f}× slower than"


def _dots(part: int, whole: int, verb: str) -> Html:
    """A field of dots, one per 1/300 of the candidates, filled column by column; lit where evaluated, one at least."""
    n = _DOT_COLUMNS * _DOT_ROWS
    lit = 0 if not part or not whole else min(max(round(n * part / whole), 1), n)
    columns, rest = divmod(lit, _DOT_ROWS)
    right = 10 * _DOT_COLUMNS - 5
    off, on = "", ""
    for row in range(_DOT_ROWS):
        y, filled = 10 * row + 5, columns + (row < rest)
        if filled < _DOT_COLUMNS:
            off += f"M{10 * filled + 5} {y}H{right}.1"
        if filled:
            on += f"M5 {y}H{10 * filled - 5}.1"
    label = text(f"{part:,} of {whole:,} {verb}; a dot stands for {max(whole / n, 1):,.0f}")
    return Html(
        f'<svg viewBox="0 0 {10 * _DOT_COLUMNS} {10 * _DOT_ROWS}" role="img" aria-label="{label}">'
        f'<title>{label}</title><path class="off" d="{off}"/><path class="lit" d="{on}"/></svg>'
    )


def table(columns: Sequence[object], rows: Iterable[Sequence[object]], *, caption: object = "") -> Html:
    """A table; columns whose cells are all numbers or short quantities ("12.3 ms") stand to the right.

    Raises:
        InvalidValueError: a row has another number of cells than there are columns.
    """
    body = [list(row) for row in rows]
    for position, row in enumerate(body):
        if len(row) != len(columns):
            raise InvalidValueError(
                f"each row must have {len(columns)} cells, got {len(row)} in row {position}: {row!r:.80}"
            )
    right = [bool(body) and all(_is_numeric(row[i]) for row in body) for i in range(len(columns))]
    css = [' class="r"' if aligned else "" for aligned in right]
    head = "".join(f"<th{c}>{text(name)}</th>" for c, name in zip(css, columns, strict=True))
    cells = ("".join(f"<td{c}>{_cell(v)}</td>" for c, v in zip(css, row, strict=True)) for row in body)
    below = f"<caption>{text(caption)}</caption>" if caption else ""
    rows_html = "".join(f"<tr>{row}</tr>" for row in cells)
    return Html(
        f'<div class="scroll"><table>{below}<thead><tr>{head}</tr></thead><tbody>{rows_html}</tbody></table></div>'
    )


def _is_numeric(value: object) -> bool:
    if isinstance(value, str):
        # "12.3 ms", "158×", "1,797", "97%": begins with a digit and is short, as quantities are
        plain = value.lstrip("-−<~≈ ")
        return value in ("", "-", "–") or (len(value) <= 16 and plain[:1].isdigit())
    return value is None or (not isinstance(value, bool) and hasattr(value, "__float__"))


def _cell(value: object) -> Html:
    if value is None:
        return Html("–")
    if isinstance(value, float):
        return text("–" if math.isnan(value) else f"{value:.6g}")
    return text(value)


def facts(items: Iterable[tuple[object, object]]) -> Html:
    """A row of large values with small names: (name, value)."""
    parts = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in items)
    return Html(f'<dl class="facts">{parts}</dl>')


def callout(*parts: object, warning: bool = True) -> Html:
    """A paragraph that must be seen; red unless `warning=False`."""
    return Html(f'<p class="callout{"" if warning else " plain"}">{join(parts)}</p>')


def details(summary: object, *parts: object) -> Html:
    """Parts that are folded away until asked for."""
    return Html(f"<details><summary>{text(summary)}</summary>{join(parts)}</details>")


def section(heading: object, *parts: object, lead: object = "", eyebrow: object = "") -> Html:
    """A part of a page: a small line above the heading, the heading, a grey line below it, the parts."""
    above = f'<p class="eyebrow">{text(eyebrow)}</p>' if eyebrow else ""
    below = f'<p class="lead">{text(lead)}</p>' if lead else ""
    return Html(f"<section>{above}<h2>{text(heading)}</h2>{below}{join(parts)}</section>")


def page(
    title: str,
    sections: Iterable[object],
    *,
    subtitle: object = "",
    top_facts: Iterable[tuple[object, object]] = (),
    footer: object = "",
) -> str:
    """A whole document in one string; needs no network and no scripts, and a policy in it forbids both."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    below = f'<p class="subtitle">{text(subtitle)}</p>' if subtitle else ""
    numbers = list(top_facts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f'<body class="nadb page"><header><p class="brand">{_logo()}NeuralArtifactDB</p><h1>{text(title)}</h1>{below}'
        f"{facts(numbers) if numbers else ''}</header>\n<main>{join(sections)}</main>\n"
        f"<footer>{text(footer or 'Made with NeuralArtifactDB. This page works offline.')}</footer></body></html>\n"
    )


def fragment(*parts: object) -> Html:
    """Parts with their style for a notebook cell; colours follow the notebook."""
    return Html(f'<div class="nadb fragment"><style>{STYLE}</style>{join(parts)}</div>')


def _logo() -> Html:
    dots = "".join(
        f'<circle class="{"lit" if (x, y) in _LOGO_LIT else "off"}" cx="{6 * x + 5}" cy="{6 * y + 5}" r="2.3"/>'
        for y in range(4)
        for x in range(4)
    )
    return Html(f'<svg viewBox="0 0 28 28" aria-hidden="true">{dots}</svg>')
