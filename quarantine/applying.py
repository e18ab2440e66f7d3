"""Moving the files of a plan into quarantine: all is checked first, then each is renamed, with the journal at every step."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from errors import PlanError, QuarantineError
from plans import KEEP, REMOVE, SHOWN, Plan, PlanRow, check_plan, path_text
from quarantine.journal import HIDDEN, JOURNAL, NO_ROOM, Journal, Move, OnProgress, Run, locked, read_runs
from quarantine.renaming import rename_new
from store.formats import sync_folder

JOURNAL_BYTES_A_FILE = 2_000
LONGEST_PATH = 4_095
"""Bytes that Linux takes for a path."""


@dataclass(frozen=True)
class Applied:
    """What an apply did: `moved` files of `moved_bytes` into `run`; `already` had been moved by the `earlier` runs.

    `images_taken_out` are those of the collection that went with them.
    """

    run: Path | None
    moved: int
    moved_bytes: int
    already: int
    earlier: tuple[Path, ...]
    interrupted: bool = False
    images_taken_out: int = 0

    @property
    def runs(self) -> tuple[Path, ...]:
        """All runs that hold files of the plan."""
        return (*self.earlier, *(() if self.run is None or self.run in self.earlier else (self.run,)))


def quarantine_folder(plan: Plan, folder: Path | None) -> Path:
    """Return the hidden folder that files of a plan go to: `folder`, or one in it, or one in the folder that they share.

    Raises `QuarantineError` where they share none.
    """
    if folder is None:
        folders = [os.path.dirname(row.path) for row in plan.removed] or [os.fsencode(os.getcwd())]
        shared = os.path.commonpath(folders)
        if shared == b"/":
            raise QuarantineError(
                "The files of the plan share no folder. Name a folder on their disk to move them to: --quarantine FOLDER"
            )
        folder = Path(os.fsdecode(shared))
    real = Path(os.path.realpath(folder))
    return real if real.name.startswith(".") else real / HIDDEN


def apply_plan(
    plan: Plan,
    folder: Path | None = None,
    *,
    keeps_one: bool = True,
    on_progress: OnProgress = lambda step, done, total: None,
    stop: threading.Event | None = None,
) -> Applied:
    """Move the files that a plan removes into quarantine, in `folder` or in the folder that they share.

    Without `keeps_one` a plan may name files of which no other one is kept: what a person took out by hand. Files that an
    earlier run moved are left there, so an apply that was killed is gone on with by applying again. `stop` ends it between two
    files. Raises `PlanError`, before anything is moved, where a file is gone or is no longer what the plan says, or where
    nothing would be left of a set; `QuarantineError` where the folder cannot take the files: what was moved by then is in the
    journal.
    """
    if keeps_one:
        check_plan(plan)
    stop = stop or threading.Event()
    quarantine = quarantine_folder(plan, folder)
    with contextlib.ExitStack() as stack:
        runs: list[Run] = []
        if quarantine.is_dir():
            stack.enter_context(locked(quarantine))
            runs = read_runs(quarantine)
        checked = _Check(plan, runs, keeps_one, on_progress, stop)
        earlier = tuple(checked.earlier)
        if stop.is_set() or not checked.steps:
            return Applied(None, 0, 0, checked.already, earlier, stop.is_set())
        _check_room(quarantine, checked.steps)
        if not quarantine.is_dir():
            _make_folder(quarantine)
            stack.enter_context(locked(quarantine))
        run = next((run for run in runs if not run.is_finished), None) or _new_run(quarantine)
        moved = _move_all(run, checked.steps, on_progress, stop)
    sizes = sum(step.row.size for step in checked.steps[:moved])
    return Applied(run.folder, moved, sizes, checked.already, earlier, moved < len(checked.steps))


@dataclass(frozen=True)
class _Step:
    """A file to be moved, and the one that is kept in its place if there is one: path and status when contents were read."""

    row: PlanRow
    was: os.stat_result
    kept: tuple[bytes, os.stat_result] | None

    @property
    def files(self) -> list[tuple[bytes, os.stat_result]]:
        """Both files, the one that is kept first."""
        return [*([] if self.kept is None else [self.kept]), (self.row.path, self.was)]


class _Check:
    """Holds a plan against the files: `steps` to do, how many were done `already`, and by which `earlier` runs."""

    def __init__(
        self, plan: Plan, runs: Sequence[Run], keeps_one: bool, on_progress: OnProgress, stop: threading.Event
    ) -> None:
        self.steps: list[_Step] = []
        self.already = 0
        self.earlier: dict[Path, None] = {}
        self.problems: list[str] = []
        self._keeps_one = keeps_one
        self._held = {move.path: (run, move) for run in runs for move in run.moves if run.holds(move)}
        done, total = 0, len(plan.rows)
        for rows in plan.groups.values():
            if stop.is_set():
                return
            self._check_group(rows)
            done += len(rows)
            on_progress("Checking", done, total)
        self._check_names()
        if self.problems:
            more = f" … and {len(self.problems) - SHOWN:,} more" if len(self.problems) > SHOWN else ""
            raise PlanError(
                f"Nothing was moved, since the plan is true no more: {'; '.join(self.problems[:SHOWN])}{more}. Take these "
                "rows out of it, or index again and make a new one: python img2vec.py, python duplicates.py --plan"
            )

    def _check_group(self, rows: Sequence[PlanRow]) -> None:
        removed = [row for row in rows if row.action == REMOVE and not self._is_held(row)]
        if not removed:
            return
        kept, why = None, []
        for row in (row for row in rows if row.action == KEEP):
            status = _status(row)
            if isinstance(status, os.stat_result):
                kept = (row.path, status)
                break
            why.append(f"{path_text(row.path)}, which is to be kept, {status}")
        if kept is None and self._keeps_one:
            self.problems += why
            return
        for row in removed:
            status = _status(row)
            if isinstance(status, str):
                self.problems.append(f"{path_text(row.path)} {status}")
            else:
                self.steps.append(_Step(row, status, kept))

    def _is_held(self, row: PlanRow) -> bool:
        """Tell whether an earlier run has moved exactly this file."""
        run, move = self._held.get(row.path, (None, None))
        if run is None or move is None or os.path.lexists(row.path):
            return False
        if (move.size, move.mtime_ns, move.sha256) != (row.size, row.mtime_ns, row.sha256):
            return False
        self.already += 1
        self.earlier[run.folder] = None
        return True

    def _check_names(self) -> None:
        """Find two names of one file that are no links: a folder that is mounted twice, letters whose case does not count."""
        names: dict[tuple[int, int], set[bytes]] = {}
        links: dict[tuple[int, int], int] = {}
        for step in self.steps:
            for path, status in step.files:
                names.setdefault((status.st_dev, status.st_ino), set()).add(path)
                links[status.st_dev, status.st_ino] = status.st_nlink
        for file, paths in names.items():
            if len(paths) > links[file]:
                shown = " and ".join(path_text(path) for path in sorted(paths)[:2])
                self.problems.append(f"{shown} are one and the same file")


def _status(row: PlanRow) -> os.stat_result | str:
    """Return the status of a file that is what its row says, by its contents; else what is wrong with it."""
    try:
        status = os.lstat(row.path)
        if not stat.S_ISREG(status.st_mode):
            return "is no file but something else now"
        if os.path.realpath(row.path) != row.path:
            return "is reached through a link now"
        if (status.st_size, status.st_mtime_ns) != (row.size, row.mtime_ns):
            return "has changed since (size or time)"
        with open(row.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return status if digest == row.sha256 else "has other contents"


def _check_room(quarantine: Path, steps: Sequence[_Step]) -> None:
    """Raise `QuarantineError` where a move would fail for a reason that can be seen beforehand."""
    place = next(folder for folder in (quarantine, *quarantine.parents) if folder.is_dir())
    elsewhere = next((step for step in steps if step.was.st_dev != os.stat(place).st_dev), None)
    if elsewhere is not None:
        other = _highest_folder(elsewhere.row.path)
        raise QuarantineError(
            f"{path_text(elsewhere.row.path)} lies on another disk than the quarantine {quarantine}, and files are only renamed, "
            f"never copied and deleted. Nothing was moved. Choose a folder on its disk, such as --quarantine {other}; where a "
            "plan has files of several disks, make one for each: protect the folders of the others (--protect)."
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise QuarantineError(
            f"The quarantine {quarantine} cannot be written to: mend its permissions, or name another folder with --quarantine."
        )
    folders = dict.fromkeys(os.path.dirname(step.row.path) for step in steps)
    closed = next((folder for folder in folders if not os.access(folder, os.W_OK | os.X_OK)), None)
    if closed is not None:
        raise QuarantineError(
            f"No file can be moved out of {path_text(closed)}, so nothing was moved. Mend its permissions, or take its files out "
            "of the plan."
        )
    longest = max((step.row.path for step in steps), key=len)
    if len(os.fsencode(quarantine)) + len(longest) + 50 > LONGEST_PATH:
        raise QuarantineError(
            f"The path of {path_text(longest)} would be too long in {quarantine}. Choose a shorter one."
        )
    free = shutil.disk_usage(place).free
    if free < len(steps) * JOURNAL_BYTES_A_FILE:
        raise QuarantineError(
            f"The disk of {quarantine} has {free:,} bytes free, too few for the journal. Nothing was moved. Make room."
        )


def _highest_folder(path: bytes) -> str:
    """Return the highest of the folders above a file that is on its disk and, like all between, can be written to."""
    folder = os.path.dirname(path)
    while not os.path.ismount(folder) and os.access(os.path.dirname(folder), os.W_OK | os.X_OK):
        folder = os.path.dirname(folder)
    return os.fsdecode(folder)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuarantineError(
            f"The quarantine {folder} cannot be made: {error.strerror}. Nothing was moved."
        ) from error


def _new_run(quarantine: Path) -> Run:
    """Make a run whose name comes after those of all before it, whatever the clock says."""
    numbers = (run.name.partition("-")[0] for run in quarantine.iterdir())
    number = 1 + max((int(text) for text in numbers if text.isdecimal()), default=0)
    run = Run(quarantine / f"{number:04d}-{time.strftime('%Y-%m-%d-%H%M%S')}")
    _make_folder(run.folder)
    sync_folder(quarantine)
    return run


def _move_all(run: Run, steps: Sequence[_Step], on_progress: OnProgress, stop: threading.Event) -> int:
    """Move the files one after the other until `stop`; return how many were moved."""
    done, earlier = 0, len(run.moves)
    try:
        journal = Journal(run)
        with contextlib.closing(journal):
            _settle(run, journal)
            for step in steps:
                if stop.is_set():
                    return done
                _move(run, journal, step)
                done += 1
                on_progress("Moving", done, len(steps))
            journal.write({"event": "finished"})
    except OSError as error:
        done = max(
            done, sum(run.holds(move) for move in run.moves[earlier:])
        )  # the last may not have been written down
        raise _stopped(run, f"{done:,} of {len(steps):,} files were moved", error) from error
    return done


def _stopped(run: Run, done: str, error: OSError) -> QuarantineError:
    journal = run.folder / JOURNAL
    if error.filename in (None, journal):
        what = f"the journal {journal} could not be written"
        if not journal.exists():
            return QuarantineError(
                f"{done}, then {what}: {error.strerror}. What was moved lies in the quarantine, wherever that is now: put "
                "it back to its place, then apply the plan again or restore."
            )
    else:
        what = f"{path_text(os.fsencode(error.filename))} could not be"
    full = " Make room on its disk." if error.errno in NO_ROOM else ""
    other = " It lies on another disk." if error.errno == errno.EXDEV else ""
    return QuarantineError(
        f"{done}, then {what}: {error.strerror}.{full}{other} Nothing is lost. Mend that and apply the plan again to go on, or "
        f"bring all back: python duplicates.py --restore {run.folder}"
    )


def _settle(run: Run, journal: Journal) -> None:
    """Say in the journal what became of a move that a killed run had begun."""
    for number, move in enumerate(run.moves):
        if move.left_mtime_ns is None and not move.is_void:
            _say_moved(journal, number, move) if run.holds(move) else _say_void(journal, number, move)


def _say_moved(journal: Journal, number: int, move: Move) -> None:
    move.left_mtime_ns = os.stat(os.path.dirname(move.path)).st_mtime_ns
    journal.write({"event": "moved", "move": number, "folder_mtime_ns": move.left_mtime_ns})


def _say_void(journal: Journal, number: int, move: Move) -> None:
    move.is_void = True
    journal.write({"event": "not moved", "move": number})


def _move(run: Run, journal: Journal, step: _Step) -> None:
    row, folder = step.row, os.path.dirname(step.row.path)
    for path, was in step.files:
        if not _is_same(path, was):
            raise _changed(path)
    move = Move(row.path, row.path[1:], row.size, row.mtime_ns, row.sha256, os.stat(folder).st_mtime_ns)
    again = 1
    while run.holds(move):  # another file had this path when an earlier part of the run moved it
        again += 1
        move = replace(move, place=b"%d/" % again + row.path[1:])
    target = run.place_of(move)
    number = len(run.moves)
    run.moves.append(move)
    told = {"path": path_text(move.path), "place": path_text(b"/" + move.place), "sha256": move.sha256.hex()}
    numbers = {"size": move.size, "mtime_ns": move.mtime_ns, "folder_mtime_ns": move.folder_mtime_ns}
    journal.write({"event": "move", **told, **numbers})
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        rename_new(row.path, target)
        if not _is_same(target, step.was):  # another file took its place just before
            rename_new(target, row.path)
            raise _changed(row.path)
    except OSError:
        if not run.holds(move):
            with contextlib.suppress(OSError):
                _say_void(journal, number, move)
        raise
    _say_moved(journal, number, move)


def _changed(path: bytes) -> OSError:
    return FileNotFoundError(errno.ENOENT, "it has changed or gone since it was checked", path)


def _is_same(path: bytes, was: os.stat_result) -> bool:
    try:
        now = os.lstat(path)
    except OSError:
        return False
    names = ("st_dev", "st_ino", "st_mode", "st_size", "st_mtime_ns")
    return all(getattr(now, name) == getattr(was, name) for name in names)
