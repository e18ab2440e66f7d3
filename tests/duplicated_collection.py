"""A collection of drawings in an archive and in a camera's folder that has some of them again, for tests of duplicates."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import ImageOps

from config import Settings
from img2vec import Job, Report, index_images
from store import open_writer
from tests import fake_backbone
from tests.fakes import picture
from views.duplicates import find_duplicates

DRAWINGS = 12
COPIES = {"copy of 1.png": 1, "copy of 2.png": 2, "another of 2.png": 2}
"""Files of the camera that are byte for byte one of the archive, whose names are shorter."""
RESIZED = {"small.jpg": 3, "tiny.jpg": 4}
AGO = 1_500_000_000 * 10**9
SETS = 4


def make_photos(folder: Path) -> Path:
    """Draw the pictures: of 1 and 2 there are identical copies, of 3 and 4 smaller ones; return the folder."""
    archive, camera = folder / "archive", folder / "camera roll"
    archive.mkdir(parents=True)
    camera.mkdir()
    for number in range(1, DRAWINGS + 1):
        picture(number, (480, 360)).save(archive / f"{number}.png")
    for name, number in COPIES.items():
        shutil.copyfile(archive / f"{number}.png", camera / name)
    for name, number in RESIZED.items():
        ImageOps.contain(picture(number, (480, 360)), (240, 240)).save(camera / name, quality=90)
    for place, path in enumerate(sorted(folder.glob("*/*"))):
        os.utime(path, ns=(AGO, AGO + place * 10**9))
    return folder


def index(monkeypatch: pytest.MonkeyPatch, photos: Path, rsc_files: Path) -> tuple[Settings, Report]:
    """Index the photographs with a network that is none; return the collection's settings."""
    fake_backbone.install(monkeypatch)
    settings = Settings(rsc_files=rsc_files, backbone="efficientnet_lite0", index="exact", threads=1)
    return settings, index_images(Job(settings, [os.fsencode(path) for path in sorted(photos.glob("*/*"))]))


def find(settings: Settings) -> None:
    """Find the duplicates and publish them."""
    with open_writer(settings.rsc_files, command="a test") as writer:
        generation = writer.generation()
        assert generation is not None
        find_duplicates(writer, generation)
