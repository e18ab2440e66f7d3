"""The pages of groups and their part of the API, over a service of a made-up collection; and a person with a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect

import web.groups
from app import create_app
from config import Settings
from publishing import publish_view
from search import SearchService
from search.answers import image_info
from store import Record, name_group, open_writer
from tests.grouped_collection import SIM, add_images, make_collection
from tests.serving import served
from views.grouping import GroupOptions, build_groups
from views.groups import Group
from views.map import MapOptions, build_map

RED, WHITE, BLACK = 1, 9, 21
"""The first image of each kind."""
INFO = image_info(Record(b"/photos/a.jpg", 1, 1, format="JPEG", width=8, height=8, image_id=1), [], [], 256)


def build(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="a test") as writer:
        generation = writer.generation()
        assert generation is not None
        build_groups(writer, generation, GroupOptions(sim=SIM))


def client_of(settings: Settings) -> FlaskClient:
    return create_app(settings, SearchService(settings, load_network=False)).test_client()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a collection in groups, for tests that change nothing."""
    settings = make_collection(tmp_path_factory.mktemp("shared"))
    build(settings)
    return settings


@pytest.fixture
def reader(shared: Settings) -> FlaskClient:
    """Return a client of the shared collection."""
    return client_of(shared)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a collection in groups of one's own."""
    settings = make_collection(tmp_path)
    build(settings)
    return settings


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    """Return a client of a collection of one's own."""
    return client_of(settings)


def page_of(client: FlaskClient, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    return answer.text


def titles(page: str) -> list[str]:
    return re.findall(r'class="title[^"]*">([^<]*)<', page)


def json_of(client: FlaskClient, address: str, status: int = 200) -> dict[str, Any]:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


# Pages.


def test_groups_are_cards_with_their_labels_sizes_and_times(reader: FlaskClient) -> None:
    page = page_of(reader, "/groups")
    assert "3 groups of 36 images" in page
    assert titles(page) == ["black", "white", "red"]
    assert "12 images · 2015-08-01 – 2015-08-12" in page
    assert page.count("<img src=") == 16  # one large and four small of each, and the brand


def test_a_sim_a_least_size_and_an_order_are_addresses(reader: FlaskClient) -> None:
    assert "1 group of 36 images" in page_of(reader, "/groups?sim=0")
    page = page_of(reader, f"/groups?sim={SIM}&min_size=10")
    assert titles(page) == ["black", "white"]
    assert "8 images are in smaller groups" in page
    assert titles(page_of(reader, "/groups?sort=time")) == ["red", "white", "black"]
    assert "No group has 2 images or more" in page_of(reader, "/groups?sim=1")


def test_pages_of_groups_keep_what_was_asked_for(reader: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.groups, "GROUPS_A_PAGE", 2)
    page = page_of(reader, "/groups?min_size=3&sort=time")
    assert titles(page) == ["red", "white"]
    assert 'href="/groups?page=2&amp;min_size=3&amp;sort=time"' in page
    assert titles(page_of(reader, "/groups?page=2&min_size=3&sort=time")) == ["black"]
    assert "There is no page 3: the last one is 2." in page_of(reader, "/groups?page=3", 400)


def test_the_page_of_a_group_shows_all_its_images(reader: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of(reader, f"/groups/{RED}")
    assert "<h1>red</h1>" in page
    assert set(re.findall(r'href="/images/(\d+)" title', page)) == {str(image_id) for image_id in range(1, 9)}
    assert titles(page) == ["black", "white"] or titles(page) == ["white", "black"]
    monkeypatch.setattr(web.groups, "IMAGES_A_PAGE", 5)
    pages = [page_of(reader, f"/groups/{RED}?page={number}") for number in (1, 2)]
    assert [len(re.findall(r'href="/images/\d+" title', page)) for page in pages] == [5, 3]


def test_a_group_leads_to_the_map_where_there_is_one(client: FlaskClient, settings: Settings) -> None:
    assert "/map?group" not in page_of(client, f"/groups/{RED}")
    with open_writer(settings.rsc_files, command="a test") as writer:
        generation = writer.generation()
        assert generation is not None
        publish_view(writer, generation, "map", lambda folder: [], options={}, report={})
    assert re.search(r'href="/map\?group=\d+&amp;sim=0.5"', page_of(client, f"/groups/{RED}"))


@pytest.mark.parametrize(
    ("labels", "seen", "title"),
    [
        ([("dogs", 0.6), ("cats", 0.4)], ["cat"], "dogs"),
        ([("2019", 0.5), ("2020", 0.5)], ["dog, hound", "dog, hound", "cat"], "Looks like dog"),
        ([("2019", 0.5), ("2020", 0.5)], ["dog, hound", "cat"], "2019"),
        ([], ["dog, hound"], "Looks like dog"),
        ([], [], "3 alike"),
    ],
)
def test_a_group_without_a_name_is_called_by_what_most_of_it_is(
    labels: list[tuple[str, float]], seen: list[str], title: str
) -> None:
    group = Group(np.arange(1, 4), None, None, labels, None, None)
    images = [replace(INFO, predicted_labels=[(name, 0.9)]) for name in seen]
    assert web.groups._looks(group, images) == title


def test_a_group_is_called_the_same_on_the_map(
    client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer(settings.rsc_files, command="a test") as writer:
        generation = writer.generation()
        assert generation is not None
        build_map(writer, generation, MapOptions(("date",)))
    client.post(f"/groups/{WHITE}", data={"name": "Snow"})
    monkeypatch.setattr(web.groups, "_looks", lambda group, images: f"{group.size} as {images[0].label}")
    spots = json_of(client, "/api/v1/map")["spots"]
    assert [spot["name"] for spot in spots] == ["Snow", "16 as black", "8 as red"]
    assert json_of(client, f"/api/v1/map/group?image_id={RED}")["name"] == "8 as red"


def test_labels_of_a_few_images_are_not_told_and_most_is_not_all() -> None:
    labels = [("faces", 0.997), ("stapler", 0.003)]
    card = web.groups._card(Group(np.arange(1, 401), None, None, labels, None, None), {})
    assert (card.title, card.labels, card.detail) == ("faces", [("faces", "99%")], "")


def test_a_group_is_named_as_it_is_seen_though_groups_are_made_anew(client: FlaskClient, settings: Settings) -> None:
    page = page_of(client, f"/groups/{RED}")
    assert f'<input type="hidden" name="sim" value="{SIM}">' in page


def test_the_page_says_where_groups_stand_apart(reader: FlaskClient, tmp_path: Path) -> None:
    proposed = json_of(reader, "/api/v1/groups")["proposed_sim"]
    assert f"Back to where groups stand apart best: {proposed:.8g}</a>" in page_of(reader, "/groups")
    assert "Here groups stand apart best" in page_of(reader, f"/groups?sim={proposed}")
    few = make_collection(tmp_path, {"red": 2})
    build(few)
    assert "In the middle: nowhere do groups stand apart" in page_of(client_of(few), "/groups")


def test_the_images_of_a_group_are_in_order_of_how_central_they_are(reader: FlaskClient) -> None:
    wanted = json_of(reader, f"/api/v1/groups/{BLACK}")["image_ids"]
    page = page_of(reader, f"/groups/{BLACK}")
    assert [int(image_id) for image_id in re.findall(r'href="/images/(\d+)" title', page)] == wanted
    assert sorted(wanted) != wanted


def test_the_page_of_an_image_leads_to_its_group(client: FlaskClient, settings: Settings) -> None:
    assert 'href="/groups/9">12 images</a>' in page_of(client, f"/images/{WHITE}")
    client.post(f"/groups/{WHITE}", data={"name": "Snow"})
    assert 'href="/groups/9">Snow</a> <span class="rank">12 images</span>' in page_of(client, f"/images/{WHITE}")


def test_images_that_came_since_are_told_with_the_command(client: FlaskClient, settings: Settings) -> None:
    add_images(settings, {"red": 3}, first=8)
    assert "3 images have come since" in page_of(client, "/groups")
    assert "python clusters.py" in page_of(client, "/groups")
    assert "python clusters.py" in page_of(client, "/groups/37", 404)
    assert "<dt>Group</dt>" not in page_of(client, "/images/37")
    build(settings)
    page = page_of(client, "/groups")
    assert "have come since" not in page
    assert "3 groups of 39 images" in page


def test_images_that_left_while_the_groups_were_served_are_not_shown(client: FlaskClient, settings: Settings) -> None:
    assert titles(page_of(client, "/groups")) == ["black", "white", "red"]
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.remove(range(RED, WHITE))
    assert "/images/1/thumbnail" not in page_of(client, "/groups")
    assert "/images/1/thumbnail" not in page_of(client, f"/groups/{RED}")
    assert json_of(client, f"/api/v1/groups/{RED}")["central"] is None


def test_without_groups_the_page_names_the_command(tmp_path: Path) -> None:
    client = client_of(make_collection(tmp_path))
    assert "python clusters.py" in page_of(client, "/groups", 404)
    assert json_of(client, "/api/v1/groups", 404)["error"]["code"] == "no_view"
    assert "<dt>Group</dt>" not in page_of(client, "/images/1")


# Names.


def test_a_name_given_in_the_page_survives_new_photographs(client: FlaskClient, settings: Settings) -> None:
    answer = client.post(f"/groups/{RED}", data={"name": " Sunset  at sea "})
    assert answer.status_code == 303
    assert "<h1>Sunset at sea</h1>" in page_of(client, answer.headers["Location"])
    add_images(settings, {"red": 9}, first=8)
    build(settings)
    page = page_of(client, "/groups")
    assert titles(page) == ["Sunset at sea", "black", "white"]
    assert "17 images" in page


def test_a_name_is_changed_and_taken_away(client: FlaskClient) -> None:
    client.post(f"/groups/{RED}", data={"name": "Sunset"})
    client.post(f"/groups/{RED}", data={"name": "Dawn"})
    assert titles(page_of(client, "/groups")) == ["black", "white", "Dawn"]
    client.post(f"/groups/{RED}", data={"name": ""})
    client.post(f"/groups/{RED}", data={"name": ""})  # there is none to take away
    assert titles(page_of(client, "/groups")) == ["black", "white", "red"]


def test_a_group_of_another_sim_is_named_there_and_led_back_to(client: FlaskClient) -> None:
    client.post(f"/groups/{RED}", data={"name": "Sunset"})
    answer = client.post(f"/groups/{RED}", data={"name": "Everything", "sim": "0"})
    assert answer.headers["Location"].endswith("?sim=0")
    assert titles(page_of(client, "/groups?sim=0")) == ["Everything"]
    assert titles(page_of(client, "/groups")) == ["black", "white", "Sunset"]  # each cut has its own names


def test_a_name_that_no_group_has_here_is_led_to_where_one_has(client: FlaskClient, settings: Settings) -> None:
    assert "at other places of the slider" not in page_of(client, "/groups")
    client.post(f"/groups/{RED}?sim=0", data={"name": "Light & dark"})
    page = page_of(client, "/groups")
    assert "at other places of the slider" in page
    found = re.search(r'<a href="(/groups/\d+\?sim=[\d.]+)"><bdi>Light &amp; dark</bdi></a>', page)
    assert found is not None
    assert "<h1>Light &amp; dark</h1>" in page_of(client, found[1])
    (named,) = json_of(client, "/api/v1/groups")["named_elsewhere"]
    assert (named["name"], named["page_url"]) == ("Light & dark", found[1])
    assert json_of(client, f"/api/v1/groups?sim={named['sim']}")["named_elsewhere"] == []
    name_group(settings.rsc_files, "Light & dark", [RED, WHITE, BLACK], group_id=1)  # together in no cut
    assert "<bdi>Light &amp; dark</bdi> (3 images, no longer a group)" in page_of(client, "/groups")


def test_a_name_that_cannot_be_given_is_refused(client: FlaskClient) -> None:
    page = client.post(f"/groups/{RED}", data={"name": "x" * 101})
    assert (page.status_code, "That is no name or tag" in page.text) == (400, True)
    answer = client.post("/api/v1/groups/1/name", json={"name": "x" * 101})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "bad_note")
    assert titles(page_of(client, "/groups")) == ["black", "white", "red"]


def test_names_are_text_and_never_markup(client: FlaskClient) -> None:
    client.post(f"/groups/{RED}", data={"name": "<b>'\"&"})
    for address in ("/groups", f"/groups/{RED}", f"/images/{RED}"):
        assert "<b>" not in page_of(client, address)
        assert "&lt;b&gt;" in page_of(client, address)


def test_where_edits_are_off_nothing_is_named_and_no_form_offers_it(shared: Settings) -> None:
    client = client_of(replace(shared, edits="off"))
    assert "<form" not in page_of(client, f"/groups/{RED}")
    assert client.post(f"/groups/{RED}", data={"name": "Sunset"}).status_code == 403
    assert client.post(f"/api/v1/groups/{RED}/name", json={"name": "Sunset"}).status_code == 403
    assert client.delete(f"/api/v1/groups/{RED}/name").status_code == 403
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert client_of(shared).post(f"/groups/{RED}", data={"name": "x"}, headers=elsewhere).status_code == 403


# The API.


def test_the_api_lists_groups_with_the_state_of_the_list(reader: FlaskClient) -> None:
    found = json_of(reader, f"/api/v1/groups?sim={SIM}&min_size=10&sort=time")
    results = found.pop("results")
    proposed = found.pop("proposed_sim")
    assert 0 < proposed < 1
    assert found == {
        "sim": SIM,
        "method": "full",
        "min_size": 10,
        "sort": "time",
        "groups": 2,
        "grouped_images": 28,
        "images_alone": 8,
        "images_not_grouped_yet": 0,
        "named_elsewhere": [],
        "page": 1,
        "pages": 1,
    }
    first = results[0]
    assert (first["size"], first["name"], first["title"]) == (12, None, "white")
    assert first["labels"] == [{"name": "white", "share": 1.0}]
    assert (first["taken_from"], first["taken_until"]) == ("2015-08-01T12:00:00", "2015-08-12T12:00:00")
    assert first["central"]["image_id"] == first["image_id"]
    assert json_of(reader, first["url"])["size"] == 12
    assert page_of(reader, first["page_url"])


def test_the_api_describes_the_group_of_an_image(reader: FlaskClient) -> None:
    found = json_of(reader, f"/api/v1/groups/{RED}?sim={SIM}")
    assert sorted(found["image_ids"]) == list(range(1, 9))
    assert [image["image_id"] for image in found["images"]] == found["image_ids"]
    assert json_of(reader, f"/api/v1/groups/{RED}?sim=1")["image_ids"] == [RED]
    assert json_of(reader, f"/api/v1/groups/{RED}?sim=0")["url"].endswith("?sim=0")


def test_the_api_names_groups(client: FlaskClient) -> None:
    answer = client.post(f"/api/v1/groups/{RED}/name", json={"name": "Sunset", "sim": SIM})
    assert (answer.status_code, answer.get_json()["name"]) == (200, "Sunset")
    assert json_of(client, "/api/v1/groups")["results"][2]["name"] == "Sunset"
    answer = client.delete(f"/api/v1/groups/{RED}/name")
    assert (answer.status_code, answer.get_json()["name"]) == (200, None)


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("/api/v1/groups?sim=2", 400, "bad_option"),
        ("/api/v1/groups?sim=nan", 400, "bad_request"),
        ("/api/v1/groups?sim=close", 400, "bad_request"),
        ("/api/v1/groups?min_size=0", 400, "bad_request"),
        ("/api/v1/groups?sort=beauty", 400, "bad_option"),
        ("/api/v1/groups?page=9", 400, "bad_option"),
        ("/api/v1/groups?simm=0.3", 400, "bad_request"),
        ("/api/v1/groups/999", 404, "unknown_image"),
        ("/api/v1/groups/first", 404, "unknown_image"),
        ("/api/v1/groups/1?page=2", 400, "bad_option"),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_one_shape(
    reader: FlaskClient, address: str, status: int, code: str
) -> None:
    error = json_of(reader, address, status)["error"]
    assert (error["status"], error["code"]) == (status, code)
    assert error["message"]
    assert reader.get(address.replace("/api/v1", "").replace("simm=0.3", "sim=7")).status_code == status


def test_a_name_is_required_to_name(reader: FlaskClient) -> None:
    assert reader.post(f"/api/v1/groups/{RED}/name", json={}).get_json()["error"]["code"] == "bad_option"
    assert reader.post(f"/api/v1/groups/{RED}/name", json={"name": 7}).get_json()["error"]["code"] == "bad_request"


# With a browser.


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return where a collection of its own is served."""
    settings = make_collection(tmp_path_factory.mktemp("served"))
    build(settings)
    service = SearchService(settings, load_network=False)
    with served(create_app(settings, service)) as address:
        yield address
    service.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Return the page of groups; afterwards the browser may not have complained."""
    complaints: list[str] = []
    with browser.new_context(base_url=address, viewport={"width": 1280, "height": 800}) as context:
        context.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        opened = context.new_page()
        opened.goto("/groups")
        yield opened
        assert complaints == []


@pytest.mark.browser
def test_the_slider_cuts_anew_in_place_and_back_shows_the_cut_before(page: Page) -> None:
    expect(page.locator(".cards li")).to_have_count(3)
    expect(page.get_by_role("button", name="Show")).to_be_hidden()
    slider = page.get_by_label("How alike a group has to be")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("heading", level=1)).to_have_text("1 group of 36 images")
    expect(page).to_have_url(re.compile("sim=0&"))
    expect(page.locator(".cards li")).to_have_count(1)
    expect(slider).to_be_focused()
    expect(page.locator("output")).to_have_text("0")
    page.locator(".cards a").click()
    expect(page.locator(".members li")).to_have_count(36)
    page.go_back()
    expect(page.locator(".cards li")).to_have_count(1)
    expect(slider).to_have_value("0")
    page.go_back()
    expect(page.locator(".cards li")).to_have_count(3)
    expect(slider).to_have_value(str(SIM))


@pytest.mark.browser
def test_a_least_size_keeps_a_sim_between_two_places_of_the_slider(page: Page) -> None:
    page.goto("/groups?sim=0.5004")
    page.get_by_label("At least").fill("10")
    page.get_by_label("At least").press("Enter")
    expect(page.locator(".cards li")).to_have_count(2)
    expect(page).to_have_url(re.compile("sim=0.5004&min_size=10"))


@pytest.mark.browser
def test_a_group_is_named_in_its_page(page: Page) -> None:
    page.get_by_role("link", name="white").click()
    expect(page.locator(".members li")).to_have_count(12)
    page.get_by_label("Name of this group").fill("Snow")
    page.get_by_role("button", name="Name it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Snow")
    page.get_by_role("link", name="All groups").click()
    expect(page.locator(".title.named")).to_have_text("Snow")


@pytest.mark.browser
def test_groups_are_cut_and_named_without_javascript(browser: Browser, address: str) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/groups?sim=0.5")
        page.get_by_label("At least").fill("15")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".cards li")).to_have_count(1)
        page.locator(".cards a").click()
        page.get_by_label("Name of this group").fill("Night")
        page.get_by_role("button", name="Name it").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Night")
        expect(page.locator(".members li")).to_have_count(16)
        page.get_by_role("link", name="All groups").click()
        expect(page).to_have_url(re.compile("min_size=15"))


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_of_groups_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    beyond = """() => [...document.querySelectorAll("main *")]
        .filter((element) => element.getBoundingClientRect().right > innerWidth + 1).length"""
    for path in ("/groups", "/groups?sim=0", "/groups/9", "/groups/9?sim=1", "/images/9"):
        page.goto(path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(beyond) == 0, path
