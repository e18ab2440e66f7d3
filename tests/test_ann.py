"""Every kind of index is held against exact search, and no build is trusted before its self-test."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from ann import Index, IndexManifest, IndexOptions, build_index, is_complete, load_index
from errors import DamagedCollectionError, IndexBuildError
from store import Snapshot
from vectors import unit_vectors

DIM = 48
needs_annoy = pytest.mark.skipif(
    importlib.util.find_spec("annoy") is None,
    reason="annoy is not installed (it needs a C++ compiler): pip install annoy",
)
KINDS = [pytest.param("annoy", marks=needs_annoy), "usearch"]


def make_snapshot(folder: Path, count: int, *, first_id: int = 1, file: str = "vectors.f16", seed: int = 0) -> Snapshot:
    """Clustered vectors on disk, as photographs give them."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, DIM))
    vectors = centres[random.integers(0, 20, count)] + 0.5 * random.normal(size=(count, DIM))
    return write_snapshot(folder, vectors.astype(np.float16), first_id=first_id, file=file)


def write_snapshot(folder: Path, vectors: np.ndarray, *, first_id: int = 1, file: str = "vectors.f16") -> Snapshot:
    (folder / file).write_bytes(vectors.astype("<f2").tobytes())
    matrix = np.memmap(folder / file, dtype="<f2", mode="r", shape=vectors.shape)
    rows = np.arange(len(vectors), dtype=np.int64)
    return Snapshot(rows + first_id, rows, matrix, file)


def brute_force(snapshot: Snapshot, query: np.ndarray, k: int) -> list[int]:
    """The plainest right answer: cosine in float64, ties by id."""
    vectors = snapshot.take(slice(None)).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosine = np.divide(vectors @ query.astype(np.float64), lengths, out=np.zeros(len(vectors)), where=lengths > 0)
    order = sorted(range(len(vectors)), key=lambda place: (round(1 - cosine[place], 6), place))
    return [int(snapshot.ids[place]) for place in order[:k]]


def built(snapshot: Snapshot, folder: Path, kind: str, **options: int) -> Index:
    manifest = build_index(snapshot, folder, IndexOptions(kind, **options))
    assert manifest.kind == kind, manifest.reason
    return load_index(snapshot, folder, manifest)


def test_exact_search_gives_the_plainest_right_answer(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, 300)
    queries = make_snapshot(tmp_path, 20, seed=5, file="queries").take(slice(None))
    answer = Index(snapshot).query(queries, 10)
    assert answer.ids.dtype == np.int64
    assert answer.distances.dtype == np.float32
    for query, ids in zip(queries, answer.ids, strict=True):
        assert ids.tolist() == brute_force(snapshot, query, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_index_finds_nearly_all_that_exact_search_finds(tmp_path: Path, kind: str) -> None:
    snapshot = make_snapshot(tmp_path, 3000)
    queries = snapshot.take(np.arange(0, 3000, 60))
    found, exact = built(snapshot, tmp_path, kind).query(queries, 10), Index(snapshot).query(queries, 10)
    hits = [len(set(a) & set(b)) for a, b in zip(found.ids.tolist(), exact.ids.tolist(), strict=True)]
    assert sum(hits) / (10 * len(queries)) >= 0.99
    assert (np.diff(found.distances, axis=1) >= -1e-6).all()


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_k_beyond_the_collection_gives_all_of_it(tmp_path: Path, kind: str) -> None:
    snapshot = make_snapshot(tmp_path, 30)
    answer = built(snapshot, tmp_path, kind).query(snapshot.take(slice(0, 2)), 100)
    assert answer.ids.shape == (2, 30)
    assert sorted(answer.ids[0].tolist()) == list(range(1, 31))


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_one_image_and_no_image(tmp_path: Path, kind: str) -> None:
    one = make_snapshot(tmp_path, 1)
    assert built(one, tmp_path, kind).query(one.take(slice(None)), 5).ids.tolist() == [[1]]
    none = Snapshot(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, DIM), np.float16))
    manifest = build_index(none, tmp_path, IndexOptions(kind))
    assert load_index(none, tmp_path, manifest).query(np.ones((3, DIM)), 5).ids.shape == (3, 0)


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_equal_vectors_have_equal_distances_and_come_in_order_of_id(tmp_path: Path, kind: str) -> None:
    vectors = make_snapshot(tmp_path, 200).take(slice(None))
    vectors[[50, 120, 7]] = vectors[3]
    snapshot = write_snapshot(tmp_path, vectors)
    answer = built(snapshot, tmp_path, kind).query(vectors[3:4], 4)
    assert answer.ids.tolist() == [[4, 8, 51, 121]]
    assert len(set(answer.distances[0].tolist())) == 1


@pytest.mark.parametrize("kind", ["exact", *KINDS])
def test_zero_vectors_are_far_from_everything_and_break_nothing(tmp_path: Path, kind: str) -> None:
    vectors = make_snapshot(tmp_path, 100).take(slice(None))
    vectors[10] = 0
    index = built(write_snapshot(tmp_path, vectors), tmp_path, kind)
    answer = index.query(np.stack([vectors[0], np.zeros(DIM, np.float32)]), 100)
    assert np.isfinite(answer.distances).all()
    assert answer.distances[0][answer.ids[0] == 11] == 1.0
    assert (answer.distances[1] == 1.0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_images_are_never_returned_and_new_ones_are_found_before_the_next_build(
    tmp_path: Path, kind: str
) -> None:
    old = make_snapshot(tmp_path, 2000)
    manifest = build_index(old, tmp_path, IndexOptions(kind))
    vectors = np.concatenate(
        [old.take(slice(None)), make_snapshot(tmp_path, 50, seed=9, file="more").take(slice(None))]
    )
    everything = write_snapshot(tmp_path, vectors)
    kept = np.setdiff1d(np.arange(2050), np.arange(0, 2000, 10))
    now = Snapshot(everything.ids[kept], everything.rows[kept], everything.matrix, everything.file)
    index = load_index(now, tmp_path, manifest)
    answer, exact = index.query(vectors[::41], 20), Index(now).query(vectors[::41], 20)
    assert not set(answer.ids.ravel().tolist()) & set(range(1, 2001, 10))
    assert (answer.ids == exact.ids).mean() >= 0.98
    newest = index.query(vectors[2000:], 1)
    assert newest.ids.ravel().tolist() == list(range(2001, 2051))


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_image_is_found_by_its_new_vector_only(tmp_path: Path, kind: str) -> None:
    old = make_snapshot(tmp_path, 1500)
    manifest = build_index(old, tmp_path, IndexOptions(kind))
    new_vector = -old.take(slice(4, 5))
    vectors = np.concatenate([old.take(slice(None)), new_vector])
    everything = write_snapshot(tmp_path, vectors)
    rows = np.arange(1500, dtype=np.int64)
    rows[4] = 1500
    index = load_index(Snapshot(old.ids, rows, everything.matrix, everything.file), tmp_path, manifest)
    assert index.query(new_vector, 1).ids[0, 0] == 5
    assert 5 not in index.query(-new_vector, 10).ids[0].tolist()


@needs_annoy
def test_when_most_is_deleted_the_answer_is_still_k_images(tmp_path: Path) -> None:
    old = make_snapshot(tmp_path, 2000)
    manifest = build_index(old, tmp_path, IndexOptions("annoy", search_k=50))
    now = Snapshot(old.ids[::400], old.rows[::400], old.matrix, old.file)
    answer = load_index(now, tmp_path, manifest).query(old.take(slice(1, 2)), 5)
    assert sorted(answer.ids[0].tolist()) == old.ids[::400].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_build_the_same_index(tmp_path: Path, kind: str) -> None:
    snapshot = make_snapshot(tmp_path, 1500)
    bytes_of = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_index(snapshot, tmp_path / name, IndexOptions(kind, trees=10))
        bytes_of.append((tmp_path / name / f"index.{kind}").read_bytes())
    assert bytes_of[0] == bytes_of[1]


@needs_annoy
def test_auto_is_exact_for_small_collections_and_annoy_for_others(tmp_path: Path) -> None:
    assert build_index(make_snapshot(tmp_path, 100), tmp_path, IndexOptions()).kind == "exact"
    manifest = build_index(make_snapshot(tmp_path, 1000), tmp_path, IndexOptions())
    assert manifest.kind == "annoy"
    assert manifest.self_test is not None
    assert manifest.self_test["recall"] >= 0.99
    assert manifest.self_test["queries"] == 1000


def test_without_annoy_usearch_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "annoy" else find_spec(name))
    assert build_index(make_snapshot(tmp_path, 1000), tmp_path, IndexOptions()).kind == "usearch"
    with pytest.raises(IndexBuildError, match="pip install annoy"):
        build_index(make_snapshot(tmp_path, 1000), tmp_path, IndexOptions("annoy"))


@needs_annoy
def test_a_build_that_fails_its_self_test_is_not_used(tmp_path: Path) -> None:
    # One tree and one inspected node find almost nothing: the same symptom as the faulty builds of Annoy.
    snapshot = write_snapshot(tmp_path, np.random.default_rng(0).normal(size=(3000, DIM)))
    manifest = build_index(snapshot, tmp_path, IndexOptions("annoy", trees=1, search_k=1))
    assert manifest.kind == "exact"
    assert "self-test" in manifest.reason
    query = snapshot.take(slice(0, 1))
    assert load_index(snapshot, tmp_path, manifest).query(query, 10).ids[0].tolist() == brute_force(
        snapshot, query[0], 10
    )


@needs_annoy
def test_a_build_whose_process_dies_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = make_snapshot(tmp_path, 1500)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'build_here' in ' '.join(sys.orig_argv): os.kill(os.getpid(), 7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "built").mkdir()
    manifest = build_index(snapshot, tmp_path / "built", IndexOptions("annoy"))
    assert manifest.kind == "exact"
    assert "signal 7" in manifest.reason
    assert list((tmp_path / "built").iterdir()) == []  # what is left of it may be what filled the disk


@needs_annoy
def test_a_build_that_is_stopped_is_not_used_and_its_process_is_ended(tmp_path: Path) -> None:
    (tmp_path / "built").mkdir()
    snapshot = write_snapshot(tmp_path, np.random.default_rng(0).normal(size=(20_000, DIM)))
    stop = threading.Event()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    manifest = build_index(snapshot, tmp_path / "built", IndexOptions("annoy", trees=2000), stop=stop)
    timer.join()
    assert (manifest.kind, list((tmp_path / "built").iterdir())) == ("exact", [])
    assert "stopped" in manifest.reason


@needs_annoy
@pytest.mark.parametrize("name", ["index.annoy", "ids.npy"])
def test_a_damaged_index_is_noticed(tmp_path: Path, name: str) -> None:
    snapshot = make_snapshot(tmp_path, 1500)
    manifest = build_index(snapshot, tmp_path, IndexOptions("annoy"))
    assert is_complete(tmp_path, manifest)
    os.truncate(tmp_path / name, 100)
    assert not is_complete(tmp_path, manifest)
    with pytest.raises(DamagedCollectionError, match=r"python img2vec\.py"):
        load_index(snapshot, tmp_path, manifest)


@needs_annoy
def test_an_index_is_carried_over_when_little_changed_and_built_anew_when_much_did(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    whole = make_snapshot(tmp_path, 3000)
    some = Snapshot(whole.ids[:2000], whole.rows[:2000], whole.matrix, whole.file)
    few_more = Snapshot(whole.ids[:2100], whole.rows[:2100], whole.matrix, whole.file)
    first = build_index(some, tmp_path / "one", IndexOptions("annoy"))
    second = build_index(few_more, tmp_path / "two", IndexOptions("annoy"), previous=(tmp_path / "one", first))
    assert second.items == 2000
    assert (tmp_path / "two" / "index.annoy").samefile(tmp_path / "one" / "index.annoy")
    third = build_index(whole, tmp_path / "three", IndexOptions("annoy"), previous=(tmp_path / "two", second))
    assert third.items == 3000
    other = build_index(
        few_more, tmp_path / "three", IndexOptions("annoy", trees=7), previous=(tmp_path / "one", first)
    )
    assert other.options["trees"] == 7


@needs_annoy
def test_after_compaction_an_old_build_is_not_mistaken_for_the_new_rows(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path, 1500)
    manifest = build_index(snapshot, tmp_path, IndexOptions("annoy"))
    compacted = make_snapshot(tmp_path, 1500, file="vectors-2.f16", seed=3)
    answer = load_index(compacted, tmp_path, manifest).query(compacted.take(slice(0, 5)), 5)
    assert (answer.ids == Index(compacted).query(compacted.take(slice(0, 5)), 5).ids).all()


def test_wrong_queries_are_the_programmers_mistake(tmp_path: Path) -> None:
    index = Index(make_snapshot(tmp_path, 5))
    with pytest.raises(ValueError, match=r"\(n, 48\), not \(1, 3\)"):
        index.query(np.ones((1, 3)), 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.query(np.ones((1, DIM)), 0)


def test_a_manifest_survives_json(tmp_path: Path) -> None:
    import json
    from dataclasses import asdict

    manifest = build_index(make_snapshot(tmp_path, 1000), tmp_path, IndexOptions())
    assert IndexManifest(**json.loads(json.dumps(asdict(manifest)))) == manifest


def test_unit_vectors_have_length_one() -> None:
    units = unit_vectors(np.array([[3, 4], [0, 0]], dtype=np.float16))
    assert units.dtype == np.float32
    assert np.allclose(units, np.array([[0.6, 0.8], [0.0, 0.0]]))
