"""Reading a collection: any number of readers, each thread with connections of its own. Never writes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from errors import CollectionMissingError, DamagedCollectionError, ImageNotFoundError
from store.filters import Filter, condition, no_classes, written
from store.formats import (
    RECORD_COLUMNS,
    VECTOR_DTYPE,
    Generation,
    Record,
    Snapshot,
    VectorsManifest,
    check_format_version,
)

BUSY_TIMEOUT_S = 30.0
ATTEMPTS = 5
"""How often a reader looks again when a writer replaced a file between two steps of reading."""

_Value = TypeVar("_Value")


def _record(row: Sequence[Any]) -> Record:
    return Record(*row)


def chunks(values: list[_Value]) -> Iterator[list[_Value]]:
    """SQLite bounds the number of parameters of one statement."""
    return (values[start : start + 500] for start in range(0, len(values), 500))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


class Store:
    """A collection on disk, for reading. Thread-safe: each thread (and each process after a fork) has its own connections."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._opened_lock = threading.Lock()

    @property
    def models_folder(self) -> Path:
        """Where networks converted for the inference engine are kept."""
        return self.folder / "models"

    @property
    def index_folder(self) -> Path:
        """Where generations are published."""
        return self.folder / "index"

    def close(self) -> None:
        """Close the connections of all threads. The store can be used again; it opens new ones."""
        with self._opened_lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
            self._local = threading.local()

    def _connect(self, name: str, mode: str) -> sqlite3.Connection:
        uri = f"{(self.folder / name).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
        )
        connection.create_function("written", 2, written, deterministic=True)
        with self._opened_lock:
            self._opened.append(connection)
        return connection

    def _connection(self, name: str) -> sqlite3.Connection:
        """Return this thread's connection to `name`; a connection must never cross a fork."""
        slot = f"{name}:{os.getpid()}"
        connection: sqlite3.Connection | None = getattr(self._local, slot, None)
        if connection is None:
            connection = self._open_database(name)
            setattr(self._local, slot, connection)
        return connection

    def _open_database(self, name: str) -> sqlite3.Connection:
        # Not mode=ro: a writer that was killed inside a commit leaves a journal, and whoever reads next has to roll it back.
        # Where the file cannot be written, SQLite opens it for reading all the same.
        connection = self._connect(name, "rw")
        connection.execute("PRAGMA query_only = ON")
        return connection

    @property
    def catalog(self) -> sqlite3.Connection:
        """This thread's connection to the catalog, for the modules of this package."""
        return self._connection("catalog.sqlite")

    @property
    def _thumbnails(self) -> sqlite3.Connection:
        return self._connection("thumbnails.sqlite")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the catalog."""
        connection = self.catalog
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def has_tables(self) -> bool:
        """Tell whether the catalog's first commit was made."""
        return self.catalog.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None

    def has_notes(self) -> bool:
        """Tell whether a name or a tag was ever given here; collections of an earlier version have no tables for them."""
        return self.catalog.execute("SELECT 1 FROM sqlite_master WHERE name = 'tags'").fetchone() is not None

    def record(self, image_id: int) -> Record:
        """Return the record of one image; raises `ImageNotFoundError`."""
        found = self.records([image_id])
        if image_id not in found:
            raise ImageNotFoundError(f"The collection has no image {image_id}.")
        return found[image_id]

    def record_at(self, path: bytes) -> Record | None:
        """Return the record of the image at exactly this path (or of this name, where it has no file), or None."""
        row = self.catalog.execute(f"SELECT {RECORD_COLUMNS}, image_id FROM images WHERE path = ?", (path,)).fetchone()
        return None if row is None else _record(row)

    def records(self, image_ids: Iterable[int]) -> dict[int, Record]:
        """Return the records of those of `image_ids` that exist."""
        found: dict[int, Record] = {}
        for chunk in chunks([int(image_id) for image_id in image_ids if abs(int(image_id)) < 2**63]):
            rows = self.catalog.execute(
                f"SELECT {RECORD_COLUMNS}, image_id FROM images WHERE image_id IN ({_marks(chunk)})", chunk
            )
            found.update((row[-1], _record(row)) for row in rows)
        return found

    def all_records(self) -> Iterator[Record]:
        """Return every record, by ascending image id."""
        rows = self.catalog.execute(f"SELECT {RECORD_COLUMNS}, image_id FROM images ORDER BY image_id")
        return (_record(row) for row in rows)

    def matching_ids(
        self, where: Filter, *, key: str, classes: Callable[[str], Iterable[int]] = no_classes
    ) -> npt.NDArray[np.int64]:
        """Return the ids of the images that `where` keeps, ascending, int64 (n,).

        `classes` returns the class indices that words stand for, as the network of the set `key` saw them.
        """
        has_notes = self.has_notes()
        if where.tag is not None and not has_notes:
            return np.empty(0, dtype=np.int64)
        sql, values = condition(where, key, classes, has_notes=has_notes)
        rows = self.catalog.execute(f"SELECT image_id FROM images WHERE {sql} ORDER BY image_id", values)
        return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def failures(self) -> list[Record]:
        """Return the records of files that could not become images, with their reasons."""
        rows = self.catalog.execute(
            f"SELECT {RECORD_COLUMNS}, image_id FROM images WHERE error_code IS NOT NULL ORDER BY path"
        )
        return [_record(row) for row in rows]

    def meta(self, name: str) -> str | None:
        """Return one remembered word of the collection, or None."""
        row = self.catalog.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def thumbnail(self, sha256: bytes) -> bytes | None:
        """Return the JPEG made at indexing for these contents, or None."""
        row = self._thumbnails.execute("SELECT jpeg FROM thumbnails WHERE sha256 = ?", (sha256,)).fetchone()
        return None if row is None else bytes(row[0])

    def thumbnail_hashes(self) -> set[bytes]:
        """Return the SHA-256 of all contents that have a thumbnail."""
        return {bytes(row[0]) for row in self._thumbnails.execute("SELECT sha256 FROM thumbnails")}

    def vector_keys(self) -> list[str]:
        """Return the keys of all sets of vectors, the first made first."""
        return [str(row[0]) for row in self.catalog.execute("SELECT key FROM vector_sets ORDER BY set_id")]

    def vector_hashes(self, key: str) -> set[bytes]:
        """Return the SHA-256 of all contents that have a vector in the set `key`."""
        return set(self.vector_rows(key))

    def vector_rows(self, key: str) -> dict[bytes, int]:
        """Return the row in the set `key` of each contents' vector, by SHA-256; nothing when there is no such set."""
        rows = self.catalog.execute(
            "SELECT sha256, row FROM vectors JOIN vector_sets USING (set_id) WHERE key = ?", (key,)
        )
        return {bytes(sha256): int(row) for sha256, row in rows}

    def predicted_labels(self, key: str, sha256s: Iterable[bytes]) -> dict[bytes, list[tuple[int, float]]]:
        """Return (class index, score) of the best classes of each contents, best first, as the network of `key` saw them."""
        labels: dict[bytes, list[tuple[int, float]]] = {}
        for chunk in chunks(list(sha256s)):
            rows = self.catalog.execute(
                "SELECT sha256, class_index, score FROM predicted_labels JOIN vector_sets USING (set_id) "
                f"WHERE key = ? AND sha256 IN ({_marks(chunk)}) ORDER BY sha256, rank",
                (key, *chunk),
            )
            for sha256, class_index, score in rows:
                labels.setdefault(bytes(sha256), []).append((class_index, score))
        return labels

    def manifest(self, key: str) -> VectorsManifest:
        """Return which network made the vectors of `key`; raises `FormatVersionError`, `DamagedCollectionError`."""
        path = self.folder / "vectors" / key / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_format_version(values.get("format_version"), path)
            return VectorsManifest(**values)
        except (OSError, ValueError, TypeError) as error:
            raise DamagedCollectionError(
                f"{path} cannot be read ({error}). Run `python img2vec.py --backbone {key.partition('-')[0]}`: it writes the "
                "file again."
            ) from error

    def snapshot(self, key: str) -> Snapshot:
        """Return the committed vectors of the set `key`, of those images that could be read."""
        dim = self.manifest(key).dim
        for _ in range(ATTEMPTS):
            with self._reading() as catalog:
                file, count = catalog.execute("SELECT file, rows FROM vector_sets WHERE key = ?", (key,)).fetchone()
                pairs = catalog.execute(
                    "SELECT image_id, row FROM images JOIN vectors USING (sha256) JOIN vector_sets USING (set_id) "
                    "WHERE key = ? AND error_code IS NULL ORDER BY image_id",
                    (key,),
                )
                flat = np.fromiter((number for pair in pairs for number in pair), dtype=np.int64)
            try:
                matrix = _map_vectors(self.folder / "vectors" / key / file, count, dim)
            except FileNotFoundError:
                continue  # compacted between the two steps: the catalog now names another file
            return Snapshot(flat[0::2].copy(), flat[1::2].copy(), matrix, f"{key}/{file}")
        raise DamagedCollectionError(
            f"The vectors file of {key} is gone from {self.folder}. Run `python img2vec.py` over the same pictures: it computes "
            "the vectors again."
        )

    def current_stamp(self) -> tuple[int, int] | None:
        """Return something that changes whenever another generation is published: cheap enough for every request."""
        try:
            status = os.stat(self.index_folder / "CURRENT")
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def generation(self) -> Generation | None:
        """Return the published generation, or None when there is none yet."""
        for _ in range(ATTEMPTS):
            try:
                name = (self.index_folder / "CURRENT").read_text(encoding="ascii").strip()
            except FileNotFoundError:
                return None
            folder = self.index_folder / name
            try:
                manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
                check_format_version(manifest.get("format_version"), folder)
                return Generation(int(name.removeprefix("gen-")), folder, manifest)
            except FileNotFoundError:
                continue  # replaced by a newer one between the two reads
            except (OSError, ValueError, AttributeError) as error:
                raise DamagedCollectionError(
                    f"The index in {folder} cannot be read ({error}). Run `python img2vec.py` again: it builds another one."
                ) from error
        raise DamagedCollectionError(
            f"{self.index_folder / 'CURRENT'} names a generation that is not there. Run `python img2vec.py` again: it builds "
            "another one."
        )


def _map_vectors(path: Path, count: int, dim: int) -> npt.NDArray[np.float16]:
    """Map `count` committed rows, read-only; never more, since a reader mapped past the end would die of SIGBUS."""
    available = path.stat().st_size // (dim * VECTOR_DTYPE.itemsize)
    if available < count:
        raise DamagedCollectionError(
            f"{path} holds {available:,} vectors, the catalog names {count:,}. Run `python img2vec.py` over the same pictures: "
            "it computes the missing ones again."
        )
    if count == 0:
        return np.empty((0, dim), dtype=np.float16)
    return np.memmap(path, dtype=VECTOR_DTYPE, mode="r", shape=(count, dim))


def damaged_catalog(folder: Path, error: sqlite3.Error) -> DamagedCollectionError:
    """Return the error that says what SQLite found, and what can be done."""
    return DamagedCollectionError(
        f"{folder / 'catalog.sqlite'} cannot be read: {error}. Put it back from a copy, or make the collection anew in another "
        "folder (--rsc-files)."
    )


def open_store(folder: Path) -> Store:
    """Open a collection for reading; raises `CollectionMissingError` or `FormatVersionError`."""
    store = Store(folder)
    missing = CollectionMissingError(
        f'There is no collection in {store.folder.absolute()}. Make one: python img2vec.py "folder/with/pictures/*"'
    )
    if not (store.folder / "catalog.sqlite").is_file():
        raise missing
    try:
        if not store.has_tables():
            raise missing  # its writer was killed before the first commit
        version = store.meta("format_version")
    except sqlite3.DatabaseError as error:
        store.close()
        raise damaged_catalog(store.folder, error) from error
    check_format_version(int(version) if version else None, store.folder / "catalog.sqlite")
    return store
