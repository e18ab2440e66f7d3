"""The pages a collection is browsed by, and the page of the collection, over a service of a made-up collection."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect

import web.browse
import web.collection
from app import create_app
from config import Settings
from img2vec import Job, index_images
from search import SearchService
from search.about import about, disk_use, failures
from store import Batch, Record, open_writer, tag_images
from tests import fake_backbone
from tests.fakes import encoded, picture
from tests.grouped_collection import KINDS, MANIFEST, make_collection
from tests.serving import served
from tests.test_browser import Watch


def client_of(settings: Settings) -> FlaskClient:
    return create_app(settings, SearchService(settings, load_network=False)).test_client()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(make_collection(tmp_path), run_folder=tmp_path / "run")


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return client_of(settings)


def cards_of(page: str) -> dict[str, int]:
    """Return the address of each card with its count."""
    found = re.findall(
        r'<li><a href="([^"]+)">\s*<span class="mosaic">.*?<span class="rank">([\d,]+) image', page, re.S
    )
    return {address.replace("&amp;", "&"): int(count) for address, count in found}


def page_of(client: FlaskClient, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.text


# Browse.


def test_browse_begins_with_every_way_that_there_is(client: FlaskClient, settings: Settings) -> None:
    page = page_of(client, "/browse")
    assert re.findall(r'<h2 id="by-(\w+)"', page) == ["folders", "dates"]
    tag_images(settings.rsc_files, "mine", [1, 2])
    assert re.findall(r'<h2 id="by-(\w+)"', page_of(client, "/browse")) == ["folders", "dates", "tags"]


def test_labels_that_are_the_folders_again_are_not_offered_twice(client: FlaskClient) -> None:
    assert "by-labels" not in page_of(client, "/browse")
    assert cards_of(page_of(client, "/browse/labels")) == {f"/search?label={k}": count for k, count in KINDS.items()}


@pytest.mark.parametrize("by", ["folders", "dates", "labels", "tags"])
def test_a_card_leads_to_as_many_images_as_it_says(client: FlaskClient, settings: Settings, by: str) -> None:
    tag_images(settings.rsc_files, "a & b", [1, 2, 30])
    cards = cards_of(page_of(client, f"/browse/{by}"))
    assert cards
    for address, count in cards.items():
        found = page_of(client, f"{address}&k=all")
        assert f"<h1>{count} images</h1>" in found


def test_folders_lead_to_folders_below_them(tmp_path: Path) -> None:
    settings = make_collection(tmp_path, {"trip/sea": 3, "trip/hills": 2, "home": 4})
    client = client_of(settings)
    assert cards_of(page_of(client, "/browse/folders")) == {
        "/search?folder=photos/home": 4,
        "/browse/folders?folder=photos/trip": 5,
    }
    page = page_of(client, "/browse/folders?folder=photos/trip")
    assert cards_of(page) == {"/search?folder=photos/trip/hills": 2, "/search?folder=photos/trip/sea": 3}
    assert "All 5 images" in page
    assert 'href="/browse/folders?folder=photos">photos</a>' in page


def test_no_page_tells_where_the_collection_lies(client: FlaskClient, settings: Settings) -> None:
    for address in ("/browse", "/browse/folders", "/browse/folders?folder=photos/red", "/collection"):
        assert str(settings.rsc_files.parent) not in page_of(client, address)


def test_a_folder_that_is_not_there_is_refused(client: FlaskClient) -> None:
    for folder in ("photos/green", "../..", "/etc"):
        answer = client.get("/browse/folders", query_string={"folder": folder})
        assert (answer.status_code, "lies in a folder" in answer.text) == (400, True)


def test_another_way_to_browse_is_not_found(client: FlaskClient) -> None:
    assert client.get("/browse/colours").status_code == 404


def test_shelves_come_in_pages(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.browse, "CARDS_A_PAGE", 2)
    assert list(cards_of(page_of(client, "/browse/labels"))) == ["/search?label=black", "/search?label=red"]
    assert list(cards_of(page_of(client, "/browse/labels?page=2"))) == ["/search?label=white"]
    assert client.get("/browse/labels?page=3").status_code == 400


def test_years_are_offered_with_all_their_months(tmp_path: Path) -> None:
    client = client_of(make_collection(tmp_path, {"red": 3, "white": 4, "black": 5}))
    page = page_of(client, "/browse/dates")
    assert re.findall(r'taken_from=(\d{4})&amp;taken_until=\1">', page) == ["2015", "2013"]
    assert list(cards_of(page)) == [
        f"/search?taken_from={month}&taken_until={month}" for month in ("2015-08", "2013-08")
    ]
    assert "August 2015" in page


def test_where_there_is_nothing_to_browse_by_the_page_says_so(client: FlaskClient) -> None:
    assert "Nobody has tagged an image yet." in page_of(client, "/browse/tags")


def test_what_the_network_saw_leads_to_the_images_it_saw_it_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backbone.install(monkeypatch)
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number % 2), "PNG", compress_level=number))
    settings = Settings(rsc_files=tmp_path / "rsc", backbone="efficientnet_lite0", run_folder=tmp_path / "run")
    index_images(Job(settings, [os.fsencode(path) for path in sorted(tmp_path.glob("*.png"))]))
    client = client_of(settings)
    cards = cards_of(page_of(client, "/browse/seen"))
    assert sorted(cards.values()) == [3, 3]
    for address, count in cards.items():
        assert f"<h1>{count} images</h1>" in page_of(client, address)


# The collection.


def test_the_page_of_the_collection_says_what_it_is(client: FlaskClient) -> None:
    page = page_of(client, "/collection")
    for told in (
        "36 images",
        "exact search finds everything",
        "the vectors came from elsewhere",
        "clusters.py",
        "Thumbnails",
    ):
        assert told in page


def test_the_last_run_is_remembered_without_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backbone.install(monkeypatch)
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number)))
    (tmp_path / "broken.jpg").write_bytes(encoded(picture(9))[:200])
    settings = Settings(rsc_files=tmp_path / "rsc", backbone="efficientnet_lite0")
    paths = [os.fsencode(path) for path in sorted(tmp_path.glob("*.jpg"))]
    index_images(Job(settings, paths))
    service = SearchService(settings, load_network=False)
    first = about(service).last_run
    assert first is not None
    assert (first["new"], first["failed"], first["interrupted"]) == (3, 1, False)
    assert str(tmp_path) not in repr(first)
    index_images(Job(settings, paths))
    second = about(service).last_run
    assert second is not None
    assert (second["new"], second["unchanged"]) == (0, 3)
    page = page_of(create_app(settings, service).test_client(), "/collection")
    assert "broken.jpg" in page
    assert str(tmp_path) not in page


def test_failures_come_in_pages_and_by_reason(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.collection, "FAILURES_A_PAGE", 2)
    failed = [
        Record(b"/x/%d.jpg" % n, 1, 1, error_code="damaged_image" if n else "empty_file", error=f"reason {n}")
        for n in range(4)
    ]
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.commit(MANIFEST.key, Batch(records=failed))
    client = client_of(settings)
    assert re.findall(r"reason (\d)", page_of(client, "/collection")) == ["0", "1"]
    assert re.findall(r"reason (\d)", page_of(client, "/collection?page=2")) == ["2", "3"]
    assert re.findall(r"reason (\d)", page_of(client, "/collection?code=damaged_image")) == ["1", "2"]
    assert re.findall(r"reason (\d)", page_of(client, "/collection?code=damaged_image&page=2")) == ["3"]
    assert client.get("/collection?code=none").status_code == 400


def test_names_that_are_no_text_are_shown(settings: Settings) -> None:
    record = Record(b"/x/\xff<b>.jpg", 1, 1, error_code="empty_file", error="nothing")
    with open_writer(settings.rsc_files, command="a test") as writer:
        writer.commit(MANIFEST.key, Batch(records=[record]))
    page = page_of(client_of(settings), "/collection")
    assert "&lt;b&gt;.jpg" in page


def test_looking_again_neither_counts_contents_anew_nor_walks_all_paths(settings: Settings) -> None:
    service = SearchService(settings, load_network=False)
    catalog, asked = service.ready().store.catalog, list[str]()
    catalog.set_trace_callback(asked.append)
    for _ in range(2):
        assert about(service).counts.contents == sum(KINDS.values())
        failures(service.ready().store, slice(0, 10))
    catalog.set_trace_callback(None)
    assert len([said for said in asked if "DISTINCT sha256" in said]) == 1
    listing = next(said for said in asked if "ORDER BY" in said and "error_code" in said)
    plan = [step for *_, step in catalog.execute(f"EXPLAIN QUERY PLAN {listing}")]
    assert not [step for step in plan if "USING INDEX" in step]
    service.close()


def test_a_file_with_two_names_takes_its_place_once(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "one").write_bytes(b"x" * 100_000)
    (tmp_path / "index" / "two").hardlink_to(tmp_path / "index" / "one")
    (tmp_path / "catalog.sqlite").write_bytes(b"x" * 10)
    used = disk_use(tmp_path)
    assert list(used) == ["Index and views", "Catalog"]
    assert 100_000 <= used["Index and views"] < 200_000


# A person with a browser.


@pytest.fixture
def page(browser: Browser, settings: Settings) -> Iterator[Page]:
    application = create_app(settings, SearchService(settings, load_network=False))
    with served(application) as address, browser.new_context(base_url=address) as context:
        watch = Watch(context)
        yield context.new_page()
        assert watch.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_person_browses_to_the_images_of_a_folder(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/")
    page.get_by_role("link", name="Browse", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Browse")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("link", name=re.compile("^white")).click()
    expect(page).to_have_url(re.compile(r"/search\?folder=photos/white$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("12 images")
    page.go_back()
    page.get_by_role("link", name="All 2 of dates").click()
    page.get_by_role("link", name=re.compile("^August 2013")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("8 images")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_person_looks_at_the_collection(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/")
    page.get_by_role("link", name="Collection", exact=True).click()
    for name in ("Images", "Network", "Index", "Views", "Last run", "On disk"):
        expect(page.get_by_role("region", name=name)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
