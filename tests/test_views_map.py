"""The map of a collection: kept in its generation, true of what came and went since; and the poster that is drawn of it."""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from config import Settings
from errors import EmptyCollectionError, ExportError, OptionError, ViewMissingError
from map2d import tsne
from publishing import publish, view_of
from store import Batch, Generation, Record, Store, VectorsManifest, open_store, open_writer
from tests.reduced_collection import KEY, add_vectors, collection_at, group_vectors
from views.map import Map, MapOptions, build_map, is_current, open_map
from views.poster import poster_cells, save_poster

GROUPS = 12
COUNT = 96


def generation_of(store: Store) -> Generation:
    """Return the published generation."""
    generation = store.generation()
    assert generation is not None
    return generation


def build(settings: Settings, *layouts: str, seed: int = 0, again: bool = False) -> list[str]:
    """Compute a map of the collection; return the layouts that were computed."""
    with open_writer(settings.rsc_files, command="a test") as writer:
        options = MapOptions(layouts or MapOptions.layouts, seed)
        return build_map(writer, generation_of(writer), options, again=again)[1]


def opened(settings: Settings) -> Map:
    """Open the map of the collection."""
    store = open_store(settings.rsc_files)
    found = open_map(store, generation_of(store))
    store.close()
    return found


def number(settings: Settings) -> int:
    """Return the number of the published generation."""
    store = open_store(settings.rsc_files)
    found = generation_of(store).number
    store.close()
    return found


def change(settings: Settings, batch: Batch) -> None:
    """Commit a batch and publish what comes of it."""
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.commit(KEY, batch)
        publish(writer, KEY, settings)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a collection of 12 groups of 8 images with a map; tests that write take a copy of it."""
    settings = collection_at(tmp_path_factory.mktemp("mapped") / "rsc", COUNT)
    assert build(settings) == ["tsne", "grid", "date"]
    return settings


def copied(settings: Settings, folder: Path) -> Settings:
    """Return a copy of a collection, to be changed."""
    shutil.copytree(settings.rsc_files, folder)
    return replace(settings, rsc_files=folder)


@pytest.fixture
def own(mapped: Settings, tmp_path: Path) -> Settings:
    """Return a copy of the collection with a map, to be changed."""
    return copied(mapped, tmp_path / "rsc")


# Computing.


def test_a_map_has_a_place_for_every_image_in_each_layout(mapped: Settings) -> None:
    found = opened(mapped)
    assert found.ids.tolist() == list(range(1, COUNT + 1))
    assert list(found.layouts) == ["tsne", "grid", "date"]
    for layout in found.layouts.values():
        assert layout.shape == (COUNT, 2)
        assert layout.dtype == np.float32
        assert 0 <= layout.min() <= layout.max() <= 1
    assert not found.placed.any()
    assert (set(found.cell_sizes), found.date_marks) == ({"grid", "date"}, [])
    report = found.view.report
    assert (report["images"], set(report["layouts"])) == (COUNT, {"tsne", "grid", "date"})
    assert report["layouts"]["tsne"]["trustworthiness"] > 0.9


def test_likes_lie_together_in_the_published_map(mapped: Settings) -> None:
    for layout in (opened(mapped).layouts["tsne"], opened(mapped).layouts["grid"]):
        ways = np.linalg.norm(layout[:, None] - layout, axis=2).argsort(axis=1)[:, 1:4]
        kinds = np.arange(COUNT) // (COUNT // GROUPS)
        assert (kinds[ways] == kinds[:, None]).mean() > 0.6


def test_nothing_is_computed_or_published_again_when_nothing_changed(own: Settings) -> None:
    before = number(own)
    assert build(own) == build(own, "grid") == []
    assert number(own) == before


def test_the_same_collection_gives_the_same_bytes_again(own: Settings) -> None:
    before = opened(own).layouts
    assert build(own, again=True) == ["tsne", "grid", "date"]
    for name, layout in opened(own).layouts.items():
        assert layout.tobytes() == before[name].tobytes()


def test_another_seed_is_a_reason_to_compute_another_map(own: Settings) -> None:
    before = opened(own).layouts["tsne"].tobytes()
    assert build(own, seed=1) == ["tsne", "grid", "date"]
    assert opened(own).layouts["tsne"].tobytes() != before


def test_a_layout_joins_those_that_are_there(tmp_path: Path) -> None:
    settings = collection_at(tmp_path / "rsc", 48)
    assert build(settings, "date") == ["date"]
    assert build(settings, "grid") == ["tsne", "grid"]
    assert list(opened(settings).layouts) == ["tsne", "grid", "date"]
    fresh = collection_at(tmp_path / "other", 48)
    build(fresh)
    assert opened(fresh).layouts["grid"].tobytes() == opened(settings).layouts["grid"].tobytes()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_few_images_have_a_map(count: int, tmp_path: Path) -> None:
    settings = collection_at(tmp_path / "rsc", count)
    build(settings)
    found = opened(settings)
    assert all(np.isfinite(layout).all() for layout in found.layouts.values())
    assert len(np.unique(found.layouts["grid"], axis=0)) == count


def test_a_build_that_is_stopped_leaves_the_map_as_it_was(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    before = number(own), opened(own).layouts["tsne"].tobytes(), sorted((own.rsc_files / "index").iterdir())
    monkeypatch.setattr("map2d.tsne", stop)
    with pytest.raises(KeyboardInterrupt):
        build(own, again=True)
    monkeypatch.setattr("map2d.tsne", tsne)
    monkeypatch.setattr("views.map.np.savez", stop)
    with pytest.raises(KeyboardInterrupt):
        build(own, again=True)
    assert (
        number(own),
        opened(own).layouts["tsne"].tobytes(),
        sorted((own.rsc_files / "index").iterdir()),
    ) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MapOptions(("tsne", "sphere")), "no layout 'sphere'. Choose among tsne, umap, grid, date"),
        (MapOptions(()), "no layout ''"),
        (MapOptions(seed=-1), "The seed is -1"),
        (MapOptions(seed=2**32), "from 0 to 4,294,967,295"),
    ],
)
def test_options_that_make_no_sense_are_refused(mapped: Settings, options: MapOptions, message: str) -> None:
    store = open_store(mapped.rsc_files)
    with pytest.raises(OptionError, match=message):
        is_current(store, generation_of(store), options)
    store.close()


def test_a_collection_without_images_or_without_a_map_says_so(own: Settings, tmp_path: Path) -> None:
    plain = collection_at(tmp_path / "plain", 12)
    with pytest.raises(ViewMissingError, match=r"python map2d\.py"):
        opened(plain)
    with open_writer(own.rsc_files, command="a test") as writer:
        writer.remove(range(1, COUNT + 1))
        publish(writer, KEY, own)
    assert [len(layout) for layout in opened(own).layouts.values()] == [0, 0, 0]
    with pytest.raises(EmptyCollectionError, match="no image that could be on a map"):
        build(own)


# What came and went since.


def test_images_that_come_lie_among_their_like_and_nothing_else_moves(own: Settings) -> None:
    before = opened(own)
    add_vectors(own, group_vectors(COUNT, seed=0)[[3, 40, 90]] * 1.01, first=COUNT)
    after = opened(own)
    assert after.ids.tolist() == list(range(1, COUNT + 4))
    assert after.placed.tolist() == [False] * COUNT + [True] * 3
    for name, layout in before.layouts.items():
        assert after.layouts[name][:COUNT].tobytes() == layout.tobytes()
        assert len(np.unique(after.layouts[name], axis=0)) == COUNT + 3 or name == "tsne"
    ways = np.linalg.norm(after.layouts["tsne"][COUNT:, None] - before.layouts["tsne"], axis=2)
    assert (ways.argmin(axis=1) // 8).tolist() == [3 // 8, 40 // 8, 90 // 8]
    assert opened(own).layouts["tsne"].tobytes() == after.layouts["tsne"].tobytes()
    assert build(own) == ["tsne", "grid", "date"]
    assert not opened(own).placed.any()


def test_images_that_went_are_no_longer_on_the_map(own: Settings) -> None:
    before = opened(own)
    with open_writer(own.rsc_files, command="a test") as writer:
        writer.remove([2, 5])
        publish(writer, KEY, own)
    after = opened(own)
    assert {2, 5} & set(after.ids.tolist()) == set()
    kept = np.isin(before.ids, after.ids)
    assert after.layouts["tsne"].tobytes() == before.layouts["tsne"][kept].tobytes()


def test_an_image_with_other_contents_is_placed_anew(own: Settings) -> None:
    vectors = group_vectors(COUNT, seed=0)
    contents = hashlib.sha256(b"other contents").digest()
    batch = Batch([Record(b"image 0", 2, 2, contents, "PNG", 8, 8)], vectors={contents: vectors[-1] * 1.01})
    change(own, batch)
    found = opened(own)
    assert found.placed.tolist() == [True] + [False] * (COUNT - 1)
    ways = np.linalg.norm(found.layouts["tsne"] - found.layouts["tsne"][0], axis=1)
    assert ways[1:].argmin() + 1 >= COUNT - 8


def test_a_map_of_which_no_image_is_left_has_to_be_computed_anew(own: Settings) -> None:
    with open_writer(own.rsc_files, command="a test") as writer:
        writer.remove(range(1, COUNT + 1))
    add_vectors(own, group_vectors(12), first=500)
    with pytest.raises(ViewMissingError, match="None of the collection's images is on its map"):
        opened(own)


def test_a_compacted_file_of_vectors_changes_no_place(own: Settings) -> None:
    with open_writer(own.rsc_files, command="a test") as writer:
        writer.remove([1])
        writer.compact()
        publish(writer, KEY, own)
    assert not opened(own).placed.any()


# By date, and the poster.


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a mapped collection of 24 red and 24 blue images with thumbnails, red ones of May, blue of July."""
    settings, batch = Settings(rsc_files=tmp_path_factory.mktemp("photographs") / "rsc"), Batch()
    red = np.arange(48) < 24
    for number, vector in enumerate(np.where(red[:, None], [[1.0, 0, 0]], [[0, 0, 1.0]])):
        contents = hashlib.sha256(b"%d" % number).digest()
        taken_at = None if number % 8 == 7 else f"2020-0{5 if red[number] else 7}-1{number % 8}T10:00:00"
        batch.records.append(Record(b"picture %d" % number, 1, 1, contents, "JPEG", 8, 8, taken_at=taken_at))
        noise = np.random.default_rng(number).normal(size=3) / 50
        batch.vectors[contents] = (vector + noise).astype(np.float32)
        if number != 47:
            file = io.BytesIO()
            colour = (200, 0, 0) if red[number] else (0, 0, 200)
            Image.new("RGB", (64, 64), colour).save(file, "JPEG", quality=95)
            batch.thumbnails[contents] = file.getvalue()
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "made-up", "none", "0123", 3, "none"))
        writer.commit(KEY, batch)
        publish(writer, KEY, settings)
    build(settings)
    return settings


def test_the_layout_by_date_follows_the_times_taken(photographs: Settings) -> None:
    found = opened(photographs)
    x = found.layouts["date"][:, 0]
    undated = np.arange(48) % 8 == 7
    assert x[:24][~undated[:24]].max() < x[24:][~undated[24:]].min()
    assert x[undated].min() > x[~undated].max()
    labels, places = zip(*found.date_marks, strict=True)
    assert (labels[0], labels[-1], list(places)) == ("2020-05", "2020-07", sorted(places))
    assert x.min() <= places[0] < places[-1] <= x.max()


def test_a_time_that_becomes_known_is_a_reason_to_lay_out_by_date_again(photographs: Settings, tmp_path: Path) -> None:
    contents = hashlib.sha256(b"7").digest()
    record = Record(b"picture 7", 1, 1, contents, "JPEG", 8, 8, taken_at="2020-05-17T10:00:00")
    settings = copied(photographs, tmp_path / "rsc")
    change(settings, Batch([record]))
    assert build(settings, "tsne") == ["date"]


def drawn(settings: Settings, layout: str, path: Path, size: int) -> npt.NDArray[np.uint8]:
    """Draw a poster; return its pixels."""
    store = open_store(settings.rsc_files)
    width, height = save_poster(store, open_map(store, generation_of(store)), layout, path, size=size)
    store.close()
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size, max(image.size) <= size) == ("PNG", (width, height), True)
        return np.asarray(image)


@pytest.mark.parametrize("layout", ["tsne", "grid", "date"])
def test_a_poster_shows_every_thumbnail_and_none_over_another(
    photographs: Settings, layout: str, tmp_path: Path
) -> None:
    pixels = drawn(photographs, layout, tmp_path / "poster.png", 640).astype(int)
    found = opened(photographs)
    cells = poster_cells(found, layout)
    assert len(np.unique(cells, axis=0)) == 48
    side = 640 // int(cells.max() + 1)
    middles = pixels[cells[:, 1] * side + side // 2, cells[:, 0] * side + side // 2]
    expected = np.repeat([[200, 0, 0], [0, 0, 200]], 24, axis=0)
    expected[47] = 60  # the one without a thumbnail
    assert np.abs(middles - expected).max() < 12
    filled = (np.abs(pixels - 20).max(axis=2) > 30)[: (cells[:, 1].max() + 1) * side].sum()
    assert filled == pytest.approx(48 * (side - max(1, side // 32)) ** 2, rel=0.03)


def test_a_poster_has_pictures_where_the_map_has_them(photographs: Settings) -> None:
    found = opened(photographs)
    cells = poster_cells(found, "tsne")
    for axis in (0, 1):
        assert np.corrcoef(cells[:, axis], found.layouts["tsne"][:, axis])[0, 1] > 0.85


@pytest.mark.parametrize(
    ("layout", "size", "message"),
    [("umap", 640, "no layout 'umap', it has: tsne, grid, date"), ("tsne", 20, "not 20"), ("tsne", 90_000, "60,000")],
)
def test_a_poster_that_cannot_be_is_refused(
    photographs: Settings, layout: str, size: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        drawn(photographs, layout, tmp_path / "poster.png", size)
    with pytest.raises(ExportError, match="cannot be written"):
        drawn(photographs, "tsne", tmp_path / "missing" / "poster.png", 640)
    assert list(tmp_path.glob("*.png")) == []


def test_a_map_in_a_generation_lists_its_files(mapped: Settings) -> None:
    store = open_store(mapped.rsc_files)
    generation = generation_of(store)
    view = view_of(generation, "map")
    assert view is not None
    assert "map.npz" in view.files
    assert all((generation.folder / file).exists() and file.startswith("map") for file in view.files)
    assert view.options == {"layouts": ["tsne", "grid", "date"], "seed": 0}
    store.close()
