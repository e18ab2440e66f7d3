"""What every kind of search does with arrays of vectors: lengths, and exact nearest neighbours in blocks.

Owns no index and no file. Distances here are of float32; where an order must not depend on rounding, see `indexes/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Likeness = Callable[[Vectors, Vectors], Vectors]
"""Of (q, dim) and (m, dim) it makes (q, m): the larger, the nearer."""

BLOCK_ROWS = 8_192
"""Rows that are turned to float32 and compared at a time: 42 MB of 1280-d vectors."""


def unit_vectors(vectors: npt.NDArray[Any]) -> Vectors:
    """Return `vectors` (n, dim) scaled to length 1 as float32; a vector of zeros stays zero (its distance to all is 1)."""
    wide = np.asarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.vecdot(wide, wide))  # true to 1e-7, and seven times as fast as a sum in float64
    lengths[lengths == 0] = 1
    return np.ascontiguousarray(wide / lengths[:, None])


class Taken(Protocol):
    """Vectors that are read from disk by their places: `store.Snapshot`."""

    def __len__(self) -> int: ...

    def take(self, positions: Ids) -> Vectors: ...


def unit_blocks(vectors: Taken, places: Ids | None = None) -> Iterator[Vectors]:
    """Yield the unit vectors at `places` (None: all), in their order, `BLOCK_ROWS` at a time."""
    wanted = np.arange(len(vectors), dtype=np.int64) if places is None else places
    for start in range(0, len(wanted), BLOCK_ROWS):
        yield unit_vectors(vectors.take(wanted[start : start + BLOCK_ROWS]))


def largest(scores: Vectors, count: int) -> Ids:
    """Return the places of the `count` largest of `scores` (n,); of equal ones at the edge, those that come first."""
    if count >= len(scores):
        return np.arange(len(scores), dtype=np.int64)
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > edge)
    return np.concatenate([above, np.flatnonzero(scores == edge)[: count - len(above)]]).astype(np.int64)


def principal_axes(blocks: Iterable[Vectors], count: int) -> Vectors:
    """Return the `count` heaviest axes of the rows of `blocks` (m, dim), about the origin: float32 (dim, rank), orthonormal.

    About the origin, because cosines are angles about it. There are fewer than `count` where the rows span fewer directions. The
    rows are looked at once; memory is that of (dim, dim) numbers.
    """
    from scipy.linalg import eigh

    squares: npt.NDArray[np.float64] | float = 0.0
    for block in blocks:
        wide = block.astype(np.float64)
        squares = squares + wide.T @ wide
    dim = len(np.atleast_1d(squares))
    weights, axes = eigh(squares, subset_by_index=[max(0, dim - count), dim - 1])
    # Below this share of the heaviest the rest of a float32 vector is rounding.
    axes = axes[:, weights > weights.max(initial=0) * 1e-10]
    # An axis may point either way; which way must not depend on the library that found it.
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    return np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def dot_products(queries: Vectors, block: Vectors) -> Vectors:
    """Return the products float32 (q, m) of `queries` (q, dim) and the rows of `block` (m, dim)."""
    return queries @ block.T


def exact_neighbours(
    queries: Vectors, blocks: Iterable[Vectors], count: int, *, likeness: Likeness = dot_products
) -> tuple[Ids, Vectors]:
    """Return places and likenesses of the `count` rows most like each of `queries` (q, dim), best first, ties by place.

    `blocks` are the rows compared with, float32 (m, dim) each, in order: places count through all of them. Both answers
    are (q, min(count, n)). Memory is that of one block and of its scores, whatever n is.
    """
    kept_places = np.empty((len(queries), 0), dtype=np.int64)
    kept_scores = np.empty((len(queries), 0), dtype=np.float32)
    start = 0
    for block in blocks:
        scores = likeness(queries, block)
        # Of an earlier block's equals the first stays, so only what is above the worst one kept can still come in.
        if kept_scores.shape[1] == count:
            hits = np.nonzero(scores > kept_scores[:, -1:])
        elif scores.shape[1] > count:
            hits = np.nonzero(scores >= np.partition(scores, -count, axis=1)[:, -count, None])
        else:
            hits = np.nonzero(scores >= -np.inf)
        start += len(block)
        if len(hits[0]):
            found = (hits[0], hits[1] + (start - len(block)), scores[hits])
            kept_places, kept_scores = _best(kept_places, kept_scores, found, min(count, start))
    return kept_places, kept_scores


def _best(kept_places: Ids, kept_scores: Vectors, found: tuple[Ids, Ids, Vectors], count: int) -> tuple[Ids, Vectors]:
    """Join what was kept (q, m) with what was found (query, place, score of each) and keep the `count` best of each query."""
    numbers = np.concatenate([np.repeat(np.arange(len(kept_places)), kept_places.shape[1]), found[0]])
    places = np.concatenate([kept_places.ravel(), found[1]])
    scores = np.concatenate([kept_scores.ravel(), found[2]])
    order = np.lexsort((places, -scores, numbers))
    firsts = np.searchsorted(numbers[order], np.arange(len(kept_places)))
    chosen = order[firsts[:, None] + np.arange(count)]
    return places[chosen], scores[chosen]
