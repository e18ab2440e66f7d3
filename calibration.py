"""What a similarity means in one collection: against random pairs of it, and against how near its images lie to each other.

A cosine of 0.6 is a near match for one network and collection and nothing for another. When a generation is built, the cosines of
the pairs of a seeded sample are kept as quantiles: "closer than 99.97 % of random pairs", never more than so many pairs can show.

Matches are good down to a bar: the similarity that 90 % of the collection's own images reach with the nearest other one (copies,
from 0.99 on, left out: the same picture twice says nothing about likeness). Where a query's own curve bends above it, that is,
falls at one place by more than half of its whole fall, its good matches end there.

Measured with photographs that are not in the collection, five times 300 of classes that are not in it (a fifth of all) and 300
of classes that are: on caltech101-dev "no good match" is said of 88 % of the former and 9 % of the latter, on flowers with
Inception v3 of 34 % and 11 %: one flower is much like another. How steeply the curve falls, or how far the query stands out from
its own curve, tells strangers less well than the bar does: area under the ROC curve 0.55 to 0.93, not 0.95, on caltech101-dev.

A *cliff*, a fall by a quarter of the way from the median random pair to the bar at once, ends the good matches too where it lies
below the bar: in the sample collection, whose images have eleven siblings each, 9.0 of twelve are good with it and 6.8 without,
0.2 % of them wrong. The figures above change by less than 0.01.

Does not own distances or order. Source of the share for a sample's extremes: Phipson and Smyth 2010, "Permutation p-values should
never be zero".
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from store import Snapshot
from vectors import Vectors, exact_neighbours, unit_blocks, unit_vectors

Shares = npt.NDArray[np.float64]

SAMPLE_IMAGES = 2_048
"""All pairs of them are about two million."""
SAMPLE_QUERIES = 500
OWN_SHARE = 0.10
"""Of the collection's own images so many do not reach its bar. At 0.05 it turns away a tenth fewer of those it should."""
COPY = 0.99
CURVE = 25
"""How many nearest of an image are looked at, itself among them."""
TAILS = (1e-2, 1e-3, 1e-4, 1e-5)
FEWEST_BEYOND = 10
"""No quantile is kept that fewer pairs than these lie beyond."""
CLIFF = 0.25
"""Of the way from the median random pair up to the bar: where a curve falls by so much at once, what is good ends there."""
BEND_SHARE = 0.5
LEAST_FALLS = 4
"""Of fewer falls one is often more than half without meaning anything."""
LEAST_IMAGES = 20
"""With fewer images the collection says nothing about what is near."""
SEED = 20_101_031


@dataclass(frozen=True)
class Calibration:
    """What similarities mean in one collection; its fields are what the generation's manifest holds, JSON-able.

    Of `pairs` random pairs the share `shares[i]` (ascending, the last is 1) has a cosine of at most `cosines[i]`. `bar` is the
    least similarity of a good match, `matches` how many the median image has among its 24 nearest; both None where there are too
    few images to tell.
    """

    pairs: int
    shares: Sequence[float]
    cosines: Sequence[float]
    bar: float | None
    matches: float | None

    def share_closer(self, similarity: float) -> float:
        """Return which share 0…1 of random pairs is less alike than `similarity`: rounded down, at most n/(n+1) for n pairs."""
        below = bisect.bisect_left(self.cosines, similarity)
        if below == 0:
            return 0.0
        return self.pairs / (self.pairs + 1) if below == len(self.shares) else self.shares[below - 1]

    def good_matches(self, similarities: Sequence[float]) -> int:
        """Return how many of a query's matches, given by similarity, best first, are good: 0 says that there is no good match."""
        return min(self.kind_matches(similarities), _bend(np.asarray(similarities, dtype=np.float64)))

    def kind_matches(self, similarities: Sequence[float]) -> int:
        """Return the same where the same kind of thing is asked for: behind the bend of a copy come others of its kind."""
        curve = np.asarray(similarities, dtype=np.float64)
        if self.bar is None:
            return len(curve)
        middle = self.cosines[int(np.searchsorted(self.shares, 0.5))]
        height = CLIFF * (self.bar - middle)
        # A bar that is no higher than the middle (a collection of one picture) would make a cliff of every step.
        cliffs = np.flatnonzero((-np.diff(curve) >= height) & (height > 0))
        return max(int((curve >= self.bar).sum()), int(cliffs.max(initial=-1)) + 1)


def _bend(curve: Shares) -> int:
    """Return after how many of `curve`, descending, it falls by more than half of its whole fall at once; all where it does not.

    Copies of the query at the head belong to no curve.
    """
    copies = int((curve >= COPY).sum())
    falls = -np.diff(curve[copies:])
    if len(falls) < LEAST_FALLS or falls.max() <= BEND_SHARE * falls.sum():
        return len(curve)
    return copies + int(falls.argmax()) + 1


def measure_calibration(snapshot: Snapshot) -> Calibration:
    """Sample random pairs and nearest neighbours of `snapshot`, repeatably and in blocks. Any number of images will do."""
    random = np.random.default_rng(SEED)
    places = np.arange(len(snapshot))
    if len(places) > SAMPLE_IMAGES:
        places = np.sort(random.choice(places, SAMPLE_IMAGES, replace=False))
    units = unit_vectors(snapshot.take(places))
    cosines = np.sort((units @ units.T)[np.triu_indices(len(units), k=1)].astype(np.float64))
    shares = _shares(len(cosines))
    at = np.maximum(np.ceil(shares * len(cosines)).astype(np.int64) - 1, 0)
    found = cosines[at].round(6) if len(cosines) else cosines
    queries = np.sort(random.permutation(len(units))[:SAMPLE_QUERIES])
    calibration = Calibration(len(cosines), shares.tolist(), found.tolist(), None, None)
    if len(snapshot) < LEAST_IMAGES:
        return calibration
    _, similarities = exact_neighbours(units[queries], unit_blocks(snapshot), CURVE)
    calibration = replace(calibration, bar=_bar(similarities))
    counts = [calibration.good_matches(curve) for curve in similarities[:, 1:]]
    return replace(calibration, matches=float(np.median(counts)))


def _shares(pairs: int) -> Shares:
    """Return for which shares of so many pairs quantiles are kept: hundredths, ever finer towards the nearest pairs, and all."""
    if not pairs:
        return np.empty(0)
    shares = np.concatenate([np.arange(0.01, 0.99, 0.01), *(1 - rest * np.arange(1, 0.1, -0.1) for rest in TAILS)])
    return np.append(shares[(1 - shares) * pairs >= FEWEST_BEYOND], 1.0).round(12)


def _bar(similarities: Vectors) -> float | None:
    """Return the similarity all but `OWN_SHARE` of images reach with the nearest that is no copy, from (q, m) best first."""
    others = np.where(similarities < COPY, similarities, -np.inf).max(axis=1, initial=-np.inf)
    others = others[others > -np.inf]
    return round(float(np.quantile(others, OWN_SHARE)), 6) if len(others) else None
