"""What a collection can be browsed by: folders, months, labels, tags, what the network saw, each with how many images and a few.

Owns counting them over the catalog. Does not own pages, nor what a filter by them keeps (`filters`), which it agrees with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from store.filters import SURE
from store.formats import Generation
from store.notes import given_labels, label_changes
from store.reader import Store

COVERS = 5
"""So many images stand for a shelf, evenly over it."""


@dataclass(frozen=True)
class Shelf:
    """Images that have something in common: what it is called, how many have it, and ids of a few."""

    name: str
    count: int
    image_ids: tuple[int, ...]


@dataclass(frozen=True)
class Folder:
    """A folder with images in it or below: `shelf.name` is its path from the uppermost folder on, "photos/2019".

    `below` are its subfolders by name, `own` how many images lie directly in it.
    """

    shelf: Shelf
    below: tuple[Folder, ...]
    own: int

    @property
    def title(self) -> str:
        """Return its own name."""
        return self.shelf.name.rpartition("/")[2]

    def find(self, name: str) -> Folder | None:
        """Return the folder of this path in it or below, None where there is none."""
        if name == self.shelf.name:
            return self
        inside = (child for child in self.below if f"{name}/".startswith(f"{child.shelf.name}/"))
        return next((found for child in inside if (found := child.find(name)) is not None), None)


def label_shelves(store: Store) -> list[Shelf]:
    """Return the labels that were given, by name."""
    return _shelves(store.catalog.execute(_SELECT.format("label")))


def given_shelves(store: Store) -> list[Shelf]:
    """Return the labels that people gave, by name, with the images that they gave them to."""
    return _shelves((label, image_id) for image_id, label in given_labels(store).items())


class LabelShelves:
    """The labels of all images, counted anew only when people have given or taken some since: of 100,000 it takes a while."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counted: tuple[int, list[Shelf]] | None = None

    def now(self) -> list[Shelf]:
        """Return what `label_shelves` does."""
        counted, changes = self._counted, label_changes(self._store)
        if counted is None or counted[0] != changes:
            self._counted = counted = changes, label_shelves(self._store)
        return counted[1]


def open_label_shelves(store: Store, generation: Generation) -> LabelShelves:
    """Open the labels of all images, for `SearchService.opened`."""
    return LabelShelves(store)


def month_shelves(store: Store) -> list[Shelf]:
    """Return the months in which images were taken, "2019-08", the last first."""
    return _shelves(store.catalog.execute(_SELECT.format("substr(taken_at, 1, 7)")))[::-1]


def tag_shelves(store: Store) -> list[Shelf]:
    """Return the tags that people gave, by name."""
    if not store.has_notes():
        return []
    return _shelves(
        store.catalog.execute(
            "SELECT tag, image_id FROM tags JOIN images USING (image_id) WHERE error_code IS NULL ORDER BY image_id"
        )
    )


def seen_shelves(store: Store, key: str, names: tuple[str, ...]) -> list[Shelf]:
    """Return the classes that the network of the set `key` is fairly sure to have seen, the most frequent first.

    As sure as for words to find them (`filters.SURE`). `names` are those of all classes; a shelf's images are the surest.
    """
    rows = store.catalog.execute(
        "SELECT class_index, image_id FROM predicted_labels JOIN vector_sets USING (set_id) JOIN images USING (sha256) "
        "WHERE key = ? AND error_code IS NULL AND score >= ? ORDER BY score DESC, image_id",
        (key, SURE),
    )
    found: dict[int, list[int]] = {}
    for number, image_id in rows:
        found.setdefault(number, []).append(image_id)
    shelves = [Shelf(names[number], len(ids), tuple(ids[:COVERS])) for number, ids in found.items()]
    return sorted(shelves, key=lambda shelf: (-shelf.count, shelf.name))


def folder_tree(store: Store) -> Folder:
    """Return all folders, from one without a name on.

    The folders above the uppermost with images, or with several ways to them, are left out: they are nobody's business. Equal
    paths that are left are one folder, as they are to a filter.
    """
    rows = store.catalog.execute("SELECT path, image_id FROM images WHERE error_code IS NULL ORDER BY image_id")
    direct: dict[str, list[int]] = {}
    for path, image_id in rows:
        direct.setdefault(os.fsdecode(path.rpartition(b"/")[0]), []).append(image_id)
    named: dict[str, list[int]] = {}
    for folder, name in _short_names(direct).items():
        named.setdefault(name, []).extend(direct[folder])
    return _folder("", named, _children(named))


_SELECT = "SELECT {0}, image_id FROM images WHERE error_code IS NULL AND {0} IS NOT NULL ORDER BY image_id"


def _shelves(rows: Iterable[tuple[str, int]]) -> list[Shelf]:
    found: dict[str, list[int]] = {}
    for name, image_id in rows:
        found.setdefault(name, []).append(image_id)
    return [Shelf(name, len(ids), _spread(ids)) for name, ids in sorted(found.items())]


def _spread(ids: list[int]) -> tuple[int, ...]:
    step = max(1, len(ids) // COVERS)
    return tuple(ids[::step][:COVERS])


def _short_names(direct: Mapping[str, list[int]]) -> dict[str, str]:
    """Return each folder's path from the uppermost folder on that has images or several ways to them."""
    ways: dict[str, set[str]] = {}
    for folder in direct:
        for above, below in _steps(folder):
            ways.setdefault(above, set()).add(below)
    names = {}
    for folder in direct:
        top = next((below for _, below in _steps(folder) if below in direct or len(ways.get(below, ())) > 1), folder)
        names[folder] = folder[len(top.rpartition("/")[0]) :].lstrip("/")
    return names


def _steps(folder: str) -> Iterator[tuple[str, str]]:
    """Yield ("", "/a"), ("/a", "/a/b"), … for "/a/b"; of "a/b" that came without files, ("", "a"), ("a", "a/b")."""
    above = ""
    for end in [place for place, sign in enumerate(folder) if sign == "/" and place] + [len(folder)]:
        yield above, folder[:end]
        above = folder[:end]


def _children(named: Iterable[str]) -> dict[str, list[str]]:
    children: dict[str, set[str]] = {}
    for name in filter(None, named):
        for above, below in _steps(name):
            children.setdefault(above, set()).add(below)
    return {above: sorted(below) for above, below in children.items()}


def _folder(name: str, named: Mapping[str, list[int]], children: Mapping[str, list[str]]) -> Folder:
    below = tuple(_folder(child, named, children) for child in children.get(name, ()))
    own = named.get(name, [])
    few = [*_spread(own), *(image_id for child in below for image_id in child.shelf.image_ids[:1])]
    shelf = Shelf(name, len(own) + sum(child.shelf.count for child in below), _spread(few))
    return Folder(shelf, below, len(own))
