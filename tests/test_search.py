"""What a search can ask and what it is answered, over drawings whose vectors can be foretold."""

from __future__ import annotations

import io
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ann import Index
from app import create_app
from config import Settings
from errors import (
    CollectionMismatchError,
    ImageNotFoundError,
    LookalikeError,
    NoNetworkError,
    NoOriginalError,
    NotAnImageError,
    OriginalGoneError,
    QueryError,
)
from images import find_images
from img2vec import Job, index_images
from publishing import publish
from search import Box, Example, Filter, Query, SearchResult, SearchService, open_service
from search.queries import combined
from store import Batch, Record, Store, VectorsManifest, open_store, open_writer
from tests import fake_backbone
from tests.fake_backbone import FakeBackbone
from vectors import Ids, unit_vectors

COLOURS = ("red", "green", "blue", "yellow", "white", "black")


def drawing(left: str, right: str) -> Image.Image:
    image = Image.new("RGB", (224, 224), left)
    image.paste(right, (112, 0, 224, 224))
    return image


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def loaded() -> Iterator[list[FakeBackbone]]:
    with pytest.MonkeyPatch.context() as patch:
        yield fake_backbone.install(patch)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, loaded: list[FakeBackbone]) -> Path:
    """36 drawings, `<left>/<right>.png` in all pairs of the colours, with ids in the order of their paths."""
    folder = tmp_path_factory.mktemp("drawings")
    for left in COLOURS:
        (folder / left).mkdir()
        for right in COLOURS:
            drawing(left, right).save(folder / left / f"{right}.png")
    settings = Settings(rsc_files=folder / "rsc", backbone="efficientnet_lite0", threads=1)
    index_images(Job(settings, find_images([str(folder / "*" / "*.png")]).paths))
    return folder / "rsc"


@pytest.fixture(scope="module")
def service(collection: Path) -> Iterator[SearchService]:
    service = open_service(Settings(rsc_files=collection))
    yield service
    service.close()


@pytest.fixture(scope="module")
def id_of(collection: Path) -> Callable[[str], int]:
    store = open_store(collection)
    ids = {"/".join(Path(record.path.decode()).parts[-2:]): record.image_id for record in store.all_records()}
    store.close()
    return lambda name: ids[f"{name}.png"]


def names(result: SearchResult) -> list[str]:
    return [f"{match.image.folder}/{match.image.name.removesuffix('.png')}" for match in result.matches]


def like(*sources: Any, k: int | None = 5, **options: Any) -> Query:
    return Query(tuple(Example(source) for source in sources), k=k, **options)


# What can be asked.


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: like(1, k=0), "0"),
        (lambda: like(1, k=-5), "-5"),
        (lambda: like(1, radius=-0.5), "-0.5"),
        (lambda: like(1, radius=math.nan), "nan"),
        (lambda: like(1, metric="manhattan"), "'manhattan'"),
        (lambda: like(1, ranking="best"), "'best'"),
        (lambda: like(), "nothing to be like"),
        (lambda: Box(0, 0, 1.5, 1), "1.5"),
        (lambda: Box(-0.1, 0, 1, 1), "-0.1"),
        (lambda: Box(0.5, 0, 0.5, 1), "0.5"),
        (lambda: Box(0, 0.9, 1, 0.1), "0.9"),
        (lambda: Box(0, 0, math.nan, 1), "nan"),
        (lambda: Example(np.array([1.0, math.nan])), "nan at place 1"),
        (lambda: Example(np.array([math.inf, 1.0])), "inf at place 0"),
        (lambda: Example(np.ones((2, 3))), r"\(2, 3\)"),
        (lambda: Example(np.array(["a"])), "<U1"),
        (lambda: Example(np.ones(3), Box(0, 0, 1, 1)), "no parts"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(make: Callable[[], object], named: str) -> None:
    with pytest.raises(QueryError, match=named):
        make()


def test_a_box_cuts_its_part_and_never_less_than_a_pixel() -> None:
    picture = drawing("red", "blue")
    assert Box(0.5, 0.25, 1, 0.75).cut(picture).size == (112, 112)
    assert set(Box(0.5, 0, 1, 1).cut(picture).get_flattened_data()) == {(0, 0, 255)}
    assert Box(0.9999, 0.9999, 1, 1).cut(picture).size == (1, 1)


def test_one_example_is_asked_for_as_it_is_and_several_by_the_mean_of_their_directions() -> None:
    none = np.empty((0, 2), np.float32)
    one = np.array([[3, 4]], np.float32)
    assert combined(one, none) is one
    both = combined(np.array([[10, 0], [0, 2]], np.float32), none)
    assert both[0, 0] == pytest.approx(both[0, 1])
    assert np.linalg.norm(both) == pytest.approx(6)  # as long as the two are on average


def test_what_shall_be_unlike_pushes_away() -> None:
    likes, unlikes = np.array([[1, 0, 0], [1, 1, 0]], np.float32), np.array([[0, 1, 0]], np.float32)
    before, after = combined(likes, unlikes[:0]), combined(likes, unlikes)
    assert after[0, 1] / after[0, 0] < before[0, 1] / before[0, 0]
    assert after[0, 0] > 0


# Examples of every kind.


def test_an_upload_finds_the_same_drawing_first(service: SearchService) -> None:
    found = service.search(like(png(drawing("red", "blue"))))
    assert names(found)[0] == "red/blue"
    assert found.matches[0].similarity == pytest.approx(1, abs=1e-3)
    assert (found.query_width, found.query_height) == (224, 224)
    assert found.query_thumbnail is not None


def test_indexed_images_are_left_out_of_their_own_results(service: SearchService, id_of: Callable[[str], int]) -> None:
    own = {"red/blue", "red/black", "white/white"}
    single = names(service.search(like(id_of("red/blue"), k=35)))
    assert len(single) == 35
    assert "red/blue" not in single
    query = Query((Example(id_of("red/blue")), Example(id_of("red/black"))), (Example(id_of("white/white")),), k=None)
    several = names(service.search(query))
    assert len(several) == 33
    assert not own & set(several)


def test_two_examples_find_what_is_like_both(service: SearchService, id_of: Callable[[str], int]) -> None:
    found = service.search(like(id_of("red/red"), png(drawing("blue", "blue")), k=None, ranking="plain"))
    loaded = service.ready()
    units = unit_vectors(loaded.snapshot.take(slice(None)))
    places = [loaded.snapshot.position(id_of(name)) for name in ("red/red", "blue/blue")]
    cosines = units @ unit_vectors(units[places].mean(axis=0, keepdims=True))[0]
    for match in found.matches:
        expected = cosines[loaded.snapshot.position(match.image.image_id)]
        assert match.similarity == pytest.approx(float(expected), abs=1e-3)
    assert [match.distance for match in found.matches] == sorted(match.distance for match in found.matches)


def test_an_example_to_be_unlike_changes_what_comes_first(service: SearchService, id_of: Callable[[str], int]) -> None:
    likes = (Example(id_of("red/white")),)
    before = names(service.search(Query(likes, k=35)))
    after = names(service.search(Query(likes, (Example(png(drawing("white", "white"))),), k=35)))
    assert after.index("white/white") > before.index("white/white")


def test_a_vector_finds_its_image(service: SearchService, collection: Path, id_of: Callable[[str], int]) -> None:
    loaded = service.ready()
    vector = loaded.snapshot.take(np.array([loaded.snapshot.position(id_of("blue/red"))]))[0]
    found = service.search(like(vector.astype(np.float64)))
    assert names(found)[0] == "blue/red"
    assert (found.query_width, found.query_thumbnail) == (None, None)
    with pytest.raises(QueryError, match=r"3 numbers.*1,280"):
        service.search(like(np.ones(3)))


def test_a_part_of_an_upload_is_searched(service: SearchService) -> None:
    left = Example(png(drawing("red", "blue")), Box(0, 0, 0.5, 1))
    assert names(service.search(Query((left,), k=1))) == ["red/red"]


def test_a_part_of_an_indexed_image_is_cut_from_its_file(
    collection: Path, tmp_path: Path, loaded: list[FakeBackbone], id_of: Callable[[str], int]
) -> None:
    service = open_service(Settings(rsc_files=collection))
    example = Example(id_of("red/blue"), Box(0.5, 0, 1, 1))
    assert names(service.search(Query((example,), k=1))) == ["blue/blue"]
    path = collection.parent / "red" / "blue.png"
    kept = shutil.copy2(path, tmp_path / "kept.png")
    path.unlink()
    try:
        with pytest.raises(OriginalGoneError, match="not where it was indexed"):
            service.search(Query((example,), k=1))
        assert service.search(like(id_of("red/blue"))).matches  # the whole image needs no file
    finally:
        shutil.copy2(kept, path)
    service.close()


# How many, how far, which.


def test_a_radius_bounds_what_is_answered_and_all_is_all(service: SearchService, id_of: Callable[[str], int]) -> None:
    everything = service.search(like(id_of("red/blue"), k=None, ranking="plain"))
    assert len(everything.matches) == 35
    distances = [match.distance for match in everything.matches]
    assert distances == sorted(distances)
    radius = distances[6]
    within = service.search(like(id_of("red/blue"), k=None, radius=radius))
    assert [match.distance for match in within.matches] == [d for d in distances if d <= radius]
    assert len(service.search(like(id_of("red/blue"), k=3, radius=radius)).matches) == 3


def test_euclidean_distances_are_of_the_stored_vectors_and_cosines_stay_beside(
    service: SearchService, id_of: Callable[[str], int]
) -> None:
    found = service.search(like(id_of("red/blue"), metric="euclidean", k=None))
    loaded = service.ready()
    own = loaded.snapshot.take(np.array([loaded.snapshot.position(id_of("red/blue"))]))[0]
    for match in found.matches:
        other = loaded.snapshot.take(np.array([loaded.snapshot.position(match.image.image_id)]))[0]
        assert match.distance == pytest.approx(float(np.linalg.norm(own - other)), rel=1e-5)
        cosine = float(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
        assert match.similarity == pytest.approx(cosine, abs=1e-5)
    assert [match.distance for match in found.matches] == sorted(match.distance for match in found.matches)


def test_a_filter_is_met_by_as_many_as_are_wanted(service: SearchService, id_of: Callable[[str], int]) -> None:
    found = service.search(like(png(drawing("red", "red")), k=6, where=Filter(folder="black")))
    assert sorted(names(found)) == sorted(f"black/{right}" for right in COLOURS)
    labelled = service.search(like(id_of("red/red"), k=3, where=Filter(label="white")))
    assert [match.image.label for match in labelled.matches] == ["white"] * 3
    assert service.search(like(id_of("red/red"), where=Filter(folder="nowhere"))).matches == []


def test_a_filter_by_what_the_network_saw_takes_whole_words_of_the_name(
    service: SearchService, id_of: Callable[[str], int]
) -> None:
    seen = service.image(id_of("red/blue")).predicted_labels[0][0]
    word = seen.split()[-1]
    found = service.search(like(png(drawing("red", "blue")), k=None, where=Filter(looks_like=word.upper())))
    assert "red/blue" in names(found)
    assert 1 <= len(found.matches) < 36
    for match in found.matches:
        assert any(word.lower() in name.lower() for name, _ in match.image.predicted_labels)
    asked = like(id_of("red/red"), k=None, where=Filter(looks_like=word[1:-1]))
    assert "red/blue" not in names(service.search(asked))


def test_a_filter_for_cats_keeps_no_catamarans(service: SearchService, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def matching_ids(self: Store, where: Filter, *, key: str, classes: Callable[[str], list[int]]) -> Ids:
        asked.append(classes(str(where.looks_like)))
        return np.empty(0, np.int64)

    loaded = service.ready()
    monkeypatch.setattr("networks.class_names", lambda: ("tabby, tabby cat", "catamaran", "Cat", "cat's-ear"))
    monkeypatch.setattr(Store, "matching_ids", matching_ids)
    for words in ("cat", "tabby CAT", "catamaran", "ca"):
        service.matching(loaded, Filter(looks_like=words))
    assert asked == [[0, 2, 3], [0], [1], []]


def test_a_filter_that_keeps_one_percent_of_100_000_still_finds_k(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    count, dim, kept = 100_000, 16, 1_000
    vectors = random.standard_normal((count, dim), dtype=np.float32)
    manifest = VectorsManifest("imported-test-0", "imported", "test", "0" * 64, dim, "")
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(manifest)
        hashes = [number.to_bytes(32, "big") for number in range(count)]
        records = [
            Record(b"%d" % number, 0, 0, sha256=sha256, label="rare" if number % (count // kept) == 0 else "common")
            for number, sha256 in enumerate(hashes)
        ]
        writer.commit(manifest.key, Batch(records, vectors=dict(zip(hashes, vectors, strict=True))))
        stopped = threading.Event()
        stopped.set()  # no averages are made, which for so many takes a while
        publish(writer, manifest.key, Settings(rsc_files=tmp_path, index="exact"), stop=stopped)
    service = open_service(Settings(rsc_files=tmp_path))
    loaded = service.ready()
    rare = loaded.store.matching_ids(Filter(label="rare"), key=manifest.key)
    assert len(rare) == kept
    query = random.standard_normal(dim)
    found = service.search(like(query, k=25, where=Filter(label="rare")))
    # Brute force over those that the filter keeps.
    own = loaded.snapshot.take(np.searchsorted(loaded.snapshot.ids, rare)).astype(np.float64)
    cosines = own @ query / np.linalg.norm(own, axis=1) / np.linalg.norm(query)
    assert [match.image.image_id for match in found.matches] == rare[np.argsort(-cosines)[:25]].tolist()
    service.close()


# In which order, and how good.


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchService]:
    """120 vectors in four labelled groups, which are blurred: enough for averages, and for a calibration."""
    folder = tmp_path_factory.mktemp("kinds")
    manifest = VectorsManifest("imported-kinds-0", "imported", "kinds", "0" * 64, 32, "")
    random = np.random.default_rng(5)
    centres = random.standard_normal((4, 32))
    with open_writer(folder, command="test") as writer:
        writer.begin_vectors(manifest)
        hashes = [number.to_bytes(32, "big") for number in range(120)]
        records = [
            Record(b"%d" % number, 0, 0, sha256=sha256, label=f"group {number % 4}")
            for number, sha256 in enumerate(hashes)
        ]
        vectors = {
            sha256: (centres[number % 4] + random.standard_normal(32)).astype(np.float32)
            for number, sha256 in enumerate(hashes)
        }
        writer.commit(manifest.key, Batch(records, vectors=vectors))
        publish(writer, manifest.key, Settings(rsc_files=folder))
    service = open_service(Settings(rsc_files=folder))
    yield service
    service.close()


def found_ids(result: SearchResult) -> list[int]:
    return [match.image.image_id for match in result.matches]


def test_the_order_by_kind_begins_with_the_plain_one_and_brings_the_group_together(kinds: SearchService) -> None:
    assert kinds.rankings == kinds.status().rankings == ("kind", "plain")
    right = {"kind": 0, "plain": 0}
    for image_id in range(1, 41):
        own = kinds.image(image_id).label
        by_kind = kinds.search(like(image_id, k=29))
        plain = kinds.search(like(image_id, k=29, ranking="plain"))
        assert (by_kind.ranking, plain.ranking) == ("kind", "plain")
        assert found_ids(by_kind)[:3] == found_ids(plain)[:3]
        assert image_id not in found_ids(by_kind)
        for result in (by_kind, plain):
            assert len(set(found_ids(result))) == 29
            right[result.ranking] += sum(match.image.label == own for match in result.matches)
        distances = {match.image.image_id: match.distance for match in plain.matches}
        for match in by_kind.matches:
            assert match.distance == pytest.approx(1 - match.similarity, abs=2e-6)
            assert distances.get(match.image.image_id, match.distance) == match.distance
    assert right["kind"] > right["plain"]


def test_a_match_says_how_many_random_pairs_are_less_alike_and_a_stranger_has_no_good_match(
    kinds: SearchService,
) -> None:
    found = kinds.search(like(1, k=29))
    shares = {match.similarity: match.closer_than for match in found.matches}
    assert all(share is not None and 0 <= share < 1 for share in shares.values())
    assert [shares[similarity] for similarity in sorted(shares)] == sorted(share or 0 for share in shares.values())
    assert (shares[max(shares)] or 0) > 0.9
    assert found.good_matches is not None
    assert found.good_matches >= 1
    # Behind a changed copy the curve bends: there the same picture ends, and its kind does not.
    changed = kinds.ready().snapshot.take(slice(0, 1))[0]
    changed += np.random.default_rng(1).standard_normal(len(changed)).astype(np.float32) / 3
    assert kinds.search(like(changed, k=20, ranking="plain")).good_matches == 1
    assert (kinds.search(like(changed, k=20, ranking="kind")).good_matches or 0) > 1
    # Away from everything: nothing is near.
    loaded = kinds.ready()
    mean = unit_vectors(loaded.snapshot.take(slice(None))).mean(axis=0)
    assert kinds.search(like(-mean, k=10)).good_matches == 0


@pytest.mark.parametrize("options", [{}, {"ranking": "plain"}, {"metric": "euclidean"}, {"radius": 1.0}])
def test_pages_are_parts_of_one_answer(kinds: SearchService, options: dict[str, Any]) -> None:
    whole = kinds.search(like(1, k=None, **options))
    assert not whole.more
    pages = [kinds.search(like(1, k=10, skip=skip, **options)) for skip in range(0, len(whole.matches), 10)]
    assert [match for page in pages for match in page.matches] == whole.matches
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
    assert kinds.search(like(1, k=10, skip=1_000, **options)).matches == []


@pytest.mark.parametrize("ranking", ["plain", "kind"])
def test_behind_the_page_on_which_the_good_matches_end_only_such_as_they_are_good(
    kinds: SearchService, ranking: str
) -> None:
    pages = [kinds.search(like(1, k=10, skip=skip, ranking=ranking)) for skip in range(0, 110, 10)]
    good = [page.good_matches or 0 for page in pages]
    assert good[0] == kinds.search(like(1, k=10, ranking=ranking)).good_matches
    assert good[-1] == 0
    if ranking == "plain":
        ends = next(number for number, count in enumerate(good) if count < 10)
        assert good == [10] * ends + [good[ends]] + [0] * (len(good) - ends - 1)


def test_images_are_listed_by_words_and_filters_alone(kinds: SearchService) -> None:
    assert kinds.listed().tolist() == kinds.ready().snapshot.ids.tolist()
    ids = kinds.listed(Filter(text="group 3"))
    assert set(kinds.listed(Filter(label="group 3")).tolist()) <= set(ids.tolist())
    assert all("3" in info.name or info.label == "group 3" for info in kinds.images(ids.tolist()).values())


def test_labels_are_offered_by_name_and_only_the_most_frequent(
    kinds: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kinds.labels() == ["group 0", "group 1", "group 2", "group 3"]
    kinds.ready().opened.clear()
    monkeypatch.setattr("search.service.MOST_LABELS", 2)
    assert len(kinds.labels()) == 2
    kinds.ready().opened.clear()


def test_with_a_radius_or_euclidean_distance_the_order_is_by_distance(kinds: SearchService) -> None:
    for options in ({"radius": 1.5}, {"metric": "euclidean"}):
        found = kinds.search(like(1, k=None, ranking="kind", **options))
        assert found.ranking == "plain"
        assert [match.distance for match in found.matches] == sorted(match.distance for match in found.matches)


def test_the_order_by_kind_keeps_to_a_filter_and_leaves_every_example_out(kinds: SearchService) -> None:
    query = Query((Example(1), Example(5)), (Example(2),), k=None, where=Filter(label="group 0"))
    found = kinds.search(query)
    assert found.ranking == "kind"
    assert {match.image.label for match in found.matches} == {"group 0"}
    assert len(found.matches) == 28
    assert not {1, 2, 5} & set(found_ids(found))


def test_a_collection_of_an_older_version_is_searched_in_plain_order_and_without_shares(
    tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    shutil.copytree(Path(__file__).parent / "golden" / "format-1", tmp_path / "rsc")
    service = open_service(Settings(rsc_files=tmp_path / "rsc"))
    found = service.search(like(1, ranking="kind"))
    assert (found.ranking, service.rankings, found.good_matches) == ("plain", ("plain",), None)
    assert [match.closer_than for match in found.matches] == [None] * 3
    service.close()


# Many at once.


def test_the_good_ones_of_many_are_answered_beside_the_errors_of_the_others(
    service: SearchService, id_of: Callable[[str], int]
) -> None:
    queries = [
        like(id_of("red/red")),
        like(9999),
        like(b"no picture"),
        like(np.ones(2)),
        like(png(drawing("red", "red"))),
    ]
    answers = service.search_many(queries)
    kinds = [answer if isinstance(answer, LookalikeError) else None for answer in answers]
    assert [type(kind) for kind in kinds] == [type(None), ImageNotFoundError, NotAnImageError, QueryError, type(None)]
    last = answers[-1]
    assert isinstance(last, SearchResult)
    assert names(last)[0] == "red/red"


# Vectors from elsewhere.


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """Three vectors with names, no picture, and one thumbnail; no network made them."""
    manifest = VectorsManifest("imported-test-0", "imported", "test", "0" * 64, 2, "")
    thumbnail = io.BytesIO()
    drawing("red", "blue").save(thumbnail, "JPEG")
    with open_writer(tmp_path / "rsc", command="test") as writer:
        writer.begin_vectors(manifest)
        hashes = [bytes([number]) * 32 for number in range(3)]
        records = [
            Record(name, 0, 0, sha256=sha256)
            for name, sha256 in zip((b"daisy/1.jpg", b"daisy/2.jpg", b"rose/<3>.jpg"), hashes, strict=True)
        ]
        vectors: list[npt.NDArray[np.float32]] = [np.array(v, np.float32) for v in ([1, 0], [1, 0.1], [0, 1])]
        batch = Batch(
            records, vectors=dict(zip(hashes, vectors, strict=True)), thumbnails={hashes[0]: thumbnail.getvalue()}
        )
        writer.commit(manifest.key, batch)
        publish(writer, manifest.key, Settings(rsc_files=tmp_path / "rsc"))
    return tmp_path / "rsc"


def test_imported_vectors_are_searched_by_image_and_vector_but_not_by_picture(imported: Path) -> None:
    service = open_service(Settings(rsc_files=imported))
    assert [match.image.name for match in service.search(like(1)).matches] == ["2.jpg", "<3>.jpg"]
    assert service.search(like(np.array([0, 2]))).matches[0].image.name == "<3>.jpg"
    for example in (Example(png(drawing("red", "red"))), Example(b"no picture")):
        with pytest.raises(NoNetworkError, match="came from elsewhere"):
            service.search(Query((example,), k=1))
    with pytest.raises(NoOriginalError, match="without a file"):
        service.search(Query((Example(1, Box(0, 0, 1, 0.5)),), k=1))
    assert service.status().engine is None
    service.close()


def test_a_network_asked_for_by_name_is_refused_over_imported_vectors(imported: Path) -> None:
    with pytest.raises(CollectionMismatchError, match="imported"):
        open_service(Settings(rsc_files=imported, backbone="efficientnet_lite0"))


def test_pages_of_imported_vectors_hide_the_form_and_show_names(imported: Path) -> None:
    client = create_app(Settings(rsc_files=imported)).test_client()
    start = client.get("/").text
    assert 'type="file"' not in start
    assert "came from elsewhere" in start
    page = client.get("/images/1").text
    assert "1.jpg" in page
    assert "&lt;3&gt;.jpg" in page
    assert "/images/1/view" not in page
    assert "/images/1/original" not in page
    answer = client.get("/api/v1/images/1").get_json()
    assert (answer["width"], answer["view_url"], answer["original_url"]) == (None, None, None)
    assert client.get("/images/1/thumbnail").mimetype == "image/jpeg"
    assert client.get("/images/2/thumbnail").mimetype == "image/svg+xml"
    for kind in ("view", "original"):
        assert client.get(f"/images/1/{kind}").status_code == 404
    refused = client.post("/api/v1/search", data={"file": (io.BytesIO(png(drawing("red", "red"))), "x.png")})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (409, "no_network")
    assert "came from elsewhere" in refused.get_json()["error"]["message"]
    refused = client.post("/search", data={"file": (io.BytesIO(png(drawing("red", "red"))), "x.png")})
    assert refused.status_code == 409
    assert 'type="file"' not in refused.text


def test_the_network_is_loaded_at_once_unless_told_to_wait(collection: Path, loaded: list[FakeBackbone]) -> None:
    before = len(loaded)
    waiting = SearchService(Settings(rsc_files=collection), load_network=False)
    assert len(waiting.search(like(1)).matches) == 5
    assert len(loaded) == before
    waiting.search(like(png(drawing("red", "red"))))
    assert len(loaded) == before + 1
    waiting.close()
    open_service(Settings(rsc_files=collection)).close()
    assert len(loaded) == before + 2


def test_what_is_answered_is_what_the_index_answers(service: SearchService, id_of: Callable[[str], int]) -> None:
    loaded = service.ready()
    place = loaded.snapshot.position(id_of("green/white"))
    exact = Index(loaded.snapshot).query(loaded.snapshot.take(np.array([place])), 8).without(np.array([place + 1]), 7)
    found = service.search(like(id_of("green/white"), k=7, ranking="plain"))
    assert [match.image.image_id for match in found.matches] == exact.ids[0].tolist()
