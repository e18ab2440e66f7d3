"""The contact sheet: where its pictures lie, what its names become."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from errors import ExportError
from search import sheet
from search.sheet import COLUMNS, EMPTY, GAP, MARK, TARGET, TILE, Tile, contact_sheet, printable, save_sheet

RED, BLUE = (255, 0, 0), (0, 0, 255)


def tiles(count: int) -> list[Tile]:
    return [Tile(f"{n} · 0.5", f"{n}.jpg", Image.new("RGB", (40, 30), BLUE)) for n in range(1, count + 1)]


def test_the_target_is_at_the_left_and_matches_are_in_rows_beside_it() -> None:
    drawn = contact_sheet(Tile("target", "t.jpg", Image.new("RGB", (600, 600), RED)), tiles(COLUMNS + 1))
    assert drawn.getpixel((GAP + TARGET // 2, GAP + TARGET // 2)) == RED
    first, down = GAP + TARGET + GAP + TILE // 2, GAP + TILE // 2
    for column in range(COLUMNS):
        assert drawn.getpixel((first + column * (TILE + GAP), down)) == BLUE
    second = down + TILE + GAP + 2 * sheet.LINE
    assert drawn.getpixel((first, second)) == BLUE
    assert drawn.getpixel((first + TILE + GAP, second)) == sheet.WHITE


def test_a_sheet_without_matches_has_the_target_alone() -> None:
    drawn = contact_sheet(Tile("target", "t.jpg", Image.new("L", (3000, 20), 0)), [])
    assert drawn.width == TARGET + 2 * GAP
    assert drawn.getpixel((GAP + 9, GAP + 1)) == (0, 0, 0)


def test_a_picture_that_is_not_there_is_a_grey_tile() -> None:
    drawn = contact_sheet(Tile("target", "t.jpg"), [Tile("1", "gone.jpg")])
    assert drawn.getpixel((GAP + 2, GAP + 2)) == EMPTY
    assert drawn.getpixel((GAP + TARGET + GAP + 2, GAP + 2)) == EMPTY


def test_the_part_that_was_asked_for_is_outlined() -> None:
    drawn = contact_sheet(Tile("target", "t.jpg", Image.new("RGB", (300, 300), BLUE), (0.5, 0.5, 1, 1)), [])
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
    drawn = contact_sheet(Tile("target", "t.jpg"), tiles(2))
    save_sheet(drawn, tmp_path / "new folder" / "sheet.png")
    with Image.open(tmp_path / "new folder" / "sheet.png") as written:
        assert (written.format, written.size) == ("PNG", drawn.size)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"sheet\.png"):
        save_sheet(drawn, tmp_path / "file" / "sheet.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new folder"]
