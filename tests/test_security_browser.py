"""Holds the defences to what a browser makes of them: cookies, other sites, policies, pictures that are also pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, request
from markupsafe import escape
from playwright.sync_api import Browser, expect

from app import create_app
from config import Settings
from tests.fakes import FakeService, encoded, picture
from tests.serving import FLAGS, served

pytestmark = pytest.mark.browser

TOKEN = "a-token-to-change-with"
PHOTOS, ELSEWHERE = "photos.example", "elsewhere.example"


@pytest.fixture(scope="module")
def chromium_of_names(browser: Browser, chromium: str) -> Iterator[Browser]:
    """A Chromium to which two sites lie on this machine. Over plain HTTP it sends no Sec-Fetch headers to either."""
    flags = [*FLAGS, f"--host-resolver-rules=MAP {PHOTOS} 127.0.0.1, MAP {ELSEWHERE} 127.0.0.1"]
    running = browser.browser_type.launch(executable_path=chromium, args=flags)
    yield running
    running.close()


@pytest.fixture(scope="module")
def locked_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(access_token="see-with-this-token", edit_token=TOKEN, hosts=f"{PHOTOS},127.0.0.1,localhost")
    with served(create_app(service=FakeService(tmp_path_factory.mktemp("photographs"), settings))) as address:
        yield address


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Another site, of which every page sends a form to the address behind its "?", and leads there by a link."""
    site = Flask("elsewhere")

    @site.get("/")
    def page() -> str:
        where = escape(request.args["to"])
        return (
            f'<title>Elsewhere</title><a href="{where}">there</a><img src="{where}">'
            f'<form method="post" action="{where}"><input name="tag" value="owned"><button>send</button></form>'
        )

    with served(site) as address:
        yield address


def named(address: str, name: str) -> str:
    return address.replace("127.0.0.1", name)


@pytest.mark.parametrize("width", [390, 1280])
def test_one_signs_in_is_led_back_and_signs_out(browser: Browser, locked_address: str, width: int) -> None:
    with browser.new_context(base_url=locked_address, viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto("/images/3?k=12")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the right one")
        page.get_by_label("Token").fill("see-with-this-token")
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{locked_address}/images/3?k=12")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("link", name="Sign in to change").click()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{locked_address}/images/3?k=12")
        expect(page.get_by_role("button", name="Tag it")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()


def test_who_signed_in_comes_back_by_a_link_on_another_site(
    chromium_of_names: Browser, locked_address: str, elsewhere: str
) -> None:
    """The cookie does not come along (SameSite=Strict), until the page asks for itself once more."""
    with chromium_of_names.new_context() as context:
        page = context.new_page()
        page.goto(f"{locked_address}/images/3")
        page.get_by_label("Token").fill("see-with-this-token")
        page.get_by_role("button", name="Sign in").click()
        page.goto(f"{named(elsewhere, ELSEWHERE)}/?to={locked_address}/images/2")
        page.get_by_role("link", name="there").click()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        expect(page).to_have_url(f"{locked_address}/images/2")


def test_over_plain_http_a_browser_sends_our_forms_and_no_other_sites(
    chromium_of_names: Browser, tmp_path: Path, elsewhere: str
) -> None:
    """There it says nothing but Origin; with Referrer-Policy: no-referrer it would say "null" of both."""
    settings = Settings(edits="on", hosts=PHOTOS, rsc_files=tmp_path / "none")
    with (
        served(create_app(service=FakeService(tmp_path, settings, names=("a.jpg",)))) as address,
        contextlib.ExitStack() as stack,
    ):
        ours = named(address, PHOTOS)
        page = stack.enter_context(chromium_of_names.new_context()).new_page()
        page.goto(f"{ours}/images/1")
        page.get_by_label("Another tag").fill("x" * 100 + " ")
        with page.expect_response(lambda response: response.request.method == "POST") as own:
            page.get_by_role("button", name="Tag it").click()
        assert own.value.request.headers.get("sec-fetch-site") is None
        assert own.value.status != 403
        page.goto(f"{named(elsewhere, ELSEWHERE)}/?to={ours}/images/1/tags")
        with page.expect_response(lambda response: response.request.method == "POST") as others:
            page.get_by_role("button", name="send").click()
        assert others.value.status == 403


def test_a_page_runs_and_shows_nothing_that_was_put_into_it(browser: Browser, tmp_path: Path) -> None:
    application = create_app(service=FakeService(tmp_path, Settings(), names=("a.jpg",)))
    with served(application) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.evaluate("""() => {
            window.refused = new Set();
            document.addEventListener("securitypolicyviolation", (event) => window.refused.add(event.effectiveDirective));
            document.body.insertAdjacentHTML("beforeend", `<div style="color: red" onclick="window.owned = 1"></div>
                <img src="http://127.0.0.1:9/x.png"><iframe src="/"></iframe><form action="http://127.0.0.1:9/"></form>`);
            const script = document.createElement("script");
            script.textContent = "window.owned = 1";
            document.body.append(script);
            document.body.lastElementChild.previousElementSibling.submit();
            document.querySelector("div[onclick]").click();
        }""")
        # Playwright's own waiting would need the eval that the policy forbids.
        refused = page.evaluate("""() => new Promise((done) => {
            const last = Date.now() + 10000;
            const look = () => window.refused.size >= 6 || Date.now() > last ? done([...window.refused]) : setTimeout(look, 20);
            look();
        })""")
        assert page.evaluate("window.owned") is None
    assert set(refused) == {
        "form-action",
        "frame-src",
        "img-src",
        "script-src-attr",
        "script-src-elem",
        "style-src-attr",
    }


def test_a_picture_that_is_also_a_page_is_shown_as_a_picture(browser: Browser, tmp_path: Path) -> None:
    service = FakeService(tmp_path, Settings(), names=("a.html",))
    service.paths[0].write_bytes(encoded(picture(1)) + b"<script>document.title='owned'</script>")
    with served(create_app(service=service)) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}/images/1/view")
        assert page.evaluate("document.images.length === 1 && document.images[0].naturalWidth") == 640
        assert "owned" not in page.title()
