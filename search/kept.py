"""What is kept of an upload for a while, so that its results have an address: its vector and a small picture, nothing else.

Owns a SQLite file in the run-time folder that all processes of a service share. Does not own the pictures (never written), nor
what a vector means. A key is random and names one upload; whoever has it can search by it and see the small picture.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sqlite3
import stat
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from config import Settings
from errors import SettingsError, UploadGoneError
from search.queries import Box
from vectors import Vectors

FILE_NAME = "uploads.sqlite"
MOST_KEPT = 20_000
"""Uploads kept at once; the oldest go first. One is about 20 kB."""
TOUCH_SECONDS = 60.0
"""How much older than now the time of the last look may be: looking again within it writes nothing."""
KEY = re.compile(r"u[A-Za-z0-9_-]{22}", re.ASCII)


@dataclass(frozen=True)
class KeptUpload:
    """What is kept of one picture: its vector float32 (dim,), made by the network `vectors_key`, and a small JPEG of all of it.

    `width` and `height` are of the picture in pixels; `box` is the part of it that the vector is of.
    """

    vectors_key: str
    vector: Vectors
    thumbnail: bytes
    width: int
    height: int
    box: Box | None = None


def run_folder(settings: Settings) -> Path:
    """Return the folder for what lives as long as the service, made if missing, for this user alone; the same in every process.

    Raises `SettingsError` where it belongs to somebody else.
    """
    folder = settings.run_folder
    if folder is None:
        name = blake2b(os.fsencode(settings.rsc_files.absolute()), digest_size=8).hexdigest()
        folder = Path(tempfile.gettempdir()) / f"lookalike-{os.getuid()}-{name}"
    try:
        folder.mkdir(mode=0o700, parents=settings.run_folder is not None, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SettingsError(f"run_folder {folder} cannot be made: {error.strerror}. Name another one.") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise SettingsError(
            f"run_folder {folder} belongs to somebody else or can be written by others. Remove it or name another one."
        )
    return folder


class KeptUploads:
    """Uploads by their keys. Thread-safe, and shared with every other process that opens the same folder."""

    def __init__(self, folder: Path, minutes: int) -> None:
        self._folder = folder
        self._seconds = 60.0 * minutes
        self._timer: threading.Timer | None = None
        self._timing = threading.Lock()
        self.forget()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._folder / FILE_NAME, timeout=10)
        # The folder is on this machine and the content worth little, but what is forgotten shall be gone.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA secure_delete = ON")
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'uploads_seen'").fetchone():
            self._begin(connection)
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Make the tables: at the start, or when something has cleaned up the temporary folder since."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            # SQLite does not wait for another process that changes the mode, too.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS uploads (key TEXT PRIMARY KEY, seen REAL NOT NULL, vectors_key TEXT NOT NULL, "
                    "vector BLOB NOT NULL, thumbnail BLOB NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, box TEXT)"
                )
                connection.execute("CREATE INDEX IF NOT EXISTS uploads_seen ON uploads (seen)")
            (self._folder / FILE_NAME).chmod(0o600)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Take away what was kept too long, and as long as something is kept, do so again."""
        with closing(self._opened()) as connection, connection:
            connection.execute("DELETE FROM uploads WHERE seen < ?", (time.time() - self._seconds,))
            (oldest,) = connection.execute("SELECT min(seen) FROM uploads").fetchone()
        with self._timing:
            self._timer = None
        if oldest is not None:
            self._forget_after(oldest)

    def _forget_after(self, seen: float) -> None:
        with self._timing:
            if self._timer is None:
                self._timer = threading.Timer(max(0.0, seen + self._seconds - time.time()) + 1, self.forget)
                self._timer.daemon = True
                self._timer.start()

    def keep(self, upload: KeptUpload) -> str:
        """Keep what may be kept of an upload, and return its key. What was kept too long goes."""
        key = "u" + secrets.token_urlsafe(16)
        box = None if upload.box is None else ",".join(f"{edge!r}" for edge in upload.box.edges)
        now = time.time()
        with closing(self._opened()) as connection, connection:
            connection.execute("DELETE FROM uploads WHERE seen < ?", (now - self._seconds,))
            connection.execute(
                "DELETE FROM uploads WHERE key IN (SELECT key FROM uploads ORDER BY seen DESC LIMIT -1 OFFSET ?)",
                (MOST_KEPT - 1,),
            )
            connection.execute(
                "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    now,
                    upload.vectors_key,
                    np.asarray(upload.vector, "<f4").tobytes(),
                    upload.thumbnail,
                    upload.width,
                    upload.height,
                    box,
                ),
            )
        self._forget_after(now)
        return key

    def get(self, key: str) -> KeptUpload:
        """Return what is kept of an upload, and keep it for as long again. Raises `UploadGoneError`."""
        now = time.time()
        with closing(self._opened()) as connection, connection:
            row = connection.execute(
                "SELECT seen, vectors_key, vector, thumbnail, width, height, box FROM uploads WHERE key = ? AND seen >= ?",
                (key, now - self._seconds),
            ).fetchone()
            if row is None:
                raise UploadGoneError(
                    f"That picture is no longer kept: uploads are forgotten {self._seconds / 60:.0f} minutes after they were "
                    "last looked at. Send it again."
                )
            seen, vectors_key, vector, thumbnail, width, height, box = row
            if now - seen > TOUCH_SECONDS:
                connection.execute("UPDATE uploads SET seen = ? WHERE key = ?", (now, key))
        part = None if box is None else Box(*map(float, box.split(",")))
        return KeptUpload(vectors_key, np.frombuffer(vector, "<f4").copy(), thumbnail, width, height, part)
