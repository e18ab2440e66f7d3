"""How well and how fast the search finds: quality on photographs and on Inception's flowers, copies, and 100,000 vectors.

Everything is measured as a user would have it: by the commands, over collections that they made.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ann import available_kinds
from autoencoder import load_reducer
from benchmarks.large import GRAPH_K, Task, file_of
from benchmarks.table import Figure
from config import ROOT
from evaluation import rate_vectors
from publishing import REDUCER_FILE
from store import open_store

if TYPE_CHECKING:
    from benchmarks.parts import Bench

BACKBONE = "efficientnet_lite0"
FLOWERS = ROOT.parent / "shared" / "data" / "flowers-inception-v3.npz"
MB = 1e6


def measure_search(bench: Bench) -> Iterator[Figure]:
    """Quality over the photographs, copies of them, Inception's flowers, and speed over many vectors."""
    run = bench.job(BACKBONE, bench.plan.memory_images[1], "auto")
    result = _evaluated(bench, run.collection)
    yield from _photographs(result, min(bench.plan.memory_images[1], len(bench.photographs)) > 4_000)
    if result["default_order"] == "kind":
        yield from _copies(bench, run.collection)
    shutil.rmtree(run.collection)
    if FLOWERS.exists():
        yield from _flowers(bench)
    yield from _large(bench)


def _evaluated(bench: Bench, collection: Path) -> Mapping[str, Any]:
    command = [sys.executable, str(ROOT / "ann.py"), "--evaluate", "--format", "json", "--rsc-files", str(collection)]
    return dict(json.loads(bench.run(command).output))


def _quality(result: Mapping[str, Any], asked: str, order: str) -> Mapping[str, Any]:
    found = [row for row in result["qualities"] if (row["asked"], row["order"]) == (asked, order)]
    return dict(found[0]) if found else {}


def _photographs(result: Mapping[str, Any], held: bool) -> Iterator[Figure]:
    """`held`: the bounds are those of caltech101-dev as a whole."""
    bounds = {("images", "kind"): (0.95, 0.92), ("uploads", "kind"): (None, 0.91)} if held else {}
    yield from _qualities("photographs", result, bounds)


def _qualities(
    title: str, result: Mapping[str, Any], bounds: Mapping[tuple[str, str], tuple[float | None, float | None]]
) -> Iterator[Figure]:
    for asked in ("images", "uploads"):
        for order in ("plain", "kind"):
            row = _quality(result, asked, order)
            if row:
                at_10, whole = bounds.get((asked, order), (None, None))
                name = f"{title}, {asked}, {order}"
                yield Figure("search", f"{name}: P@10", row["precision"]["value"], "", at_10)
                yield Figure("search", f"{name}: mAP", row["mean_average_precision"]["value"], "", whole)


def _copies(bench: Bench, collection: Path) -> Iterator[Figure]:
    command = [sys.executable, "-m", "benchmarks.copies", str(collection), str(bench.plan.copies)]
    copies, groups = json.loads(bench.run(command).output)
    for name, found in copies.items():
        title = f"{found['photographs']} photographs, {name}, first by kind"
        yield Figure("search", title, found["kind"], "", 1.0 if name == "exact copy" else found["plain"])
    for size, group in groups.items():
        title = f"{bench.plan.copies} photographs in groups of {size} copies, mAP"
        yield Figure("search", f"{title}, plain", group["plain"], "")
        yield Figure("search", f"{title}, kind", group["kind"], "")
        yield Figure(
            "search", f"{title}, its own order: {group['default']}", group[group["default"]], "", group["plain"]
        )


def _flowers(bench: Bench) -> Iterator[Figure]:
    """Real vectors of Inception: quality, and 256 numbers by the autoencoder in their place."""
    collection = bench.folder / "flowers"
    here = ["--rsc-files", str(collection)]
    bench.run([sys.executable, str(ROOT / "img2vec.py"), "--import-vectors", str(FLOWERS), "--quiet", *here])
    yield from _qualities("flowers (Inception)", _evaluated(bench, collection), {("images", "kind"): (None, 0.57)})
    bench.run([sys.executable, str(ROOT / "autoencoder.py"), "--reducer", "autoencoder", "--quiet", *here])
    recall = _evaluated(bench, collection)["recalls"]
    of_ten = next(row["recall"]["value"] for row in recall if row["k"] == 10)
    yield Figure("search", "flowers, candidates by the autoencoder, full order: recall@10", of_ten, "", 0.99)
    alone = _alone(collection)
    yield Figure("search", "flowers, the autoencoder's 256 numbers alone: P@10", alone["precision"]["value"], "", 0.80)
    shutil.rmtree(collection)


def _alone(collection: Path) -> Mapping[str, Any]:
    """Rate the autoencoder's vectors with nothing else looked at: the first three places too are by them."""
    store = open_store(collection)
    generation = store.generation()
    if generation is None:
        raise ValueError(f"{collection} has no generation")
    reducer = load_reducer(generation.folder / REDUCER_FILE)
    small = reducer.apply(store.snapshot(generation.manifest["vectors_key"]).take(slice(None)))
    return asdict(rate_vectors(small, [record.label or "" for record in store.all_records()]))


def _large(bench: Bench) -> Iterator[Figure]:
    """Each kind of index on one core, filters, and the graph, over crops of the photographs."""
    count = bench.plan.large
    kept = bench.results / "crops"  # made once: it takes minutes, and is the same each time
    kept.mkdir(exist_ok=True)
    task = Task("vectors", str(kept), count, tuple(map(str, bench.photographs)))
    made = run_step(bench, task)
    yield Figure("search", f"{count:,} crops through the network (0: kept from before)", made["seconds"], "s")
    sizes = {}
    for kind in ("annoy", "usearch"):
        if kind not in available_kinds():
            continue
        found = run_step(bench, Task("index", str(bench.folder), count, kind=kind, vectors=str(file_of(task))))
        sizes[kind] = found["bytes"]
        title = f"{found['kind']} of {count:,}, one core"
        yield Figure("search", f"{title}: recall@10 of {found['queries']:,} crops not in it", found["recall"], "", 0.99)
        limit = 2.0 if kind == "annoy" else 0.5
        yield Figure("search", f"{title}: one query, median", found["median_ms"], "ms", at_most=limit)
        yield Figure("search", f"{title}: file", found["bytes"] / MB, "MB")
        yield Figure("search", f"{title}: building and self-test", found["build_s"], "s")
    if len(sizes) == 2:
        yield Figure("search", "usearch's file ÷ Annoy's", sizes["usearch"] / sizes["annoy"], "×", at_most=0.5)
    kind = next(iter(sizes), "exact")
    found = run_step(bench, Task("filters", str(bench.folder), count, kind=kind, vectors=str(file_of(task))))
    for share in ("0.01", "0.1"):
        title = f"a filter that keeps {float(share):.0%} of {count:,}"
        whole = 1.0 if share == "0.01" else None
        yield Figure("search", f"{title}: answers with all k", found[f"full_{share}"], "", 1.0)
        yield Figure("search", f"{title}: the true k under the filter", found[f"true_{share}"], "", whole)
        yield Figure("search", f"{title}: one query", found[f"ms_{share}"], "ms")
    found = run_step(bench, Task("graph", str(bench.folder), count, vectors=str(file_of(task))))
    yield Figure("search", f"graph, the {GRAPH_K} nearest of each of {count:,}", found["seconds"] / 60, "min")
    yield Figure("search", "its most memory", found["peak_mb"], "MB")


def run_step(bench: Bench, task: Task) -> dict[str, Any]:
    """Do a step of `benchmarks.large`; return what it measured, and its most memory."""
    file = bench.folder / "large.json"  # a file, because thousands of paths are too long for a command line
    file.write_text(json.dumps(asdict(task)), encoding="utf-8")
    finished = bench.run([sys.executable, "-m", "benchmarks.large", str(file)])
    return {**json.loads(finished.output.splitlines()[-1]), "peak_mb": finished.peak_mb}
