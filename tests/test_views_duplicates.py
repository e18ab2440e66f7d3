"""Duplicates of a collection on disk: found from its thumbnails and vectors, published, opened again, compared in part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from config import Settings
from duplicates import DuplicateOptions
from errors import OptionError, ViewMissingError
from images import make_thumbnail
from publishing import publish, view_of
from store import Batch, Generation, Record, Store, StoreWriter, VectorsManifest, open_store, open_writer
from tests.photographs import next_shot, photograph
from views import duplicates
from views.duplicates import compare_images, find_duplicates, images_under, open_duplicates

MANIFEST = VectorsManifest("imported-vectors-000000000000", "imported", "vectors", "0" * 64, 64, "none")
DIM = 64


def add(writer: StoreWriter, shown: dict[str, Image.Image], taken: dict[str, str] | None = None) -> None:
    """Commit pictures by their paths; what looks alike has vectors that are near."""
    writer.begin_vectors(MANIFEST)
    batch = Batch()
    for path, picture in shown.items():
        sha256 = hashlib.sha256(picture.tobytes()).digest()
        record = Record(path.encode(), 1_000, 0, sha256, "JPEG", *picture.size, (taken or {}).get(path))
        batch.records.append(record)
        coarse = np.asarray(picture.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=np.float32).ravel()
        batch.vectors[sha256] = coarse - coarse.mean() + 1e-3
        batch.thumbnails[sha256] = make_thumbnail(picture, 256)
    writer.commit(MANIFEST.key, batch)


def current(store: Store) -> Generation:
    """Return the published generation."""
    generation = store.generation()
    assert generation is not None
    return generation


SHOWN = {
    **{f"/archive/{number}.jpg": photograph(number) for number in range(1, 8)},
    "/archive/1 again.jpg": photograph(1),
    "/archive/2 mirrored.jpg": ImageOps.mirror(photograph(2)),
    "/archive/3 later.jpg": next_shot(photograph(3), 2),
    "/camera/2 small.jpg": photograph(2).resize((160, 120)),
    "/camera/2 small, turned.jpg": photograph(2).resize((160, 120)).transpose(Image.Transpose.ROTATE_90),
    "/camera/50.jpg": photograph(50),
}
TAKEN = {"/archive/3.jpg": "2020-01-01T12:00:00", "/archive/3 later.jpg": "2020-01-01T12:00:02"}
SAME = {"1 again.jpg", "1.jpg", "2.jpg", "2 mirrored.jpg", "2 small.jpg", "2 small, turned.jpg"}
OPTIONS = DuplicateOptions(min_similarity=0.5)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a collection of two folders."""
    settings = Settings(rsc_files=tmp_path / "rsc", index="exact")
    with open_writer(settings.rsc_files, command="test") as writer:
        add(writer, SHOWN, TAKEN)
        publish(writer, MANIFEST.key, settings)
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """Return the collection, open for reading."""
    store = open_store(settings.rsc_files)
    yield store
    store.close()


def names(store: Store, found: duplicates.Duplicates, tier: str) -> list[set[str]]:
    """Return the groups of one tier by the names of their files."""
    records = store.records(range(1, 100))
    return [{Path(records[i].path.decode()).name for i in group.image_ids} for group in found.groups(tier)]


def test_what_was_found_is_published_and_opened_again(settings: Settings, store: Store) -> None:
    steps: list[str] = []
    with open_writer(settings.rsc_files, command="test") as writer:
        found = find_duplicates(
            writer, current(writer), OPTIONS, on_progress=lambda step, done, total: steps.append(step)
        )
    opened = open_duplicates(store, current(store))
    assert names(store, opened, "identical") == [{"1.jpg", "1 again.jpg"}]
    assert set.union(*names(store, opened, "same")) == SAME
    assert sorted(map(len, names(store, opened, "same"))) == [2, 4]
    assert names(store, opened, "burst") == [{"3.jpg", "3 later.jpg"}]
    assert list(opened.pairs) == list(found.pairs)
    assert list(dict.fromkeys(steps)) == ["Looking for neighbours", "Comparing pictures"]
    view = view_of(current(store), "duplicates")
    assert view is not None
    assert (view.options["min_similarity"], opened.options) == (0.5, view.options)
    assert view.report["pairs"]["identical"] == 1
    assert (view.report["images"], view.report["contents"], view.report["without_thumbnail"]) == (13, 12, 0)
    assert (opened.created_at, len(opened.not_compared)) == (view.created_at, 0)
    relations = {pair.relation for pair in opened.of(9)}
    assert {"mirrored", "resized"} <= {word for relation in relations for word in relation.split(", ")}


def test_images_that_left_are_dropped_and_those_that_came_are_not_compared_yet(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        find_duplicates(writer, current(writer), OPTIONS)
        gone = writer.record_at(b"/archive/1 again.jpg")
        changed = writer.record_at(b"/archive/2 mirrored.jpg")
        assert gone is not None
        assert changed is not None
        writer.remove([gone.image_id])
        other = photograph(77)
        add(writer, {"/archive/2 mirrored.jpg": other, "/archive/77.jpg": other})
        publish(writer, MANIFEST.key, settings)
        opened = open_duplicates(writer, current(writer))
        assert opened.not_compared.tolist() == [changed.image_id, 15]
        assert opened.groups("identical") == []
        assert [set(group.image_ids) for group in opened.groups("same")] == [{2, 11, 12}]
        assert opened.of(changed.image_id).image_a.tolist() == []


def test_what_was_found_holds_after_compacting_but_for_what_changed_meanwhile(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        find_duplicates(writer, current(writer), OPTIONS)
        first, changed = (writer.record_at(path) for path in (b"/archive/1.jpg", b"/archive/2 mirrored.jpg"))
        assert first is not None
        assert changed is not None
        writer.remove([first.image_id + 3])  # before the others, so that they get other rows
        add(writer, {"/archive/2 mirrored.jpg": photograph(77)})
        rows = writer.snapshot(MANIFEST.key).rows.tolist()
        writer.compact()
        assert writer.snapshot(MANIFEST.key).rows.tolist() != rows
        publish(writer, MANIFEST.key, settings)
        opened = open_duplicates(writer, current(writer))
        assert opened.not_compared.tolist() == [changed.image_id]
        assert [set(group.image_ids) for group in opened.groups("same")] == [{2, 11, 12}, {1, 8}]
        assert len(opened.groups("burst")) == 1


def test_a_view_that_was_not_computed_is_named(store: Store) -> None:
    with pytest.raises(ViewMissingError, match=r"python duplicates\.py"):
        open_duplicates(store, current(store))


def test_a_new_folder_is_held_against_the_archive_only(store: Store) -> None:
    new = images_under(store, Path("/camera"))
    found = compare_images(store, current(store), OPTIONS, new=new)
    assert new.tolist() == [11, 12, 13]
    kept = found.pairs.where(found.pairs.tier == 1)
    assert set(zip(kept.image_a.tolist(), kept.image_b.tolist(), strict=True)) == {(2, 11), (2, 12), (9, 11), (9, 12)}
    assert all(np.isin(found.pairs.image_a, new) != np.isin(found.pairs.image_b, new))
    assert view_of(current(store), "duplicates") is None


def test_duplicates_among_some_images_are_of_these_only(store: Store) -> None:
    found = compare_images(store, current(store), OPTIONS, among=np.array([12, 2, 1, 9, 999]))
    assert [group.image_ids for group in found.groups("same")] == [(2, 9, 12)]
    assert found.report["images"] == 4


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"among": np.array([999])}, "0 searchable images are chosen"),
        ({"new": np.array([999])}, "13 searchable images are chosen, 0 of them new"),
        ({"new": np.arange(100)}, "13 searchable images are chosen, 13 of them new"),
    ],
)
def test_nothing_to_compare_is_refused_with_what_was_chosen(
    store: Store, chosen: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]], complaint: str
) -> None:
    with pytest.raises(OptionError, match=complaint):
        compare_images(store, current(store), OPTIONS, **chosen)  # type: ignore[arg-type]


def test_a_large_collection_finds_the_same_by_principal_components(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = compare_images(store, current(store), OPTIONS)
    monkeypatch.setattr(duplicates, "PROJECTED", 5)
    monkeypatch.setattr(duplicates, "AXES", 8)
    monkeypatch.setattr(duplicates, "QUERY_ROWS", 5)
    found = compare_images(store, current(store), OPTIONS)
    assert [replace(pair, similarity=0) for pair in found.pairs] == [
        replace(pair, similarity=0) for pair in exact.pairs
    ]
    assert found.pairs.similarity == pytest.approx(exact.pairs.similarity, abs=2e-6)


def test_a_collection_without_thumbnails_has_bytes_and_similarity_only(tmp_path: Path) -> None:
    with open_writer(tmp_path / "rsc", command="test") as writer:
        writer.begin_vectors(MANIFEST)
        vectors = {bytes([n]) * 32: np.ones(DIM, np.float32) for n in (1, 2)}
        records = [Record(f"vector-{n}".encode(), 0, 0, bytes([min(n, 2)]) * 32, format="") for n in (1, 2, 3)]
        writer.commit(MANIFEST.key, Batch(records=records, vectors=vectors))
        publish(writer, MANIFEST.key, replace(Settings(), rsc_files=tmp_path / "rsc", index="exact"))
        found = compare_images(writer, current(writer))
    assert [pair.tier for pair in found.pairs] == ["identical", "similar", "similar"]
    assert found.report["without_thumbnail"] == 2
