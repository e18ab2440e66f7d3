"""Makes the pictures of the README: `python -m docs.screenshots` (or `make screenshots`), into this folder.

The collection is made of crops of photographs that scikit-image carries, of those alone that are CC0 or in the public domain
(THIRD_PARTY.md), because the pictures are part of the repository. Needs Chromium and what requirements/dev.txt names.
"""

from __future__ import annotations

import io
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, sync_playwright

from config import ROOT
from tests.serving import FLAGS

SOURCES = (
    *(
        "astronaut.png",
        "brick.png",
        "camera.png",
        "cell.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
    ),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg"),
)
CROPS = 100
"""Crops of each photograph."""
START_LIMIT_S = 60.0
QUALITY = 82


def make_photographs(folder: Path) -> None:
    """Write `CROPS` crops of each photograph into a folder of its name."""
    import skimage

    chance = random.Random(3)
    for name in SOURCES:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as opened:
            whole = opened.convert("RGB")
        kind = folder / Path(name).stem.partition("_")[0]
        kind.mkdir(parents=True)
        for number in range(CROPS):
            _crop(whole, chance).save(kind / f"{number:03}.jpg", quality=88)


def _crop(whole: Image.Image, chance: random.Random) -> Image.Image:
    share = chance.uniform(0.25, 0.75)
    width = min(whole.width, int(whole.width * share * chance.uniform(0.8, 1.2)))
    height = min(whole.height, int(whole.height * share * chance.uniform(0.8, 1.2)))
    left, top = chance.randint(0, whole.width - width), chance.randint(0, whole.height - height)
    crop = whole.crop((left, top, left + width, top + height))
    if chance.random() < 0.3:
        crop = ImageOps.mirror(crop)
    crop.thumbnail((400, 400))
    return crop


@contextmanager
def served(rsc_files: Path) -> Iterator[str]:
    """Serve the collection in a process of its own and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--rsc-files", str(rsc_files), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    last = time.monotonic() + START_LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > last:
                raise
            time.sleep(0.2)


def save(page: Page, file: str) -> None:
    """Write what the page shows as a JPEG into this folder."""
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(Path(__file__).parent / file, quality=QUALITY, optimize=True, progressive=True)


def take(browser: Browser, address: str, photographs: Path) -> None:
    """Take all pictures of the service at `address`."""
    with browser.new_context(base_url=address, viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        page.goto("/")
        page.set_input_files('input[type="file"]', photographs / "astronaut" / "004.jpg")
        page.wait_for_url("**/search?*")
        page.wait_for_load_state("networkidle")
        save(page, "screenshot.jpg")
        page.locator("[data-why]").nth(1).dispatch_event("click")
        page.locator("dialog[open] img").last.wait_for()
        page.locator("dialog img").evaluate_all("images => Promise.all(images.map((image) => image.decode()))")
        save(page, "why.jpg")
        page.goto("/map")
        page.wait_for_load_state("networkidle")
        page.locator(".map canvas").first.wait_for()
        page.wait_for_timeout(3000)  # atlases are decoded and drawn after they came
        save(page, "map.jpg")


def main() -> int:
    """Make the collection, serve it and take the pictures."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("There is no Chromium on the PATH: apt-get install chromium.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        photographs, rsc_files = Path(folder) / "photographs", Path(folder) / "rsc"
        make_photographs(photographs)
        job = [sys.executable, "img2vec.py", f"{photographs}/**/*.jpg", "--backbone", "efficientnet_lite0", "--views"]
        subprocess.run([*job, "--rsc-files", str(rsc_files)], cwd=ROOT, check=True)
        with served(rsc_files) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
            take(browser, address, photographs)
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
