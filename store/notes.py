"""What people say of images and groups: names, tags. Part of what was seen: it lives in the catalog; no job computes it again.

A group has no number of its own that would last: it is what it contains. So a name is kept with the images that were in the group
when it was given, and whoever shows groups finds the one that holds most of them (`views/groups.py`).

Each note is one short transaction of SQLite. It does not need the writer's lock, which guards vectors and generations, so notes
can be taken while a job runs. Does not own who may take them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from errors import CollectionReadOnlyError, NoteError
from store.formats import reporting_full_disk
from store.reader import BUSY_TIMEOUT_S, Store, chunks

MAX_NOTE_LENGTH = 100
LABEL_CHANGES = "label_changes"
JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
"""Python calls them not printable; Persian words and many emoji have them inside."""
NOTES_SCHEMA = """
CREATE TABLE IF NOT EXISTS named_groups (group_id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS named_group_images (
    group_id INTEGER NOT NULL REFERENCES named_groups ON DELETE CASCADE,
    image_id INTEGER NOT NULL,
    PRIMARY KEY (group_id, image_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (tag TEXT NOT NULL, image_id INTEGER NOT NULL, PRIMARY KEY (tag, image_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_by_image ON tags (image_id);
CREATE TABLE IF NOT EXISTS given_labels (image_id INTEGER PRIMARY KEY, own TEXT);
"""


@dataclass(frozen=True)
class NamedGroup:
    """A name that a person gave to a group, and which images were in it: `image_ids` int64 (n,), ascending."""

    group_id: int
    name: str
    image_ids: npt.NDArray[np.int64]


def named_groups(store: Store) -> list[NamedGroup]:
    """Return all named groups with those of their images that are still in the catalog, the first named first."""
    if not store.has_notes():
        return []
    names = store.catalog.execute("SELECT group_id, name FROM named_groups ORDER BY group_id").fetchall()
    members: dict[int, list[int]] = {group_id: [] for group_id, _ in names}
    rows = store.catalog.execute(
        "SELECT group_id, image_id FROM named_group_images JOIN images USING (image_id) ORDER BY image_id"
    )
    for group_id, image_id in rows:
        if group_id in members:  # named between the two reads
            members[group_id].append(image_id)
    return [NamedGroup(group_id, name, np.array(members[group_id], dtype=np.int64)) for group_id, name in names]


def tag_counts(store: Store) -> dict[str, int]:
    """Return every tag with the number of images of the catalog that have it, by name."""
    if not store.has_notes():
        return {}
    rows = store.catalog.execute(
        "SELECT tag, COUNT(*) FROM tags JOIN images USING (image_id) GROUP BY tag ORDER BY tag"
    )
    return {str(tag): int(count) for tag, count in rows}


def tagged_images(store: Store, tag: str) -> npt.NDArray[np.int64]:
    """Return the ids of the images that have `tag`, int64 (n,), ascending."""
    if not store.has_notes():
        return np.empty(0, dtype=np.int64)
    rows = store.catalog.execute(
        "SELECT image_id FROM tags JOIN images USING (image_id) WHERE tag = ? ORDER BY image_id", (tag,)
    )
    return np.fromiter((row[0] for row in rows), dtype=np.int64)


def tags_of(store: Store, image_ids: Iterable[int]) -> dict[int, list[str]]:
    """Return the tags, by name, of those of `image_ids` that have any."""
    tags: dict[int, list[str]] = {}
    if store.has_notes():
        for chunk in chunks([int(image_id) for image_id in image_ids]):
            marks = ",".join("?" * len(chunk))
            rows = store.catalog.execute(
                f"SELECT image_id, tag FROM tags WHERE image_id IN ({marks}) ORDER BY tag", chunk
            )
            for image_id, tag in rows:
                tags.setdefault(image_id, []).append(str(tag))
    return tags


def name_group(folder: Path, name: str, image_ids: Iterable[int], *, group_id: int | None = None) -> int:
    """Name the group of these images, anew or in place of the named group `group_id`; return its id.

    Raises `NoteError` for an empty or too long name or no images, `CollectionReadOnlyError`, `DiskFullError`.
    """
    name, members = _checked(name, "name of a group"), _checked_images(image_ids)
    with _noting(folder) as catalog:
        if group_id is None:
            group_id = catalog.execute("INSERT INTO named_groups (name) VALUES (?)", (name,)).lastrowid or 0
        else:
            catalog.execute("INSERT OR REPLACE INTO named_groups VALUES (?, ?)", (group_id, name))
        catalog.execute("DELETE FROM named_group_images WHERE group_id = ?", (group_id,))
        catalog.executemany(
            "INSERT OR IGNORE INTO named_group_images SELECT ?, image_id FROM images WHERE image_id = ?",
            [(group_id, image_id) for image_id in members],
        )
    return group_id


def forget_group(folder: Path, group_id: int) -> None:
    """Take the name of a group away; its images stay as they are."""
    with _noting(folder) as catalog:
        catalog.execute("DELETE FROM named_group_images WHERE group_id = ?", (group_id,))
        catalog.execute("DELETE FROM named_groups WHERE group_id = ?", (group_id,))


def tag_images(folder: Path, tag: str, image_ids: Iterable[int]) -> None:
    """Give `tag` to images of the catalog; ids that it does not know are left out.

    Raises `NoteError` for an empty or too long tag or no images, `CollectionReadOnlyError`, `DiskFullError`.
    """
    tag, members = _checked(tag, "tag"), _checked_images(image_ids)
    with _noting(folder) as catalog:
        catalog.executemany(
            "INSERT OR IGNORE INTO tags SELECT ?, image_id FROM images WHERE image_id = ?",
            [(tag, image_id) for image_id in members],
        )


def untag_images(folder: Path, tag: str, image_ids: Iterable[int]) -> None:
    """Take `tag` from images; raises what `tag_images` raises."""
    tag, members = _checked(tag, "tag"), _checked_images(image_ids)
    with _noting(folder) as catalog:
        catalog.executemany(
            "DELETE FROM tags WHERE tag = ? AND image_id = ?", [(tag, image_id) for image_id in members]
        )


def label_images(folder: Path, label: str, image_ids: Iterable[int]) -> int:
    """Give images of the catalog the label `label` in place of the one they have; return how many of the ids it knows.

    A label is what an image is a picture of, one an image; the folder's name or what it came with, until somebody gives another,
    which then stays (`given_labels`, with the image's own beside it). Raises what `tag_images` raises, and `NoteError` for a
    label that looks like a path.
    """
    label, members = check_label(label), _checked_images(image_ids)
    with _noting(folder) as catalog:
        _count_change(catalog)
        rows = [(image_id,) for image_id in members]
        catalog.executemany(
            "INSERT OR IGNORE INTO given_labels SELECT image_id, label FROM images WHERE image_id = ?", rows
        )
        changed = catalog.executemany(
            "UPDATE images SET label = ? WHERE image_id = ?", [(label, *row) for row in rows]
        ).rowcount
    return int(changed)


def rename_label(folder: Path, label: str, name: str) -> int:
    """Give the images that people labelled `label` the label `name`, which others may have already; return how many there were.

    Raises what `label_images` raises but for images.
    """
    name = check_label(name)
    with _noting(folder) as catalog:
        _count_change(catalog)
        changed = catalog.execute(
            "UPDATE images SET label = ? WHERE label = ? AND image_id IN (SELECT image_id FROM given_labels)",
            (name, label),
        ).rowcount
    return int(changed)


def unlabel_images(folder: Path, image_ids: Iterable[int]) -> int:
    """Take away the labels that were given to images: each has its own again, its folder's name; return how many had one.

    Raises what `tag_images` raises.
    """
    rows = [(image_id,) for image_id in _checked_images(image_ids)]
    with _noting(folder) as catalog:
        _count_change(catalog)
        taken = catalog.executemany(
            "UPDATE images SET label = (SELECT own FROM given_labels WHERE given_labels.image_id = images.image_id) "
            "WHERE image_id = ? AND image_id IN (SELECT image_id FROM given_labels)",
            rows,
        ).rowcount
        catalog.executemany(
            "DELETE FROM given_labels WHERE image_id = ? AND image_id IN (SELECT image_id FROM images)", rows
        )
    return int(taken)


def given_labels(store: Store) -> dict[int, str]:
    """Return the labels that people gave, by image id, of the images that are in the catalog and could be read."""
    if not _has_given_labels(store):
        return {}
    rows = store.catalog.execute(
        "SELECT image_id, label FROM images JOIN given_labels USING (image_id) WHERE error_code IS NULL ORDER BY image_id"
    )
    return {int(image_id): str(label) for image_id, label in rows if label is not None}


def labelled_pictures(store: Store) -> dict[str, int]:
    """Return how many different pictures have each label that people gave, by name: equal files are one."""
    if not _has_given_labels(store):
        return {}
    rows = store.catalog.execute(
        "SELECT label, COUNT(DISTINCT sha256) FROM images JOIN given_labels USING (image_id) WHERE error_code IS NULL "
        "GROUP BY label ORDER BY label"
    )
    return {str(label): int(count) for label, count in rows}


def is_label_given(store: Store, image_id: int) -> bool:
    """Tell whether a person gave the label that an image has; else it is its folder's name."""
    found = "SELECT 1 FROM given_labels WHERE image_id = ?"
    return _has_given_labels(store) and store.catalog.execute(found, (image_id,)).fetchone() is not None


def label_changes(store: Store) -> int:
    """Return how often labels have been given, renamed and taken: by it, who counts labels sees that they are others."""
    return int(store.meta(LABEL_CHANGES) or 0)


def _has_given_labels(store: Store) -> bool:
    return store.catalog.execute("SELECT 1 FROM sqlite_master WHERE name = 'given_labels'").fetchone() is not None


def _count_change(catalog: sqlite3.Connection) -> None:
    catalog.execute(
        "INSERT INTO meta VALUES (?, '1') ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
        (LABEL_CHANGES,),
    )


def check_label(label: str) -> str:
    """Return `label` with its spaces made single; raises `NoteError` where it cannot be one, as `../cats` cannot."""
    shown = _checked(label, "label")
    if "/" in shown or "\\" in shown or shown in (".", ".."):
        raise NoteError(
            f"{shown!r} cannot be a label: it looks like a path. Labels become names of classes, in files and reports; write it "
            "without slashes, such as 'cats'."
        )
    return shown


def _checked(text: str, what: str) -> str:
    shown = " ".join(text.split())
    if not shown or len(shown) > MAX_NOTE_LENGTH or not shown.translate(JOINERS).isprintable():
        raise NoteError(
            f"A {what} has 1 to {MAX_NOTE_LENGTH} printable characters; this one has {len(shown)}: {shown[:40]!r}."
        )
    return shown


def _checked_images(image_ids: Iterable[int]) -> list[int]:
    members = sorted({int(image_id) for image_id in image_ids if 0 < int(image_id) < 2**63})
    if not members:
        raise NoteError("No image is selected. Choose at least one.")
    return members


@contextlib.contextmanager
def _noting(folder: Path) -> Iterator[sqlite3.Connection]:
    uri = f"{(folder / 'catalog.sqlite').absolute().as_uri()}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        with contextlib.closing(connection), reporting_full_disk(folder):
            connection.execute("BEGIN IMMEDIATE")
            for statement in NOTES_SCHEMA.split(";"):
                connection.execute(statement)
            yield connection
            connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
            raise
        raise CollectionReadOnlyError(
            f"The catalog in {folder} cannot be written to at the moment ({error}), so nothing was noted. Mend the "
            "permissions of the folder, or wait for the job that is writing."
        ) from error
