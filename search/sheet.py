"""The contact sheet: the target at the left, its matches in rows beside it, as one picture.

Owns how a sheet looks, what of a query and its answer stands on it, and how it becomes a PNG file. Does not own what is found.
Drawn by Pillow alone, so it needs no window. Sources: Pillow's `ImageDraw` and `ImageFont`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from errors import ImageError
from images import Limits, Wanted, decode_image
from search.answers import ImageInfo, Match, SearchResult
from search.queries import Example, Query
from tables import whole_file

if TYPE_CHECKING:
    from search.service import SearchService

SHEET_K = 10
"""Where nothing else is said: as many as the article's picture had."""
MOST_MATCHES = 50
"""Ten rows: a sheet of thousands could not be looked at."""
MOST_TARGETS = 8
"""Several pictures that are searched with stand in two columns, beside about as many rows of matches."""
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


def sheet_of(service: SearchService, query: Query, answer: SearchResult, name: str = "") -> Image.Image:
    """Draw what `query` asks with and the first `MOST_MATCHES` of its `answer`. Returns an RGB picture.

    `name` is that of what is asked with, where it comes from outside the collection. Raises `ImageNotFoundError`,
    `UploadGoneError`.
    """
    metric = "" if query.metric == "cosine" else f", {query.metric}"
    asked = [(f"target{metric}", example) for example in query.like] + [
        ("less like", example) for example in query.unlike
    ]
    name = name if len(query.like) == 1 else ""
    shown = asked if len(asked) <= MOST_TARGETS else asked[: MOST_TARGETS - 1]
    targets = [_target(service, title, example, answer, name) for title, example in shown]
    if len(shown) < len(asked):
        targets.append(Tile(f"and {len(asked) - len(shown)} more", ""))
    return contact_sheet(targets, [_match(service, match, answer) for match in answer.matches[:MOST_MATCHES]])


def _target(service: SearchService, title: str, example: Example, answer: SearchResult, name: str) -> Tile:
    """Return the tile of what is searched with; a vector, and one of several uploads, has no picture."""
    source, box = example.source, example.box
    jpeg: bytes | None = None
    if isinstance(source, int):
        name, jpeg = _called(service.image(source)), service.thumbnail(source)
    elif isinstance(source, str):
        kept = service.kept_upload(source)
        name, jpeg, box = "your picture", kept.thumbnail, kept.box
    elif isinstance(source, bytes):
        jpeg = answer.query_thumbnail or _thumbnail(service, source)
    return Tile(title, name, _opened(jpeg), None if box is None else box.edges)


def _thumbnail(service: SearchService, content: bytes) -> bytes | None:
    """Return a small JPEG of one of several uploads, decoded apart from this process."""
    settings = service.settings
    limits = Limits(settings.upload_max_bytes, settings.upload_max_pixels, settings.max_frames)
    return service.decoders.prepare(content, Wanted(limits, (1, 1), "bilinear", settings.thumbnail_size)).thumbnail


def _match(service: SearchService, match: Match, answer: SearchResult) -> Tile:
    near = f"{match.similarity:.3f}" if answer.metric == "cosine" else f"{match.distance:.4g}"
    return Tile(f"{match.rank} · {near}", _called(match.image), _opened(service.thumbnail(match.image.image_id)))


def _called(image: ImageInfo) -> str:
    """Return the name of an image with its folder's, which often is what it shows."""
    return f"{image.folder}/{image.name}" if image.folder else image.name


def _opened(jpeg: bytes | None) -> Image.Image | None:
    """Return the picture of a thumbnail; None where there is none, or it is damaged."""
    try:
        return None if jpeg is None else decode_image(jpeg, Limits(len(jpeg), 10_000_000, 1)).image
    except ImageError:
        return None


def contact_sheet(targets: Sequence[Tile], matches: Sequence[Tile]) -> Image.Image:
    """Draw `targets` at the left and `matches` beside them, `COLUMNS` to a row, in their order. Returns an RGB picture.

    One target stands there large, several in two columns. A row is as high as its highest picture.
    """
    side = TARGET if len(targets) == 1 else (TARGET - GAP) // 2
    left = list(_laid(targets, TARGET // side, side, GAP))
    right = list(_laid(matches, COLUMNS, TILE, GAP + TARGET + GAP))
    width = max([GAP + TARGET, *(x + TILE for x, _, _ in right)]) + GAP
    height = max(y + high for _, y, high in left + right) + 2 * LINE + GAP
    sheet = Image.new("RGB", (width, height), WHITE)
    for tiles, places, wide in ((targets, left, side), (matches, right, TILE)):
        for tile, (x, y, high) in zip(tiles, places, strict=True):
            _draw_tile(sheet, tile, (x, y), wide, high)
    return sheet


def _laid(tiles: Sequence[Tile], columns: int, side: int, left: int) -> Iterator[tuple[int, int, int]]:
    """Yield of each tile, `side` pixels wide, its left and upper edge and its height without the lines below, from `left` on."""
    top = GAP
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        high = max(side if tile.picture is None else _fitted(tile.picture, side)[1] for tile in row)
        yield from ((left + column * (side + GAP), top, high) for column in range(len(row)))
        top += high + 2 * LINE + GAP


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
