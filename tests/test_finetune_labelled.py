"""Labels from folders, tables, the pages and CIFAR-10, and everything that can be wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from config import Settings
from errors import DatasetError, LabelError, RequestError
from finetuning.cifar10 import CLASSES, SIDE, write_cifar10
from finetuning.labelled import (
    Given,
    Labelled,
    check_classes,
    keep_readable,
    labels_of_csv,
    labels_of_folders,
    labels_of_pages,
    read_contents,
)
from finetuning.parts import choose_company, least_photographs, split
from images import find_images
from img2vec import Job, index_images
from store import label_images, open_store
from tests import fake_backbone
from tests.fake_backbone import FakeBackbone
from tests.labelled_pictures import labelled_pictures

SETTINGS = Settings(threads=2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return labelled_pictures(tmp_path / "labelled", 4)


def usable(given: list[Given], least: int = 3) -> Labelled:
    labelled = keep_readable(read_contents(given, SETTINGS), SETTINGS)
    check_classes(labelled, least)
    return labelled


def test_the_folder_that_a_photograph_lies_in_is_its_label(photos: Path) -> None:
    (photos / "cats" / "notes.txt").write_text("what lies among photographs and is none is passed over")
    labelled = usable(labels_of_folders([str(photos / "*")]))
    assert labelled.classes == ("cats", "dogs")
    assert [photograph.path.split(b"/")[-2].decode() for photograph in labelled.photographs] == list(labelled.labels)
    assert (len(labelled.photographs), labelled.left_out) == (8, ())


def test_a_table_names_files_from_its_own_folder_or_from_here(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = photos / "labels.csv"
    rows = [
        *(f"cats/{number}.png,cat" for number in range(3)),
        *(f"labelled/dogs/{number}.png,dog" for number in range(3)),
    ]
    table.write_text("\n".join(["file,label", *rows, "cats/gone.png,cat"]))
    monkeypatch.chdir(tmp_path)
    labelled = usable(labels_of_csv(table))
    assert labelled.labels == ("cat",) * 3 + ("dog",) * 3
    assert [Path(entry.path).name for entry in labelled.left_out] == ["gone.png"]
    assert "No such file" in labelled.left_out[0].reason


@pytest.mark.parametrize(
    ("label", "said"), [("../cats", "looks like a path"), ("/etc/cats", "looks like a path"), ("", "0: ''")]
)
def test_a_label_like_a_path_is_refused_with_its_line(photos: Path, label: str, said: str) -> None:
    table = photos / "labels.csv"
    table.write_text(f"cats/0.png,cat\ndogs/0.png,{label}\n")
    with pytest.raises(LabelError, match=f"labels.csv, line 2: .*{said}"):
        labels_of_csv(table)


def test_a_folder_named_like_a_path_is_refused(photos: Path) -> None:
    (photos / "dogs").rename(photos / "up\\dogs")
    with pytest.raises(LabelError, match=r"the folder .*dogs: .* cannot be a label: it looks like a path"):
        labels_of_folders([str(photos)])


def test_a_table_that_names_nothing_or_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(LabelError, match="names no file"):
        labels_of_csv(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("path,label\ncats/1.png,cat\ndogs/1.png,dog\n")
    with pytest.raises(LabelError, match=r"None of the 2 files that .* is there; the first is 'cats/1.png'. A path is"):
        labels_of_csv(tmp_path / "labels.csv")
    with pytest.raises(RequestError, match="cannot be read"):
        labels_of_csv(tmp_path / "none.csv")


def test_patterns_without_files_are_named(photos: Path) -> None:
    with pytest.raises(LabelError, match=r"No files can be found at .*/birds"):
        labels_of_folders([str(photos / "cats"), str(photos / "birds")])


def test_one_class_alone_is_refused(photos: Path) -> None:
    with pytest.raises(LabelError, match=r"At least two classes .* There is only 'cats'"):
        usable(labels_of_folders([str(photos / "cats")]))


def test_a_class_of_too_few_photographs_is_named_with_one_of_them(photos: Path) -> None:
    for number in (1, 2, 3):
        (photos / "dogs" / f"{number}.png").unlink()
    (photos / "dogs" / "again.png").write_bytes((photos / "dogs" / "0.png").read_bytes())
    with pytest.raises(
        LabelError, match=r"'dogs' has 1 photograph \(.*dogs/0.png\), and each class needs at least 3: .* judged"
    ):
        usable(labels_of_folders([str(photos)]))


def test_files_that_cannot_be_read_are_left_out_with_their_reasons(photos: Path) -> None:
    cut = photos / "cats" / "0.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (photos / "cats" / "1.png").write_text("no picture, whatever its name says")
    labelled = keep_readable(read_contents(labels_of_folders([str(photos)]), SETTINGS), SETTINGS)
    assert {Path(entry.path).name for entry in labelled.left_out} == {"0.png", "1.png"}
    assert all(entry.reason for entry in labelled.left_out)
    assert labelled.labels.count("cats") == 2
    check_classes(labelled, 2)


def test_a_class_of_which_nothing_can_be_read_is_an_error(photos: Path) -> None:
    for path in (photos / "dogs").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LabelError, match=r"No photograph of the class 'dogs' can be used. .*dogs/0.png: "):
        usable(labels_of_folders([str(photos)]))


def test_one_picture_under_two_labels_is_an_error_that_names_both_files(photos: Path) -> None:
    (photos / "dogs" / "a cat.png").write_bytes((photos / "cats" / "2.png").read_bytes())
    with pytest.raises(LabelError, match=r"cats/2.png is 'cats' .*dogs/a cat.png is 'dogs'"):
        read_contents(labels_of_folders([str(photos)]), SETTINGS)


def test_equal_files_count_once_and_are_in_one_part(photos: Path) -> None:
    (photos / "cats" / "copy.png").write_bytes((photos / "cats" / "2.png").read_bytes())
    labelled = usable(labels_of_folders([str(photos)]))
    assert labelled.labels.count("cats") == 4
    assert len({photograph.sha256 for photograph in labelled.photographs}) == len(labelled.photographs)


# What people said in the pages, and what else the collection holds.


@pytest.fixture
def collection(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[FakeBackbone]]:
    loaded = fake_backbone.install(monkeypatch)
    labelled_pictures(tmp_path / "more", 4, ("fish", "dogs"))
    folder = tmp_path / "rsc"
    index_images(Job(Settings(rsc_files=folder), find_images([str(photos), str(tmp_path / "more")]).paths))
    return folder, loaded


def test_labels_of_the_pages_are_those_that_people_gave(collection: tuple[Path, list[FakeBackbone]]) -> None:
    folder, _ = collection
    with pytest.raises(LabelError, match="Nobody has labelled"):
        labels_of_pages(folder)
    store = open_store(folder)
    ids = [record.image_id for record in store.all_records()]
    store.close()
    label_images(folder, "tabby", ids[:3])
    given, without_file = labels_of_pages(folder)
    assert [entry.label for entry in given] == ["tabby"] * 3
    assert without_file == []


def test_other_images_of_the_collection_are_seen_without_labels_or_judge(
    photos: Path, collection: tuple[Path, list[FakeBackbone]], tmp_path: Path
) -> None:
    labelled = usable(labels_of_folders([str(photos)]))
    (tmp_path / "more" / "fish" / "0.png").unlink()
    company = choose_company(collection[0], labelled.photographs, labelled.classes, unlabelled=100, seed=1)
    known = {photograph.sha256 for photograph in labelled.photographs}
    others = [*company.unlabelled, *company.unseen]
    assert not known & {photograph.sha256 for photograph in others}
    assert not set(company.unlabelled) & set(company.unseen)
    assert all(Path(photograph.path.decode()).exists() for photograph in others)
    assert company.unseen_labels == ()  # one class alone: nothing can be told apart from it
    assert len(choose_company(collection[0], labelled.photographs[:4], ("cats",), unlabelled=1, seed=1).unlabelled) == 1
    unseen = choose_company(collection[0], (), ("birds",), unlabelled=0, seed=1)
    assert len(set(unseen.unseen_labels)) > 1
    assert choose_company(tmp_path / "none", (), ("birds",), unlabelled=9, seed=1).unlabelled == ()


# Who learns from which.


def test_every_class_is_in_every_part_whatever_its_size() -> None:
    labels = ["few"] * 3 + ["more"] * 10 + ["many"] * 100
    parts = split(labels, validation=0.2, held_out=0.2, seed=3)
    places = np.concatenate([parts.train, parts.validation, parts.held_out])
    assert sorted(places.tolist()) == list(range(113))
    for part, sizes in ((parts.train, (1, 6, 60)), (parts.validation, (1, 2, 20)), (parts.held_out, (1, 2, 20))):
        assert tuple([labels[place] for place in part].count(name) for name in ("few", "more", "many")) == sizes
    again = split(labels, validation=0.2, held_out=0.2, seed=3)
    assert np.array_equal(again.train, parts.train)
    assert not np.array_equal(split(labels, validation=0.2, held_out=0.2, seed=4).train, parts.train)


def test_nothing_is_held_out_where_that_is_asked_for() -> None:
    parts = split(["a", "a", "b", "b"], validation=0.3, held_out=0, seed=1)
    assert (len(parts.train), len(parts.validation), len(parts.held_out)) == (2, 2, 0)
    assert (least_photographs(0), least_photographs(0.2)) == (2, 3)


# CIFAR-10.


def fake_cifar10(monkeypatch: pytest.MonkeyPatch, load: object) -> None:
    """Stand in for `keras.datasets.cifar10`, with data of its form."""
    for name in ("keras", "keras.datasets", "keras.datasets.cifar10"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["keras.datasets"].cifar10 = sys.modules["keras.datasets.cifar10"]  # type: ignore[attr-defined]
    monkeypatch.setattr(sys.modules["keras.datasets.cifar10"], "load_data", load, raising=False)


def test_cifar10_becomes_enlarged_pictures_a_folder_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8)[:, None] % 10
    fake_cifar10(monkeypatch, lambda: ((pictures, labels), (pictures[:5], labels[:5])))
    folder = write_cifar10(tmp_path / "datasets", 4)
    labelled = usable(labels_of_folders([str(folder)]))
    assert labelled.classes == CLASSES
    assert len(labelled.photographs) == 40
    with Image.open(folder / "frog" / "00016.png") as enlarged:
        small = enlarged.resize((32, 32), Image.Resampling.BOX)
        assert enlarged.size == (SIDE, SIDE)
    assert np.abs(np.asarray(small, dtype=int) - pictures[16]).mean() < 30  # another picture differs by 85
    fake_cifar10(monkeypatch, None)
    assert write_cifar10(tmp_path / "datasets", 4) == folder  # written once


def test_without_cifar10_there_are_three_ways_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise Exception("URL fetch failure")

    fake_cifar10(monkeypatch, load)
    with pytest.raises(DatasetError, match=r"URL fetch failure. .*\(1\).*\(2\).*\(3\)"):
        write_cifar10(tmp_path, 4)
    assert list(tmp_path.iterdir()) == []
