"""Groups by imagecluster's definitions, held against scipy; its faults mended; and the cut that is proposed without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import clusters
from clusters import (
    METHODS,
    METRICS,
    ClusterOptions,
    build_tree,
    by_size,
    centrals,
    cut,
    load_tree,
    match_groups,
    members,
    propose_sim,
    save_tree,
    statistics,
)
from errors import DamagedCollectionError, OptionError
from ranking import build_kind_ranking
from store import Snapshot
from vectors import Ids, Vectors, unit_vectors

CHURCH, TREE_PICTURE = 10.0, 90.0


def colours() -> tuple[Vectors, list[str]]:
    """Return imagecluster's own test: two red, three white, four black images, as pixels with a little noise."""
    random = np.random.default_rng(0)
    kinds = {"red": (2, (1, 0, 0)), "white": (3, (1, 1, 1)), "black": (4, (0, 0, 0))}
    pixels = [np.tile(colour, 25) for count, colour in kinds.values() for _ in range(count)]
    names = [f"{name}{number}" for name, (count, _) in kinds.items() for number in range(count)]
    return (np.array(pixels) + random.normal(0, 0.01, (9, 75))).astype(np.float32), names


def grouped(groups: int, each: int, *, spread: float = 0.1, seed: int = 0) -> tuple[Vectors, Ids]:
    """Return unit vectors around `groups` random directions, `each` of them, with the group of each."""
    random = np.random.default_rng(seed)
    labels = np.tile(np.arange(groups), each)
    centres = random.normal(size=(groups, 32))
    return unit_vectors(centres[labels] + spread * random.normal(size=(len(labels), 32))), labels


def same_groups(found: Ids, expected: Ids) -> bool:
    """Tell whether two groupings are the same but for the groups' numbers."""
    pairs = np.unique(np.stack([found, expected], axis=1), axis=0)
    return len(pairs) == len(np.unique(found)) == len(np.unique(expected))


# By imagecluster's definitions.


def test_two_red_three_white_and_four_black_images_are_three_groups_at_sim_a_half() -> None:
    vectors, names = colours()
    answer = by_size(cut(build_tree(vectors), 0.5), names)
    assert answer == {
        2: [["red0", "red1"]],
        3: [["white0", "white1", "white2"]],
        4: [["black0", "black1", "black2", "black3"]],
    }
    assert list(answer) == [2, 3, 4]


@pytest.mark.parametrize("method", METHODS)
def test_sim_0_is_one_group_and_sim_1_every_image_alone(method: str) -> None:
    vectors, _ = grouped(4, 5)
    vectors[7] = vectors[3]
    tree = build_tree(vectors, ClusterOptions(method=method))
    assert cut(tree, 0).tolist() == [0] * 20
    assert sorted(cut(tree, 1).tolist()) == list(range(20))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_cut_is_that_of_scipy(method: str, metric: str) -> None:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    vectors = np.random.default_rng(1).normal(size=(60, 9)).astype(np.float32)
    seconds = np.random.default_rng(2).uniform(0, 1e5, 60)
    content, times = pdist(vectors.astype(np.float64), metric), pdist(seconds[:, None])
    mixed = 0.6 * content / content.max() + 0.4 * times / times.max()
    tree = build_tree(vectors, ClusterOptions(method, metric, alpha=0.4), seconds=seconds)
    assert tree.max_distance == pytest.approx(mixed.max())
    for sim in (0.05, 0.3, 0.5, 0.8):
        expected = fcluster(linkage(mixed, method), mixed.max() * (1 - sim), criterion="distance")
        assert same_groups(cut(tree, sim), expected)


def test_without_times_distances_are_those_of_the_vectors_alone() -> None:
    from scipy.cluster.hierarchy import linkage

    vectors, _ = grouped(3, 4)
    assert np.allclose(build_tree(vectors).merges, linkage(vectors.astype(np.float64), "average"), atol=1e-6)


@pytest.mark.parametrize(("alpha", "groups"), [(0.0, 2), (0.5, 3)])
def test_time_separates_the_same_church_on_two_dates(alpha: float, groups: int) -> None:
    day = 86_400.0
    pictures = [(CHURCH, 0), (CHURCH, 60), (CHURCH, 300 * day), (CHURCH, 300 * day + 60), (TREE_PICTURE, 0)]
    random = np.random.default_rng(0)
    vectors = np.array([random.normal(look, 0.1, 16) for look, _ in pictures], dtype=np.float32)
    seconds = np.array([taken for _, taken in pictures])
    labels = cut(build_tree(vectors, ClusterOptions(alpha=alpha), seconds=seconds), 0.8)
    assert labels.max() + 1 == groups
    assert labels[0] == labels[1]
    assert (labels[0] == labels[2]) == (alpha == 0)


def test_statistics_are_in_order_of_size_and_leave_small_groups_out() -> None:
    labels = np.array([3, 0, 0, 0, 1, 1, 1, 2, 2, 4])
    answer = by_size(labels, "abcdefghij")
    assert list(statistics(answer).items()) == [(2, 1), (3, 2)]
    assert answer == {2: [["h", "i"]], 3: [["b", "c", "d"], ["e", "f", "g"]]}
    assert list(statistics(by_size(labels, "abcdefghij", min_csize=1)).items()) == [(1, 2), (2, 1), (3, 2)]


def test_groups_are_numbered_by_size_then_by_their_first_image() -> None:
    vectors = np.array([[9], [5], [5.1], [1], [1.1], [1.2], [7], [7.1]], dtype=np.float32)
    assert cut(build_tree(vectors), 0.9).tolist() == [3, 1, 1, 0, 0, 0, 2, 2]


def test_images_of_equal_names_stay_two_images() -> None:
    assert by_size(np.array([0, 0]), ["a.jpg", "a.jpg"]) == {2: [["a.jpg", "a.jpg"]]}


# What stopped imagecluster.


@pytest.mark.parametrize(("count", "labels"), [(0, []), (1, [0])])
@pytest.mark.parametrize("sim", [0, 0.5, 1])
def test_no_image_and_one_image_are_no_error(count: int, labels: list[int], sim: float, tmp_path: Path) -> None:
    vectors = np.ones((count, 4), dtype=np.float32)
    tree = build_tree(vectors, ClusterOptions(components=2), seconds=np.zeros(count))
    save_tree(tree, tmp_path / "tree.npz")
    assert cut(load_tree(tmp_path / "tree.npz"), sim).tolist() == labels
    assert centrals(cut(tree, sim), vectors).tolist() == labels
    assert 0 <= propose_sim(tree, vectors) <= 1


def test_equal_times_say_nothing() -> None:
    vectors, labels = grouped(3, 4)
    plain, timed = build_tree(vectors), build_tree(vectors, seconds=np.full(12, 5.0))
    assert same_groups(cut(timed, 0.5), labels)
    assert np.allclose(timed.merges[:, 2] / timed.max_distance, plain.merges[:, 2] / plain.max_distance)


def test_an_image_without_a_time_goes_by_its_content() -> None:
    vectors, labels = grouped(2, 4)
    seconds = np.where(labels == 0, 0.0, 1e6)
    seconds[[0, 3]] = np.nan
    assert same_groups(cut(build_tree(vectors, ClusterOptions(alpha=0.3), seconds=seconds), 0.4), labels)
    assert same_groups(cut(build_tree(vectors, seconds=np.full(8, np.nan)), 0.5), labels)


def test_the_time_of_an_image_without_one_is_as_far_as_two_images_are_on_average() -> None:
    tree = build_tree(np.ones((4, 2), dtype=np.float32), ClusterOptions(alpha=1), seconds=np.array([0, 1, 4, np.nan]))
    assert tree.max_distance == 1
    assert tree.merges[:2, 2].tolist() == pytest.approx([1 / 4, (1 + 3 + 4) / 3 / 4])


@pytest.mark.parametrize("method", METHODS)
def test_equal_images_are_one_group_and_alone_at_sim_1(method: str) -> None:
    vectors = np.full((5, 3), 0.3, dtype=np.float32)
    tree = build_tree(vectors, ClusterOptions(method=method))
    assert [int(cut(tree, sim).max()) + 1 for sim in (0, 0.5, 0.999, 1)] == [1, 1, 1, 5]
    assert 0 < propose_sim(tree, vectors) < 1


def test_copies_are_together_at_every_sim_below_1() -> None:
    vectors, _ = grouped(4, 2, spread=1.0)
    vectors = np.concatenate([vectors, vectors[:3]])
    for metric in ("euclidean", "cosine"):
        labels = cut(build_tree(vectors, ClusterOptions(metric=metric)), 0.999_999)
        assert labels[:3].tolist() == labels[8:].tolist()


@pytest.mark.parametrize("method", ["centroid", "median"])
def test_a_finer_cut_only_divides_groups_though_heights_fall(method: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    tree = build_tree(vectors, ClusterOptions(method=method))
    assert (np.diff(tree.merges[:, 2]) < 0).any()
    coarse = cut(tree, 0)
    for sim in np.linspace(0.02, 0.98, 49):
        fine = cut(tree, float(sim))
        assert len(np.unique(np.stack([fine, coarse]), axis=1).T) == fine.max() + 1
        coarse = fine


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_a_vector_of_zeros_is_far_from_all_by_angles(metric: str) -> None:
    vectors, labels = grouped(2, 3)
    vectors = np.concatenate([vectors, np.zeros((1, 32), dtype=np.float32)])
    assert same_groups(cut(build_tree(vectors, ClusterOptions(metric=metric)), 0.5), np.append(labels, 2))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: cut(build_tree(np.ones((2, 2), np.float32)), 2), "sim is 2"),
        (lambda: cut(build_tree(np.ones((2, 2), np.float32)), float("nan")), "sim is nan"),
        (lambda: ClusterOptions(alpha=-1), "alpha is -1"),
        (lambda: ClusterOptions(method="best"), "no method 'best'"),
        (lambda: ClusterOptions(metric="feet"), "no metric 'feet'"),
        (lambda: ClusterOptions(components=0), "components is 0"),
        (lambda: ClusterOptions(components=1.5), "components is 1.5"),
        (lambda: ClusterOptions(components=True), "components is True"),
        (lambda: by_size(np.zeros(2, np.int64), "ab", min_csize=0), "min_csize is 0"),
    ],
)
def test_a_bad_value_is_told_with_the_value(wrong: Callable[[], object], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        wrong()


def test_vectors_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        build_tree(np.array([[1], [np.nan]], dtype=np.float32))


# Principal components before.


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_principal_components_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    from sklearn.decomposition import PCA

    vectors = (np.random.default_rng(0).normal(size=shape) * np.linspace(1, 9, shape[1])).astype(np.float32)
    for components in (3, 0.8):
        found = clusters.principal_components(vectors, components)
        expected = PCA(components, svd_solver="full").fit_transform(vectors.astype(np.float64))
        assert found.shape == expected.shape
        assert np.allclose(np.abs(found), np.abs(expected), atol=1e-4)


def test_more_components_than_there_are_keep_all_distances() -> None:
    vectors, _ = grouped(2, 3)
    tree, reduced = build_tree(vectors), build_tree(vectors, ClusterOptions(components=500))
    assert np.allclose(tree.merges, reduced.merges, atol=1e-5)


# The cut that is proposed.


@pytest.mark.parametrize(("groups", "each"), [(2, 3), (5, 4), (40, 2), (300, 6), (3, 500)])
def test_groups_that_stand_apart_are_found_without_labels(groups: int, each: int) -> None:
    vectors, labels = grouped(groups, each)
    tree = build_tree(vectors)
    assert same_groups(cut(tree, propose_sim(tree, vectors)), labels)


def test_where_no_groups_stand_apart_the_usual_sim_is_proposed() -> None:
    one_dimension = np.array([[0], [0], [1], [1], [2], [2], [2]], dtype=np.float32)
    tree = build_tree(one_dimension, ClusterOptions("complete"))
    others = np.array([[0], [2], [2], [0], [0], [2], [0]], dtype=np.float32)
    assert propose_sim(tree, others) == clusters.DEFAULT_SIM


def test_an_odd_image_does_not_hide_the_groups_of_the_others() -> None:
    vectors, labels = grouped(6, 20, spread=0.6)
    odd = unit_vectors(np.concatenate([vectors, [-vectors.sum(axis=0)]]))
    tree = build_tree(odd)
    assert same_groups(cut(tree, propose_sim(tree, odd)), np.append(labels, 6))


def test_times_take_part_in_the_proposal() -> None:
    vectors, labels = grouped(3, 8)
    late = np.tile([0, 0, 0, 1, 1, 1], 4)
    seconds = 1e7 * late + np.arange(24.0)
    tree = build_tree(vectors, ClusterOptions(alpha=0.5), seconds=seconds)
    assert same_groups(cut(tree, propose_sim(tree, vectors, seconds=seconds)), 2 * labels + late)


@pytest.mark.real_photos
def test_photographs_fall_into_groups_like_their_folders(shared_data: Path, tmp_path: Path) -> None:
    from sklearn.metrics import adjusted_rand_score

    with np.load(shared_data / "flowers-inception-v3.npz") as file:
        vectors, labels = file["X"][::2], file["label"][::2]
    places = np.arange(len(vectors))
    build_kind_ranking(Snapshot(places + 1, places, vectors.astype(np.float16)), tmp_path)
    averages = np.load(tmp_path / "ranking-averages.npy")
    tree = build_tree(averages)
    best = max(adjusted_rand_score(labels, cut(tree, float(sim))) for sim in np.arange(0.1, 0.6, 0.02))
    assert adjusted_rand_score(labels, cut(tree, propose_sim(tree, averages))) > 0.8 * best


# What groups hold, and keep.


def test_the_most_central_image_is_nearest_to_the_mean() -> None:
    vectors = np.array([[0, 0], [1, 0], [2.2, 0], [9, 9], [8, 8]], dtype=np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    assert centrals(labels, vectors).tolist() == [1, 3]
    assert [group.tolist() for group in members(labels)] == [[0, 1, 2], [3, 4]]


def test_named_groups_are_found_again_by_their_images() -> None:
    named = [
        np.array([1, 2, 3, 4]),
        np.array([7, 8]),
        np.array([50, 51]),
        np.array([], dtype=np.int64),
        np.array([21, 60, 61]),
    ]
    groups = [np.array([7, 8, 9]), np.array([20, 21]), np.array([1, 2, 3, 30, 31]), np.array([4])]
    assert match_groups(groups, named) == {0: 2, 1: 0}
    assert match_groups([], named) == {}


def test_of_two_that_overlap_one_group_the_better_keeps_it_and_the_other_takes_the_next() -> None:
    named = [np.array([1, 2, 3]), np.array([1, 2, 3, 4, 5, 6])]
    groups = [np.array([4, 5, 6]), np.array([1, 2, 3])]
    assert match_groups(groups, named) == {0: 1, 1: 0}


# On disk.


@pytest.mark.parametrize("method", clusters.METHODS)
def test_the_sim_at_which_images_are_a_group_is_found_again(method: str) -> None:
    vectors = np.random.default_rng(3).normal(size=(60, 3)).astype(np.float32)
    vectors[10:14] = vectors[9]
    tree = build_tree(vectors, ClusterOptions(method=method))
    branches = clusters.Branches(tree, np.arange(60))
    for sim in (0.0, 0.3, 0.6, 0.9):
        for places in members(cut(tree, sim)):
            found = branches.nearest(places)
            assert found is not None
            labels = cut(tree, found[0])
            assert np.flatnonzero(labels == labels[found[1]]).tolist() == places.tolist()


def test_images_that_are_together_nowhere_have_no_sim_and_those_that_are_gone_do_not_count() -> None:
    tree = build_tree(np.array([[0], [1], [10], [11], [40], [41], [80], [81]], dtype=np.float32))
    assert clusters.Branches(tree, np.arange(8)).nearest(np.array([0, 2, 6])) is None
    found = clusters.Branches(tree, np.array([0, 2, 4, 6])).nearest(np.array([0, 2]))
    assert found is not None
    assert cut(tree, found[0]).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_a_tree_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    vectors, _ = grouped(3, 4)
    tree = build_tree(vectors, ClusterOptions("single", "cosine", 0.2, 0.9), seconds=np.arange(12.0))
    save_tree(tree, tmp_path / "tree.npz")
    found = load_tree(tmp_path / "tree.npz")
    assert np.array_equal(found.merges, tree.merges)
    assert (found.images, found.max_distance, found.options) == (tree.images, tree.max_distance, tree.options)
    assert (found.how, found.timed) == ("full", True)


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "gone", "fewer merges", "other fields"])
def test_a_damaged_tree_is_told(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "tree.npz"
    tree = build_tree(grouped(3, 4)[0])
    save_tree(tree, path)
    if damage == "fewer merges":
        np.savez(path, merges=tree.merges[:-1], about=np.load(path)["about"])
    elif damage == "other fields":
        np.savez(path, merges=tree.merges, about=np.array('{"options": {}, "colour": 1}'))
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut off": path.read_bytes()[:300], "empty": b"", "text": b"tree"}[damage])
    with pytest.raises(DamagedCollectionError, match=r"damaged.*clusters\.py"):
        load_tree(path)
