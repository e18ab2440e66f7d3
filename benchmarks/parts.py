"""The parts of the benchmark: what each measures, in which order, and against which bound.

Bounds are those of the project's agreement: ratios between figures of one run, so that they hold on any machine.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ann import available_kinds
from benchmarks.alone import Step
from benchmarks.duplicates import measure_duplicates
from benchmarks.groups import measure_groups
from benchmarks.learn import measure_learn
from benchmarks.map_page import measure_map_page
from benchmarks.maps import measure_maps
from benchmarks.processes import Finished, run_measured
from benchmarks.search import measure_search
from benchmarks.service import measure_latency, measure_start
from benchmarks.table import Figure, median_figure
from benchmarks.web import measure_web
from config import ROOT, Settings

WEIGHTS_FILE = "inception_v3-random.weights.h5"
STEPS_ALONE = {
    "core_seconds": "the engine alone",
    "decode_core_seconds": "decoding alone, from file to the network's pixels",
    "thumbnail_core_seconds": "the thumbnail alone",
}


@dataclass(frozen=True)
class Plan:
    """How much is measured: `rounds` of a, b, c in turn, (a) and (b) for `seconds` each, (c) over so many `images`; each load of
    the service for `web_seconds`."""

    rounds: int
    seconds: float
    images: Mapping[str, int]
    memory_images: tuple[int, int]
    starts: int
    requests: int
    copies: int
    large: int
    web_seconds: float = 60.0


FULL = Plan(3, 10.0, {"inception_v3": 1_000, "efficientnet_lite0": 5_000}, (500, 5_000), 5, 400, 300, 100_000, 60.0)
QUICK = Plan(3, 3.0, {"inception_v3": 200, "efficientnet_lite0": 1_000}, (150, 600), 2, 100, 30, 5_000, 8.0)


@dataclass(frozen=True)
class JobRun:
    """One run of `img2vec.py` over a fresh collection, and the report that it printed."""

    collection: Path
    process: Finished
    report: Mapping[str, Any]

    @property
    def images_per_second(self) -> float:
        """From file to stored vector: without starting Python, compiling the network, and the index at the end."""
        apart = self.report["loading_seconds"] + self.report["index_seconds"]
        return float(self.report["vectorised"] / (self.report["seconds"] - apart))

    @property
    def core_seconds(self) -> float:
        """Of the whole process, an image."""
        return float(self.process.cpu_s / self.report["vectorised"])


@dataclass
class Bench:
    """One run of the benchmark: the photographs, a folder to work in, one that stays, and the child processes' starter."""

    plan: Plan
    photographs: list[Path]
    folder: Path
    results: Path
    jobs: int = 0
    finished: list[Finished] = field(default_factory=list)

    def alone(self, name: str, backbone: str, **options: Any) -> dict[str, Any]:
        """Measure one step of `benchmarks.alone` in a child process."""
        photographs = [str(path) for path in self.photographs[: self.plan.images[backbone]]]
        step = Step(name, backbone, photographs, self.plan.seconds, self.weights(backbone), str(self.models), **options)
        return self._measure(step)

    def _measure(self, step: Step) -> dict[str, Any]:
        task = self.folder / "step.json"  # a file, because thousands of paths are too long for a command line
        task.write_text(json.dumps(asdict(step)), encoding="utf-8")
        finished = self.run([sys.executable, "-m", "benchmarks.alone", str(task)])
        return dict(json.loads(finished.output.splitlines()[-1]))

    @property
    def models(self) -> Path:
        """Where converted networks lie for all collections of this run."""
        return self.folder / "models"

    def weights(self, backbone: str) -> str | None:
        """The local file of a network's weights; None for those that are installed."""
        return str(self.folder / WEIGHTS_FILE) if backbone == "inception_v3" else None

    def prepare(self, backbone: str) -> None:
        """Make random weights where none are installed; speed and memory do not depend on what weights say."""
        weights = self.weights(backbone)
        if weights is not None and not Path(weights).exists():
            self._measure(Step("write_random_weights", backbone, weights=weights))

    def job(self, backbone: str, count: int, index: str) -> JobRun:
        """(c): index the first `count` photographs into a fresh collection whose network was converted before."""
        self.jobs += 1
        collection = self.folder / f"collection-{self.jobs}"
        collection.mkdir()
        self.models.mkdir(exist_ok=True)
        (collection / "models").symlink_to(self.models)
        names = self.folder / "photographs.txt"
        names.write_text("".join(f"{path}\n" for path in self.photographs[:count]), encoding="utf-8")
        command = [sys.executable, str(ROOT / "img2vec.py"), "--from-file", str(names), "--json"]
        command += ["--rsc-files", str(collection), "--backbone", backbone, "--index", index]
        weights = self.weights(backbone)
        finished = self.run(command + ([] if weights is None else ["--weights", weights]))
        return JobRun(collection, finished, json.loads(finished.output))

    def run(self, command: list[str]) -> Finished:
        """Run a program to its end, and remember what it cost."""
        finished = run_measured(command, self.folder)
        self.finished.append(finished)
        return finished

    def busy_elsewhere(self) -> float:
        """The share of the processors that other programs took while those of this benchmark ran, 0 to 1."""
        wall_s = sum(finished.wall_s for finished in self.finished)
        return sum(finished.busy_elsewhere * finished.wall_s for finished in self.finished) / max(wall_s, 1e-9)


def measure_network(bench: Bench, backbone: str) -> Iterator[Figure]:
    """(a), (b) and (c) in turn, so that a slow minute of the machine meets all three."""
    bench.prepare(backbone)
    rounds = [_measure_round(bench, backbone) for _ in range(bench.plan.rounds)]

    def told(name: str, unit: str, value: Callable[[Round], float], at_least: float | None = None) -> Figure:
        return median_figure(backbone, name, [value(round_) for round_ in rounds], unit, at_least=at_least)

    yield told("(a) Keras predict, one image at a time", "images/s", lambda r: r.keras)
    precision = rounds[0].full["precision"]
    yield told(f"(b) the engine alone, {precision}", "images/s", lambda r: r.engine)
    yield told("(c) the whole job, from file to stored vector", "images/s", lambda r: r.job.images_per_second)
    yield told("loading the network", "s", lambda r: r.job.report["loading_seconds"])
    for key, step in STEPS_ALONE.items():
        one, every = [1000 * r.single[key] for r in rounds], [1000 * r.full[key] for r in rounds]
        yield median_figure(backbone, f"{step}, one thread", one, "core-ms")
        yield median_figure(backbone, f"{step}, all threads", every, "core-ms")
    yield told("the whole job, with its start", "core-ms", lambda r: 1000 * r.job.core_seconds)
    inception, bfloat16 = backbone == "inception_v3", precision == "bfloat16"
    yield told("(c) ÷ (b)", "×", lambda r: r.job.images_per_second / r.engine, 0.85 if inception else None)
    bound = 5.0 if bfloat16 else 2.5
    yield told("(c) ÷ (a)", "×", lambda r: r.job.images_per_second / r.keras, bound if inception else None)
    title = "(c) ÷ (cores ÷ the three alone in core-seconds), "
    yield told(f"{title}one thread", "×", lambda r: r.share_of(r.single), None if inception else 0.9)
    yield told(f"{title}all threads", "×", lambda r: r.share_of(r.full))
    yield told(
        "the three alone ÷ the job, core-seconds, all threads", "×", lambda r: total(r.full) / r.job.core_seconds
    )


def total(steps: Mapping[str, Any]) -> float:
    """Core-seconds an image of all that has to be done for it."""
    return float(sum(steps[name] for name in STEPS_ALONE))


@dataclass(frozen=True)
class Round:
    """(a), (b) and (c) measured one after the other, and the steps alone: by one thread, and on all cores."""

    keras: float
    job: JobRun
    single: Mapping[str, Any]
    full: Mapping[str, Any]

    @property
    def engine(self) -> float:
        """(b) in images a second."""
        return float(self.full["images_per_second"])

    def share_of(self, steps: Mapping[str, Any]) -> float:
        """(c) as a share of what all cores could do if only `steps` had to be done."""
        return self.job.images_per_second * total(steps) / Settings().cpu_threads


def _measure_round(bench: Bench, backbone: str) -> Round:
    keras = bench.alone("keras_predict", backbone)["images_per_second"]
    full = bench.alone("engine", backbone)
    job = bench.job(backbone, bench.plan.images[backbone], "exact")
    shutil.rmtree(job.collection)
    single = bench.alone("engine", backbone, threads=1) | bench.alone("pictures", backbone, threads=1)
    return Round(keras, job, single, full | bench.alone("pictures", backbone))


def measure_inception(bench: Bench) -> Iterator[Figure]:
    """The default network, which inference dominates."""
    yield from measure_network(bench, "inception_v3")


def measure_lite0(bench: Bench) -> Iterator[Figure]:
    """The light network, whose decoding costs as much as its inference."""
    yield from measure_network(bench, "efficientnet_lite0")


def measure_memory(bench: Bench) -> Iterator[Figure]:
    """The job's most memory, over few and over many photographs."""
    for backbone in bench.plan.images:
        bench.prepare(backbone)
        bench.alone("engine", backbone)  # converts the network where it is not yet
        peaks = []
        for wanted in bench.plan.memory_images:
            count = min(wanted, len(bench.photographs))
            run = bench.job(backbone, count, "auto")
            shutil.rmtree(run.collection)
            peaks.append(run.process.peak_mb)
            name = f"{backbone}, peak of the job over {count:,} images"
            yield Figure("memory", name, peaks[-1], "MB", at_most=1000)
        yield Figure("memory", f"{backbone}, many ÷ few images", peaks[1] / peaks[0], "×", 0.9, 1.1)
        yield Figure("memory", f"{backbone}, peak of the child that builds the index", run.process.child_peak_mb, "MB")


def measure_service(bench: Bench) -> Iterator[Figure]:
    """Annoy against exact search, the service's start and memory, and how long searches take."""
    count = min(bench.plan.memory_images[1], len(bench.photographs))
    run = bench.job("efficientnet_lite0", count, available_kinds()[0])
    index = run.report["index"]
    if index["self_test"]:
        test = index["self_test"]
        title = f"{index['kind']} of {run.report['images']:,} images"
        yield Figure("index", f"{title}: recall@{test['k']} against exact search", test["recall"], "")
        yield Figure("index", f"{title}: one query", test["query_ms"], "ms")
        yield Figure("index", f"exact search: one query of {test['queries']} together", test["exact_ms"], "ms")
        yield Figure("index", f"{title}: building and self-test", run.report["index_seconds"], "s")
    yield from measure_start(run.collection, bench.folder, bench.plan.starts)
    yield from measure_latency(run.collection, bench.folder, bench.photographs, bench.plan.requests)
    shutil.rmtree(run.collection)


PARTS: Mapping[str, Callable[[Bench], Iterator[Figure]]] = {
    "inception_v3": measure_inception,
    "efficientnet_lite0": measure_lite0,
    "memory": measure_memory,
    "service": measure_service,
    "search": measure_search,
    "duplicates": measure_duplicates,
    "groups": measure_groups,
    "maps": measure_maps,
    "map_page": measure_map_page,
    "web": measure_web,
    "learn": measure_learn,
}
