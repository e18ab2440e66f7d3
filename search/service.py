"""Puts the parts together: a picture in, matches out.

Owns the loaded network, the snapshot and the index of the published generation, and changing over to a newer one without dropping
a request. Does not own HTTP, formats on disk, or how an index answers.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ann import Index, IndexManifest, load_index
from backbones import Backbone, NetworkId, check_layer, class_names, find_network, find_row, load_backbone
from config import Settings
from errors import CollectionMissingError, EmptyCollectionError, ImageNotFoundError, LookalikeError, OriginalGoneError
from images import Limits, decode_image, make_thumbnail, network_input
from img2vec import check_same_network, mismatch, network_of
from pipeline import show_path
from store import Record, Snapshot, Store, open_store

logger = logging.getLogger("lookalike")


@dataclass(frozen=True)
class ImageInfo:
    """What may be shown of one image of the collection. Names are valid Unicode; `size` is in bytes, sides in pixels."""

    image_id: int
    name: str
    folder: str
    label: str | None
    format: str
    width: int
    height: int
    size: int
    taken_at: str | None
    predicted_labels: list[tuple[str, float]]
    thumbnail_width: int
    thumbnail_height: int


@dataclass(frozen=True)
class Match:
    """One similar image: `rank` from 1, `similarity` the cosine -1…1, `distance` 1 - similarity."""

    rank: int
    similarity: float
    distance: float
    image: ImageInfo


@dataclass(frozen=True)
class SearchResult:
    """The matches of one query, best first; for an upload its size in pixels and a small JPEG of it."""

    matches: list[Match]
    query_width: int
    query_height: int
    query_thumbnail: bytes | None


@dataclass(frozen=True)
class CollectionStatus:
    """What is loaded and answers now; `recall` is that of the index's self-test, None for exact search."""

    images: int
    backbone: str
    layer: str
    dim: int
    engine: str
    precision: str
    index: str
    recall: float | None
    generation: int


@dataclass(frozen=True)
class _Loaded:
    """One generation, with everything needed to answer from it. Replaced as a whole, never changed."""

    stamp: tuple[int, int]
    number: int
    key: str
    manifest: IndexManifest
    store: Store
    snapshot: Snapshot
    index: Index
    backbone: Backbone


class SearchService:
    """Answers questions about one collection. Thread-safe; make it after any fork, through `open_service`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._store: Store | None = None
        self._store_file: int | None = None
        self._loaded: _Loaded | None = None
        self._refreshing = threading.Lock()
        self._refused_stamp: tuple[int, int] | None = None

    def close(self) -> None:
        """Let go of the network, the index and the connections."""
        self._loaded = None
        if self._store is not None:
            self._store.close()

    def refresh(self) -> None:
        """Take up a newly published generation. One caller does the work; others go on with what is loaded.

        When the new one cannot be loaded and an older one is, the older one stays and the reason is logged, once.
        """
        stamp = Store(self.settings.rsc_files).current_stamp()
        loaded = self._loaded
        if stamp is None or (loaded is not None and stamp in (loaded.stamp, self._refused_stamp)):
            return
        if not self._refreshing.acquire(blocking=loaded is None):
            return
        try:
            if self._loaded is loaded:
                self._loaded = self._load(stamp, loaded)
        except LookalikeError as error:
            if loaded is None:
                raise
            self._refused_stamp = stamp
            logger.error("The new generation cannot be loaded, the old one goes on answering: %s", error)
        finally:
            self._refreshing.release()

    def _load(self, stamp: tuple[int, int], before: _Loaded | None) -> _Loaded:
        store = self._opened_store()
        generation = store.generation()
        if generation is None:
            raise CollectionMissingError(
                f"There is no index in {self.settings.rsc_files} yet: run `python img2vec.py`."
            )
        network = network_of(store, generation)
        _check_settings(self.settings, network)
        snapshot = store.snapshot(network.key)
        manifest = IndexManifest(**generation.manifest["index"])
        same_network = before is not None and before.key == network.key
        backbone = before.backbone if before is not None and same_network else self._load_backbone(store, network)
        index = load_index(snapshot, generation.folder, manifest)
        return _Loaded(stamp, generation.number, network.key, manifest, store, snapshot, index, backbone)

    def _opened_store(self) -> Store:
        """Return the store of what was loaded before, unless the collection was made anew since: its files are others then."""
        catalog = self.settings.rsc_files / "catalog.sqlite"
        file = catalog.stat().st_ino if catalog.exists() else None
        if self._store is None or self._store_file != file:
            self._store, self._store_file = open_store(self.settings.rsc_files), file
        return self._store

    def _load_backbone(self, store: Store, network: NetworkId) -> Backbone:
        settings = self.settings
        return load_backbone(
            network,
            models_dir=store.models_folder,
            weights=settings.weights,
            engine=settings.engine,
            precision=settings.precision,
            threads=settings.threads,
            gpus=settings.gpus,
            batch_size=1,
            purpose="latency",
        )

    def _ready(self) -> tuple[Store, _Loaded]:
        self.refresh()
        loaded = self._loaded
        if loaded is None:
            raise CollectionMissingError(
                f"There is no collection in {self.settings.rsc_files.absolute()} yet. Make one: "
                'python img2vec.py "folder/with/pictures/*"'
            )
        if not len(loaded.snapshot):
            raise EmptyCollectionError(
                'The collection holds no image yet. Add some: python img2vec.py "folder/with/pictures/*"'
            )
        return loaded.store, loaded

    def status(self) -> CollectionStatus:
        """Tell what answers now; raises `CollectionMissingError` or `EmptyCollectionError` while nothing does."""
        store, loaded = self._ready()
        made_by = store.manifest(loaded.key)
        test = loaded.manifest.self_test if loaded.manifest.kind != "exact" else None
        return CollectionStatus(
            images=len(loaded.snapshot),
            backbone=made_by.backbone,
            layer=made_by.layer,
            dim=made_by.dim,
            engine=loaded.backbone.engine,
            precision=loaded.backbone.precision,
            index=loaded.manifest.kind,
            recall=None if test is None else test["recall"],
            generation=loaded.number,
        )

    def search_upload(self, content: bytes, *, k: int) -> SearchResult:
        """Find the k images nearest to an uploaded file's first picture. Raises `ImageError`, `CollectionError`."""
        store, loaded = self._ready()
        settings, row = self.settings, loaded.backbone.row
        limits = Limits(settings.upload_max_bytes, settings.upload_max_pixels, settings.max_frames)
        decoded = decode_image(content, limits, min_side=max(*row.input_size, settings.thumbnail_size))
        pixels = network_input(decoded.image, row.input_size, resample=row.resample)
        vectors = loaded.backbone.run(pixels[None]).vectors
        matches = self._matches(store, loaded, vectors, k)
        thumbnail = make_thumbnail(decoded.image, settings.thumbnail_size)
        return SearchResult(matches, decoded.width, decoded.height, thumbnail)

    def search_image(self, image_id: int, *, k: int) -> SearchResult:
        """Find the k images nearest to one of the collection, itself left out. Raises `ImageNotFoundError`."""
        store, loaded = self._ready()
        place = loaded.snapshot.position(image_id)
        record = store.record(image_id)
        vectors = loaded.snapshot.take(np.array([place]))
        matches = self._matches(store, loaded, vectors, k, without=image_id)
        return SearchResult(matches, record.width or 0, record.height or 0, None)

    def _matches(
        self, store: Store, loaded: _Loaded, vectors: npt.NDArray[np.float32], k: int, *, without: int | None = None
    ) -> list[Match]:
        extra = 0 if without is None else 1
        neighbours = loaded.index.query(vectors, k + extra)
        pairs = zip(neighbours.ids[0].tolist(), neighbours.distances[0].tolist(), strict=True)
        kept = [(image_id, distance) for image_id, distance in pairs if image_id != without][:k]
        infos = self._infos(store, loaded.key, [image_id for image_id, _ in kept])
        # An image taken out since the snapshot has no record any more: it is never returned.
        present = [(infos[image_id], distance) for image_id, distance in kept if image_id in infos]
        return [
            Match(rank, round(1 - distance, 6), round(distance, 6), info)
            for rank, (info, distance) in enumerate(present, start=1)
        ]

    def _infos(self, store: Store, key: str, image_ids: list[int]) -> dict[int, ImageInfo]:
        records = {i: r for i, r in store.records(image_ids).items() if r.error_code is None}
        labels = store.predicted_labels(key, [r.sha256 for r in records.values() if r.sha256 is not None])
        names = class_names()
        return {
            image_id: _info(
                record,
                [(names[n], score) for n, score in labels.get(record.sha256 or b"", [])],
                self.settings.thumbnail_size,
            )
            for image_id, record in records.items()
        }

    def image(self, image_id: int) -> ImageInfo:
        """Return what is known of one image. Raises `ImageNotFoundError`."""
        store, loaded = self._ready()
        infos = self._infos(store, loaded.key, [image_id])
        if image_id not in infos:
            raise ImageNotFoundError(f"The collection has no image {image_id}. It may have been taken out since.")
        return infos[image_id]

    def some_images(self, count: int) -> list[ImageInfo]:
        """Return up to `count` images, others each time: a place to begin for who has no picture at hand."""
        store, loaded = self._ready()
        count = min(count, len(loaded.snapshot))
        chosen = np.random.default_rng().choice(loaded.snapshot.ids, count, replace=False)
        return list(self._infos(store, loaded.key, chosen.tolist()).values())

    def thumbnail(self, image_id: int) -> bytes:
        """Return the JPEG made at indexing. Raises `ImageNotFoundError`."""
        store, _ = self._ready()
        record = store.record(image_id)
        jpeg = store.thumbnail(record.sha256) if record.sha256 is not None else None
        if jpeg is None:
            raise ImageNotFoundError(f"The collection has no thumbnail of image {image_id}.")
        return jpeg

    def original(self, image_id: int) -> tuple[bytes, ImageInfo]:
        """Return the path of an image's file, and what is known of it.

        Raises `ImageNotFoundError`, or `OriginalGoneError` when the file is not there, or is not the one that was indexed:
        only files that are still what the catalog says may leave the machine.
        """
        info = self.image(image_id)
        store, _ = self._ready()
        record = store.record(image_id)
        try:
            status = os.stat(record.path)
        except OSError:
            raise OriginalGoneError(
                f"The file of image {image_id} is not where it was indexed. Is its disk mounted? If it was moved, run "
                "img2vec.py over its new place."
            ) from None
        if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns):
            raise OriginalGoneError(
                f"The file of image {image_id} has changed since it was indexed: run img2vec.py again."
            )
        return record.path, info


def _info(record: Record, labels: list[tuple[str, float]], thumbnail_size: int) -> ImageInfo:
    width, height = record.width or 1, record.height or 1
    scale = min(1.0, thumbnail_size / max(width, height))
    folder, name = os.path.split(record.path)
    return ImageInfo(
        image_id=record.image_id,
        name=show_path(name),
        folder=show_path(os.path.basename(folder)),
        label=record.label,
        format=record.format or "",
        width=width,
        height=height,
        size=record.size,
        taken_at=record.taken_at,
        predicted_labels=labels,
        thumbnail_width=max(1, round(width * scale)),
        thumbnail_height=max(1, round(height * scale)),
    )


def _check_settings(settings: Settings, own: NetworkId) -> None:
    """Refuse a collection made by another network than the settings ask for; raises `CollectionMismatchError`."""
    name = settings.backbone or own.backbone
    row = find_row(name)
    layer = check_layer(row, settings.layer) if settings.layer or name != own.backbone else own.layer
    if settings.weights is not None:
        check_same_network(own, find_network(name, layer=layer, weights=settings.weights))
    elif (name, layer) != (own.backbone, own.layer):
        raise mismatch(own, f"{name}, layer {layer}", f"--backbone {name} --layer {layer}")


def open_service(settings: Settings) -> SearchService:
    """Load the network and the index of the collection. A missing or empty collection is no error: its searches raise.

    Raises `CollectionMismatchError`, `FormatVersionError`, `BackboneError` when the collection cannot be used as the
    settings ask.
    """
    service = SearchService(settings)
    service.refresh()
    return service
