"""Labelled photographs for tests: a folder a class, a colour a class, every picture different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"cats": (200, 40, 40), "dogs": (40, 200, 40), "fish": (40, 40, 200)}


def labelled_pictures(folder: Path, each: int, classes: tuple[str, ...] = ("cats", "dogs")) -> Path:
    """Write `each` pictures of each class into `folder`/<class>/<number>.png; return `folder`."""
    for seed, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        random = np.random.default_rng(seed)
        for number in range(each):
            noise = random.integers(-40, 40, (48, 64, 3))
            pixels = (np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
