"""What smaller vectors cost and give on one collection: full vectors against the autoencoder against PCA.

Owns what is measured and how. Does not own the reducers (`autoencoder`), the index (`indexes/`), nor printing (`commands/`).

Every image is a query, or as many by chance as can be compared in reasonable time; a query never finds itself. What a smaller
vector finds *alone* is measured by exact search over all smaller vectors; *re-ordered* says how many of the true ten nearest are
among the first hundred, which is what remains when those are put in order by the full vectors. Bytes, seconds to
build and milliseconds of a query are those of the index that the settings would build, in one thread. *Full* is an index over
the vectors as they are; *projected* what a collection without a reducer has where they are long (`indexes.building`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ann import IndexOptions, Reduction, build_index
from autoencoder import FittedReducer, Kind, Reducer, ReducerOptions, fit_reducer
from config import Settings
from errors import ReducerError
from evaluation import judge
from indexes.building import PROJECTED_DIM, PROJECTION
from reducing import published_vectors, training_vectors
from store import Snapshot, Store
from vectors import BLOCK_ROWS, Ids, Vectors, exact_neighbours, unit_vectors

KINDS: tuple[Kind, ...] = ("autoencoder", "pca")
DIMS = (32, 64, 128, 256, 512)
K = 10
CANDIDATES = (10, 20, 30, 50, 100, 200, 500, 1_000)
REORDERED = 10 * K
RECALL_WANTED = 0.99
PAIRS = 25_000_000
"""How many pairs of vectors are compared for one line: every image of 5,000 is a query, 250 of 100,000 are."""
MIN_QUERIES = 200
TIMED_QUERIES = 50
SCORE_BYTES = 64_000_000
SEED = 20_150_625


@dataclass(frozen=True)
class Line:
    """One line of the comparison; `candidates` is the smallest number whose best ten, by full vectors, are 99 % of the true ten.

    `precision` (P@10) and `mean_average_precision` are None without labels. `kind` is full, projected, autoencoder or
    pca; `index` the kind of index that bytes, seconds and milliseconds are of, `note` why it is not the kind asked for.
    """

    kind: str
    dim: int
    index: str
    bytes: int
    build_s: float
    query_ms: float
    recall_alone: float
    recall_reordered: float
    candidates: int | None
    precision: float | None
    mean_average_precision: float | None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All lines, and what they were measured on: `labelled` of the `queries` have a label that another image shares.

    `notes` say which sizes have no line, because these vectors cannot be made so small, and why.
    """

    vectors_key: str
    images: int
    queries: int
    labelled: int
    lines: list[Line]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Measured:
    """What is the same for every line: the queries' places, their true neighbours, and the labels of all images (-1: none)."""

    snapshot: Snapshot
    places: Ids
    truth: Ids
    labels: Ids
    options: IndexOptions


def compare(store: Store, settings: Settings, *, on_progress: Callable[[str], None] = lambda text: None) -> Comparison:
    """Measure full vectors, the autoencoder and PCA at every size of `DIMS` that is possible here.

    Nothing of the collection is changed; memory is bounded. Raises `EmptyCollectionError`, `IndexBuildError`.
    """
    key, snapshot = published_vectors(store)
    on_progress("the true neighbours")
    given = _measured(store, snapshot, settings)
    lines, notes = _lines_without_reducer(given, on_progress), []
    training = training_vectors(snapshot, ReducerOptions().seed)
    for kind in KINDS:
        for dim in DIMS:
            if dim < min(snapshot.dim, 0.9 * len(training)):
                on_progress(f"{kind}, {dim} numbers")
                started = time.perf_counter()
                try:
                    reducer = _fitted(training, kind, dim).reducer
                except ReducerError as error:  # vectors that are equal, or zeros: the other lines are worth having
                    notes.append(f"{kind} {dim}: {str(error).partition('. ')[0]}.")
                    continue
                trained_s = time.perf_counter() - started
                lines.append(_line(kind, reducer, trained_s, _cost(given, reducer), given))
    return Comparison(key, len(snapshot), len(given.places), int(_shares_label(given).sum()), lines, notes)


def _lines_without_reducer(given: _Measured, on_progress: Callable[[str], None]) -> list[Line]:
    on_progress("the full vectors")
    full = _cost(given, None)
    lines = [_line("full", None, 0.0, full, given)]
    exact_is_wanted = full.index == "exact" and not full.note
    if given.snapshot.dim > PROJECTED_DIM and not exact_is_wanted:
        on_progress("what is indexed without a reducer")
        cost = _cost(given, None, project=True)
        if cost.projection is not None:
            lines.append(_line("projected", Reducer("pca", cost.projection), 0.0, cost, given))
    return lines


def _fitted(training: Vectors, kind: Kind, dim: int) -> FittedReducer:
    return fit_reducer(training, ReducerOptions(kind, dim))


def _measured(store: Store, snapshot: Snapshot, settings: Settings) -> _Measured:
    count = min(len(snapshot), max(MIN_QUERIES, PAIRS // len(snapshot)))
    places = np.sort(np.random.default_rng(SEED).choice(len(snapshot), size=count, replace=False)).astype(np.int64)
    queries = unit_vectors(snapshot.take(places))
    found, _ = exact_neighbours(queries, _blocks(snapshot, None), K + 1)
    truth = np.array([row[row != place][:K] for row, place in zip(found, places, strict=True)], dtype=np.int64)
    names = {record.image_id: record.label for record in store.all_records()}
    labels = [names.get(int(image_id)) for image_id in snapshot.ids]
    known = sorted({label for label in labels if label is not None})
    numbers = {label: number for number, label in enumerate(known)}
    wanted = IndexOptions(settings.index, settings.trees, settings.search_k)
    return _Measured(snapshot, places, truth, np.array([-1 if n is None else numbers[n] for n in labels]), wanted)


def _blocks(snapshot: Snapshot, reducer: Reducer | None) -> Iterator[Vectors]:
    """Yield the unit vectors that are searched among, in order of place."""
    for start in range(0, len(snapshot), BLOCK_ROWS):
        block = snapshot.take(slice(start, start + BLOCK_ROWS))
        yield unit_vectors(block) if reducer is None else reducer.apply(block)


def _shares_label(given: _Measured) -> npt.NDArray[np.bool_]:
    """Tell of each query whether it has a label that at least one other image has."""
    own = given.labels[given.places]
    return (own >= 0) & (np.bincount(given.labels[given.labels >= 0], minlength=1)[np.maximum(own, 0)] > 1)


def _line(kind: str, reducer: Reducer | None, trained_s: float, cost: _Cost, given: _Measured) -> Line:
    dim = given.snapshot.dim if reducer is None else reducer.dim
    ranks, precision, average = _quality(given, reducer)
    enough = [count for count in CANDIDATES if ranks.size and (ranks < count).mean() >= RECALL_WANTED]
    return Line(
        kind,
        dim,
        cost.index,
        cost.bytes,
        round(trained_s + cost.build_s, 3),
        round(cost.query_ms, 3),
        float((ranks < K).mean()) if ranks.size else 1.0,  # one image has no neighbours to be missed
        float((ranks < REORDERED).mean()) if ranks.size else 1.0,
        enough[0] if enough else None,
        precision,
        average,
        cost.note,
    )


def _quality(given: _Measured, reducer: Reducer | None) -> tuple[Ids, float | None, float | None]:
    """Return the ranks (from 0) that smaller vectors give the true neighbours, P@10 and mAP (None without labels)."""
    snapshot, shares = given.snapshot, _shares_label(given)
    ranks, precisions, averages = [], [], []
    step = max(1, SCORE_BYTES // (4 * len(snapshot)))
    for start in range(0, len(given.places), step):
        places = given.places[start : start + step]
        vectors = snapshot.take(places)
        queries = unit_vectors(vectors) if reducer is None else reducer.apply(vectors)
        scores = np.concatenate([queries @ block.T for block in _blocks(snapshot, reducer)], axis=1)
        for number, place in enumerate(places):
            order = np.argsort(-scores[number], kind="stable")
            order = order[order != place]
            rank = np.empty(len(snapshot), dtype=np.int64)
            rank[order] = np.arange(len(order))
            ranks.append(rank[given.truth[start + number]])
            if shares[start + number]:
                names = given.labels[order]
                # As in `evaluation`, images without a label are in no ranking.
                precision, average, _ = judge(names[names >= 0] == given.labels[place])
                precisions.append(precision)
                averages.append(average)
    if not precisions:
        return np.array(ranks), None, None
    return np.array(ranks), float(np.mean(precisions)), float(np.mean(averages))


@dataclass(frozen=True)
class _Cost:
    index: str
    bytes: int
    build_s: float
    query_ms: float
    note: str
    projection: Vectors | None = None


def _cost(given: _Measured, reducer: Reducer | None, *, project: bool = False) -> _Cost:
    """Build the index of the settings in a folder of its own, over smaller vectors or full ones, and look at its self-test."""
    snapshot = given.snapshot
    reduction = None if reducer is None else Reduction(reducer.kind, reducer.dim, reducer.apply)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        index = build_index(snapshot, Path(folder), given.options, reduction=reduction, project=project)
        projection = np.load(Path(folder) / PROJECTION) if index.projected_dim else None
    built_s = time.perf_counter() - started
    if index.kind != "exact" and index.self_test is not None:
        return _Cost(index.kind, index.bytes, built_s, index.self_test["query_ms"], "", projection)
    held = np.concatenate(list(_blocks(snapshot, reducer)))
    built_s = time.perf_counter() - started
    queries = held[given.places[:TIMED_QUERIES]]
    started = time.perf_counter()
    for query in queries:
        exact_neighbours(query[None], iter([held]), REORDERED)
    return _Cost("exact", held.nbytes, built_s, (time.perf_counter() - started) * 1000 / len(queries), index.reason)
