"""The order of pages: plain cosine first, then what averages say; what is carried over, filtered, deleted, damaged."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import ranking
from errors import DamagedCollectionError
from ranking import (
    KindRanking,
    build_kind_ranking,
    choose_default,
    fit_space,
    group_size,
    is_complete,
    load_kind_ranking,
)
from store import Snapshot
from vectors import unit_vectors

DIM = 48


def make_snapshot(count: int, *, first_id: int = 1, seed: int = 0, spread: float = 1.0) -> Snapshot:
    """Images of ten kinds, as far apart within a kind as photographs are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(10, DIM))
    vectors = centres[np.arange(count) % 10] + spread * random.normal(size=(count, DIM))
    rows = np.arange(count, dtype=np.int64)
    return Snapshot(rows + first_id, rows, vectors.astype(np.float16), "vectors.f16")


def part(snapshot: Snapshot, places: np.ndarray) -> Snapshot:
    return Snapshot(snapshot.ids[places], snapshot.rows[places], snapshot.matrix, snapshot.file)


def plain_order(snapshot: Snapshot, vectors: np.ndarray) -> np.ndarray:
    scores = unit_vectors(vectors) @ unit_vectors(snapshot.take(slice(None))).T
    return snapshot.ids[np.argsort(-scores, axis=1, kind="stable")]


def built(snapshot: Snapshot, folder: Path) -> KindRanking:
    manifest = json.loads(json.dumps(build_kind_ranking(snapshot, folder)))
    loaded = load_kind_ranking(snapshot, folder, manifest)
    assert loaded is not None
    return loaded


def wrong_among(answers: np.ndarray, kinds: np.ndarray, count: int) -> int:
    return int(((answers[:, :count] - 1) % 10 != kinds[:, None]).sum())


def test_the_first_three_are_plain_and_the_rest_finds_more_of_the_kind(tmp_path: Path) -> None:
    snapshot = make_snapshot(600, spread=2.2)
    uploads = make_snapshot(40, seed=5, spread=2.2).take(slice(None))
    plain = plain_order(snapshot, uploads)
    answer = built(snapshot, tmp_path).order(uploads, plain[:, :20], 50)
    assert answer.dtype == np.int64
    assert answer.shape == (40, 50)
    assert (answer[:, :3] == plain[:, :3]).all()
    assert all(len(set(row)) == 50 for row in answer.tolist())
    kinds = np.arange(40) % 10
    assert wrong_among(answer, kinds, 50) < 0.7 * wrong_among(plain, kinds, 50)


def test_each_image_is_averaged_with_its_nearest_and_not_with_itself(tmp_path: Path) -> None:
    snapshot = make_snapshot(130)
    build_kind_ranking(snapshot, tmp_path)
    small = fit_space(snapshot).apply(snapshot.take(slice(None)))
    scores = small @ small.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1)[:, : ranking.NEIGHBOURS]
    background = np.sort(scores, axis=1)[:, -ranking.NEIGHBOURS - 1, None].clip(0)
    weights = ((np.take_along_axis(scores, nearest, 1) - background) / (1 - background)).clip(0)
    expected = unit_vectors(small + (weights[:, :, None] * small[nearest]).sum(axis=1))
    np.testing.assert_allclose(np.load(tmp_path / ranking.AVERAGES_FILE), expected, atol=1e-5)


def test_a_large_collection_looks_for_neighbours_in_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, folders = make_snapshot(300), [tmp_path / "all", tmp_path / "sample"]
    for folder in folders:
        folder.mkdir()
    build_kind_ranking(snapshot, folders[0])
    monkeypatch.setattr(ranking, "REFERENCE_ROWS", 150)
    build_kind_ranking(snapshot, folders[1])
    whole, sampled = (np.load(folder / ranking.AVERAGES_FILE) for folder in folders)
    assert whole.shape == sampled.shape
    cosines = (whole * sampled).sum(axis=1)
    assert 0.9 < cosines.mean() < 0.99999


def test_the_space_is_that_of_the_principal_components() -> None:
    random = np.random.default_rng(3)
    wide = random.normal(size=(500, 300)) * np.geomspace(10, 0.01, 300)
    snapshot = Snapshot(np.arange(500), np.arange(500), wide.astype(np.float16))
    units = unit_vectors(snapshot.take(slice(None)))
    centred = units - units.mean(axis=0)
    variance = np.linalg.svd(centred, compute_uv=False) ** 2
    space = fit_space(snapshot)
    kept = np.square(centred @ space.basis).sum()
    assert kept >= 0.999 * variance[: ranking.DIM].sum()
    np.testing.assert_allclose(space.basis.T @ space.basis, np.eye(ranking.DIM), atol=1e-5)


def test_only_allowed_images_are_answered_and_as_many_as_there_are(tmp_path: Path) -> None:
    snapshot = make_snapshot(300)
    order = built(snapshot, tmp_path)
    allowed = snapshot.ids[::30]
    vectors = snapshot.take(slice(0, 4))
    plain = np.array([[i for i in row if i in allowed] for row in plain_order(snapshot, vectors).tolist()])
    answer = order.order(vectors, plain, 50, allowed=allowed)
    assert [sorted(row) for row in answer.tolist()] == [allowed.tolist()] * 4
    assert (answer[:, :3] == plain[:, :3]).all()
    assert order.order(vectors, plain, 2, allowed=allowed).tolist() == plain[:, :2].tolist()


def test_an_image_can_be_left_out_of_its_own_answer(tmp_path: Path) -> None:
    snapshot = make_snapshot(120)
    vectors = snapshot.take(slice(0, 5))
    without = np.array([[1, -1], [2, 7], [3, -1], [4, -1], [5, 9]])
    answer = built(snapshot, tmp_path).order(vectors, plain_order(snapshot, vectors), None, without=without)
    assert answer.shape == (5, 119)
    for row, left_out in zip(answer.tolist(), without.tolist(), strict=True):
        assert set(row) - {-1} == set(range(1, 121)) - set(left_out)


def test_deleted_images_are_gone_and_new_ones_are_found(tmp_path: Path) -> None:
    whole = make_snapshot(400)
    before = part(whole, np.arange(380))
    manifest = build_kind_ranking(before, tmp_path)
    after = part(whole, np.setdiff1d(np.arange(400), np.arange(0, 40, 2)))
    order = load_kind_ranking(after, tmp_path, manifest)
    assert order is not None
    vectors = after.take(slice(0, 3))
    answer = order.order(vectors, plain_order(after, vectors), None)
    assert [sorted(row) for row in answer.tolist()] == [after.ids.tolist()] * 3
    # A new image is as near to its kind as the old ones are: its average was made too.
    new = after.position(395)
    near = order.order(after.take(np.array([new])), np.array([[395]]), 30)
    assert wrong_among(near, np.array([(395 - 1) % 10]), 30) == 0


def test_a_changed_image_loses_its_old_average(tmp_path: Path) -> None:
    whole = make_snapshot(200)
    manifest = build_kind_ranking(part(whole, np.arange(199)), tmp_path)
    rows = np.arange(199)
    rows[0] = 199  # image 1, of the first kind, has now the contents of one of the last
    order = load_kind_ranking(Snapshot(whole.ids[:199], rows, whole.matrix, whole.file), tmp_path, manifest)
    assert order is not None
    answer = order.order(whole.take(np.array([199])), np.empty((1, 0), np.int64), 15)
    assert 1 in answer[0]


def test_few_changes_carry_the_averages_over_and_many_make_them_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "FEW_CHANGED", 10)
    whole = make_snapshot(300)
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    first = build_kind_ranking(part(whole, np.arange(200)), folders[0])
    second = build_kind_ranking(part(whole, np.arange(5, 205)), folders[1], previous=(folders[0], first))
    assert second == first
    assert (folders[1] / ranking.AVERAGES_FILE).samefile(folders[0] / ranking.AVERAGES_FILE)
    assert load_kind_ranking(part(whole, np.arange(5, 205)), folders[1], second) is not None
    assert load_kind_ranking(whole, folders[1], second) is None
    third = build_kind_ranking(whole, folders[2], previous=(folders[1], second))
    assert third["images"] == 300


def test_the_averages_of_given_images_are_had_whether_they_are_old_or_new(tmp_path: Path) -> None:
    whole = make_snapshot(300)
    manifest = build_kind_ranking(part(whole, np.arange(200)), tmp_path)
    order = load_kind_ranking(part(whole, np.arange(5, 205)), tmp_path, manifest)
    assert order is not None
    averages = order.averages_of(whole.ids[[203, 7, 150]])
    assert np.linalg.norm(averages, axis=1) == pytest.approx(1)
    stored = np.load(tmp_path / ranking.AVERAGES_FILE)
    assert np.array_equal(averages[1:], stored[[7, 150]])
    assert (averages[0] @ stored.T).argmax() % 10 == 203 % 10  # the same kind


def test_averages_of_another_vectors_file_are_not_used(tmp_path: Path) -> None:
    snapshot = make_snapshot(100)
    manifest = build_kind_ranking(snapshot, tmp_path)
    compacted = Snapshot(snapshot.ids, snapshot.rows, snapshot.matrix, "vectors-2.f16")
    assert load_kind_ranking(compacted, tmp_path, manifest) is None
    assert load_kind_ranking(snapshot, tmp_path, None) is None


def test_a_stopped_job_leaves_no_files_and_a_plain_order(tmp_path: Path) -> None:
    stop = threading.Event()
    manifest = build_kind_ranking(make_snapshot(3000), tmp_path, stop=stop, on_progress=lambda done, total: stop.set())
    assert (manifest["default"], manifest["reason"], manifest["images"]) == ("plain", ranking.STOPPED, 0)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_kind_ranking(make_snapshot(2500), tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1024, 2500), (2048, 2500), (2500, 2500)]


@pytest.mark.parametrize("name", ranking.FILES)
def test_damaged_files_are_told_apart(tmp_path: Path, name: str) -> None:
    snapshot = make_snapshot(100)
    manifest = build_kind_ranking(snapshot, tmp_path)
    assert is_complete(tmp_path, manifest)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    assert not is_complete(tmp_path, manifest)
    with pytest.raises(DamagedCollectionError, match="img2vec"):
        load_kind_ranking(snapshot, tmp_path, manifest)


@pytest.mark.parametrize("count", [0, 1, 2, 19])
def test_a_very_small_collection_is_in_plain_order(tmp_path: Path, count: int) -> None:
    manifest = build_kind_ranking(make_snapshot(count), tmp_path)
    assert manifest["default"] == "plain"
    assert load_kind_ranking(make_snapshot(count), tmp_path, manifest) is None


def test_copies_of_one_image_alone_break_nothing(tmp_path: Path) -> None:
    ids = np.arange(1, 61)
    snapshot = Snapshot(ids, np.zeros(60, dtype=np.int64), np.ones((1, DIM), dtype=np.float16), "x")
    answer = built(snapshot, tmp_path).order(np.ones((1, DIM), np.float32), ids[None, :5], None)
    assert answer.tolist() == [ids.tolist()]


def test_vectors_of_zeros_break_nothing(tmp_path: Path) -> None:
    snapshot = Snapshot(np.arange(60), np.arange(60), np.zeros((60, DIM), dtype=np.float16), "x")
    answer = built(snapshot, tmp_path).order(np.zeros((1, DIM), np.float32), np.arange(3)[None], 10)
    assert answer.shape == (1, 10)


def test_the_same_vectors_give_the_same_averages(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_kind_ranking(make_snapshot(200), tmp_path / name)
        files.append((tmp_path / name / ranking.AVERAGES_FILE).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a"] * 2 + ["b"] * 3 + ["c"] * 4, 3),
        (["a"] * 10 + ["b"], 10),
        (["a"] * 10, None),
        ([None] * 10 + ["a", "b"], None),
        ([], None),
    ],
)
def test_the_group_of_the_median_image_is_measured(labels: list[str | None], expected: int | None) -> None:
    assert group_size(labels) == expected


@pytest.mark.parametrize(
    ("labels", "matches", "default", "word"),
    [
        ([str(number // 3) for number in range(90)], 20.0, "plain", "folder"),
        ([str(number // 30) for number in range(90)], 1.0, "kind", "folder"),
        (["all"] * 90, 3.0, "plain", "like them"),
        (["all"] * 90, 4.0, "kind", "like them"),
        ([], None, "kind", "nothing"),
    ],
)
def test_small_groups_are_in_plain_order_by_default(
    labels: list[str | None], matches: float | None, default: str, word: str
) -> None:
    chosen, reason = choose_default(90, labels, matches)
    assert chosen == default
    assert word in reason
