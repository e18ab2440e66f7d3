"""The page of the map with 100,000 points in headless Chromium: until it is drawn, frames a second, memory.

Places are made up (blobs, and a grid); what lies where is nothing to the page. Chromium without a graphics card works WebGL out
on the processor, which says little of a real card; the plain canvas, which the page chooses there, is the lower bound.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processes import children, peak_mb
from benchmarks.service import Service, running_service
from benchmarks.table import Figure
from config import Settings
from publishing import publish, publish_view
from store import Batch, Record, VectorsManifest, open_writer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from benchmarks.parts import Bench

MANIFEST = VectorsManifest("imported-vectors-000000000000", "imported", "vectors", "0" * 64, 4, "none")
LABELS = 50
FLAGS = ("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")
PAN = """async (seconds) => {
    const { camera } = lookalikeMap.page;
    const until = performance.now() + 1000 * seconds;
    const [before, started] = [lookalikeMap.frames, performance.now()];
    for (let turn = 0; performance.now() < until; turn++) {
        camera.panBy(9 * Math.sin(turn / 9), 9 * Math.cos(turn / 9));
        lookalikeMap.page.wake();
        await new Promise(requestAnimationFrame);
    }
    return (1000 * (lookalikeMap.frames - before)) / (performance.now() - started);
}"""


def measure_map_page(bench: Bench) -> Iterator[Figure]:
    """Open the page over many made-up points, by canvas and by WebGL; nothing where Chromium or Playwright is missing."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("  Chromium is not installed: the page is not measured.")
        return
    count = bench.plan.large
    collection = bench.folder / "map-page"
    make_collection(collection, count)
    with running_service(collection, bench.folder) as service:
        for drawing in ("canvas", "webgl"):
            yield from _measure(service, chromium, drawing, count, bench.plan.seconds / 2)
        yield Figure("map_page", "the service's memory after that", sum(map(peak_mb, service.processes())), "MB")
    shutil.rmtree(collection)


def make_collection(folder: Path, count: int) -> None:
    """Make a published collection of `count` images that have labels, no pictures, and made-up places on a map."""
    random = np.random.default_rng(0)
    blobs = random.integers(0, LABELS, count)
    hashes = [number.to_bytes(32, "big") for number in range(count)]
    records = [
        Record(
            f"/photographs/{blob}/image-{n:06}.jpg".encode(), 1, 1, hashes[n], "JPEG", 640, 480, label=f"kind {blob}"
        )
        for n, blob in enumerate(blobs.tolist())
    ]
    vectors = dict(zip(hashes, random.normal(size=(count, MANIFEST.dim)).astype(np.float32), strict=True))
    with open_writer(folder, command="benchmarks") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(MANIFEST.key, Batch(records=records, vectors=vectors))
        publish(writer, MANIFEST.key, Settings(rsc_files=folder, index="exact"))
        snapshot, generation = writer.snapshot(MANIFEST.key), writer.generation()
        if generation is None:
            raise ValueError(f"{folder} has no generation")
        side = int(np.ceil(np.sqrt(count)))
        middles = random.uniform(0.15, 0.85, (LABELS, 2))
        arrays: dict[str, Any] = {
            "vectors_file": np.array(snapshot.file),
            "ids": snapshot.ids,
            "rows": snapshot.rows,
            "tsne": (middles[blobs] + random.normal(0, 0.03, (count, 2))).clip(0, 1).astype(np.float32),
            "grid": np.stack([np.arange(count) % side, np.arange(count) // side], axis=1),
        }

        def write(into: Path) -> list[str]:
            with open(into / "map.npz", "wb") as file:
                np.savez(file, **arrays)
            return ["map.npz"]

        publish_view(writer, generation, "map", write, options={"layouts": ["tsne", "grid"]}, report={})


def _measure(service: Service, chromium: str, drawing: str, count: int, seconds: float) -> Iterator[Figure]:
    from playwright.sync_api import sync_playwright

    title = f"{count:,} points, {drawing}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page, opened_s = _open(browser, f"http://127.0.0.1:{service.port}/map?drawing={drawing}")
        yield Figure("map_page", f"{title}: from the address until all is drawn", opened_s, "s", at_most=10)
        whole = page.evaluate(PAN, seconds)
        at_least = 10 if drawing == "canvas" else None
        yield Figure("map_page", f"{title}: moving the whole map", whole, "frames/s", at_least=at_least)
        page.evaluate("() => { lookalikeMap.page.camera.zoomAt(12); lookalikeMap.page.wake(); }")
        yield Figure("map_page", f"{title}: moving it twelve times nearer", page.evaluate(PAN, seconds), "frames/s")
        heap = page.evaluate("() => performance.memory.usedJSHeapSize") / 1e6
        yield Figure("map_page", f"{title}: JavaScript's memory", heap, "MB", at_most=200)
        yield Figure("map_page", f"{title}: peak of the page's process", max(map(peak_mb, _renderers())), "MB")
        browser.close()


def _open(browser: Browser, address: str) -> tuple[Page, float]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    started = time.perf_counter()
    page.goto(address)
    page.locator("[data-map][data-ready=ready]").wait_for()
    page.evaluate("async () => { do await new Promise(requestAnimationFrame); while (!lookalikeMap.still); }")
    return page, time.perf_counter() - started


def _renderers() -> list[int]:
    """The processes in which Chromium runs pages."""
    return [pid for pid in children(os.getpid()) if b"--type=renderer" in _command_line(pid)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
