"""The page of duplicates proposes what to keep, takes a person's word, and gives out a plan; it moves nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect

from app import create_app
from config import Settings
from plans import Plan, read_plan
from search import SearchService
from tests.duplicated_collection import COPIES, RESIZED, SETS, find, index, make_photos
from tests.serving import served
from tests.test_browser import Watch
from web import duplicates as page_module


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchService]:
    folder = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as monkeypatch:
        settings, _ = index(monkeypatch, make_photos(folder / "photos"), folder / "rsc")
        find(settings)
        service = SearchService(settings, load_network=False)
        service.status()  # loads the network while there is a fake one
        yield service
        service.close()


@pytest.fixture
def client(service: SearchService) -> FlaskClient:
    return create_app(service=service).test_client()


def id_of(client: FlaskClient, name: str) -> int:
    for one in client.get("/api/v1/duplicates").get_json()["results"]:
        for image in one["images"]:
            if image["image"]["name"] == name:
                return int(image["image"]["image_id"])
    raise AssertionError(name)


def plan_of(client: FlaskClient, tmp_path: Path, **fields: object) -> Plan:
    response = client.post("/duplicates/plan", data=fields)
    assert response.status_code == 200, response.get_json()
    assert response.headers["Content-Disposition"] == 'attachment; filename="duplicates-plan.csv"'
    (tmp_path / "plan.csv").write_bytes(response.data)
    return read_plan(tmp_path / "plan.csv")


def removed(plan: Plan) -> set[str]:
    return {Path(row.path.decode()).name for row in plan.removed}


def test_the_page_shows_sets_with_what_differs_and_marks_what_is_kept(client: FlaskClient) -> None:
    page = client.get("/duplicates").get_data(as_text=True)
    assert f"{SETS} sets of 9 images: 5 files could go" in page
    assert page.count("<fieldset") == SETS
    assert page.count('name="keep"') == page.count('name="remove"') == 9
    assert len(re.findall(r'name="keep" value="\d+" checked', page)) == SETS
    assert "<b>480 × 360</b>" in page  # differs in a set
    assert "resized, as JPEG" in page
    assert "python duplicates.py --apply duplicates-plan.csv" in page
    assert page.count("<img") == page.count(' alt="') == 9 + 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/duplicates?tier=identical", "2 sets of 5 images: 3 files could go"),
        ("/duplicates?tier=burst", "There are none."),
        ("/duplicates?tier=similar", "No plan touches them."),
        ("/duplicates?rule=oldest", '<option value="oldest" selected'),
        ("/duplicates?protect=camera+roll", "4 files could go"),
        ("/duplicates?protect=", "5 files could go"),
    ],
)
def test_tabs_rules_and_protected_folders_are_in_the_address(client: FlaskClient, address: str, expected: str) -> None:
    response = client.get(address)
    assert response.status_code == 200
    assert expected in response.get_data(as_text=True)


def test_many_sets_come_page_by_page(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "SETS_A_PAGE", 3)
    first = client.get("/duplicates?rule=oldest").get_data(as_text=True)
    assert first.count("<fieldset") == 3
    assert 'href="/duplicates?page=2&amp;rule=oldest"' in first
    last = client.get("/duplicates?rule=oldest&page=2").get_data(as_text=True)
    assert (last.count("<fieldset"), '<ol class="sets" start="4">' in last) == (1, True)
    assert client.get("/duplicates?page=3").status_code == 400


def test_a_large_set_is_shown_in_part_and_planned_whole(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page_module, "PICTURES_A_SET", 2)
    assert "and 1 more, which the plan has" in client.get("/duplicates").get_data(as_text=True)
    assert removed(plan_of(client, tmp_path)) == {*COPIES, *RESIZED}


def test_the_plan_has_the_sets_of_all_pages_with_what_was_decided_by_hand(client: FlaskClient, tmp_path: Path) -> None:
    assert removed(plan_of(client, tmp_path)) == {*COPIES, *RESIZED}
    assert removed(plan_of(client, tmp_path, tier="identical")) == set(COPIES)
    assert removed(plan_of(client, tmp_path, protect="camera roll")) == {"1.png", "2.png", "3.png", "4.png"}
    tiny, large = id_of(client, "tiny.jpg"), id_of(client, "4.png")
    plan = plan_of(client, tmp_path, keep=[tiny], remove=[tiny, large])
    assert removed(plan) == {*COPIES, "small.jpg", "4.png"}
    assert {row.reason for row in plan.rows if row.path.endswith((b"tiny.jpg", b"4.png"))} == {"chosen by hand"}
    assert removed(plan_of(client, tmp_path, keep=[tiny, large])) == {*COPIES, "small.jpg"}
    as_json = client.post("/duplicates/plan", data={"format": "json"})
    assert len(as_json.get_json()["files"]) == 9


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"tier": "same", "remove": ["all"]}, "must be a whole number"),
        ({"tier": "similar"}, "never in a plan"),
        ({"tier": "nearly"}, "no tier 'nearly'"),
        ({"rule": "newest"}, "no rule 'newest'"),
        ({"format": "xlsx"}, "csv or json"),
        ({"protect": "nowhere"}, "No image of this collection lies in a folder 'nowhere'"),
        ({"kep": "7"}, "no field 'kep'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_shape(
    client: FlaskClient, fields: dict[str, object], complaint: str
) -> None:
    answer = client.post("/api/v1/duplicates/plan", json=fields)
    assert (answer.status_code, complaint in answer.get_json()["error"]["message"]) == (400, True)
    assert client.post("/duplicates/plan", data=fields).status_code == 400


def test_a_plan_that_would_keep_nothing_of_a_set_is_refused(client: FlaskClient) -> None:
    both = [id_of(client, "tiny.jpg"), id_of(client, "4.png")]
    answer = client.post("/api/v1/duplicates/plan", json={"remove": both})
    assert answer.status_code == 400
    assert "Nothing would be kept" in answer.get_json()["error"]["message"]


def test_a_plan_names_files_of_the_server_and_is_not_for_everybody(service: SearchService) -> None:
    settings = Settings(rsc_files=service.settings.rsc_files, backbone="efficientnet_lite0", edits="off")
    public = SearchService(settings, load_network=False)
    client = create_app(service=public).test_client()
    page = client.get("/duplicates").get_data(as_text=True)
    assert ('name="keep"' in page, "Download the plan" in page, str(settings.rsc_files) in page) == (
        False,
        False,
        False,
    )
    assert '<p class="keep">Kept</p>' in page
    answer = client.post("/api/v1/duplicates/plan")
    assert (answer.status_code, "gives out no plans" in answer.get_json()["error"]["message"]) == (403, True)
    public.close()
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert create_app(service=service).test_client().post("/duplicates/plan", headers=elsewhere).status_code == 403


def test_the_api_tells_sets_and_copies(client: FlaskClient) -> None:
    told = client.get("/api/v1/duplicates?rule=format").get_json()
    assert told["tiers"] == {"same": SETS, "identical": 2, "burst": 0, "similar": told["tiers"]["similar"]}
    assert (told["images"], told["removed"], told["page"], told["pages"], told["images_not_compared_yet"]) == (
        9,
        5,
        1,
        1,
        0,
    )
    first = told["results"][0]["images"]
    assert [one["action"] for one in first] == ["keep", "remove", "remove"]
    assert first[1]["relation"] == "identical bytes"
    assert first[0]["reason"] == "best format: PNG"
    tiny, large = id_of(client, "tiny.jpg"), id_of(client, "4.png")
    for one, other, relation in ((large, tiny, "resized, as JPEG"), (tiny, large, "resized, as PNG")):
        (copy,) = client.get(f"/api/v1/images/{one}/duplicates").get_json()["results"]
        assert (copy["image"]["image_id"], copy["tier"], copy["relation"]) == (other, "same", relation)
    assert client.get("/api/v1/images/999/duplicates").status_code == 404
    assert client.get("/api/v1/duplicates?keep=7").status_code == 400


def test_an_images_page_says_where_else_it_is(client: FlaskClient) -> None:
    page = client.get(f"/images/{id_of(client, '4.png')}").get_data(as_text=True)
    assert "<h2>Also here</h2>" in page
    assert 'alt="camera roll/tiny.jpg"' in page
    assert "in camera roll, resized, as JPEG" in page


def test_before_anything_was_looked_for_the_page_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = index(monkeypatch, make_photos(tmp_path / "photos"), tmp_path / "rsc")
    service = SearchService(settings, load_network=False)
    client = create_app(service=service).test_client()
    response = client.get("/duplicates")
    assert (response.status_code, "python duplicates.py" in response.get_data(as_text=True)) == (404, True)
    assert client.get("/api/v1/duplicates").get_json()["error"]["code"] == "no_view"
    assert "Also here" not in client.get("/images/1").get_data(as_text=True)
    find(settings)
    (tmp_path / "photos" / "new.jpg").write_bytes((tmp_path / "photos" / "camera roll" / "tiny.jpg").read_bytes())
    from img2vec import Job, index_images

    index_images(Job(settings, [bytes(tmp_path / "photos" / "new.jpg")]))
    assert "1 image has come since duplicates were looked for" in client.get("/duplicates").get_data(as_text=True)
    service.close()


# In a browser.


@pytest.fixture(scope="module")
def address(service: SearchService) -> Iterator[str]:
    with served(create_app(service=service)) as address:
        yield address


def downloaded(page: Page, tmp_path: Path) -> set[str]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the plan").click()
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    return removed(read_plan(target))


@pytest.mark.browser
def test_what_is_decided_on_one_page_is_in_the_plan_of_another(
    browser: Browser, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "SETS_A_PAGE", 2)
    with browser.new_context(base_url=address, viewport={"width": 390, "height": 800}) as context:
        watch = Watch(context)
        page = context.new_page()
        page.goto("/duplicates?page=2")
        page.get_by_label("Keep tiny.jpg").check()
        page.get_by_role("link", name="Previous").click()
        assert downloaded(page, tmp_path) == {*COPIES, "small.jpg"}  # both of that set, as the boxes said
        page.get_by_role("link", name="Next").click()
        page.get_by_label("Keep 4.png").uncheck()
        expect(page.locator("[data-state]")).to_contain_text("2 images")
        page.get_by_role("link", name="Previous").click()
        expect(page.locator("[data-set]")).to_have_count(2)
        assert downloaded(page, tmp_path) == {*COPIES, "small.jpg", "4.png"}
        page.get_by_role("link", name="Next").click()
        expect(page.get_by_label("Keep tiny.jpg")).to_be_checked()
        page.get_by_label("Keep tiny.jpg").uncheck()
        expect(page.get_by_role("button", name="Download the plan")).to_be_disabled()
        expect(page.get_by_text("Nothing would be kept of these.").locator("visible=true")).to_have_count(1)
        page.get_by_role("button", name="Forget what I decided").click()
        assert downloaded(page, tmp_path) == {*COPIES, *RESIZED}
        page.get_by_role("link", name="Bursts").click()
        expect(page.get_by_text("There are none.")).to_be_visible()
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        assert watch.complaints == []


@pytest.mark.browser
def test_without_javascript_the_plan_has_what_is_decided_on_the_page(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/duplicates")
        page.get_by_label("Keep tiny.jpg").check()
        assert downloaded(page, tmp_path) == {*COPIES, "small.jpg"}
        page.get_by_label("Of each set keep").select_option("the shortest name")
        page.get_by_role("button", name="Propose").click()
        expect(page).to_have_url(re.compile("rule=shortest"))


def test_the_plan_as_json_is_readable(client: FlaskClient, tmp_path: Path) -> None:
    answer = client.get("/api/v1/duplicates/plan?format=json")
    (tmp_path / "plan.json").write_bytes(answer.data)
    assert removed(read_plan(tmp_path / "plan.json")) == {*COPIES, *RESIZED}
    assert json.loads(answer.data)["plan_version"] == 1
