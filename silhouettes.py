"""How well the groups of a cut stand apart, and so where to cut a tree without knowing any label.

The silhouette of an image is (b - a) / max(a, b): a is its distance from its own group, b from the nearest other; 0 for an image
alone. Here a distance from a group is the root of the mean squared distance to all its images, which follows from sums: exact for
whole groups, however small they are, where a sample of images would hold none of its fellows. The mean is over a seeded sample.

Tried and not taken: silhouettes of pairs in a sample propose the same cuts where groups are large and see none of a few in many
thousand; leaving groups of one image out as "other" proposes 1,714 groups of flowers in place of 16; counting only images whose
nearest other group has two or more proposes 60 groups of 300 copied photographs in place of 355.

Owns no tree and no `sim` (`clusters.py`). Source: Rousseeuw 1987, "Silhouettes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from linkages import Groups, Mix
from vectors import Ids, Vectors

SAMPLE_IMAGES = 2_000
COARSE = 48
"""So many cuts are looked at first, at numbers of groups that grow by a factor; then `FINE` on each side of the best, closer."""
FINE = 12
FLAT = 0.025
"""Of peaks that differ by no more the coarsest is taken: the curve of a collection without clear groups is flat and has many."""
APART = 4
"""A cut counts in full where two images by chance are in different groups at least once in so many times."""
NUMBERS_AT_A_TIME = 16_000_000
SEED = 19_870_101

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Leaves:
    """The images of a tree side by side: `order` int64 (n,), and the height at which each joins the next, float64 (n - 1,).

    Of every node of the tree, images first: the place of its first image, `starts` int64 (2n - 1,), and the height from which
    cuts have it, `heights` float64 (2n - 1,).
    """

    order: Ids
    joins: Numbers
    starts: Ids
    heights: Numbers


def leaves(merges: npt.NDArray[np.float64]) -> Leaves:
    """Return the images of a linkage (n - 1, 4) in an order in which every group of every cut is a run of neighbours.

    Heights are those at which a cut joins: none is lower than one below it.
    """
    count = len(merges) + 1
    heads, tails, highs = list(range(count)), list(range(count)), [0.0] * count
    following, joins = [-1] * count, [0.0] * count
    for left, right, height in zip(*merges[:, :2].astype(int).T.tolist(), merges[:, 2].tolist(), strict=True):
        high = max(height, highs[left], highs[right])
        following[tails[left]], joins[tails[left]] = heads[right], high
        heads.append(heads[left])
        tails.append(tails[right])
        highs.append(high)
    order = [heads[-1]]
    while following[order[-1]] >= 0:
        order.append(following[order[-1]])
    places = np.array(order, dtype=np.int64)
    found = np.empty(count, dtype=np.int64)
    found[places] = np.arange(count)
    return Leaves(places, np.array(joins)[places[:-1]], found[heads], np.array(highs))


def best_gap(merges: npt.NDArray[np.float64], images: Groups, mix: Mix, highest: float) -> tuple[float, float] | None:
    """Return the heights between which a cut makes the groups that stand apart best; None where no groups stand apart.

    `images` are groups of one image each (`linkages.single_images`), measured by `mix`. Cuts above `highest` are left out,
    and those that leave one group or every image alone.
    """
    tree = leaves(merges)
    heights = np.unique(tree.joins)
    gaps = np.flatnonzero((np.diff(heights) > 1e-9 * heights[-1]) & (heights[:-1] < highest))
    if not len(gaps):
        return None
    counts = len(tree.joins) - np.searchsorted(np.sort(tree.joins), heights[gaps], side="right") + 1
    sums = _Sums(images, tree.order, mix)

    def measure(wanted: npt.NDArray[Any]) -> tuple[list[int], list[float]]:
        places = np.unique(wanted.astype(np.int64)).tolist()
        return places, sums.scores([tree.joins > heights[gaps[at]] for at in places])

    first = np.searchsorted(-counts, -np.geomspace(counts.min(), counts.max(), COARSE)).clip(0, len(gaps) - 1)
    places, scores = measure(first)
    best = _coarsest_peak(scores)
    while max(np.diff(places[max(best - 1, 0) : best + 2]), default=0) > 1:
        near = places[max(best - 1, 0)], places[best], places[min(best + 1, len(places) - 1)]
        places, scores = measure(np.concatenate([np.linspace(*near[:2], FINE), np.linspace(*near[1:], FINE)]))
        best = int(np.argmax(scores))
    gap = gaps[places[best]]
    return (float(heights[gap]), float(heights[gap + 1])) if scores[best] > 0 else None


def _coarsest_peak(scores: Sequence[float]) -> int:
    """Return the place of the last peak of `scores`, the finest cut first, that is as high as the highest but for `FLAT`."""
    padded = np.concatenate([[-np.inf], scores, [-np.inf]])
    peaks = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:])
    return int(np.flatnonzero(peaks & (padded[1:-1] >= padded.max() - FLAT * abs(padded.max())))[-1])


class _Sums:
    """What the distances of a sample from runs of images follow from, the images in the order of a tree's leaves."""

    def __init__(self, images: Groups, order: Ids, mix: Mix) -> None:
        sample = np.random.default_rng(SEED).permutation(len(order))[:SAMPLE_IMAGES]
        self._mix = mix
        self._places = np.sort(np.argsort(order)[sample])
        self._vectors, known = images.means[order], images.known[order]
        times = images.time_means[order] * known
        lengths = np.vecdot(self._vectors, self._vectors)
        self._columns = np.column_stack([lengths, known, times, times**2])

    def scores(self, cuts: Sequence[npt.NDArray[np.bool_]]) -> list[float]:
        """Return the mean silhouette of the sample at each of `cuts`, the finest first: after which leaves their groups end.

        It is made smaller where nearly all images are in one group: an odd one beside it makes a good silhouette of all others.
        """
        ends = [np.concatenate([[0], np.flatnonzero(cut) + 1]) for cut in cuts]
        totals = np.zeros(len(cuts))
        step = max(1, NUMBERS_AT_A_TIME // len(self._vectors))
        for at in range(0, len(self._places), step):
            places = self._places[at : at + step]
            products, known = self._vectors @ self._vectors[places].T, np.arange(len(self._vectors))
            for number, starts in enumerate(ends):
                products = np.add.reduceat(products, np.searchsorted(known, starts), axis=0)
                known = starts
                totals[number] += self._widths(products, starts, places).sum()
        shares = [np.diff(starts, append=len(self._vectors)) / len(self._vectors) for starts in ends]
        apart = np.array([min(1.0, APART * (1 - float((share**2).sum()))) for share in shares])
        return [float(score) for score in apart * totals / len(self._places)]

    def _widths(self, products: Vectors, starts: Ids, places: Ids) -> Numbers:
        """Return the silhouettes of the images at `places`, given the `products` of their vectors with each group's, summed."""
        sizes = np.diff(starts, append=len(self._vectors))
        means = np.add.reduceat(self._columns, starts, axis=0) / sizes[:, None]
        own, columns = np.searchsorted(starts, places, side="right") - 1, np.arange(len(places))
        many = sizes[own]
        others = np.maximum(many - 1, 1)
        squares = products * (-2 / sizes[:, None]).astype(np.float32)
        squares += means[:, :1].astype(np.float32)
        squares += self._columns[places, 0].astype(np.float32)
        np.maximum(squares, 0, out=squares)
        squares[own, columns] *= many / others
        times = np.zeros(())
        if self._mix.alpha:
            times = self._times(means, places)
            itself = (1 - self._columns[places, 1]) * self._mix.missing**2
            times[own, columns] = (times[own, columns] * many - itself) / others
        distances = self._mix.distances(squares, times)
        inside = distances[own, columns].copy()
        distances[own, columns] = np.inf
        outside = distances.min(axis=0)
        widths = (outside - inside) / np.maximum(np.maximum(inside, outside), np.finfo(np.float32).tiny)
        return np.asarray(np.where(many > 1, widths, 0.0))

    def _times(self, means: Numbers, places: Ids) -> Numbers:
        """Return the mean squared seconds between groups, by the `means` of their columns, and the images at `places`."""
        _, share, seconds, squares = means.T[:, :, None]
        _, known, own, own_squares = self._columns[places].T
        apart = known * squares - 2 * own * seconds + own_squares * share
        return np.asarray(apart.clip(0) + (1 - known * share) * self._mix.missing**2)
