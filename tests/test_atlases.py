"""Atlases of thumbnails: each picture in the cell of its place, the same bytes each time, none where there are too many."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atlases
from atlases import ATLAS_SIDE, LARGE_CELL, SMALL_CELL, build_atlases, cell_side, open_atlases
from store import Batch, Record, Store, open_store, open_writer
from tests.grouped_collection import MANIFEST

COLOURS = [(220, 20, 20), (20, 200, 20), (20, 20, 220), (230, 230, 20), (20, 220, 220)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a collection of five thumbnails of one colour each, and a sixth image that has none."""
    batch = Batch()
    for number, colour in enumerate(COLOURS):
        content = io.BytesIO()
        Image.new("RGB", (120, 40 + 20 * number), colour).save(content, "JPEG", quality=95)
        batch.records.append(Record(f"image-{number}".encode(), 1, 1, bytes([number]) * 32, format="JPEG"))
        batch.thumbnails[bytes([number]) * 32] = content.getvalue()
    batch.records.append(Record(b"bare", 1, 1, b"x" * 32, format=""))
    with open_writer(tmp_path / "rsc", command="a test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(MANIFEST.key, batch)
    return open_store(tmp_path / "rsc")


def ids_of(store: Store) -> np.ndarray:
    return np.array([record.image_id for record in store.all_records()], dtype=np.int64)


def middle_of(picture: Image.Image, place: int, cell: int) -> np.ndarray:
    """Return the colour in the middle of one cell."""
    column, row = place % (ATLAS_SIDE // cell), place // (ATLAS_SIDE // cell)
    return np.array(picture.convert("RGB").getpixel((column * cell + cell // 2, row * cell + cell // 2)))


def test_each_picture_fills_the_cell_of_its_place(store: Store, tmp_path: Path) -> None:
    files, report = build_atlases(store, ids_of(store)[::-1], tmp_path)
    assert (files, report) == (["map-atlas-ids.npy", "map-atlas-000.webp"], {"atlases": 1, "cell": LARGE_CELL})
    with Image.open(tmp_path / files[1]) as picture:
        assert (picture.format, picture.size) == ("WEBP", (ATLAS_SIDE, ATLAS_SIDE))
        found = [middle_of(picture, place, LARGE_CELL) for place in range(6)]
        corner = np.array(picture.convert("RGB").getpixel((LARGE_CELL + 3, LARGE_CELL - 4)))
    wanted = [(128, 128, 128), *COLOURS[::-1]]
    assert np.abs(np.array(found) - np.array(wanted)).max() < 20
    assert np.abs(corner - np.array(COLOURS[-1])).max() < 25  # squeezed to a square, nothing left empty


def test_the_same_thumbnails_make_the_same_bytes(store: Store, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        build_atlases(store, ids_of(store), folder)
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two


def test_pictures_go_on_in_a_second_atlas_and_progress_is_told(store: Store, tmp_path: Path) -> None:
    ids = np.resize(ids_of(store)[:5], 1_030)
    told: list[tuple[int, int]] = []
    files, report = build_atlases(store, ids, tmp_path, on_progress=lambda done, total: told.append((done, total)))
    assert (len(files), report["atlases"], told) == (3, 2, [(1_024, 1_030), (1_030, 1_030)])
    with Image.open(tmp_path / files[2]) as picture:
        assert np.abs(middle_of(picture, 5, LARGE_CELL) - np.array(COLOURS[1_029 % 5])).max() < 20
    opened = open_atlases(tmp_path)
    assert opened is not None
    assert (opened.ids.tolist(), opened.cell, opened.per_atlas) == (ids.tolist(), LARGE_CELL, 1_024)
    assert [path.name for path in opened.files] == files[1:]


@pytest.mark.parametrize("count", [0, 7])
def test_none_are_made_for_no_pictures_or_too_many(
    store: Store, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlases, "MAX_IMAGES", 6)
    folder = tmp_path / "none"
    folder.mkdir()
    assert build_atlases(store, np.resize(ids_of(store), count), folder) == ([], {"atlases": 0, "cell": None})
    assert (list(folder.iterdir()), open_atlases(folder)) == ([], None)


def test_many_pictures_have_small_cells_so_that_eight_atlases_are_enough() -> None:
    assert [cell_side(count) for count in (1, 8_192, 8_193, 20_000)] == [LARGE_CELL, LARGE_CELL, SMALL_CELL, SMALL_CELL]
    assert 8 * (ATLAS_SIDE // SMALL_CELL) ** 2 >= 20_000
