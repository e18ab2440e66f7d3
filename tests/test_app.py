"""Holds the pages, the files of the catalog, the headers and the server process to what they promise."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.serving import make_server

import app as app_module
import web.search
from app import create_app
from commands.serve import address_line, main, server_options
from config import ROOT, Settings
from search import Match
from tests.fakes import NAMES, FakeService, encoded, picture

SETTINGS = Settings(upload_max_bytes=8_000_000, upload_max_pixels=4_000_000, max_results=48)
PAGES = ("/", "/images/1", "/images/3?k=48", "/images/10", "/images/99")


def id_of(name: str) -> int:
    return NAMES.index(name) + 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> FakeService:
    return FakeService(tmp_path_factory.mktemp("photographs"), SETTINGS)


@pytest.fixture(scope="module")
def application(service: FakeService) -> Flask:
    return create_app(service=service)


@pytest.fixture(scope="module")
def client(application: Flask) -> FlaskClient:
    return application.test_client()


class Tags(HTMLParser):
    """The tags of a page, in their order, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_of(client: FlaskClient, address: str) -> str:
    return client.get(address).get_data(as_text=True)


def results_page(client: FlaskClient, content: bytes | None = None, **fields: str) -> str:
    data = {"file": (io.BytesIO(content or encoded(picture(14), quality=30)), "mine.jpg"), **fields}
    return client.post("/search", data=data, follow_redirects=True).get_data(as_text=True)


# Pages.


def test_the_start_page_says_what_is_searched_and_offers_k(client: FlaskClient) -> None:
    page = page_of(client, "/")
    assert f"{len(NAMES)} images · efficientnet_lite0" in page
    assert [option["value"] for option in Tags(page).named("option")] == ["12", "24", "48", "plain", "kind"]
    (chosen,) = [option for option in Tags(page).named("option") if "selected" in option]
    assert chosen["value"] == "24"


def test_the_start_page_offers_images_of_the_collection_to_begin_with(client: FlaskClient) -> None:
    addresses = re.findall(r'href="(/images/\d+)"', client.get("/").text)
    assert len(addresses) == 8
    assert all(client.get(address).status_code == 200 for address in addresses)


def test_an_upload_is_shown_beside_its_nearest_images(client: FlaskClient) -> None:
    tags = Tags(results_page(client, k="12"))
    own, *others = [image for image in tags.named("img") if image["alt"]]
    assert re.fullmatch("/uploads/u[0-9]{22}/thumbnail", str(own["src"]))
    with client.get(str(own["src"])) as answer:
        assert answer.mimetype == "image/jpeg"
    assert others[0]["src"] == "/images/14/thumbnail"
    assert len(others) == 12
    links = [link["href"] for link in tags.named("a")]
    assert "/images/14?k=12" in links


def test_rank_and_similarity_are_shown(client: FlaskClient) -> None:
    assert "1 · 1.00" in results_page(client)


def test_each_match_says_how_many_random_pairs_are_less_alike(client: FlaskClient) -> None:
    page = results_page(client)
    assert re.search(r'title="holiday-14.jpg: closer than 99\.9\d % of random pairs"', page)
    assert "1 · 1.00 · nearly the same" in page


@pytest.mark.parametrize(
    ("share", "said"), [(0.99978, "99.97 %"), (1.0, "99.99 %"), (0.99, "99.00 %"), (0.987, "98 %"), (0.0, "0 %")]
)
def test_a_share_is_never_rounded_up(share: float, said: str) -> None:
    assert app_module._share(share) == said


def places_of(page: str) -> list[list[int]]:
    """The places shown in each grid of matches."""
    grids = re.findall(r'<ol class="matches".*?</ol>', page, re.DOTALL)
    return [[int(place) for place in re.findall(r'class="rank">(\d+) ·', grid)] for grid in grids]


def test_a_page_says_where_the_good_matches_end(
    client: FlaskClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for good, shown in ((None, [12]), (5, [5, 7]), (12, [12]), (0, [12])):
        monkeypatch.setattr(service, "good", good)
        page = page_of(client, "/images/1?k=12")
        assert [len(places) for places in places_of(page)] == shown
        assert ("The good matches end here" in page) == (good == 5)
        assert ("No good match" in page) == (good == 0)
    # In another order than by similarity the line comes after the last good one.
    monkeypatch.setattr(service, "good", 1)
    assert [len(places) for places in places_of(page_of(client, "/images/1?k=12&ranking=kind"))] == [12]


def links_of(page: str, label: str) -> dict[str, bool]:
    """The addresses of a group of choices, and whether each is the one that is shown."""
    group = re.search(rf'<nav class="choices" aria-label="{label}">.*?</nav>', page, re.DOTALL)
    assert group is not None
    return {str(link["href"]): "aria-current" in link for link in Tags(group[0]).named("a")}


def test_order_folder_and_label_are_chosen_by_addresses_that_keep_one_another(client: FlaskClient) -> None:
    page = page_of(client, "/images/3?k=12&ranking=kind&label=beach")
    orders = links_of(page, "In which order")
    assert orders == {
        "/images/3?k=12&label=beach&ranking=plain": False,
        "/images/3?k=12&label=beach&ranking=kind": True,
    }
    assert links_of(page, "Among which images") == {
        "/images/3?k=12&ranking=kind": False,
        "/images/3?k=12&folder=photographs&ranking=kind": False,
        "/images/3?k=12&label=beach&ranking=kind": True,
        "/images/3?k=12&tag=summer&ranking=kind": False,
    }
    assert links_of(page, "How many images")["/images/3?k=24&label=beach&ranking=kind"] is False
    found = [str(link["href"]) for link in Tags(page).named("a") if re.match(r"/images/\d+\?", str(link["href"]))]
    assert found[-2].endswith("?k=12&label=beach&ranking=kind")
    assert found[-1] == "/images/3?k=12&ranking=kind&label=beach&page=2"
    kind = re.findall(r'src="/images/(\d+)/thumbnail"', page)
    assert kind == re.findall(r'src="/images/(\d+)/thumbnail"', page_of(client, "/images/3?k=12&label=beach"))[::-1]


def test_a_filter_from_another_page_is_shown_and_can_be_left(client: FlaskClient) -> None:
    among = links_of(page_of(client, "/images/2?orientation=landscape&min_side=100"), "Among which images")
    assert among["/images/2?k=24&min_side=100&orientation=landscape"] is True
    assert among["/images/2?k=24"] is False
    nothing = page_of(client, "/images/2?folder=elsewhere")
    assert "Nothing is there to be found among folder elsewhere" in nothing


def test_an_upload_keeps_its_order_in_what_it_leads_to(client: FlaskClient, service: FakeService) -> None:
    page = results_page(client, ranking="kind", k="12")
    assert 'href="/images/14?k=12&amp;ranking=kind"' in page
    (chosen,) = [o for o in Tags(page).named("option") if "selected" in o and not str(o["value"]).isdigit()]
    assert chosen["value"] == "kind"


def test_a_service_that_takes_no_pictures_says_why_and_shows_no_form(tmp_path: Path) -> None:
    service = FakeService(tmp_path, SETTINGS, names=NAMES[:9])
    service.refusal = "These vectors came from elsewhere."
    client = create_app(service=service).test_client()
    for address in ("/", "/images/99", "/nothing"):
        page = page_of(client, address)
        assert "These vectors came from elsewhere." in page
        assert not [form for form in Tags(page).named("form") if form["method"] == "post"]
    assert client.post("/search", data={"file": (io.BytesIO(encoded(picture(1))), "x.jpg")}).status_code == 409


def test_an_image_without_a_file_has_a_page_with_its_small_picture(tmp_path: Path) -> None:
    service = FakeService(tmp_path, SETTINGS, names=NAMES[:2])
    service.described[0] = replace(service.image(1), has_file=False, width=None, height=None)
    client = create_app(service=service).test_client()
    page = page_of(client, "/images/1")
    assert "came without one" in page
    assert "/images/1/thumbnail" in page
    assert "/images/1/original" not in page
    for kind in ("view", "original"):
        answer = client.get(f"/images/1/{kind}")
        assert answer.status_code == 404
        assert "There is no file" in answer.text


def test_where_no_small_picture_is_stored_a_placeholder_is_sent(
    client: FlaskClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "thumbnail", lambda image_id: None)
    with client.get("/images/1/thumbnail") as answer:
        assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml")
        assert answer.headers["Cache-Control"] == "private, no-cache"


def test_an_image_has_a_page_with_what_is_known_of_it_and_its_own_neighbours(client: FlaskClient) -> None:
    page = page_of(client, "/images/1?k=12")
    for known in ("beach.jpg", "640 × 480", "JPEG", "2019-08-03 12:01:00", "photographs", "seashore, coast", "81%"):
        assert known in page
    neighbours = [image["src"] for image in Tags(page).named("img") if str(image["src"]).endswith("/thumbnail")]
    assert len(neighbours) == 12
    assert "/images/1/thumbnail" not in neighbours


def test_the_address_of_a_search_leads_to_the_form(client: FlaskClient) -> None:
    answer = client.get("/search")
    assert (answer.status_code, answer.location) == (302, "/")


# Addresses of searches.


def test_several_pictures_are_one_search_and_each_can_be_taken_off_it(client: FlaskClient) -> None:
    files = [(io.BytesIO(encoded(picture(number), quality=40)), f"{number}.jpg") for number in (14, 15)]
    answer = client.post("/search", data={"file": files, "k": "12"})
    assert (answer.status_code, len(re.findall("like=u", answer.location))) == (303, 2)
    page = page_of(client, answer.location)
    assert page.count('alt="The picture you sent"') == 2
    off = [str(link["href"]) for link in Tags(page).named("a") if link.get("class") == "off"]
    assert [len(re.findall("like=u", address)) for address in off] == [1, 1]
    assert all(client.get(address).status_code == 200 for address in off)


def test_a_picture_is_added_to_a_search_with_all_that_it_says(client: FlaskClient) -> None:
    page = page_of(client, "/search?like=3&unlike=5&label=beach&k=12&box=0,0,0.5,1")
    (also,) = [field["value"] for field in Tags(page).named("input") if field.get("name") == "also"]
    data = {"file": (io.BytesIO(encoded(picture(14))), "mine.jpg"), "also": also, "k": "48"}
    address = client.post("/search", data=data).location
    assert re.search(r"[?]like=3&like=u\d{22}&", address)
    for said in ("unlike=5", "label=beach", "k=12", "box=0,0,0.5,1"):
        assert said in address.replace("%2C", ",")


def test_a_box_belongs_to_the_first_picture_and_goes_with_it(client: FlaskClient, service: FakeService) -> None:
    page = page_of(client, "/search?like=3&like=4&unlike=5&box=0,0,0.5,1&radius=1.5")
    assert [example.box is not None for example in service.asked[-1].like] == [True, False]
    first, second, unlike = [str(link["href"]) for link in Tags(page).named("a") if link.get("class") == "off"]
    assert (first, second) == ("/search?like=4&unlike=5&radius=1.5", "/search?like=3&unlike=5&box=0,0,0.5,1&radius=1.5")
    assert "unlike" not in unlike
    alone = page_of(client, "/search?like=3&unlike=5&label=beach&radius=1.5")
    assert re.findall('class="off" href="([^"]*)"', alone)[0] == "/search?label=beach"


def test_words_and_filters_find_images_without_a_picture(client: FlaskClient) -> None:
    page = page_of(client, "/search?text=HOLIDAY+beach&k=12")
    assert "9 images" in page
    shown = re.findall(r'src="/images/(\d+)/thumbnail"', page)
    assert [NAMES[int(number) - 1] for number in shown] == [f"holiday-{number}.jpg" for number in range(13, 31, 2)]
    assert "Nothing found" in page_of(client, "/search?label=nowhere")
    chips = re.search(r'<ul class="chips".*?</ul>', page_of(client, "/search?text=holiday&label=beach"), re.DOTALL)
    assert chips is not None
    assert [link["href"] for link in Tags(chips[0]).named("a")] == ["/search?label=beach", "/search?text=holiday"]


def test_pages_lead_on_and_back_and_end(client: FlaskClient) -> None:
    seen: list[str] = []
    address: str | None = "/search?like=3&k=12"
    while address is not None:
        page = page_of(client, address)
        seen += re.findall(r'<li class="r\d+"><a href="/images/(\d+)', page)
        address = next((str(link["href"]) for link in Tags(page).named("a") if link.get("rel") == "next"), None)
    assert len(seen) == len(set(seen)) == len(NAMES) - 1
    assert ">25 · " in page
    assert (
        next(link["href"] for link in Tags(page).named("a") if link.get("rel") == "prev")
        == "/search?like=3&k=12&page=2"
    )
    for address in (
        "/search?like=3&k=12&page=4",
        "/search?text=holiday&page=9",
        "/search?like=3&page=0",
        "/search?like=3&page=999",
    ):
        assert client.get(address).status_code == 400


def test_empty_fields_of_a_form_do_not_stay_in_the_address(client: FlaskClient) -> None:
    sent = client.get("/search?text=&folder=&like=3&k=12&page=2&image_id=4&ranking=plain&orientation=")
    assert (sent.status_code, sent.location) == (302, "/search?like=4&like=3&k=12")


def test_an_upload_that_is_no_longer_kept_is_said_with_a_form_to_send_it_again(client: FlaskClient) -> None:
    answer = client.get("/search?like=u" + "9" * 22)
    assert answer.status_code == 404
    assert "That picture is forgotten" in answer.text
    assert Tags(answer.text).named("form")


def test_results_are_marked_in_a_form_that_says_the_whole_search(client: FlaskClient) -> None:
    page = page_of(client, "/search?like=3&unlike=5&label=beach&k=12&page=1")
    form = re.search(r'<form class="marking".*?</form>', page, re.DOTALL)
    assert form is not None
    fields = Tags(form[0]).named("input")
    hidden = {(field["name"], field["value"]) for field in fields if field["type"] == "hidden"}
    assert hidden == {("like", "3"), ("unlike", "5"), ("label", "beach"), ("k", "12")}
    boxes = [field for field in fields if field["type"] == "checkbox"]
    assert {field["name"] for field in boxes} == {"like", "unlike"}
    assert all(str(field["aria-label"]).startswith(("More like ", "Less like ")) for field in boxes)


@pytest.mark.parametrize(
    ("size", "named"), [((640, 480), "r135"), ((1600, 200), "r240"), ((120, 1600), "r70"), ((300, 301), "r100")]
)
def test_every_shape_has_a_class_of_the_style_sheet(service: FakeService, size: tuple[int, int], named: str) -> None:
    image = replace(service.image(1), thumbnail_width=size[0], thumbnail_height=size[1])
    assert web.search.shape(image) == named
    style = (ROOT / "static" / "app.css").read_text()
    assert f".{named} {{ --r: {int(named[1:]) / 100:g}; }}" in style


@pytest.mark.parametrize(
    ("similarity", "closer", "said"),
    [
        (0.995, 0.9999, "nearly the same"),
        (0.8, 0.9999, "very alike"),
        (0.8, 0.99, "alike"),
        (0.1, 0.2, "unlike"),
        (0.9, None, ""),
    ],
)
def test_a_similarity_is_put_in_words(service: FakeService, similarity: float, closer: float | None, said: str) -> None:
    assert web.search.meaning(Match(1, similarity, 1 - similarity, closer, service.image(1))) == said


def test_names_that_look_like_html_stay_text(client: FlaskClient) -> None:
    page = page_of(client, f"/images/{id_of(NAMES[2])}")
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_every_picture_has_alt_text_width_and_height(client: FlaskClient) -> None:
    for page in [results_page(client), *(page_of(client, address) for address in PAGES)]:
        for image in Tags(page).named("img"):
            assert {"alt", "width", "height"} <= set(image), image


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(client: FlaskClient) -> None:
    for page in [results_page(client), *(page_of(client, address) for address in PAGES)]:
        for tag, attributes in Tags(page).found:
            assert tag != "style"
            assert tag != "script" or attributes["src"]
            assert not any(name == "style" or name.startswith("on") for name in attributes), attributes
            for name in ("src", "href", "action"):
                assert str(attributes.get(name, "/")).startswith(("/", "#", "data:image/jpeg")), attributes


@pytest.mark.parametrize(
    ("content", "status", "title"),
    [
        (b"", 400, "That file is empty"),
        (b"not a picture", 415, "That is not a picture"),
        (encoded(picture(1))[:3000], 400, "That picture is damaged"),
        (encoded(picture(1, (2500, 1700))), 413, "That picture is too large"),
        (bytes(SETTINGS.upload_max_bytes + 1), 413, "That file is too large"),
    ],
)
def test_a_wrong_upload_gets_a_friendly_page_with_the_form(
    client: FlaskClient, content: bytes, status: int, title: str
) -> None:
    answer = client.post("/search", data={"file": (io.BytesIO(content), "x.jpg")})
    assert answer.status_code == status
    page = answer.get_data(as_text=True)
    assert title in page
    assert Tags(page).named("form")


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("POST", "/search", 400),
        ("GET", "/images/1?k=0", 400),
        ("GET", "/images/99", 404),
        ("GET", "/images/" + "9" * 5000, 404),
        ("GET", "/images/one", 404),
        ("GET", "/images/1/thumbnail/more", 404),
        ("GET", "/images/99/thumbnail", 404),
        ("GET", "/images/99/view", 404),
        ("GET", "/images/-1/original", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%00", 404),
        ("GET", "/%ff%fe", 404),
        ("POST", "/", 405),
    ],
)
def test_other_mistakes_get_a_page_too(client: FlaskClient, method: str, address: str, status: int) -> None:
    answer = client.open(address, method=method)
    assert answer.status_code == status
    assert answer.mimetype == "text/html"
    assert "Lookalike" in answer.get_data(as_text=True)


def test_an_empty_collection_tells_the_command_to_run(tmp_path: Path) -> None:
    client = create_app(service=FakeService(tmp_path, SETTINGS, names=())).test_client()
    for answer in (client.get("/"), client.post("/search", data={"file": (io.BytesIO(encoded(picture(1))), "x.jpg")})):
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert "python img2vec.py" in answer.get_data(as_text=True)


# Uploads stay in memory.


def test_an_upload_of_several_megabytes_never_touches_the_disk(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (1200, 1400, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "PNG")
    assert len(content) > 5_000_000

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("an upload was given a temporary file")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", refuse)
    assert "1,400 × 1,200 pixels" in results_page(client, content)
    assert list(tmp_path.iterdir()) == []


def test_a_body_announced_too_large_is_refused_before_it_is_read(application: Flask) -> None:
    class Unread(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise AssertionError("the body was read")

    announced = {
        "wsgi.input": Unread(),
        "CONTENT_LENGTH": "1000000000",
        "CONTENT_TYPE": "multipart/form-data; boundary=x",
    }
    answer = application.test_client().post("/search", environ_overrides=announced)
    assert answer.status_code == 413


# Files.


@pytest.mark.parametrize("name", ["beach.jpg", "forest.png", NAMES[4], "moving.gif", "wrong-suffix.html"])
def test_what_browsers_show_is_sent_as_it_is(client: FlaskClient, service: FakeService, name: str) -> None:
    image_id = id_of(name)
    answer = client.get(f"/images/{image_id}/view")
    assert answer.data == service.paths[image_id - 1].read_bytes()
    assert answer.mimetype == "image/" + service.image(image_id).format.lower()
    assert answer.headers["Content-Disposition"].startswith("inline")


@pytest.mark.parametrize("name", ["scan.tif", "old.bmp", "archive.jp2"])
def test_what_browsers_do_not_show_is_sent_as_jpeg_of_bounded_size(client: FlaskClient, name: str) -> None:
    answer = client.get(f"/images/{id_of(name)}/view")
    assert answer.mimetype == "image/jpeg"
    assert ".jpg" in answer.headers["Content-Disposition"]
    with Image.open(io.BytesIO(answer.data)) as shown:
        assert shown.format == "JPEG"
        assert max(shown.size) == (2048 if name == "scan.tif" else 640)


@pytest.mark.parametrize("kind", ["thumbnail", "view", "original"])
@pytest.mark.parametrize("name", ["beach.jpg", "scan.tif"])
def test_files_have_an_etag_and_are_not_sent_twice(client: FlaskClient, name: str, kind: str) -> None:
    address = f"/images/{id_of(name)}/{kind}"
    with client.get(address) as first:
        etag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
    with client.get(address, headers={"If-None-Match": etag}) as second:
        assert second.status_code == 304
        assert second.data == b""


def test_the_etag_of_a_file_changes_with_the_file(tmp_path: Path) -> None:
    service = FakeService(tmp_path, SETTINGS, names=NAMES[:1])
    client = create_app(service=service).test_client()
    before = client.get("/images/1/original").headers["ETag"]
    os.utime(service.paths[0], ns=(1, 1))
    assert client.get("/images/1/original").headers["ETag"] != before


@pytest.mark.parametrize("kind", ["thumbnail", "view", "original"])
def test_parts_of_files_can_be_asked_for(client: FlaskClient, kind: str) -> None:
    address = f"/images/1/{kind}"
    with client.get(address) as answer:
        whole = answer.data
    with client.get(address, headers={"Range": "bytes=10-19"}) as answer:
        assert (answer.status_code, answer.data) == (206, whole[10:20])
    with client.get(address, headers={"Range": f"bytes={len(whole)}-"}) as answer:
        assert answer.status_code == 416
    with client.head(address) as answer:
        assert (answer.content_length, answer.data) == (len(whole), b"")


@pytest.mark.parametrize(
    ("name", "saved_as"),
    [
        ("beach.jpg", "filename=beach.jpg"),
        ("wrong-suffix.html", "filename=wrong-suffix.html.jpg"),
        ("two\nlines.jpg", "filename=twolines.jpg"),
        (NAMES[2], "filename*=UTF-8''_b_&_quotes_%20%27n%27%20m%C3%B6we.jpg"),
    ],
)
def test_originals_are_saved_under_a_safe_name_with_a_true_suffix(
    client: FlaskClient, name: str, saved_as: str
) -> None:
    with client.get(f"/images/{id_of(name)}/original") as answer:
        disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment; ")
    assert saved_as in disposition


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "\u202egpj.exe", "\0", "x" * 4000, "\ud83d\ude00" * 100]
)
def test_no_name_whatever_breaks_a_download(tmp_path: Path, name: str) -> None:
    service = FakeService(tmp_path, SETTINGS, names=NAMES[:1])
    valid = name.encode("utf-16", "surrogatepass").decode("utf-16")
    service.described[0] = replace(service.image(1), name=valid)
    client = create_app(service=service).test_client()
    with client.get("/images/1/original") as answer:
        assert answer.status_code == 200
        disposition = answer.headers["Content-Disposition"]
    assert disposition.endswith(".jpg")
    assert not re.search(r"[/\\]|%2F|%5C|%E2%80%AE|\.\.\.jpg", disposition)
    assert client.get("/images/1").status_code == 200


def test_a_file_that_is_gone_or_damaged_is_a_404_with_advice(tmp_path: Path) -> None:
    service = FakeService(tmp_path, SETTINGS, names=("scan.tif", "beach.jpg"))
    client = create_app(service=service).test_client()
    service.paths[0].write_bytes(b"II*\0 and nothing more")
    service.paths[1].unlink()
    for address in ("/images/1/view", "/images/2/view", "/images/2/original"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert "python img2vec.py" in answer.get_data(as_text=True)
        assert str(tmp_path) not in answer.get_data(as_text=True)
    assert client.get("/images/2").status_code == 200


def test_no_part_is_offered_of_an_image_whose_file_is_gone(tmp_path: Path) -> None:
    service = FakeService(tmp_path, SETTINGS, names=("scan.jpg", "beach.jpg"))
    client = create_app(service=service).test_client()
    service.paths[1].unlink()
    assert "data-draw" in client.get("/search?like=1").get_data(as_text=True)
    assert not re.search("data-draw|data-part", client.get("/search?like=2").get_data(as_text=True))


def test_images_without_files_are_named_where_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(tmp_path, SETTINGS, names=("scan.jpg", "beach.jpg"))
    client = create_app(service=service).test_client()
    assert 'class="caption"' not in client.get("/").get_data(as_text=True)
    without = [replace(image, has_file=False) for image in service.some_images(2)]
    monkeypatch.setattr(service, "some_images", lambda count: without)
    assert '<span class="name">beach.jpg</span>' in client.get("/").get_data(as_text=True)


def test_a_page_that_is_not_there_is_said_in_plain_words(application: Flask) -> None:
    page = application.test_client().get("/nothing").get_data(as_text=True)
    assert "mistyped" in page
    assert "URL" not in page


# Headers.


def test_every_answer_has_the_security_headers_and_no_cookie(application: Flask) -> None:
    client = application.test_client()
    rules = [rule.rule for rule in application.url_map.iter_rules()]
    addresses = [rule.replace("<image_id>", "1").replace("<path:filename>", "app.css") for rule in rules]
    for address in [*addresses, "/nothing", "/api/v1/nothing", "/images/99"]:
        with client.get(address) as answer:
            policy = answer.headers["Content-Security-Policy"]
            for directive in ("default-src 'none'", "img-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"):
                assert directive in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Set-Cookie" not in answer.headers
            assert "Cache-Control" in answer.headers


# A running service.


@pytest.fixture
def address(application: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_requests_side_by_side_are_all_answered_and_not_mixed_up(address: str) -> None:
    def ask(number: int) -> int:
        content = encoded(picture(number), quality=40)
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        with urlopen(Request(f"{address}/api/v1/search?k=1", body, headers)) as answer:
            found: bytes = answer.read()
        matched = re.search(rb'"image_id":(\d+)', found)
        assert matched is not None
        return int(matched[1])

    numbers = [13 + turn % 18 for turn in range(72)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, numbers)) == numbers


# The module and the process.


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_app_loads_no_network_library_and_opens_nothing() -> None:
    loaded = run(
        "-c",
        "import app, sys; print([m for m in ('tensorflow', 'keras', 'openvino', 'annoy', 'usearch') if m in sys.modules])",
    )
    assert loaded.stdout.strip() == "[]", loaded.stderr


def test_the_attribute_app_is_made_when_asked_for_and_once(
    monkeypatch: pytest.MonkeyPatch, service: FakeService
) -> None:
    made: list[Flask] = []

    def make() -> Flask:
        made.append(create_app(service=service))
        return made[-1]

    monkeypatch.setattr(app_module, "create_app", make)
    app_module._application.cache_clear()
    try:
        assert app_module.app is app_module.app
    finally:
        app_module._application.cache_clear()
    assert len(made) == 1
    with pytest.raises(AttributeError, match="nothing"):
        _ = app_module.nothing


def test_help_explains_host_port_and_collection() -> None:
    shown = run("app.py", "--help")
    assert shown.returncode == 0
    for option in ("--host", "--port", "--rsc-files"):
        assert option in shown.stdout


def test_gunicorn_takes_the_application_and_the_settings(tmp_path: Path) -> None:
    checked = run(
        *("-m", "gunicorn", "--print-config", "app:app"),
        LOOKALIKE_RSC_FILES=str(tmp_path / "none"),
        LOOKALIKE_PORT="8099",
    )
    assert checked.returncode == 0, checked.stderr
    assert re.search(r"bind\s+= \['127.0.0.1:8099'\]", checked.stdout)
    assert re.search(r"threads\s+= 32", checked.stdout)


def test_a_port_in_use_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--port", port]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [("--port", "eighty"), ("--port", "65536"), ("--host", "no such host"), ("--results", "0")]
)
def test_a_wrong_setting_is_said_and_ends_it(capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]) -> None:
    assert main(wrong) == 1
    said = capsys.readouterr().err
    assert wrong[1] in said
    assert "Traceback" not in said


def test_addresses_of_version_6_are_put_in_brackets() -> None:
    settings = replace(SETTINGS, host="::1")
    assert server_options(settings)["bind"] == "[::1]:8080"
    assert "http://[::1]:8080" in address_line(settings)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return str(unused.getsockname()[1])


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs a Unix")
def test_python_app_py_serves_without_a_collection_until_it_is_stopped(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "app.py", "--port", port, "--rsc-files", str(tmp_path / "none")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert f"http://127.0.0.1:{port}" in line
            with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                assert answer.status == 200
        finally:
            server.send_signal(signal.SIGINT)
            rest = server.communicate(timeout=30)[0]
    assert server.returncode == 0
    assert rest == ""


def test_a_collection_that_cannot_be_opened_ends_it_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "CURRENT").write_text("gen-000009\n")
    ended = run("app.py", "--port", free_port(), "--rsc-files", str(tmp_path))
    assert ended.returncode == 1
    assert "python app.py: " in ended.stderr
    assert "Traceback" not in ended.stderr
