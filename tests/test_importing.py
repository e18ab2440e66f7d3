"""Vectors from elsewhere and pictures in memory become a collection: nothing lost, doubled, guessed or unpickled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import importing.files
from commands.img2vec import main
from config import ROOT, Settings
from errors import (
    CollectionMismatchError,
    NoNetworkError,
    OriginalGoneError,
    QueryError,
    SettingsError,
    VectorsFileError,
)
from exporting import export_vectors
from images import find_images
from img2vec import Job, Report, index_images
from importing import ImportJob, ImportReport, add_pictures, add_vectors, begin_imported, import_vectors
from importing.names import match_names, unique_names
from search import Example, Query, SearchService
from store import Record, open_store, open_writer
from tests import fake_backbone
from tests.fake_backbone import NETWORK, OTHER, FakeBackbone

COUNT, DIM = 40, 8
NAMES = [f"{'even' if number % 2 == 0 else 'odd'}/{number:02d}.jpg" for number in range(COUNT)]


def vectors_of(count: int = COUNT, dim: int = DIM, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float16).astype(np.float32)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeBackbone]:
    return fake_backbone.install(monkeypatch)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npz"
    np.savez(path, X=vectors_of(), Y=np.array(NAMES), label=np.array(["animal", ""] * (COUNT // 2)))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The pictures of `NAMES`, but for the last ten."""
    for number, name in enumerate(NAMES[:-10]):
        write_picture(tmp_path / "photos" / name, number)
    return (tmp_path / "photos").resolve()


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((80, 60)).save(path)


def take_in(source: Path, rsc_files: Path, pictures: Path | None = None, **options: Any) -> ImportReport:
    return import_vectors(ImportJob(Settings(rsc_files=rsc_files), source, pictures, **options))


def index(rsc_files: Path, paths: list[bytes] | None = None, *, backbone: str | None = None, **options: Any) -> Report:
    return index_images(Job(Settings(rsc_files=rsc_files, backbone=backbone), paths or [], **options))


def records(rsc_files: Path) -> list[Record]:
    store = open_store(rsc_files)
    found = list(store.all_records())
    store.close()
    return found


def stored(rsc_files: Path) -> dict[bytes, npt.NDArray[np.float32]]:
    """The vector of each path that the published generation finds."""
    store = open_store(rsc_files)
    generation = store.generation()
    assert generation is not None
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    found = store.records(snapshot.ids.tolist())
    vectors = snapshot.take(slice(None))
    store.close()
    return {found[image_id].path: vector for image_id, vector in zip(snapshot.ids.tolist(), vectors, strict=True)}


def answers(rsc_files: Path) -> list[tuple[list[str], list[float]]]:
    """The names and distances that each image's search gives, in order of the images."""
    with closing(SearchService(Settings(rsc_files=rsc_files), load_network=False)) as service:
        ids = service.ready().snapshot.ids.tolist()
        found = [service.search(Query((Example(image_id),), k=5, ranking="plain")) for image_id in ids]
    return [([m.image.name for m in result.matches], [m.distance for m in result.matches]) for result in found]


# Names.


def test_names_become_relative_and_unique() -> None:
    assert unique_names(["a.jpg", "/b/../c.jpg", "../../d", "a.jpg", "a.jpg#2", "a.jpg", "", "x\0y"]) == [
        *("a.jpg", "c.jpg", "d", "a.jpg#3", "a.jpg#2", "a.jpg#4", "unnamed", "x_y"),
    ]


@pytest.mark.parametrize(
    ("names", "paths", "expected"),
    [
        (["a.jpg"], [b"/p/a.jpg"], {"a.jpg": b"/p/a.jpg"}),
        (["a.jpg"], [b"/p/roses/a.jpg"], {"a.jpg": b"/p/roses/a.jpg"}),
        (["a.jpg"], [b"/p/x/a.jpg", b"/p/y/a.jpg"], {}),  # two could be meant
        (["a.jpg"], [b"/p/a.jpg", b"/p/x/a.jpg"], {"a.jpg": b"/p/a.jpg"}),
        (["x/a.jpg", "y/a.jpg"], [b"/p/y/a.jpg", b"/p/x/a.jpg"], {"x/a.jpg": b"/p/x/a.jpg", "y/a.jpg": b"/p/y/a.jpg"}),
        (["old/a.jpg", "old/b.jpg"], [b"/p/a.jpg"], {"old/a.jpg": b"/p/a.jpg"}),  # the common folder has another name
        (["x/a.jpg", "y/b.jpg"], [b"/p/y/a.jpg"], {}),  # a folder that tells images apart must fit
        (["home/me/p/a.jpg"], [b"/home/me/p/a.jpg"], {"home/me/p/a.jpg": b"/home/me/p/a.jpg"}),
        (["\\xff.jpg"], [b"/p/\xff.jpg"], {"\\xff.jpg": b"/p/\xff.jpg"}),
        ([], [b"/p/a.jpg"], {}),
    ],
)
def test_a_name_means_the_one_file_that_fits(names: list[str], paths: list[bytes], expected: dict[str, bytes]) -> None:
    assert match_names(names, paths, b"/p") == expected


# Vectors alone.


def test_an_npz_becomes_a_collection_that_is_searched_by_image(npz: Path, tmp_path: Path) -> None:
    report = take_in(npz, tmp_path / "rsc")
    assert (report.new, report.bad, report.images, report.dim, report.backbone) == (COUNT, 0, COUNT, DIM, "imported")
    found = stored(tmp_path / "rsc")
    assert [os.fsdecode(path) for path in found] == NAMES
    assert np.array_equal(np.stack(list(found.values())), vectors_of())
    assert [record.label for record in records(tmp_path / "rsc")] == ["animal", "odd"] * (COUNT // 2)
    units = vectors_of() / np.linalg.norm(vectors_of(), axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2)
    nearest = [os.path.basename(NAMES[place]) for place in cosines.argmax(axis=1)]
    assert [names[0] for names, _ in answers(tmp_path / "rsc")] == nearest


def test_what_has_no_file_and_no_network_is_refused_with_the_reason(npz: Path, photos: Path, tmp_path: Path) -> None:
    take_in(npz, tmp_path / "rsc")
    with closing(SearchService(Settings(rsc_files=tmp_path / "rsc"))) as service:
        with pytest.raises(NoNetworkError, match="came from elsewhere"):
            service.search(Query((Example((photos / NAMES[0]).read_bytes()),), k=3))
        with pytest.raises(OriginalGoneError):
            service.original(1)
        assert service.thumbnail(1) is None
    with pytest.raises(NoNetworkError, match=r"30 files are not in the collection yet, .*/even/00\.jpg"):
        index(tmp_path / "rsc", find_images([str(photos)]).paths)


def test_importing_again_changes_nothing(npz: Path, tmp_path: Path) -> None:
    take_in(npz, tmp_path / "rsc")
    before = (open_store(tmp_path / "rsc").generation(), records(tmp_path / "rsc"))
    report = take_in(npz, tmp_path / "rsc")
    assert (report.new, report.changed, report.unchanged) == (0, 0, COUNT)
    assert (open_store(tmp_path / "rsc").generation(), records(tmp_path / "rsc")) == before


def test_more_vectors_of_the_same_dimension_are_added(npz: Path, tmp_path: Path) -> None:
    take_in(npz, tmp_path / "rsc")
    np.savez(tmp_path / "more.npz", X=vectors_of(3, seed=1), Y=["new/1.jpg", "new/2.jpg", NAMES[0]])
    report = take_in(tmp_path / "more.npz", tmp_path / "rsc")
    assert (report.new, report.changed, report.images) == (2, 1, COUNT + 2)
    assert any(f"2 images were added to the {COUNT} " in note for note in report.notes)
    found = stored(tmp_path / "rsc")
    assert np.array_equal(found[NAMES[0].encode()], vectors_of(3, seed=1)[2])
    assert records(tmp_path / "rsc")[0].label == "animal"  # given before, and not taken back


def test_another_dimension_or_network_is_refused_with_both_named(
    npz: Path, photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    take_in(npz, tmp_path / "rsc")
    np.savez(tmp_path / "wide.npz", X=vectors_of(3, 9), Y=["a", "b", "c"])
    with pytest.raises(CollectionMismatchError, match=r"holds 8-d vectors of imported, layer vectors.*wide holds 9-d"):
        take_in(tmp_path / "wide.npz", tmp_path / "rsc")
    index(tmp_path / "network", find_images([str(photos)]).paths)
    with pytest.raises(
        CollectionMismatchError, match=r"1280-d vectors of efficientnet_lite0.*8-d vectors of a network that"
    ):
        take_in(npz, tmp_path / "network")
    store = open_store(tmp_path / "network")
    export_vectors(store, tmp_path / "own.npz")
    with pytest.raises(CollectionMismatchError, match=r"imported, layer vectors.*1280-d vectors of efficientnet_lite0"):
        take_in(tmp_path / "own.npz", tmp_path / "rsc")
    assert len(stored(tmp_path / "rsc")) == COUNT


def test_equal_names_are_all_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", X=vectors_of(3), Y=["a.jpg"] * 3)
    assert take_in(tmp_path / "v.npz", tmp_path / "rsc").new == 3
    assert list(stored(tmp_path / "rsc")) == [b"a.jpg", b"a.jpg#2", b"a.jpg#3"]
    assert take_in(tmp_path / "v.npz", tmp_path / "rsc").unchanged == 3


@pytest.mark.parametrize("kind", ["float16", "float64", "int32", ">f4", "fortran", "compressed", "pooled"])
def test_every_way_to_save_numbers_is_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing.files, "BLOCK", 16)
    vectors = np.round(vectors_of() * 100)
    arrays: dict[str, Any] = {"X": vectors, "Y": np.array(NAMES, dtype="S")}
    if kind in ("float16", "float64", "int32", ">f4"):
        arrays["X"] = vectors.astype(kind)
    elif kind == "fortran":
        arrays["X"] = np.asfortranarray(vectors)
    elif kind == "pooled":
        arrays["X"], arrays["Y"] = vectors.reshape(COUNT, 1, 1, DIM), np.array(NAMES)[:, None]
    (np.savez_compressed if kind == "compressed" else np.savez)(tmp_path / "v.npz", **arrays)
    take_in(tmp_path / "v.npz", tmp_path / "rsc")
    found = stored(tmp_path / "rsc")
    assert [os.fsdecode(path) for path in found] == NAMES
    assert np.array_equal(np.stack(list(found.values())), vectors)


# What is wrong with files.


def test_bad_vectors_are_listed_and_the_good_ones_taken(tmp_path: Path) -> None:
    vectors = vectors_of(6)
    vectors[1, 3], vectors[2, 0], vectors[4], vectors[5] = np.nan, np.inf, 1e5, 1e-9
    np.savez(tmp_path / "v.npz", X=vectors, Y=NAMES[:6])
    report = take_in(tmp_path / "v.npz", tmp_path / "rsc")
    assert (report.new, report.bad) == (2, 4)
    assert [(failure.path, failure.code) for failure in report.failures] == [
        (NAMES[place], "bad_vector") for place in (1, 2, 4, 5)
    ]
    assert "NaN or infinite" in report.failures[0].reason
    assert "greatest number is 1e+05" in report.failures[2].reason
    assert list(stored(tmp_path / "rsc")) == [NAMES[0].encode(), NAMES[3].encode()]


def test_a_vector_of_zeros_is_a_good_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", X=np.zeros((2, 3)), Y=["a", "b"])
    assert take_in(tmp_path / "v.npz", tmp_path / "rsc").new == 2


class Trap:
    """Raises whatever happens when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("an object was unpickled",))


BAD_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "no Y": ({"X": vectors_of(2)}, r"has X, but needs the arrays X .* and Y"),
    "no X": ({"Y": ["a"]}, r"has Y, but needs"),
    "fewer names": ({"X": vectors_of(3), "Y": ["a", "b"]}, r"has 3 vectors, but Y has the shape \(2,\)"),
    "fewer labels": ({"X": vectors_of(1), "Y": ["a"], "label": ["x", "y"]}, r"label has the shape \(2,\)"),
    "one vector": ({"X": np.zeros(8), "Y": ["a"]}, r"shape \(8,\), but must have one vector a row"),
    "maps": ({"X": np.zeros((1, 2, 2, 3)), "Y": ["a"]}, r"shape \(1, 2, 2, 3\)"),
    "no images": ({"X": np.zeros((0, 8)), "Y": np.array([], dtype="U1")}, r"is empty: X has the shape \(0, 8\)"),
    "no numbers": ({"X": np.zeros((2, 0)), "Y": ["a", "b"]}, "is empty"),
    "texts for X": ({"X": np.array([["1"], ["2"]]), "Y": ["a", "b"]}, r"X has the type <U1, but must be numbers"),
    "numbers for Y": ({"X": vectors_of(2), "Y": [0.5, 1.5]}, r"Y has the type float64, but must be texts"),
    "objects for X": ({"X": np.array([[Trap()]], dtype=object), "Y": ["a"]}, "X is an array of Python objects"),
    "objects for Y": ({"X": vectors_of(1), "Y": np.array([Trap()], dtype=object)}, "Y is an array of Python objects"),
    "only bad ones": ({"X": [[np.nan], [np.nan]], "Y": ["a", "b"]}, r"None of the 2 vectors .* can be used\. a: .*NaN"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_says_why_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    arrays, message = BAD_FILES[case]
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(VectorsFileError, match=message):
        take_in(tmp_path / "v.npz", tmp_path / "rsc")
    if (tmp_path / "rsc").exists():
        assert open_store(tmp_path / "rsc").vector_keys() == []


def test_what_is_no_npz_or_a_cut_one_is_refused(npz: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("1\n2\n3\n")
    np.save(tmp_path / "array.npy", vectors_of())
    (tmp_path / "cut.npz").write_bytes(npz.read_bytes()[:-300])
    for name in ("text.npz", "array.npy", "cut.npz"):
        with pytest.raises(VectorsFileError, match=r"cannot be read as an \.npz file"):
            take_in(tmp_path / name, tmp_path / "rsc")
    with pytest.raises(VectorsFileError, match="is not there"):
        take_in(tmp_path / "missing.npz", tmp_path / "rsc")


def test_a_header_that_promises_more_than_there_is_reserves_nothing(npz: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(npz) as archive, zipfile.ZipFile(tmp_path / "lie.npz", "w") as lie:
        for member in archive.namelist():
            content = archive.read(member)
            lie.writestr(
                member,
                content.replace(b"(40, 8), }   ", b"(4000000, 8), }")[: len(content)] if member == "X.npy" else content,
            )
    with pytest.raises(VectorsFileError, match="X is cut off"):
        take_in(tmp_path / "lie.npz", tmp_path / "rsc")


# Text vectors.


def write_texts(folder: Path, vectors: npt.NDArray[np.float32], names: list[str]) -> None:
    for vector, name in zip(vectors, names, strict=True):
        path = folder / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(path, vector)


def test_a_folder_of_text_vectors_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing.files, "BLOCK", 16)
    write_texts(tmp_path / "image_vectors", vectors_of(), NAMES)
    report = take_in(tmp_path / "image_vectors", tmp_path / "rsc")
    assert (report.new, report.layer) == (COUNT, "image_vectors")
    found = stored(tmp_path / "rsc")
    assert sorted(found) == sorted(name.encode() for name in NAMES)
    assert all(np.array_equal(found[name.encode()], vector) for name, vector in zip(NAMES, vectors_of(), strict=True))
    assert take_in(tmp_path / "image_vectors", tmp_path / "rsc").unchanged == COUNT


def test_bad_text_vectors_are_listed_and_the_good_ones_taken(tmp_path: Path) -> None:
    folder = tmp_path / "image_vectors"
    write_texts(folder, vectors_of(5), ["b", "c", "d", "e", "f"])
    (folder / "a.npz").write_text("1\n2\n")  # the first file does not decide what is usual
    (folder / "empty.npz").write_text("")
    (folder / "words.npz").write_text("one\ntwo\n")
    (folder / "nan.npz").write_text("nan\n" * DIM)
    np.savez(folder / "binary.npz", X=vectors_of())
    (folder / "readme.txt").write_text("no vector")
    report = take_in(folder, tmp_path / "rsc")
    assert (report.new, report.bad) == (5, 5)
    assert {failure.path: failure.reason for failure in report.failures} == {
        "a": "The vector has 2 numbers, the others have 8.",
        "binary": "The file is not text with one number a line.",
        "empty": "The file is empty.",
        "nan": "The vector has NaN or infinite numbers.",
        "words": "The file is not text with one number a line.",
    }


def test_a_folder_without_vectors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VectorsFileError, match=r"no file whose name ends in \.npz"):
        take_in(tmp_path / "empty", tmp_path / "rsc")
    (tmp_path / "empty" / "a.npz").write_text("no number")
    with pytest.raises(VectorsFileError, match="holds no vectors"):
        take_in(tmp_path / "empty", tmp_path / "rsc")


# With the pictures at hand.


def test_pictures_at_hand_give_thumbnails_sizes_and_times_without_a_network(
    npz: Path, photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    notes: list[str] = []
    report = take_in(npz, tmp_path / "rsc", photos, on_note=notes.append)
    assert (report.new, report.with_picture, report.images) == (COUNT, COUNT - 10, COUNT)
    assert loaded == []
    assert len(notes) == 1
    assert "10 of 40 pictures were not found" in notes[0]
    with_file = [record for record in records(tmp_path / "rsc") if record.has_file]
    assert [os.fsdecode(record.path) for record in with_file] == [str(photos / name) for name in NAMES[:-10]]
    assert {(record.width, record.height, record.format) for record in with_file} == {(80, 60, "JPEG")}
    assert [record.label for record in with_file[:2]] == ["animal", "odd"]
    with closing(SearchService(Settings(rsc_files=tmp_path / "rsc"))) as service:
        assert (service.thumbnail(1) or b"")[:2] == b"\xff\xd8"
        assert service.original(1)[0] == os.fsencode(photos / NAMES[0])
        assert service.thumbnail(COUNT) is None


def test_with_or_without_pictures_an_import_is_the_same_images(npz: Path, photos: Path, tmp_path: Path) -> None:
    take_in(npz, tmp_path / "rsc")
    first = {record.image_id: record.path for record in records(tmp_path / "rsc")}
    report = take_in(npz, tmp_path / "rsc", photos)
    assert (report.new, report.changed, report.unchanged) == (0, COUNT - 10, 10)
    assert {record.image_id for record in records(tmp_path / "rsc")} == set(first)
    for pictures in (photos, None):
        report = take_in(npz, tmp_path / "rsc", pictures)
        assert (report.new, report.changed, report.unchanged, report.with_picture) == (0, 0, COUNT, COUNT - 10)
    assert len(stored(tmp_path / "rsc")) == COUNT


def test_a_picture_of_the_same_name_but_another_vector_is_another_image(
    npz: Path, photos: Path, tmp_path: Path
) -> None:
    take_in(npz, tmp_path / "rsc", photos)
    np.savez(tmp_path / "more.npz", X=vectors_of(1, seed=1), Y=["00.jpg"])
    assert take_in(tmp_path / "more.npz", tmp_path / "rsc").new == 1
    assert np.array_equal(stored(tmp_path / "rsc")[os.fsencode(photos / NAMES[0])], vectors_of()[0])


def test_equal_pictures_with_different_vectors_are_imported_once_and_for_all(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "photos" / name, 1)
    np.savez(tmp_path / "v.npz", X=vectors_of(2), Y=["a.png", "b.png"])
    take_in(tmp_path / "v.npz", tmp_path / "rsc", tmp_path / "photos")
    assert [np.array_equal(vector, vectors_of(2)[0]) for vector in stored(tmp_path / "rsc").values()] == [True, True]
    assert take_in(tmp_path / "v.npz", tmp_path / "rsc", tmp_path / "photos").unchanged == 2


def test_a_picture_that_cannot_be_read_is_noted_and_its_vector_taken(npz: Path, photos: Path, tmp_path: Path) -> None:
    (photos / NAMES[0]).write_bytes((photos / NAMES[0]).read_bytes()[:300])
    (photos / NAMES[1]).write_text("no picture")
    report = take_in(npz, tmp_path / "rsc", photos)
    assert (report.new, report.bad, report.with_picture, report.images) == (COUNT, 0, COUNT - 12, COUNT)
    assert report.notes[0].startswith(f"2 pictures were found but cannot be read as images, {NAMES[0]} among them")


def test_a_folder_of_pictures_that_is_not_there_is_refused(npz: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such folder"):
        take_in(npz, tmp_path / "rsc", tmp_path / "missing")


# Stopped and killed.


def test_a_stopped_import_keeps_what_is_committed_and_goes_on(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing.files, "BLOCK", 16)
    stop = threading.Event()
    report = take_in(npz, tmp_path / "rsc", on_progress=lambda done, total: stop.set(), stop=stop)
    assert (report.interrupted, report.new, report.images) == (True, 16, 16)
    report = take_in(npz, tmp_path / "rsc")
    assert (report.new, report.unchanged, report.images) == (24, 16, 40)


def test_a_killed_import_leaves_nothing_half_written(npz: Path, photos: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
import importing.files
from pathlib import Path
from config import Settings
from importing import ImportJob, import_vectors
from store import StoreWriter
importing.files.BLOCK = 16
write = StoreWriter._append
def die_in_the_second(self, path, rows, batch):
    write(self, path, rows, batch)
    if rows:
        os.kill(os.getpid(), signal.SIGKILL)
StoreWriter._append = die_in_the_second
import_vectors(ImportJob(Settings(rsc_files=Path({str(tmp_path / "rsc")!r})), Path({str(npz)!r}), Path({str(photos)!r})))
"""
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False)
    assert finished.returncode == -signal.SIGKILL, finished.stderr
    found = records(tmp_path / "rsc")
    assert len(found) == 16
    store = open_store(tmp_path / "rsc")
    assert store.generation() is None
    (key,) = store.vector_keys()
    assert store.meta("vectors_key") == key  # whatever is imported next is held against it
    assert np.array_equal(store.snapshot(key).take(slice(None)), vectors_of()[:16])
    assert (tmp_path / "rsc" / "vectors" / key / "vectors.f16").stat().st_size == 32 * DIM * 2  # bytes nobody refers to
    report = take_in(npz, tmp_path / "rsc", photos)
    assert (report.new, report.unchanged, report.images) == (24, 16, 40)
    assert np.array_equal(np.stack(list(stored(tmp_path / "rsc").values())), vectors_of())


# Round trips.


def test_what_is_exported_and_imported_answers_the_same(npz: Path, tmp_path: Path) -> None:
    take_in(npz, tmp_path / "rsc")
    store = open_store(tmp_path / "rsc")
    export_vectors(store, tmp_path / "out.npz")
    export_vectors(store, tmp_path / "texts", "texts")
    assert take_in(tmp_path / "out.npz", tmp_path / "rsc").unchanged == COUNT
    report = take_in(tmp_path / "out.npz", tmp_path / "again")
    assert (report.backbone, report.layer) == ("imported", "vectors")  # still those of the first file
    assert answers(tmp_path / "again") == answers(tmp_path / "rsc")
    assert [replace(record, image_id=0) for record in records(tmp_path / "again")] == [
        replace(record, image_id=0) for record in records(tmp_path / "rsc")
    ]
    take_in(tmp_path / "texts", tmp_path / "from-texts")
    again, first = stored(tmp_path / "from-texts"), stored(tmp_path / "rsc")
    assert {path: vector.tolist() for path, vector in again.items()} == {p: v.tolist() for p, v in first.items()}


def test_vectors_that_we_exported_keep_their_network_so_uploads_work(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(tmp_path / "rsc", find_images([str(photos)]).paths)
    export_vectors(open_store(tmp_path / "rsc"), tmp_path / "out.npz")
    report = take_in(tmp_path / "out.npz", tmp_path / "again")
    assert (report.backbone, report.weights_sha256) == (NETWORK.backbone, NETWORK.weights_sha256)
    assert [r.label for r in records(tmp_path / "again")] == [r.label for r in records(tmp_path / "rsc")]
    assert np.array_equal(list(stored(tmp_path / "again").values()), list(stored(tmp_path / "rsc").values()))
    with closing(SearchService(Settings(rsc_files=tmp_path / "again"))) as service:
        found = service.search(Query((Example((photos / NAMES[7]).read_bytes()),), k=1))
    assert found.matches[0].image.name == os.path.basename(NAMES[7])
    # Into the collection that they came from they bring nothing new, and what its own network made stays.
    report = take_in(tmp_path / "out.npz", tmp_path / "rsc")
    assert (report.new, report.changed, report.unchanged) == (0, 0, COUNT - 10)
    with np.load(tmp_path / "out.npz") as file:
        np.savez(tmp_path / "off.npz", **{**file, "X": file["X"] + 1})
    assert take_in(tmp_path / "off.npz", tmp_path / "rsc", photos).unchanged == COUNT - 10
    assert np.array_equal(list(stored(tmp_path / "again").values()), list(stored(tmp_path / "rsc").values()))
    # New pictures can be added beside images without files.
    write_picture(tmp_path / "more" / "new.jpg", 99)
    assert index(tmp_path / "again", find_images([str(tmp_path / "more")]).paths).new == 1
    assert len(stored(tmp_path / "again")) == COUNT - 10 + 1


@pytest.mark.parametrize(
    ("backbone", "layer", "weights"),
    [("../../etc", "../x", "f" * 64), ("efficientnet_lite0", "avg_pool", "no hash"), ("unheard_of", "pool", "a" * 64)],
)
def test_a_network_that_is_not_here_is_named_and_nothing_more(
    backbone: str, layer: str, weights: str, tmp_path: Path
) -> None:
    origin = {"backbone": backbone, "layer": layer, "weights_sha256": weights, "preprocessing": "?"}
    np.savez(tmp_path / "v.npz", X=vectors_of(2, 1280), Y=["a", "b"], **origin)  # type: ignore[arg-type]
    report = take_in(tmp_path / "v.npz", tmp_path / "rsc")
    assert report.backbone == "imported"
    assert set(os.listdir(tmp_path)) == {"v.npz", "rsc"}
    (folder,) = os.listdir(tmp_path / "rsc" / "vectors")
    assert folder.startswith("imported-")


# The job over a collection of images without files.


def test_prune_failures_compact_and_another_index_work_without_files(npz: Path, photos: Path, tmp_path: Path) -> None:
    rsc_files = tmp_path / "rsc"
    take_in(npz, rsc_files, photos)
    (photos / NAMES[3]).unlink()
    report = index(rsc_files, compact=True)
    assert (report.gone, report.images, report.backbone) == (1, COUNT, "imported")
    report = index(rsc_files, prune=lambda path: True)
    assert (report.removed, report.images) == (1, COUNT - 1)
    report = index(
        rsc_files, find_images([str(photos)]).paths, remove=lambda path: path == NAMES[-1].encode(), compact=True
    )
    assert (report.removed, report.images) == (1, COUNT - 2)
    assert report.reclaimed_bytes > 0
    vectors = [vector for number, vector in enumerate(vectors_of()) if number not in (3, COUNT - 1)]
    assert np.array_equal(list(stored(rsc_files).values()), vectors)
    settings = Settings(rsc_files=rsc_files, index="usearch")
    assert index_images(Job(settings, [])).index["kind"] == "usearch"


def test_another_network_looks_at_the_images_with_files_and_says_which_it_cannot_see(
    npz: Path, photos: Path, tmp_path: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(npz, tmp_path / "rsc", photos)
    monkeypatch.chdir(photos)  # where the names of the others would be paths of files
    write_picture(photos / NAMES[-1], 1)
    report = index(tmp_path / "rsc", backbone="efficientnet_lite0")
    assert (report.images, report.vectorised) == (COUNT - 10, COUNT - 10)
    assert [note for note in report.notes if "10 images have no file" in note]
    assert index(tmp_path / "rsc", backbone="imported").images == COUNT
    assert index(tmp_path / "rsc").backbone == "imported"


def test_another_network_than_that_of_imported_vectors_needs_files(
    npz: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    take_in(npz, tmp_path / "rsc")
    with pytest.raises(NoNetworkError, match="No image of this collection has a file"):
        index(tmp_path / "rsc", backbone="resnet50")
    assert len(stored(tmp_path / "rsc")) == COUNT


def test_a_collection_without_imported_vectors_cannot_go_back_to_them(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(tmp_path / "rsc", find_images([str(photos)]).paths)
    with pytest.raises(CollectionMismatchError, match="No vectors were imported"):
        index(tmp_path / "rsc", backbone="imported")


# What a program holds in memory.


def test_vectors_in_memory_are_added_and_replaced_by_name(tmp_path: Path) -> None:
    vectors = vectors_of(4)
    vectors[2, 0] = np.nan
    with open_writer(tmp_path, command="test") as writer:
        key = begin_imported(writer, "my vectors", ["a", "b", "c", "d"], vectors)
        added = add_vectors(writer, key, ["a", "b", "c", "d"], vectors, ["x", None, None, "y"])
        assert (added.new, [failure.path for failure in added.failures]) == (3, ["c"])
        assert begin_imported(writer, "others", ["e"], vectors[:1]) == key
        added = add_vectors(writer, key, ["a", "b"], vectors[[0, 3]])
        assert (added.new, added.changed, added.unchanged) == (0, 1, 1)
        with pytest.raises(QueryError, match=r"shape \(4, 7\), but must have \(n, 8\)"):
            add_vectors(writer, key, ["a", "b", "c", "d"], vectors[:, :7])
        with pytest.raises(QueryError, match="4 images, but 1 names"):
            add_vectors(writer, key, ["a"], vectors)
        with pytest.raises(CollectionMismatchError):
            begin_imported(writer, "wider", ["e"], vectors_of(1, 9))
    assert [(record.path, record.label) for record in records(tmp_path)] == [(b"a", "x"), (b"b", None), (b"d", "y")]
    assert key.startswith("imported-my_vectors-")


def test_pictures_in_memory_get_vectors_labels_and_thumbnails_from_one_pass(tmp_path: Path) -> None:
    backbone: Any = FakeBackbone(NETWORK)
    pictures = [Image.effect_noise((30 + number, 20), 50 + number).convert("RGB") for number in range(40)]
    pictures[1] = pictures[0].copy()
    with open_writer(tmp_path, command="test") as writer:
        added = add_pictures(
            writer, backbone, iter(pictures), [f"p{n}" for n in range(40)], ["l"] * 40, thumbnail_size=16
        )
        assert (added.new, backbone.seen) == (40, 40)
        found = list(writer.all_records())
        assert {(record.label, record.has_file) for record in found} == {("l", False)}
        assert [(record.width, record.height) for record in found[:3]] == [(30, 20), (30, 20), (32, 20)]
        assert found[0].sha256 == found[1].sha256 != found[2].sha256
        labels = writer.predicted_labels(NETWORK.key, [found[2].sha256 or b""])
        assert [len(best) for best in labels.values()] == [5]
        assert (writer.thumbnail(found[2].sha256 or b"") or b"")[:2] == b"\xff\xd8"
        assert len(writer.snapshot(NETWORK.key)) == 40
        assert add_pictures(writer, backbone, pictures[:2], ["p0", "p1"]).unchanged == 2
        other: Any = FakeBackbone(OTHER)
        with pytest.raises(CollectionMismatchError):
            add_pictures(writer, other, pictures[:1], ["q"])


# The command.


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_imports_exports_and_removes(
    npz: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("--rsc-files", tmp_path / "rsc", "--quiet")
    status, out, _ = run(capsys, "--import-vectors", npz, "--pictures", photos, *here)
    assert (status, "40 new" in out, "30 have their picture" in out) == (0, True, True)
    status, out, _ = run(capsys, "--import-vectors", npz, "--export-vectors", tmp_path / "o.npz", "--json", *here)
    report = json.loads(out)
    assert (report["unchanged"], report["exported"]) == (40, {str(tmp_path / "o.npz"): 40})
    assert run(capsys, "--export-vectors", f"{tmp_path}/texts/", *here)[0] == 0
    assert len(list((tmp_path / "texts").rglob("*.npz"))) == 40
    status, out, err = run(capsys, "--export-labels", tmp_path / "l.json", *here)
    assert (status, "No image has predicted labels by imported" in err) == (1, True)
    # A name of an image without a file is matched as it is, one of a file as a path.
    status, out, _ = run(capsys, "--remove", "odd/3*", "--remove", photos / "even", *here)
    assert (status, f"{5 + 15} taken out" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pictures", "x"), "--pictures says where"),
        (("--export-vectors", "v.npz", "photos"), "--export-vectors is done on its own: leave patterns to another run"),
        (("--import-vectors", "v.npz", "--prune"), "leave prune to another run"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_arguments(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_lists_bad_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "v.npz", X=np.array([[1.0]] + [[np.nan]] * 25), Y=[f"{n}.jpg" for n in range(26)])
    status, out, _ = run(capsys, "--import-vectors", tmp_path / "v.npz", "--rsc-files", tmp_path / "rsc")
    assert (status, "25 with a bad vector" in out, "  1.jpg: The vector has NaN" in out) == (0, True, True)
    assert "… and 5 more" in out


# Real vectors.


@pytest.mark.real_photos
def test_the_flowers_become_a_collection_that_searches(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "flowers-inception-v3.npz"
    report = import_vectors(ImportJob(Settings(rsc_files=tmp_path / "rsc", index="exact"), source))
    assert (report.new, report.bad, report.dim) == (3670, 0, 2048)
    with np.load(source) as file:
        labels, vectors = file["label"].tolist(), file["X"]
    assert [record.label for record in records(tmp_path / "rsc")] == labels
    export_vectors(open_store(tmp_path / "rsc"), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        assert np.allclose(file["X"], vectors, rtol=5e-4, atol=1e-6)
        assert file["label"].tolist() == labels
    with closing(SearchService(Settings(rsc_files=tmp_path / "rsc"), load_network=False)) as service:
        assert service.status().images == 3670
        queries = range(1, 3671, 37)
        found = [service.search(Query((Example(number),), k=10, ranking="plain")) for number in queries]
    right = [m.image.label == labels[q - 1] for q, result in zip(queries, found, strict=True) for m in result.matches]
    assert np.mean(right) > 0.75  # 0.807 over all
