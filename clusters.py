"""Groups of images that are alike: hierarchical clustering of vectors, cut at a `sim` of 0 (one group) to 1 (every image alone).

The definitions are imagecluster's. The distance of two images is that of their vectors; where times are given it is
d = (1 - alpha) · content / largest content + alpha · seconds / largest seconds. A tree is linked over all of them once, by one
of scipy's methods, and cut at the height largest d · (1 - sim): another `sim` is another cut of the same tree, in milliseconds.

Where imagecluster stopped or surprised: equal times say nothing (their term is 0); an image without a time is as far from all
others in time as two images are on average; no image and one image are fine; seconds are absolute whatever the metric. At sim 0
all are one group with `ward` too, whose heights pass the largest distance; at sim 1 every image is alone, equal images too, which
are together at every sim below. Equal distances, all of them 0, are one group.

Trees of more than `FULL_IMAGES` images are linked over the graph of nearest neighbours (`linkages.py`). Arrays in, arrays out:
does not own where vectors come from, nor names that people give (`views/groups.py`). The method and its figures: docs/groups.md.
Sources: imagecluster (Schmerler, https://github.com/elcorto/imagecluster); scipy.cluster.hierarchy.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from errors import DamagedCollectionError, OptionError
from linkages import graph_linkage, single_images, time_scale
from silhouettes import Leaves, best_gap, leaves
from vectors import BLOCK_ROWS, Ids, Vectors

METHODS = ("average", "single", "complete", "weighted", "centroid", "median", "ward")
METRICS = ("euclidean", "cosine", "cityblock", "sqeuclidean", "correlation", "chebyshev", "canberra")
FULL_IMAGES = 20_000
"""Up to here all distances are held: 1.6 GB, and once more while they are linked (3.4 GB in all, 20 s)."""
DEFAULT_SIM = 0.5
LEAST_OVERLAP = 0.5
"""A group keeps its name while it shares this much with what was named: images of both, of all images of either. So most of what
a coarser cut joins has to be what was named."""

Distances = npt.NDArray[np.float64]
Named = TypeVar("Named")


@dataclass(frozen=True)
class ClusterOptions:
    """How a tree is made. Raises `OptionError` for values that make no sense.

    `alpha` 0…1 is the weight of time, where times are given. `components`: before, so many principal components (int), or as many
    as keep that share of the variance (float); None: the vectors as they are.
    """

    method: str = "average"
    metric: str = "euclidean"
    alpha: float = 0.3
    components: int | float | None = None

    def __post_init__(self) -> None:
        _check_known("method", self.method, METHODS)
        _check_known("metric", self.metric, METRICS)
        _check_share("alpha", self.alpha)
        many = self.components
        if many is not None and (isinstance(many, bool) or not (0 < many < 1 or (isinstance(many, int) and many >= 1))):
            raise OptionError(
                f"components is {many}. Give a whole number from 1, or a share of the variance between 0 and 1."
            )


@dataclass(frozen=True)
class Tree:
    """A tree over `images` images: `merges` float64 (images - 1, 4) as scipy's linkage, heights in its third column.

    `max_distance` is the largest distance of two images, what heights are measured against. `how` it was linked: over all
    distances ("full") or over the graph of nearest neighbours ("graph"). `timed`: times were mixed in.
    """

    merges: npt.NDArray[np.float64]
    images: int
    max_distance: float
    options: ClusterOptions = field(default_factory=ClusterOptions)
    how: Literal["full", "graph"] = "full"
    timed: bool = False


def build_tree(
    vectors: Vectors, options: ClusterOptions | None = None, *, seconds: npt.NDArray[np.float64] | None = None
) -> Tree:
    """Link `vectors` float32 (n, dim); `seconds` float64 (n,) are their times, NaN where one is missing, None: no times.

    Raises `OptionError` for options that so many images cannot be linked with, `ValueError` for numbers that are not finite.
    """
    options = options or ClusterOptions()
    if not np.isfinite(vectors).all() or (seconds is not None and len(seconds) != len(vectors)):
        raise ValueError("vectors must be finite, and there must be as many seconds as vectors")
    timed = seconds is not None
    if len(vectors) < 2:
        return Tree(np.empty((0, 4)), len(vectors), 0.0, options, timed=timed)
    if options.components is not None:
        vectors = principal_components(vectors, options.components)
    if len(vectors) > FULL_IMAGES:
        return _graph_tree(vectors, options, seconds)
    return _full_tree(vectors, options, seconds)


def cut_height(tree: Tree, sim: float) -> float:
    """Return the height at which `sim` cuts `tree`. Raises `OptionError` for a sim that is not 0…1."""
    _check_share("sim", sim)
    return tree.max_distance * (1.0 - sim)


def cut(tree: Tree, sim: float) -> Ids:
    """Return the group of each image at `sim`, int64 (n,): 0 is the largest, of equal ones that whose first image comes first."""
    height = cut_height(tree, sim)
    if sim == 1 or tree.images < 2:
        return np.arange(tree.images, dtype=np.int64)
    if sim == 0:
        return np.zeros(tree.images, dtype=np.int64)
    from scipy.cluster.hierarchy import fcluster

    found = np.asarray(fcluster(tree.merges, height, criterion="distance"))
    _, firsts, groups, sizes = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    ranks = np.empty(len(sizes), dtype=np.int64)
    ranks[np.lexsort((firsts, -sizes))] = np.arange(len(sizes))
    return np.asarray(ranks[groups])


def propose_sim(tree: Tree, vectors: Vectors, *, seconds: npt.NDArray[np.float64] | None = None) -> float:
    """Return the sim that `best_sim` finds, and imagecluster's usual one where there is none."""
    found = best_sim(tree, vectors, seconds=seconds)
    return DEFAULT_SIM if found is None else found


def best_sim(tree: Tree, vectors: Vectors, *, seconds: npt.NDArray[np.float64] | None = None) -> float | None:
    """Return the sim whose groups stand apart best, found without labels; None where none do. Repeatable.

    `vectors` and `seconds` are those that the tree was made of; any number of images will do.
    """
    if tree.images < 3 or not tree.max_distance:
        return None
    if tree.options.components is not None:
        vectors = principal_components(vectors, tree.options.components)
    alpha, cosine = tree.options.alpha, tree.options.metric == "cosine"
    images, mix = single_images(vectors, cosine=cosine, alpha=alpha, seconds=seconds if tree.timed else None)
    gap = best_gap(tree.merges, images, mix, tree.max_distance)
    return None if gap is None else _between(1 - gap[1] / tree.max_distance, 1 - gap[0] / tree.max_distance)


class Branches:
    """All groups of all cuts of a tree, for finding the one that holds certain images. Only the images at `there` count.

    `there` int64 (m,) are places in the tree, ascending: images may have gone since it was made.
    """

    def __init__(self, tree: Tree, there: Ids) -> None:
        count = tree.images
        self._runs: Leaves = leaves(tree.merges)
        self._ends = self._runs.starts + np.concatenate([np.ones(count), tree.merges[:, 3]]).astype(np.int64)
        self._sizes = self._counts(there)
        above = np.full(2 * count - 1, np.inf)
        above[tree.merges[:, :2].astype(np.int64)] = self._runs.heights[count:, None]
        largest = tree.max_distance or 1.0
        self._from, self._to = (1 - above / largest).clip(0), 1 - self._runs.heights / largest
        self._to[-1] = 1.0  # at sim 0 all images are one group, however high they join

    def nearest(self, wanted: Ids) -> tuple[float, int] | None:
        """Return a sim at which one group is most nearly the images at `wanted`, and one of them that is in it.

        `wanted` int64 (k,) are some of `there`. None where none would have the name of these (`LEAST_OVERLAP`).
        """
        shared = self._counts(wanted)
        overlaps = np.where(self._from < self._to, shared / (self._sizes + len(wanted) - shared), 0)
        best = int(overlaps.argmax())
        if not overlaps[best] >= LEAST_OVERLAP:
            return None
        inside = self._runs.order[self._runs.starts[best] : self._ends[best]]
        sim = 0.0 if best == len(shared) - 1 else _between(float(self._from[best]), float(self._to[best]))
        return sim, int(inside[np.isin(inside, wanted)][0])

    def _counts(self, places: Ids) -> Ids:
        """Return how many images at `places` each branch has, images first, int64 (2n - 1,)."""
        before = np.concatenate([[0], np.cumsum(np.isin(self._runs.order, places))])
        return np.asarray(before[self._ends] - before[self._runs.starts])


def _between(low: float, high: float) -> float:
    """Return a number between `low` and `high`, and in 0…1, with as few digits as there can be."""
    low = max(low, 0.0)
    middle = (low + high) / 2
    return next((found for digits in range(2, 9) if low < (found := round(middle, digits)) < high), middle)


# What groups hold.


def by_size(labels: Ids, names: Sequence[Named], *, min_csize: int = 2) -> dict[int, list[list[Named]]]:
    """Return imagecluster's answer {size: [[name, …], …]} of groups with at least `min_csize` images, the smallest size first."""
    if min_csize < 1:
        raise OptionError(f"min_csize is {min_csize}. Give a whole number from 1: the smallest group that is shown.")
    found: dict[int, list[list[Named]]] = {}
    for places in reversed(members(labels)):
        if len(places) >= min_csize:
            found.setdefault(len(places), []).append([names[place] for place in places.tolist()])
    return {size: groups[::-1] for size, groups in found.items()}


def statistics(groups: Mapping[int, Sequence[Sequence[object]]]) -> dict[int, int]:
    """Return {size: number of groups} of the answer of `by_size`, in order of size."""
    return {size: len(groups[size]) for size in sorted(groups)}


def members(labels: Ids) -> list[Ids]:
    """Return the places of each group's images, ascending, in order of the groups' numbers 0, 1, …"""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1]) if len(labels) else []


def centrals(labels: Ids, vectors: Vectors) -> Ids:
    """Return the place of each group's most central image, int64 (groups,): the one nearest to the mean of `vectors` (n, dim)."""
    sizes = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum(sizes) - sizes
    if not len(labels):
        return np.empty(0, dtype=np.int64)
    means = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64) / sizes[:, None]
    away = ((vectors - means[labels]) ** 2).sum(axis=1)
    nearest = np.lexsort((np.arange(len(labels)), away, labels))
    return np.asarray(nearest[starts], dtype=np.int64)


def match_groups(groups: Sequence[Ids], named: Sequence[Ids]) -> dict[int, int]:
    """Return which of `groups` each of `named` is now, {place in named: place in groups}: each at most once, best overlap first.

    Both hold image ids, int64 (m,), each id in at most one of `groups`. Overlap is Jaccard's: images in both ÷ images in either.
    What overlaps less than `LEAST_OVERLAP` with every group that is left is in none.
    """
    ids = np.concatenate([*groups, np.empty(0, dtype=np.int64)])
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    order = np.argsort(ids)
    pairs: list[tuple[float, int, int]] = []
    for number, wanted in enumerate(named):
        places = np.searchsorted(ids, wanted, sorter=order)
        inside = order[places[places < len(ids)]]
        hits = inside[ids[inside] == wanted[places < len(ids)]]
        for owner, shared in zip(*np.unique(owners[hits], return_counts=True), strict=True):
            overlap = float(shared / (len(wanted) + len(groups[owner]) - shared))
            if overlap >= LEAST_OVERLAP:
                pairs.append((-overlap, number, int(owner)))
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for _, number, owner in sorted(pairs):
        if number not in matched and owner not in taken:
            matched[number] = owner
            taken.add(owner)
    return matched


# On disk.


def save_tree(tree: Tree, path: Path) -> None:
    """Write `tree` as plain arrays (npz, no pickle)."""
    about = {**asdict(tree), "merges": None}
    with open(path, "wb") as file:
        np.savez(file, merges=tree.merges, about=np.array(json.dumps(about)))


def load_tree(path: Path) -> Tree:
    """Read what `save_tree` wrote. Raises `DamagedCollectionError` when it cannot be read or contradicts itself."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about: dict[str, Any] = json.loads(str(arrays["about"]))
            merges = np.asarray(arrays["merges"], dtype=np.float64)
        tree = Tree(**{**about, "merges": merges, "options": ClusterOptions(**about["options"])})
        _check_merges(tree)
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DamagedCollectionError(
            f"The tree of groups {path} is damaged ({error}). Run `python clusters.py` again: it makes it anew."
        ) from error
    return tree


def _check_merges(tree: Tree) -> None:
    from scipy.cluster.hierarchy import is_valid_linkage

    if tree.merges.shape != (max(tree.images - 1, 0), 4) or not math.isfinite(tree.max_distance):
        raise ValueError(f"{tree.merges.shape} merges of {tree.images} images")
    if len(tree.merges):
        is_valid_linkage(tree.merges, throw=True)


# Distances.


def _full_tree(vectors: Vectors, options: ClusterOptions, seconds: npt.NDArray[np.float64] | None) -> Tree:
    from scipy.cluster.hierarchy import linkage

    distances = content_distances(vectors, options.metric)
    if seconds is not None:
        _mix_in(distances, seconds, options.alpha)
    largest = float(distances.max())
    merges = linkage(distances, method=options.method)
    return Tree(merges, len(vectors), largest, options, "full", timed=seconds is not None)


def _graph_tree(vectors: Vectors, options: ClusterOptions, seconds: npt.NDArray[np.float64] | None) -> Tree:
    if options.method != "average" or options.metric not in ("euclidean", "cosine"):
        raise OptionError(
            f"{len(vectors):,} images cannot be linked by method {options.method} and metric {options.metric}: beyond "
            f"{FULL_IMAGES:,} there is no room for all distances, and only average with euclidean or cosine can do without them."
        )
    cosine = options.metric == "cosine"
    merges, largest = graph_linkage(vectors, cosine=cosine, alpha=options.alpha, seconds=seconds)
    return Tree(merges, len(vectors), largest, options, "graph", timed=seconds is not None)


def content_distances(vectors: Vectors, metric: str) -> Distances:
    """Return scipy's condensed distances of `vectors` (n, dim), float64 (n(n - 1)/2,); a vector of zeros has the cosine 0.

    Euclidean and cosine by products of matrices, on one core five times as fast as pair by pair at 1,280 numbers each.
    What is less than a millionth of the vectors' lengths apart is then at distance 0.
    """
    if metric not in ("euclidean", "cosine"):
        from scipy.spatial.distance import pdist

        # A vector whose numbers are all equal has no correlation with any other: not a number is told as 1, as for cosine.
        return np.asarray(np.nan_to_num(pdist(vectors.astype(np.float64), metric), copy=False, nan=1.0))
    wide = vectors - vectors.mean(axis=0, dtype=np.float64) if metric == "euclidean" else _directions(vectors)
    halves = np.vecdot(wide, wide) / 2 if metric == "euclidean" else np.full(len(wide), 0.5)
    found = np.empty(len(wide) * (len(wide) - 1) // 2)
    end = 0
    for start in range(0, len(wide), BLOCK_ROWS // 8):
        products = wide[start : start + BLOCK_ROWS // 8] @ wide[start:].T
        for row, with_others in enumerate(products):
            lengths = halves[start + row] + halves[start + row + 1 :]
            apart = lengths - with_others[row + 1 :]
            apart[apart < 1e-12 * lengths] = 0
            begin, end = end, end + len(apart)
            found[begin:end] = np.sqrt(2 * apart) if metric == "euclidean" else apart
    return found


def _directions(vectors: Vectors) -> Distances:
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(wide, wide))
    return np.asarray(wide / np.where(lengths == 0, 1, lengths)[:, None])


def _mix_in(content: Distances, seconds: npt.NDArray[np.float64], alpha: float) -> None:
    """Mix condensed distances of `content` with those of time, each divided by its largest, in place."""
    largest = content.max() or 1.0
    span, missing = time_scale(np.sort(seconds[~np.isnan(seconds)]))
    end = 0
    for row in range(len(seconds) - 1):
        apart = np.abs(seconds[row + 1 :] - seconds[row])
        apart[np.isnan(apart)] = missing
        begin, end = end, end + len(apart)
        content[begin:end] = (1 - alpha) * (content[begin:end] / largest) + alpha * (apart / span)


def principal_components(vectors: Vectors, components: int | float) -> Vectors:
    """Return `vectors` (n, dim) in their principal components, float32 (n, m): so many, or that share of variance."""
    from scipy.linalg import eigh

    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    wide = len(centred) < centred.shape[1]
    weights, axes = eigh(centred @ centred.T if wide else centred.T @ centred)
    weights = weights[::-1].clip(0)
    if isinstance(components, int):
        kept = min(components, len(weights))
    else:
        kept = int(np.searchsorted(np.cumsum(weights), components * weights.sum())) + 1
    axes = axes[:, ::-1][:, :kept]
    small = axes * np.sqrt(weights[:kept]) if wide else centred @ axes
    return np.ascontiguousarray(small, dtype=np.float32)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:  # not a number is neither
        raise OptionError(f"{name} is {value}. Give a number from 0 to 1.")


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise OptionError(f"There is no {name} {value!r}. Give one of {', '.join(known)}.")


if __name__ == "__main__":
    import sys

    from commands.clusters import main

    sys.exit(main(sys.argv[1:]))
