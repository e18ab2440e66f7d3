"""What labels give: half the photographs of the classes that the network confuses most are labelled, the other half asked for.

Owns the protocol and its figures; the commands that a user would run are run. *Chosen classes*: mAP of the other half as queries,
with all photographs that have no label to be found. *Among themselves*: with those of the chosen classes alone. *Never seen*: mAP
of the photographs of all other classes. Plain cosine throughout.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from benchmarks.search import BACKBONE
from benchmarks.table import Figure
from config import ROOT
from evaluation import judge
from publishing import searched_snapshot
from store import Snapshot, open_store
from vectors import Ids, exact_neighbours, unit_vectors

if TYPE_CHECKING:
    from benchmarks.parts import Bench

CLASSES = 10
NEAREST = 10
CLEARLY = 0.05
"""So much more mAP is called clearly more."""
UNSEEN_MAY_LOSE = 0.02
SCORES_MAY_MISS = 0.05
NAME = "learned"
TIMED_PHOTOGRAPHS = 2_000
LEAST_IMAGES = 6
"""Of fewer photographs of a class little can be learnt, and none held out."""
SEED = 6


@dataclass(frozen=True)
class Protocol:
    """Which images are what: `names` the class of each image, by place in the collection; places `labelled`, `asked` (the other
    half of the chosen `classes`) and `unseen` int64, ascending."""

    names: npt.NDArray[np.str_]
    classes: tuple[str, ...]
    labelled: Ids
    asked: Ids
    unseen: Ids


@dataclass(frozen=True)
class Rates:
    """mAP 0…1 of the chosen classes, of them among themselves, and of all others."""

    chosen: float
    among: float
    unseen: float


def measure_learn(bench: Bench) -> Iterator[Figure]:
    """Before, projection, fine-tuned, scores: one collection, one network's vectors beside the other's."""
    run = bench.job(BACKBONE, bench.plan.memory_images[1], "exact")
    collection = run.collection
    snapshot, paths = _vectors(collection)
    protocol = choose(snapshot, paths)
    yield Figure("learn", "chosen classes: " + ", ".join(protocol.classes), len(protocol.classes), "")
    yield Figure("learn", "labelled photographs", len(protocol.labelled), "")
    labels = bench.folder / "labels.csv"
    write_labels(labels, [paths[place] for place in protocol.labelled], protocol.names[protocol.labelled].tolist())
    before = rate(snapshot, protocol)
    yield from _told("before", before, before)
    yield from _projection(bench, collection, labels, protocol, before)
    yield from _network(bench, collection, labels, protocol, before)
    shutil.rmtree(collection)
    if len(paths) >= TIMED_PHOTOGRAPHS:
        yield from _timed(bench, paths, protocol.names)


def _projection(bench: Bench, collection: Path, labels: Path, protocol: Protocol, before: Rates) -> Iterator[Figure]:
    report, seconds = _command(bench, "autoencoder.py", collection, "--reducer", "projection", "--labels", str(labels))
    yield from _told("projection", rate(_vectors(collection)[0], protocol), before, held=True)
    yield Figure("learn", "projection: training and publishing", report["seconds"], "s")
    _, seconds = _command(bench, "autoencoder.py", collection, "--reducer", "none")
    yield Figure("learn", "projection: back to the network's own vectors", seconds, "s")


def _network(bench: Bench, collection: Path, labels: Path, protocol: Protocol, before: Rates) -> Iterator[Figure]:
    # Nothing of the labelled half is held out to be judged by: the other half is there for that.
    options = ("--labels", str(labels), "--name", NAME, "--held-out", "0")
    _, seconds = _command(bench, "finetune.py", collection, *options)
    yield Figure("learn", f"fine-tuning on {len(protocol.labelled):,} photographs", seconds, "s")
    _command(bench, "img2vec.py", collection, "--backbone", NAME)
    yield from _told("fine-tuned", rate(_vectors(collection)[0], protocol), before, held=True)
    _command(bench, "img2vec.py", collection, "--backbone", NAME, "--layer", "scores")
    scores = _vectors(collection)[0]
    yield from _told("softmax scores", rate(scores, protocol), before)
    yield from _shared(scores, protocol)
    back, seconds = _command(bench, "img2vec.py", collection, "--backbone", BACKBONE)
    yield Figure("learn", "switching back: images computed again", back["vectorised"], "", at_most=0)
    yield Figure("learn", "switching back", seconds, "s")


def _shared(scores: Snapshot, protocol: Protocol) -> Iterator[Figure]:
    """The article's way: scores as vectors, nearest by euclidean distance and by cosine, among the photographs of the classes."""
    places = np.sort(np.concatenate([protocol.labelled, protocol.asked]))
    vectors = scores.take(places)
    asked = np.isin(places, protocol.asked)
    names = protocol.names[places]
    best = np.array(protocol.classes)[vectors[asked].argmax(axis=1)]
    accuracy = float((best == names[asked]).mean())
    yield Figure("learn", "accuracy of the classifier on the other half", accuracy, "")
    for metric in ("euclidean", "cosine"):
        distances = cdist(vectors[asked], vectors, metric)
        distances[np.arange(asked.sum()), np.flatnonzero(asked)] = np.inf  # an image itself
        same = names[distances.argsort(axis=1)[:, :NEAREST]] == names[asked][:, None]
        floor = accuracy - SCORES_MAY_MISS
        yield Figure("learn", f"scores, {metric}: nearest shares the class", float(same[:, 0].mean()), "", floor)
        yield Figure("learn", f"scores, {metric}: ten nearest share the class", float(same.mean()), "")


def _timed(bench: Bench, paths: Sequence[str], names: npt.NDArray[np.str_]) -> Iterator[Figure]:
    """How long fine-tuning takes with many labels: all classes, evenly."""
    order = np.random.default_rng(SEED).permutation(len(paths))[:TIMED_PHOTOGRAPHS]
    common = [place for place in order.tolist() if (names[order] == names[place]).sum() >= LEAST_IMAGES]
    labels = bench.folder / "many-labels.csv"
    write_labels(labels, [paths[place] for place in common], names[common].tolist())
    collection = bench.folder / "timed"
    _, seconds = _command(bench, "finetune.py", collection, "--labels", str(labels), "--name", NAME)
    shutil.rmtree(collection)
    yield Figure("learn", f"fine-tuning on {len(common):,} photographs, from files to report", seconds / 60, "min")


def _told(title: str, rates: Rates, before: Rates, *, held: bool = False) -> Iterator[Figure]:
    floor = (before.chosen + CLEARLY, before.unseen - UNSEEN_MAY_LOSE) if held else (None, None)
    yield Figure("learn", f"{title}: mAP of the chosen classes", rates.chosen, "", floor[0])
    yield Figure("learn", f"{title}: mAP of the chosen classes among themselves", rates.among, "")
    yield Figure("learn", f"{title}: mAP of classes never seen", rates.unseen, "", floor[1])


def _command(bench: Bench, program: str, collection: Path, *options: str) -> tuple[Mapping[str, Any], float]:
    """Run one of the project's commands over `collection`; return its report and its seconds."""
    command = [sys.executable, str(ROOT / program), *options, "--rsc-files", str(collection), "--json"]
    finished = bench.run(command)
    return json.loads(finished.output), finished.wall_s


def _vectors(collection: Path) -> tuple[Snapshot, list[str]]:
    """Return what the collection is searched by, and the path of each image."""
    with contextlib.closing(open_store(collection)) as store:
        generation = store.generation()
        if generation is None:
            raise RuntimeError(f"{collection} was not published")
        snapshot = searched_snapshot(store, generation)
        records = store.records(snapshot.ids.tolist())
    return snapshot, [os.fsdecode(records[image_id].path) for image_id in snapshot.ids.tolist()]


def choose(snapshot: Snapshot, paths: Sequence[str], classes: int = CLASSES) -> Protocol:
    """Choose the classes (folders) whose images have most images of other classes among their ten nearest; label half of each."""
    names = np.array([Path(path).parent.name for path in paths])
    units = unit_vectors(snapshot.take(slice(None)))
    nearest, _ = exact_neighbours(units, [units], min(NEAREST + 1, len(units)))
    wrong = (names[nearest[:, 1:]] != names[:, None]).mean(axis=1)
    every, counts = np.unique(names, return_counts=True)
    every = every[counts >= LEAST_IMAGES]
    order = np.argsort([-wrong[names == name].mean() for name in every], kind="stable")
    chosen = tuple(sorted(every[order[: min(classes, len(every) // 2)]].tolist()))
    random = np.random.default_rng(SEED)
    shuffled = [random.permutation(np.flatnonzero(names == name)) for name in chosen]
    labelled = np.sort(np.concatenate([places[: len(places) // 2] for places in shuffled]))
    asked = np.sort(np.concatenate([places[len(places) // 2 :] for places in shuffled]))
    return Protocol(names, chosen, labelled, asked, np.flatnonzero(~np.isin(names, chosen)))


def rate(snapshot: Snapshot, protocol: Protocol) -> Rates:
    """Return the mAP of each kind of query, by plain cosine."""
    found = np.sort(np.concatenate([protocol.asked, protocol.unseen]))
    return Rates(
        _mean_average_precision(snapshot, protocol.names, protocol.asked, found),
        _mean_average_precision(snapshot, protocol.names, protocol.asked, protocol.asked),
        _mean_average_precision(snapshot, protocol.names, protocol.unseen, found),
    )


def _mean_average_precision(snapshot: Snapshot, names: npt.NDArray[np.str_], asked: Ids, found: Ids) -> float:
    scores = unit_vectors(snapshot.take(asked)) @ unit_vectors(snapshot.take(found)).T
    averages = []
    for place, row in zip(asked.tolist(), scores, strict=True):
        order = found[np.argsort(-row.round(6), kind="stable")]
        relevant = names[order[order != place]] == names[place]
        averages += [judge(relevant)[1]] if relevant.any() else []
    return float(np.mean(averages))


def write_labels(path: Path, paths: Sequence[str], names: Sequence[str]) -> None:
    """Write a CSV of labels as the commands read it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *zip(paths, names, strict=True)])
