"""A collection written by an earlier program stays readable: `golden/format-<version>/` is never written again.

Made once, by the program of that version. `format-1`: three drawings indexed with the foretellable network of `fake_backbone`,
one of them twice, and a damaged file; its generation is older than averages and calibration. `search-1`: sixty imported vectors
of three labels, in a usearch index over eight numbers of a PCA, with everything that a generation holds. `views-1`: twelve
drawings, each with a smaller copy, one twice, by sixteen numbers each, with groups, duplicates, a map, a named group and a tag.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ann import IndexManifest, load_index
from atlases import open_atlases
from config import Settings
from publishing import publish
from search import Example, Query, open_service
from store import FORMAT_VERSION, Batch, Record, Store, open_store, open_writer, tagged_images
from tests.fake_backbone import NETWORK
from views.duplicates import open_duplicates
from views.groups import open_groups
from views.map import open_map

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def collection(tmp_path: Path) -> Store:
    shutil.copytree(GOLDEN / "format-1", tmp_path / "rsc")
    return open_store(tmp_path / "rsc")


def test_this_version_has_a_golden_collection() -> None:
    assert (GOLDEN / f"format-{FORMAT_VERSION}" / "catalog.sqlite").is_file()


def test_a_golden_collection_reads_as_it_was_written(collection: Store) -> None:
    records = list(collection.all_records())
    assert [record.path for record in records] == [
        b"/golden/blue/second.png",
        b"/golden/blue/third.jpg",
        b"/golden/red/caf\xe9.jpg",
        b"/golden/red/copy.png",
        b"/golden/red/damaged.jpg",
    ]
    assert [record.label for record in records] == ["blue", "blue", "red", "red", "red"]
    assert [(record.width, record.height) for record in records[:2]] == [(64, 48), (30, 80)]
    assert records[1].taken_at == "2001-02-03T04:05:06"
    assert [record.error_code for record in records] == [None, None, None, None, "damaged_image"]
    thumbnail = collection.thumbnail(records[0].sha256 or b"")
    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8")
    labels = collection.predicted_labels(NETWORK.key, [records[0].sha256 or b""])
    assert len(labels[records[0].sha256 or b""]) == 5


def test_a_golden_collection_is_searched_as_it_was(collection: Store) -> None:
    generation = collection.generation()
    assert generation is not None
    assert generation.manifest["vectors_key"] == NETWORK.key
    snapshot = collection.snapshot(NETWORK.key)
    assert snapshot.ids.tolist() == [1, 2, 3, 4]
    assert snapshot.rows.tolist() == [0, 1, 2, 0]
    index = load_index(snapshot, generation.folder, IndexManifest(**generation.manifest["index"]))
    answer = index.query(snapshot.take(slice(0, 1)), 4)
    assert answer.ids.tolist()[0][:2] == [1, 4]
    assert answer.distances[0].tolist() == sorted(answer.distances[0].tolist())


def test_a_golden_collection_can_be_added_to(collection: Store) -> None:
    with open_writer(collection.folder, command="test") as writer:
        writer.begin_vectors(writer.manifest(NETWORK.key))
        vector = writer.snapshot(NETWORK.key).take(slice(0, 1))[0]
        batch = Batch(records=[Record(b"/golden/new.jpg", 1, 2, b"n" * 32, "JPEG", 3, 4)], vectors={b"n" * 32: -vector})
        writer.commit(NETWORK.key, batch)
    assert collection.snapshot(NETWORK.key).ids.tolist() == [1, 2, 3, 4, 6]


def test_a_golden_generation_is_searched_with_all_its_parts(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "search-1", tmp_path / "rsc")
    service = open_service(Settings(rsc_files=tmp_path / "rsc"))
    assert service.status().index == "usearch"
    assert service.rankings[0] == "kind"
    found = service.search(Query((Example(3),), k=10))
    assert found.ranking == "kind"
    assert found.matches[0].image.image_id == 42  # the same vector
    assert {match.image.label for match in found.matches} == {"trees"}
    assert found.matches[0].closer_than is not None
    assert found.matches[0].closer_than > 0.99
    assert found.good_matches is not None
    (row,) = [m for m in service.search(Query((Example(3),), k=59, ranking="plain")).matches if m.image.image_id == 6]
    assert row.similarity == pytest.approx(0.925888, abs=1e-5)
    service.close()


def test_a_golden_generation_is_still_true_for_the_next_job(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "search-1", tmp_path / "rsc")
    settings = Settings(rsc_files=tmp_path / "rsc", index="usearch")
    with open_writer(settings.rsc_files, command="test") as writer:
        before = writer.generation()
        assert before is not None
        assert publish(writer, before.manifest["vectors_key"], settings) == before.manifest
        assert writer.generation() == before


def test_golden_views_are_read_as_they_were_written(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "views-1", tmp_path / "rsc")
    store = open_store(tmp_path / "rsc")
    generation = store.generation()
    assert generation is not None
    groups = open_groups(store, generation)
    assert (groups.sim, [group.size for group in groups.at()]) == (0.41, [6, 4, 4, 4, 3, 2, 2])
    named = groups.group_of(3)
    assert (named.name, named.image_ids.tolist()) == ("Third thing", [18, 3, 9, 1])
    duplicates = open_duplicates(store, generation)
    assert (len(duplicates.pairs), len(duplicates.not_compared)) == (49, 0)
    first = next(iter(duplicates.pairs))
    assert (first.image_a, first.image_b, first.tier, first.relation) == (15, 17, "identical", "identical bytes")
    assert duplicates.groups("same")[0].image_ids == (15, 16, 17)
    opened = open_map(store, generation)
    assert set(opened.layouts) == {"tsne", "grid", "date"}
    assert opened.layouts["tsne"][2].tolist() == pytest.approx([0.413863, 0.624715], abs=1e-5)
    assert not opened.placed.any()
    assert open_atlases(generation.folder) is not None
    assert tagged_images(store, "favourite").tolist() == [3, 7]
    store.close()
