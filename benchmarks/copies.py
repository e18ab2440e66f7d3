"""Do copies of a photograph find it? Photographs of a collection are changed as people change them, and searched with.

Owns which photographs are asked and what counts as found. How a copy is made is that of the sample collection (`samples`); the
search is that of the pages.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from images import Limits, decode_image
from samples import VARIANTS, make_variant
from search import Example, Query, RankingName, SearchResult, SearchService
from vectors import Ids, Vectors

EXACT = "exact copy"
MATCHES = 10
ORDERS: tuple[RankingName, ...] = ("plain", "kind")
AT_A_TIME = 32
LIMITS = Limits(max_bytes=10**9, max_pixels=10**9, max_frames=10_000)
SEED = 20_120_615


@dataclass(frozen=True)
class Found:
    """The shares 0…1 of `photographs` whose copy of one kind finds them first, in plain order and in that by kind."""

    photographs: int
    plain: float
    kind: float


def measure_copies(service: SearchService, photographs: int = 300) -> dict[str, Found]:
    """Return how often each kind of copy (an exact one, then those of `samples.VARIANTS`) finds its photograph first.

    The photographs are images of the service's collection, by chance; any image of the same contents counts as found. Raises
    `ValueError` when an answer is not in the order that was asked for: the collection has no other.
    """
    ids = np.sort(np.random.default_rng(SEED).permutation(service.ready().snapshot.ids)[:photographs])
    return {name: _found(service, ids, name) for name in (EXACT, *VARIANTS)}


def _found(service: SearchService, ids: Ids, name: str) -> Found:
    hits = np.zeros(2)
    for start in range(0, len(ids), AT_A_TIME):
        block = ids[start : start + AT_A_TIME].tolist()
        examples = [Example(vector) for vector in _vectors(service, block, name)]
        for column, ranking in enumerate(ORDERS):
            asked = [Query((example,), k=MATCHES, ranking=ranking) for example in examples]
            for image_id, answer in zip(block, service.search_many(asked), strict=True):
                if not isinstance(answer, SearchResult) or answer.ranking != ranking:
                    raise ValueError(f"image {image_id} was asked for in {ranking} order, the answer is {answer}")
                hits[column] += _same_contents(service, image_id, answer.matches[0].image.image_id)
    return Found(len(ids), *(hits / len(ids)).tolist())


def _same_contents(service: SearchService, one: int, other: int) -> bool:
    snapshot = service.ready().snapshot
    return bool(snapshot.rows[snapshot.position(one)] == snapshot.rows[snapshot.position(other)])


def _vectors(service: SearchService, image_ids: Sequence[int], name: str) -> Iterator[Vectors]:
    loaded = service.ready()
    records = loaded.store.records(image_ids)
    pictures = []
    for image_id in image_ids:
        with open(records[image_id].path, "rb") as file:
            content = file.read()
        if name != EXACT:
            with Image.open(io.BytesIO(content)) as opened:
                content = make_variant(opened.convert("RGB"), name)
        pictures.append(decode_image(content, LIMITS, min_side=loaded.embedder.side).image)
    return iter(loaded.embedder.vectors(pictures))
