"""Runs every example of docs/api.md against a collection that is served, and holds the page to the addresses there are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, request
from playwright.sync_api import Browser, Page, expect

from app import create_app
from config import ROOT
from described import operations
from search import SearchService
from tests.described_collection import described_service
from tests.fakes import encoded, picture
from tests.serving import served
from tests.test_browser import Watch

TOKEN = "open sesame"
PAGE = ROOT / "docs" / "api.md"
SHELL, PYTHON = "sh", "python"


def examples(language: str) -> list[str]:
    """Return the code of the page in one language, in its order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@dataclass
class Served:
    """A served collection, and who asked what of it with which answer."""

    application: Flask
    address: str
    folder: Path
    asked: list[tuple[str, str, str, int]] = field(default_factory=list)

    def note(self, response: Response) -> Response:
        rule = request.url_rule.rule if request.url_rule else request.path
        client = (request.user_agent.string or "").partition("/")[0]
        self.asked.append((client, request.method.lower(), rule, response.status_code))
        return response


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("documented")
    for number, name in enumerate(("photo.jpg", "other.jpg", "new-1.jpg", "new-2.jpg"), start=50):
        (folder / name).write_bytes(encoded(picture(number)))
    with described_service(folder, changes="on", edit_token=TOKEN) as service:
        application = create_app(service=service)
        with served(application) as address:
            site = Served(application, f"{address}/api/v1", folder)
            application.after_request(site.note)
            yield site


def test_every_line_for_the_shell_works(site: Served) -> None:
    curl = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }'
    program = "\n".join(["set -euo pipefail", curl, *examples(SHELL)])
    finished = subprocess.run(
        ["bash", "-c", program],
        cwd=site.folder,
        env={"PATH": "/usr/bin:/bin", "LOOKALIKE": site.address, "TOKEN": TOKEN},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2_000:] + finished.stderr


def test_every_line_of_python_works(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE", site.address)
    monkeypatch.chdir(site.folder)
    names: dict[str, Any] = {"requests": requests, "TOKEN": TOKEN}
    for example in examples(PYTHON):
        exec(compile(example, str(PAGE), "exec"), names)
        if "answer" in names:
            assert names["answer"].status_code < 400, f"{example}\n{names['answer'].text}"


@pytest.mark.parametrize("client", ["curl", "python-requests"])
def test_every_operation_has_an_example_that_works(site: Served, client: str) -> None:
    worked = {(method, rule) for who, method, rule, status in site.asked if who == client and status < 400}
    there = {(operation.method, operation.rule.rule) for operation in operations(site.application)}
    assert there - worked == set(), "operations without an example in docs/api.md"


def test_no_example_is_answered_with_an_error(site: Served) -> None:
    assert [asked for asked in site.asked if asked[3] >= 400] == []


# The page of the API.


def test_the_page_shows_every_operation_and_every_shape(site: Served) -> None:
    page = requests.get(f"{site.address}/docs", timeout=30).text
    told = requests.get(f"{site.address}/openapi.json", timeout=30).json()
    shown = re.findall(r'id="(\w+)"', page)
    names = [one["operationId"] for path in told["paths"].values() for one in path.values()]
    assert set(names) | set(told["components"]["schemas"]) <= set(shown)
    assert len(shown) == len(set(shown))
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(shown)
    assert set(re.findall(r'<label for="([\w-]+)"', page)) == set(
        re.findall(r'<(?:input|select)[^>]* id="([\w-]+)"', page)
    )


def test_who_may_not_see_the_page_is_asked_for_a_token_by_a_page(site: Served) -> None:
    closed = replace(site.application.extensions["lookalike"].settings, access_token="a token of sixteen")
    client = create_app(service=SearchService(closed, load_network=False)).test_client()
    page, told = client.get("/api/v1/docs"), client.get("/api/v1/openapi.json")
    assert (page.status_code, page.mimetype, 'type="password"' in page.text) == (401, "text/html", True)
    assert (told.status_code, told.get_json()["error"]["status"]) == (401, 401)


@pytest.fixture
def page(browser: Browser, site: Served) -> Iterator[Page]:
    """Open the page of the API; afterwards nothing may have complained."""
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        watch = Watch(context)
        opened = context.new_page()
        opened.goto(f"{site.address}/docs")
        yield opened
        assert watch.complaints == []


@pytest.mark.browser
def test_an_operation_is_tried_on_the_page(page: Page, site: Served) -> None:
    page.goto(f"{site.address}/docs#get_images_image_id_neighbours")
    form = page.locator("#get_images_image_id_neighbours form")
    form.get_by_label("image_id").fill("7")
    form.get_by_label("k", exact=True).fill("2")
    form.get_by_role("button", name="Ask").click()
    expect(form.locator("[data-told]")).to_contain_text("200 OK")
    expect(form.locator("[data-told]")).to_contain_text(f"curl '{site.address}/images/7/neighbours?k=2'")
    expect(form.locator("[data-told]")).to_contain_text('"matches": [')
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.browser
def test_pictures_are_sent_and_shown_on_the_page(page: Page, site: Served) -> None:
    page.locator("#post_search > summary").click()
    form = page.locator("#post_search form")
    form.get_by_label("file", exact=True).set_input_files(site.folder / "photo.jpg")
    form.get_by_label("k", exact=True).fill("3")
    form.get_by_role("button", name="Ask").click()
    expect(form.locator("[data-told]")).to_contain_text("curl -F 'k=3' -F 'file=@photo.jpg'")
    expect(form.locator("[data-told]")).to_contain_text('"rank": 3')
    page.locator("#get_images_image_id_thumbnail > summary").click()
    form = page.locator("#get_images_image_id_thumbnail form")
    form.get_by_label("image_id").fill("7")
    form.get_by_label("image_id").press("Enter")
    expect(form.get_by_role("img")).to_have_js_property("complete", True)
    assert form.get_by_role("img").evaluate("picture => picture.naturalWidth") > 0


@pytest.mark.browser
def test_what_is_sent_as_json_is_what_the_fields_say(page: Page) -> None:
    page.locator("#post_map_more > summary").click()
    form = page.locator("#post_map_more form")
    form.get_by_label("image_ids").fill("7, 9")
    form.get_by_role("button", name="Ask").click()
    expect(form.locator("[data-told]")).to_contain_text("""curl --json '{"image_ids":[7,9]}'""")
    expect(form.locator("[data-told]")).to_contain_text("200 OK")


@pytest.mark.browser
def test_what_is_shown_for_the_shell_is_quoted_for_it(page: Page) -> None:
    page.locator("#get_images > summary").click()
    form = page.locator("#get_images form")
    form.get_by_label("text", exact=True).fill("it's")
    form.get_by_role("button", name="Ask").click()
    command = form.locator("[data-told] pre").first.inner_text()
    answer = subprocess.run(["bash", "-c", f"{command} --silent --fail-with-body"], capture_output=True, check=True)
    assert b'"images":0' in answer.stdout


def test_fields_that_a_form_leaves_empty_are_not_given(site: Served) -> None:
    paths = requests.get(f"{site.address}/openapi.json", timeout=30).json()["paths"]
    refused = []
    for path, fields in ((path, said["get"]["parameters"]) for path, said in paths.items() if "get" in said):
        if any(field["required"] for field in fields):
            continue
        given = {field["name"]: "" for field in fields} | ({"image_id": "7"} if "/search" in path else {})
        address, token = site.address.removesuffix("/api/v1") + path, {"Authorization": f"Bearer {TOKEN}"}
        answer = requests.get(address, params=given, headers=token, timeout=30)
        refused += [] if answer.status_code == 200 else [(path, answer.text)]
    assert refused == []


def test_a_batch_has_no_query_of_an_empty_field(site: Served) -> None:
    told = requests.post(f"{site.address}/search/batch", data={"image_id": ["7", ""], "like": "", "k": ""}, timeout=30)
    assert {row["query"] for row in told.json()["rows"]} == {0}
    assert told.json()["errors"] == []


@pytest.mark.browser
def test_without_scripts_the_page_asks_what_has_a_fixed_address(browser: Browser, site: Served) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{site.address}/docs")
        page.locator("#get_images > summary").click()
        page.locator("#get_images form").get_by_label("label", exact=True).fill("archive")
        page.locator("#get_images form").get_by_role("button", name="Ask").click()
        expect(page.locator("body")).to_contain_text('"label":"archive"')
