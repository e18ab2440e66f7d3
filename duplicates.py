"""Which pictures of a collection are the same, nearly the same, shots of one burst, or merely similar: arrays in, arrays out.

Four tiers, kept apart: *identical* files (their SHA-256 is equal); the *same* picture again (compressed anew, resized, converted,
made grey or brighter, cropped a little, turned, mirrored); a *burst*, similar and taken seconds apart; merely *similar*. Pairs
come from candidates (nearest neighbours by vector, perceptual hashes found in a table, shots that follow each other), never from
all pairs.

Owns tiers, pairs and groups. Does not own where vectors and thumbnails come from (`views/duplicates.py`), nor what is done with
duplicates (`quarantine.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import OptionError
from vectors import Ids, Vectors

TIERS = ("identical", "same", "burst", "similar")
IDENTICAL, SAME, BURST, SIMILAR = range(len(TIERS))
MOST_NEIGHBOURS = 1_000


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
    links: dict[int, set[int]] = {}
    for a, b in zip(kept.image_a.tolist(), kept.image_b.tolist(), strict=True):
        links.setdefault(a, set()).add(b)
        links.setdefault(b, set()).add(a)
    groups = []
    for component in _components(links):
        parts = split_chains(component, links) if code == SAME else [component]
        for part in parts:
            centre = max(part, key=lambda image_id: (len(links[image_id] & part), -image_id))
            groups.append(Group(tier, tuple(sorted(part)), centre))
    return sorted(groups, key=lambda group: (-len(group.image_ids), group.image_ids))


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
