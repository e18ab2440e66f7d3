"""Why an image was found, as a page, a part of the API and a dialog; and what the page of an image knows besides."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from app import create_app
from config import Settings
from img2vec import Job, index_images
from search import SearchService
from store import open_writer
from tests import fake_backbone
from tests.fakes import FakeService, encoded, picture
from tests.grouped_collection import make_collection
from tests.serving import served
from views.map import MapOptions, build_map


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(tmp_path, Settings())


@pytest.fixture
def client(service: FakeService) -> FlaskClient:
    return create_app(service=service).test_client()


def upload(client: FlaskClient) -> str:
    """Send a picture and return its key."""
    answer = client.post("/search", data={"file": (io.BytesIO(encoded(picture(14))), "x.jpg")})
    return str(re.findall(r"like=(u[\w-]{22})", answer.location)[0])


# The API.


def test_both_pictures_have_their_heat(client: FlaskClient) -> None:
    answer = client.get("/api/v1/images/2/heatmap?like=5")
    told = answer.get_json()
    assert (answer.status_code, told["image_id"], told["like"], told["agreement"]) == (200, 2, 5, 0.5)
    assert told["of_image"]["rows"][1][2] == told["of_like"]["rows"][2][1] == 0.5
    assert told["of_image"]["picture_url"] == "/images/2/thumbnail"
    assert told["of_like"]["picture_url"] == "/images/5/thumbnail"
    for side in ("of_image", "of_like"):
        with client.get(told[side]["overlay_url"]) as overlay:
            assert overlay.mimetype == "image/png"
            drawn = Image.open(io.BytesIO(overlay.data))
        assert drawn.width / drawn.height == pytest.approx(told[side]["width"] / told[side]["height"], rel=0.02)


def test_a_kept_upload_can_be_compared(client: FlaskClient) -> None:
    key = upload(client)
    told = client.get(f"/api/v1/images/2/heatmap?like={key}").get_json()
    assert told["like"] == key
    assert told["of_like"]["picture_url"] == f"/uploads/{key}/thumbnail"
    assert client.get(told["of_like"]["overlay_url"]).status_code == 200


def test_the_heat_of_a_part_lies_in_that_part(client: FlaskClient) -> None:
    told = client.get("/api/v1/images/2/heatmap?like=5&box=0,0,0.5,0.5").get_json()
    assert (told["of_like"]["box"], told["of_image"]["box"]) == ([0, 0, 0.5, 0.5], None)
    with client.get(told["of_like"]["overlay_url"]) as overlay:
        opacity = Image.open(io.BytesIO(overlay.data)).getchannel("A")
        drawn = np.asarray(opacity)
    height, width = drawn.shape
    assert drawn[: height // 2, : width // 2].min() == drawn.min()
    assert drawn[height // 2 + 6 :, width // 2 + 6 :].min() > drawn.min()


def test_an_overlay_is_asked_for_once(client: FlaskClient) -> None:
    address = "/api/v1/images/2/heatmap.png?like=5"
    with client.get(address) as first:
        etag = first.headers["ETag"]
    with client.get(address, headers={"If-None-Match": etag}) as again:
        assert (again.status_code, again.data) == (304, b"")


def test_a_heat_map_of_nothing_says_in_which_field_to_name_the_other(client: FlaskClient) -> None:
    answer = client.get("/api/v1/images/2/heatmap")
    assert answer.status_code == 400
    assert "like=9" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ("2/heatmap", 400, "bad_option"),
        ("2/heatmap?like=5&like=6", 400, "bad_option"),
        ("2/heatmap?like=five", 400, "bad_request"),
        ("2/heatmap?like=999", 404, "unknown_image"),
        ("2/heatmap?like=uAAAAAAAAAAAAAAAAAAAAAA", 404, "upload_gone"),
        ("999/heatmap?like=5", 404, "unknown_image"),
        ("2/heatmap?like=5&box=1,1,0,0", 400, "bad_query"),
        ("2/heatmap?like=5&colour=red", 400, "bad_request"),
        ("2/heatmap.png?like=5&of=both", 400, "bad_option"),
    ],
)
def test_what_cannot_be_compared_is_refused(client: FlaskClient, asked: str, status: int, code: str) -> None:
    answer = client.get(f"/api/v1/images/{asked}")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (status, code)


# The page.


def test_a_page_shows_each_picture_that_was_searched_with(client: FlaskClient) -> None:
    key = upload(client)
    page = client.get(f"/images/2/why?like={key}&like=5").text
    assert page.count("<figure>") == 4
    assert page.count('class="over"') == 4
    assert "your picture" in page
    assert "/images/2/thumbnail" in page


def test_of_many_pictures_the_first_are_shown(client: FlaskClient) -> None:
    page = client.get("/images/2/why?" + "&".join(f"like={number}" for number in range(3, 13))).text
    assert page.count("<figure>") == 12
    assert "4 more were searched with" in page


def test_every_result_leads_to_its_reasons(client: FlaskClient) -> None:
    page = client.get("/search?like=5&k=12").text
    reasons = re.findall(r'href="(/images/\d+/why\?[^"]+)" data-why', page)
    assert len(reasons) == 12
    assert client.get(reasons[0].replace("&amp;", "&")).status_code == 200


def test_where_no_network_is_no_reasons_are_offered(client: FlaskClient, service: FakeService) -> None:
    service.refusal = "These vectors came from elsewhere."
    assert "data-why" not in client.get("/search?like=5&k=12").text


@pytest.fixture
def page(browser: Browser, service: FakeService) -> Iterator[Page]:
    with served(create_app(service=service)) as address, browser.new_context(base_url=address) as context:
        yield context.new_page()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_dialog_shows_why_and_closes_by_keyboard(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/images/5?k=12")
    page.locator("a[data-why]").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Why this result?")
    expect(dialog).to_be_visible()
    expect(dialog.locator("img")).to_have_count(4)
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    expect(dialog.locator(".over").first).to_have_css("opacity", "1")
    dialog.get_by_label("Show the pictures alone").check()
    expect(dialog.locator(".over").first).to_have_css("opacity", "0")
    box = dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).to_have_url(re.compile(r"/images/5\?k=12$"))
    expect(page.locator("a[data-why]").first).to_be_focused()


@pytest.mark.browser
def test_without_a_script_the_reasons_are_a_page(browser: Browser, service: FakeService) -> None:
    with (
        served(create_app(service=service)) as address,
        browser.new_context(base_url=address, java_script_enabled=False) as context,
    ):
        page = context.new_page()
        page.goto("/images/5?k=12")
        page.locator("a[data-why]").first.focus()
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"/images/\d+/why\?like=5$"))
        expect(page.get_by_role("heading", level=1)).to_contain_text("Why")
        expect(page.locator("figure img")).to_have_count(4)


# What else the page of an image knows.


def test_the_camera_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backbone.install(monkeypatch)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS <b>5D</b>"
    exif.get_ifd(0x8769)[0x8827] = 400
    picture(1).save(tmp_path / "noted.jpg", exif=exif)
    settings = Settings(rsc_files=tmp_path / "rsc", backbone="efficientnet_lite0", run_folder=tmp_path / "run")
    index_images(Job(settings, [os.fsencode(tmp_path / "noted.jpg")]))
    client = create_app(settings, SearchService(settings, load_network=False)).test_client()
    page = client.get("/images/1").text
    assert "Canon EOS &lt;b&gt;5D&lt;/b&gt;" in page
    assert "ISO 400" in page


def test_a_file_that_is_gone_is_said_to_be_and_its_small_picture_is_shown(
    client: FlaskClient, service: FakeService
) -> None:
    assert "/images/1/original" in client.get("/images/1").text
    service.paths[0].unlink()
    page = client.get("/images/1").text
    assert "not where it was indexed" in page
    assert 'src="/images/1/thumbnail"' in page
    assert "/images/1/original" not in page
    assert "/images/1/view" not in page


def test_an_image_is_shown_at_its_place_on_the_map(tmp_path: Path) -> None:
    settings = make_collection(tmp_path)
    client = create_app(settings, SearchService(settings, load_network=False)).test_client()
    assert 'class="place"' not in client.get("/images/1").text
    with open_writer(settings.rsc_files, command="a test") as writer:
        generation = writer.generation()
        assert generation is not None
        build_map(writer, generation, MapOptions())
    places = {
        number: re.findall(r'<circle class="here" cx="([\d.]+)" cy="([\d.]+)"', client.get(f"/images/{number}").text)
        for number in (1, 2, 30)
    }
    (first,), (near,), (far,) = ([(float(x), float(y)) for x, y in found] for found in places.values())

    def apart(one: tuple[float, float], other: tuple[float, float]) -> float:
        return abs(one[0] - other[0]) + abs(one[1] - other[1])

    assert apart(first, near) < apart(first, far)
    with client.get("/map/dots.png") as dots:
        assert dots.mimetype == "image/png"
        opacity = np.asarray(Image.open(io.BytesIO(dots.data)).convert("RGBA").getchannel("A"))
    side = len(opacity)
    x, y = (min(int(share * side), side - 1) for share in first)
    assert opacity[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max() > 0
