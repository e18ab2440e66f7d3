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

    `layer` is the vector that searching takes unless another is asked for. `blocks` top blocks of the base are trained, on
    `views` versions of each photograph (1: as it is, no augmentation). The share `validation` of each class tells when to stop.
    """

    name: str
    head: Head
    layer: str
    blocks: int
    views: int
    head_epochs: int
    epochs: int
    batch_size: int
    optimizer: Literal["adam", "sgd"]
    rate: float
    validation: float


_ROWS = (
    Preset(
        name="default",
        head=Head(0, True),
        layer="avg_pool",
        blocks=6,
        views=4,
        head_epochs=20,
        epochs=10,
        batch_size=32,
        optimizer="adam",
        rate=3e-4,
        validation=0.15,
    ),
    Preset(
        name="article",
        head=Head(512, False),
        layer="scores",
        blocks=1,
        views=4,
        head_epochs=20,
        epochs=5,
        batch_size=128,
        optimizer="sgd",
        rate=0.01,
        validation=0.3,
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
