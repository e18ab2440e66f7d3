"""Pictures that come by a browser or the API, into the collection; and images out of it, where they can be brought back from.

Owns where sent files are saved and what they are called there, what each one became, and the names that runs of quarantine have
in addresses. Does not own indexing (`img2vec`), moving files (`quarantine/`), nor who may do it (`guard.py`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from backbones import Backbone
from config import Settings
from errors import (
    CollectionError,
    CollectionMissingError,
    EmptyCollectionError,
    ImageError,
    ImageNotFoundError,
    LookalikeError,
    OptionError,
    OriginalGoneError,
)
from images import sniff_format
from img2vec import Job, index_into
from plans import REMOVE, Plan, PlanRow, is_as_indexed
from quarantine import Applied, Restored, Run, move_out, remembered_runs, restore_to_collections
from quarantine.renaming import rename_new
from search.service import SearchService
from store import Generation, Record, StoreWriter, open_store, open_writer
from store.formats import reporting_full_disk, sync_folder

logger = logging.getLogger("lookalike")

MOST_MOVED = 5_000
"""Files that one request may move; each is read whole first, and whoever asks waits for it."""
UNFINISHED = ".unfinished-"
LONGEST_NAME = 100
"""Bytes of a saved file's name, without its suffix."""

_SUFFIXES: Mapping[str, str] = {
    **{"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"},
    **{"JPEG2000": ".jp2", "HEIF": ".heic", "AVIF": ".avif"},
}


# Adding.


@dataclass(frozen=True)
class Sent:
    """One file as it came. `name` and `folder` are what the sender calls them: words for people, never a path."""

    name: str
    content: bytes
    folder: str = ""


@dataclass(frozen=True)
class Added:
    """What became of one sent file: an image of the collection, which it may have been before (`known`), or the `error`."""

    name: str
    image_id: int | None = None
    known: bool = False
    error: LookalikeError | None = None


def add_pictures(service: SearchService, sent: Sequence[Sent]) -> list[Added]:
    """Decode the files that came, save those that are pictures, index them and publish; return what became of each, in order.

    What the collection holds already, to the byte, is not saved again. The network is the one that serves. Raises
    `CollectionLockedError` where another job changes the collection, `NoNetworkError` where no network can see them,
    `DiskFullError`, `CollectionError`: then nothing stays saved that is no image of the collection.
    """
    settings, backbone = service.settings, _network(service)
    looked_at = [_look_at(service, one) for one in sent]
    if all(isinstance(one, ImageError) for one in looked_at):
        return [
            Added(one.name, error=error)
            for one, error in zip(sent, looked_at, strict=True)
            if not isinstance(error, str)
        ]
    with open_writer(settings.rsc_files, command="the service, adding pictures") as writer:
        saving = _Saving(writer, settings.saved_folder)
        try:
            saved = [
                seen if isinstance(seen, ImageError) else saving.save(one, seen)
                for one, seen in zip(sent, looked_at, strict=True)
            ]
            settings = as_published(settings, writer.last_generation())
            if saving.new:
                index_into(writer, _job(service, settings, saving.new, backbone))
        finally:
            saving.forget_failures()
        results = [
            Added(one.name, error=what) if isinstance(what, ImageError) else saving.result(one.name, what)
            for one, what in zip(sent, saved, strict=True)
        ]
    service.refresh()
    return results


def _job(service: SearchService, settings: Settings, paths: list[bytes], backbone: Backbone | None) -> Job:
    """Return the job that indexes what was sent, which is decoded in child processes alone."""
    return Job(settings, paths, on_note=logger.warning, backbone=backbone, prepare=service.decoders.prepare)


def _network(service: SearchService) -> Backbone | None:
    """Return the network that serves; None before there is a collection, whose first job loads one."""
    try:
        return service.ready().embedder.load()
    except (CollectionMissingError, EmptyCollectionError):
        return None


def _look_at(service: SearchService, one: Sent) -> str | ImageError:
    """Return the format of a picture that can be decoded, else why it cannot."""
    try:
        service.check_decodes(one.content)
    except ImageError as error:
        return error
    return sniff_format(one.content[:64]) or ""


def as_published(settings: Settings, generation: Generation | None) -> Settings:
    """Return the settings with the index options of what is published: adding a picture builds no other kind of index."""
    chosen = replace(settings, threads=1)  # beside those who search
    options = {} if generation is None else generation.manifest["index"]["options"]
    return (
        replace(chosen, index=options["kind"], trees=options["trees"], search_k=options["search_k"])
        if options
        else chosen
    )


@dataclass(frozen=True)
class _Saved:
    """Where the contents of a sent file lie; `known` where they did before it came."""

    path: bytes
    known: bool


class _Saving:
    """Saves sent files, each under a name of its own, unless their contents are in the collection. `new` are those it saved."""

    def __init__(self, writer: StoreWriter, folder: Path) -> None:
        self.new: list[bytes] = []
        self._writer, self._folder = writer, folder
        self._failures: dict[bytes, Record | None] = {}
        for left in folder.glob(f"{UNFINISHED}*"):  # by a service that was killed: nobody else writes now
            left.unlink()
        self._there: dict[bytes, Record | bytes] = {
            record.sha256: record
            for record in writer.all_records()
            if record.error_code is None and record.sha256 is not None and record.has_file
        }

    def save(self, one: Sent, file_format: str) -> _Saved:
        """Return where the contents lie: where they did, else where they are saved now."""
        digest = hashlib.sha256(one.content).digest()
        there = self._there.get(digest)
        if isinstance(there, bytes):
            return _Saved(there, known=True)
        if there is not None and is_as_indexed(there):
            return _Saved(there.path, known=True)
        path = self._write(one, digest, file_format)
        self.new.append(path)
        self._there[digest] = path
        return _Saved(path, known=False)

    def _write(self, one: Sent, digest: bytes, file_format: str) -> bytes:
        folder = self._folder / safe_name(one.folder) if one.folder else self._folder
        stem = safe_name(Path(one.name).stem) or "picture"
        try:
            with reporting_full_disk(self._folder):
                folder.mkdir(parents=True, exist_ok=True)
                unfinished = self._folder / f"{UNFINISHED}{secrets.token_hex(8)}"
                stems = (stem, f"{stem}-{digest.hex()[:8]}", secrets.token_hex(8))
                names = [folder.resolve() / (name + _SUFFIXES[file_format]) for name in stems]
                return _write_new(unfinished, names, one.content)
        except OSError as error:
            raise CollectionError(f"Pictures cannot be saved in {folder}: {error.strerror}.") from error

    def forget_failures(self) -> None:
        """Take away again what was saved and did not become an image, such as when the disk was full."""
        for path in self.new:
            record = self._writer.record_at(path)
            if record is None or record.error_code is not None:
                self._failures[path] = record
                os.unlink(path)
        self._writer.remove([record.image_id for record in self._failures.values() if record is not None])

    def result(self, name: str, saved: _Saved) -> Added:
        """Return what became of a file."""
        record = self._writer.record_at(saved.path)
        if record is not None:
            return Added(name, record.image_id, known=saved.known)
        failed = self._failures.get(saved.path)
        return Added(name, error=ImageError((failed and failed.error) or "The picture could not be indexed."))


def _write_new(unfinished: Path, names: Sequence[Path], content: bytes) -> bytes:
    """Write a file under the first of `names` that is free; it is there whole or not at all."""
    try:
        with open(unfinished, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for path in names:
            with suppress(FileExistsError):
                rename_new(os.fsencode(unfinished), os.fsencode(path))
                sync_folder(path.parent)
                return os.fsencode(path)
    finally:
        unfinished.unlink(missing_ok=True)
    raise FileExistsError(errno.EEXIST, "no name is free", names[-1])


def safe_name(text: str) -> str:
    """Return a sender's name for a file as one that can be no path: letters, digits, `-` and `_`; nothing where none is left."""
    last = unicodedata.normalize("NFC", text).replace("\\", "/").rstrip("/").rpartition("/")[2]
    kept = "".join(character if character.isalnum() or character in "-_" else "-" for character in last)
    kept = "-".join(part for part in kept.split("-") if part)
    return kept.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore").strip("-")


# Taking out, and bringing back.


@dataclass(frozen=True)
class TakenOut:
    """What was moved: `images` out of the collection with `files` of `moved_bytes`; `keys` name the runs that can be undone.

    `skipped` are the ids of images that stay, since their file is gone or is not the one that was indexed.
    """

    keys: tuple[str, ...]
    images: int
    files: int
    moved_bytes: int
    skipped: tuple[int, ...] = ()


def take_out(service: SearchService, image_ids: Collection[int]) -> TakenOut:
    """Move the files of images into quarantine and take them out of the collection.

    Raises `ImageNotFoundError` where none of them is in the collection, `OriginalGoneError` where none has its file,
    `CollectionLockedError`, `PlanError`, `QuarantineError`.
    """
    records = service.ready().store.records(image_ids)
    if not records:
        raise ImageNotFoundError("None of these images is in the collection any more.")
    there = [record for record in records.values() if is_as_indexed(record)]
    if not there:
        raise OriginalGoneError("None of these images has the file that was indexed.")
    rows = tuple(_row(record) for record in there)
    skipped = sorted(records.keys() - {record.image_id for record in there})
    return replace(apply_here(service, Plan(rows), keeps_one=False), skipped=tuple(skipped))


def _row(record: Record) -> PlanRow:
    return PlanRow(
        group=str(record.image_id),
        action=REMOVE,
        path=record.path,
        size=record.size,
        mtime_ns=record.mtime_ns,
        sha256=record.sha256 or b"",
        reason="taken out by hand",
    )


def apply_here(service: SearchService, plan: Plan, *, keeps_one: bool = True) -> TakenOut:
    """Move what a plan removes into quarantine, and take it out of the collection.

    Raises `OptionError` for too many files at once, `CollectionLockedError`, `PlanError`, `QuarantineError`.
    """
    if len(plan.removed) > MOST_MOVED:
        raise OptionError(
            f"{len(plan.removed):,} files would be moved; from here at most {MOST_MOVED:,} can be at once. Choose fewer, or "
            "download the plan and apply it where the service runs: python duplicates.py --apply"
        )
    settings = as_published(service.settings, service.ready().generation)
    done = move_out(plan, settings, added=settings.saved_folder, keeps_one=keeps_one)
    service.refresh()
    return _summed(done)


def _summed(done: Sequence[Applied]) -> TakenOut:
    return TakenOut(
        tuple(dict.fromkeys(run_key(run) for applied in done for run in applied.runs)),
        sum(applied.images_taken_out for applied in done),
        sum(applied.moved for applied in done),
        sum(applied.moved_bytes for applied in done),
    )


def run_key(folder: Path) -> str:
    """Return what a run of quarantine is called in addresses; it tells nothing of where it lies."""
    return blake2b(os.fsencode(folder), digest_size=8).hexdigest()


def runs(settings: Settings) -> list[Run]:
    """Return the runs that moved files out of the collection, the latest first."""
    store = open_store(settings.rsc_files)
    try:
        return remembered_runs(store)
    finally:
        store.close()


def bring_back(service: SearchService, key: str) -> Restored:
    """Bring the files of a run back to their places, and their images into the collection.

    Raises `OptionError` where there is no such run, `CollectionLockedError`, `QuarantineError`.
    """
    found = [run for run in runs(service.settings) if run_key(run.folder) == key]
    if not found:
        raise OptionError("There is nothing to bring back by that name. Load the page again.")
    with open_writer(service.settings.rsc_files, command="the service, bringing files back") as writer:
        settings = as_published(
            service.settings, writer.last_generation()
        )  # and nothing is moved while another job runs
    restored = restore_to_collections(found[0].folder, settings)
    service.refresh()
    return restored
