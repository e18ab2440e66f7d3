"""What a search answers with, and what may be shown of an image. Owns these shapes alone; `service` fills them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ann import Metric
from pipeline import show_path
from search.queries import RankingName
from store import Record


@dataclass(frozen=True)
class ImageInfo:
    """What may be shown of one image of the collection. Names are valid Unicode; `size` is in bytes, sides in pixels.

    An image that came without a file (`has_file` False) has its name from whoever brought it; its sides may be unknown (None).
    """

    image_id: int
    name: str
    folder: str
    label: str | None
    format: str
    width: int | None
    height: int | None
    size: int
    taken_at: str | None
    predicted_labels: list[tuple[str, float]]
    tags: list[str]
    thumbnail_width: int
    thumbnail_height: int
    has_file: bool


@dataclass(frozen=True)
class Match:
    """One similar image: `rank` from 1, over all pages; `similarity` the plain cosine -1…1; `distance` by the query's metric.

    `closer_than` is the share 0…1 of random pairs of the collection that are less similar; None where that was not measured.
    """

    rank: int
    similarity: float
    distance: float
    closer_than: float | None
    image: ImageInfo


@dataclass(frozen=True)
class SearchResult:
    """The matches of one query, in the order `ranking` (which may be another than was asked for: see `Query`).

    `good_matches`: how many are as near as images of this collection are to each other and, in plain order, lie before the bend
    of the query's own curve of similarities; 0 when none is good, None where that cannot be told. `more`: whether there is
    a next page. Of a query by one picture
    or indexed image: its sides in pixels, and of an upload a small JPEG of what was looked at.
    """

    matches: list[Match]
    ranking: RankingName
    metric: Metric
    good_matches: int | None
    query_width: int | None
    query_height: int | None
    query_thumbnail: bytes | None
    more: bool = False


@dataclass(frozen=True)
class CollectionStatus:
    """What is loaded and answers now; `recall` is that of the index's self-test, None for exact search.

    `engine` and `precision` are None where the vectors came from elsewhere. `rankings` are the orders a page can have, the
    collection's own first.
    """

    images: int
    backbone: str
    layer: str
    dim: int
    engine: str | None
    precision: str | None
    index: str
    recall: float | None
    generation: int
    rankings: tuple[RankingName, ...]


def image_info(record: Record, labels: list[tuple[str, float]], tags: list[str], thumbnail_size: int) -> ImageInfo:
    """Return what may be shown of `record`, with its tags, and the names and scores of the classes that a network saw in it."""
    width, height = record.width or thumbnail_size, record.height or thumbnail_size * 3 // 4
    scale = min(1.0, thumbnail_size / max(width, height))
    folder, name = os.path.split(record.path)
    return ImageInfo(
        image_id=record.image_id,
        name=show_path(name),
        folder=show_path(os.path.basename(folder)),
        label=record.label,
        format=record.format or "",
        width=record.width,
        height=record.height,
        size=record.size,
        taken_at=record.taken_at,
        predicted_labels=labels,
        tags=tags,
        thumbnail_width=max(1, round(width * scale)),
        thumbnail_height=max(1, round(height * scale)),
        has_file=record.has_file,
    )
