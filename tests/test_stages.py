"""The seconds of each stage belong to one request and one thread."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
from flask import url_for

from api import address
from app import create_app
from config import Settings
from search import stages
from tests.fakes import FakeService


def test_seconds_of_a_stage_add_up_and_are_forgotten_with_the_next_request() -> None:
    stages.begin()
    stages.add("decode", 0.25)
    stages.add("embed", 0.5)
    stages.add("decode", 0.5)
    assert dict(stages.seconds()) == {"decode": 0.75, "embed": 0.5}
    assert stages.header() == "decode;dur=750.0, embed;dur=500.0"
    stages.begin()
    assert dict(stages.seconds()) == {}
    assert stages.header() == ""


def test_a_stage_that_fails_is_timed_as_well() -> None:
    stages.begin()
    with pytest.raises(ValueError, match="of no use"), stages.timed("search"):
        raise ValueError("of no use")
    assert list(stages.seconds()) == ["search"]


def test_another_thread_keeps_its_own_seconds() -> None:
    stages.begin()
    thread = Thread(target=lambda: stages.add("decode", 1.0))  # outside of any request
    thread.start()
    thread.join()
    assert dict(stages.seconds()) == {}


def test_an_answer_says_how_long_its_stages_took(tmp_path: Path) -> None:
    app = create_app(service=FakeService(tmp_path, Settings()))
    app.add_url_rule("/timed", view_func=_timed)
    assert app.test_client().get("/timed").headers["Server-Timing"] == "decode;dur=250.0"
    assert "Server-Timing" not in app.test_client().get("/healthz").headers


def test_rendering_is_timed_of_pages_and_of_the_api(tmp_path: Path) -> None:
    client = create_app(service=FakeService(tmp_path, Settings())).test_client()
    for page in ("/search?like=1", "/api/v1/search?image_id=1"):
        assert client.get(page).headers["Server-Timing"].startswith("render;dur=")


def _timed() -> str:
    stages.add("decode", 0.25)
    return ""


def test_addresses_of_images_are_what_url_for_says(tmp_path: Path) -> None:
    app = create_app(service=FakeService(tmp_path, Settings()))
    said = {"k": 5, "label": "a@b & c", "like": [3, "u@x\0y"], "box": None}
    with app.test_request_context(base_url="http://here/some/prefix@1/"):
        for _ in range(2):  # made, and remembered
            for image_id in (1, 23):
                for endpoint, values in (("files.thumbnail", {}), ("images.image", said), ("images.image", {"k": 6})):
                    expected = url_for(endpoint, image_id=image_id, **values)
                    assert address(image_id, endpoint, **values) == expected
