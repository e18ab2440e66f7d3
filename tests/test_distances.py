"""Every distance that can be asked for is scipy's, of one query and of many, over all images, a filter or a radius."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ann import METRICS, Index, Metric, similarity_graph
from errors import QueryError
from indexes import index as index_module
from indexes.distances import OF_SHARES, UNDEFINED, distances_from
from store import Snapshot
from tests.test_ann import write_snapshot

COUNT, DIM = 300, 24
SIGNED = [metric for metric in METRICS if metric not in OF_SHARES]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """What a network's scores are like: shares that add up to 1, most of them small; two images have the same."""
    raised = np.exp(3 * np.random.default_rng(0).normal(size=(COUNT, DIM)))
    raised[200] = raised[50]
    return write_snapshot(tmp_path_factory.mktemp("scores"), raised / raised.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """What pooled vectors of some networks are like: of any sign and any length."""
    random = np.random.default_rng(1)
    return write_snapshot(tmp_path_factory.mktemp("signed"), random.normal(size=(COUNT, DIM)) * random.uniform(1, 5))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BLOCK_ROWS", 64)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_of_scores_are_those_of_scipy(scores: Snapshot, metric: Metric) -> None:
    check_against_scipy(scores, metric)


@pytest.mark.parametrize("metric", SIGNED)
def test_distances_of_vectors_with_both_signs_are_those_of_scipy(signed: Snapshot, metric: Metric) -> None:
    check_against_scipy(signed, metric)


def check_against_scipy(snapshot: Snapshot, metric: Metric) -> None:
    index, stored = Index(snapshot), snapshot.take(slice(None))
    queries = stored[[50, 7]] * np.float32(1.01) + np.float32(0.001)
    wanted = cdist(queries.astype(np.float64), stored.astype(np.float64), metric)
    everything = index.query(queries, None, metric=metric)
    for number in range(2):
        places = np.searchsorted(snapshot.ids, everything.ids[number])
        assert sorted(places.tolist()) == list(range(COUNT))
        np.testing.assert_allclose(everything.distances[number], wanted[number][places], rtol=1e-6, atol=1e-6)
        assert (np.diff(everything.distances[number]) >= 0).all()
    nearest = index.query(queries, 10, metric=metric)
    assert (nearest.ids == everything.ids[:, :10]).all()
    radius = float(everything.distances[0, 19])
    within = index.query(queries[:1], None, radius=radius, metric=metric)
    assert within.ids.tolist() == everything.ids[:1, : within.ids.shape[1]].tolist()
    assert within.ids.shape[1] == (everything.distances[0] <= radius).sum()
    assert (index.query(queries[:1], 5, radius=radius, metric=metric).ids == everything.ids[:1, :5]).all()
    allowed = snapshot.ids[::3]
    filtered = index.query(queries[:1], 8, metric=metric, allowed=allowed)
    assert filtered.ids[0].tolist() == [i for i in everything.ids[0].tolist() if i in allowed][:8]
    np.testing.assert_array_equal(index.measure(queries, nearest.ids, metric=metric), nearest.distances)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_are_at_0_and_in_order_of_their_ids(scores: Snapshot, metric: Metric) -> None:
    found = Index(scores).query(scores.take(np.array([200])), 2, metric=metric)
    assert found.ids.tolist() == [[int(scores.ids[50]), int(scores.ids[200])]]
    assert found.distances.tolist() == [[0, 0]]


def test_nearly_equal_shares_are_near(scores: Snapshot) -> None:
    """Of these scipy's root is of a number that rounding brings below 0 for some."""
    shares = scores.take(slice(None)).astype(np.float64)
    near = shares * (1 + 1e-9 * np.random.default_rng(2).normal(size=shares.shape))
    assert max(distances_from(a, b[None], "jensenshannon")[0] for a, b in zip(shares, near, strict=True)) < 1e-6


@pytest.mark.parametrize("metric", ["cosine", "correlation", "braycurtis", "jensenshannon"])
def test_where_no_distance_is_defined_it_is_1(metric: Metric, tmp_path: Path) -> None:
    vectors = np.ones((3, DIM)) * np.array([[0.0], [0.3], [0.0]])
    vectors[2, 4] = 0.5
    index = Index(write_snapshot(tmp_path, vectors))
    found = index.query(np.zeros((1, DIM)), None, metric=metric)
    assert (found.distances == UNDEFINED).all()
    assert found.ids.tolist() == [[1, 2, 3]]
    if metric == "correlation":
        assert index.query(vectors[2:], None, metric=metric).of(0) == [(3, 0.0), (1, UNDEFINED), (2, UNDEFINED)]


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != "cosine"])
def test_a_distance_beyond_all_numbers_is_still_a_number(scores: Snapshot, metric: Metric) -> None:
    found = Index(scores).query(np.full((1, DIM), 1e20), 3, metric=metric)
    assert np.isfinite(found.distances).all()
    assert (found.ids >= 0).all()


@pytest.mark.parametrize("metric", OF_SHARES)
def test_what_compares_shares_is_refused_for_numbers_below_0(
    scores: Snapshot, signed: Snapshot, metric: Metric
) -> None:
    with pytest.raises(QueryError, match=rf"{metric}.*the query holds -0\.25.*--layer scores"):
        Index(scores).query(np.full((1, DIM), -0.25), 3, metric=metric)
    with pytest.raises(QueryError, match=rf"{metric}.*this collection's hold -"):
        Index(signed).query(np.ones((1, DIM)), 3, metric=metric)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [("hamming", "yes and no"), ("mahalanobis", "variances"), ("minkowski", "cityblock for 1"), ("miles", "'miles'.$")],
)
def test_a_distance_that_is_not_offered_is_refused_with_the_reason(scores: Snapshot, metric: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason) as refused:
        Index(scores).query(np.ones((1, DIM)), 3, metric=metric)  # type: ignore[arg-type]
    assert all(name in str(refused.value) for name in METRICS)


def test_the_graph_is_by_any_distance(scores: Snapshot) -> None:
    stored = scores.take(slice(None)).astype(np.float64)
    distances = cdist(stored, stored, "cityblock")
    np.fill_diagonal(distances, np.inf)
    edges = np.concatenate([block.distances for block in similarity_graph(Index(scores), 3, metric="cityblock")])
    np.testing.assert_allclose(edges.reshape(COUNT, 3), np.sort(distances, axis=1)[:, :3], atol=1e-6)
