"""The duplicates of a collection as a person goes through them: sets with what is known of their images, and what each rule wins.

Owns which sets a tier has and their sums. Does not own what duplicates are (`views/duplicates.py`), nor the rules (`plans.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplicates import SIMILAR, TIERS, Pairs
from plans import REMOVE, Choice, DuplicateSet, decide, make_sets
from store import Generation, Record, Store
from views.duplicates import Duplicates, open_duplicates

PLANNED_TIERS = TIERS[:SIMILAR]
"""Tiers whose images a plan may remove; what is merely similar is only shown."""

MOST_TOTALS = 32


@dataclass(frozen=True)
class Totals:
    """What a rule makes of the sets of a tier: how many sets and images there are, how many files could go, and their bytes."""

    sets: int
    images: int
    removed: int
    removed_bytes: int


class Review:
    """The sets of each tier. Immutable but for what it remembers of what it computed."""

    def __init__(self, store: Store, duplicates: Duplicates) -> None:
        self.duplicates = duplicates
        self._store = store
        self._sets: dict[str, list[DuplicateSet]] = {}
        self._totals: dict[tuple[str, Choice], Totals] = {}
        self._similar = duplicates.pairs.where(duplicates.pairs.tier == SIMILAR)
        self._linked = duplicates.pairs.where(duplicates.pairs.tier < SIMILAR)

    def count(self, tier: str) -> int:
        """Return the number of sets of a tier; of "similar", of its pairs."""
        return len(self._similar) if tier == TIERS[SIMILAR] else len(self.sets(tier))

    def sets(self, tier: str) -> list[DuplicateSet]:
        """Return the sets of "identical", "same" (which holds the identical ones too) or "burst"; raises `OptionError`."""
        if tier not in self._sets:
            groups = self.duplicates.groups(tier)
            records = self._records([image_id for group in groups for image_id in group.image_ids])
            self._sets[tier] = make_sets(groups, self._linked, records)
        return self._sets[tier]

    def page(self, tier: str, places: slice) -> list[DuplicateSet]:
        """Return some sets of a tier; of "similar" its pairs, each as a set of two."""
        if tier != TIERS[SIMILAR]:
            return self.sets(tier)[places]
        pairs = self._similar.where(np.arange(len(self._similar))[places])
        records = self._records([*pairs.image_a.tolist(), *pairs.image_b.tolist()])
        found = []
        for pair in pairs:
            members = tuple(records[i] for i in (pair.image_a, pair.image_b) if i in records)
            links = {(pair.image_a, pair.image_b): (pair.tier, pair.relation)}
            found.append(DuplicateSet(pair.tier, members, links))
        return found

    def totals(self, tier: str, choice: Choice) -> Totals:
        """Return what `choice` makes of a tier."""
        key = (tier, choice)
        if key not in self._totals:
            if len(self._totals) >= MOST_TOTALS:
                self._totals.clear()
            self._totals[key] = totals_of(self.sets(tier), choice)
        return self._totals[key]

    def pairs_of(self, image_id: int) -> Pairs:
        """Return all pairs of an image but those that are merely similar."""
        linked = self._linked
        return linked.where((linked.image_a == image_id) | (linked.image_b == image_id))

    def _records(self, image_ids: Sequence[int]) -> dict[int, Record]:
        return self._store.records(dict.fromkeys(image_ids))


def totals_of(sets: Sequence[DuplicateSet], choice: Choice) -> Totals:
    """Return what `choice` makes of `sets`."""
    removed = [d.record.size for one in sets for d in decide(one, choice) if d.action == REMOVE]
    return Totals(len(sets), sum(len(one.records) for one in sets), len(removed), sum(removed))


def open_review(store: Store, generation: Generation) -> Review:
    """Open the duplicates of `generation` for review; raises `ViewMissingError`."""
    return Review(store, open_duplicates(store, generation))
