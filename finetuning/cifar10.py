"""CIFAR-10 as the article used it: photographs of 32×32 pixels, enlarged to 140×140, a folder a class.

Owns choosing, enlarging and writing them. Downloading is Keras' (`keras.datasets`). Source: Krizhevsky, "Learning multiple
layers of features from tiny images"; the article is named in docs/learning.md.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from errors import DatasetError
from tables import whole_folder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 140
"""Pixels: the article's size."""


def write_cifar10(folder: Path, per_class: int) -> Path:
    """Write the first `per_class` training pictures of each class as PNG files, unless they lie there; return their folder.

    It is `folder/cifar10-<per_class>`, with a folder a class in it. Raises `DatasetError` where CIFAR-10 cannot be had,
    `ExportError` where it cannot be written.
    """
    target = folder / f"cifar10-{per_class}"
    if target.is_dir():
        return target
    pictures, labels = _load()
    folder.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as temporary:
        for number, name in enumerate(CLASSES):
            (temporary / name).mkdir()
            for place in np.flatnonzero(labels == number)[:per_class].tolist():
                enlarged = Image.fromarray(pictures[place]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                enlarged.save(temporary / name / f"{place:05}.png")
    return target


def _load() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the training pictures uint8 (n, 32, 32, 3) and the number of each one's class (n,)."""
    with contextlib.redirect_stdout(sys.stderr):  # where Keras says that it downloads
        from keras.datasets import cifar10

        try:
            pictures, labels = cifar10.load_data()[0]
        except Exception as error:  # Keras raises Exception itself where nothing can be downloaded
            raise DatasetError(_three_ways(error)) from error
    return np.asarray(pictures), np.asarray(labels, dtype=np.int64).reshape(-1)


def _three_ways(error: Exception) -> str:
    return (
        f"CIFAR-10 cannot be had: {error}. There are three ways on. (1) Connect this machine to the internet: Keras downloads it "
        'once (170 MB). (2) Let a machine that is connected run `python -c "from keras.datasets import cifar10; '
        'cifar10.load_data()"` and copy its folder ~/.keras/datasets here. (3) Take photographs of your own, a folder a class: '
        'python finetune.py "labelled/*"'
    )
