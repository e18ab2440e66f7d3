"""Groups as folders of links: `cluster_with_N/cluster_i/<file name>`, i from 0 in every N, as imagecluster makes them.

Owns which links there are, and that a second run replaces exactly what the first one made: a list in the folder names it. Nothing
else is ever removed or overwritten, and nothing that would be the last copy of a picture: what was made is taken away only while
it is still a link to its source, or an equal copy beside it. Does not own which images are a group.

Source: imagecluster's `make_links`, which removed whatever lay in the folder first, and let equal names of two folders collide.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from errors import LinksError
from store.formats import write_durably

LinkKind = Literal["symlink", "hardlink", "copy"]

LIST_FILE = ".lookalike-links.json"
COPYING_FILE = ".lookalike-copying"
_PLACE = re.compile(r"cluster_with_\d+/cluster_\d+/[^/\0]+")
COPY_TIME_TOLERANCE_S = 2
"""Some file systems keep times no finer."""


@dataclass(frozen=True)
class Made:
    """One thing in the folder: `place` relative to it, the absolute path of its `source`, and what it is."""

    place: str
    source: str
    kind: LinkKind


@dataclass(frozen=True)
class LinksReport:
    """How many links there are now, and how many images have none because their files are not there."""

    links: int
    without_file: int


def write_links(
    folder: Path, groups: Sequence[Sequence[bytes]], *, kind: LinkKind = "symlink", force: bool = False
) -> LinksReport:
    """Make a link to every picture of `groups`, absolute paths each, and take away what an earlier run made here.

    A folder that holds anything else is refused, unless `force`: then it stays beside the links. Raises `LinksError`; what was
    made until then is in the list, so that running it again goes on.
    """
    root = Path(os.path.realpath(folder))
    if root.exists() and not root.is_dir():
        raise LinksError(f"{folder} is no folder. Name another place for the links.")
    try:
        before = _listed(root)
        _check_folder(root, folder, before, force)
        planned, without_file = _planned(root, groups, kind, before)
        root.mkdir(parents=True, exist_ok=True)
        _write_list(root, [*before, *planned])
        (root / COPYING_FILE).unlink(missing_ok=True)
        _take_away(root, before)
        for made in planned:
            _make(root, made)
        _write_list(root, planned)
    except OSError as error:
        raise LinksError(
            f"The links in {folder} cannot be made: {error}. What was made is listed in it: when the cause is mended, run the "
            "same command again."
        ) from error
    return LinksReport(len(planned), without_file)


def _listed(root: Path) -> list[Made]:
    """Return what an earlier run made. Places that no run makes are left alone, whoever wrote them there."""
    try:
        entries = json.loads((root / LIST_FILE).read_text(encoding="utf-8"))["made"]
        made = [Made(**entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise LinksError(
            f"{root / LIST_FILE} cannot be read ({error}), so nobody knows which links are old. Name another folder, or remove "
            "this one."
        ) from error
    return [entry for entry in made if _PLACE.fullmatch(entry.place)]


def _write_list(root: Path, made: Sequence[Made]) -> None:
    entries = [asdict(entry) for entry in dict.fromkeys(made)]
    # Names that are no valid Unicode are written as escapes, and read as what they were.
    write_durably(root / LIST_FILE, json.dumps({"made": entries}, indent=1))


def _check_folder(root: Path, folder: Path, before: Sequence[Made], force: bool) -> None:
    """Raise `LinksError` for a folder that holds what no run made."""
    if force or not root.exists():
        return
    known = {entry.place for entry in before if _is_ours(root, entry)}
    for place in _places(root):
        if place not in known and place not in (LIST_FILE, f"{LIST_FILE}.tmp", COPYING_FILE):
            raise LinksError(
                f"{folder} holds other things, such as {ascii(place)[1:-1]}, so no links are made there. Name an empty folder, "
                "or give --force: then they are made beside what is there, and nothing of it is removed."
            )


def _places(root: Path) -> Iterator[str]:
    for path, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in [*files, *links]:
            yield os.path.relpath(os.path.join(path, name), root)


def _planned(
    root: Path, groups: Sequence[Sequence[bytes]], kind: LinkKind, before: Sequence[Made]
) -> tuple[list[Made], int]:
    """Return what is to be made, and how many images have no file to link to. What others put there keeps its place."""
    going = {entry.place for entry in before if _is_ours(root, entry)}
    made: list[Made] = []
    without_file = 0
    numbers: dict[int, int] = {}
    for paths in groups:
        number = numbers[len(paths)] = numbers.get(len(paths), -1) + 1
        taken: set[str] = set()
        for path in map(os.fsdecode, paths):
            if not os.path.isabs(path) or not os.path.isfile(path):
                without_file += 1
                continue
            place = _free_place(root, f"cluster_with_{len(paths)}/cluster_{number}", path, taken, going)
            made.append(Made(place, path, kind))
    return made, without_file


def _free_place(root: Path, folder: str, path: str, taken: set[str], going: set[str]) -> str:
    """Return where the picture goes: equal names, which differ in more than case, get a number before their ending."""
    stem, ending = os.path.splitext(os.path.basename(path))
    name, copy = stem + ending, 1
    while name.casefold() in taken or (f"{folder}/{name}" not in going and os.path.lexists(root / folder / name)):
        copy += 1
        name = f"{stem}~{copy}{ending}"
    taken.add(name.casefold())
    return f"{folder}/{name}"


def _is_ours(root: Path, made: Made) -> bool:
    """Tell whether what lies at its place is still what was made, and is no picture's last copy."""
    path = os.path.join(root, made.place)
    try:
        if any(os.path.islink(root / parent) for parent in list(Path(made.place).parents)[:-1]):
            return False
        if made.kind == "symlink":
            return os.path.islink(path) and os.readlink(path) == made.source
        if os.path.islink(path):
            return False
        there, source = os.stat(path), os.stat(made.source)
        if made.kind == "hardlink":
            itself = os.path.realpath(path) == os.path.realpath(made.source)  # the links' folder was indexed
            return os.path.samestat(there, source) and not itself
    except OSError:
        return False
    same_time = abs(there.st_mtime - source.st_mtime) <= COPY_TIME_TOLERANCE_S
    return there.st_size == source.st_size and same_time and not os.path.samestat(there, source)


def _take_away(root: Path, made: Sequence[Made]) -> None:
    for entry in made:
        if _is_ours(root, entry):
            os.unlink(root / entry.place)
    for parent in sorted({Path(entry.place).parent for entry in made}):
        for empty in (parent, parent.parent):
            try:
                os.rmdir(root / empty)
            except OSError:
                break  # holds something else, or is gone already


def _make(root: Path, made: Made) -> None:
    place = root / made.place
    for parent in (place.parent.parent, place.parent):
        if parent.is_symlink():
            raise LinksError(
                f"{parent} leads somewhere else, so no links are made in it. Remove it, or name another folder."
            )
        parent.mkdir(exist_ok=True)
    if made.kind == "symlink":
        os.symlink(made.source, place)
    elif made.kind == "hardlink":
        os.link(made.source, place)
    else:  # by a name that is known to be ours, so that a kill leaves no half of a picture
        shutil.copy2(made.source, root / COPYING_FILE)
        os.rename(root / COPYING_FILE, place)
