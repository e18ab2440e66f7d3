"""The map: its part of the API over a small collection, and its page as a person uses it in Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from app import create_app
from config import Settings
from search import SearchService
from store import name_group, open_writer, tagged_images
from tests.grouped_collection import KINDS, SIM, add_images, make_collection
from tests.serving import FLAGS, served
from tests.test_browser import Watch
from views.duplicates import find_duplicates
from views.grouping import GroupOptions, build_groups
from views.map import MapOptions, build_map

COUNT = sum(KINDS.values())
READY = "[data-map][data-ready=ready]"


def build_views(settings: Settings, *, groups: bool = True) -> None:
    """Compute the map and the groups of a collection."""
    with open_writer(settings.rsc_files, command="a test") as writer:
        generation = writer.generation()
        assert generation is not None
        build_map(writer, generation, MapOptions())
        generation = writer.generation()
        assert generation is not None
        if groups:
            build_groups(writer, generation, GroupOptions(sim=SIM))
            generation = writer.generation()
            assert generation is not None
            find_duplicates(writer, generation)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_collection(tmp_path_factory.mktemp("map"))
    build_views(settings)
    return settings


@pytest.fixture(scope="module")
def client(settings: Settings) -> FlaskClient:
    return create_app(service=SearchService(settings, load_network=False)).test_client()


def about(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/v1/map")
    assert answer.status_code == 200
    return dict(answer.get_json())


def columns(client: FlaskClient) -> dict[str, np.ndarray]:
    """Return the columns of the file of points, read as the page reads them."""
    told = about(client)
    content = client.get(told["points"]["url"]).data
    return {
        column["name"]: np.frombuffer(
            content, f"<{np.dtype(column['type']).str[1:]}", column["count"], column["offset"]
        )
        for column in told["points"]["columns"]
    }


def of_kind(client: FlaskClient, kind: str) -> list[int]:
    told, points = about(client), columns(client)
    return [int(i) for i in points["ids"][points["labels"] == told["labels"].index(kind)]]


# The API.


def test_the_file_of_points_says_of_every_picture_where_it_is_and_which_cell_and_label_it_has(
    client: FlaskClient,
) -> None:
    told, points = about(client), columns(client)
    assert (told["images"], told["placed_since"], sorted(told["labels"])) == (COUNT, 0, sorted(KINDS))
    assert [layout["name"] for layout in told["layouts"]][:2] == ["tsne", "grid"]
    assert points["ids"].tolist() == sorted(points["ids"].tolist())
    assert sorted(points["cells"].tolist()) == list(range(COUNT))
    assert points["layout-grid"].shape == (2 * COUNT,)
    assert len(set(map(tuple, points["layout-grid"].reshape(-1, 2).tolist()))) == COUNT  # no two in one cell
    counts = {label: int((points["labels"] == code).sum()) for code, label in enumerate(told["labels"])}
    assert counts == dict(KINDS)
    assert len(set(zip(points["labels"].tolist(), points["colours"].tolist(), strict=True))) == len(KINDS)


def test_shapes_are_those_of_the_pictures(client: FlaskClient) -> None:
    ratios = 2 ** ((columns(client)["shapes"].astype(float) - 128) / 64)
    assert ratios.min() >= 64 / 52 - 0.02
    assert ratios.max() <= 64 / 48 + 0.02


def test_points_and_atlases_are_kept_by_browsers_under_an_address_of_their_own(client: FlaskClient) -> None:
    told = about(client)
    for url, mimetype in (
        (told["points"]["url"], "application/octet-stream"),
        (told["atlases"]["urls"][0], "image/webp"),
    ):
        answer = client.get(url)
        assert (answer.status_code, answer.mimetype) == (200, mimetype)
        assert "immutable" in answer.headers["Cache-Control"]
        plain = client.get(url.partition("?")[0])
        assert "no-cache" in plain.headers["Cache-Control"]
        again = client.get(url.partition("?")[0], headers={"If-None-Match": plain.headers["ETag"]})
        assert again.status_code == 304
    assert client.get("/api/v1/map/atlases/9").status_code == 404


def test_what_was_published_since_is_not_sent_for_what_was_before(client: FlaskClient) -> None:
    told = about(client)
    for url in (told["points"]["url"], *told["atlases"]["urls"], "/api/v1/map/picture?v=x"):
        answer = client.get(url.replace(told["digest"], "0123456789abcdef"))
        assert (answer.status_code, "Load the page again" in answer.get_json()["error"]["message"]) == (404, True)


def test_the_map_is_to_be_had_as_a_picture(client: FlaskClient) -> None:
    points = columns(client)
    answer = client.get("/api/v1/map/picture?layout=grid")
    assert (answer.status_code, answer.mimetype) == (200, "image/webp")
    shown = Image.open(BytesIO(answer.data)).convert("RGB")
    places = points["layout-grid"].reshape(-1, 2) / 65_535
    cell = about(client)["layouts"][1]["cell"]
    scale = 1600 / (np.ptp(places[:, 0]) + cell)
    for kind, wanted in (("red", (200, 30, 30)), ("white", (235, 235, 235)), ("black", (20, 20, 20))):
        for point in np.flatnonzero(np.isin(points["ids"], of_kind(client, kind))):
            x, y = (places[point] - places.min(axis=0) + cell / 2) * scale + 20
            assert np.abs(np.array(shown.getpixel((round(x), round(y)))) - np.array(wanted)).max() < 30, kind
    assert client.get("/api/v1/map/picture").status_code == 200
    assert client.get("/api/v1/map/picture?layout=circle").status_code == 400


def test_spots_are_the_groups_with_the_names_that_people_gave_first(client: FlaskClient, settings: Settings) -> None:
    assert [(spot["name"], spot["count"]) for spot in about(client)["spots"]] == [
        ("black", 16),
        ("white", 12),
        ("red", 8),
    ]
    name_group(settings.rsc_files, "Roses", of_kind(client, "red"))
    spots = about(client)["spots"]
    assert [(spot["name"], spot["named"]) for spot in spots] == [("Roses", True), ("black", False), ("white", False)]
    assert spots[0]["image_id"] in of_kind(client, "red")
    assert all(0 <= number <= 1 for spot in spots for place in spot["at"].values() for number in place)
    assert "Roses" in client.get("/map").text


def test_the_group_of_a_picture_is_lit_at_any_sim(client: FlaskClient) -> None:
    black = of_kind(client, "black")
    answer = client.get(f"/api/v1/map/group?image_id={black[3]}").get_json()
    assert (answer["name"], answer["image_ids"]) == ("black", black)
    everything = client.get(f"/api/v1/map/group?image_id={black[3]}&sim=0").get_json()
    assert everything["count"] == COUNT


def test_without_groups_labels_and_named_groups_are_the_spots(tmp_path: Path) -> None:
    settings = make_collection(tmp_path)
    build_views(settings, groups=False)
    client = create_app(service=SearchService(settings, load_network=False)).test_client()
    white = of_kind(client, "white")
    name_group(settings.rsc_files, "Snow", white[:6])
    assert [spot["name"] for spot in about(client)["spots"]] == ["Snow", "black", "white", "red"]
    assert client.get(f"/api/v1/map/group?image_id={white[0]}").get_json()["image_ids"] == white[:6]
    assert client.get(f"/api/v1/map/group?image_id={white[-1]}").get_json()["image_ids"] == white


def test_pictures_are_found_by_label_name_and_tag(client: FlaskClient) -> None:
    def found(q: str) -> list[int]:
        return list(client.get("/api/v1/map/found", query_string={"q": q}).get_json()["image_ids"])

    assert found("  RED ") == of_kind(client, "red")
    assert len(found("image-003")) == len(KINDS)
    some = of_kind(client, "white")[2:5]
    assert client.post("/api/v1/tags", json={"tag": "best of", "image_ids": some}).get_json()["tag"] == "best of"
    assert found("best") == some
    assert found("no such word") == []


def test_pictures_that_came_since_are_on_the_map_without_cells(tmp_path: Path) -> None:
    settings = make_collection(tmp_path)
    build_views(settings)
    add_images(settings, {"red": 2}, first=50)
    client = create_app(service=SearchService(settings, load_network=False)).test_client()
    points = columns(client)
    assert about(client)["placed_since"] == 2
    assert (points["cells"] == 65_535).sum() == 2
    assert "2 came since" in client.get("/map").text


def test_the_selected_pictures_are_named(client: FlaskClient) -> None:
    red = of_kind(client, "red")
    rows = client.post("/api/v1/map/images", json={"image_ids": [*red[:2], 9_999]}).get_json()["images"]
    assert [row["image_id"] for row in rows] == red[:2]
    assert rows[0]["name"].startswith("image-")
    assert rows[0]["label"] == "red"


def test_selected_pictures_that_are_gone_are_passed_over(client: FlaskClient, settings: Settings) -> None:
    red = of_kind(client, "red")
    ids = [9_999, red[0], red[0]]
    assert client.post("/api/v1/map/more", json={"image_ids": ids}).get_json()["examples"] == 1
    assert client.post("/api/v1/tags", json={"tag": "kept", "image_ids": ids}).get_json()["image_ids"] == red[:1]
    answer = client.post("/api/v1/tags", json={"tag": "kept", "image_ids": [9_999]})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "unknown_image")
    with open_writer(settings.rsc_files, command="a test") as writer:
        assert tagged_images(writer, "kept").tolist() == red[:1]


def test_more_like_the_selected_ones_are_none_of_them(client: FlaskClient) -> None:
    red = of_kind(client, "red")
    answer = client.post("/api/v1/map/more", json={"image_ids": red[:3]}).get_json()
    found = [image["image_id"] for image in answer["images"]]
    assert answer["examples"] == 3
    assert set(found[:5]) == set(red[3:])
    assert not set(found) & set(red[:3])


def test_duplicates_are_those_pairs_both_of_which_are_selected(client: FlaskClient) -> None:
    black = of_kind(client, "black")
    answer = client.post("/api/v1/duplicates/among", json={"image_ids": black[:4]}).get_json()
    assert answer["count"] == len(answer["pairs"]) > 0
    named = {image["image_id"] for pair in answer["pairs"] for image in pair["images"]}
    assert named <= set(black[:4])
    assert {"tier", "relation", "similarity"} <= answer["pairs"][0].keys()
    assert client.post("/api/v1/duplicates/among", json={"image_ids": black[:1]}).get_json()["count"] == 0


def test_the_page_of_a_picture_leads_to_the_map_where_there_is_one(client: FlaskClient, tmp_path: Path) -> None:
    assert 'href="/map?image=3"' in client.get("/images/3").text
    bare = create_app(service=SearchService(make_collection(tmp_path), load_network=False)).test_client()
    assert "On the map" not in bare.get("/images/3").text


@pytest.mark.parametrize(
    ("path", "sent", "status", "code"),
    [
        ("/api/v1/map/images", {"image_ids": []}, 400, "bad_option"),
        ("/api/v1/map/more", {}, 400, "bad_option"),
        ("/api/v1/map/images", {"image_ids": ["x"]}, 400, "bad_request"),
        ("/api/v1/tags", {"tag": " ", "image_ids": [1]}, 400, "bad_note"),
        ("/api/v1/tags", {"tag": 7, "image_ids": [1]}, 400, "bad_request"),
        ("/api/v1/tags", {"tag": "good"}, 400, "bad_option"),
        ("/api/v1/duplicates/among", {"image_ids": []}, 400, "bad_option"),
        ("/api/v1/map/found?q=", None, 400, "bad_option"),
        ("/api/v1/map/group?image_id=1&sim=2", None, 400, "bad_option"),
        ("/api/v1/map/group?image_id=1&sim=much", None, 400, "bad_option"),
        ("/api/v1/map/group?image_id=9999", None, 404, "unknown_image"),
        ("/map?layout=circle", None, 400, "bad_option"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    client: FlaskClient, path: str, sent: dict[str, object] | None, status: int, code: str
) -> None:
    answer = client.get(path) if sent is None else client.post(path, json=sent)
    assert answer.status_code == status
    if path.startswith("/api"):
        assert answer.get_json()["error"]["code"] == code
        assert answer.get_json()["error"]["message"]


def test_tags_are_refused_where_visitors_may_not_edit(settings: Settings) -> None:

    client = create_app(service=SearchService(replace(settings, edits="off"), load_network=False)).test_client()
    assert client.post("/api/v1/tags", json={"tag": "x", "image_ids": [1]}).status_code == 403
    assert "data-tag" not in client.get("/map").text


def test_before_a_map_is_computed_the_page_says_how(tmp_path: Path) -> None:
    client = create_app(service=SearchService(make_collection(tmp_path), load_network=False)).test_client()
    answer = client.get("/map")
    assert (answer.status_code, "python map2d.py" in answer.text) == (404, True)
    assert client.get("/api/v1/map").get_json()["error"]["code"] == "no_view"


# The page.


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    with served(create_app(service=SearchService(settings, load_network=False))) as address:
        yield address


@pytest.fixture
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    """Return a context in which movements are left out; afterwards nothing was complained about, nor asked for elsewhere."""
    with browser.new_context(
        base_url=address, viewport={"width": 1280, "height": 800}, reduced_motion="reduce"
    ) as context:
        watch = Watch(context)
        context.set_default_timeout(5_000)
        yield context
        assert [url for url in watch.requests if not url.startswith((address + "/", "data:", "blob:"))] == []
        assert [text for text in watch.complaints if "GPU stall" not in text] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """Return the map, drawn on a canvas, as is chosen where there is no graphics card."""
    return opened(context, "/map")


def opened(context: BrowserContext, path: str) -> Page:
    page = context.new_page()
    page.goto(path)
    page.locator(READY).wait_for()
    settle(page)
    return page


def settle(page: Page) -> None:
    """Wait until atlases are there and nothing moves."""
    page.evaluate(
        """async () => {
            const frame = () => new Promise(requestAnimationFrame);
            const all = lookalikeMap.page.about.atlases?.urls.length ?? 0;
            do await frame(); while (!lookalikeMap.still || lookalikeMap.loaded.atlases < all);
        }"""
    )


def view(page: Page) -> dict[str, Any]:
    return dict(page.evaluate("() => lookalikeMap.view"))


def where(page: Page, image_id: int) -> tuple[float, float]:
    x, y = page.evaluate("(id) => lookalikeMap.where(id)", image_id)
    return float(x), float(y)


def colour_at(page: Page, x: float, y: float) -> list[int]:
    """Return what one pixel of the window shows."""
    shot = page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    return list(Image.open(BytesIO(shot)).convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]  # RGB has three


@pytest.mark.browser
@pytest.mark.parametrize("layout", ["grid", "tsne"])
@pytest.mark.parametrize("drawing", ["webgl", "canvas"])
def test_pictures_are_drawn_where_the_map_has_them(
    context: BrowserContext, client: FlaskClient, drawing: str, layout: str
) -> None:
    page = opened(context, f"/map?drawing={drawing}&layout={layout}")
    expect(page.locator(READY)).to_have_attribute("data-drawing", drawing)
    for kind, wanted in (("red", (200, 30, 30)), ("black", (20, 20, 20))):
        shown = colour_at(page, *where(page, of_kind(client, kind)[1]))
        assert np.abs(np.array(shown) - np.array(wanted)).max() < 30, kind


@pytest.mark.browser
def test_a_map_by_likeness_fills_the_window_and_cells_stay_square(page: Page, client: FlaskClient) -> None:
    for width, height in ((1500, 700), (1100, 640)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(
            """(width) => {
                const { camera } = lookalikeMap.page;
                const [left, top, right, bottom] = camera.extent;
                const [across, down] = [(right - left) * camera.scales[0], (bottom - top) * camera.scales[1]];
                const shares = [across / camera.width, down / camera.open];
                return camera.width === width && shares.every((share) => share > 0.9 && share <= 1);
            }""",
            arg=width,
        )
    spacing = page.evaluate(
        "() => { const { camera, scene } = lookalikeMap.page; return scene.layout.spacing * camera.base; }"
    )
    assert 40 < view(page)["size"] < 1.8 * spacing  # few pictures hardly cover each other
    page.mouse.move(*where(page, of_kind(client, "red")[0]))
    expect(page.locator("[data-card] [data-label]")).to_have_text("red")
    page.get_by_role("button", name="Grid", exact=True).click()
    settle(page)
    across, down = page.evaluate("() => lookalikeMap.page.camera.scales")
    assert across == down


@pytest.mark.browser
def test_a_change_of_layout_begins_with_what_is_seen(browser: Browser, address: str, client: FlaskClient) -> None:
    with browser.new_context(base_url=address, viewport={"width": 1280, "height": 800}) as context:
        page = opened(context, "/map")
        before = page.evaluate("() => lookalikeMap.page.camera.scales")
        after = page.evaluate("() => { lookalikeMap.page.change('grid'); return lookalikeMap.page.camera.scales; }")
        assert after == pytest.approx(before)


@pytest.mark.browser
def test_wheel_buttons_and_keys_zoom_and_move(page: Page) -> None:
    before = view(page)
    page.mouse.move(700, 500)
    page.mouse.wheel(0, -300)
    settle(page)
    nearer = view(page)
    assert nearer["zoom"] > before["zoom"] * 1.3
    page.get_by_role("button", name="Zoom out").click()
    assert view(page)["zoom"] < nearer["zoom"]
    stage = page.get_by_role("application")
    stage.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    settle(page)
    assert view(page)["x"] > nearer["x"]
    page.keyboard.press("0")
    settle(page)
    assert view(page)["zoom"] == 1


@pytest.mark.browser
def test_dragging_moves_the_map_and_opens_nothing(page: Page, client: FlaskClient) -> None:
    x, y = where(page, of_kind(client, "red")[0])
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 40, steps=4)
    page.mouse.up()
    settle(page)
    moved = where(page, of_kind(client, "red")[0])
    assert moved == pytest.approx((x + 120, y + 40), abs=25)
    expect(page.locator(READY)).to_be_visible()


@pytest.mark.browser
def test_hovering_shows_a_card_and_a_click_opens_the_picture(page: Page, client: FlaskClient) -> None:
    page.get_by_role("button", name="Grid", exact=True).click()
    settle(page)
    image_id = of_kind(client, "white")[4]
    page.mouse.move(*where(page, image_id))
    expect(page.locator("[data-card] [data-label]")).to_have_text("white")
    expect(page.locator("[data-card] [data-name]")).to_have_text("image-004.jpg")
    page.mouse.click(*where(page, image_id))
    page.wait_for_url(f"**/images/{image_id}")


@pytest.mark.browser
def test_by_keyboard_the_picture_in_the_middle_is_pointed_at_and_opened(context: BrowserContext) -> None:
    page = opened(context, "/map?layout=grid")
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    pointed = page.evaluate("() => lookalikeMap.pointed")
    assert pointed
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/images/{pointed}")


def draw_around_everything(page: Page) -> None:
    page.get_by_role("button", name="Select by drawing").click()
    page.mouse.move(30, 130)
    page.mouse.down()
    for corner in ((1250, 130), (1250, 730), (30, 730), (30, 150)):
        page.mouse.move(*corner, steps=3)
    page.mouse.up()


@pytest.mark.browser
def test_a_lasso_selects_and_the_panel_tags_searches_and_saves(page: Page, client: FlaskClient) -> None:
    draw_around_everything(page)
    panel = page.get_by_role("complementary", name="Selection")
    expect(panel.get_by_role("heading")).to_have_text(f"{COUNT} selected")
    assert len(page.evaluate("() => lookalikeMap.selected")) == COUNT
    panel.get_by_role("button", name="Clear").click()
    expect(panel).to_be_hidden()

    page.get_by_label("Find by label").fill("red")
    page.keyboard.press("Enter")
    expect(page.locator("p[data-state]")).to_contain_text("8 pictures")
    page.get_by_role("button", name="Select them").click()
    expect(panel.get_by_role("heading")).to_have_text("8 selected")
    panel.get_by_label("Tag").fill("crimson")
    panel.get_by_role("button", name="Add").click()
    expect(panel.get_by_role("status")).to_contain_text("8 tagged “crimson”")
    panel.get_by_label("Label", exact=True).fill("rose")
    panel.get_by_role("button", name="Give").click()
    expect(panel.get_by_role("status")).to_contain_text("8 labelled “rose”")
    panel.get_by_role("button", name="Take their labels away").click()
    expect(panel.get_by_role("status")).to_have_text("8 labels taken away.")
    panel.get_by_role("button", name="More like these").click()
    expect(panel.get_by_role("status")).to_contain_text("More like these")
    expect(panel.locator("[data-answer] li")).to_have_count(24)
    panel.get_by_role("button", name="Find duplicates in it").click()
    expect(panel.get_by_role("status")).to_contain_text("the surest first")
    expect(panel.locator("[data-answer] li").first).to_be_visible()
    with page.expect_download() as download:
        panel.get_by_role("button", name="Save as JSON").click()
    rows = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [row["image_id"] for row in rows] == of_kind(client, "red")
    assert "crimson" in rows[0]["tags"]
    with page.expect_download() as download:
        panel.get_by_role("button", name="Save as CSV").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert (lines[0], len(lines)) == ("image_id,name,folder,label,tags,taken_at", 9)


@pytest.mark.browser
def test_dragging_with_shift_selects_without_the_mode_and_nothing_is_said_clearly(page: Page) -> None:
    page.keyboard.down("Shift")
    page.mouse.move(20, 790)
    page.mouse.down()
    for corner in ((24, 790), (24, 796), (20, 796)):
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    expect(page.locator("p[data-state]")).to_have_text("There is no picture within the line.")
    assert page.evaluate("() => lookalikeMap.selected") == []


@pytest.mark.browser
def test_finding_dims_the_rest_and_the_address_brings_all_of_it_back(page: Page, client: FlaskClient) -> None:
    page.get_by_label("Find by label").fill("black")
    page.keyboard.press("Enter")
    expect(page.locator("p[data-state]")).to_contain_text("16 pictures")
    settle(page)
    expect(page).to_have_url(re.compile("zoom=.*q=black"))
    before = view(page)
    page.reload()
    page.locator(READY).wait_for()
    expect(page.locator("p[data-state]")).to_contain_text("16 pictures")
    settle(page)
    assert page.evaluate("() => lookalikeMap.lit") == of_kind(client, "black")
    assert view(page)["zoom"] == pytest.approx(before["zoom"], rel=0.01)
    page.keyboard.press("Escape")
    assert page.evaluate("() => lookalikeMap.lit") is None


@pytest.mark.browser
def test_a_layout_is_changed_with_a_movement_and_without_for_who_wants_none(browser: Browser, address: str) -> None:
    for motion, moves in (("reduce", False), ("no-preference", True)):
        with browser.new_context(base_url=address, reduced_motion=motion) as context:  # type: ignore[arg-type]
            page = opened(context, "/map")
            grid = page.get_by_role("button", name="Grid", exact=True)
            assert grid.evaluate("(b) => { b.click(); return lookalikeMap.page.scene.changing !== null; }") is moves
            expect(grid).to_have_attribute("aria-pressed", "true")
            settle(page)
            assert view(page)["layout"] == "grid"


@pytest.mark.browser
def test_addresses_lead_to_a_group_and_to_a_picture(context: BrowserContext, client: FlaskClient) -> None:
    white = of_kind(client, "white")
    page = opened(context, f"/map?group={white[2]}&sim={SIM}")
    expect(page.locator("p[data-state]")).to_contain_text("12 pictures")
    assert page.evaluate("() => lookalikeMap.lit") == white
    other = opened(context, f"/map?image={white[2]}&layout=grid")
    assert other.evaluate("() => lookalikeMap.pointed") == white[2]
    centre = other.evaluate("() => lookalikeMap.page.camera.middle")
    top = other.evaluate("() => document.querySelector('[data-stage]').getBoundingClientRect().top")
    assert where(other, white[2]) == pytest.approx((centre[0], centre[1] + top), abs=2)
    opened(context, "/map?image=9999").get_by_text("Image 9999 is not on this map.").wait_for()


@pytest.mark.browser
def test_places_are_reached_by_keyboard_and_light_their_group(context: BrowserContext, client: FlaskClient) -> None:
    page = opened(context, "/map")
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    first = about(client)["spots"][0]
    expect(page.locator("p[data-state]")).to_have_text(f"{first['name']}: {first['count']} pictures.")
    assert first["image_id"] in page.evaluate("() => lookalikeMap.lit")
    expect(page.locator(".map-places ul")).to_be_hidden()  # it would lie over what was looked for
    expect(page.get_by_role("application")).to_be_focused()
    page.locator("summary").click()
    page.keyboard.press("Escape")
    expect(page.locator(".map-places ul")).to_be_hidden()
    assert page.evaluate("() => lookalikeMap.lit") is not None


@pytest.mark.browser
def test_the_answer_to_what_was_sought_first_does_not_replace_what_was_sought_last(page: Page) -> None:
    held: list[Route] = []
    page.route("**/found?q=black", lambda route: held.append(route))
    page.get_by_label("Find by label").fill("black")
    with page.expect_request("**/found?q=black"):
        page.keyboard.press("Enter")
    page.get_by_label("Find by label").fill("red")
    page.keyboard.press("Enter")
    expect(page.locator("p[data-state]")).to_contain_text("8 pictures")
    with page.expect_response("**/found?q=black"):
        held[0].continue_()
    page.evaluate("() => new Promise(requestAnimationFrame)")
    expect(page.locator("p[data-state]")).to_contain_text("8 pictures")


@pytest.mark.browser
def test_no_name_lies_under_what_acts_on_the_map(page: Page) -> None:
    name = page.locator(".spot[data-shown]").first.inner_text()
    page.evaluate(
        """(name) => {
            const { camera, about } = lookalikeMap.page;
            const [x, y] = camera.toScreen(...about.spots.find((spot) => spot.name === name).at[lookalikeMap.view.layout]);
            const bar = document.querySelector("[data-top] .map-bar").getBoundingClientRect();
            const stage = document.querySelector("[data-stage]").getBoundingClientRect();
            camera.panBy(bar.left + bar.width / 2 - stage.left - x, bar.bottom - stage.top - y);
            lookalikeMap.page.wake();
        }""",
        name,
    )
    settle(page)
    hidden = page.locator(".spot:not([data-shown])").all_text_contents()
    assert name in hidden


@pytest.mark.browser
def test_the_card_lies_beside_the_picture_however_large_it_is(context: BrowserContext, client: FlaskClient) -> None:
    image_id = of_kind(client, "white")[3]
    page = opened(context, f"/map?image={image_id}&layout=grid")
    page.evaluate("() => { lookalikeMap.page.camera.zoomAt(100); lookalikeMap.page.wake(); }")
    settle(page)
    x, _ = where(page, image_id)
    box = page.locator("[data-card]").bounding_box()
    assert box is not None
    assert view(page)["size"] > 150
    half = view(page)["size"] / 2
    assert box["x"] >= x + half or box["x"] + box["width"] <= x - half


@pytest.mark.browser
def test_beyond_the_pictures_of_atlases_points_become_thumbnails_that_can_be_pointed_at(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_collection(tmp_path)
    monkeypatch.setattr("atlases.MAX_IMAGES", COUNT - 1)
    build_views(settings, groups=False)
    with (
        served(create_app(service=SearchService(settings, load_network=False))) as address,
        browser.new_context(base_url=address, reduced_motion="reduce") as context,
    ):
        page = opened(context, "/map?layout=grid")
        assert page.evaluate("() => lookalikeMap.page.about.atlases") is None
        page.evaluate(
            "async (n) => { while (lookalikeMap.loaded.details < n) await new Promise(requestAnimationFrame); }", COUNT
        )
        image_id = page.evaluate("() => lookalikeMap.page.scene.ids[5]")
        x, y = where(page, image_id)
        page.mouse.move(x + 0.35 * view(page)["size"], y)
        expect(page.locator("[data-card]")).to_be_visible()
        assert page.evaluate("() => lookalikeMap.pointed") == image_id
        assert 'class="map-picture"' not in page.request.get("/map").text()


@pytest.mark.browser
@pytest.mark.parametrize("drawing", ["webgl", "canvas"])
def test_thumbnails_take_the_place_of_cells_where_pictures_are_large(context: BrowserContext, drawing: str) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/map?drawing={drawing}&x=0.5&y=0.5&zoom=0.5")
    page.locator(READY).wait_for()
    settle(page)
    for_spots = len(set(asked_thumbnails(asked)))
    page.get_by_role("button", name="Grid", exact=True).click()
    page.evaluate(
        "async (n) => { while (lookalikeMap.loaded.details < n) await new Promise(requestAnimationFrame); }", COUNT
    )
    assert len(set(asked_thumbnails(asked))) == COUNT > for_spots


def asked_thumbnails(asked: list[str]) -> list[str]:
    return [url for url in asked if url.endswith("/thumbnail")]


@pytest.mark.browser
def test_without_webgl_the_map_is_drawn_on_a_canvas(browser: Browser, chromium: str, address: str) -> None:
    running = browser.browser_type.launch(executable_path=chromium, args=[*FLAGS, "--disable-3d-apis"])
    page = opened(running.new_context(base_url=address), "/map?drawing=webgl")
    expect(page.locator(READY)).to_have_attribute("data-drawing", "canvas")
    running.close()


@pytest.mark.browser
def test_the_map_fits_a_phone_and_takes_fingers(browser: Browser, address: str, client: FlaskClient) -> None:
    with browser.new_context(
        base_url=address,
        viewport={"width": 390, "height": 800},
        has_touch=True,
        is_mobile=True,
        reduced_motion="reduce",
    ) as context:
        page = opened(context, "/map?layout=grid")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        image_id = of_kind(client, "black")[0]
        page.touchscreen.tap(*where(page, image_id))
        expect(page.locator("[data-card] [data-label]")).to_have_text("black")
        page.touchscreen.tap(*where(page, image_id))
        page.wait_for_url(f"**/images/{image_id}")


@pytest.mark.browser
def test_without_javascript_the_page_lists_the_places(browser: Browser, address: str) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/map")
        expect(page.locator(".map-plain p")).to_contain_text("The map needs JavaScript")
        assert page.locator(".map-picture").evaluate("(picture) => picture.naturalWidth") == 1640
        page.locator(".map-plain .tiles a").first.click()
        page.wait_for_url("**/groups/**")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
