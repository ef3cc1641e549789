"""The digits dataset: deterministic, a prefix of any longer one, split by scan, labels that match the scans."""

from __future__ import annotations

import numpy as np
import pytest

from neuralartifactdb.demo.digits import digits
from neuralartifactdb.errors import InvalidValueError

pytest.importorskip("sklearn")


def test_shapes_dtypes_and_range():
    data = digits(100)
    assert data.images.shape == (100, 1, 32, 32)
    assert data.images.dtype == np.float32
    assert data.labels.dtype == data.scans.dtype == np.int64
    assert data.images.min() == 0.0
    assert 0.9 < data.images.max() <= 1.0
    assert len(data) == 100
    image, label = data[7]
    assert image.shape == (1, 32, 32)
    assert label == data.labels[7]


def test_input_i_is_the_same_whatever_the_number_of_inputs():
    short, long = digits(300), digits(1800 + 300)
    np.testing.assert_array_equal(short.images, long.images[:300])
    np.testing.assert_array_equal(short.held_out, long.held_out[:300])
    np.testing.assert_array_equal(long.images, digits(2100).images)


def test_the_seed_changes_images_order_and_split():
    a, b = digits(1797), digits(1797, seed=1)
    assert (a.images != b.images).any()
    assert (a.scans != b.scans).any()
    assert set(a.scans[a.held_out]) != set(b.scans[b.held_out])


def test_split_goes_by_scan_and_labels_by_scan():
    data = digits(2 * 1797)
    assert set(data.scans[data.held_out]).isdisjoint(data.scans[~data.held_out])
    assert len(set(data.scans[data.held_out])) == 1797 // 5
    first, second = np.argsort(data.scans[:1797]), np.argsort(data.scans[1797:])  # each block has every scan once
    np.testing.assert_array_equal(data.scans[:1797][first], np.arange(1797))
    np.testing.assert_array_equal(data.labels[:1797][first], data.labels[1797:][second])
    assert (data.images[:1797][first] != data.images[1797:][second]).any(axis=(1, 2, 3)).all()


def test_a_variation_still_looks_like_its_digit():
    # Nearest class mean of one set of variations classifies another far better than chance.
    data = digits(2 * 1797)
    flat = data.images.reshape(len(data), -1)
    means = np.stack([flat[:1797][data.labels[:1797] == digit].mean(axis=0) for digit in range(10)])
    nearest = ((flat[1797:, None, :] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == data.labels[1797:]).mean() > 0.6


def test_at_least_one_input():
    with pytest.raises(InvalidValueError, match="at least 1, got 0"):
        digits(0)
