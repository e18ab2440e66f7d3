"""A collection of made-up vectors, for tests of what is computed from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from config import Settings
from publishing import publish
from store import Batch, Record, VectorsManifest, open_writer

KEY = "made-up-0123"


def group_vectors(count: int, *, dim: int = 48, groups: int = 12, seed: int = 0) -> npt.NDArray[np.float32]:
    """Vectors in `groups` equal groups, the first `count / groups` of the first: near their own, and around a common middle."""
    random = np.random.default_rng(seed)
    middles = random.normal(size=(groups, dim)) + 1
    return np.asarray(
        np.repeat(middles, -(-count // groups), axis=0)[:count] + 0.5 * random.normal(size=(count, dim)), np.float32
    )


def add_vectors(
    settings: Settings, vectors: npt.NDArray[np.float32], *, labels: list[str] | None = None, first: int = 0
) -> None:
    """Commit images `first`, `first + 1`, … with these vectors, and publish a generation over all."""
    batch = Batch()
    for number, vector in enumerate(vectors, start=first):
        sha256 = hashlib.sha256(str(number).encode()).digest()
        label = None if labels is None else labels[number - first]
        batch.records.append(Record(b"image %d" % number, 1, 1, sha256, "PNG", 8, 8, label=label))
        batch.vectors[sha256] = vector
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "made-up", "none", "0123", vectors.shape[1], "none"))
        writer.commit(KEY, batch)
        publish(writer, KEY, settings)


def collection_at(folder: Path, count: int, *, labelled: bool = True) -> Settings:
    """Make a collection of `group_vectors` in `folder`, labelled by their groups, and return its settings."""
    settings = Settings(rsc_files=folder)
    labels = [str(number // -(-count // 12)) for number in range(count)] if labelled else None
    add_vectors(settings, group_vectors(count), labels=labels)
    return settings
