"""Holds `/api/v1` to its shapes, its statuses, and one shape of error."""

from __future__ import annotations

import io
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import api
from app import create_app
from config import Settings
from errors import DamagedCollectionError, LookalikeError
from search import Box, Filter
from tests.fakes import NAMES, FakeService, encoded, picture

SETTINGS = Settings(upload_max_bytes=6_000_000, upload_max_pixels=4_000_000, max_results=48)
HUGE = "9" * 5000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> FakeService:
    return FakeService(tmp_path_factory.mktemp("photographs"), SETTINGS)


@pytest.fixture(scope="module")
def client(service: FakeService) -> FlaskClient:
    return create_app(service=service).test_client()


def upload(content: bytes, name: str = "mine.jpg", **fields: object) -> dict[str, Any]:
    return {"data": {"file": (io.BytesIO(content), name), **fields}}


def test_an_upload_finds_its_own_image_first(client: FlaskClient) -> None:
    answer = client.post("/api/v1/search", **upload(encoded(picture(14), quality=30), k="5"))
    assert answer.status_code == 200
    found = answer.get_json()
    assert found["query"] == {"image_id": None, "width": 640, "height": 480}
    assert found["k"] == 5
    assert [match["rank"] for match in found["matches"]] == [1, 2, 3, 4, 5]
    first = found["matches"][0]
    assert first["image"]["image_id"] == 14
    assert first["similarity"] > 0.99
    assert first["distance"] == pytest.approx(1 - first["similarity"], abs=1e-6)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get("/api/v1/search?image_id=7&k=3"),
        lambda client: client.post("/api/v1/search", data={"image_id": "7", "k": "3"}),
        lambda client: client.post("/api/v1/search", json={"image_id": 7, "k": 3}),
        lambda client: client.post("/api/v1/search?k=3", json={"image_id": "7"}),
    ],
    ids=["address", "form", "json", "json and address"],
)
def test_an_image_id_finds_the_neighbours_and_not_the_image_itself(client: FlaskClient, ask: Any) -> None:
    found = ask(client).get_json()
    assert found["query"]["image_id"] == 7
    assert len(found["matches"]) == 3
    assert 7 not in [match["image"]["image_id"] for match in found["matches"]]


def test_a_search_with_conditions_alone_says_where_they_are_a_list(client: FlaskClient) -> None:
    answer = client.get("/api/v1/search?text=cat")
    assert answer.status_code == 400
    assert "/api/v1/images" in answer.get_json()["error"]["message"]


def test_a_picture_that_is_kept_need_not_be_sent_again(client: FlaskClient, service: FakeService) -> None:
    sent = encoded(picture(14), quality=30)
    kept = client.post("/api/v1/uploads", **upload(sent))
    assert kept.status_code == 201
    told = kept.get_json()
    assert (told["width"], told["height"], told["minutes"]) == (640, 480, service.settings.kept_minutes)
    again = client.get(f"/api/v1/search?like={told['key']}&k=3").get_json()["matches"]
    assert again == client.post("/api/v1/search", **upload(sent, k="3")).get_json()["matches"]
    assert client.get(told["thumbnail_url"]).mimetype == "image/jpeg"
    assert client.get(told["page_url"]).status_code == 200


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"data": {}}, "No pictures came"),
        ({"data": {"file": [(io.BytesIO(encoded(picture(n))), "a.jpg") for n in (1, 2)]}}, "2 pictures came"),
        (upload(encoded(picture(1)), k="3"), "keeping a picture has: file, box"),
    ],
)
def test_one_picture_is_kept_at_a_time(client: FlaskClient, sent: dict[str, Any], said: str) -> None:
    answer = client.post("/api/v1/uploads", **sent)
    assert answer.status_code == 400
    assert said in answer.get_json()["error"]["message"]


def ids_of(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [match["image"]["image_id"] for match in answer.get_json()["matches"]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get("/api/v1/search?image_id=7&image_id=9&unlike=12&k=28"),
        lambda client: client.post("/api/v1/search", data={"image_id": ["7", "9"], "unlike": "12", "k": "28"}),
        lambda client: client.post("/api/v1/search", json={"like": [7, 9], "unlike": [12], "k": 28}),
        lambda client: client.post("/api/v1/search?k=28", json={"image_id": [7], "like": 9, "unlike": 12}),
    ],
    ids=["address", "form", "json", "json and address"],
)
def test_several_images_and_those_to_be_unlike_are_left_out(client: FlaskClient, ask: Any) -> None:
    answer = ask(client)
    assert sorted(ids_of(answer)) == [number for number in range(1, len(NAMES) + 1) if number not in (7, 9, 12)]
    assert answer.get_json()["query"] == {"image_id": None, "width": None, "height": None}


def test_several_uploads_and_one_to_be_unlike(client: FlaskClient) -> None:
    def file(number: int) -> tuple[io.BytesIO, str]:
        return io.BytesIO(encoded(picture(number))), f"{number}.jpg"

    both = ids_of(client.post("/api/v1/search", data={"file": [file(14), file(20)], "k": "2"}))
    assert set(both) == {14, 20}
    sent = {"file": [file(14), file(20)], "unlike_file": file(20), "k": "30"}
    assert ids_of(client.post("/api/v1/search", data=sent)).index(20) > 1


def test_an_answer_says_how_was_searched_and_how_good_it_is(
    client: FlaskClient, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "good", 2)
    found = client.get("/api/v1/search?image_id=7&k=3&radius=2&metric=euclidean&ranking=plain").get_json()
    assert {name: found[name] for name in ("k", "radius", "metric", "ranking", "good_matches", "truncated")} == {
        **{"k": 3, "radius": 2.0, "metric": "euclidean", "ranking": "plain", "good_matches": 2, "truncated": False}
    }
    match = found["matches"][0]
    assert match["closer_than"] == pytest.approx((1 + match["similarity"]) / 2, abs=1e-6)


def test_a_radius_without_k_and_k_all_answer_everything_up_to_the_maximum(tmp_path: Path) -> None:
    service = FakeService(tmp_path, replace(SETTINGS, max_results=10), names=NAMES)
    client = create_app(service=service).test_client()
    near = client.get("/api/v1/search?image_id=7&radius=0.7").get_json()
    assert (near["k"], near["truncated"]) == ("all", False)
    assert 0 < len(near["matches"]) < 10
    assert all(match["distance"] <= 0.7 for match in near["matches"])
    for address in ("?image_id=7&radius=2", "?image_id=7&k=all"):
        found = client.get(f"/api/v1/search{address}").get_json()
        assert (found["k"], found["truncated"], len(found["matches"])) == ("all", True, 10)
    exactly = FakeService(tmp_path, replace(SETTINGS, max_results=10), names=NAMES[:11])
    found = create_app(service=exactly).test_client().get("/api/v1/search?image_id=7&k=all").get_json()
    assert (found["truncated"], len(found["matches"])) == (False, 10)


@pytest.mark.parametrize("sent", [{"data": {"box": "0,0,0.5,1"}}, {"json": {"box": [0, 0, 0.5, 1]}}])
def test_a_box_is_handed_on_with_its_image(client: FlaskClient, service: FakeService, sent: dict[str, Any]) -> None:
    assert client.post("/api/v1/search?image_id=7", **sent).status_code == 200
    assert service.asked[-1].like[0].box == Box(0, 0, 0.5, 1)


@pytest.mark.parametrize("sent", [{"data": {"vector": "[1, 0.5]"}}, {"json": {"vector": [1, 0.5]}}])
def test_a_vector_is_handed_on_as_numbers(client: FlaskClient, sent: dict[str, Any]) -> None:
    answer = client.post("/api/v1/search", **sent)
    assert answer.status_code == 400
    assert "The vector has 2 numbers" in answer.get_json()["error"]["message"]  # of the fake, which takes none


def test_a_filter_is_handed_on(client: FlaskClient, service: FakeService) -> None:
    values: dict[str, Any] = {
        **{"folder": "photographs", "label": "beach", "looks_like": "coast", "taken_from": "2019-08-03"},
        **{"taken_until": "2019-08-03 12:01", "min_side": "100", "max_side": "5000", "orientation": "landscape"},
    }
    answer = client.get("/api/v1/search", query_string={"image_id": 8, **values})
    assert all(number % 2 for number in ids_of(answer))  # the fake's beach
    taken = {"taken_until": "2019-08-03T12:01", "min_side": 100, "max_side": 5000}
    assert service.asked[-1].where == Filter(**{**values, **taken})
    client.get("/api/v1/search?image_id=8&label=&folder=&min_side=&orientation=&taken_from=")  # a form's empty fields
    assert service.asked[-1].where is None


# Many queries in one request.


def test_a_batch_answers_its_good_queries_beside_the_errors_of_the_others(client: FlaskClient) -> None:
    files = [
        (io.BytesIO(encoded(picture(14), quality=30)), "mine.jpg"),
        (io.BytesIO(b"no picture"), "notes.txt"),
        (io.BytesIO(b""), "empty.jpg"),
    ]
    answer = client.post("/api/v1/search/batch", data={"file": files, "image_id": ["7", "99", "seven"], "k": "3"})
    assert answer.status_code == 200
    found = answer.get_json()
    assert (found["k"], found["metric"], found["truncated"]) == (3, "cosine", False)
    assert [(row["query"], row["query_label"], row["rank"]) for row in found["rows"]] == [
        *((0, "7", rank) for rank in (1, 2, 3)),
        *((3, "mine.jpg", rank) for rank in (1, 2, 3)),
    ]
    first = found["rows"][3]
    assert (first["image_id"], first["reference_label"]) == (14, "holiday-14.jpg")
    assert first["distance"] < 0.01
    assert 7 not in [row["image_id"] for row in found["rows"][:3]]
    assert [(error["query"], error["query_label"], error["error"]["code"]) for error in found["errors"]] == [
        (1, "99", "unknown_image"),
        (2, "seven", "bad_request"),
        (4, "notes.txt", "not_an_image"),
        (5, "empty.jpg", "empty_file"),
    ]
    for error in found["errors"]:
        assert set(error["error"]) == {"status", "code", "message"}


def test_a_batch_may_come_as_json_and_answers_all_up_to_the_maximum(tmp_path: Path) -> None:
    service = FakeService(tmp_path, replace(SETTINGS, max_results=4), names=NAMES[:8])
    client = create_app(service=service).test_client()
    found = client.post("/api/v1/search/batch", json={"image_id": [1, 2], "k": "all", "label": "beach"}).get_json()
    assert [row["query_label"] for row in found["rows"]] == ["1"] * 3 + ["2"] * 4
    assert found["truncated"] is False
    assert client.post("/api/v1/search/batch", json={"image_id": [1], "k": "all"}).get_json()["truncated"] is True


def test_k_defaults_to_the_setting(client: FlaskClient) -> None:
    assert len(client.get("/api/v1/search?image_id=1").get_json()["matches"]) == SETTINGS.results


def test_an_image_is_described_with_addresses_that_answer(client: FlaskClient) -> None:
    described = client.get("/api/v1/images/2").get_json()
    assert described["name"] == "forest.png"
    assert (described["format"], described["width"], described["height"]) == ("PNG", 640, 480)
    assert described["predicted_labels"][0] == {"name": "seashore, coast", "score": 0.81}
    addresses = [described["thumbnail"]["url"], *(described[key] for key in ("view_url", "original_url", "page_url"))]
    for address in addresses:
        with client.get(address) as answer:
            assert answer.status_code == 200, address


TOO_LARGE = b"\xff\xd8\xff" + bytes(SETTINGS.upload_max_bytes)
WHOLE = encoded(picture(1))
MISTAKES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/api/v1/search", {}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"data": {"file": "text, no file"}}, 400, "bad_request"),
    ("POST", "/api/v1/search", upload(b"", name=""), 400, "bad_request"),
    ("POST", "/api/v1/search", upload(b""), 400, "empty_file"),
    ("POST", "/api/v1/search", upload(b"Dear diary, this is no picture."), 415, "not_an_image"),
    ("POST", "/api/v1/search", upload(WHOLE[: len(WHOLE) // 2]), 400, "damaged_image"),
    ("POST", "/api/v1/search", upload(TOO_LARGE), 413, "too_many_bytes"),
    ("POST", "/api/v1/search", upload(bytes(SETTINGS.upload_max_bytes + 1_000_000)), 413, "too_many_bytes"),
    ("POST", "/api/v1/search", upload(encoded(picture(1, (2500, 1700)))), 413, "too_many_pixels"),
    ("POST", "/api/v1/search", upload(WHOLE, k="0"), 400, "bad_request"),
    ("POST", "/api/v1/search", upload(WHOLE, image_id="1"), 400, "bad_request"),
    ("POST", "/api/v1/search", {"data": b"[" * 50_000, "content_type": "application/json"}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"data": b"[" * 1_100_000, "content_type": "application/json"}, 413, "too_many_bytes"),
    ("POST", "/api/v1/search", {"data": b'{"image_id"', "content_type": "application/json"}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"data": b"\xff\xfe", "content_type": "application/json"}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": [1]}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": True}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": 1.5}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": 2**63}}, 404, "unknown_image"),
    ("POST", "/api/v1/search", {"json": {"image_id": -1}}, 404, "unknown_image"),
    ("GET", "/api/v1/search", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=seven", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&k=many", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&k=49", {}, 400, "bad_request"),
    ("GET", f"/api/v1/search?image_id=1&k={HUGE}", {}, 400, "bad_request"),
    ("GET", f"/api/v1/search?image_id={HUGE}", {}, 404, "unknown_image"),
    ("GET", "/api/v1/images/0", {}, 404, "unknown_image"),
    ("GET", "/api/v1/images/9223372036854775808", {}, 404, "unknown_image"),
    ("GET", f"/api/v1/images/{HUGE}", {}, 404, "unknown_image"),
    ("GET", "/api/v1/images/%D9%A3", {}, 404, "unknown_image"),
    ("GET", "/api/v1/images/1%00", {}, 404, "unknown_image"),
    ("GET", "/api/v1/nothing", {}, 404, "not_found"),
    ("GET", "/api", {}, 404, "not_found"),
    ("DELETE", "/api/v1/search", {}, 405, "method_not_allowed"),
    ("GET", "/api/v1/search?image_id=1&radius=-1", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&radius=nan", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&radius=far", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&metric=manhattan", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&ranking=best", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&box=0,0,1", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&box=0,0,1,one", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&box=0,0,2,1", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&image_id=2&box=0,0,1,1", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&unlike=two", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&unlike=99", {}, 404, "unknown_image"),
    ("GET", "/api/v1/search?image_id=1&taken_from=yesterday", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&min_side=wide", {}, 400, "bad_request"),
    ("GET", "/api/v1/search?image_id=1&max_side=0", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&orientation=flat", {}, 400, "bad_query"),
    ("GET", "/api/v1/search?image_id=1&folder=/", {}, 400, "bad_query"),
    ("POST", "/api/v1/search", {"json": {"image_id": 1, "label": 7}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": 1, "radius": True}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": 1, "radius": 10**400}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": 1, "radius": {}}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": 1, "vector": [1, 2]}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"image_id": list(range(101))}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"vector": ["1", 2]}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"vector": [10**400]}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"vector": [float("nan"), 1]}}, 400, "bad_query"),
    ("POST", "/api/v1/search", {"json": {"vector": [[1, 2], [3, 4]]}}, 400, "bad_request"),
    ("POST", "/api/v1/search", {"json": {"vector": [1, 2], "box": [0, 0, 1, 1]}}, 400, "bad_query"),
    ("POST", "/api/v1/search", {"data": {"vector": "[1, 2"}}, 400, "bad_request"),
    ("POST", "/api/v1/search", upload(WHOLE, vector="[1]"), 400, "bad_request"),
    ("GET", "/api/v1/search/batch?image_id=1", {}, 405, "method_not_allowed"),
    ("POST", "/api/v1/search/batch", {}, 400, "bad_request"),
    ("POST", "/api/v1/search/batch", {"json": {"image_id": [1, 2], "k": 0}}, 400, "bad_request"),
    ("POST", "/api/v1/search/batch", {"json": {"image_id": list(range(101))}}, 400, "bad_request"),
]


@pytest.mark.parametrize(("method", "address", "sent", "status", "code"), MISTAKES)
def test_every_mistake_has_its_status_and_the_one_shape(
    client: FlaskClient, method: str, address: str, sent: dict[str, Any], status: int, code: str
) -> None:
    answer = client.open(address, method=method, **sent)
    assert answer.status_code == status, answer.get_data(as_text=True)
    error = answer.get_json()["error"]
    assert set(error) == {"status", "code", "message"}
    assert (error["status"], error["code"]) == (status, code)
    assert 10 < len(error["message"]) < 300


@pytest.mark.parametrize("field", ["image_id", "like", "unlike"])
def test_the_field_that_is_no_image_id_is_named(client: FlaskClient, field: str) -> None:
    address = f"/api/v1/search?{field}=x" + ("&image_id=1" if field != "image_id" else "")
    assert client.get(address).get_json()["error"]["message"].startswith(f"{field} is 'x'")


def test_an_empty_k_and_an_empty_radius_count_as_not_given(client: FlaskClient) -> None:
    plain = client.get("/api/v1/search?image_id=1").get_json()
    assert client.get("/api/v1/search?image_id=1&k=&radius=").get_json() == plain
    assert "None" not in client.get("/api/v1/search?image_id=1&radius=-1").get_json()["error"]["message"]
    assert client.get("/api/v1/search?image_id=1&box=,0,1,1").status_code == 400


def test_a_wrong_method_is_told_which_are_right(client: FlaskClient) -> None:
    assert "POST" in client.delete("/api/v1/search").headers["Allow"]


def test_an_empty_collection_is_unavailable_and_its_folder_is_not_told(tmp_path: Path) -> None:
    client = create_app(service=FakeService(tmp_path, SETTINGS, names=())).test_client()
    asked = (client.get("/readyz"), client.post("/api/v1/search", **upload(WHOLE)))
    for answer in asked:
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.get_json()["error"]["code"] == "empty_collection"
        assert "/secret" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (RuntimeError("in /secret/file"), 500, "internal_error"),
        (LookalikeError("in /secret/file"), 500, "error"),
        (DamagedCollectionError("/secret/catalog.sqlite and vectors disagree"), 503, "damaged_collection"),
        (sqlite3.OperationalError("unable to open /secret/catalog.sqlite"), 503, "internal_error"),
    ],
)
def test_a_fault_of_the_service_is_logged_in_full_and_told_without_paths(
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    status: int,
    code: str,
) -> None:
    def fail(image_id: int) -> None:
        raise raised

    monkeypatch.setattr(service, "image", fail)
    answer = create_app(service=service).test_client().get("/api/v1/images/1")
    assert answer.status_code == status
    assert answer.get_json()["error"]["code"] == code
    assert "/secret" not in answer.get_data(as_text=True)
    assert "Traceback" not in answer.get_data(as_text=True)
    assert "/secret" in caplog.text
    assert "Traceback" in caplog.text


def test_every_error_of_the_tree_has_a_status() -> None:
    def below(kind: type[LookalikeError]) -> list[type[LookalikeError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    for kind in below(LookalikeError):
        error = kind.__new__(kind, "what happened")  # some are made with more than their text
        assert 400 <= api.problem_of(error).status < 600, kind


def test_the_probes_answer_in_json(client: FlaskClient) -> None:
    assert client.get("/healthz").get_json() == {"status": "alive"}
    ready = client.get("/readyz").get_json()
    assert ready["collection"]["images"] == len(NAMES)
    assert ready["collection"]["backbone"] == "efficientnet_lite0"


BOUNDARY = b"--frontier\r\n"
PARTS = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [
                BOUNDARY,
                b"--frontier--\r\n",
                b"\r\n\r\n",
                b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n',
                b'Content-Disposition: form-data; name="k"\r\n\r\n12\r\n',
                b"Content-Type: text/plain; charset=\xff\r\n",
                WHOLE[:200],
            ]
        ),
    ),
    max_size=8,
)
TYPES = st.sampled_from(
    [
        "multipart/form-data; boundary=frontier",
        "multipart/form-data",
        "application/json",
        "application/x-www-form-urlencoded",
    ]
)


@given(parts=PARTS, content_type=TYPES)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_whatever_is_a_fault_of_the_service(client: FlaskClient, parts: list[bytes], content_type: str) -> None:
    for address in ("/search", "/api/v1/search", "/api/v1/search/batch"):
        answer = client.post(address, data=b"".join(parts), content_type=content_type)
        assert answer.status_code in (200, 400, 404, 413, 415), answer.get_data(as_text=True)


def test_a_service_may_have_a_smaller_maximum_than_the_usual_k(tmp_path: Path) -> None:
    service = FakeService(tmp_path, replace(SETTINGS, max_results=2), names=NAMES[:4])
    assert len(create_app(service=service).test_client().get("/api/v1/search?image_id=1").get_json()["matches"]) == 2


@pytest.mark.parametrize("address", ["/api/v1/search?image_id=3&folde=2019", "/api/v1/search?image_id=3&order=plain"])
def test_a_misspelt_field_is_an_error_and_not_passed_over(client: FlaskClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 400
    error = answer.get_json()["error"]
    assert error["code"] == "bad_request"
    assert address.rpartition("&")[2].partition("=")[0] in error["message"]


def test_a_part_of_a_form_without_a_name_is_no_field_of_a_search(client: FlaskClient) -> None:
    parts = ('name="colour"', "")
    body = (
        "".join(f"--edge\r\nContent-Disposition: form-data; {part}\r\n\r\nred\r\n" for part in parts) + "--edge--\r\n"
    )
    answer = client.post("/api/v1/search", data=body, content_type="multipart/form-data; boundary=edge")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "bad_request")
