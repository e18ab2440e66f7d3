"""A collection of made-up vectors whose classes are mixed up, though the vectors tell them apart: for tests of learning."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from config import Settings
from publishing import publish
from store import Batch, Record, VectorsManifest, open_writer

CLASSES = 16
WIDTH = 32
KEY = "imported-vectors-000000000000"


def confusing_vectors(count: int, *, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Vectors of `CLASSES` classes in turn, and the classes: what tells classes apart is small beside what all of them share."""
    world, random = np.random.default_rng(7), np.random.default_rng(seed)
    middles = world.normal(size=(CLASSES, WIDTH // 2))
    shared = world.normal(size=(WIDTH // 2, WIDTH // 2)) * np.linspace(2.5, 0.5, WIDTH // 2)
    classes = np.arange(count) % CLASSES
    told = middles[classes] + 0.55 * random.normal(size=(count, WIDTH // 2))
    common = random.normal(size=(count, WIDTH // 2)) @ shared.T / 3 + 1
    return np.asarray(np.hstack([told, common]), np.float32), classes.astype(np.int64)


def labelled_collection(folder: Path, count: int) -> Settings:
    """Make a collection of `confusing_vectors`, imported, in `folder`; the label of each image is its class's number."""
    settings = Settings(rsc_files=folder, index="exact")
    add_confusing(settings, count)
    return settings


def add_confusing(settings: Settings, count: int, *, first: int = 0, publishes: bool = True) -> None:
    """Commit images `first`, `first + 1`, …, and publish a generation over all unless told not to."""
    vectors, classes = confusing_vectors(count, seed=first)
    batch = Batch()
    for number, vector in enumerate(vectors, start=first):
        sha256 = hashlib.sha256(str(number).encode()).digest()
        label = str(classes[number - first])
        batch.records.append(Record(b"image %d" % number, 0, 0, sha256, format="", label=label))
        batch.vectors[sha256] = vector
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "imported", "vectors", "0" * 64, WIDTH, "none"))
        writer.commit(KEY, batch)
        if publishes:
            publish(writer, KEY, settings)
