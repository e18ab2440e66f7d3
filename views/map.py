"""The map of a collection: computed from the vectors that its index holds, kept in its generation, true of what came since.

Owns what a generation keeps of a map (`map.npz`), which layouts must be computed again, and where images lie that came after it
was computed: among their nearest neighbours, each time it is opened, so that indexing costs nothing more. Does not own the
layouts (`map2d`), nor pictures of them (`views/poster.py`, `web/map.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import map2d
from atlases import build_atlases
from errors import EmptyCollectionError, OptionError, ViewMissingError
from map2d import LAYOUTS, Layout, Progress
from publishing import View, publish_view, searched_snapshot, view_of
from store import Generation, Snapshot, Store, StoreWriter
from vectors import BLOCK_ROWS, Ids, Vectors, unit_vectors

FILE = "map.npz"
NAME = "map"

_Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class MapOptions:
    """What a map is computed by: `layouts` among `map2d.LAYOUTS`, and the `seed` of what is random."""

    layouts: tuple[str, ...] = ("tsne", "grid", "date")
    seed: int = 0


@dataclass(frozen=True)
class Map:
    """Where every image of the collection lies, in each layout that was computed.

    `ids` int64 (n,), ascending; `layouts` by name, float32 (n, 2) within 0…1, y downwards; `placed` bool (n,): came since the map
    was computed. Of layouts in cells, "grid" and "date", `cell_sizes` are the sides of a cell. `date_marks` are the labels of the
    days, months, years or decades of the layout by date and their x, from the left.
    """

    ids: Ids
    layouts: dict[str, Layout]
    placed: npt.NDArray[np.bool_]
    cell_sizes: dict[str, float]
    date_marks: list[tuple[str, float]]
    view: View


def check_options(options: MapOptions) -> None:
    """Raise `OptionError` for a layout that is none, for none at all, or for a seed that cannot be."""
    unknown = [name for name in options.layouts if name not in LAYOUTS]
    if unknown or not options.layouts:
        raise OptionError(f"There is no layout {unknown[0] if unknown else ''!r}. Choose among {', '.join(LAYOUTS)}.")
    if not 0 <= options.seed < 2**32:
        raise OptionError(f"The seed is {options.seed}, but must be a whole number from 0 to {2**32 - 1:,}.")


# Computing.


def build_map(
    writer: StoreWriter,
    generation: Generation,
    options: MapOptions,
    *,
    threads: int = 1,
    again: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
    on_progress: Progress = lambda done, total: None,
) -> tuple[View, list[str]]:
    """Compute the layouts asked for, publish them as the view "map", and return it with the names of those computed now.

    Layouts of the same vectors and seed that the map has are kept, unless `again`; where nothing is left to do, nothing is
    published. Raises `OptionError`, `EmptyCollectionError`, `MissingPackageError`, `DiskFullError`.
    """
    plan = _plan(writer, generation, options, again=again)
    if plan.view is not None and not plan.missing:
        return plan.view, []
    if "umap" in plan.missing:
        map2d.load_umap()  # where it is not installed, that is said before minutes are spent
    work = _Work(plan.snapshot, plan.times, options.seed, threads, on_step, on_progress)
    arrays, report = work.compute(plan.missing, plan.kept, {} if plan.view is None else plan.view.report)

    def write(folder: Path) -> list[str]:
        with open(folder / FILE, "wb") as file:
            np.savez(file, **arrays)
        on_step("Putting thumbnails side by side for the page …")
        return [FILE, *build_atlases(writer, plan.snapshot.ids, folder, on_progress=on_progress)[0]]

    about = {"layouts": [name for name in LAYOUTS if name in arrays], "seed": options.seed}
    return publish_view(writer, generation, NAME, write, options=about, report=report), plan.missing


def is_current(store: Store, generation: Generation, options: MapOptions) -> bool:
    """Tell whether the published map has every layout asked for, of the vectors and times as they are now.

    Raises `OptionError`, `EmptyCollectionError`.
    """
    return not _plan(store, generation, options, again=False).missing


@dataclass(frozen=True)
class _Plan:
    """What has to be computed: the layouts `missing`, beside those `kept` (with what they were computed from)."""

    snapshot: Snapshot
    times: npt.NDArray[np.datetime64]
    view: View | None
    kept: dict[str, npt.NDArray[Any]]
    missing: list[str]


def _plan(store: Store, generation: Generation, options: MapOptions, *, again: bool) -> _Plan:
    check_options(options)
    snapshot = searched_snapshot(store, generation)
    if not len(snapshot):
        raise EmptyCollectionError(
            "The collection holds no image that could be on a map. Run `python img2vec.py` first."
        )
    times = times_taken(store, snapshot.ids)
    view = view_of(generation, NAME)
    true = {} if view is None else _still_true(generation, view, snapshot, options, times)
    wanted = set(options.layouts) | ({"tsne"} if "grid" in options.layouts else set())
    if true and view is not None:
        wanted |= set(
            view.options["layouts"]
        )  # none gets lost, also not the one by date where times became known since
    kept = {} if again else true
    return _Plan(snapshot, times, view, kept, [name for name in LAYOUTS if name in wanted and name not in kept])


def times_taken(store: Store, ids: Ids) -> npt.NDArray[np.datetime64]:
    """Return when each of the images `ids` (ascending) was taken, datetime64[s] (n,), NaT where that is not known."""
    times = np.full(len(ids), np.datetime64("NaT"), dtype="datetime64[s]")
    rows = store.catalog.execute("SELECT image_id, taken_at FROM images WHERE taken_at IS NOT NULL ORDER BY image_id")
    for image_id, taken_at in rows:
        place = int(np.searchsorted(ids, image_id))
        if place < len(ids) and ids[place] == image_id:
            times[place] = _time(taken_at)
    return times


def _time(text: str) -> np.datetime64:
    try:
        return np.datetime64(text[:19], "s")
    except ValueError:
        return np.datetime64("NaT", "s")


def _still_true(
    generation: Generation, view: View, snapshot: Snapshot, options: MapOptions, times: npt.NDArray[np.datetime64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the layouts of the published map that computing them anew would give again, and the components beside them."""
    if view.options.get("seed") != options.seed:
        return {}
    with np.load(generation.folder / FILE) as saved:
        same = str(saved["vectors_file"]) == snapshot.file and np.array_equal(saved["ids"], snapshot.ids)
        if not same or not np.array_equal(saved["rows"], snapshot.rows):
            return {}
        kept = {name: saved[name] for name in saved.files}
        if "date" in kept and not np.array_equal(saved["times"].astype("datetime64[s]"), times, equal_nan=True):
            del kept["date"]
        return kept


@dataclass
class _Work:
    """Computing layouts of one snapshot, each after what it needs."""

    snapshot: Snapshot
    times: npt.NDArray[np.datetime64]
    seed: int
    threads: int
    on_step: Callable[[str], None]
    on_progress: Progress
    nearest: map2d.Nearest | None = field(default=None, init=False)

    def compute(self, missing: list[str], kept: _Arrays, report: Mapping[str, Any]) -> tuple[_Arrays, dict[str, Any]]:
        """Return the arrays of the map and its report; `kept` are those that need not be computed."""
        arrays: dict[str, npt.NDArray[Any]] = {
            **kept,
            "ids": self.snapshot.ids,
            "rows": self.snapshot.rows,
            "vectors_file": np.array(self.snapshot.file),
            "times": self.times.astype(np.int64),
        }
        started = time.perf_counter()
        if "points" not in arrays:
            self.on_step(f"Reading {len(self.snapshot):,} vectors onto {map2d.COMPONENTS} principal components …")
            points, axes = map2d.principal_components(self.snapshot)
            arrays |= {"points": points, "axes": axes}
        told = {name: row for name, row in report.get("layouts", {}).items() if name in kept}
        made = {"images": len(self.snapshot), "components": arrays["axes"].shape[1], "layouts": told}
        if {"tsne", "umap"} & set(missing):
            self.on_step(f"Finding the nearest of each of {len(self.snapshot):,} images …")
            self.nearest = map2d.nearest_others(arrays["points"], 3 * map2d.PERPLEXITY, on_progress=self.on_progress)
        made["preparing_seconds"] = round(time.perf_counter() - started, 2)
        makers = {"tsne": self._tsne, "umap": self._umap, "grid": self._grid, "date": self._date}
        for name in missing:
            started = time.perf_counter()
            arrays |= makers[name](arrays)
            told[name] = {"seconds": round(time.perf_counter() - started, 2)} | self._quality(name, arrays)
        return arrays, made

    def _tsne(self, arrays: _Arrays) -> _Arrays:
        self.on_step("Laying them out by t-SNE …")
        points = np.asarray(arrays["points"])
        layout = map2d.tsne(points, self.nearest, seed=self.seed, threads=self.threads, on_progress=self.on_progress)
        return {"tsne": layout}

    def _umap(self, arrays: _Arrays) -> _Arrays:
        self.on_step("Laying them out by UMAP …")
        return {"umap": map2d.umap(np.asarray(arrays["points"]), self.nearest, seed=self.seed)}

    def _grid(self, arrays: _Arrays) -> _Arrays:
        self.on_step("Giving each a cell of the grid …")
        return {"grid": map2d.grid_cells(np.asarray(arrays["tsne"]))}

    def _date(self, arrays: _Arrays) -> _Arrays:
        dates = map2d.date_cells(self.times)
        return {
            "date": dates.cells,
            "date_side": np.array(dates.side),
            "date_labels": np.array([label for label, _ in dates.marks], dtype=np.str_),
            "date_columns": np.array([column for _, column in dates.marks], dtype=np.float64),
            "date_unit": np.array(dates.unit),
        }

    def _quality(self, name: str, arrays: _Arrays) -> dict[str, Any]:
        """Return how true a layout is to the full vectors; of the one by date, what its blocks are."""
        if name == "date":
            return {"unit": str(arrays["date_unit"]), "dated": int((~np.isnat(self.times)).sum())}
        found = map2d.trustworthiness(self.snapshot, np.asarray(arrays[name], dtype=np.float64))
        return {"trustworthiness": None if found is None else round(found, 4)}


# Opening.


def open_map(store: Store, generation: Generation) -> Map:
    """Return the map of a generation: every image that can be searched now, also those that came since it was computed.

    Raises `ViewMissingError` where none was computed yet.
    """
    view = view_of(generation, NAME)
    if view is None:
        raise ViewMissingError("The map has not been computed yet. Run: python map2d.py")
    snapshot = searched_snapshot(store, generation)
    with np.load(generation.folder / FILE) as saved:
        kept, old = _places_kept(saved, snapshot)
        placed = np.ones(len(snapshot), dtype=np.bool_)
        placed[kept] = False
        if len(snapshot) and not len(kept):
            raise ViewMissingError("None of the collection's images is on its map. Compute it anew: python map2d.py")
        new = _New(store, snapshot, saved, kept, old) if placed.any() else None
        layouts, sizes = {}, {}
        for name in (name for name in LAYOUTS if name in saved):
            positions = np.zeros((len(snapshot), 2), dtype=saved[name].dtype)
            positions[kept] = saved[name][old]
            if new is not None:
                positions[placed] = new.places(name)
            layouts[name] = positions
            if name in ("grid", "date"):
                layouts[name], sizes[name] = map2d.cell_positions(positions, _side(saved, name))
        marks = _marks(saved, sizes) if "date" in layouts else []
    return Map(snapshot.ids, layouts, placed, sizes, marks, view)


def _places_kept(saved: Any, snapshot: Snapshot) -> tuple[Ids, Ids]:
    """Return which images of the snapshot are on the saved map by the same vector, and which of its images these are."""
    _, kept, old = np.intersect1d(snapshot.ids, saved["ids"], assume_unique=True, return_indices=True)
    # Else it was compacted since, and rows cannot be compared. What a projection makes of a file has the same rows.
    if _file_and_projection(str(saved["vectors_file"]))[0] == _file_and_projection(snapshot.file)[0]:
        same = snapshot.rows[kept] == saved["rows"][old]
        kept, old = kept[same], old[same]
    return kept.astype(np.int64), old.astype(np.int64)


def _file_and_projection(name: str) -> tuple[str, str]:
    """Return which vectors file a snapshot's `file` names, and which projection of it, if one."""
    file, _, projection = name.partition("+")
    return file, projection


def _side(saved: Any, name: str) -> int:
    """Return how many cells a side of the layout's square has."""
    return int(saved["date_side"]) if name == "date" else int(saved["grid"][:, 0].max()) + 1


def _marks(saved: Any, sizes: Mapping[str, float]) -> list[tuple[str, float]]:
    columns = saved["date_columns"] * sizes["date"]
    return list(zip(saved["date_labels"].tolist(), columns.tolist(), strict=True))


class _New:
    """Where the images go that are not on the saved map: places `kept` of the snapshot are, as places `old` of the map."""

    def __init__(self, store: Store, snapshot: Snapshot, saved: Any, kept: Ids, old: Ids) -> None:
        self.saved, self.kept, self.old = saved, kept, old
        self.came = np.setdiff1d(np.arange(len(snapshot)), kept)
        self.points, self.known = self._points(snapshot)
        self.times = times_taken(store, snapshot.ids)[self.came]

    def _points(self, snapshot: Snapshot) -> tuple[Vectors, Vectors]:
        """Return where those that came are among those that are on the map, by principal components."""
        made_of, now = str(self.saved["vectors_file"]), snapshot.file
        if _file_and_projection(made_of)[1] != _file_and_projection(now)[1]:  # what is near is another thing since
            points, _ = map2d.principal_components(snapshot)
            return points[self.came], points[self.kept]
        axes: Vectors = self.saved["axes"]
        blocks = (
            unit_vectors(snapshot.take(self.came[start : start + BLOCK_ROWS])) @ axes
            for start in range(0, len(self.came), BLOCK_ROWS)
        )
        return np.concatenate(list(blocks)), self.saved["points"][self.old]

    def places(self, name: str) -> npt.NDArray[Any]:
        """Return their positions, or cells, in one layout."""
        taken = self.saved[name][self.old]
        if name == "date":
            return map2d.stack_new(self.times, self.saved["times"].astype("datetime64[s]")[self.old], taken)
        if name != "grid":
            return map2d.place_new(self.points, self.known, taken)
        side = _side(self.saved, name)
        wanted = map2d.place_new(self.points, self.known, (taken + 0.5) / side) * side
        return map2d.nearest_free_cells(wanted, taken, side)
