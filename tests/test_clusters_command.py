"""`python clusters.py`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from commands.clusters import main
from commands.img2vec import main as img2vec
from config import ROOT, Settings
from errors import LinksError
from store import Batch, Record, open_writer
from tests import fake_backbone
from tests.grouped_collection import KINDS, MANIFEST, SIM, add_images, make_collection
from views.group_links import COPYING_FILE, LIST_FILE, write_links

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a published collection of 8 red, 12 white and 16 black images."""
    return make_collection(tmp_path)


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command over the collection: its status, what it printed, and what it complained about."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["--rsc-files", str(settings.rsc_files), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def places(folder: Path) -> list[str]:
    """Return all files below a folder but the list of links."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() and path.name != LIST_FILE
    )


def report_of(run: Run, *arguments: object) -> dict[str, Any]:
    status, output, problems = run("--json", *arguments)
    assert (status, problems) == (0, "")
    report: dict[str, Any] = json.loads(output)
    return report


# What is printed.


def test_the_report_has_statistics_as_imagecluster_prints_them(run: Run) -> None:
    status, output, _ = run("--sim", SIM)
    assert status == 0
    assert "3 groups of 36 images" in output
    assert "#images : #clusters\n      8 : 1\n     12 : 1\n     16 : 1\n#images in clusters total: 36" in output
    assert "average linkage, euclidean, over all distances" in output
    assert "/groups" in output


def test_without_a_sim_one_is_proposed_and_said_to_be(run: Run) -> None:
    _, output, _ = run()
    assert "proposed: its groups stand apart best" in output
    report = report_of(run)
    assert (report["sim"], report["groups"], report["options"]["sim"]) == (report["proposed_sim"], 3, None)


def test_where_nothing_stands_apart_it_says_so_and_counts_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_collection(tmp_path / "one", {"red": 1})
    assert main(["--rsc-files", str(settings.rsc_files), "--time", "exif"]) == 0
    text = capsys.readouterr().out
    assert "1 image," in text
    assert "sim:       0.5, the middle: at no sim do groups stand apart" in text
    assert "0 groups of 0 images; 1 is alone" in text
    assert main(["--rsc-files", str(settings.rsc_files), "--sim", "0.7"]) == 0
    assert "as you asked (0.5 is the middle)" in capsys.readouterr().out


def test_another_sim_says_that_the_tree_was_kept(run: Run) -> None:
    run("--sim", SIM)
    assert "was there already and is only cut" in run("--sim", 0)[1]
    assert "nothing changed since the last run" in run("--sim", 0)[1]
    assert report_of(run, "--sim", 1)["tree_kept"] is True


def test_imageclusters_own_way_and_times_are_options(run: Run) -> None:
    options = report_of(run, "--raw", "--method", "complete", "--metric", "cosine", "--components", "0.95")["options"]
    assert (options["tree"]["raw"], options["tree"]["components"], options["tree"]["times"]) == (True, 0.95, None)
    assert report_of(run, "--components", 3)["options"]["tree"]["components"] == 3
    timed = report_of(run, "--alpha", 0.5)
    assert (timed["options"]["tree"]["times"], timed["options"]["tree"]["alpha"]) == ("auto", 0.5)
    assert "16 images without a time" in run("--time", "exif")[1]


def test_progress_is_said_unless_it_is_not_wanted(run: Run) -> None:
    assert "Grouping 36 images" in run()[2]
    assert run("--raw", "--quiet")[2] == ""


def test_it_runs_as_a_program(settings: Settings) -> None:
    arguments = ["--rsc-files", str(settings.rsc_files), "--quiet", "--sim", "0.5"]
    done = subprocess.run([sys.executable, "clusters.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "#images : #clusters" in done.stdout


def test_two_red_three_white_and_four_black_pictures_are_three_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """imagecluster's own test, from files to its answer."""
    fake_backbone.install(monkeypatch)
    kinds = {"red": 2, "white": 3, "black": 4}
    for kind, count in kinds.items():
        for number in range(count):
            Image.new("RGB", (60, 60 + number), kind).save(tmp_path / f"{kind}-{number}.png")
    folder, target = str(tmp_path / "rsc"), tmp_path / "groups.json"
    arguments = ["--rsc-files", folder, "--backbone", "efficientnet_lite0", "--quiet"]
    assert img2vec([*arguments, str(tmp_path / "*.png")]) == 0
    assert main(["--rsc-files", folder, "--raw", "--sim", "0.5", "--output", str(target)]) == 0
    assert "#images : #clusters\n      2 : 1\n      3 : 1\n      4 : 1\n" in capsys.readouterr().out
    found = json.loads(target.read_text())
    assert {Path(name).name.partition("-")[0]: int(size) for size in found for name in found[size][0]} == kinds


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sim", "2"], "sim is 2.0. Give a number from 0"),
        (["--alpha", "-1"], "alpha is -1.0. Give a number from 0 to 1"),
        (["--method", "magic"], "There is no method 'magic'"),
        (["--components", "many"], "components is 'many'"),
        (["--min-size", "0"], "whole number from 1"),
        (["--output", "groups.xlsx"], "end in .json or .csv"),
        (["--output", "/nowhere/groups.json"], "cannot be written"),
        (["--picture", "/nowhere/groups.png"], "cannot be written"),
        (["--sim", "1", "--picture", "groups.png"], "every image is alone"),
        (["--picture", "groups.jpg"], "Give a name that ends in .png"),
        (["--dendrogram", "tree.pdf"], "Give a name that ends in .png"),
        (["--links", __file__], "is no folder"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line_and_nothing_is_lost(run: Run, arguments: list[str], message: str) -> None:
    run("--sim", SIM)
    status, output, problems = run("--quiet", *arguments)
    assert (status, output) == (1, "")
    assert problems.startswith("clusters.py: ")
    assert message in problems
    assert problems.count("\n") == 1
    assert report_of(run, "--sim", SIM)["groups"] == 3


def test_an_error_is_json_where_json_is_wanted(run: Run) -> None:
    status, output, _ = run("--json", "--sim", 2)
    assert (status, json.loads(output)["error"]["code"]) == (1, "bad_option")


def test_options_of_links_need_links(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--force", "--copy", "--hardlink"):
        with pytest.raises(SystemExit) as ended:
            run(option)
        assert ended.value.code == 2
        assert "--links" in capsys.readouterr().err


def test_where_there_is_no_collection_none_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rsc-files", str(tmp_path / "none")]) == 1
    assert "There is no collection" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# Files.


def test_json_is_files_by_size_and_csv_a_row_an_image(run: Run, tmp_path: Path) -> None:
    run("--sim", SIM, "--output", tmp_path / "groups.json", "--output", tmp_path / "groups.csv")
    sizes = json.loads((tmp_path / "groups.json").read_text())
    assert {size: [len(files) for files in groups] for size, groups in sizes.items()} == {
        "8": [8],
        "12": [12],
        "16": [16],
    }
    assert {Path(file).parent.name for file in sizes["8"][0]} == {"red"}
    with open(tmp_path / "groups.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    assert (rows[0]["group"], rows[0]["size"], rows[0]["place"], Path(rows[0]["file"]).parent.name) == (
        *("0", "16", "0"),
        "black",
    )
    assert [row["file"] for row in rows if row["size"] == "8"] == sizes["8"][0]


def test_pictures_are_drawn_of_thumbnails_and_say_what_they_leave_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, tree = tmp_path / "groups.png", tmp_path / "tree.png"
    report = report_of(run, "--sim", SIM, "--picture", target, "--dendrogram", tree)
    with Image.open(target) as picture:
        assert picture.getpixel((30, 50)) == pytest.approx((20, 20, 20), abs=6)  # the largest group is black
        assert picture.getpixel((165, 50)) == pytest.approx((200, 30, 30), abs=6)
    assert report["made"]["picture"]["images_shown"] == 36
    with Image.open(tree) as picture:
        assert picture.width > 1000
    monkeypatch.setattr("views.group_pictures.MAX_ROWS", 10)
    monkeypatch.setattr("views.group_pictures.MAX_COLUMNS", 2)
    assert "20 of 36 images, the most central of the 2 largest of 3 groups" in run("--picture", target)[1]
    monkeypatch.setattr("views.group_pictures.MAX_PIXELS", 60_000)
    run("--picture", target)
    with Image.open(target) as picture:
        assert 30_000 < picture.width * picture.height <= 60_000


# Links.


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "copy"])
def test_links_are_folders_by_size_and_lead_to_the_pictures(run: Run, tmp_path: Path, kind: str) -> None:
    option = [] if kind == "symlink" else [f"--{kind}"]
    run("--sim", SIM, "--links", tmp_path / "links", *option)
    found = places(tmp_path / "links")
    assert len(found) == 36
    assert {place.rpartition("/")[0] for place in found} == {f"cluster_with_{n}/cluster_0" for n in KINDS.values()}
    link, file = tmp_path / "links/cluster_with_8/cluster_0/image-003.jpg", tmp_path / "photos/red/image-003.jpg"
    assert link.read_bytes() == file.read_bytes()
    assert link.is_symlink() == (kind == "symlink")
    assert link.samefile(file) == (kind != "copy")
    assert link.stat().st_mtime_ns == file.stat().st_mtime_ns


def test_equal_names_of_different_folders_do_not_collide(run: Run, tmp_path: Path) -> None:
    run("--sim", 0, "--links", tmp_path / "links")
    found = places(tmp_path / "links")
    assert len(found) == 36
    three = {f"cluster_with_36/cluster_0/image-000{ending}.jpg" for ending in ("", "~2", "~3")}
    assert three <= set(found)
    sources = {os.readlink(tmp_path / "links" / place) for place in found}
    assert sources == {str(path) for path in (tmp_path / "photos").rglob("*.jpg")}


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "copy"])
def test_a_second_run_replaces_exactly_what_the_first_one_made(run: Run, tmp_path: Path, kind: str) -> None:
    links, option = tmp_path / "links", [] if kind == "symlink" else [f"--{kind}"]
    run("--sim", SIM, "--links", links, *option)
    status, _, _ = run("--sim", 0, "--links", links)
    assert status == 0
    assert [path.name for path in links.iterdir() if path.is_dir()] == ["cluster_with_36"]
    assert len(places(links)) == 36
    assert len(list((tmp_path / "photos").rglob("*.jpg"))) == 36


def test_a_folder_that_holds_other_things_is_refused_and_kept(run: Run, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "diary.txt").write_text("mine")
    status, _, problems = run("--sim", SIM, "--links", links)
    assert status == 1
    assert "holds other things, such as diary.txt" in problems
    assert places(links) == ["diary.txt"]
    for sim in (SIM, 0):
        assert run("--sim", sim, "--links", links, "--force")[0] == 0
        assert (links / "diary.txt").read_text() == "mine"
        assert len(places(links)) == 37
    assert run("--sim", SIM, "--links", tmp_path / "photos" / "red" / "image-000.jpg")[0] == 1


def test_what_a_person_put_or_changed_among_the_links_stays(run: Run, tmp_path: Path) -> None:
    links = tmp_path / "links"
    run("--sim", SIM, "--links", links, "--copy")
    edited, own = links / "cluster_with_8/cluster_0/image-000.jpg", links / "cluster_with_8/cluster_0/own.jpg"
    edited.write_bytes(b"edited by hand")
    own.write_bytes(b"put here")
    assert "holds other things" in run("--sim", SIM, "--links", links)[2]
    assert run("--sim", SIM, "--links", links, "--force")[0] == 0
    assert (edited.read_bytes(), own.read_bytes()) == (b"edited by hand", b"put here")
    assert (links / "cluster_with_8/cluster_0/image-000~2.jpg").is_symlink()


def test_the_last_copy_of_a_picture_is_never_removed(run: Run, tmp_path: Path) -> None:
    for number, kind in enumerate(("copy", "hardlink")):
        links, original = tmp_path / kind, tmp_path / f"photos/red/image-00{number}.jpg"
        run("--sim", SIM, "--links", links, f"--{kind}")
        content = original.read_bytes()
        original.unlink()
        status, output, _ = run("--sim", 0, "--links", links, "--force")
        assert status == 0
        assert "without a file" in output
        assert (links / "cluster_with_8/cluster_0" / original.name).read_bytes() == content


def test_a_hard_link_that_has_become_its_own_source_stays(tmp_path: Path) -> None:
    photos, links = tmp_path / "photos", tmp_path / "links"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"a picture")
    write_links(links, [[os.fsencode(photos / "a.jpg")]], kind="hardlink")
    shutil.rmtree(photos)
    photos.symlink_to(links / "cluster_with_1" / "cluster_0")
    write_links(links, [], kind="hardlink", force=True)
    assert (links / "cluster_with_1" / "cluster_0" / "a.jpg").read_bytes() == b"a picture"


def test_names_that_differ_in_case_alone_do_not_collide_where_case_says_nothing(tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder, name in (("one", "a.jpg"), ("two", "A.JPG"))]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"a picture")
    write_links(tmp_path / "links", [[os.fsencode(path) for path in paths]])
    assert [Path(place).name for place in places(tmp_path / "links")] == ["A~2.JPG", "a.jpg"]


def test_a_run_that_was_cut_off_is_finished_by_the_next(
    run: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links, symlink = tmp_path / "links", os.symlink

    def full(source: str, place: Path) -> None:
        if place.name == "image-005.jpg":
            raise OSError(28, "No space left on device")
        symlink(source, place)

    monkeypatch.setattr(os, "symlink", full)
    status, _, problems = run("--sim", SIM, "--links", links)
    assert status == 1
    assert "No space left" in problems
    assert 0 < len(places(links)) < 36
    monkeypatch.undo()
    (links / COPYING_FILE).write_bytes(b"half of a picture")
    assert run("--sim", SIM, "--links", links)[0] == 0
    assert len(places(links)) == 36


def test_a_list_of_links_reaches_nothing_outside_its_folder(run: Run, settings: Settings, tmp_path: Path) -> None:
    links, precious = tmp_path / "links", tmp_path / "precious"
    run("--sim", SIM, "--links", links)
    precious.symlink_to(tmp_path / "photos")
    made = {
        "place": "cluster_with_1/cluster_0/../../../precious",
        "source": str(tmp_path / "photos"),
        "kind": "symlink",
    }
    (links / LIST_FILE).write_text(json.dumps({"made": [made]}))
    assert run("--sim", SIM, "--links", links, "--force")[0] == 0
    assert precious.is_symlink()
    (links / LIST_FILE).write_text("{}")
    assert "cannot be read" in run("--sim", SIM, "--links", links)[2]


def test_links_do_not_follow_a_folder_that_leads_elsewhere(tmp_path: Path) -> None:
    file, elsewhere, links = tmp_path / "a.jpg", tmp_path / "elsewhere", tmp_path / "links"
    file.write_bytes(b"picture")
    elsewhere.mkdir()
    links.mkdir()
    (links / "cluster_with_1").symlink_to(elsewhere)
    with pytest.raises(LinksError, match="leads somewhere else"):
        write_links(links, [[bytes(file)]], force=True)
    assert list(elsewhere.iterdir()) == []


def test_images_without_a_file_and_strange_names_make_no_trouble(run: Run, settings: Settings, tmp_path: Path) -> None:
    strange = os.fsencode(tmp_path / "photos" / "red") + b"/\xff name.jpg"
    Path(os.fsdecode(strange)).write_bytes(b"strange")
    with open_writer(settings.rsc_files, command="a test") as writer:
        first, second, *_ = writer.all_records()
        moved = [
            (first.image_id, replace(first, path=strange)),
            (second.image_id, Record(b"no file", 0, 0, second.sha256)),
        ]
        writer.commit(MANIFEST.key, Batch(moved=moved))
    for _ in range(2):
        status, output, _ = run("--sim", SIM, "--links", tmp_path / "links")
        assert status == 0
        assert "35 (symlink)" in output
        assert "1 image without a file" in output
    assert b"\xff name.jpg" in b"".join(os.listdir(os.fsencode(tmp_path / "links/cluster_with_8/cluster_0")))
    run("--sim", SIM, "--output", tmp_path / "groups.json")
    assert "\\xff name.jpg" in json.dumps(json.loads((tmp_path / "groups.json").read_text()))
    add_images(settings, {"red": 1}, first=30)
