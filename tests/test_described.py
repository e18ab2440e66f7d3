"""Holds the description of the API to what the views are, and the answers of a real collection to the description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from described import PREFIX, openapi, operations
from tests.described_collection import described_service

UNDESCRIBED = {"/api/v1/openapi.json", "/api/v1/docs"}


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with described_service(tmp_path_factory.mktemp("described")) as service:
        yield create_app(service=service)


@pytest.fixture(scope="module")
def client(application: Flask) -> FlaskClient:
    return application.test_client()


@pytest.fixture(scope="module")
def told(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    return dict(answer.get_json())


def test_every_address_of_the_api_is_described(application: Flask, told: dict[str, Any]) -> None:
    routes = {rule.rule for rule in application.url_map.iter_rules() if rule.rule.startswith(PREFIX + "/")}
    assert {operation.rule.rule for operation in operations(application)} == routes - UNDESCRIBED
    assert len(told["paths"]) == len(routes - UNDESCRIBED)


def test_every_operation_has_a_name_of_its_own_a_summary_and_a_known_tag(told: dict[str, Any]) -> None:
    said = [one for path in told["paths"].values() for one in path.values()]
    names = [one["operationId"] for one in said]
    assert len(names) == len(set(names))
    assert all(one["summary"].endswith(".") for one in said)
    assert {one["tags"][0] for one in said} <= {tag["name"] for tag in told["tags"]}


def test_each_shape_has_a_name_of_its_own_and_says_what_it_is(told: dict[str, Any]) -> None:
    shapes = told["components"]["schemas"]
    assert [name for name in shapes if "__" in name] == [], "two shapes of one name"
    assert [name for name, shape in shapes.items() if not shape.get("description")] == []


def test_what_is_said_of_a_field_is_said_wherever_it_is_inherited(told: dict[str, Any]) -> None:
    fields = {field["name"]: field for field in told["paths"]["/api/v1/search"]["get"]["parameters"]}
    assert fields["looks_like"]["description"].startswith("Whole words")
    assert "Tag" not in json.dumps(fields["orientation"])


def test_what_has_to_be_given_is_told(told: dict[str, Any]) -> None:
    more = told["paths"]["/api/v1/map/more"]["post"]["requestBody"]
    assert more["required"] is True
    assert told["components"]["schemas"]["Selection"]["required"] == ["image_ids"]
    fields = {one["name"]: one["required"] for one in told["paths"]["/api/v1/map/group"]["get"]["parameters"]}
    assert fields == {"image_id": True, "sim": False}
    assert told["paths"]["/api/v1/search"]["post"]["requestBody"]["required"] is False


def test_the_description_is_openapi_3_1(told: dict[str, Any]) -> None:
    assert told["openapi"].startswith("3.1")
    for shape in told["components"]["schemas"]:
        jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{shape}", "components": told["components"]})


ADDRESSES = (
    "/search?image_id=1&k=3",
    "/search?like=1&like=2&unlike=12&radius=0.5&metric=euclidean&page=1",
    "/search?like=1&metric=jensenshannon&k=3",
    "/images",
    "/images?label=archive&page=2&k=3",
    "/images/3",
    "/images/3/neighbours?k=2",
    "/images/3/duplicates",
    "/labels",
    "/collection",
    "/graph?image_id=1&image_id=2&k=2",
    "/graph?label=archive&among=selection&radius=0.4",
    "/groups",
    "/groups?sim=0.1&min_size=1&sort=time",
    "/groups/1",
    "/duplicates",
    "/duplicates?tier=similar",
    "/map",
    "/map/group?image_id=1",
    "/map/found?q=archive",
    "/tags",
)
SENT: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("post", "/search", {"image_id": [1], "k": 2}),
    ("post", "/search/batch", {"image_id": [1, 2, 999], "k": 2}),
    ("post", "/graph", {"image_id": [1, 2], "k": 2}),
    ("post", "/duplicates/among", {"image_ids": [1, 2, 3]}),
    ("post", "/map/images", {"image_ids": [1, 2]}),
    ("post", "/map/more", {"image_ids": [1, 2]}),
    ("post", "/groups/1/name", {"name": "Reds"}),
    ("delete", "/groups/1/name", {}),
    ("post", "/labels", {"label": "boat", "image_ids": [1, 2]}),
    ("delete", "/labels", {"image_ids": [1, 2]}),
    ("post", "/tags", {"tag": "harbour", "image_ids": [1]}),
    ("delete", "/tags", {"tag": "harbour", "image_ids": [1]}),
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_answer_is_exactly_what_is_described(client: FlaskClient, told: dict[str, Any], address: str) -> None:
    check(told, "get", address, client.get(PREFIX + address))


@pytest.mark.parametrize(("method", "address", "body"), SENT, ids=lambda value: value if isinstance(value, str) else "")
def test_an_answer_to_what_is_sent_is_exactly_what_is_described(
    client: FlaskClient, told: dict[str, Any], method: str, address: str, body: dict[str, Any]
) -> None:
    check(told, method, address, client.open(PREFIX + address, method=method.upper(), json=body))


@pytest.mark.parametrize("address", ["/images/99999", "/search?k=many", "/images?shape=round", "/groups/1?sim=2"])
def test_an_error_is_described_and_has_the_one_shape(client: FlaskClient, told: dict[str, Any], address: str) -> None:
    answer = client.get(PREFIX + address)
    assert answer.status_code >= 400
    check(told, "get", address, answer)


def check(told: dict[str, Any], method: str, address: str, answer: Any) -> None:
    """Hold an answer to the schema that is told for its address and status; a field that is not told fails."""
    path = template(told, PREFIX + address.partition("?")[0])
    responses = told["paths"][path][method]["responses"]
    assert str(answer.status_code) in responses, answer.get_data(as_text=True)[:300]
    schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
    jsonschema_rs.Draft202012Validator({**schema, "components": told["components"]}).validate(answer.get_json())


def template(told: dict[str, Any], path: str) -> str:
    """Return the described path that an address is of: the one with most parts as they stand."""
    parts = path.split("/")
    fitting: list[str] = [
        known
        for known in told["paths"]
        if len(known.split("/")) == len(parts)
        and all(mine == own or own.startswith("{") for mine, own in zip(parts, known.split("/"), strict=True))
    ]
    return min(fitting, key=lambda known: known.count("{"))


def test_the_collection_tells_of_its_last_run_and_views_but_no_paths(application: Flask, client: FlaskClient) -> None:
    answer = client.get("/api/v1/collection")
    told = answer.get_json()
    assert told["last_run"]["new"] == told["images"]
    assert {view["name"] for view in told["views"]} == {"groups", "duplicates", "map"}
    assert str(application.extensions["lookalike"].settings.rsc_files) not in answer.text


def test_an_answer_has_a_version_and_is_not_sent_to_who_has_it(client: FlaskClient) -> None:
    first = client.get("/api/v1/images?k=2")
    version = first.headers["ETag"]
    again = client.get("/api/v1/images?k=2", headers={"If-None-Match": version})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", version)
    assert again.headers["Cache-Control"] == "private, no-cache"
    assert client.head("/api/v1/images?k=2").headers["ETag"] == version
    assert client.get("/api/v1/images?k=3", headers={"If-None-Match": version}).status_code == 200


def test_a_version_changes_with_what_people_say_of_an_image(client: FlaskClient) -> None:
    version = client.get("/api/v1/images/5").headers["ETag"]
    client.post("/api/v1/tags", json={"tag": "quay", "image_ids": [5]})
    changed = client.get("/api/v1/images/5", headers={"If-None-Match": version})
    assert (changed.status_code, changed.get_json()["tags"]) == (200, ["quay"])
    client.delete("/api/v1/tags", json={"tag": "quay", "image_ids": [5]})


def test_errors_and_posts_have_no_version(client: FlaskClient) -> None:
    assert "ETag" not in client.get("/api/v1/images/99999").headers
    assert "ETag" not in client.post("/api/v1/search", json={"image_id": 1}).headers


def test_a_description_is_made_of_the_views_alone(application: Flask, told: dict[str, Any]) -> None:
    assert openapi(application) == told
    assert str(Path.cwd()) not in json.dumps(told)
