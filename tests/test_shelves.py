"""What a collection can be browsed by, over catalogs with a known answer; each agrees with the filter that it leads to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from store import Batch, Filter, Record, Store, open_store, open_writer, tag_images
from store.shelves import Folder, Shelf, folder_tree, label_shelves, month_shelves, seen_shelves, tag_shelves
from tests.grouped_collection import MANIFEST


def catalog_of(folder: Path, records: Iterable[Record], seen: Iterable[tuple[int, int, float]] = ()) -> Store:
    """Return a catalog of `records`; of `seen`, a record's place, a class and how sure the network was."""
    batch = Batch()
    for number, record in enumerate(records):
        sha256 = hashlib.sha256(b"%d" % number).digest()
        batch.records.append(
            Record(record.path, 1, 1, sha256, "JPEG", 8, 8, taken_at=record.taken_at, label=record.label)
        )
        batch.vectors[sha256] = np.ones(MANIFEST.dim, np.float32)
        batch.thumbnails[sha256] = b"jpeg"
        batch.labels[sha256] = [(name, score) for place, name, score in seen if place == number]
    with open_writer(folder, command="a test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(MANIFEST.key, batch)
        writer.set_meta("vectors_key", MANIFEST.key)
    return open_store(folder)


def at(*paths: str) -> list[Record]:
    return [Record(path.encode("utf-8", "surrogateescape"), 1, 1) for path in paths]


def names_in(folder: Folder) -> dict[str, int]:
    """Return all folders in `folder` and below with their counts."""
    found = {folder.shelf.name: folder.shelf.count}
    for child in folder.below:
        found |= names_in(child)
    return found


def test_folders_are_a_tree_with_counts_of_what_lies_below(tmp_path: Path) -> None:
    store = catalog_of(
        tmp_path,
        at(
            "/home/jim/photos/a.jpg",
            "/home/jim/photos/2019/b.jpg",
            "/home/jim/photos/2019/sea/c.jpg",
            "/home/jim/photos/2020/d.jpg",
        ),
    )
    tree = folder_tree(store)
    assert names_in(tree) == {"": 4, "photos": 4, "photos/2019": 2, "photos/2019/sea": 1, "photos/2020": 1}
    photos = tree.below[0]
    assert (photos.title, photos.own, [child.title for child in photos.below]) == ("photos", 1, ["2019", "2020"])
    assert photos.shelf.image_ids == (1, 2, 4)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/srv/data/x/a.jpg", "/srv/data/x/b.jpg"], {"": 2, "x": 2}),
        (["/a/b/one/1.jpg", "/a/b/two/2.jpg"], {"": 2, "b": 2, "b/one": 1, "b/two": 1}),
        (["/home/jim/p/1.jpg", "/mnt/disk/q/2.jpg"], {"": 2, "p": 1, "q": 1}),
        (["/home/p/1.jpg", "/mnt/p/2.jpg"], {"": 2, "p": 2}),
        (["name.jpg", "folder/other.jpg"], {"": 2, "folder": 1}),
        (["/1.jpg"], {"": 1}),
    ],
)
def test_folders_above_the_uppermost_are_not_told(tmp_path: Path, paths: list[str], expected: dict[str, int]) -> None:
    assert names_in(folder_tree(catalog_of(tmp_path, at(*paths)))) == expected


def test_a_folder_has_as_many_images_as_a_filter_by_it_keeps(tmp_path: Path) -> None:
    paths = ["/home/p/1.jpg", "/mnt/p/2.jpg", "/mnt/p/q/3.jpg", "/mnt/p/r/q/4.jpg", "/mnt/p/r/\udcff/5.jpg"]
    store = catalog_of(tmp_path, at(*paths))
    for name, count in names_in(folder_tree(store)).items():
        if name:
            assert len(store.matching_ids(Filter(folder=name), key=MANIFEST.key)) == count


def test_a_folder_is_found_by_its_path(tmp_path: Path) -> None:
    tree = folder_tree(catalog_of(tmp_path, at("/x/a/1.jpg", "/x/ab/c/2.jpg")))
    found = tree.find("x/ab/c")
    assert found is not None
    assert found.shelf == Shelf("x/ab/c", 1, (2,))
    assert tree.find("x/a") is not None
    assert tree.find("x/b") is None
    assert tree.find("../etc") is None


def test_labels_months_and_tags_are_counted(tmp_path: Path) -> None:
    records = [
        Record(b"/x/1.jpg", 1, 1, label="sea", taken_at="2019-08-03T12:00:00"),
        Record(b"/x/2.jpg", 1, 1, label="sea", taken_at="2019-08-30T12:00:00"),
        Record(b"/x/3.jpg", 1, 1, label="hill", taken_at="2020-01-01T00:00:00"),
        Record(b"/x/4.jpg", 1, 1),
    ]
    store = catalog_of(tmp_path, records)
    assert tag_shelves(store) == []
    tag_images(tmp_path, "mine", [4, 2])
    assert label_shelves(store) == [Shelf("hill", 1, (3,)), Shelf("sea", 2, (1, 2))]
    assert month_shelves(store) == [Shelf("2020-01", 1, (3,)), Shelf("2019-08", 2, (1, 2))]
    assert tag_shelves(store) == [Shelf("mine", 2, (2, 4))]
    august = Filter(taken_from="2019-08", taken_until="2019-08")
    assert store.matching_ids(august, key=MANIFEST.key).tolist() == [1, 2]


def test_what_the_network_is_sure_of_is_counted_and_the_surest_come_first(tmp_path: Path) -> None:
    seen = [(0, 1, 0.3), (1, 1, 0.9), (2, 0, 0.5), (3, 1, 0.05)]
    store = catalog_of(tmp_path, at("/x/1.jpg", "/x/2.jpg", "/x/3.jpg", "/x/4.jpg"), seen)
    assert seen_shelves(store, MANIFEST.key, ("cat", "dog")) == [Shelf("dog", 2, (2, 1)), Shelf("cat", 1, (3,))]


def test_the_images_of_a_shelf_are_spread_over_it(tmp_path: Path) -> None:
    records = [Record(b"/x/%d.jpg" % number, 1, 1, label="sea") for number in range(23)]
    (shelf,) = label_shelves(catalog_of(tmp_path, records))
    assert (shelf.count, shelf.image_ids) == (23, (1, 5, 9, 13, 17))
