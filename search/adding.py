"""Images that a Python user hands in, into a collection: files by the indexing job, pictures in memory and vectors by importing.

Owns which of these each kind of image goes through, and what images without a file are called. Does not own any of them.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from config import Settings
from errors import DamagedImageError, NoNetworkError, QueryError, RequestError
from images import find_images
from img2vec import Failure, Job, index_images
from importing import add_pictures, add_vectors, begin_imported
from networks import choose_network, row_of, vectors_manifest
from pipeline import show_path
from publishing import publish
from search.embedding import REFUSAL, Embedder
from search.given import Images, Source, sources
from search.looking import check_decodes, upright
from store import IMPORTED_BACKBONE, StoreWriter, open_writer

logger = logging.getLogger("lookalike")

TITLE = "vectors"
"""What the unknown network of vectors held in memory is called."""


def add_images(
    settings: Settings, images: Images, names: Iterable[str] | None, labels: Iterable[str] | None
) -> list[Failure]:
    """Add images to the collection of `settings.rsc_files`, made if missing; return which could not be, and why.

    See `Collection.add`. Each is logged as a warning as well.
    """
    given, _ = sources(images)
    kinds = {_kind(source) for source in given}
    if len(kinds) > 1:
        raise QueryError(f"Add {' and '.join(sorted(kinds))} one after the other, each by a call of its own.")
    failures: list[Failure] = []
    if kinds == {"files"}:
        if names is not None or labels is not None:
            raise QueryError(
                "A file is called by its path and labelled by its folder: `names` and `labels` are for others."
            )
        failures = _add_files(settings, [source for source in given if isinstance(source, bytes)])
    elif kinds:
        chosen = (None if names is None else list(names), None if labels is None else list(labels))
        for title, column in zip(("names", "labels"), chosen, strict=True):
            if column is not None and len(column) != len(given):
                raise QueryError(f"There are {len(given):,} images, but {len(column):,} {title}: each image needs one.")
        if kinds == {"vectors"}:
            failures = _add_vectors(settings, images if isinstance(images, np.ndarray) else given, *chosen)
        else:
            failures = _add_pictures(settings, given, *chosen)
    for failure in failures:
        logger.warning("%s could not become an image: %s", failure.path, failure.reason)
    return failures


def _kind(source: Source) -> str:
    if isinstance(source, int):
        raise QueryError(f"{source} is the id of an image that is in a collection already: it cannot be added.")
    if isinstance(source, bytes):
        return "files"
    return "vectors" if isinstance(source, np.ndarray) and source.dtype.kind == "f" else "pictures"


def _add_files(settings: Settings, patterns: list[bytes]) -> list[Failure]:
    found = find_images(patterns, exclude=[settings.rsc_files])
    if found.unmatched or found.unreadable:
        listed = ", ".join(show_path(os.fsencode(path)) for path in found.unmatched + found.unreadable)
        raise RequestError(f"Nothing that can be read matches {listed}. Nothing was added.")
    report = index_images(Job(settings, found.paths, on_note=logger.warning))
    ours = {show_path(path) for path in found.paths}
    return [failure for failure in report.failures if failure.path in ours]


def _add_vectors(
    settings: Settings,
    given: npt.NDArray[np.floating] | Sequence[Source],
    names: list[str] | None,
    labels: list[str] | None,
) -> list[Failure]:
    if not isinstance(given, np.ndarray):
        lengths = {len(vector) for vector in given if isinstance(vector, np.ndarray)}
        if len(lengths) > 1:
            raise QueryError(
                f"The vectors have {' and '.join(f'{n:,}' for n in sorted(lengths))} numbers: they must be alike."
            )
        given = np.stack([vector for vector in given if isinstance(vector, np.ndarray)])
    vectors = np.atleast_2d(given)
    with open_writer(settings.rsc_files, command="Collection.add") as writer:
        named = _names(writer, len(vectors)) if names is None else names
        key = begin_imported(writer, TITLE, named, vectors)
        added = add_vectors(writer, key, named, vectors, labels)
        publish(writer, key, settings, on_note=logger.warning)
    return added.failures


def _add_pictures(
    settings: Settings, given: Sequence[Source], names: list[str] | None, labels: list[str] | None
) -> list[Failure]:
    with open_writer(settings.rsc_files, command="Collection.add") as writer:
        named = _names(writer, len(given)) if names is None else names
        network = choose_network(settings, writer, logger.warning)
        if network.backbone == IMPORTED_BACKBONE:
            raise NoNetworkError(REFUSAL)
        failures = _undecodable(given, named)
        kept = [place for place in range(len(given)) if place not in failures]
        added = add_pictures(
            writer,
            Embedder(vectors_manifest(network, row_of(network, settings)), writer.models_folder, settings).load(),
            (upright(given[place]) for place in kept),
            [named[place] for place in kept],
            None if labels is None else [labels[place] for place in kept],
            thumbnail_size=settings.thumbnail_size,
        )
        publish(writer, network.key, settings, on_note=logger.warning)
    return [*failures.values(), *added.failures]


def _undecodable(given: Sequence[Source], names: Sequence[str]) -> dict[int, Failure]:
    """Return by place which pictures cannot be decoded."""
    failures = {}
    for place, picture in enumerate(given):
        if isinstance(picture, Image.Image):
            try:
                check_decodes(picture)
            except DamagedImageError as error:
                failures[place] = Failure(names[place], error.code, str(error))
    return failures


def _names(writer: StoreWriter, count: int) -> list[str]:
    """Return names for images that came without: image-1, image-2, … but for those that are taken."""
    taken = {record.path for record in writer.all_records()}
    free: Iterator[str] = (f"image-{n}" for n in itertools.count(len(taken) + 1) if b"image-%d" % n not in taken)
    return list(itertools.islice(free, count))
