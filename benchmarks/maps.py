"""How fast and how true maps are: of the photographs by the command, against scikit-learn's t-SNE, and of 100,000 vectors.

`python -m benchmarks.maps TASK.json` does one step in a process of its own, whose memory is measured from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import map2d
from benchmarks.large import QUERIES, file_of
from benchmarks.large import Task as Crops
from benchmarks.table import Figure
from config import ROOT, Settings
from store import Snapshot, open_store
from vectors import unit_vectors

if TYPE_CHECKING:
    from benchmarks.parts import Bench

BACKBONE = "efficientnet_lite0"
ALL = 4_000
"""The bounds are those of caltech101-dev as a whole: from so many photographs on."""
CLUSTER_SIZE = 50


@dataclass(frozen=True)
class Task:
    """One step: over the vectors of a `collection`, or over `count` vectors of the file `crops`, or made-up ones without it."""

    step: str
    collection: str = ""
    count: int = 0
    crops: str = ""


def measure_maps(bench: Bench) -> Iterator[Figure]:
    """Each layout of the photographs, t-SNE against scikit-learn's, and a map of many vectors."""
    run = bench.job(BACKBONE, bench.plan.memory_images[1], "exact")
    yield from _photographs(bench, run.collection, whole=run.report["images"] >= ALL)
    shutil.rmtree(run.collection)
    yield from _large(bench)


def _photographs(bench: Bench, collection: Path, *, whole: bool) -> Iterator[Figure]:
    layouts = ["tsne", *(["umap"] if whole and find_spec("umap") else []), "grid"]
    chosen = [word for layout in layouts for word in ("--layout", layout)]
    command = [sys.executable, str(ROOT / "map2d.py"), "--json", "--rsc-files", str(collection), *chosen]
    report = json.loads(bench.run(command).output)
    title = f"{report['images']:,} photographs"
    for layout in layouts:
        row, held = report["layouts"][layout], whole and layout == "tsne"
        seconds = row["seconds"] + (0 if layout == "grid" else report["preparing_seconds"])
        yield Figure("maps", f"{title}, {layout}", seconds, "s", at_most=30 if held else None)
        yield Figure(
            "maps", f"{title}, {layout}: trustworthiness", row["trustworthiness"], "", at_least=0.99 if held else None
        )
    reference = _step(bench, Task("reference", collection=str(collection)))
    yield Figure("maps", f"{title}, scikit-learn's t-SNE", reference["seconds"], "s")
    yield Figure("maps", f"{title}, scikit-learn's t-SNE: trustworthiness", reference["trustworthiness"], "")
    ratio = report["layouts"]["tsne"]["seconds"] / reference["seconds"]
    yield Figure("maps", "tsne ÷ scikit-learn's t-SNE, seconds", ratio, "×")
    yield from _newcomers(bench, collection, title)


def _newcomers(bench: Bench, collection: Path, title: str) -> Iterator[Figure]:
    found = _step(bench, Task("newcomers", collection=str(collection)))
    yield Figure("maps", f"{title}, a tenth placed among the others: trustworthiness", found["trustworthiness"], "")


def _large(bench: Bench) -> Iterator[Figure]:
    crops = file_of(Crops("vectors", str(bench.results / "crops"), bench.plan.large))
    known = str(crops) if crops.exists() else ""
    found = _step(bench, Task("large", count=bench.plan.large, crops=known))
    title = f"{bench.plan.large:,} {'crops' if known else 'made-up vectors'}"
    for name, unit in (("components", "s"), ("neighbours", "s"), ("tsne", "s"), ("grid", "s")):
        yield Figure("maps", f"{title}, {name}", found[name], unit)
    yield Figure("maps", f"{title}, tsne: trustworthiness", found["tsne_trust"], "")
    yield Figure("maps", f"{title}, grid: trustworthiness", found["grid_trust"], "")
    yield Figure("maps", f"{title}: most memory", found["peak_mb"], "MB", at_most=4_000)


def _step(bench: Bench, task: Task) -> dict[str, Any]:
    file = bench.folder / "maps.json"
    file.write_text(json.dumps(asdict(task)), encoding="utf-8")
    finished = bench.run([sys.executable, "-m", "benchmarks.maps", str(file)])
    return {**json.loads(finished.output.splitlines()[-1]), "peak_mb": finished.peak_mb}


# Steps, each in a process of its own.


def _snapshot(task: Task) -> Snapshot:
    if task.collection:
        store = open_store(Path(task.collection))
        generation = store.generation()
        if generation is None:
            raise ValueError(f"{task.collection} has no index")
        return store.snapshot(generation.manifest["vectors_key"])
    places = np.arange(task.count, dtype=np.int64)
    if task.crops:
        matrix = np.memmap(task.crops, dtype="<f2", mode="r").reshape(task.count + QUERIES, -1)
        return Snapshot(places, places, matrix)
    random = np.random.default_rng(0)
    middles = random.normal(size=(-(-task.count // CLUSTER_SIZE), 1_280)).astype(np.float16)
    matrix = middles[random.integers(0, len(middles), task.count)]
    for start in range(0, task.count, 8_192):
        matrix[start : start + 8_192] += random.normal(size=matrix[start : start + 8_192].shape).astype(np.float16)
    return Snapshot(places, places, matrix)


def reference(task: Task) -> dict[str, float]:
    """Lay a collection out by scikit-learn's t-SNE, over the same principal components."""
    from sklearn.manifold import TSNE

    snapshot = _snapshot(task)
    points, _ = map2d.principal_components(snapshot)
    started = time.perf_counter()
    layout = TSNE(init="pca", random_state=0, n_jobs=-1).fit_transform(points)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "trustworthiness": map2d.trustworthiness(snapshot, layout) or 0.0}


def newcomers(task: Task) -> dict[str, float]:
    """Lay nine tenths of a collection out, place the last tenth among them, and tell how true the whole is for that tenth."""
    whole = _snapshot(task)
    order = np.random.default_rng(0).permutation(len(whole))
    known, new = order[len(whole) // 10 :], order[: len(whole) // 10]
    snapshot = Snapshot(whole.ids[known], whole.rows[known], whole.matrix)
    points, axes = map2d.principal_components(snapshot)
    layout = map2d.tsne(points, threads=Settings().cpu_threads)
    vectors = unit_vectors(whole.take(new)) @ axes
    every = np.concatenate([map2d.place_new(vectors, points, layout), layout])
    rows = np.concatenate([whole.rows[new], whole.rows[known]])
    joined = Snapshot(np.arange(len(rows), dtype=np.int64), rows, whole.matrix)
    trust = map2d.trustworthiness(joined, every, asked=np.arange(len(new), dtype=np.int64))
    return {"trustworthiness": trust or 0.0}


def large(task: Task) -> dict[str, float]:
    """Lay many vectors out, step by step."""
    snapshot, found = _snapshot(task), {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        found[name] = time.perf_counter() - started
        return result

    points, _ = timed("components", lambda: map2d.principal_components(snapshot))
    nearest = timed("neighbours", lambda: map2d.nearest_others(points, 3 * map2d.PERPLEXITY))
    layout = timed("tsne", lambda: map2d.tsne(points, nearest, threads=Settings().cpu_threads))
    cells = timed("grid", lambda: map2d.grid_cells(layout))
    found["tsne_trust"] = map2d.trustworthiness(snapshot, layout) or 0.0
    found["grid_trust"] = map2d.trustworthiness(snapshot, cells.astype(np.float32)) or 0.0
    return found


STEPS: Mapping[str, Callable[[Task], Mapping[str, float]]] = {
    function.__name__: function for function in (reference, newcomers, large)
}


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "passive"  # as python map2d.py sets it
    asked = Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps(STEPS[asked.step](asked)))
