"""From a model to exact answers and back: index, query, attach in a later session, refuse another model or dataset."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from capture_models import Sentences, TextEncoder, assert_undisturbed, conv_net, images, pad_right, snapshot

import neuralartifactdb as nadb


def assert_exact(layer, model_calls):
    for result in (
        layer.highest([1, 3], k=7),
        layer.highest([0], k=5, largest=False),
        layer.nearest(11, [0, 2, 4], k=6),
        layer.nearest(5, None, k=3, metric="l1"),
    ):
        assert result.exact
        assert result.tolerance == 0
        assert result.verify().equal
        model_calls.append(result.stats.inputs_inferred)


def test_a_conv_net_in_two_sessions(db_path):
    net, data = conv_net(), images(1500)
    before = snapshot(net)
    inferred: list[int] = []
    with nadb.open(db_path) as db:
        db.index_activations(net, data, ["0", "2", "8"], storage=0.2)
        assert_undisturbed(before, net)
        for name in ("0", "2", "8"):
            assert_exact(db.activations[name], inferred)
        assert_undisturbed(before, net)
    assert 0 < sum(inferred) < 1500 * len(inferred) / 4
    with nadb.open(db_path) as db:
        for name in ("0.weight", "1.running_var"):
            other = conv_net()
            with torch.no_grad():
                other.state_dict()[name].view(-1)[0] += 1
            with pytest.raises(nadb.StaleIndexError, match=f"weights or buffers in {name[0]}"):
                db.attach(other, data)
        with pytest.raises(nadb.StaleIndexError, match="the dataset: input"):
            db.attach(net, data.flip(0))
        with pytest.raises(nadb.StaleIndexError, match="1,500 inputs are indexed, there are 1,400 now"):
            db.attach(net, data[:1400])
        db.attach(conv_net(), torch.cat([data, images(50, 9)]))
        assert_exact(db.activations["2"], inferred)


def test_a_transformer_over_padded_text(db_path):
    torch.manual_seed(2)
    model, data = TextEncoder().train(), Sentences(300)
    before = snapshot(model)
    capture = nadb.Capture(batch_size=32, collate_fn=pad_right, reduce="max")
    inferred: list[int] = []
    with nadb.open(db_path) as db:
        db.index_activations(model, data, ["encoder.layers.*"], storage=0.3, capture=capture)
        for layer in ("encoder.layers.0", "encoder.layers.1"):
            assert_exact(db.activations[layer], inferred)
    assert_undisturbed(before, model)
    with nadb.open(db_path) as db:
        db.attach(model, data, capture=nadb.Capture(collate_fn=pad_right, reduce="max"))  # the stored batch size counts
        assert_exact(db.activations["encoder.layers.1"], inferred)
        with pytest.raises(nadb.StaleIndexError, match="capture's reduce: 'max' when indexed, now 'mean'"):
            db.attach(model, data, capture=nadb.Capture(collate_fn=pad_right, reduce="mean"))


def test_nan_is_named(db_path):
    data = images(300)
    data[123] = np.nan
    with nadb.open(db_path) as db, pytest.raises(ValueError, match=r"(?s)2.*123"):
        db.index_activations(conv_net(), data, ["2"], storage=0.2)
