"""The walk as one HTML page: the question in words and code, the pictures, and the receipt of each answer.

Made of the components of `viz.html`, so it loads nothing and works offline. Every sentence is computed from the
answers: with another seed or size the page tells what happened there. (Issue 2: the demo.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from neuralartifactdb.demo.figures import STYLE, bounds_figure, digit_picture, probability_bars, proportion_bar
from neuralartifactdb.demo.masks_report import loading_words, masks_sections
from neuralartifactdb.quantities import format_bytes
from neuralartifactdb.results import format_seconds
from neuralartifactdb.viz import html
from neuralartifactdb.viz.html import Card, Html

if TYPE_CHECKING:
    from neuralartifactdb.demo.masks_walk import MasksWalk
    from neuralartifactdb.demo.walk import Group, Step, Walk

__all__ = ["report_page", "write_report"]

_PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MISREAD_SHOWN = 28


def write_report(walk: Walk, looks: MasksWalk, path: Path) -> Path:
    """Write the page; an existing file is replaced at once or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(report_page(walk, looks), encoding="utf-8")
    temporary.replace(path)
    return path


def report_page(walk: Walk, looks: MasksWalk) -> str:
    """The whole document."""
    n = len(walk.prepared.data)
    title = f"Why does the network read this {walk.label} as a {walk.predicted}?"
    if walk.label == walk.predicted:
        title = f"What does the network see in this {walk.label}?"
    return html.page(
        title,
        [
            Html(f"<style>{STYLE}</style>"),
            _mistake(walk),
            _misread(walk),
            _layers(walk),
            *(_layer(walk, name) for name in walk.nearest),
            _excited(walk),
            _same_label(walk),
            _idea(walk),
            *masks_sections(looks),
            _receipts(walk, looks),
            _next(walk),
        ],
        subtitle=(
            "A small network learned to read handwritten digits. To find out why it errs, we ask its inner layers: "
            f"which of {n:,} other inputs look like this one to you? Then we ask {len(looks.prepared.masks):,} "
            "saliency maps where a second network looks, one that learned a shortcut. NeuralArtifactDB answers "
            "exactly, without running a network on all inputs or reading all maps."
        ),
        top_facts=_facts(walk, looks),
        footer=(
            "Written by nadb demo. The digits are the 1,797 real scans that come with scikit-learn, turned, shifted "
            "and scaled. This page works offline."
        ),
    )


def _facts(walk: Walk, looks: MasksWalk) -> list[tuple[str, str]]:
    prepared = walk.prepared
    layers = list(prepared.db.activations.values())
    n_bytes = sum(layer.nbytes for layer in layers)
    full = 4 * len(prepared.data) * sum(layer.n_neurons for layer in layers)
    asked = [step for step in walk.steps if step.recompute_seconds is not None]
    inferred = sum(step.result.stats.evaluated for step in asked) / len(asked)
    faster = sum(step.recompute_seconds or 0.0 for step in asked) / max(sum(step.seconds for step in asked), 1e-9)
    read = sum(step.result.stats.evaluated for step in looks.steps) / len(looks.steps)
    return [
        ("unseen digits read rightly", f"{prepared.accuracy:.1%}"),
        (f"inputs run, of {len(prepared.data):,}", f"{inferred:.0f}"),
        ("faster than running all", f"{faster:,.0f}×"),
        (f"maps read, of {len(looks.prepared.masks):,}", f"{read:.0f}"),
        (f"index, {n_bytes / full:.0%} of activations", format_bytes(n_bytes)),
    ]


# --- the sections -----------------------------------------------------------------------------------------------------


def _mistake(walk: Walk) -> Html:
    prepared, label, predicted = walk.prepared, walk.label, walk.predicted
    probabilities = prepared.prediction.probabilities[walk.target]
    picture = digit_picture(prepared.data.images[walk.target, 0], alt=f"input {walk.target}, a handwritten {label}")
    sure = f"{float(probabilities[predicted]):.0%}"
    unseen = " It never saw this scan while it was trained." if prepared.data.held_out[walk.target] else ""
    words = html.paragraph(
        f"Somebody wrote a {label}. The network is {sure} sure that it is a {predicted}.{unseen} A probability says "
        "that it erred, not why. The reason lies in between: in the thousands of numbers that its layers compute on "
        "the way from pixels to answer."
    )
    if label == predicted:
        words = html.paragraph(
            f"The network misreads no input. This is the one that it is least sure of, a {label} ({sure})."
        )
    figure = f"<figure>{picture}<figcaption>input #{walk.target}</figcaption></figure>"
    bars = probability_bars(probabilities, label, predicted)
    body = Html(f'<div class="hero">{figure}<div>{words}{bars}</div></div>')
    return html.section("The mistake" if label != predicted else "The doubt", body, eyebrow="One input")


def _misread(walk: Walk) -> Html:
    data, read = walk.prepared.data, walk.prepared.prediction.labels
    ids = walk.misread.result.ids
    shown = ids[:_MISREAD_SHOWN]
    if walk.target in ids and walk.target not in shown:
        shown = np.append(shown[:-1], walk.target)
    cards = [
        Card(data.images[i, 0], f"{data.labels[i]} → {read[i]}", lines=[f"#{i}"], mark=_mark(walk, i))
        for i in shown.tolist()
    ]
    more = f" {len(shown)} of them are shown." if len(ids) > len(shown) else ""
    return html.section(
        f"Which inputs does it misread? {len(ids):,} of {len(data):,}",
        html.code('db.filter(nadb.column("predicted") != nadb.column("label"))'),
        html.gallery(cards) if cards else html.paragraph("None."),
        html.receipt(walk.misread.stats, verification=walk.misread.verification),
        lead=(
            "What is written → what the network reads. Labels and predictions are columns of the database, so nothing "
            f"is run.{more}"
        ),
        eyebrow="Question 1",
    )


def _layers(walk: Walk) -> Html:
    """The three `nearest` questions at a glance."""
    label, predicted = walk.label, walk.predicted
    counts = [_count(walk, step, predicted) for step in walk.nearest.values()]
    group, k = next(iter(walk.groups.values())), len(next(iter(walk.nearest.values())).result)
    turns = counts[-1] > counts[0] and label != predicted
    rows = []
    for (name, step), count in zip(walk.nearest.items(), counts, strict=True):
        bar = proportion_bar(walk.prepared.data.labels[step.result.ids], label, predicted)
        rows.append(f"<div><b>{html.text(name)}</b>{bar}<span>{count} of {k} show a {predicted}</span></div>")
    keys = [("p", f"a {predicted}, as the network reads it"), ("l", f"a {label}, as it is written")]
    keys = [*(keys if label != predicted else keys[:1]), ("o", "another digit")]
    legend = "".join(f'<span class="key"><i class="{css}"></i>{words}</span>' for css, words in keys)
    return html.section(
        f"Layer by layer, it turns into a {predicted}" if turns else "Which inputs look like it, layer by layer?",
        html.paragraph(
            f"In each of {_word(len(counts))} layers we take the {_word(len(group.neurons))} neurons that input "
            f"#{walk.target} excites most, and ask for the {k} inputs that look most like it to just these neurons. "
            "Early layers see strokes, so any digit with the same strokes is near. Late layers see what the network "
            "has made of them."
        ),
        Html(f'<div class="turns">{"".join(rows)}</div><p class="note">{legend}</p>'),
        eyebrow="Question 2",
    )


def _layer(walk: Walk, name: str) -> Html:
    """One of them in full."""
    step, group = walk.nearest[name], walk.groups[name]
    k = len(step.result)
    also = "" if walk.label == walk.predicted else f", {_none(_count(walk, step, walk.label))} a {walk.label}"
    channels, height, width = group.shape
    return html.section(
        f"{name}: {_none(_count(walk, step, walk.predicted))} of the {k} nearest show a {walk.predicted}{also}",
        html.code(
            f'layer = db.activations["{name}"]\n'
            f"group = layer.top_neurons({walk.target}, {len(group.neurons)})  # {_listed(group)}\n"
            f"layer.nearest({walk.target}, group, k={k}, include_target=False)"
        ),
        html.gallery([_target_card(walk, group), *_cards(walk, step)]),
        _receipt(step),
        lead=(
            f"{channels * height * width:,} neurons: {channels} channels of {height} × {width}. The squares on the "
            f"first picture are where the {_word(len(group.neurons))} neurons sit. The number is the distance."
            f"{_also_misread(walk, step)}"
        ),
        eyebrow=f"Question 2 · {name}",
    )


def _excited(walk: Walk) -> Html:
    name, group = list(walk.groups.items())[-1]
    step = walk.excited
    k = len(step.result)
    return html.section(
        "What are these neurons looking for?",
        html.code(f'db.activations["{name}"].highest({group.neurons.tolist()}, k={k})'),
        html.gallery(_cards(walk, step)),
        _receipt(step),
        lead=(
            f"The {k} inputs that most excite the same {_word(len(group.neurons))} neurons of {name}: "
            f"{_none(_count(walk, step, walk.predicted))} show a {walk.predicted}. Activations that earlier questions "
            "computed are remembered, and make this one cheaper. The number is the sum."
        ),
        eyebrow="Question 3",
    )


def _same_label(walk: Walk) -> Html:
    name, group = list(walk.groups.items())[-1]
    step, plural = walk.same_label, _PLURALS[walk.label]
    lead = f"The nearest inputs again, among the {step.result.stats.candidates:,} other {plural} only."
    near, far = _median_score(walk.nearest[name]), _median_score(step)
    if near > 0 and far > 0:
        lead += (
            f" To these neurons they are {far / near:.1f} times as far away as the nearest inputs of all: {far:.2f} "
            f"against {near:.2f}, medians compared."
        )
    return html.section(
        f"How far away are the {'real' if walk.label != walk.predicted else 'other'} {plural}?",
        html.code(
            f"layer.nearest({walk.target}, group, k={len(step.result)}, include_target=False,\n"
            f'              where=db.inputs["label"] == {walk.label})'
        ),
        html.gallery([_target_card(walk, group), *_cards(walk, step)]),
        _receipt(step),
        lead=lead,
        eyebrow="Question 4",
    )


def _idea(walk: Walk) -> Html:
    found, name = walk.intervals, list(walk.groups)[-1]
    return html.section(
        "How can it know without looking?",
        html.paragraph(
            "Bound, then verify. For every neuron and every input the index keeps a few bits: in which slice of the "
            "neuron's range the activation lies. That makes each distance a certain interval, a bar below. Once the "
            "answer's worst distance is known (the line), every bar that begins above it is out for good: no run of "
            "the network could bring it in. Only bars that begin below the line were open, and the network was run for "
            "these."
        ),
        bounds_figure(found),
        html.paragraph(
            f"This is the {name} question: of {len(found.lower) - 1:,} intervals those with the least lower bounds. "
            f"{walk.nearest[name].result.stats.evaluated:,} inputs were run.",
            note=True,
        ),
        eyebrow="The idea",
    )


def _receipts(walk: Walk, looks: MasksWalk) -> Html:
    rows = []
    for step in [*walk.steps, *looks.steps]:
        other, stats = step.recompute_seconds, step.result.stats
        rows.append(
            [
                Html(f'<span class="line">{html.text(step.name)}</span>'),
                f"{stats.evaluated:,}",
                f"{stats.candidates:,}",
                format_seconds(step.seconds),
                "–" if other is None else format_seconds(other),
                "–" if other is None else f"{other / step.seconds:,.0f}×",
                html.badge("equal" if step.verification.equal else "differs", good=step.verification.equal),
            ]
        )
    return html.section(
        "What each answer cost",
        html.table(
            ["question", "run or read", "of", "time", "all of them", "faster", "checked"],
            rows,
        ),
        html.paragraph(
            "Checked: the same question answered by brute force gives the same inputs, in the same order, with the "
            "same scores. All of them, for activations: plain forward passes up to the layer in batches of 256, on one "
            f"thread. {loading_words(looks)}",
            note=True,
        ),
        eyebrow="The receipts",
    )


def _next(walk: Walk) -> Html:
    name = list(walk.groups)[-1]
    return html.section(
        "Ask your own network",
        html.code(
            "import neuralartifactdb as nadb\n\n"
            'db = nadb.open("run.nadb")\n'
            f'db.index_activations(model, dataset, ["{name}"], storage=0.2)  # the same call again finds it done\n'
            f'layer = db.activations["{name}"]\n'
            f"result = layer.nearest({walk.target}, layer.top_neurons({walk.target}, 3), k=20)\n"
            "result.verify()  # against brute force, whenever you doubt it\n"
            'result.save_html("answer.html")'
        ),
        lead="Any PyTorch model and dataset. The model is left as it was; the index answers in later processes too.",
        eyebrow="Next",
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def _target_card(walk: Walk, group: Group) -> Card:
    image = walk.prepared.data.images[walk.target, 0]
    picture = digit_picture(image, cells=group.coordinates, side=group.shape[-1], alt=f"input {walk.target}")
    return Card(picture, f"{walk.label} → {walk.predicted}", lines=[f"#{walk.target}"], mark="target")


def _cards(walk: Walk, step: Step) -> list[Card]:
    data, read = walk.prepared.data, walk.prepared.prediction.labels
    cards = []
    for rank, row in enumerate(step.result, start=1):
        label, predicted = int(data.labels[row.id]), int(read[row.id])
        title = f"a {label}" if label == predicted else f"{label} → {predicted}"
        score = "" if row.score is None else f"{row.score:.2f}" if abs(row.score) < 10 else f"{row.score:.1f}"
        cards.append(Card(data.images[row.id, 0], title, score, [f"#{row.id}"], rank=rank, mark=_mark(walk, row.id)))
    return cards


def _mark(walk: Walk, input_id: int) -> Literal["target"] | None:
    return "target" if input_id == walk.target else None


def _receipt(step: Step) -> Html:
    assert step.recompute_seconds is not None
    return html.receipt(
        step.stats,
        certainty=step.result.certainty,
        verification=step.verification,
        compared_with=("running all", step.recompute_seconds),
    )


def _count(walk: Walk, step: Step, label: int) -> int:
    return int((walk.prepared.data.labels[step.result.ids] == label).sum())


def _also_misread(walk: Walk, step: Step) -> str:
    """How many of the nearest with the true label are misread themselves."""
    same = step.result.ids[walk.prepared.data.labels[step.result.ids] == walk.label]
    wrong = int((walk.prepared.prediction.labels[same] != walk.label).sum())
    if walk.label == walk.predicted or not wrong:
        return ""
    return f" Of the {len(same)} that show a {walk.label}, {wrong} {'is' if wrong == 1 else 'are'} misread too."


def _median_score(step: Step) -> float:
    scores = step.result.scores
    return 0.0 if scores is None or not len(scores) else float(np.median(scores))


def _listed(group: Group) -> str:
    return ", ".join(map(str, group.coordinates))


def _none(number: int) -> str:
    return f"{number}" if number else "none"


def _word(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else f"{number:,}"
