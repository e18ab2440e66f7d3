"""What several test modules share: where real photographs and a browser are, or why they are not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, sync_playwright

from config import ROOT, Settings
from images import find_images
from img2vec import Job, index_images
from samples import make_sample_collection
from store import open_writer
from tests.serving import FLAGS
from views.renewing import renew_views


def skip_or_fail(reason: str, required_by: str) -> NoReturn:
    """Skip the test; fail it where the environment (.ci/run) says that what is missing has to be there."""
    if os.environ.get(required_by) == "1":
        pytest.fail(f"{reason} {required_by}=1 makes this a failure.", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the project, `../shared/data`."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "caltech101-dev").is_dir():
        skip_or_fail(f"The photographs are not at {folder}/caltech101-dev.", "LOOKALIKE_REQUIRE_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the installed Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    skip_or_fail("There is no Chromium on the PATH; `apt-get install chromium`.", "LOOKALIKE_REQUIRE_BROWSER")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Return a running Chromium. Each launch has a new profile folder, which goes with it."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def sample_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample collection: 20 folders of 12 variants of a photograph."""
    folder = tmp_path_factory.mktemp("samples") / "sample_images"
    make_sample_collection(folder)
    return folder


@pytest.fixture(scope="session")
def viewed_collection(sample_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a collection of the sample photographs with groups, duplicates and a map: what `make run` makes. Never changed."""
    folder = tmp_path_factory.mktemp("viewed") / "rsc"
    settings = Settings(rsc_files=folder, backbone="efficientnet_lite0")
    index_images(Job(settings, find_images([bytes(sample_photos)]).paths))
    with open_writer(folder, command="a test") as writer:
        renew_views(writer, threads=settings.cpu_threads)
    return folder
