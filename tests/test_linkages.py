"""Trees over the graph of nearest neighbours against those over all distances."""

from __future__ import annotations

import numpy as np
import pytest

import clusters
import linkages
import silhouettes
from clusters import ClusterOptions, Tree, build_tree, cut, propose_sim
from errors import OptionError
from vectors import Ids, Vectors, unit_vectors


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the graph take over where tests can still afford all distances."""
    monkeypatch.setattr(clusters, "FULL_IMAGES", 100)
    monkeypatch.setattr(linkages, "DENSE", 60)


def uneven(count: int = 1_500, *, seed: int = 0) -> tuple[Vectors, Ids]:
    """Return unit vectors of 30 groups, the largest fifty times the smallest, as loose as photographs of one kind are."""
    random = np.random.default_rng(seed)
    shares = np.geomspace(50, 1, 30)
    labels = random.choice(30, count, p=shares / shares.sum())
    spread = random.uniform(0.3, 0.9, 30)[labels, None]
    return unit_vectors(random.normal(size=(30, 24))[labels] + spread * random.normal(size=(count, 24))), labels


def agreement(one: Ids, other: Ids) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, other))


def mean_square_tree(vectors: Vectors) -> Tree:
    """Return the tree over all mean squared distances, by scipy: what the graph comes near to."""
    from scipy.cluster.hierarchy import linkage

    merges = linkage(clusters.content_distances(vectors, "euclidean") ** 2, "average")
    merges[:, 2] **= 0.5
    return Tree(merges, len(vectors), build_tree(vectors).max_distance)


def by_graph(vectors: Vectors, options: ClusterOptions | None = None) -> Tree:
    """Return the tree over the graph, whatever the number of images."""
    options = options or ClusterOptions()
    merges, largest = linkages.graph_linkage(
        vectors, cosine=options.metric == "cosine", alpha=options.alpha, seconds=None
    )
    return Tree(merges, len(vectors), largest, options, "graph")


def test_with_room_for_all_distances_the_tree_is_that_of_scipy_over_mean_squares() -> None:
    vectors, _ = uneven(300)
    found, expected = by_graph(vectors), mean_square_tree(vectors)
    assert np.allclose(found.merges[:, 2:], expected.merges[:, 2:], atol=1e-5)
    assert found.max_distance == pytest.approx(expected.max_distance, rel=1e-5)


def test_by_cosine_the_tree_is_that_of_scipy_itself() -> None:
    from scipy.cluster.hierarchy import linkage

    vectors, _ = uneven(300)
    found = by_graph(3 * vectors, ClusterOptions(metric="cosine"))
    assert np.allclose(found.merges[:, 2], linkage(vectors.astype(float), "average", "cosine")[:, 2], atol=1e-5)


@pytest.mark.usefixtures("small_limits")
def test_a_cut_over_the_graph_is_nearly_that_over_all_distances() -> None:
    vectors, labels = uneven()
    tree, full = build_tree(vectors), mean_square_tree(vectors)
    assert tree.how == "graph"
    assert min(agreement(cut(tree, sim), cut(full, sim)) for sim in (0.2, 0.3, 0.4, 0.5)) > 0.95
    assert agreement(cut(tree, propose_sim(tree, vectors)), labels) > 0.9


@pytest.mark.usefixtures("small_limits")
def test_times_are_mixed_in_over_the_graph_as_over_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = uneven(600)
    seconds = np.random.default_rng(3).choice([0.0, 4e6, 9e6], 600) + np.random.default_rng(4).uniform(0, 9e4, 600)
    seconds[::9] = np.nan
    options = ClusterOptions(alpha=0.5)
    tree = build_tree(vectors, options, seconds=seconds)
    monkeypatch.setattr(clusters, "FULL_IMAGES", 1_000)
    full = build_tree(vectors, options, seconds=seconds)
    assert (tree.how, full.how) == ("graph", "full")
    assert tree.max_distance == pytest.approx(full.max_distance, rel=1e-4)
    assert min(agreement(cut(tree, sim), cut(full, sim)) for sim in (0.6, 0.7)) > 0.95


@pytest.mark.usefixtures("small_limits")
def test_a_tree_over_the_graph_is_whole_and_never_falls() -> None:
    from scipy.cluster.hierarchy import is_valid_linkage

    vectors, _ = uneven(700)
    tree = build_tree(vectors)
    assert is_valid_linkage(tree.merges)
    assert (np.diff(tree.merges[:, 2]) >= 0).all()
    assert tree.merges[-1, 3] == 700
    again = build_tree(vectors)
    assert np.array_equal(tree.merges, again.merges)


def test_no_merge_is_lower_than_those_that_made_its_parts() -> None:
    links = linkages._Links(3)
    pair = links.add(np.array([0]), np.array([1]), np.array([0.5]))
    links.add(pair, np.array([2]), np.array([0.4]))
    assert links.as_merges().tolist() == [[0, 1, 0.5, 2], [2, 3, 0.5, 3]]


@pytest.mark.usefixtures("small_limits")
def test_many_copies_do_not_hide_the_rest_of_the_graph() -> None:
    vectors, labels = uneven(500)
    vectors = np.concatenate([vectors, np.repeat(vectors[:3], 90, axis=0)])
    tree = build_tree(vectors)
    assert (tree.merges[:270, 2] == 0).all()
    assert tree.merges[270, 2] > 0
    cuts = cut(tree, 0.9999)
    assert all(len(np.unique(cuts[[place, *range(500 + 90 * place, 590 + 90 * place)]])) == 1 for place in range(3))
    assert len(labels) == 500


@pytest.mark.usefixtures("small_limits")
def test_equal_images_are_one_group_over_the_graph_too() -> None:
    tree = build_tree(np.full((150, 3), 0.5, dtype=np.float32))
    assert (tree.how, cut(tree, 0.5).max(), cut(tree, 1).max()) == ("graph", 0, 149)


@pytest.mark.usefixtures("small_limits")
def test_islands_without_an_edge_between_them_are_linked_too() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(80), 40)
    vectors = (random.normal(size=(80, 16))[labels] + 1e-3 * random.normal(size=(3_200, 16))).astype(np.float32)
    tree = build_tree(vectors)
    assert agreement(cut(tree, propose_sim(tree, vectors)), labels) == 1


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("options", [ClusterOptions("single"), ClusterOptions(metric="cityblock")])
def test_what_needs_all_distances_is_refused_where_there_is_no_room(options: ClusterOptions) -> None:
    with pytest.raises(OptionError, match="101 images cannot be linked by method"):
        build_tree(np.random.default_rng(0).normal(size=(101, 3)).astype(np.float32), options)


def test_leaves_lie_so_that_every_group_is_a_run() -> None:
    vectors, _ = uneven(120)
    tree = build_tree(vectors, ClusterOptions(method="centroid"))
    found = silhouettes.leaves(tree.merges)
    assert sorted(found.order.tolist()) == list(range(120))
    for sim in (0.2, 0.4, 0.6):
        runs = np.concatenate([[0], np.cumsum(found.joins > clusters.cut_height(tree, sim))])
        assert agreement(cut(tree, sim)[found.order], runs) == 1


def test_a_score_is_the_mean_silhouette_by_root_mean_squares() -> None:
    from scipy.spatial.distance import cdist

    vectors, labels = uneven(200)
    labels = np.unique(labels, return_inverse=True)[1]
    order = np.argsort(labels, kind="stable")
    squares, expected = cdist(vectors, vectors, "sqeuclidean"), []
    for place, own in enumerate(labels):
        fellows = np.flatnonzero((labels == own) & (np.arange(200) != place))
        outside = min(squares[place, labels == other].mean() for other in set(labels.tolist()) - {int(own)}) ** 0.5
        inside = squares[place, fellows].mean() ** 0.5 if len(fellows) else outside
        expected.append((outside - inside) / max(outside, inside))
    images, mix = linkages.single_images(vectors, cosine=False, alpha=0.0, seconds=None)
    (score,) = silhouettes._Sums(images, order, mix).scores([np.diff(labels[order]) > 0])
    assert score == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.1, 0.4, 0.2], 1),
        ([0.30, 0.10, 0.295, 0.10, 0.20], 2),  # as good as the best but for a little, and coarser
        ([0.30, 0.10, 0.28, 0.10, 0.20], 0),
        ([0.30, 0.299, 0.10], 0),  # on the slope of the best and no peak of its own
        ([-0.2, -0.1, -0.3], 1),
    ],
)
def test_of_peaks_about_as_high_the_coarsest_is_taken(scores: list[float], chosen: int) -> None:
    assert silhouettes._coarsest_peak(scores) == chosen
