"""Average linkage of more images than have room for all their distances: over the graph of nearest neighbours.

The mean squared distance of all pairs between two groups is |mean - mean|² + variance + variance, so it is known exactly from two
sums, whatever the groups' sizes; the root of it (for cosine: half of it) is the distance that groups merge at. Only *which* pairs
are looked at is approximate: those joined by an edge of the graph of each image's `NEIGHBOURS` nearest. In rounds all pairs that
are each other's nearest merge, as scipy's algorithm would merge them one by one, and the graph is contracted. It is made anew of
the groups' means whenever three quarters of the groups have gone, and no edge is left unseen from `DENSE` groups on: those are
linked by all their distances.

So heights are roots of mean squares where scipy's are means: a little larger. With times the two terms are mixed as images' are.

Owns no options and no cut (`clusters.py`). Source of merging reciprocal nearest neighbours: Murtagh 1983, "A survey of recent
advances in hierarchical clustering algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vectors import BLOCK_ROWS, Ids, Vectors, exact_neighbours, unit_vectors

NEIGHBOURS = 20
DENSE = 4_096
"""So few groups are linked by all their distances: two matrices of 134 MB."""
SHRUNK = 4
QUERY_ROWS = 1_024
EDGES_AT_A_TIME = 65_536
SWEEP_ROWS = 512
SEED = 19_830_101

Numbers = npt.NDArray[np.float64]
Merges = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mix:
    """How content and time make one distance: each divided by its largest, `alpha` the weight of time; 0 without times.

    `missing` is the seconds between two images of which one has no time.
    """

    cosine: bool
    alpha: float = 0.0
    content: float = 1.0
    seconds: float = 1.0
    missing: float = 0.0

    def distances(self, squares: npt.NDArray[Any], times: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return distances of mean squared distances, of vectors (of unit vectors for cosine) and of seconds."""
        content = squares / 2 if self.cosine else np.sqrt(squares)
        if not self.alpha:
            return np.asarray(content)
        return np.asarray(content * ((1 - self.alpha) / self.content) + np.sqrt(times) * (self.alpha / self.seconds))


@dataclass(frozen=True)
class Groups:
    """Groups by what is enough to tell their distances; `nodes` int64 (m,) are their numbers in the tree.

    `means` float32 (m, dim), `variances` and `sizes` float64 (m,) are those of vectors; `time_means`, `time_variances` those of
    the images that have a time, `known` the share of them.
    """

    nodes: Ids
    means: Vectors
    variances: Numbers
    sizes: Numbers
    time_means: Numbers
    time_variances: Numbers
    known: Numbers

    def __len__(self) -> int:
        return len(self.nodes)


def graph_linkage(vectors: Vectors, *, cosine: bool, alpha: float, seconds: Numbers | None) -> tuple[Merges, float]:
    """Link `vectors` float32 (n, dim) by average; return merges float64 (n - 1, 4) as scipy's linkage, and the largest distance.

    `seconds` float64 (n,), NaN where missing, are mixed in with weight `alpha`. The largest distance is the largest found from
    `SWEEP_ROWS` images by chance to all others, and from the farthest of those again. Memory is that of the vectors, of
    2 · `NEIGHBOURS` numbers an image, and of `DENSE`² distances.
    """
    images, mix = single_images(vectors, cosine=cosine, alpha=alpha, seconds=seconds)
    largest = _largest(images, mix)
    links = _Links(len(images))
    groups = _merge_copies(images, links)
    edges, keys = np.empty((0, 2), dtype=np.int64), np.empty(0)
    made_of = len(groups)
    while len(groups) > DENSE:
        if not len(edges) or len(groups) * SHRUNK <= made_of:
            made_of = len(groups)
            edges = _neighbours(groups, mix)
            keys = _edge_distances(groups, edges, mix)
        groups, edges, keys = _merge_round(groups, edges, keys, mix, links)
    _link_all(groups, mix, links)
    return links.as_merges(), largest


class _Links:
    """The merges in the order in which they were made, and at last in that of their heights."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.made = 0
        self._parts: list[tuple[Ids, Ids, Numbers]] = []

    def add(self, left: Ids, right: Ids, heights: Numbers) -> Ids:
        """Remember that nodes merged; return the numbers of the new nodes."""
        self._parts.append((left, right, heights))
        start = self.images + self.made
        self.made += len(left)
        return np.arange(start, self.images + self.made, dtype=np.int64)

    def as_merges(self) -> Merges:
        left, right, heights = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        # An edge that the graph lacks may have let a farther pair merge first: no merge is lower than those that made its parts.
        high = np.concatenate([np.zeros(self.images), heights])
        sizes = np.concatenate([np.ones(self.images), np.zeros(len(heights))])
        for number, (one, other) in enumerate(zip(left.tolist(), right.tolist(), strict=True), start=self.images):
            high[number] = max(high[number], high[one], high[other])
            sizes[number] = sizes[one] + sizes[other]
        order = np.argsort(high[self.images :], kind="stable")
        ranks = np.arange(2 * self.images - 1)
        ranks[self.images + order] = self.images + np.arange(len(order))
        pairs = np.sort(np.stack([ranks[left], ranks[right]], axis=1), axis=1)
        return np.column_stack([pairs, high[self.images :], sizes[self.images :]])[order]


def single_images(vectors: Vectors, *, cosine: bool, alpha: float, seconds: Numbers | None) -> tuple[Groups, Mix]:
    """Return each of `vectors` (n, dim) as a group of its own, and how their distances are mixed; as for `graph_linkage`."""
    count = len(vectors)
    times = np.full(count, np.nan) if seconds is None else seconds
    known = ~np.isnan(times)
    # From their mean, because squares of seconds since 1970 have no digits left for a second.
    times = np.where(known, times - (times[known].mean() if known.any() else 0.0), 0.0)
    means = unit_vectors(vectors) if cosine else vectors.astype(np.float32)
    places, zeros = np.arange(count, dtype=np.int64), np.zeros(count)
    images = Groups(places, means, zeros, np.ones(count), times, zeros, known.astype(np.float64))
    mix = Mix(cosine)
    if seconds is not None and alpha:
        content = _largest(images, mix) or 1.0
        mix = Mix(cosine, alpha, content, *time_scale(np.sort(times[known])))
    return images, mix


def time_scale(times: Numbers) -> tuple[float, float]:
    """Return the largest and the mean difference of `times`, ascending; 1 and 0 where there is none."""
    count = len(times)
    if count < 2:
        return 1.0, 0.0
    # Each gap lies between as many pairs as there are times below it, times those above.
    between = np.arange(1, count) * (count - np.arange(1, count))
    return float(times[-1] - times[0]) or 1.0, float((np.diff(times) * between).sum()) / (count * (count - 1) / 2)


def _largest(images: Groups, mix: Mix) -> float:
    rows = np.sort(np.random.default_rng(SEED).permutation(len(images))[:SWEEP_ROWS])
    largest = 0.0
    for _ in range(2):
        farthest = []
        for start in range(0, len(rows), 64):
            found = _between(images, rows[start : start + 64], mix)
            farthest.append(found.argmax(axis=1))
            largest = max(largest, float(found.max()))
        rows = np.unique(np.concatenate(farthest))
    return largest


def _between(groups: Groups, rows: Ids, mix: Mix) -> Numbers:
    """Return the distances of the groups at `rows` to all, float64 (r, m)."""
    lengths = np.vecdot(groups.means, groups.means).astype(np.float64)
    squares = lengths[rows, None] + lengths - 2 * (groups.means[rows] @ groups.means.T)
    squares = squares.clip(0) + groups.variances[rows, None] + groups.variances
    return mix.distances(squares, _time_squares(groups, rows[:, None], np.arange(len(groups)), mix))


def _time_squares(groups: Groups, left: Ids, right: Ids, mix: Mix) -> Numbers:
    """Return the mean squared seconds between groups, places broadcast; pairs of which one has no time count as `missing`."""
    if not mix.alpha:
        return np.zeros(())
    known = groups.known[left] * groups.known[right]
    apart = (groups.time_means[left] - groups.time_means[right]) ** 2
    apart += groups.time_variances[left] + groups.time_variances[right]
    return known * apart + (1 - known) * mix.missing**2


def _edge_distances(groups: Groups, edges: Ids, mix: Mix) -> Numbers:
    found = np.empty(len(edges))
    for start in range(0, len(edges), EDGES_AT_A_TIME):
        left, right = edges[start : start + EDGES_AT_A_TIME].T
        apart = groups.means[left] - groups.means[right]
        squares = np.vecdot(apart, apart) + groups.variances[left] + groups.variances[right]
        found[start : start + EDGES_AT_A_TIME] = mix.distances(squares, _time_squares(groups, left, right, mix))
    return found


def _neighbours(groups: Groups, mix: Mix) -> Ids:
    """Return the edges of the graph of nearest groups, int64 (e, 2), each once, the smaller place first.

    Neighbours are by euclidean distance, in which a time is one more number; the largest of x·y - (|y|² + variance)/2 is nearest.
    """
    points = groups.means
    if mix.alpha:
        # Not above a hundred times: float32 would have no digits left for the content.
        weight = mix.alpha / max(1 - mix.alpha, 0.01)
        times = groups.time_means * (weight * mix.content / mix.seconds)
        points = np.column_stack([points, times]).astype(np.float32)
    rest = -(np.vecdot(points, points).astype(np.float64) + groups.variances) / 2
    known = np.column_stack([points, rest]).astype(np.float32)
    blocks = [known[start : start + BLOCK_ROWS] for start in range(0, len(known), BLOCK_ROWS)]
    edges = []
    for start in range(0, len(known), QUERY_ROWS):
        queries = known[start : start + QUERY_ROWS].copy()
        queries[:, -1] = 1
        nearest, _ = exact_neighbours(queries, blocks, NEIGHBOURS + 1)
        own = np.repeat(np.arange(start, start + len(queries)), nearest.shape[1])
        edges.append(np.sort(np.stack([own, nearest.ravel()], axis=1), axis=1))
    return _once(np.concatenate(edges), len(groups))


def _once(edges: Ids, count: int) -> Ids:
    """Return `edges` between `count` groups without those from a group to itself, each once."""
    codes = np.unique(edges[:, 0] * count + edges[:, 1])
    found = np.stack([codes // count, codes % count], axis=1)
    return np.asarray(found[found[:, 0] != found[:, 1]])


def _merge_round(groups: Groups, edges: Ids, keys: Numbers, mix: Mix, links: _Links) -> tuple[Groups, Ids, Numbers]:
    """Merge all pairs that are each other's nearest by `keys`, the distances along `edges`, and contract the graph."""
    chosen = _reciprocal(edges, keys, len(groups))
    left, right = edges[chosen].T
    after, new = _contracted(groups, left, right, keys[chosen], links)
    edges = np.sort(new[edges], axis=1)
    touched = edges[:, 1] >= len(after) - len(chosen)
    again = _once(edges[touched], len(after))
    distances = _edge_distances(after, again, mix)
    return after, np.concatenate([edges[~touched], again]), np.concatenate([keys[~touched], distances])


def _contracted(groups: Groups, left: Ids, right: Ids, heights: Numbers, links: _Links) -> tuple[Groups, Ids]:
    """Merge pairs of places; return the groups there are now, the merged ones last, and where each of `groups` is among them."""
    merged = _merged(groups, left, right, links.add(groups.nodes[left], groups.nodes[right], heights))
    kept = np.ones(len(groups), dtype=bool)
    kept[left] = kept[right] = False
    new = np.cumsum(kept) - 1
    new[left] = new[right] = kept.sum() + np.arange(len(left))
    names = groups.__dataclass_fields__
    after = Groups(*(np.concatenate([getattr(groups, name)[kept], getattr(merged, name)]) for name in names))
    return after, new


def _reciprocal(edges: Ids, keys: Numbers, count: int) -> Ids:
    """Return the places of the edges whose ends are each other's nearest; of equal ones the first, so that no group is in two."""
    nearest = np.full(count, np.inf)
    for ends in edges.T:
        np.minimum.at(nearest, ends, keys)
    places = np.flatnonzero((keys == nearest[edges[:, 0]]) & (keys == nearest[edges[:, 1]]))
    first = np.full(count, len(edges))
    for ends in edges[places].T:
        np.minimum.at(first, ends, places)
    own = (first[edges[places, 0]] == places) & (first[edges[places, 1]] == places)
    return np.asarray(places[own])


def _merged(groups: Groups, left: Ids, right: Ids, nodes: Ids) -> Groups:
    """Return the groups that the groups at `left` and `right` become."""
    sizes = groups.sizes[left] + groups.sizes[right]
    share = groups.sizes[right] / sizes
    apart = groups.means[right] - groups.means[left]
    means = groups.means[left] + apart * share[:, None].astype(np.float32)
    variances = (1 - share) * groups.variances[left] + share * groups.variances[right]
    variances = variances + share * (1 - share) * np.vecdot(apart, apart)
    timed = groups.sizes * groups.known
    known = timed[left] + timed[right]
    of = timed[right] / np.maximum(known, 1)
    gaps = groups.time_means[right] - groups.time_means[left]
    time_means = groups.time_means[left] + of * gaps
    spread = (1 - of) * groups.time_variances[left] + of * groups.time_variances[right] + of * (1 - of) * gaps**2
    return Groups(nodes, means, variances, sizes, time_means, spread, known / sizes)


def _merge_copies(groups: Groups, links: _Links) -> Groups:
    """Merge images with equal vectors and times, at height 0: each other's neighbours alone, they would hide all others."""
    codes = _same(groups)
    while len(np.unique(codes)) < len(codes):
        order = np.argsort(codes, kind="stable")
        _, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
        ranks = np.arange(len(codes)) - np.repeat(starts, sizes)
        lefts = np.flatnonzero((ranks % 2 == 0) & (ranks + 1 < np.repeat(sizes, sizes)))
        left, right = order[lefts], order[lefts + 1]
        groups, new = _contracted(groups, left, right, np.zeros(len(left)), links)
        after = np.empty(len(groups), dtype=np.int64)
        after[new] = codes
        codes = after
    return groups


def _same(groups: Groups) -> Ids:
    """Return a number for each group, the same for those that are equal to the bit."""
    parts = (groups.means, groups.time_means[:, None], groups.known[:, None])
    raw = np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=1)
    _, codes = np.unique(raw.view(f"V{raw.shape[1]}")[:, 0], return_inverse=True)
    return np.asarray(codes, dtype=np.int64)


def _link_all(groups: Groups, mix: Mix, links: _Links) -> None:
    """Link `groups` by all their distances, by chains of nearest neighbours."""
    count, places = len(groups), np.arange(len(groups))
    squares, times = _all_squares(groups, mix)
    distances = mix.distances(squares, times)
    np.fill_diagonal(distances, np.inf)
    nodes, sizes = groups.nodes.copy(), groups.sizes.copy()
    chain: list[int] = []
    for _ in range(count - 1):
        left, right = _chain_end(distances, chain, nodes)
        height = distances[left, right]
        share = sizes[left] / (sizes[left] + sizes[right])
        for matrix in (squares, times):
            if matrix.ndim:
                matrix[right] += share * (matrix[left] - matrix[right])
                matrix[:, right] = matrix[right]
        row = mix.distances(squares[right], times[right] if times.ndim else times)
        row[(nodes < 0) | (places == right) | (places == left)] = np.inf
        distances[right] = distances[:, right] = row
        distances[left] = distances[:, left] = np.inf
        nodes[right] = links.add(nodes[[left]], nodes[[right]], np.array([height]))[0]
        sizes[right] += sizes[left]
        nodes[left] = -1


def _chain_end(distances: Numbers, chain: list[int], nodes: Ids) -> tuple[int, int]:
    """Go on with `chain`, each the nearest of the one before, to two that are each other's nearest; take them off it."""
    if not chain:
        chain.append(int(np.flatnonzero(nodes >= 0)[0]))
    while True:
        last = chain[-1]
        nearest = int(distances[last].argmin())
        if len(chain) > 1 and distances[last, chain[-2]] <= distances[last, nearest]:
            chain.pop()
            return last, chain.pop()
        chain.append(nearest)


def _all_squares(groups: Groups, mix: Mix) -> tuple[Numbers, Numbers]:
    """Return the mean squared distances of all groups to all, of vectors and of seconds, float64 (m, m)."""
    means = groups.means.astype(np.float64)
    lengths = np.vecdot(means, means) + groups.variances
    squares = (lengths[:, None] + lengths - 2 * (means @ means.T)).clip(0)
    places = np.arange(len(groups))
    return squares, _time_squares(groups, places[:, None], places, mix)
