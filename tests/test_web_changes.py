"""Pages and API change the collection for who has the token, say what became of each file, and refuse everybody else."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, Page, expect
from werkzeug.test import TestResponse

from app import create_app
from commands.img2vec import main
from config import Settings
from img2vec import Job, index_images
from search import SearchService
from store import open_writer
from tests import fake_backbone
from tests.duplicated_collection import find, index, make_photos
from tests.fakes import encoded, picture
from tests.serving import served
from tests.test_browser import Watch

TOKEN = "a token that nobody guesses"
JOBS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/v1/jobs/add", {}),
    ("/api/v1/jobs/delete", {"image_ids": [1]}),
    ("/api/v1/jobs/restore", {"run": "0" * 16}),
    ("/api/v1/duplicates/apply", {}),
)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchService]:
    settings, _ = index(monkeypatch, make_photos(tmp_path / "photos"), tmp_path / "rsc")
    find(settings)
    service = SearchService(replace(settings, changes="on", edit_token=TOKEN, run_folder=tmp_path / "run"))
    service.status()
    yield service
    service.close()


@pytest.fixture
def client(service: SearchService) -> FlaskClient:
    client = create_app(service=service).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


def file(number: int, name: str) -> tuple[io.BytesIO, str]:
    return io.BytesIO(encoded(picture(number))), name


def add(client: FlaskClient, *files: tuple[io.BytesIO, str], **fields: str) -> TestResponse:
    return client.post("/api/v1/jobs/add", data={"file": list(files), **fields})


def some_ids(client: FlaskClient, count: int) -> list[int]:
    answer = client.get(f"/api/v1/images?k={count}").get_json()
    return [image["image_id"] for image in answer["results"]]


def images(client: FlaskClient) -> int:
    count: int = client.get("/api/v1/collection").get_json()["images"]
    return count


def test_what_became_of_each_file_is_told_in_their_order(client: FlaskClient) -> None:
    before = images(client)
    answer = add(client, file(70, "one.jpg"), (io.BytesIO(b"<svg/>"), "two.svg"), file(70, "three.jpg"), folder="trip")
    assert answer.status_code == 200
    told = answer.get_json()
    assert told["added"] == 1
    assert [one["status"] for one in told["results"]] == ["added", "failed", "known"]
    assert [one["name"] for one in told["results"]] == ["one.jpg", "two.svg", "three.jpg"]
    assert told["results"][0]["image"]["label"] == "trip"
    assert told["results"][1]["error"]["code"] == "not_an_image"
    assert images(client) == before + 1
    found = client.post("/api/v1/search", data={"file": file(70, "query.jpg"), "k": "1"}).get_json()
    assert found["matches"][0]["image"]["image_id"] == told["results"][0]["image"]["image_id"]


def test_pictures_of_a_folder_are_labelled_by_it(client: FlaskClient) -> None:
    told = add(client, file(71, "holiday/sea/a.jpg"), file(72, "b.jpg")).get_json()
    assert [one["image"]["label"] for one in told["results"]] == ["sea", "added"]
    assert [one["name"] for one in told["results"]] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({"changes": "off"}, {"Authorization": f"Bearer {TOKEN}"}, 403),
        ({}, {}, 401),
        ({}, {"Authorization": "Bearer another token"}, 401),
        ({}, {"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({}, {"Authorization": f"Bearer {TOKEN}", "Origin": "http://elsewhere.example"}, 403),
    ],
)
def test_nothing_changes_for_who_may_not(
    service: SearchService, settings: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    service.settings = replace(service.settings, **settings)
    client = create_app(service=service).test_client()
    before = images(client)
    for path, body in JOBS:
        refused = client.post(path, json=body, headers=headers)
        assert (path, refused.status_code) == (path, status)
        assert set(refused.get_json()["error"]) == {"status", "code", "message"}
    for path in ("/add", "/images/remove", "/removed/" + "0" * 16 + "/restore", "/duplicates/apply"):
        assert client.post(path, headers=headers).status_code == status
    assert add(client, file(73, "a.jpg")).status_code in (401, 403)
    assert images(client) == before


def test_a_collection_that_another_job_holds_is_said_with_409(client: FlaskClient, service: SearchService) -> None:
    ids = some_ids(client, 1)
    with open_writer(service.settings.rsc_files, command="img2vec.py of somebody"):
        for answer in (
            add(client, file(74, "a.jpg")),
            client.post("/api/v1/jobs/delete", json={"image_ids": ids}),
            client.post("/api/v1/duplicates/apply", json={}),
        ):
            assert answer.status_code == 409
            assert answer.get_json()["error"]["code"] == "collection_locked"
            assert "Try again" in answer.get_json()["error"]["message"]
            assert str(service.settings.rsc_files) not in answer.get_data(as_text=True)
    assert add(client, file(74, "a.jpg")).get_json()["added"] == 1


def test_requests_that_make_no_sense_are_refused(client: FlaskClient) -> None:
    for path, body in (
        ("/api/v1/jobs/delete", {}),
        ("/api/v1/jobs/delete", {"image_ids": ["x"]}),
        ("/api/v1/jobs/delete", {"image_ids": [1], "folder": "/"}),
        ("/api/v1/jobs/restore", {"run": "../../x"}),
        ("/api/v1/jobs/restore", {"run": 7}),
        ("/api/v1/duplicates/apply", {"tier": "similar"}),
        ("/api/v1/duplicates/apply", {"which": "none"}),
        ("/api/v1/duplicates/apply", {"created_at": "yesterday"}),
        ("/api/v1/jobs/add", {}),
    ):
        assert (path, body, client.post(path, json=body).status_code) == (path, body, 400)
    assert client.post("/api/v1/jobs/delete", json={"image_ids": [999]}).status_code == 404
    assert client.get("/removed/" + "0" * 64 + "/thumbnail").status_code == 404
    assert client.get("/removed/..%2F..%2Fx/thumbnail").status_code == 404


def test_images_that_are_deleted_come_back(client: FlaskClient) -> None:
    before, ids = images(client), some_ids(client, 2)
    done = client.post("/api/v1/jobs/delete", json={"image_ids": ids}).get_json()
    assert (done["images"], done["files"], done["skipped"], len(done["runs"])) == (2, 2, [], 1)
    assert images(client) == before - 2
    assert client.get(f"/images/{ids[0]}").status_code == 404
    listed = client.get("/api/v1/jobs/removed").get_json()["results"]
    assert [(run["run"], run["files"], run["files_held"]) for run in listed] == [(done["runs"][0], 2, 2)]
    restored = client.post("/api/v1/jobs/restore", json={"run": done["runs"][0]}).get_json()
    assert restored == {"files": 2, "already": 0, "not_searchable": 0, "problems": []}
    assert images(client) == before
    assert client.get(f"/images/{ids[0]}").status_code == 200


def test_duplicates_are_applied_as_they_were_decided(client: FlaskClient, service: SearchService) -> None:
    made = client.get("/api/v1/duplicates").get_json()
    sets = [[one["image"]["image_id"] for one in found["images"]] for found in made["results"]]
    kept_by_hand = sets[0][-1]
    body = {"created_at": made["created_at"], "keep": [kept_by_hand]}
    done = client.post("/api/v1/duplicates/apply", json=body).get_json()
    assert done["files"] == made["removed"] - 1
    assert client.get(f"/images/{kept_by_hand}").status_code == 200
    left = client.get("/api/v1/duplicates").get_json()
    assert [len(found["images"]) for found in left["results"]] == [2]
    client.post("/api/v1/jobs/restore", json={"run": done["runs"][0]})
    assert client.get("/api/v1/duplicates").get_json()["removed"] == made["removed"]


def test_one_page_of_duplicates_can_be_applied_alone(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from web import duplicates as page_module

    monkeypatch.setattr(page_module, "SETS_A_PAGE", 1)
    made = client.get("/api/v1/duplicates?page=2").get_json()
    (gone,) = [one["image"]["image_id"] for one in made["results"][0]["images"] if one["action"] == "remove"]
    done = client.post("/api/v1/duplicates/apply", json={"which": "page", "page": 2}).get_json()
    assert done["images"] == 1
    assert client.get(f"/images/{gone}").status_code == 404


def test_messages_name_no_path_of_the_server(client: FlaskClient, service: SearchService, tmp_path: Path) -> None:
    ids = some_ids(client, 1)
    path, _ = service.original(ids[0])
    status = os.stat(path)
    with open(path, "r+b") as changed:
        changed.write(b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    refused = client.post("/api/v1/jobs/delete", json={"image_ids": ids})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (409, "bad_plan")
    assert str(tmp_path) not in refused.get_data(as_text=True)
    done = client.post("/api/v1/jobs/delete", json={"image_ids": some_ids(client, 3)[1:]})
    for page in ("/removed", "/api/v1/jobs/removed", "/add"):
        assert str(tmp_path) not in client.get(page).get_data(as_text=True)
    assert str(tmp_path) not in done.get_data(as_text=True)


def test_pages_offer_changes_only_where_they_are_on(service: SearchService, client: FlaskClient) -> None:
    address = f"/images/{some_ids(client, 1)[0]}"
    assert 'action="/images/remove"' in client.get(address).get_data(as_text=True)
    visitor = create_app(service=service).test_client()
    assert 'action="/images/remove"' not in visitor.get(address).get_data(as_text=True)
    assert "/duplicates/apply" not in visitor.get("/duplicates").get_data(as_text=True)


def test_a_collection_made_anew_has_what_was_added(client: FlaskClient, service: SearchService, tmp_path: Path) -> None:
    add(client, file(75, "mine.jpg"))
    for name in ("catalog.sqlite", "thumbnails.sqlite"):
        (service.settings.rsc_files / name).unlink()
    folder = ("--rsc-files", str(service.settings.rsc_files), "--backbone", "efficientnet_lite0", "--quiet")
    assert main([str(tmp_path / "photos"), *folder]) == 0
    assert "mine.jpg" in {info.name for info in service.some_images(100)}


def test_the_form_works_without_a_script(client: FlaskClient) -> None:
    page = client.post("/add", data={"file": [file(76, "a.jpg"), (io.BytesIO(b"no"), "b.txt")]}).get_data(as_text=True)
    assert "1 of 2 added." in page
    assert re.search(r'data-status="added">\s*<a href="/images/\d+"><img', page)
    gone = client.post("/images/remove", data={"image_ids": some_ids(client, 2)})
    assert gone.status_code == 303
    shown = client.get(gone.headers["Location"]).get_data(as_text=True)
    assert "they are out of the collection" in shown
    (action,) = re.findall(r'action="(/removed/[0-9a-f]+/restore)"', shown)
    (thumbnail, *_) = re.findall(r'src="(/removed/[0-9a-f]{64}/thumbnail)"', shown)
    assert client.get(thumbnail).mimetype == "image/jpeg"
    back = client.post(action)
    assert "They are back" in client.get(back.headers["Location"]).get_data(as_text=True)


def test_a_collection_can_begin_in_the_browser_and_end_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backbone.install(monkeypatch)
    service = SearchService(
        Settings(rsc_files=tmp_path / "rsc", run_folder=tmp_path / "run", changes="on", edit_token=TOKEN, index="exact")
    )
    client = create_app(service=service).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    assert client.get("/add").status_code == 200
    assert add(client, (io.BytesIO(b"no"), "a.jpg")).get_json()["added"] == 0
    assert 'href="/add"' in client.get("/").get_data(as_text=True)
    (told,) = add(client, file(77, "a.jpg")).get_json()["results"]
    assert images(client) == 1
    done = client.post("/api/v1/jobs/delete", json={"image_ids": [told["image"]["image_id"]]}).get_json()
    shown = client.get("/removed").get_data(as_text=True)
    (thumbnail,) = re.findall(r'src="(/removed/[0-9a-f]{64}/thumbnail)"', shown)
    assert client.get(thumbnail).status_code == 200
    client.post("/api/v1/jobs/restore", json={"run": done["runs"][0]})
    assert images(client) == 1
    service.close()


def test_images_whose_vectors_went_meanwhile_are_said_when_they_come_back(
    client: FlaskClient, service: SearchService
) -> None:
    alone = next(info.image_id for info in service.some_images(100) if info.name == "9.png")  # no other has its bytes
    client.post("/images/remove", data={"image_ids": [alone]})
    index_images(Job(service.settings, [], compact=True))
    (action,) = re.findall(r'action="(/removed/[0-9a-f]+/restore)"', client.get("/removed").get_data(as_text=True))
    page = client.get(client.post(action).headers["Location"]).get_data(as_text=True)
    assert "1 is not found by searches until" in page


# In a browser.


@pytest.fixture
def address(service: SearchService) -> Iterator[str]:
    with served(create_app(service=service)) as base_url:
        yield base_url


def signed_in(context: BrowserContext, path: str) -> Page:
    page = context.new_page()
    page.goto(f"/sign-in?next={path}")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.goto(path)
    return page


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_folder_is_added_with_progress_for_each_file(
    browser: Browser, address: str, tmp_path: Path, width: int
) -> None:
    trip = tmp_path / "trip"
    trip.mkdir()
    for number in range(80, 95):
        picture(number).save(trip / f"{number}.jpg")
    (trip / "broken.jpg").write_bytes(b"no picture")
    (trip / "notes.txt").write_text("passed over")
    with browser.new_context(base_url=address, viewport={"width": width, "height": 800}) as context:
        page = signed_in(context, "/add")
        watch = Watch(context)
        page.locator("[data-whole]").set_input_files(trip)
        expect(page.locator("[data-state]")).to_have_text(
            "15 added, 1 not taken, 1 file that is no picture passed over.", timeout=30_000
        )
        expect(page.locator(".files [data-status=added]")).to_have_count(15)
        expect(page.locator(".files [data-status=failed]")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name="80.jpg").click()
        expect(page.get_by_role("heading", name="80.jpg")).to_be_visible()
        assert watch.complaints == []


@pytest.mark.browser
def test_adding_goes_on_after_another_job(
    browser: Browser, address: str, service: SearchService, tmp_path: Path
) -> None:
    picture(96).save(tmp_path / "a.jpg")
    with browser.new_context(base_url=address) as context:
        page = signed_in(context, "/add")
        with open_writer(service.settings.rsc_files, command="another job"):
            page.locator("[name=file]").set_input_files(tmp_path / "a.jpg")
            expect(page.locator("[data-state]")).to_contain_text("Another job is changing the collection")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("[data-state]")).to_have_text("1 added.")


@pytest.mark.browser
def test_duplicates_go_and_come_back(browser: Browser, address: str) -> None:
    with browser.new_context(base_url=address) as context:
        page = signed_in(context, "/duplicates")
        watch = Watch(context)
        page.get_by_label("Keep tiny.jpg").check()
        page.get_by_label("Keep tiny.jpg").press("Enter")
        assert page.url.endswith("/duplicates")
        page.get_by_role("button", name="Move out those of all 4 sets").click()
        expect(page.get_by_text("they are out of the collection")).to_be_visible()
        expect(page.locator(".held img")).to_have_count(4)
        page.get_by_role("button", name="Bring them back").click()
        expect(page.get_by_text("They are back")).to_be_visible()
        page.goto("/duplicates")
        expect(page.locator("[data-set]")).to_have_count(4)
        assert watch.complaints == []


@pytest.mark.browser
def test_a_picture_is_taken_out_from_its_page_by_keyboard(browser: Browser, address: str, client: FlaskClient) -> None:
    image_id = some_ids(client, 1)[0]
    with browser.new_context(base_url=address) as context:
        page = signed_in(context, f"/images/{image_id}")
        page.get_by_text("Take it out …").focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Take it out of the collection").press("Enter")
        expect(page.get_by_text("they are out of the collection")).to_be_visible()
    assert client.get(f"/images/{image_id}").status_code == 404


def test_settings_say_where_added_pictures_lie(tmp_path: Path) -> None:
    assert Settings(rsc_files=tmp_path).saved_folder == tmp_path / "added"
    assert Settings(rsc_files=tmp_path, added_folder=tmp_path / "x").saved_folder == tmp_path / "x"


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_images_of_a_folder_are_chosen_and_taken_out(browser: Browser, address: str, width: int) -> None:
    with browser.new_context(base_url=address, viewport={"width": width, "height": 800}) as context:
        page = signed_in(context, "/search?folder=camera+roll")
        watch = Watch(context)
        page.get_by_role("link", name="Choose some to label or take out").click()
        boxes = page.get_by_role("checkbox")
        expect(boxes).to_have_count(5)
        out = page.get_by_role("button", name="Take the chosen ones out")
        expect(out).to_be_disabled()
        boxes.nth(0).check()
        boxes.nth(2).click(modifiers=["Shift"])
        expect(page.get_by_text("3 images chosen")).to_be_visible()
        boxes.nth(1).press("Enter")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        out.click()
        expect(page.locator(".held img")).to_have_count(3)
        assert watch.complaints == []
