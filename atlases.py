"""Sprite atlases: thumbnails of a collection side by side in a few large pictures, so that the map can show thousands at once.

Owns the layout of the atlases and their files in a generation's folder. Does not own thumbnails (`store`), where pictures stand
on the map (`map2d`, `views/map.py`) or drawing them (`static/map/`).

Each picture fills its cell, squeezed to a square; the page draws it in its own shape. So no part of an atlas is empty, and the
smaller copies of an atlas that a graphics card makes for itself never mix neighbouring cells (sides are powers of two).
The idea of atlases is PixPlot's (Yale DHLab).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from store import Store

ATLAS_SIDE = 2048
MAX_IMAGES = 20_000
"""Beyond this the map shows points, and thumbnails of what is in view alone."""

LARGE_CELL, SMALL_CELL = 64, 32
MAX_LARGE = 8 * (ATLAS_SIDE // LARGE_CELL) ** 2
"""Up to so many images have large cells: eight atlases are 128 MB on a graphics card, which an ordinary one has."""

QUALITY = 75
IDS_FILE = "map-atlas-ids.npy"


@dataclass(frozen=True)
class Atlases:
    """The atlases of a generation.

    `ids` int64 (n,): image ids in the order of the cells, row by row, one atlas after the other; `cell`: side of a cell in
    pixels; `files`: the atlases' paths.
    """

    ids: npt.NDArray[np.int64]
    cell: int
    files: tuple[Path, ...]

    @property
    def per_atlas(self) -> int:
        """How many cells an atlas has."""
        return (ATLAS_SIDE // self.cell) ** 2


def cell_side(count: int) -> int:
    """Return the side of a cell in pixels for `count` images."""
    return LARGE_CELL if count <= MAX_LARGE else SMALL_CELL


def atlas_name(number: int) -> str:
    """Return the file name of one atlas, the first being 0."""
    return f"map-atlas-{number:03}.webp"


def build_atlases(
    store: Store,
    ids: npt.NDArray[np.int64],
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], dict[str, Any]]:
    """Write the atlases of the images `ids` int64 (n,) into `folder`; return the files' names and a report.

    Nothing is written for none or more than `MAX_IMAGES` images. An image without a thumbnail has a grey cell. The same
    thumbnails and ids make the same bytes. One atlas is in memory at a time. `on_progress` gets images done and their number.
    """
    if not 0 < len(ids) <= MAX_IMAGES:
        return [], {"atlases": 0, "cell": None}
    cell = cell_side(len(ids))
    per_atlas = (ATLAS_SIDE // cell) ** 2
    files = [IDS_FILE]
    np.save(folder / IDS_FILE, np.asarray(ids, dtype=np.int64))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, start in enumerate(range(0, len(ids), per_atlas)):
            part = ids[start : start + per_atlas].tolist()
            files.append(atlas_name(number))
            _write_atlas(store, part, folder / files[-1], cell, pool)
            on_progress(start + len(part), len(ids))
    return files, {"atlases": len(files) - 1, "cell": cell}


def open_atlases(folder: Path) -> Atlases | None:
    """Return the atlases in a generation's folder, or None where it has none."""
    if not (folder / IDS_FILE).exists():
        return None
    ids = np.load(folder / IDS_FILE)
    cell = cell_side(len(ids))
    count = -(-len(ids) // (ATLAS_SIDE // cell) ** 2)
    return Atlases(ids, cell, tuple(folder / atlas_name(number) for number in range(count)))


def _write_atlas(store: Store, ids: Sequence[int], path: Path, cell: int, pool: ThreadPoolExecutor) -> None:
    """Write one atlas; cells without a picture are grey."""
    from PIL import Image

    records = store.records(ids)
    columns = ATLAS_SIDE // cell
    atlas = Image.new("RGB", (ATLAS_SIDE, ATLAS_SIDE), (128, 128, 128))

    def squeezed(image_id: int) -> Image.Image | None:
        record = records.get(image_id)
        content = None if record is None or record.sha256 is None else store.thumbnail(record.sha256)
        return None if content is None else _squeezed(content, cell)

    for place, small in enumerate(pool.map(squeezed, ids)):
        if small is not None:
            atlas.paste(small, (place % columns * cell, place // columns * cell))
    atlas.save(path, "WEBP", quality=QUALITY, method=4)


def _squeezed(content: bytes, side: int) -> Any:
    """Return a thumbnail as RGB picture of `side` × `side` pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as thumbnail:
        thumbnail.draft("RGB", (side, side))
        return thumbnail.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
