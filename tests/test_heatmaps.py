"""Where two maps agree, and the picture of it: made-up maps with a known answer."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from heatmaps import agreement, heat_png, placed


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def hottest(heat: np.ndarray) -> tuple[int, int]:
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return row, column


@pytest.mark.parametrize("common", [0.0, np.linspace(0, 1, 6, dtype=np.float32)])
def test_what_the_places_add_is_the_cosine_of_both_pictures(common: np.ndarray | float) -> None:
    random = np.random.default_rng(0)
    one, other = random.random((7, 5, 6), np.float32), random.random((4, 4, 6), np.float32)
    expected = cosine(one.mean(axis=(0, 1)) - common, other.mean(axis=(0, 1)) - common)
    heat, back = agreement(one, other, common), agreement(other, one, common)
    assert (heat.shape, back.shape) == ((7, 5), (4, 4))
    assert heat.sum() == pytest.approx(expected, abs=1e-5)
    assert back.sum() == pytest.approx(expected, abs=1e-5)


def test_heat_lies_where_both_have_the_same() -> None:
    one, other = np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.float32)
    one[1, 2, 0] = other[3, 0, 0] = 1
    one[0, 0, 1] = other[0, 0, 2] = 5
    heat = agreement(one, other)
    assert hottest(heat) == (1, 2)
    assert np.count_nonzero(heat) == 1


def test_what_all_pictures_have_is_not_lit() -> None:
    one, other = np.zeros((4, 4, 2), np.float32), np.zeros((4, 4, 2), np.float32)
    one[..., 0] = other[..., 0] = 9
    one[2, 2, 1] = other[1, 1, 1] = 1
    common = np.array([9, 0], np.float32)
    assert agreement(one, other).std() < 0.01
    heat = agreement(one, other, common)
    assert hottest(heat) == (2, 2)


def test_empty_maps_agree_nowhere() -> None:
    nothing = np.zeros((2, 2, 3), np.float32)
    assert not agreement(nothing, nothing).any()


def test_the_picture_of_it_has_the_shape_of_what_it_lies_on_and_is_clearest_where_it_is_hottest() -> None:
    heat = np.zeros((7, 7), np.float32)
    heat[1, 5], heat[5, 1] = 0.2, -0.2
    picture = Image.open(io.BytesIO(heat_png(heat, 0.2, (256, 128))))
    assert (picture.mode, picture.size) == ("RGBA", (96, 48))
    opacity = np.asarray(picture)[..., 3]
    row, column = hottest(-opacity.astype(np.float32))
    assert (row * 7 // 48, column * 7 // 96) == (1, 5)
    assert opacity[36, 20] == opacity.max()


def test_the_heat_of_a_part_lies_in_that_part() -> None:
    whole = placed(np.ones((7, 7), np.float32), (0.5, 0.0, 1.0, 0.25))
    assert whole.shape == (16, 16)
    assert whole[:4, 8:].min() == 1
    assert whole.sum() == 4 * 8


def test_the_smallest_part_is_still_seen() -> None:
    assert placed(np.ones((7, 7), np.float32), (0.999, 0.999, 1.0, 1.0)).sum() == 1
