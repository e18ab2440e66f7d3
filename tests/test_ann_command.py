"""`python ann.py`: what it accepts, prints, draws and returns."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands.ann import _self_test, _self_test_text, main
from config import Settings
from errors import CollectionMissingError
from search import create_collection
from store import open_writer
from tests import fake_backbone


def draw(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_backbone.install(monkeypatch)
        yield


@pytest.fixture(scope="module")
def rsc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of `even/0.png`, `odd/1.png`, … `odd/5.png`, ids from 1 in the order of their paths."""
    folder = tmp_path_factory.mktemp("collection")
    for number in range(6):
        draw(folder / "photos" / ("odd" if number % 2 else "even") / f"{number}.png", number)
    create_collection(folder / "photos", folder / "rsc", backbone="efficientnet_lite0").close()
    return folder / "rsc"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in an empty folder with one picture beside it, whose twin is `odd/3.png`."""
    draw(tmp_path / "ask" / "three.png", 3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def run(rsc: Path, *arguments: object) -> int:
    try:
        return main([*map(str, arguments), "--rsc-files", str(rsc)])
    except SystemExit as stop:
        return int(str(stop.code))


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return answer


def test_a_picture_gives_a_table_and_a_contact_sheet(
    rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(rsc, folder / "ask" / "three.png", "-k", 2) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0].split() == ["query_label", "reference_label", "distance", "rank"]
    assert lines[1].split() == [
        str(folder / "ask" / "three.png"),
        str(rsc.parent / "photos" / "odd" / "3.png"),
        "0.0000",
        "1",
    ]
    assert "contact_sheets/three.png" in output.err
    with Image.open("contact_sheets/three.png") as sheet:
        assert sheet.format == "PNG"


def test_a_sheet_that_is_asked_for_has_the_ten_nearest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_collection(np.eye(14, dtype=np.float32) + 0.1, folder / "vectors").close()
    for sheet, count in (((), 5), (("--sheet", "ten.png"), 10), (("--sheet", "ten.png", "-k", 3), 3)):
        assert run(folder / "vectors", "--image-id", 1, "--metric", "euclidean", "--format", "json", *sheet) == 0
        assert len(rows_of(capsys)) == count


def test_every_picture_of_the_test_folder_is_searched_for_without_arguments(
    rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(folder / "ask" / "more" / "three.png", 4)
    (folder / "ask" / "notes.txt").write_text("not a picture, and nobody said that it is one")
    monkeypatch.setenv("LOOKALIKE_TEST_FOLDER", str(folder / "ask"))
    assert run(rsc, "--format", "json", "-k", 1) == 0
    assert [Path(row["reference_label"]).name for row in rows_of(capsys)] == ["4.png", "3.png"]
    assert sorted(os.listdir("contact_sheets")) == ["three-2.png", "three.png"]
    monkeypatch.delenv("LOOKALIKE_TEST_FOLDER")
    assert run(rsc) == 1
    assert "test_folder" in capsys.readouterr().err


def test_an_unreadable_picture_among_many_is_named_and_the_others_are_answered(
    rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, text = folder / "ask" / "cut.png", folder / "ask" / "notes.txt"
    cut.write_bytes((folder / "ask" / "three.png").read_bytes()[:400])
    text.write_text("named, and so meant as a picture")
    asked = (cut, folder / "ask" / "three.png", text, folder / "nothing*")
    assert run(rsc, *asked, "--format", "csv", "-k", 1, "--no-sheet") == 1
    output = capsys.readouterr()
    assert [row["rank"] for row in csv.DictReader(io.StringIO(output.out))] == ["1"]
    for path in (cut, text, folder / "nothing*"):
        assert str(path) in output.err
    assert os.listdir() == []


def test_an_image_of_the_collection_is_left_out_of_its_own_matches(
    rsc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in (["--image-id", 1], [rsc.parent / "photos" / "even" / "0.png"]):
        assert run(rsc, *asked, "-k", "all", "--format", "json", "--no-sheet") == 0
        rows = rows_of(capsys)
        assert {row["query_label"] for row in rows} == {str(rsc.parent / "photos" / "even" / "0.png")}
        assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
        assert "0.png" not in {Path(row["reference_label"]).name for row in rows}


def test_an_image_without_a_file_is_asked_for_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.eye(4, 6, dtype=np.float32) + 0.1
    create_collection(vectors, folder / "vectors", names=["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"]).close()
    assert run(folder / "vectors", "a/2.jpg", "--format", "json") == 0
    rows = rows_of(capsys)
    assert {row["query_label"] for row in rows} == {"a/2.jpg"}
    assert {row["reference_label"] for row in rows} == {"a/1.jpg", "b/3.jpg", "b/4.jpg"}
    assert os.listdir("contact_sheets") == ["2.png"]
    assert run(folder / "vectors", folder / "ask" / "three.png") == 1
    assert "came from elsewhere" in capsys.readouterr().err


def test_ways_to_ask(rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = folder / "ask" / "three.png"

    def names(*options: object) -> list[str]:
        assert run(rsc, picture, *options, "--format", "json", "--no-sheet") == 0
        return [Path(row["reference_label"]).name for row in rows_of(capsys)]

    assert len(names()) == 5
    assert names("--radius", 0.001) == ["3.png"]
    assert names("--radius", 1, "-k", 2, "--metric", "euclidean") == ["3.png"]
    assert names("-k", 1, "--metric", "chebyshev") == ["3.png"]
    assert set(names("--folder", "even", "-k", "all")) == {"0.png", "2.png", "4.png"}
    assert set(names("--label", "odd", "--min-side", 60, "--orientation", "landscape")) == {"1.png", "3.png", "5.png"}
    assert "5.png" not in names("--unlike", rsc.parent / "photos" / "odd" / "5.png", "-k", "all")
    both = names(rsc.parent / "photos" / "odd" / "1.png", "--together", "-k", 1)
    assert both == ["3.png"]
    part = draw(folder / "part.png", 0)
    with Image.open(part) as whole:
        wide = Image.new("RGB", (160, 60))
        wide.paste(whole, (80, 0))
        wide.save(part)
    assert run(rsc, part, "--box", "0.5,0,1,1", "-k", 1, "--format", "json", "--no-sheet") == 0
    assert rows_of(capsys)[0]["distance"] == pytest.approx(0, abs=1e-5)


def test_answers_are_written_into_a_file(rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rsc, folder / "ask", "--format", "json", "--output", "rows.json", "--sheet", "one.png", "-k", 3) == 0
    assert capsys.readouterr().out == ""
    assert len(json.loads(Path("rows.json").read_text())) == 3
    assert sorted(os.listdir()) == ["one.png", "rows.json"]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run(rsc, folder / "ask", "--format", "parquet", "--output", "rows.parquet", "--no-sheet") == 0
    assert parquet.read_table("rows.parquet").column_names == ["query_label", "reference_label", "distance", "rank"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--image-id", 1, "x.jpg"], 2, "not both"),
        (["--image-id", 999], 1, "999"),
        (["--image-id", 1, "-k", 0], 1, "0"),
        (["--image-id", 1, "-k", "many"], 1, "'many'"),
        (["--image-id", 1, "--radius", -1], 1, "-1"),
        (["--image-id", 1, "--metric", "taxi"], 1, "taxi"),
        (["--image-id", 1, "--metric", "hamming"], 1, "yes and no"),
        (["--image-id", 1, "--ranking", "best"], 1, "best"),
        (["--image-id", 1, "--box", "0,0,1"], 1, "'0,0,1'"),
        (["--image-id", 1, "--box", "0,0,2,1"], 1, "0, 0, 2, 1"),
        (["--image-id", 1, "--orientation", "round"], 1, "round"),
        (["--image-id", 1, "--unlike", "gone.png"], 1, "gone.png"),
        (["--image-id", 1, "--index", "annoy"], 2, "--self-test"),
        (["--image-id", 1, "--labels", "x.csv"], 2, "--evaluate"),
        (["--image-id", 1, "--include-self"], 2, "--graph"),
        (["--image-id", 1, "--sheet", "x", "--no-sheet"], 2, "not both"),
        (["--image-id", 1, "--sheet", "out.jpg"], 1, "out.jpg"),
        (["--evaluate", "--self-test"], 2, "--evaluate and --self-test"),
        (["--evaluate", "x.jpg", "-k", 3], 2, "pictures, -k"),
        (["--self-test", "--format", "json"], 2, "--format"),
        (["--graph", "g.csv", "--folder", "even"], 2, "--folder"),
        (["--graph", "g.csv", "--ranking", "kind"], 2, "--ranking"),
        (["--graph", "g.csv", "--image-id", 1], 2, "--image-id"),
        (["--graph", "graph.txt"], 1, "graph.txt"),
        (["--graph", "folder/", "--metric", "euclidean"], 1, "euclidean"),
        (["--graph", "graph.csv", "-k", 0], 1, "0"),
    ],
)
def test_wrong_use_is_a_message_that_names_the_value(
    rsc: Path, arguments: list[object], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(rsc, *arguments) == status
    assert said in capsys.readouterr().err
    assert os.listdir() == []


def test_several_images_of_the_collection_are_each_a_query_or_one_together(
    rsc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--image-id", 1, "--image-id", 2, "-k", 1, "--format", "json", "--no-sheet"]
    assert run(rsc, *asked) == 0
    assert [Path(row["query_label"]).name for row in rows_of(capsys)] == ["0.png", "2.png"]
    assert run(rsc, *asked, "--together") == 0
    assert [row["query_label"].count(".png") for row in rows_of(capsys)] == [2]


def test_a_folder_without_pictures_is_told(rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "here" / "notes.txt").write_text("not a picture")
    assert run(rsc, folder / "here", "--no-sheet") == 1
    assert f"no picture in {folder / 'here'}" in capsys.readouterr().err


def test_nothing_is_printed_before_options_are_known_to_make_sense(
    rsc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(rsc, "--image-id", 1, "-k", 0, "--format", "csv") == 1
    assert capsys.readouterr().out == ""


def test_a_parquet_file_without_an_answer_has_its_types(rsc: Path, folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (folder / "bad.png").write_bytes(b"no picture")
    for name, asked, status in (("none", folder / "bad.png", 1), ("some", folder / "ask" / "three.png", 0)):
        assert run(rsc, asked, "--format", "parquet", "--output", name, "--no-sheet") == status
    assert parquet.read_table("none").schema == parquet.read_table("some").schema


def test_a_collection_without_an_index_is_missing_one(folder: Path) -> None:
    with open_writer(folder / "rsc", command="test"):
        pass
    with pytest.raises(CollectionMissingError, match="no index"):
        _self_test(argparse.Namespace(index=None, trees=None, search_k=None), Settings(rsc_files=folder / "rsc"))


def test_one_file_cannot_hold_the_sheets_of_many(rsc: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(folder / "ask" / "four.png", 4)
    assert run(rsc, folder / "ask", "--sheet", "one.png") == 1
    assert "2 queries" in capsys.readouterr().err


def test_the_graph_is_written_for_all_images(rsc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rsc, "--graph", "graph.csv", "-k", 2) == 0
    assert "12 edges of 6 images" in capsys.readouterr().out
    with open("graph.csv", encoding="utf-8", newline="") as file:
        assert all(row["source"] != row["destination"] for row in csv.DictReader(file))
    assert run(rsc, "--graph", "own.csv", "-k", 1, "--include-self") == 0
    with open("own.csv", encoding="utf-8", newline="") as file:
        assert all(row["source"] == row["destination"] for row in csv.DictReader(file))
    assert run(rsc, "--graph", "nearest_neighbors/") == 0  # Yale's number of neighbours, or all there are
    assert "30 edges of 6 images" in capsys.readouterr().out


def test_the_self_test_of_the_published_index_is_printed(rsc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rsc, "--self-test") == 0
    assert "Exact search over 6 images" in capsys.readouterr().out
    pytest.importorskip("annoy")
    assert run(rsc, "--self-test", "--index", "annoy", "--trees", 5) == 0
    assert "annoy, 6 images, tested with 6 of them" in capsys.readouterr().out
    assert run(rsc, "--self-test", "--index", "exact") == 0
    assert run(rsc.parent / "nowhere", "--self-test") == 1
    assert not (rsc.parent / "nowhere").exists()


def test_the_evaluation_is_printed(rsc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rsc, "--evaluate", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)


def test_each_step_of_the_self_test_is_a_line() -> None:
    steps = [
        {"search_k": 1000, "oversample": 1, "recall": 0.9, "query_ms": 0.5},
        {"search_k": 2000, "oversample": 1, "recall": 0.9, "query_ms": 0.6},
        {"search_k": 2000, "oversample": 4, "recall": 0.995, "query_ms": 0.75},
    ]
    test = {"exact_ms": 20.0, "queries": 200, "k": 10, "ladder": steps, **steps[2]}
    index = {"kind": "annoy", "items": 100_000, "search_k": 2000, "oversample": 4, "self_test": test, "reason": ""}
    assert _self_test_text(index).splitlines() == [
        "annoy, 100,000 images, tested with 200 of them against exact search (20.00 ms each when asked all at once)",
        " search_k  candidates  recall@10  ms a query",
        "    1,000          ×1     90.00%       0.500",
        "    2,000          ×1     90.00%       0.600",
        "    2,000          ×4     99.50%       0.750  used",
    ]
