"""Exact neighbours in blocks are those of one plain matrix product, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from vectors import exact_neighbours, principal_axes, unit_vectors


def collection() -> np.ndarray:
    vectors = np.random.default_rng(3).normal(size=(400, 24)).astype(np.float32)
    vectors[[30, 170, 399]] = vectors[5]  # equals in the same block and in others
    vectors[60] = 0
    return unit_vectors(vectors)


@pytest.mark.parametrize("block", [1, 7, 100, 400, 1000])
@pytest.mark.parametrize("count", [1, 3, 20, 400, 500])
def test_blocks_of_any_size_give_the_neighbours_of_the_whole_matrix(block: int, count: int) -> None:
    units = collection()
    places, scores = exact_neighbours(units[:40], (units[i : i + block] for i in range(0, 400, block)), count)
    assert places.shape == scores.shape == (40, min(count, 400))
    assert places.dtype == np.int64
    assert scores.dtype == np.float32
    wanted = np.sort(units[:40] @ units.T, axis=1)[:, ::-1][:, :count]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in places.tolist())


def test_of_equal_vectors_the_first_comes_first() -> None:
    units = collection()
    places, _ = exact_neighbours(units[5:6], [units[:100], units[100:]], 4)
    assert places.tolist() == [[5, 30, 170, 399]]
    # Only two of the four are wanted: later equals do not push out earlier ones.
    places, _ = exact_neighbours(units[5:6], [units[:100], units[100:]], 2)
    assert places.tolist() == [[5, 30]]


def test_a_zero_vector_stays_zero_and_is_at_right_angles_to_all() -> None:
    places, scores = exact_neighbours(collection()[60:61], [collection()], 3)
    assert scores.tolist() == [[0.0, 0.0, 0.0]]
    assert places.tolist() == [[0, 1, 2]]


def test_principal_axes_are_those_of_a_singular_value_decomposition() -> None:
    units = collection() * np.linspace(1, 3, 24, dtype=np.float32)
    axes = principal_axes((units[i : i + 90] for i in range(0, 400, 90)), 5)
    _, _, wanted = np.linalg.svd(units, full_matrices=False)
    assert axes.shape == (24, 5)
    assert axes.dtype == np.float32
    np.testing.assert_allclose(np.abs(axes.T @ wanted[:5].T), np.eye(5), atol=1e-3)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(5)] > 0).all()
    assert principal_axes([units[:, :4]], 9).shape == (4, 4)
