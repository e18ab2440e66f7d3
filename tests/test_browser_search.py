"""Drives what a search can do beyond one picture: several, words, marks, parts, pages, by mouse, keys, and without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Response, Route, expect

from app import create_app
from config import Settings
from tests.fakes import FakeService, encoded, picture
from tests.serving import served
from tests.test_browser import Watch

pytestmark = pytest.mark.browser

TILES = "ol.matches > li"
MAX_TRANSFER = 150_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    application = create_app(service=FakeService(tmp_path_factory.mktemp("photographs"), Settings()))
    with served(application) as address:
        yield address


@pytest.fixture
def width() -> int:
    return 1280


both_sizes = pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desktop"])


@pytest.fixture
def page(browser: Browser, address: str, width: int) -> Iterator[Page]:
    with browser.new_context(
        base_url=address, viewport={"width": width, "height": 844}, has_touch=width == 390, reduced_motion="reduce"
    ) as context:
        watch = Watch(context)
        yield context.new_page()
        assert [url for url in watch.requests if not url.startswith((address + "/", "data:"))] == []
        assert watch.complaints == []


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in (14, 15)]
    for path in paths:
        path.write_bytes(encoded(picture(int(path.stem)), quality=40))
    return paths


def said(page: Page) -> dict[str, list[str]]:
    """Return what the address of the page says."""
    return parse_qs(urlsplit(page.url).query)


def names_shown(page: Page) -> list[str]:
    return page.locator(f"{TILES} .name").all_text_contents()


def test_several_pictures_are_chosen_at_once_and_taken_off_one_by_one(page: Page, files: list[Path]) -> None:
    page.goto("/")
    page.get_by_label("Choose a picture").set_input_files(files)
    expect(page.get_by_alt_text("The picture you sent")).to_have_count(2)
    both = page.url
    page.get_by_label("Take The picture you sent off the search").first.click()
    expect(page.get_by_alt_text("The picture you sent")).to_have_count(1)
    assert names_shown(page)[0] == "holiday-15.jpg"
    page.go_back()
    expect(page).to_have_url(both)
    expect(page.get_by_alt_text("The picture you sent")).to_have_count(2)


def test_files_that_are_too_large_together_are_not_sent(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    large.write_bytes(bytes(Settings.upload_max_bytes // 2 + 1))
    page.goto("/")
    page.get_by_label("Choose a picture").set_input_files([large, large])
    expect(page.get_by_role("status")).to_contain_text("Those 2 files have together 30,000,002 bytes")
    expect(page).to_have_url(re.compile("/$"))


@both_sizes
def test_a_phone_offers_its_camera(page: Page, files: list[Path], width: int) -> None:
    page.goto("/")
    camera = page.locator("#camera")
    assert camera.get_attribute("capture") == "environment"
    expect(page.get_by_text("Take a photograph")).to_be_visible(visible=width == 390)
    camera.set_input_files(files[0])
    expect(page.locator(TILES)).to_have_count(24)


@both_sizes
def test_results_are_marked_and_searched_with_again(page: Page) -> None:
    page.goto("/search?like=14&k=12")
    bar = page.locator(".marked")
    expect(bar).to_be_hidden()
    first, second = page.locator(TILES).nth(0), page.locator(TILES).nth(1)
    ids = [tile.locator('[name="like"]').get_attribute("value") for tile in (first, second)]
    first.hover()
    first.get_by_label("More like").check()
    second.hover()
    second.get_by_label("More like").check()
    second.get_by_label("Less like").check()  # not both at once
    expect(page.get_by_role("status").filter(has_text="more like it")).to_have_text("1 more like it, 1 less like it")
    bar.get_by_role("button", name="Search again").click()
    expect(page.locator(".examples li")).to_have_count(3)
    assert said(page) == {"like": ["14", ids[0]], "unlike": [ids[1]], "k": ["12"]}
    again = names_shown(page)
    page.reload()
    assert names_shown(page) == again
    page.locator(".examples").last.locator("a.off").click()
    expect(page.locator(".examples li")).to_have_count(2)
    assert "unlike" not in said(page)


def test_marks_are_set_and_taken_off_by_keys(page: Page) -> None:
    page.goto("/search?like=14&k=12")
    page.locator(f"{TILES} > a").first.focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("-")
    marked = page.locator("[data-marked]")
    expect(marked).to_have_text("1 more like it, 1 less like it")
    page.keyboard.press("Escape")
    expect(page.locator(".marked")).to_be_hidden()
    assert page.locator(f"{TILES} :checked").count() == 0


@both_sizes
def test_arrows_move_through_the_grid(page: Page) -> None:
    page.goto("/search?like=14&k=24")
    links = page.locator(f"{TILES} > a:first-child")
    boxes = links.evaluate_all(
        "all => all.map((one) => [one.getBoundingClientRect().left, one.getBoundingClientRect().top])"
    )
    tops = sorted({top for _, top in boxes})
    links.first.focus()

    def place() -> int:
        return int(links.evaluate_all("all => all.indexOf(document.activeElement)"))

    page.keyboard.press("ArrowRight")
    assert place() == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # nothing is before the first
    assert place() == 0
    page.keyboard.press("ArrowDown")
    assert boxes[place()][1] == tops[1]
    page.keyboard.press("ArrowDown")
    assert boxes[place()][1] == tops[2]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert boxes[place()][1] == tops[0]
    page.keyboard.press("End")
    assert place() == 23
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/images/\d+[?]k=24"))


def test_words_search_from_everywhere_and_stay_in_the_address(page: Page) -> None:
    page.goto("/images/1")
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("holiday-2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("10 images")
    page.wait_for_load_state()  # what listens to keys comes with the page's scripts
    assert said(page) == {"text": ["holiday-2"]}
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#text")).not_to_be_focused()
    page.locator(TILES).first.hover()
    page.locator(TILES).first.get_by_label("More like").check()
    page.get_by_role("button", name="Search again").click()
    expect(page.locator(TILES)).to_have_count(9)
    assert said(page) == {"text": ["holiday-2"], "like": ["20"]}
    page.get_by_role("link", name="“holiday-2”").click()
    expect(page.locator(TILES)).to_have_count(24)
    assert said(page) == {"like": ["20"]}


@both_sizes
def test_filters_number_and_order_are_chosen_in_a_form(page: Page) -> None:
    page.goto("/search?like=14&unlike=3")
    page.get_by_text("Number, order, filters").click()
    page.get_by_label("Show", exact=True).select_option("12")
    page.get_by_label("First the").select_option("kind")
    page.get_by_label("Label").fill("beach")
    page.get_by_label("From").fill("2019-08-03")
    page.locator("form.refine").get_by_role("button", name="Search").click()
    expect(page.locator(TILES)).to_have_count(12)
    assert said(page) == {
        "like": ["14"], "unlike": ["3"], "k": ["12"], "ranking": ["kind"], "label": ["beach"], "taken_from": ["2019-08-03"],
    }  # fmt: skip
    expect(page.get_by_label("Label")).to_have_value("beach")  # what is set is shown
    page.get_by_role("link", name="label beach").click()
    expect(page.get_by_role("link", name="taken from 2019-08-03")).to_be_visible()
    assert "label" not in said(page)


def test_pages_lead_on_and_back(page: Page) -> None:
    page.goto("/search?like=14&k=12")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(f"{TILES} .rank").first).to_contain_text("13 ·")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(TILES)).to_have_count(5)
    expect(page.get_by_role("link", name="Next")).to_have_count(0)
    page.get_by_role("link", name="Previous").click()
    expect(page.locator(TILES)).to_have_count(12)


def draw(page: Page) -> None:
    page.wait_for_load_state()  # until then, going on replaces the page in the browser's history
    page.get_by_role("button", name="Search with a part of it").click()
    edges = page.locator(".frame svg").first.bounding_box()
    assert edges is not None
    page.mouse.move(edges["x"] + edges["width"] * 0.25, edges["y"] + edges["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] * 0.75, edges["y"] + edges["height"] * 0.75)
    page.mouse.up()


@both_sizes
def test_a_part_of_an_upload_is_drawn_and_sent_out_of_what_the_browser_kept(
    browser: Browser, page: Page, address: str, files: list[Path]
) -> None:
    page.goto("/")
    page.get_by_label("Show").select_option("12")
    page.get_by_label("Choose a picture").set_input_files(files[0])
    expect(page.locator(TILES)).to_have_count(12)
    whole = page.url
    draw(page)
    expect(page.get_by_text("pixels, a part of it")).to_be_visible()
    assert page.url != whole
    assert said(page)["k"] == ["12"]
    assert page.locator(".frame rect").evaluate("r => r.width.baseVal.value") == pytest.approx(0.5, abs=0.01)
    part = page.url
    draw(page)  # of the whole picture again, which the browser still has
    expect(page).not_to_have_url(part)
    expect(page.get_by_text("pixels, a part of it")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(part)
    page.go_back()
    expect(page).to_have_url(whole)
    with browser.new_context(base_url=address) as elsewhere:
        other = elsewhere.new_page()
        other.goto(whole)
        expect(other.locator(TILES)).to_have_count(12)
        expect(other.get_by_role("button", name="Search with a part of it")).to_be_hidden()


def test_the_browser_lets_go_of_a_file_that_was_sent_long_ago(page: Page, files: list[Path]) -> None:
    page.clock.install()
    page.goto("/")
    page.get_by_label("Choose a picture").set_input_files(files[0])
    expect(page.locator(TILES)).to_have_count(24)
    expect(page.get_by_role("button", name="Search with a part of it")).to_be_visible()
    page.clock.fast_forward("15:01")
    page.goto("/")
    let_go = """async () => {
        const counted = () => new Promise((resolve) => {
            const asked = indexedDB.open("lookalike", 1);
            asked.onsuccess = () => {
                const files = asked.result.transaction("files").objectStore("files").count();
                files.onsuccess = () => { asked.result.close(); resolve(files.result); };
            };
        });
        for (let turn = 0; turn < 200; turn += 1) {
            if (await counted() === 0) return true;
        }
        return false;
    }"""
    assert page.evaluate(let_go)


def test_a_part_of_an_image_is_drawn_on_its_results(page: Page) -> None:
    page.goto("/search?like=14&k=12")
    draw(page)
    expect(page.locator(".frame rect")).to_have_attribute("x", re.compile("0[.]2"))
    assert said(page)["like"] == ["14"]
    assert len(said(page)["box"]) == 1


def test_a_part_is_drawn_by_keys(page: Page) -> None:
    page.goto("/search?like=14&k=12")
    button = page.locator("[data-draw]")
    button.focus()
    for key in ("Enter", "ArrowLeft", "ArrowLeft", "Shift+ArrowDown"):
        button.press(key)
    expect(button).to_contain_text("Enter searches")
    button.press("Enter")
    expect(page).to_have_url(re.compile("box="))
    assert said(page)["box"] == ["0.1500,0.2500,0.6500,0.8000"]


def test_a_picture_is_added_to_the_search(page: Page, files: list[Path]) -> None:
    page.goto("/search?like=3&k=12")
    page.get_by_label("add to this search").check()
    page.get_by_label("Choose pictures").set_input_files(files[0])
    expect(page.locator(".examples li")).to_have_count(2)
    assert said(page)["like"][0] == "3"


@both_sizes
def test_nothing_moves_when_the_pictures_come(page: Page) -> None:
    waiting: list[Route] = []
    page.route("**/thumbnail", lambda route: waiting.append(route))
    page.goto("/search?like=14&unlike=3&k=24", wait_until="domcontentloaded")
    tiles = "all => all.map((one) => { const box = one.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })"
    before = page.locator("main img").evaluate_all(tiles)
    assert all(box[2] > 20 and box[3] > 20 for box in before)
    for route in waiting:
        route.continue_()
    page.unroute("**/thumbnail")
    page.wait_for_load_state("networkidle")
    assert page.locator("main img").evaluate_all(tiles) == before


@both_sizes
def test_rows_are_as_wide_as_the_page_and_of_one_height(page: Page) -> None:
    page.goto("/search?like=14&k=24")
    edges = page.locator("ol.matches").first.bounding_box()
    boxes = page.locator(f"{TILES} img").evaluate_all(
        "all => all.map((one) => { const box = one.getBoundingClientRect(); return [box.top, box.right, box.height]; })"
    )
    assert edges is not None
    tops = sorted({round(top) for top, _, _ in boxes})
    for top in tops[:-1]:
        row = [(right, height) for at, right, height in boxes if round(at) == top]
        assert max(height for _, height in row) - min(height for _, height in row) < 1
        if len(row) > 1:  # one alone does not grow without end
            assert edges["x"] + edges["width"] - max(right for right, _ in row) < 2


def test_the_pages_are_light_and_no_script_holds_them_up(page: Page) -> None:
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    for path in ("/", "/search?like=14", "/search?text=holiday"):
        answers.clear()
        page.goto(path, wait_until="networkidle")
        own = [answer for answer in answers if answer.status == 200 and not answer.url.endswith("/thumbnail")]
        assert 0 < sum(len(answer.body()) for answer in own) < MAX_TRANSFER, path
        blocking = (
            "() => [...document.scripts].filter((one) => one.type !== 'module' && !one.defer && !one.async).length"
        )
        assert page.evaluate(blocking) == 0


@both_sizes
def test_no_search_page_is_wider_than_the_screen(page: Page, width: int) -> None:
    for path in (
        "/",
        "/search?like=10&like=11&unlike=3&label=beach",
        "/search?text=holiday",
        "/search?text=nothing+like+it",
    ):
        page.goto(path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, path


@both_sizes
def test_marks_words_and_several_pictures_work_without_javascript(
    browser: Browser, address: str, files: list[Path], width: int
) -> None:
    viewport = {"width": width, "height": 844}
    with browser.new_context(base_url=address, java_script_enabled=False, viewport=viewport) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Choose a picture").set_input_files(files)
        page.get_by_role("button", name="Find similar").click()
        expect(page.get_by_alt_text("The picture you sent")).to_have_count(2)
        page.locator(TILES).nth(2).hover()
        page.locator(TILES).nth(2).get_by_label("Less like").check()
        page.get_by_role("button", name="Search again").click()
        expect(page.locator(".examples li")).to_have_count(3)
        page.locator("#text").fill("holiday")
        page.locator("form.refine").get_by_role("button", name="Search").click()
        expect(page.get_by_role("link", name="“holiday”")).to_be_visible()
        assert said(page)["text"] == ["holiday"]
        expect(page.locator(".examples li")).to_have_count(3)
        page.get_by_role("link", name="Search", exact=True).click()
        page.get_by_label("Or by words").fill("tower")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("1 image")


@both_sizes
def test_what_a_similarity_means_is_never_cut(page: Page) -> None:
    page.goto("/search?like=3")
    said = page.locator(".matches .rank:first-child")
    said.evaluate_all("all => all.forEach(one => { one.textContent = '12 · 0.99 · nearly the same'; })")
    assert said.evaluate_all("all => all.length") == 24
    assert said.evaluate_all("all => all.filter(one => one.scrollWidth > one.clientWidth).length") == 0


@pytest.mark.parametrize("width", [390])
def test_every_section_is_in_sight_on_a_phone(page: Page) -> None:
    page.goto("/")
    edges = page.locator(".sections a").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(edges) >= 6
    assert max(edges) <= 390


def test_filters_are_applied_where_they_end(page: Page) -> None:
    page.goto("/search?like=3")
    page.get_by_text("Number, order, filters").click()
    page.get_by_label("Short side").fill("1")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**min_side=1**")
    assert said(page) == {"like": ["3"], "k": ["24"], "min_side": ["1"]}


@both_sizes
@pytest.mark.parametrize("path", ["/search?like=3", "/images/3"])
def test_a_picture_has_its_place_before_it_comes(page: Page, path: str) -> None:
    held: list[Route] = []
    page.route(re.compile("/(thumbnail|view)$"), lambda route: held.append(route))
    page.goto(path, wait_until="domcontentloaded")
    expect(page.locator("[data-draw]")).to_be_visible()
    before = page.locator(".frame img").bounding_box()
    for route in held:
        route.continue_()
    expect(page.locator(".frame img")).to_have_js_property("complete", True)
    assert before == page.locator(".frame img").bounding_box()
    assert before is not None
    assert before["height"] > 50
