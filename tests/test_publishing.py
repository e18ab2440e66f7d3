"""Views join the published generation, and stay in the next one; a service opens each once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import Settings
from errors import DamagedCollectionError, EditRefusedError
from publishing import publish, publish_view, view_of
from search import SearchService
from search.loaded import Loaded
from search.service import REFUSED_SECONDS
from store import Batch, Generation, Record, Store, StoreWriter, VectorsManifest, open_writer

MANIFEST = VectorsManifest("imported-vectors-000000000000", "imported", "vectors", "0" * 64, 8, "none")


def add(writer: StoreWriter, first: int, count: int) -> None:
    """Commit `count` images with vectors of their own, named from `first` on."""
    writer.begin_vectors(MANIFEST)
    numbers = range(first, first + count)
    records = [Record(f"image-{n}".encode(), 0, 0, bytes([n]) * 32, format="") for n in numbers]
    vectors = {bytes([n]) * 32: np.random.default_rng(n).normal(size=8).astype(np.float32) for n in numbers}
    writer.commit(MANIFEST.key, Batch(records=records, vectors=vectors))


def write_view(folder: Path) -> list[str]:
    """Write a view of one file."""
    (folder / "groups.txt").write_text("seven")
    return ["groups.txt"]


def current(store: Store) -> Generation:
    """Return the published generation."""
    generation = store.generation()
    assert generation is not None
    return generation


def published(folder: Path) -> Settings:
    """Publish a collection of thirty images in `folder`; return its settings."""
    settings = Settings(rsc_files=folder, index="exact")
    with open_writer(settings.rsc_files, command="test") as writer:
        add(writer, 1, 30)
        publish(writer, MANIFEST.key, settings)
    return settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return published(tmp_path / "rsc")


def test_a_view_joins_the_published_generation_and_everything_else_stays(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        before = current(writer)
        publish_view(writer, before, "groups", write_view, options={"sim": 0.5}, report={"groups": 7})
        after = current(writer)
    view = view_of(after, "groups")
    assert view is not None
    assert (after.number, view_of(before, "groups"), view_of(after, "map")) == (before.number + 1, None, None)
    assert (view.files, view.images, view.options, view.report) == (["groups.txt"], 30, {"sim": 0.5}, {"groups": 7})
    assert view.vectors_digest == after.manifest["vectors_digest"]
    assert {path.name for path in before.folder.iterdir()} | {"groups.txt"} == {
        path.name for path in after.folder.iterdir()
    }
    assert {**before.manifest, "views": 0} == {**after.manifest, "views": 0}


def test_a_view_computed_again_replaces_its_files_alone(settings: Settings) -> None:
    def write_other(folder: Path) -> list[str]:
        (folder / "groups-2.txt").write_text("eight")
        return ["groups-2.txt"]

    def write_map(folder: Path) -> list[str]:
        (folder / "map.txt").write_text("north")
        return ["map.txt"]

    with open_writer(settings.rsc_files, command="test") as writer:
        publish_view(writer, current(writer), "groups", write_view, options={}, report={})
        publish_view(writer, current(writer), "map", write_map, options={}, report={})
        publish_view(writer, current(writer), "groups", write_other, options={}, report={})
        names = {path.name for path in current(writer).folder.iterdir()}
    assert {"groups-2.txt", "map.txt"} <= names
    assert "groups.txt" not in names


def test_views_stay_when_images_come_and_say_that_they_are_older(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        publish_view(writer, current(writer), "groups", write_view, options={}, report={})
        add(writer, 31, 5)
        publish(writer, MANIFEST.key, settings)
        generation = current(writer)
    view = view_of(generation, "groups")
    assert view is not None
    assert (generation.folder / "groups.txt").read_text() == "seven"
    assert (generation.manifest["images"], view.images) == (35, 30)
    assert view.vectors_digest != generation.manifest["vectors_digest"]


def test_a_generation_is_published_again_only_when_something_changed(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        publish_view(writer, current(writer), "groups", write_view, options={}, report={})
        before = current(writer)
        publish(writer, MANIFEST.key, settings)
        assert current(writer).number == before.number


def test_an_index_that_cannot_be_built_takes_nothing_with_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.building._run_child", lambda *given: (1, "", "no room"))
    with open_writer(settings.rsc_files, command="test") as writer:
        publish_view(writer, current(writer), "groups", write_view, options={}, report={})
        publish(writer, MANIFEST.key, replace(settings, index="annoy"))
        after = current(writer)
    assert "no room" in after.manifest["index"]["reason"]
    assert (after.folder / "groups.txt").read_text() == "seven"
    assert not (after.folder / "ids.npy").exists()


def test_a_service_opens_a_view_once_for_each_generation(settings: Settings) -> None:
    opened = []

    def opener(store: Store, generation: Generation) -> int:
        opened.append(generation.number)
        return generation.number

    service = SearchService(settings)
    first = [service.opened(opener), service.opened(opener)]
    with open_writer(settings.rsc_files, command="test") as writer:
        publish_view(writer, current(writer), "groups", write_view, options={}, report={})
    assert [*first, service.opened(opener)] == [1, 1, 2]
    assert opened == [1, 2]
    service.close()


def test_a_generation_that_is_out_of_reach_is_taken_up_when_it_is_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = SearchService(settings, load_network=False)
    assert service.ready().generation.number == 1
    with open_writer(settings.rsc_files, command="test") as writer:
        publish_view(writer, current(writer), "groups", write_view, options={}, report={})

    def refuse(*arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("search.service.open_index", refuse)
        assert [service.ready().generation.number for _ in range(3)] == [1, 1, 1]
    assert caplog.text.count("the old one goes on answering") == 1
    assert service.ready().generation.number == 1
    later = time.monotonic() + REFUSED_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert service.ready().generation.number == 2
    service.close()


def test_a_generation_that_is_replaced_while_it_is_read_is_no_failure(settings: Settings) -> None:
    class Reader(SearchService):
        tried = 0

        def _load(self, *arguments: Any) -> Loaded:
            self.tried += 1
            if self.tried == 1:
                with open_writer(settings.rsc_files, command="test") as writer:
                    publish_view(writer, current(writer), "groups", write_view, options={}, report={})
                raise DamagedCollectionError("Its files are gone.")
            return super()._load(*arguments)

    service = Reader(settings, load_network=False)
    assert service.ready().generation.number == 2
    service.close()


@pytest.mark.parametrize(
    ("change", "headers", "allowed"),
    [
        ({}, {}, True),
        ({}, {"Sec-Fetch-Site": "same-origin"}, True),
        ({}, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({}, {"Sec-Fetch-Site": "cross-site"}, False),
        ({}, {"Sec-Fetch-Site": "same-site"}, False),
        ({}, {"Origin": "http://localhost"}, True),
        ({}, {"Origin": "http://elsewhere.example"}, False),
        ({}, {"Host": "rebound.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"host": "0.0.0.0"}, {}, False),
        ({"host": "0.0.0.0", "edits": "on"}, {"Host": "photos.example"}, True),
        ({"edits": "off"}, {}, False),
    ],
)
def test_who_may_name_and_tag(
    settings: Settings, change: dict[str, str], headers: dict[str, str], allowed: bool
) -> None:
    from app import create_app
    from guard import check_may_edit

    changed = replace(settings, **change)  # type: ignore[arg-type]
    app = create_app(changed, SearchService(changed, load_network=False))
    with app.test_request_context("/", method="POST", headers=headers):
        if allowed:
            check_may_edit()
        else:
            with pytest.raises(EditRefusedError):
                check_may_edit()
