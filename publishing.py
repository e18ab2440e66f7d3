"""Publishing a generation: everything that is computed from the vectors of one key, as one finished set; and opening its index.

Owns which parts a generation has and when they must be computed again, which vectors it is searched by (the network's own, or
what a projection makes of them), and how a view (groups, duplicates, map) joins the published one. Does not own the parts
(`ann`, `autoencoder`, `ranking`, `calibration`, `views/`), nor how a folder becomes the published one (`store`).
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ann import Index, IndexManifest, IndexOptions, Reduction, build_index, is_complete, load_index
from autoencoder import Reducer, load_reducer
from calibration import measure_calibration
from config import Settings
from errors import DamagedCollectionError
from ranking import STOPPED, build_kind_ranking
from ranking import is_complete as ranking_is_complete
from store import Generation, Snapshot, Store, StoreWriter
from store.copying import link_or_copy
from store.formats import VECTOR_DTYPE, widened
from vectors import BLOCK_ROWS

REDUCER_FILE = "reducer.npz"
PROJECTED_FILE = "projected.f16"
"""What a projection makes of the vectors file: a row for each of its rows, so that images have the same row in both."""
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
    own = writer.snapshot(key)
    current = writer.last_generation()
    if stop.is_set() and current is not None and current.manifest["vectors_key"] != key:
        return None
    options = IndexOptions(settings.index, settings.trees, settings.search_k)
    reducer_file = _wanted_reducer(writer, key, settings, current, on_note)
    reducer = None if reducer_file is None else _Named.load(reducer_file)
    projected = None if reducer is None else _Projected.of(reducer, own)
    manifest = _manifest(own, key, reducer, projected)
    before = current if current is not None and current.manifest["vectors_key"] == key else None
    file = own.file if projected is None else projected.searched_file
    if before is not None and _says_the_same(before, manifest, file, options):
        return before.manifest
    step = on_step if len(own) >= LONG else _say_nothing
    with writer.new_generation(manifest) as folder:
        manifest["views"] = {} if before is None else _carry_views(before, folder)
        if reducer_file is not None:
            link_or_copy(reducer_file, folder / REDUCER_FILE)
        snapshot, reduction = own, None if reducer is None else reducer.reduction
        if reducer is not None and projected is not None:
            step(f"Projecting {len(own):,} vectors …")
            snapshot, reduction = _project(own, reducer.reducer, projected, folder, before), None
        step(f"Building an index over {len(own):,} images …")
        previous = None if before is None else (before.folder, IndexManifest(**before.manifest["index"]))
        index = build_index(snapshot, folder, options, reduction=reduction, previous=previous, stop=stop)
        manifest["index"] = asdict(index)
        calibration = measure_calibration(snapshot)
        manifest["calibration"] = asdict(calibration)
        step("Averaging each image with those nearest to it, for the order of pages …")
        manifest["ranking"] = _build_ranking(writer, snapshot, folder, before, stop, calibration.matches)
        manifest["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return manifest


def _say_nothing(step: str) -> None:
    """What is short needs no words."""


def _manifest(own: Snapshot, key: str, reducer: _Named | None, projected: _Projected | None) -> dict[str, Any]:
    """Return what a generation's manifest says before anything is computed: where it is the same, all else would be."""
    digest = hashlib.sha256(own.ids.tobytes() + own.rows.tobytes()).hexdigest()  # which image has which vector
    manifest = {
        "vectors_key": key,
        "vectors_digest": digest if projected is None else f"{digest}+{projected.name}",
        "images": len(own),
        "reducer": None if reducer is None else reducer.about,
    }
    return manifest if projected is None else {**manifest, "projected": asdict(projected)}


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


def is_current(generation: Generation, name: str, view: View) -> bool:
    """Tell whether the view `name` was computed of the vectors that the generation is searched by.

    Duplicates are always found by the network's own vectors: of these alone theirs must be.
    """
    ours, theirs = str(generation.manifest["vectors_digest"]), view.vectors_digest
    if name == "duplicates":
        ours, theirs = ours.partition("+")[0], theirs.partition("+")[0]
    return ours == theirs


def is_by_another_projection(generation: Generation, view: View) -> bool:
    """Tell whether what is near has become another thing since a view was computed, for the images that it has, too."""
    ours, theirs = str(generation.manifest["vectors_digest"]), view.vectors_digest
    return ours.partition("+")[2] != theirs.partition("+")[2]


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


def _says_the_same(current: Generation, manifest: Mapping[str, Any], file: str, options: IndexOptions) -> bool:
    """Tell whether a generation holds all that would be computed now. One of an older version lacks parts."""
    index, ranking = IndexManifest(**current.manifest["index"]), current.manifest.get("ranking")
    if ranking is None or "calibration" not in current.manifest:
        return False
    if index.vectors_file != file or index.options != asdict(options):
        return False
    # A build that failed is tried again; one that failed its self-test would only fail it again.
    settled = (not index.reason or index.self_test is not None) and ranking["reason"] != STOPPED
    complete = is_complete(current.folder, index) and ranking_is_complete(current.folder, ranking)
    if "projected" in manifest:
        complete = complete and _Projected(**manifest["projected"]).lies_in(current.folder)
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
            f"The collection is to be searched by the reducer {kind}, but none is trained for the vectors of {key} yet: it goes "
            f"on without one. Train it: python autoencoder.py --reducer {kind}"
        )
        return None
    return path


@dataclass(frozen=True)
class _Named:
    """A reducer, and a name that no other has."""

    name: str
    reducer: Reducer

    @staticmethod
    def load(path: Path) -> _Named:
        reducer = load_reducer(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return _Named(f"{reducer.kind}-{reducer.dim}-{digest[:12]}", reducer)

    @property
    def reduction(self) -> Reduction:
        return Reduction(self.name, self.reducer.dim, self.reducer.apply)

    @property
    def about(self) -> dict[str, Any]:
        """What the manifest says of it."""
        told = {"kind": self.reducer.kind, "name": self.name, "dim": self.reducer.dim}
        classes = self.reducer.about.get("classes")
        return told if classes is None else {**told, "classes": len(classes), "learnt_from": sum(classes.values())}


# What is searched.


@dataclass(frozen=True)
class Searched:
    """The vectors that a generation is searched by: `snapshot`, with its ids, rows and dim; `own` are the network's own.

    Both are the same, and `projection` None, but where labels taught a projection.
    """

    snapshot: Snapshot
    own: Snapshot
    projection: Reducer | None = None


@dataclass(frozen=True)
class _Projected:
    """What the manifest says of `PROJECTED_FILE`: the projection's name, and which rows of which vectors file it holds."""

    name: str
    file: str
    rows: int
    dim: int

    @staticmethod
    def of(reducer: _Named, own: Snapshot) -> _Projected | None:
        """Return what `reducer` makes of a vectors file; None where it is none that answers are in the order of."""
        if not reducer.reducer.orders:
            return None
        return _Projected(reducer.name, own.file, len(own.matrix), reducer.reducer.dim)

    @property
    def searched_file(self) -> str:
        """What tells these rows from those of other projections: `Snapshot.file` of what is searched."""
        return f"{self.file}+{self.name}"

    def lies_in(self, folder: Path) -> bool:
        path = folder / PROJECTED_FILE
        return path.is_file() and path.stat().st_size == self.rows * self.dim * VECTOR_DTYPE.itemsize

    def open(self, folder: Path) -> npt.NDArray[np.float16]:
        """Map the rows, read-only. Raises `DamagedCollectionError`."""
        if not self.lies_in(folder):
            raise DamagedCollectionError(
                f"The projected vectors in {folder} are damaged. Run `python img2vec.py` again: it makes them anew."
            )
        if not self.rows:
            return np.empty((0, self.dim), dtype=VECTOR_DTYPE)
        return np.memmap(folder / PROJECTED_FILE, dtype=VECTOR_DTYPE, mode="r", shape=(self.rows, self.dim))


def searched(store: Store, generation: Generation) -> Searched:
    """Return the vectors committed now as `generation` is searched: those that came since are projected here and now.

    Raises `DamagedCollectionError`, `ReducerError`.
    """
    own = store.snapshot(generation.manifest["vectors_key"])
    told = generation.manifest.get("projected")
    if told is None:
        return Searched(own, own)
    projected, projection = _Projected(**told), load_reducer(generation.folder / REDUCER_FILE)
    count = len(own.matrix)
    # A vectors file that was compacted since has other rows.
    matrix = projected.open(generation.folder)[:count] if projected.file == own.file else None
    known = 0 if matrix is None else len(matrix)
    if matrix is None or known < count:
        parts = [*_projected_blocks(own, projection, known)]
        matrix = np.concatenate(parts if matrix is None else [matrix, *parts])
    now = replace(projected, file=own.file)
    return Searched(replace(own, matrix=matrix, file=now.searched_file), own, projection)


def searched_snapshot(store: Store, generation: Generation) -> Snapshot:
    """Return the vectors committed now as `generation` is searched: groups and maps are of these. Raises as `searched`."""
    return searched(store, generation).snapshot


def _projected_blocks(own: Snapshot, projection: Reducer, first: int) -> Iterator[npt.NDArray[np.float16]]:
    """Yield what `projection` makes of the rows of the vectors file from `first` on."""
    for start in range(first, len(own.matrix), BLOCK_ROWS):
        yield projection.apply(widened(np.asarray(own.matrix[start : start + BLOCK_ROWS]))).astype(VECTOR_DTYPE)


def _project(
    own: Snapshot, projection: Reducer, projected: _Projected, folder: Path, before: Generation | None
) -> Snapshot:
    """Write the projected vectors into a generation's `folder`; those of the generation `before` are carried over if true."""
    path, known = folder / PROJECTED_FILE, 0
    told = {} if before is None else before.manifest.get("projected")
    if before is not None and told:
        last = _Projected(**told)
        if (
            replace(last, rows=projected.rows) == projected
            and last.rows <= projected.rows
            and last.lies_in(before.folder)
        ):
            known = last.rows
            # Where rows are added, a link would let the file of the generation before grow, too.
            carry = link_or_copy if known == projected.rows else shutil.copyfile
            carry(before.folder / PROJECTED_FILE, path)
    if known < projected.rows or not projected.rows:
        with open(path, "ab") as file:
            for block in _projected_blocks(own, projection, known):
                file.write(block.tobytes())
    return replace(own, matrix=projected.open(folder), file=projected.searched_file)


def open_index(store: Store, generation: Generation, found: Searched | None = None) -> Index:
    """Open the index of `generation` over the vectors committed now (`found`, where they are known), as it was built.

    Raises `DamagedCollectionError`, `ReducerError`.
    """
    found = found or searched(store, generation)
    manifest = IndexManifest(**generation.manifest["index"])
    reduction = _Named.load(generation.folder / REDUCER_FILE).reduction if manifest.reducer else None
    return load_index(found.snapshot, generation.folder, manifest, reduction)
