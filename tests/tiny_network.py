"""A network of a few thousand numbers with what real ones have: joined branches, normalised batches, names that Keras counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from backbones.backbone import NetworkId
from backbones.rows import BACKBONES, BackboneRow
from backbones.weights import sha256_of

TINY_DIM = 16


def tiny_row() -> BackboneRow:
    """Return the data row; it takes the place of a published network's, whose name it has."""
    return replace(
        BACKBONES["resnet50"],
        builder="tests.tiny_network:build_model",
        input_size=(32, 32),
        layers=MappingProxyType({"avg_pool": TINY_DIM}),
        feature_map="last",
    )


def build_model(*, weights: None, include_top: bool, input_shape: tuple[int, int, int]) -> Any:
    """Build the network with random weights, called as those of `keras.applications`."""
    import keras

    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 5, strides=4, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    for filters in (8, TINY_DIM):
        branch = keras.layers.BatchNormalization()(keras.layers.Conv2D(filters, 3, padding="same")(x))
        x = keras.layers.Add()([branch, keras.layers.Conv2D(filters, 1)(x)])
    x = keras.layers.Activation("relu", name="last")(x)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="tiny")


def save_tiny(path: Path) -> NetworkId:
    """Write random weights (always the same) to `path`; return what they are known by."""
    import keras

    keras.utils.set_random_seed(5)
    build_model(weights=None, include_top=True, input_shape=(32, 32, 3)).save_weights(str(path))
    return NetworkId("resnet50", "avg_pool", sha256_of(path))
