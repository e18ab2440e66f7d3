"""The sample collection: complete, repeatable, made whole or not at all, and without a network."""

from __future__ import annotations

import hashlib
import socket
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

import samples
from commands.samples import main
from config import ROOT
from errors import LookalikeError, SettingsError
from samples import OTHER_VIEWS, PHOTOGRAPHS, VARIANTS, make_sample_collection


def content_hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32)


@pytest.fixture
def one_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PHOTOGRAPHS", {"coins": PHOTOGRAPHS["coins"]})
    monkeypatch.setattr(samples, "OTHER_VIEWS", {})


def test_each_photograph_has_a_folder_with_all_its_variants(sample_photos: Path) -> None:
    assert {path.name for path in sample_photos.iterdir()} == set(PHOTOGRAPHS)
    for label in PHOTOGRAPHS:
        extra = {"other_view.jpg"} if label in OTHER_VIEWS else set()
        assert {path.name for path in (sample_photos / label).iterdir()} == set(VARIANTS) | extra


def test_about_250_images_take_little_space_and_none_is_large(sample_photos: Path) -> None:
    files = [path for path in sample_photos.rglob("*") if path.is_file()]
    assert 230 <= len(files) <= 270
    assert sum(path.stat().st_size for path in files) < 25_000_000
    for path in files:
        with Image.open(path) as image:
            assert max(image.size) <= 1300  # turned by 15°, a square of 1024 is that wide


def test_every_format_is_one_that_browsers_show(sample_photos: Path) -> None:
    formats = set()
    for path in (sample_photos / "chelsea").iterdir():
        with Image.open(path) as image:
            formats.add(image.format)
            image.load()
    assert formats == {"JPEG", "PNG", "WEBP", "GIF"}


def test_variants_are_what_their_names_say(sample_photos: Path) -> None:
    folder = sample_photos / "coffee"
    original = pixels(folder / "original.jpg")
    height, width, _ = original.shape
    assert np.abs(pixels(folder / "mirrored.jpg") - original[:, ::-1]).mean() < 8
    assert np.abs(pixels(folder / "turned_90_degrees.jpg") - np.rot90(original)).mean() < 8
    corner = original[: round(0.7 * height), : round(0.7 * width)]
    assert np.abs(pixels(folder / "cropped_to_corner.jpg") - corner).mean() < 8
    assert pixels(folder / "half_size.png").shape == (height // 2, width // 2, 3)
    grey = pixels(folder / "grey.webp")
    assert np.abs(grey[..., 0] - grey[..., 2]).max() <= 2
    assert pixels(folder / "brighter.jpg").mean() > original.mean() * 1.1
    assert pixels(folder / "less_contrast.webp").std() < original.std() * 0.8
    assert (folder / "recompressed.jpg").stat().st_size < (folder / "original.jpg").stat().st_size / 3


@pytest.mark.usefixtures("one_photograph")
def test_the_same_bytes_are_made_every_time(tmp_path: Path) -> None:
    make_sample_collection(tmp_path / "first")
    make_sample_collection(tmp_path / "second")
    assert content_hashes(tmp_path / "first") == content_hashes(tmp_path / "second")


def test_a_second_call_changes_nothing(sample_photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample_photos.rglob("*")}
    assert make_sample_collection(sample_photos) == 241
    assert {path: path.stat().st_mtime_ns for path in sample_photos.rglob("*")} == before


@pytest.mark.usefixtures("one_photograph")
def test_an_interrupted_making_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(image: Image.Image) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(samples, "VARIANTS", {**VARIANTS, "last.jpg": interrupt})
    with pytest.raises(KeyboardInterrupt):
        make_sample_collection(tmp_path / "sample_images")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="not a complete sample collection: 241 of its 241 images are missing"):
        make_sample_collection(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.usefixtures("one_photograph")
def test_no_connection_is_made_and_the_packages_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> NoReturn:
        raise AssertionError(f"a connection to {arguments[-1]} was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("skimage", "sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    make_sample_collection(tmp_path / "sample_images")
    assert not {"skimage", "sklearn"} & set(sys.modules)


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PHOTOGRAPHS", {"coins": "no_such_package/coins.png"})
    with pytest.raises(LookalikeError, match="need the package no_such_package, which is not installed"):
        make_sample_collection(tmp_path / "sample_images")


@pytest.mark.usefixtures("one_photograph")
def test_the_command_says_how_many_images_lie_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "sample images"
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"12 sample images lie in {folder}\n"


def test_the_command_prints_a_message_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main([str(tmp_path)]) == 1
    assert "Name another folder, or move this one away." in capsys.readouterr().err


def test_the_licence_of_every_photograph_is_stated() -> None:
    text = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    for file in [*PHOTOGRAPHS.values(), *OTHER_VIEWS.values()]:
        assert f"`{file}`" in text
