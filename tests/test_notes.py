"""Names of groups and tags: kept by images, taken while a job writes, refused with words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from errors import NoteError
from store import (
    Batch,
    Filter,
    Record,
    StoreWriter,
    VectorsManifest,
    forget_group,
    given_labels,
    is_label_given,
    label_changes,
    label_images,
    name_group,
    named_groups,
    open_store,
    open_writer,
    rename_label,
    tag_counts,
    tag_images,
    tagged_images,
    tags_of,
    unlabel_images,
    untag_images,
)
from store.shelves import LabelShelves, given_shelves

MANIFEST = VectorsManifest("fake-pool-0", "fake", "pool", "0" * 64, 2, "none")


def fill(writer: StoreWriter, count: int) -> None:
    """Give the collection images 1 … count."""
    writer.begin_vectors(MANIFEST)
    records = [Record(f"/photos/{n}.jpg".encode(), 1, 1, bytes([n]) * 32, label="photos") for n in range(1, count + 1)]
    vectors = {record.sha256: np.ones(2, np.float32) for record in records if record.sha256}
    writer.commit(MANIFEST.key, Batch(records=records, vectors=vectors))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a collection of six images."""
    with open_writer(tmp_path / "rsc", command="test") as writer:
        fill(writer, 6)
    return tmp_path / "rsc"


def test_a_collection_without_notes_has_none(folder: Path) -> None:
    store = open_store(folder)
    assert store.matching_ids(Filter(tag="stone"), key=MANIFEST.key).size == 0
    assert named_groups(store) == []
    assert (tag_counts(store), tags_of(store, [1])) == ({}, {})
    assert tagged_images(store, "x").size == 0


def test_a_name_is_kept_with_its_images_replaced_and_forgotten(folder: Path) -> None:
    store = open_store(folder)
    first = name_group(folder, " Two   churches ", [3, 1, 3, 99])
    second = name_group(folder, "Boats", [4])
    assert [(group.name, group.image_ids.tolist()) for group in named_groups(store)] == [
        ("Two churches", [1, 3]),
        ("Boats", [4]),
    ]
    assert name_group(folder, "Churches", [1, 2, 3], group_id=first) == first
    forget_group(folder, second)
    assert [(group.name, group.image_ids.tolist()) for group in named_groups(store)] == [("Churches", [1, 2, 3])]


def test_an_image_that_left_the_catalog_has_no_notes(folder: Path) -> None:
    name_group(folder, "Churches", [1, 2])
    tag_images(folder, "stone", [1, 2])
    with open_writer(folder, command="test") as writer:
        writer.remove([1])
    store = open_store(folder)
    assert named_groups(store)[0].image_ids.tolist() == [2]
    assert (tag_counts(store), tagged_images(store, "stone").tolist()) == ({"stone": 1}, [2])


def test_tags_are_given_and_taken(folder: Path) -> None:
    store = open_store(folder)
    tag_images(folder, "stone", [1, 2, 77])
    tag_images(folder, "night", [2])
    untag_images(folder, "stone", [1])
    assert store.matching_ids(Filter(tag="stone"), key=MANIFEST.key).tolist() == [2]
    assert tags_of(store, [1, 2]) == {2: ["night", "stone"]}
    assert tag_counts(store) == {"night": 1, "stone": 1}


def test_words_find_tags_as_well(folder: Path) -> None:
    store = open_store(folder)
    assert store.matching_ids(Filter(text="stone"), key=MANIFEST.key).tolist() == []
    tag_images(folder, "Stone bridge", [1, 2])
    assert store.matching_ids(Filter(text="BRIDGE ston"), key=MANIFEST.key).tolist() == [1, 2]


def test_notes_are_taken_while_a_job_holds_the_collection(folder: Path) -> None:
    with open_writer(folder, command="a job"):
        tag_images(folder, "stone", [1])
    assert tag_counts(open_store(folder)) == {"stone": 1}


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\x00b"])
def test_a_name_that_cannot_be_shown_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(NoteError, match="1 to 100 printable characters"):
        name_group(folder, name, [1])


@pytest.mark.parametrize(
    "name", ["\N{CAT}\u200d\N{BLACK LARGE SQUARE}", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]
)
def test_emoji_and_persian_words_are_names(folder: Path, name: str) -> None:
    name_group(folder, name, [1])
    assert [group.name for group in named_groups(open_store(folder))] == [name]


def test_an_empty_selection_is_refused(folder: Path) -> None:
    with pytest.raises(NoteError, match="No image is selected"):
        tag_images(folder, "stone", [])
    assert tag_counts(open_store(folder)) == {}


def test_a_label_is_given_renamed_and_taken_and_each_time_it_is_noticed(folder: Path) -> None:
    store = open_store(folder)
    assert (given_labels(store), label_changes(store), is_label_given(store, 1)) == ({}, 0, False)
    shelves = LabelShelves(store)
    assert [(shelf.name, shelf.count) for shelf in shelves.now()] == [("photos", 6)]
    assert label_images(folder, " a   cat ", [1, 2, 77]) == 2
    label_images(folder, "dog", [2, 3])
    assert given_labels(store) == {1: "a cat", 2: "dog", 3: "dog"}
    assert rename_label(folder, "dog", "a cat") == 2
    assert [(shelf.name, shelf.count) for shelf in shelves.now()] == [("a cat", 3), ("photos", 3)]
    assert unlabel_images(folder, [1, 4]) == 1
    assert (given_labels(store), store.record(1).label) == ({2: "a cat", 3: "a cat"}, "photos")
    assert (is_label_given(store, 1), is_label_given(store, 2)) == (False, True)
    assert [(shelf.name, shelf.image_ids) for shelf in given_shelves(store)] == [("a cat", (2, 3))]
    assert shelves.now() is shelves.now()


def test_what_an_image_was_called_before_it_is_called_again(folder: Path) -> None:
    store = open_store(folder)
    imported = Record(b"a name", 0, 0, b"i" * 32, label="rose")
    strange = Record(b"/photos \xff/9.jpg", 1, 1, b"s" * 32, label="photos \\xff")
    with open_writer(folder, command="test") as writer:
        writer.commit(MANIFEST.key, Batch(records=[imported, strange]))
    assert label_images(folder, "tulip", [7, 8]) == 2
    label_images(folder, "coal", [7])
    with open_writer(folder, command="test") as writer:  # imported again, or found in another folder
        moved = [(7, replace(imported, label="flower")), (8, replace(strange, path=b"/trees/9.jpg", label="trees"))]
        writer.commit(MANIFEST.key, Batch(moved=moved))
    assert given_labels(store) == {7: "coal", 8: "tulip"}
    assert unlabel_images(folder, [7, 8]) == 2
    assert [store.record(image_id).label for image_id in (7, 8)] == ["flower", "trees"]
    label_images(folder, "tulip", [8])
    assert unlabel_images(folder, [8]) == 1
    assert (given_labels(store), store.record(8).label) == ({}, "trees")


def test_a_renamed_label_leaves_the_folders_of_that_name_alone(folder: Path) -> None:
    label_images(folder, "photos", [1])
    label_images(folder, "x", [2])
    unlabel_images(folder, [2])
    assert rename_label(folder, "photos", "pictures") == 1
    assert [open_store(folder).record(image_id).label for image_id in (1, 2)] == ["pictures", "photos"]


@pytest.mark.parametrize("label", ["../cats", "a/b", "a\\b", ".", "..", "/"])
def test_a_label_that_looks_like_a_path_is_refused(folder: Path, label: str) -> None:
    with pytest.raises(NoteError, match="looks like a path"):
        label_images(folder, label, [1])
    label_images(folder, "cat", [1])
    with pytest.raises(NoteError, match="looks like a path"):
        rename_label(folder, "cat", label)
    assert given_labels(open_store(folder)) == {1: "cat"}
