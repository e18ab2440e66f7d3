"""A map as files for other programs: a table of every layout, and the Yale DHLab's `{name: {x, y, idx}}`.

Owns their columns. Does not own tables (`tables`) nor how images are named (`exporting`).
"""

from __future__ import annotations

import json
from pathlib import Path

from errors import OptionError
from exporting import image_names
from store import Store
from tables import FORMATS, Column, open_table, whole_file
from views.map import Map


def check_target(path: Path) -> None:
    """Raise `OptionError` for a file whose name does not say which kind of table it is to be."""
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise OptionError(f"{path}: a map is written as .{', .'.join(FORMATS)}. Give the file one of these endings.")


def write_map(store: Store, written: Map, path: Path) -> None:
    """Write a row an image: `image_id`, `name`, x and y of each layout (`tsne_x`, `tsne_y`, …), `placed` 1 or 0.

    Raises `OptionError`, `MissingPackageError`, `ExportError`.
    """
    check_target(path)
    columns: dict[str, Column] = {"image_id": written.ids, "name": _names(store, written)}
    for layout, positions in written.layouts.items():
        columns |= {f"{layout}_x": positions[:, 0], f"{layout}_y": positions[:, 1]}
    columns["placed"] = written.placed.astype(int)
    with open_table(path, path.suffix.lower().removeprefix("."), list(columns)) as table:
        table.write(columns)


def write_yale(store: Store, written: Map, layout: str, path: Path) -> None:
    """Write `{name: {"x": …, "y": …, "idx": …}}` of one layout, as the Yale DHLab's notebook; raises `ExportError`.

    `idx` counts from 0 by image id. Names hold as much of their folders as tells them all apart: none overwrites another.
    """
    rows = zip(_names(store, written), written.layouts[layout].tolist(), strict=True)
    found = {name: {"x": x, "y": y, "idx": number} for number, (name, (x, y)) in enumerate(rows)}
    with whole_file(path) as stream:
        stream.write(json.dumps(found, ensure_ascii=False).encode())


def _names(store: Store, written: Map) -> list[str]:
    records = store.records(written.ids.tolist())
    return image_names([records[i].path if i in records else b"%d" % i for i in written.ids.tolist()])
