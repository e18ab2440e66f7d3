"""Nearest neighbours of vectors: kinds of index, building, self-test, query.

An index proposes candidates; the answer's order and distances always come from the stored vectors themselves, so
every kind gives the same distances and differs only in which neighbours it may miss. Annoy takes no items after its
build and numbers them densely: this module keeps the map to image ids and answers from *built index + exact scan of
rows added since - deleted ids*.

A build is never trusted before its self-test: some builds of Annoy 1.17.3 return one neighbour only (spotify/annoy
issue 682). Building runs in a child process, because a full disk under an on-disk build is a SIGBUS and an Annoy
compiled for another processor an illegal instruction: both must end the child, not the job.

Does not own vectors on disk (`store`), networks, or what a match looks like. Sources: Annoy (github.com/spotify/annoy), HNSW in
usearch (github.com/unum-cloud/usearch).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from config import ROOT
from errors import DamagedCollectionError, IndexBuildError
from store import Snapshot
from vectors import Ids, Vectors, largest, unit_vectors

SMALL_COLLECTION = 1_000
"""Below this many images exact search is faster than any index."""

SELF_TEST_QUERIES = 200
SELF_TEST_K = 10
RECALL_WANTED = 0.99
RECALL_NEEDED = 0.95
STOPPED = "The job was stopped before its index was built; exact search answers until it is run again."
SEED = 20_150_625
SEARCH_K_LADDER = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
SCAN_CHUNK_ROWS = 8_192
MARGIN = 16
"""Candidates beyond k that are ordered anew in float64, so that rounding in float32 cannot change the answer."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of q queries, best first: `ids` int64 (q, k), `distances` float32 (q, k), 1 - cosine, 0…2.

    k is the number asked for, or the size of the collection where that is smaller. Equal distances are in order of id.
    """

    ids: Ids
    distances: npt.NDArray[np.float32]


@dataclass(frozen=True)
class SelfTest:
    """How well a built index answers, against exact search on images of the collection."""

    recall: float
    query_ms: float
    exact_ms: float
    queries: int
    k: int
    search_k: int


@dataclass(frozen=True)
class IndexOptions:
    """What to build: `kind` is auto, exact, annoy or usearch; `search_k` 0 lets the self-test choose."""

    kind: str = "auto"
    trees: int = 100
    search_k: int = 0


@dataclass(frozen=True)
class IndexManifest:
    """What stands in a generation about its index; `reason` says why it is exact although something else was wanted."""

    kind: str
    items: int
    options: dict[str, Any] = field(default_factory=dict)
    vectors_file: str = ""
    search_k: int = 0
    self_test: dict[str, Any] | None = None
    bytes: int = 0
    reason: str = ""


class Candidates(Protocol):
    """A built index over dense item numbers 0…n-1."""

    def search(self, query: Vectors, count: int) -> Ids:
        """Return up to `count` item numbers, int64, for one unit vector float32 (dim,)."""
        ...


class _Annoy:
    def __init__(self, path: Path, dim: int, search_k: int) -> None:
        from annoy import AnnoyIndex

        self._index = AnnoyIndex(dim, "angular")
        self._index.load(str(path))
        self.search_k = search_k

    def search(self, query: Vectors, count: int) -> Ids:
        # search_k bounds how many items are looked at: asking for more of them must not find fewer of the nearest.
        search_k = max(self.search_k, 2 * count) if self.search_k > 0 else -1
        return np.array(self._index.get_nns_by_vector(query, count, search_k), dtype=np.int64)

    @staticmethod
    def build(vectors: Iterator[Vectors], dim: int, path: Path, options: IndexOptions) -> None:
        from annoy import AnnoyIndex

        index = AnnoyIndex(dim, "angular")
        index.set_seed(SEED)
        index.on_disk_build(str(path))
        item = 0
        for block in vectors:
            for vector in block:
                index.add_item(item, vector)
                item += 1
        index.build(options.trees, n_jobs=1)  # n_jobs=-1 does not repeat exactly, whatever the seed


class _Usearch:
    def __init__(self, path: Path, dim: int, search_k: int) -> None:
        # OpenVINO first: usearch brings a C++ library of its own, after which OpenVINO could not read networks any more
        # (usearch 2.26, OpenVINO 2026.4). Without its telemetry, as in backbones/.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino  # noqa: F401
        from usearch.index import Index as Hnsw

        self._index = Hnsw(ndim=dim, metric="cos", dtype="bf16", expansion_search=search_k or 128)
        self._index.view(str(path))

    def search(self, query: Vectors, count: int) -> Ids:
        if (
            self._index.expansion_search < 2 * count
        ):  # grows and never shrinks: threads cannot spoil each other's answers
            self._index.expansion_search = 2 * count  # type: ignore[misc]  # its stub forgets the setter
        return np.asarray(self._index.search(query, count).keys, dtype=np.int64)

    @staticmethod
    def build(vectors: Iterator[Vectors], dim: int, path: Path, options: IndexOptions) -> None:
        from usearch.index import Index as Hnsw

        index = Hnsw(ndim=dim, metric="cos", dtype="bf16", expansion_add=200)
        item = 0
        for block in vectors:
            # One thread: side by side, insertions now and then leave a cluster that few paths lead to, and nothing repeats.
            index.add(np.arange(item, item + len(block)), block, threads=1)
            item += len(block)
        index.save(str(path))


_KINDS: dict[str, type[_Annoy] | type[_Usearch]] = {"annoy": _Annoy, "usearch": _Usearch}
_LADDERS = {"annoy": SEARCH_K_LADDER, "usearch": (64, 128, 256, 512)}


class Index:
    """Answers "the k nearest" over one snapshot: what was built, plus an exact scan of what came since, minus what is gone.

    Thread-safe; immutable after construction. `candidates` covers the images `built_ids` whose vectors lay in `built_rows`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        candidates: Candidates | None = None,
        built_ids: Ids | None = None,
        built_rows: Ids | None = None,
    ) -> None:
        self.snapshot = snapshot
        self._candidates = candidates
        covered = np.zeros(len(snapshot), dtype=bool)
        # For each built item its place in the snapshot, -1 when it was deleted or has another vector now.
        self._place = np.empty(0, dtype=np.int64)
        if candidates is not None and built_ids is not None and built_rows is not None:
            self._place = _places(snapshot, built_ids, built_rows)
            covered[self._place[self._place >= 0]] = True
        self._stale = int((self._place < 0).sum())
        self._scanned = np.flatnonzero(~covered).astype(np.int64)
        self._scan_units = np.empty((len(self._scanned), snapshot.dim), dtype=np.float32)
        for start in range(0, len(self._scanned), SCAN_CHUNK_ROWS):
            block = slice(start, start + SCAN_CHUNK_ROWS)
            self._scan_units[block] = unit_vectors(snapshot.take(self._scanned[block]))

    def query(self, vectors: npt.NDArray[Any], k: int) -> Neighbours:
        """Return the k nearest images of each of `vectors` (q, dim), any float type. Raises `ValueError` on a wrong dimension."""
        if vectors.ndim != 2 or vectors.shape[1] != self.snapshot.dim:
            raise ValueError(f"queries must have shape (n, {self.snapshot.dim}), not {vectors.shape}")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        k = min(k, len(self.snapshot))
        queries = unit_vectors(vectors)
        scanned = queries @ self._scan_units.T if len(self._scanned) else None
        ids = np.empty((len(queries), k), dtype=np.int64)
        distances = np.empty((len(queries), k), dtype=np.float32)
        for number, query in enumerate(queries):
            places = self._proposed(query, k)
            if scanned is not None:
                places = np.concatenate([places, self._scanned[largest(scanned[number], k + MARGIN)]])
            if len(places) < k:
                places = self._scan_all(query, k + MARGIN)
            ids[number], distances[number] = self._ordered(query, places, k)
        return Neighbours(ids, distances)

    def _proposed(self, query: Vectors, k: int) -> Ids:
        if self._candidates is None:
            return np.empty(0, dtype=np.int64)
        items = self._candidates.search(query, min(k + MARGIN + self._stale, len(self._place)))
        places = self._place[items]
        return places[places >= 0]

    def _scan_all(self, query: Vectors, count: int) -> Ids:
        """Exact search over everything on disk: the way out when the built index proposes too few."""
        scores = np.empty(len(self.snapshot), dtype=np.float32)
        for start in range(0, len(self.snapshot), SCAN_CHUNK_ROWS):
            block = slice(start, start + SCAN_CHUNK_ROWS)
            scores[block] = unit_vectors(self.snapshot.take(block)) @ query
        return largest(scores, count)

    def _ordered(self, query: Vectors, places: Ids, k: int) -> tuple[Ids, npt.NDArray[np.float32]]:
        """Order candidates by their distance in float64: the same vector gets the same distance wherever it stands."""
        units = unit_vectors(self.snapshot.take(places)).astype(np.float64)
        distances = np.clip(1 - (units * query.astype(np.float64)).sum(axis=1), 0, 2).astype(np.float32)
        order = np.lexsort((places, distances.round(6)))[:k]
        return self.snapshot.ids[places[order]], distances[order]


def _places(snapshot: Snapshot, built_ids: Ids, built_rows: Ids) -> Ids:
    if not len(snapshot):
        return np.full(len(built_ids), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(snapshot.ids, built_ids), len(snapshot) - 1)
    same = (snapshot.ids[places] == built_ids) & (snapshot.rows[places] == built_rows)
    return np.where(same, places, -1).astype(np.int64)


def available_kinds() -> list[str]:
    """Return the kinds of index that can be built here, the preferred first."""
    return [kind for kind in _KINDS if importlib.util.find_spec(kind) is not None] + ["exact"]


def build_index(
    snapshot: Snapshot,
    folder: Path,
    options: IndexOptions,
    *,
    previous: tuple[Path, IndexManifest] | None = None,
    stop: threading.Event | None = None,
) -> IndexManifest:
    """Build an index over `snapshot` into `folder`, test it, and return what to write into the generation's manifest.

    `previous` (its folder and manifest) is carried over when it was built with the same options and covers nearly
    everything: the few images it does not know are scanned exactly. A build that fails, fails its self-test, or is ended
    by `stop` is not used: the manifest says `exact`, with the reason. Raises `IndexBuildError` only when the kind asked
    for is not installed.
    """
    kind, reason = _choose_kind(options.kind, len(snapshot))
    exact = IndexManifest("exact", len(snapshot), asdict(options), snapshot.file, reason=reason)
    if kind == "exact":
        return exact
    if previous is not None and _still_good(snapshot, previous, kind, options):
        return _carry_over(previous, folder)
    try:
        test = _build_in_child(snapshot, folder, kind, options, stop or threading.Event())
    except IndexBuildError as error:
        _clear(folder)
        return replace(exact, reason=str(error))
    if test.recall < RECALL_NEEDED:
        _clear(folder)
        reason = (
            f"The {kind} index found only {test.recall:.1%} of the true neighbours in its self-test (at least "
            f"{RECALL_NEEDED:.0%} are needed), so it is not used; exact search answers instead. Some builds of Annoy are "
            "faulty: try --index usearch."
        )
        return replace(exact, reason=reason, self_test=asdict(test))
    size = (folder / f"index.{kind}").stat().st_size
    return replace(exact, kind=kind, search_k=test.search_k, self_test=asdict(test), bytes=size)


def _clear(folder: Path) -> None:
    """Remove what an unused build left: it may be what filled the disk."""
    for path in folder.iterdir():
        path.unlink()


def _choose_kind(wanted: str, count: int) -> tuple[str, str]:
    kinds = available_kinds()
    if wanted == "auto":
        if count < SMALL_COLLECTION:
            return "exact", ""
        return kinds[0], "neither annoy nor usearch is installed" if kinds[0] == "exact" else ""
    if wanted not in kinds:
        raise IndexBuildError(
            f"The index kind {wanted!r} was asked for, but the package {wanted} is not installed. Install it "
            f"(pip install {wanted}), or choose one of: auto, {', '.join(kinds)}."
        )
    return ("exact", "") if count == 0 else (wanted, "")


def _still_good(snapshot: Snapshot, previous: tuple[Path, IndexManifest], kind: str, options: IndexOptions) -> bool:
    folder, manifest = previous
    if (manifest.kind, manifest.options, manifest.vectors_file) != (kind, asdict(options), snapshot.file):
        return False
    if not is_complete(folder, manifest):
        return False
    places = _places(snapshot, np.load(folder / "ids.npy"), np.load(folder / "rows.npy"))
    known = int((places >= 0).sum())
    return (len(snapshot) - known) + (len(places) - known) <= max(SMALL_COLLECTION // 2, len(snapshot) // 50)


def is_complete(folder: Path, manifest: IndexManifest) -> bool:
    """Tell whether the files of a generation's index are there and belong together, so that it need not be built again."""
    if manifest.kind == "exact":
        return True
    try:
        covered = {len(np.load(folder / name)) for name in ("ids.npy", "rows.npy")}
        size = (folder / f"index.{manifest.kind}").stat().st_size
    except (OSError, ValueError, EOFError):
        return False
    return covered == {manifest.items} and size == manifest.bytes


def _carry_over(previous: tuple[Path, IndexManifest], folder: Path) -> IndexManifest:
    source, manifest = previous
    for name in (f"index.{manifest.kind}", "ids.npy", "rows.npy"):
        try:
            os.link(source / name, folder / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(source / name, folder / name)
    return manifest


def _build_in_child(
    snapshot: Snapshot, folder: Path, kind: str, options: IndexOptions, stop: threading.Event
) -> SelfTest:
    if stop.is_set():
        raise IndexBuildError(STOPPED)
    needed = int(len(snapshot) * snapshot.dim * 4 * 1.3) + len(snapshot) * options.trees * 12
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise IndexBuildError(
            f"A {kind} index of {len(snapshot):,} images needs about {needed / 1e6:,.0f} MB in {folder.parent}, and "
            f"{free / 1e6:,.0f} MB are free. Exact search answers instead; make room and run `python img2vec.py` again."
        )
    matrix = snapshot.matrix
    if not isinstance(matrix, np.memmap) or matrix.filename is None:
        raise ValueError("an index is built over vectors that lie on disk")
    np.save(folder / "ids.npy", snapshot.ids)
    np.save(folder / "rows.npy", snapshot.rows)
    task = {
        "vectors": str(Path(matrix.filename).absolute()),
        "shape": list(matrix.shape),
        "folder": str(folder.absolute()),
        "kind": kind,
        "options": asdict(options),
    }
    returncode, output, errors = _run_child(json.dumps(task), stop)
    if stop.is_set():
        raise IndexBuildError(STOPPED)
    if returncode != 0:
        lines = errors.strip().splitlines() or [f"ended by signal {-returncode}"]
        raise IndexBuildError(
            f"The {kind} index could not be built ({lines[-1]}). Exact search answers instead. A full disk, or an {kind} "
            "compiled for another processor, ends this way."
        )
    return SelfTest(**json.loads(output.splitlines()[-1]))


def _run_child(task: str, stop: threading.Event) -> tuple[int, str, str]:
    """Run `build_here` in a child, which `stop` ends. Its own session keeps a terminal's Ctrl-C from it: that is the job's."""
    command = [sys.executable, "-c", "import sys, ann; ann.build_here(sys.argv[1])", task]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        while True:
            try:
                output, errors = child.communicate(timeout=0.1)
                return child.returncode, output, errors
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    child.kill()


def build_here(task_json: str) -> None:
    """Build and test one index in this process, as told by `_build_in_child`, and print the self-test as JSON."""
    task = json.loads(task_json)
    folder, kind, options = Path(task["folder"]), task["kind"], IndexOptions(**task["options"])
    matrix = np.memmap(task["vectors"], dtype="<f2", mode="r", shape=tuple(task["shape"]))
    snapshot = Snapshot(np.load(folder / "ids.npy"), np.load(folder / "rows.npy"), matrix)
    path = folder / f"index.{kind}"
    _KINDS[kind].build(_blocks(snapshot), snapshot.dim, path, options)
    print(json.dumps(asdict(_self_test(snapshot, kind, path, options))))


def _blocks(snapshot: Snapshot) -> Iterator[Vectors]:
    for start in range(0, len(snapshot), SCAN_CHUNK_ROWS):
        yield unit_vectors(snapshot.take(slice(start, start + SCAN_CHUNK_ROWS)))


def _self_test(snapshot: Snapshot, kind: str, path: Path, options: IndexOptions) -> SelfTest:
    """Measure recall@10 against exact search; take the cheapest effort that reaches the wanted recall, else the best.

    The queries are images of the collection; that each finds itself counts for nothing.
    """
    k = min(SELF_TEST_K, len(snapshot) - 1)
    random = np.random.default_rng(SEED)
    places = np.sort(random.choice(len(snapshot), size=min(SELF_TEST_QUERIES, len(snapshot)), replace=False))
    queries = unit_vectors(snapshot.take(places))
    started = time.perf_counter()
    limits = _exact_limits(snapshot, queries, k)
    exact_ms = (time.perf_counter() - started) * 1000 / len(queries)
    best: SelfTest | None = None
    for search_k in (options.search_k,) if options.search_k else _LADDERS[kind]:
        candidates = _KINDS[kind](path, snapshot.dim, search_k)
        started = time.perf_counter()
        found = [candidates.search(query, k + 1) for query in queries]
        query_ms = (time.perf_counter() - started) * 1000 / len(queries)
        others = [items[items != place] for items, place in zip(found, places, strict=True)]
        recall = _recall(snapshot, queries, others, limits, k)
        if best is None or recall > best.recall:
            best = SelfTest(recall, query_ms, exact_ms, len(queries), k, search_k)
        if recall >= RECALL_WANTED:
            break
    if best is None:
        raise ValueError(f"no search effort is known for {kind}")
    return best


def _exact_limits(snapshot: Snapshot, queries: Vectors, k: int) -> npt.NDArray[np.float32]:
    """Return the cosine of the k-th true neighbour of each query, itself left out, float32 (q,)."""
    best: npt.NDArray[np.float32] = np.full((len(queries), k + 1), -2, dtype=np.float32)
    for block in _blocks(snapshot):
        both = np.concatenate([best, queries @ block.T], axis=1)
        best = np.partition(both, both.shape[1] - k - 1, axis=1)[:, -k - 1 :]
    return np.asarray(best.min(axis=1), dtype=np.float32)


def _recall(snapshot: Snapshot, queries: Vectors, found: list[Ids], limits: npt.NDArray[np.float32], k: int) -> float:
    """Share of answers that are as near as the k-th true neighbour: of equally near images any may be returned."""
    hits = 0
    for query, items, limit in zip(queries, found, limits, strict=True):
        units = unit_vectors(snapshot.take(np.unique(items)))
        hits += min(k, int((units @ query >= limit - 1e-5).sum()))
    return hits / (len(queries) * k) if k else 1.0


def load_index(snapshot: Snapshot, folder: Path, manifest: IndexManifest) -> Index:
    """Open the index of a generation over `snapshot`, which may be newer than the build.

    Raises `DamagedCollectionError` when the built index cannot be opened here.
    """
    if manifest.kind == "exact" or manifest.vectors_file != snapshot.file:
        return Index(snapshot)
    if not is_complete(folder, manifest):
        raise DamagedCollectionError(
            f"The {manifest.kind} index in {folder} is damaged. Run `python img2vec.py` again: it builds another one."
        )
    try:
        candidates = _KINDS[manifest.kind](folder / f"index.{manifest.kind}", snapshot.dim, manifest.search_k)
        return Index(snapshot, candidates, np.load(folder / "ids.npy"), np.load(folder / "rows.npy"))
    except (OSError, ValueError, EOFError, RuntimeError, ImportError) as error:
        raise DamagedCollectionError(
            f"The {manifest.kind} index in {folder} cannot be opened ({error}). Go on without it: "
            "python img2vec.py --index exact"
        ) from error
