"""Copying: a whole collection to another folder while nobody can change it, and a finished file into the next generation."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from store.formats import reporting_full_disk, sync_folder
from store.writer import open_writer

NOT_COPIED = ("writer.lock", "unfinished-*", "*-journal", "*.tmp", ".training")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file another name, or, where the file system has no hard links, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def copy_collection(folder: Path, target: Path) -> None:
    """Copy the collection in `folder` into the empty folder `target`, down to the disk; nobody can write to it meanwhile.

    Raises `CollectionLockedError`, `DiskFullError`, `OSError`; whoever made `target` clears it away then.
    """
    with contextlib.ExitStack() as stack:
        if os.access(folder, os.W_OK):  # else nobody can change it from here
            stack.enter_context(open_writer(folder, command="copying it"))
        stack.enter_context(reporting_full_disk(target))
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
        for path, _, names in os.walk(target):
            for name in names:
                with open(os.path.join(path, name), "rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(path))
