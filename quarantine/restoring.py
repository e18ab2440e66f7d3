"""Bringing files back from quarantine, to the byte, and their folders' times with them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import QuarantineError
from quarantine.journal import (
    FILES,
    HIDDEN,
    JOURNAL,
    NO_ROOM,
    Journal,
    Move,
    OnProgress,
    Run,
    locked,
    read_run,
    read_runs,
)
from quarantine.renaming import rename_new


@dataclass(frozen=True)
class Restored:
    """What a restore did: files brought back, files that were back already, and those that could not be, each with the reason.

    `not_searchable` are the images whose files are back and which a collection held, and does not now.
    """

    runs: tuple[Path, ...]
    restored: int
    already: int
    problems: tuple[tuple[bytes, str], ...]
    interrupted: bool = False
    not_searchable: int = 0


def restore(
    place: Path,
    *,
    on_progress: OnProgress = lambda step, done, total: None,
    stop: threading.Event | None = None,
) -> Restored:
    """Bring back all files of a run (its folder or journal), or of all runs of a quarantine folder, the latest first.

    A file whose old place is taken stays in quarantine and is reported; the others go on. The folders get their times back too,
    as far as nothing else changed in them. Raises `QuarantineError` where there is no journal, or it is damaged.
    """
    stop = stop or threading.Event()
    folders = tuple(run.folder for run in _runs_at(place))
    with locked(folders[0].parent):
        runs = [read_run(folder) for folder in folders]
        runs = [run for run in runs if not run.is_back] or runs  # what was undone long ago is not told again
        done = _Restoring(on_progress, stop, sum(len(run.moves) for run in runs))
        for run in reversed(runs):
            done.bring_back(run)
    return Restored(folders, done.restored, done.already, tuple(done.problems), stop.is_set())


def _runs_at(place: Path) -> list[Run]:
    place = place.absolute()
    if place.name == JOURNAL:
        place = place.parent
    if (place / JOURNAL).exists():
        return [read_run(place)]
    runs = read_runs(place) or read_runs(place / HIDDEN)
    if not runs:
        raise QuarantineError(f"There is no journal of moved files in {place}. Name the folder that --apply printed.")
    return runs


class _Restoring:
    """Brings the files of runs back, and counts."""

    def __init__(self, on_progress: OnProgress, stop: threading.Event, total: int) -> None:
        self.restored = self.already = self.looked_at = 0
        self.problems: list[tuple[bytes, str]] = []
        self._on_progress, self._stop, self._total = on_progress, stop, total

    def bring_back(self, run: Run) -> None:
        try:
            journal = Journal(run)
        except OSError as error:
            raise QuarantineError(
                f"The journal {run.folder / JOURNAL} cannot be written to: {error.strerror}."
            ) from error
        with contextlib.closing(journal):
            for number, move in reversed(list(enumerate(run.moves))):
                if self._stop.is_set():
                    return
                self._bring_back(run, journal, number, move)
                self.looked_at += 1
                self._on_progress("Bringing back", self.looked_at, self._total)
        _remove_empty(run.folder / FILES)

    def _bring_back(self, run: Run, journal: Journal, number: int, move: Move) -> None:
        if not run.holds(move):
            if not run.was_moved(move):
                return
            if move.is_back or os.path.lexists(move.path):
                self.already += 1
            else:
                self.problems.append((move.path, "is neither in quarantine nor at its place"))
            if move.untouched is not None and not move.is_back:  # a restore was killed just after it had moved the file
                self._finish(journal, number, move)
            return
        try:
            self._put_back(run, journal, number, move)
        except FileExistsError:
            self.problems.append((move.path, "is taken by another file"))
        except OSError as error:
            self.problems.append((move.path, f"cannot be written to: {error.strerror}"))
        else:
            self.restored += 1

    def _put_back(self, run: Run, journal: Journal, number: int, move: Move) -> None:
        folder = os.path.dirname(move.path)
        os.makedirs(folder, exist_ok=True)
        if move.untouched is None:
            move.untouched = move.left_mtime_ns in (None, os.stat(folder).st_mtime_ns)
            _write_if_room(journal, {"event": "bring back", "move": number, "untouched": move.untouched})
        rename_new(run.place_of(move), move.path)
        self._finish(journal, number, move)

    @staticmethod
    def _finish(journal: Journal, number: int, move: Move) -> None:
        """Give the folder its time back, unless something else changed in it, and say that the file is back."""
        if move.untouched:
            folder = os.path.dirname(move.path)
            os.utime(folder, ns=(os.stat(folder).st_atime_ns, move.folder_mtime_ns))
        move.is_back = True
        _write_if_room(journal, {"event": "back", "move": number})


def _write_if_room(journal: Journal, event: Mapping[str, Any]) -> None:
    """Write a line; on a full disk bringing files back matters more than saying so."""
    try:
        journal.write(event)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


def _remove_empty(folder: Path) -> None:
    """Remove the folders that the moves made, as far as nothing is left in them."""
    for path, _, _ in os.walk(os.fsencode(folder), topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
