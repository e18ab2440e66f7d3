"""What a query means: k, radius, both or neither, filters, metrics, wrong values. Every kind of index against brute force."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ann import (
    Index,
    IndexOptions,
    Metric,
    Neighbours,
    Reduction,
    available_kinds,
    build_index,
    is_complete,
    load_index,
    similarity_graph,
)
from errors import ImageNotFoundError, QueryError, RequestError
from indexes import graph as graph_module
from indexes import index as index_module
from indexes.kinds import Usearch
from store import Snapshot
from tests.test_ann import make_snapshot, write_snapshot

COUNT = 1_500
DIM = 48


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("vectors")
    vectors = make_snapshot(folder, COUNT).take(slice(None)) * np.linspace(0.5, 2, COUNT)[:, None]
    vectors[[400, 900, 1400]] = vectors[100]
    return write_snapshot(folder, vectors.astype(np.float16), first_id=10)


def reduction(snapshot: Snapshot, dim: int) -> Reduction:
    mixing = np.random.default_rng(1).normal(size=(snapshot.dim, dim)).astype(np.float32) / np.sqrt(dim)
    return Reduction(f"random-{dim}", dim, lambda vectors: vectors @ mixing)


@pytest.fixture(scope="module", params=["exact", "annoy", "usearch", "reduced annoy", "reduced usearch", "half built"])
def index(request: pytest.FixtureRequest, snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Every way in which an answer comes about: by scan, from a build, from a build over smaller vectors, from both."""
    folder, kind = tmp_path_factory.mktemp("index"), request.param.rpartition(" ")[2]
    if kind == "exact":
        return Index(snapshot)
    if request.param == "half built":
        half = Snapshot(snapshot.ids[:700], snapshot.rows[:700], snapshot.matrix, snapshot.file)
        return load_index(snapshot, folder, build_index(half, folder, IndexOptions("usearch")))
    if kind not in available_kinds():
        pytest.skip(f"{kind} is not installed")
    smaller = reduction(snapshot, 32) if request.param.startswith("reduced") else None
    manifest = build_index(snapshot, folder, IndexOptions(kind), reduction=smaller)
    assert manifest.kind == kind, manifest.reason
    return load_index(snapshot, folder, manifest, smaller)


def cosine(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.asarray(1 - vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)))


def euclidean(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(vectors - query, axis=1))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"cosine": cosine, "euclidean": euclidean}


def brute_force(
    snapshot: Snapshot, query: np.ndarray, k: int | None, radius: float | None, metric: str, allowed: np.ndarray | None
) -> list[tuple[int, float]]:
    """The plainest right answer: everything measured in float64, sorted, ties by id, then cut."""
    distances = METRICS[metric](snapshot.take(slice(None)).astype(np.float64), query.astype(np.float64))
    order = sorted(range(len(snapshot)), key=lambda place: (round(float(distances[place]), 6), place))
    pairs = [(int(snapshot.ids[place]), float(distances[place])) for place in order]
    if allowed is not None:
        pairs = [pair for pair in pairs if pair[0] in allowed]
    if radius is not None:
        pairs = [pair for pair in pairs if round(pair[1], 6) <= radius]
    return pairs[:k]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("filtered", [None, 0.01, 0.3], ids=["all", "1 %", "30 %"])
@pytest.mark.parametrize(("k", "share"), [(5, None), (40, 0.002), (3, 0.1), (None, 0.05), (None, None)])
def test_an_answer_is_that_of_brute_force(
    index: Index,
    snapshot: Snapshot,
    metric: str,
    filtered: float | None,
    k: int | None,
    share: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index_module, "FEW_IMAGES", 0)  # so that a built index answers under the wider filter
    random = np.random.default_rng(4)
    queries = snapshot.take(np.array([100, 3, 777])) + 0.1 * random.normal(size=(3, DIM)).astype(np.float32)
    allowed = None
    if filtered is not None:
        allowed = np.sort(random.choice(snapshot.ids, int(COUNT * filtered), replace=False))
    everything = METRICS[metric](snapshot.take(slice(None)).astype(np.float64), queries[0].astype(np.float64))
    radius = None if share is None else round(float(np.quantile(everything, share)), 4)
    found = index.query(queries, k, radius=radius, metric=metric, allowed=allowed)  # type: ignore[arg-type]
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == np.float32
    missed = 0
    for number, query in enumerate(queries):
        wanted = brute_force(snapshot, query, k, radius, metric, allowed)
        answer = found.of(number)
        assert len(answer) == len(wanted)
        assert [round(d, 4) for _, d in answer] == sorted(round(d, 4) for _, d in answer)
        missed += len({i for i, _ in wanted} - {i for i, _ in answer})
        assert all(abs(dict(wanted).get(i, d) - d) < 1e-5 for i, d in answer)
    assert missed <= (0 if metric == "euclidean" or k is None else 2)


def test_the_radius_is_inclusive(index: Index, snapshot: Snapshot) -> None:
    query = snapshot.take(np.array([8]))
    distance = float(index.query(query, 6).distances[0, 5])
    assert index.query(query, None, radius=distance).ids.shape == (1, 6)
    assert index.query(query, None, radius=distance - 2e-6).ids.shape == (1, 5)
    assert index.query(query, None, radius=0).ids.tolist() == [[18]]


@pytest.mark.parametrize("metric", list(METRICS))
def test_all_within_a_radius_costs_measuring_what_is_near(
    snapshot: Snapshot, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(snapshot)
    queries = snapshot.take(np.array([100, 700]))
    radius = float(index.query(queries[:1], 30, metric=metric).distances[0, -1])
    within = index.query(queries, COUNT, radius=radius, metric=metric)
    measured: list[int] = []
    distances = index._distances

    def count(query: np.ndarray, places: np.ndarray, metric: Metric) -> np.ndarray:
        measured.append(len(places))
        return distances(query, places, metric)

    monkeypatch.setattr(index, "_distances", count)
    found = index.query(queries, None, radius=radius, metric=metric)
    assert (found.ids == within.ids).all()
    assert (found.distances == within.distances).all()
    assert sum(measured) < COUNT / 4


def test_answers_of_different_lengths_are_padded_and_a_radius_may_keep_nothing(
    index: Index, snapshot: Snapshot
) -> None:
    queries = np.stack([snapshot.take(np.array([100]))[0], -snapshot.take(np.array([5]))[0]])
    found = index.query(queries, 10, radius=0.0)
    assert found.ids[0].tolist() == [110, 410, 910, 1410]
    np.testing.assert_allclose(found.distances[0], 0, atol=1e-6)
    assert found.distances[0].tolist() == [0, 0, 0, 0]
    assert found.of(1) == []
    assert found.ids[1].tolist() == [-1] * 4
    assert np.isinf(found.distances[1]).all()
    assert index.query(queries[1:], 10, radius=0.0).ids.shape == (1, 0)


def test_images_of_a_filter_that_have_no_vector_are_passed_over(index: Index) -> None:
    query = np.ones((1, DIM), np.float32)
    assert index.query(query, 5, allowed=np.array([-3, 12, 10**9])).ids.tolist() == [[12]]
    assert index.query(query, 5, allowed=np.array([], dtype=np.int64)).ids.shape == (1, 0)
    assert index.query(np.empty((0, DIM)), 5).ids.shape[0] == 0


def test_a_filter_that_keeps_one_kind_of_image_is_answered_exactly_for_a_picture_of_another(
    index: Index, snapshot: Snapshot
) -> None:
    axis = snapshot.take(np.array([20]))[0]
    allowed = np.sort(snapshot.ids[np.argsort(snapshot.take(slice(None)) @ axis)[-300:]])
    queries = snapshot.take(np.flatnonzero(~np.isin(snapshot.ids, allowed))[:40])
    kept = np.searchsorted(snapshot.ids, allowed)
    exact = Index(Snapshot(allowed, snapshot.rows[kept], snapshot.matrix)).query(queries, 10)
    assert (index.query(queries, 10, allowed=allowed).ids == exact.ids).all()


def test_a_large_query_does_not_change_the_answers_and_the_effort_of_later_ones(
    index: Index, snapshot: Snapshot
) -> None:
    queries = snapshot.take(np.arange(0, 1_500, 50))
    before = index.query(queries, 5)
    index.query(queries[:2], 300)
    assert (index.query(queries, 5).ids == before.ids).all()
    candidates = index._candidates
    if isinstance(candidates, Usearch):
        assert candidates._view(candidates._effort).expansion_search == candidates._effort


def test_measuring_gives_the_distances_of_a_query(index: Index, snapshot: Snapshot) -> None:
    queries = snapshot.take(np.array([0, 44]))
    metrics: tuple[Metric, ...] = ("cosine", "euclidean")
    for metric in metrics:
        found = index.query(queries, 7, metric=metric)
        measured = index.measure(queries, found.ids, metric=metric)
        np.testing.assert_allclose(measured, found.distances, atol=1e-6)
    assert index.measure(queries, np.array([[10, -1], [-1, 10]])).tolist()[0][1] == np.inf
    with pytest.raises(ImageNotFoundError, match="999999"):
        index.measure(queries[:1], np.array([[999999]]))


def test_two_readers_at_once_get_the_answers_of_one(index: Index, snapshot: Snapshot) -> None:
    queries = snapshot.take(np.arange(0, 200))
    alone = index.query(queries, 8).ids
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda place: index.query(queries[place : place + 1], 8).ids[0], range(200)))
    assert (np.stack(answers) == alone).all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"k": 0}, "k must be at least 1, or None for all; it is 0"),
        ({"k": -3}, "it is -3"),
        ({"k": 2.5}, "2.5"),
        ({"k": True}, "True"),
        ({"k": 5, "radius": -0.1}, "-0.1"),
        ({"k": 5, "radius": float("nan")}, "nan"),
        ({"k": 5, "metric": "manhattan"}, "'manhattan'"),
    ],
)
def test_a_reach_that_makes_no_sense_is_refused(
    snapshot: Snapshot, arguments: dict[str, object], complaint: str
) -> None:
    for wrong in (
        lambda: Index(snapshot).query(np.ones((1, DIM)), **arguments),  # type: ignore[arg-type]
        lambda: similarity_graph(Index(snapshot), **arguments),  # type: ignore[arg-type]
    ):
        with pytest.raises(QueryError, match=complaint.replace("(", r"\(")) as caught:
            wrong()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, RequestError)


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (np.ones((2, 7)), r"48-d vectors.*\(2, 7\)"),
        (np.ones(48), r"\(48,\)"),
        (np.array([[1.0] * 47 + [np.nan]]), "Query 0 holds nan at place 47"),
        (np.array([[1.0] * 48, [1.0] * 47 + [-np.inf]]), "Query 1 holds -inf"),
        (np.array([["a"] * 48]), "<U1"),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(snapshot: Snapshot, vectors: np.ndarray, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        Index(snapshot).query(vectors, 3)


# The graph.


def edges_of(index: Index, **options: object) -> list[tuple[int, int, int]]:
    blocks = list(similarity_graph(index, **options))  # type: ignore[arg-type]
    assert all(block.sources.shape == block.distances.shape == block.ranks.shape for block in blocks)
    return [
        edge
        for block in blocks
        for edge in zip(block.sources.tolist(), block.destinations.tolist(), block.ranks.tolist(), strict=True)
    ]


def test_the_graph_has_no_self_but_true_duplicates(snapshot: Snapshot) -> None:
    edges = edges_of(Index(snapshot), k=3)
    assert len(edges) == 3 * COUNT
    assert not [edge for edge in edges if edge[0] == edge[1]]
    assert [edge for edge in edges if edge[0] == 910] == [(910, 110, 1), (910, 410, 2), (910, 1410, 3)]
    assert [source for source, _, _ in edges] == sorted(source for source, _, _ in edges)


def test_with_self_edges_each_image_comes_first_although_equals_have_smaller_ids(snapshot: Snapshot) -> None:
    edges = edges_of(Index(snapshot), k=2, include_self_edges=True)
    assert len(edges) == 2 * COUNT
    assert all(source == destination for source, destination, rank in edges if rank == 1)
    assert (1410, 110, 2) in edges


def test_the_graph_by_radius_is_that_of_single_queries(snapshot: Snapshot) -> None:
    index = Index(snapshot)
    for metric, radius in (("cosine", 0.05), ("euclidean", 2.0)):
        edges = edges_of(index, k=None, radius=radius, metric=metric)
        assert edges
        for image_id in (10, 110, 500):
            vector = snapshot.take(np.array([image_id - 10]))
            answer = index.query(vector, None, radius=radius, metric=metric).ids[0]  # type: ignore[arg-type]
            assert [d for s, d, _ in edges if s == image_id] == [i for i in answer.tolist() if i != image_id]


def test_all_of_all_and_more_than_all(snapshot: Snapshot, tmp_path: Path) -> None:
    few = write_snapshot(tmp_path, np.random.default_rng(0).normal(size=(5, DIM)))
    assert len(edges_of(Index(few), k=None)) == len(edges_of(Index(few), k=99)) == 20
    assert len(edges_of(Index(few), k=99, include_self_edges=True)) == 25
    one = write_snapshot(tmp_path, np.ones((1, DIM)), file="one")
    assert edges_of(Index(one)) == []
    assert edges_of(Index(one), include_self_edges=True) == [(1, 1, 1)]
    none = Snapshot(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, DIM), np.float16))
    assert edges_of(Index(none)) == []


def test_a_large_graph_asks_the_built_index_and_blocks_change_nothing(
    index: Index, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = edges_of(Index(snapshot), k=4)
    monkeypatch.setattr(graph_module, "EXACT_GRAPH", 10)
    monkeypatch.setattr(graph_module, "BLOCK_SOURCES", 64)
    seen: list[tuple[int, int]] = []
    edges = edges_of(index, k=4, on_progress=lambda done, total: seen.append((done, total)))
    assert len(set(edges) & set(whole)) / len(whole) >= 0.97
    assert seen[-1] == (COUNT, COUNT)
    assert len(seen) == -(-COUNT // 64)


# What the answers are made of.


def test_leaving_out_and_putting_first_keep_order_and_length() -> None:
    found = Neighbours(np.array([[1, 2, 3], [4, -1, -1]]), np.array([[0, 0, 1], [0, np.inf, np.inf]], np.float32))
    rest = found.without(np.array([2, 4]), 5)
    assert rest.ids.tolist() == [[1, 3], [-1, -1]]
    first = found.with_first(np.array([9, 4]), np.zeros(2, np.float32))
    assert first.ids.tolist() == [[9, 1, 2], [4, -1, -1]]
    assert first.of(1) == [(4, 0.0)]


def test_long_vectors_are_projected_for_the_index_and_measured_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    centres = random.normal(size=(40, 600))
    vectors = (centres[random.integers(0, 40, 1_200)] + 0.7 * random.normal(size=(1_200, 600))).astype(np.float16)
    snapshot = write_snapshot(tmp_path, vectors)
    (tmp_path / "gen").mkdir()
    manifest = build_index(snapshot, tmp_path / "gen", IndexOptions("usearch"))
    assert manifest.projected_dim == 256
    assert manifest.bytes < 1_200 * 600 * 2
    built, queries = load_index(snapshot, tmp_path / "gen", manifest), snapshot.take(np.arange(0, 1_200, 12))
    for k in (10, 100):
        found, exact = built.query(queries, k), Index(snapshot).query(queries, k)
        assert (found.distances <= exact.distances[:, -1:] + 1e-6).mean() >= 0.98
    np.testing.assert_allclose(built.measure(queries, found.ids), found.distances, atol=1e-6)
    # Carried over, the projection goes along; without it the index is incomplete.
    (tmp_path / "next").mkdir()
    before = (tmp_path / "gen", manifest)
    assert build_index(snapshot, tmp_path / "next", IndexOptions("usearch"), previous=before) == manifest
    assert load_index(snapshot, tmp_path / "next", manifest).query(queries, 3).ids.shape == (100, 3)
    (tmp_path / "next" / "projection.npy").unlink()
    assert not is_complete(tmp_path / "next", manifest)


def test_fewer_images_than_principal_components_are_indexed_too(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 400)).astype(np.float16)
    vectors[30:] = vectors[:30]
    snapshot = write_snapshot(tmp_path, vectors)
    (tmp_path / "gen").mkdir()
    manifest = build_index(snapshot, tmp_path / "gen", IndexOptions("usearch"))
    assert (manifest.kind, manifest.projected_dim) == ("usearch", 256)
    found = load_index(snapshot, tmp_path / "gen", manifest).query(snapshot.take(slice(0, 60)), 5)
    assert (found.ids == Index(snapshot).query(snapshot.take(slice(0, 60)), 5).ids).all()


def test_a_reduced_index_is_smaller_and_its_reducer_is_asked_for(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    full = build_index(snapshot, tmp_path / "full", IndexOptions("usearch"))
    (tmp_path / "small").mkdir()
    smaller = reduction(snapshot, 32)
    small = build_index(snapshot, tmp_path / "small", IndexOptions("usearch"), reduction=smaller)
    assert small.bytes < full.bytes
    assert small.reducer == "random-32"
    assert small.oversample > 1
    assert small.self_test is not None
    assert small.self_test["ladder"][-1]["recall"] >= 0.99
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["ids.npy", "index.usearch", "rows.npy"]
    with pytest.raises(ValueError, match="random-32"):
        load_index(snapshot, tmp_path / "small", small)
    # Another reducer, or none, is another index.
    (tmp_path / "next").mkdir()
    before = (tmp_path / "small", small)
    assert build_index(snapshot, tmp_path / "next", IndexOptions("usearch"), previous=before).reducer == ""
