"""The picture of a search, and the distance that pages search by."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from PIL import Image

from ann import METRICS
from app import create_app
from config import Settings
from search import Box
from tests.fakes import FakeService, encoded, picture
from web.asked import METRIC_WORDS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> FakeService:
    return FakeService(tmp_path_factory.mktemp("photographs"), Settings(max_results=48))


@pytest.fixture(scope="module")
def client(service: FakeService) -> FlaskClient:
    return create_app(service=service).test_client()


def page_of(client: FlaskClient, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.text


def sheet_address(page: str) -> str:
    found = re.search(r'href="(/search/sheet\.png[^"]*)"', page)
    assert found is not None
    return found[1].replace("&amp;", "&")


def sheet_of(client: FlaskClient, address: str) -> Image.Image:
    answer = client.get(address)
    assert (answer.status_code, answer.mimetype) == (200, "image/png")
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert client.get(address, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    return Image.open(io.BytesIO(answer.data))


def test_a_page_of_results_leads_to_the_ten_nearest_as_one_picture(client: FlaskClient, service: FakeService) -> None:
    address = sheet_address(page_of(client, "/search?like=3&like=4&unlike=5&label=beach&k=24&metric=euclidean&page=1"))
    assert address == "/search/sheet.png?like=3&like=4&unlike=5&metric=euclidean&label=beach"
    assert sheet_of(client, address).width > 1_000
    asked = service.asked[-1]
    assert [example.source for example in asked.like] == [3, 4]
    assert [example.source for example in asked.unlike] == [5]
    assert (asked.k, asked.metric, asked.where and asked.where.label) == (10, "euclidean", "beach")


def test_the_page_of_an_image_leads_to_its_picture_with_the_part_that_is_asked_for(
    client: FlaskClient, service: FakeService
) -> None:
    address = sheet_address(page_of(client, "/images/7?k=12&box=0,0,0.5,1"))
    assert address == "/search/sheet.png?like=7&box=0,0,0.5,1"
    sheet_of(client, address)
    (example,) = service.asked[-1].like
    assert (example.source, example.box) == (7, Box(0, 0, 0.5, 1))


def test_a_picture_that_was_sent_stands_on_its_sheet(client: FlaskClient, service: FakeService) -> None:
    key = service.keep_upload(encoded(picture(40)))
    for address in ("/search/sheet.png", "/api/v1/search/sheet"):
        assert sheet_of(client, f"{address}?like={key}&k=5").width > 1_000


@pytest.mark.parametrize(
    ("asked", "k"),
    [("", 10), ("&k=&radius=", 10), ("&k=3", 3), ("&k=48", 48), ("&k=all", 48), ("&radius=1", 48), ("&k=4&page=2", 4)],
)
def test_a_sheet_has_ten_images_or_as_many_as_are_asked_for(
    client: FlaskClient, service: FakeService, asked: str, k: int
) -> None:
    assert client.get(f"/api/v1/search/sheet?like=3{asked}").status_code == 200
    assert service.asked[-1].k == k


@pytest.mark.parametrize(
    ("asked", "status"), [("", 400), ("like=99", 404), ("like=3&metric=hamming", 400), ("like=3&shape=round", 400)]
)
def test_a_sheet_of_nonsense_is_an_error(client: FlaskClient, asked: str, status: int) -> None:
    assert client.get(f"/search/sheet.png?{asked}").status_code == status
    answer = client.get(f"/api/v1/search/sheet?{asked}")
    assert (answer.status_code, answer.get_json()["error"]["status"]) == (status, status)


# The distance.


def test_every_distance_has_its_words() -> None:
    assert tuple(METRIC_WORDS) == METRICS


def test_the_page_offers_distances_and_says_which_one_it_is_by(client: FlaskClient) -> None:
    plain, other = page_of(client, "/search?like=3"), page_of(client, "/search?like=3&metric=cityblock&ranking=kind")
    offered = r'<option value="cityblock"( selected)?>city block</option>'
    assert re.search(offered, plain)
    assert "city block distance" not in plain
    assert "First the" in plain
    selected = re.search(offered, other)
    assert selected is not None
    assert selected[1]
    assert "city block distance" in other
    assert "First the" not in other  # the order is by the distance
    assert re.search(r'href="/images/\d+\?k=24&amp;[^"]*metric=cityblock"', other)


def test_the_page_of_an_image_says_by_which_distance_and_leads_back(client: FlaskClient) -> None:
    page = page_of(client, "/images/1?metric=euclidean&k=12&label=beach")
    nav = re.search(r'aria-label="By which distance">.*?</nav>', page)
    assert nav is not None
    assert re.findall(r'href="([^"]*)"( aria-current="true")?>([^<]*)', nav[0]) == [
        ("/images/1?k=12&amp;label=beach&amp;metric=euclidean", ' aria-current="true"', "euclidean"),
        ("/images/1?k=12&amp;label=beach", "", "cosine"),
    ]
    assert "By which distance" not in page_of(client, "/images/1?k=12")


def test_matches_show_the_distance_that_was_asked_for(client: FlaskClient, service: FakeService) -> None:
    page = page_of(client, "/images/1?metric=euclidean&k=12")
    match = service.search(service.asked[-1]).matches[0]
    assert f'class="rank">1 · {match.distance:.4g}' in page
    assert f"{match.similarity:.2f} ·" not in page


def test_distances_of_shares_are_offered_for_scores_alone(
    client: FlaskClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Jensen" not in page_of(client, "/search?like=3")
    assert "Jensen" in page_of(client, "/search?like=3&metric=jensenshannon")
    status = replace(service.status(), layer="scores")
    monkeypatch.setattr(service, "status", lambda: status)
    assert "Jensen" in page_of(client, "/search?like=3")


def test_an_address_with_the_usual_distance_does_not_say_it(client: FlaskClient) -> None:
    answer = client.get("/search?like=3&metric=&text=&radius=")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/search?like=3")
    assert "metric" not in sheet_address(page_of(client, "/search?like=3&metric=cosine"))


def test_another_picture_keeps_the_distance(client: FlaskClient) -> None:
    page = page_of(client, "/search?like=3&metric=canberra")
    assert re.search(r'<form class="upload".*<input type="hidden" name="metric" value="canberra">', page, re.DOTALL)
