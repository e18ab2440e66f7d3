"""The pipeline of the offline job: files are read and decoded in threads, beside inference, in bounded memory.

Owns reading one file (hash first, so that known contents cost no decoding) and the order of things: results come out in the
order of the files, whatever finished first. Does not own what is done with them (`img2vec`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from backbones import BackboneRow, Outputs
from errors import EmptyFileError, ImageError, NotAnImageError, TooManyBytesError, UnreadableFileError
from images import DecodedImage, Limits, Prepared, Wanted, decode_image, make_thumbnail, prepare, sniff_format
from store import Record

IN_MEMORY_BYTES = 32_000_000
"""Files up to this size are read once, for the hash and the decoder; larger ones are streamed twice."""

SLOTS = 1_000
"""Files that may wait behind one whose batch is not full yet."""

Prepare = Callable[[bytes | BinaryIO, Wanted], Prepared]
"""What makes pixels and a thumbnail of a file. Raises `ImageError`."""


@dataclass(frozen=True)
class File:
    """One file to look at: how the catalog knows it, if it does."""

    path: bytes
    known: Record | None


@dataclass
class Seen:
    """One file after reading. `record` is None for what is no image; with `outputs`, the network has seen it at `place`."""

    file: File
    record: Record | None
    pixels: npt.NDArray[np.uint8] | None = None
    thumbnail: bytes | None = None
    outputs: Future[Outputs] | None = None
    place: int = 0


def show_path(path: bytes) -> str:
    """Return a path for people and JSON: valid Unicode, whatever the file name's bytes."""
    return path.decode("utf-8", "backslashreplace")


def folder_name(path: bytes) -> str:
    """Return the name of the folder that a file lies in: its label, unless a person gives another one."""
    return show_path(os.path.basename(os.path.dirname(path)))


def failed(record: Record, error: ImageError) -> Record:
    """Return `record` with the reason why it is no image."""
    return replace(record, error_code=error.code, error=str(error))


def same_contents(record: Record, twin: Record) -> Record:
    """Return `record` with what is known of `twin`, a file of the same bytes."""
    return replace(
        record,
        format=twin.format,
        width=twin.width,
        height=twin.height,
        taken_at=twin.taken_at,
        error_code=twin.error_code,
        error=twin.error,
    )


@dataclass(frozen=True)
class Reader:
    """Reads one file, in a decoding thread: thread-safe.

    `is_unchanged(file, size, mtime_ns)` tells that the catalog needs nothing of a file; `complete` maps contents (SHA-256) that
    need no decoding to the records that have them. Without `row` no network is to see the files, and there are no pixels.
    `prepare` makes pixels and thumbnail where a network is: here, unless another way is given.
    """

    row: BackboneRow | None
    limits: Limits
    thumbnail_size: int
    complete: Mapping[bytes, list[Record]]
    is_unchanged: Callable[[File, int, int], bool]
    prepare: Prepare = prepare

    def read(self, file: File) -> Seen:
        """Look at one file. Never raises for what is wrong with the file: that stands in the record."""
        size, mtime_ns = 0, 0
        try:
            status = os.stat(file.path)
            size, mtime_ns = status.st_size, status.st_mtime_ns
            if self.is_unchanged(file, size, mtime_ns):
                return Seen(file, file.known)
            return self._decode(file, Record(file.path, size, mtime_ns, label=folder_name(file.path)))
        except NotAnImageError as error:
            if file.known is None:
                return Seen(file, None)
            was_one = NotAnImageError(f"The file was an image and is none any more. {error}")
            return Seen(file, failed(Record(file.path, size, mtime_ns), was_one))
        except (OSError, MemoryError) as error:
            reason = "there is not enough memory" if isinstance(error, MemoryError) else error.strerror or error
            unreadable = UnreadableFileError(f"The file cannot be read: {reason}.")
            return Seen(file, failed(Record(file.path, size, mtime_ns, label=folder_name(file.path)), unreadable))

    def _decode(self, file: File, record: Record) -> Seen:
        with open(file.path, "rb") as opened:
            picture_format = sniff_format(opened.read(64))
            if picture_format is None:
                raise (EmptyFileError if record.size == 0 else NotAnImageError)("The contents are of no image format.")
            if record.size > self.limits.max_bytes:
                too_large = TooManyBytesError(
                    f"The file has {record.size:,} bytes, the limit max_bytes is {self.limits.max_bytes:,}. Raise it with "
                    "--max-bytes to index this file."
                )
                return Seen(file, failed(record, too_large))
            opened.seek(0)
            content = opened.read() if record.size <= IN_MEMORY_BYTES else None
            digest = hashlib.sha256(content) if content is not None else hashlib.file_digest(opened, "sha256")
            record = replace(record, sha256=digest.digest())
            twins = self.complete.get(digest.digest())
            if twins:
                return Seen(file, same_contents(record, twins[0]))
            opened.seek(0)
            try:
                known_format = replace(record, format=picture_format)
                return self._with_pixels(file, known_format, content if content is not None else opened)
            except ImageError as error:
                return Seen(file, failed(record, error))

    def _with_pixels(self, file: File, record: Record, source: bytes | BinaryIO) -> Seen:
        row, pixels = self.row, None
        made: DecodedImage | Prepared
        if row is None:
            made = decode_image(source, self.limits, min_side=self.thumbnail_size)
            thumbnail: bytes | None = make_thumbnail(made.image, self.thumbnail_size)
        else:
            made = self.prepare(source, Wanted(self.limits, row.input_size, row.resample, self.thumbnail_size))
            pixels, thumbnail = made.pixels, made.thumbnail
        record = replace(record, width=made.width, height=made.height, taken_at=made.taken_at)
        return Seen(file, record, pixels, thumbnail)


@dataclass(frozen=True)
class Pipeline:
    """Decoding threads -> batches -> inference threads. Memory is bounded by windows, not by the number of files.

    `wants_vector(seen)` is asked for each decoded file, in order, in the caller's thread; `run` takes uint8 (n, h, w, 3)
    and must be thread-safe. When `stop` is set, what is under way is finished and nothing new is begun.
    """

    read: Callable[[File], Seen]
    wants_vector: Callable[[Seen], bool]
    run: Callable[[npt.NDArray[np.uint8]], Outputs]
    workers: int
    batch_size: int
    stop: threading.Event

    @property
    def batches_ahead(self) -> int:
        """How far reading and inference go ahead: enough work for all threads while the caller waits for a disk to sync."""
        return 2 * self.workers + 4

    def results(self, files: Iterable[File]) -> Iterator[Seen]:
        """Yield every file, in order, when all that is to be known of it is known."""
        with contextlib.ExitStack() as stack:
            readers = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
            stack.callback(readers.shutdown, cancel_futures=True)
            inference = ThreadPoolExecutor(self.workers, thread_name_prefix="inference")
            stack.callback(inference.shutdown, cancel_futures=True)
            yield from _Ordering(self, inference).results(self._seen(readers, files))

    def _seen(self, readers: ThreadPoolExecutor, files: Iterable[File]) -> Iterator[Seen]:
        """Yield files after reading, in order; only a window of them is ever read ahead."""
        window: deque[Future[Seen]] = deque()
        ahead = self.batches_ahead * self.batch_size
        for file in files:
            if self.stop.is_set():
                break
            window.append(readers.submit(self.read, file))
            if len(window) > ahead:
                yield window.popleft().result()
        while window:
            future = window.popleft()
            if not (self.stop.is_set() and future.cancel()):
                yield future.result()


class _Ordering:
    """Collects batches for the network and hands files out in the order in which they came."""

    def __init__(self, pipeline: Pipeline, inference: ThreadPoolExecutor) -> None:
        self._pipeline = pipeline
        self._inference = inference
        self._waiting: list[Seen] = []  # decoded, their batch not full yet
        self._slots: deque[Seen] = deque()  # all files that were not handed out yet
        self._running: list[Future[Outputs]] = []

    def results(self, arriving: Iterator[Seen]) -> Iterator[Seen]:
        batches_ahead = self._pipeline.batches_ahead
        for seen in arriving:
            if seen.pixels is not None:
                if self._pipeline.wants_vector(seen):
                    self._waiting.append(seen)
                else:
                    seen.pixels = seen.thumbnail = None
            self._slots.append(seen)
            if len(self._waiting) == self._pipeline.batch_size or len(self._slots) > SLOTS:
                self._infer()
            yield from self._finished(batches_ahead)
        self._infer()
        yield from self._finished(0)

    def _infer(self) -> None:
        if not self._waiting:
            return
        batch = np.stack([seen.pixels for seen in self._waiting if seen.pixels is not None])
        outputs = self._inference.submit(self._pipeline.run, batch)
        self._running.append(outputs)
        for place, seen in enumerate(self._waiting):
            seen.outputs, seen.place, seen.pixels = outputs, place, None
        self._waiting = []

    def _finished(self, batches_ahead: int) -> Iterator[Seen]:
        """Hand out files from the front; wait for the network while more than `batches_ahead` batches are under way."""
        while self._slots:
            head = self._slots[0]
            if head.pixels is not None:
                return
            if head.outputs is not None and not head.outputs.done():
                self._running = [outputs for outputs in self._running if not outputs.done()]
                if len(self._running) <= batches_ahead and len(self._slots) <= 2 * SLOTS:
                    return
                head.outputs.exception()  # waits
            yield self._slots.popleft()
