"""How well images fall into groups, against the folders that people put them in, and what 100,000 of them cost.

`python -m benchmarks.groups STEP.json` does one step in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import clusters
import linkages
from benchmarks.large import QUERIES, Task, file_of
from benchmarks.search import BACKBONE, run_step
from benchmarks.table import Figure
from clusters import Tree, build_tree, cut, propose_sim
from ranking import load_kind_ranking
from store import open_store
from vectors import BLOCK_ROWS, Ids, Vectors, principal_axes, unit_vectors

if TYPE_CHECKING:
    from benchmarks.parts import Bench

SIMS = np.arange(0.02, 0.99, 0.01)
FEW_DENSE = 256
"""The graph is tried on a collection that needs none: all distances come in as late as for sixteen times as many images."""
DIM = 256
SECONDS, MEMORY_MB = 600, 4_000


@dataclass(frozen=True)
class Step:
    """`name` is that of a function here; `path` a collection, or the file of `count` large vectors."""

    name: str
    path: str
    count: int = 0


def measure_groups(bench: Bench) -> Iterator[Figure]:
    """Quality over the photographs, and the graph's time and memory over many vectors."""
    run = bench.job(BACKBONE, bench.plan.memory_images[1], "auto")
    yield from _quality(_alone(bench, Step("quality", str(run.collection))))
    shutil.rmtree(run.collection)
    kept = bench.results / "crops"
    kept.mkdir(exist_ok=True)
    task = Task("vectors", str(kept), bench.plan.large, tuple(map(str, bench.photographs)))
    run_step(bench, task)
    yield from _large(_alone(bench, Step("large", str(file_of(task)), task.count)), task.count)


def _quality(found: Mapping[str, Any]) -> Iterator[Figure]:
    held = found["images"] > 4_000  # the bounds are those of caltech101-dev as a whole
    bounds = {"ours, best sim": (0.96, 0.93), "ours, proposed sim": (0.90, 0.90)} if held else {}
    for name, (sim, groups, rand, measure) in found["cuts"].items():
        at_least = bounds.get(name, (None, None))
        title = f"{name} ({sim:.3g}, {groups} groups)"
        yield Figure("groups", f"{title}: adjusted Rand index", rand, "", at_least[0])
        yield Figure("groups", f"{title}: V-measure", measure, "", at_least[1])
    yield Figure("groups", "graph against all distances: adjusted Rand index", found["agreement"], "")
    for name, seconds in found["seconds"].items():
        yield Figure("groups", f"{name}, {found['images']:,} images", 1000 * seconds, "ms")


def _large(found: Mapping[str, Any], count: int) -> Iterator[Figure]:
    held = count >= 100_000
    title = f"{count:,} × {found['dim']}"
    yield Figure("groups", f"{title}: the tree, over the {found['how']}", found["tree_s"], "s", at_most=SECONDS)
    yield Figure("groups", f"{title}: the tree ÷ products of all pairs", found["tree_s"] / found["products_s"], "×")
    yield Figure("groups", f"{title}: proposing a sim", found["propose_s"], "s")
    yield Figure("groups", f"{title}: a cut, {found['groups']} groups", found["cut_ms"], "ms")
    yield Figure("groups", f"{title}: most memory", found["peak_mb"], "MB", at_most=MEMORY_MB if held else None)


def _alone(bench: Bench, step: Step) -> dict[str, Any]:
    file = bench.folder / "groups.json"
    file.write_text(json.dumps(asdict(step)), encoding="utf-8")
    finished = bench.run([sys.executable, "-m", "benchmarks.groups", str(file)])
    return {**json.loads(finished.output.splitlines()[-1]), "peak_mb": finished.peak_mb}


# In a process of its own.


def quality(step: Step) -> dict[str, Any]:
    """Hold imagecluster's way and ours against the labels of a collection."""
    raw, ours, labels = _vectors(Path(step.path))
    theirs = build_tree(raw)
    seconds = {}
    started = time.perf_counter()
    tree = build_tree(ours)
    seconds["the tree"] = time.perf_counter() - started
    started = time.perf_counter()
    sim = propose_sim(tree, ours)
    seconds["proposing a sim"] = time.perf_counter() - started
    started = time.perf_counter()
    proposed = cut(tree, sim)
    seconds["a cut"] = time.perf_counter() - started
    linkages.DENSE = FEW_DENSE
    merges, largest = linkages.graph_linkage(ours, cosine=False, alpha=0.0, seconds=None)
    graph = Tree(merges, len(ours), largest, how="graph")
    graph_sim = propose_sim(graph, ours)
    cuts = {
        "imagecluster, best sim": _rated(labels, theirs, _best(labels, theirs)),
        "ours, best sim": _rated(labels, tree, _best(labels, tree)),
        "ours, proposed sim": _rated(labels, tree, sim),
        "ours over the graph, proposed sim": _rated(labels, graph, graph_sim),
    }
    agreement = _rated(proposed, graph, graph_sim)[2]
    return {"images": len(ours), "cuts": cuts, "seconds": seconds, "agreement": agreement}


def _vectors(collection: Path) -> tuple[Vectors, Vectors, Ids]:
    """Return the raw vectors of a collection, those that its groups are made of, and its labels as numbers."""
    store = open_store(collection)
    generation = store.generation()
    if generation is None:
        raise ValueError(f"{collection} was never published")
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    records = store.records(snapshot.ids.tolist())
    labels = [str(records[image_id].label) for image_id in snapshot.ids.tolist()]
    raw = snapshot.take(slice(None))
    kind = load_kind_ranking(snapshot, generation.folder, generation.manifest.get("ranking"))
    ours = unit_vectors(raw) if kind is None or kind.default != "kind" else kind.averages_of(snapshot.ids)
    store.close()
    return raw, ours, np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _best(labels: Ids, tree: Tree) -> float:
    return float(max(SIMS.tolist(), key=lambda sim: _rated(labels, tree, sim)[2]))


def _rated(labels: Ids, tree: Tree, sim: float) -> tuple[float, int, float, float]:
    """Return `sim`, how many groups it cuts, and their adjusted Rand index and V-measure against `labels`."""
    from sklearn.metrics import adjusted_rand_score, v_measure_score

    found = cut(tree, sim)
    return sim, int(found.max()) + 1, float(adjusted_rand_score(labels, found)), float(v_measure_score(labels, found))


def large(step: Step) -> dict[str, Any]:
    """Link many vectors over the graph, however few a quick look takes."""
    clusters.FULL_IMAGES = min(clusters.FULL_IMAGES, step.count - 1)
    matrix = np.memmap(step.path, dtype="<f2", mode="r").reshape(step.count + QUERIES, -1)[: step.count]
    axes = principal_axes([unit_vectors(matrix[:: max(1, step.count // 20_000)])], DIM)
    starts = range(0, step.count, BLOCK_ROWS)
    vectors = unit_vectors(np.concatenate([unit_vectors(matrix[at : at + BLOCK_ROWS]) @ axes for at in starts]))
    started = time.perf_counter()
    tree = build_tree(vectors)
    linked = time.perf_counter()
    sim = propose_sim(tree, vectors)
    proposed = time.perf_counter()
    cut(tree, sim)  # the first one loads scipy
    started_cut = time.perf_counter()
    groups = cut(tree, sim)
    done = time.perf_counter()
    return {
        "how": tree.how,
        "dim": vectors.shape[1],
        "tree_s": linked - started,
        "propose_s": proposed - linked,
        "cut_ms": 1000 * (done - started_cut),
        "products_s": _products(vectors),
        "groups": int(groups.max()) + 1,
    }


def _products(vectors: Vectors) -> float:
    """Return how many seconds the products of all pairs of `vectors` take, from a part of them."""
    rows = vectors[:4_096]
    started = time.perf_counter()
    for at in range(0, len(vectors), BLOCK_ROWS):
        np.matmul(rows, vectors[at : at + BLOCK_ROWS].T)
    return (time.perf_counter() - started) * len(vectors) / len(rows)


STEPS: Mapping[str, Callable[[Step], Mapping[str, Any]]] = {
    function.__name__: function for function in (quality, large)
}


if __name__ == "__main__":
    asked = Step(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps(STEPS[asked.name](asked)))
