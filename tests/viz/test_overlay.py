"""Overlays: a mask above its picture, frames where boxes are, opacity that grows with the value."""

from __future__ import annotations

import re

import numpy as np
import pytest
from page_outline import Outline

from neuralartifactdb.errors import InvalidValueError
from neuralartifactdb.viz.overlay import overlay, warmth

PICTURE = np.zeros((8, 8), np.uint8)


def test_frames_lie_where_the_boxes_are():
    drawn = overlay(PICTURE, np.zeros((20, 40), np.uint8), [(10, 5, 30, 15), None, (0, 0, 400, 10), (9, 9, 9, 12)])
    frames = re.findall(r'<i class="frame( dashed)?" style="([^"]*)"', drawn)
    assert frames == [
        ("", "left:25%;top:25%;width:50%;height:50%"),
        (" dashed", "left:0%;top:0%;width:100%;height:50%"),  # clipped; the empty one is not drawn
    ]
    assert [tag for tag, _ in Outline(drawn).elements].count("img") == 2


def test_a_picture_that_is_not_square_is_letterboxed():
    assert "inset" not in overlay(PICTURE, PICTURE)
    assert 'style="inset:25% 0%"' in overlay(np.zeros((4, 8), np.uint8), np.zeros((4, 8), np.uint8))
    assert 'style="inset:0% 12.5%"' in overlay(np.zeros((8, 6, 3), np.uint8), PICTURE)


def test_words_are_escaped():
    assert 'alt="a &quot;b&quot; &lt;i&gt;"' in overlay(PICTURE, PICTURE, alt='a "b" <i>')


def test_warmth_grows_with_the_value():
    layer = warmth(np.arange(256, dtype=np.uint8)[None])[0].astype(int)
    assert layer.shape == (256, 4)
    assert (layer[0, 3], layer[255, 3]) == (0, 240)
    assert (np.diff(layer, axis=0)[:, [0, 1, 3]] >= 0).all()


def test_masks_of_any_kind_and_size():
    assert overlay(PICTURE, np.ones((8, 8), bool)) == overlay(PICTURE, np.ones((8, 8), np.float32))
    assert len(overlay(PICTURE, np.zeros((500, 300), np.uint16))) < 2_000
    with pytest.raises(InvalidValueError, match=r"2-D, got shape \(4, 4, 3\)"):
        overlay(PICTURE, np.zeros((4, 4, 3), np.uint8))
