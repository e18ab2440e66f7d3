"""The comparison of full vectors, autoencoder and PCA: its figures against their definitions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import comparing
from autoencoder import FittedReducer, Kind, Reducer
from comparing import Comparison, compare
from config import Settings
from errors import EmptyCollectionError
from evaluation import rate_vectors
from store import open_store
from tests.reduced_collection import add_vectors, collection_at, group_vectors
from tests.test_reducing import everything
from vectors import Vectors, unit_vectors


def compared(settings: Settings) -> Comparison:
    store = open_store(settings.rsc_files)
    try:
        return compare(store, settings)
    finally:
        store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the autoencoder's place the first numbers of each vector: no training."""
    fitted = comparing._fitted

    def quickly(training: Vectors, kind: Kind, dim: int) -> FittedReducer:
        if kind == "pca":
            return fitted(training, kind, dim)
        return FittedReducer(Reducer("autoencoder", np.eye(48, dim, dtype=np.float32)), ())

    monkeypatch.setattr(comparing, "_fitted", quickly)
    monkeypatch.setattr(comparing, "DIMS", (4, 40, 48))


def test_every_figure_is_what_it_is_called(tmp_path: Path) -> None:
    settings = collection_at(tmp_path / "rsc", 240)
    before = everything(settings.rsc_files)
    comparison = compared(settings)
    assert everything(settings.rsc_files) == before
    assert (comparison.images, comparison.queries, comparison.labelled) == (240, 240, 240)
    assert [(line.kind, line.dim) for line in comparison.lines] == [
        ("full", 48),
        *(("autoencoder", dim) for dim in (4, 40)),
        *(("pca", dim) for dim in (4, 40)),
    ]
    store = open_store(settings.rsc_files)
    full = store.snapshot(comparison.vectors_key).take(slice(None))
    labels = [record.label or "" for record in store.all_records()]
    store.close()
    for line, vectors in zip(comparison.lines[:3], (full, full[:, :4], full[:, :40]), strict=True):
        rated = rate_vectors(unit_vectors(full)[:, : line.dim], labels)
        expected = (rated.precision.value, rated.mean_average_precision.value)
        assert (line.precision, line.mean_average_precision) == pytest.approx(expected, abs=1e-4)
        assert line.recall_alone == pytest.approx(recall(full, vectors, 10))
        assert line.recall_reordered == pytest.approx(recall(full, vectors, 100))
        assert line.bytes == 240 * line.dim * 4
        assert (line.index, line.note) == ("exact", "")
        assert line.query_ms > 0
    assert comparison.lines[0].candidates == 10
    assert comparison.lines[1].candidates in (100, 200)


def recall(full: Vectors, vectors: Vectors, count: int) -> float:
    """Share of the ten nearest by full vectors that are among the `count` nearest by others."""
    rankings = []
    for given in (unit_vectors(full), unit_vectors(vectors)):
        scores = given @ given.T
        np.fill_diagonal(scores, -np.inf)
        rankings.append(np.argsort(-scores, axis=1, kind="stable"))
    pairs = zip(rankings[0][:, :10], rankings[1][:, :count], strict=True)
    return float(np.mean([len(set(true) & set(found)) / 10 for true, found in pairs]))


def test_a_built_index_is_measured_where_there_is_one(tmp_path: Path) -> None:
    settings = replace(collection_at(tmp_path / "rsc", 240, labelled=False), index="annoy", trees=10)
    comparison = compared(settings)
    assert comparison.labelled == 0
    for line in comparison.lines:
        assert line.index == "annoy"
        assert (line.precision, line.mean_average_precision) == (None, None)
    assert comparison.lines[1].bytes < comparison.lines[0].bytes


def test_long_vectors_are_measured_as_they_are_and_as_they_are_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "KINDS", ())
    settings = Settings(rsc_files=tmp_path / "rsc", index="annoy", trees=10)
    add_vectors(settings, group_vectors(300, dim=320))
    full, projected = compared(settings).lines
    assert [(line.kind, line.dim, line.index) for line in (full, projected)] == [
        ("full", 320, "annoy"),
        ("projected", 256, "annoy"),
    ]
    assert full.recall_alone == 1
    assert 0.9 < projected.recall_alone < 1
    assert projected.bytes < full.bytes
    assert [line.kind for line in compared(replace(settings, index="exact")).lines] == ["full"]


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((60, 48), np.float32), "pca 40: The 57 vectors to train on span only 1 directions"),
        (np.zeros((60, 48), np.float32), "pca 40: 0 vectors are there to train on"),
    ],
)
def test_a_size_that_cannot_be_is_told_and_the_other_lines_come(tmp_path: Path, vectors: Vectors, said: str) -> None:
    settings = Settings(rsc_files=tmp_path / "rsc")
    add_vectors(settings, vectors)
    comparison = compared(settings)
    assert [(line.kind, line.dim) for line in comparison.lines][:3] == [
        ("full", 48),
        ("autoencoder", 4),
        ("autoencoder", 40),
    ]
    assert comparison.notes[-1].startswith(said)


def test_only_labels_that_another_image_has_are_asked_for(tmp_path: Path) -> None:
    settings = Settings(rsc_files=tmp_path / "rsc")
    add_vectors(settings, group_vectors(60), labels=["alone", *["shared"] * 59])
    assert compared(settings).labelled == 59


def test_a_large_collection_is_asked_by_some_of_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "PAIRS", 24_000)
    monkeypatch.setattr(comparing, "MIN_QUERIES", 10)
    monkeypatch.setattr(comparing, "SCORE_BYTES", 4 * 240 * 7)
    settings = collection_at(tmp_path / "rsc", 240)
    comparison = compared(settings)
    assert comparison.queries == 100
    assert 0.9 < comparison.lines[-1].recall_reordered <= 1


def test_a_collection_without_images_is_refused(tmp_path: Path) -> None:
    settings = Settings(rsc_files=tmp_path / "rsc")
    add_vectors(settings, np.empty((0, 48), np.float32))
    with pytest.raises(EmptyCollectionError):
        compared(settings)
