"""Maps of a collection: every image gets a place in the plane, near to what is like it. Arrays in, arrays out; `python map2d.py`.

Owns the layouts by likeness (t-SNE, UMAP), placing new images in one, and how true one is; those in cells (a grid without
overlaps, by date) lie in `cells.py` and are handed on. Does not own which vectors are mapped, nor where maps lie
(`views/map.py`), nor how they look (`views/poster.py`, `web/map.py`).

A *layout* is float32 (n, 2) within 0…1, x to the right and y downwards, one scale for both. Whatever is random follows the seed:
the same points, seed and libraries give the same bytes on one machine, with any number of threads.

Sources: van der Maaten & Hinton, "Visualizing Data using t-SNE" (2008), by openTSNE (Poličar et al. 2024,
https://opentsne.readthedocs.io), its initialization after Kobak & Berens (2019); McInnes et al., "UMAP" (2018); trustworthiness:
Venna & Kaski (2001). docs/maps.md has the figures that chose among them.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cells import (
    Cells,
    Dates,
    cell_positions,
    date_cells,
    grid_cells,
    mend_cells,
    nearest_free_cells,
    stack_new,
)
from errors import MissingPackageError
from vectors import BLOCK_ROWS, Ids, Taken, Vectors, exact_neighbours, principal_axes, unit_blocks, unit_vectors

__all__ = [
    "LAYOUTS",
    "Cells",
    "Dates",
    "Layout",
    "Nearest",
    "Progress",
    "cell_positions",
    "date_cells",
    "fitted",
    "grid_cells",
    "load_umap",
    "mend_cells",
    "nearest_free_cells",
    "nearest_others",
    "place_new",
    "principal_components",
    "stack_new",
    "trustworthiness",
    "tsne",
    "umap",
]

LAYOUTS = ("tsne", "umap", "grid", "date")
COMPONENTS = 50
PERPLEXITY = 30
UMAP_NEIGHBOURS = 15
ITERATIONS = 750
"""Of t-SNE, the 250 of early exaggeration among them."""
QUERIES_AT_ONCE = 2_048
PLACED_BY = 10
PLACED_WITHIN = 1.5
"""So many nearest known images say where a new one goes, of these only those no further from the nearest on the map than so many
times the room of one image, 1 / √n: the middle between two islands is like neither. See docs/maps.md."""

Layout = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def principal_components(vectors: Taken, *, count: int = COMPONENTS) -> tuple[Vectors, Vectors]:
    """Return the unit vectors on their `count` heaviest axes, float32 (n, count), and these axes, float32 (dim, count).

    There are fewer where the vectors span fewer. The vectors are read twice, in blocks.
    """
    axes = principal_axes(unit_blocks(vectors), count)
    points = np.empty((len(vectors), axes.shape[1]), dtype=np.float32)
    for number, block in enumerate(unit_blocks(vectors)):
        points[number * BLOCK_ROWS : number * BLOCK_ROWS + len(block)] = block @ axes
    return points, axes


@dataclass(frozen=True)
class Nearest:
    """The nearest others of each of n points: `places` int64 (n, k) and euclidean `distances` float32 (n, k), best first."""

    places: Ids
    distances: Vectors


def nearest_others(points: Vectors, count: int, *, on_progress: Progress = _silent) -> Nearest:
    """Return the `count` (at most n - 1) nearest others of each of `points` (n, dim), exactly."""
    count = min(count, len(points) - 1)
    squares = np.vecdot(points, points)
    # The largest of x·y - |y|²/2 is the smallest of |x - y|².
    rows = np.column_stack([points, -squares / 2])
    queries = np.column_stack([points, np.ones(len(points), dtype=np.float32)])
    places = np.empty((len(points), count), dtype=np.int64)
    distances = np.empty((len(points), count), dtype=np.float32)
    for start in range(0, len(points), QUERIES_AT_ONCE):
        block = slice(start, start + QUERIES_AT_ONCE)
        rows_of = (rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS))
        found, scores = exact_neighbours(queries[block], rows_of, count + 1)
        places[block], chosen = _without_own(found, np.arange(start, start + len(found)))
        nearer = squares[block, None] - 2 * np.take_along_axis(scores, chosen, axis=1)
        distances[block] = np.sqrt(np.maximum(nearer, 0))
        on_progress(min(block.stop, len(points)), len(points))
    return Nearest(places, distances)


def _without_own(found: Ids, places: Ids) -> tuple[Ids, Ids]:
    """Take each row's own place out of `found` (q, k + 1), or its last where equals left no room; return also which stay."""
    own = found == places[:, None]
    own[~own.any(axis=1), -1] = True
    stay = np.nonzero(~own)[1].reshape(len(found), -1)
    return np.take_along_axis(found, stay, axis=1), stay


def tsne(
    points: Vectors,
    nearest: Nearest | None = None,
    *,
    seed: int = 0,
    threads: int = 1,
    on_progress: Progress = _silent,
) -> Layout:
    """Return a map of `points` (n, dim) by t-SNE, perplexity 30 (less where there are few); `nearest` spares its search.

    Up to 10,000 points by Barnes and Hut's trees, beyond by interpolation and FFT, whose time and memory grow with n.
    Up to three points, and points without length, lie on their two heaviest axes.
    """
    if len(points) <= 3 or not points.any():
        return fitted(_flat(points))
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    nearest = nearest_others(points, int(3 * perplexity)) if nearest is None else nearest
    known = PrecomputedNeighbors(nearest.places, nearest.distances)
    affinities = PerplexityBasedNN(knn_index=known, perplexity=perplexity, n_jobs=threads, random_state=seed)
    steps = iter(range(50, ITERATIONS + 1, 50))
    found = TSNE(
        perplexity=perplexity,
        n_jobs=threads,
        random_state=seed,
        callbacks=lambda iteration, error, embedding: on_progress(next(steps), ITERATIONS),
        callbacks_every_iters=50,
    ).fit(affinities=affinities, initialization=_beginning(points, seed) * 1e-4)
    return fitted(np.asarray(found))


def umap(points: Vectors, nearest: Nearest | None = None, *, seed: int = 0) -> Layout:
    """Return a map of `points` (n, dim) by UMAP with 15 neighbours, on one thread; `nearest` spares their search.

    Few points as by `tsne`. Raises `MissingPackageError` where umap-learn is not installed.
    """
    reducer = load_umap()
    if len(points) <= 3 or not points.any():
        return fitted(_flat(points))
    count = min(UMAP_NEIGHBOURS, len(points) - 1)
    nearest = nearest_others(points, count) if nearest is None else nearest
    # UMAP counts each point among its own neighbours.
    places = np.column_stack([np.arange(len(points)), nearest.places[:, : count - 1]])
    distances = np.column_stack([np.zeros(len(points), np.float32), nearest.distances[:, : count - 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what precomputed neighbours and a seed turn off
        found = reducer(
            n_neighbors=count,
            precomputed_knn=(places, distances, None),
            init=10 * _beginning(points, seed),
            random_state=seed,
            n_jobs=1,
        ).fit_transform(points)
    return fitted(found)


def load_umap() -> Any:
    """Return the class `umap.UMAP`; without TensorFlow, which umap-learn would import for a class that is not used here.

    Raises `MissingPackageError` where umap-learn is not installed.
    """
    try:
        with _without("tensorflow"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from umap import UMAP
    except ImportError as error:
        raise MissingPackageError(
            "UMAP needs the package umap-learn, which is not installed: pip install -r requirements/umap.txt"
        ) from error
    return UMAP


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Let `import package` fail within the block, unless it was imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def _flat(points: Vectors) -> npt.NDArray[np.float64]:
    """Return `points` about their middle, on their two heaviest axes, float64 (n, 2)."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    if points.shape[1] < 2:
        return np.pad(centred, ((0, 0), (0, 2 - points.shape[1])))
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)
    return np.asarray(centred @ axes)


def _beginning(points: Vectors, seed: int) -> npt.NDArray[np.float64]:
    """Return where optimization begins: the two heaviest axes, the first of deviation 1; equals are moved apart by a hair."""
    flat = _flat(points)
    flat /= max(float(flat[:, 0].std()), 1e-12)
    return np.asarray(flat + 1e-3 * np.random.default_rng(seed).normal(size=flat.shape))


def fitted(positions: npt.NDArray[Any]) -> Layout:
    """Return `positions` (n, 2) moved and scaled into 0…1, one scale for both axes; the shorter one is in the middle."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    extent = float((high - low).max())
    if extent == 0:
        return np.full(positions.shape, 0.5, dtype=np.float32)
    inside: Layout = np.clip(0.5 + (positions - (low + high) / 2) / extent, 0, 1).astype(np.float32)
    return inside


# Images that came since.


def place_new(new: Vectors, known: Vectors, layout: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return a place for each of `new` (m, dim) among `known` (n, dim) whose places are `layout` (n, 2): float64 (m, 2).

    It is the mean of the places, weighted by similarity, of those of the ten nearest that lie together with the nearest. Nothing
    that is known moves.
    """
    parts = [
        _placed(new[start : start + QUERIES_AT_ONCE], known, layout) for start in range(0, len(new), QUERIES_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2))


def _placed(new: Vectors, known: Vectors, layout: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    blocks = (known[start : start + BLOCK_ROWS] for start in range(0, len(known), BLOCK_ROWS))
    places, similarities = exact_neighbours(new, blocks, min(PLACED_BY, len(known)))
    found = layout[places].astype(np.float64)
    together = np.linalg.norm(found - found[:, :1], axis=2) <= PLACED_WITHIN / np.sqrt(len(known))
    weights = (np.maximum(similarities, 1e-6) * together)[:, :, None]
    return np.asarray((found * weights).sum(axis=1) / weights.sum(axis=1))


# How true a map is.


def trustworthiness(
    vectors: Taken,
    layout: npt.NDArray[Any],
    *,
    neighbours: int = 10,
    queries: int = 1_000,
    asked: Ids | None = None,
) -> float | None:
    """Return how seldom a map shows as neighbours what is none: 1 never, about 0.5 by chance; None for too few images.

    As scikit-learn's `trustworthiness` over the unit vectors, of the images `asked` or of `queries` chosen by chance (all, where
    there are not more): each picture's `neighbours` nearest on the map are penalised by how far down they stand among its nearest
    vectors.
    """
    from scipy.spatial import cKDTree

    count = len(layout)
    if neighbours >= count / 2:
        return None
    if asked is None:
        asked = np.sort(np.random.default_rng(0).choice(count, size=min(queries, count), replace=False)).astype(
            np.int64
        )
    _, found = cKDTree(layout).query(layout[asked], k=neighbours + 1)
    shown, _ = _without_own(found.astype(np.int64), asked)
    own = unit_vectors(vectors.take(asked))
    likeness = np.stack([np.vecdot(own, unit_vectors(vectors.take(column))) for column in shown.T], axis=1)
    ranks = np.ones(shown.shape, dtype=np.int64)
    start = 0
    for block in unit_blocks(vectors):
        similar = own @ block.T
        inside = np.flatnonzero((asked >= start) & (asked < start + len(block)))
        similar[inside, asked[inside] - start] = -np.inf
        for column in range(neighbours):
            ranks[:, column] += (similar > likeness[:, column, None] + 1e-6).sum(axis=1)
        start += len(block)
    penalty = np.maximum(ranks - neighbours, 0).sum() / len(asked)
    return float(1 - penalty * 2 / (neighbours * (2 * count - 3 * neighbours - 1)))


if __name__ == "__main__":
    from commands.map2d import main

    sys.exit(main(sys.argv[1:]))
