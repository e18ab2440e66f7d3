"""Training a network on labelled photographs: first the new layers, then the top blocks too.

Owns the two stages, their checkpoints, and reading vectors from what was trained. Does not own which photographs are learnt
from (`labelled.py`), the outputs of the frozen layers (`frozen.py`), the numbers of a recipe (`presets.py`), nor the folder of a
trained network (`backbones/trained.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backbones import NetworkId
from backbones.rows import Head
from config import Settings
from finetuning.presets import Preset
from vectors import Ids

Stage = Literal["photographs", "head", "blocks"]


@dataclass(frozen=True)
class Photograph:
    """A file to learn from, or to make vectors of; `sha256` is that of its bytes."""

    path: bytes
    sha256: bytes


@dataclass(frozen=True)
class Task:
    """What is to be learnt: n photographs, each with the place of its class in `classes`.

    `train` and `validation` are places of photographs; those in neither are not looked at. `unlabelled` are other photographs of
    the collection (may be none), which show what the network must keep apart. `folder` is where work that can be used again is
    kept: outputs of the frozen layers and the checkpoint, both under names that tell what they belong to.
    """

    photographs: tuple[Photograph, ...]
    labels: Ids
    classes: tuple[str, ...]
    train: Ids
    validation: Ids
    unlabelled: tuple[Photograph, ...]
    base: NetworkId
    preset: Preset
    seed: int
    folder: Path


@dataclass(frozen=True)
class Progress:
    """How far one stage is: photographs that went through the frozen layers, or epochs; `epoch` is the one just finished."""

    stage: Stage
    done: int
    total: int
    epoch: Epoch | None = None


@dataclass(frozen=True)
class Epoch:
    """One pass over the photographs: mean losses, and the shares of photographs that were told rightly."""

    stage: Stage
    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Trained:
    """A trained network: `model` is the Keras model for `save_trained` (its `save_weights`).

    `run` makes vectors of photographs, each layer's float32 (n, dim): `base` (what the base's average was before), `avg_pool`,
    `dense` where the head has it, `scores`. It raises `ImageError` for a file that cannot be read.
    """

    model: Any
    head: Head
    layers: Mapping[str, int]
    history: tuple[Epoch, ...]
    seconds: float
    run: Callable[[Sequence[Photograph]], dict[str, NDArray[np.float32]]]


def train(
    task: Task,
    settings: Settings,
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> Trained | None:
    """Train as `task` says, or go on where an earlier call with the same task was stopped or killed.

    None when `stop` was set: what is finished is kept. Raises `BackboneError`, `ImageError`, `DiskFullError`.
    """
    raise NotImplementedError
