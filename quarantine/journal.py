"""The journal of a run: what was moved where, in lines that are on the disk before and after each move.

Owns the shapes and the file. Half a line at its end, of a process that was killed, counts as not written. Does not own moving.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import QuarantineError
from plans import text_path
from store.formats import sync_folder

HIDDEN = ".lookalike-quarantine"
JOURNAL = "journal.jsonl"
FILES = "files"
JOURNAL_VERSION = 1
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


@dataclass
class Move:
    """One file of a run: where it was, where it lies in the run's folder, and the times of the folder that it was in.

    `left_mtime_ns` is the folder's time after the move: while it still has that, nobody else changed the folder. `untouched` says
    so once a restore has begun with it; `is_back` that the restore was done with it, `is_void` that it was never moved.
    """

    path: bytes
    place: bytes
    size: int
    mtime_ns: int
    sha256: bytes
    folder_mtime_ns: int
    left_mtime_ns: int | None = None
    untouched: bool | None = None
    is_back: bool = False
    is_void: bool = False


@dataclass
class Run:
    """What one journal says. `catalog`: the rows that were taken out of catalogs, with the folders of their collections."""

    folder: Path
    moves: list[Move] = field(default_factory=list)
    catalog: list[Mapping[str, Any]] = field(default_factory=list)
    is_finished: bool = False
    good_bytes: int = 0

    def place_of(self, move: Move) -> bytes:
        """Return where a moved file lies."""
        return os.path.join(os.fsencode(self.folder / FILES), move.place)

    def holds(self, move: Move) -> bool:
        """Tell whether a file is in quarantine now, whatever the journal came to say of it."""
        return os.path.lexists(self.place_of(move))

    def was_moved(self, move: Move) -> bool:
        """Tell whether a file was ever moved: it was not where an apply was killed or failed when it was about to be."""
        return move.untouched is not None or not (move.is_void or move.left_mtime_ns is None) or self.holds(move)

    @property
    def is_back(self) -> bool:
        """Whether all files of the run were brought back."""
        return not any(self.holds(move) or (self.was_moved(move) and not move.is_back) for move in self.moves)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a quarantine folder. Raises `QuarantineError` at once where somebody else does."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise QuarantineError(f"The quarantine {folder} cannot be written to: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise QuarantineError(
            f"Another process is moving files in or out of {folder}. Wait until it has finished."
        ) from None
    finally:
        os.close(descriptor)


class Journal:
    """A journal that is being written: a line is on the disk when `write` returns, or is not in it at all.

    `write` raises `OSError`, too where the journal is at its place no more: what is moved then could never be brought back.
    """

    def __init__(self, run: Run) -> None:
        self.path = run.folder / JOURNAL
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._descriptor, run.good_bytes)  # half a line of a killed run
        self._bytes = run.good_bytes
        if not self._bytes:
            self.write({"event": "begin", "version": JOURNAL_VERSION})
            sync_folder(run.folder)

    def write(self, event: Mapping[str, Any]) -> None:
        line = (json.dumps(event, ensure_ascii=False) + "\n").encode()
        if not self._is_at_its_place():
            raise FileNotFoundError(errno.ENOENT, "it was moved or deleted meanwhile", self.path)
        try:
            written = os.pwrite(self._descriptor, line, self._bytes)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._bytes)
            raise
        self._bytes += len(line)

    def _is_at_its_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


def read_run(folder: Path) -> Run:
    """Read the journal of a run, but for half a line at its end. Raises `QuarantineError` where it is damaged."""
    run = Run(folder)
    try:
        content = (folder / JOURNAL).read_bytes()
        for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
            _take_in(run, json.loads(line))
            run.good_bytes += len(line)
    except OSError as error:
        raise QuarantineError(f"The journal {folder / JOURNAL} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise QuarantineError(
            f"The journal {folder / JOURNAL} is damaged at byte {run.good_bytes:,} ({error!r}). Put it back from a copy; the "
            f"files lie in {folder / FILES} under their whole paths."
        ) from error
    return run


def _take_in(run: Run, event: Mapping[str, Any]) -> None:
    kind = event["event"]
    if kind == "begin" and event["version"] != JOURNAL_VERSION:
        raise ValueError(f"version {event['version']}, this program reads {JOURNAL_VERSION}")
    if kind == "move":
        run.moves.append(
            Move(
                path=text_path(event["path"]),
                place=text_path(event["place"])[1:],
                size=event["size"],
                mtime_ns=event["mtime_ns"],
                sha256=bytes.fromhex(event["sha256"]),
                folder_mtime_ns=event["folder_mtime_ns"],
            )
        )
    elif kind == "moved":
        run.moves[event["move"]].left_mtime_ns = event["folder_mtime_ns"]
    elif kind == "bring back":
        run.moves[event["move"]].untouched = event["untouched"]
    elif kind == "back":
        run.moves[event["move"]].is_back = True
    elif kind == "not moved":
        run.moves[event["move"]].is_void = True
    elif kind == "catalog":
        run.catalog.append(event)
    run.is_finished = run.is_finished or kind in ("finished", "bring back", "back")


def read_runs(quarantine: Path) -> list[Run]:
    """Read all journals of a quarantine folder, the oldest first. Raises `QuarantineError`."""
    return [read_run(journal.parent) for journal in sorted(quarantine.glob(f"*/{JOURNAL}"))]
