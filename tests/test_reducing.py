"""Training on a collection and publishing: what is trained when, what answers are afterwards, and that a stop leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import reducing
from autoencoder import load_reducer
from config import Settings
from errors import CollectionLockedError, CollectionMissingError, EmptyCollectionError, ReducerError, SettingsError
from publishing import open_index
from reducing import TRAINING_BYTES, options_of, reduce_collection, reduced_dim, training_vectors
from store import Snapshot, open_store, open_writer
from tests.reduced_collection import KEY, add_vectors, collection_at, group_vectors


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A small collection, whose index is exact search; so nothing is built but the reducer."""
    return replace(collection_at(tmp_path / "rsc", 240), reducer="pca", reduced_dim="16")


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of a collection but the lock, which names its last holder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "writer.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_reduced_index_is_published_and_answers_as_full_vectors_do(settings: Settings) -> None:
    settings = replace(settings, index="annoy", trees=10)
    store = open_store(settings.rsc_files)
    queries = group_vectors(240)[::20]
    generation = store.generation()
    assert generation is not None
    before = open_index(store, generation).query(queries, 10)
    reduced = reduce_collection(settings)
    assert (reduced.trained, reduced.generation["index"]["reducer"][:7]) == (True, "pca-16-")
    assert reduced.path == settings.rsc_files / "reducers" / KEY / "pca.npz"
    generation = store.generation()
    assert generation is not None
    assert reduced.generation.items() <= generation.manifest.items()
    after = open_index(store, generation).query(queries, 10)
    assert (before.ids == after.ids).mean() >= 0.99
    store.close()


def test_a_reducer_is_trained_once_for_the_same_vectors_and_options(settings: Settings) -> None:
    notes: list[str] = []
    assert reduce_collection(settings, on_note=notes.append).trained
    first = everything(settings.rsc_files)
    assert not reduce_collection(settings, on_note=notes.append).trained
    assert everything(settings.rsc_files) == first
    back = reduce_collection(replace(settings, reducer="none"), on_note=notes.append)
    assert (back.kind, back.reducer, back.generation["reducer"]) == ("none", None, None)
    assert not reduce_collection(settings, on_note=notes.append).trained
    assert notes == []
    again = reduce_collection(replace(settings, reduced_dim="8"), on_note=notes.append)
    assert again.trained
    assert again.reducer is not None
    assert again.reducer.dim == 8
    assert notes.pop() == "The pca is trained anew: dim was 16, now 8."
    with pytest.raises(ReducerError):
        reduce_collection(replace(settings, reduced_dim="4000"), on_note=notes.append)
    assert notes == []  # nothing is trained anew
    add_vectors(settings, group_vectors(30, seed=5), first=2_000)
    assert reduce_collection(replace(settings, reduced_dim="8"), on_note=notes.append).trained
    assert "the collection's vectors are others" in notes.pop()


def test_a_damaged_reducer_is_trained_anew(settings: Settings) -> None:
    path = reduce_collection(settings).path
    assert path is not None
    path.write_bytes(path.read_bytes()[:500])
    notes: list[str] = []
    assert reduce_collection(settings, on_note=notes.append).trained
    assert "cannot be read" in notes[0]
    assert load_reducer(path).dim == 16


@pytest.mark.parametrize("moment", ["while it is trained", "while it is published"])
@pytest.mark.parametrize("trained_before", [False, True])
def test_ctrl_c_leaves_everything_as_it_was(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: str, trained_before: bool
) -> None:
    if trained_before:
        reduce_collection(settings)
    before = everything(settings.rsc_files)

    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reducing, "fit_reducer" if moment == "while it is trained" else "publish", stopped)
    with pytest.raises(KeyboardInterrupt):
        reduce_collection(replace(settings, reduced_dim="8"))
    assert everything(settings.rsc_files) == before


def test_a_collection_that_is_missing_empty_or_locked_is_refused(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(CollectionMissingError):
        reduce_collection(Settings(rsc_files=tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
    empty = Settings(rsc_files=tmp_path / "empty")
    add_vectors(empty, np.empty((0, 48), np.float32))
    with pytest.raises(EmptyCollectionError, match="nothing to learn from"):
        reduce_collection(empty)
    with open_writer(settings.rsc_files, command="another"), pytest.raises(CollectionLockedError):
        reduce_collection(settings)


def test_fewer_vectors_than_components_are_refused(tmp_path: Path) -> None:
    few = replace(collection_at(tmp_path / "few", 24), reducer="pca", reduced_dim="30")
    with pytest.raises(ReducerError, match="23 vectors are there to train on"):
        reduce_collection(few)


@pytest.mark.parametrize(("text", "dim"), [("256", 256), ("1", 1), ("0.95", 0.95)])
def test_the_size_is_a_number_or_a_share(text: str, dim: float) -> None:
    assert reduced_dim(Settings(reduced_dim=text)) == dim
    assert type(reduced_dim(Settings(reduced_dim=text))) is type(dim)


@pytest.mark.parametrize("text", ["0", "-3", "1.0", "0.0", "1.5", "-0.5", "many", "", "nan", "inf"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="reduced_dim is"):
        reduced_dim(Settings(reduced_dim=text))


def test_no_more_is_trained_on_than_memory_should_hold() -> None:
    matrix = np.lib.stride_tricks.as_strided(np.ones(1, np.float16), (9_000, 25_088), (0, 0))
    rows = np.arange(9_000)
    vectors = training_vectors(Snapshot(rows, rows, matrix), seed=0)
    assert 0.9 * TRAINING_BYTES < vectors.nbytes <= TRAINING_BYTES


@pytest.mark.parametrize("kind", ["none", "projection"])
def test_what_is_not_trained_on_vectors_alone_is_not_trained_under_its_name(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} is not trained"):
        options_of(Settings(reducer=kind))
