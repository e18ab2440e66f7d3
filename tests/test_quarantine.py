"""Files move into quarantine and back to the byte and the time, whatever goes wrong and whenever the process is killed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import quarantine.applying
import quarantine.catalogs
import quarantine.restoring
from config import Settings
from errors import CollectionLockedError, PlanError, QuarantineError
from images import find_images
from plans import Choice, DuplicateSet, Plan, PlanRow, make_plan
from publishing import publish
from quarantine import HIDDEN, apply_plan, apply_to_collection, read_run, read_runs, restore, restore_to_collections
from quarantine.renaming import rename_new
from store import (
    Batch,
    Record,
    StoreWriter,
    VectorsManifest,
    name_group,
    named_groups,
    open_store,
    open_writer,
    tag_images,
    tagged_images,
)
from tests.reduced_collection import KEY, group_vectors

KEPT, GONE = b"keep", b"remove"
# Names that are equal in two folders, bytes that are no text, a line break, what a spreadsheet takes for a formula.
TREE = {
    b"archive/a.jpg": b"first",
    b"camera/a.jpg": b"first",
    b"camera/sub/a.jpg": b"first",
    b"camera/\xff\n.jpg": b"second",
    b"archive/=1+1.jpg": b"second",
    b"camera/alone.jpg": b"alone",
}
LONG_AGO = 1_234_567_890_123_456_789


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A tree of photographs with sets of equal ones, a read-only file, and times that none has by chance."""
    folder = tmp_path / "photos"
    for number, (name, content) in enumerate(TREE.items()):
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o444 if number == 1 else 0o640)
        os.utime(path, ns=(LONG_AGO, LONG_AGO + number))
    for below in ("camera/sub", "camera", "archive", "."):
        os.utime(folder / below, ns=(LONG_AGO, LONG_AGO // 2))
    return folder


def path_of(photos: Path, name: bytes) -> bytes:
    return os.path.join(os.fsencode(photos), name)


def record_of(photos: Path, name: bytes, image_id: int) -> Record:
    path = path_of(photos, name)
    status = os.stat(path)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).digest()
    return Record(path, status.st_size, status.st_mtime_ns, digest, "JPEG", 8, 8, image_id=image_id)


def records_of(photos: Path) -> list[Record]:
    return [record_of(photos, name, image_id) for image_id, name in enumerate(TREE, start=1)]


def plan_of(photos: Path) -> Plan:
    """The plan that keeps what is in the archive: two files of one set go, one of the other."""
    records = records_of(photos)
    sets = [DuplicateSet("same", tuple(records[:3])), DuplicateSet("same", tuple(records[3:5]))]
    return make_plan(sets, Choice(protect=("archive",)))


def tree(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder but quarantine: kind and mode, time, and bytes or where a link leads."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(folder)
    for path, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != os.fsencode(HIDDEN)]
        for name in [b".", *names] if path != top or HIDDEN not in os.listdir(folder) else names:
            place = os.path.join(path, name)
            status = os.lstat(place)
            content: bytes | str = b""
            if stat.S_ISREG(status.st_mode):
                with open(place, "rb") as file:
                    content = file.read()
            found[os.path.relpath(place, top)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def names(photos: Path) -> set[bytes]:
    return {name for name in TREE if os.path.lexists(path_of(photos, name))}


LEFT = {b"archive/a.jpg", b"archive/=1+1.jpg", b"camera/alone.jpg"}


def test_applying_moves_what_goes_and_restoring_brings_it_back_to_the_byte_and_the_time(
    photos: Path, tmp_path: Path
) -> None:
    before = tree(photos)
    plan = plan_of(photos)
    applied = apply_plan(plan, tmp_path / "out")
    assert (applied.moved, applied.moved_bytes, applied.already, applied.interrupted) == (3, 16, 0, False)
    assert names(photos) == LEFT
    assert applied.run is not None
    held = applied.run / "files" / os.fsdecode(path_of(photos, b"camera/a.jpg")[1:])
    assert (held.read_bytes(), held.stat().st_mtime_ns, held.stat().st_mode & 0o777) == (b"first", LONG_AGO + 1, 0o444)
    restored = restore(applied.run)
    assert (restored.restored, restored.already, restored.problems) == (3, 0, ())
    assert tree(photos) == before
    assert not (applied.run / "files").exists()


def test_the_quarantine_is_hidden_from_the_next_indexing_in_the_folder_that_the_files_share(photos: Path) -> None:
    applied = apply_plan(plan_of(photos))
    assert applied.run is not None
    assert applied.run.parent == photos / "camera" / HIDDEN
    found = find_images([os.fsencode(photos), os.fsencode(photos) + b"/**"])
    assert {os.path.relpath(path, os.fsencode(photos)) for path in found.paths} == LEFT


@pytest.mark.parametrize(("given", "expected"), [("out", f"out/{HIDDEN}"), (".out", ".out"), ("a/b", f"a/b/{HIDDEN}")])
def test_whatever_folder_is_named_the_one_used_is_hidden(photos: Path, given: str, expected: str) -> None:
    applied = apply_plan(plan_of(photos), photos / given)
    assert applied.run is not None
    assert applied.run.parent == photos / expected
    assert restore(photos / given).restored == 3


def test_files_that_share_no_folder_need_a_quarantine_named() -> None:
    rows = [
        PlanRow("1", action, path, 1, 1, b"1" * 32)
        for action, path in (("keep", b"/k"), ("remove", b"/a/b"), ("remove", b"/c/d"))
    ]
    with pytest.raises(QuarantineError, match="--quarantine"):
        apply_plan(Plan(tuple(rows)))


def test_a_plan_that_is_applied_twice_moves_nothing_more(photos: Path) -> None:
    plan = plan_of(photos)
    first = apply_plan(plan, photos)
    second = apply_plan(plan, photos)
    assert (second.run, second.moved, second.already, second.runs) == (None, 0, 3, (first.run,))
    assert restore(photos / HIDDEN).restored == 3
    again = apply_plan(plan, photos)
    assert (again.moved, again.run != first.run) == (3, True)


def test_a_file_copied_to_where_a_moved_one_was_is_moved_beside_it_and_both_are_kept(photos: Path) -> None:
    plan, stop = plan_of(photos), threading.Event()
    place = plan.removed[0].path
    first = apply_plan(
        plan, photos, on_progress=lambda step, done, total: stop.set() if step == "Moving" else None, stop=stop
    )
    (held,) = read_runs(photos / HIDDEN)
    shutil.copy2(held.place_of(held.moves[0]), place)
    again = apply_plan(plan, photos)
    assert (again.moved, again.already, again.run, names(photos)) == (3, 0, first.run, LEFT)
    restored = restore(photos)
    assert (restored.restored, restored.problems) == (3, ((place, "is taken by another file"),))


def test_restoring_twice_says_that_all_is_back(photos: Path) -> None:
    run = apply_plan(plan_of(photos), photos).run
    assert run is not None
    restore(run)
    before = tree(photos)
    again = restore(run / "journal.jsonl")
    assert (again.restored, again.already, again.problems) == (0, 3, ())
    assert tree(photos) == before


def test_all_runs_of_a_quarantine_come_back_the_latest_first(photos: Path) -> None:
    before = tree(photos)
    plan = plan_of(photos)
    first, second = (Plan(tuple(row for row in plan.rows if row.group == group)) for group in ("1", "2"))
    apply_plan(first, photos)
    apply_plan(second, photos)
    assert len(read_runs(photos / HIDDEN)) == 2
    restored = restore(photos)
    assert (restored.restored, len(restored.runs)) == (3, 2)
    assert tree(photos) == {name: what for name, what in before.items() if name != b"."}


def test_what_an_earlier_run_brought_back_is_not_told_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, count = plan_of(photos), itertools.count(1)

    def killed(source: bytes, target: bytes) -> None:
        if next(count) == 2:
            raise KeyboardInterrupt
        rename_new(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(quarantine.applying, "rename_new", killed)
        with pytest.raises(KeyboardInterrupt):
            apply_plan(plan, photos)
    assert restore(photos).restored == 1
    apply_plan(plan, photos)
    restored = restore(photos)
    assert (restored.restored, restored.already, len(restored.runs)) == (3, 0, 2)
    assert restore(photos).already == 4


def test_a_clock_that_goes_back_does_not_put_runs_in_another_order(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plan = tree(photos), plan_of(photos)
    runs: list[Path | None] = []
    for hour in range(12, 0, -1):
        monkeypatch.setattr(time, "strftime", lambda text, hour=hour: f"2026-10-25-{hour:02d}0000")
        runs.append(apply_plan(plan, photos.parent / "out").run)
        if hour > 1:
            restore(photos.parent / "out")
    assert [run.folder for run in read_runs(photos.parent / "out" / HIDDEN)] == runs
    restored = restore(photos.parent / "out")
    assert (restored.restored, restored.problems) == (3, ())
    assert tree(photos) == before


# What is refused, before anything has moved.


def change(photos: Path, name: bytes, content: bytes) -> None:
    path = path_of(photos, name)
    os.chmod(path, 0o644)
    was = os.stat(path)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def link_folder(photos: Path) -> None:
    os.rename(photos / "camera", photos / "elsewhere")
    os.symlink(photos / "elsewhere", photos / "camera")


def link_file(photos: Path) -> None:
    os.rename(photos / "camera/a.jpg", photos / "camera/b.jpg")
    os.symlink("b.jpg", photos / "camera/a.jpg")


def replace_by_folder(photos: Path) -> None:
    os.unlink(photos / "camera/a.jpg")
    os.mkdir(photos / "camera/a.jpg")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda photos: os.unlink(photos / "camera/a.jpg"), "camera/a.jpg is gone"),
        (lambda photos: os.utime(photos / "camera/a.jpg", ns=(1, 1)), "camera/a.jpg has changed since"),
        (lambda photos: change(photos, b"camera/a.jpg", b"longer than it was"), "camera/a.jpg has changed since"),
        (lambda photos: change(photos, b"camera/a.jpg", b"worst"), "camera/a.jpg has other contents"),
        (
            lambda photos: change(photos, b"archive/a.jpg", b"worst"),
            "archive/a.jpg, which is to be kept, has other contents",
        ),
        (lambda photos: os.unlink(photos / "archive/a.jpg"), "archive/a.jpg, which is to be kept, is gone"),
        (link_folder, "camera/a.jpg is reached through a link now"),
        (link_file, "camera/a.jpg is no file but something else"),
        (replace_by_folder, "camera/a.jpg is no file but something else"),
    ],
)
def test_a_plan_that_is_true_no_more_moves_nothing(photos: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    plan = plan_of(photos)
    spoil(photos)
    before = tree(photos)
    with pytest.raises(PlanError, match=complaint):
        apply_plan(plan, photos)
    assert tree(photos) == before
    assert not (photos / HIDDEN).exists()


def test_a_set_of_which_all_would_go_is_refused(photos: Path) -> None:
    plan = Plan(tuple(replace(row, action="remove") for row in plan_of(photos).rows))
    with pytest.raises(PlanError, match="keep nothing"):
        apply_plan(plan, photos)
    assert names(photos) == set(TREE)


def test_one_file_that_is_kept_is_enough(photos: Path) -> None:
    plan = plan_of(photos)
    rows = [replace(row, action="keep") if row.path.endswith(b"sub/a.jpg") else row for row in plan.rows]
    os.unlink(photos / "archive/a.jpg")
    assert apply_plan(Plan(tuple(rows))).moved == 2


def test_two_names_of_one_file_that_are_no_links_are_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.unlink(photos / "camera/a.jpg")
    os.link(photos / "archive/a.jpg", photos / "camera/a.jpg")
    plan = plan_of(photos)
    lstat = os.lstat

    def of_a_folder_mounted_twice(path: bytes) -> os.stat_result:
        status = lstat(path)
        return os.stat_result([*status[:3], 1, *status[4:]], {"st_mtime_ns": status.st_mtime_ns})

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", of_a_folder_mounted_twice)
        with pytest.raises(PlanError, match=r"archive/a\.jpg and .*camera/a\.jpg are one and the same file"):
            apply_plan(plan, photos)
    assert names(photos) == set(TREE)


def test_hard_links_stay_linked_through_quarantine_and_back(photos: Path) -> None:
    os.unlink(photos / "camera/a.jpg")
    os.link(photos / "archive/a.jpg", photos / "camera/a.jpg")
    run = apply_plan(plan_of(photos), photos).run
    assert (photos / "archive/a.jpg").stat().st_nlink == 2
    assert run is not None
    restore(run)
    assert (photos / "archive/a.jpg").samefile(photos / "camera/a.jpg")


def test_another_disk_is_refused_with_a_folder_on_the_right_one(photos: Path) -> None:
    other = next((disk for disk in (Path("/dev/shm"), Path("/run")) if disk.is_dir()), None)
    if other is None or os.stat(other).st_dev == os.stat(photos).st_dev or not os.access(other, os.W_OK):
        pytest.skip("There is no second disk here.")
    target = other / f"lookalike-test-{os.getpid()}"
    with pytest.raises(QuarantineError, match=r"another disk .* such as --quarantine /"):
        apply_plan(plan_of(photos), target)
    assert names(photos) == set(TREE)
    assert not target.exists()


def test_a_full_disk_is_noticed_before_anything_moves(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(QuarantineError, match="100 bytes free"):
        apply_plan(plan_of(photos), photos)
    assert names(photos) == set(TREE)


@pytest.mark.parametrize("closed", ["camera", "out"])
def test_a_folder_that_nothing_can_be_moved_out_of_or_into_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    (tmp_path / "out").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: closed not in os.fsdecode(path) and access(path, mode))
    with pytest.raises(QuarantineError, match="its permissions"):
        apply_plan(plan_of(photos), tmp_path / "out")
    assert names(photos) == set(TREE)


def test_a_path_too_long_for_the_quarantine_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine.applying, "LONGEST_PATH", 100)
    with pytest.raises(QuarantineError, match="too long"):
        apply_plan(plan_of(photos), photos)


@pytest.mark.parametrize("work", [lambda photos: apply_plan(plan_of(photos)), restore])
def test_two_at_once_are_refused(photos: Path, work: Callable[[Path], object]) -> None:
    plan = plan_of(photos)
    apply_plan(Plan(tuple(row for row in plan.rows if row.group == "2")), photos)
    change_back = tree(photos)
    descriptor = os.open(photos / HIDDEN / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(QuarantineError, match="Another process"):
            apply_plan(plan, photos) if work is not restore else restore(photos)
    finally:
        os.close(descriptor)
    assert tree(photos) == change_back


# What goes wrong on the way.


def failing(place: int, code: int) -> Callable[[bytes, bytes], None]:
    """A rename that fails the `place`-th time."""
    count = itertools.count(1)

    def rename(source: bytes, target: bytes) -> None:
        if next(count) == place:
            raise OSError(code, os.strerror(code), source, None, target)
        rename_new(source, target)

    return rename


@pytest.mark.parametrize("code", [errno.EACCES, errno.EXDEV, errno.ENOSPC, errno.EIO])
def test_a_move_that_fails_loses_nothing_and_can_be_gone_on_with_or_undone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    before, plan = tree(photos), plan_of(photos)
    for go_on in (True, False):
        with monkeypatch.context() as patched:
            patched.setattr(quarantine.applying, "rename_new", failing(2, code))
            with pytest.raises(QuarantineError, match=r"1 of 3 files were moved, then .* could not be: .*--restore"):
                apply_plan(plan, tmp_path / "out")
        assert len(names(photos)) == 5
        if go_on:
            assert (apply_plan(plan, tmp_path / "out").moved, names(photos)) == (2, LEFT)
        restored = restore(tmp_path / "out")
        assert restored.problems == ()
        assert tree(photos) == before


def test_a_file_that_changes_after_the_check_stays(photos: Path) -> None:
    plan = plan_of(photos)

    def meddle(step: str, done: int, total: int) -> None:
        if step == "Moving" and done == 1:
            os.utime(path_of(photos, plan.removed[1].path), ns=(1, 1))

    with pytest.raises(QuarantineError, match=r"1 of 3 files were moved, then .* changed or gone since it was checked"):
        apply_plan(plan, photos, on_progress=meddle)
    assert len(names(photos)) == 5


def test_a_file_that_takes_the_place_of_another_in_the_moment_of_the_move_goes_back(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, place = plan_of(photos), path_of(photos, b"camera/a.jpg")

    def late(source: bytes, target: bytes) -> None:
        if source == place:
            (photos / "saved").write_bytes(b"saved this moment")
            os.replace(photos / "saved", place)
        rename_new(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(quarantine.applying, "rename_new", late)
        with pytest.raises(QuarantineError, match=r"camera/a\.jpg could not be: it has changed"):
            apply_plan(plan, photos)
    assert (photos / "camera/a.jpg").read_bytes() == b"saved this moment"
    assert [move.is_void for move in read_runs(photos / HIDDEN)[0].moves].count(True) == 1
    restored = restore(photos)
    assert (restored.problems, names(photos)) == ((), set(TREE))
    assert (photos / "camera/a.jpg").read_bytes() == b"saved this moment"


@pytest.mark.parametrize("copied", [False, True])
def test_nothing_moves_any_more_without_a_journal_at_its_place(photos: Path, tmp_path: Path, copied: bool) -> None:
    before, plan = tree(photos), plan_of(photos)

    def meddle(step: str, done: int, total: int) -> None:
        if step == "Moving" and done == 1:
            os.rename(tmp_path / "out", tmp_path / "away")
            if copied:
                shutil.copytree(tmp_path / "away", tmp_path / "out")

    with pytest.raises(
        QuarantineError, match=r"1 of 3 files were moved, then the journal .* moved or deleted meanwhile"
    ):
        apply_plan(plan, tmp_path / "out", on_progress=meddle)
    assert len(names(photos)) == 5
    assert restore(tmp_path / "away").restored == 1
    assert tree(photos) == before


def test_nothing_moves_any_more_when_what_is_kept_vanishes_after_the_check(photos: Path) -> None:
    plan = plan_of(photos)

    def meddle(step: str, done: int, total: int) -> None:
        if step == "Moving" and done == 1:
            os.unlink(photos / "archive/a.jpg")

    with pytest.raises(QuarantineError, match=r"archive/a\.jpg could not be"):
        apply_plan(plan, photos, on_progress=meddle)
    assert len(names(photos) & {b"camera/a.jpg", b"camera/sub/a.jpg"}) == 1


def test_a_stop_ends_between_two_files_and_applying_again_goes_on(photos: Path) -> None:
    plan, stop = plan_of(photos), threading.Event()
    first = apply_plan(
        plan, photos, on_progress=lambda step, done, total: stop.set() if step == "Moving" else None, stop=stop
    )
    assert (first.moved, first.interrupted) == (1, True)
    second = apply_plan(plan, photos)
    assert (second.moved, second.already, second.run) == (2, 1, first.run)  # one journal for both
    assert first.run is not None
    assert restore(first.run).restored == 3


@pytest.mark.parametrize("line_number", [3, 4])  # that the first file was moved; that the second one will be
def test_a_journal_that_cannot_be_written_stops_the_moves(
    photos: Path, monkeypatch: pytest.MonkeyPatch, line_number: int
) -> None:
    plan, pwrite, count = plan_of(photos), os.pwrite, itertools.count(1)

    def half_a_line(descriptor: int, line: bytes, place: int) -> int:
        if next(count) == line_number:
            return pwrite(descriptor, line[:20], place)
        return pwrite(descriptor, line, place)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half_a_line)
        with pytest.raises(QuarantineError, match=r"1 of 3 files were moved, then .*Make room"):
            apply_plan(plan, photos)
    assert len(names(photos)) == 5
    (run,) = read_runs(photos / HIDDEN)
    assert (run.folder / "journal.jsonl").stat().st_size == run.good_bytes
    assert restore(photos).restored == 1


def test_a_full_disk_does_not_keep_files_from_coming_back(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(photos)
    apply_plan(plan_of(photos), tmp_path / "out")

    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert restore(tmp_path / "out").restored == 3
    assert tree(photos) == before


# What cannot come back stays, and the rest comes.


def test_a_place_that_is_taken_is_left_alone_and_the_rest_comes_back(photos: Path) -> None:
    run = apply_plan(plan_of(photos), photos).run
    assert run is not None
    (photos / "camera/a.jpg").write_bytes(b"a new picture")
    restored = restore(run)
    assert (restored.restored, restored.problems) == (
        2,
        ((path_of(photos, b"camera/a.jpg"), "is taken by another file"),),
    )
    assert (photos / "camera/a.jpg").read_bytes() == b"a new picture"
    os.rename(photos / "camera/a.jpg", photos / "new.jpg")
    assert restore(run).restored == 1
    assert (photos / "camera/a.jpg").read_bytes() == b"first"


def test_where_no_atomic_step_is_known_a_place_that_is_taken_is_left_alone_too(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine.renaming, "_renameat2", lambda: None)
    before = tree(photos)
    run = apply_plan(plan_of(photos), photos).run
    assert run is not None
    (photos / "camera/a.jpg").write_bytes(b"a new picture")
    assert (restore(run).restored, (photos / "camera/a.jpg").read_bytes()) == (2, b"a new picture")
    os.unlink(photos / "camera/a.jpg")
    restore(run)
    assert tree(photos).items() >= {name: what for name, what in before.items() if name.endswith(b".jpg")}.items()


def test_a_folder_that_is_gone_is_made_again(photos: Path, tmp_path: Path) -> None:
    run = apply_plan(plan_of(photos), tmp_path / "out").run
    os.rmdir(photos / "camera/sub")
    assert run is not None
    assert restore(run).problems == ()
    assert (photos / "camera/sub/a.jpg").read_bytes() == b"first"


def test_a_file_that_left_the_quarantine_is_reported(photos: Path) -> None:
    run = apply_plan(plan_of(photos), photos).run
    assert run is not None
    os.unlink(os.path.join(os.fsencode(run / "files"), path_of(photos, b"camera/a.jpg")[1:]))
    restored = restore(run)
    assert restored.problems == ((path_of(photos, b"camera/a.jpg"), "is neither in quarantine nor at its place"),)
    assert restored.restored == 2


def test_the_time_of_a_folder_that_something_else_changed_is_left(photos: Path) -> None:
    run = apply_plan(plan_of(photos), photos).run
    os.utime(photos / "camera", ns=(5, 5))
    assert run is not None
    restore(run)
    assert (photos / "camera").stat().st_mtime_ns not in (5, LONG_AGO // 2)  # that of the moves back
    assert (photos / "camera/sub").stat().st_mtime_ns == LONG_AGO // 2


@pytest.mark.parametrize("place", ["", "none", "photos"])
def test_where_no_journal_is_nothing_is_brought_back(photos: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(QuarantineError, match="no journal"):
        restore(tmp_path / place)


def test_a_damaged_journal_is_named_and_nothing_moves(photos: Path) -> None:
    run = apply_plan(plan_of(photos), photos).run
    assert run is not None
    journal = run / "journal.jsonl"
    for spoiled in (
        b"?" + journal.read_bytes(),
        b'{"event": "begin", "version": 9}\n',
        b'{"event": "moved", "move": 7}\n',
    ):
        journal.write_bytes(spoiled)
        with pytest.raises(QuarantineError, match=r"journal\.jsonl is damaged at byte 0"):
            restore(run)
    assert names(photos) == LEFT


def test_half_a_line_at_the_end_of_a_journal_is_as_if_not_written(photos: Path, tmp_path: Path) -> None:
    before, plan = tree(photos), plan_of(photos)
    run = apply_plan(plan, tmp_path / "out").run
    assert run is not None
    journal = run / "journal.jsonl"
    whole = journal.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    for end in (last + 1, last + 5, len(whole) - 1):
        journal.write_bytes(whole[:end])
        assert restore(run).problems == ()
        assert tree(photos) == before
        for line in journal.read_bytes().splitlines():
            json.loads(line)
        journal.write_bytes(whole)
        assert apply_plan(plan, tmp_path / "out").run != run
        run = read_runs(tmp_path / "out" / HIDDEN)[-1].folder
        journal = run / "journal.jsonl"
        whole = journal.read_bytes()


def test_a_move_that_was_only_announced_is_neither_back_nor_lost(photos: Path) -> None:
    plan = plan_of(photos)
    run = apply_plan(plan, photos).run
    assert run is not None
    restore(run)
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]))  # the second file's intention is the last word
    for gone in (False, True):
        if gone:
            os.rename(photos / "camera/sub/a.jpg", photos / "camera/sub/b.jpg")
        restored = restore(run)
        assert (restored.restored, restored.problems) == (0, ())
        assert restored.already == 1


# Killed at every step.

STEPS = ("rename_new", "pwrite", "fsync", "utime", "mkdir", "rmdir", "ftruncate")


def killed_at(step: int, work: Callable[[], object], die_at: Callable[[int], None] | None = None) -> bool:
    """Do `work` in a child that is killed before its `step`-th call that changes the disk; tell whether it was."""
    child = os.fork()
    if child == 0:
        (die_at or _die_at)(step)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) == 9


def _die_at(step: int) -> None:
    """Let this process die before its `step`-th change of the disk; of a journal's line, in the middle."""
    count = itertools.count(1)

    def dying(function: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            if next(count) == step:
                if function is pwrite:
                    pwrite(given[0], given[1][: len(given[1]) // 2], given[2])  # type: ignore[arg-type,index]
                os._exit(9)
            return function(*given, **named)

        return call

    pwrite = os.pwrite
    for name in STEPS[1:]:
        setattr(os, name, dying(getattr(os, name)))
    for module in (quarantine.applying, quarantine.restoring):
        module.rename_new = dying(rename_new)  # type: ignore[attr-defined]


def every_kill(work: Callable[[], object], least: int = 15) -> Iterator[int]:
    """Kill `work` at its first step, its second, … until it comes through; between them the caller looks and mends."""
    for step in itertools.count(1):
        if not killed_at(step, work):
            assert step > least
            return
        yield step


def test_killed_at_every_step_of_an_apply_all_can_be_brought_back(photos: Path, tmp_path: Path) -> None:
    before, plan = tree(photos), plan_of(photos)
    for step in every_kill(lambda: apply_plan(plan, tmp_path / "out")):
        if list((tmp_path / "out").glob("*/*/journal.jsonl")):
            missing = len(TREE) - len(names(photos))
            restored = restore(tmp_path / "out")
            assert (restored.restored, restored.problems) == (missing, ()), step
        for run in read_runs(tmp_path / "out" / HIDDEN):
            assert (run.folder / "journal.jsonl").stat().st_size == run.good_bytes, step  # no half line is left
        assert tree(photos) == before, step


def test_killed_at_every_step_of_an_apply_it_goes_on(photos: Path, tmp_path: Path) -> None:
    before, plan = tree(photos), plan_of(photos)
    outs = [tmp_path / "out-0"]
    for step in every_kill(lambda: apply_plan(plan, outs[-1])):
        out = outs[-1]
        applied = apply_plan(plan, out)
        assert applied.moved + applied.already == 3, step
        assert names(photos) == LEFT
        (run,) = (read_run(folder) for folder in applied.runs)
        settled = all(move.left_mtime_ns is not None for move in run.moves if run.holds(move) and not move.is_void)
        assert settled or not applied.moved, step
        assert restore(out).problems == ()
        assert tree(photos) == before, step
        outs.append(tmp_path / f"out-{step}")


def test_killed_at_every_step_of_a_restore_it_goes_on(photos: Path, tmp_path: Path) -> None:
    before, plan = tree(photos), plan_of(photos)
    outs = [tmp_path / "out-0"]
    apply_plan(plan, outs[-1])
    for step in every_kill(lambda: restore(outs[-1])):
        assert restore(outs[-1]).problems == (), step
        assert tree(photos) == before, step
        outs.append(tmp_path / f"out-{step}")
        apply_plan(plan, outs[-1])


def test_killed_in_an_apply_and_at_every_step_of_the_restore_that_follows_all_comes_back(
    photos: Path, tmp_path: Path
) -> None:
    before, plan = tree(photos), plan_of(photos)
    outs: list[Path] = []

    def kill_after_the_first_rename() -> None:
        for step in itertools.count(1):
            outs.append(tmp_path / f"out-{len(outs)}")
            assert killed_at(step, lambda: apply_plan(plan, outs[-1]))
            if len(names(photos)) < len(TREE):
                return

    kill_after_the_first_rename()
    for step in every_kill(lambda: restore(outs[-1]), least=5):
        assert restore(outs[-1]).problems == (), step
        assert tree(photos) == before, step
        kill_after_the_first_rename()
    assert tree(photos) == before


def test_killed_at_every_step_of_applying_and_of_going_on_nothing_is_lost(photos: Path, tmp_path: Path) -> None:
    before, plan = tree(photos), plan_of(photos)
    for first, second in itertools.product((14, 17, 20), range(2, 20, 3)):
        out = tmp_path / f"out-{first}-{second}"
        assert killed_at(first, lambda out=out: apply_plan(plan, out))  # type: ignore[misc]
        killed_at(second, lambda out=out: apply_plan(plan, out))  # type: ignore[misc]
        killed_at(second + 1, lambda out=out: restore(out))  # type: ignore[misc]
        killed_at(first, lambda out=out: restore(out))  # type: ignore[misc]
        assert restore(out).problems == ()
        assert tree(photos) == before, (first, second)


# The collection follows.


@pytest.fixture
def settings(photos: Path, tmp_path: Path) -> Settings:
    """The settings of a collection of the photographs and forty images beside them, with a label, a tag and a named group."""
    settings = Settings(rsc_files=tmp_path / "rsc", index="exact")
    records = [replace(record, label=f"label {record.image_id}") for record in records_of(photos)]
    others = [Record(b"other %d" % n, 0, 0, b"%032d" % n, "PNG") for n in range(40)]
    hashes = dict.fromkeys(record.sha256 for record in [*records, *others] if record.sha256)
    vectors = dict(zip(hashes, group_vectors(len(hashes)), strict=True))
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "made-up", "none", "0123", 48, "none"))
        writer.commit(KEY, Batch(records=[*records, *others], vectors=vectors))
        publish(writer, KEY, settings)
    tag_images(settings.rsc_files, "summer", [1, 2, 3])
    name_group(settings.rsc_files, "Paris", [2, 3, 10])
    return settings


def what_is_known(settings: Settings) -> tuple[object, ...]:
    store = open_store(settings.rsc_files)
    generation = store.generation()
    assert generation is not None
    groups = [(one.name, one.image_ids.tolist()) for one in named_groups(store)]
    known = (list(store.all_records()), tagged_images(store, "summer").tolist(), groups, generation.manifest["images"])
    store.close()
    return known


def test_images_leave_the_collection_with_their_files_and_come_back_with_all_that_was_said_of_them(
    photos: Path, settings: Settings
) -> None:
    before = what_is_known(settings)
    applied = apply_to_collection(plan_of(photos), None, settings)
    records, tagged, groups, images = what_is_known(settings)
    assert {record.image_id for record in records} == {1, 5, *range(6, 47)}  # type: ignore[attr-defined]
    assert (tagged, groups, images) == ([1], [("Paris", [10])], 43)
    assert applied.run is not None
    assert restore_to_collections(applied.run, Settings(rsc_files=settings.rsc_files / "elsewhere")).restored == 3
    assert what_is_known(settings) == before


def test_an_apply_that_stopped_before_the_catalog_is_made_good_by_the_next(photos: Path, settings: Settings) -> None:
    before, plan = what_is_known(settings), plan_of(photos)
    apply_plan(plan, photos)
    assert what_is_known(settings) == before
    assert apply_to_collection(plan, photos, settings).already == 3
    assert what_is_known(settings)[3] == 43
    restore_to_collections(photos, settings)
    assert what_is_known(settings) == before


def test_while_another_writes_to_the_collection_nothing_moves(photos: Path, settings: Settings) -> None:
    plan = plan_of(photos)
    with open_writer(settings.rsc_files, command="another"), pytest.raises(CollectionLockedError):
        apply_to_collection(plan, None, settings)
    assert names(photos) == set(TREE)


def test_what_took_the_place_of_an_image_stays_in_the_catalog(photos: Path, settings: Settings) -> None:
    run = apply_to_collection(plan_of(photos), None, settings).run
    assert run is not None
    (photos / "camera/a.jpg").write_bytes(b"a new picture")
    taken = record_of(photos, b"camera/a.jpg", 0)
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.commit(KEY, Batch(records=[taken], vectors={taken.sha256 or b"": group_vectors(1)[0]}))
    restore_to_collections(run, settings)
    store = open_store(settings.rsc_files)
    found = store.record_at(taken.path)
    assert found is not None
    assert (found.sha256, found.image_id > 46) == (taken.sha256, True)
    assert store.record(3).path == path_of(photos, b"camera/sub/a.jpg")
    store.close()


def test_an_image_whose_file_could_not_come_back_stays_out_of_the_catalog(photos: Path, settings: Settings) -> None:
    apply_to_collection(plan_of(photos), photos, settings)
    (photos / "camera/a.jpg").write_bytes(b"a new picture")
    restored = restore_to_collections(photos, settings)
    assert (restored.restored, len(restored.problems), restored.not_searchable) == (2, 1, 0)
    store = open_store(settings.rsc_files)
    assert store.record_at(path_of(photos, b"camera/a.jpg")) is None
    assert store.record_at(path_of(photos, b"camera/sub/a.jpg")) is not None
    store.close()


def test_going_on_leaves_an_image_in_the_catalog_that_took_the_place_of_a_moved_one(
    photos: Path, settings: Settings
) -> None:
    plan = plan_of(photos)
    apply_plan(plan, photos)  # and killed before the catalog
    (photos / "camera/a.jpg").write_bytes(b"a new picture")
    taken = record_of(photos, b"camera/a.jpg", 0)
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.commit(KEY, Batch(records=[taken], vectors={taken.sha256 or b"": group_vectors(1)[0]}))
    rest = Plan(tuple(row for row in plan.rows if row.path != taken.path))
    applied = apply_to_collection(rest, photos, settings)
    assert (applied.already, applied.images_taken_out) == (2, 2)
    store = open_store(settings.rsc_files)
    assert store.record_at(taken.path) is not None
    store.close()


def test_a_plan_is_applied_where_there_is_no_collection_too(photos: Path, tmp_path: Path) -> None:
    assert apply_to_collection(plan_of(photos), None, Settings(rsc_files=tmp_path / "none")).moved == 3
    assert not (tmp_path / "none").exists()


def test_killed_between_files_and_catalog_all_is_brought_to_its_end(
    photos: Path, settings: Settings, tmp_path: Path
) -> None:
    before, files_before, plan = what_is_known(settings), tree(photos), plan_of(photos)
    calls: dict[str, Callable[..., object]] = {"remove": StoreWriter.remove, "put_back": StoreWriter.put_back}

    def die_in_the_catalog(step: int) -> None:
        """Die before or, at odd steps, after the `step // 2`-th change of the catalog or the index."""
        count = itertools.count(1)

        def dying(function: Callable[..., object]) -> Callable[..., object]:
            def call(*given: object, **named: object) -> object:
                number = next(count)
                if 2 * number == step:
                    os._exit(9)
                answer = function(*given, **named)
                if 2 * number + 1 == step:
                    os._exit(9)
                return answer

            return call

        for name, function in calls.items():
            setattr(StoreWriter, name, dying(function))
        quarantine.catalogs.publish = dying(publish)  # type: ignore[assignment,attr-defined]

    for step in range(2, 6):
        assert killed_at(step, lambda: apply_to_collection(plan, tmp_path, settings), die_in_the_catalog)
        assert apply_to_collection(plan, tmp_path, settings).already == 3
        assert what_is_known(settings)[3] == 43
        assert killed_at(step, lambda: restore_to_collections(tmp_path, settings), die_in_the_catalog)
        assert restore_to_collections(tmp_path, settings).already >= 3
        assert (what_is_known(settings), tree(photos)) == (before, files_before)
