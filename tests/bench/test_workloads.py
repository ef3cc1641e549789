"""Corpus, forward passes and queries of the bench: deterministic, and what they say they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bench.activations.corpus import FIRST_WORD, PAD, UNKNOWN, docstring_sentences, tokenize  # noqa: E402
from bench.activations.encoder import MLP_LAYERS, build_encoder, train_encoder  # noqa: E402
from bench.activations.forward import stream_rows  # noqa: E402
from bench.activations.queries import cell, group_of, sequence  # noqa: E402
from bench.activations.report import SIZES, Report  # noqa: E402
from bench.tables import Table  # noqa: E402


def test_sentences_of_docstrings(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""First sentence has words. No.\n\nAnother one\nover two lines! """\ndef f():\n    "x"\n'
    )
    (tmp_path / "b.py").write_text('class C:\n    """First sentence has words. A fresh one is here."""\n')
    (tmp_path / "broken.py").write_text("def (:\n")
    assert docstring_sentences(tmp_path) == [
        "First sentence has words.",
        "Another one over two lines!",
        "A fresh one is here.",
    ]


def test_tokens_are_by_frequency_and_padded():
    corpus = tokenize(["the cat, the dog", "the end " * 10], length=6, n_words=2)
    assert corpus.vocabulary == ("the", "end")
    the, end = FIRST_WORD, FIRST_WORD + 1
    assert corpus.tokens.tolist() == [[the, UNKNOWN, UNKNOWN, the, UNKNOWN, PAD], [the, end] * 3]
    assert corpus.attention_mask.sum(axis=1).tolist() == [5, 6]


def test_training_is_deterministic_and_leaves_the_random_state():
    corpus = tokenize(
        [f"word{i % 7} follows word{i % 3} in sentence number {i}" for i in range(40)], length=10, n_words=30
    )
    state = torch.get_rng_state()
    first, second = (train_encoder(corpus, epochs=2, batch_size=8) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.loss == second.loss
    assert first.steps == 10
    untrained = build_encoder(corpus.n_tokens, 10)
    assert not torch.equal(untrained.words.weight, first.model.words.weight)
    assert not first.model.training


def test_streaming_stops_early_pads_the_last_batch_and_does_not_depend_on_which_layers_are_hooked():
    model = build_encoder(20, 6).eval()
    tokens = np.random.default_rng(0).integers(3, 20, (7, 6))
    mask = np.ones((7, 6), dtype=bool)
    mask[3, 4:] = False
    shapes = []

    def reduce(output, batch):
        shapes.append(tuple(output.shape))
        return output.masked_fill(~batch[1][:, :, None], -torch.inf).amax(dim=1)

    def rows(layers):
        parts = [r for _, r in stream_rows(model, layers, (tokens, mask), batch_size=4, reduce=reduce)]
        return {name: np.concatenate([part[name] for part in parts]) for name in layers}

    fired = []
    model.encoder.layers[2].register_forward_hook(lambda *_: fired.append(1))
    one = rows([MLP_LAYERS[1]])
    assert set(shapes) == {(4, 6, 512)}
    assert not fired
    assert one[MLP_LAYERS[1]].shape == (7, 512)
    np.testing.assert_array_equal(one[MLP_LAYERS[1]], rows(list(MLP_LAYERS))[MLP_LAYERS[1]])
    assert not model.encoder.layers[1].activation._forward_hooks


def _workload(n=50, m=40):
    rows = np.random.default_rng(0).standard_normal((n, m)).astype(np.float32)
    return SimpleNamespace(name="w", n_inputs=n, rows=lambda layer: rows)


def test_groups_come_from_the_targets_activations():
    row = np.array([0.1, 3.0, 2.0, 3.0, -1.0, 0.0], dtype=np.float32)
    rng = np.random.default_rng(0)
    assert group_of(row, "SimTop", 3, rng).tolist() == [1, 3, 2]
    drawn = [tuple(sorted(group_of(row, "SimHigh", 2, rng).tolist())) for _ in range(50)]
    assert set(drawn) == {(1, 2), (1, 3), (2, 3)}


def test_cells_are_deterministic_and_share_targets_between_kinds():
    workload = _workload()
    nearest, again = (cell(workload, "a", "nearest", "SimHigh", 3, 5) for _ in range(2))
    highest = cell(workload, "a", "highest", "SimHigh", 3, 5)
    for one, two, three in zip(nearest, again, highest, strict=True):
        assert one.target == two.target == three.target
        assert one.group.tolist() == two.group.tolist() == three.group.tolist()
    other = cell(workload, "a", "nearest", "SimHigh", 10, 5)
    assert [q.target for q in other] != [q.target for q in nearest]


def test_a_session_moves_as_it_says():
    steps = list(sequence(_workload(), ["a", "b", "c"], 200))
    current, seen = None, set()
    for move, query in steps:
        if move == "stay":
            assert query.layer == current
        elif move == "return":
            assert query.layer in seen - {current}
        else:
            assert query.layer not in seen
        current = query.layer
        seen.add(current)
    moves = [move for move, _ in steps]
    assert moves.count("new") == 3
    assert 60 <= moves.count("stay") <= 140
    assert len({query.target for _, query in steps}) <= 20


def test_tables_and_reports(tmp_path):
    table = Table("Title", "conditions", ("a", "b"), notes=["a note"])
    table.add("x|y", 2)
    assert "| x\\|y | 2 |" in table.to_markdown()
    assert table.to_text().splitlines()[2:4] == ["a    b", "---  -"]
    with pytest.raises(ValueError, match="needs 2 cells, got 1"):
        table.add("x")
    report = Report(SIZES["standard"], tmp_path)
    report.tables.append(table)
    report.goal("reach it", "5", met=False)
    assert "| reach it | 5 | NO |" in report.to_markdown(["s"])
    assert '"met": false' in report.to_json(["s"])
    assert Report(SIZES["small"], tmp_path).goals_table().rows == []
