"""The collection as lists of the API: images by condition, labels, graphs, files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

import web.lists
from app import create_app
from config import Settings
from search import SearchService
from store import Store
from store.shelves import Shelf, label_shelves
from tests.grouped_collection import KINDS, make_collection

COUNT = sum(KINDS.values())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return replace(make_collection(tmp_path_factory.mktemp("lists")), max_results=20)


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[SearchService]:
    service = SearchService(settings, load_network=False)
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(service: SearchService) -> FlaskClient:
    return create_app(service=service).test_client()


def told(client: FlaskClient, address: str, **sent: Any) -> dict[str, Any]:
    answer = client.open(f"/api/v1{address}", method="POST" if sent else "GET", **sent)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return dict(answer.get_json())


def test_all_images_are_listed_once_page_after_page(client: FlaskClient) -> None:
    first = told(client, "/images?k=10")
    assert (first["images"], first["page"], first["pages"]) == (COUNT, 1, 4)
    ids = [
        image["image_id"]
        for page in range(1, first["pages"] + 1)
        for image in told(client, f"/images?k=10&page={page}")["results"]
    ]
    assert ids == sorted(set(ids))
    assert len(ids) == COUNT


def test_labels_are_counted_once_for_a_generation(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Store] = []

    def count(store: Store) -> list[Shelf]:
        counted.append(store)
        return label_shelves(store)

    monkeypatch.setattr("store.shelves.label_shelves", count)
    with closing(SearchService(settings, load_network=False)) as service:
        client = create_app(service=service).test_client()
        assert told(client, "/labels") == told(client, "/labels")
    assert len(counted) == 1


def test_a_list_keeps_the_images_that_meet_the_conditions(client: FlaskClient) -> None:
    reds = told(client, "/images?label=red&k=20")
    assert (reds["images"], {image["label"] for image in reds["results"]}) == (KINDS["red"], {"red"})
    assert told(client, "/images?label=red&min_side=1000") == {"images": 0, "page": 1, "pages": 1, "results": []}
    assert told(client, "/images?text=image-001")["images"] == len(KINDS)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("shape=round", "no field 'shape'"),
        ("k=21", "at most 20"),
        ("k=0", "from 1 on"),
        ("page=9&k=10", "the last one is 4"),
        ("taken_from=yesterday", "must be a date"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(client: FlaskClient, asked: str, complaint: str) -> None:
    answer = client.get(f"/api/v1/images?{asked}")
    assert (answer.status_code, complaint in answer.get_json()["error"]["message"]) == (400, True)


def test_labels_are_counted_the_commonest_first(client: FlaskClient) -> None:
    assert [(one["name"], one["images"]) for one in told(client, "/labels")["given"]] == sorted(
        KINDS.items(), key=lambda kind: -kind[1]
    )


def test_the_collection_says_what_is_served_and_which_views_there_are(client: FlaskClient) -> None:
    about = told(client, "/collection")
    assert (about["images"], about["backbone"], about["dim"], about["views"]) == (COUNT, "imported", 16, [])
    assert (about["counts"]["with_label"], about["failures"], about["last_run"]) == (COUNT, {}, None)
    assert about["disk"]["Catalog"] > 0


def test_a_graph_has_the_nearest_images_of_those_named(client: FlaskClient) -> None:
    graph = told(client, "/graph?image_id=1&image_id=20&k=3")
    for source in (1, 20):
        found = told(client, f"/images/{source}/neighbours?k=3&ranking=plain")
        near = [(match["image"]["image_id"], match["distance"], match["rank"]) for match in found["matches"]]
        edges = [edge for edge in graph["edges"] if edge["source"] == source]
        assert [(edge["destination"], edge["distance"], edge["rank"]) for edge in edges] == near
    ends = {edge[end] for edge in graph["edges"] for end in ("source", "destination")}
    assert {node["image_id"] for node in graph["nodes"]} == ends | {1, 20}
    assert told(client, "/graph", json={"image_id": [20, 1, 1], "k": 3}) == graph


def test_a_graph_of_a_selection_stays_in_it(client: FlaskClient) -> None:
    named = [1, 2, 3, 20]
    graph = told(client, "/graph", json={"image_id": named, "k": 5, "among": "selection"})
    assert {node["image_id"] for node in graph["nodes"]} == set(named)
    assert len(graph["edges"]) == len(named) * (len(named) - 1)
    near = told(client, "/graph", json={"image_id": named, "k": 5, "among": "selection", "radius": 0.2})
    assert {frozenset((edge["source"], edge["destination"])) for edge in near["edges"]} == {
        frozenset(pair) for pair in ((1, 2), (1, 3), (2, 3))
    }


def test_a_graph_of_images_by_condition_is_that_of_the_images_they_keep(client: FlaskClient) -> None:
    graph = told(client, "/graph?label=red&k=1")
    assert len({edge["source"] for edge in graph["edges"]}) == KINDS["red"]
    assert {node["label"] for node in graph["nodes"]} == {"red"}
    assert told(client, "/graph?label=nothing")["nodes"] == []


def test_a_graph_is_bounded_and_says_so(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.lists, "MOST_EDGES", 20)
    graph = told(client, "/graph?k=5")
    assert (graph["truncated"], len(graph["edges"])) == (True, 20)
    assert np.unique([edge["source"] for edge in graph["edges"]]).tolist() == [1, 2, 3, 4]
    assert told(client, "/graph?k=5&image_id=1")["truncated"] is False


@pytest.mark.parametrize(
    ("asked", "status"), [("image_id=999", 404), ("k=21", 400), ("among=friends", 400), ("radius=-1", 400)]
)
def test_a_graph_that_makes_no_sense_is_refused(client: FlaskClient, asked: str, status: int) -> None:
    assert client.get(f"/api/v1/graph?{asked}").status_code == status


def test_neighbours_are_what_a_search_with_the_image_finds(client: FlaskClient) -> None:
    assert told(client, "/images/5/neighbours?k=4&label=red") == told(client, "/search?image_id=5&k=4&label=red")
    assert client.get("/api/v1/images/5/neighbours?image_id=7").status_code == 400
    assert client.get("/api/v1/images/999/neighbours").status_code == 404


def test_an_original_is_sent_whole_in_part_and_not_again(client: FlaskClient, settings: Settings) -> None:
    whole = client.get("/api/v1/images/1/original")
    photos: Path = settings.rsc_files.parent / "photos"
    assert whole.data in [path.read_bytes() for path in photos.rglob("*.jpg")]
    assert whole.headers["Content-Disposition"].startswith("attachment")
    part = client.get("/api/v1/images/1/original", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.data) == (206, whole.data[5:10])
    assert part.headers["Content-Range"] == f"bytes 5-9/{len(whole.data)}"
    beyond = client.get("/api/v1/images/1/original", headers={"Range": "bytes=999999-"})
    assert (beyond.status_code, beyond.get_json()["error"]["status"]) == (416, 416)
    again = client.get("/api/v1/images/1/original", headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("what", ["thumbnail", "view", "original"])
def test_files_of_the_api_are_those_of_the_pages(client: FlaskClient, what: str) -> None:
    mine, page = client.get(f"/api/v1/images/2/{what}"), client.get(f"/images/2/{what}")
    assert (mine.status_code, mine.data, mine.headers["ETag"]) == (200, page.data, page.headers["ETag"])
    assert client.get(f"/api/v1/images/999/{what}").get_json()["error"]["code"] == "unknown_image"
