"""Layouts in which no image lies over another: a grid, and columns by date. Arrays in, arrays out; `map2d` is the door.

Owns which cell each image gets, also one that came later. Does not own where likeness puts it (`map2d`). A layout in *cells* is
int32 (n, 2), column and row, no two images in one cell.

Sources: linear assignment by scipy (Crouse, "On implementing 2D rectangular assignment algorithms", 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vectors import Ids

WINDOW = 16
ROUNDS = 8
"""A grid is mended in windows of so many cells a side, so many times: see docs/maps.md."""

Cells = npt.NDArray[np.int32]


def grid_cells(positions: npt.NDArray[np.float32]) -> Cells:
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


def cell_positions(cells: Cells, side: int) -> tuple[npt.NDArray[np.float32], float]:
    """Return the middles of `cells` in a square of `side` cells as a layout, and the side of one cell in it.

    Where new images grew over the square's edge, the whole is made smaller.
    """
    low = min(0, int(cells[:, 1].min(initial=0)))
    span = max(side, int(cells[:, 1].max(initial=0)) + 1 - low, int(cells[:, 0].max(initial=0)) + 1)
    return ((cells - np.array([0, low]) + 0.5) / span).astype(np.float32), 1 / span


# Images that came since.


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
