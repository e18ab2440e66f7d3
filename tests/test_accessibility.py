"""Asks axe-core of every page, at phone and desktop size, light and dark, whether everybody can use it.

Source: axe-core (`tests/vendor/axe-core`). What it calls serious or critical fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

from app import create_app
from config import ROOT, Settings
from tests.serving import served

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js"
FAILING = {"serious", "critical"}
TOKEN = "let me change it"
MISSING = "/no-such-page"
SIGN_IN = "/sign-in"
PAGES = (
    "/",
    "/search?like=1&k=12",
    "/search?like=1&like=9&unlike=14&label=coffee",
    "/search?text=cat",
    "/images/1",
    "/browse",
    "/labels",
    "/groups",
    "/groups/1",
    "/duplicates",
    "/duplicates?tier=similar",
    "/map",
    "/map?image=1",
    "/collection",
    "/add",
    "/removed",
    "/images/choose?folder=coffee",
    "/images/1/why?like=2",
    "/browse/folders",
    "/api/v1/docs",
    SIGN_IN,
    MISSING,
)
SIZES: Mapping[str, ViewportSize] = {
    "phone": {"width": 390, "height": 844},
    "desktop": {"width": 1280, "height": 800},
}


@pytest.fixture(scope="module")
def application(viewed_collection: Path) -> Flask:
    return create_app(Settings(rsc_files=viewed_collection, changes="on", edit_token=TOKEN))


@pytest.fixture(scope="module")
def address(application: Flask) -> Iterator[str]:
    with served(application) as address:
        yield address


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def context(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    size, scheme = request.param
    with browser.new_context(
        base_url=address,
        viewport=SIZES[size],
        color_scheme=scheme,
        reduced_motion="reduce",
        extra_http_headers={"Authorization": f"Bearer {TOKEN}"},
        bypass_csp=True,  # for axe alone, which is no part of the page
    ) as context:
        yield context


def complaints(page: Page) -> list[str]:
    """Return what axe-core calls serious on the page, with the elements."""
    page.add_script_tag(path=AXE)
    found: dict[str, Any] = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:120]} — {node['failureSummary'][:200]}"
        for violation in found["violations"]
        if violation["impact"] in FAILING
        for node in violation["nodes"][:3]
    ]


def test_axe_finds_what_is_wrong(browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content('<html lang="en"><title>x</title><main><img src="data:,"><button></button></main>')
        assert {complaint.split(":")[0] for complaint in complaints(page)} == {
            "critical image-alt",
            "critical button-name",
        }


def test_axe_finds_nothing_serious_on_any_page(context: BrowserContext) -> None:
    page = context.new_page()
    found: dict[str, list[str]] = {}
    for path in PAGES:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == (404 if path == MISSING else 200), path
        page.wait_for_load_state("networkidle")
        if serious := complaints(page):
            found[path] = serious
    assert found == {}
