"""Which files a pattern means. Knows nothing of what is in them."""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = re.compile(rb"[*?[]")


@dataclass(frozen=True)
class FoundFiles:
    """What patterns meant.

    `paths`: real absolute paths, each once, sorted within a pattern, patterns in their order. `unmatched`: patterns
    that matched no file. `unreadable`: files and folders that the operating system refused to show. The texts are
    `os.fsdecode`d: they may hold surrogates, which a strict UTF-8 stream does not take.
    """

    paths: list[bytes]
    unmatched: list[str]
    unreadable: list[str]


def find_images(patterns: Iterable[bytes | str], *, exclude: Iterable[Path] = ()) -> FoundFiles:
    """List the files that patterns mean, whatever they contain: `decode_image` says which of them are images.

    A pattern is an existing path taken literally (a folder means all that lies in it, at any depth), else a glob in
    which `**` is any number of folders. Hidden names (leading dot, so macOS's `._x.jpg`) are passed over unless the
    pattern spells the dot. Links are followed, and loops of them end. Folders in `exclude` are never entered.
    """
    finder = _Finder({os.path.realpath(os.fsencode(path)) for path in exclude})
    paths: dict[bytes, None] = {}
    unmatched = []
    for pattern in patterns:
        raw = os.fsencode(pattern)
        files = finder.find(raw)
        if not files and not finder.refused:
            unmatched.append(os.fsdecode(raw))
        paths.update(dict.fromkeys(sorted(files)))
    return FoundFiles(list(paths), unmatched, [os.fsdecode(path) for path in finder.unreadable])


class _Finder:
    """One search. `os.scandir` throughout, and `realpath` for folders and links alone: 200,000 files take a second."""

    def __init__(self, excluded: set[bytes]) -> None:
        self.excluded = excluded
        self.unreadable: dict[bytes, None] = {}
        self.refused = False  # something that the latest pattern leads to
        self._real_folder = functools.cache(os.path.realpath)

    def find(self, pattern: bytes) -> set[bytes]:
        self.refused = False
        if os.path.lexists(pattern):
            matches: Iterable[bytes] = [pattern]
        elif _MAGIC.search(pattern):
            parts = [part for part in pattern.split(b"/") if part]
            matches = self._matches(b"/" if pattern.startswith(b"/") else b"", parts)
        else:
            self._kind(pattern)  # remembers it where it is out of reach rather than missing
            return set()
        listed: set[bytes] = set()
        return {file for match in matches for file in self._files(match, listed)}

    def _files(self, path: bytes, listed: set[bytes]) -> Iterator[bytes]:
        """The real paths of a file, or of everything in a folder and in those below it that are not `listed` yet."""
        kind = self._kind(path)
        if stat.S_ISDIR(kind):
            for folder in self._walk(path, listed):
                yield from self._folder_files(folder)
        elif stat.S_ISREG(kind):  # not a pipe or a device, which would block the reader
            folder, name = os.path.split(path)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real_folder(folder), name)
            if not self._is_excluded(real):
                yield real

    def _folder_files(self, folder: bytes) -> Iterator[bytes]:
        for entry in self._entries(folder):
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if os.path.isfile(real) and not self._is_excluded(real):
                    yield real
            elif entry.is_file():
                yield entry.path

    def _walk(self, top: bytes, seen: set[bytes]) -> Iterator[bytes]:
        """The real paths of a folder and of all folders below it, each once and none that was `seen`."""
        waiting = [os.path.realpath(top)]
        while waiting:
            folder = waiting.pop()
            if folder in seen or self._is_excluded(folder):
                continue
            seen.add(folder)
            yield folder
            for entry in self._entries(folder):
                if _is_folder(entry):
                    waiting.append(os.path.realpath(entry.path) if entry.is_symlink() else entry.path)

    def _matches(self, folder: bytes, parts: list[bytes]) -> Iterator[bytes]:
        """Paths that a glob matches. `glob.glob` is not used: it follows a loop of links 40 deep, two without end."""
        if not parts:
            yield folder or b"."
            return
        part, rest = parts[0], parts[1:]
        if part == b"**":
            while rest[:1] == [b"**"]:
                rest = rest[1:]
            for below in self._walk(folder, set()) if rest else [folder]:
                yield from self._matches(below, rest)
        elif _MAGIC.search(part):
            for entry in self._entries(folder, hidden=part.startswith(b".")):
                if fnmatch.fnmatchcase(entry.name, part) and (not rest or _is_folder(entry)):
                    yield from self._matches(entry.path, rest)
        elif os.path.lexists(os.path.join(folder, part)):
            yield from self._matches(os.path.join(folder, part), rest)

    def _entries(self, folder: bytes, *, hidden: bool = False) -> list[os.DirEntry[bytes]]:
        if self._is_excluded(self._real_folder(folder)):
            return []
        try:
            with os.scandir(folder or b".") as entries:
                return [entry for entry in entries if hidden or not entry.name.startswith(b".")]
        except NotADirectoryError:
            return []
        except OSError:
            self._refuse(folder)
            return []

    def _kind(self, path: bytes) -> int:
        """The file's mode, 0 where there is none."""
        try:
            return os.stat(path).st_mode
        except ValueError:  # a NUL in the name
            return 0
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                self._refuse(path)
            return 0

    def _refuse(self, path: bytes) -> None:
        self.refused = True
        self.unreadable[path] = None

    def _is_excluded(self, real: bytes) -> bool:
        return any(real == folder or real.startswith(folder.rstrip(b"/") + b"/") for folder in self.excluded)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
