"""`python map2d.py`: what it computes, says and writes, and what it says where it cannot."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands.map2d import main
from config import Settings
from publishing import publish
from store import Batch, Record, VectorsManifest, open_store, open_writer
from tests.reduced_collection import KEY, collection_at

PATHS = ("/photos/a/1.jpg", "/photos/b/1.jpg", "/photos/b/2.jpg", "imported", "/photos/möwe.jpg")


def run(settings: Settings, *arguments: str) -> int:
    """Run the command over the collection of `settings`."""
    return main([*arguments, "--rsc-files", str(settings.rsc_files)])


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a collection of five images, two of one name, with a map."""
    settings, batch = Settings(rsc_files=tmp_path_factory.mktemp("mapped") / "rsc"), Batch()
    for number, path in enumerate(PATHS):
        contents = bytes([number]) * 32
        batch.records.append(Record(path.encode(), 1, 1, contents, "JPEG", 8, 8, taken_at="2020-05-01T10:00:00"))
        batch.vectors[contents] = np.random.default_rng(number).normal(size=8).astype(np.float32)
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "made-up", "none", "0123", 8, "none"))
        writer.commit(KEY, batch)
        publish(writer, KEY, settings)
    assert run(settings, "--quiet") == 0
    return settings


@pytest.fixture
def own(mapped: Settings, tmp_path: Path) -> Settings:
    """Return a copy of the collection, to be changed."""
    shutil.copytree(mapped.rsc_files, tmp_path / "rsc")
    return replace(mapped, rsc_files=tmp_path / "rsc")


def test_the_layouts_are_computed_once_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = collection_at(tmp_path / "rsc", 36)
    assert run(settings) == 0
    first = capsys.readouterr()
    assert "Laying them out by t-SNE" in first.err
    assert "36 images" in first.out
    assert "trustworthiness 0." in first.out
    assert "no image has a time" in first.out
    assert f"python app.py --rsc-files {settings.rsc_files}, then /map" in first.out
    assert "Nothing changed" not in first.out
    assert run(settings) == 0
    second = capsys.readouterr()
    assert "Nothing changed since it was computed" in second.out
    assert second.err == ""
    assert run(settings, "--again", "--quiet") == 0
    third = capsys.readouterr()
    assert ("Nothing changed" in third.out, third.err) == (False, "")


def test_the_report_as_json_has_what_was_computed_and_made(
    own: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(own, "--json", "--seed", "3", "--output", str(tmp_path / "map.csv")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["computed"] == ["tsne", "grid", "date"]
    assert report["options"] == {"layouts": ["tsne", "grid", "date"], "seed": 3}
    assert report["made"] == {"output": [str(tmp_path / "map.csv")]}
    assert report["layouts"]["date"] == {"seconds": report["layouts"]["date"]["seconds"], "unit": "day", "dated": 5}


def test_a_map_becomes_tables_of_every_layout(mapped: Settings, tmp_path: Path) -> None:
    targets = [tmp_path / name for name in ("map.csv", "map.json", "map.parquet")]
    assert run(mapped, *(word for target in targets for word in ("--output", str(target)))) == 0
    rows = list(csv.DictReader(targets[0].open(encoding="utf-8")))
    assert list(rows[0]) == [
        *("image_id", "name", "tsne_x", "tsne_y", "grid_x", "grid_y", "date_x", "date_y", "placed"),
    ]
    assert [row["name"] for row in rows] == ["a/1.jpg", "b/1.jpg", "b/2.jpg", "imported", "möwe.jpg"]
    objects = json.loads(targets[1].read_text(encoding="utf-8"))
    assert [str(row["tsne_x"]) for row in objects] == [row["tsne_x"] for row in rows]
    assert objects[0]["image_id"] == 1
    assert all(0 <= row["grid_y"] <= 1 and row["placed"] == 0 for row in objects)


def test_the_yale_form_keeps_images_of_equal_names_apart(mapped: Settings, tmp_path: Path) -> None:
    target = tmp_path / "map.json"
    assert run(mapped, "--layout", "grid", "--yale", str(target)) == 0
    found = json.loads(target.read_text(encoding="utf-8"))
    assert [row["idx"] for row in found.values()] == [0, 1, 2, 3, 4]
    assert list(found) == ["a/1.jpg", "b/1.jpg", "b/2.jpg", "imported", "möwe.jpg"]
    assert set(found["a/1.jpg"]) == {"x", "y", "idx"}
    assert len({(row["x"], row["y"]) for row in found.values()}) == 5


def test_a_poster_is_of_the_first_layout_named(mapped: Settings, tmp_path: Path) -> None:
    assert run(mapped, "--layout", "grid", "--poster", str(tmp_path / "poster.png"), "--size", "90", "--quiet") == 0
    with Image.open(tmp_path / "poster.png") as image:
        assert image.size == (90, 60)


def test_files_are_made_of_a_map_while_another_program_writes_to_the_collection(
    mapped: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_writer(mapped.rsc_files, command="img2vec.py"):
        assert run(mapped, "--output", str(tmp_path / "map.csv")) == 0
        assert run(mapped, "--again") == 1
    assert "img2vec.py" in capsys.readouterr().err


def test_ctrl_c_leaves_the_map_that_was_there(
    own: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    before = (own.rsc_files / "index" / "CURRENT").read_text()
    monkeypatch.setattr("map2d.tsne", interrupted)
    assert run(own, "--again", "--quiet") == 130
    assert "the map published before stays" in capsys.readouterr().err
    assert (own.rsc_files / "index" / "CURRENT").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "sphere"], "There is no layout 'sphere'. Choose among tsne, umap, grid, date."),
        (["--seed", "-1"], "The seed is -1"),
        (["--output", "map.txt"], "map.txt: a map is written as .csv, .json, .parquet"),
        (["--poster", "poster.png", "--size", "3"], "not 3"),
        (["--poster", "no folder/poster.png"], "cannot be written"),
        (["--rsc-files", "nothing"], "There is no collection in"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_nothing_is_written(
    mapped: Settings,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--quiet", "--rsc-files", str(mapped.rsc_files), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("map2d.py: ")
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_json_too_where_json_is_asked_for(mapped: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(mapped, "--json", "--layout", "sphere") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad_option"


def test_a_collection_without_an_index_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_writer(tmp_path / "rsc", command="a test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "made-up", "none", "0123", 8, "none"))
    assert run(Settings(rsc_files=tmp_path / "rsc")) == 1
    assert "There is no index" in capsys.readouterr().err


def test_size_without_a_poster_is_a_wrong_argument(mapped: Settings) -> None:
    with pytest.raises(SystemExit) as ended:
        run(mapped, "--size", "100")
    assert ended.value.code == 2


def test_umap_that_is_not_installed_leaves_the_map_as_it_was(
    mapped: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    assert run(mapped, "--layout", "umap", "--quiet") == 1
    assert "pip install -r requirements/umap.txt" in capsys.readouterr().err
    store = open_store(mapped.rsc_files)
    assert "umap" not in store.generation().manifest["views"]["map"]["options"]["layouts"]  # type: ignore[union-attr]
    store.close()
