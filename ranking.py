"""The order of a page: first what looks like the same picture, then what shows the same kind of thing.

Two kinds of likeness pull apart. Plain cosine finds the same picture: a crop, a grey copy, the next shot. For the same kind of
thing, a vector averaged with those nearest to it says more than the vector alone. So the first three places of an answer are by
plain cosine, the rest is by averaged vectors. They are made when a generation is built: PCA to 128 dimensions, each image
averaged with its 20 nearest, weighted by how much nearer they are than the 21st. A query is averaged the same way when it is
asked, with the averages nearest to it.

Measured, P@10 and mAP in plain order and then in this one, each image a query that is left out of its own answer: caltech101-dev
with EfficientNet-Lite0 0.933, 0.851 and 0.952, 0.931 (uploads 0.928, 0.852 and 0.951, 0.931); flowers with Inception v3 0.807,
0.509 and 0.818, 0.580. The optimum is flat: 96 to 384 dimensions and 15 to 40 neighbours change mAP by less than 0.01. Weights of
similarity² or ³ give 0.934 and 0.584, but groups of six variants of a photograph then lose 0.056 of plain cosine's mAP of 0.82,
now 0.015, and classes of eight gain less. Mutual neighbours alone and averaging twice do not earn their place. Groups of two to
four variants still lose 0.002 to 0.035: collections of such groups keep plain order. So few images as 24 gain by averages.

Owns these vectors, their files, and which order is a collection's default. Distances, radii, graphs and duplicates are always
of plain vectors and know nothing of this. Sources: database-side augmentation (Turcot and Lowe 2009, "Better matching with fewer
features"), average query expansion (Chum et al. 2007, "Total recall"), weights by similarity (Radenović et al. 2019, "Fine-tuning
CNN image retrieval with no human annotation").
"""

from __future__ import annotations

import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from errors import DamagedCollectionError
from store import Snapshot
from store.copying import link_or_copy
from vectors import BLOCK_ROWS, Ids, Vectors, exact_neighbours, largest, unit_blocks, unit_vectors

PLAIN_PLACES = 3
"""Copies of a photograph come first by plain cosine in more cases than by averages: 90 % and 68 %."""
DIM = 128
NEIGHBOURS = 20
FIT_ROWS = 20_000
"""A sample as large as this gives the same space as all images."""
FIT_ROUNDS = 6
REFERENCE_ROWS = 200_000
"""Neighbours are looked for among so many images, a sample of larger collections: beyond, the work grows with n, not n²."""
QUERY_ROWS = 1_024
LEAST_IMAGES = 20
SMALL_GROUP = 4
FEW_CHANGED = 500
"""Averages are made anew when more images than this, and more than 2 %, came or went since."""
SCORES_AT_A_TIME = 32_000_000
STOPPED = "The job was stopped before the order by kind was made; pages are in plain order until it is run again."
SEED = 20_090_927
SPACE_FILE, AVERAGES_FILE, IMAGES_FILE = "ranking-space.npz", "ranking-averages.npy", "ranking-images.npy"
FILES = (SPACE_FILE, AVERAGES_FILE, IMAGES_FILE)


@dataclass(frozen=True)
class RankingManifest:
    """What stands in a generation about the order of its pages: `default` is kind or plain, `reason` says why.

    `images` is how many averages of `dim` numbers lie in the folder, 0 where none were made; `vectors_file` names the vectors
    that they were made of.
    """

    default: str
    reason: str
    images: int = 0
    dim: int = 0
    vectors_file: str = ""


@dataclass(frozen=True)
class Space:
    """The small space in which averages are made: `mean` float32 (source,), `basis` float32 (source, dim), orthonormal."""

    mean: Vectors
    basis: Vectors

    def apply(self, vectors: npt.NDArray[Any]) -> Vectors:
        """Return `vectors` (n, source) as unit vectors of the space, float32 (n, dim)."""
        return unit_vectors((unit_vectors(vectors) - self.mean) @ self.basis)


def fit_space(snapshot: Snapshot) -> Space:
    """Fit the principal components of the unit vectors of `snapshot`, by subspace iteration over a seeded sample, in blocks.

    The basis spans them but is not rotated onto them: products, which are all that is asked of it, do not change by a rotation.
    """
    random = np.random.default_rng(SEED)
    places = np.arange(len(snapshot))
    if len(places) > FIT_ROWS:
        places = np.sort(random.choice(places, FIT_ROWS, replace=False))
    mean = sum((block.sum(axis=0, dtype=np.float64) for block in unit_blocks(snapshot, places)), np.zeros(snapshot.dim))
    centre = np.asarray(mean / max(len(places), 1), dtype=np.float32)
    dim = max(1, min(DIM, snapshot.dim, len(places) - 1))
    basis = np.linalg.qr(random.normal(size=(snapshot.dim, dim)))[0].astype(np.float32)
    for _ in range(FIT_ROUNDS):
        product = np.zeros((snapshot.dim, dim), dtype=np.float64)
        for block in unit_blocks(snapshot, places):
            centred = block - centre
            product += centred.T @ (centred @ basis)
        basis = np.linalg.qr(product)[0].astype(np.float32)
    return Space(centre, np.ascontiguousarray(basis))


def _in_space(snapshot: Snapshot, places: Ids, space: Space) -> Vectors:
    small = np.empty((len(places), space.basis.shape[1]), dtype=np.float32)
    for start in range(0, len(places), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        small[part] = space.apply(snapshot.take(places[part]))
    return small


def _averaged(small: Vectors, neighbours: Vectors, similarities: Vectors) -> Vectors:
    """Average each of `small` (q, dim) with its `neighbours` (q, k, dim), given their `similarities` (q, k) in any order.

    What is no nearer than the last of them is background and weighs nothing: few neighbours count in a small group, many in a
    large one. An equal of the image weighs as much as itself.
    """
    background = similarities.min(axis=1, keepdims=True).clip(0, 1 - 1e-6)
    weights = ((similarities - background) / (1 - background)).clip(0)
    return unit_vectors(small + np.einsum("qk,qkd->qd", weights, neighbours))


# Building.


def build_kind_ranking(
    snapshot: Snapshot,
    folder: Path,
    *,
    labels: Sequence[str | None] = (),
    matches: float | None = None,
    previous: tuple[Path, Mapping[str, Any]] | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the averages of all images of `snapshot` into a generation's `folder`; return what its manifest says, JSON-able.

    `labels`, those of the images in the order of the snapshot, decide which order is the default; where they say nothing, it is
    `matches`, how many good matches the median image has (`Calibration.matches`). `previous` (folder and
    manifest of the last generation's ranking) is carried over when few images changed since: `load_kind_ranking` averages the
    new ones. When `stop` is set, nothing new is made and pages are in plain order. `on_progress` gets images done and in all.
    Memory is bounded: at most `REFERENCE_ROWS` vectors of the small space (102 MB) and some blocks.
    """
    default, reason = choose_default(len(snapshot), labels, matches)
    if len(snapshot) < LEAST_IMAGES:
        return asdict(RankingManifest(default, reason))
    if previous is not None and _still_good(snapshot, *previous):
        for name in FILES:
            link_or_copy(previous[0] / name, folder / name)
        return {**previous[1], "default": default, "reason": reason}
    stop = stop or threading.Event()
    if not stop.is_set():
        space = fit_space(snapshot)
        _write_averages(snapshot, space, folder, stop, on_progress)
    if stop.is_set():
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        return asdict(RankingManifest("plain", STOPPED))
    return asdict(RankingManifest(default, reason, len(snapshot), space.basis.shape[1], snapshot.file))


def choose_default(count: int, labels: Sequence[str | None], matches: float | None) -> tuple[str, str]:
    """Return which order is the default of a collection of `count` images, kind or plain, and why."""
    if count < LEAST_IMAGES:
        return "plain", f"fewer than {LEAST_IMAGES} images: too few to average each with those like it"
    size, words = group_size(labels), "by folder or label, half of the images are in groups of {} or {}"
    if size is None and matches is not None:
        size, words = int(matches) + 1, "half of the images have, themselves counted, {} or {} that are like them"
    if size is None:
        return "kind", "nothing is known of groups"
    if size <= SMALL_GROUP:
        return "plain", words.format(size, "fewer") + ": averages would blur such small groups"
    return "kind", words.format(f"{size:,}", "more")


def group_size(labels: Sequence[str | None]) -> int | None:
    """Return the size of the label's group that the median image is in; None where labels say nothing about groups."""
    sizes = Counter(label for label in labels if label is not None)
    if len(sizes) < 2 or 2 * sizes.total() < len(labels):
        return None
    return int(np.median([size for size in sizes.values() for _ in range(size)]))


def _write_averages(
    snapshot: Snapshot, space: Space, folder: Path, stop: threading.Event, on_progress: Callable[[int, int], None]
) -> None:
    """Average each image with its nearest, itself left out, and write the files; ends early when `stop` is set."""
    count, dim = len(snapshot), space.basis.shape[1]
    reference = np.arange(count)
    if count > REFERENCE_ROWS:
        reference = np.sort(np.random.default_rng(SEED).choice(count, REFERENCE_ROWS, replace=False))
    known = _in_space(snapshot, reference, space)
    blocks = [known[start : start + BLOCK_ROWS] for start in range(0, len(known), BLOCK_ROWS)]
    # Written and not mapped: a full disk must be an error, and under a mapped file it is a SIGBUS.
    with open(folder / AVERAGES_FILE, "wb") as file:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
        np.lib.format.write_array_header_1_0(file, shape)
        for start in range(0, count, QUERY_ROWS):
            if stop.is_set():
                return
            places = np.arange(start, min(start + QUERY_ROWS, count))
            small = _in_space(snapshot, places, space)
            nearest, scores = exact_neighbours(small, blocks, NEIGHBOURS + 2)
            others = _others(reference[nearest] == places[:, None])
            size = (len(places), others.shape[1] - 1)
            averages = _averaged(small, known[nearest[others].reshape(size)], scores[others].reshape(size))
            file.write(averages.astype("<f4").tobytes())
            on_progress(int(places[-1]) + 1, count)
    np.savez(folder / SPACE_FILE, mean=space.mean, basis=space.basis)
    np.save(folder / IMAGES_FILE, np.stack([snapshot.ids, snapshot.rows]))


def _others(own: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Tell which of the nearest (q, k) are others, k - 1 of each: the last is one too many where `own` is not among them."""
    others = ~own
    others[others.all(axis=1), -1] = False
    return others


def _still_good(snapshot: Snapshot, folder: Path, manifest: Mapping[str, Any]) -> bool:
    if not manifest["images"] or manifest["vectors_file"] != snapshot.file or not is_complete(folder, manifest):
        return False
    ids, rows = np.load(folder / IMAGES_FILE)
    return _few_changed(snapshot, _still_there(snapshot, ids, rows))


def _still_there(snapshot: Snapshot, ids: Ids, rows: Ids) -> npt.NDArray[np.bool_]:
    """Tell for each averaged image whether it is in `snapshot` with the same vector."""
    places = np.minimum(np.searchsorted(snapshot.ids, ids), len(snapshot) - 1)
    return np.asarray((snapshot.ids[places] == ids) & (snapshot.rows[places] == rows))


def _few_changed(snapshot: Snapshot, there: npt.NDArray[np.bool_]) -> bool:
    same = int(there.sum())
    return (len(snapshot) - same) + (len(there) - same) <= max(FEW_CHANGED, len(snapshot) // 50)


# Using.


def is_complete(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether the files of a generation's ranking are there and belong together, so that they need not be made again."""
    if not manifest["images"]:
        return True
    try:
        averages = np.load(folder / AVERAGES_FILE, mmap_mode="r")
        images = np.load(folder / IMAGES_FILE, mmap_mode="r")
        with np.load(folder / SPACE_FILE) as space:
            dim = space["basis"].shape[1]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return False
    return bool(averages.shape == (manifest["images"], dim) and images.shape == (2, manifest["images"]))


def load_kind_ranking(snapshot: Snapshot, folder: Path, manifest: Mapping[str, Any] | None) -> KindRanking | None:
    """Open the averages of a generation over `snapshot`, which may be newer; None where only plain order is to be had.

    That is so where none were made (few images, a stopped job, a generation of an older version), and where so many images
    came or went since that the next publishing makes them anew. Raises `DamagedCollectionError`.
    """
    if not manifest or not manifest["images"] or manifest["vectors_file"] != snapshot.file or not len(snapshot):
        return None
    if not is_complete(folder, manifest):
        raise DamagedCollectionError(
            f"The averages in {folder} are damaged. Run `python img2vec.py` again: it makes them anew."
        )
    ids, rows = np.load(folder / IMAGES_FILE)
    there = _still_there(snapshot, ids, rows)
    if not _few_changed(snapshot, there):
        return None
    with np.load(folder / SPACE_FILE) as arrays:
        space = Space(arrays["mean"], arrays["basis"])
    averages = np.load(folder / AVERAGES_FILE, mmap_mode="r")
    return KindRanking(snapshot, space, averages, np.where(there, ids, -1), default=manifest["default"])


class KindRanking:
    """The order of pages over one snapshot. Thread-safe; immutable after construction.

    `averages` float32 (n, dim), memory-mapped so that workers share it, are those of the images `ids` int64 (n,), -1 where one
    is gone. Images of the snapshot that are not among them are averaged now, as uploads are.
    """

    def __init__(
        self, snapshot: Snapshot, space: Space, averages: npt.NDArray[np.float32], ids: Ids, *, default: str = "kind"
    ) -> None:
        self.default = default
        self._space = space
        self._averages: list[Vectors] = [np.asarray(averages)]
        self._ids = ids
        new = np.flatnonzero(~np.isin(snapshot.ids, ids))
        if len(new):
            small = _in_space(snapshot, new, space)
            parts = [self._average(small[rows]) for rows in self._at_a_time(len(small))]
            self._averages.append(np.concatenate(parts))
            self._ids = np.concatenate([ids, snapshot.ids[new]])

    def averages_of(self, ids: Ids) -> Vectors:
        """Return the averaged vectors of the images `ids` int64 (n,), all of the snapshot: unit vectors, float32 (n, dim)."""
        order = np.argsort(self._ids, kind="stable")
        averages: Vectors = self._rows(order[np.searchsorted(self._ids, ids, sorter=order)][None])[0]
        return averages

    def order(
        self,
        vectors: npt.NDArray[Any],
        plain: Ids,
        k: int | None,
        *,
        allowed: Ids | None = None,
        without: Ids | None = None,
    ) -> Ids:
        """Return the k best images for each of `vectors` (q, source): ids int64 (q, m), best first, -1 where there are fewer.

        The first three are those of `plain` int64 (q, at least 3 where there are), the answer by plain cosine; the rest is by
        averaged vectors. `k` None: all. `allowed`, ascending image ids, restricts the answer to them; `plain` has to be
        restricted already. `without` int64 (q, any), padded with -1, are left out of each query's answer.
        """
        small = self._space.apply(vectors)
        answers: list[Ids] = []
        may = self._ids >= 0
        if allowed is not None:
            may &= np.isin(self._ids, allowed)
        for rows in self._at_a_time(len(small)):
            for number, scores in zip(
                range(rows.start, rows.stop), self._scores(self._average(small[rows])), strict=True
            ):
                out = np.empty(0, np.int64) if without is None else without[number]
                answers.append(self._ordered(scores, may, plain[number], out, k))
        width = max((len(answer) for answer in answers), default=0)
        return np.array([np.pad(answer, (0, width - len(answer)), constant_values=-1) for answer in answers]).reshape(
            len(small), width
        )

    def _at_a_time(self, count: int) -> Iterator[slice]:
        step = max(1, SCORES_AT_A_TIME // max(len(self._ids), 1))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def _scores(self, small: Vectors) -> Vectors:
        """Return the cosines of `small` (q, dim) with all averages, float32 (q, n)."""
        return np.concatenate([small @ averages.T for averages in self._averages], axis=1)

    def _average(self, small: Vectors) -> Vectors:
        """Average `small` (q, dim), vectors of the space, with the averages nearest to each."""
        scores = self._scores(small)
        scores[:, self._ids[: scores.shape[1]] < 0] = -1
        nearest = np.array([largest(row, NEIGHBOURS + 1) for row in scores])
        return _averaged(small, self._rows(nearest), np.take_along_axis(scores, nearest, axis=1))

    def _rows(self, places: Ids) -> Vectors:
        """Return the averages at `places` (q, k), float32 (q, k, dim)."""
        built = len(self._averages[0])
        found = self._averages[0][np.minimum(places, built - 1)]
        if len(self._averages) > 1:
            new = places >= built
            found[new] = self._averages[1][places[new] - built]
        return found

    def _ordered(self, scores: Vectors, may: npt.NDArray[np.bool_], plain: Ids, out: Ids, k: int | None) -> Ids:
        first = plain[(plain >= 0) & ~np.isin(plain, out)][: PLAIN_PLACES if k is None else min(k, PLAIN_PLACES)]
        candidates = np.flatnonzero(may)
        candidates = candidates[~np.isin(self._ids[candidates], np.concatenate([first, out]))]
        wanted = len(candidates) if k is None else min(k - len(first), len(candidates))
        best = candidates[largest(scores[candidates], wanted)] if wanted > 0 else candidates[:0]
        order = np.lexsort((self._ids[best], -scores[best].round(6)))
        return np.concatenate([first, self._ids[best[order]]])
