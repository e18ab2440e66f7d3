"""The recipes that a network can be trained by, one data row each.

Owns every number of a recipe; `training.py` does what they say. The figures that chose `default` stand in docs/learning.md.

Sources: `article` is "Similar image finder by CNN and distance" (docs/learning.md), which fine-tuned InceptionV3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from backbones.rows import Head


@dataclass(frozen=True)
class Preset:
    """One recipe: change a copy with `dataclasses.replace`.

    `layer` is the vector that searching takes unless another is asked for. The share `validation` of each class tells when to
    stop: after `patience` epochs that were no better. `blocks` top blocks of the base are trained (0: only what is upon it) on
    `views` versions of each photograph (1: as it is, no augmentation). Up to `unlabelled` photographs without a label are learnt
    as "none of these"; `distillation` is what it costs to turn their vectors away from the base's. `optimizer` adam comes with a
    rate that falls to 0, sgd with a momentum of 0.9.
    """

    name: str
    head: Head
    layer: str
    blocks: int
    validation: float
    views: int
    unlabelled: int
    distillation: float
    head_epochs: int
    epochs: int
    batch_size: int
    optimizer: Literal["adam", "sgd"]
    rate: float
    smoothing: float
    patience: int


_ROWS = (
    Preset(
        name="default",
        head=Head(0, True),
        layer="avg_pool",
        validation=0.15,
        blocks=4,
        views=4,
        unlabelled=2000,
        distillation=1.0,
        head_epochs=20,
        epochs=10,
        batch_size=32,
        optimizer="adam",
        rate=3e-4,
        smoothing=0.1,
        patience=4,
    ),
    Preset(
        name="article",
        head=Head(512, False),
        layer="scores",
        validation=0.3,
        blocks=1,
        views=1,
        unlabelled=0,
        distillation=0.0,
        head_epochs=20,
        epochs=5,
        batch_size=128,
        optimizer="sgd",
        rate=0.01,
        smoothing=0.0,
        patience=5,
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
