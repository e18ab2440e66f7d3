"""Taking images into a collection: telling new from known, and vectors and pictures that a program holds in memory.

Owns what becomes of one image, whatever it came from. Does not own files of vectors or the choice of a network.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from backbones import Backbone
from errors import QueryError
from images import make_thumbnail, network_input
from images.pixels import to_rgb
from img2vec import Failure, best_classes
from importing.files import BLOCK, checked, unusable
from importing.names import as_path, unique_names
from networks import check_same_network, own_network, vectors_manifest
from pipeline import File, folder_name
from store import Batch, Record, StoreWriter, VectorsManifest

BAD_VECTOR = "bad_vector"
PICTURES_AT_ONCE = 32
"""Pictures held in memory that go through the network together."""


@dataclass
class Added:
    """What became of images handed in: how many are new, changed and unchanged, and why others could not be taken."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Item:
    """One image to take in: its vector float32 (dim,), its label if one was given, and what is known of its picture, if anything.

    `record` is of its file, or has its name for a path; `classes` are class index and score of its predicted labels.
    """

    name: str
    vector: npt.NDArray[np.float32]
    label: str | None = None
    record: Record | None = None
    thumbnail: bytes | None = None
    classes: tuple[tuple[int, float], ...] = ()


class Taking:
    """Takes images into the set of `manifest`, which the writer has begun, in batches."""

    def __init__(self, writer: StoreWriter, manifest: VectorsManifest) -> None:
        self._writer = writer
        self._manifest = manifest
        self._rows = writer.vector_rows(manifest.key)
        self._stored = writer.snapshot(manifest.key).matrix
        self._settled: set[bytes] = set()
        self._batch = Batch()
        self.known = {record.path: record for record in writer.all_records()}
        self.added = Added()

    def complete(self) -> dict[bytes, list[Record]]:
        """Return the contents that have a vector and a thumbnail, with their records: such files need no decoding."""
        hashes = self._rows.keys() & self._writer.thumbnail_hashes()
        self._complete: dict[bytes, list[Record]] = {}
        for record in self.known.values():
            if record.error_code is None and record.sha256 in hashes:
                self._complete.setdefault(record.sha256, []).append(record)
        return self._complete

    def is_unchanged(self, file: File, size: int, mtime_ns: int) -> bool:
        """Tell whether the catalog has all there is to know of a file of this size and time."""
        known = file.known
        return known is not None and (known.size, known.mtime_ns) == (size, mtime_ns) and known.sha256 in self._complete

    def has_vector(self, record: Record, vector: npt.NDArray[np.float32]) -> bool:
        """Tell whether `record` has this very vector."""
        row = self._rows.get(record.sha256 or b"")
        return row is not None and np.array_equal(self._stored[row], vector.astype(np.float16))

    def take(self, item: Item) -> None:
        """Count one image, and put what must be remembered of it into the batch."""
        path = as_path(item.name)
        record = item.record or Record(path, 0, 0, sha256=_contents_of(path, item.vector))
        known = self.known.get(record.path) or self.known.get(path)
        label = item.label or (known.label if known else None) or folder_name(record.path) or None
        record = replace(record, label=label, image_id=0)
        has_new_vector = self._keep_vector(record, item.vector)
        if record.sha256 is not None and item.thumbnail:
            self._batch.thumbnails[record.sha256] = item.thumbnail
        if record.sha256 is not None and item.classes:
            self._batch.labels[record.sha256] = list(item.classes)
        if known is None:
            self._batch.records.append(record)
            self.added.new += 1
        elif has_new_vector or replace(known, image_id=0) != record:
            self._batch.moved.append((known.image_id, record))
            self.added.changed += 1
        else:
            self.added.unchanged += 1

    def _keep_vector(self, record: Record, vector: npt.NDArray[np.float32]) -> bool:
        """Keep the vector if it is wanted; tell whether it is. Of equal contents in one file of vectors the first one's counts.

        A vector that a network here has made stays: what is imported is at best the same.
        """
        sha256 = record.sha256 or b""
        if sha256 in self._settled:
            return False
        self._settled.add(sha256)
        if sha256 in self._rows and (not self._manifest.is_imported or self.has_vector(record, vector)):
            return False
        self._batch.vectors[sha256] = vector
        return True

    def commit(self) -> None:
        """Write what was taken since the last time: all of it or nothing."""
        if len(self._batch):
            self._writer.commit(self._manifest.key, self._batch)
        self._batch = Batch()


def _contents_of(path: bytes, vector: npt.NDArray[np.float32]) -> bytes:
    """Return what stands for the contents of an image of which there is only a vector. Equal vectors are not equal pictures."""
    return hashlib.sha256(b"vector of " + path + b"\0" + vector.astype("<f2").tobytes()).digest()


def add_vectors(
    writer: StoreWriter,
    key: str,
    names: Sequence[str],
    vectors: npt.NDArray[Any],
    labels: Sequence[str | None] | None = None,
) -> Added:
    """Take in vectors (n, dim), any type of number, as images without files; an image of the same name is replaced.

    `key` must have been begun. Raises `QueryError` for another dimension or other numbers of names and labels.
    """
    taking = Taking(writer, writer.manifest(key))
    named = unique_names(names)
    _check_lengths(len(vectors), names=named, labels=labels)
    dim = writer.manifest(key).dim
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise QueryError(
            f"The vectors have the shape {vectors.shape}, but must have (n, {dim}) to fit this collection."
        )
    for start in range(0, len(named), BLOCK):
        block = checked(vectors[start : start + BLOCK])
        for place, vector in enumerate(block.vectors):
            name = named[start + place]
            if place in block.reasons:
                taking.added.failures.append(Failure(name, BAD_VECTOR, block.reasons[place]))
            else:
                taking.take(Item(name, vector, labels[start + place] if labels else None))
        taking.commit()
    return taking.added


def add_pictures(
    writer: StoreWriter,
    backbone: Backbone,
    pictures: Iterable[Image.Image],
    names: Sequence[str],
    labels: Sequence[str | None] | None = None,
    *,
    thumbnail_size: int = 256,
) -> Added:
    """Take in pictures held in memory (upright PIL images, any mode) as images without files, with vectors by `backbone`.

    Vector, predicted labels and thumbnail come from one pass, as for files. `pictures` is read as it goes, so a generator bounds
    memory. An image of the same name is replaced. Raises `CollectionMismatchError`, `QueryError`, `BackboneError`.
    """
    own = own_network(writer)
    if own is not None:
        check_same_network(own, backbone.network)
    manifest = vectors_manifest(backbone.network, backbone.row)
    writer.begin_vectors(manifest)
    writer.set_meta("vectors_key", manifest.key)
    taking = Taking(writer, manifest)
    named = unique_names(names)
    _check_lengths(len(named), labels=labels)
    given = zip(pictures, named, labels or [None] * len(named), strict=True)
    while some := list(itertools.islice(given, PICTURES_AT_ONCE)):
        for item in _seen_by(backbone, some, thumbnail_size):
            if isinstance(item, Failure):
                taking.added.failures.append(item)
            else:
                taking.take(item)
        taking.commit()
    return taking.added


def _seen_by(
    backbone: Backbone, some: list[tuple[Image.Image, str, str | None]], thumbnail_size: int
) -> Iterator[Item | Failure]:
    row = backbone.row
    upright = [to_rgb(picture) for picture, _, _ in some]
    pixels = np.stack([network_input(picture, row.input_size, resample=row.resample) for picture in upright])
    outputs = backbone.run(pixels)
    reasons = unusable(outputs.vectors)
    for place, (picture, (_, name, label)) in enumerate(zip(upright, some, strict=True)):
        if place in reasons:
            yield Failure(name, BAD_VECTOR, f"The network gives no usable vector. {reasons[place]}")
            continue
        digest = hashlib.sha256(f"RGB {picture.width}x{picture.height} ".encode() + picture.tobytes()).digest()
        record = Record(as_path(name), 0, 0, digest, width=picture.width, height=picture.height)
        classes = () if outputs.scores is None else best_classes(outputs.scores[place])
        yield Item(name, outputs.vectors[place], label, record, make_thumbnail(picture, thumbnail_size), classes)


def _check_lengths(count: int, **columns: Sequence[object] | None) -> None:
    for name, column in columns.items():
        if column is not None and len(column) != count:
            raise QueryError(f"There are {count:,} images, but {len(column):,} {name}: each image needs one.")
