"""Labels are given, renamed and taken in the pages and by the API, and the collection learns from them where it may change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, expect

from app import create_app
from config import Settings
from evaluation import read_labels
from search import SearchService
from store import given_labels, label_images, open_store, open_writer
from tests.grouped_collection import KINDS, make_collection
from tests.serving import served
from tests.test_accessibility import SIZES, complaints
from tests.test_browser import Watch
from tests.test_web_map import build_views
from web.shapes import LearnedAnswer

TOKEN = "a-token-to-change-with"
CHANGING = {"Authorization": f"Bearer {TOKEN}"}
RED, WHITE, BLACK = range(1, 9), range(9, 21), range(21, 37)
"""The ids of each kind, which is also the name of its folder."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_collection(tmp_path)


def serve(settings: Settings, **change: object) -> FlaskClient:
    changed = replace(settings, **change)  # type: ignore[arg-type]
    return create_app(service=SearchService(changed, load_network=False)).test_client()


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return serve(settings)


def given(settings: Settings) -> dict[int, str]:
    return given_labels(open_store(settings.rsc_files))


# Giving and taking.


def test_an_image_is_labelled_on_its_page_and_the_label_is_taken_away_there(client: FlaskClient) -> None:
    before = client.get("/images/3").text
    assert 'aria-label="This is a picture of"' in before
    assert 'value="label" aria-label="Take' not in before
    sent = {"image_ids": 3, "as": " a <b>harbour</b>".replace("/", "|"), "next": "/images/3?k=4"}
    answer = client.post("/labels/give", data=sent)
    assert (answer.status_code, answer.location) == (303, "/images/3?k=4")
    page = client.get("/images/3").text
    assert "a &lt;b&gt;harbour&lt;|b&gt;</a>" in page
    assert 'aria-label="Take the label a &lt;b&gt;harbour&lt;|b&gt; away"' in page
    client.post("/labels/give", data={"image_ids": 3, "take": "label"})
    assert client.get("/api/v1/images/3").get_json()["label"] == "red"
    assert 'aria-label="Take the label' not in client.get("/images/3").text


def test_marked_images_are_labelled_but_not_what_was_searched_with(client: FlaskClient, settings: Settings) -> None:
    sent = {"like": [1, 4, 5], "unlike": [2, 30, 31], "as": "rose", "other_as": "coal"}
    client.post(f"/labels/give?searched={quote('like=1&unlike=2&k=5')}&next=/", data=sent)
    assert given(settings) == {4: "rose", 5: "rose", 30: "coal", 31: "coal"}


def test_what_shall_be_unlike_needs_no_label(client: FlaskClient, settings: Settings) -> None:
    client.post("/labels/give", data={"like": [4], "unlike": [30], "as": "rose", "other_as": ""})
    assert given(settings) == {4: "rose"}


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ({"like": 4}, "1 to 100 printable"),
        ({"like": 4, "as": "../cats"}, "looks like a path"),
        ({"like": 4, "unlike": 9, "as": "rose", "other_as": "a/b"}, "looks like a path"),
        ({"as": "rose"}, "No picture is selected"),
    ],
)
def test_a_form_that_makes_no_sense_labels_nothing(
    client: FlaskClient, settings: Settings, sent: dict[str, object], complaint: str
) -> None:
    answer = client.post("/labels/give", data=sent)
    assert (answer.status_code, complaint in answer.text) == (400, True)
    assert given(settings) == {}


def test_searching_with_likes_asks_whether_they_are_labels_and_keeps_none_by_itself(
    client: FlaskClient, settings: Settings
) -> None:
    address = "/search?like=1&like=2&unlike=30&k=4"
    page = client.get(address).text
    asked = re.search(r"Keep these as labels\?.*?</form>", page, re.DOTALL)
    assert asked is not None
    fields = re.findall(r'name="(image_ids|other_ids)" value="(\d+)"', asked[0])
    assert fields == [("image_ids", "1"), ("image_ids", "2"), ("other_ids", "30")]
    assert given(settings) == {}
    client.post(
        "/labels/give", data={"image_ids": [1, 2], "other_ids": 30, "as": "rose", "other_as": "", "next": address}
    )
    assert given(settings) == {1: "rose", 2: "rose"}
    assert "Keep these as labels?" not in client.get("/search?like=1&k=4").text


def test_afterwards_one_is_led_nowhere_but_to_this_service(client: FlaskClient) -> None:
    for address in ("//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere.example"):
        assert client.post("/labels/give", data={"image_ids": 1, "as": "x", "next": address}).location == "/"


def test_a_label_is_known_everywhere_at_once(client: FlaskClient) -> None:
    assert "tulip" not in client.get("/browse/labels").text
    client.post("/labels/give", data={"image_ids": 1, "as": "tulip"})
    for address in ("/browse/labels", "/labels", "/search?like=1", "/images/9", "/search?label=tulip"):
        assert "tulip" in client.get(address).text, address
    told = client.get("/api/v1/labels").get_json()
    assert told["by_people"] == [{"name": "tulip", "images": 1}]
    assert {"name": "tulip", "images": 1} in told["given"]


def test_all_of_a_group_or_some_of_it_are_labelled(settings: Settings) -> None:
    build_views(settings)
    client = serve(settings)
    assert "Label of all its 8 images" in client.get("/groups/1?sim=0.5").text
    client.post("/labels/give", data={"group": 1, "sim": 0.5, "as": "rose"})
    assert given(settings) == dict.fromkeys(RED, "rose")
    assert "<h1>rose" in client.get("/groups/1?sim=0.5").text
    page = client.get("/images/choose?group=1&sim=0.5").text
    assert re.findall(r'name="image_ids" value="(\d+)"', page) == [str(number) for number in RED]
    client.post("/labels/give", data={"image_ids": [1, 2], "take": "label"})
    assert given(settings) == dict.fromkeys(range(3, 9), "rose")
    client.post("/labels/give", data={"image_ids": [3], "as": "rose garden"})
    for sought, there in (("ROS", range(3, 9)), ("rose", range(4, 9)), ("red", [1, 2])):
        assert client.get(f"/api/v1/map/found?q={sought}").get_json()["image_ids"] == list(there), sought


def test_a_label_is_renamed_and_taken_from_all(client: FlaskClient, settings: Settings) -> None:
    label_images(settings.rsc_files, "rose", [1, 2])
    label_images(settings.rsc_files, "coal", [30])
    client.post("/labels/rename", data={"label": "rose", "name": "tulip"})
    assert given(settings) == {1: "tulip", 2: "tulip", 30: "coal"}
    client.post("/labels/rename", data={"label": "tulip", "name": "tulip", "remove": "label"})
    assert given(settings) == {30: "coal"}
    assert client.post("/labels/rename", data={"label": "tulip", "name": "x"}).status_code == 400


def test_the_labels_leave_as_a_table_that_is_read_again(
    client: FlaskClient, settings: Settings, tmp_path: Path
) -> None:
    label_images(settings.rsc_files, 'a "red", one', [1, 2])
    label_images(settings.rsc_files, "coal", [30])
    answer = client.get("/labels.csv")
    (tmp_path / "labels.csv").write_bytes(answer.data)
    records = list(open_store(settings.rsc_files).all_records())
    labels, missing = read_labels(tmp_path / "labels.csv", records)
    read = {record.image_id: label for record, label in zip(records, labels, strict=True) if label is not None}
    assert (read, missing) == (given(settings), 0)


def test_where_edits_are_off_there_is_no_form_and_no_way_round_it(settings: Settings) -> None:
    client = serve(settings, edits="off")
    for address in ("/images/3", "/search?like=1&like=2", "/search?label=red", "/labels"):
        assert "/labels/give" not in client.get(address).text, address
    for method, address in (
        ("POST", "/labels/give"),
        ("POST", "/labels/rename"),
        ("GET", "/labels.csv"),
        ("GET", "/images/choose"),
        ("POST", "/api/v1/labels"),
        ("DELETE", "/api/v1/labels"),
    ):
        assert client.open(address, method=method, json={} if method != "GET" else None).status_code == 403, address


def test_the_api_gives_and_takes_labels(client: FlaskClient, settings: Settings) -> None:
    answer = client.post("/api/v1/labels", json={"label": " a  rose", "image_ids": [2, 1, 9_999]})
    assert answer.get_json() == {"label": "a rose", "image_ids": [1, 2]}
    answer = client.delete("/api/v1/labels", json={"image_ids": [2, 3]})
    assert answer.get_json() == {"taken": 1, "image_ids": [2, 3]}
    assert given(settings) == {1: "a rose"}
    for body, code in (
        ({"label": "../x", "image_ids": [1]}, "bad_note"),
        ({"tag": "x", "image_ids": [1]}, "bad_request"),
    ):
        assert client.post("/api/v1/labels", json=body).get_json()["error"]["code"] == code


# Learning.


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, "none is there yet"),
        ({"rose": [1]}, "none is there yet, and 1 label with a single picture"),
        ({"rose": [1, 2], "coal": [30]}, "one is there, and 1 label with a single picture"),
        ({"rose": [1, 2], "coal": [30, 31], "snow": [9]}, "“snow” has a single picture and is left out"),
    ],
)
def test_the_page_says_what_can_be_learnt_and_what_is_missing(
    settings: Settings, labels: dict[str, list[int]], said: str
) -> None:
    for label, image_ids in labels.items():
        label_images(settings.rsc_files, label, image_ids)
    page = serve(settings, changes="on", edit_token=TOKEN).get("/labels", headers=CHANGING).text
    assert said in page
    button = re.search(r"<button[^>]*>Learn from these labels", page)
    assert button is not None
    assert ("disabled" in button[0]) == ("left out" not in said)


def label_some(settings: Settings) -> None:
    for label, ids in (("rose", RED), ("snow", WHITE), ("coal", BLACK)):
        label_images(settings.rsc_files, label, ids[: len(ids) // 2])


def test_what_was_learnt_is_told_and_can_be_undone(settings: Settings) -> None:
    label_some(settings)
    client = serve(settings, changes="on", edit_token=TOKEN)
    answer = client.post("/labels/learn", headers=CHANGING)
    assert (answer.status_code, answer.location) == (303, "/labels#learned")
    page = client.get("/labels", headers=CHANGING).text
    assert "18 pictures of 3 labels taught" in page
    assert "Those were other labels" not in page
    learned = client.post("/api/v1/jobs/learn", headers=CHANGING).get_json()
    assert (learned["classes"], learned["trained"]) == ({"rose": 4, "snow": 6, "coal": 8}, False)
    assert set(learned) == set(LearnedAnswer.__annotations__)
    label_images(settings.rsc_files, "rose", [5])
    assert "Those were other labels" in client.get("/labels", headers=CHANGING).text
    assert client.post("/labels/forget", headers=CHANGING).location == "/labels#learn"
    assert "What was learnt" not in client.get("/labels", headers=CHANGING).text
    assert client.post("/api/v1/jobs/forget", headers=CHANGING).get_json() == {"reducer": None}
    assert given(settings)[5] == "rose"


def test_groups_and_map_say_that_they_are_older_than_what_was_learnt(settings: Settings) -> None:
    build_views(settings)
    label_some(settings)
    client = serve(settings)
    for address, is_old in (("/labels/learn", True), ("/labels/forget", False)):
        assert client.post(address).status_code == 303
        for page in ("/groups", "/map"):
            assert ("older than what the collection was last taught" in client.get(page).text) == is_old, page


def test_nothing_is_learnt_where_no_labels_are_taken(settings: Settings) -> None:
    label_some(settings)
    client = serve(settings, edits="off")
    assert "python autoencoder.py --reducer projection" in client.get("/labels").text
    for address in ("/labels/learn", "/labels/forget", "/api/v1/jobs/learn", "/api/v1/jobs/forget"):
        answer = client.post(address)
        assert (answer.status_code, "does not take names, tags and labels" in answer.text) == (403, True)


def test_whoever_may_give_labels_may_learn_from_them(settings: Settings) -> None:
    label_some(settings)
    client = serve(settings)
    assert re.search(r"<button[^>]*>Learn from these labels", client.get("/labels").text)
    assert client.post("/labels/learn", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/labels/learn").status_code == 303
    assert client.post("/labels/forget").status_code == 303


def test_labels_that_teach_nothing_and_a_job_at_work_are_told(settings: Settings) -> None:
    client = serve(settings, changes="on", edit_token=TOKEN)
    answer = client.post("/api/v1/jobs/learn", headers=CHANGING)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "bad_labels")
    label_some(settings)
    with open_writer(settings.rsc_files, command="a test"):
        answer = client.post("/labels/learn", headers=CHANGING)
    assert (answer.status_code, "Another job" in answer.text) == (409, True)


# In a browser.


@pytest.fixture
def address(settings: Settings) -> Iterator[str]:
    with served(create_app(service=SearchService(settings, load_network=False))) as address:
        yield address


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_marked_and_chosen_images_are_labelled_without_leaving_the_page(
    browser: Browser, address: str, settings: Settings, width: int
) -> None:
    with browser.new_context(base_url=address, viewport={"width": width, "height": 800}) as context:
        watch, page = Watch(context), context.new_page()
        page.goto("/search?like=1&k=5")
        page.locator(".marks [name=like]").nth(0).check()
        page.locator(".marks [name=unlike]").nth(1).check()
        marked = [page.locator(f".marks [name={name}]:checked").input_value() for name in ("like", "unlike")]
        page.get_by_text("Label …").click()
        page.get_by_label("Those marked −").fill("not a rose")
        page.get_by_label("Those marked +").fill("rose")
        page.keyboard.press("Enter")
        expect(page.get_by_text("1 labelled “rose”, 1 labelled “not a rose”.")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert given(settings) == {int(marked[0]): "rose", int(marked[1]): "not a rose"}

        page.goto("/search?label=black")
        page.get_by_role("link", name="Choose some to label").click()
        page.get_by_role("button", name="Choose all").click()
        page.get_by_label("They are pictures of").fill("coal")
        page.get_by_role("button", name="Label them").click()
        expect(page.get_by_text(f"{KINDS['black']} labelled “coal”.")).to_be_visible()
        expect(page.get_by_text("0 images chosen")).to_be_visible()
        expect(page.locator("[data-label-of]").first).to_have_text("coal")
        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Take labels away").click()
        expect(page.get_by_text("1 label taken away.")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert watch.complaints == []
    assert sum(label == "coal" for label in given(settings).values()) == KINDS["black"] - 1


@pytest.mark.browser
def test_marked_images_are_labelled_without_scripts(browser: Browser, address: str, settings: Settings) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/search?like=1&k=5")
        page.locator(".marks [name=like]").nth(0).check(force=True)
        page.get_by_text("Label …").click()
        page.get_by_label("Those marked +").fill("rose")
        page.get_by_role("button", name="Keep").click()
        page.wait_for_url("**/search?like=1&k=5")
    assert list(given(settings).values()) == ["rose"]
    assert 1 not in given(settings)


@pytest.mark.browser
def test_axe_finds_nothing_serious_on_the_page_of_what_was_learnt(browser: Browser, settings: Settings) -> None:
    label_some(settings)
    changing = replace(settings, changes="on", edit_token=TOKEN)
    with served(create_app(service=SearchService(changing, load_network=False))) as address:
        context = browser.new_context(base_url=address, bypass_csp=True, extra_http_headers=CHANGING)
        with context:
            page = context.new_page()
            page.goto("/labels")
            page.get_by_role("button", name="Learn from these labels").click()
            expect(page.get_by_role("heading", name="What was learnt")).to_be_visible()
            page.get_by_text("Change", exact=False).first.click()
            for size in SIZES.values():
                page.set_viewport_size(size)
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    assert complaints(page) == []
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.get_by_role("button", name="Back to the network").click()
            expect(page.get_by_role("button", name="Learn from these labels")).to_be_enabled()
