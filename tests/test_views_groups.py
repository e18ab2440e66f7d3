"""Groups are built once, cut at any sim, kept in the generation, and names find their groups again."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import views.grouping
from config import Settings
from errors import DamagedCollectionError, EmptyCollectionError, ImageNotFoundError, OptionError, ViewMissingError
from publishing import publish
from store import Batch, Generation, Record, Store, name_group, named_groups, open_store, open_writer
from tests.grouped_collection import MANIFEST, SIM, add_images, make_collection
from views.grouping import Built, GroupOptions, build_groups, times_of
from views.groups import Groups, open_groups

OPTIONS = GroupOptions(sim=SIM)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a published collection of 8 red, 12 white and 16 black images."""
    return make_collection(tmp_path)


def current(store: Store) -> Generation:
    generation = store.generation()
    assert generation is not None
    return generation


def build(settings: Settings, options: GroupOptions = OPTIONS) -> Built:
    with open_writer(settings.rsc_files, command="a test") as writer:
        return build_groups(writer, current(writer), options)


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Groups]:
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        generation = store.generation()
        assert generation is not None
        yield open_groups(store, generation)


def names(settings: Settings, sim: float | None = None) -> dict[str, int]:
    """Return the names of groups and how many images each has."""
    with opened(settings) as groups:
        return {group.name: group.size for group in groups.at(sim) if group.name is not None}


def name_kind(settings: Settings, kind: str) -> None:
    """Name the group of a kind after it."""
    with opened(settings) as groups:
        (found,) = [group for group in groups.at() if group.labels == [(kind, 1.0)]]
    name_group(settings.rsc_files, f"My {kind}", found.image_ids.tolist())


def test_kinds_are_groups_with_their_labels_and_times(settings: Settings) -> None:
    report = build(settings).view.report
    assert (report["groups"], report["grouped"], report["alone"]) == (3, 36, 0)
    assert report["sizes"] == {"8": 1, "12": 1, "16": 1}
    with opened(settings) as groups:
        shown = groups.at()
        assert [(group.size, group.labels) for group in shown] == [
            (16, [("black", 1.0)]),
            (12, [("white", 1.0)]),
            (8, [("red", 1.0)]),
        ]
        assert (shown[1].taken_from, shown[1].taken_until) == ("2015-08-01T12:00:00", "2015-08-12T12:00:00")
        assert (shown[0].taken_from, shown[0].taken_until) == (None, None)
        assert [group.labels[0][0] for group in groups.at(order="time")] == ["red", "white", "black"]
        assert [len(ids) for ids in shown.members()] == [16, 12, 8]


def test_the_most_central_image_comes_first(settings: Settings) -> None:
    build(settings, replace(OPTIONS, raw=True))
    with opened(settings) as groups, contextlib.closing(open_store(settings.rsc_files)) as store:
        snapshot = store.snapshot(MANIFEST.key)
        stored = np.load(current(store).folder / "groups-vectors.npy").astype(np.float32)
        for group in groups.at():
            mine = stored[np.searchsorted(snapshot.ids, group.image_ids)]
            away = ((mine - mine.mean(axis=0)) ** 2).sum(axis=1)
            assert (np.diff(away) >= -1e-6).all()
            assert group.central_id == group.image_ids[0]


def test_another_sim_cuts_the_tree_that_is_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(settings)
    monkeypatch.setattr(views.grouping, "build_tree", None)
    again = build(settings)
    other = build(settings, GroupOptions(sim=0.0))
    assert (first.tree_kept, first.published) == (False, True)
    assert (again.tree_kept, again.published) == (True, False)
    assert (other.tree_kept, other.published, other.view.report["groups"]) == (True, True, 1)
    assert (build(settings, GroupOptions(sim=1.0)).view.report["alone"]) == 36
    proposed = build(settings, GroupOptions())
    assert proposed.view.report["sim"] == first.view.report["proposed_sim"]


@pytest.mark.parametrize(
    "change",
    [{"method": "ward"}, {"metric": "cosine"}, {"components": 3}, {"raw": True}, {"times": "auto"}],
    ids=lambda change: next(iter(change)),
)
def test_other_options_make_the_tree_anew(settings: Settings, change: dict[str, object]) -> None:
    build(settings)
    assert not build(settings, replace(OPTIONS, **change)).tree_kept  # type: ignore[arg-type]
    assert build(settings, replace(OPTIONS, **change)).tree_kept  # type: ignore[arg-type]


def test_other_times_and_other_vectors_make_the_tree_anew(settings: Settings) -> None:
    timed = replace(OPTIONS, times="stat")
    build(settings, timed)
    assert build(settings, timed).tree_kept
    with open_writer(settings.rsc_files, command="a test") as writer:
        first = next(iter(writer.all_records()))
        later = replace(first, mtime_ns=first.mtime_ns + 10**12)
        writer.commit(MANIFEST.key, Batch(moved=[(first.image_id, later)]))
    assert not build(settings, timed).tree_kept
    build(settings)
    with open_writer(settings.rsc_files, command="a test") as writer:
        changed = replace(first, sha256=b"x" * 32)
        vector = np.ones(MANIFEST.dim, dtype=np.float32)
        writer.commit(MANIFEST.key, Batch(records=[changed], vectors={b"x" * 32: vector}))
        publish(writer, MANIFEST.key, settings)
        assert writer.snapshot(MANIFEST.key).ids[0] == first.image_id
    assert not build(settings).tree_kept


def test_the_weight_of_time_concerns_a_tree_with_times_alone(settings: Settings) -> None:
    build(settings)
    assert build(settings, replace(OPTIONS, alpha=0.7)).tree_kept
    build(settings, replace(OPTIONS, times="exif"))
    assert not build(settings, replace(OPTIONS, times="exif", alpha=0.7)).tree_kept


def test_new_images_are_counted_until_groups_are_made_anew(settings: Settings) -> None:
    build(settings)
    add_images(settings, {"red": 3}, first=8)
    with opened(settings) as groups:
        assert (groups.new, len(groups.ids), len(groups.at())) == (3, 36, 3)
        newest = max(groups.ids) + 1
        with pytest.raises(ViewMissingError, match=r"python clusters\.py"):
            groups.group_of(int(newest))
        with pytest.raises(ImageNotFoundError):
            groups.group_of(999)
    built = build(settings)
    assert (built.tree_kept, built.view.report["sizes"]) == (False, {"11": 1, "12": 1, "16": 1})


def test_images_that_left_are_in_no_group(settings: Settings) -> None:
    build(settings)
    with open_writer(settings.rsc_files, command="a test") as writer:
        black = [record.image_id for record in writer.all_records() if record.label == "black"]
        writer.remove(black[:10])
        publish(writer, MANIFEST.key, settings)
    with opened(settings) as groups:
        assert [(group.size, group.labels[0][0]) for group in groups.at()] == [(12, "white"), (8, "red"), (6, "black")]
        assert groups.labels_of(np.array([black[0], black[10]])).tolist() == [-1, 2]
        assert not np.isin(black[:10], groups.at()[2].image_ids).any()
        assert groups.group_of(black[10]).size == 6


def test_a_name_survives_new_images_again_and_again(settings: Settings) -> None:
    build(settings)
    name_kind(settings, "red")
    for first, count in ((8, 8), (16, 16), (32, 32)):
        add_images(settings, {"red": count}, first=first)
        assert names(settings) == {"My red": first}  # before groups are made anew, too
        build(settings)
        assert names(settings) == {"My red": first + count}


def test_a_name_survives_a_deleted_index(settings: Settings) -> None:
    build(settings)
    name_kind(settings, "white")
    shutil.rmtree(settings.rsc_files / "index")
    add_images(settings, {"white": 30, "green": 30}, first=12)
    build(settings)
    assert names(settings) == {"My white": 42}


def test_a_name_stays_with_its_images_where_a_cut_puts_them_elsewhere(settings: Settings) -> None:
    build(settings)
    name_kind(settings, "red")
    assert names(settings, 0.4) == names(settings) == {"My red": 8}
    assert names(settings, 0.0) == {}  # 8 of 36 are too few to give all of them their name
    assert names(settings, 1.0) == {}
    build(settings, GroupOptions(sim=0.0))
    assert names(settings, SIM) == {"My red": 8}
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        assert [len(group.image_ids) for group in named_groups(store)] == [8]


def test_images_go_by_how_near_the_middle_they_are_and_other_groups_by_how_alike(settings: Settings) -> None:
    build(settings)
    with opened(settings) as groups:
        black, white, red = groups.at()
        ids = groups.ids
    vectors = np.random.default_rng(1).normal(0, 0.05, size=(36, 2)).astype(np.float16)
    for group, middle in ((black, (1, 0)), (white, (0, 1)), (red, (0.8, 0.6))):
        vectors[np.isin(ids, group.image_ids)] += np.array(middle, dtype=np.float16)
    with contextlib.closing(open_store(settings.rsc_files)) as store:
        np.save(current(store).folder / "groups-vectors.npy", vectors)
    with opened(settings) as groups:
        for group in groups.at():
            mine = vectors[np.searchsorted(ids, group.image_ids)].astype(np.float64)
            assert (np.diff(((mine - mine.mean(axis=0)) ** 2).sum(axis=1)) > -1e-6).all()
        assert [group.size for group in groups.nearest_groups(groups.at()[0], None, 2)] == [red.size, white.size]


def test_groups_of_few_images_are_left_out_and_counted(settings: Settings) -> None:
    report = build(settings, replace(OPTIONS, min_size=10)).view.report
    assert (report["groups"], report["grouped"], report["alone"]) == (2, 28, 8)
    with opened(settings) as groups:
        assert (len(groups.at()), groups.at().alone) == (2, 8)
        assert (len(groups.at(min_size=17)), groups.at(min_size=17).grouped) == (0, 0)
        assert len(groups.at(min_size=1)) == 3


def test_nearest_groups_are_others(settings: Settings) -> None:
    build(settings)
    with opened(settings) as groups:
        found = groups.at()
        assert {group.size for group in groups.nearest_groups(found[0], None, 6)} == {12, 8}
        assert len(groups.nearest_groups(found[0], None, 1)) == 1
        assert groups.nearest_groups(groups.at(0.0)[0], 0.0, 6) == []


@pytest.mark.parametrize(
    "values",
    [
        {"sim": 2.0},
        {"sim": -0.1},
        {"sim": float("nan")},
        {"alpha": -1.0},
        {"method": "magic"},
        {"metric": "magic"},
        {"components": 0},
        {"min_size": 0},
        {"times": "sometimes"},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_named(values: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(values)).replace("min_size", "smallest").replace("times", "times")):
        GroupOptions(**values)  # type: ignore[arg-type]


def test_a_question_that_makes_no_sense_is_refused(settings: Settings) -> None:
    build(settings)
    with opened(settings) as groups:
        for question in ({"sim": 1.5}, {"min_size": 0}, {"order": "chance"}):
            with pytest.raises(OptionError):
                groups.at(**question)


def test_without_groups_a_command_is_named(settings: Settings) -> None:
    with pytest.raises(ViewMissingError, match=r"python clusters\.py"), opened(settings):
        pass


def test_an_empty_collection_has_no_groups(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.remove([record.image_id for record in writer.all_records()])
        publish(writer, MANIFEST.key, settings)
        with pytest.raises(EmptyCollectionError):
            build_groups(writer, current(writer), OPTIONS)


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_images_are_put_in_groups(tmp_path: Path, count: int) -> None:
    settings = make_collection(tmp_path, {"red": count})
    report = build(settings, GroupOptions(min_size=1)).view.report
    assert (report["images"], report["grouped"]) == (count, count)
    with opened(settings) as groups:
        assert sum(group.size for group in groups.at()) == count
        assert groups.at()[0].labels == []  # all have the same one: it tells nothing


@pytest.mark.parametrize("name", ["groups-tree.npz", "groups-images.npy", "groups-vectors.npy"])
def test_damaged_files_are_told_and_made_anew(settings: Settings, name: str) -> None:
    build(settings)
    with open_writer(settings.rsc_files, command="a test") as writer:
        (current(writer).folder / name).write_bytes(b"damaged")
    with pytest.raises(DamagedCollectionError, match=r"python clusters\.py"), opened(settings):
        pass
    assert build(settings).published
    with opened(settings) as groups:
        assert len(groups.at()) == 3


def test_times_come_from_the_camera_or_the_file() -> None:
    taken = Record(b"/a", 1, 10**18, taken_at="2020-01-01T00:00:10")
    file_alone = Record(b"/b", 1, 10**18)
    without_file = Record(b"b", 0, 0)
    records = [taken, file_alone, without_file]
    camera = 1577836810.0
    auto, exif, stat = (times_of(records, source) for source in ("auto", "exif", "stat"))
    assert auto[0] == exif[0] == camera
    assert auto[1] == stat[0] == stat[1]
    assert abs(stat[1] - 1e9) <= 15 * 3600  # local time
    assert np.isnan([exif[1], auto[2], exif[2], stat[2]]).all()


def test_time_parts_what_looks_alike(tmp_path: Path) -> None:
    settings = make_collection(tmp_path, {"red": 10, "white": 2})
    with open_writer(settings.rsc_files, command="a test") as writer:
        dated = [
            replace(record, taken_at=f"{'2001' if record.image_id % 2 else '2011'}-01-01T00:00:00")
            for record in writer.all_records()
        ]
        writer.commit(MANIFEST.key, Batch(records=dated))
    for alpha, years in ((0.0, {2}), (0.8, {1})):
        build(settings, GroupOptions(sim=0.6, times="exif", alpha=alpha))
        with opened(settings) as groups:
            assert {len(set(group.image_ids % 2)) for group in groups.at(min_size=2)} == years
