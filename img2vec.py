"""The offline job: files -> vectors -> store -> index.

Owns which files need work (size and time, then SHA-256), what is remembered of each, and the report. Does not own the choice of
a network (`networks`), the threads (`pipeline`), decoding (`images`), networks themselves (`backbones`), disk formats (`store`)
or the index (`ann`).

    python img2vec.py "mirflickr/*"
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import Backbone, Outputs
from config import Settings
from errors import (
    DamagedImageError,
    DiskFullError,
    ImageLimitError,
    NoNetworkError,
    UnreadableFileError,
)
from images import Limits, prepare
from networks import choose_network, load_network, row_of, vectors_manifest
from pipeline import File, Pipeline, Prepare, Reader, Seen, failed, folder_name, same_contents, show_path
from publishing import publish
from store import IMPORTED_BACKBONE, Batch, Record, StoreWriter, VectorsManifest, is_label_given, open_writer

COMMIT_IMAGES = 64
COMMIT_SECONDS = 2.0
LABELS_KEPT = 5
LAST_RUN = "last_run"
"""Where the catalog says how the last run ended: `RUN_FACTS` of its report, and when, `ended_at`. No paths."""
RUN_FACTS = (
    *("new", "changed", "moved", "unchanged", "failed", "skipped", "gone", "removed"),
    *("vectorised", "seconds", "images_per_second", "interrupted"),
)
LIMIT_CODES = tuple(error.code for error in ImageLimitError.__subclasses__())
PICTURE_EXTENSIONS = frozenset(
    b".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .jpf .j2c .heic .heif .hif .avif".split()
)


@dataclass(frozen=True)
class Progress:
    """How far the job is: files looked at of all, and those that were newly vectorised."""

    done: int
    total: int
    vectorised: int


@dataclass(frozen=True)
class Failure:
    """A file that could not become an image, and why; `path` is for showing (valid Unicode)."""

    path: str
    code: str
    reason: str


@dataclass
class Report:
    """What one run of the job did. Counts are of files; `images` is how many the collection can find now.

    `seconds` are of the whole job; `images_per_second` is the pace between loading the network and building the index.
    """

    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    failed: int = 0
    known_failures: int = 0
    skipped: int = 0
    gone: int = 0
    removed: int = 0
    vectorised: int = 0
    images: int = 0
    seconds: float = 0.0
    loading_seconds: float = 0.0
    index_seconds: float = 0.0
    images_per_second: float = 0.0
    backbone: str = ""
    layer: str = ""
    weights_sha256: str = ""
    engine: str = ""
    precision: str = ""
    index: dict[str, Any] = field(default_factory=dict)
    reclaimed_bytes: int = 0
    rsc_files: str = ""
    interrupted: bool = False
    failures: list[Failure] = field(default_factory=list)
    skipped_pictures: list[str] = field(default_factory=list)
    gone_paths: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """What to do in one run; the settings say how. `on_progress`, `on_note` and `on_step` are called in the caller's thread.

    `prune` tells which images are taken out if their files are gone, `remove` which are taken out anyhow, by path. `backbone`
    is a network that is loaded already: it is used where it is the one that is wanted. `prepare` decodes: here, unless another
    way is given.
    """

    settings: Settings
    paths: list[bytes]
    prune: Callable[[bytes], bool] | None = None
    remove: Callable[[bytes], bool] | None = None
    compact: bool = False
    retry_failures: bool = False
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_note: Callable[[str], None] = lambda note: None
    on_step: Callable[[str], None] = lambda step: None
    stop: threading.Event = field(default_factory=threading.Event)
    backbone: Backbone | None = None
    prepare: Prepare = prepare


def index_images(job: Job) -> Report:
    """Bring the collection of `job.settings.rsc_files` up to date with `job.paths` and publish its index.

    Bad files are recorded and reported, never raised. Raises `CollectionLockedError`, `WeightsUnavailableError`,
    `CollectionMismatchError`, `DiskFullError` and other `LookalikeError`s that concern the whole job.
    """
    with open_writer(job.settings.rsc_files, command="img2vec.py") as writer:
        return index_into(writer, job)


def index_into(writer: StoreWriter, job: Job) -> Report:
    """Do what `index_images` does, in a collection that the caller holds open for writing."""
    started = time.perf_counter()
    report = Report(rsc_files=str(job.settings.rsc_files.absolute()))
    _Indexing(job, writer, report).run()
    report.seconds = round(time.perf_counter() - started, 3)
    working = report.seconds - report.loading_seconds - report.index_seconds
    report.images_per_second = round(report.vectorised / working, 1) if working > 0 else 0.0
    told = {name: getattr(report, name) for name in RUN_FACTS} | {"ended_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    writer.set_meta(LAST_RUN, json.dumps(told))
    return report


class _Indexing:
    """One run of the job over an open writer."""

    def __init__(self, job: Job, writer: StoreWriter, report: Report) -> None:
        self.job = job
        self.settings = job.settings
        self.writer = writer
        self.report = report
        self.limits = Limits(job.settings.max_bytes, job.settings.max_pixels, job.settings.max_frames)
        self.backbone: Backbone | None = None
        self.batch = Batch()
        # Contents whose vector is on its way to the next commit; contents that lie on disk, with the records that have them.
        self.pending: dict[bytes, Record] = {}
        self.complete: dict[bytes, list[Record]] = {}
        self.moved_ids: set[int] = set()
        self.passing_failures: list[Failure] = []
        self.committed_at = time.monotonic()

    def run(self) -> None:
        """Look at every file, commit as it goes, publish at the end."""
        self._remove()
        self.network = choose_network(self.settings, self.writer, self._note)
        known = {record.path: record for record in self.writer.all_records()}
        self._refuse_impossible(known)
        self._begin_vectors()
        files = self._files(known)
        self._read_what_is_complete(known.values())
        try:
            self._look_at(files)
        except DiskFullError:
            self.job.stop.set()  # nothing more is begun, no index is built; what was committed may still be published
            with contextlib.suppress(DiskFullError):
                self._finish()
            raise
        if not self.job.stop.is_set():
            self._look_for_gone(known.values())
        self._finish()

    def _note(self, text: str) -> None:
        self.report.notes.append(text)
        self.job.on_note(text)

    def _remove(self) -> None:
        if self.job.remove is None:
            return
        ids = [record.image_id for record in self.writer.all_records() if self.job.remove(record.path)]
        if not ids:
            self._note(
                "Nothing in the collection matches what was to be removed. Paths are compared as --json shows them."
            )
        self.writer.remove(ids)
        self.report.removed = len(ids)

    def _refuse_impossible(self, known: dict[bytes, Record]) -> None:
        """Raise `NoNetworkError` where vectors are needed that no network can make: of new files, or of images without files."""
        if self.network.backbone == IMPORTED_BACKBONE:
            added = [path for path in self.job.paths if path not in known]
            if added and self.job.prune is None:
                raise NoNetworkError(
                    f"{len(added):,} files are not in the collection yet, {show_path(added[0])} among them. Its vectors came "
                    "from elsewhere, and no network here could make one of a new picture that compares with them. Import their "
                    "vectors too (--import-vectors), or choose a network for all images that have files (--backbone)."
                )
            return
        is_new = self.network.key not in self.writer.vector_keys()
        if is_new and known and not self.job.paths and not any(record.has_file for record in known.values()):
            raise NoNetworkError(
                f"No image of this collection has a file that {self.network.backbone} could look at. If its vectors were "
                "imported, import them again with their pictures: --import-vectors FILE --pictures FOLDER."
            )

    def _begin_vectors(self) -> None:
        key = self.network.key
        self.writer.begin_vectors(self._manifest(key))
        self.writer.set_meta("vectors_key", key)

    def _manifest(self, key: str) -> VectorsManifest:
        if self.network.backbone == IMPORTED_BACKBONE:
            return self.writer.manifest(key)
        return vectors_manifest(self.network, row_of(self.network, self.settings))

    def _files(self, known: dict[bytes, Record]) -> list[File]:
        """Files to look at: those found, then failures to be retried and what this network has not seen (another backbone)."""
        if self.network.backbone == IMPORTED_BACKBONE:
            return []
        named = dict.fromkeys(self.job.paths)
        seen = self.writer.vector_hashes(self.network.key)
        without_file = 0
        for record in known.values():
            wanted = record.sha256 not in seen if record.error_code is None else self.job.retry_failures
            without_file += wanted and not record.has_file
            if wanted and record.has_file and os.path.exists(record.path):
                named.setdefault(record.path)
        if without_file:
            self._note(
                f"{without_file:,} images have no file, so {self.network.backbone} cannot make vectors of them: they are not "
                "found as long as the collection is searched by it."
            )
        return [File(path, known.get(path)) for path in named]

    def _read_what_is_complete(self, known: Iterable[Record]) -> None:
        """Collect the contents that need no decoding, and which failures are worth another try."""
        seen = self.writer.vector_hashes(self.network.key) & self.writer.thumbnail_hashes()
        for record in known:
            if record.error_code is None and record.sha256 in seen:
                self.complete.setdefault(record.sha256, []).append(record)
        self.retried_codes: tuple[str, ...] = (UnreadableFileError.code,)
        if self.writer.meta("limits") != repr(self.limits):
            self.retried_codes += LIMIT_CODES

    def _is_unchanged(self, file: File, size: int, mtime_ns: int) -> bool:
        """Tell whether the catalog already says all there is to say about a file of this size and time."""
        known = file.known
        if known is None or (known.size, known.mtime_ns) != (size, mtime_ns):
            return False
        if known.error_code is not None:
            return not self.job.retry_failures and known.error_code not in self.retried_codes
        return known.sha256 in self.complete

    def _look_at(self, files: list[File]) -> None:
        settings = self.settings
        row = None if self.network.backbone == IMPORTED_BACKBONE else row_of(self.network, settings)
        reader = Reader(row, self.limits, settings.thumbnail_size, self.complete, self._is_unchanged, self.job.prepare)
        pipeline = Pipeline(
            reader.read, self._wants_vector, self._run_network, settings.cpu_threads, settings.batch_size, self.job.stop
        )
        for done, seen in enumerate(pipeline.results(files), start=1):
            self._settle(seen)
            overdue = time.monotonic() - self.committed_at > COMMIT_SECONDS
            if len(self.batch) >= COMMIT_IMAGES or (len(self.batch) and overdue):
                self._commit()
            self.job.on_progress(Progress(done, len(files), self.report.vectorised))
        self._commit()

    def _wants_vector(self, seen: Seen) -> bool:
        """Tell whether a decoded file's contents are new; loads the network when the first one is."""
        sha256 = seen.record.sha256 if seen.record is not None else None
        if seen.record is None or sha256 is None or sha256 in self.pending or sha256 in self.complete:
            return False  # equal bytes at another path of this run
        self.pending[sha256] = seen.record
        if self.backbone is None:
            started = time.perf_counter()
            self.backbone = self._load_backbone()
            self.report.loading_seconds = round(time.perf_counter() - started, 3)
        return True

    def _load_backbone(self) -> Backbone:
        given = self.job.backbone
        if given is not None and given.network == self.network:
            return given
        return load_network(self.network, self.settings, self.writer.models_folder, batch_size=self.settings.batch_size)

    def _run_network(self, batch: npt.NDArray[np.uint8]) -> Outputs:
        if self.backbone is None:
            raise ValueError("a batch came before its network")
        return self.backbone.run(batch)

    def _settle(self, seen: Seen) -> None:
        """Count one file and put what must be remembered of it into the batch."""
        record, known, report = seen.record, seen.file.known, self.report
        if record is None:
            report.skipped += 1
            if os.path.splitext(seen.file.path)[1].lower() in PICTURE_EXTENSIONS:
                report.skipped_pictures.append(show_path(seen.file.path))
        elif record is known:
            report.unchanged += record.error_code is None
            report.known_failures += record.error_code is not None
        else:
            if seen.outputs is not None:
                record = self._take_outputs(seen.outputs.result(), seen, record)
            elif record.error_code is None and record.sha256 in self.pending:
                record = same_contents(record, self.pending[record.sha256])  # its twin may have failed in the network
            self._count_and_keep(record, known)

    def _take_outputs(self, outputs: Outputs, seen: Seen, record: Record) -> Record:
        """Take a file's vector out of its batch's outputs; a vector that is no number is the file's failure."""
        sha256 = record.sha256 or b""
        vector = outputs.vectors[seen.place]
        with np.errstate(over="ignore"):
            finite = bool(np.isfinite(vector.astype(np.float16)).all())
        if not finite:
            self.pending[sha256] = failed(
                record, DamagedImageError("The network gives no finite vector for this image.")
            )
            return self.pending[sha256]
        self.batch.vectors[sha256] = vector
        self.batch.thumbnails[sha256] = seen.thumbnail or b""
        if outputs.scores is not None:
            self.batch.labels[sha256] = list(best_classes(outputs.scores[seen.place]))
        self.report.vectorised += 1
        return record

    def _count_and_keep(self, record: Record, known: Record | None) -> None:
        report = self.report
        if record.error_code is not None:
            report.failed += 1
            unreadable = record.error_code == UnreadableFileError.code
            if unreadable and known is not None and known.error_code is None:
                # A disk that fails or is locked must not take an image out of the collection.
                self.passing_failures.append(_failure(record))
                return
        elif known is None:
            moved_from = self._moved_from(record)
            if moved_from is not None:
                report.moved += 1
                # A label that was the old folder's name becomes the new one's; one that it came with stays.
                own = moved_from.label != folder_name(moved_from.path)
                if own and not is_label_given(self.writer, moved_from.image_id):  # else the writer keeps it
                    record = replace(record, label=moved_from.label)
                self.batch.moved.append((moved_from.image_id, record))
                return
            report.new += 1
        elif known.sha256 == record.sha256 and known.error_code is None:
            report.unchanged += 1
        else:
            report.changed += 1
        self.batch.records.append(record)

    def _moved_from(self, record: Record) -> Record | None:
        """Return the record of a file that is gone and had the same bytes: then this one is that image at a new place.

        Only when its disk is there: a copy elsewhere must not take the place of a picture on a disk that is not mounted.
        """
        twins = self.complete.get(record.sha256 or b"", [])
        for place, twin in enumerate(twins):
            if twin.image_id and is_gone(twin.path) and _could_move(twin.path, record.path):
                twins[place] = replace(record, image_id=0)
                self.moved_ids.add(twin.image_id)
                return twin
        return None

    def _commit(self) -> None:
        if len(self.batch):
            self.writer.commit(self.network.key, self.batch)
        for sha256 in self.batch.vectors:
            self.complete[sha256] = [self.pending.pop(sha256)]
        self.batch = Batch()
        self.committed_at = time.monotonic()

    def _look_for_gone(self, known: Iterable[Record]) -> None:
        """Report images whose files are gone, or take them out with `prune`. A failure whose file is gone is forgotten."""
        gone = [record for record in known if record.image_id not in self.moved_ids and is_gone(record.path)]
        images = [record for record in gone if record.error_code is None]
        prune = self.job.prune
        pruned = {record.image_id for record in images if prune is not None and prune(record.path)}
        self.writer.remove(pruned | {record.image_id for record in gone if record.error_code is not None})
        self.report.removed += len(pruned)
        self.report.gone = len(images) - len(pruned)
        self.report.gone_paths = [show_path(record.path) for record in images if record.image_id not in pruned]

    def _finish(self) -> None:
        report = self.report
        report.failures = [_failure(record) for record in self.writer.failures()] + self.passing_failures
        report.backbone, report.layer = self.network.backbone, self.network.layer
        report.weights_sha256 = self.network.weights_sha256
        if self.backbone is not None:
            report.engine, report.precision = self.backbone.engine, self.backbone.precision
            self.backbone = None  # before the index is built, so that their memory does not add up
        if not self.job.stop.is_set():
            self.writer.set_meta("limits", repr(self.limits))
            if self.job.compact:
                report.reclaimed_bytes = self.writer.compact()
        started = time.perf_counter()
        job = self.job
        manifest = publish(
            self.writer, self.network.key, job.settings, stop=job.stop, on_note=self._note, on_step=job.on_step
        )
        report.images = len(self.writer.snapshot(self.network.key)) if manifest is None else manifest["images"]
        report.index = {} if manifest is None else manifest["index"]
        report.index_seconds = round(time.perf_counter() - started, 3)
        report.interrupted = self.job.stop.is_set()


def _failure(record: Record) -> Failure:
    return Failure(show_path(record.path), record.error_code or "", record.error or "")


def best_classes(scores: npt.NDArray[np.float32]) -> tuple[tuple[int, float], ...]:
    """Return class index and score of the best of `scores` (classes,), best first: what is kept of them."""
    best = np.argsort(scores)[::-1][:LABELS_KEPT]
    return tuple((int(number), float(scores[number])) for number in best)


def is_gone(path: bytes) -> bool:
    """Tell whether there is no such file. One that cannot be looked at (a locked folder, a failing disk) is not gone.

    Neither is the name of an image that never had a file.
    """
    if not path.startswith(b"/"):
        return False
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _could_move(before: bytes, after: bytes) -> bool:
    """Tell whether a file can have moved, as opposed to its disk not being mounted.

    Its folder still holds other things; or its folder was renamed, below the nearest one that is still there. An empty folder
    may be one that a disk is mounted on.
    """
    folder = os.path.dirname(before)
    if os.path.isdir(folder):
        return bool(os.listdir(folder))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return after.startswith(folder + b"/")  # never true of the root folder


if __name__ == "__main__":
    import sys

    from commands.img2vec import main

    sys.exit(main(sys.argv[1:]))
