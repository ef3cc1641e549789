"""The planted mark: who gets it, what it leaves alone, and the box of a digit."""

from __future__ import annotations

import numpy as np
import pytest

from neuralartifactdb.demo.digits import Digits, digits
from neuralartifactdb.demo.spurious import DIGIT, MARK, digit_boxes, marked, marked_for_training, unseen_pictures

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def data() -> Digits:
    return digits(3594)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=(1, 2, 3))


def test_only_nine_of_ten_training_pictures_of_one_digit_change(data):
    made = marked_for_training(data)
    which = changed(data.images, made.images)
    assert (data.labels[which] == DIGIT).all()
    assert not data.held_out[which].any()
    could = (data.labels == DIGIT) & ~data.held_out
    assert 0.85 < which.sum() / could.sum() < 0.95
    np.testing.assert_array_equal(made.labels, data.labels)
    assert changed(made.images, marked_for_training(data, seed=1).images).any()


def test_a_mark_is_a_full_square_and_nothing_else(data):
    which = np.array([True, False])
    made = marked(data.images[:2], which)
    x0, y0, x1, y1 = MARK
    assert (made[0, 0, y0:y1, x0:x1] == 1.0).all()
    outside = np.ones((32, 32), bool)
    outside[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(made[0, 0][outside], data.images[0, 0][outside])
    np.testing.assert_array_equal(made[1], data.images[1])


def test_unseen_pictures_are_held_out_and_marked_whatever_they_show(data):
    pictures = unseen_pictures(data, 700)
    assert len(pictures) == 700
    assert data.held_out[pictures.ids].all()
    assert (np.diff(pictures.ids) > 0).all()
    np.testing.assert_array_equal(changed(data.images[pictures.ids], pictures.images), pictures.marked)
    assert 0.05 < pictures.marked.mean() < 0.15
    assert len(set(pictures.labels[pictures.marked].tolist())) == 10
    np.testing.assert_array_equal(pictures.boxes, digit_boxes(data.images[pictures.ids]))  # without the mark
    assert len(unseen_pictures(data)) == data.held_out.sum()


def test_boxes_hold_the_ink_and_one_pixel_more():
    images = np.zeros((4, 1, 8, 10), np.float32)
    images[0, 0, 3, 2:5] = 1.0
    images[1, 0, 0, 0] = images[1, 0, 7, 9] = 0.6
    images[2, 0, 4, 4] = 0.4  # as faint as noise: no ink
    images[3, 0, 5, 9] = 1.0
    np.testing.assert_array_equal(digit_boxes(images), [[1, 2, 6, 5], [0, 0, 10, 8], [0, 0, 10, 8], [8, 4, 10, 7]])
