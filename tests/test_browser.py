"""Drives the pages in Chromium as a person would, with and without JavaScript, over a real server."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, JSHandle, Page, expect
from playwright.sync_api import Request as BrowserRequest

from app import create_app
from config import Settings
from tests.fakes import FakeService, encoded, picture
from tests.serving import served

pytestmark = pytest.mark.browser

SETTINGS = Settings(upload_max_bytes=2_000_000)
FIRST_RESULT = "ol.matches li:first-child > a:first-child"
# A picture whose own image in the collection is 14, of which no copy has the same bytes.
MINE = encoded(picture(14), quality=40)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    application = create_app(service=FakeService(tmp_path_factory.mktemp("photographs"), SETTINGS))
    with served(application) as address:
        yield address


class Watch:
    """What a context asked for and complained about."""

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context.on("request", self._request)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _request(self, request: BrowserRequest) -> None:
        self.requests.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Return the start page; afterwards no request may have left the service, and no complaint have been made."""
    with browser.new_context(base_url=address, viewport={"width": 1280, "height": 800}) as context:
        watch = Watch(context)
        opened = context.new_page()
        opened.goto("/")
        yield opened
        assert [url for url in watch.requests if not url.startswith((address + "/", "data:"))] == []
        assert watch.complaints == []


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.jpg"
    file.write_bytes(MINE)
    return file


def expect_own_image_first(page: Page) -> None:
    expect(page).to_have_url(re.compile("/search[?]"))
    expect(page.locator("ol.matches li")).to_have_count(24)
    expect(page.locator(FIRST_RESULT)).to_have_attribute("href", re.compile("^/images/14[?]"))
    own = page.get_by_alt_text("The picture you sent")
    assert own.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256


def transfer_of(page: Page, content: bytes, name: str) -> JSHandle:
    """Return a DataTransfer of the page that holds one file."""
    make = """([text, name]) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, {type: "image/jpeg"}));
        return transfer;
    }"""
    return page.evaluate_handle(make, [base64.b64encode(content).decode(), name])


def test_choosing_a_file_searches_at_once(page: Page, mine: Path) -> None:
    page.get_by_label("Choose a picture").set_input_files(mine)
    expect_own_image_first(page)


def test_a_dropped_file_is_searched(page: Page) -> None:
    transfer = transfer_of(page, MINE, "dropped.jpg")
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator("form.upload")).to_have_attribute("data-dragging", "")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect_own_image_first(page)


def test_a_pasted_picture_is_searched(page: Page, address: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    copy = """async (text) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
    }"""
    page.evaluate(copy, base64.b64encode(encoded(picture(14), "PNG")).decode())
    page.keyboard.press("Control+v")
    expect_own_image_first(page)


def test_k_is_taken_from_the_form(page: Page, mine: Path) -> None:
    page.get_by_label("Show").select_option("12")
    page.get_by_label("Choose a picture").set_input_files(mine)
    expect(page.locator("ol.matches li")).to_have_count(12)


def test_the_order_is_chosen_and_kept_from_page_to_page(page: Page, mine: Path) -> None:
    page.get_by_label("first the").select_option("kind")
    page.get_by_label("Choose a picture").set_input_files(mine)
    expect(page).to_have_url(re.compile("ranking=kind"))
    expect(page.get_by_label("First the", exact=True)).to_have_value("kind")
    page.locator(FIRST_RESULT).click()
    expect(page).to_have_url(re.compile("ranking=kind$"))
    order = page.get_by_label("In which order")
    expect(order.locator("[aria-current]")).to_have_text("same kind")
    order.get_by_role("link", name="same picture").click()
    expect(page).to_have_url(re.compile("ranking=plain$"))
    page.get_by_label("Among which images").get_by_role("link", name="folder photographs").click()
    expect(page).to_have_url(re.compile("folder=photographs$"))  # the collection's own order need not be said


def test_a_part_of_an_image_is_drawn_and_searched_with(page: Page) -> None:
    page.goto("/images/14?k=12")
    page.get_by_role("button", name="Search with a part of it").click()
    edges = page.locator(".frame svg").bounding_box()
    assert edges is not None
    page.mouse.move(edges["x"] + edges["width"] * 0.75, edges["y"] + edges["height"] * 0.75)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] * 0.25, edges["y"] + edges["height"] * 0.5)
    page.mouse.up()
    expect(page).to_have_url(
        re.compile(r"/images/14[?]k=12&box=0[.]25\d*%2C0[.](5|49)\d*%2C0[.](75|74)\d*%2C0[.](75|74)")
    )
    expect(page.get_by_role("heading", level=2)).to_contain_text("nearest to this part of it")
    assert page.locator(".frame rect").evaluate("r => r.width.baseVal.value") == pytest.approx(0.5, abs=0.01)
    order = page.get_by_label("In which order")
    order.get_by_role("link", name="same kind").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("nearest to this part of it")
    page.get_by_role("link", name="Search with all of it").click()
    expect(page).to_have_url(re.compile("/images/14[?]k=12&ranking=kind$"))


def test_a_slip_of_the_pointer_is_no_box_and_drawing_can_be_left(page: Page) -> None:
    page.goto("/images/14")
    button = page.locator("[data-draw]")
    button.click()
    page.locator(".frame svg").click()
    expect(page).to_have_url(re.compile("/images/14$"))
    page.keyboard.press("Escape")
    expect(button).to_have_attribute("aria-pressed", "false")
    page.locator("a.full").click(trial=True)  # nothing lies over the link any more


def test_a_result_opens_its_page_and_back_shows_the_results_again(page: Page, mine: Path) -> None:
    page.get_by_label("Choose a picture").set_input_files(mine)
    page.locator(FIRST_RESULT).click()
    expect(page).to_have_url(re.compile("/images/14[?]k=24$"))
    large = page.locator("a.full img")
    expect(large).to_be_visible()
    assert large.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640
    page.get_by_label("How many images").get_by_role("link", name="12").click()
    expect(page.locator("ol.matches li")).to_have_count(12)
    page.go_back()
    page.go_back()
    expect_own_image_first(page)
    expect(page.locator("form.upload")).not_to_have_attribute("aria-busy", "true")


def test_while_searching_the_form_says_so_and_shows_the_picture(page: Page, mine: Path) -> None:
    page.evaluate("() => { HTMLFormElement.prototype.submit = () => {}; }")
    page.get_by_label("Choose a picture").set_input_files(mine)
    expect(page.get_by_role("status")).to_have_text("Looking for similar images…")
    expect(page.locator("form.upload")).to_have_attribute("aria-busy", "true")
    expect(page.locator("canvas")).to_be_visible()
    assert page.locator("canvas").evaluate("canvas => [canvas.width, canvas.height]") == [384, 288]


def test_a_file_above_the_limit_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "large.tif"
    file.write_bytes(bytes(SETTINGS.upload_max_bytes + 1))
    page.get_by_label("Choose a picture").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("at most 2,000,000")
    expect(page).to_have_url(re.compile("/$"))


def test_dropping_text_explains_what_to_drop(page: Page) -> None:
    transfer = page.evaluate_handle("() => new DataTransfer()")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("status")).to_contain_text("not a file")


def test_everything_is_reached_by_keyboard(page: Page, mine: Path) -> None:
    focused = []
    for _ in range(15):
        page.keyboard.press("Tab")
        focused.append(
            page.evaluate(
                "() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    assert focused == ["skip", "brand", *["A"] * 7, "file", "k", "ranking", "BUTTON", "text", "BUTTON"]
    page.get_by_label("Choose a picture").set_input_files(mine)
    expect_own_image_first(page)
    page.locator(FIRST_RESULT).focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/images/14"))


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_no_page_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    beyond = """() => [...document.querySelectorAll("main *")]
        .filter((element) => element.getBoundingClientRect().right > innerWidth + 1).length"""
    for path in ("/", "/images/3", "/images/5?label=beach&ranking=kind", "/images/10?k=48", "/images/11"):
        page.goto(path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(beyond) == 0, path


def test_results_fit_a_phone_and_come_before_the_next_upload(page: Page, mine: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_label("Choose a picture").set_input_files(mine)
    expect_own_image_first(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    top = "element => element.getBoundingClientRect().top"
    assert page.locator(FIRST_RESULT).evaluate(top) < page.locator("form.upload").evaluate(top)


def test_the_whole_way_works_without_javascript(browser: Browser, address: str, mine: Path) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        watch = Watch(context)
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_text("or drop one")).to_be_hidden()
        page.get_by_label("Show").select_option("12")
        page.get_by_label("Choose a picture").set_input_files(mine)
        page.get_by_role("button", name="Find similar").click()
        expect(page).to_have_url(re.compile("/search[?]"))
        expect(page.locator("ol.matches li")).to_have_count(12)
        page.locator(FIRST_RESULT).click()
        expect(page).to_have_url(re.compile("/images/14[?]k=12$"))
        expect(page.get_by_role("heading", level=1)).to_have_text("holiday-14.jpg")
        assert watch.complaints == []
        assert [url for url in watch.requests if not url.startswith((address + "/", "data:"))] == []


def test_an_upload_above_the_limit_gets_the_page_that_says_so(browser: Browser, address: str, tmp_path: Path) -> None:
    file = tmp_path / "large.tif"
    file.write_bytes(bytes(SETTINGS.upload_max_bytes + 1))
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Choose a picture").set_input_files(file)
        page.get_by_role("button", name="Find similar").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("That file is too large")
