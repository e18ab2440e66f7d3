"""Pictures of groups for a file: all groups, a column each, and the tree with the line at which it is cut.

Owns how both look. Does not own groups (`views/groups.py`) or the tree (`clusters`). Memory is bounded: the picture of all groups
has at most `MAX_PIXELS` pixels, and says what it leaves out. Sources: imagecluster's `plot_clusters` and its dendrogram.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from errors import OptionError
from tables import whole_file

TILE = 64
GAP = 4
HEAD = 18
MAX_PIXELS = 60_000_000
"""180 MB in memory."""
MAX_COLUMNS = 250
MAX_ROWS = 250
TREE_LEAVES = 150
"""More could not be told apart in a picture; what is below them is drawn as one leaf each."""
PAPER, INK, EMPTY = (255, 255, 255), (70, 70, 70), (226, 226, 226)


def check_pictures(paths: Sequence[Path]) -> None:
    """Raise `OptionError` for a file whose name promises another kind of picture."""
    for path in paths:
        if path.suffix.lower() != ".png":
            raise OptionError(f"{path}: pictures of groups are PNG. Give a name that ends in .png.")


@dataclass(frozen=True)
class PictureReport:
    """How many groups and images the picture shows, and how many there are."""

    groups_shown: int
    groups: int
    images_shown: int
    images: int


def draw_groups(
    path: Path, groups: Sequence[npt.NDArray[np.int64]], thumbnails: Callable[[list[int]], dict[int, bytes]]
) -> PictureReport:
    """Write all groups, image ids each, as a PNG: a column a group, the first image of each on top.

    `thumbnails` gives the JPEGs of some ids. Where there are more groups or images than fit, the first are shown. Raises
    `ExportError`, `OptionError` where there are none.
    """
    if not groups:
        raise OptionError("There is no group to draw: every image is alone. Give a smaller --sim, or --min-size 1.")
    shown = groups[:MAX_COLUMNS]
    across = TILE + GAP
    width = GAP + len(shown) * across
    rows = min(max(map(len, shown)), MAX_ROWS, max(1, (MAX_PIXELS // width - HEAD - GAP) // across))
    sheet = Image.new("RGB", (width, GAP + HEAD + rows * across), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, image_ids in enumerate(shown):
        ids = image_ids[:rows].tolist()
        left = GAP + column * across
        draw.text((left, GAP), f"{len(image_ids):,}", fill=INK, font=font)
        found = thumbnails(ids)
        for row, image_id in enumerate(ids):
            _paste(sheet, found.get(image_id), (left, GAP + HEAD + row * across))
    with whole_file(path) as file:
        sheet.save(file, "PNG")
    in_all = sum(map(len, groups))
    return PictureReport(len(shown), len(groups), sum(min(len(ids), rows) for ids in shown), in_all)


def _paste(sheet: Image.Image, jpeg: bytes | None, corner: tuple[int, int]) -> None:
    if jpeg is None:
        left, top = corner
        ImageDraw.Draw(sheet).rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=EMPTY)
        return
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (2 * TILE, 2 * TILE))
        sheet.paste(ImageOps.fit(picture.convert("RGB"), (TILE, TILE)), corner)


def _images_below(merges: npt.NDArray[np.float64], node: int) -> int:
    return int(merges[node - len(merges) - 1, 3])


def draw_tree(path: Path, merges: npt.NDArray[np.float64], cut_at: float) -> None:
    """Write the tree `merges` float64 (n - 1, 4), as scipy's `linkage` has it, as a PNG: its top, cut at the distance `cut_at`.

    Raises `ExportError`, `OptionError` for a tree of one image, or of equal ones.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, and no choice of a backend for the whole process
    from scipy.cluster.hierarchy import dendrogram

    if not len(merges):
        raise OptionError("There is no tree to draw: the collection has one image.")
    if not merges[:, 2].any():
        raise OptionError("There is no tree to draw: all images are the same.")
    figure = Figure(figsize=(14, 6), layout="constrained")
    axes = figure.subplots()
    leaves = min(len(merges) + 1, TREE_LEAVES)
    dendrogram(
        merges,
        p=leaves,
        truncate_mode="lastp",
        color_threshold=cut_at,
        above_threshold_color="#999999",
        leaf_rotation=90,
        leaf_label_func=lambda node: f"({_images_below(merges, node)})" if node > len(merges) else "",
        leaf_font_size=7,
        ax=axes,
    )
    axes.axhline(cut_at, color="black", linestyle="--", linewidth=1)
    axes.annotate("the cut", (0, cut_at), (4, 3), xycoords=("axes fraction", "data"), textcoords="offset points")
    in_all = len(merges) + 1
    what = "images" if leaves == in_all else f"the top of the tree of {in_all:,} images; (n) is a branch of n"
    axes.set(ylabel="distance", xlabel=what)
    axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
