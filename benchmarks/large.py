"""Search among 100,000 vectors: `python -m benchmarks.large TASK.json` does one step in a process of its own.

Owns the vectors (crops of the photographs through the real network, kept between runs because making them takes minutes), and
what is measured with them: each kind of index on one core, filters against exact search, the graph of the whole collection.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ann import Index, IndexManifest, IndexOptions, build_index, load_index, similarity_graph
from backbones import Outputs, find_network, load_backbone
from images import Limits, decode_image, network_input
from store import Snapshot

BACKBONE = "efficientnet_lite0"
BATCH = 64
QUERIES = 1_000
K = 10
FILTERED = 0.01
GRAPH_K = 30
SIDES = (0.4, 1.0)
"""Each side of a crop, as a share of the photograph's: from a detail to nearly the whole."""


@dataclass(frozen=True)
class Task:
    """One step over `count` vectors: `folder` is where it writes, `vectors` the file of the crops once they are made.

    `photographs` are paths, `kind` that of an index.
    """

    step: str
    folder: str
    count: int
    photographs: tuple[str, ...] = ()
    kind: str = "annoy"
    vectors: str = ""


def vectors(task: Task) -> dict[str, float]:
    """Write `count` + `QUERIES` vectors of random crops (float16), the queries last. Done once for a folder."""
    path = file_of(task)
    if path.exists():
        return {"seconds": 0.0}
    backbone = load_backbone(find_network(BACKBONE), models_dir=Path(task.folder) / "models", batch_size=8)
    started = time.perf_counter()
    unfinished = path.with_suffix(".part")
    with open(unfinished, "wb") as file, ThreadPoolExecutor(backbone.parallel_runs) as pool:
        running: deque[Future[Outputs]] = deque()
        for batch in _batches(task, backbone.row.input_size, backbone.row.resample):
            running.append(pool.submit(backbone.run, batch))
            if (
                len(running) > backbone.parallel_runs
            ):  # else all crops would be made, and held, before the first is used
                file.write(running.popleft().result().vectors.astype("<f2").tobytes())
        for one in running:
            file.write(one.result().vectors.astype("<f2").tobytes())
    unfinished.rename(path)
    return {"seconds": time.perf_counter() - started}


def crops_of(task: Task) -> Iterator[Image.Image]:
    """Yield the `count` + `QUERIES` crops: the photographs in turn, each cropped so often that there are enough."""
    random, limits = np.random.default_rng(0), Limits(10**9, 10**9, 10**4)
    total = task.count + QUERIES
    each = -(-total // len(task.photographs))
    for number, path in enumerate(np.repeat(task.photographs, each)[:total]):
        if number % each == 0:
            image = decode_image(Path(path).read_bytes(), limits).image
        width, height = (random.uniform(*SIDES, size=2) * image.size).astype(int)
        left, top = random.integers(0, image.width - width + 1), random.integers(0, image.height - height + 1)
        yield image.crop((int(left), int(top), int(left + width), int(top + height)))


def _batches(task: Task, size: tuple[int, int], resample: str) -> Iterator[NDArray[np.uint8]]:
    batch = []
    for number, crop in enumerate(crops_of(task)):
        batch.append(network_input(crop, size, resample=resample))
        if len(batch) == BATCH or number == task.count + QUERIES - 1:
            yield np.stack(batch)
            batch = []


def file_of(task: Task) -> Path:
    """Return where the vectors lie, or will lie."""
    return Path(task.vectors or Path(task.folder) / f"crops-{task.count}.f16")


def _snapshot(task: Task) -> tuple[Snapshot, NDArray[np.float32]]:
    """Return the collection, and the queries: crops that are not in it, taken from all photographs."""
    total = task.count + QUERIES
    matrix = np.memmap(file_of(task), dtype="<f2", mode="r").reshape(total, -1)
    order = np.random.default_rng(1).permutation(total).astype(np.int64)
    rows = np.sort(order[QUERIES:])
    queries = matrix[np.sort(order[:QUERIES])].astype(np.float32)
    return Snapshot(np.arange(1, task.count + 1), rows, matrix, file_of(task).name), queries


def index(task: Task) -> dict[str, Any]:
    """Build an index, then ask it `QUERIES` crops that are not in it, one at a time, on one core."""
    snapshot, queries = _snapshot(task)
    folder = Path(task.folder) / task.kind
    folder.mkdir()
    started = time.perf_counter()
    manifest = build_index(snapshot, folder, IndexOptions(task.kind))
    built_s = time.perf_counter() - started
    _stay_on_one_core()
    built = load_index(snapshot, folder, manifest)
    exact = Index(snapshot).query(queries, K)
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(built.query(query[None], K).distances[0])
        times.append(1000 * (time.perf_counter() - started))
    recall = float((np.stack(found) <= exact.distances[:, -1:] + 1e-6).mean())
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)), encoding="utf-8")
    return {
        "kind": manifest.kind,
        "queries": len(queries),
        "reason": manifest.reason,
        "recall": recall,
        "median_ms": float(np.median(times)),
        "search_k": manifest.search_k,
        "bytes": manifest.bytes,
        "build_s": built_s,
    }


def filters(task: Task) -> dict[str, float]:
    """Ask for K images under filters that keep 1 % (and 10 %), and compare with exact search under the same filter."""
    snapshot, queries = _snapshot(task)
    folder = Path(task.folder) / task.kind
    manifest = IndexManifest(**json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    built, random, answer = load_index(snapshot, folder, manifest), np.random.default_rng(2), {}
    for share in (FILTERED, 10 * FILTERED):
        allowed = np.sort(random.choice(snapshot.ids, int(len(snapshot) * share), replace=False))
        kept = np.searchsorted(snapshot.ids, allowed)
        exact = Index(Snapshot(allowed, snapshot.rows[kept], snapshot.matrix)).query(queries[:200], K)
        started = time.perf_counter()
        found = [built.query(query[None], K, allowed=allowed) for query in queries[:200]]
        answer[f"ms_{share:g}"] = 1000 * (time.perf_counter() - started) / len(found)
        answer[f"full_{share:g}"] = float(np.mean([one.ids.shape[1] == K for one in found]))
        ids = np.concatenate([one.ids for one in found])
        answer[f"true_{share:g}"] = float(np.mean([np.isin(a, b).mean() for a, b in zip(ids, exact.ids, strict=True)]))
    return answer


def graph(task: Task) -> dict[str, float]:
    """Compute the nearest `GRAPH_K` of every image."""
    snapshot, _ = _snapshot(task)
    started, edges = time.perf_counter(), 0
    for block in similarity_graph(Index(snapshot), GRAPH_K):
        edges += len(block)
    return {"seconds": time.perf_counter() - started, "edges": edges}


def _stay_on_one_core() -> None:
    """Bind every thread of this process to one processor, those of the linear algebra library too."""
    core = {min(os.sched_getaffinity(0))}
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), core)
    if threading.active_count() > 1:
        raise RuntimeError("threads of Python's own are running")


STEPS: Mapping[str, Callable[[Task], Mapping[str, Any]]] = {
    function.__name__: function for function in (vectors, index, filters, graph)
}


if __name__ == "__main__":
    asked = Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps(STEPS[asked.step](asked)))
