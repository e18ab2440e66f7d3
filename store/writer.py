"""Writing a collection: one writer at a time, and nothing half-written whenever it is killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from errors import CollectionError, CollectionLockedError, DamagedCollectionError
from store.formats import (
    CATALOG_SCHEMA,
    FORMAT_VERSION,
    GENERATIONS_KEPT,
    RECORD_COLUMNS,
    THUMBNAIL_SCHEMA,
    VECTOR_DTYPE,
    Batch,
    Generation,
    Record,
    VectorsManifest,
    check_format_version,
    reporting_full_disk,
    sync_folder,
    write_durably,
)
from store.notes import given_labels
from store.reader import Store, damaged_catalog

COMPACT_CHUNK_ROWS = 4096
_UPSERT = (
    f"INSERT INTO images ({RECORD_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (path) DO UPDATE SET "
    "size=excluded.size, mtime_ns=excluded.mtime_ns, sha256=excluded.sha256, format=excluded.format, width=excluded.width, "
    "height=excluded.height, taken_at=excluded.taken_at, label=COALESCE(images.label, excluded.label), "
    "error_code=excluded.error_code, error=excluded.error"
)
_REPLACE = f"UPDATE images SET ({RECORD_COLUMNS}) = (?,?,?,?,?,?,?,?,?,?,?) WHERE image_id = ?"


class StoreWriter(Store):
    """The one process that may write to a collection. Use it through `open_writer`, in one thread."""

    def _open_database(self, name: str) -> sqlite3.Connection:
        connection = self._connect(name, "rwc")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _make_ready(self) -> None:
        """Create the tables that are missing; damaged thumbnails are made anew, a damaged catalog is refused."""
        try:
            self._create_thumbnails()
        except sqlite3.OperationalError:
            raise  # a lock, or the disk
        except sqlite3.DatabaseError:
            self.close()
            (self.folder / "thumbnails.sqlite").unlink()
            self._create_thumbnails()
        try:
            with _transaction(self.catalog) as catalog:
                if not self.has_tables():
                    for statement in CATALOG_SCHEMA.split(";"):
                        catalog.execute(statement)
                    catalog.execute("INSERT INTO meta VALUES ('format_version', ?)", (str(FORMAT_VERSION),))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise damaged_catalog(self.folder, error) from error
        version = self.meta("format_version")
        check_format_version(int(version) if version else None, self.folder / "catalog.sqlite")

    def _create_thumbnails(self) -> None:
        with _transaction(self._thumbnails) as thumbnails:
            thumbnails.execute(THUMBNAIL_SCHEMA)

    def set_meta(self, name: str, value: str) -> None:
        """Remember one word of the collection."""
        with reporting_full_disk(self.folder), _transaction(self.catalog) as catalog:
            catalog.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def begin_vectors(self, manifest: VectorsManifest) -> None:
        """Make the set of `manifest.key` ready to be appended to: create it, or cut off what a killed writer left."""
        folder = self.folder / "vectors" / manifest.key
        with reporting_full_disk(self.folder):
            if not (folder / "manifest.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_durably(folder / "manifest.json", json.dumps(asdict(manifest), indent=2))
            with _transaction(self.catalog) as catalog:
                catalog.execute(
                    "INSERT OR IGNORE INTO vector_sets (key, file, rows) VALUES (?, 'vectors.f16', 0)", (manifest.key,)
                )
            try:
                is_true = (
                    self.manifest(manifest.key).class_names == manifest.class_names
                )  # refuses another format version
            except DamagedCollectionError:
                is_true = False
            if not is_true:
                write_durably(folder / "manifest.json", json.dumps(asdict(manifest), indent=2))  # its key says the same
            self._recover(manifest)

    def _recover(self, manifest: VectorsManifest) -> None:
        """Hold the vectors file against the catalog. Bytes nobody names are cut off; rows without bytes are forgotten."""
        folder = self.folder / "vectors" / manifest.key
        set_id, file, rows = self._vector_set(manifest.key)
        for stray in folder.glob("*.f16"):
            if stray.name != file:
                stray.unlink()
        row_bytes = manifest.dim * VECTOR_DTYPE.itemsize
        with open(folder / file, "ab") as vectors:
            available = vectors.tell() // row_bytes
            if vectors.tell() > rows * row_bytes:
                vectors.truncate(rows * row_bytes)
        sync_folder(folder)
        if available < rows:
            # Their places will be taken by vectors of other images: in a file of another name, so that what was made of the old
            # ones (an index, projected vectors) is not taken for true.
            new_file = _next_vectors_file(file)
            shutil.copyfile(folder / file, folder / new_file)
            with open(folder / new_file, "rb") as vectors:
                os.fsync(vectors.fileno())
            sync_folder(folder)
            with _transaction(self.catalog) as catalog:
                catalog.execute("DELETE FROM vectors WHERE set_id = ? AND row >= ?", (set_id, available))
                catalog.execute(
                    "UPDATE vector_sets SET rows = ?, file = ? WHERE set_id = ?", (available, new_file, set_id)
                )
            (folder / file).unlink()

    def _vector_set(self, key: str) -> tuple[int, str, int]:
        row = self.catalog.execute("SELECT set_id, file, rows FROM vector_sets WHERE key = ?", (key,)).fetchone()
        return int(row[0]), str(row[1]), int(row[2])

    def commit(self, key: str, batch: Batch) -> None:
        """Write `batch` so that a crash leaves all of it or nothing. `begin_vectors` must have been called for `key`.

        Vectors are float32 (dim,) and are stored as float16. Raises `DiskFullError`; what was committed before stays.
        """
        with reporting_full_disk(self.folder):
            if batch.thumbnails:
                with _transaction(self._thumbnails) as thumbnails:
                    thumbnails.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", batch.thumbnails.items())
            set_id, file, rows = self._vector_set(key)
            self._append(self.folder / "vectors" / key / file, rows, batch)
            with _transaction(self.catalog) as catalog:
                _write_vectors(catalog, set_id, rows, batch)
                _replace(catalog, batch.moved, given_labels(self) if batch.moved else {})
                catalog.executemany(_UPSERT, [_values(record) for record in batch.records])

    def _append(self, path: Path, rows: int, batch: Batch) -> None:
        if not batch.vectors:
            return
        block = np.stack(list(batch.vectors.values())).astype(VECTOR_DTYPE)
        with open(path, "r+b") as vectors:
            # Not append mode: after a failed commit in this process the end of the file is not the end of what is committed.
            vectors.seek(rows * block.shape[1] * block.itemsize)
            vectors.write(block.tobytes())
            vectors.flush()
            os.fsync(vectors.fileno())

    def remove(self, image_ids: Iterable[int]) -> None:
        """Take images out of the catalog. Their vectors and thumbnails stay on disk until `compact`; files are never touched."""
        with reporting_full_disk(self.folder), _transaction(self.catalog) as catalog:
            catalog.executemany("DELETE FROM images WHERE image_id = ?", [(image_id,) for image_id in image_ids])

    def put_back(self, records: Iterable[Record]) -> None:
        """Put images that `remove` took out back in, under their old ids, which no other image was given.

        Labels, tags and places in named groups are theirs again. One whose path another image has by now stays out.
        """
        with reporting_full_disk(self.folder), _transaction(self.catalog) as catalog:
            catalog.executemany(
                f"INSERT OR IGNORE INTO images ({RECORD_COLUMNS}, image_id) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                [(*_values(record), record.image_id) for record in records],
            )

    def compact(self) -> int:
        """Reclaim the space of vectors and thumbnails that no image uses; return the bytes won.

        Readers that hold the old vectors file keep it until they let go. A crash leaves the old state or the new one.
        """
        before = self._bytes_on_disk()
        with reporting_full_disk(self.folder):
            for (key,) in self.catalog.execute("SELECT key FROM vector_sets").fetchall():
                self._compact_vectors(key)
            used = {row[0] for row in self.catalog.execute("SELECT sha256 FROM images WHERE error_code IS NULL")}
            unused = [(sha256,) for sha256 in self.thumbnail_hashes() - used]
            with _transaction(self._thumbnails) as thumbnails:
                thumbnails.executemany("DELETE FROM thumbnails WHERE sha256 = ?", unused)
            self._thumbnails.execute("VACUUM")
            self.catalog.execute("VACUUM")
        return before - self._bytes_on_disk()

    def _compact_vectors(self, key: str) -> None:
        manifest = self.manifest(key)
        self._recover(manifest)
        dim = manifest.dim
        folder = self.folder / "vectors" / key
        set_id, file, rows = self._vector_set(key)
        kept = self.catalog.execute(
            "SELECT sha256, row FROM vectors WHERE set_id = ? AND sha256 IN "
            "(SELECT sha256 FROM images WHERE error_code IS NULL) ORDER BY row",
            (set_id,),
        ).fetchall()
        if len(kept) == rows:
            return
        new_file = _next_vectors_file(file)
        old = np.memmap(folder / file, dtype=VECTOR_DTYPE, mode="r", shape=(rows, dim))
        order = np.array([row for _, row in kept], dtype=np.int64)
        with open(folder / new_file, "wb") as vectors:
            for start in range(0, len(order), COMPACT_CHUNK_ROWS):
                vectors.write(old[order[start : start + COMPACT_CHUNK_ROWS]].tobytes())
            vectors.flush()
            os.fsync(vectors.fileno())
        sync_folder(folder)
        with _transaction(self.catalog) as catalog:
            for table in ("vectors", "predicted_labels"):
                catalog.execute(
                    f"DELETE FROM {table} WHERE set_id = ? AND sha256 NOT IN "
                    "(SELECT sha256 FROM images WHERE error_code IS NULL)",
                    (set_id,),
                )
            catalog.executemany(
                "UPDATE vectors SET row = ? WHERE set_id = ? AND sha256 = ?",
                [(place, set_id, sha256) for place, (sha256, _) in enumerate(kept)],
            )
            catalog.execute("UPDATE vector_sets SET file = ?, rows = ? WHERE set_id = ?", (new_file, len(kept), set_id))
        (folder / file).unlink()

    def _bytes_on_disk(self) -> int:
        files = [
            self.folder / "catalog.sqlite",
            self.folder / "thumbnails.sqlite",
            *self.folder.glob("vectors/*/*.f16"),
        ]
        return sum(file.stat().st_size for file in files)

    def last_generation(self) -> Generation | None:
        """Return the published generation, or None when there is none that can be read: then another one is built."""
        try:
            return self.generation()
        except DamagedCollectionError:
            return None

    @contextlib.contextmanager
    def new_generation(self, manifest: dict[str, Any]) -> Iterator[Path]:
        """Give a folder to fill; when the block ends well, publish it with `manifest` (which the block may still change)."""
        previous = self.last_generation()
        number = 1 + max((_number(folder) for folder in self.index_folder.glob("gen-*")), default=0)
        # The process id keeps the child of a killed job, which may still be building, out of this one's folder.
        folder = self.index_folder / f"unfinished-{number:06d}-{os.getpid()}"
        with reporting_full_disk(self.folder):
            folder.mkdir(parents=True)
            try:
                yield folder
                self._publish(folder, number, {"format_version": FORMAT_VERSION, **manifest})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        self._forget_generations(number, previous)

    def _publish(self, folder: Path, number: int, manifest: Mapping[str, Any]) -> None:
        write_durably(folder / "manifest.json", json.dumps(manifest, indent=2))
        for path in folder.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        name = f"gen-{number:06d}"
        os.rename(folder, self.index_folder / name)
        sync_folder(self.index_folder)
        write_durably(self.index_folder / "CURRENT", name + "\n")

    def _forget_generations(self, number: int, previous: Generation | None) -> None:
        """Keep the newest two: a reader may be opening the one before."""
        kept = {number} | ({previous.number} if previous else set())
        for folder in sorted(self.index_folder.glob("gen-*"), key=_number)[:-GENERATIONS_KEPT]:
            if _number(folder) not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _next_vectors_file(file: str) -> str:
    _, _, number = file.removesuffix(".f16").partition("-")
    return f"vectors-{int(number or 1) + 1}.f16"


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _values(record: Record) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in RECORD_COLUMNS.split(", "))


def _write_vectors(catalog: sqlite3.Connection, set_id: int, rows: int, batch: Batch) -> None:
    catalog.executemany(
        "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
        [(set_id, sha256, rows + place) for place, sha256 in enumerate(batch.vectors)],
    )
    catalog.execute("UPDATE vector_sets SET rows = rows + ? WHERE set_id = ?", (len(batch.vectors), set_id))
    catalog.executemany(
        "INSERT OR REPLACE INTO predicted_labels VALUES (?, ?, ?, ?, ?)",
        [
            (set_id, sha256, rank, class_index, score)
            for sha256, labels in batch.labels.items()
            for rank, (class_index, score) in enumerate(labels)
        ],
    )


def _replace(catalog: sqlite3.Connection, moved: Iterable[tuple[int, Record]], given: Mapping[int, str]) -> None:
    """Replace records by image id. A label that a person gave stays; the record's is the image's own, kept beside it."""
    catalog.executemany(
        _REPLACE,
        [(*_values(replace(record, label=given.get(image_id, record.label))), image_id) for image_id, record in moved],
    )
    own = [(record.label, image_id) for image_id, record in moved if image_id in given]
    if own:
        catalog.executemany("UPDATE given_labels SET own = ? WHERE image_id = ?", own)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def open_writer(folder: Path, *, command: str) -> Iterator[StoreWriter]:
    """Hold the writer's lock of a collection, made if missing; `command` tells others who holds it.

    Raises `CollectionLockedError` at once when somebody else writes, `FormatVersionError`, `DiskFullError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CollectionError(
            f"The collection's folder {folder.absolute()} cannot be written to: {error.strerror}. Choose another one with "
            "--rsc-files, or mend its permissions."
        ) from error
    try:
        _take_lock(descriptor, folder, command)
        writer = StoreWriter(folder)
        try:
            with reporting_full_disk(folder):
                writer._make_ready()
            for unfinished in writer.index_folder.glob("unfinished-*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            yield writer
        finally:
            writer.close()
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, folder: Path, command: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 4096, 0).decode("utf-8", "replace").strip() or "another process"
        raise CollectionLockedError(
            f"{folder.absolute()} is being written by {holder}. Wait until it has finished, or stop it; "
            "searching goes on meanwhile."
        ) from None
    os.ftruncate(descriptor, 0)
    text = f"process {os.getpid()} ({command}) since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    os.pwrite(descriptor, text.encode("utf-8", "replace"), 0)
