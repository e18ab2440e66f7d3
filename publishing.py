"""Publishing a generation: everything that is computed from the vectors of one key, as one finished set; and opening its index.

Owns which parts a generation has and when they must be computed again, and how a view (groups, duplicates, map) joins the
published one. Does not own the parts (`ann`, `autoencoder`, `ranking`, `calibration`, `views/`), nor how a folder becomes the
published one (`store`).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ann import Index, IndexManifest, IndexOptions, Reduction, build_index, is_complete, load_index
from calibration import measure_calibration
from config import Settings
from ranking import STOPPED, build_kind_ranking
from ranking import is_complete as ranking_is_complete
from store import Generation, Snapshot, Store, StoreWriter
from store.copying import link_or_copy

REDUCER_FILE = "reducer.npz"
LONG = 10_000
"""From so many images on, building takes long enough to say what is going on."""


def publish(
    writer: StoreWriter,
    key: str,
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Mapping[str, Any] | None:
    """Compute a generation over the committed vectors of `key` and publish it; return its manifest.

    Nothing is done when the published one already says the same. When `stop` is set, what is committed is published without
    building: it is searchable at once. But a half-done change to another network is not (None is returned): the vectors of the
    one before find everything. `on_note` is called with what a person should know, `on_step` with what is begun, where it takes
    long. Raises `IndexBuildError` when an index is asked for that is not installed, `DiskFullError`.
    """
    stop = stop or threading.Event()
    snapshot = writer.snapshot(key)
    current = writer.last_generation()
    if stop.is_set() and current is not None and current.manifest["vectors_key"] != key:
        return None
    options = IndexOptions(settings.index, settings.trees, settings.search_k)
    reducer_file = _wanted_reducer(writer, key, settings, current, on_note)
    reduction = None if reducer_file is None else _reduction(reducer_file)
    # Which image has which vector: the published generation is still true when this is the same.
    digest = hashlib.sha256(snapshot.ids.tobytes() + snapshot.rows.tobytes()).hexdigest()
    manifest: dict[str, Any] = {
        "vectors_key": key,
        "vectors_digest": digest,
        "images": len(snapshot),
        "reducer": None
        if reduction is None
        else {"kind": _kind(reducer_file), "name": reduction.name, "dim": reduction.dim},
    }
    before = current if current is not None and current.manifest["vectors_key"] == key else None
    if before is not None and _says_the_same(before, manifest, snapshot, options):
        return before.manifest
    with writer.new_generation(manifest) as folder:
        manifest["views"] = {} if before is None else _carry_views(before, folder)
        if reducer_file is not None:
            link_or_copy(reducer_file, folder / REDUCER_FILE)
        if len(snapshot) >= LONG:
            on_step(f"Building an index over {len(snapshot):,} images …")
        previous = None if before is None else (before.folder, IndexManifest(**before.manifest["index"]))
        index = build_index(snapshot, folder, options, reduction=reduction, previous=previous, stop=stop)
        manifest["index"] = asdict(index)
        calibration = measure_calibration(snapshot)
        manifest["calibration"] = asdict(calibration)
        if len(snapshot) >= LONG:
            on_step("Averaging each image with those nearest to it, for the order of pages …")
        manifest["ranking"] = _build_ranking(writer, snapshot, folder, before, stop, calibration.matches)
        manifest["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return manifest


@dataclass(frozen=True)
class View:
    """One view of the collection in a generation, as its manifest says.

    `files` are its files' names in the generation's folder; `vectors_digest` says of which vectors it was computed (the
    generation has its own: where they differ, images came or went since), `images` of how many; `options` what was asked for,
    `report` what came out.
    """

    files: list[str]
    images: int
    vectors_digest: str
    created_at: str
    options: dict[str, Any]
    report: dict[str, Any]


def view_of(generation: Generation, name: str) -> View | None:
    """Return the view `name` of a generation, or None where it was not computed yet."""
    entry = generation.manifest.get("views", {}).get(name)
    return None if entry is None else View(**entry)


def publish_view(
    writer: StoreWriter,
    generation: Generation,
    name: str,
    write: Callable[[Path], list[str]],
    *,
    options: Mapping[str, Any],
    report: Mapping[str, Any],
) -> View:
    """Publish `generation` again with the view `name` in it, computed from its vectors; everything else is carried over.

    `write` fills the folder it is given and returns the names of its files, which begin with `name`. Raises `DiskFullError`.
    """
    manifest = dict(generation.manifest)
    with writer.new_generation(manifest) as folder:
        replaced = set(manifest.get("views", {}).get(name, {}).get("files", ())) | {"manifest.json"}
        for path in generation.folder.iterdir():
            if path.name not in replaced:
                link_or_copy(path, folder / path.name)
        view = View(
            files=write(folder),
            images=manifest["images"],
            vectors_digest=manifest["vectors_digest"],
            created_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            options=dict(options),
            report=dict(report),
        )
        manifest["views"] = {**manifest.get("views", {}), name: asdict(view)}
    return view


def _carry_views(before: Generation, folder: Path) -> dict[str, Any]:
    """Take the views of the generation `before` into the next one; they hold image ids, so they stay true of what they hold."""
    views = dict(before.manifest.get("views", {}))
    for entry in views.values():
        for file in entry["files"]:
            link_or_copy(before.folder / file, folder / file)
    return views


def _build_ranking(
    writer: StoreWriter,
    snapshot: Snapshot,
    folder: Path,
    before: Generation | None,
    stop: threading.Event,
    matches: float | None,
) -> dict[str, Any]:
    """Make the averages that pages are ordered by; those of the generation `before` are carried over where they are true."""
    labels = {record.image_id: record.label for record in writer.all_records()}
    ranking = None if before is None else before.manifest.get("ranking")
    previous = None if before is None or ranking is None else (before.folder, ranking)
    in_order = [labels.get(image_id) for image_id in snapshot.ids.tolist()]
    return build_kind_ranking(snapshot, folder, labels=in_order, matches=matches, previous=previous, stop=stop)


def _says_the_same(current: Generation, manifest: Mapping[str, Any], snapshot: Snapshot, options: IndexOptions) -> bool:
    """Tell whether a generation holds all that would be computed now. One of an older version lacks parts."""
    index, ranking = IndexManifest(**current.manifest["index"]), current.manifest.get("ranking")
    if ranking is None or "calibration" not in current.manifest:
        return False
    if index.vectors_file != snapshot.file or index.options != asdict(options):
        return False
    # A build that failed is tried again; one that failed its self-test would only fail it again.
    settled = (not index.reason or index.self_test is not None) and ranking["reason"] != STOPPED
    complete = is_complete(current.folder, index) and ranking_is_complete(current.folder, ranking)
    return settled and complete and manifest.items() <= {"reducer": None, **current.manifest}.items()


def reducer_path(folder: Path, key: str, kind: str) -> Path:
    """Return where the trained reducer of `kind` for the vectors of `key` lies in the collection's `folder`."""
    return folder / "reducers" / key / f"{kind}.npz"


def _wanted_reducer(
    writer: StoreWriter, key: str, settings: Settings, current: Generation | None, on_note: Callable[[str], None]
) -> Path | None:
    """Return the file of the reducer to use: the one the settings name, else the collection's own; None for no reducer."""
    published = {} if current is None else current.manifest.get("reducer") or {}
    kind = settings.reducer or published.get("kind", "none")
    path = reducer_path(writer.folder, key, kind)
    if kind == "none":
        return None
    if not path.exists():
        on_note(
            f"The index is to hold vectors made smaller by {kind}, but none is trained for the vectors of {key} yet: it is "
            f"built without a reducer. Train one: python autoencoder.py --reducer {kind}"
        )
        return None
    return path


def _kind(path: Path | None) -> str:
    return "none" if path is None else path.stem


def _reduction(path: Path) -> Reduction:
    from autoencoder import load_reducer

    reducer = load_reducer(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Reduction(f"{reducer.kind}-{reducer.dim}-{digest[:12]}", reducer.dim, reducer.apply)


def open_index(store: Store, generation: Generation) -> Index:
    """Open the index of `generation` over the vectors committed now, with the reducer it was built with.

    Raises `DamagedCollectionError`, `ReducerError`.
    """
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    manifest = IndexManifest(**generation.manifest["index"])
    reduction = _reduction(generation.folder / REDUCER_FILE) if manifest.reducer else None
    return load_index(snapshot, generation.folder, manifest, reduction)
