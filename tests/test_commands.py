"""The command line of the indexing job: what it accepts, prints and returns."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands.img2vec import _matcher, main
from config import ROOT
from tests import fake_backbone
from tests.fake_backbone import FakeBackbone


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeBackbone]:
    return fake_backbone.install(monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return folder


def run(photos: Path, *arguments: str) -> int:
    return main([*arguments, "--rsc-files", str(photos.parent / "rsc"), "--quiet"])


def test_the_report_is_for_people_or_for_programs(
    photos: Path, loaded: list[FakeBackbone], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, str(photos / "*.jpg")) == 0
    text = capsys.readouterr().out
    assert "4 new, 0 changed, 0 unchanged, 0 failed" in text
    assert f"python app.py --rsc-files {photos.parent / 'rsc'}" in text
    assert run(photos, str(photos), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unchanged"], report["images"], report["backbone"]) == (4, 4, "efficientnet_lite0")


def test_failures_are_listed_at_the_end_and_when_asked_for(
    photos: Path, loaded: list[FakeBackbone], capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "0.jpg").write_bytes((photos / "0.jpg").read_bytes()[:300])
    assert run(photos, str(photos)) == 0
    assert str(photos / "0.jpg") in capsys.readouterr().out
    assert run(photos, "--failures") == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{photos / '0.jpg'}: ")


def test_patterns_come_from_a_file_or_standard_input(
    photos: Path, loaded: list[FakeBackbone], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos.parent / "list.txt").write_text(f"{photos / '1.jpg'}\n\n{photos / '2.jpg'}\n")
    assert run(photos, "--from-file", str(photos.parent / "list.txt"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"] == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(photos) + b"\n")))
    assert run(photos, "--from-file", "-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"] == 2


def test_prune_with_a_pattern_leaves_other_folders_alone(
    photos: Path, loaded: list[FakeBackbone], capsys: pytest.CaptureFixture[str]
) -> None:
    other = photos.parent / "other"
    other.mkdir()
    (photos / "0.jpg").rename(other / "0.jpg")
    assert run(photos, str(photos), str(other)) == 0
    (other / "0.jpg").unlink()
    (photos / "1.jpg").unlink()
    capsys.readouterr()
    assert run(photos, "--prune", str(photos), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["removed"], report["gone"], report["images"]) == (1, 1, 3)
    assert run(photos, "--prune", str(other), "--json") == 0  # a folder of which nothing is left
    assert json.loads(capsys.readouterr().out)["removed"] == 1


def test_removing_what_is_not_there_is_said(
    photos: Path, loaded: list[FakeBackbone], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photos, str(photos)) == 0
    assert run(photos, "--remove", str(photos / "nothing*")) == 0
    assert "Nothing in the collection matches" in capsys.readouterr().err
    assert run(photos, "--remove", str(photos / "[01].jpg"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 2


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        (b"/a/b.jpg", b"/a/b.jpg", True),
        (b"/a", b"/a/b/c.jpg", True),
        (b"/a/", b"/a/b.jpg", True),
        (b"/a", b"/ab/c.jpg", False),
        (b"/a/*.jpg", b"/a/b.jpg", True),
        (b"/a/*.jpg", b"/a/b/c.jpg", False),
        (b"/a/*", b"/a/b/c.jpg", True),
        (b"/a/**/*.jpg", b"/a/b.jpg", True),
        (b"/a/**/*.jpg", b"/a/b/c/d.jpg", True),
        (b"/a/[!x].jpg", b"/a/y.jpg", True),
        (b"/a/[!x].jpg", b"/a/x.jpg", False),
        (b"/a/[1].jpg", b"/a/[1].jpg", True),
        (b"/a/?.jpg", b"/a/\xe9.jpg", True),
        (b"/a/b.jpg", b"/a/bxjpg", False),
    ],
)
def test_remove_means_what_the_patterns_of_indexing_mean(pattern: bytes, path: bytes, matches: bool) -> None:
    assert _matcher([pattern])(path) is matches


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "nothing to do"),
        (["/no/such/folder/*"], 1, "nothing matches /no/such/folder/*"),
        (["--compact"], 1, "There is no collection"),
        (["--from-file", "/no/list"], 1, "/no/list cannot be read"),
        (["x", "--batch-size", "many"], 1, "batch_size must be a whole number"),
        (["--failures"], 1, "There is no collection"),
    ],
)
def test_wrong_use_is_a_message_and_a_status(
    photos: Path, arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = run(photos, *arguments)
    except SystemExit as stop:
        returned = int(str(stop.code))
    assert returned == status
    assert said in capsys.readouterr().err


@pytest.mark.openvino
@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_says_what_is_saved(sample_photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "img2vec.py"), str(sample_photos), "--rsc-files", str(tmp_path / "rsc")]
    job = subprocess.Popen(
        [*command, "--backbone", "efficientnet_lite0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(timeout=2.5)  # the network is being converted now, in a child
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does, to the whole group
    output, errors = job.communicate(timeout=120)
    assert job.returncode == 130, errors
    assert "Traceback" not in errors
    assert "run the same command again" in output
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["images"] == 241
