"""Groups for other programs: imagecluster's {size: [[file, …], …]} as JSON, and a row an image as CSV.

Owns these files' contents. Does not own folders of links (`group_links`) or pictures (`group_pictures`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from errors import OptionError
from pipeline import show_path
from store import Store
from tables import open_table, whole_file
from views.groups import GroupList

SUFFIXES = (".json", ".csv")
COLUMNS = ("group", "size", "name", "place", "image_id", "file")


def check_targets(paths: Sequence[Path]) -> None:
    """Raise `OptionError` for a file whose name does not say what is to be written."""
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise OptionError(f"{path}: groups are written to files whose names end in {' or '.join(SUFFIXES)}.")


def group_paths(store: Store, groups: GroupList) -> list[list[bytes]]:
    """Return the paths of the images of each group, as the catalog has them, the most central first."""
    paths = {record.image_id: record.path for record in store.all_records()}
    return [[paths[i] for i in ids.tolist() if i in paths] for ids in groups.members()]


def write_groups(store: Store, groups: GroupList, path: Path) -> None:
    """Write all groups into `path`, whole or not at all: its ending says in which form. Raises `OptionError`, `ExportError`.

    Groups have numbers from 0 in order; the images of each are in order of how central they are.
    """
    check_targets([path])
    shown = [[show_path(name) for name in names] for names in group_paths(store, groups)]
    if path.suffix.lower() == ".json":
        sizes: dict[int, list[list[str]]] = {}
        for names in sorted(shown, key=len):
            sizes.setdefault(len(names), []).append(names)
        with whole_file(path) as stream:
            stream.write(json.dumps(sizes, indent=1, ensure_ascii=False).encode())
        return
    with open_table(path, "csv", COLUMNS) as table:
        for number, (ids, names) in enumerate(zip(groups.members(), shown, strict=True)):
            named = groups.names.get(int(groups.numbers[number]))
            table.write(
                {
                    "group": np.full(len(names), number),
                    "size": np.full(len(names), len(names)),
                    "name": ["" if named is None else named.name] * len(names),
                    "place": np.arange(len(names)),
                    "image_id": ids,
                    "file": names,
                }
            )


def thumbnails_of(store: Store) -> Callable[[list[int]], dict[int, bytes]]:
    """Return what gives the thumbnails (JPEG) of some images; of those that have none, none."""

    def thumbnails(image_ids: list[int]) -> dict[int, bytes]:
        hashes = {i: r.sha256 for i, r in store.records(image_ids).items() if r.sha256 is not None}
        found = {i: store.thumbnail(sha256) for i, sha256 in hashes.items()}
        return {i: jpeg for i, jpeg in found.items() if jpeg is not None}

    return thumbnails
