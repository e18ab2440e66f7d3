"""The groups of a collection as they are shown: cut at any sim, named, ordered, described.

Owns what a generation keeps of them (`groups-…`), cutting its tree when a page asks, and how names that people gave find their
groups. Does not own how the tree is made (`grouping`), the method (`clusters`), nor pages (`web/groups.py`).

A group has no number that would last: it is addressed by any image in it, and a name belongs to the images it was given to.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from clusters import Branches, Tree, cut, cut_height, load_tree, match_groups
from errors import DamagedCollectionError, ImageNotFoundError, OptionError, ViewMissingError
from publishing import View, is_by_another_projection, view_of
from store import Generation, NamedGroup, Record, Store, label_changes, named_groups
from store.formats import widened
from vectors import BLOCK_ROWS, Ids, Vectors
from views.group_pictures import draw_tree

VIEW = "groups"
TREE_FILE, IMAGES_FILE, VECTORS_FILE = "groups-tree.npz", "groups-images.npy", "groups-vectors.npy"
CUTS_KEPT = 8
NAMES_KEPT = 256
COMMON_LABELS = 3

Order = Literal["size", "time"]
ORDERS: tuple[Order, ...] = ("size", "time")


def check_sim(sim: float | None) -> None:
    """Raise `OptionError` unless `sim` is 0…1 or None."""
    if sim is not None and not 0 <= sim <= 1:
        raise OptionError(f"sim is {sim}. Give a number from 0 (one group) to 1 (every image alone).")


def check_min_size(min_size: int) -> None:
    """Raise `OptionError` unless `min_size` is at least 1."""
    if min_size < 1:
        raise OptionError(f"The smallest group that is shown is {min_size}. Give a whole number from 1.")


# What a generation keeps.


@dataclass(frozen=True)
class Kept:
    """What a generation keeps: the tree, and its images' ids int64 (n,), ascending."""

    tree: Tree
    ids: Ids


def load_kept(folder: Path) -> Kept:
    """Read what `build_groups` wrote. Raises `DamagedCollectionError`."""
    tree = load_tree(folder / TREE_FILE)
    try:
        ids = np.load(folder / IMAGES_FILE)
        shape = np.load(folder / VECTORS_FILE, mmap_mode="r").shape
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, str(error)) from error
    if not len(ids) == tree.images == shape[0]:
        raise _damaged(folder, f"{tree.images} images in the tree, {len(ids)} ids, {shape[0]} vectors")
    return Kept(tree, ids)


def _damaged(folder: Path, why: str) -> DamagedCollectionError:
    return DamagedCollectionError(
        f"The groups in {folder} are damaged ({why}). Run `python clusters.py` again: it makes them anew."
    )


def records_of(store: Store, ids: Ids) -> list[Record]:
    """Return the records of the images `ids`, ascending, in order; one that is gone is one of which nothing is known."""
    places = {image_id: place for place, image_id in enumerate(ids.tolist())}
    found = [Record(b"", 0, 0)] * len(ids)
    for record in store.all_records():
        place = places.get(record.image_id)
        if place is not None:
            found[place] = record
    return found


def names_by_group(named: Sequence[NamedGroup], ids: Ids, labels: Ids) -> dict[int, NamedGroup]:
    """Return which of the groups `labels` (n,) of the images `ids`, ascending, have names, by their numbers.

    A group has a name when it shares enough with what was named (`clusters.match_groups`).
    """
    if not named or not len(ids):
        return {}
    wanted = np.concatenate([group.image_ids for group in named])
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    touched = np.unique(labels[places[ids[places] == wanted]])
    # Only groups with a named image can match; at sim 1 there are as many groups as images.
    order = np.argsort(labels, kind="stable")
    firsts, ends = (np.searchsorted(labels, touched, side=side, sorter=order) for side in ("left", "right"))
    groups = [ids[order[first:end]] for first, end in zip(firsts.tolist(), ends.tolist(), strict=True)]
    matched = match_groups(groups, [group.image_ids for group in named])
    return {int(touched[group]): named[number] for number, group in matched.items()}


@dataclass(frozen=True)
class Group:
    """Some images that are alike: `image_ids` int64 (size,), the most central first.

    `name` is what a person called it (`group_id` in the catalog); `labels` its commonest labels and their shares 0…1, nothing
    where all images of the collection have the same; `taken_from`, `taken_until` the times when its images were taken.
    """

    image_ids: Ids
    name: str | None
    group_id: int | None
    labels: list[tuple[str, float]]
    taken_from: str | None
    taken_until: str | None

    @property
    def size(self) -> int:
        """How many images it has."""
        return len(self.image_ids)

    @property
    def central_id(self) -> int:
        """The image nearest to the middle."""
        return int(self.image_ids[0])


@dataclass(frozen=True)
class NamedElsewhere:
    """A name that no group of a cut has: `images` are how many were named, `image_id` one of them. `sim` is one at which it has
    its group, which then holds that image; None: these images are a group at no sim any more.
    """

    name: str
    image_id: int
    images: int
    sim: float | None


@dataclass(frozen=True)
class _Cut:
    """The groups at one sim: `labels` (n,) their numbers, 0 the largest; `order` (n,) the images' places, group by group; group g
    is `order[starts[g] : starts[g + 1]]`.
    """

    labels: Ids
    order: Ids
    starts: Ids

    @property
    def sizes(self) -> Ids:
        return np.diff(self.starts)


class Groups:
    """The groups of a collection at any sim, over the images `ids` int64 (n,) that are still there. Thread-safe.

    `new` counts the images of the collection that came since and are in no group; `is_old` tells that the collection is searched
    by other vectors since, because labels taught it, or no longer do. Groups are made as they are asked for.
    """

    def __init__(
        self, store: Store, view: View, kept: Kept, vectors: npt.NDArray[np.float16], now: Ids, *, is_old: bool = False
    ) -> None:
        self.view = view
        self.is_old = is_old
        self.sim = float(view.report["sim"])
        self.min_size = int(view.options["min_size"])
        self._store = store
        self._tree = kept.tree
        self._there = np.flatnonzero(np.isin(kept.ids, now))
        self._vectors = vectors
        self.ids = kept.ids[self._there]
        self._new_ids = np.setdiff1d(now, self.ids)
        self.new = len(self._new_ids)
        records = records_of(store, self.ids)
        self._labelled = label_changes(store), _labels(records)
        self._taken = np.array([record.taken_at or "NaT" for record in records], dtype="datetime64[s]")
        self._tree_ids = kept.ids
        self._cut = functools.lru_cache(CUTS_KEPT)(self._cut_at)
        self._branch = functools.lru_cache(NAMES_KEPT)(self._find_branch)

    def at(self, sim: float | None = None, min_size: int | None = None, *, order: Order = "size") -> GroupList:
        """Return the groups of at least `min_size` images at `sim` (None: as published), largest or earliest first.

        Raises `OptionError`.
        """
        sim, min_size = self.sim if sim is None else sim, self.min_size if min_size is None else min_size
        check_sim(sim)
        check_min_size(min_size)
        if order not in ORDERS:
            raise OptionError(f"There is no order {order!r}. Give one of {', '.join(ORDERS)}.")
        found = self._cut(sim)
        numbers = np.arange(int(np.count_nonzero(found.sizes >= min_size)))
        if order == "time":
            taken = self._taken[found.order].astype(np.int64)
            taken[np.isnat(self._taken[found.order])] = np.iinfo(np.int64).max  # the last
            earliest = np.minimum.reduceat(taken, found.starts[:-1]) if len(taken) else taken
            numbers = numbers[np.argsort(earliest[numbers], kind="stable")]
        return GroupList(self, sim, found, numbers)

    def group_of(self, image_id: int, sim: float | None = None) -> Group:
        """Return the group that holds an image at `sim`; it may be alone in it.

        Raises `ImageNotFoundError`, `OptionError`, and `ViewMissingError` for an image that came since.
        """
        number = int(self.labels_of(np.array([image_id], dtype=np.int64), sim)[0])
        if image_id in self._new_ids:
            raise ViewMissingError(f"Image {image_id} came after the groups were made. Run: python clusters.py")
        if number < 0:
            raise ImageNotFoundError(f"Image {image_id} is in no group.")
        return self.at(sim, 1)[number]

    def labels_of(self, image_ids: Ids, sim: float | None = None) -> Ids:
        """Return the number of the group of each image at `sim`, int64 (m,): 0 is the largest; -1 for one that is in none."""
        labels = self.at(sim, 1).cut.labels
        if not len(labels):
            return np.full(len(image_ids), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.ids, image_ids), len(self.ids) - 1)
        return np.where(self.ids[places] == image_ids, labels[places], -1)

    def nearest_groups(self, group: Group, sim: float | None, count: int) -> list[Group]:
        """Return the `count` groups at `sim` whose images are on average the most alike to the middle of `group`, one of them."""
        shown = self.at(sim)
        found = shown.cut
        number = int(self.labels_of(group.image_ids[:1], sim)[0])
        others = shown.numbers[shown.numbers != number]
        if not len(others):
            return []
        middle = self._take(self._places(found, number)).mean(axis=0)
        parts = [
            self._take(found.order[start : start + BLOCK_ROWS]) @ middle for start in range(0, len(self), BLOCK_ROWS)
        ]
        alike = np.add.reduceat(np.concatenate(parts), found.starts[:-1]) / found.sizes
        return [shown.of(g) for g in others[np.argsort(-alike[others], kind="stable")][:count].tolist()]

    def __len__(self) -> int:
        return len(self.ids)

    def _take(self, places: Ids) -> Vectors:
        return widened(self._vectors[self._there[places]])

    def _cut_at(self, sim: float) -> _Cut:
        labels = _by_size(cut(self._tree, sim)[self._there])
        starts = np.concatenate([[0], np.cumsum(np.bincount(labels))]).astype(np.int64)
        return _Cut(labels, np.argsort(labels, kind="stable"), starts)

    def _places(self, found: _Cut, number: int) -> Ids:
        """Return the places of the images of a group, the most central first: found when asked for, so that cuts are quick."""
        places = found.order[found.starts[number] : found.starts[number + 1]]
        vectors = self._take(places)
        vectors -= vectors.mean(axis=0)
        return places[np.argsort(np.vecdot(vectors, vectors), kind="stable")]

    def members(self, found: _Cut, numbers: Ids) -> list[Ids]:
        """Return the image ids of the groups of a cut, int64 (size,) each, the most central first."""
        return [self.ids[self._places(found, number)] for number in numbers.tolist()]

    def group(self, found: _Cut, number: int, named: NamedGroup | None) -> Group:
        """Return the group of a number in a cut."""
        places = self._places(found, number)
        taken = self._taken[places]
        taken = taken[~np.isnat(taken)]
        return Group(
            self.ids[places],
            None if named is None else named.name,
            None if named is None else named.group_id,
            self._common_labels(places),
            str(taken.min()) if len(taken) else None,
            str(taken.max()) if len(taken) else None,
        )

    def _labels_now(self) -> tuple[list[str], Ids]:
        """Return what `_labels` does: read again only when people have given or taken some since."""
        changes = label_changes(self._store)
        if self._labelled[0] != changes:
            self._labelled = changes, _labels(records_of(self._store, self.ids))
        return self._labelled[1]

    def _common_labels(self, places: Ids) -> list[tuple[str, float]]:
        names, own = self._labels_now()
        if len(names) < 2:
            return []
        codes, counts = np.unique(own[places], return_counts=True)
        best = np.argsort(-counts, kind="stable")
        shares = [(names[codes[place]], float(counts[place] / len(places))) for place in best.tolist()]
        return [(label, share) for label, share in shares if label][:COMMON_LABELS]

    def draw_tree(self, path: Path, sim: float | None = None) -> None:
        """Write the tree, and where `sim` cuts it, as a PNG. Raises `OptionError` for a tree of one image, `ExportError`."""
        draw_tree(path, self._tree.merges, cut_height(self._tree, self.sim if sim is None else sim))

    def named_elsewhere(self, names: Mapping[int, NamedGroup]) -> list[NamedElsewhere]:
        """Return the names that are not among the `names` of a cut, the first given first; none whose images are all gone."""
        here = {named.group_id for named in names.values()}
        others = [named for named in named_groups(self._store) if named.group_id not in here]
        return [self._elsewhere(named) for named in others if len(named.image_ids)]

    def _elsewhere(self, named: NamedGroup) -> NamedElsewhere:
        found = self._branch(named.image_ids.tobytes())
        sim, image_id = (None, int(named.image_ids[0])) if found is None else found
        return NamedElsewhere(named.name, image_id, len(named.image_ids), sim)

    @functools.cached_property
    def _branches(self) -> Branches:
        return Branches(self._tree, self._there)

    def _find_branch(self, image_ids: bytes) -> tuple[float, int] | None:
        wanted = self._there[np.isin(self.ids, np.frombuffer(image_ids, dtype=np.int64))]
        found = self._branches.nearest(wanted)
        return None if found is None else (found[0], int(self._tree_ids[found[1]]))

    def names(self, found: _Cut) -> dict[int, NamedGroup]:
        """Return the names of the groups of a cut, by number, as the catalog has them now."""
        return names_by_group(named_groups(self._store), self.ids, found.labels)


def _by_size(labels: Ids) -> Ids:
    """Number groups anew, the largest 0, of equal ones the first: some of their images may be gone."""
    _, groups, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    ranks = np.empty(len(sizes), dtype=np.int64)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return ranks[groups]


def _labels(records: Sequence[Record]) -> tuple[list[str], Ids]:
    """Return the labels that there are, by name ("" is none), and the place of each image's among them, int64 (n,)."""
    names, codes = np.unique(np.array([record.label or "" for record in records], dtype=object), return_inverse=True)
    return names.tolist(), codes


class GroupList(Sequence[Group]):
    """The groups at one sim, in an order, made as they are asked for. `numbers` are those of the groups, in order."""

    def __init__(self, groups: Groups, sim: float, found: _Cut, numbers: Ids) -> None:
        self.sim = sim
        self.cut = found
        self.numbers = numbers
        self._groups = groups

    @functools.cached_property
    def names(self) -> Mapping[int, NamedGroup]:
        """The names of groups at this sim, by number."""
        return self._groups.names(self.cut)

    @functools.cached_property
    def named_elsewhere(self) -> list[NamedElsewhere]:
        """The names that no group has at this sim."""
        return self._groups.named_elsewhere(self.names)

    @property
    def grouped(self) -> int:
        """How many images are in these groups."""
        return int(self.cut.sizes[self.numbers].sum())

    @property
    def alone(self) -> int:
        """How many images are in smaller ones."""
        return len(self.cut.labels) - self.grouped

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Group: ...

    @overload
    def __getitem__(self, place: slice) -> list[Group]: ...

    def __getitem__(self, place: int | slice) -> Group | list[Group]:
        if isinstance(place, slice):
            return [self.of(number) for number in self.numbers[place].tolist()]
        return self.of(int(self.numbers[place]))

    def members(self) -> list[Ids]:
        """Return the image ids of every group, in order, the most central first: int64 (size,) each."""
        return self._groups.members(self.cut, self.numbers)

    def of(self, number: int) -> Group:
        """Return the group of a number, whatever its size."""
        return self._groups.group(self.cut, number, self.names.get(number))


def open_groups(store: Store, generation: Generation) -> Groups:
    """Open the groups that `generation` keeps. Raises `ViewMissingError` where there are none, `DamagedCollectionError`."""
    view = view_of(generation, VIEW)
    if view is None:
        raise ViewMissingError("The collection has not been put in groups yet. Run: python clusters.py")
    kept = load_kept(generation.folder)
    vectors = np.load(generation.folder / VECTORS_FILE, mmap_mode="r")
    now = store.snapshot(generation.manifest["vectors_key"]).ids
    return Groups(store, view, kept, vectors, now, is_old=is_by_another_projection(generation, view))
