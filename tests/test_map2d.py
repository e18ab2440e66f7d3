"""Maps: what is alike lies together, the same again from the same seed; cells hold one each; newcomers lie among their like."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from config import ROOT
from errors import MissingPackageError
from map2d import (
    cell_positions,
    date_cells,
    fitted,
    grid_cells,
    mend_cells,
    nearest_free_cells,
    nearest_others,
    place_new,
    principal_components,
    stack_new,
    trustworthiness,
    tsne,
    umap,
)
from store import Snapshot
from tests.reduced_collection import group_vectors
from vectors import unit_vectors

UNKNOWN = np.datetime64("NaT", "s")


def snapshot_of(vectors: npt.NDArray[np.float32]) -> Snapshot:
    """Return vectors as a collection has them."""
    places = np.arange(len(vectors), dtype=np.int64)
    return Snapshot(places, places, vectors.astype(np.float16))


def times(*texts: str | None) -> npt.NDArray[np.datetime64]:
    """Return times taken, None for unknown."""
    return np.array([UNKNOWN if text is None else np.datetime64(text, "s") for text in texts], dtype="datetime64[s]")


def distinct(cells: npt.NDArray[np.int32]) -> bool:
    """Tell whether no two have the same cell."""
    return len(np.unique(cells, axis=0)) == len(cells)


# What is near.


def test_principal_components_keep_the_distances_of_vectors_that_lie_on_few_axes() -> None:
    flat = np.random.default_rng(0).normal(size=(300, 5)) @ np.random.default_rng(1).normal(size=(5, 40))
    points, axes = principal_components(snapshot_of(flat.astype(np.float32)), count=10)
    units = unit_vectors(flat.astype(np.float16))
    assert points.dtype == np.float32
    assert axes.shape[0] == 40
    assert np.linalg.norm(points[7] - points[99]) == pytest.approx(
        float(np.linalg.norm(units[7] - units[99])), abs=1e-3
    )


def test_the_nearest_others_are_those_of_all_distances_and_never_oneself() -> None:
    points = np.random.default_rng(0).normal(size=(250, 6)).astype(np.float32)
    points[100:130] = points[100]  # more equals than are asked for
    found = nearest_others(points, 12)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :12], atol=2e-3)
    assert (found.places != np.arange(250)[:, None]).all()
    assert nearest_others(points[:3], 12).places.shape == (3, 2)


# t-SNE and UMAP.


@pytest.fixture(scope="module")
def groups() -> npt.NDArray[np.float32]:
    """Return the principal components of 180 vectors in 6 groups of 30."""
    return principal_components(snapshot_of(group_vectors(180, groups=6)))[0]


def test_tsne_lays_groups_apart_within_the_unit_square(groups: npt.NDArray[np.float32]) -> None:
    layout = tsne(groups)
    assert (layout.shape, float(np.ptp(layout, axis=0).max())) == ((180, 2), 1.0)
    assert layout.dtype == np.float32
    assert 0 <= layout.min() <= layout.max() <= 1
    nearest = nearest_others(layout, 10).places // 30
    assert (nearest == np.arange(180)[:, None] // 30).mean() > 0.95


def test_the_same_seed_gives_the_same_bytes_with_any_threads_and_another_seed_another_map(
    groups: npt.NDArray[np.float32],
) -> None:
    first, again, other = tsne(groups), tsne(groups, nearest_others(groups, 90), threads=2), tsne(groups, seed=1)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_progress_is_told_to_the_end(groups: npt.NDArray[np.float32]) -> None:
    told: list[tuple[int, int]] = []
    tsne(groups[:40], on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (750, 750)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("kind", ["different", "equal", "two kinds", "one number", "zero", "no axis"])
def test_few_and_equal_vectors_have_a_place_each(count: int, kind: str) -> None:
    random = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    points = {
        "different": random,
        "equal": np.repeat(random[:1], count, axis=0),
        "two kinds": random[np.arange(count) % min(2, count)],
        "one number": random[:, :1],
        "zero": np.zeros((count, 8), np.float32),
        "no axis": np.zeros((count, 0), np.float32),
    }[kind]
    layout = tsne(points)
    assert layout.shape == (count, 2)
    assert layout.dtype == np.float32
    assert np.isfinite(layout).all()
    assert 0 <= layout.min() <= layout.max() <= 1
    assert distinct(grid_cells(layout))


UMAP = """
import sys
import numpy as np
from map2d import umap
points = np.repeat(np.random.default_rng(0).normal(size=(4, 6)), 15, axis=0)
points = (points + np.random.default_rng(1).normal(size=(60, 6)) / 20).astype(np.float32)
layout, again = umap(points), umap(points)
print(layout.shape, layout.dtype, 0 <= layout.min() <= layout.max() <= 1, np.isfinite(layout).all())
print(layout.tobytes() == again.tobytes())
kinds = np.arange(60) // 15
nearest = np.linalg.norm(layout[:, None] - layout, axis=2).argsort(axis=1)[:, 1:6]
print((kinds[nearest] == kinds[:, None]).all())
for odd in (points[:1], points[:3], points[:5], np.repeat(points[:1], 9, axis=0), np.zeros((9, 3), np.float32)):
    found = umap(odd)
    print(found.shape == (len(odd), 2) and np.isfinite(found).all())
print("tensorflow" in sys.modules)
"""


@pytest.mark.slow
def test_umap_lays_groups_apart_and_never_imports_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("umap")
    (tmp_path / "tensorflow.py").write_text("print('TensorFlow was imported')")
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n" + textwrap.dedent(UMAP)
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.stdout.split("\n")[:-1] == ["(60, 2) float32 True True", "True", "True", *5 * ["True"], "False"], (
        finished.stderr
    )
    assert finished.stderr == ""


def test_umap_that_is_not_installed_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingPackageError, match=r"umap-learn.*pip install -r requirements/umap\.txt"):
        umap(np.zeros((5, 2), np.float32))
    assert sys.modules.get("tensorflow", "not there") is not None


def test_positions_are_scaled_alike_in_both_directions_and_stand_in_the_middle() -> None:
    layout = fitted(np.array([[10.0, 5.0], [30.0, 5.0], [20.0, 15.0]]))
    np.testing.assert_allclose(layout, [[0, 0.25], [1, 0.25], [0.5, 0.75]])


# The grid.


def test_a_grid_gives_each_picture_a_cell_of_its_own_and_is_four_to_three() -> None:
    for count in (1, 2, 5, 12, 13, 500):
        cells = grid_cells(np.random.default_rng(count).random((count, 2)).astype(np.float32))
        columns, rows = cells.max(axis=0) + 1
        assert distinct(cells)
        assert columns * rows - count < columns
        assert cells.min() == 0
    assert (columns, rows) == (26, 20)


def test_pictures_that_lie_in_a_grid_already_stay_in_it() -> None:
    there = np.stack(np.meshgrid(np.arange(16), np.arange(12)), axis=-1).reshape(-1, 2)
    there = there[np.random.default_rng(0).permutation(len(there))]
    np.testing.assert_array_equal(grid_cells((there / 16).astype(np.float32)), there)


def test_a_grid_is_nearly_as_near_as_the_best_assignment_there_is() -> None:
    from scipy.optimize import linear_sum_assignment

    random = np.random.default_rng(0)
    positions = np.concatenate([random.normal(size=(300, 2)) / 9, random.normal(size=(132, 2)) / 3 + 2])
    low, high = positions.min(axis=0), positions.max(axis=0)
    wanted = (positions - low) / (high - low) * [24, 18]
    middles = np.stack(np.meshgrid(np.arange(24), np.arange(18)), axis=-1).reshape(-1, 2) + 0.5
    costs = np.square(wanted[:, None] - middles).sum(axis=2)
    best = costs[linear_sum_assignment(costs)].mean()
    found = np.square(wanted - (grid_cells(positions.astype(np.float32)) + 0.5)).sum(axis=1).mean()
    assert found <= 1.03 * best


def test_mending_leaves_no_two_in_one_cell_where_there_are_free_ones() -> None:
    wanted = np.random.default_rng(0).random((90, 2)) * 20
    before = nearest_free_cells(wanted, np.empty((0, 2), np.int32), 20, 20)
    after = mend_cells(before, wanted)
    assert distinct(after)
    assert np.square(after + 0.5 - wanted).sum() <= np.square(before + 0.5 - wanted).sum()


# By date.


def test_time_runs_from_left_to_right_and_the_undated_stand_apart() -> None:
    taken = times("2020-05-02T09:00", None, "2020-05-01T10:00", "2020-05-01T09:00", "2020-05-04T00:00", None)
    dates = date_cells(taken)
    columns, rows = dates.cells.T
    assert [label for label, _ in dates.marks] == ["2020-05-01", "2020-05-02", "2020-05-04"]
    assert dates.unit == "day"
    assert distinct(dates.cells)
    assert columns[3] <= columns[2] < columns[0] < columns[4] < columns[1] - 1
    assert rows[4] == rows[0] == rows.max() == dates.side - 1
    middles = [middle for _, middle in dates.marks]
    assert middles == sorted(middles)
    assert columns[0] <= middles[1] <= columns[0] + 1


@pytest.mark.parametrize(
    ("days", "unit"),
    [(0.001, "day"), (0.02, "day"), (1, "month"), (30, "year"), (400, "decade")],
)
def test_the_finest_unit_is_taken_that_leaves_no_long_thin_line(days: float, unit: str) -> None:
    taken = np.datetime64("2001-01-01", "s") + (np.arange(300) * days * 86_400).astype("timedelta64[s]")
    dates = date_cells(taken)
    assert dates.unit == unit
    width, height = np.ptp(dates.cells, axis=0) + 1
    assert 300 / (width * height) > 0.15
    assert distinct(dates.cells)
    if unit == "decade":
        assert dates.marks[0][0] == "2000s"


def test_images_without_any_date_are_one_block() -> None:
    dates = date_cells(times(*[None] * 18))
    assert (dates.marks, distinct(dates.cells), dates.cells.min(axis=0)[0]) == ([], True, 0)
    assert np.ptp(dates.cells, axis=0).tolist() == [5, 2]


def test_an_image_that_comes_later_lies_on_top_of_those_of_its_day() -> None:
    known = times(*["2020-05-01T10:00"] * 9, *["2020-06-01T10:00"] * 9, None)
    dates = date_cells(known)
    new = times("2020-06-01T12:00", None, "1999-01-01", "2020-06-01T12:00")
    cells = stack_new(new, known, dates.cells)
    assert distinct(np.concatenate([dates.cells, cells]))
    in_june = dates.cells[9:18, 0]
    assert in_june.min() <= cells[0, 0] == cells[3, 0] <= in_june.max()
    assert (cells[1, 0], cells[2, 0]) == (dates.cells[18, 0], 0)
    assert cells[3, 1] == cells[0, 1] - 1


def test_the_first_undated_image_stands_apart_and_dates_find_a_place_among_the_undated() -> None:
    dated, undated = date_cells(times("2020-05-01", "2020-05-01")), date_cells(times(None, None))
    assert stack_new(times(None), times("2020-05-01", "2020-05-01"), dated.cells)[0, 0] > dated.cells[:, 0].max() + 1
    assert distinct(np.concatenate([undated.cells, stack_new(times("2020-05-01"), times(None, None), undated.cells)]))
    assert stack_new(times(), times("2020-05-01", "2020-05-01"), dated.cells).shape == (0, 2)


def test_cells_become_positions_and_a_square_that_is_grown_over_is_made_smaller() -> None:
    positions, size = cell_positions(np.array([[0, 0], [3, 1]], np.int32), 4)
    np.testing.assert_allclose(positions, [[0.125, 0.125], [0.875, 0.375]])
    assert positions.dtype == np.float32
    assert size == 0.25
    positions, size = cell_positions(np.array([[0, -4], [3, 3]], np.int32), 4)
    np.testing.assert_allclose(positions, [[0.0625, 0.0625], [0.4375, 0.9375]])
    assert size == 0.125


# Newcomers.


def test_a_new_image_lies_within_the_island_that_it_is_like_and_not_between_two() -> None:
    axes = np.eye(3, dtype=np.float32)
    known = unit_vectors(np.repeat(axes, 40, axis=0) + np.random.default_rng(0).normal(size=(120, 3)) / 20)
    islands = np.repeat([[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], 40, axis=0)
    layout = islands + np.random.default_rng(1).normal(size=(120, 2)) / 100
    new = unit_vectors(np.array([[1.0, 0.05, 0], [0, 0.1, 1], [0.71, 0.70, 0]]))
    placed = place_new(new, known, layout)
    ways = np.linalg.norm(placed[:, None] - islands[::40], axis=2)
    assert ways.argmin(axis=1).tolist()[:2] == [0, 2]
    assert ways.min(axis=1).max() < 0.05
    np.testing.assert_allclose(place_new(new, known[:1], layout[:1]), layout[[0, 0, 0]])
    many = place_new(np.resize(new, (5_000, 3)), known, layout)
    np.testing.assert_allclose(many, np.resize(placed, (5_000, 2)))
    assert place_new(new[:0], known, layout).shape == (0, 2)


def test_each_newcomer_gets_the_nearest_cell_that_is_free() -> None:
    taken = np.array([[x, y] for y in range(3) for x in range(4)], np.int32)
    cells = nearest_free_cells(np.array([[1.5, 0.5], [1.5, 0.5], [3.5, 2.5]]), taken, 4)
    assert cells.tolist() == [[1, 3], [0, 3], [3, 3]] or cells.tolist() == [[1, 3], [2, 3], [3, 3]]
    hole = np.delete(taken, 5, axis=0)
    assert nearest_free_cells(np.array([[3.9, 2.9]]), hole, 4).tolist() == [taken[5].tolist()]
    many = nearest_free_cells(np.full((200, 2), 1.5), taken, 4)
    assert distinct(np.concatenate([taken, many]))
    assert (many[:, 0].max(), many[:, 1].max()) == (3, 52)


# How true a map is.


def test_trustworthiness_is_that_of_scikit_learn() -> None:
    from sklearn.manifold import trustworthiness as reference

    vectors = group_vectors(300, groups=6).astype(np.float16).astype(np.float32)
    layout = vectors[:, :2] + np.random.default_rng(3).normal(size=(300, 2))
    expected = reference(unit_vectors(vectors), layout, n_neighbors=10)
    assert trustworthiness(snapshot_of(vectors), layout) == pytest.approx(expected, abs=1e-5)
    sampled = trustworthiness(snapshot_of(vectors), layout, queries=100)
    assert sampled == pytest.approx(expected, abs=0.03)
    assert sampled != trustworthiness(snapshot_of(vectors), layout)


def test_too_few_images_have_no_trustworthiness() -> None:
    vectors = group_vectors(24, groups=2)
    assert trustworthiness(snapshot_of(vectors[:20]), vectors[:20, :2]) is None
    assert trustworthiness(snapshot_of(vectors), vectors[:, :2]) is not None


@pytest.mark.real_photos
def test_the_map_of_real_photographs_is_true(shared_data: Path) -> None:
    with np.load(shared_data / "flowers-inception-v3.npz") as file:
        snapshot = snapshot_of(file["X"][::3])
    points, _ = principal_components(snapshot)
    layout = tsne(points)
    in_cells = trustworthiness(snapshot, grid_cells(layout).astype(np.float32))
    assert (trustworthiness(snapshot, layout) or 0) > 0.93
    assert (in_cells or 0) > 0.85
