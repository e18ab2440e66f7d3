"""The service as a user meets it: `python app.py` until /readyz, its memory, and how long searches take over HTTP."""

from __future__ import annotations

import http.client
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.processes import children, peak_mb, plain_environment
from benchmarks.table import Figure, median_figure
from config import ROOT

START_LIMIT_S = 60.0
CLIENTS = (1, 4)
BOUNDARY = "benchmark-boundary"
TENSORFLOW = "libtensorflow_"
"""In the name of each of TensorFlow's libraries; OpenVINO's reader of TensorFlow's files has others."""


@dataclass(frozen=True)
class Service:
    """A running service: where it listens, its processes, and how long it took until it was ready."""

    port: int
    pid: int
    ready_after_s: float

    def processes(self) -> list[int]:
        """The process that was started, and those it started."""
        return [self.pid, *children(self.pid)]


@contextmanager
def running_service(collection: Path, folder: Path, options: Sequence[str] = ()) -> Iterator[Service]:
    """Start `python app.py` with `options` over a collection and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--rsc-files", str(collection), *options]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=plain_environment(), stdout=subprocess.DEVNULL)
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - started > START_LIMIT_S:
                raise RuntimeError(f"the service did not become ready (exit code {process.poll()})")
            time.sleep(0.005)
        yield Service(port, process.pid, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_LIMIT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (ConnectionError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def measure_start(collection: Path, folder: Path, starts: int) -> Iterator[Figure]:
    """Seconds until /readyz answers, memory then, and whether TensorFlow was loaded."""
    seconds, memory, libraries = [], [], 0
    for _ in range(starts):
        with running_service(collection, folder) as service:
            seconds.append(service.ready_after_s)
            memory.append(sum(map(peak_mb, service.processes())))
            libraries = max(libraries, sum(TENSORFLOW in _mapped_files(pid) for pid in service.processes()))
    yield median_figure("service", "python app.py until /readyz answers", seconds, "s", at_most=2)
    yield median_figure("service", "peak memory until then, all its processes", memory, "MB", at_most=400)
    yield Figure("service", "its processes that have TensorFlow loaded", libraries, "", at_most=0)


def _mapped_files(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")


def measure_latency(collection: Path, folder: Path, photographs: list[Path], requests: int) -> Iterator[Figure]:
    """Milliseconds of a search over HTTP, by upload and by indexed image, for one client and for several at once."""
    chosen = random.Random(0)
    contents = [path.read_bytes() for path in chosen.choices(photographs, k=min(requests, 50))]
    with running_service(collection, folder) as service:
        ids = _image_ids(service.port, contents[0])
        calls: dict[str, Callable[[http.client.HTTPConnection], bytes]] = {
            "an upload": lambda connection: _search_upload(connection, chosen.choice(contents)),
            "an indexed image": lambda connection: _search_image(connection, chosen.choice(ids)),
        }
        for title, call in calls.items():
            for clients in CLIENTS:
                times = _times(service.port, call, clients, requests)
                name = f"search by {title}, {clients} client{'s at once' if clients > 1 else ''}"
                yield Figure("service", f"{name}: p50", float(np.percentile(times, 50)), "ms")
                yield Figure("service", f"{name}: p99", float(np.percentile(times, 99)), "ms")
        memory = sum(map(peak_mb, service.processes()))
    yield Figure("service", f"peak memory after {2 * len(CLIENTS) * requests:,} searches", memory, "MB", at_most=400)


def _times(port: int, call: Callable[[http.client.HTTPConnection], bytes], clients: int, requests: int) -> list[float]:
    """Milliseconds of each of `requests` calls, made by `clients` threads with a connection each."""

    def client(_: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        call(connection)
        times = []
        for _ in range(requests // clients):
            started = time.perf_counter()
            call(connection)
            times.append(1000 * (time.perf_counter() - started))
        connection.close()
        return times

    with ThreadPoolExecutor(clients) as pool:
        return [milliseconds for times in pool.map(client, range(clients)) for milliseconds in times]


def _search_upload(connection: http.client.HTTPConnection, content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photograph"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/api/v1/search", body, headers)
    return _answer(connection)


def _search_image(connection: http.client.HTTPConnection, image_id: int) -> bytes:
    connection.request("GET", f"/api/v1/search?image_id={image_id}")
    return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> bytes:
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise RuntimeError(f"the service answered {response.status}: {content[:300]!r}")
    return content


def _image_ids(port: int, content: bytes) -> list[int]:
    """Some ids of the collection, and the first search, which is slower than all others."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = json.loads(_search_upload(connection, content))
    connection.close()
    return [match["image"]["image_id"] for match in found["matches"]]
