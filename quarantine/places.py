"""Where files go that are taken out without anybody naming a folder: to few quarantines that can be found again.

Owns the choice of a quarantine for each file, and which ones a collection remembers. Does not own moving (`applying.py`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from errors import QuarantineError
from plans import REMOVE, Plan, path_text, text_path
from quarantine.journal import HIDDEN, JOURNAL, Run, read_run
from store import Store, StoreWriter

logger = logging.getLogger("lookalike")

REMEMBERED = "quarantines"
"""The word of the catalog under which the quarantines of a collection stand."""


def usual_folders(paths: Iterable[bytes], added: Path) -> list[Path]:
    """Return the folders whose quarantine files go to: that of what was added by the service, and the one all others share."""
    own = os.path.realpath(os.fsencode(added))
    others = {os.path.dirname(path) for path in paths if path.startswith(b"/") and not _lies_in(path, own)}
    shared = os.path.commonpath(others) if others else b"/"
    return [Path(os.fsdecode(folder)) for folder in (own, shared) if folder != b"/"]


def parts_of(plan: Plan, folders: Sequence[Path]) -> Iterator[tuple[Path, Plan]]:
    """Yield a plan in parts, each with the quarantine of its files: that of one of `folders`, else one beside them.

    A part has all rows to be kept of the sets whose files it removes.
    """
    places: dict[Path, list[bytes]] = {}
    rest: dict[int, list[bytes]] = {}
    for row in plan.removed:
        folder = next((folder for folder in folders if _can_take(folder, row.path)), None)
        if folder is not None:
            places.setdefault(folder / HIDDEN, []).append(row.path)
        else:
            rest.setdefault(_device(os.path.dirname(row.path)), []).append(row.path)
    for paths in rest.values():
        shared = Path(os.fsdecode(os.path.commonpath([os.path.dirname(path) for path in paths])))
        places.setdefault(shared / HIDDEN, []).extend(paths)
    for place, paths in places.items():
        moved = set(paths)
        groups = {row.group for row in plan.rows if row.path in moved}
        rows = [row for row in plan.rows if row.path in moved or (row.group in groups and row.action != REMOVE)]
        yield place, Plan(tuple(rows))


def _can_take(folder: Path, path: bytes) -> bool:
    """Tell whether a file lies in a folder, on its disk, where a quarantine can be made or is."""
    raw = os.fsencode(folder)
    if not _lies_in(path, raw) or _device(raw) != _device(os.path.dirname(path)):
        return False
    hidden = os.path.join(raw, os.fsencode(HIDDEN))
    return os.access(hidden if os.path.isdir(hidden) else raw, os.W_OK | os.X_OK)


def _lies_in(path: bytes, folder: bytes) -> bool:
    return path.startswith(folder.rstrip(b"/") + b"/")


def _device(folder: bytes) -> int:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return -1


def remember(writer: StoreWriter, places: Iterable[Path]) -> None:
    """Let a collection know quarantines that hold files of it."""
    known = remembered(writer)
    new = [place for place in places if place not in known]
    if new:
        writer.set_meta(REMEMBERED, json.dumps([path_text(os.fsencode(place)) for place in (*known, *new)]))


def remembered(store: Store) -> list[Path]:
    """Return the quarantines that a collection knows."""
    return [Path(os.fsdecode(text_path(text))) for text in json.loads(store.meta(REMEMBERED) or "[]")]


def remembered_runs(store: Store) -> list[Run]:
    """Return all runs of the quarantines that a collection knows and that are there, the latest first.

    A run whose journal is damaged is logged and left out: the others can come back all the same.
    """
    runs = []
    for journal in (journal for place in remembered(store) for journal in place.glob(f"*/{JOURNAL}")):
        try:
            runs.append(read_run(journal.parent))
        except QuarantineError as error:
            logger.warning("%s", error)
    return sorted(runs, key=lambda run: run.folder.name.partition("-")[2], reverse=True)
