"""PNG files read back by pillow pixel for pixel; pictures from every kind of array."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.viz.png import as_image, data_uri, encode_png, is_image, shrink

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda hw: st.sampled_from([hw, (*hw, 3), (*hw, 4)]))


@given(SHAPES.flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_pillow_reads_what_was_written(image):
    with Image.open(io.BytesIO(encode_png(image))) as read:
        assert read.size == (image.shape[1], image.shape[0])
        mode = {2: "L", 3: "RGB"}.get(image.ndim) if image.ndim == 2 or image.shape[2] == 3 else "RGBA"
        assert np.array_equal(np.asarray(read.convert(mode)), image)


def test_a_smooth_picture_is_small():
    y, x = np.mgrid[0:64, 0:64]
    image = np.stack([2 * x + y, x + 2 * y, 3 * x], axis=2).astype(np.uint8)
    assert len(encode_png(image)) < image.size / 10


def test_grey_given_as_colour_costs_one_channel():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert encode_png(np.stack([grey] * 3, axis=2)) == encode_png(grey)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (np.array([[0, 7]], np.uint8), [[0, 7]]),
        (np.array([[False, True]]), [[0, 255]]),
        (np.array([[0.0, 0.5, 1.0]]), [[0, 128, 255]]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [[0, 128, 255]]),
        (np.array([[10, 20, 15]], np.int64), [[0, 255, 128]]),
        (np.array([[np.nan, -2.0, 2.0, np.inf, -np.inf]]), [[0, 0, 255, 255, 0]]),
        (np.array([[5.0, 5.0]]), [[128, 128]]),
        (np.full((1, 2), np.nan), [[0, 0]]),
        (np.array([[-1.7e308, 1.7e308]]), [[0, 255]]),
        (np.array([[[0.0], [1.0]]]), [[0, 255]]),
        (np.zeros((1, 5, 7)), np.zeros((5, 7))),
        (np.zeros((3, 5, 7), np.uint8), np.zeros((5, 7, 3))),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3))),
    ],
)
def test_as_image(value, want):
    got = as_image(value)
    assert got.dtype == np.uint8
    assert np.array_equal(got, np.asarray(want))


def test_as_image_of_tensors_and_pillow():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[[0.0, 1.0]]], dtype=torch.bfloat16, requires_grad=True)
    assert as_image(tensor).tolist() == [[0, 255]]
    assert as_image(torch.tensor([[True, False]])).tolist() == [[255, 0]]
    assert as_image(Image.new("L", (2, 1), 9)).tolist() == [[[9] * 3] * 2]
    assert as_image(Image.new("RGBA", (1, 1), (1, 2, 3, 4))).tolist() == [[[1, 2, 3, 4]]]
    assert is_image(tensor)
    assert is_image(Image.new("L", (1, 1)))
    assert not is_image("text")


@pytest.mark.parametrize(
    ("value", "error", "needle"),
    [
        ("cat.png", DtypeError, "builtins.str"),
        (np.array([[1j]]), DtypeError, "complex128"),
        (np.zeros(3), InvalidValueError, r"\(3,\)"),
        (np.zeros((5, 7, 2)), InvalidValueError, r"\(5, 7, 2\)"),
        (np.zeros((0, 4)), InvalidValueError, r"\(0, 4\)"),
    ],
)
def test_what_is_not_a_picture(value, error, needle):
    with pytest.raises(error, match=needle):
        as_image(value)


@given(SHAPES.flatmap(lambda shape: hnp.arrays(np.uint8, shape)), st.integers(1, 9))
def test_shrink_averages_blocks(image, max_side):
    small = shrink(image, max_side)
    factor = -(-max(image.shape[:2]) // max_side)
    assert max(small.shape[:2]) <= max_side
    for i in range(small.shape[0]):
        for j in range(small.shape[1]):
            block = image[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].reshape(-1, *image.shape[2:])
            want = block.astype(float).mean(axis=0)
            assert np.all(np.abs(small[i, j] - want) <= 0.5)


def test_data_uri():
    assert data_uri(np.zeros((1, 1), np.uint8)).startswith("data:image/png;base64,iVBOR")
