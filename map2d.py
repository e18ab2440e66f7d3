"""Maps of a collection: every image gets a place in the plane, near to what is like it. Arrays in, arrays out; `python map2d.py`.

Owns the layouts (t-SNE, UMAP, a grid without overlaps, by date), placing new images in one, and how true one is. Does not own
which vectors are mapped nor where maps lie (`views/map.py`), nor how they look (`views/poster.py`, `web/map.py`).

A *layout* is float32 (n, 2) within 0…1, x to the right and y downwards, one scale for both. A layout in *cells* is int32 (n, 2),
column and row, no two images in one cell. Whatever is random follows the seed: the same vectors, seed and libraries give the same
bytes on one machine, with any number of threads but where UMAP says otherwise.

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

from errors import MissingPackageError
from vectors import BLOCK_ROWS, Ids, Taken, Vectors, exact_neighbours, principal_axes, unit_blocks, unit_vectors

LAYOUTS = ("tsne", "umap", "grid", "date")
COMPONENTS = 50
PERPLEXITY = 30
UMAP_NEIGHBOURS = 15
ITERATIONS = 750
"""Of t-SNE, the 250 of early exaggeration among them."""
QUERIES_AT_ONCE = 2_048
WINDOW = 16
ROUNDS = 8
"""A grid is mended in windows of so many cells a side, so many times: see docs/maps.md."""
PLACED_BY = 10
PLACED_WITHIN = 1.5
"""So many nearest known images say where a new one goes, of these only those no further from the nearest on the map than so many
times the room of one image, 1 / √n: the middle between two islands is like neither. See docs/maps.md."""

Layout = npt.NDArray[np.float32]
Cells = npt.NDArray[np.int32]
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


# Layouts in cells.


def grid_cells(positions: Layout) -> Cells:
    """Return a cell of its own for each of `positions` (n, 2), in a grid of four columns to three rows, near where it was.

    The plane is halved again and again, pictures and cells alike; then linear assignment is exact within windows of 16 cells a
    side, which overlap from round to round. At 4,958 images that is nearer than linear assignment of all at once to the first n
    cells, and 40 times as fast (docs/maps.md).
    """
    columns = int(np.ceil(np.sqrt(len(positions) * 4 / 3)))
    shape = np.array([columns, -(-len(positions) // columns)])
    low, high = positions.min(axis=0), positions.max(axis=0)
    wanted = (positions - low) / np.maximum(high - low, 1e-12) * shape
    cells = np.empty(positions.shape, dtype=np.int32)
    _halve(wanted, np.arange(len(positions)), np.zeros(2, dtype=np.int64), shape, cells)
    return mend_cells(cells, wanted)


def _halve(wanted: npt.NDArray[Any], places: Ids, low: Ids, high: Ids, cells: Cells) -> None:
    """Share the images `places` out between the two halves of the block of cells from `low` to `high`, down to single cells."""
    if len(places) == 0:
        return
    size = high - low
    if size.max() == 1:
        cells[places] = low
        return
    axis = int(size[1] > size[0])
    middle = (low[axis] + high[axis]) // 2
    across = size[1 - axis]
    before, after = (middle - low[axis]) * across, (high[axis] - middle) * across
    count = min(max(round(len(places) * before / (before + after)), len(places) - after), before)
    order = places[np.argsort(wanted[places, axis], kind="stable")]
    first_high, second_low = high.copy(), low.copy()
    first_high[axis] = second_low[axis] = middle
    _halve(wanted, order[:count], low, first_high, cells)
    _halve(wanted, order[count:], second_low, high, cells)


def mend_cells(cells: Cells, wanted: npt.NDArray[Any]) -> Cells:
    """Return `cells` with images moved, window by window, so that the squares of the ways to `wanted` (in cells) are least."""
    columns, rows = cells.max(axis=0) + 1
    held = np.full((rows, columns), -1, dtype=np.int64)
    held[cells[:, 1], cells[:, 0]] = np.arange(len(cells))
    for turn in range(ROUNDS):
        first = -(turn % 2) * (WINDOW // 2)
        for top in range(first, rows, WINDOW):
            for left in range(first, columns, WINDOW):
                _mend_window(held, (max(top, 0), max(left, 0)), (top + WINDOW, left + WINDOW), wanted)
    mended: Cells = np.empty_like(cells)
    mended[held[held >= 0]] = np.argwhere(held >= 0)[:, ::-1]
    return mended


def _mend_window(held: Ids, corner: tuple[int, int], end: tuple[int, int], wanted: npt.NDArray[Any]) -> None:
    from scipy.optimize import linear_sum_assignment

    window = held[corner[0] : end[0], corner[1] : end[1]]
    images = window[window >= 0]
    if len(images) == 0:
        return
    rows, columns = np.indices(window.shape).reshape(2, -1)
    middles = np.column_stack([columns + corner[1], rows + corner[0]]) + 0.5
    costs = np.square(wanted[images, None] - middles).sum(axis=2)
    chosen, spots = linear_sum_assignment(costs)
    window[...] = -1
    window[rows[spots], columns[spots]] = images[chosen]


@dataclass(frozen=True)
class Dates:
    """A layout by time: `cells` from the bottom of a square of `side` cells up, and what its blocks are called.

    `marks` are (label, its middle in columns), from the left; `unit` is what a block is: day, month, year or decade.
    """

    cells: Cells
    side: int
    marks: list[tuple[str, float]]
    unit: str


UNITS = (("day", "D"), ("month", "M"), ("year", "Y"), ("decade", "10Y"))
WIDE = 2
"""A layout by time is about so many times as wide as high."""
FILLED = 0.3
"""The finest unit is taken whose blocks fill so much of their columns; days of single pictures would be a long thin line."""
UNDATED_GAP = 3


def date_cells(times: npt.NDArray[np.datetime64]) -> Dates:
    """Return the layout of images by `times` datetime64[s] (n,), NaT for unknown: time runs from left to right.

    Each day (month, year or decade, as fits) is a block of columns that are filled from the bottom, in order of time, with a free
    column after it; the undated are a block of their own at the right.
    """
    known = np.flatnonzero(~np.isnat(times))
    known = known[np.argsort(times[known], kind="stable")]
    undated = np.flatnonzero(np.isnat(times))
    unit, names, counts, height = _unit(times[known], len(undated))
    cells = np.empty((len(times), 2), dtype=np.int32)
    marks, column, first = [], 0, 0
    side = max(height, _width(counts, len(undated), height))
    for name, count in zip(names, counts.tolist(), strict=True):
        block = known[first : first + count]
        wide = _fill(cells, block, column, height, side)
        marks.append((_label(name, unit), column + wide / 2))
        column, first = column + wide + 1, first + count
    _fill(cells, undated, column - 1 + UNDATED_GAP if marks else 0, height, side)
    return Dates(cells, side, marks, unit)


def _unit(
    times: npt.NDArray[np.datetime64], undated: int
) -> tuple[str, npt.NDArray[np.datetime64], npt.NDArray[np.int64], int]:
    """Return the finest unit that fits, its blocks that hold `times`, how many each holds, and the height of all."""
    for unit, code in UNITS[:-1]:
        found = np.unique(times.astype(f"datetime64[{code}]"), return_counts=True)
        height = _height(found[1], undated)
        if len(times) + undated >= FILLED * height * _columns(found[1], undated, height):
            return unit, *found, height
    unit, code = UNITS[-1]
    found = np.unique(times.astype(f"datetime64[{code}]"), return_counts=True)
    return unit, *found, _height(found[1], undated)


def _fill(cells: Cells, images: Ids, column: int, height: int, side: int) -> int:
    """Put `images` into columns of `height` from `column` on, from the bottom up; return how many columns these are."""
    columns, rows = np.divmod(np.arange(len(images)), height)
    cells[images] = np.column_stack([column + columns, side - 1 - rows])
    return -(-len(images) // height)


def _width(counts: npt.NDArray[np.int64], undated: int, height: int) -> int:
    gaps = max(len(counts) - 1, 0) + (UNDATED_GAP if undated and len(counts) else 0)
    return _columns(counts, undated, height) + gaps


def _columns(counts: npt.NDArray[np.int64], undated: int, height: int) -> int:
    return int((-(-counts // height)).sum()) - (-undated // height)


def _height(counts: npt.NDArray[np.int64], undated: int) -> int:
    """Return the least height at which all blocks together are no more than `WIDE` times as wide."""
    low, high = 1, int(counts.sum()) + len(counts) + undated + UNDATED_GAP
    while low < high:
        middle = (low + high) // 2
        if _width(counts, undated, middle) <= WIDE * middle:
            high = middle
        else:
            low = middle + 1
    return low


def _label(name: np.datetime64, unit: str) -> str:
    return f"{name.astype('datetime64[Y]')}s" if unit == "decade" else str(name)


def cell_positions(cells: Cells, side: int) -> tuple[Layout, float]:
    """Return the middles of `cells` in a square of `side` cells as a layout, and the side of one cell in it.

    Where new images grew over the square's edge, the whole is made smaller.
    """
    low = min(0, int(cells[:, 1].min(initial=0)))
    span = max(side, int(cells[:, 1].max(initial=0)) + 1 - low, int(cells[:, 0].max(initial=0)) + 1)
    return ((cells - np.array([0, low]) + 0.5) / span).astype(np.float32), 1 / span


# Images that came since.


def place_new(new: Vectors, known: Vectors, layout: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return a place for each of `new` (m, dim) among `known` (n, dim) whose places are `layout` (n, 2): float64 (m, 2).

    It is the mean of the places, weighted by similarity, of those of the ten nearest that lie together with the nearest. Nothing
    that is known moves.
    """
    blocks = (known[start : start + BLOCK_ROWS] for start in range(0, len(known), BLOCK_ROWS))
    places, similarities = exact_neighbours(new, blocks, min(PLACED_BY, len(known)))
    found = layout[places].astype(np.float64)
    together = np.linalg.norm(found - found[:, :1], axis=2) <= PLACED_WITHIN / np.sqrt(len(known))
    weights = (np.maximum(similarities, 1e-6) * together)[:, :, None]
    return np.asarray((found * weights).sum(axis=1) / weights.sum(axis=1))


def stack_new(new: npt.NDArray[np.datetime64], known: npt.NDArray[np.datetime64], cells: Cells) -> Cells:
    """Return cells for images of times `new` (m,) in a layout by time, whose images have times `known` (n,) and `cells` (n, 2).

    Each lies on top of the column of the image next to it in time. The undated have columns of their own, also where none was.
    """
    dated = np.flatnonzero(~np.isnat(known))
    dated = dated[np.argsort(known[dated], kind="stable")]
    undated = cells[np.isnat(known), 0]
    apart = int(undated.max()) if len(undated) else int(cells[:, 0].max()) + UNDATED_GAP
    columns = np.full(len(new), apart)
    if len(dated):
        after = np.searchsorted(known[dated], new, side="right").clip(1, len(dated))
        columns = np.where(np.isnat(new), apart, cells[dated[after - 1], 0])
    stacked = np.empty((len(new), 2), dtype=np.int32)
    bottom = int(cells[:, 1].max()) + 1
    tops = np.full(int(columns.max(initial=0)) + 1 + int(cells[:, 0].max()), bottom)
    np.minimum.at(tops, cells[:, 0], cells[:, 1])
    for number, column in enumerate(columns.tolist()):
        tops[column] -= 1
        stacked[number] = column, tops[column]
    return stacked


def nearest_free_cells(wanted: npt.NDArray[Any], taken: Cells, columns: int, rows: int = 0) -> Cells:
    """Return for each of `wanted` (m, 2), in their order, the nearest cell that none of `taken` and none before it has.

    Cells have `columns` columns, and as many rows as hold all, `rows` at least; `wanted` is in cells, middles at 0.5.
    """
    rows = max(rows, int(taken[:, 1].max(initial=-1)) + 1, -(-(len(taken) + len(wanted)) // columns))
    free = np.ones((rows, columns), dtype=bool)
    free[taken[:, 1], taken[:, 0]] = False
    cells = np.empty((len(wanted), 2), dtype=np.int32)
    for number, (x, y) in enumerate(wanted - 0.5):
        cells[number] = column, row = _nearest_free(free, float(x), float(y))
        free[row, column] = False
    return cells


def _nearest_free(free: npt.NDArray[np.bool_], x: float, y: float) -> tuple[int, int]:
    reach = 2
    while True:
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        rows, columns = np.nonzero(free[top : int(y) + reach + 2, left : int(x) + reach + 2])
        if len(rows):
            ways = np.square(rows + top - y) + np.square(columns + left - x)
            best = int(ways.argmin())
            if ways[best] <= reach**2 or reach > max(free.shape):
                return int(columns[best]) + left, int(rows[best]) + top
        reach *= 2


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
