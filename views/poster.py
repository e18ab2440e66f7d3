"""A map as one large picture of its thumbnails, none over another.

Owns where thumbnails stand on a poster and how it becomes a PNG file strip by strip: memory is that of one row of pictures,
whatever its size. Does not own the map (`views/map.py`) nor its page.

Source: Portable Network Graphics (PNG) Specification, https://www.w3.org/TR/png/
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from errors import OptionError
from map2d import Cells, mend_cells, nearest_free_cells
from store import Store
from tables import whole_file
from views.map import Map

SIZE = 8_000
"""Pixels of a poster's longer side, unless another is asked for."""
MAX_SIZE = 60_000
LEAST_CELL = 8
"""Pixels below which a thumbnail is a dot."""
ROOM = 2.2
"""Cells to a picture where a layout has none of its own: fewer, and islands run into each other; more, and pictures are small."""
GROUND, GREY, INK = (20, 20, 20), (60, 60, 60), (220, 220, 220)

Pixels = npt.NDArray[np.uint8]


def save_poster(
    store: Store,
    drawn: Map,
    layout: str,
    path: Path,
    *,
    size: int = SIZE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Write the map in `layout` as a PNG file of at most `size` pixels a side; return its width and height.

    Raises `OptionError` for a layout that the map lacks or a size that cannot be, `ExportError` where it cannot be written.
    """
    if layout not in drawn.layouts:
        raise OptionError(f"The map has no layout {layout!r}, it has: {', '.join(drawn.layouts)}.")
    cells = poster_cells(drawn, layout)
    columns, rows = (int(number) + 1 for number in cells.max(axis=0, initial=0))
    cell = size // max(columns, rows)
    if cell < LEAST_CELL or size > MAX_SIZE:
        raise OptionError(
            f"A poster of {len(cells):,} pictures in this layout has {max(columns, rows) * LEAST_CELL:,} to {MAX_SIZE:,} pixels "
            f"a side, not {size:,}."
        )
    marks = _marks(drawn, layout, cell, columns * cell)
    width, height = columns * cell, rows * cell + len(marks)
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    ends = np.searchsorted(cells[order, 1], np.arange(rows + 1))
    with whole_file(path) as stream:
        png = _Png(stream, width, height)
        for row in range(rows):
            chosen = order[ends[row] : ends[row + 1]]
            png.write(_strip(store, drawn.ids[chosen].tolist(), cells[chosen, 0].tolist(), width, cell))
            on_progress(int(ends[row + 1]), len(cells))
        png.write(marks)
        png.finish()
    return width, height


def poster_cells(drawn: Map, layout: str) -> Cells:
    """Return the cell of each picture, columns and rows from 0: those of the layout, or the nearest free ones of a fine grid."""
    positions = drawn.layouts[layout]
    if layout in drawn.cell_sizes:
        cells = np.round(positions / drawn.cell_sizes[layout] - 0.5).astype(np.int32)
    else:
        side = int(np.ceil(np.sqrt(ROOM * len(positions))))
        wanted = positions * side
        cells = nearest_free_cells(wanted, np.empty((0, 2), dtype=np.int32), side, side)
        cells = mend_cells(cells, wanted)
    trimmed: Cells = cells - cells.min(axis=0, initial=2**31 - 1) if len(cells) else cells
    return trimmed


def _strip(store: Store, ids: list[int], columns: list[int], width: int, cell: int) -> Pixels:
    """Draw one row of pictures, uint8 (cell, width, 3)."""
    strip = Image.new("RGB", (width, cell), GROUND)
    records = store.records(ids)
    for image_id, column in zip(ids, columns, strict=True):
        record = records.get(image_id)
        jpeg = None if record is None or record.sha256 is None else store.thumbnail(record.sha256)
        picture = _picture(jpeg, cell - max(1, cell // 32))
        left, top = (cell - picture.width) // 2, (cell - picture.height) // 2
        strip.paste(picture, (column * cell + left, top))
    return np.asarray(strip)


def _picture(jpeg: bytes | None, side: int) -> Image.Image:
    """Return a thumbnail that fits into `side` pixels; a grey tile where there is none."""
    if not jpeg:
        return Image.new("RGB", (side, side), GREY)
    with Image.open(io.BytesIO(jpeg)) as image:
        image.draft("RGB", (side, side))
        picture = image.convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _marks(drawn: Map, layout: str, cell: int, width: int) -> Pixels:
    """Draw what the blocks of the layout by date are called, as many as have room: uint8 (height, width, 3), or no line."""
    if layout != "date" or not drawn.date_marks:
        return np.empty((0, width, 3), dtype=np.uint8)
    text_size = max(12, min(cell, width // 40))
    font = ImageFont.load_default(text_size)
    strip = Image.new("RGB", (width, 2 * text_size), GROUND)
    draw, free = ImageDraw.Draw(strip), 0.0
    for label, x in drawn.date_marks:
        wide = draw.textlength(label, font=font)
        left = min(x / drawn.cell_sizes["date"] * cell - wide / 2, width - wide)
        if left >= free:
            draw.text((left, text_size // 2), label, fill=INK, font=font)
            free = left + wide + text_size
    return np.asarray(strip)


class _Png:
    """A PNG file that is written from the top down: 8 bits a colour, each line as differences to the pixel before."""

    def __init__(self, stream: BinaryIO, width: int, height: int) -> None:
        self._stream = stream
        self._pack = zlib.compressobj()
        stream.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    def write(self, lines: Pixels) -> None:
        """Append `lines`, uint8 (height, width, 3)."""
        differences = lines.copy()
        differences[:, 1:] -= lines[:, :-1]
        filtered = np.ones((len(lines), 1 + 3 * lines.shape[1]), dtype=np.uint8)
        filtered[:, 1:] = differences.reshape(len(lines), 3 * lines.shape[1])
        self._chunk(b"IDAT", self._pack.compress(filtered.tobytes()))

    def finish(self) -> None:
        """Write what is left and the end."""
        self._chunk(b"IDAT", self._pack.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, content: Any) -> None:
        check = zlib.crc32(kind + content)
        self._stream.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check))
