"""Reductions against plain loops, whatever the padding; dtypes; which tensor of an output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from capture_models import Output
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb.capture.reduction import choose_tensor, make_reduction, storage_name, widen
from neuralartifactdb.errors import DtypeError, InvalidValueError


def padded(lengths, n_positions, width, left, seed):
    """Values with NaN at padded positions: one that leaks in is seen."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.full((len(lengths), n_positions, width), torch.nan)
    valid = torch.zeros(len(lengths), n_positions, dtype=torch.bool)
    rows = []
    for b, length in enumerate(lengths):
        row = torch.randn(length, width, generator=generator)
        at = slice(n_positions - length, None) if left else slice(0, length)
        values[b, at] = row
        valid[b, at] = True
        rows.append(row)
    return values, valid, rows


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    extra=st.integers(0, 30),
    left=st.booleans(),
    kind=st.sampled_from(["max", "mean"]),
    seed=st.integers(0, 1000),
)
def test_padding_is_left_out_and_changes_no_bit(lengths, extra, left, kind, seed):
    n_positions = max(lengths) + extra
    values, valid, rows = padded(lengths, n_positions, 3, left, seed)
    reduce = make_reduction(kind, "layer")
    found = reduce(values, valid)
    for b, row in enumerate(rows):
        alone = reduce(row[None], torch.ones(1, len(row), dtype=torch.bool))[0]
        assert torch.equal(found[b], alone)
        expected = row.amax(0) if kind == "max" else row.double().mean(0)
        torch.testing.assert_close(found[b].double(), expected.double(), rtol=1e-5, atol=1e-6)
        assert torch.equal(alone, reduce(row[None], None)[0])


def test_scattered_positions_count_in_order():
    values = torch.arange(12.0, dtype=torch.float64).reshape(1, 6, 2)
    valid = torch.tensor([[False, True, False, True, True, False]])
    assert make_reduction("mean", "l")(values, valid).tolist() == [[16 / 3, 19 / 3]]
    assert make_reduction("max", "l")(values, valid).tolist() == [[8.0, 9.0]]


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_axes(kind):
    values = torch.randn(2, 3, 4, 5)
    plain = torch.amax if kind == "max" else torch.mean
    for how, axes in ((kind, (2, 3)), ((kind, 1), (1,)), ((kind, (1, -1)), (1, 3))):
        found = make_reduction(how, "l")(values, None)
        torch.testing.assert_close(found, plain(values, axes))
    assert torch.equal(make_reduction(kind, "l")(values[:, :, 0, 0], None), values[:, :, 0, 0])
    with pytest.raises(InvalidValueError, match=r"knows 3-D outputs.*\[2, 3, 4, 5, 1\].*reduce="):
        make_reduction(kind, "l")(values[..., None], None)
    with pytest.raises(InvalidValueError, match=r"axes from 1 to 3.*\[2, 3, 4, 5\]"):
        make_reduction((kind, 4), "l")(values, None)
    with pytest.raises(InvalidValueError, match="distinct axes"):
        make_reduction((kind, (3, -1)), "l")(values, None)


def test_attention_maps_leave_out_padding_on_both_axes():
    weights = torch.zeros(1, 2, 3, 3)
    weights[0, :, 2, :] = 9.0
    weights[0, :, :, 2] = 9.0
    weights[0, 1, 0, 1] = 4.0
    valid = torch.tensor([[True, True, False]])
    assert make_reduction("max", "l")(weights, valid).tolist() == [[0.0, 4.0]]


def test_positions_of_another_length_are_refused():
    with pytest.raises(InvalidValueError, match=r"positions are \[1, 5\].*\[1, 4, 2\].*positions=lambda batch: None"):
        make_reduction("max", "l")(torch.zeros(1, 4, 2), torch.ones(1, 5, dtype=torch.bool))


def test_callables_may_take_the_positions():
    valid = torch.tensor([[True, False]])
    values = torch.tensor([[[1.0], [5.0]]])
    assert make_reduction(lambda y: y[:, 0], "l")(values, valid).tolist() == [[1.0]]
    assert make_reduction(lambda y, v: (y * v[..., None]).sum(1), "l")(values, valid).tolist() == [[1.0]]
    with pytest.raises(InvalidValueError, match="must return a tensor"):
        make_reduction(lambda y: 3, "l")(values, None)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_outputs_are_padded_and_their_padding_left_out(layout):
    rows = [torch.randn(3, 2), torch.randn(5, 2) - 10]
    nested = torch.nested.nested_tensor(rows, layout=layout)
    for kind in ("max", "mean"):
        found = make_reduction(kind, "l")(nested, None)
        for b, row in enumerate(rows):
            assert torch.equal(found[b], make_reduction(kind, "l")(row[None], None)[0])
    with pytest.raises(InvalidValueError, match=r'nested tensor.*reduce="max"'):
        make_reduction(None, "l")(nested, None)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_in_two_axes_is_refused():
    nested = torch.nested.nested_tensor([torch.zeros(3, 2), torch.zeros(5, 4)], layout=torch.strided)
    with pytest.raises(InvalidValueError, match="ragged beyond axis 1"):
        make_reduction("max", "l")(nested, None)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float32, "float32"),
        (torch.float64, "float64"), (torch.bool, "float16"), (torch.int8, "float16"), (torch.uint8, "float16"),
        (torch.int16, "float32"), (torch.uint16, "float32"), (torch.int32, "float64"), (torch.uint32, "float64"),
        (torch.int64, "float64"), (torch.uint64, "float64"),
    ],
)  # fmt: skip
def test_every_dtype_is_held_exactly(dtype, stored):
    assert storage_name(dtype, "l") == stored
    if dtype.is_floating_point:
        values = torch.tensor([[1.5, -2.25, 0.1]]).to(dtype)
    else:
        top = (
            2**53 if dtype in (torch.int64, torch.uint64) else int(torch.iinfo(dtype).max) if dtype != torch.bool else 1
        )
        values = torch.tensor([[0, 1, top]]).to(dtype)
    wide = widen(values, "l")
    assert wide.dtype == (torch.float64 if stored == "float64" else torch.float32)
    assert wide.tolist() == values.double().tolist()
    numpy_type = {"bfloat16": np.float32}.get(stored, stored)
    assert wide.numpy().astype(numpy_type).astype(np.float64).tolist() == wide.tolist()
    largest = make_reduction("max", "l")(values[:, :, None], None)
    assert largest.dtype == dtype
    assert largest.tolist() == [[values[0].double().max().item()]]


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1])
def test_integers_that_no_float_holds_are_refused(value):
    with pytest.raises(InvalidValueError, match=r"\[-2\*\*53, 2\*\*53\].*layer is 'l'"):
        widen(torch.tensor([[0, value]]), "l")


def test_other_dtypes_are_refused():
    with pytest.raises(DtypeError, match=r"complex64.*Capture\(output="):
        widen(torch.zeros(1, 1, dtype=torch.complex64), "l")


def test_half_precision_means_are_accumulated_in_single():
    values = torch.full((1, 4096, 1), 0.1, dtype=torch.float16)
    found = make_reduction("mean", "l")(values, None)
    assert found.dtype == torch.float16
    assert found.item() == values[0, 0, 0].item()  # a half-precision sum would stop at 256


def test_means_of_integers_are_floats():
    found = make_reduction("mean", "l")(torch.tensor([[[1], [2]]], dtype=torch.int32), None)
    assert found.dtype == torch.float64
    assert found.item() == 1.5


def test_choosing_a_tensor():
    y, z = torch.zeros(2, 3), torch.ones(2, 3)
    assert choose_tensor(y, None, "l") is y
    assert choose_tensor((y, z), 1, "l") is z
    assert choose_tensor({"a": y}, "a", "l") is y
    assert choose_tensor(Output(z, 3), "hidden", "l") is z
    assert choose_tensor((y, (z,)), lambda out: out[1][0], "l") is z
    assert choose_tensor(y, 0, "l") is y  # an index is for tuples: a tensor is not cut
    for value, words in (
        ((y, None), r"tuple of 2 \(float32\[2, 3\], NoneType\).*output=0"),
        ({"a": y}, r"output='a'"),
        (Output(y, 3), r"Output\(hidden=float32\[2, 3\], extra=int\)"),
        (None, "NoneType"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            choose_tensor(value, None, "l")
    for value, choice in (((y,), 3), ({"a": y}, "b"), (Output(y, 3), "b")):
        with pytest.raises(InvalidValueError, match=f"Capture.output={choice!r} is not in the output"):
            choose_tensor(value, choice, "l")
