"""The shapes of what lies on disk, and how bytes get there safely. Owns no connection and no lock."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import DiskFullError, FormatVersionError, ImageNotFoundError

FORMAT_VERSION = 1
IMPORTED_BACKBONE = "imported"
"""Stands in a manifest for a network that is not here: its vectors came from elsewhere."""

GENERATIONS_KEPT = 2
VECTOR_DTYPE = np.dtype("<f2")

CATALOG_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (
    image_id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 BLOB,
    format TEXT,
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    label TEXT,
    error_code TEXT,
    error TEXT
);
CREATE INDEX images_by_sha256 ON images (sha256);
CREATE TABLE vector_sets (
    set_id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    file TEXT NOT NULL,
    rows INTEGER NOT NULL
);
CREATE TABLE vectors (
    set_id INTEGER NOT NULL REFERENCES vector_sets,
    sha256 BLOB NOT NULL,
    row INTEGER NOT NULL,
    PRIMARY KEY (set_id, sha256)
) WITHOUT ROWID;
CREATE TABLE predicted_labels (
    set_id INTEGER NOT NULL REFERENCES vector_sets,
    sha256 BLOB NOT NULL,
    rank INTEGER NOT NULL,
    class_index INTEGER NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (set_id, sha256, rank)
) WITHOUT ROWID;
"""
THUMBNAIL_SCHEMA = "CREATE TABLE IF NOT EXISTS thumbnails (sha256 BLOB PRIMARY KEY, jpeg BLOB NOT NULL)"
RECORD_COLUMNS = "path, size, mtime_ns, sha256, format, width, height, taken_at, label, error_code, error"


@dataclass(frozen=True, slots=True)
class Record:
    """What the catalog knows of one image. `image_id` is 0 until the catalog has given one; with `error` there is no vector.

    `path` is the absolute path of its file, or, of an image that has none, its name, which does not begin with `/`: a
    vector that was imported without its picture, a picture that was held in memory. Then `size` and `mtime_ns` are 0.
    """

    path: bytes
    size: int
    mtime_ns: int
    sha256: bytes | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    label: str | None = None
    error_code: str | None = None
    error: str | None = None
    image_id: int = 0

    @property
    def has_file(self) -> bool:
        """Whether the image lies in a file; one that does not is never gone, and only its vector can be searched for."""
        return self.path.startswith(b"/")


@dataclass(frozen=True)
class VectorsManifest:
    """Which network made the vectors of one `vectors/<key>/`, and how.

    `class_names` are those of the classes that it tells apart, where they are not ImageNet's.
    """

    key: str
    backbone: str
    layer: str
    weights_sha256: str
    dim: int
    preprocessing: str
    format_version: int = FORMAT_VERSION
    class_names: list[str] | None = None

    @property
    def is_imported(self) -> bool:
        """Whether the vectors came from elsewhere, so that there is no network here to make one of a new picture."""
        return self.backbone == IMPORTED_BACKBONE


@dataclass(frozen=True)
class Snapshot:
    """The committed vectors of one set at one moment; it stays true while writers go on.

    `ids` int64 (n,) ascending image ids; `rows` int64 (n,) the row of each image in `matrix`, float16 (rows, dim), memory-mapped;
    images of equal contents share a row. `file` names the vectors file, so that row numbers can be compared between snapshots.
    """

    ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.float16]
    file: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Length of one vector."""
        return int(self.matrix.shape[1])

    def take(self, positions: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float32]:
        """Return the vectors of images `ids[positions]` as float32 (len(positions), dim)."""
        vectors = self.matrix[self.rows[positions]]
        return widened(vectors) if vectors.dtype == np.float16 else vectors.astype(np.float32)

    def position(self, image_id: int) -> int:
        """Return the place of `image_id` in `ids`; raises `ImageNotFoundError` when it has no vector here."""
        place = int(np.searchsorted(self.ids, image_id))
        if place == len(self.ids) or self.ids[place] != image_id:
            raise ImageNotFoundError(f"The collection has no searchable image {image_id}.")
        return place


@dataclass(frozen=True)
class Generation:
    """One finished, immutable set of things computed from one vectors key."""

    number: int
    folder: Path
    manifest: Mapping[str, Any]


@dataclass
class Batch:
    """What one commit writes: all of it or nothing. Vectors, thumbnails and labels are keyed by the contents' SHA-256.

    `records` are added, or replace those of the same path, whose labels stay; `moved` replaces all that is known of an image id.
    """

    records: list[Record] = field(default_factory=list)
    moved: list[tuple[int, Record]] = field(default_factory=list)
    vectors: dict[bytes, npt.NDArray[np.float32]] = field(default_factory=dict)
    thumbnails: dict[bytes, bytes] = field(default_factory=dict)
    labels: dict[bytes, list[tuple[int, float]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records) + len(self.moved)


WIDENED_AT_A_TIME = 65_536
"""Numbers that fit into a processor's cache with their copies."""


def widened(half: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Return finite float16 numbers (n, dim) as float32, exactly as `astype` does and five times as fast (numpy 2.4).

    numpy converts one number at a time. Here sign, exponent and fraction are moved to their places in 32 bits, and a product
    with 2^112 sets the exponent's offset right, for subnormal numbers too.
    """
    wide = np.empty(half.shape, dtype=np.float32)
    source, target = half.reshape(-1).view(np.uint16), wide.reshape(-1)
    for start in range(0, len(source), WIDENED_AT_A_TIME):
        signs = source[start : start + WIDENED_AT_A_TIME].astype(np.uint32)
        bits = signs & 0x7FFF
        bits <<= 13
        signs &= 0x8000
        signs <<= 16
        bits |= signs
        np.multiply(bits.view(np.float32), np.float32(2**112), out=target[start : start + WIDENED_AT_A_TIME])
    return wide


@contextlib.contextmanager
def reporting_full_disk(folder: Path) -> Iterator[None]:
    """Turn every way in which a disk says "full" into `DiskFullError`."""
    try:
        yield
    except OSError as error:
        short = error.errno is None and "requested and" in str(error)  # numpy's, where fewer bytes were written
        if not short and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskFullError(_full_disk_message(folder, error)) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise DiskFullError(_full_disk_message(folder, error)) from error


def _full_disk_message(folder: Path, error: Exception) -> str:
    free_mb = shutil.disk_usage(folder).free / 1e6
    return (
        f"The disk that holds {folder} cannot be written to ({error}; {free_mb:,.0f} MB free). Everything committed before is "
        "safe. Make room (or look after the disk, if it is not full) and run the same command again: it goes on where it was."
    )


def sync_folder(folder: Path) -> None:
    """Make names created or replaced in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Replace `path` in one step, so that a reader or a crash sees the old or the new contents, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def check_format_version(version: object, where: Path) -> None:
    """Raise `FormatVersionError` unless `version` is the one that this program reads and writes."""
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{where} has format version {version}, this program reads version {FORMAT_VERSION}. Use the "
            "program that wrote it, or index the pictures again into another folder (--rsc-files)."
        )
