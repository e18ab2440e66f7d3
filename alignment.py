"""Do two pictures show the same, one laid over the other? Turned, mirrored, cropped at the sides, brighter and grey ones too.

First roughly, for many pairs at once: 8 × 8 greys of one picture as a whole, in eight orientations, against those of 49 windows
of the other. Then scale and place of one in the other are fitted by least squares: of many pairs at once on 16 × 16 greys of what
is held of both, then of one pair on 64 × 64 of their thumbnails. What remains is measured: how unlike the unlikest part is, how
far parts have moved against each other, what is left of a turn. The next shot of a burst may correlate with 0.997 as copies do,
but its parts have moved: figures in `docs/duplicates.md`.

Owns how alike two pictures are, place by place. Does not own which pairs are looked at, nor what follows (`duplicates.py`).
Sources: Lucas and Kanade 1981, "An iterative image registration technique"; Benhimane and Malis 2004 (the mean of both
gradients).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vectors import Ids, Vectors

if TYPE_CHECKING:
    from PIL import Image

Greys = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

ORIENTATIONS = 8
SMALL = 32
"""The side of the small greys that all pictures are held as: a kilobyte each."""
CELLS = 8
INTERVALS = ((0.0, 1.0), (0.0, 0.85), (0.15, 1.0), (0.075, 0.925), (0.0, 0.7), (0.3, 1.0), (0.15, 0.85))
"""Of each side of a picture: what a crop may have kept. Windows are all pairs of them."""
WINDOWS = len(INTERVALS) ** 2
FLAT = 2.0
"""Grey levels: a picture that varies by less (standard deviation) shows nothing that could be laid over another."""
PARTS = 4
LEAST_OVERLAP = 0.5
"""Of either side."""
SETTLED = 0.03
"""Pixels: what moves by less stays."""
FAINT = 0.05
"""What varies by less than this share of a picture's variance hardly counts."""
WHITE, NEARLY_WHITE, FEW_WHITE = 250, 150, 0.005
"""Grey levels: what was made 1.6 times as bright has lost all above 150. So small a share of white pixels does not matter."""


def oriented(greys: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return pictures (…, side, side) in one of eight orientations: mirrored first from 4 on, then turned left by 90° each."""
    return np.rot90(greys[..., ::-1] if orientation >= 4 else greys, orientation % 4, axes=(-2, -1))


def orient(picture: Image.Image, orientation: int) -> Image.Image:
    """Return a picture in one of eight orientations, as `oriented` does arrays."""
    from PIL.Image import Transpose

    if orientation >= 4:
        picture = picture.transpose(Transpose.FLIP_LEFT_RIGHT)
    turns = (None, Transpose.ROTATE_90, Transpose.ROTATE_180, Transpose.ROTATE_270)
    turn = turns[orientation % 4]
    return picture if turn is None else picture.transpose(turn)


def inverse(orientation: int) -> int:
    """Return the orientation that undoes another."""
    return orientation if orientation >= 4 else -orientation % 4


# Roughly.


@dataclass(frozen=True)
class Rough:
    """The best rough placing of each pair. `score` float32 (p,): correlation -1…1, 0 where nothing can be compared.

    `orientation` (p,): what the second is put into; `window` (p,): in which of the first's windows it lies then (`window_box`);
    where `swapped` (p,), first and second are exchanged.
    """

    score: Vectors
    orientation: Ids
    window: Ids
    swapped: npt.NDArray[np.bool_]


def place_roughly(small_a: Greys, small_b: Greys) -> Rough:
    """Compare pairs of small greys, both uint8 (p, 32, 32)."""
    windows = _windows_of(small_a), _windows_of(small_b)
    scores = np.empty((len(small_a), 2, WINDOWS, ORIENTATIONS), dtype=np.float32)
    for swapped, (one, other) in enumerate((windows, windows[::-1])):
        whole = other[:, 0].reshape(-1, CELLS, CELLS)
        turned = [oriented(whole, number).reshape(-1, CELLS * CELLS) for number in range(ORIENTATIONS)]
        np.matmul(one, np.stack(turned, axis=2), out=scores[:, swapped])
    flat = scores.reshape(len(small_a), -1)
    best = flat.argmax(axis=1)
    is_swapped, window, orientation = np.unravel_index(best, scores.shape[1:])
    return Rough(flat[np.arange(len(best)), best], orientation, window, is_swapped.astype(bool))


def window_box(window: int) -> Box:
    """Return left, top, right, bottom, 0…1, of a rough window."""
    row, column = divmod(window, len(INTERVALS))
    return INTERVALS[column][0], INTERVALS[row][0], INTERVALS[column][1], INTERVALS[row][1]


def _windows_of(small: Greys) -> Vectors:
    """Return the cells of all windows of small greys (p, 32, 32): float32 (p, 49, 64) of length 1; window 0 is the whole."""
    averages = _averages()
    rows = np.tensordot(small.astype(np.float32), averages, axes=(1, 2))  # picture, column, interval, cell
    cells = np.tensordot(rows, averages, axes=(1, 2))  # picture, interval, cell, interval across, cell across
    return _of_length_1(cells.transpose(0, 1, 3, 2, 4).reshape(len(small), WINDOWS, CELLS * CELLS))


def _averages() -> Vectors:
    """Return for each interval the matrix that averages the pixels of a side into cells: float32 (7, 8, 32)."""
    edges = np.array([np.linspace(low, high, CELLS + 1) for low, high in INTERVALS]) * SMALL
    pixels = np.arange(SMALL)
    shares = np.minimum(edges[:, 1:, None], pixels + 1) - np.maximum(edges[:, :-1, None], pixels)
    shares = shares.clip(min=0)
    return np.asarray(shares / shares.sum(axis=2, keepdims=True), dtype=np.float32)


def _of_length_1(cells: Vectors) -> Vectors:
    centred = cells - cells.mean(axis=-1, keepdims=True)
    lengths = np.sqrt(np.vecdot(centred, centred))[..., None]
    flat = lengths < FLAT * np.sqrt(cells.shape[-1])
    return np.where(flat, np.float32(0), centred / np.maximum(lengths, np.float32(1e-6)))


# Finely.


COARSE, COARSE_ROUNDS, COARSE_LEAST = 16, 4, 0.95
"""Greys a side, rounds, and the least correlation of what may be a copy. Of 2,700 pairs of copies the 0.5 % least alike have
0.968 on 16 × 16 greys; of class-mates that are roughly alike three in four have less than 0.959."""
FINE, FINE_ROUNDS, FINE_LEAST = 64, 8, 0.9
EARLY = 2
"""After so many rounds a copy correlates with `FINE_LEAST`."""


def approach(small_a: Greys, small_b: Greys, boxes: Vectors) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Lay small greys over each other, pair by pair: uint8 (p, 32, 32), beginning with `boxes` float32 (p, 4) as in `Fit`.

    Returns the boxes found, and bool (p,) which pairs may be the same picture.
    """
    boxes, correlations = boxes.copy(), np.zeros(len(boxes), dtype=np.float32)
    places = (np.arange(COARSE, dtype=np.float32) + np.float32(0.5)) / COARSE
    for number in range(COARSE_ROUNDS):
        # In each direction: where the overlap lies in either picture, 0…1.
        low, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        begin, end = (-low / sides).clip(min=0), ((1 - low) / sides).clip(max=1)
        ends_a, ends_b = (low + sides * begin, low + sides * end), (begin, end)
        a, b = (_averaged(small, *ends) for small, ends in ((small_a, ends_a), (small_b, ends_b)))
        _blow_out_all(a, b)
        a, b = _standard_all(a), _standard_all(b)
        correlations = np.asarray((a * b).mean(axis=(1, 2)), dtype=np.float32)
        if number == COARSE_ROUNDS - 1:
            break
        pixels = COARSE / (2 * (ends_a[1] - ends_a[0]))
        down, across = np.gradient(a + b, axis=(1, 2))
        across, down = across * pixels[:, :1, None], down * pixels[:, 1:, None]
        x, y = ((begin + (end - begin) * places[:, None, None])[..., way].T for way in (0, 1))
        columns = np.stack([across * x[:, None, :], across, down * y[:, :, None], down, a], axis=1).reshape(
            len(a), 5, -1
        )
        squares = columns @ columns.transpose(0, 2, 1)
        squares += np.eye(5, dtype=np.float32) * (squares.max(axis=(1, 2)) * 1e-6 + 1e-6)[:, None, None]
        answer = np.linalg.solve(squares, columns @ (b - a).reshape(len(a), -1, 1))[:, :4, 0].clip(-0.05, 0.05)
        width, left, height, top = answer.T
        boxes = boxes + np.stack([left, top, left + width, top + height], axis=1)
    return boxes, correlations >= COARSE_LEAST


def _averaged(small: Greys, begin: Vectors, end: Vectors) -> Vectors:
    """Return 16 × 16 means of a part of each of small greys (p, 32, 32): from `begin` to `end` (p, 2), across and down."""
    shares = np.linspace(begin, end, COARSE + 1, axis=1) * SMALL
    pixels = np.arange(SMALL, dtype=np.float32)[:, None]
    weights = np.minimum(shares[:, 1:, None], pixels + 1) - np.maximum(shares[:, :-1, None], pixels)
    weights = weights.clip(min=0).astype(np.float32)
    weights /= np.maximum(weights.sum(axis=2, keepdims=True), 1e-6)
    return np.asarray(weights[..., 1] @ small.astype(np.float32) @ weights[..., 0].transpose(0, 2, 1))


def _blow_out_all(a: Vectors, b: Vectors) -> None:
    """Do what `_blow_out` does, for pairs (p, 16, 16) at once."""
    swapped = (a.mean(axis=(1, 2)) > b.mean(axis=(1, 2)))[:, None, None]
    darker, white = np.where(swapped, b, a), np.where(swapped, a, b) >= WHITE
    counts = white.sum(axis=(1, 2))
    for number in np.flatnonzero(counts >= FEW_WHITE * COARSE**2).tolist():
        levels = darker[number][white[number]]
        level = max(float(np.partition(levels, len(levels) // 10)[len(levels) // 10]), NEARLY_WHITE)
        one, other = (b, a) if swapped[number, 0, 0] else (a, b)
        np.minimum(one[number], level, out=one[number])
        np.minimum(other[number], WHITE, out=other[number])


def _standard_all(greys: Vectors) -> Vectors:
    centred = greys - greys.mean(axis=(1, 2), keepdims=True)
    deviations = np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))
    return np.where(deviations < FLAT, np.float32(0), centred / np.maximum(deviations, np.float32(1e-6)))


@dataclass(frozen=True)
class Fit:
    """How `b` lies over `a` after fitting, and what remains unlike.

    `box`: left, top, right, bottom of `b` in sides of `a` (may lie partly outside). `correlation` -1…1 of the greys where they
    overlap. `unlike` 0…1: of the unlikest of 16 parts, what brightness and contrast do not explain, as a share of what there is
    to see. `moved`: the furthest that a part has moved, in 64ths of the overlap. `turn` in degrees: what is left of a
    turn. `brighter`: by how many levels `b` is.
    """

    box: Box
    correlation: float
    unlike: float
    moved: float
    turn: float
    brighter: float

    @property
    def covered(self) -> tuple[float, float]:
        """The shares 0…1 of the areas of `a` and of `b` that are in both."""
        left, top, right, bottom = self.box
        common = (min(1, right) - max(0, left)) * (min(1, bottom) - max(0, top))
        return common, common / ((right - left) * (bottom - top))


def fit(a: Image.Image, b: Image.Image, box: Box) -> Fit | None:
    """Lay the picture `b` over `a`, beginning with a `box` that is nearly right; None where that leads nowhere.

    Both are grey (mode L) and should have 90 pixels a side or more. Least squares over scale and place in each direction, on
    64 × 64 greys; brightness and contrast do not count.
    """
    for number in range(FINE_ROUNDS):
        found = _overlap(a, b, box)
        if found is None or (number >= EARLY and found.correlation < FINE_LEAST):
            return None
        step, turn = found.step()
        if np.abs(step).max() < SETTLED / FINE or number == FINE_ROUNDS - 1:
            return Fit(box, found.correlation, *found.remains(), float(np.degrees(turn)), found.brighter)
        box = _moved(box, step)
    return None


def colours_together(a: Image.Image, b: Image.Image, found: Fit) -> tuple[float, float]:
    """Return how the colours of `a` and of `b` (RGB), which lies over it as `found`, go together where they overlap.

    The first number is the cosine -1…1 of what is coloured in 16 × 16 places (red against green, blue against both), the second
    the largest difference in levels, but for the outermost 2 %. Brightness does not count.
    """
    left, top, right, bottom = found.box
    width, height = right - left, bottom - top
    inside = max(0.0, left), max(0.0, top), min(1.0, right), min(1.0, bottom)
    within = (
        (inside[0] - left) / width,
        (inside[1] - top) / height,
        (inside[2] - left) / width,
        (inside[3] - top) / height,
    )
    one, other = (_colours(_sampled(picture, box, 16)) for picture, box in ((a, inside), (b, within)))
    together = np.vdot(one, other) / np.sqrt(np.vdot(one, one) * np.vdot(other, other) + 1)
    return float(together), float(np.quantile(np.abs(one - other), 0.98))


def _colours(coloured: Vectors) -> Vectors:
    red, green, blue = np.moveaxis(coloured, -1, 0)
    return np.stack([red - green, blue - (red + green) / 2])


def _moved(box: Box, step: Vectors) -> Box:
    """Return `box` with its width, left, height and top changed by `step`, each by no more than 0.05."""
    width, left, height, top = step.clip(-0.05, 0.05).tolist()
    return box[0] + left, box[1] + top, box[2] + left + width, box[3] + top + height


@dataclass(frozen=True)
class _Overlap:
    """Where two pictures lie over each other: `a`, `b` float32 (64, 64), mean 0 and deviation 1; `x`, `y` float32 (64,) are
    their places in `b`; `box` as in `Fit`; `sides`: of the first picture, in pixels; `brighter`: levels."""

    a: Vectors
    b: Vectors
    x: Vectors
    y: Vectors
    box: Box
    sides: tuple[float, float]
    brighter: float

    @property
    def correlation(self) -> float:
        return float(np.vdot(self.a, self.b)) / self.a.size

    def step(self) -> tuple[Vectors, float]:
        """Return by how much width, left, height and top of `b` should change, float32 (4,), and a turn in radians."""
        down, across = _gradients(self.a + self.b)
        across, down = across * np.float32(self.sides[0] / 2), down * np.float32(self.sides[1] / 2)
        x, y = self.x[None, :], self.y[:, None]
        turning = across * (y - 0.5) - down * (x - 0.5)
        parts = (across * x, across, down * y, down, turning, self.a)
        columns = np.stack([part.ravel() for part in parts])
        squares = columns @ columns.T
        squares += np.diag(np.full(len(squares), squares.max() * 1e-6, dtype=np.float32))
        answer = np.linalg.solve(squares, columns @ (self.b - self.a).ravel())
        return answer[:4], float(answer[4])

    def remains(self) -> tuple[float, float]:
        """Return how unlike the unlikest of 16 parts is, and by how many pixels the part that moved furthest did."""
        down, across = (_parts(gradient * np.float32(0.5)) for gradient in _gradients(self.a + self.b))
        a, b = _parts(self.a), _parts(self.b)
        aa, bb, ab = np.vecdot(a, a), np.vecdot(b, b), np.vecdot(a, b)
        most = np.maximum(aa, bb)
        alike = ab.clip(min=0) ** 2 / np.maximum(aa * bb, 1e-9)
        unlike = (1 - alike) * most / (most + FAINT * a.shape[1])
        # What a part differs by beyond its own brightness and contrast, as if it were moved by (x, y).
        difference = b - (ab / np.maximum(aa, 1e-9)).clip(0.5, 2)[:, None] * a
        xx, yy, xy = np.vecdot(across, across) + 0.5, np.vecdot(down, down) + 0.5, np.vecdot(across, down)
        x, y = np.vecdot(across, difference), np.vecdot(down, difference)
        moved = np.hypot(yy * x - xy * y, xx * y - xy * x) / (xx * yy - xy**2)
        return float(unlike.max()), float(moved.max())


def _overlap(a: Image.Image, b: Image.Image, box: Box) -> _Overlap | None:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if not (0.3 < width < 3 and 0.3 < height < 3):
        return None
    x0, x1 = max(0.0, -left / width), min(1.0, (1 - left) / width)
    y0, y1 = max(0.0, -top / height), min(1.0, (1 - top) / height)
    inside = (left + width * x0, top + height * y0, left + width * x1, top + height * y1)
    if min(x1 - x0, y1 - y0, inside[2] - inside[0], inside[3] - inside[1]) < LEAST_OVERLAP:
        return None
    greys_a, greys_b = _sampled(a, inside, FINE), _sampled(b, (x0, y0, x1, y1), FINE)
    difference = float(greys_b.mean() - greys_a.mean())
    darker, brighter = sorted((greys_a, greys_b), key=np.mean)
    _blow_out(darker, brighter)
    one, other = _standard(greys_a), _standard(greys_b)
    if one is None or other is None:
        return None
    places = (np.arange(FINE, dtype=np.float32) + np.float32(0.5)) / np.float32(FINE)
    x, y = (np.float32(low) + np.float32(high - low) * places for low, high in ((x0, x1), (y0, y1)))
    sides = FINE / (inside[2] - inside[0]), FINE / (inside[3] - inside[1])
    return _Overlap(one, other, x, y, box, sides, difference)


def _sampled(picture: Image.Image, box: Box, side: int) -> Vectors:
    """Return `side` × `side` pixels of a part of a picture, each the weighted mean of the pixels under it."""
    from PIL.Image import Resampling

    width, height = picture.size
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in box)
    pixels = (left * width, top * height, right * width, bottom * height)
    return np.asarray(picture.resize((side, side), Resampling.BILINEAR, box=pixels)).astype(np.float32)


def _blow_out(darker: Vectors, brighter: Vectors) -> None:
    """Make white in one what is white in the other, in place: a brighter copy has lost what was nearly white before."""
    white = darker[brighter >= WHITE]
    if len(white) < FEW_WHITE * darker.size:
        return
    tenth = len(white) // 10
    level = max(float(np.partition(white, tenth)[tenth]), NEARLY_WHITE)
    np.minimum(darker, level, out=darker)
    np.minimum(brighter, WHITE, out=brighter)


def _standard(greys: Vectors) -> Vectors | None:
    centred = greys - greys.mean()
    deviation = float(np.sqrt(np.vdot(centred, centred) / centred.size))
    return None if deviation < FLAT else centred / np.float32(deviation)


def _gradients(greys: Vectors) -> tuple[Vectors, Vectors]:
    """Return the slopes down and across, in levels a pixel."""
    down, across = np.gradient(greys)
    return np.asarray(down, dtype=np.float32), np.asarray(across, dtype=np.float32)


def _parts(greys: Vectors) -> Vectors:
    """Cut (64, 64) into 16 parts of 256 pixels, each of mean 0: (16, 256)."""
    side = FINE // PARTS
    parts = greys.reshape(PARTS, side, PARTS, side).swapaxes(1, 2).reshape(PARTS**2, side**2)
    return np.asarray(parts - parts.mean(axis=1, keepdims=True))
