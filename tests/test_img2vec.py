"""The indexing job, with a network whose vectors can be foretold."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import img2vec
import pipeline
from ann import Index
from config import Settings
from errors import CollectionMismatchError, DiskFullError, WeightsUnavailableError
from images import find_images
from img2vec import Job, Report, index_images
from networks import check_same_network
from store import label_images, open_store
from store.writer import StoreWriter
from tests import fake_backbone
from tests.fake_backbone import NETWORK, OTHER, FakeBackbone


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeBackbone]:
    return fake_backbone.install(monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(12):
        write_picture(folder / ("even" if number % 2 == 0 else "odd") / f"{number:02d}.jpg", number)
    return folder


def write_picture(path: Path, seed: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC).save(path, **options)


def index(folder: Path, rsc_files: Path, **options: Any) -> Report:
    settings = Settings(rsc_files=rsc_files, batch_size=4, threads=2)
    settings = replace(settings, **options.pop("settings", {}))
    return index_images(Job(settings, find_images([str(folder)]).paths, **options))


def searchable(rsc_files: Path) -> list[str]:
    """The paths that exact search can find, after holding catalog and vectors against one another."""
    store = open_store(rsc_files)
    generation = store.generation()
    assert generation is not None
    snapshot = store.snapshot(generation.manifest["vectors_key"])
    records = store.records(snapshot.ids.tolist())
    answer = Index(snapshot).query(snapshot.take(slice(None)), 1)
    assert (answer.distances < 1e-3).all()
    store.close()
    return sorted(os.fsdecode(records[image_id].path) for image_id in snapshot.ids.tolist())


def test_every_image_of_a_folder_becomes_searchable(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.failed, report.images) == (12, 0, 12)
    assert loaded[0].seen == 12
    assert searchable(tmp_path / "rsc") == sorted(str(path) for path in photos.rglob("*.jpg"))
    record = open_store(tmp_path / "rsc").record(1)
    assert (record.width, record.height, record.format, record.label) == (320, 240, "JPEG", "even")


def test_each_vector_belongs_to_its_own_picture(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    store = open_store(tmp_path / "rsc")
    snapshot = store.snapshot(NETWORK.key)
    for place, image_id in enumerate(snapshot.ids.tolist()):
        with Image.open(os.fsdecode(store.record(image_id).path)) as image:
            pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
        expected = FakeBackbone(NETWORK).run(pixels[None]).vectors[0]
        assert np.abs(snapshot.take(np.array([place]))[0] - expected).mean() < 3


def test_a_second_run_reads_nothing_and_loads_no_network(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos, tmp_path / "rsc")
    generation = open_store(tmp_path / "rsc").generation()
    monkeypatch.setattr(pipeline, "open", None, raising=False)
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.unchanged) == (0, 12)
    assert len(loaded) == 1
    assert open_store(tmp_path / "rsc").generation() == generation


def test_equal_bytes_at_two_paths_are_two_images_with_one_vector(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    shutil.copy(photos / "even" / "00.jpg", photos / "odd" / "00.jpg")
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.vectorised, report.images) == (13, 12, 13)
    assert loaded[0].seen == 12
    shutil.copy(photos / "even" / "02.jpg", photos / "later.jpg")
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.vectorised, report.images) == (1, 0, 14)


def test_a_changed_file_gets_a_new_vector_and_keeps_its_id(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(photos, tmp_path / "rsc")
    write_picture(photos / "even" / "00.jpg", 99)
    report = index(photos, tmp_path / "rsc")
    assert (report.changed, report.unchanged, report.images) == (1, 11, 12)
    assert len(searchable(tmp_path / "rsc")) == 12


def test_a_file_that_was_only_touched_is_unchanged(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    os.utime(photos / "even" / "00.jpg", (1, 1))
    report = index(photos, tmp_path / "rsc")
    assert (report.changed, report.unchanged, report.vectorised) == (0, 12, 0)
    assert open_store(tmp_path / "rsc").record(1).mtime_ns == 1_000_000_000


def test_a_moved_file_keeps_its_id_and_its_vector(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    label_images(tmp_path / "rsc", "even", [1])  # a person said so: the folder happens to say the same
    os.rename(photos / "even", photos / "moved")
    report = index(photos, tmp_path / "rsc")
    assert (report.moved, report.new, report.gone, report.vectorised) == (6, 0, 0, 0)
    assert [open_store(tmp_path / "rsc").record(image_id).label for image_id in (1, 2)] == ["even", "moved"]
    assert open_store(tmp_path / "rsc").record(1).path == os.fsencode(photos / "moved" / "00.jpg")
    assert searchable(tmp_path / "rsc") == sorted(str(path) for path in photos.rglob("*.jpg"))


def test_two_equal_files_that_both_moved_are_both_moved(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    shutil.copy(photos / "even" / "00.jpg", photos / "even" / "copy.jpg")
    index(photos, tmp_path / "rsc")
    os.rename(photos / "even", photos / "moved")
    report = index(photos, tmp_path / "rsc")
    assert (report.moved, report.new, report.gone, report.images) == (7, 0, 0, 13)


def test_files_that_are_gone_stay_until_prune(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    os.rename(photos / "odd", tmp_path / "elsewhere")
    report = index(photos, tmp_path / "rsc")
    assert (report.gone, report.removed, report.images) == (6, 0, 12)
    assert report.gone_paths[0] == str(photos / "odd" / "01.jpg")
    report = index(photos, tmp_path / "rsc", prune=lambda path: True)
    assert (report.gone, report.removed, report.images) == (0, 6, 6)


def test_removing_takes_images_out_and_compacting_reclaims_their_space(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(photos, tmp_path / "rsc")
    settings = Settings(rsc_files=tmp_path / "rsc")
    report = index_images(Job(settings, [], remove=lambda path: b"/odd/" in path))
    assert (report.removed, report.images) == (6, 6)
    report = index_images(Job(settings, [], compact=True))
    assert report.reclaimed_bytes >= 6 * 1280 * 2
    assert searchable(tmp_path / "rsc") == sorted(str(path) for path in (photos / "even").glob("*.jpg"))


def test_a_bad_file_is_recorded_with_its_reason_and_tried_again_only_when_it_changes(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    bad = photos / "odd" / "01.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.failed) == (11, 1)
    assert report.failures[0].path == str(bad)
    assert report.failures[0].code == "damaged_image"
    report = index(photos, tmp_path / "rsc")
    assert (report.failed, report.known_failures, len(report.failures)) == (0, 1, 1)
    report = index_images(Job(Settings(rsc_files=tmp_path / "rsc"), [], retry_failures=True))
    assert (report.failed, report.known_failures) == (1, 0)
    bad.write_bytes(whole)
    report = index(photos, tmp_path / "rsc")
    assert (report.changed, report.failures, report.images) == (1, [], 12)


def test_an_image_that_became_bad_is_no_longer_found(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    (photos / "odd" / "01.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    report = index(photos, tmp_path / "rsc")
    assert (report.failed, report.images) == (1, 11)
    assert str(photos / "odd" / "01.jpg") not in searchable(tmp_path / "rsc")


def test_a_file_that_may_not_be_read_fails_and_keeps_what_was_known(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos, tmp_path / "rsc")
    os.utime(photos / "odd" / "01.jpg")

    def refuse(path: bytes, mode: str) -> None:  # not chmod: root may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pipeline, "open", refuse, raising=False)
    report = index(photos, tmp_path / "rsc")
    assert (report.failed, report.unchanged, report.images) == (1, 11, 12)


def test_a_file_that_vanishes_while_the_job_runs_fails_and_keeps_what_was_known(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(photos, tmp_path / "rsc")
    paths = find_images([str(photos)]).paths
    (photos / "odd" / "01.jpg").unlink()
    report = index_images(Job(Settings(rsc_files=tmp_path / "rsc"), [*paths, b"/no/such/file.jpg"]))
    assert (report.failed, report.images, report.gone) == (2, 12, 1)


def test_what_is_no_image_is_skipped_and_not_a_failure(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    (photos / "notes.txt").write_text("hello")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "letter.png").write_text("not a picture")
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.failed, report.skipped) == (12, 0, 3)
    assert report.skipped_pictures == [str(photos / "empty.jpg"), str(photos / "letter.png")]


def test_a_file_over_a_limit_fails_and_is_tried_again_when_the_limit_is_raised(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    Image.new("RGB", (2000, 1000)).save(photos / "large.png")
    tight = {"settings": {"max_pixels": 100_000}}
    report = index(photos, tmp_path / "rsc", **tight)
    assert (report.new, report.failed, report.failures[0].code) == (12, 1, "too_many_pixels")
    assert index(photos, tmp_path / "rsc", **tight).known_failures == 1
    report = index(photos, tmp_path / "rsc", settings={"max_pixels": 10_000_000})
    assert (report.changed, report.images) == (1, 13)
    report = index(photos, tmp_path / "rsc2", settings={"max_bytes": 100})
    assert {failure.code for failure in report.failures} == {"too_many_bytes"}


def test_names_that_are_not_utf8_are_indexed(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    odd_name = os.fsencode(photos) + b"/caf\xe9 \n.jpg"
    shutil.copy(os.fsencode(photos / "even" / "00.jpg"), odd_name)
    report = index(photos, tmp_path / "rsc")
    assert report.images == 13
    assert json.dumps(report.gone_paths) == "[]"
    assert odd_name in {record.path for record in open_store(tmp_path / "rsc").all_records()}


def test_stopping_finishes_what_is_under_way_and_the_next_run_goes_on(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    for number in range(100, 160):
        write_picture(photos / "more" / f"{number}.png", number)
    job = Job(Settings(rsc_files=tmp_path / "rsc", batch_size=4, threads=2), find_images([str(photos)]).paths)
    stopping = replace(job, on_progress=lambda progress: job.stop.set() if progress.done == 20 else None)
    report = index_images(stopping)
    assert report.interrupted
    assert 20 <= report.new < 72
    saved = report.new
    report = index(photos, tmp_path / "rsc")
    assert (report.new, report.unchanged, report.images) == (72 - saved, saved, 72)


def test_without_inceptions_weights_the_job_says_so_and_goes_on(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    notes: list[str] = []
    report = index(photos, tmp_path / "rsc", on_note=notes.append)
    assert report.backbone == "efficientnet_lite0"
    assert "inception_v3 cannot be had" in notes[0]
    assert "Going on with efficientnet_lite0" in notes[0]


def test_with_inception_asked_for_by_name_the_job_stops_instead(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    with pytest.raises(WeightsUnavailableError):
        index(photos, tmp_path / "rsc", settings={"backbone": "inception_v3"})
    assert loaded == []


def test_a_collection_keeps_its_own_backbone(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc", settings={"backbone": "resnet50"})
    write_picture(photos / "new.jpg", 77)
    report = index(photos, tmp_path / "rsc")
    assert (report.backbone, report.new, report.images) == ("resnet50", 1, 13)


def test_another_backbone_vectorises_the_whole_catalog_and_switching_back_costs_nothing(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(photos, tmp_path / "rsc")
    notes: list[str] = []
    settings = Settings(rsc_files=tmp_path / "rsc", backbone="resnet50")
    report = index_images(Job(settings, [], on_note=notes.append))
    assert (report.backbone, report.vectorised, report.images) == ("resnet50", 12, 12)
    assert NETWORK.key in notes[0]
    assert OTHER.key in notes[0]
    report = index_images(Job(replace(settings, backbone="efficientnet_lite0"), []))
    assert (report.backbone, report.vectorised, report.images) == ("efficientnet_lite0", 0, 12)


def test_a_change_of_backbone_that_is_stopped_leaves_the_old_vectors_answering(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(photos, tmp_path / "rsc")
    settings = Settings(rsc_files=tmp_path / "rsc", backbone="resnet50", batch_size=4, threads=1)
    job = Job(settings, [])
    job.stop.set()
    assert index_images(job).interrupted
    assert len(searchable(tmp_path / "rsc")) == 12
    assert open_store(tmp_path / "rsc").snapshot(NETWORK.key).ids.tolist() == list(range(1, 13))
    report = index_images(Job(settings, []))
    assert (report.backbone, report.images) == ("resnet50", 12)


def test_vectors_of_another_network_are_refused_with_both_named() -> None:
    check_same_network(NETWORK, NETWORK)
    with pytest.raises(CollectionMismatchError, match=r"efficientnet_lite0.*ffffffffffff.*resnet50.*eeeeeeeeeeee"):
        check_same_network(NETWORK, OTHER)
    with pytest.raises(CollectionMismatchError, match="aaaaaaaaaaaa"):
        check_same_network(NETWORK, replace(NETWORK, weights_sha256="a" * 64))


def test_a_full_disk_stops_the_job_with_a_message_and_the_next_run_goes_on(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(photos, tmp_path / "rsc")
    for number in range(100, 110):
        write_picture(photos / "more" / f"{number}.png", number)

    def full(self: StoreWriter, path: Path, rows: int, batch: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "_append", full)
        with pytest.raises(DiskFullError, match="No space left"):
            index(photos, tmp_path / "rsc")
    assert len(searchable(tmp_path / "rsc")) == 12
    assert index(photos, tmp_path / "rsc").images == 22


def test_a_vector_that_is_no_number_is_the_files_failure(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos / "even" / "00.jpg", photos / "even" / "00-copy.jpg")
    run = FakeBackbone.run

    def sometimes_nan(self: FakeBackbone, batch: Any) -> Any:
        outputs = run(self, batch)
        outputs.vectors[(batch[:, 0, 0, 0] == reference).nonzero()[0]] = np.nan
        return outputs

    with Image.open(photos / "even" / "00.jpg") as image:
        reference = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))[0, 0, 0]
    monkeypatch.setattr(FakeBackbone, "run", sometimes_nan)
    report = index(photos, tmp_path / "rsc")
    assert report.failed >= 2
    assert report.failed + report.new == 13
    assert "no finite vector" in report.failures[0].reason


def test_many_unchanged_files_behind_a_new_one_do_not_pile_up(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "SLOTS", 3)
    index(photos, tmp_path / "rsc")
    write_picture(photos / "a-new-one.jpg", 50)
    seen: list[int] = []
    infer = pipeline._Ordering._infer

    def watch(self: Any) -> None:
        seen.append(len(self._slots))
        infer(self)

    monkeypatch.setattr(pipeline._Ordering, "_infer", watch)
    report = index(photos, tmp_path / "rsc", settings={"batch_size": 64})
    assert report.new == 1
    assert max(seen) <= 7


def test_lost_vectors_are_computed_again(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    (tmp_path / "rsc" / "vectors" / NETWORK.key / "vectors.f16").unlink()
    report = index(photos, tmp_path / "rsc")
    assert (report.vectorised, report.images) == (12, 12)
    (tmp_path / "rsc" / "thumbnails.sqlite").unlink()
    report = index(photos, tmp_path / "rsc")
    assert report.vectorised == 12
    record = open_store(tmp_path / "rsc").record(3)
    assert open_store(tmp_path / "rsc").thumbnail(record.sha256 or b"") is not None


def test_without_a_generation_the_collection_still_keeps_its_network(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    index(photos, tmp_path / "rsc", settings={"backbone": "resnet50"})
    shutil.rmtree(tmp_path / "rsc" / "index")
    report = index(photos, tmp_path / "rsc")
    assert (report.backbone, report.vectorised, report.images) == ("resnet50", 0, 12)


def test_a_damaged_generation_is_built_again(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    (tmp_path / "rsc" / "index" / "CURRENT").write_text("garbage")
    report = index(photos, tmp_path / "rsc")
    assert (report.vectorised, report.images) == (0, 12)
    assert len(searchable(tmp_path / "rsc")) == 12


def test_a_stopped_first_run_is_searchable_and_the_next_builds_its_index(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    settings = Settings(rsc_files=tmp_path / "rsc", batch_size=4, threads=2, index="annoy")
    job = Job(settings, find_images([str(photos)]).paths)
    stopping = replace(job, on_progress=lambda progress: job.stop.set())
    report = index_images(stopping)
    assert report.interrupted
    assert report.index["kind"] == "exact"
    assert "stopped" in report.index["reason"]
    assert len(searchable(tmp_path / "rsc")) == report.images > 0
    report = index_images(replace(job, stop=threading.Event()))
    assert (report.index["kind"], report.images) == ("annoy", 12)


@pytest.mark.parametrize("contents", [b"", b"a letter"])
def test_an_image_overwritten_by_something_else_leaves_the_index_with_a_reason(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone], contents: bytes
) -> None:
    index(photos, tmp_path / "rsc")
    (photos / "odd" / "01.jpg").write_bytes(contents)
    report = index(photos, tmp_path / "rsc")
    assert (report.failed, report.skipped, report.images) == (1, 0, 11)
    assert "none any more" in report.failures[0].reason
    assert index(photos, tmp_path / "rsc").known_failures == 1


def test_a_passing_failure_of_a_known_image_is_listed(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    paths = find_images([str(photos)]).paths
    (photos / "odd" / "01.jpg").unlink()
    report = index_images(Job(Settings(rsc_files=tmp_path / "rsc"), paths))
    assert [failure.path for failure in report.failures] == [str(photos / "odd" / "01.jpg")]


def test_labels_follow_the_folder(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    os.rename(photos / "even" / "00.jpg", photos / "odd" / "00.jpg")
    index(photos, tmp_path / "rsc")
    assert open_store(tmp_path / "rsc").record(1).label == "odd"


def test_a_copy_elsewhere_does_not_take_the_place_of_a_file_on_a_disk_that_is_not_mounted(
    photos: Path, tmp_path: Path, loaded: list[FakeBackbone]
) -> None:
    disk = tmp_path / "disk"
    os.rename(photos, disk)
    index(disk, tmp_path / "rsc")
    backup = tmp_path / "backup"
    shutil.copytree(disk, backup / "of-disk")
    shutil.rmtree(disk)
    disk.mkdir()
    report = index(backup, tmp_path / "rsc")
    assert (report.moved, report.new, report.gone, report.images) == (0, 12, 12, 24)


def test_what_cannot_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    assert img2vec.is_gone(os.fsencode(tmp_path / "nothing"))
    monkeypatch.setattr(os, "lstat", locked)
    assert not img2vec.is_gone(os.fsencode(tmp_path / "nothing"))


def test_prune_takes_out_only_what_it_is_asked_about(photos: Path, tmp_path: Path, loaded: list[FakeBackbone]) -> None:
    index(photos, tmp_path / "rsc")
    shutil.rmtree(photos / "odd")
    (photos / "even" / "00.jpg").unlink()
    report = index(photos / "even", tmp_path / "rsc", prune=lambda path: b"/even/" in path)
    assert (report.removed, report.gone, report.images) == (1, 6, 11)
