"""How many clients the service stands: uploads a second against the engine alone, how long they take, and what happens beyond.

Owns which loads are measured and what they are held against. The clients are `benchmarks.load`; they run on the same processors
as the service, in this process, and what they take of them is told.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.load import Answers, load
from benchmarks.processes import MB
from benchmarks.service import Service, running_service
from benchmarks.table import Figure, median_figure
from search.stages import STAGES

if TYPE_CHECKING:
    from benchmarks.parts import Bench

CLIENTS = (8, 32, 128)
CONTENTS = 500
"""Photographs that are sent, one after the other."""
WARM_S = 3.0


@dataclass(frozen=True)
class Loaded:
    """One load: how many clients, what came of it, and the seconds of processor that clients and service took."""

    clients: int
    answers: Answers
    client_cpu_s: float
    service_cpu_s: float


def measure_web(bench: Bench) -> Iterator[Figure]:
    """The default network with random weights, and the light one."""
    for backbone in bench.plan.images:
        yield from _measure_network(bench, backbone)


def _measure_network(bench: Bench, backbone: str) -> Iterator[Figure]:
    bench.prepare(backbone)
    run = bench.job(backbone, bench.plan.images[backbone], "auto")
    contents = [path.read_bytes() for path in random.Random(1).choices(bench.photographs, k=CONTENTS)]
    weights = bench.weights(backbone)
    options = [] if weights is None else ["--weights", weights]
    one_ms = bench.alone("one_picture", backbone)["milliseconds"]
    engine = [bench.alone("engine", backbone)]
    with running_service(run.collection, bench.folder, options) as service:
        load(service.port, contents, CLIENTS[0], WARM_S)
        single = load(service.port, contents, 1, bench.plan.web_seconds / 3)
        load(service.port, contents, CLIENTS[-1], WARM_S)  # all threads and children are there
        before_mb = resident_mb(service.processes())
        loads = [_measured(service, contents, clients, bench.plan.web_seconds) for clients in CLIENTS]
        after_mb = resident_mb(service.processes())
    engine.append(bench.alone("engine", backbone))
    shutil.rmtree(run.collection)
    yield Figure("web", f"{backbone}, one inference by itself", one_ms, "ms")
    rates = [step["images_per_second"] for step in engine]
    yield median_figure("web", f"{backbone}, the engine alone, before and after", rates, "images/s")
    core_ms = [1000 * step["core_seconds"] for step in engine]
    yield median_figure("web", f"{backbone}, the engine alone, before and after: an image", core_ms, "core-ms")
    yield from _single(backbone, single, one_ms)
    for loaded in loads:
        yield from _load_figures(backbone, loaded, one_ms, median(rates))
    yield Figure("web", f"{backbone}, resident before the loads, all processes", before_mb, "MB")
    yield Figure("web", f"{backbone}, after ÷ before the loads", after_mb / before_mb, "×", at_most=1.1)


def _measured(service: Service, contents: Sequence[bytes], clients: int, seconds: float) -> Loaded:
    used, served = time.process_time(), sum(map(cpu_s, service.processes()))
    answers = load(service.port, contents, clients, seconds)
    used, served = time.process_time() - used, sum(map(cpu_s, service.processes())) - served
    return Loaded(clients, answers, used, served)


def _single(backbone: str, answers: Answers, one_ms: float) -> Iterator[Figure]:
    """An upload to an idle service, and where its time goes; `rest` is HTTP, the service's own and the client's."""
    whole = 1000 * median(answers.seconds)
    name = f"{backbone}, one client"
    yield Figure("web", f"{name}: p50", whole, "ms")
    yield Figure("web", f"{name}: p50 ÷ one inference", whole / one_ms, "×", at_most=2.5)
    told: dict[str, float] = {stage: median(stages.get(stage, 0.0) for stages in answers.stages) for stage in STAGES}
    for stage, taken in [*told.items(), ("rest", whole - sum(told.values()))]:
        yield Figure("web", f"{name}: of it {stage}", taken, "ms")


def _load_figures(backbone: str, loaded: Loaded, one_ms: float, engine: float) -> Iterator[Figure]:
    answers, inception = loaded.answers, backbone == "inception_v3"
    name = f"{backbone}, {loaded.clients} clients"
    share = 0.85 if inception else None
    yield Figure("web", f"{name}: answered", answers.per_second, "uploads/s")
    yield Figure("web", f"{name}: answered ÷ the engine alone", answers.per_second / engine, "×", at_least=share)
    p50, p95, p99 = 1000 * np.percentile(answers.seconds, [50, 95, 99])
    yield Figure("web", f"{name}: p50", float(p50), "ms")
    few = inception and loaded.clients == CLIENTS[0]
    yield Figure("web", f"{name}: p95", float(p95), "ms", at_most=12 * one_ms if few else None)
    yield Figure("web", f"{name}: p99", float(p99), "ms")
    refused = answers.statuses[503]
    total = sum(answers.statuses.values())
    yield Figure("web", f"{name}: refused (503), of {total:,}", refused, "")
    yield Figure("web", f"{name}: anything else but 200", total - refused - answers.statuses[200], "", at_most=0)
    yield Figure(
        "web", f"{name}: the service, an upload", 1000 * loaded.service_cpu_s / answers.statuses[200], "core-ms"
    )
    yield Figure("web", f"{name}: the clients, a request", 1000 * loaded.client_cpu_s / total, "core-ms")


def cpu_s(pid: int) -> float:
    """Return the seconds of processor that a process has had, 0 when it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def resident_mb(pids: Sequence[int]) -> float:
    """Return what is resident of processes now, pages that they share divided among them."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
            total += next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total * 1024 / MB
