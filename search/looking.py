"""From images that a Python user hands in to vectors: those of the collection are looked up, others decoded and embedded.

Owns which of the two happens, and that what is wrong with one of many does not concern the others. Does not own decoding
(`images`), the network (`embedding`) or what is searched.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from config import Settings
from errors import (
    DamagedImageError,
    ImageError,
    ImageNotFoundError,
    LookalikeError,
    NoNetworkError,
    QueryError,
    UnreadableFileError,
)
from images import Limits, decode_image
from images.pixels import to_rgb
from pipeline import show_path
from search.given import Source
from search.loaded import Loaded, check_original
from search.queries import Box
from store import Record
from vectors import Vectors

PICTURES_AT_ONCE = 32
"""Pictures that are decoded before the network looks at them: bounds memory, and is a few batches."""


@dataclass
class Looked:
    """What became of n images: `vectors` float32 (m, dim), as they are searched, of those m whose `places` in the list are named,
    in order.

    `ids`: which image of the collection each is, None for others; `labels`: what each is called; `errors`: what is wrong with
    the others, by place.
    """

    vectors: Vectors
    places: list[int] = field(default_factory=list)
    ids: list[int | None] = field(default_factory=list)
    labels: list[object] = field(default_factory=list)
    errors: dict[int, LookalikeError] = field(default_factory=dict)


def look(loaded: Loaded, settings: Settings, given: Sequence[Source], box: Box | None = None) -> Looked:
    """Return the vectors of `given`, or of the part `box` of each picture. Raises only what concerns them all (`BackboneError`).

    A part of an image of the collection is seen in its file, and is not that image.
    """
    looked = Looked(np.empty((len(given), loaded.snapshot.dim), dtype=np.float32))
    waiting: list[tuple[int, Image.Image]] = []
    for place, source in enumerate(given):
        try:
            image_id = known_id(loaded, source)
            if box is not None:
                waiting.append((place, _part(loaded, settings, source, image_id, box)))
            elif image_id is not None:
                looked.vectors[place] = loaded.snapshot.take(np.array([loaded.snapshot.position(image_id)]))[0]
            elif isinstance(source, np.ndarray) and source.dtype.kind == "f":
                looked.vectors[place] = _checked(loaded, source)
            else:
                waiting.append((place, _picture(loaded, settings, source)))
        except (ImageError, ImageNotFoundError, NoNetworkError, QueryError) as error:
            looked.errors[place] = error
            continue
        looked.places.append(place)
        looked.ids.append(image_id if box is None else None)
        looked.labels.append(_label(loaded, source, image_id, place))
        if len(waiting) == PICTURES_AT_ONCE:
            _embed(loaded, waiting, looked.vectors)
    _embed(loaded, waiting, looked.vectors)
    looked.vectors = looked.vectors[looked.places]
    return looked


def known_id(loaded: Loaded, source: Source) -> int | None:
    """Return which image of the collection `source` is: an id, its name, or the path of a file that is still what was indexed.

    A path whose file is gone is still that image. Raises `ImageNotFoundError` for an id that the collection does not have.
    """
    if isinstance(source, int):
        loaded.snapshot.position(source)
        return source
    if not isinstance(source, bytes):
        return None
    record = find_record(loaded, source)
    if record is None or record.error_code is not None or _has_changed(record):
        return None
    try:
        loaded.snapshot.position(record.image_id)
    except ImageNotFoundError:
        return None  # it came since the index was published, or is of another network
    return record.image_id


def find_record(loaded: Loaded, path: bytes) -> Record | None:
    """Return the record of the image that is called `path` or lies there."""
    # The catalog holds real paths; a name is one that does not begin with a slash.
    real = os.path.realpath(path) if b"\0" not in path else path
    return loaded.store.record_at(real) or loaded.store.record_at(path)


def _has_changed(record: Record) -> bool:
    try:
        status = os.stat(record.path)
    except OSError:
        return False
    return record.has_file and (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns)


def _checked(loaded: Loaded, vector: Vectors) -> Vectors:
    with np.errstate(over="ignore"):
        numbers = vector.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise QueryError(f"The vector holds {vector[bad[0]]} at place {bad[0]}: it must be finite numbers.")
    searched: Vectors = loaded.as_searched(numbers[None])[0]
    return searched


def _part(loaded: Loaded, settings: Settings, source: Source, image_id: int | None, box: Box) -> Image.Image:
    """Return the part `box` of a picture. Raises `QueryError` for a vector, `NoOriginalError`, `OriginalGoneError`."""
    if isinstance(source, np.ndarray) and source.dtype.kind == "f":
        raise QueryError("A vector has no parts: a box needs a picture or an indexed image.")
    if image_id is not None:
        record = loaded.store.record(image_id)
        check_original(record)
        source = record.path
    return box.cut(_picture(loaded, settings, source, box.least_share))


def _picture(loaded: Loaded, settings: Settings, source: Source, share: float = 1.0) -> Image.Image:
    """Return a picture, decoded no larger than need be for the network to look at `share` of its sides."""
    if isinstance(source, bytes) and not os.path.exists(source):
        raise _unreadable(source, "there is no such file")  # a mistyped name, whatever the network could do
    side = math.ceil(loaded.embedder.side / share)  # so early that nothing is decoded in vain where there is no network
    if not isinstance(source, bytes):
        return upright(source)
    limits = Limits(settings.max_bytes, settings.max_pixels, settings.max_frames)
    try:
        with open(source, "rb") as file:
            return decode_image(file, limits, min_side=side).image
    except ImageError as error:
        raise type(error)(f"{show_path(source)}: {error}") from error
    except (OSError, ValueError) as error:  # a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(source, reason) from error


def _unreadable(path: bytes, reason: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{show_path(path)} cannot be read ({reason}), and the collection has no image of that name."
    )


def upright(picture: Source) -> Image.Image:
    """Return a PIL image or uint8 (h, w), (h, w, 1, 3 or 4) as upright RGB over white. Raises `DamagedImageError`."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture))
    if not isinstance(picture, Image.Image):
        raise TypeError(f"{picture!r:.80} is no picture held in memory")
    check_decodes(picture)
    return to_rgb(ImageOps.exif_transpose(picture))


def check_decodes(picture: Image.Image) -> None:
    """Read the pixels of a file that Pillow opened, which it does as late as it can. Raises `DamagedImageError`."""
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, MemoryError) as error:
        raise DamagedImageError(f"The picture {picture!r:.80} cannot be decoded: {error}.") from error


def _label(loaded: Loaded, source: Source, image_id: int | None, place: int) -> object:
    if image_id is not None:
        return show_path(loaded.store.record(image_id).path)
    return show_path(source) if isinstance(source, bytes) else place


def _embed(loaded: Loaded, waiting: list[tuple[int, Image.Image]], vectors: Vectors) -> None:
    """Fill in the vectors of the pictures that wait, and let them go."""
    if waiting:
        made = loaded.embedder.vectors([picture for _, picture in waiting])
        vectors[[place for place, _ in waiting]] = loaded.as_searched(made)
        waiting.clear()
