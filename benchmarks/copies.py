"""Do copies of a photograph find it? Photographs of a collection are changed as people change them, and searched with.

Owns which photographs are asked and what counts as found. How a copy is made is that of the sample collection (`samples`); the
search is that of the pages.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ann import Index
from config import Settings
from evaluation import evaluate
from images import Limits, decode_image
from ranking import build_kind_ranking, load_kind_ranking
from samples import VARIANTS, make_variant
from search import Example, Query, RankingName, SearchResult, SearchService, open_service
from store import Snapshot
from vectors import Ids, Vectors

EXACT = "exact copy"
MATCHES = 10
GROUP = (EXACT, "cropped_to_corner.jpg", "turned_90_degrees.jpg", "grey.webp")
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


@dataclass(frozen=True)
class Groups:
    """mAP among groups of one size, in plain order and in that by kind, and which of them the collection would have."""

    plain: float
    kind: float
    default: str


def measure_groups(service: SearchService, photographs: int = 300) -> dict[int, Groups]:
    """Return, for collections of nothing but small groups of copies, how well the copies of a photograph find each other."""
    ids = np.sort(np.random.default_rng(SEED).permutation(service.ready().snapshot.ids)[:photographs])
    vectors = {
        name: np.concatenate(
            [
                np.stack(list(_vectors(service, ids[at : at + AT_A_TIME].tolist(), name)))
                for at in range(0, len(ids), AT_A_TIME)
            ]
        )
        for name in GROUP
    }
    return {size: _grouped(np.concatenate([vectors[name] for name in GROUP[:size]]), size) for size in (2, 3, 4)}


def _grouped(vectors: Vectors, size: int) -> Groups:
    places = np.arange(len(vectors), dtype=np.int64)
    snapshot = Snapshot(places + 1, places, vectors.astype(np.float16))
    labels = [str(place % (len(vectors) // size)) for place in places.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        manifest = build_kind_ranking(snapshot, Path(folder), labels=labels)
        kind = load_kind_ranking(snapshot, Path(folder), manifest)
        qualities = evaluate(Index(snapshot), kind, labels).qualities
    found = {row.order: row.mean_average_precision.value for row in qualities if row.asked == "images"}
    return Groups(found["plain"], found["kind"], manifest["default"])


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


def _main(collection: str, count: str) -> None:
    """Print what was found in `collection`, by copies and by groups of copies, as JSON."""
    service = open_service(Settings(rsc_files=Path(collection)))
    measured = (measure_copies(service, int(count)), measure_groups(service, int(count)))
    print(json.dumps([{name: asdict(one) for name, one in found.items()} for found in measured]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
