"""Drawings of the demo's page: the digit with the places of neurons, probabilities, proportions, intervals.

Pure functions that return `Html` for `viz.html` pages; colours are the page's own, so they follow light and dark.
(Issue 2: the demo.)
"""

# ruff: noqa: E501 - a rule of CSS stays on its line

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Html

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuralartifactdb.demo.walk import Intervals

__all__ = ["STYLE", "bounds_figure", "comparison_bars", "digit_picture", "probability_bars", "proportion_bar"]

STYLE = """\
.nadb .hero{display:grid;grid-template-columns:232px minmax(0,1fr);gap:34px;align-items:center;margin-top:22px}
.nadb .hero figure{margin:0}
.nadb .hero figcaption{font-size:12.5px;color:var(--soft);margin-top:8px;text-align:center}
.nadb .hero p{margin-top:0}
.nadb .digit{display:block;position:relative;border-radius:10px;overflow:hidden;background:#000;aspect-ratio:1;width:100%}
.nadb .digit img{display:block;width:100%;height:100%;image-rendering:pixelated}
.nadb .digit i{position:absolute;border:2px solid var(--accent);border-radius:2px;box-shadow:0 0 0 1px #0006}
.nadb .bars{display:grid;gap:7px;margin-top:20px;max-width:420px}
.nadb .bars>div{display:grid;grid-template-columns:1.2em 1fr 3.6em;gap:10px;align-items:center;font-size:13.5px;font-variant-numeric:tabular-nums}
.nadb .bars b{font-weight:640;text-align:center}
.nadb .bars span.track{height:9px;border-radius:5px;background:var(--well);overflow:hidden;display:block}
.nadb .bars i{display:block;height:100%;border-radius:5px;background:var(--soft)}
.nadb .bars .p i{background:var(--accent)}.nadb .bars .l i{background:var(--good)}
.nadb .bars span.share{color:var(--soft);text-align:right}
.nadb .turns{display:grid;gap:14px;margin-top:24px}
.nadb .turns>div{display:grid;grid-template-columns:4.6em minmax(0,1fr) 9em;gap:16px;align-items:center;font-size:14px}
.nadb .turns b{font-weight:640}.nadb .turns span{color:var(--soft)}
.nadb .mix{display:flex;gap:3px}
.nadb .mix i{flex:1;height:30px;border-radius:5px;background:var(--well);color:var(--soft);font:600 13px/30px var(--sans);text-align:center}
.nadb .mix i.p{background:var(--accent);color:var(--card)}.nadb .mix i.l{background:var(--good);color:var(--card)}
.nadb .key{display:inline-flex;align-items:center;gap:7px;margin-right:22px}
.nadb .key i{width:12px;height:12px;border-radius:3px;background:var(--well);border:1px solid var(--line)}
.nadb .key i.p{background:var(--accent);border-color:var(--accent)}.nadb .key i.l{background:var(--good);border-color:var(--good)}
.nadb .bounds{display:block;width:100%;min-width:640px;height:auto}
.nadb .bounds path{fill:none;stroke-linecap:round;stroke-width:3}
.nadb .bounds .out{stroke:var(--line)}.nadb .bounds .in{stroke:var(--accent);opacity:.38}
.nadb .bounds .dot{stroke:var(--accent);stroke-width:6.5}
.nadb .bounds .known{stroke:var(--soft);stroke-width:5}
.nadb .key i.run,.nadb .key i.known{border-radius:50%;background:var(--accent);border:0;width:9px;height:9px}
.nadb .key i.known{background:var(--soft)}.nadb .key i.out{width:4px;border:0;background:var(--line)}
.nadb .bounds .line{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:2 5}
.nadb .bounds .axis{stroke:var(--line);stroke-width:1}
.nadb td .line{white-space:nowrap}
.nadb .bounds text{font:12.5px var(--sans);fill:var(--soft)}.nadb .bounds text.strong{fill:var(--ink);font-weight:600}
.nadb .compare{display:grid;gap:16px;margin:22px 0 20px;max-width:680px}
.nadb .compare>div{display:grid;grid-template-columns:13em minmax(0,1fr);gap:4px 16px;align-items:center;font-size:13.5px}
.nadb .compare .lines{display:grid;gap:5px}
.nadb .compare .lines>span{display:grid;grid-template-columns:minmax(0,1fr) 3.6em;gap:10px;align-items:center;font-variant-numeric:tabular-nums}
.nadb .compare .track{height:11px;border-radius:6px;background:var(--well);overflow:hidden;display:block}
.nadb .compare i{display:block;height:100%;border-radius:6px;background:var(--accent)}
.nadb .compare .s0 i{background:var(--soft)}.nadb .compare .share{text-align:right;font-weight:600}
.nadb .key i.s0{background:var(--soft);border-color:var(--soft)}.nadb .key i.s1{background:var(--accent);border-color:var(--accent)}
.nadb .key i.heat{border:0;background:linear-gradient(90deg,#b01c0c,#ff8a2c,#ffd654)}.nadb .key i.box{background:#333;border:2px solid #fff;border-radius:2px;box-shadow:0 0 0 1px var(--line)}
.nadb .pairs .gallery{grid-template-columns:repeat(auto-fill,minmax(200px,1fr))}
.nadb .pairs .gallery .view{aspect-ratio:2/1}
.nadb .pair{display:grid;grid-template-columns:1fr 1fr;gap:3px;width:100%;background:var(--card)}
.nadb .legend{max-width:none}
@media (max-width:640px){.nadb .compare>div{grid-template-columns:1fr}.nadb .hero{grid-template-columns:1fr;gap:20px}.nadb .hero figure{max-width:200px;margin:0 auto;width:100%}
.nadb .turns>div{grid-template-columns:1fr auto;gap:6px 10px}.nadb .turns .mix{grid-column:1/3;grid-row:2}.nadb .mix{gap:2px}
.nadb .mix i{height:24px;font-size:11px;line-height:24px;border-radius:3px}.nadb .key{margin-right:14px}}
"""


def digit_picture(
    image: NDArray[np.float32], *, cells: Sequence[tuple[int, ...]] = (), side: int = 1, alt: str = ""
) -> Html:
    """An input, with a square where each neuron sits.

    Args:
        image: (H, W).
        cells: (channel, row, column) of neurons of a layer that is `side` x `side`.
        side: of the layer.
        alt: the picture in words.
    """
    cell_side = f"width:{100 / side:.4g}%;height:{100 / side:.4g}%"
    squares = "".join(
        f'<i style="left:{100 * column / side:.4g}%;top:{100 * row / side:.4g}%;{cell_side}"></i>'
        for row, column in dict.fromkeys((cell[-2], cell[-1]) for cell in cells)
    )
    return Html(f'<span class="digit">{html.picture(image, alt=alt)}{squares}</span>')


def probability_bars(probabilities: NDArray[np.float32], label: int, predicted: int, *, n: int = 4) -> Html:
    """The most probable digits and the true one, as bars."""
    best = np.argsort(-probabilities, kind="stable")[:n].tolist()
    shown = best if label in best else [*best[:-1], label]
    rows = []
    for digit in shown:
        share = float(probabilities[digit])
        css = "p" if digit == predicted else "l" if digit == label else ""
        rows.append(
            f'<div class="{css}"><b>{digit}</b><span class="track"><i style="width:{max(share, 0.004):.2%}"></i></span>'
            f'<span class="share">{share:.1%}</span></div>'
        )
    return Html(f'<div class="bars">{"".join(rows)}</div>')


def proportion_bar(labels: NDArray[np.int64], label: int, predicted: int) -> Html:
    """One square per input: first those that the network's reading names, then the true digit, then the others."""
    order = sorted(labels.tolist(), key=lambda digit: (digit != predicted, digit != label, digit))
    squares = "".join(
        f'<i class="{"p" if digit == predicted else "l" if digit == label else "o"}">{digit}</i>' for digit in order
    )
    return Html(f'<div class="mix">{squares}</div>')


def comparison_bars(rows: Sequence[tuple[str, Sequence[float]]], series: Sequence[str]) -> Html:
    """Shares as bars, one row for each thing and in it one bar for each series; NaN has none.

    Args:
        rows: (name, shares in [0, 1], one for each series).
        series: their names; a legend is drawn if there are several.
    """
    parts = []
    for name, shares in rows:
        lines = ""
        for position, share in enumerate(shares):
            css = "s0" if len(series) > 1 and position == 0 else "s1"
            known = not np.isnan(share)
            width = f"{max(float(share), 0.004):.2%}" if known else "0"
            value = f"{float(share):.1%}".replace("100.0%", "100%") if known else "–"
            lines += f'<span class="{css}"><span class="track"><i style="width:{width}"></i></span><span class="share">{value}</span></span>'
        parts.append(f'<div><span>{html.text(name)}</span><span class="lines">{lines}</span></div>')
    keys = "".join(
        f'<span class="key"><i class="s{min(i, 1)}"></i>{html.text(name)}</span>' for i, name in enumerate(series)
    )
    legend = f'<p class="note">{keys}</p>' if len(series) > 1 else ""
    return Html(f'<div class="compare">{"".join(parts)}</div>{legend}')


def bounds_figure(found: Intervals, *, n_shown: int = 150) -> Html:
    """Certain intervals of the distance, least lower bound first, and the line that settles them.

    Args:
        found: the intervals and what was evaluated.
        n_shown: draw so many of them at most.
    """
    width, height, left, bottom, top = 1000, 322, 8, 284, 22
    order = np.argsort(found.lower, kind="stable")  # NaN, the target itself, is last
    order = order[: min(n_shown, int(np.isfinite(found.lower).sum()))]
    lower, upper = found.lower[order], found.upper[order]
    tallest = max(float(np.nanmax([*upper[: max(len(upper) // 2, 1)], 1.5 * found.threshold])), 1e-12)
    inside = lower <= tallest
    order, lower, upper = order[inside], lower[inside], upper[inside]
    scale = (bottom - top) / tallest

    def y(value: float) -> str:
        return f"{max(bottom - scale * value, top):.1f}"

    step = (width - 2 * left) / max(len(order), 1)
    paths = dict.fromkeys(("out", "in", "known", "dot"), "")
    for position, i in enumerate(order.tolist()):
        x = f"{left + step * (position + 0.5):.1f}"
        bar = f"M{x} {y(lower[position])}V{y(upper[position])}"
        if found.evaluated[i]:
            paths["in"] += bar
            paths["dot"] += f"M{x} {y(found.exact[i])}h.1"
        elif lower[position] == upper[position]:
            paths["known"] += f"M{x} {y(lower[position])}h.1"
        else:
            paths["out"] += bar
    line = y(found.threshold)
    drawn = "".join(f'<path class="{name}" d="{d}"/>' for name, d in paths.items() if d)
    words = f"The {len(order)} intervals of the distance with the least lower bounds; those that were run are set apart"
    return Html(
        f'<div class="scroll"><svg class="bounds" viewBox="0 0 {width} {height}" role="img" aria-label="{words}"><title>{words}</title>'
        f'<path class="axis" d="M{left} {bottom + 4}H{width - left}"/>{drawn}'
        f'<path class="line" d="M{left} {line}H{width - left}"/>'
        f'<text class="strong" x="{width - left}" y="{float(line) + 19:.1f}" text-anchor="end">the answer ends here</text>'
        f'<text x="{left}" y="{height - 14}">inputs, by their lower bound →</text>'
        f'<text x="{left}" y="{top - 8}">↑ distance</text></svg></div>'
        '<p class="note"><span class="key"><i class="run"></i>run, and then known exactly</span>'
        '<span class="key"><i class="known"></i>known exactly from the index alone</span>'
        '<span class="key"><i class="out"></i>never needed</span></p>'
    )
