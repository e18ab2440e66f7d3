"""Is it the same picture again, and what was done to it? Over what is held of many pictures.

Owns what is looked at in a picture (small greys, hashes, colours), the limits up to which a picture is the same, and the words
for what was done to it. Does not own how one picture is laid over another (`alignment.py`), nor which pairs are asked about
(`duplicates.py`). How the limits were found: `docs/duplicates.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from alignment import (
    FLAT,
    ORIENTATIONS,
    SMALL,
    Box,
    Fit,
    Greys,
    approach,
    colours_together,
    fit,
    inverse,
    orient,
    oriented,
    place_roughly,
    window_box,
)
from hashes import Hashes, hash_orientations
from vectors import Ids, Vectors

if TYPE_CHECKING:
    from PIL import Image

ROUGHLY_SAME = 0.87
"""Of 10,800 pairs of copies 0.5 % are rougher, of class-mates among each other's nearest four in five."""


@dataclass(frozen=True)
class Limits:
    """What may remain between two pictures that are the same: see `alignment.Fit` and `alignment.colours_together`."""

    correlation: float
    unlike: float
    moved: float
    turn: float
    colours: float


SAME_LIMITS = Limits(correlation=0.98, unlike=0.12, moved=0.35, turn=0.2, colours=0.9)
BRIGHTER_LIMITS = Limits(correlation=0.94, unlike=0.2, moved=0.5, turn=0.3, colours=0.75)
"""For a copy that was made brighter, which has lost what was bright. The next shot of a burst has moved by 0.6 at the least."""
ALIKE_LEVELS = 12.0
"""Differences of colour that say nothing."""
PLAIN_LEVELS = 4.0
"""Between two pictures of one plain colour each, in red, green or blue."""
GREY = 0.5
"""The mean distance in levels between the strongest and the weakest of red, green and blue; a photograph of grey things has 1."""
BRIGHTER = 8.0
WHOLE, RESIZED = 0.97, 0.03
TURNED = (
    *("", "turned 90° left", "turned 180°", "turned 90° right"),
    *("mirrored", "mirrored and turned 90° left", "mirrored top to bottom", "mirrored and turned 90° right"),
)


@dataclass(frozen=True)
class Pictures:
    """What is held of n pictures; `look` fills it in.

    `small` uint8 (n, 32, 32) greys; `hashes` uint64 (n, 8) perceptual hashes in eight orientations; `colours` float32 (n, 3) the
    mean red, green and blue; `colourful` float32 (n,) how far it is from grey, in levels; `seen` bool (n,) whether there is a
    picture at all. `sizes` int64 (n, 2) width and height of the original; `formats` its format; `opened` opens a thumbnail (RGB).
    """

    small: Greys
    hashes: Hashes
    colours: Vectors
    colourful: Vectors
    seen: npt.NDArray[np.bool_]
    sizes: Ids
    formats: Sequence[str]
    opened: Callable[[int], Image.Image]

    def look(self, place: int, picture: Image.Image) -> None:
        """Fill in what is held of a thumbnail (RGB) at `place`."""
        from PIL.Image import Resampling

        coloured = np.asarray(picture.resize((SMALL, SMALL), Resampling.BILINEAR), dtype=np.float32)
        self.small[place] = np.asarray(picture.convert("L").resize((SMALL, SMALL), Resampling.BILINEAR))
        self.hashes[place] = hash_orientations(self.small[place])
        self.colours[place] = coloured.mean(axis=(0, 1))
        self.colourful[place] = (coloured.max(axis=2) - coloured.min(axis=2)).mean()
        self.seen[place] = True

    def flat(self) -> npt.NDArray[np.bool_]:
        """Tell which pictures show nothing that could be laid over another: bool (n,)."""
        return np.asarray(self.small.std(axis=(1, 2)) < FLAT)


def unseen(sizes: Ids, formats: Sequence[str], opened: Callable[[int], Image.Image]) -> Pictures:
    """Return pictures that were not looked at yet."""
    count = len(formats)
    return Pictures(
        np.zeros((count, SMALL, SMALL), np.uint8),
        np.zeros((count, ORIENTATIONS), np.uint64),
        np.zeros((count, 3), np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.bool_),
        sizes,
        formats,
        opened,
    )


def same_pictures(pictures: Pictures, first: Ids, second: Ids) -> Iterator[tuple[int, str]]:
    """Yield which of the pairs of places (p,) show the same picture: the pair's number, and what the second is of the first."""
    rough = place_roughly(pictures.small[first], pictures.small[second])
    flat = pictures.flat()
    apart = np.abs(pictures.colours[first] - pictures.colours[second]).max(axis=1)
    for number in np.flatnonzero(flat[first] & flat[second] & (apart <= PLAIN_LEVELS)).tolist():
        yield number, _words(pictures, int(first[number]), int(second[number]), [])
    kept = np.flatnonzero(rough.score >= ROUGHLY_SAME)
    if not len(kept):
        return
    swapped, orientations = rough.swapped[kept], rough.orientation[kept]
    ones = np.where(swapped, second[kept], first[kept])
    others = np.where(swapped, first[kept], second[kept])
    boxes = np.array([window_box(window) for window in rough.window[kept].tolist()], dtype=np.float32).reshape(-1, 4)
    boxes, near = approach(pictures.small[ones], _oriented(pictures.small[others], orientations), boxes)
    for place in np.flatnonzero(near).tolist():
        number, one, other, orientation = (int(column[place]) for column in (kept, ones, others, orientations))
        left, top, right, bottom = boxes[place].tolist()
        found = _laid_over(pictures, one, other, orientation, (left, top, right, bottom))
        if found is not None:
            # Words tell what was done to the first; what was done to the other is undone by `orientation`.
            changes = [TURNED[orientation if swapped[place] else inverse(orientation)]]
            changes.extend(_changes(pictures, one, other, orientation, found))
            lighter = -found.brighter if swapped[place] else found.brighter
            changes.append("brighter" if lighter > BRIGHTER else "darker" if lighter < -BRIGHTER else "")
            yield number, _words(pictures, int(first[number]), int(second[number]), changes)


def _oriented(small: Greys, orientations: Ids) -> Greys:
    """Put each of small greys (p, 32, 32) into an orientation of its own."""
    turned = np.empty_like(small)
    for orientation in range(ORIENTATIONS):
        chosen = orientations == orientation
        turned[chosen] = oriented(small[chosen], orientation)
    return turned


def is_same(found: Fit) -> bool:
    """Tell whether two pictures that were laid over each other are the same picture, but for their colours."""
    limits = _limits(found)
    alike = found.correlation >= limits.correlation and found.unlike <= limits.unlike
    return alike and found.moved <= limits.moved and abs(found.turn) <= limits.turn


def _limits(found: Fit) -> Limits:
    return BRIGHTER_LIMITS if abs(found.brighter) > BRIGHTER else SAME_LIMITS


def _laid_over(pictures: Pictures, one: int, other: int, orientation: int, box: Box) -> Fit | None:
    """Lay the picture `other`, put into `orientation`, over `one`; None where it is not the same."""
    below, above = pictures.opened(one), orient(pictures.opened(other), orientation)
    found = fit(below.convert("L"), above.convert("L"), box)
    if found is None or not is_same(found):
        return None
    if min(pictures.colourful[one], pictures.colourful[other]) >= GREY:
        # A product in red and in blue is no copy; a grey picture agrees with any colour.
        together, apart = colours_together(below, above, found)
        if together < _limits(found).colours and apart > ALIKE_LEVELS:
            return None
    return found


def _changes(pictures: Pictures, one: int, other: int, orientation: int, found: Fit) -> Iterator[str]:
    """Yield how sides and scale differ between `one` and the `other`, laid over it in `orientation`."""
    if min(found.covered) < WHOLE:
        yield "cropped"
    sides = pictures.sizes[other][:: -1 if orientation % 2 else 1]
    left, top, right, bottom = found.box
    pixels = sides / (pictures.sizes[one] * (right - left, bottom - top))
    if np.abs(np.log(pixels)).max() > RESIZED:
        yield "resized"


def _words(pictures: Pictures, a: int, b: int, changes: list[str]) -> str:
    """Return in words what the picture `b` is of `a`."""
    colourful = pictures.colourful[a], pictures.colourful[b]
    if min(colourful) < GREY < max(colourful):
        changes.append("grey" if colourful[1] < GREY else "in colour")
    if pictures.formats[a] != pictures.formats[b]:
        changes.append(f"as {pictures.formats[b]}")
    return ", ".join(filter(None, changes)) or "re-compressed"
