"""Which pictures of a collection are the same, nearly the same, shots of one burst, or merely similar: arrays in, arrays out.

Four tiers, kept apart: *identical* files (their SHA-256 is equal); the *same* picture again (compressed anew, resized, converted,
made grey or brighter, cropped a little, turned, mirrored); a *burst*, similar and taken seconds apart; merely *similar*. Pairs
come from candidates (nearest neighbours by vector, perceptual hashes found in a table, shots that follow each other), never from
all pairs.

Owns tiers, pairs and groups. Does not own where vectors and thumbnails come from (`views/duplicates.py`), nor what is done with
duplicates (`quarantine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import OptionError
from hashes import hash_distances, nearly_equal
from sameness import Pictures, same_pictures
from vectors import Ids, Vectors

TIERS = ("identical", "same", "burst", "similar")
IDENTICAL, SAME, BURST, SIMILAR = range(len(TIERS))
MOST_NEIGHBOURS = 1_000
CLOSEST = 5
"""Merely similar are pairs of which one is among so many nearest of the other: more would tell nobody anything."""
SHOTS_AHEAD = 5
COMPLETED = 60
"""In sets of the same picture of up to so many contents all pairs are compared: a crop and a turned copy find each other so."""
ALL_PAIRS = 30
PAIRS_AT_A_TIME = 2_048


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
    """Two images, `image_a` < `image_b`; `relation` says what the second is of the first; `hash_distance` 0…64 or None."""

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
class Contents:
    """n different contents (files of equal bytes are one), and the m images that have them.

    `image_ids` int64 (m,) and `content` int64 (m,), the place 0…n-1 of each image's contents; `is_new` bool (m,) where only pairs
    of a new image with an old one are wanted, else None. `seconds` float64 (n,): when contents were taken, NaN if unknown.
    `neighbours` int64 (q, k) places, -1 for none, and `similarities` float32 (q, k) of the contents `asked` int64 (q,);
    `similarity` measures pairs of places.
    """

    image_ids: Ids
    content: Ids
    is_new: npt.NDArray[np.bool_] | None
    seconds: npt.NDArray[np.float64]
    asked: Ids
    neighbours: Ids
    similarities: Vectors
    similarity: Callable[[Ids, Ids], Vectors]

    def __len__(self) -> int:
        return len(self.seconds)


def find_pairs(
    contents: Contents,
    pictures: Pictures,
    options: DuplicateOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pairs:
    """Find all pairs of four tiers among `contents`, whose `pictures` were looked at.

    `on_progress` is called with how many candidates were compared, and of how many.

    `options.min_similarity` None is 1 here. A pair of contents counts for each pair of images that have them; where more than 30
    images have the same contents, each of them is paired with the first only.
    """
    judge = _Judge(contents, pictures, options)
    first, second, similarity = _candidates(contents, pictures, options)
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
        columns: dict[str, Any] = {name: getattr(self, name)[mask] for name in FOUND}
        return replace(self, **columns)

    def joined(self, other: _Found) -> _Found:
        """Put a later table of the same judge, who may know more words by then, behind this one."""
        joined: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in FOUND}
        return replace(other, **joined)


FOUND = ("first", "second", "tier", "relation", "similarity", "distance")


def _candidates(contents: Contents, pictures: Pictures, options: DuplicateOptions) -> tuple[Ids, Ids, Vectors]:
    """Return the pairs of places worth a look, each once, the lower place first, and their cosines."""
    near, rows = contents.neighbours >= 0, np.arange(len(contents.asked))[:, None]
    one = contents.asked[np.broadcast_to(rows, near.shape)[near]]
    parts = [(one, contents.neighbours[near])]
    parts.extend(nearly_equal(pictures.hashes, np.flatnonzero(pictures.seen & ~pictures.flat())))
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

    def __init__(self, contents: Contents, pictures: Pictures, options: DuplicateOptions) -> None:
        self._contents = contents
        self._pictures = pictures
        self._burst_seconds = options.burst_seconds
        self._least = 1.0 if options.min_similarity is None else options.min_similarity
        self._close = _among_closest(contents)
        self._codes = {word: code for code, word in enumerate(("", "seconds apart", "similar"))}

    def judge(self, first: Ids, second: Ids, similarity: Vectors, on_progress: Callable[[int, int], None]) -> _Found:
        """Return what is not nothing of the pairs (p,)."""
        seen = self._pictures.seen[first] & self._pictures.seen[second]
        distance = np.where(seen, hash_distances(self._pictures.hashes, first, second), np.int16(-1)).astype(np.int16)
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
            for place, words in same_pictures(self._pictures, first[block], second[block]):
                pair = block[place]
                two_shots = bool(shots[pair] and apart[pair] > 0)
                tier[pair] = BURST if two_shots else SAME
                relation[pair] = 1 if two_shots else self._codes.setdefault(words, len(self._codes))
            on_progress(start + len(block), len(looked_at))
        found = _Found(first, second, tier, relation, similarity, distance, list(self._codes))
        return found.kept(tier >= 0)


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
        similarity=np.concatenate([np.ones(count, np.float32), told.similarity.round(6)]),
        hash_distance=np.concatenate([np.zeros(count, np.int16), told.distance]),
        relations=("identical bytes", *found.relations[1:]),
    )
    return pairs.where(np.lexsort((pairs.image_b, pairs.image_a, -pairs.similarity, pairs.tier)))


def _image_pairs(ones: Ids, others: Ids, is_new: npt.NDArray[np.bool_] | None) -> Iterator[tuple[int, int]]:
    """Yield the pairs of images of two contents, or of one: each once, new with old ones where that is asked for."""
    within = ones is others
    if is_new is not None:
        yield from _crossed(ones[is_new[ones]].tolist(), others[~is_new[others]].tolist())
        if not within:
            yield from _crossed(ones[~is_new[ones]].tolist(), others[is_new[others]].tolist())
    elif not within:
        yield from _crossed(ones.tolist(), others.tolist())
    elif len(ones) <= ALL_PAIRS:
        yield from combinations(ones.tolist(), 2)
    else:
        yield from _crossed(ones[:1].tolist(), ones[1:].tolist())


def _crossed(ones: list[int], others: list[int]) -> Iterator[tuple[int, int]]:
    """Yield all pairs; of many, each with the first of the other side only: a thousand copies would be half a million pairs."""
    if len(ones) * len(others) <= ALL_PAIRS**2:
        yield from product(ones, others)
    else:
        yield from product(ones[:1], others)
        yield from product(ones[1:], others[:1])


if __name__ == "__main__":
    import sys

    from commands.duplicates import main

    sys.exit(main(sys.argv[1:]))
