"""A crowd of uploads: so many are looked at, some wait, the others are told to come back before anything is decoded."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app import create_app
from backbones import Outputs
from config import Settings
from errors import OverloadedError
from images import Decoders
from search import Example, Query, SearchResult, SearchService, create_collection, stages
from tests import fake_backbone
from tests.fake_backbone import FakeBackbone
from tests.fakes import encoded, picture

UPLOAD = Query((Example(encoded(picture(1))),), k=2)


class Gate(FakeBackbone):
    """A network that looks at two pictures at a time, and is done with each when it is let through."""

    parallel_runs = 2

    def __init__(self, backbone: FakeBackbone) -> None:
        super().__init__(backbone.network)
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.inside = self.most = 0

    def run(self, batch: npt.NDArray[np.uint8]) -> Outputs:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.arrived.release()
        self.open.wait(60)
        with self._lock:
            self.inside -= 1
        return super().run(batch)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("places")
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(encoded(picture(number)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_backbone.install(monkeypatch)
        create_collection(folder, folder / "rsc", backbone="efficientnet_lite0").close()
        yield folder / "rsc"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    gates: list[Gate] = []
    fake_backbone.install(monkeypatch)

    def load(network: object, **options: object) -> Gate:
        gates.append(Gate(FakeBackbone(fake_backbone.NETWORK)))
        return gates[-1]

    monkeypatch.setattr("networks.load_backbone", load)
    return gates


@pytest.fixture
def service(collection: Path, gate: list[Gate]) -> Iterator[SearchService]:
    """Room for two that are looked at, and three that wait."""
    service = SearchService(Settings(rsc_files=collection, threads=2, waiting_uploads=3))
    service.refresh()
    yield service
    gate[0].open.set()
    service.close()


Ask = Callable[[], "Future[SearchResult]"]


@pytest.fixture
def ask(service: SearchService) -> Iterator[Ask]:
    with ThreadPoolExecutor(8) as pool:
        yield lambda: pool.submit(service.search, UPLOAD)


def fill(service: SearchService, gate: Gate, ask: Ask) -> list[Future[SearchResult]]:
    """Take all five places; return when two pictures are in the network."""
    waiting = [ask() for _ in range(5)]
    for _ in range(2):
        assert gate.arrived.acquire(timeout=60)
    while service.uploads_at_work < 5:
        os.sched_yield()
    return waiting


def test_two_are_looked_at_three_wait_and_the_next_is_refused(
    service: SearchService, gate: list[Gate], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = fill(service, gate[0], ask)
    with monkeypatch.context() as patched:
        patched.delattr(Decoders, "prepare")  # nothing is decoded for whoever is refused
        for refused in (lambda: service.search(UPLOAD), lambda: service.keep_upload(encoded(picture(1)))):
            with pytest.raises(OverloadedError, match="5 pictures"):
                refused()
        with pytest.raises(OverloadedError):
            service.search_many([UPLOAD, UPLOAD])
    assert len(service.search(Query((Example(1),), k=2)).matches) == 2  # who sends no picture needs no place
    gate[0].open.set()
    assert {len(one.result().matches) for one in waiting} == {2}
    assert gate[0].most == 2
    assert service.uploads_at_work == 0
    assert len(service.search(UPLOAD).matches) == 2


def test_many_pictures_of_one_request_take_one_place(service: SearchService, gate: list[Gate]) -> None:
    gate[0].open.set()
    answers = service.search_many([UPLOAD] * 7)
    assert all(isinstance(answer, SearchResult) for answer in answers)
    joined = replace(UPLOAD, like=UPLOAD.like * 7)
    assert len(service.search(joined).matches) == 2


def test_a_picture_that_cannot_be_read_gives_its_place_back(service: SearchService) -> None:
    for _ in range(6):
        (answer,) = service.search_many([Query((Example(b"no picture"),), k=2)])
        assert not isinstance(answer, SearchResult)
    assert service.uploads_at_work == 0


def test_refused_uploads_are_told_when_to_come_back(service: SearchService, gate: list[Gate], ask: Ask) -> None:
    client = create_app(service=service).test_client()
    waiting = fill(service, gate[0], ask)
    for address in ("/search", "/api/v1/search"):
        answer = client.post(address, data={"file": (io.BytesIO(encoded(picture(1))), "a.jpg")})
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert answer.get_json()["error"]["code"] == "overloaded"
    assert client.get("/readyz").status_code == 200
    gate[0].open.set()
    for one in waiting:
        one.result()


def test_an_upload_holds_no_place_while_it_arrives(service: SearchService, gate: list[Gate]) -> None:
    gate[0].open.set()
    seen: list[int] = []

    class Body(io.BytesIO):
        def readinto(self, target: Any) -> int:
            seen.append(service.uploads_at_work)
            return super().readinto(target)

    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n--b--\r\n'
    body = part % encoded(picture(1))
    client = create_app(service=service).test_client()
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(len(body))}
    answer = client.post("/api/v1/search", input_stream=Body(body), headers=headers)
    assert answer.status_code == 200
    assert set(seen) == {0}


def test_the_stages_of_an_upload_are_timed(service: SearchService, gate: list[Gate]) -> None:
    gate[0].open.set()
    stages.begin()
    service.search(UPLOAD)
    assert list(stages.seconds()) == ["decode", "queue", "embed", "search"]


def test_nothing_is_computed_for_a_client_that_has_hung_up(service: SearchService, gate: list[Gate]) -> None:
    gate[0].open.set()
    client = create_app(service=service).test_client()
    ours, theirs = socket.socketpair()

    def ask() -> int:
        sent = {"file": (io.BytesIO(encoded(picture(1))), "a.jpg")}
        return client.post("/api/v1/search", data=sent, environ_overrides={"gunicorn.socket": ours}).status_code

    with ours:
        assert (ask(), gate[0].seen) == (200, 1)
        theirs.close()
        assert (ask(), gate[0].seen) == (499, 1)
    assert service.uploads_at_work == 0
