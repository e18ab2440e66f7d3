"""Drawn pictures that are as rich as photographs, so that copies of them can be told from the next shot."""

from __future__ import annotations

import numpy as np
from PIL import Image


def photograph(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Draw picture `number`: blotches of colour, coarse ones and finer ones."""
    random = np.random.default_rng(number)
    layers = []
    for cells, weight in ((4, 1.0), (10, 0.6), (32, 0.3)):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers.append(weight * np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=np.float32))
    return Image.fromarray((np.sum(layers, axis=0) / 1.9).clip(0, 255).astype(np.uint8))


def next_shot(picture: Image.Image, degrees: float = 2.5) -> Image.Image:
    """Return what the camera might have seen a second later: turned a little, moved a little, with other noise."""
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC)
    width, height = turned.size
    cut = turned.crop((width // 18, height // 15, width - width // 22, height - height // 20))
    noise = np.random.default_rng(1).normal(0, 4, (cut.height, cut.width, 3))
    return Image.fromarray((np.asarray(cut, dtype=np.float32) + noise).clip(0, 255).astype(np.uint8))
