"""The whole map as one picture, put together from its atlases in a moment: what the page shows where no script runs.

Owns its size and where thumbnails stand on it. Does not own posters, which show every thumbnail as a whole (`views/poster.py`),
nor the page's own drawing (`static/map/`).
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from atlases import ATLAS_SIDE, Atlases
from web.map_table import NONE

WIDTH = 1600
MARGIN = 20
OVERLAP = 1.5
"""Of the side that would cover a whole square with all pictures, where they lie in no cells."""
SIZES = (8, 160)
GROUND = (244, 242, 237)
QUALITY = 80


def map_picture(
    positions: npt.NDArray[np.float32],
    cells: npt.NDArray[np.uint16],
    ratios: npt.NDArray[np.float64],
    atlases: Atlases,
    *,
    cell_size: float | None,
) -> bytes:
    """Return a WebP picture of the map, `WIDTH` pixels wide, later pictures over earlier ones.

    `positions` float32 (n, 2) within 0…1; `cells` (n,) of the atlases, `NONE` for none; `ratios` (n,) width / height;
    `cell_size` the side of the cells of a layout that has them, as a share of 0…1.
    """
    first, last = positions.min(axis=0), positions.max(axis=0)
    wide, high = np.maximum(last - first, 1e-6).tolist()
    share = cell_size if cell_size is not None else OVERLAP * float(np.sqrt(wide * high / len(positions)))
    scale = WIDTH / (wide + share)
    longer = min(max(share * scale * (0.96 if cell_size is not None else 1), SIZES[0]), SIZES[1])
    height = min(round((high + share) * scale), 3 * WIDTH)
    picture = Image.new("RGB", (WIDTH + 2 * MARGIN, height + 2 * MARGIN), GROUND)
    middles = (positions - first + share / 2) * scale + MARGIN
    sides = longer * np.stack([np.minimum(1, ratios), np.minimum(1, 1 / ratios)], axis=1)
    columns = ATLAS_SIDE // atlases.cell
    for number, path in enumerate(atlases.files):
        with Image.open(path) as opened:
            atlas = opened.convert("RGB")
        for place in np.flatnonzero((cells != NONE) & (cells // columns**2 == number)).tolist():
            row, column = divmod(int(cells[place]) % columns**2, columns)
            left, top = column * atlases.cell, row * atlases.cell
            side = [max(1, round(number)) for number in sides[place].tolist()]
            box = (left, top, left + atlases.cell, top + atlases.cell)
            small = atlas.resize((side[0], side[1]), Image.Resampling.BILINEAR, box=box)
            corner = middles[place] - np.array(side) / 2
            picture.paste(small, (round(float(corner[0])), round(float(corner[1]))))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, method=2)
    return content.getvalue()
