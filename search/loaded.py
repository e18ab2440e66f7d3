"""One generation as it is loaded, and what is nearest to a vector in it.

Owns which order an answer has, how many of its images are good, and whether a file is still what was indexed. Does not own
loading (`service`), how an index answers (`ann`) or what is known of images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from ann import Index, IndexManifest, Neighbours
from calibration import Calibration
from errors import NoOriginalError, OriginalGoneError, QueryError
from publishing import Searched
from ranking import PLAIN_PLACES, KindRanking
from search.embedding import Embedder
from search.queries import Query, RankingName
from store import Generation, Record, Snapshot, Store, VectorsManifest
from vectors import Ids, Vectors


@dataclass(frozen=True)
class Loaded:
    """One generation, with everything needed to answer from it. Replaced as a whole, never changed."""

    stamp: tuple[int, int]
    generation: Generation
    vectors: VectorsManifest
    manifest: IndexManifest
    store: Store
    searched: Searched
    index: Index
    embedder: Embedder
    kind: KindRanking | None
    calibration: Calibration | None
    opened: dict[object, object] = field(default_factory=dict)
    """What `SearchService.opened` has opened of this generation."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the vectors that are searched."""
        return self.searched.snapshot

    def as_searched(self, vectors: Vectors) -> Vectors:
        """Return vectors (n, dim) as the network makes them, of any query, as those that are searched: float32 (n, searched dim).

        Raises `QueryError` for another length than the network's.
        """
        if vectors.shape[1] != self.vectors.dim:
            raise QueryError(
                f"The vector has {vectors.shape[1]:,} numbers, but those of this collection have {self.vectors.dim:,}."
            )
        projection = self.searched.projection
        return vectors if projection is None else projection.apply(vectors)

    @property
    def rankings(self) -> tuple[RankingName, ...]:
        """Return the orders that answers can have, the collection's own first."""
        if self.kind is None:
            return ("plain",)
        return ("kind", "plain") if self.kind.default == "kind" else ("plain", "kind")


def ranking_of(loaded: Loaded, query: Query) -> RankingName:
    """Return the order of the answer: distances are in order wherever they are what was asked for."""
    if query.radius is not None or query.metric != "cosine" or "kind" not in loaded.rankings:
        return "plain"
    return query.ranking or loaded.rankings[0]


def nearest(
    loaded: Loaded, query: Query, ranking: RankingName, vector: Vectors, allowed: Ids | None
) -> list[tuple[int, float]]:
    """Return image ids and their distances from `vector` (1, dim), in the order `ranking`, without the query's own images.

    They are from the first on, whatever is skipped, and one more than the page has, if there is one.
    """
    out, index = query.image_ids, loaded.index
    wanted = None if query.k is None else query.skip + query.k + 1
    if ranking == "kind" and loaded.kind is not None:
        plain = index.query(vector, PLAIN_PLACES + len(out), allowed=allowed).ids
        own = np.array([sorted(out)], dtype=np.int64)
        ids = loaded.kind.order(vector, plain, wanted, allowed=allowed, without=own)
        return Neighbours(ids, index.measure(vector, ids)).of(0)
    k = None if wanted is None else wanted + len(out)
    found = index.query(vector, k, radius=query.radius, metric=query.metric, allowed=allowed).of(0)
    return [(image_id, distance) for image_id, distance in found if image_id not in out][:wanted]


def similarities_of(loaded: Loaded, query: Query, vector: Vectors, found: list[tuple[int, float]]) -> list[float]:
    """Return the cosines of `vector` (1, dim) with what was found, whatever distance it was found by."""
    distances = [distance for _, distance in found]
    if query.metric != "cosine":
        ids = np.array([[image_id for image_id, _ in found]], dtype=np.int64)
        distances = loaded.index.measure(vector, ids)[0].tolist()
    return [round(1 - distance, 6) for distance in distances]


def good_matches(loaded: Loaded, ranking: RankingName, query: Query, similarities: list[float]) -> int | None:
    """Return how many matches of a page are good, None where nothing was measured to tell it by.

    In plain order they end where the same picture does, in that by kind where the kind does. A page is judged by the curve of
    `similarities` up to the first page that has others, so that no later page changes what an earlier one said.
    """
    calibration = loaded.calibration
    if calibration is None:
        return None
    tell = calibration.kind_matches if ranking == "kind" else calibration.good_matches
    curve: list[float] = []
    good = 0
    for end in range(query.k or len(similarities), len(similarities) + (query.k or 1), query.k or 1):
        curve = sorted(similarities[:end], reverse=True)
        good = tell(curve)
        if good < len(curve):
            break
    if not good:
        return 0
    return min(good, sum(similarity >= curve[good - 1] for similarity in similarities[query.skip :]))


def check_original(record: Record) -> None:
    """Raise `NoOriginalError` or `OriginalGoneError` unless the file of an image is the one that was indexed."""
    if not record.has_file:
        raise NoOriginalError(
            f"Image {record.image_id} came into the collection without a file: only its vector and what is known of it are here."
        )
    try:
        status = os.stat(record.path)
    except OSError:
        raise OriginalGoneError(
            f"The file of image {record.image_id} is not where it was indexed. Is its disk mounted? If it was moved, run "
            "img2vec.py over its new place."
        ) from None
    if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns):
        raise OriginalGoneError(
            f"The file of image {record.image_id} has changed since it was indexed: run img2vec.py again."
        )
