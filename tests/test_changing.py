"""Pictures that are sent join the collection at once, images taken out can come back, and nothing is lost on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import search.changing
from config import Settings
from errors import CollectionLockedError, DiskFullError, ImageNotFoundError, OptionError, OriginalGoneError, PlanError
from img2vec import Job, index_images
from plans import Choice, make_plan
from quarantine import HIDDEN
from search import Example, Query, SearchService
from search.changing import Sent, add_pictures, apply_here, bring_back, run_key, runs, safe_name, take_out
from store import Store, open_writer, tag_images
from tests import fake_backbone
from tests.duplicated_collection import find, index, make_photos
from tests.fakes import encoded, picture
from tests.mutations import write_mutations
from views.reviews import open_review


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchService]:
    settings, _ = index(monkeypatch, make_photos(tmp_path / "photos"), tmp_path / "rsc")
    service = SearchService(settings)
    yield service
    service.close()


def sent(number: int, name: str = "new.jpg", folder: str = "") -> Sent:
    return Sent(name, encoded(picture(number)), folder)


def names(service: SearchService) -> set[str]:
    return {info.name for info in service.some_images(1_000)}


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_picture_that_is_added_is_found_at_once_by_the_network_that_serves(
    service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fake_backbone.install(monkeypatch)
    before = service.status()
    (added,) = add_pictures(service, [sent(50, "sea side.jpg", "holiday")])
    assert added.image_id is not None
    assert not added.known
    assert added.error is None
    assert service.status().images == before.images + 1
    best = service.search(Query((Example(encoded(picture(50))),), k=1)).matches[0]
    assert (best.image.image_id, best.image.name, best.image.label) == (added.image_id, "sea-side.jpg", "holiday")
    assert len(loaded) == 1


def test_nothing_that_was_sent_is_decoded_by_the_process_that_serves(
    service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded here")

    for module in ("images.apart", "pipeline"):
        monkeypatch.setattr(f"{module}.decode_image", refuse)
    (added,) = add_pictures(service, [sent(50)])
    assert added.error is None
    assert added.image_id is not None
    content = service.thumbnail(added.image_id)
    assert content is not None
    assert content.startswith(b"\xff\xd8")


def test_what_is_no_picture_is_told_and_never_saved(service: SearchService) -> None:
    answers = add_pictures(
        service,
        [
            sent(52, "good.jpg"),
            Sent("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"),
            Sent("half.jpg", encoded(picture(53))[:2_000]),
            Sent("empty.jpg", b""),
        ],
    )
    assert [None if one.error is None else one.error.code for one in answers] == [
        None,
        "not_an_image",
        "damaged_image",
        "empty_file",
    ]
    assert files_of(service.settings.rsc_files / "added") == ["good.jpg"]


def test_what_is_there_already_is_not_saved_again(service: SearchService, tmp_path: Path) -> None:
    content = (tmp_path / "photos" / "archive" / "5.png").read_bytes()
    before = service.status().images
    answers = add_pictures(service, [Sent("again.png", content), sent(54, "a.jpg"), sent(54, "b.jpg")])
    assert [one.known for one in answers] == [True, False, True]
    assert answers[1].image_id == answers[2].image_id
    assert service.image(answers[0].image_id or 0).name == "5.png"
    assert files_of(service.settings.rsc_files / "added") == ["a.jpg"]
    assert service.status().images == before + 1


def test_two_pictures_of_one_name_are_both_kept(service: SearchService) -> None:
    add_pictures(service, [sent(55, "IMG_1.jpg")])
    add_pictures(service, [sent(56, "IMG_1.jpg"), sent(57, "IMG_1.JPEG")])
    saved = files_of(service.settings.rsc_files / "added")
    assert len(saved) == 3
    assert saved[-1] == "IMG_1.jpg"
    assert all(name.startswith("IMG_1") and name.endswith(".jpg") for name in saved)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("..", ""),
        (".htaccess", "htaccess"),
        ("a\\b\\c", "c"),
        ("möwe am strand", "möwe-am-strand"),
        ("x\0y\nz", "x-y-z"),
        ("é" * 200, "é" * 50),
        ("-rf", "rf"),
        ("\ud800", ""),
    ],
)
def test_a_name_that_was_sent_is_made_a_word(given: str, safe: str) -> None:
    assert safe_name(given) == safe


def test_nothing_that_was_sent_leads_out_of_the_folder(service: SearchService, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "rsc" not in path.parts}
    hostile = ("../../../out.jpg", "/etc/cron.d/x", "..", "a/../../b", "con\0.jpg", "\ud800.jpg")
    answers = add_pictures(service, [sent(60 + place, name, name) for place, name in enumerate(hostile)])
    assert all(one.image_id is not None for one in answers)
    assert len(files_of(service.settings.rsc_files / "added")) == len(hostile)
    assert {path for path in tmp_path.rglob("*") if "rsc" not in path.parts} == before


def test_nothing_is_saved_while_another_job_holds_the_collection(service: SearchService) -> None:
    image_id = service.some_images(1)[0].image_id
    service.status()
    with open_writer(service.settings.rsc_files, command="another job"):
        for change in (
            lambda: add_pictures(service, [sent(58)]),
            lambda: take_out(service, [image_id]),
        ):
            with pytest.raises(CollectionLockedError):
                change()
    assert not (service.settings.rsc_files / "added").exists()
    assert service.original(image_id)


def test_what_could_not_be_indexed_does_not_stay_saved(service: SearchService, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: object, job: Job) -> None:
        raise DiskFullError("The disk is full.")

    monkeypatch.setattr(search.changing, "index_into", full)
    with pytest.raises(DiskFullError):
        add_pictures(service, [sent(59)])
    assert files_of(service.settings.rsc_files / "added") == []


def test_a_collection_can_begin_with_what_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backbone.install(monkeypatch)
    service = SearchService(Settings(rsc_files=tmp_path / "rsc", added_folder=tmp_path / "mine", index="exact"))
    (added,) = add_pictures(service, [sent(1)])
    assert service.image(added.image_id or 0).label == "mine"
    assert service.status().images == 1
    service.close()


def test_adding_keeps_the_kind_of_index_that_was_chosen(service: SearchService) -> None:
    other = SearchService(replace(service.settings, index="auto", trees=7))
    add_pictures(other, [sent(61)])
    manifest = other.ready().generation.manifest["index"]
    assert (manifest["options"]["kind"], manifest["options"]["trees"]) == ("exact", 100)
    other.close()


def test_a_later_run_of_the_job_keeps_what_was_added(service: SearchService, tmp_path: Path) -> None:
    (added,) = add_pictures(service, [sent(62)])
    paths = [os.fsencode(path) for path in sorted((tmp_path / "photos").glob("*/*"))]
    report = index_images(Job(service.settings, paths, prune=lambda path: True))
    assert (report.new, report.removed) == (0, 0)
    assert service.image(added.image_id or 0).name == "new.jpg"


def test_images_taken_out_are_gone_and_come_back_with_their_tags(service: SearchService, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    before, ids = files_of(photos), [info.image_id for info in service.some_images(1_000)][:3]
    tag_images(service.settings.rsc_files, "kept", ids)
    kept = {service.image(image_id).name for image_id in ids}
    done = take_out(service, ids)
    assert (done.images, done.files, len(done.keys), done.skipped) == (3, 3, 1, ())
    assert not kept & names(service)
    for image_id in ids:
        with pytest.raises(ImageNotFoundError):
            service.image(image_id)
    assert len([path for path in files_of(photos) if HIDDEN not in path]) == len(before) - 3
    (run,) = runs(service.settings)
    assert run_key(run.folder) == done.keys[0]
    assert bring_back(service, done.keys[0]).restored == 3
    assert [path for path in files_of(photos) if HIDDEN not in path] == before
    assert all(service.image(image_id).tags == ["kept"] for image_id in ids)


def test_what_was_added_can_be_taken_out_and_added_again(service: SearchService) -> None:
    (added,) = add_pictures(service, [sent(63)])
    done = take_out(service, [added.image_id or 0])
    (again,) = add_pictures(service, [sent(63)])
    assert not again.known
    assert again.image_id != added.image_id
    restored = bring_back(service, done.keys[0])
    assert (restored.restored, len(restored.problems)) == (0, 1)  # another file has its name by now
    assert service.image(again.image_id or 0)


def test_an_image_without_its_file_stays(service: SearchService, tmp_path: Path) -> None:
    one, other = sorted(service.some_images(1_000), key=lambda info: info.image_id)[:2]
    path, _ = service.original(one.image_id)
    os.utime(path, ns=(1, 1))
    done = take_out(service, [one.image_id, other.image_id])
    assert (done.images, done.skipped) == (1, (one.image_id,))
    assert os.path.exists(path)
    with pytest.raises(OriginalGoneError):
        take_out(service, [one.image_id])
    with pytest.raises(ImageNotFoundError):
        take_out(service, [999_999])


def test_a_file_with_other_contents_moves_nothing(service: SearchService) -> None:
    ids = [info.image_id for info in service.some_images(1_000)][:2]
    path, _ = service.original(ids[0])
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(PlanError):
        take_out(service, ids)
    assert service.status().images == 17
    assert runs(service.settings) == []


def test_a_plan_of_duplicates_is_applied_and_undone(service: SearchService) -> None:
    find(service.settings)
    before = service.status().images
    plan = make_plan(service.opened(open_review).sets("same"), Choice())
    done = apply_here(service, plan)
    assert done.images == done.files == len(plan.removed) == 5
    assert service.status().images == before - 5
    bring_back(service, done.keys[0])
    assert service.status().images == before


def test_more_files_than_one_request_may_move_are_refused(
    service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search.changing, "MOST_MOVED", 1)
    with pytest.raises(OptionError, match="at most 1 "):
        take_out(service, [info.image_id for info in service.some_images(1_000)][:2])


def test_files_of_other_folders_get_a_quarantine_of_their_own(service: SearchService, tmp_path: Path) -> None:
    (added,) = add_pictures(service, [sent(64)])
    of_photos = service.some_images(1_000)[0].image_id
    done = take_out(service, [added.image_id or 0, min(of_photos, 1)])
    assert len(done.keys) == 2
    places = {run.folder.parent for run in runs(service.settings)}
    assert places == {tmp_path / "rsc" / "added" / HIDDEN, tmp_path / "photos" / HIDDEN}


def test_nothing_is_brought_back_by_a_name_that_is_none(service: SearchService) -> None:
    service.status()
    with pytest.raises(OptionError):
        bring_back(service, "../../photos")


def test_the_catalog_remembers_where_the_command_moved_files_too(service: SearchService, tmp_path: Path) -> None:
    from quarantine import apply_to_collection

    find(service.settings)
    plan = make_plan(service.opened(open_review).sets("identical"), Choice())
    apply_to_collection(plan, tmp_path / "photos", service.settings)
    assert [run.folder.parent for run in runs(service.settings)] == [tmp_path / "photos" / HIDDEN]
    assert Store(service.settings.rsc_files).meta("quarantines") is not None


def test_one_damaged_journal_keeps_no_other_run_from_coming_back(service: SearchService) -> None:
    ids = [info.image_id for info in service.some_images(1_000)][:2]
    bad, good = (take_out(service, [image_id]).keys[0] for image_id in ids)
    (damaged,) = [run for run in runs(service.settings) if run_key(run.folder) == bad]
    (damaged.folder / "journal.jsonl").write_text("no journal\n")
    assert [run_key(run.folder) for run in runs(service.settings)] == [good]
    assert bring_back(service, good).restored == 1


def test_what_a_killed_service_left_is_cleared_away(service: SearchService) -> None:
    folder = service.settings.saved_folder
    folder.mkdir()
    (folder / ".unfinished-0123").write_bytes(b"half")
    add_pictures(service, [sent(65, "whole.jpg")])
    assert files_of(folder) == ["whole.jpg"]


def test_odd_and_broken_files_are_added_or_refused_and_never_half(service: SearchService, tmp_path: Path) -> None:
    kinds = write_mutations(tmp_path / "odd", count=60, seed=5)
    answers = add_pictures(service, [Sent(path.name, path.read_bytes()) for path in kinds])
    for (path, kind), answer in zip(kinds.items(), answers, strict=True):
        assert kind == "either" or (answer.error is None) is (kind == "ok"), (path.name, kind, answer)
    saved = files_of(service.settings.saved_folder)
    assert len(saved) == len({answer.image_id for answer in answers} - {None})
    paths = {os.fsdecode(service.original(one.image_id)[0]) for one in answers if one.image_id is not None}
    assert len(paths) == len(saved)
