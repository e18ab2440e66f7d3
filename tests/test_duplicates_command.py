"""`python duplicates.py` from finding to restoring, as a person uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from commands.duplicates import main
from config import ROOT, Settings
from plans import read_plan
from search import SearchService
from store import open_store, open_writer
from tests.duplicated_collection import COPIES, DRAWINGS, RESIZED, SETS, find, index, make_photos

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and their collection, to be copied."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as monkeypatch:
        settings, _ = index(monkeypatch, make_photos(folder / "photos"), folder / "rsc")
    find(settings)
    return folder


@pytest.fixture
def rsc(original: Path, tmp_path: Path) -> str:
    """The folder of a collection with published duplicates; the photographs are those of `photos`."""
    shutil.copytree(original / "rsc", tmp_path / "rsc")
    return str(tmp_path / "rsc")


@pytest.fixture
def photos(original: Path) -> Path:
    return original / "photos"


def run(capsys: Capture, *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def times(photos: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in photos.rglob("*")
        if ".lookalike" not in str(path)
    }


def test_finding_says_what_there_is_and_what_to_do_next(capsys: Capture, rsc: str) -> None:
    with open_writer(Path(rsc), command="a test") as writer:
        before = writer.generation()
    status, out, err = run(capsys, "--rsc-files", rsc, "--burst-seconds", "9")
    assert status == 0
    assert "Identical files:   2 sets of 5 images" in out
    assert f"The same picture:  {SETS} sets of 9 images" in out
    assert "Could go:          5 files" in out
    assert f"python duplicates.py --plan duplicates-plan.csv --rsc-files {rsc}" in out
    assert "Comparing pictures" in err
    store = open_store(Path(rsc))
    after = store.generation()
    assert before is not None
    assert after is not None
    assert after.number == before.number + 1
    store.close()


def test_what_was_found_is_not_looked_for_again_as_long_as_it_holds(capsys: Capture, rsc: str) -> None:
    assert run(capsys, "--rsc-files", rsc)[2] == ""
    assert "Comparing" in run(capsys, "--rsc-files", rsc, "--neighbours", "5")[2]
    assert "Comparing" not in run(capsys, "--rsc-files", rsc, "--neighbours", "5")[2]


def test_a_plan_changes_nothing_and_the_report_says_so(capsys: Capture, rsc: str, photos: Path, tmp_path: Path) -> None:
    before = times(photos)
    plan = tmp_path / "plan.json"
    status, out, _ = run(capsys, "--rsc-files", rsc, "--plan", str(plan), "--keep", "oldest", "--json")
    report = json.loads(out)
    assert (status, times(photos)) == (0, before)
    assert (report["plan"]["removed"], report["plan"]["sets"]) == (5, SETS)
    assert report["tiers"]["same"]["removed"] == 5
    assert report["plan"]["file"] == str(plan)
    rows = read_plan(plan).rows
    assert {os.path.basename(row.path) for row in rows if row.action == "remove"} == {
        os.fsencode(name) for name in (*COPIES, *RESIZED)
    }
    assert {row.relation for row in rows if row.action == "remove"} == {"identical bytes", "resized, as JPEG"}


def test_what_was_found_of_other_contents_is_found_anew(capsys: Capture, rsc: str) -> None:
    with open_writer(Path(rsc), command="a test") as writer:
        generation = writer.generation()
    assert generation is not None
    compared = generation.folder / "duplicates-images.npy"
    ids, contents = np.load(compared)
    compared.unlink()  # a link of other generations
    np.save(compared, np.stack([ids, contents + 1]))
    status, out, _ = run(capsys, "--rsc-files", rsc, "--quiet")
    assert (status, f"The same picture:  {SETS} sets" in out) == (0, True)


def test_a_protected_folder_stays_whole(capsys: Capture, rsc: str, photos: Path, tmp_path: Path) -> None:
    for number, folder in enumerate((str(photos / "camera roll"), "camera roll")):
        plan = tmp_path / f"plan-{number}.csv"
        status, out, _ = run(capsys, "--rsc-files", rsc, "--plan", str(plan), "--protect", folder)
        assert (status, f"where of each set is kept what lies in {folder}, else the largest" in out) == (0, True)
        assert {os.path.basename(row.path) for row in read_plan(plan).removed} == {
            b"1.png",
            b"2.png",
            b"3.png",
            b"4.png",
        }


def test_a_new_folder_is_compared_with_the_archive_only(
    capsys: Capture, rsc: str, photos: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.csv"
    status, out, _ = run(
        capsys, "--rsc-files", rsc, "--plan", str(plan), "--new", str(photos / "camera roll"), "--json"
    )
    assert (status, json.loads(out)["tiers"]["same"]["removed"]) == (0, 5)
    assert {os.path.basename(os.path.dirname(row.path)) for row in read_plan(plan).removed} == {b"camera roll"}
    run(capsys, "--rsc-files", rsc, "--plan", str(plan), "--new", str(photos / "archive"))
    assert {os.path.basename(os.path.dirname(row.path)) for row in read_plan(plan).removed} == {b"archive"}


def test_applied_and_restored_everything_is_as_it_was(capsys: Capture, rsc: str, photos: Path, tmp_path: Path) -> None:
    before, plan = times(photos), str(tmp_path / "plan.csv")
    run(capsys, "--rsc-files", rsc, "--plan", plan)
    service = SearchService(Settings(rsc_files=Path(rsc)), load_network=False)
    assert len(service.ready().snapshot) == DRAWINGS + 5
    status, out, err = run(capsys, "--rsc-files", rsc, "--apply", plan, "--quarantine", str(tmp_path / "out"))
    assert status == 0
    assert "5 files, " in out
    assert f"The collection in {rsc} is without them now" in out
    assert "Moving" in err
    assert len(service.ready().snapshot) == DRAWINGS  # a service that runs shows them no more
    assert len(list((photos / "camera roll").iterdir())) == 0
    assert (
        "5 files of the plan had been moved before."
        in run(capsys, "--rsc-files", rsc, "--apply", plan, "--quarantine", str(tmp_path / "out"))[1]
    )
    run_folder = out.partition("--restore ")[2].split()[0]
    status, out, _ = run(capsys, "--restore", run_folder)
    assert (status, "5 files are back" in out, "NOTE" in out) == (0, True, False)
    assert times(photos) == before
    assert len(service.ready().snapshot) == DRAWINGS + 5
    service.close()
    assert "5 files had been back already" in run(capsys, "--restore", run_folder)[1]
    assert run(capsys, "--rsc-files", rsc)[2] == ""  # what was found before holds again


def test_a_plan_of_another_collection_is_told_and_made_good_by_applying_it_there(
    capsys: Capture, rsc: str, photos: Path, tmp_path: Path
) -> None:
    before, plan, other = times(photos), str(tmp_path / "plan.csv"), str(tmp_path / "other")
    apply = ("--apply", plan, "--quarantine", str(tmp_path / "out"))
    run(capsys, "--rsc-files", rsc, "--plan", plan)
    assert f"No collection in {other} held them" in run(capsys, "--rsc-files", other, *apply)[1]
    out = run(capsys, "--rsc-files", rsc, *apply)[1]
    assert "5 files of the plan had been moved before." in out
    assert (f"The collection in {rsc} is without them now" in out, "NOTE" in out) == (True, False)
    run(capsys, "--restore", str(tmp_path / "out"))
    assert times(photos) == before


@pytest.mark.parametrize(("how", "missing"), [("compacted", 2), ("moved", 5)])  # three have the bytes of one that stays
def test_images_that_are_searched_no_more_though_their_files_are_back_are_told(
    capsys: Capture, rsc: str, tmp_path: Path, how: str, missing: int
) -> None:
    plan = str(tmp_path / "plan.csv")
    run(capsys, "--rsc-files", rsc, "--plan", plan)
    run(capsys, "--rsc-files", rsc, "--apply", plan, "--quarantine", str(tmp_path / "out"))
    if how == "moved":
        os.rename(rsc, tmp_path / "away")
    else:
        with open_writer(Path(rsc), command="test") as writer:
            writer.compact()
    status, out, _ = run(capsys, "--restore", str(tmp_path / "out"))
    assert (status, "5 files are back" in out) == (0, True)
    assert f"NOTE: {missing} of these images are not searched now" in out


def test_a_file_that_cannot_come_back_is_named_and_the_status_says_so(
    capsys: Capture, rsc: str, photos: Path, tmp_path: Path
) -> None:
    plan = str(tmp_path / "plan.csv")
    run(capsys, "--rsc-files", rsc, "--plan", plan)
    out = run(capsys, "--rsc-files", rsc, "--apply", plan, "--quarantine", str(tmp_path / "out"), "--json")[1]
    taken = photos / "camera roll" / "tiny.jpg"
    taken.write_bytes(b"another")
    status, text, _ = run(capsys, "--restore", json.loads(out)["run"])
    assert status == 1
    assert f"{taken} is taken by another file" in text
    taken.unlink()
    assert run(capsys, "--restore", json.loads(out)["run"], "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--plan", "plan.txt"], ".csv or a .json"),
        (["--plan", "plan.csv", "--keep", "newest"], "no rule 'newest'"),
        (["--plan", "plan.csv", "--protect", "nowhere"], "No image of the collection lies in 'nowhere'"),
        (["--new", "nowhere"], "No image of the collection lies in 'nowhere'"),
        (["--burst-seconds", "-1"], "burst_seconds is -1"),
        (["--apply", "none.csv"], "cannot be read"),
        (["--restore", "none"], "no journal"),
        (["--rsc-files", "nowhere"], "There is no collection"),
    ],
)
def test_what_makes_no_sense_is_said_without_a_traceback(
    capsys: Capture, rsc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "--rsc-files", rsc, *argv, "--json")
    assert (status, complaint in err, complaint in json.loads(out)["error"]["message"]) == (1, True, True)
    assert not (tmp_path / "plan.csv").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["--apply", "a", "--restore", "b"],
        ["--apply", "a", "--plan", "b.csv"],
        ["--restore", "a", "--protect", "b"],
        ["--quarantine", "a"],
        ["--keep", "oldest"],
        ["--bursts"],
    ],
)
def test_options_that_do_not_go_together_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


def test_it_runs_as_a_program() -> None:
    finished = subprocess.run(
        [sys.executable, str(ROOT / "duplicates.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0
    assert "--restore" in finished.stdout
