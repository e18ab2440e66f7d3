"""The duplicates of a collection: what goes in, which files a generation keeps of them, and opening them again.

Owns reading vectors, thumbnails and times, and the view "duplicates". Does not own what a duplicate is (`duplicates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from duplicates import DuplicateOptions, Group, Pairs, groups_of, load_pairs
from errors import ViewMissingError
from publishing import publish_view, view_of
from store import Filter, Generation, Store, StoreWriter
from vectors import Ids

VIEW = "duplicates"
PAIRS_FILE = "duplicates-pairs.npz"
IMAGES_FILE = "duplicates-images.npy"

OnProgress = Callable[[str, int, int], None]


def _quiet(step: str, done: int, total: int) -> None:
    pass


class Duplicates:
    """Pairs and groups of the images that a collection holds now. Immutable."""

    def __init__(
        self, pairs: Pairs, not_compared: Ids, *, options: Mapping[str, Any], report: Mapping[str, Any], created_at: str
    ) -> None:
        self.pairs = pairs
        self.not_compared = not_compared
        self.options = options
        self.report = report
        self.created_at = created_at
        self._groups: dict[str, list[Group]] = {}

    def groups(self, tier: str) -> list[Group]:
        """Return the groups of "identical", "same" (both first tiers together) or "burst", the largest first; `OptionError`."""
        if tier not in self._groups:
            self._groups[tier] = groups_of(self.pairs, tier)
        return self._groups[tier]

    def of(self, image_id: int) -> Pairs:
        """Return all pairs of one image."""
        return self.pairs.where((self.pairs.image_a == image_id) | (self.pairs.image_b == image_id))


def images_under(store: Store, folder: Path) -> Ids:
    """Return the ids of the images whose files lie in `folder` or below it, ascending, int64 (n,)."""
    return store.matching_ids(Filter(folder=str(folder.absolute())), key="")


def find_duplicates(
    writer: StoreWriter,
    generation: Generation,
    options: DuplicateOptions = DuplicateOptions(),
    *,
    on_progress: OnProgress = _quiet,
) -> Duplicates:
    """Find the duplicates of the images of `generation` and publish them as its view "duplicates"."""
    raise NotImplementedError


def compare_images(
    store: Store,
    generation: Generation,
    options: DuplicateOptions = DuplicateOptions(),
    *,
    among: Ids | None = None,
    new: Ids | None = None,
    on_progress: OnProgress = _quiet,
) -> Duplicates:
    """Find duplicates without publishing them: `among` image ids only, or `new` image ids against all others only."""
    raise NotImplementedError


def open_duplicates(store: Store, generation: Generation) -> Duplicates:
    """Open the view of `generation`; raises `ViewMissingError`."""
    view = view_of(generation, VIEW)
    if view is None:
        raise ViewMissingError("The duplicates have not been looked for yet. Run: python duplicates.py")
    pairs = load_pairs(generation.folder / PAIRS_FILE)
    ids, rows = np.load(generation.folder / IMAGES_FILE)
    raise NotImplementedError
