"""The nearest neighbours of every image of a collection, as edges.

Owns the blocks in which they are computed, so that memory is bounded whatever the collection's size. Does not own how one
query is answered (`index.py`) nor files (`exporting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from indexes.distances import Metric
from indexes.index import Index, check_reach
from vectors import Ids, Vectors

BLOCK_SOURCES = 2_048
MAX_BLOCK_ROWS = 4_000_000
"""Edges of one block where k is not bounded: 2,048 sources with 100,000 neighbours each would be 5 GB."""
EXACT_GRAPH = 100_000
"""Up to here the graph is computed by exact search, which for all images at once is as fast as asking a built index."""


@dataclass(frozen=True)
class Edges:
    """Neighbours as edges: `sources`, `destinations` int64 (e,) ids, `distances` float32 (e,), `ranks` int64 (e,), from 1."""

    sources: Ids
    destinations: Ids
    distances: Vectors
    ranks: Ids

    def __len__(self) -> int:
        return len(self.sources)


def similarity_graph(
    index: Index,
    k: int | None = 5,
    *,
    radius: float | None = None,
    metric: Metric = "cosine",
    include_self_edges: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Edges]:
    """Yield the `k` nearest images (None: all) within `radius` (None: any distance) of every image, in blocks in order of id.

    The image itself is left out by its id, so equal images remain; with `include_self_edges` it comes first and counts.
    `on_progress` is called with images done and images in all. Raises `QueryError` as `Index.query` does, at once.
    """
    check_reach(k, radius, metric)
    return _blocks(index, k, radius, metric, include_self_edges, on_progress)


def _blocks(
    index: Index,
    k: int | None,
    radius: float | None,
    metric: Metric,
    include_self_edges: bool,
    on_progress: Callable[[int, int], None],
) -> Iterator[Edges]:
    snapshot = index.snapshot
    total = len(snapshot)
    answering = Index(snapshot) if total <= EXACT_GRAPH else index
    per_source = total if k is None else min(k + 1, total)
    step = max(1, min(BLOCK_SOURCES, MAX_BLOCK_ROWS // max(per_source, 1)))
    for start in range(0, total, step):
        places = np.arange(start, min(start + step, total))
        vectors, own = snapshot.take(places), snapshot.ids[places]
        found = answering.query(vectors, None if k is None else k + 1, radius=radius, metric=metric)
        if include_self_edges:
            found = found.with_first(own, answering.measure(vectors, own[:, None], metric=metric)[:, 0])
            found = found if k is None else type(found)(found.ids[:, :k], found.distances[:, :k])
        else:
            found = found.without(own, k)
        there = found.ids >= 0
        ranks = np.broadcast_to(np.arange(1, found.ids.shape[1] + 1), found.ids.shape)
        yield Edges(np.repeat(own, there.sum(axis=1)), found.ids[there], found.distances[there], ranks[there])
        on_progress(int(places[-1]) + 1, total)
