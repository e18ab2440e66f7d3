"""How good the answers are: what the index misses, and how well images with the same label find each other.

Owns the measures and how they are taken. *Recall@k* is the share of the true k nearest that the index finds. Where labels say
what is similar (folders, what a person gave, or a CSV), *P@10* is the share of the ten first matches with the query's label,
*R-precision* that of the first R where R images have the label, and *mAP* the mean over all queries of average precision, which
looks at the whole ranking. Images are queries that are left out of their own answers; uploads are images taken out of the
collection before anything is computed from it. Images without a label are in no ranking, and those whose label no other has are
no queries. An interval holds the mean of 95 of 100 samples of queries like these (percentile bootstrap).

Does not own orders (`ranking`), indexes (`ann`) or printing (`commands/`). Sources: Manning, Raghavan, Schütze, "Introduction to
Information Retrieval", chapter 8; Efron and Tibshirani, "An Introduction to the Bootstrap".
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ann import Index
from errors import RequestError
from ranking import PLAIN_PLACES, KindRanking, build_kind_ranking, group_size, load_kind_ranking
from store import Record, Snapshot
from vectors import BLOCK_ROWS, Ids, Vectors, exact_neighbours, unit_vectors

Values = npt.NDArray[np.float64]

P_AT = 10
RECALL_AT = (1, 10, 50)
RECALL_QUERIES = 500
PAIRS = 100_000_000
"""Queries times images that are compared: every image of 10,000 is a query, 1,000 of 100,000 are."""
LEAST_QUERIES = 1_000
FOLDS = 5
FOLDED_IMAGES = 20_000
"""Of larger collections one part is held out and not five in turn: all else is computed anew for each."""
SCORES_AT_A_TIME = 8_000_000
RESAMPLES = 1_000
SEED = 20_080_707


@dataclass(frozen=True)
class Interval:
    """A mean, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Recall:
    """The share of the true `k` nearest that the index finds, an image itself left out."""

    k: int
    queries: int
    recall: Interval


@dataclass(frozen=True)
class Quality:
    """How well one `order` (plain, kind) finds images of the query's label; `asked` is images or uploads."""

    asked: str
    order: str
    queries: int
    precision: Interval
    mean_average_precision: Interval
    r_precision: Interval


@dataclass(frozen=True)
class Evaluation:
    """All figures of one collection, JSON-able. `group_size` is that of the median image's label, None without groups."""

    images: int
    labelled: int
    group_size: int | None
    default_order: str
    recalls: list[Recall]
    qualities: list[Quality]
    notes: list[str]


def evaluate(
    index: Index,
    kind: KindRanking | None,
    labels: Sequence[str | None],
    *,
    on_progress: Callable[[str], None] = lambda step: None,
) -> Evaluation:
    """Measure what `index` finds, and how well its images, whose `labels` are in the order of its snapshot, find each other.

    `kind` is the order by averages where the collection has one. Memory is bounded, whatever the number of images.
    """
    snapshot = index.snapshot
    on_progress("recall of the index")
    recalls = [measure_recall(index, k) for k in RECALL_AT if k < len(snapshot)]
    labelled = np.array([number for number, label in enumerate(labels) if label is not None], dtype=np.int64)
    everything = _Labelled(_part(snapshot, labelled), _numbers([labels[place] for place in labelled.tolist()]))
    queries, notes = _queries(everything.names)
    qualities: list[Quality] = []
    if len(queries):
        on_progress("images as queries")
        qualities += _rated("images", _judge(everything, queries, everything, kind))
        on_progress("uploads as queries")
        qualities += _rated("uploads", _judge_held_out(everything, queries))
        notes += _notes(len(labelled), len(snapshot))
    else:
        notes.append("No two images have the same label, so only the index is measured. Give labels: --labels FILE.csv")
    default = "plain" if kind is None else kind.default
    return Evaluation(len(snapshot), len(labelled), group_size(labels), default, recalls, qualities, notes)


def _notes(labelled: int, images: int) -> list[str]:
    notes = []
    if labelled < images:
        notes.append(f"{images - labelled:,} of {images:,} images have no label and are in no ranking.")
    if labelled > FOLDED_IMAGES:
        notes.append(
            f"The uploads are one part of the collection ({FOLDS} parts in turn up to {FOLDED_IMAGES:,} images)."
        )
    return notes


def measure_recall(index: Index, k: int) -> Recall:
    """Measure which share of the true k nearest the index finds for images of the collection, themselves left out.

    Of equally near images any may be found.
    """
    snapshot = index.snapshot
    random = np.random.default_rng(SEED)
    places = np.sort(random.permutation(len(snapshot))[:RECALL_QUERIES])
    vectors = snapshot.take(places)
    _, true = exact_neighbours(unit_vectors(vectors), _blocks(snapshot), k + 1)
    found = index.query(vectors, k + 1).without(snapshot.ids[places], k)
    # The image itself is among the k + 1 nearest (or an equal one is), so the last of them is the k-th other.
    hits = 1 - found.distances >= true[:, -1:] - 1e-5
    return Recall(k, len(places), _interval(hits.sum(axis=1) / k))


def rate_vectors(vectors: npt.NDArray[np.float32], labels: Sequence[str], *, queries: Ids | None = None) -> Quality:
    """Return how well `vectors` (n, dim) of images with `labels` find each other by plain cosine, each a query.

    `queries` are the places of those that are, where not all shall be. Some of them must share a label with another image.
    """
    places = np.arange(len(vectors), dtype=np.int64)
    snapshot = Snapshot(places, places, np.asarray(vectors))
    everything = _Labelled(snapshot, _numbers(labels))
    shared, _ = _queries(everything.names)
    asked = shared if queries is None else np.intersect1d(shared, queries)
    return _rated("images", _judge(everything, asked, everything, None))[0]


def judge(relevant: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return P@10, average precision and R-precision of one ranking: whether each image, best first, has the query's label.

    At least one must have it.
    """
    ranks = np.flatnonzero(relevant) + 1
    average = (np.arange(1, len(ranks) + 1) / ranks).mean()
    return float(relevant[:P_AT].mean()), float(average), float(relevant[: len(ranks)].mean())


# Queries.


@dataclass(frozen=True)
class _Labelled:
    """Images, and the number of each one's label, int64 (n,)."""

    snapshot: Snapshot
    names: Ids


def _numbers(labels: Sequence[str | None]) -> Ids:
    return np.unique(np.array(labels, dtype=str), return_inverse=True)[1].astype(np.int64)


def _part(snapshot: Snapshot, places: Ids) -> Snapshot:
    return Snapshot(snapshot.ids[places], snapshot.rows[places], snapshot.matrix, snapshot.file)


def _queries(names: Ids) -> tuple[Ids, list[str]]:
    """Return the places of the images that are queries, by chance where there are too many, and what to say of it."""
    shared = np.bincount(names, minlength=1)[names] > 1 if len(names) else np.empty(0, dtype=bool)
    places = np.flatnonzero(shared).astype(np.int64)
    most = max(LEAST_QUERIES, PAIRS // max(len(names), 1))
    if len(places) <= most:
        return places, []
    chosen = np.sort(np.random.default_rng(SEED).choice(places, most, replace=False))
    return chosen, [f"The queries are {most:,} images by chance (seed {SEED}) of the {len(places):,} that could be."]


def _judge_held_out(everything: _Labelled, queries: Ids) -> dict[str, Values]:
    """Judge `queries` (places) as uploads: all is computed from a collection without those that are asked together."""
    count = len(everything.names)
    folds = FOLDS if count <= FOLDED_IMAGES else 1
    shuffled = np.random.default_rng(SEED).permutation(queries)
    parts: dict[str, list[Values]] = defaultdict(list)
    for fold in range(folds):
        held = np.sort(shuffled[fold::folds] if folds > 1 else shuffled[:LEAST_QUERIES])
        kept = np.setdiff1d(np.arange(count), held)
        base = _Labelled(_part(everything.snapshot, kept), everything.names[kept])
        held = held[np.isin(everything.names[held], base.names)]
        with tempfile.TemporaryDirectory(prefix="lookalike-") as name:
            manifest = build_kind_ranking(base.snapshot, Path(name))
            kind = load_kind_ranking(base.snapshot, Path(name), manifest)
            for order, judged in _judge(everything, held, base, kind).items():
                parts[order].append(judged)
    return {order: np.concatenate(judged) for order, judged in parts.items()}


# Rankings.


def _judge(asked: _Labelled, queries: Ids, base: _Labelled, kind: KindRanking | None) -> dict[str, Values]:
    """Judge the rankings of `base` for the images of `asked` at `queries`, left out of it where they are in it.

    Returns for each order P@10, average precision and R-precision of each query, float64 (q, 3).
    """
    judged: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    ids = base.snapshot.ids
    step = max(1, SCORES_AT_A_TIME // max(len(ids), 1))
    for start in range(0, len(queries), step):
        places = queries[start : start + step]
        vectors, own = asked.snapshot.take(places), asked.snapshot.ids[places]
        rankings = {"plain": _plain(vectors, own, base.snapshot)}
        if kind is not None:
            first = ids[rankings["plain"][:, :PLAIN_PLACES]]
            ordered = kind.order(vectors, first, None, allowed=ids, without=own[:, None])
            rankings["kind"] = np.searchsorted(ids, ordered)
        for order, ranking in rankings.items():
            same = base.names[ranking] == asked.names[places][:, None]
            judged[order] += [judge(relevant) for relevant in same]
    return {order: np.array(figures) for order, figures in judged.items()}


def _plain(vectors: Vectors, own: Ids, base: Snapshot) -> Ids:
    """Return the places in `base` by cosine with each of `vectors` (q, dim), best first, without the image `own` (q,)."""
    units = unit_vectors(vectors)
    scores = np.concatenate([units @ block.T for block in _blocks(base)], axis=1).round(6)
    inside = np.isin(own, base.ids)
    scores[inside, np.searchsorted(base.ids, own[inside])] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :-1] if inside.any() else order


def _blocks(snapshot: Snapshot) -> Iterator[Vectors]:
    for start in range(0, len(snapshot), BLOCK_ROWS):
        yield unit_vectors(snapshot.take(slice(start, start + BLOCK_ROWS)))


# Figures.


def _rated(asked: str, judged: dict[str, Values]) -> list[Quality]:
    return [
        Quality(asked, order, len(figures), *(_interval(figures[:, column]) for column in range(3)))
        for order, figures in judged.items()
        if len(figures)
    ]


def _interval(values: Values) -> Interval:
    """Return the mean of `values` (n,) and the middle 95 % of the means of as many drawn from them with replacement."""
    random = np.random.default_rng(SEED)
    share = np.full(len(values), 1 / len(values))
    means = [random.multinomial(len(values), share) @ values / len(values) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(*(round(float(figure), 4) for figure in (values.mean(), low, high)))


# Labels.


def read_labels(path: Path, records: Sequence[Record]) -> tuple[list[str | None], int]:
    """Read the label of each of `records` from a CSV file: a column of names or paths, a column of labels.

    Columns are told by a first line with `label` and one of `path`, `name`, `file`, `filename`; without it they are the first
    two. A row means the image with that path, else the one whose path ends so, such as `cats/1.jpg` or `1.jpg`. Returns the
    labels in the order of `records`, None for those that no row names, and how many rows name no image. Raises `RequestError`
    for a file that cannot be read or names no image at all, a row without a label, and an ending that several images have.
    """
    rows = [(line, name, os.fsencode(name), label) for line, name, label in label_rows(path)]
    wanted, paths = {key for _, _, key, _ in rows}, {record.path for record in records}
    meant = [
        [end for end in _endings(record.path) if end in wanted and (end == record.path or end not in paths)]
        for record in records
    ]
    counts = Counter(end for ends in meant for end in ends)
    if not counts:
        example = "" if not records else f", such as {os.fsdecode(records[0].path)!a}"
        raise RequestError(
            f"No row of {path} names an image of the collection by its path or an ending of it{example}."
        )
    given: dict[bytes, str] = {}
    for line, name, key, label in rows:
        if not label:
            raise RequestError(f"{path}, line {line}: {name!r} has no label.")
        if counts[key] > 1:
            raise RequestError(f"{path}, line {line}: {counts[key]} images are called {name!r}. Give more of the path.")
        given[key] = label
    return [given[ends[0]] if ends else None for ends in meant], len(wanted - counts.keys())


def _endings(path: bytes) -> Iterator[bytes]:
    """Yield `path` and what follows each of its slashes, the longest first."""
    yield path
    yield from (path[place + 1 :] for place, sign in enumerate(path) if sign == ord("/"))


def label_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name (or path) and label of each row of a CSV file; raises `RequestError` where it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            columns = (0, 1)
            for number, row in enumerate(reader):
                words = [cell.strip().lower() for cell in row]
                if number == 0 and "label" in words and (named := {"path", "name", "file", "filename"} & set(words)):
                    columns = (words.index(min(named, key=words.index)), words.index("label"))
                elif row:
                    if len(row) <= max(columns):
                        raise RequestError(f"{path}, line {reader.line_num}: a name and a label are needed, not {row}.")
                    yield reader.line_num, row[columns[0]], row[columns[1]].strip()
    except (OSError, csv.Error) as error:
        raise RequestError(f"The labels in {path} cannot be read: {error}") from error
