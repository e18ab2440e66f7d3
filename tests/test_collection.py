"""The Python way to a collection: Turi's meaning of every argument, every form of image, and what goes wrong."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ann import Metric
from errors import (
    BatchError,
    CollectionError,
    CollectionMissingError,
    ExportError,
    ImageError,
    ImageNotFoundError,
    LookalikeError,
    NoNetworkError,
    OriginalGoneError,
    QueryError,
    RequestError,
)
from search.collection import Collection, create_collection, open_collection
from search.queries import Box
from store import Filter, Snapshot
from tests import fake_backbone
from tests.fake_backbone import FakeBackbone


def pixels(number: int, size: tuple[int, int] = (60, 80)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def make_photos(folder: Path) -> Path:
    """Five pictures in two folders; `twin.png` has the pixels of `4.png` in other bytes."""
    for name, number, level in (("0", 0, 6), ("1", 1, 6), ("2", 2, 6), ("3", 3, 6), ("4", 4, 6), ("twin", 4, 1)):
        place = folder / ("odd" if number % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number)).save(place / f"{name}.png", compress_level=level)
    return folder.resolve()


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[list[FakeBackbone]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield fake_backbone.install(monkeypatch)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("shared") / "photos")


@pytest.fixture(scope="module")
def collection(photos: Path) -> Collection:
    """A collection that tests leave as it is."""
    return create_collection(photos, photos.parent / "rsc", backbone="efficientnet_lite0")


@pytest.fixture
def own_photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


@pytest.fixture
def own(own_photos: Path) -> Collection:
    """A collection that the test may change."""
    return create_collection(own_photos, own_photos.parent / "rsc", backbone="efficientnet_lite0")


def name_of(photos: Path, number: int | str) -> str:
    return str(next(photos.glob(f"*/{number}.png")).resolve())


def brute_force(snapshot: Snapshot, vector: npt.NDArray[np.float64], metric: str) -> Any:
    stored = snapshot.take(slice(None)).astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(stored - vector, axis=1)
    return 1 - stored @ vector / np.linalg.norm(stored, axis=1) / np.linalg.norm(vector)


# Turi's meaning of k and radius.


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_k_and_radius_mean_what_they_mean_in_turi(collection: Collection, metric: Metric) -> None:
    snapshot = collection._service.ready().snapshot
    vector = snapshot.take(np.array([1]))[0].astype(np.float64)
    distances = np.sort(brute_force(snapshot, vector, metric))
    between = [None, *((distances[:-1] + distances[1:])[[0, 2, 4]] / 2).tolist(), 1e6]
    for k, radius in itertools.product([None, 1, 3, 6, 50], between):
        rows = collection.query(vector, k, radius, metric=metric)
        wanted = distances[distances <= (np.inf if radius is None else radius)][:k]
        assert rows["distance"] == pytest.approx(wanted, abs=2e-3 if metric == "euclidean" else 1e-5)
        assert rows["rank"].tolist() == list(range(1, len(wanted) + 1))


def test_the_radius_is_inclusive(collection: Collection) -> None:
    rows = collection.query(1, k=None)
    at = float(rows["distance"][2])
    inside = int((rows["distance"] <= rows["distance"][2]).sum())
    assert len(collection.query(1, None, at)) == inside
    assert len(collection.query(1, None, at - 2e-6)) < inside
    assert len(collection.query(1, 2, at)) == 2


def test_an_indexed_image_finds_itself_first_at_distance_0_whatever_it_is_called_by(
    collection: Collection, photos: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    before = list(loaded)
    ids = dict(zip(collection.images()["name"], collection.images()["image_id"].tolist(), strict=True))
    twin = ids[name_of(photos, "twin")]
    record = collection._service.ready().store.record(twin)
    row = collection.images()[collection.images()["image_id"] == twin][0]
    for asked in (twin, np.int64(twin), record, row, "even/twin.png", photos / "even" / "twin.png", b"even/twin.png"):
        rows = collection.query(asked, k=1)
        assert rows.tolist() == [(name_of(photos, "twin"), name_of(photos, "twin"), 0.0, 1)]
    both = collection.query(twin, k=2)
    assert both["reference_label"].tolist() == [name_of(photos, "twin"), name_of(photos, 4)]
    assert both["distance"].tolist() == [0, 0]
    assert loaded == before  # no network was needed


def test_many_queries_are_answered_in_their_order(collection: Collection, photos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    Image.fromarray(pixels(9)).save(elsewhere)
    asked: list[Any] = [1, str(elsewhere), Image.fromarray(pixels(3)), pixels(2), pixels(2)[:, :, 0]]
    rows = collection.query(asked, k=2)
    first = collection.images()["name"][0]
    assert rows["query_label"].tolist() == [x for x in (first, str(elsewhere), 2, 3, 4) for _ in range(2)]
    assert rows["rank"].tolist() == [1, 2] * 5
    best = rows[rows["rank"] == 1]
    assert best["reference_label"][[0, 2, 3]].tolist() == [first, name_of(photos, 3), name_of(photos, 2)]
    assert best["distance"][[0, 2, 3]] == pytest.approx(0, abs=1e-4)


def test_queries_can_be_labelled(collection: Collection) -> None:
    assert collection.query(1, k=1, label="cat")["query_label"].tolist() == ["cat"]
    assert collection.query([1, 2], k=1, label=["cat", 7])["query_label"].tolist() == ["cat", 7]
    with pytest.raises(QueryError, match="2 images and 1 labels"):
        collection.query([1, 2], label="cat")


@pytest.mark.parametrize(
    "form",
    [
        lambda p: p,
        lambda p: Image.fromarray(p),
        lambda p: Image.fromarray(p).convert("RGBA"),
        lambda p: np.concatenate([p, np.full((*p.shape[:2], 1), 255, np.uint8)], axis=2),
        lambda p: p[None],
    ],
)
def test_a_picture_may_come_in_many_forms(collection: Collection, photos: Path, form) -> None:  # type: ignore[no-untyped-def]
    rows = collection.query(form(pixels(1)), k=1)
    assert rows["reference_label"].tolist() == [name_of(photos, 1)]
    assert rows["distance"][0] == pytest.approx(0, abs=1e-4)


def test_a_picture_held_in_memory_is_turned_upright(collection: Collection, photos: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.rot90(pixels(1)).copy()).save(path, exif=exif)
    with Image.open(path) as picture:
        assert collection.query(picture, k=1)["distance"][0] == pytest.approx(0, abs=1e-4)


def test_a_file_that_changed_since_is_looked_at_anew(
    own: Collection, own_photos: Path, loaded: list[FakeBackbone]
) -> None:
    path = name_of(own_photos, 1)
    Image.fromarray(pixels(3)).save(path, compress_level=1)
    assert own.query(path, k=1)["reference_label"].tolist() == [name_of(own_photos, 3)]
    Path(path).unlink()
    assert own.query(path, k=1)["reference_label"].tolist() == [path]


# More ways to ask.


def test_images_together_and_unlike_others(collection: Collection, photos: Path) -> None:
    together = collection.query([1, 2], k=2, together=True)
    assert {str(label) for label in together["reference_label"]} == {str(n) for n in collection.images()["name"][:2]}
    assert set(together["query_label"]) == {", ".join(collection.images()["name"][:2])}
    plain, less = collection.query(1, None), collection.query(1, None, unlike=2)
    other = collection.images()["name"][1]
    assert less[less["reference_label"] == other]["distance"] > plain[plain["reference_label"] == other]["distance"]


def test_a_filter_restricts_the_answer_before_it_is_cut(collection: Collection, photos: Path) -> None:
    rows = collection.query(name_of(photos, 0), k=2, where=Filter(folder="odd"))
    assert {Path(name).parent.name for name in rows["reference_label"]} == {"odd"}
    assert rows["rank"].tolist() == [1, 2]
    assert collection.images(Filter(label="odd"))["label"].tolist() == ["odd", "odd"]


def test_the_graph_leaves_an_image_itself_out_but_not_its_twin(collection: Collection, photos: Path) -> None:
    ids = dict(zip(collection.images()["name"], collection.images()["image_id"].tolist(), strict=True))
    twin, original = ids[name_of(photos, "twin")], ids[name_of(photos, 4)]
    graph = collection.similarity_graph(k=2)
    assert graph.dtype.names == ("source", "destination", "distance", "rank")
    assert graph["rank"].tolist() == [1, 2] * 6
    assert (graph["source"] != graph["destination"]).all()
    first = graph[(graph["source"] == twin) & (graph["rank"] == 1)]
    assert (first["destination"].tolist(), first["distance"].round(6).tolist()) == ([original], [0.0])
    own = collection.similarity_graph(k=1, include_self_edges=True)
    assert (own["source"] == own["destination"]).all()
    assert len(collection.similarity_graph(None)) == 6 * 5
    assert len(collection.similarity_graph(None, 1e-6)) == 2
    seen: list[tuple[int, int]] = []
    collection.similarity_graph(on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)


def test_a_part_of_a_picture_is_asked_with(collection: Collection, photos: Path, tmp_path: Path) -> None:
    wide = np.concatenate([pixels(9), pixels(1)], axis=1)
    right = Box(0.5, 0, 1, 1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    rows = collection.query([tmp_path / "wide.png", wide, Image.fromarray(wide)], 1, box=right)
    assert rows["reference_label"].tolist() == [name_of(photos, 1)] * 3
    assert rows["distance"] == pytest.approx(0, abs=1e-4)
    # Of an image of the collection, the part is seen in its file.
    half = collection.query(pixels(1)[:, 40:], None)
    for asked in (
        name_of(photos, 1),
        collection.images()["image_id"][collection.images()["name"] == name_of(photos, 1)],
    ):
        part = collection.query(asked, None, box=right)
        assert set(part["query_label"]) == {name_of(photos, 1)}
        assert part["distance"] == pytest.approx(half["distance"], abs=1e-4)
        assert part["distance"][0] > 1e-3
    with pytest.raises(QueryError, match="no parts"):
        collection.query(np.ones(1280), box=right)
    with pytest.raises(QueryError, match=r"The box is \(0, 0, 1, 1\)"):
        collection.query(1, box=(0, 0, 1, 1))  # type: ignore[arg-type]


def test_an_image_whose_file_is_gone_has_no_parts_and_says_so(own: Collection, own_photos: Path) -> None:
    path = Path(name_of(own_photos, 1))
    path.unlink()
    with pytest.raises(OriginalGoneError):
        own.query(path, box=Box(0, 0, 0.5, 1))


def test_a_vector_of_zeros_finds_itself_first_where_there_is_no_radius(tmp_path: Path) -> None:
    vectors = np.eye(5, 4, dtype=np.float32)
    made = create_collection(vectors, tmp_path / "rsc", names=list("abcde"))
    for k in (1, 3, None):
        rows = made.query("e", k)
        assert (rows["reference_label"][0], rows["distance"][0]) == ("e", 1)
        assert len(set(rows["reference_label"])) == len(rows) == (k or 5)
    assert made.query("e", metric="euclidean")["distance"][0] == 0
    assert len(made.query("e", None, 0.5)) == 0
    assert made.query("e", 1, 1)["reference_label"].tolist() == ["e"]


# What goes wrong.


def test_where_that_is_no_filter_is_named(collection: Collection) -> None:
    with pytest.raises(QueryError, match="'2019'"):
        collection.query(1, where="2019")  # type: ignore[arg-type]


def test_a_mistyped_name_is_not_blamed_on_the_network(tmp_path: Path) -> None:
    made = create_collection(np.eye(3, dtype=np.float32), tmp_path / "rsc", names=["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(ImageError, match=r"d\.jpg cannot be read \(there is no such file\)"):
        made.query("d.jpg")


def test_of_nothing_usable_no_collection_is_made(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(png(pixels(1))[:300])
    with pytest.raises(ImageError, match=r"cut\.png"):
        create_collection(tmp_path / "cut.png", tmp_path / "rsc", backbone="efficientnet_lite0")
    assert not (tmp_path / "rsc").exists()
    (tmp_path / "rsc").mkdir()
    (tmp_path / "rsc" / "notes.txt").write_text("mine")
    with pytest.raises(BatchError, match="None of 2") as raised:
        create_collection(np.full((2, 4), np.nan), tmp_path / "rsc", names=["a", "b"])
    assert [str(error)[:1] for error in raised.value.errors.values()] == ["a", "b"]
    assert [path.name for path in (tmp_path / "rsc").iterdir()] == ["notes.txt"]
    create_collection(np.eye(4), tmp_path / "rsc").close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"k": 0}, "0"),
        ({"k": -3}, "-3"),
        ({"k": 2.5}, "2.5"),
        ({"radius": -0.1}, "-0.1"),
        ({"radius": float("nan")}, "nan"),
        ({"metric": "manhattan"}, "manhattan"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(collection: Collection, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        collection.query(1, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (999, ImageNotFoundError, "999"),
        (True, QueryError, "True"),
        (1.5, QueryError, r"1\.5"),
        (None, QueryError, "None"),
        (np.full(1280, np.nan), QueryError, "nan at place 0"),
        (np.ones(7), QueryError, "7 numbers"),
        (np.ones((4, 4, 3)), QueryError, r"float64 \(4, 4, 3\)"),
        (np.ones((4, 4, 2), np.uint8), QueryError, r"uint8 \(4, 4, 2\)"),
        ("no such file.png", ImageError, "no such file"),
        ("bad\0name", ImageError, "bad"),
        ([[1]], QueryError, r"\[1\]"),
    ],
)
def test_what_is_no_image_is_named(collection: Collection, image: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        collection.query(image)  # type: ignore[arg-type]


def test_the_good_ones_of_a_batch_are_answered_and_each_bad_one_is_named(
    collection: Collection, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(Path(name_of(photos, 0)).read_bytes()[:500])
    cut = str(tmp_path / "cut.png")
    with pytest.raises(BatchError) as raised:
        collection.query([1, cut, 999, pixels(2)], k=1, label=["a", "b", "c", "d"])
    assert raised.value.rows["query_label"].tolist() == ["a", "d"]
    assert raised.value.rows["reference_label"][1] == name_of(photos, 2)
    assert {place: type(error) for place, error in raised.value.errors.items()}.keys() == {1, 2}
    assert str(raised.value).startswith("2 of 4 images cannot be searched with")
    assert cut in str(raised.value)
    assert "999" in str(raised.value)
    vectors = collection._service.ready().snapshot.take(slice(0, 3))
    vectors[1, 5] = np.inf
    with pytest.raises(BatchError, match="inf at place 5") as raised:
        collection.query(vectors, k=1)
    assert raised.value.rows["query_label"].tolist() == [0, 2]
    with pytest.raises(ImageError):
        collection.query([1, cut], together=True)  # half a question would be another one


def test_no_image_at_all_has_no_rows(collection: Collection) -> None:
    assert len(collection.query([])) == 0
    with pytest.raises(QueryError, match="at least one"):
        collection.query([], together=True)


# Making, changing, saving.


def test_a_collection_without_a_folder_lives_until_it_is_closed(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    with create_collection([photos / "even", str(photos / "*" / "1.png")], backbone="efficientnet_lite0") as made:
        assert len(made) == 5
        folder = made.folder
        made.save(tmp_path / "kept")
    assert not folder.exists()
    with open_collection(tmp_path / "kept") as kept:
        assert len(kept.query(name_of(photos, 1), k=None)) == 5


def test_images_are_added_and_removed(own: Collection, own_photos: Path) -> None:
    Image.fromarray(pixels(8)).save(own_photos / "8.png")
    (own_photos / "9.png").write_bytes((own_photos / "8.png").read_bytes()[:700])
    failures = own.add(own_photos)
    assert [failure.path for failure in failures] == [str((own_photos / "9.png").resolve())]
    assert len(own) == 7
    assert own.query(pixels(8), k=1)["distance"][0] == pytest.approx(0, abs=1e-4)
    own.remove([name_of(own_photos, 1), 1])
    assert len(own) == 5
    assert 1 not in own.images()["image_id"]
    with pytest.raises(ImageNotFoundError, match="999"):
        own.remove([2, 999])
    assert len(own) == 5
    own.remove(own.images())
    assert (len(own), len(own.images())) == (0, 0)
    assert own.add(own_photos / "8.png") == []
    assert len(own) == 1


def test_adding_what_is_not_there_is_said(collection: Collection, photos: Path) -> None:
    with pytest.raises(RequestError, match=r"nothing\*"):
        collection.add([photos, photos / "nothing*"])
    with pytest.raises(QueryError, match="id"):
        collection.add(1)
    with pytest.raises(QueryError, match="labelled by its folder"):
        collection.add(photos, labels=["x"])


def test_a_copy_is_whole_and_never_takes_the_place_of_anything(own: Collection, own_photos: Path) -> None:
    target = own_photos.parent / "copies" / "one"
    own.save(target)
    own.remove(1)
    with open_collection(target) as copy:
        assert (len(copy), len(own)) == (6, 5)
        copy.remove(copy.images()[:3])
        assert (len(copy), len(own)) == (3, 5)
    with pytest.raises(ExportError, match="not an empty folder"):
        own.save(target)
    with pytest.raises(ExportError, match="in the collection"):
        own.save(own.folder / "copy")
    assert [path.name for path in target.parent.iterdir()] == ["one"]
    (own_photos.parent / "empty").mkdir()
    own.save(str(own_photos.parent / "empty"))
    assert len(open_collection(own_photos.parent / "empty")) == 5


def test_a_copy_that_fails_leaves_nothing(
    collection: Collection, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("store.copying.sync_folder", fail)
    with pytest.raises(CollectionError, match="No space"):
        collection.save(tmp_path / "copies" / "one")
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_folder_holds_one_collection(collection: Collection, photos: Path) -> None:
    with pytest.raises(CollectionError, match="already"):
        create_collection(str(photos), collection.folder)
    with pytest.raises(CollectionMissingError):
        open_collection(photos)


# Without files.


def test_pictures_held_in_memory_make_a_collection(tmp_path: Path) -> None:
    given: list[Any] = [Image.fromarray(pixels(0)), pixels(1), pixels(2)[:, :, 0]]
    with create_collection(given, labels=["a", "b", "c"], backbone="efficientnet_lite0") as made:
        assert made.images()["name"].tolist() == ["image-1", "image-2", "image-3"]
        assert made.images(Filter(label="b"))["name"].tolist() == ["image-2"]
        assert made.query(pixels(1), k=1)["reference_label"].tolist() == ["image-2"]
        assert made.query("image-2", k=1).tolist() == [("image-2", "image-2", 0.0, 1)]
        made.remove("image-1")
        assert made.add(np.stack([pixels(4), pixels(5)])) == []
        assert made.images()["name"].tolist() == ["image-2", "image-3", "image-4", "image-5"]
        (tmp_path / "cut.png").write_bytes(png(pixels(6))[:500])
        failures = made.add([Image.open(tmp_path / "cut.png"), pixels(6)], names=["cut", "whole"])
        assert [failure.path for failure in failures] == ["cut"]
        assert made.images()["name"].tolist()[-1] == "whole"
        assert made.query(pixels(6), k=1)["reference_label"].tolist() == ["whole"]


def test_vectors_alone_make_a_collection_that_looks_at_no_picture(loaded: list[FakeBackbone]) -> None:
    before = list(loaded)
    vectors = np.random.default_rng(1).normal(size=(6, 5))
    vectors[3, 2] = np.nan
    with create_collection(vectors, names=list("abcdef")) as made:
        assert made.images()["name"].tolist() == list("abcef")
        distances = brute_force(made._service.ready().snapshot, vectors[0], "cosine")
        assert np.sort(distances) == pytest.approx(made.query(vectors[0], None)["distance"], abs=1e-3)
        assert made.query("a", k=1).tolist() == [("a", "a", 0.0, 1)]
        assert made.add(vectors[:2] + 10, names=["g", "h"]) == []
        assert [failure.path for failure in made.add(vectors[3], names=["nan"])] == ["nan"]
        assert len(made) == 7
        with pytest.raises(NoNetworkError, match="elsewhere"):
            made.query(pixels(1))
        with pytest.raises(NoNetworkError, match="elsewhere"):
            made.add(pixels(1))
        with pytest.raises(QueryError, match="4 numbers"):
            made.query(np.ones(4))
        with pytest.raises(LookalikeError, match="4"):
            made.add(np.ones((2, 4)))
    assert loaded == before


@pytest.mark.parametrize(
    ("images", "more", "said"),
    [
        ([], {}, "no image"),
        ([np.ones(3), np.ones(4)], {}, "3 and 4 numbers"),
        ([np.ones(3), pixels(1)], {}, "pictures and vectors"),
        ([np.ones(3)], {"names": ["a", "b"]}, "1 images, but 2 names"),
        ([1], {}, "id"),
    ],
)
def test_what_cannot_make_a_collection_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: list[Any], more: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(QueryError, match=said):
        create_collection(images, **more)
    assert list(tmp_path.iterdir()) == []
