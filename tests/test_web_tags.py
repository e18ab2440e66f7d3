"""Tags are given and taken away on an image's page and by the API, by those who may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import create_app
from config import Settings
from search import SearchService
from tests.grouped_collection import make_collection


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_collection(tmp_path)


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(service=SearchService(settings, load_network=False)).test_client()


def counts(client: FlaskClient) -> dict[str, int]:
    return dict(client.get("/api/v1/tags").get_json()["tags"])


def test_an_image_is_tagged_on_its_page_and_the_tag_is_taken_away_there(client: FlaskClient) -> None:
    assert 'aria-label="Another tag"' in client.get("/images/3").text
    for tag in ("<b>harbour</b>", "night"):
        answer = client.post("/images/3/tags", data={"tag": tag})
        assert (answer.status_code, answer.location) == (303, "/images/3")
    page = client.get("/images/3").text
    assert "&lt;b&gt;harbour&lt;/b&gt;</a>" in page
    assert 'aria-label="Remove the tag night"' in page
    client.post("/images/3/tags", data={"remove": "<b>harbour</b>"})
    assert counts(client) == {"night": 1}


def test_a_selection_is_tagged_and_untagged(client: FlaskClient) -> None:
    client.post("/api/v1/tags", json={"tag": "best of", "image_ids": [1, 2, 3]})
    assert counts(client) == {"best of": 3}
    answer = client.delete("/api/v1/tags", json={"tag": "best of", "image_ids": [2, 9_999]})
    assert answer.get_json() == {"tag": "best of", "image_ids": [2]}
    assert counts(client) == {"best of": 2}


@pytest.mark.parametrize(("tag", "status"), [("", 400), ("x" * 101, 400), ("fine", 303)])
def test_a_tag_that_cannot_be_is_refused(client: FlaskClient, tag: str, status: int) -> None:
    assert client.post("/images/3/tags", data={"tag": tag}).status_code == status


def test_an_image_that_is_not_there_cannot_be_tagged(client: FlaskClient) -> None:
    assert client.post("/images/9999/tags", data={"tag": "x"}).status_code == 404


def test_where_edits_are_off_there_is_no_form_and_no_way_round_it(settings: Settings) -> None:
    client = create_app(service=SearchService(replace(settings, edits="off"), load_network=False)).test_client()
    assert "Another tag" not in client.get("/images/3").text
    assert client.post("/images/3/tags", data={"tag": "x"}).status_code == 403
    assert client.delete("/api/v1/tags", json={"tag": "x", "image_ids": [3]}).status_code == 403
    assert counts(client) == {}
