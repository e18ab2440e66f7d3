"""Puts the parts together: a query in, matches out.

Owns the snapshot, the index and the network of the published generation, changing over to a newer one without dropping a request,
and joining neighbours with the catalog. Does not own HTTP, formats on disk, how an index answers, or what a query is.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ann import IndexManifest
from calibration import Calibration
from config import Settings
from errors import (
    CollectionMissingError,
    EmptyCollectionError,
    ImageError,
    ImageNotFoundError,
    LookalikeError,
    OriginalGoneError,
    QueryError,
    UploadGoneError,
)
from images import Decoders, Limits, Wanted
from networks import classes_of
from publishing import open_index, searched
from ranking import load_kind_ranking
from search.answers import CollectionStatus, ImageInfo, Match, SearchResult, image_info
from search.embedding import Embedder
from search.explaining import Explainer, Explanation, Looked
from search.kept import KeptUpload, KeptUploads, run_folder
from search.loaded import Loaded, check_original, good_matches, nearest, ranking_of, similarities_of
from search.places import Places
from search.queries import Box, Example, Query, RankingName, SeenExample, classes_named, combined
from search.stages import timed
from store import Filter, Generation, Record, Store, is_label_given, open_store, tags_of
from store.shelves import open_label_shelves
from vectors import Ids, Vectors

logger = logging.getLogger("lookalike")
MOST_LABELS = 100
LOAD_ATTEMPTS = 5
REFUSED_SECONDS = 60.0
"""After that a generation that could not be loaded is tried again: files may have been out of reach only for a while."""
_Opened = TypeVar("_Opened")


class SearchService:
    """Answers questions about one collection. Thread-safe; make it after any fork, through `open_service`.

    Without `load_network` the network is loaded when it is first needed, and not with the collection.
    """

    def __init__(self, settings: Settings, *, load_network: bool = True) -> None:
        self.settings = settings
        self._load_network = load_network
        self._store: Store | None = None
        self._store_file: int | None = None
        self._loaded: Loaded | None = None
        self._refreshing = threading.Lock()
        self._opening = threading.Lock()
        self._explainer = Explainer(settings)
        self._refused: tuple[int, int] | None = None
        self._refused_until = 0.0
        self.decoders = Decoders(max(2, settings.cpu_threads), settings.decode_timeout_s)
        self._places = Places(settings.cpu_threads + settings.waiting_uploads)

    def close(self) -> None:
        """Let go of the network, the index, the decoders and the connections."""
        self._loaded = None
        self.decoders.close()
        if self._store is not None:
            self._store.close()

    # What is loaded.

    def refresh(self) -> None:
        """Take up a newly published generation. One caller does the work; others go on with what is loaded.

        When the new one cannot be loaded and an older one is, the older one stays and the reason is logged, once a minute.
        """
        stamp = Store(self.settings.rsc_files).current_stamp()
        loaded = self._loaded
        refused = self._refused if time.monotonic() < self._refused_until else None
        if stamp is None or (loaded is not None and stamp in (loaded.stamp, refused)):
            return
        if not self._refreshing.acquire(blocking=loaded is None):
            return
        try:
            if self._loaded is loaded:
                self._loaded = self._load_newest(stamp, loaded)
        except (LookalikeError, OSError) as error:
            if loaded is None:
                raise
            self._refused, self._refused_until = stamp, time.monotonic() + REFUSED_SECONDS
            logger.error("The new generation cannot be loaded, the old one goes on answering: %s", error)
        finally:
            self._refreshing.release()

    def _load_newest(self, stamp: tuple[int, int], before: Loaded | None) -> Loaded:
        """Load the generation of `stamp`, or the one that took its place: its files go when two have come since."""
        for _ in range(LOAD_ATTEMPTS):
            try:
                return self._load(stamp, before)
            except (LookalikeError, OSError):
                newer = Store(self.settings.rsc_files).current_stamp()
                if newer in (None, stamp):
                    raise
                stamp = newer
        return self._load(stamp, before)

    def _load(self, stamp: tuple[int, int], before: Loaded | None) -> Loaded:
        store = self._opened_store()
        generation = store.generation()
        if generation is None:
            raise CollectionMissingError(
                f"There is no index in {self.settings.rsc_files} yet: run `python img2vec.py`."
            )
        vectors = store.manifest(generation.manifest["vectors_key"])
        embedder = Embedder(vectors, store.models_folder, self.settings)
        if before is not None and before.vectors.key == vectors.key:
            embedder = before.embedder
        elif self._load_network and embedder.refusal is None:
            self.decoders.warm()
            embedder.load()
        manifest = IndexManifest(**generation.manifest["index"])
        found = searched(store, generation)
        index = open_index(store, generation, found)
        kind = load_kind_ranking(index.snapshot, generation.folder, generation.manifest.get("ranking"))
        measured = generation.manifest.get("calibration")
        calibration = None if measured is None else Calibration(**measured)
        return Loaded(stamp, generation, vectors, manifest, store, found, index, embedder, kind, calibration)

    def _opened_store(self) -> Store:
        """Return the store of what was loaded before, unless the collection was made anew since: its files are others then."""
        catalog = self.settings.rsc_files / "catalog.sqlite"
        file = catalog.stat().st_ino if catalog.exists() else None
        if self._store is None or self._store_file != file:
            self._store, self._store_file = open_store(self.settings.rsc_files), file
        return self._store

    def ready(self) -> Loaded:
        """Return the newest generation; raises `CollectionMissingError` or `EmptyCollectionError` where there is nothing."""
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
        return loaded

    def opened(self, opener: Callable[[Store, Generation], _Opened]) -> _Opened:
        """Return what `opener` makes of the newest generation: a view of the collection, opened once for each generation.

        Raises what `ready` and `opener` raise.
        """
        loaded = self.ready()
        with self._opening:
            if opener not in loaded.opened:
                loaded.opened[opener] = opener(loaded.store, loaded.generation)
            return cast(_Opened, loaded.opened[opener])

    def images(self, image_ids: Iterable[int]) -> dict[int, ImageInfo]:
        """Return what is known of those of `image_ids` that are in the collection now."""
        return self._infos(self.ready(), image_ids)

    def labels(self) -> list[str]:
        """Return the labels that most images have, at most `MOST_LABELS`, by name: to choose from where one is asked for."""
        shelves = sorted(self.opened(open_label_shelves).now(), key=lambda shelf: -shelf.count)
        return sorted(shelf.name for shelf in shelves[:MOST_LABELS])

    def is_label_given(self, image_id: int) -> bool:
        """Tell whether a person gave an image its label, which else is its folder's name."""
        return is_label_given(self.ready().store, image_id)

    def status(self) -> CollectionStatus:
        """Tell what answers now; raises `CollectionMissingError` or `EmptyCollectionError` while nothing does."""
        loaded = self.ready()
        test = loaded.manifest.self_test if loaded.manifest.kind != "exact" else None
        backbone = loaded.embedder.load() if loaded.embedder.refusal is None else None
        return CollectionStatus(
            images=len(loaded.snapshot),
            backbone=loaded.vectors.backbone,
            layer=loaded.vectors.layer,
            dim=loaded.vectors.dim,
            engine=None if backbone is None else backbone.engine,
            precision=None if backbone is None else backbone.precision,
            index=loaded.manifest.kind,
            recall=None if test is None else test["recall"],
            generation=loaded.generation.number,
            rankings=loaded.rankings,
        )

    @property
    def upload_refusal(self) -> str | None:
        """Return why pictures cannot be searched with, or None when they can. Never raises."""
        loaded = self._loaded
        return None if loaded is None else loaded.embedder.refusal

    @property
    def rankings(self) -> tuple[RankingName, ...]:
        """Return the orders that a page can have, the collection's own first. Never raises."""
        return ("plain",) if self._loaded is None else self._loaded.rankings

    @property
    def serving(self) -> tuple[int, int] | None:
        """Return which generation answers now and how many images it holds, None while none does. Never raises."""
        loaded = self._loaded
        return None if loaded is None else (loaded.generation.number, len(loaded.snapshot))

    # Searching.

    def search(self, query: Query) -> SearchResult:
        """Answer one query. Indexed images among its examples are left out of the answer.

        Raises `QueryError`, `ImageError`, `ImageNotFoundError`, `OriginalGoneError`, `NoNetworkError`, and other
        `CollectionError` while nothing can be searched.
        """
        loaded = self.ready()
        with self._place([query]):
            return self._answer(loaded, query, {})

    def search_many(self, queries: Sequence[Query]) -> list[SearchResult | LookalikeError]:
        """Answer each of `queries` or say what is wrong with it, in their order. Raises only when nothing can be searched."""
        loaded = self.ready()
        kept: dict[Filter, Ids] = {}
        answers: list[SearchResult | LookalikeError] = []
        with self._place(queries):
            for query in queries:
                try:
                    answers.append(self._answer(loaded, query, kept))
                except LookalikeError as error:
                    answers.append(error)
        return answers

    def _place(self, queries: Sequence[Query]) -> AbstractContextManager[None]:
        """Return what holds one place for a request whose `queries` have pictures to look at. Raises `OverloadedError`."""
        examples = (example for query in queries for example in query.like + query.unlike)
        looks = any(isinstance(example.source, bytes) or example.box is not None for example in examples)
        return self._places.place() if looks else nullcontext()

    @property
    def uploads_at_work(self) -> int:
        """Return how many requests with pictures are being answered, or wait for the network, in this process."""
        return self._places.taken

    def _answer(self, loaded: Loaded, query: Query, kept: dict[Filter, Ids]) -> SearchResult:
        """Answer `query`; `kept` remembers what filters keep from one query to the next."""
        likes = [self._seen(loaded, example, thumbnail=query.thumbnail) for example in query.like]
        unlikes = [self._seen(loaded, example).vector for example in query.unlike]
        with timed("search"):
            return self._answer_to(loaded, query, kept, likes, unlikes)

    def _answer_to(
        self, loaded: Loaded, query: Query, kept: dict[Filter, Ids], likes: list[SeenExample], unlikes: list[Vectors]
    ) -> SearchResult:
        vector = combined(
            np.stack([seen.vector for seen in likes]), np.array(unlikes, np.float32).reshape(-1, loaded.snapshot.dim)
        )
        if query.where is not None and query.where not in kept:
            kept[query.where] = self.matching(loaded, query.where)
        allowed = None if query.where is None else kept[query.where]
        ranking = ranking_of(loaded, query)
        found = nearest(loaded, query, ranking, vector, allowed)
        similarities = similarities_of(loaded, query, vector, found)
        reach = None if query.k is None else query.skip + query.k
        shown = likes[0] if len(likes) == 1 else SeenExample(vector)
        return SearchResult(
            matches=self._matches(loaded, query, found[:reach], similarities[:reach]),
            ranking=ranking,
            metric=query.metric,
            good_matches=good_matches(loaded, ranking, query, similarities[:reach]),
            query_width=shown.width,
            query_height=shown.height,
            query_thumbnail=shown.thumbnail,
            more=reach is not None and len(found) > reach,
        )

    def matching(self, loaded: Loaded, where: Filter) -> Ids:
        """Return the ids of the images that `where` keeps, ascending, int64 (n,). Raises `QueryError` for what is no filter."""
        if not isinstance(where, Filter):
            raise QueryError(f"`where` is {where!r:.40}, but must be a Filter, such as Filter(label='cat').")
        classes = functools.partial(classes_named, classes_of(loaded.vectors))
        return loaded.store.matching_ids(where, key=loaded.vectors.key, classes=classes)

    def listed(self, where: Filter | None = None) -> Ids:
        """Return the ids of the images that can be found, or of those that `where` keeps, ascending, int64 (n,).

        `images` tells what is known of them.
        """
        loaded = self.ready()
        own = loaded.snapshot.ids
        return own if where is None else np.intersect1d(self.matching(loaded, where), own, assume_unique=True)

    def _matches(
        self, loaded: Loaded, query: Query, found: list[tuple[int, float]], similarities: list[float]
    ) -> list[Match]:
        """Return the matches of one page for image ids and their distances, from the first on, with what the catalog knows."""
        infos = self._infos(loaded, [image_id for image_id, _ in found[query.skip :]])
        matches: list[Match] = []
        for (image_id, distance), similarity in zip(found[query.skip :], similarities[query.skip :], strict=True):
            if image_id not in infos:
                continue  # taken out since the snapshot: it has no record any more and is never returned
            share = None if loaded.calibration is None else loaded.calibration.share_closer(similarity)
            rank = query.skip + len(matches) + 1
            matches.append(Match(rank, similarity, round(distance, 6), share, infos[image_id]))
        return matches

    # Examples as vectors.

    def _seen(self, loaded: Loaded, example: Example, *, thumbnail: bool = False) -> SeenExample:
        """Return an example with its vector as it is searched: that of an indexed image lies there, others are made so."""
        if isinstance(example.source, int) and example.box is None:
            record = loaded.store.record(example.source)
            place = loaded.snapshot.position(example.source)
            return SeenExample(loaded.snapshot.take(np.array([place]))[0], record.width, record.height)
        seen = self._seen_by_network(loaded, example, thumbnail=thumbnail)
        return replace(seen, vector=loaded.as_searched(seen.vector[None])[0])

    def _seen_by_network(self, loaded: Loaded, example: Example, *, thumbnail: bool) -> SeenExample:
        source = example.source
        if isinstance(source, bytes):
            settings = self.settings
            limits = Limits(settings.upload_max_bytes, settings.upload_max_pixels, settings.max_frames)
            return self._looked_at(loaded, source, limits, example, thumbnail=thumbnail)
        if isinstance(source, str):
            kept = self.kept_upload(source)
            return SeenExample(kept.vector, kept.width, kept.height, kept.thumbnail)
        if not isinstance(source, int):
            return SeenExample(source.astype(np.float32))
        record = loaded.store.record(source)
        loaded.snapshot.position(source)  # what is not searched is no image
        return self._part_of_original(loaded, record, example, thumbnail=thumbnail)

    def _part_of_original(self, loaded: Loaded, record: Record, example: Example, *, thumbnail: bool) -> SeenExample:
        settings = self.settings
        limits = Limits(settings.max_bytes, settings.max_pixels, settings.max_frames)
        check_original(record)
        try:
            with open(record.path, "rb") as file:
                content = file.read()
            return self._looked_at(loaded, content, limits, example, thumbnail=thumbnail)
        except (OSError, ImageError) as error:
            raise OriginalGoneError(f"The file of image {record.image_id} can no longer be read: {error}") from error

    def _looked_at(
        self, loaded: Loaded, content: bytes, limits: Limits, example: Example, *, thumbnail: bool
    ) -> SeenExample:
        """Decode a picture no larger than need be, apart from this process, and let the network look at it or at a part of it."""
        row = loaded.embedder.row
        part = None if example.box is None else example.box.edges
        size = self.settings.thumbnail_size if thumbnail else None
        wanted = Wanted(limits, row.input_size, row.resample, size, part)
        with timed("decode"):
            prepared = self.decoders.prepare(content, wanted)
        vector = loaded.embedder.look(prepared.pixels[None])[0]
        return SeenExample(vector, prepared.width, prepared.height, prepared.thumbnail)

    def check_decodes(self, content: bytes) -> None:
        """Raise `ImageError` unless an upload is a picture that can be decoded: tried in a child process, whatever it costs."""
        settings = self.settings
        limits = Limits(settings.upload_max_bytes, settings.upload_max_pixels, settings.max_frames)
        self.decoders.prepare(content, Wanted(limits, (512, 512), "bilinear", settings.thumbnail_size))

    # Uploads that are kept for a while.

    @functools.cached_property
    def _uploads(self) -> KeptUploads:
        return KeptUploads(run_folder(self.settings), self.settings.kept_minutes)

    def keep_upload(self, content: bytes, box: Box | None = None) -> str:
        """Look at a picture, or at a part of it, keep its vector and a small picture of all of it, and return their key.

        Raises what `search` does of a picture.
        """
        loaded = self.ready()
        with self._places.place():
            # The network's own vector is kept: it serves whatever projection is searched by next.
            seen = self._seen_by_network(loaded, Example(content, box), thumbnail=True)
        if seen.thumbnail is None or seen.width is None or seen.height is None:
            raise QueryError("Only a picture can be kept.")
        return self._uploads.keep(
            KeptUpload(loaded.vectors.key, seen.vector, seen.thumbnail, seen.width, seen.height, box)
        )

    def kept_upload(self, key: str) -> KeptUpload:
        """Return what is kept of an upload. Raises `UploadGoneError` when that is over, or the network is another since."""
        kept = self._uploads.get(key)
        if kept.vectors_key != self.ready().vectors.key:
            raise UploadGoneError(
                "The collection is searched by another network since that picture came. Send it again."
            )
        return kept

    # Why an image was found.

    def explain(self, image_id: int, like: Example) -> Explanation:
        """Return where an image of the collection agrees with another one, or with a kept upload, by their small pictures.

        Raises `QueryError`, `ImageNotFoundError`, `NoNetworkError`, `UploadGoneError`, `OverloadedError`.
        """
        loaded = self.ready()
        # That of the searches first: OpenVINO's very first inference must not be made by two networks at once.
        loaded.embedder.load()
        image, other = self.looked_at(Example(image_id)), self.looked_at(like)
        store, network = loaded.store, loaded.embedder.network
        return self._explainer.explain(network, store.models_folder, loaded.searched.own, image, other)

    def looked_at(self, example: Example) -> Looked:
        """Return the small picture that is kept of an example, and the part of it that is meant. Raises as `explain`."""
        if isinstance(example.source, str):
            kept = self.kept_upload(example.source)
            return Looked(kept.thumbnail, kept.box)
        thumbnail = self.thumbnail(example.source) if isinstance(example.source, int) else None
        if thumbnail is None:
            raise QueryError("Pictures are compared by the small copies kept of them, and there is none of this one.")
        return Looked(thumbnail, example.box)

    # What is known of images.

    def _infos(self, loaded: Loaded, image_ids: Iterable[int]) -> dict[int, ImageInfo]:
        store = loaded.store
        records = {i: r for i, r in store.records(image_ids).items() if r.error_code is None}
        hashes = [r.sha256 for r in records.values() if r.sha256 is not None]
        labels = store.predicted_labels(loaded.vectors.key, hashes)
        names, tags = classes_of(loaded.vectors), tags_of(store, records)
        return {
            image_id: image_info(
                record,
                [(names[n], score) for n, score in labels.get(record.sha256 or b"", [])],
                tags.get(image_id, []),
                self.settings.thumbnail_size,
            )
            for image_id, record in records.items()
        }

    def image(self, image_id: int) -> ImageInfo:
        """Return what is known of one image. Raises `ImageNotFoundError`."""
        infos = self._infos(self.ready(), [image_id])
        if image_id not in infos:
            raise ImageNotFoundError(f"The collection has no image {image_id}. It may have been taken out since.")
        return infos[image_id]

    def some_images(self, count: int) -> list[ImageInfo]:
        """Return up to `count` images, others each time: a place to begin for who has no picture at hand."""
        loaded = self.ready()
        count = min(count, len(loaded.snapshot))
        chosen = np.random.default_rng().choice(loaded.snapshot.ids, count, replace=False)
        return list(self._infos(loaded, chosen.tolist()).values())

    def thumbnail(self, image_id: int) -> bytes | None:
        """Return the JPEG made when the image came, None where there is none. Raises `ImageNotFoundError`."""
        store = self.ready().store
        record = store.record(image_id)
        return None if record.sha256 is None else store.thumbnail(record.sha256)

    def original(self, image_id: int) -> tuple[bytes, ImageInfo]:
        """Return the path of an image's file, and what is known of it.

        Raises `ImageNotFoundError`, `NoOriginalError` when it came without a file, or `OriginalGoneError` when the file is not
        there, or is not the one that was indexed: only files that are still what the catalog says may leave the machine.
        """
        info = self.image(image_id)
        record = self.ready().store.record(image_id)
        check_original(record)
        return record.path, info


def open_service(settings: Settings) -> SearchService:
    """Load the network and the index of the collection. A missing or empty collection is no error: its searches raise.

    Raises `CollectionMismatchError`, `FormatVersionError`, `BackboneError` when the collection cannot be used as the
    settings ask.
    """
    # The threads of numpy's BLAS spin while they wait. A search gains nothing by them, and of 32 requests at once they took
    # ten times as much processor as their searches.
    threadpool_limits(1, user_api="blas")
    service = SearchService(settings)
    service.refresh()
    return service
