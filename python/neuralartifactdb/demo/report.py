"""The walk as one HTML page: the question in words and code, the pictures, and the receipt of each answer.

Made of the components of `viz.html`, so it loads nothing and works offline. Every sentence is computed from the answers: with
another seed or size the page tells what happened there. (Issue 2: the demo.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralartifactdb.demo.figures import STYLE, bounds_figure, digit_picture, probability_bars, proportion_bar
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html

if TYPE_CHECKING:
    from neuralartifactdb.demo.walk import Group, Step, Walk

__all__ = ["report_page", "write_report"]

_PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MISREAD_SHOWN = 28


def write_report(walk: Walk, path: Path) -> Path:
    """Write the page; an existing file is replaced at once or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(report_page(walk), encoding="utf-8")
    temporary.replace(path)
    return path


def report_page(walk: Walk) -> str:
    """The whole document."""
    prepared = walk.prepared
    n = len(prepared.data)
    layers = list(prepared.db.activations.values())
    n_neurons = sum(layer.n_neurons for layer in layers)
    n_bytes = sum(layer.nbytes for layer in layers)
    right = walk.label == walk.predicted
    title = (
        f"What does the network see in this {walk.label}?"
        if right
        else f"Why does the network read this {walk.label} as a {walk.predicted}?"
    )
    asked = [step for step in walk.steps if step.recompute_seconds is not None]
    inferred = sum(step.result.stats.evaluated for step in asked)
    faster = sum(step.recompute_seconds or 0.0 for step in asked) / max(sum(step.seconds for step in asked), 1e-9)
    return html.page(
        title,
        [
            _style(),
            _mistake(walk),
            _misread(walk),
            *_layers(walk),
            _excited(walk),
            _same_label(walk),
            _how(walk),
            _costs(walk),
            _try(walk),
        ],
        subtitle=(
            "A small network learned to read handwritten digits. To find out why it errs, we ask its inner layers: which "
            f"of {n:,} other inputs look like this one to you? NeuralArtifactDB answers exactly, without running the network on "
            "all of them."
        ),
        top_facts=[
            ("of unseen digits read rightly", f"{prepared.accuracy:.1%}"),
            (f"inputs run per question, of {n:,}", f"{inferred / len(asked):.0f}"),
            ("faster than running all", f"{faster:,.0f}×"),
            (f"index, {n_bytes / (4 * n_neurons * n):.0%} of the activations", format_bytes(n_bytes)),
        ],
        footer="Written by `nadb demo`. The digits are scikit-learn's 1,797 real scans, turned, shifted and scaled. This page works offline.",
    )


def _style() -> Html:
    return Html(f"<style>{STYLE}</style>")


# --- the sections -----------------------------------------------------------------------------------------------------


def _mistake(walk: Walk) -> Html:
    prepared = walk.prepared
    probabilities = prepared.prediction.probabilities[walk.target]
    picture = digit_picture(
        prepared.data.images[walk.target, 0], alt=f"input {walk.target}, a handwritten {walk.label}"
    )
    sure = f"{float(probabilities[walk.predicted]):.0%}"
    words = html.paragraph(
        f"Somebody wrote a {walk.label}. The network is {sure} sure that it is a {walk.predicted}. It never saw this scan while it "
        "was trained. A probability says that it erred, not why. The reason lies in between: in the thousands of numbers that its "
        "layers compute on the way from pixels to answer."
    )
    if walk.label == walk.predicted:
        words = html.paragraph(
            f"The network misreads no input. This is the one it is least sure of, a {walk.label} ({sure})."
        )
    bars = probability_bars(probabilities, walk.label, walk.predicted)
    body = Html(
        f'<div class="hero"><figure>{picture}<figcaption>input #{walk.target}</figcaption></figure><div>{words}{bars}</div></div>'
    )
    return html.section("The mistake", body, eyebrow="One input")


def _misread(walk: Walk) -> Html:
    prepared = walk.prepared
    ids = walk.misread.result.ids
    shown = ids[:_MISREAD_SHOWN]
    if len(ids) and walk.target in ids and walk.target not in shown:
        shown = np.append(shown[:-1], walk.target)
    cards = [
        Card(
            prepared.data.images[i, 0],
            f"{prepared.data.labels[i]} → {prepared.prediction.labels[i]}",
            lines=[f"#{i}"],
            mark="target" if i == walk.target else None,
        )
        for i in shown.tolist()
    ]
    more = f" The first {len(shown)} are shown." if len(ids) > len(shown) else ""
    return html.section(
        f"Which inputs does it misread? {len(ids):,} of {len(prepared.data):,}",
        html.code('db.filter(nadb.column("predicted") != nadb.column("label"))'),
        html.gallery(cards) if cards else html.paragraph("None."),
        html.receipt(walk.misread.stats, verification=walk.misread.verification),
        lead=f"What is written → what the network reads. Labels and predictions are columns of the database, so nothing is run.{more}",
        eyebrow="Question 1",
    )


def _layers(walk: Walk) -> list[Html]:
    counts = {name: _count(walk, step, walk.predicted) for name, step in walk.nearest.items()}
    names = list(counts)
    k = len(next(iter(walk.nearest.values())).result)
    first, last = counts[names[0]], counts[names[-1]]
    turns = last > first and walk.label != walk.predicted
    heading = (
        f"Layer by layer, it turns into a {walk.predicted}" if turns else "Which inputs look like it, layer by layer?"
    )
    rows = []
    for name, step in walk.nearest.items():
        labels = walk.prepared.data.labels[step.result.ids]
        rows.append(
            Html(
                f"<div><b>{html.text(name)}</b>{proportion_bar(labels, walk.label, walk.predicted)}"
                f"<span>{counts[name]} of {k} show a {walk.predicted}</span></div>"
            )
        )
    summary = html.section(
        heading,
        html.paragraph(
            f"In each of {_word(len(names))} layers we take the {_word(len(walk.groups[names[0]].neurons))} neurons that input #{walk.target} "
            f"excites most, and ask for the {k} inputs that look most like it to just these neurons. Early layers see strokes, so "
            "any digit with the same strokes is near. Late layers see what the network has made of them."
        ),
        Html(f'<div class="turns">{html.join(rows)}</div>'),
        html.paragraph(_legend(walk), note=True),
        eyebrow="Question 2",
    )
    return [summary, *(_layer(walk, name) for name in names)]


def _legend(walk: Walk) -> Html:
    others = '<span class="key"><i class="o"></i>another digit</span>'
    predicted = f'<span class="key"><i class="p"></i>a {walk.predicted}, as the network reads it</span>'
    label = f'<span class="key"><i class="l"></i>a {walk.label}, as it is written</span>'
    return Html(predicted + ("" if walk.label == walk.predicted else label) + others)


def _layer(walk: Walk, name: str) -> Html:
    step, group = walk.nearest[name], walk.groups[name]
    source = (
        f'layer = db.activations["{name}"]\n'
        f"group = layer.top_neurons({walk.target}, {len(group.neurons)})  # {', '.join(map(str, group.coordinates))}\n"
        f"layer.nearest({walk.target}, group, k={len(step.result)}, include_target=False)"
    )
    channels, height, width = group.shape
    return html.section(
        f"{name}: {_none(_count(walk, step, walk.predicted))} of the {len(step.result)} nearest show a {walk.predicted}"
        + ("" if walk.label == walk.predicted else f", {_none(_count(walk, step, walk.label))} a {walk.label}"),
        html.code(source),
        html.gallery([_target_card(walk, group), *_cards(walk, step)]),
        _receipt(step),
        lead=(
            f"{channels * height * width:,} neurons: {channels} channels of {height} × {width}. The squares on the first picture are "
            f"where the {_word(len(group.neurons))} neurons sit. The number is the distance."
        ),
        eyebrow=f"Question 2 · {name}",
    )


def _excited(walk: Walk) -> Html:
    name = list(walk.groups)[-1]
    group, step = walk.groups[name], walk.excited
    labels = walk.prepared.data.labels[step.result.ids]
    n_predicted = int((labels == walk.predicted).sum())
    return html.section(
        "What are these neurons looking for?",
        html.code(f'db.activations["{name}"].highest({group.neurons.tolist()}, k={len(step.result)})'),
        html.gallery(_cards(walk, step)),
        _receipt(step),
        lead=(
            f"The {len(step.result)} inputs that most excite the same {_word(len(group.neurons))} neurons of {name}: {n_predicted} show a "
            f"{walk.predicted}. Activations that earlier questions computed are remembered, and make this one cheaper. The number is the sum."
        ),
        eyebrow="Question 3",
    )


def _same_label(walk: Walk) -> Html:
    name = list(walk.groups)[-1]
    group, step = walk.groups[name], walk.same_label
    plural = _PLURALS[walk.label]
    heading = f"How far away are the real {plural}?"
    nearest = walk.nearest[name].result
    lead = f"The nearest inputs again, among the {step.result.stats.candidates:,} other {plural} only."
    if nearest.scores is not None and step.result.scores is not None and len(step.result) and nearest.scores[0] > 0:
        ratio = float(np.median(step.result.scores)) / float(np.median(nearest.scores))
        lead += (
            f" To these neurons they are {ratio:.1f} times as far away as the nearest inputs of all, medians compared:"
            f" {np.median(step.result.scores):.3g} against {np.median(nearest.scores):.3g}."
        )
    source = (
        f'db.activations["{name}"].nearest({walk.target}, {group.neurons.tolist()}, k={len(step.result)},\n'
        f'                                 include_target=False, where=db.inputs["label"] == {walk.label})'
    )
    return html.section(
        heading,
        html.code(source),
        html.gallery([_target_card(walk, group), *_cards(walk, step)]),
        _receipt(step),
        lead=lead,
        eyebrow="Question 4",
    )


def _how(walk: Walk) -> Html:
    found = walk.intervals
    name = list(walk.groups)[-1]
    n_run = int(found.evaluated.sum())
    return html.section(
        "How can it know without looking?",
        html.paragraph(
            "Bound, then verify. For every neuron and every input the index keeps a few bits: in which slice of the neuron's "
            "range the activation lies. That makes each distance a certain interval, a bar below. Once the answer's worst distance "
            "is known (the line), every bar that begins above it is out for good: no run of the network could bring it in. Only bars that "
            "begin below the line were open, and the network was run for these."
        ),
        bounds_figure(found),
        html.paragraph(
            f"This is the {name} question: of {len(found.lower) - 1:,} intervals those with the least lower bounds. "
            f"{n_run:,} inputs were run.",
            note=True,
        ),
        eyebrow="The idea",
    )


def _costs(walk: Walk) -> Html:
    rows = []
    for step in walk.steps:
        other = step.recompute_seconds
        rows.append(
            [
                step.name,
                f"{step.result.stats.evaluated:,}",
                f"{step.result.stats.candidates:,}",
                format_seconds(step.seconds),
                "–" if other is None else format_seconds(other),
                "–" if other is None else f"{other / step.seconds:,.0f}×",
                html.badge("equal" if step.verification.equal else "differs", good=step.verification.equal),
            ]
        )
    columns = ["question", "inputs run", "of", "time", "running all", "faster", "checked"]
    return html.section(
        "What each answer cost",
        html.table(
            columns,
            rows,
            caption=(
                "Checked: the same question answered by brute force gives the same inputs, in the same order, with the same scores. "
                "Running all: plain forward passes up to the layer in batches of 256, on the same machine."
            ),
        ),
        eyebrow="The receipts",
    )


def _try(walk: Walk) -> Html:
    name = list(walk.groups)[-1]
    source = (
        "import neuralartifactdb as nadb\n\n"
        'db = nadb.open("run.nadb")\n'
        f'db.index_activations(model, dataset, ["{name}"], storage=0.2)  # once; the same call again finds it done\n'
        f'layer = db.activations["{name}"]\n'
        f"result = layer.nearest({walk.target}, layer.top_neurons({walk.target}, {len(walk.groups[name].neurons)}), k=20)\n"
        "result.verify()  # against brute force, whenever you doubt it\n"
        'result.save_html("answer.html")'
    )
    return html.section(
        "Ask your own network",
        html.code(source),
        lead="Any PyTorch model and dataset. The model is left as it was; the index opens and answers in a later process too.",
        eyebrow="Next",
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def _target_card(walk: Walk, group: Group) -> Card:
    image = walk.prepared.data.images[walk.target, 0]
    picture = digit_picture(image, cells=group.coordinates, side=group.shape[-1], alt=f"input {walk.target}")
    return Card(picture, f"{walk.label} → {walk.predicted}", lines=[f"#{walk.target}"], mark="target")


def _cards(walk: Walk, step: Step) -> list[Card]:
    data, prediction = walk.prepared.data, walk.prepared.prediction
    cards = []
    for rank, row in enumerate(step.result, start=1):
        label, predicted = int(data.labels[row.id]), int(prediction.labels[row.id])
        read = f"a {label}" if label == predicted else f"{label} → {predicted}"
        score = "" if row.score is None else f"{row.score:.3g}"
        mark = "target" if row.id == walk.target else None
        cards.append(Card(data.images[row.id, 0], read, score, [f"#{row.id}"], rank=rank, mark=mark))
    return cards


def _receipt(step: Step) -> Html:
    other = step.recompute_seconds
    return html.receipt(
        step.stats,
        certainty=step.result.certainty,
        verification=step.verification,
        compared_with=None if other is None else ("running all", other),
    )


def _count(walk: Walk, step: Step, label: int) -> int:
    return int((walk.prepared.data.labels[step.result.ids] == label).sum())


def _none(number: int) -> str:
    return f"{number}" if number else "none"


def _word(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else f"{number:,}"
