"""Layer names: dotted names, globs, modules, inputs, compiled and wrapped models, near names."""

from __future__ import annotations

import pytest
import torch
from capture_models import Mlp, TextEncoder, conv_net
from torch import nn

from neuralartifactdb.capture.layers import by_layer, resolve_layers, unwrap
from neuralartifactdb.errors import DtypeError, InvalidValueError, UnknownNameError


def names(model, layers):
    return [(target.name, target.module, target.takes_input) for target in resolve_layers(model, layers)]


def test_names_modules_and_dicts():
    net = Mlp()
    assert names(net, "first") == [("first", net.first, False)]
    assert names(net, net.head) == [("head", net.head, False)]
    assert names(net, ["act", net.first]) == [("act", net.act, False), ("first", net.first, False)]
    assert names(net, ["first:input"]) == [("first:input", net.first, True)]
    assert names(net, {"a": net.first, "b": "second:input"}) == [("a", net.first, False), ("b", net.second, True)]
    assert [target.path for target in resolve_layers(net, {"a": net.first, "b": "second:input"})] == [
        "first",
        "second:input",
    ]
    assert names(net, ["first", "first"]) == [("first", net.first, False)]
    assert names(net, [net]) == [("output", net, False)]


def test_globs_stay_within_a_level_unless_doubled():
    net = TextEncoder()
    assert [n for n, *_ in names(net, "encoder.layers.*")] == ["encoder.layers.0", "encoder.layers.1"]
    assert [n for n, *_ in names(net, "**.linear1")] == ["encoder.layers.0.linear1", "encoder.layers.1.linear1"]
    assert [n for n, *_ in names(net, "encoder.layers.[1-9].linear?")] == [
        "encoder.layers.1.linear1",
        "encoder.layers.1.linear2",
    ]
    assert [n for n, *_ in names(net, "**.linear1:input")] == [
        "encoder.layers.0.linear1:input",
        "encoder.layers.1.linear1:input",
    ]


def test_unknown_names_show_near_ones():
    with pytest.raises(UnknownNameError, match=r"no layer 'frist'; near names: first"):
        resolve_layers(Mlp(), ["frist"])
    with pytest.raises(UnknownNameError, match=r"no layer 'x.*'"):
        resolve_layers(Mlp(), ["x.*"])
    with pytest.raises(UnknownNameError, match="not part of the model"):
        resolve_layers(Mlp(), [nn.Linear(1, 1)])
    with pytest.raises(InvalidValueError, match="layers is empty"):
        resolve_layers(Mlp(), [])
    with pytest.raises(DtypeError, match="got 3 of type int"):
        resolve_layers(Mlp(), [3])
    with pytest.raises(DtypeError, match="got int"):
        resolve_layers(Mlp(), 3)
    with pytest.raises(InvalidValueError, match="two modules"):
        resolve_layers(Mlp(), {"a": "*"})


def test_marks_of_wrappers_are_left_out():
    net = conv_net()
    net[0] = CompiledLike(net[0])
    target = resolve_layers(net, ["0"])[0]
    assert target.name == "0"
    assert isinstance(target.module, nn.Conv2d)
    assert resolve_layers(net, ["0._orig_mod"])[0].module is target.module
    assert resolve_layers(net, [net[0]])[0].module is target.module
    wrapped = nn.DataParallel(net)
    assert unwrap(wrapped) is net
    assert resolve_layers(unwrap(wrapped), ["module.3"])[0].name == "3"
    outer = nn.Sequential(nn.DataParallel(Mlp()))
    with pytest.raises(InvalidValueError, match=r"'0' of the model is a DataParallel.*its .module"):
        resolve_layers(outer, ["0"])


class CompiledLike(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._orig_mod(x)


def test_options_by_layer():
    targets = resolve_layers(TextEncoder(), ["encoder.layers.*", "embedding"])
    chosen = by_layer({"encoder.layers.*": "max", "encoder.layers.1": "mean"}, targets, None, "reduce")
    assert chosen == {"encoder.layers.0": "max", "encoder.layers.1": "mean", "embedding": None}
    assert set(by_layer("max", targets, None, "reduce").values()) == {"max"}
    with pytest.raises(UnknownNameError, match=r"Capture.reduce names the layer 'head'"):
        by_layer({"head": "max"}, targets, None, "reduce")


@pytest.mark.parametrize("glob", ["encoder.[z-a]", "**.[9-0]*"])
def test_bad_globs_are_refused_in_words(glob):
    net = TextEncoder()
    with pytest.raises(InvalidValueError, match=r"the glob .* for layers must have ranges in ascending order"):
        resolve_layers(net, glob)
    with pytest.raises(InvalidValueError, match="for layers must have"):
        by_layer({glob: None}, resolve_layers(net, "encoder"), None, "reduce")


@pytest.mark.parametrize("glob", ["*[[x]", "*[&&x]", "*[a||b]", "*[~~]", "*[\\]", "*[^a]", "[!]"])
def test_marks_of_regular_expressions_are_plain_in_globs(glob):
    with pytest.raises(UnknownNameError, match="no layer"):
        resolve_layers(nn.Sequential(nn.Linear(2, 2)), glob)


def test_an_exclamation_mark_negates():
    assert [n for n, *_ in names(TextEncoder(), "encoder.layers.[!0]")] == ["encoder.layers.1"]
