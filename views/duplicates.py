"""The duplicates of a collection: what goes in, which files a generation keeps of them, and opening them again.

Owns reading vectors, thumbnails and times, and the view "duplicates": its pairs (`duplicates-pairs.npz`) and which images with
which contents they were found among (`duplicates-images.npy`: ids and the first 8 bytes of SHA-256; rows of vectors would change
when a collection is compacted). Does not own what a duplicate is (`duplicates.py`).
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from duplicates import TIERS, Contents, DuplicateOptions, Group, Pairs, find_pairs, groups_of, load_pairs
from errors import OptionError, ViewMissingError
from publishing import publish_view, view_of
from sameness import Pictures, unseen
from store import Filter, Generation, Record, Snapshot, Store, StoreWriter
from vectors import Ids, Vectors, exact_neighbours, principal_axes, unit_blocks, unit_vectors

if TYPE_CHECKING:
    from PIL import Image

VIEW = "duplicates"
PAIRS_FILE = "duplicates-pairs.npz"
IMAGES_FILE = "duplicates-images.npy"
PROJECTED = 20_000
"""Above so many contents neighbours are looked for among the heaviest principal components and then measured in full."""
AXES, AXES_ROWS = 128, 20_000
OVERSAMPLE = 2
QUERY_ROWS = 1_024
PICTURE_SIDE = 128
"""Thumbnails are decoded to about so many pixels a side: enough for 64 × 64 greys of a crop."""
PICTURES_HELD = 2_000
"""Of some 50 kilobytes each."""
DEFAULT_SIMILARITY = 0.8
"""Where the collection is too small to say what a good match is."""

OnProgress = Callable[[str, int, int], None]


def _quiet(step: str, done: int, total: int) -> None:
    pass


class Duplicates:
    """Pairs and groups of the images that a collection holds now. Immutable.

    `not_compared` are the ids of images that came since. `options` is what was asked for, `report` what came out: `images` and
    `contents` compared, `without_thumbnail`, and the number of `pairs` of each tier.
    """

    def __init__(
        self,
        pairs: Pairs,
        not_compared: Ids,
        *,
        options: Mapping[str, Any],
        report: Mapping[str, Any],
        created_at: str = "",
    ) -> None:
        self.pairs = pairs
        self.not_compared = not_compared
        self.options = options
        self.report = report
        self.created_at = created_at
        self._groups: dict[str, list[Group]] = {}

    def groups(self, tier: str) -> list[Group]:
        """Return the groups of "identical", "same" (both first tiers together) or "burst", the largest first; `OptionError`."""
        if tier not in self._groups:
            self._groups[tier] = groups_of(self.pairs, tier)
        return self._groups[tier]

    def of(self, image_id: int) -> Pairs:
        """Return all pairs of one image."""
        return self.pairs.where((self.pairs.image_a == image_id) | (self.pairs.image_b == image_id))


def images_under(store: Store, folder: Path) -> Ids:
    """Return the ids of the images whose files lie in `folder` or below it, ascending, int64 (n,)."""
    return store.matching_ids(Filter(folder=str(folder.absolute())), key="")


def find_duplicates(
    writer: StoreWriter,
    generation: Generation,
    options: DuplicateOptions | None = None,
    *,
    on_progress: OnProgress = _quiet,
) -> Duplicates:
    """Find the duplicates of all images and publish them as the view "duplicates" of `generation`.

    `on_progress` is called with what is being done, how much of it is, and of how much. Raises `DiskFullError`.
    """
    snapshot = writer.snapshot(generation.manifest["vectors_key"])
    found = compare_images(writer, generation, options, on_progress=on_progress)

    def write(folder: Path) -> list[str]:
        found.pairs.save(folder / PAIRS_FILE)
        np.save(folder / IMAGES_FILE, np.stack([snapshot.ids, _contents_of(writer, snapshot.ids)]))
        return [PAIRS_FILE, IMAGES_FILE]

    view = publish_view(writer, generation, VIEW, write, options=found.options, report=found.report)
    found.created_at = view.created_at
    return found


def compare_images(
    store: Store,
    generation: Generation,
    options: DuplicateOptions | None = None,
    *,
    among: Ids | None = None,
    new: Ids | None = None,
    on_progress: OnProgress = _quiet,
) -> Duplicates:
    """Find duplicates without publishing them: of all images, `among` some ids only, or of `new` ids with all others only.

    Raises `OptionError` where no image is left to compare.
    """
    options = options or DuplicateOptions()
    if options.min_similarity is None:
        bar = generation.manifest.get("calibration", {}).get("bar")
        options = replace(options, min_similarity=DEFAULT_SIMILARITY if bar is None else bar)
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    images = snapshot.ids if among is None else np.intersect1d(snapshot.ids, among)
    is_new = None if new is None else np.isin(images, new)
    if not len(images) or (is_new is not None and (is_new.all() or not is_new.any())):
        sides = "" if is_new is None else f", {int(is_new.sum()):,} of them new"
        raise OptionError(f"There is nothing to compare: {len(images):,} searchable images are chosen{sides}.")
    collected = _Collected(store, snapshot, images, is_new)
    pictures = collected.look(on_progress)
    contents = collected.contents(options.neighbours, on_progress)
    pairs = find_pairs(
        contents, pictures, options, on_progress=lambda done, total: on_progress("Comparing pictures", done, total)
    )
    counts = np.bincount(pairs.tier, minlength=len(TIERS)).tolist()
    report = {
        "images": len(images),
        "contents": len(contents),
        "without_thumbnail": int((~pictures.seen).sum()),
        "pairs": dict(zip(TIERS, counts, strict=True)),
    }
    return Duplicates(pairs, np.empty(0, np.int64), options=asdict(options), report=report)


def open_duplicates(store: Store, generation: Generation) -> Duplicates:
    """Open the view of `generation`, without the images that left since or have other contents now; `ViewMissingError`."""
    view = view_of(generation, VIEW)
    if view is None:
        raise ViewMissingError("The duplicates have not been looked for yet. Run: python duplicates.py")
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    ids, contents = np.load(generation.folder / IMAGES_FILE)
    places = np.minimum(np.searchsorted(ids, snapshot.ids), max(len(ids) - 1, 0))
    there = (ids[places] == snapshot.ids) & (contents[places] == _contents_of(store, snapshot.ids))
    pairs = load_pairs(generation.folder / PAIRS_FILE)
    known = snapshot.ids[there]
    pairs = pairs.where(np.isin(pairs.image_a, known) & np.isin(pairs.image_b, known))
    return Duplicates(pairs, snapshot.ids[~there], options=view.options, report=view.report, created_at=view.created_at)


def _contents_of(store: Store, ids: Ids) -> Ids:
    """Return the beginnings of the contents' SHA-256, int64 (n,), by which changed images are told; 0 for one that is gone."""
    rows = store.catalog.execute("SELECT image_id, substr(sha256, 1, 8) FROM images WHERE sha256 IS NOT NULL")
    known = {image_id: int.from_bytes(start, "big", signed=True) for image_id, start in rows}
    return np.array([known.get(image_id, 0) for image_id in ids.tolist()], dtype=np.int64)


class _Collected:
    """What a collection knows of some images, contents by contents."""

    def __init__(self, store: Store, snapshot: Snapshot, images: Ids, is_new: npt.NDArray[np.bool_] | None) -> None:
        self._store = store
        self._snapshot = snapshot
        self._images = images
        self._is_new = is_new
        rows = snapshot.rows[np.searchsorted(snapshot.ids, images)]
        _, firsts, self._content = np.unique(rows, return_index=True, return_inverse=True)
        self._places = np.searchsorted(snapshot.ids, images[firsts])
        records = store.records(images[firsts].tolist())
        gone = Record(b"", 0, 0)  # between reading the vectors and the catalog
        self._records = [records.get(image_id, gone) for image_id in images[firsts].tolist()]
        self._pictures: OrderedDict[int, Image.Image] = OrderedDict()

    def look(self, on_progress: OnProgress) -> Pictures:
        """Look at all thumbnails; one that is missing or damaged leaves its contents unseen."""
        sizes = np.array([(record.width or 1, record.height or 1) for record in self._records])
        pictures = unseen(sizes, [record.format or "" for record in self._records], self._picture)
        for place, record in enumerate(self._records):
            picture = self._opened(record)
            if picture is not None:
                pictures.look(place, picture)
            if place % 100 == 99:
                on_progress("Looking at thumbnails", place + 1, len(self._records))
        return pictures

    def contents(self, k: int, on_progress: OnProgress) -> Contents:
        """Return what is compared, with the `k` nearest of each (of the new ones among the others, where that is asked for)."""
        everything = np.arange(len(self._records))
        asked, table = everything, everything
        if self._is_new is not None:
            asked, table = np.unique(self._content[self._is_new]), np.unique(self._content[~self._is_new])
        neighbours, similarities = self._nearest(asked, table, k, on_progress)
        return Contents(
            image_ids=self._images,
            content=self._content.astype(np.int64),
            is_new=self._is_new,
            seconds=np.array([_seconds(record.taken_at) for record in self._records]),
            asked=asked,
            neighbours=neighbours,
            similarities=similarities,
            similarity=self._similarity,
        )

    def _opened(self, record: Record) -> Image.Image | None:
        from PIL import Image

        content = None if record.sha256 is None else self._store.thumbnail(record.sha256)
        if content is None:
            return None
        try:
            with Image.open(io.BytesIO(content)) as opened:
                opened.draft("RGB", (PICTURE_SIDE, PICTURE_SIDE))
                return opened.convert("RGB")
        except (OSError, ValueError):
            return None

    def _picture(self, place: int) -> Image.Image:
        """Open a thumbnail that was seen before; the last few thousand are held."""
        from PIL import Image

        picture = self._pictures.pop(place, None) or self._opened(self._records[place]) or Image.new("RGB", (64, 64))
        self._pictures[place] = picture
        if len(self._pictures) > PICTURES_HELD:
            self._pictures.popitem(last=False)
        return picture

    def _similarity(self, first: Ids, second: Ids) -> Vectors:
        """Return the cosines of pairs of contents, float32 (p,)."""
        found = [np.empty(0, np.float32)]
        for start in range(0, len(first), QUERY_ROWS):
            block = slice(start, start + QUERY_ROWS)
            one, other = (unit_vectors(self._snapshot.take(self._places[side[block]])) for side in (first, second))
            found.append(np.vecdot(one, other))
        return np.concatenate(found)

    def _nearest(self, asked: Ids, table: Ids, k: int, on_progress: OnProgress) -> tuple[Ids, Vectors]:
        """Return the `k` nearest others (q, k) of `asked` among `table`, -1 where there are none, and their cosines.

        Exact among few; among many, twice as many of the nearest by principal components are measured.
        """
        axes = None
        if len(table) > PROJECTED:
            sample = np.sort(np.random.default_rng(0).permutation(len(self._records))[:AXES_ROWS])
            axes = principal_axes(unit_blocks(self._snapshot, self._places[sample]), AXES)
        held = self._in_blocks(table, axes)
        wide = k + 1 if axes is None else OVERSAMPLE * k + 1
        neighbours = np.full((len(asked), k), -1, dtype=np.int64)
        similarities = np.full((len(asked), k), -1, dtype=np.float32)
        for start in range(0, len(asked), QUERY_ROWS):
            block = asked[start : start + QUERY_ROWS]
            queries = np.concatenate(self._in_blocks(block, axes))
            found, scores = exact_neighbours(queries, held, wide)
            found = table[found]
            if axes is not None:
                scores = self._similarity(np.repeat(block, found.shape[1]), found.ravel()).reshape(found.shape)
            scores[found == block[:, None]] = -np.inf
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            found, scores = np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)
            found[np.isneginf(scores)] = -1
            neighbours[start : start + len(block), : found.shape[1]] = found
            similarities[start : start + len(block), : found.shape[1]] = scores
            on_progress("Looking for neighbours", start + len(block), len(asked))
        return neighbours, similarities

    def _in_blocks(self, contents: Ids, axes: Vectors | None) -> list[Vectors]:
        blocks = unit_blocks(self._snapshot, self._places[contents])
        return [block if axes is None else unit_vectors(block @ axes) for block in blocks]


def _seconds(taken_at: str | None) -> float:
    """Return a time of the catalog as seconds; NaN where it is not known."""
    return float("nan") if taken_at is None else datetime.fromisoformat(taken_at).replace(tzinfo=UTC).timestamp()
