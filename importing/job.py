"""The job over a file of vectors: `python img2vec.py --import-vectors FILE`.

Owns its order and its report. Does not own reading the file, matching names, or what becomes of one image.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from config import Settings
from errors import SettingsError, VectorsFileError
from images import Limits, find_images
from img2vec import Failure
from importing.files import Block, VectorsSource, open_vectors
from importing.names import match_names, unique_names
from importing.networks import manifest_for
from importing.taking import BAD_VECTOR, Item, Taking
from pipeline import File, Reader, Seen
from publishing import publish
from store import StoreWriter, VectorsManifest, open_writer


@dataclass
class ImportReport:
    """What one import did. Counts are of images; `bad` of vectors that could not be taken, with their `failures`.

    `with_picture` is how many of the images imported have a file; `images` how many the collection can find now.
    """

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    bad: int = 0
    with_picture: int = 0
    images: int = 0
    seconds: float = 0.0
    backbone: str = ""
    layer: str = ""
    weights_sha256: str = ""
    dim: int = 0
    index: Mapping[str, Any] = field(default_factory=dict)
    rsc_files: str = ""
    interrupted: bool = False
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImportJob:
    """What to import: a file or folder of vectors, and the folder below which its pictures lie, if they are at hand.

    `on_progress` is called with images done and in all, `on_note` with what a person should know, `on_step` with what is begun.
    """

    settings: Settings
    source: Path
    pictures: Path | None = None
    on_progress: Callable[[int, int], None] = lambda done, total: None
    on_note: Callable[[str], None] = lambda note: None
    on_step: Callable[[str], None] = lambda step: None
    stop: threading.Event = field(default_factory=threading.Event)


def import_vectors(job: ImportJob) -> ImportReport:
    """Take a file of vectors into the collection of `job.settings.rsc_files` and publish its index.

    Importing the same again changes nothing; more of the same network is added. Vectors that cannot be used are counted and
    listed. Raises `VectorsFileError` for a file none of which can be used, `CollectionMismatchError`, and what else concerns
    the whole job.
    """
    started = time.perf_counter()
    source = open_vectors(job.source)
    pictures = _picture_files(job)
    report = ImportReport(rsc_files=str(job.settings.rsc_files.absolute()))
    with open_writer(job.settings.rsc_files, command="img2vec.py --import-vectors") as writer:
        manifest = manifest_for(writer, source)
        report.backbone, report.layer, report.dim = manifest.backbone, manifest.layer, manifest.dim
        report.weights_sha256 = manifest.weights_sha256
        before = len(writer.snapshot(manifest.key)) if manifest.key in writer.vector_keys() else 0
        if _Importing(job, source, pictures, report).run(writer, manifest):
            if before and report.new:
                note = (
                    f"{report.new:,} images were added to the {before:,} of the collection in {job.settings.rsc_files}, which "
                    "has the same network. For a collection of their own give another folder: --rsc-files."
                )
                report.notes.append(note)
                job.on_note(note)
            published = publish(
                writer, manifest.key, job.settings, stop=job.stop, on_note=job.on_note, on_step=job.on_step
            )
            report.index = published["index"] if published else {}
            report.images = published["images"] if published else 0
    report.interrupted = job.stop.is_set()
    report.seconds = round(time.perf_counter() - started, 3)
    return report


def _picture_files(job: ImportJob) -> list[bytes]:
    if job.pictures is None:
        return []
    if not job.pictures.is_dir():
        raise SettingsError(f"--pictures {job.pictures}: there is no such folder.")
    return find_images([str(job.pictures)], exclude=[job.settings.rsc_files]).paths


class _Importing:
    """One run over a file of vectors."""

    def __init__(self, job: ImportJob, source: VectorsSource, pictures: list[bytes], report: ImportReport) -> None:
        self._job = job
        self._source = source
        self._pictures = pictures
        self._report = report
        self._names = unique_names(source.names)
        self._unreadable: list[str] = []

    def run(self, writer: StoreWriter, manifest: VectorsManifest) -> bool:
        """Take in all blocks; tell whether there was anything to take in before the job was stopped."""
        taking: Taking | None = None
        start = 0
        for block in self._source.blocks():
            if self._job.stop.is_set():
                break
            names = self._names[start : start + len(block.vectors)]
            self._report.failures += [
                Failure(names[place], BAD_VECTOR, block.reasons[place]) for place in sorted(block.reasons)
            ]
            if len(block.reasons) < len(names):
                if taking is None:
                    taking = self._begin(writer, manifest)
                self._take(taking, block, start)
            start += len(names)
            self._job.on_progress(start, len(self._names))
        self._sum_up(taking)
        return taking is not None

    def _begin(self, writer: StoreWriter, manifest: VectorsManifest) -> Taking:
        """Begin to write only when there is something: a file of which nothing can be used leaves the collection as it was."""
        writer.begin_vectors(manifest)
        writer.set_meta("vectors_key", manifest.key)
        taking = Taking(writer, manifest)
        folder = b"" if self._job.pictures is None else os.path.realpath(os.fsencode(self._job.pictures))
        self._found = match_names(self._names, self._pictures, folder)
        # Without their pictures, names may still mean images whose files are known: those that have the very same vector.
        others = [name for name in self._names if name not in self._found]
        self._known = match_names(others, [path for path, record in taking.known.items() if record.has_file])
        settings = self._job.settings
        limits = Limits(settings.max_bytes, settings.max_pixels, settings.max_frames)
        self._reader = Reader(None, limits, settings.thumbnail_size, taking.complete(), taking.is_unchanged)
        return taking

    def _take(self, taking: Taking, block: Block, start: int) -> None:
        good = [place for place in range(len(block.vectors)) if place not in block.reasons]
        names = [self._names[start + place] for place in good]
        seen = self._look_at([name for name in names if name in self._found], taking)
        for place, name in zip(good, names, strict=True):
            vector, label = block.vectors[place], self._source.labels[start + place]
            picture = seen.get(name)
            if picture is not None and picture.record is not None:
                taking.take(Item(name, vector, label, picture.record, picture.thumbnail))
                self._report.with_picture += 1
                continue
            same = taking.known.get(self._known.get(name, b""))
            if same is not None and taking.has_vector(same, vector):
                taking.take(Item(name, vector, label, replace(same, image_id=0)))
                self._report.with_picture += 1
            else:
                taking.take(Item(name, vector, label))
        taking.commit()

    def _look_at(self, names: list[str], taking: Taking) -> dict[str, Seen]:
        """Read the pictures of `names`; one that cannot be read is noted, and its image has no picture."""
        files = [File(self._found[name], taking.known.get(self._found[name])) for name in names]
        with ThreadPoolExecutor(self._job.settings.cpu_threads, thread_name_prefix="decode") as readers:
            seen = dict(zip(names, readers.map(self._reader.read, files), strict=True))
        bad = [
            name for name, picture in seen.items() if picture.record is None or picture.record.error_code is not None
        ]
        self._unreadable += bad
        return {name: picture for name, picture in seen.items() if name not in set(bad)}

    def _sum_up(self, taking: Taking | None) -> None:
        report, total = self._report, len(self._names)
        report.bad = len(report.failures)
        if report.bad == total:
            first = report.failures[0]
            raise VectorsFileError(
                f"None of the {total:,} vectors in {self._job.source} can be used. {first.path}: {first.reason}"
            )
        if taking is not None:
            report.new, report.changed, report.unchanged = (
                taking.added.new,
                taking.added.changed,
                taking.added.unchanged,
            )
        if self._unreadable:
            self._note(
                f"{len(self._unreadable):,} pictures were found but cannot be read as images, {self._unreadable[0]} among them: "
                "their images are searched without a picture."
            )
        if self._pictures and taking is not None and len(self._found) < total:
            self._note(
                f"{total - len(self._found):,} of {total:,} pictures were not found below {self._job.pictures} (or several files "
                "could be meant): their images are searched without a picture."
            )

    def _note(self, text: str) -> None:
        self._report.notes.append(text)
        self._job.on_note(text)
