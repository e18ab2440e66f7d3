"""Names of images that came from elsewhere: which they can have in the catalog, and which files they mean. Owns no file."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from pipeline import show_path

_Key = TypeVar("_Key", str, bytes)


def unique_names(names: Iterable[str]) -> list[str]:
    """Return names as the catalog can have them: relative, without `..`, each once; a second `a.jpg` becomes `a.jpg#2`."""
    plain = [posixpath.normpath("/" + name.replace("\0", "_")).lstrip("/") or "unnamed" for name in names]
    taken, seen = set(plain), Counter[str]()
    unique = []
    for name in plain:
        seen[name] += 1
        chosen = name
        while seen[name] > 1 and chosen in taken:
            chosen = f"{name}#{seen[name]}"
            seen[name] += chosen in taken
        taken.add(chosen)
        unique.append(chosen)
    return unique


def match_names(names: Sequence[str], paths: Iterable[bytes], folder: bytes = b"") -> dict[str, bytes]:
    """Return the file that each name means, where exactly one fits; no file is taken twice.

    The file at that name in `folder` comes first, then the one whose path ends in most of the name. What may differ is where the
    file lies, and the folders that all names have in common: they may have been called otherwise where the vectors were made.
    """
    files = {path: tuple(show_path(path).split("/")) for path in paths}
    found = {name: path for name in names if (path := folder + b"/" + as_path(name)) in files and folder}
    for path in found.values():
        del files[path]
    left = {name: tuple(name.split("/")) for name in names if name not in found}
    shared = posixpath.commonpath([posixpath.dirname(name) for name in names]) if names else ""
    common = len(shared.split("/")) if shared else 0
    for depth in range(max(map(len, left.values()), default=0), 0, -1):
        wanted = {name: parts for name, parts in left.items() if len(parts) - common <= depth}
        ends = _by_ending(files, depth)
        for ending, name in _by_ending(wanted, depth).items():
            fitting = ends.get(ending)
            if name is not None and fitting is not None:
                found[name] = fitting
                del left[name], files[fitting]
    return found


def _by_ending(split: Mapping[_Key, tuple[str, ...]], depth: int) -> dict[tuple[str, ...], _Key | None]:
    """Return what ends in each last `depth` parts; None where several do."""
    endings: dict[tuple[str, ...], _Key | None] = {}
    for key, parts in split.items():
        if len(parts) >= depth:
            ending = parts[-depth:]
            endings[ending] = None if ending in endings else key
    return endings


def as_path(name: str) -> bytes:
    """Return a name as the catalog has paths."""
    return name.encode("utf-8", "backslashreplace")
