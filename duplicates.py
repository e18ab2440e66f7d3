"""Which pictures of a collection are the same, nearly the same, shots of one burst, or merely similar: arrays in, arrays out.

Four tiers, kept apart: *identical* files (their SHA-256 is equal); the *same* picture again (compressed anew, resized, converted,
made grey or brighter, cropped a little, turned, mirrored); a *burst*, similar and taken seconds apart; merely *similar*. Pairs
come from candidates (nearest neighbours by vector, perceptual hashes found in a table, shots that follow each other), never from
all pairs.

Owns tiers, pairs and groups. Does not own where vectors and thumbnails come from (`views/duplicates.py`), nor what is done with
duplicates (`quarantine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alignment import (
    FLAT,
    ORIENTATIONS,
    SMALL,
    Fit,
    Greys,
    colours_together,
    fit,
    inverse,
    orient,
    place_roughly,
    window_box,
)
from errors import OptionError
from hashes import Hashes, hash_distances, hash_orientations, nearly_equal
from vectors import Ids, Vectors

if TYPE_CHECKING:
    from PIL import Image

TIERS = ("identical", "same", "burst", "similar")
IDENTICAL, SAME, BURST, SIMILAR = range(len(TIERS))
MOST_NEIGHBOURS = 1_000
CLOSEST = 5
"""Merely similar are pairs of which one is among so many nearest of the other: more would tell nobody anything."""
SHOTS_AHEAD = 5
COMPLETED = 60
"""In sets of the same picture of up to so many contents all pairs are compared; a crop and a turned copy may find each other so."""
ALL_PAIRS = 30
PAIRS_AT_A_TIME = 2_048
ROUGHLY_SAME = 0.87
SAME_COLOURS, ALIKE_LEVELS = 0.9, 12.0
"""Cosine of colours from which on they are the same, and levels that do not matter: a product in red and in blue is no copy."""
SAME_COLOURS_BRIGHTER = 0.75
SAME_COLOUR = 4.0
"""Levels of red, green or blue between pictures of one plain colour."""
GREY = 0.5
"""The mean distance in levels between the strongest and the weakest of red, green and blue; a photograph of grey things has 1."""
BRIGHTER = 8.0
WHOLE, RESIZED = 0.97, 0.03
TURNED = (
    *("", "turned 90° left", "turned 180°", "turned 90° right"),
    *("mirrored", "mirrored and turned 90° left", "mirrored top to bottom", "mirrored and turned 90° right"),
)


@dataclass(frozen=True)
class _Limits:
    """What may remain between two pictures of the same: see `alignment.Fit`."""

    correlation: float
    unlike: float
    moved: float
    turn: float


SAME_LIMITS = _Limits(0.98, 0.12, 0.35, 0.2)
BRIGHTER_LIMITS = _Limits(0.94, 0.2, 0.5, 0.3)
"""For a copy that was made brighter, where what was bright is lost. The next shot of a burst has moved by 0.6 at the least."""


@dataclass(frozen=True)
class DuplicateOptions:
    """What is looked for. `neighbours`: how many nearest of each picture are looked at; `burst_seconds`: shots no further apart
    in time are one burst (0: none are); `min_similarity`: the cosine from which on two pictures are similar, None for what the
    collection's calibration calls a good match. Raises `OptionError`.
    """

    neighbours: int = 15
    burst_seconds: float = 4.0
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours <= MOST_NEIGHBOURS:
            raise OptionError(f"neighbours is {self.neighbours}, but must be 1 to {MOST_NEIGHBOURS:,}.")
        if not 0 <= self.burst_seconds <= 86_400:
            raise OptionError(f"burst_seconds is {self.burst_seconds}, but must be 0 (no bursts) to 86,400, a day.")
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise OptionError(f"min_similarity is {self.min_similarity}, but a cosine is -1 to 1.")


@dataclass(frozen=True)
class Pair:
    """Two images, `image_a` < `image_b`; `relation` says what the second is of the first, `hash_distance` 0…64, None if unknown."""

    image_a: int
    image_b: int
    tier: str
    relation: str
    similarity: float
    hash_distance: int | None


@dataclass(frozen=True)
class Pairs:
    """A table of pairs, ordered by tier, then by falling similarity, then by ids.

    `image_a` < `image_b` int64 (p,); `tier` int8 (p,), places in `TIERS`; `relation` int16 (p,), places in `relations`;
    `similarity` float32 (p,), cosines of the vectors; `hash_distance` int16 (p,), bits by which the perceptual hashes differ in
    the best of eight orientations, -1 where one has no thumbnail.
    """

    image_a: Ids
    image_b: Ids
    tier: npt.NDArray[np.int8]
    relation: npt.NDArray[np.int16]
    similarity: Vectors
    hash_distance: npt.NDArray[np.int16]
    relations: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_a)

    def __iter__(self) -> Iterator[Pair]:
        columns = (self.image_a, self.image_b, self.tier, self.relation, self.similarity, self.hash_distance)
        for a, b, tier, relation, similarity, distance in zip(*(column.tolist() for column in columns), strict=True):
            known = None if distance < 0 else distance
            yield Pair(a, b, TIERS[tier], self.relations[relation], similarity, known)

    def where(self, mask: npt.NDArray[Any]) -> Pairs:
        """Return those pairs that `mask` keeps: bool (p,), or places in the wished order."""
        return replace(self, **{name: getattr(self, name)[mask] for name in COLUMNS})

    def save(self, path: Path) -> None:
        """Write the table as a compressed npz file."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        np.savez_compressed(path, relations=np.array(self.relations, dtype=np.str_), **columns)


COLUMNS = ("image_a", "image_b", "tier", "relation", "similarity", "hash_distance")


def load_pairs(path: Path) -> Pairs:
    """Read what `Pairs.save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Pairs(**{name: arrays[name] for name in COLUMNS}, relations=tuple(arrays["relations"].tolist()))


@dataclass(frozen=True)
class Group:
    """Images that belong together: `image_ids` ascending, at least two; `centre` is the one with most links to the others."""

    tier: str
    image_ids: tuple[int, ...]
    centre: int


def groups_of(pairs: Pairs, tier: str) -> list[Group]:
    """Return the groups of one tier, the largest first, then by first id.

    "identical": equal bytes. "same": the first two tiers together. "burst": runs of shots. There are none of "similar", which
    holds by pairs only: `OptionError`. A chain (A like B, B like C, A unlike C) is split: see `split_chains`.
    """
    if tier not in TIERS[:SIMILAR]:
        raise OptionError(f"There are no groups of {tier!r}, only of {', '.join(TIERS[:SIMILAR])}.")
    code = TIERS.index(tier)
    kept = pairs.where(pairs.tier <= SAME if code == SAME else pairs.tier == code)
    links = _links(kept.image_a, kept.image_b)
    groups = []
    for component in _components(links):
        parts = split_chains(component, links) if code == SAME else [component]
        for part in parts:
            centre = max(part, key=lambda image_id: (len(links[image_id] & part), -image_id))
            groups.append(Group(tier, tuple(sorted(part)), centre))
    return sorted(groups, key=lambda group: (-len(group.image_ids), group.image_ids))


def _links(first: Ids, second: Ids) -> dict[int, set[int]]:
    links: dict[int, set[int]] = {}
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        links.setdefault(a, set()).add(b)
        links.setdefault(b, set()).add(a)
    return links


def _components(links: dict[int, set[int]]) -> Iterator[set[int]]:
    seen: set[int] = set()
    for first in links:
        if first in seen:
            continue
        component, waiting = {first}, [first]
        while waiting:
            new = links[waiting.pop()] - component
            component |= new
            waiting.extend(new)
        seen |= component
        yield component


def split_chains(component: set[int], links: dict[int, set[int]]) -> list[set[int]]:
    """Split a connected `component` into groups around a centre, so that no group is a chain whose ends are unlike.

    The image with most links comes first; with it go those that it is linked with, and those that are linked with at least half
    of these. What is left over is split likewise; an image that is left alone is in no group.
    """
    rest, groups = set(component), []
    while rest:
        centre = max(rest, key=lambda image_id: (len(links[image_id] & rest), -image_id))
        star = (links[centre] & rest) | {centre}
        group = star | {one for one in rest - star if 2 * len(links[one] & star) >= len(star)}
        rest -= group
        if len(group) > 1:
            groups.append(group)
    return groups


@dataclass(frozen=True)
class Looks:
    """What is held of each of n pictures: `small` uint8 (n, 32, 32) greys, `hashes` uint64 (n, 8) perceptual hashes in eight
    orientations, `colours` float32 (n, 3) its mean red, green and blue, `colourful` float32 (n,) how far it is from grey; `seen`
    bool (n,) whether there is a picture at all.
    """

    small: Greys
    hashes: Hashes
    colours: Vectors
    colourful: Vectors
    seen: npt.NDArray[np.bool_]


def no_looks(count: int) -> Looks:
    """Return the looks of `count` pictures that were not seen, to be filled by `look_at`."""
    return Looks(
        np.zeros((count, SMALL, SMALL), np.uint8),
        np.zeros((count, ORIENTATIONS), np.uint64),
        np.zeros((count, 3), np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.bool_),
    )


def look_at(looks: Looks, place: int, picture: Image.Image) -> None:
    """Fill in the looks at `place` from a thumbnail (RGB)."""
    from PIL.Image import Resampling

    coloured = np.asarray(picture.resize((SMALL, SMALL), Resampling.BILINEAR), dtype=np.float32)
    looks.small[place] = np.asarray(picture.convert("L").resize((SMALL, SMALL), Resampling.BILINEAR))
    looks.hashes[place] = hash_orientations(looks.small[place])
    looks.colours[place] = coloured.mean(axis=(0, 1))
    looks.colourful[place] = (coloured.max(axis=2) - coloured.min(axis=2)).mean()
    looks.seen[place] = True


@dataclass(frozen=True)
class Contents:
    """n different contents (files of equal bytes are one), and the m images that have them.

    `image_ids` int64 (m,) and `content` int64 (m,), the place 0…n-1 of each image's contents; `is_new` bool (m,) where only pairs of
    a new image with an old one are wanted, else None. Of each content: `seconds` float64 (n,) when it was taken, NaN if unknown;
    `sizes` int64 (n, 2) width and height; `formats`. `neighbours` int64 (q, k) places, -1 for none, and `similarities` float32 (q, k)
    of the contents `asked` int64 (q,). `similarity` measures pairs of places; `picture` opens a thumbnail (RGB).
    """

    image_ids: Ids
    content: Ids
    is_new: npt.NDArray[np.bool_] | None
    seconds: npt.NDArray[np.float64]
    sizes: Ids
    formats: Sequence[str]
    asked: Ids
    neighbours: Ids
    similarities: Vectors
    similarity: Callable[[Ids, Ids], Vectors]
    picture: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.seconds)


def find_pairs(
    contents: Contents,
    looks: Looks,
    options: DuplicateOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pairs:
    """Find all pairs of four tiers among `contents`; `on_progress` is called with candidates compared and candidates in all.

    `options.min_similarity` must be a number here. A pair of contents counts for each pair of images that have them; where more than
    30 images have the same contents, each of them is paired with the first only.
    """
    judge = _Judge(contents, looks, options)
    first, second, similarity = _candidates(contents, looks, options)
    found = judge.judge(first, second, similarity, on_progress)
    more = _untold(found, contents)
    if len(more[0]):
        whole = judge.judge(*more, contents.similarity(*more), on_progress)
        found = found.joined(whole.kept(whole.tier == SAME))
    return _as_pairs(contents, found)


@dataclass(frozen=True)
class _Found:
    """Judged pairs of contents: places, tier (-1: none), codes of `relations`, cosines, bits."""

    first: Ids
    second: Ids
    tier: npt.NDArray[np.int8]
    relation: npt.NDArray[np.int16]
    similarity: Vectors
    distance: npt.NDArray[np.int16]
    relations: list[str]

    def kept(self, mask: npt.NDArray[Any]) -> _Found:
        return replace(self, **{name: getattr(self, name)[mask] for name in FOUND})

    def joined(self, other: _Found) -> _Found:
        """Put a later table of the same judge, who may know more words by then, behind this one."""
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in FOUND}
        return replace(other, **joined)


FOUND = ("first", "second", "tier", "relation", "similarity", "distance")


def _candidates(contents: Contents, looks: Looks, options: DuplicateOptions) -> tuple[Ids, Ids, Vectors]:
    """Return the pairs of places worth a look, each once, the lower place first, and their cosines."""
    near, rows = contents.neighbours >= 0, np.arange(len(contents.asked))[:, None]
    one = contents.asked[np.broadcast_to(rows, near.shape)[near]]
    parts = [(one, contents.neighbours[near])]
    textured = np.flatnonzero(looks.seen & (looks.small.std(axis=(1, 2)) >= FLAT))
    parts.extend(nearly_equal(looks.hashes, textured))
    if options.burst_seconds:
        parts.append(_following(contents.seconds, options.burst_seconds))
    count = len(contents)
    codes = np.concatenate([np.minimum(a, b) * count + np.maximum(a, b) for a, b in parts])
    unique, where = np.unique(codes, return_index=True)
    similarity = np.full(len(codes), np.nan, dtype=np.float32)
    similarity[: len(one)] = contents.similarities[near]
    similarity = similarity[where]
    first, second = np.divmod(unique, count)
    kept = (first != second) & _wanted(contents, first, second)
    first, second, similarity = first[kept], second[kept], similarity[kept]
    unknown = np.isnan(similarity)
    similarity[unknown] = contents.similarity(first[unknown], second[unknown])
    return first, second, similarity


def _following(seconds: npt.NDArray[np.float64], burst_seconds: float) -> tuple[Ids, Ids]:
    """Return pairs of contents taken within `burst_seconds`: each with the five that follow it, which is enough for a run."""
    order = np.argsort(seconds, kind="stable")
    order = order[np.isfinite(seconds[order])]
    pairs = [(order[:-step], order[step:]) for step in range(1, min(SHOTS_AHEAD, len(order) - 1) + 1)]
    one, other = (np.concatenate([pair[side] for pair in pairs] or [order[:0]]) for side in (0, 1))
    near = seconds[other] - seconds[one] <= burst_seconds
    return one[near], other[near]


def _wanted(contents: Contents, first: Ids, second: Ids) -> npt.NDArray[np.bool_]:
    """Tell which pairs of contents have a pair of images that is wanted: of a new and an old one, where that is asked for."""
    if contents.is_new is None:
        return np.ones(len(first), dtype=np.bool_)
    new, old = np.zeros(len(contents), np.bool_), np.zeros(len(contents), np.bool_)
    new[contents.content[contents.is_new]] = True
    old[contents.content[~contents.is_new]] = True
    return np.asarray((new[first] & old[second]) | (old[first] & new[second]))


class _Judge:
    """Tells of pairs of contents what they are to each other."""

    def __init__(self, contents: Contents, looks: Looks, options: DuplicateOptions) -> None:
        self._contents = contents
        self._looks = looks
        self._burst_seconds = options.burst_seconds
        self._least = 1.0 if options.min_similarity is None else options.min_similarity
        self._flat = looks.small.std(axis=(1, 2)) < FLAT
        self._close = _among_closest(contents)
        self._codes = {word: code for code, word in enumerate(("", "seconds apart", "similar"))}

    def judge(self, first: Ids, second: Ids, similarity: Vectors, on_progress: Callable[[int, int], None]) -> _Found:
        """Return what is not nothing of the pairs (p,)."""
        seen = self._looks.seen[first] & self._looks.seen[second]
        distance = np.where(seen, hash_distances(self._looks.hashes, first, second), np.int16(-1)).astype(np.int16)
        apart = np.abs(self._contents.seconds[first] - self._contents.seconds[second])
        similar = similarity >= self._least
        shots = (apart <= self._burst_seconds) & (self._burst_seconds > 0)
        tier = np.full(len(first), -1, dtype=np.int8)
        tier[similar & self._close(first, second)] = SIMILAR
        tier[similar & shots] = BURST
        relation = np.select([tier == BURST, tier == SIMILAR], [1, 2], 0).astype(np.int16)
        # Two exposures are no copies, however alike: copies have one time.
        looked_at = np.flatnonzero(seen & ~(shots & (apart > 0) & similar))
        for start in range(0, len(looked_at), PAIRS_AT_A_TIME):
            block = looked_at[start : start + PAIRS_AT_A_TIME]
            for place, words in self._same(first[block], second[block]):
                pair = block[place]
                two_shots = bool(shots[pair] and apart[pair] > 0)
                tier[pair] = BURST if two_shots else SAME
                relation[pair] = 1 if two_shots else self._codes.setdefault(words, len(self._codes))
            on_progress(start + len(block), len(looked_at))
        found = _Found(first, second, tier, relation, similarity, distance, list(self._codes))
        return found.kept(tier >= 0)

    def _same(self, first: Ids, second: Ids) -> Iterator[tuple[int, str]]:
        """Yield those of the pairs (p,) that show the same picture, and how the second differs from the first."""
        rough = place_roughly(self._looks.small[first], self._looks.small[second])
        flat = self._flat[first] & self._flat[second]
        colours = np.abs(self._looks.colours[first] - self._looks.colours[second]).max(axis=1)
        for place in np.flatnonzero(flat & (colours <= SAME_COLOUR)).tolist():
            yield place, self._words(int(first[place]), int(second[place]), [])
        for place in np.flatnonzero(rough.score >= ROUGHLY_SAME).tolist():
            a, b, swapped = int(first[place]), int(second[place]), bool(rough.swapped[place])
            one, other = (b, a) if swapped else (a, b)
            orientation = int(rough.orientation[place])
            below, above = self._contents.picture(one), orient(self._contents.picture(other), orientation)
            found = fit(below.convert("L"), above.convert("L"), window_box(int(rough.window[place])))
            if found is not None and is_same(found) and self._same_colours(one, other, below, above, found):
                # Words tell what was done to the first: what was done to the other is undone by `orientation`.
                done = orientation if swapped else inverse(orientation)
                changes = [TURNED[done], *self._changes(one, other, orientation, found)]
                lighter = -found.brighter if swapped else found.brighter
                changes.append("brighter" if lighter > BRIGHTER else "darker" if lighter < -BRIGHTER else "")
                yield place, self._words(a, b, changes)

    def _same_colours(self, one: int, other: int, below: Image.Image, above: Image.Image, found: Fit) -> bool:
        """Tell whether colours agree, too; a grey picture agrees with any."""
        if min(self._looks.colourful[one], self._looks.colourful[other]) < GREY:
            return True
        together, apart = colours_together(below, above, found)
        least = SAME_COLOURS_BRIGHTER if abs(found.brighter) > BRIGHTER else SAME_COLOURS
        return together >= least or apart <= ALIKE_LEVELS

    def _changes(self, one: int, other: int, orientation: int, found: Fit) -> Iterator[str]:
        """Yield how scale and sides differ between `one` and the `other`, laid over it in `orientation`."""
        if min(found.covered) < WHOLE:
            yield "cropped"
        sides = self._contents.sizes[other][:: -1 if orientation % 2 else 1]
        left, top, right, bottom = found.box
        pixels = sides / (self._contents.sizes[one] * (right - left, bottom - top))
        if np.abs(np.log(pixels)).max() > RESIZED:
            yield "resized"

    def _words(self, a: int, b: int, changes: list[str]) -> str:
        """Return in words what the contents `b` are of `a`."""
        colourful = self._looks.colourful[a], self._looks.colourful[b]
        if min(colourful) < GREY < max(colourful):
            changes.append("grey" if colourful[1] < GREY else "in colour")
        if self._contents.formats[a] != self._contents.formats[b]:
            changes.append(f"as {self._contents.formats[b]}")
        return ", ".join(filter(None, changes)) or "re-compressed"


def is_same(found: Fit) -> bool:
    """Tell whether two pictures that were laid over each other are the same picture, but for their colours."""
    limits = BRIGHTER_LIMITS if abs(found.brighter) > BRIGHTER else SAME_LIMITS
    alike = found.correlation >= limits.correlation and found.unlike <= limits.unlike
    return alike and found.moved <= limits.moved and abs(found.turn) <= limits.turn


def _among_closest(contents: Contents) -> Callable[[Ids, Ids], npt.NDArray[np.bool_]]:
    """Return what tells of pairs whether one is among the nearest few of the other."""
    few = contents.neighbours[:, :CLOSEST]
    one = np.broadcast_to(contents.asked[:, None], few.shape)
    codes = np.unique((np.minimum(one, few) * len(contents) + np.maximum(one, few))[few >= 0])
    return lambda first, second: np.isin(first * len(contents) + second, codes)


def _untold(found: _Found, contents: Contents) -> tuple[Ids, Ids]:
    """Return the pairs within sets of the same picture that were no candidates or not told to be the same."""
    kept = found.kept(found.tier == SAME)
    told = set(zip(kept.first.tolist(), kept.second.tolist(), strict=True))
    more = [
        pair
        for component in _components(_links(kept.first, kept.second))
        if 2 < len(component) <= COMPLETED
        for pair in combinations(sorted(component), 2)
        if pair not in told
    ]
    first, second = np.array(more, dtype=np.int64).reshape(-1, 2).T
    wanted = _wanted(contents, first, second)
    return first[wanted], second[wanted]


def _as_pairs(contents: Contents, found: _Found) -> Pairs:
    """Turn pairs of contents into pairs of images, add those of equal contents, and order them."""
    order = np.argsort(contents.content, kind="stable")
    images = np.split(order, np.searchsorted(contents.content[order], np.arange(1, len(contents))))
    first, second, rows = [], [], []
    for row, (a, b) in enumerate(zip(found.first.tolist(), found.second.tolist(), strict=True)):
        for one, other in _image_pairs(images[a], images[b], contents.is_new):
            first.append(one)
            second.append(other)
            rows.append(row)
    told = found.kept(np.array(rows, dtype=np.int64))
    equal = [pair for own in images if len(own) > 1 for pair in _image_pairs(own, own, contents.is_new)]
    ids = contents.image_ids[np.array(equal + list(zip(first, second, strict=True)), dtype=np.int64).reshape(-1, 2)]
    count = len(equal)
    pairs = Pairs(
        image_a=ids.min(axis=1),
        image_b=ids.max(axis=1),
        tier=np.concatenate([np.full(count, IDENTICAL, np.int8), told.tier]),
        relation=np.concatenate([np.zeros(count, np.int16), told.relation]),
        similarity=np.concatenate([np.ones(count, np.float32), told.similarity]),
        hash_distance=np.concatenate([np.zeros(count, np.int16), told.distance]),
        relations=("identical bytes", *found.relations[1:]),
    )
    return pairs.where(np.lexsort((pairs.image_b, pairs.image_a, -pairs.similarity, pairs.tier)))


def _image_pairs(ones: Ids, others: Ids, is_new: npt.NDArray[np.bool_] | None) -> Iterator[tuple[int, int]]:
    """Yield the pairs of images of two contents (or of one): each once, new with old ones where that is asked for.

    Of many images of equal contents each is paired with the first only: a thousand copies would be half a million pairs.
    """
    for one in ones.tolist() if len(ones) <= ALL_PAIRS else ones[:1].tolist():
        for other in others.tolist() if len(ones) * len(others) <= ALL_PAIRS**2 else others[:1].tolist():
            if (ones is not others or one < other) and (is_new is None or is_new[one] != is_new[other]):
                yield one, other


if __name__ == "__main__":
    import sys

    from commands.duplicates import main

    sys.exit(main(sys.argv[1:]))
