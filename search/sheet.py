"""The contact sheet: the target at the left, its matches in rows beside it, as one picture.

Owns how a sheet looks and how it becomes a PNG file. Does not own where pictures and names come from. Drawn by Pillow alone,
so it needs no window. Sources: Pillow's `ImageDraw` and `ImageFont`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tables import whole_file

COLUMNS = 5
TILE = 180
TARGET = 300
GAP = 14
TEXT_SIZE = 14
LINE = 20
WHITE, INK, GREY, EMPTY, MARK = (255, 255, 255), (24, 24, 24), (96, 96, 96), (226, 226, 226), (208, 32, 32)

# The widest first: what the one lacks, a later one may have. Names as the systems' font folders know them.
FONT_FILES = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "LiberationSans-Regular.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Hiragino Sans GB.ttc", "NotoSansArabic-Regular.ttf"),
    *("NotoSansHebrew-Regular.ttf", "NotoSansThai-Regular.ttf", "NotoSansDevanagari-Regular.ttf"),
)
NO_GLYPH = "\U0010ffff"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet and the two lines below it; `picture` None is drawn as a grey tile.

    `box` (left, top, right, bottom), as shares 0…1 of the picture, is outlined.
    """

    title: str
    name: str
    picture: Image.Image | None = None
    box: tuple[float, float, float, float] | None = None


def contact_sheet(target: Tile, matches: Sequence[Tile]) -> Image.Image:
    """Draw `target` at the left and `matches` beside it, `COLUMNS` to a row, in their order. Returns an RGB picture."""
    rows = -(-len(matches) // COLUMNS)
    across, down = TILE + GAP, TILE + 2 * LINE + GAP
    target_height = TARGET if target.picture is None else _fitted(target.picture, TARGET)[1]
    width = GAP + TARGET + GAP + min(COLUMNS, len(matches)) * across
    height = GAP + max(target_height + 2 * LINE + GAP, rows * down)
    sheet = Image.new("RGB", (width, height), WHITE)
    _draw_tile(sheet, target, (GAP, GAP), TARGET, target_height)
    for number, match in enumerate(matches):
        row, column = divmod(number, COLUMNS)
        _draw_tile(sheet, match, (GAP + TARGET + GAP + column * across, GAP + row * down), TILE, TILE)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write `sheet` as a PNG file, which is there as a whole or not at all. Raises `ExportError` where it cannot be written."""
    with contextlib.suppress(OSError):  # then the next step says why
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        sheet.save(file, "PNG")


def printable(text: str) -> str:
    """Return `text` with line breaks, control characters and the like written as escapes, so that it stays in its line."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def _fitted(picture: Image.Image, side: int) -> tuple[int, int]:
    """Return the width and height of `picture` when its longer side is `side` pixels."""
    scale = side / max(picture.size)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def _draw_tile(sheet: Image.Image, tile: Tile, corner: tuple[int, int], side: int, height: int) -> None:
    """Draw a tile of `side` by `height` pixels and its lines below; the picture stands at the bottom of it, in the middle."""
    draw = ImageDraw.Draw(sheet)
    left, top = corner
    if tile.picture is None:
        draw.rectangle((left, top, left + side - 1, top + height - 1), fill=EMPTY)
    else:
        wide, high = _fitted(tile.picture, side)
        x, y = left + (side - wide) // 2, top + height - high
        sheet.paste(
            tile.picture.convert("RGB").resize((wide, high), Image.Resampling.BICUBIC, reducing_gap=2.0), (x, y)
        )
        if tile.box is not None:
            x0, y0, x1, y1 = tile.box
            draw.rectangle((x + x0 * wide, y + y0 * high, x + x1 * wide, y + y1 * high), outline=MARK, width=3)
    for line, (text, colour) in enumerate(((tile.title, INK), (tile.name, GREY))):
        shown, font = _fitting(printable(text), side)
        draw.text((left, top + height + 3 + line * LINE), shown, fill=colour, font=font)


def _fitting(text: str, width: int) -> tuple[str, _Font]:
    """Return `text`, cut in its middle where it is wider than `width` pixels, and a font that has its signs."""
    text, font = _with_font(text)
    kept = len(text)
    shown = text
    while font.getlength(shown) > width and kept > 2:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown, font


def _with_font(text: str) -> tuple[str, _Font]:
    """Return the first font that has every sign of `text`; where none has, signs that are missing become escapes."""
    fonts = _fonts()
    for font in fonts:
        if all(_has(font, sign) for sign in text):
            return text, font
    written = "".join(sign if _has(fonts[0], sign) else sign.encode("unicode_escape").decode("ascii") for sign in text)
    return written, fonts[0]


@functools.cache
def _fonts() -> tuple[_Font, ...]:
    """Return the fonts of `FONT_FILES` that are installed, then Pillow's own, which has Latin letters only."""
    found: list[_Font] = []
    for name in FONT_FILES:
        try:
            found.append(ImageFont.truetype(name, TEXT_SIZE))
        except OSError:
            continue
    return (*found, ImageFont.load_default(TEXT_SIZE))


@functools.cache
def _has(font: _Font, sign: str) -> bool:
    """Tell whether `font` draws `sign` as something else than what it draws for signs that it does not have."""
    return sign.isspace() or bytes(font.getmask(sign)) != bytes(font.getmask(NO_GLYPH))
