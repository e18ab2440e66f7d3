"""A collection for Python programs: make one, ask it, change it, copy it.

    from search import create_collection, open_collection

Owns what the calls mean (Turi Create's meaning of `k`, `radius` and both None) and that the good ones of many images are
answered. Does not own how images come into a collection (`img2vec`, `importing`), how vectors are compared (`ann`) or what
lies on disk. Source: `turicreate.image_similarity`.

Distances are `metric="cosine"`, 1 - cosine, unless another of `ann.METRICS` is asked for: `"euclidean"` is Turi's. Cosine is
what the index is built over, so it alone is fast in large collections; what the pages show; and bounded by 0…2 whatever the
network, so that a radius means the same in every collection. Of vectors of equal length both give the same order.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ann import Edges, Metric, Neighbours, similarity_graph
from config import Settings, load_settings
from errors import (
    BatchError,
    CollectionError,
    EmptyCollectionError,
    ExportError,
    ImageError,
    ImageNotFoundError,
    LookalikeError,
    QueryError,
)
from img2vec import Failure
from indexes.index import DECIMALS, check_reach
from pipeline import show_path
from publishing import publish
from search.adding import add_images
from search.given import Images, Source, sources
from search.loaded import Loaded
from search.looking import Looked, find_record, look
from search.queries import Box, combined
from search.rows import ROW_DTYPE, Rows, make_rows
from search.service import SearchService
from store import Filter, Store, open_store, open_writer
from store.copying import copy_collection
from tables import whole_folder
from vectors import Vectors

logger = logging.getLogger("lookalike")

GRAPH_DTYPE = np.dtype([("source", np.int64), ("destination", np.int64), ("distance", np.float32), ("rank", np.int64)])
IMAGES_DTYPE = np.dtype([("image_id", np.int64), ("name", object), ("label", object)])
Graph = npt.NDArray[np.void]
"""Edges (e,) of `GRAPH_DTYPE`; images are named by their ids."""


class Collection:
    """Images with their vectors and index, in one folder on disk. Make it by `create_collection` or `open_collection`.

    Everything that takes images takes one or many of: a path (of a picture anywhere, or of one in the collection), an image
    id, a PIL image, an array uint8 (h, w, 3) or (h, w), a vector float (dim,); several as a list, an array (n, h, w, 3) or
    vectors (n, dim). The network is loaded when it is first asked to look at a picture: images of the collection and vectors
    need none.

    Many threads may query at once. What other processes publish is taken up by the next call. Close it, or use it in a `with`.
    """

    def __init__(self, settings: Settings, temporary: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self.settings = settings
        self._temporary = temporary
        self._service = SearchService(settings, load_network=False)

    @property
    def folder(self) -> Path:
        """Return the folder that holds all of it."""
        return self.settings.rsc_files

    def __len__(self) -> int:
        """Return how many images can be found."""
        try:
            return len(self._service.ready().snapshot)
        except EmptyCollectionError:
            return 0

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the network and the files. A temporary collection is deleted."""
        self._service.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def images(self, where: Filter | None = None) -> npt.NDArray[np.void]:
        """Return the images, or those that `where` keeps, by id: image_id int64, name (its path, or what it came as) and label.

        The answer, or a part of it, can be handed to every method that takes images.
        """
        try:
            loaded = self._service.ready()
        except EmptyCollectionError:
            return np.empty(0, dtype=IMAGES_DTYPE)
        ids = loaded.snapshot.ids if where is None else self._service.matching(loaded, where)
        records = loaded.store.records(ids.tolist())
        found = [(image_id, show_path(record.path), record.label) for image_id, record in sorted(records.items())]
        return np.array(found, dtype=IMAGES_DTYPE)

    def query(
        self,
        images: Images,
        k: int | None = 5,
        radius: float | None = None,
        *,
        label: object = None,
        metric: Metric = "cosine",
        unlike: Images | None = None,
        together: bool = False,
        where: Filter | None = None,
        box: Box | None = None,
    ) -> Rows:
        """Return the images of the collection nearest to each of `images`: rows (n,) sorted by query, then rank.

        Fields: `query_label` (from `label`, one for each image, or: the path; for an indexed image its name; else its number
        in `images`), `reference_label` (the name of what was found: its path, or what it came as), `distance` float32, `rank`
        from 1.

        k: how many at most; None: all within `radius`. radius: the largest distance, inclusive; None: any. Both None: every
        image. An image of the collection finds itself at rank 1: at distance 0, but that a vector of zeros is at cosine
        distance 1 from everything, itself as well (and so not within a lesser radius). `unlike`: images to be far from, for
        each query. `together`: all of `images` are one query, for what is like all of them. `where`: only these images are
        answered, and k of them are found if there are k. `box`: only this part of each picture is asked with, of an image of
        the collection as its file shows it (`NoOriginalError`, `OriginalGoneError`). Order and distances are always plain ones,
        never those of pages.

        Raises `QueryError` for k < 1, a negative radius, a vector of another dimension or with NaN; `ImageError` for a picture
        that cannot be read; `ImageNotFoundError`; `NoNetworkError` for a picture where vectors came from elsewhere. When some
        of many images cannot be searched with, `BatchError` names each of them, and its `rows` has the answers of the others.
        """
        check_reach(k, radius, metric)
        if not isinstance(box, Box | None):
            raise QueryError(f"The box is {box!r:.80}, but must be such as Box(0, 0, 0.5, 1), the left half.")
        given, many = sources(images)
        labels = None if label is None else _labels(label, 1 if together else len(given), several=many and not together)
        loaded = self._service.ready()
        seen = look(loaded, self.settings, given, box)
        if seen.errors and (together or not many):
            raise next(iter(seen.errors.values()))
        away = None if unlike is None else self._all_vectors(loaded, unlike)
        asked = _asked(seen, labels, away, together=together)
        allowed = None if where is None else self._service.matching(loaded, where)
        found = loaded.index.query(asked.vectors, k, radius=radius, metric=metric, allowed=allowed)
        own = np.array([-1 if image_id is None else image_id for image_id in asked.ids], dtype=np.int64)
        distances = loaded.index.measure(asked.vectors, own[:, None], metric=metric)[:, 0].round(DECIMALS)
        near = np.isfinite(distances) if radius is None else distances <= radius
        for number in np.flatnonzero(near & (own >= 0)).tolist():
            if allowed is None or own[number] in allowed:
                _put_first(found, number, own[number], distances[number])
        records = loaded.store.records(np.unique(found.ids[found.ids >= 0]).tolist())
        rows = make_rows(asked.labels, found, {image_id: show_path(r.path) for image_id, r in records.items()})
        if seen.errors:
            raise _batch_error(seen.errors, len(given), rows)
        return rows

    def _all_vectors(self, loaded: Loaded, images: Images) -> Vectors:
        seen = look(loaded, self.settings, sources(images)[0])
        if seen.errors:
            raise next(iter(seen.errors.values()))
        return seen.vectors

    def similarity_graph(
        self,
        k: int | None = 5,
        radius: float | None = None,
        include_self_edges: bool = False,
        *,
        metric: Metric = "cosine",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Graph:
        """Return the nearest images of every image as edges (e,): source, destination (ids int64), distance float32, rank from 1.

        `k` and `radius` as in `query`, sorted by source, then rank. An image itself is left out by its id, so that equal images
        remain. `on_progress` is called with images done and images in all. Edges take 28 bytes each: `iter_similarity_graph`
        gives them in blocks. Raises `QueryError`.
        """
        blocks = self.iter_similarity_graph(k, radius, include_self_edges, metric=metric, on_progress=on_progress)
        return np.concatenate([np.empty(0, dtype=GRAPH_DTYPE), *blocks])

    def iter_similarity_graph(
        self,
        k: int | None = 5,
        radius: float | None = None,
        include_self_edges: bool = False,
        *,
        metric: Metric = "cosine",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Graph]:
        """Yield what `similarity_graph` returns in blocks of some thousand sources, in memory that does not grow."""
        index = self._service.ready().index
        blocks = similarity_graph(
            index, k, radius=radius, metric=metric, include_self_edges=include_self_edges, on_progress=on_progress
        )
        return (_graph_block(edges) for edges in blocks)

    # Changing it.

    def add(
        self, images: Images, *, names: Iterable[str] | None = None, labels: Iterable[str] | None = None
    ) -> list[Failure]:
        """Add images and publish; return which could not become images, and why (also logged as a warning). The others are in.

        Paths may be files, folders (searched through) and globs, as for `img2vec.py`: what is known and unchanged costs
        nothing. Pictures held in memory (PIL, uint8 arrays) and vectors have no file: `names` says what they are called, and
        one of a name that is there already takes its place. `labels` is for these too; a file is labelled by its folder.

        Raises `RequestError` for a path that matches nothing, `QueryError` for what is no image, `CollectionLockedError`,
        `NoNetworkError` for pictures where vectors came from elsewhere, and other `LookalikeError`s that concern all of it.
        """
        return add_images(self.settings, images, names, labels)

    def remove(self, images: Images) -> None:
        """Take images of the collection out of it, by ids, paths, names or records. Files are never touched.

        Raises `ImageNotFoundError` when the collection does not have one of them; then nothing is taken out.
        """
        loaded = self._service.ready()
        image_ids = [_record_id(loaded, source) for source in sources(images)[0]]
        with open_writer(self.folder, command="Collection.remove") as writer:
            writer.remove(image_ids)
            publish(writer, loaded.vectors.key, self.settings, on_note=logger.warning)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy the whole collection to `path`, a new or empty folder: all of it or nothing. This object stays where it is.

        Raises `ExportError` when something lies there, `CollectionLockedError` while another process writes, `DiskFullError`.
        """
        target = Path(path)
        if self.folder.resolve() in target.resolve().parents:
            raise ExportError(f"{target} lies in the collection {self.folder} itself: save it to a folder outside.")
        with contextlib.suppress(OSError):  # then the next step says why
            target.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(target) as unfinished:
            copy_collection(self.folder, unfinished)


def open_collection(folder: str | os.PathLike[str], *, settings: Settings | None = None) -> Collection:
    """Open the collection in `folder`, for example "rsc_files".

    `settings` are those of `lookalike.toml` and the environment unless others are given; the folder is always this one.
    Raises `CollectionMissingError`, `CollectionMismatchError`, `FormatVersionError`, `DamagedCollectionError`.
    """
    chosen = replace(load_settings() if settings is None else settings, rsc_files=Path(folder))
    open_store(chosen.rsc_files).close()
    collection = Collection(chosen)
    len(collection)  # an index that cannot be opened is said now
    return collection


def create_collection(
    images: Images,
    folder: str | os.PathLike[str] | None = None,
    *,
    names: Iterable[str] | None = None,
    labels: Iterable[str] | None = None,
    backbone: str | None = None,
    settings: Settings | None = None,
) -> Collection:
    """Make a collection of `images` (see `Collection.add`) in `folder`, or in a temporary one that lives until it is closed.

    `backbone` is the network for pictures, as in `img2vec.py`. Vectors, float (n, dim), make a collection without a network:
    it is searched by its own images and by vectors. Files that cannot become images are logged as a warning. Raises
    `CollectionError` when `folder` holds a collection already, and what `Collection.add` raises. When nothing of what was
    given can become an image, the reason is raised, of several a `BatchError` with each, and nothing is left in `folder`.
    """
    temporary = tempfile.TemporaryDirectory(prefix="lookalike-") if folder is None else None
    where = Path(folder if folder is not None else os.path.join(temporary.name, "rsc_files") if temporary else "")
    if Store(where).current_stamp() is not None:
        raise CollectionError(
            f"There is a collection in {where} already: open_collection({str(where)!r}).add(…) adds to it."
        )
    chosen = replace(load_settings() if settings is None else settings, rsc_files=where)
    if backbone is not None:
        chosen = replace(chosen, backbone=backbone)
    before = set(os.listdir(where)) if where.is_dir() else None
    try:
        failures = add_images(chosen, images, names, labels)
        if Store(where).current_stamp() is None:
            raise QueryError("There is no image to make a collection of.")
        collection = Collection(chosen, temporary)
        if failures and not len(collection):
            collection.close()
            _clear(where, before)
            raise _nothing_usable(failures)
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    return collection


def _clear(folder: Path, before: set[str] | None) -> None:
    """Remove what came into `folder`, which held the names `before`; None: it was not there."""
    if before is None:
        shutil.rmtree(folder)
        return
    for entry in folder.iterdir():
        if entry.name not in before:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _nothing_usable(failures: list[Failure]) -> LookalikeError:
    errors = {place: ImageError(f"{failure.path}: {failure.reason}") for place, failure in enumerate(failures)}
    if len(errors) == 1:
        return errors[0]
    listed = "".join(f"\n  {error}" for error in errors.values())
    message = f"None of {len(errors):,} can become an image, and no collection was made.{listed}"
    return BatchError(message, np.empty(0, dtype=ROW_DTYPE), errors)


def _record_id(loaded: Loaded, source: Source) -> int:
    if isinstance(source, int):
        return loaded.store.record(source).image_id
    record = find_record(loaded, source) if isinstance(source, bytes) else None
    if record is None:
        called = show_path(source) if isinstance(source, bytes) else f"{source!r:.80}"
        raise ImageNotFoundError(f"The collection has no image {called}: name its id, its path, or what it came as.")
    return record.image_id


@dataclass(frozen=True)
class _Asked:
    """The queries to answer: their vectors float32 (q, dim), what each is called, and which indexed image it is, if one."""

    vectors: Vectors
    labels: list[object]
    ids: list[int | None]


def _asked(seen: Looked, labels: list[object] | None, away: Vectors | None, *, together: bool) -> _Asked:
    if together:
        # A mean of nothing is no question.
        if not len(seen.vectors):
            raise QueryError("There is no image to be like: `together` needs at least one.")
        vectors = combined(seen.vectors, seen.vectors[:0] if away is None else away)
        return _Asked(vectors, labels or [", ".join(str(label) for label in seen.labels)], [None])
    named = seen.labels if labels is None else [labels[place] for place in seen.places]
    if away is None:
        return _Asked(seen.vectors, named, seen.ids)
    vectors = seen.vectors.copy()
    for number, vector in enumerate(seen.vectors):
        vectors[number] = combined(vector[None], away)[0]
    return _Asked(vectors, named, [None] * len(named))


def _labels(label: object, count: int, *, several: bool) -> list[object]:
    """Return one label for each of `count` images. Raises `QueryError` when there are more or fewer."""
    if not several:
        return [label]
    labels = list(label) if isinstance(label, Iterable) and not isinstance(label, str | bytes) else [label]
    if len(labels) != count:
        raise QueryError(
            f"There are {count:,} images and {len(labels):,} labels: `label` must have one for each image."
        )
    return labels


def _put_first(found: Neighbours, number: int, image_id: int, distance: float) -> None:
    """Let an image that asks come first in its own answer: equal ones with smaller ids tie with it, or pushed it out."""
    ids, distances = found.ids[number], found.distances[number]
    if not len(ids):
        return
    place = int((np.flatnonzero(ids == image_id).tolist() or [len(ids) - 1])[0])
    ids[1 : place + 1], distances[1 : place + 1] = ids[:place].copy(), distances[:place].copy()
    ids[0], distances[0] = image_id, distance


def _batch_error(errors: Mapping[int, LookalikeError], count: int, rows: Rows) -> BatchError:
    listed = "".join(f"\n  number {place}: {error}" for place, error in errors.items())
    return BatchError(
        f"{len(errors):,} of {count:,} images cannot be searched with; the answers of the others are this error's rows.{listed}",
        rows,
        errors,
    )


def _graph_block(edges: Edges) -> Graph:
    block = np.empty(len(edges), dtype=GRAPH_DTYPE)
    block["source"], block["destination"] = edges.sources, edges.destinations
    block["distance"], block["rank"] = edges.distances, edges.ranks
    return block
