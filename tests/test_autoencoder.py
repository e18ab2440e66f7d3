"""Reducers: what PCA must find, what the autoencoder learns, what is refused, and files without pickle or TensorFlow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from autoencoder import Epoch, Reducer, ReducerOptions, fit_reducer, load_reducer, save_reducer
from config import ROOT
from errors import ReducerError
from vectors import Vectors, unit_vectors


def plane_vectors(count: int, *, dim: int = 24, rank: int = 6, seed: int = 0) -> Vectors:
    """Vectors that lie in a subspace of `rank` directions, far from the origin, as those of networks do."""
    random = np.random.default_rng(seed)
    codes = random.normal(size=(count, rank)) + 2
    return np.asarray(codes @ random.normal(size=(rank, dim)), dtype=np.float32)


def cosines(vectors: npt.NDArray[np.float32]) -> Vectors:
    units = unit_vectors(vectors)
    return units @ units.T


@pytest.mark.parametrize("count", [200, 20], ids=["more vectors than numbers", "fewer"])
def test_pca_keeps_every_angle_where_the_vectors_span_no_more_than_its_size(count: int) -> None:
    vectors = plane_vectors(count)
    reducer = fit_reducer(vectors, ReducerOptions("pca", 6)).reducer
    assert (reducer.kind, reducer.source_dim, reducer.dim) == ("pca", 24, 6)
    np.testing.assert_allclose(cosines(reducer.apply(vectors)), cosines(vectors), atol=1e-5)


def test_a_loss_is_never_below_zero() -> None:
    for seed in range(4):  # nothing is lost here, and rounding goes either way
        (epoch,) = fit_reducer(plane_vectors(60, seed=seed), ReducerOptions("pca", 6)).history
        assert min(epoch.loss, epoch.held_out_loss) >= 0


def test_reduced_vectors_have_length_one_and_zeros_stay_zero() -> None:
    vectors = plane_vectors(50)
    vectors[3] = 0
    reduced = fit_reducer(vectors, ReducerOptions("pca", 4)).reducer.apply(vectors)
    lengths = np.linalg.norm(reduced, axis=1)
    assert reduced.dtype == np.float32
    assert lengths[3] == 0
    np.testing.assert_allclose(np.delete(lengths, 3), 1, atol=1e-6)


def test_the_length_of_a_vector_plays_no_part() -> None:
    vectors = plane_vectors(50)
    longer = vectors * np.random.default_rng(1).uniform(0.1, 10, (50, 1)).astype(np.float32)
    first, second = (fit_reducer(given, ReducerOptions("pca", 4)).reducer for given in (vectors, longer))
    np.testing.assert_allclose(first.apply(vectors), second.apply(longer), atol=1e-4)


def test_a_share_of_variance_chooses_the_fewest_components_that_keep_it() -> None:
    vectors = plane_vectors(400, rank=12)
    fitted = fit_reducer(vectors, ReducerOptions("pca", 0.9)).reducer
    assert 1 < fitted.dim < 12
    assert fitted.about["variance"] >= 0.9
    assert fit_reducer(vectors, ReducerOptions("pca", fitted.dim - 1)).reducer.about["variance"] < 0.9


def test_what_is_held_out_does_not_reach_what_is_fitted() -> None:
    """One vector of a direction of its own, held out: had PCA seen it, that direction would be kept."""
    for seed in range(40):
        vectors = plane_vectors(20, rank=3)
        place = int(np.random.default_rng(seed).permutation(20)[0])
        vectors[place] = 100 * np.eye(24, dtype=np.float32)[0]
        fitted = fit_reducer(vectors, ReducerOptions("pca", 3, seed=seed))
        assert fitted.history[0].loss < 1e-5 < 0.01 < fitted.history[0].held_out_loss


def test_progress_tells_of_each_epoch() -> None:
    seen: list[Epoch] = []
    fitted = fit_reducer(plane_vectors(60), ReducerOptions("pca", 4), on_progress=seen.append)
    assert seen == list(fitted.history)
    assert (seen[0].number, seen[0].of) == (1, 1)


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        (plane_vectors(5), ReducerOptions("pca", 6), "4 vectors are there to train on"),
        (plane_vectors(5), ReducerOptions("autoencoder", 6), "fewer than the 6 numbers"),
        (plane_vectors(0), ReducerOptions("pca", 0.9), "0 vectors are there"),
        (np.zeros((30, 24), np.float32), ReducerOptions("pca", 2), "0 vectors are there"),
        (plane_vectors(40), ReducerOptions("pca", 7), "span only 6 directions, fewer than the 7"),
        (plane_vectors(40), ReducerOptions("pca", 24), "24 numbers were asked for, but the vectors have 24"),
        (plane_vectors(40), ReducerOptions("autoencoder", 0), "0 numbers were asked for"),
        (plane_vectors(40), ReducerOptions("pca", 1.0), "1.0 is no size for the pca"),
        (plane_vectors(40), ReducerOptions("autoencoder", 0.9), "0.9 is no size for the autoencoder"),
        (plane_vectors(40)[0], ReducerOptions("pca", 2), "must have shape (n, dim), not (24,)"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_its_values(
    vectors: Vectors, options: ReducerOptions, message: str
) -> None:
    with pytest.raises(ReducerError) as caught:
        fit_reducer(vectors, options)
    assert message in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_and_placed(bad: float) -> None:
    vectors = plane_vectors(40)
    vectors[[7, 9], 2] = bad
    with pytest.raises(ReducerError, match=r"2 of the 40 vectors hold NaN or infinity, the first is number 7"):
        fit_reducer(vectors, ReducerOptions("pca", 2))


@pytest.mark.parametrize("shape", [(3, 23), (24,)])
def test_vectors_of_another_dimension_are_refused(shape: tuple[int, ...]) -> None:
    reducer = fit_reducer(plane_vectors(40), ReducerOptions("pca", 2)).reducer
    with pytest.raises(ReducerError, match="trained on 24-d vectors"):
        reducer.apply(np.ones(shape, np.float32))


# Files


def test_a_reducer_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    fitted = fit_reducer(plane_vectors(40), ReducerOptions("pca", 3))
    save_reducer(fitted, tmp_path / "deep" / "pca.npz", about={"from": "a test"})
    loaded = load_reducer(tmp_path / "deep" / "pca.npz")
    np.testing.assert_array_equal(loaded.matrix, fitted.reducer.matrix)
    assert (loaded.kind, loaded.about["from"], loaded.about["variance"]) == (
        "pca",
        "a test",
        fitted.reducer.about["variance"],
    )
    assert [Epoch(**epoch) for epoch in loaded.about["history"]] == list(fitted.history)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pca.npz"]


def test_a_file_that_is_cut_off_changed_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pca.npz"
    with pytest.raises(ReducerError, match="There is no reducer in"):
        load_reducer(path)
    save_reducer(fit_reducer(plane_vectors(40), ReducerOptions("pca", 3)), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place])
        with pytest.raises(ReducerError):
            load_reducer(path)
    middle = whole.index(b"matrix.npy") + 300
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ReducerError, match="cannot be read"):
        load_reducer(path)


def write_npz(path: Path, **changes: object) -> None:
    arrays: dict[str, object] = {
        "format_version": np.int64(1),
        "kind": np.array("pca"),
        "matrix": np.ones((4, 2), "<f4"),
        "about": np.array("{}"),
    }
    np.savez(path, **(arrays | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": np.int64(2)},
        {"kind": np.array("magic")},
        {"matrix": np.ones((2, 4), "<f4")},
        {"matrix": np.ones(4, "<f4")},
        {"matrix": np.full((4, 2), np.nan, "<f4")},
        {"matrix": np.ones((4, 2), "<f8")},
        {"matrix": np.array([["pickled", None]], dtype=object)},
        {"about": np.array("{")},
    ],
    ids=["version", "kind", "wider", "flat", "NaN", "doubles", "pickle", "about"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    write_npz(tmp_path / "good.npz")
    assert load_reducer(tmp_path / "good.npz").dim == 2
    write_npz(tmp_path / "bad.npz", **changes)
    with pytest.raises(ReducerError):
        load_reducer(tmp_path / "bad.npz")


def test_loading_and_applying_needs_neither_tensorflow_nor_keras(tmp_path: Path) -> None:
    write_npz(tmp_path / "autoencoder.npz", kind=np.array("autoencoder"))
    program = (
        "import sys; from pathlib import Path; import numpy as np; from autoencoder import load_reducer\n"
        f"print(load_reducer(Path({str(tmp_path / 'autoencoder.npz')!r})).apply(np.ones((1, 4), np.float32)).shape)\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.stdout.splitlines() == ["(1, 2)", "[]"], finished.stderr


# The autoencoder

FAST = ReducerOptions("autoencoder", 6, max_epochs=30)


@pytest.mark.keras
def test_the_autoencoder_learns_is_repeatable_and_lies_in_two_files(tmp_path: Path) -> None:
    import keras

    vectors = plane_vectors(2_000)
    first, second = fit_reducer(vectors, FAST), fit_reducer(vectors, FAST)
    np.testing.assert_array_equal(first.reducer.matrix, second.reducer.matrix)
    assert first.history == second.history
    other = fit_reducer(vectors, dataclasses.replace(FAST, seed=1, max_epochs=1))
    assert not np.array_equal(first.reducer.matrix, other.reducer.matrix)
    # The vectors lie in 6 directions, so a code of 6 can keep every angle; a random one keeps none.
    assert first.history[-1].held_out_loss < 0.05 < 0.1 < first.history[0].held_out_loss
    assert np.abs(cosines(first.reducer.apply(vectors[:200])) - cosines(vectors[:200])).mean() < 0.1

    save_reducer(first, tmp_path / "autoencoder.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder.keras", "autoencoder.npz"]
    model = keras.models.load_model(tmp_path / "autoencoder.keras")
    back = model.predict(unit_vectors(vectors[:50]), verbose=0)
    assert (unit_vectors(back) * unit_vectors(vectors[:50])).sum(axis=1).mean() > 0.95
    codes = keras.Model(model.inputs, model.get_layer("code").output).predict(unit_vectors(vectors[:50]), verbose=0)
    reducer: Reducer = load_reducer(tmp_path / "autoencoder.npz")
    np.testing.assert_allclose(unit_vectors(codes), reducer.apply(vectors[:50]), atol=1e-5)


@pytest.mark.keras
def test_training_stops_when_the_held_out_loss_no_longer_falls_and_keeps_the_best() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(120, 64)).astype(np.float32)  # nothing to learn that holds for others
    fitted = fit_reducer(noise, ReducerOptions("autoencoder", 8, max_epochs=400))
    losses = [epoch.held_out_loss for epoch in fitted.history]
    assert len(losses) < 400
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    held_out = unit_vectors(noise)[np.random.default_rng(ReducerOptions.seed).permutation(120)[:6]]
    back = unit_vectors(held_out @ fitted.reducer.matrix @ fitted.reducer.matrix.T)
    assert 1 - float((held_out * back).sum(axis=1).mean()) == pytest.approx(losses[best], abs=1e-3)


@pytest.mark.keras
def test_many_vectors_are_gone_through_less_often() -> None:
    fitted = fit_reducer(plane_vectors(1_400), ReducerOptions("autoencoder", 4, max_epochs=30, max_steps=12))
    assert fitted.history[0].of == 2  # six batches each


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.real_photos
def test_real_inception_vectors_are_found_as_well_by_256_numbers(shared_data: Path) -> None:
    with np.load(shared_data / "flowers-inception-v3.npz") as file:
        vectors, labels = file["X"], file["label"]
    truth = nearest(vectors)[:, :10]
    for kind in ("autoencoder", "pca"):
        found = nearest(fit_reducer(vectors, ReducerOptions(kind)).reducer.apply(vectors))
        assert (labels[found[:, :10]] == labels[:, None]).mean() >= 0.80, kind
        candidates = [set(row) for row in found[:, :50].tolist()]
        kept = [len(own & set(true)) for own, true in zip(candidates, truth.tolist(), strict=True)]
        assert np.mean(kept) / 10 >= 0.99, kind


def nearest(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    scores = cosines(vectors)
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)
