"""Answering: what was built proposes, the stored vectors decide.

Owns the order and the distances of every answer, and that images added, deleted or changed since a build, filters and radii
are answered truly. Does not own building (`building.py`) nor the libraries (`kinds.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import QueryError
from indexes.distances import Metric, check_metric, distances_between, distances_from
from indexes.kinds import Candidates
from store import Snapshot
from vectors import (
    BLOCK_ROWS,
    Ids,
    Likeness,
    Vectors,
    dot_products,
    exact_neighbours,
    largest,
    unit_blocks,
    unit_vectors,
)

MARGIN = 16
"""Candidates beyond k that are ordered anew in float64, so that rounding in float32 cannot change the answer."""
TESTED_K = 10
"""For how many neighbours a build's search effort is chosen; for more of them it grows."""
DEPTH = 2.5
"""Candidates for each image wanted, at least, when they come in the order of smaller vectors: what `MARGIN` gives for k = 10.

With `MARGIN` alone 0.99 of the 10 nearest of 100,000 are found, but 0.94 of the 50 nearest.
"""
DECIMALS = 6
"""To which distances are told, so that equal vectors are at 0, and compared: with each other and, inclusively, with a radius."""
FARTHEST = float(np.finfo(np.float32).max)
"""What is farther is told to be as far as this: infinite is the distance of no image."""
SLACK = 1e-4
"""How far a product of float32 vectors may be off, as a share of their lengths: what is nearer to a radius is measured."""
FEW = 0.05
FEW_IMAGES = 10_000
"""A filter that keeps a smaller share, or fewer images, than this is answered by exact search over what it keeps.

Folders and labels lie together: among what a built index proposes for a picture of another kind they are rare, and met where the
index is least sure. With the share alone 0.92 of the true ten were found in the largest class of caltech101-dev.
"""
HELD_BYTES = 256_000_000
"""Vectors that no built index covers are held as float32 up to this size; more are read from disk for each query."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of q queries, best first, ties in order of id: `ids` int64 (q, m), `distances` float32 (q, m).

    m is what the longest answer needs; where a query has fewer (a radius), ids are -1 and distances infinite.
    """

    ids: Ids
    distances: Vectors

    def of(self, number: int) -> list[tuple[int, float]]:
        """Return the answer of one query as (image id, distance), without the padding."""
        pairs = zip(self.ids[number].tolist(), self.distances[number].tolist(), strict=True)
        return [(image_id, distance) for image_id, distance in pairs if image_id >= 0]

    def without(self, own: Ids, k: int | None) -> Neighbours:
        """Leave out of each answer the image `own` int64 (q,), and what then is beyond the first `k`."""
        return _packed(self.ids, self.distances, (self.ids >= 0) & (self.ids != own[:, None]), k)

    def with_first(self, own: Ids, distances: Vectors) -> Neighbours:
        """Put each query's own image first: equals with a smaller id would come before it, or push it out at the end."""
        others = self.without(own, max(self.ids.shape[1] - 1, 0))
        return Neighbours(
            np.concatenate([own[:, None], others.ids], axis=1),
            np.concatenate([distances[:, None], others.distances], axis=1),
        )


def _packed(ids: Ids, distances: Vectors, kept: npt.NDArray[np.bool_], k: int | None) -> Neighbours:
    """Move what is `kept` to the left of each row and cut the rows to the longest, at most `k`."""
    counts = kept.sum(axis=1)
    width = min(int(counts.max(initial=0)), ids.shape[1] if k is None else k)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :width]
    beyond = np.arange(width) >= counts[:, None]
    packed_ids, packed_distances = np.take_along_axis(ids, order, 1), np.take_along_axis(distances, order, 1)
    packed_ids[beyond], packed_distances[beyond] = -1, np.inf
    return Neighbours(packed_ids, packed_distances)


def check_queries(vectors: npt.NDArray[Any], dim: int) -> Vectors:
    """Return `vectors` (q, dim) as float32; raises `QueryError` naming another shape, NaN or infinity."""
    queries = np.asarray(vectors)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise QueryError(
            f"The collection holds {dim}-d vectors, so queries must have shape (n, {dim}), not {queries.shape}."
        )
    if not np.issubdtype(queries.dtype, np.number) or np.iscomplexobj(queries):
        raise QueryError(f"Query vectors must be real numbers, not {queries.dtype}.")
    with np.errstate(over="ignore"):
        queries = queries.astype(np.float32)
    bad = ~np.isfinite(queries)
    if bad.any():
        number, place = np.argwhere(bad)[0].tolist()
        raise QueryError(
            f"Query {number} holds {queries[number, place]} at place {place}: a vector must be finite numbers."
        )
    return queries


def check_reach(k: int | None, radius: float | None, metric: str) -> None:
    """Raise `QueryError`, naming the value, unless k is None or at least 1, the radius None or at least 0, the metric known."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer)):
        raise QueryError(f"k must be a whole number or None for all, not {k!r}.")
    if k is not None and k < 1:
        raise QueryError(f"k must be at least 1, or None for all; it is {k}.")
    numeric = isinstance(radius, int | float | np.number) and not isinstance(radius, bool)
    if radius is not None and not (numeric and radius >= 0):
        raise QueryError(f"The radius must be a number from 0 on, or None for any distance; it is {radius!r}.")
    check_metric(metric)


class Index:
    """Answers "which are near?" over one snapshot: what was built, plus an exact scan of what came since, minus what is gone.

    Thread-safe; immutable after construction. `candidates` covers the images `built_ids` whose vectors lay in `built_rows`; it
    was built over vectors that `reduce` makes of the stored ones, if given, and is then asked for `oversample` times as many.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        candidates: Candidates | None = None,
        built_ids: Ids | None = None,
        built_rows: Ids | None = None,
        *,
        reduce: Callable[[Vectors], Vectors] | None = None,
        oversample: int = 1,
    ) -> None:
        self.snapshot = snapshot
        self._candidates = candidates
        self._reduce = reduce
        self._oversample = oversample
        covered = np.zeros(len(snapshot), dtype=bool)
        # For each built item its place in the snapshot, -1 when it was deleted or has another vector now.
        self._place = np.empty(0, dtype=np.int64)
        if candidates is not None and built_ids is not None and built_rows is not None:
            self._place = places_of(snapshot, built_ids, built_rows)
            covered[self._place[self._place >= 0]] = True
        self._stale = int((self._place < 0).sum())
        self._scanned = np.flatnonzero(~covered).astype(np.int64)
        self._held: Vectors | None = None
        if len(self._scanned) * snapshot.dim * 4 <= HELD_BYTES:
            blocks = list(unit_blocks(self.snapshot, self._scanned))
            self._held = np.concatenate(blocks) if blocks else np.empty((0, snapshot.dim), dtype=np.float32)

    def query(
        self,
        vectors: npt.NDArray[Any],
        k: int | None,
        *,
        radius: float | None = None,
        metric: Metric = "cosine",
        allowed: Ids | None = None,
    ) -> Neighbours:
        """Return the images nearest to each of `vectors` (q, dim), any real type.

        `k` is how many (None: all), `radius` the largest distance (inclusive; None: any). The distance is 1 - cosine, 0…2, or,
        always by exact search, another one of `METRICS` between the vectors as they are stored. `allowed`, ascending image ids,
        restricts the answer to those images: k of them are found if there are k. Raises `QueryError` for NaN, another
        dimension, k < 1, a negative radius, an unknown metric, or one that is not for vectors such as these.
        """
        check_reach(k, radius, metric)
        queries = check_queries(vectors, self.snapshot.dim)
        places = None if allowed is None else self._places_of(allowed)
        count = len(self.snapshot) if places is None else len(places)
        if not count or not len(queries):
            return Neighbours(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        wanted = count if k is None else min(int(k), count)
        if k is None and radius is not None:
            found = self._scan_within(queries, float(radius), metric, places)
        elif metric != "cosine" or self._scans_everything(places, wanted):
            found = self._scan(queries, wanted, metric, places)
        else:
            found = self._ask(queries, wanted, places)
        if radius is None:
            return found
        within = (found.ids >= 0) & (found.distances <= np.float32(round(float(radius), DECIMALS)))
        return _packed(found.ids, found.distances, within, None)

    def measure(self, vectors: npt.NDArray[Any], ids: Ids, *, metric: Metric = "cosine") -> Vectors:
        """Return the distances float32 (q, m) of the images `ids` int64 (q, m) from `vectors` (q, dim); infinite for an id of -1.

        Raises `ImageNotFoundError` for an id without a vector, `QueryError` as `query` does.
        """
        check_reach(None, None, metric)
        queries = check_queries(vectors, self.snapshot.dim)
        distances = np.full(ids.shape, np.inf, dtype=np.float32)
        for number, query in enumerate(queries):
            known = ids[number] >= 0
            places = np.array([self.snapshot.position(int(i)) for i in ids[number][known]], dtype=np.int64)
            distances[number, known] = self._distances(query, places, metric)
        return distances

    def _places_of(self, allowed: Ids) -> Ids:
        """Return the places in the snapshot of those `allowed` ids that have a vector."""
        if not len(self.snapshot):
            return np.empty(0, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.snapshot.ids, allowed), len(self.snapshot) - 1)
        there: npt.NDArray[np.bool_] = self.snapshot.ids[places] == allowed
        found: Ids = places[there].astype(np.int64)
        return found

    def _scans_everything(self, places: Ids | None, wanted: int) -> bool:
        if self._candidates is None:
            return True
        count = len(self.snapshot)
        # Asking a built index for a large part of it costs more than looking at everything.
        return wanted > count // 4 or (places is not None and len(places) < max(FEW * count, FEW_IMAGES, wanted))

    # Exact search.

    def _scan(self, queries: Vectors, wanted: int, metric: Metric, places: Ids | None) -> Neighbours:
        """Compare with everything, or everything at `places`."""
        asked, blocks, likeness = self._compared(queries, metric, places)
        nearest, _ = exact_neighbours(asked, blocks, wanted + MARGIN, likeness=likeness)
        if places is not None:
            nearest = places[nearest]
        return self._ordered(queries, list(nearest), wanted, metric)

    def _scan_within(self, queries: Vectors, radius: float, metric: Metric, places: Ids | None) -> Neighbours:
        """Compare with everything, or everything at `places`; only what float32 finds about within the radius is measured."""
        lengths = np.linalg.norm(queries, axis=1)[:, None]
        if metric == "cosine":
            least = np.full_like(lengths, 1 - radius - SLACK)
        elif metric == "euclidean":
            least = (lengths**2 - radius**2) / 2 - SLACK * (lengths + radius) ** 2
        else:
            least = np.full_like(lengths, -radius - SLACK * (1 + radius))
        asked, blocks, likeness = self._compared(queries, metric, places)
        near: list[list[Ids]] = [[np.empty(0, np.int64)] for _ in queries]
        start = 0
        for block in blocks:
            numbers, hits = np.nonzero(likeness(asked, block) >= least)
            for part, hit in zip(
                near, np.split(hits + start, np.searchsorted(numbers, range(1, len(queries)))), strict=True
            ):
                part.append(hit)
            start += len(block)
        chosen = [np.concatenate(parts) for parts in near]
        if places is not None:
            chosen = [places[found] for found in chosen]
        return self._ordered(queries, chosen, max(map(len, chosen)), metric)

    def _compared(
        self, queries: Vectors, metric: Metric, places: Ids | None
    ) -> tuple[Vectors, Iterator[Vectors], Likeness]:
        """Return queries, blocks of stored vectors, and what is largest where these are nearest: a product where that can be."""
        if metric == "cosine":
            return unit_vectors(queries), self._units(places), dot_products
        if metric == "euclidean":
            # |x - q|² is smallest where x·q - |x|²/2 is largest: one more number in each vector makes that a product.
            ones = np.ones((len(queries), 1), np.float32)
            return np.concatenate([queries, ones], axis=1), map(_lifted, self._stored(places)), dot_products

        def likeness(asked: Vectors, block: Vectors) -> Vectors:
            return -np.minimum(distances_between(asked, block, metric), FARTHEST).astype(np.float32)

        return queries, self._stored(places), likeness

    def _units(self, places: Ids | None) -> Iterator[Vectors]:
        if self._held is not None and len(self._scanned) == len(self.snapshot):
            return iter([self._held if places is None else self._held[places]])
        return unit_blocks(self.snapshot, places)

    def _stored(self, places: Ids | None) -> Iterator[Vectors]:
        everywhere = np.arange(len(self.snapshot)) if places is None else places
        for start in range(0, len(everywhere), BLOCK_ROWS):
            yield self.snapshot.take(everywhere[start : start + BLOCK_ROWS])

    # The built index.

    def _ask(self, queries: Vectors, wanted: int, places: Ids | None) -> Neighbours:
        """Let the built index propose; whoever gets too few that way is answered by exact search."""
        units = unit_vectors(queries)
        reduced = units if self._reduce is None else unit_vectors(self._reduce(queries))
        allowed = None
        fetch = wanted + MARGIN
        if self._reduce is not None:
            fetch = math.ceil(self._oversample * max(fetch, DEPTH * wanted))
        if places is not None:
            allowed = np.zeros(len(self.snapshot), dtype=bool)
            allowed[places] = True
            fetch = math.ceil(1.5 * fetch * len(self.snapshot) / len(places))
        # More images lie deeper: with the effort that finds 0.99 of ten, 0.92 of a hundred are found.
        effort = max(1.0, fetch / self._oversample / (TESTED_K + MARGIN))
        scanned = self._scan_proposals(units, wanted + MARGIN, allowed)
        chosen, short = [], []
        for number in range(len(queries)):
            proposed = self._proposed(reduced[number], fetch, effort)
            if allowed is not None:
                proposed = proposed[allowed[proposed]]
            chosen.append(np.concatenate([proposed, scanned[number]]))
            if len(chosen[-1]) < wanted:
                short.append(number)
        for number in short:
            nearest, _ = exact_neighbours(units[number : number + 1], self._units(places), wanted + MARGIN)
            chosen[number] = nearest[0] if places is None else places[nearest[0]]
        return self._ordered(queries, chosen, wanted, "cosine")

    def _proposed(self, query: Vectors, count: int, effort: float) -> Ids:
        if self._candidates is None:
            return np.empty(0, dtype=np.int64)
        places = self._place[self._candidates.search(query, min(count + self._stale, len(self._place)), effort)]
        return places[places >= 0]

    def _scan_proposals(self, units: Vectors, count: int, allowed: npt.NDArray[np.bool_] | None) -> list[Ids]:
        """Return for each query the nearest of the allowed images that no built index covers."""
        kept = slice(None) if allowed is None else allowed[self._scanned]
        places = self._scanned[kept]
        if not len(places):
            return [places] * len(units)
        blocks = unit_blocks(self.snapshot, places) if self._held is None else iter([self._held[kept]])
        if len(units) == 1 and self._held is not None:
            return [places[largest(next(iter(blocks)) @ units[0], count)]]
        nearest, _ = exact_neighbours(units, blocks, count)
        return list(places[nearest])

    # The order of every answer.

    def _ordered(self, queries: Vectors, candidates: list[Ids], wanted: int, metric: Metric) -> Neighbours:
        """Order candidates by their distance in float64: the same vector gets the same distance wherever it stands."""
        ids = np.full((len(queries), wanted), -1, dtype=np.int64)
        distances = np.full((len(queries), wanted), np.inf, dtype=np.float32)
        for number, (query, places) in enumerate(zip(queries, candidates, strict=True)):
            measured = self._distances(query, places, metric)
            order = np.lexsort((places, measured))[:wanted]
            ids[number, : len(order)], distances[number, : len(order)] = (
                self.snapshot.ids[places[order]],
                measured[order],
            )
        return Neighbours(ids, distances)

    def _distances(self, query: Vectors, places: Ids, metric: Metric) -> Vectors:
        distances = np.empty(len(places), dtype=np.float32)
        wide = query.astype(np.float64)
        for start in range(0, len(places), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            measured = distances_from(wide, self.snapshot.take(places[part]).astype(np.float64), metric)
            distances[part] = np.minimum(measured, FARTHEST).round(DECIMALS)
        return distances


def _lifted(block: Vectors) -> Vectors:
    """Return `block` (m, dim) with one number more in each vector: half the square of its length, below 0."""
    halves = np.einsum("ij,ij->i", block, block, dtype=np.float64) / -2
    return np.concatenate([block, halves[:, None].astype(np.float32)], axis=1)


def places_of(snapshot: Snapshot, built_ids: Ids, built_rows: Ids) -> Ids:
    """Return for each built item its place in `snapshot`, -1 where it was deleted or has another vector now."""
    if not len(snapshot):
        return np.full(len(built_ids), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(snapshot.ids, built_ids), len(snapshot) - 1)
    same = (snapshot.ids[places] == built_ids) & (snapshot.rows[places] == built_rows)
    return np.where(same, places, -1).astype(np.int64)
