"""What there is to know of a collection as a whole, for whoever runs it. Owns gathering it; changes nothing.

Nothing here names a path of the server: files that could not be read are told by their own and their folder's name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ann import IndexManifest
from img2vec import LAST_RUN
from pipeline import show_path
from publishing import is_current, view_of
from search.service import SearchService
from store import Generation, Store, VectorsManifest

VIEWS = ("groups", "duplicates", "map")
PARTS: Mapping[str, str] = {
    "catalog.sqlite": "Catalog",
    "thumbnails.sqlite": "Thumbnails",
    "vectors": "Vectors",
    "index": "Index and views",
    "models": "Networks",
    "networks": "Networks trained here",
    "reducers": "Reducers",
    "added": "Pictures added here",
}
OTHER = "Other"


@dataclass(frozen=True)
class Counts:
    """Of the catalog: images by what is known of them, `contents` that differ, and the sum of their files' `bytes`."""

    images: int
    contents: int
    bytes: int
    without_file: int
    with_time: int
    with_label: int
    failures: int


@dataclass(frozen=True)
class ViewState:
    """One view of the collection: when it was computed, of how many images, and whether that is all of them as they are now."""

    name: str
    created_at: str
    images: int
    is_current: bool


@dataclass(frozen=True)
class About:
    """A collection as a whole. `views` has None for what was not computed; `disk` is in bytes, by part; `other_networks` are
    those of other vectors that are kept."""

    counts: Counts
    vectors: VectorsManifest
    engine: str | None
    precision: str | None
    other_networks: Sequence[str]
    index: IndexManifest
    reducer: Mapping[str, Any] | None
    generation: int
    created_at: str
    views: Mapping[str, ViewState | None]
    last_run: Mapping[str, Any] | None
    disk: Mapping[str, int]

    @property
    def projection(self) -> Mapping[str, int] | None:
        """Return how many classes and images taught what is searched by, and its `dim`; None where there is no projection."""
        if self.reducer is None or self.reducer["kind"] != "projection":
            return None
        return {name: self.reducer[name] for name in ("classes", "learnt_from", "dim")}


@dataclass(frozen=True)
class FailureShown:
    """A file that could not become an image: its name, that of its folder, and why."""

    name: str
    folder: str
    code: str
    reason: str


def about(service: SearchService) -> About:
    """Return what is known of the collection that `service` searches. Raises as `SearchService.ready`."""
    loaded, status = service.ready(), service.status()
    store, generation = loaded.store, loaded.generation
    told = store.meta(LAST_RUN)
    return About(
        counts=_counts(store, service.opened(_contents)),
        vectors=loaded.vectors,
        engine=status.engine,
        precision=status.precision,
        other_networks=[key for key in store.vector_keys() if key != loaded.vectors.key],
        index=loaded.manifest,
        reducer=generation.manifest.get("reducer"),
        generation=generation.number,
        created_at=generation.manifest["created_at"],
        views={name: _view(generation, name) for name in VIEWS},
        last_run=None if told is None else json.loads(told),
        disk=disk_use(store.folder),
    )


def _contents(store: Store, generation: Generation) -> int:
    """Count contents that differ: for a generation once, since of 100,000 images it takes longer than all the rest."""
    found = store.catalog.execute("SELECT COUNT(DISTINCT sha256) FROM images WHERE error_code IS NULL").fetchone()
    return int(found[0])


def _counts(store: Store, contents: int) -> Counts:
    row = store.catalog.execute(
        "SELECT COUNT(*), IFNULL(SUM(size), 0), COUNT(*) - SUM(substr(path, 1, 1) = X'2F'), "
        "COUNT(taken_at), COUNT(label) FROM images WHERE error_code IS NULL"
    ).fetchone()
    failed = store.catalog.execute("SELECT COUNT(*) FROM images WHERE error_code IS NOT NULL").fetchone()[0]
    images, size, without_file, with_time, with_label = (int(number or 0) for number in row)
    return Counts(images, contents, size, without_file, with_time, with_label, failed)


def _view(generation: Generation, name: str) -> ViewState | None:
    view = view_of(generation, name)
    if view is None:
        return None
    return ViewState(name, view.created_at, view.images, is_current(generation, name, view))


def disk_use(folder: Path) -> dict[str, int]:
    """Return the bytes that each part of a collection takes on disk, the largest first; a file with several names once."""
    sizes: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for above, _, names in os.walk(folder):
        first = Path(above).relative_to(folder).parts
        for name in names:
            try:
                status = os.lstat(os.path.join(above, name))
            except OSError:  # gone since: a generation that was replaced, a journal
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            part = PARTS.get(first[0] if first else name, OTHER)
            sizes[part] = sizes.get(part, 0) + status.st_blocks * 512
    return dict(sorted(sizes.items(), key=lambda pair: -pair[1]))


def failure_counts(store: Store) -> dict[str, int]:
    """Return how many files could not become images for each reason's code, the most frequent first."""
    rows = store.catalog.execute(
        "SELECT error_code, COUNT(*) FROM images WHERE error_code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return {str(code): int(count) for code, count in rows}


def failures(store: Store, places: slice, code: str | None = None) -> list[FailureShown]:
    """Return the files at `places`, by path, that could not become images, for the reason `code` or any."""
    rows = store.catalog.execute(
        "SELECT path, error_code, error FROM images WHERE error_code IS NOT NULL AND error_code = IFNULL(?, error_code) "
        "ORDER BY +path LIMIT ? OFFSET ?",  # + keeps SQLite from walking all files by their paths for the few that failed
        (code, places.stop - places.start, places.start),
    )
    return [_failure(path, error_code, error) for path, error_code, error in rows]


def _failure(path: bytes, code: str, reason: str | None) -> FailureShown:
    folder, name = os.path.split(path)
    return FailureShown(show_path(name), show_path(os.path.basename(folder)), code, reason or "")
