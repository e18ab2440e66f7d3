"""The contact sheet: where its pictures lie, what its names become."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from config import Settings
from errors import ExportError
from search import Box, Example, Query, sheet
from search.sheet import (
    COLUMNS,
    EMPTY,
    GAP,
    MARK,
    MOST_TARGETS,
    TARGET,
    TILE,
    Tile,
    contact_sheet,
    printable,
    save_sheet,
    sheet_of,
)
from tests.fakes import FakeService, encoded, picture

RED, BLUE = (255, 0, 0), (0, 0, 255)


def tiles(count: int) -> list[Tile]:
    return [Tile(f"{n} · 0.5", f"{n}.jpg", Image.new("RGB", (40, 30), BLUE)) for n in range(1, count + 1)]


def test_the_target_is_at_the_left_and_matches_are_in_rows_beside_it() -> None:
    drawn = contact_sheet([Tile("target", "t.jpg", Image.new("RGB", (600, 600), RED))], tiles(COLUMNS + 1))
    assert drawn.getpixel((GAP + TARGET // 2, GAP + TARGET // 2)) == RED
    first, down = GAP + TARGET + GAP + TILE // 2, GAP + TILE // 3
    for column in range(COLUMNS):
        assert drawn.getpixel((first + column * (TILE + GAP), down)) == BLUE
    second = down + TILE * 3 // 4 + GAP + 2 * sheet.LINE  # no higher than its pictures
    assert drawn.getpixel((first, second)) == BLUE
    assert drawn.getpixel((first + TILE + GAP, second)) == sheet.WHITE


def test_a_sheet_without_matches_has_the_target_alone() -> None:
    drawn = contact_sheet([Tile("target", "t.jpg", Image.new("L", (3000, 20), 0))], [])
    assert drawn.width == TARGET + 2 * GAP
    assert drawn.getpixel((GAP + 9, GAP + 1)) == (0, 0, 0)


def test_a_picture_that_is_not_there_is_a_grey_tile() -> None:
    drawn = contact_sheet([Tile("target", "t.jpg")], [Tile("1", "gone.jpg")])
    assert drawn.getpixel((GAP + 2, GAP + 2)) == EMPTY
    assert drawn.getpixel((GAP + TARGET + GAP + 2, GAP + 2)) == EMPTY


def test_the_part_that_was_asked_for_is_outlined() -> None:
    drawn = contact_sheet([Tile("target", "t.jpg", Image.new("RGB", (300, 300), BLUE), (0.5, 0.5, 1, 1))], [])
    assert drawn.getpixel((GAP + TARGET // 2, GAP + TARGET * 3 // 4)) == MARK
    assert drawn.getpixel((GAP + TARGET // 4, GAP + TARGET * 3 // 4)) == BLUE


@pytest.mark.parametrize(
    "name",
    ["a" * 300 + ".jpg", "日本語の写真.jpg", "\U0010fffe.jpg", "مرحبا بالعالم.jpg", "two\nlines.jpg", "", "ภาพ" * 50],
)
def test_any_name_fits_below_its_tile(name: str) -> None:
    shown, font = sheet._fitting(printable(name), TILE)
    assert font.getlength(shown) <= TILE
    assert all(sheet._has(font, sign) for sign in shown)


def test_a_long_name_is_cut_in_its_middle() -> None:
    shown, _ = sheet._fitting("a" * 100 + "-end.jpg", TILE)
    assert shown.startswith("aaa")
    assert shown.endswith("end.jpg")
    assert "…" in shown


def test_signs_that_no_font_has_are_written_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ImageFont.load_default(sheet.TEXT_SIZE)
    monkeypatch.setattr(sheet, "_fonts", lambda: (own,))
    assert sheet._with_font("x日.jpg") == ("x\\u65e5.jpg", own)


def test_a_sheet_is_a_png_of_which_nothing_is_left_when_it_cannot_be_written(tmp_path: Path) -> None:
    drawn = contact_sheet([Tile("target", "t.jpg")], tiles(2))
    save_sheet(drawn, tmp_path / "new folder" / "sheet.png")
    with Image.open(tmp_path / "new folder" / "sheet.png") as written:
        assert (written.format, written.size) == ("PNG", drawn.size)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"sheet\.png"):
        save_sheet(drawn, tmp_path / "file" / "sheet.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new folder"]


def test_several_targets_stand_in_two_columns_beside_the_matches() -> None:
    targets = [Tile("target", f"{n}.jpg", Image.new("RGB", (60, 60), RED)) for n in range(3)]
    drawn = contact_sheet(targets, tiles(1))
    side = (TARGET - GAP) // 2
    for column, row in ((0, 0), (1, 0), (0, 1)):
        at = GAP + column * (side + GAP) + side // 2, GAP + row * (side + GAP + 2 * sheet.LINE) + side // 2
        assert drawn.getpixel(at) == RED
    assert drawn.getpixel((GAP + TARGET + GAP + TILE // 2, GAP + TILE // 2)) == BLUE


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> FakeService:
    return FakeService(tmp_path_factory.mktemp("photographs"), Settings())


def shown(service: FakeService, query: Query, monkeypatch: pytest.MonkeyPatch, name: str = "") -> list[list[Tile]]:
    """Return the tiles of targets and of matches on the sheet of a query."""
    drawn: list[list[Tile]] = []
    monkeypatch.setattr(sheet, "contact_sheet", lambda *sides: drawn.extend(map(list, sides)))
    sheet_of(service, query, service.search(query), name)
    return drawn


def test_a_sheet_shows_an_image_and_its_matches_with_their_similarity(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target,), matches = shown(service, Query((Example(1, Box(0, 0, 0.5, 1)),), k=10), monkeypatch, "unused")
    assert (target.title, target.name, target.box) == ("target", "photographs/beach.jpg", (0, 0, 0.5, 1))
    assert target.picture is not None
    found = service.search(Query((Example(1, Box(0, 0, 0.5, 1)),), k=10)).matches
    assert [match.title for match in matches] == [f"{match.rank} · {match.similarity:.3f}" for match in found]
    assert all(match.picture is not None for match in matches)


def test_by_another_distance_a_sheet_says_which_and_how_far(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query((Example(1),), k=3, metric="cityblock")
    (target,), matches = shown(service, query, monkeypatch)
    assert target.title == "target, cityblock"
    assert matches[0].title == f"1 · {service.search(query).matches[0].distance:.4g}"


def test_a_sheet_shows_uploads_that_are_kept_or_came_and_what_they_shall_be_unlike(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(picture(3))
    key = service.keep_upload(content, Box(0, 0, 1, 0.5))
    targets, _ = shown(service, Query((Example(key), Example(content), Example(7)), (Example(4),), k=2), monkeypatch)
    assert [target.title for target in targets] == ["target", "target", "target", "less like"]
    assert targets[0].box == (0, 0, 1, 0.5)
    assert all(target.picture is not None for target in targets)
    (alone,), _ = shown(service, Query((Example(content),), k=2), monkeypatch, "mine.jpg")
    assert (alone.name, alone.picture is None) == ("mine.jpg", False)


def test_a_sheet_of_very_many_ends_somewhere(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "MOST_MATCHES", 4)
    targets, matches = shown(service, Query(tuple(Example(n) for n in range(1, 13)), k=12), monkeypatch)
    assert [len(targets), targets[-1].title, len(matches)] == [MOST_TARGETS, "and 5 more", 4]
