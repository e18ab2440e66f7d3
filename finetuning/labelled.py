"""Which photographs have which label: from folders, a CSV file, or what people said in the pages.

Owns reading labels and everything that can be wrong with them: files that cannot be read, one picture under two labels, labels
like paths, too few photographs. Equal files count once, so that none is learnt from and judged by. Does not own who learns from
which (`parts.py`) nor where the labels that people gave are kept (`store/notes.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from config import Settings
from errors import ImageError, LabelError, NoteError
from evaluation import label_rows
from finetuning.training import Photograph
from images import Limits, decode_image, find_images, sniff_format
from img2vec import PICTURE_EXTENSIONS
from pipeline import folder_name, show_path
from store import check_label, given_labels, open_store

CHECKED_SIDE = 256
"""A JPEG is decoded at a fraction of its size where only whether it can be is asked: as far as this many pixels a side."""
LISTED = 5

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Given:
    """One file and the label it was given; `where` says by what, for messages."""

    path: bytes
    label: str
    where: str


@dataclass(frozen=True)
class LeftOut:
    """A file that nothing is learnt from, and why; `path` is for showing (valid Unicode)."""

    path: str
    label: str
    reason: str


@dataclass(frozen=True)
class Labelled:
    """Photographs of different contents with the label of each, and the files that were left out."""

    photographs: tuple[Photograph, ...]
    labels: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, each once, in alphabetical order."""
        return tuple(sorted(set(self.labels)))


def labels_of_folders(patterns: Sequence[str], *, exclude: Sequence[Path] = ()) -> list[Given]:
    """Return the files that patterns mean, each labelled with the name of the folder it lies in.

    Raises `LabelError` where a pattern means none, or a folder's name cannot be a label.
    """
    found = find_images([os.fsencode(pattern) for pattern in patterns], exclude=exclude)
    if found.unmatched or found.unreadable:
        missing = ", ".join(show_path(os.fsencode(name)) for name in [*found.unmatched, *found.unreadable][:LISTED])
        raise LabelError(
            f"No files can be found at {missing}. Check the spelling, the permissions, and that the disk is mounted; a folder a "
            'class is wanted: python finetune.py "labelled/*"'
        )
    return [
        Given(path, _checked(folder_name(path), f"the folder {show_path(os.path.dirname(path))}"), "its folder")
        for path in found.paths
        if _is_picture(path)
    ]


def labels_of_csv(file: Path) -> list[Given]:
    """Return the files that a CSV file names, with their labels: a column of paths, a column of labels (`label_rows`).

    A path is relative to the folder of the CSV, else to the working directory. Raises `RequestError` where it cannot be read,
    `LabelError` where a label is none or it has no rows.
    """
    given, missing = [], []
    for line, name, label in label_rows(file):
        where = f"{file}, line {line}"
        beside = os.path.join(os.fsencode(file.parent), os.fsencode(name))
        path = beside if os.path.lexists(beside) else os.fsencode(name)
        given.append(Given(os.path.realpath(path), _checked(label, where), where))
        missing += [] if os.path.lexists(path) else [name]
    if not given:
        raise LabelError(f"{file} names no file. A line for each photograph is wanted: its path, a comma, its label.")
    if len(missing) == len(given):
        raise LabelError(
            f"None of the {len(given):,} files that {file} names is there; the first is {missing[0]!a}. A path is looked for in "
            "the folder of the table, then in the working directory: correct the paths, or run this where they begin."
        )
    return given


def labels_of_pages(folder: Path) -> tuple[list[Given], list[LeftOut]]:
    """Return the files of the collection in `folder` that people labelled in the pages, and those images that have no file.

    Raises `LabelError` where nobody did, `CollectionMissingError`.
    """
    with contextlib.closing(open_store(folder)) as store:
        labels = given_labels(store)
        records = [(store.record(image_id), label) for image_id, label in labels.items()]
    if not records:
        raise LabelError(
            f"Nobody has labelled an image of the collection in {folder} yet. Choose images in the pages (python app.py) and say "
            'what they are, or give labelled folders: python finetune.py "labelled/*"'
        )
    given = [
        Given(record.path, _checked(label, "the pages"), "the pages") for record, label in records if record.has_file
    ]
    without = [
        LeftOut(show_path(record.path), label, "It came into the collection without a file.")
        for record, label in records
        if not record.has_file
    ]
    return given, without


def _checked(label: str, where: str) -> str:
    try:
        return check_label(label)
    except NoteError as error:
        raise LabelError(f"{where}: {error}") from error


def _is_picture(path: bytes) -> bool:
    """Tell whether a file is an image or is named like one: whatever else lies among photographs is passed over."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return True
    return sniff_format(head) is not None or os.path.splitext(path)[1].lower() in PICTURE_EXTENSIONS


def read_contents(given: Sequence[Given], settings: Settings) -> Labelled:
    """Read the SHA-256 of each file, and keep those of different contents, in the order of their paths.

    Raises `LabelError` where the same contents have two labels.
    """
    ordered = sorted({entry.path: entry for entry in reversed(given)}.values(), key=lambda entry: entry.path)
    _refuse_two_labels([(entry.path, entry) for entry in given])
    hashes = _each([entry.path for entry in ordered], _sha256, settings)
    contents = [(digest, entry) for digest, entry in zip(hashes, ordered, strict=True) if isinstance(digest, bytes)]
    _refuse_two_labels(contents)
    kept = dict(reversed(contents))  # the first of equal ones
    ordered_kept = sorted(kept.items(), key=lambda item: item[1].path)
    return Labelled(
        tuple(Photograph(entry.path, digest) for digest, entry in ordered_kept),
        tuple(entry.label for _, entry in ordered_kept),
        tuple(
            LeftOut(show_path(entry.path), entry.label, reason)
            for reason, entry in zip(hashes, ordered, strict=True)
            if isinstance(reason, str)
        ),
    )


def _refuse_two_labels(entries: Sequence[tuple[bytes, Given]]) -> None:
    """Raise `LabelError` where two entries of the same key have different labels."""
    first: dict[bytes, Given] = {}
    pairs = [(first.setdefault(key, entry), entry) for key, entry in entries]
    differing = [(one, other) for one, other in pairs if one.label != other.label]
    if differing:
        one, other = differing[0]
        more = f" (and {len(differing) - 1:,} more such pairs)" if len(differing) > 1 else ""
        raise LabelError(
            f"The same picture has two labels: {show_path(one.path)} is {one.label!r} ({one.where}), "
            f"{show_path(other.path)} is {other.label!r} ({other.where}){more}. A photograph can only be learnt as one thing: "
            "take one of the two out."
        )


def keep_readable(labelled: Labelled, settings: Settings) -> Labelled:
    """Decode every photograph once and leave out those that cannot be."""
    limits = Limits(settings.max_bytes, settings.max_pixels, settings.max_frames)
    paths = [photograph.path for photograph in labelled.photographs]
    reasons = _each(paths, lambda path: _why_unreadable(path, limits), settings)
    judged = list(zip(labelled.photographs, labelled.labels, reasons, strict=True))
    return replace(
        labelled,
        photographs=tuple(photograph for photograph, _, reason in judged if not reason),
        labels=tuple(label for _, label, reason in judged if not reason),
        left_out=(
            *labelled.left_out,
            *(LeftOut(show_path(photograph.path), label, reason) for photograph, label, reason in judged if reason),
        ),
    )


def check_classes(labelled: Labelled, least: int) -> None:
    """Raise `LabelError` unless there are two classes, each with `least` photographs, and none was left out as a whole."""
    counts = Counter(labelled.labels)
    gone: dict[str, list[LeftOut]] = defaultdict(list)
    for entry in labelled.left_out:
        gone[entry.label].append(entry)
    vanished = [name for name in sorted(gone) if not counts[name]]
    if vanished:
        entry = gone[vanished[0]][0]
        raise LabelError(
            f"No photograph of the class {vanished[0]!r} can be used. {entry.path}: {entry.reason} Put others in their place, or "
            "leave the class out."
        )
    if len(counts) < 2:
        only = f" There is only {next(iter(counts))!r}." if counts else " There is none."
        raise LabelError(
            f"At least two classes are needed to learn what tells them apart.{only} Put the photographs of each class into a "
            'folder of its own: python finetune.py "labelled/*"'
        )
    few = [(count, name) for name, count in counts.items() if count < least]
    if few:
        raise LabelError(_too_few(labelled, few, least))


def _too_few(labelled: Labelled, few: Sequence[tuple[int, str]], least: int) -> str:
    count, name = min(few)
    example = next(
        show_path(p.path) for p, label in zip(labelled.photographs, labelled.labels, strict=True) if label == name
    )
    others = f" So have {len(few) - 1:,} other classes too few." if len(few) > 1 else ""
    purposes = "one to learn from, one that tells when to stop" + (", one to be judged by" if least > 2 else "")
    return (
        f"The class {name!r} has {count} photograph{'s' if count > 1 else ''} ({example}), and each class needs at least "
        f"{least}: {purposes}. Equal files count once.{others} Add some, or leave the class out."
    )


def _sha256(path: bytes) -> bytes | str:
    """Return the SHA-256 of a file, or why it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def _why_unreadable(path: bytes, limits: Limits) -> str:
    """Return why a file is no photograph, empty where it is one."""
    try:
        with open(path, "rb") as file:
            decode_image(file, limits, min_side=CHECKED_SIDE)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."
    return ""


def _each(paths: Sequence[bytes], look: Callable[[bytes], _Result], settings: Settings) -> list[_Result]:
    """Return what `look` says of each path, in threads, in their order."""
    with ThreadPoolExecutor(settings.cpu_threads) as threads:
        return list(threads.map(look, paths))
