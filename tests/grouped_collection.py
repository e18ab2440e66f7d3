"""A collection of small pictures in kinds that are far apart, with vectors that say so: for tests of groups. No network runs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from config import Settings
from publishing import publish
from store import Batch, Record, VectorsManifest, open_writer

MANIFEST = VectorsManifest("imported-vectors-000000000000", "imported", "vectors", "0" * 64, 16, "none")
KINDS: Mapping[str, int] = {"red": 8, "white": 12, "black": 16}
SIM = 0.5
"""Each kind is one group here."""


def make_collection(folder: Path, kinds: Mapping[str, int] = KINDS) -> Settings:
    """Make files in `folder`/photos/<kind> and a published collection of them in `folder`/rsc; return its settings."""
    settings = Settings(rsc_files=folder / "rsc", index="exact")
    add_images(settings, kinds)
    return settings


def add_images(settings: Settings, kinds: Mapping[str, int], *, first: int = 0) -> None:
    """Add so many images of each kind, numbered from `first`, and publish. Files of different kinds have equal names."""
    batch = Batch()
    for kind, count in kinds.items():
        for number in range(first, first + count):
            record, vector = _image(settings.rsc_files.parent / "photos" / kind, kind, number)
            batch.records.append(record)
            batch.vectors[record.sha256 or b""] = vector
            batch.thumbnails[record.sha256 or b""] = Path(record.path.decode()).read_bytes()
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(MANIFEST.key, batch)
        publish(writer, MANIFEST.key, settings)


def _image(folder: Path, kind: str, number: int) -> tuple[Record, np.ndarray]:
    """A picture of one colour, and a vector near the middle of its kind; kind and number say when it was taken."""
    folder.mkdir(parents=True, exist_ok=True)
    own = int.from_bytes(hashlib.sha256(f"{kind} {number}".encode()).digest()[:4], "big")
    random = np.random.default_rng(own)
    middle = np.random.default_rng(sum(map(ord, kind))).normal(size=MANIFEST.dim)
    colour = {"red": (200, 30, 30), "white": (245, 245, 245)}.get(kind, (20, 20, 20))
    file = io.BytesIO()
    Image.new("RGB", (64, 48 + number % 5), colour).save(file, "JPEG", comment=f"{kind} {number}".encode())
    path = folder / f"image-{number:03}.jpg"
    path.write_bytes(file.getvalue())
    record = Record(
        str(path).encode(),
        path.stat().st_size,
        path.stat().st_mtime_ns,
        hashlib.sha256(file.getvalue()).digest(),
        "JPEG",
        64,
        48 + number % 5,
        taken_at=None if kind == "black" else f"20{10 + len(kind)}-08-{1 + number % 28:02}T12:00:00",
        label=kind,
    )
    return record, (middle + 0.05 * random.normal(size=MANIFEST.dim)).astype(np.float32)
