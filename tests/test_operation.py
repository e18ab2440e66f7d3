"""The service in its own processes: slow clients, processes that die, generations that come, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands.healthy import is_healthy
from config import ROOT
from publishing import publish_view
from search.kept import FILE_NAME, KeptUpload, KeptUploads
from store import open_writer
from tests.fakes import encoded, picture
from tests.processes import Server, answer, free_port, running, upload
from tests.test_publishing import current, published, write_view

pytestmark = pytest.mark.slow
SEARCH = "/api/v1/search?image_id=7&k=5"
LIMITS: dict[str, Any] = {"http_threads": 2, "upload_timeout_s": 3, "upload_max_bytes": 1_000_000}
LARGE = "large.jpg"
FILES = 300
CROWD = 60
"""Slow clients: many more than the threads of the service under test, which has 2 × 2."""


@pytest.fixture(scope="module")
def vectors_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a collection that needs no network."""
    return published(tmp_path_factory.mktemp("vectors") / "rsc").rsc_files


@pytest.fixture(scope="module")
def server(vectors_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a service with few threads and little patience."""
    with running(vectors_only, tmp_path_factory.mktemp("run"), **LIMITS) as server:
        yield server


# Slow clients.


def assert_answers_at_once(server: Server) -> None:
    """Search, and wait no longer than half of the patience with the crowd lasts."""
    with server.connect() as client:
        client.settimeout(LIMITS["upload_timeout_s"] / 2)
        client.sendall(f"GET {SEARCH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer(client)[0] == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhello",
        b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
def test_slow_clients_hold_nobody_up(server: Server, begun: bytes) -> None:
    with ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(server.connect()).sendall(begun)
        assert_answers_at_once(server)


def test_a_length_of_many_digits_gives_no_thread_to_wait_with(server: Server) -> None:
    begun = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"0" * 30 + b"100\r\n\r\nhello"
    with ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(server.connect()).sendall(begun)
        assert_answers_at_once(server)


def test_more_clients_than_files_that_a_process_may_have_end_none(vectors_only: Path, tmp_path: Path) -> None:
    limited = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}));"
    command = ("-c", f"{limited} runpy.run_path('app.py', run_name='__main__')")
    with running(vectors_only, tmp_path, command=command, workers=1, http_threads=2) as server, ExitStack() as crowd:
        before = server.workers
        for _ in range(2 * FILES):
            crowd.enter_context(server.connect())
        assert server.get(SEARCH)[0] == 200
        assert server.workers == before


def test_clients_that_do_not_close_hold_nobody_up(server: Server) -> None:
    with ExitStack() as crowd:
        clients = [crowd.enter_context(server.connect()) for _ in range(CROWD)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert {answer(client)[0] for client in clients} == {200}
        assert_answers_at_once(server)


def test_a_body_that_does_not_come_is_answered_and_the_connection_closed(server: Server) -> None:
    with server.connect() as client:
        client.sendall(upload(b"half a picture")[:-20])
        status, body = answer(client)
        assert (status, json.loads(body)["error"]["code"]) == (408, "too_slow")
        assert "within 3 seconds" in json.loads(body)["error"]["message"]
        assert client.recv(1) == b""


def test_a_body_that_comes_byte_by_byte_has_no_more_time(server: Server) -> None:
    request = upload(b"x" * 1000)
    with server.connect() as client:
        client.settimeout(0.1)
        for place in range(len(request) - 1):
            client.sendall(request[place : place + 1])
            try:
                status, _ = answer(client)
                break
            except TimeoutError:
                continue
        assert status == 408


def test_a_head_that_does_not_come_is_answered(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert answer(client)[0] == 408
        assert client.recv(1) == b""


def test_a_body_that_never_ends_is_refused_while_it_comes(server: Server) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with server.connect() as client:
        client.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n")
        client.sendall(b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n")
        for _ in range(20):  # of 1.3 MB, 1 may come
            client.sendall(chunk)
        status, body = answer(client)
        assert (status, json.loads(body)["error"]["code"]) == (413, "too_many_bytes")


def test_a_length_beyond_the_limit_is_refused_before_anything_comes(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n")
        client.sendall(b"Content-Type: multipart/form-data; boundary=edge\r\nExpect: 100-continue\r\n\r\n")
        assert answer(client)[0] == 413


def test_a_head_that_never_ends_is_refused(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"Name: value\r\n" * 6000)
        assert answer(client)[0] == 431


def test_what_arrives_at_once_takes_bounded_memory(server: Server) -> None:
    begun = upload(bytes(900_000))[:-20]
    with ExitStack() as crowd:
        clients = [crowd.enter_context(server.connect()) for _ in range(30)]  # 27 MB, of which each process takes 8.5
        for client in clients:
            with suppress(ConnectionError):  # refused while it sends
                client.sendall(begun)
        statuses = [answer(client)[0] for client in clients]
    assert set(statuses) == {503, 408}
    assert statuses.count(408) <= 18


# What HTTP allows, and what the container asks.


def test_the_health_check_tells_a_service_from_none(server: Server) -> None:
    assert is_healthy(server.port)
    assert not is_healthy(free_port())


def test_requests_sent_one_behind_the_other_are_all_answered(server: Server) -> None:
    get = f"GET {SEARCH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with server.connect() as client:
        client.sendall(upload(b"no picture") + get[:10])
        assert answer(client)[0] == 409  # these vectors have no network
        client.sendall(get[10:] + get)
        received = b""
        while received.count(b'"matches"') < 2:
            received += client.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_waits_to_continue_is_told_to_once(server: Server) -> None:
    head, _, body = upload(b"no picture").partition(b"\r\n\r\n")
    with server.connect() as client:
        client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert answer(client)[0] == 409


def test_a_body_in_chunks_is_read(server: Server) -> None:
    head, _, body = upload(b"no picture").partition(b"\r\n\r\n")
    first = head.rpartition(b"\r\n")[0] + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as client:
        client.sendall(first + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert answer(client)[0] == 409


# Processes: what dies, what ends, what comes.


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a collection of forty pictures with its network."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(encoded(picture(number)))
    noise = np.random.default_rng(1).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    (folder / LARGE).write_bytes(encoded(Image.fromarray(noise), quality=100))
    rsc_files = tmp_path_factory.mktemp("collection") / "rsc"
    options = ["--rsc-files", str(rsc_files), "--backbone", "efficientnet_lite0", "--quiet"]
    subprocess.run([sys.executable, "img2vec.py", str(folder), *options], cwd=ROOT, check=True, capture_output=True)
    return rsc_files


@pytest.mark.openvino
def test_clients_that_do_not_take_their_answers_hold_nobody_up(collection: Path, tmp_path: Path) -> None:
    with running(collection, tmp_path, **LIMITS) as server, ExitStack() as crowd:
        number = next(n for n in range(1, 42) if server.json(f"/api/v1/images/{n}")["name"] == LARGE)
        clients = [crowd.enter_context(server.connect()) for _ in range(CROWD)]
        for client in clients:
            client.sendall(f"GET /images/{number}/original HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert_answers_at_once(server)
        status, content = answer(clients[-1])
        assert (status, Image.open(BytesIO(content)).convert("RGB").size) == (200, (2000, 2000))
        clients[-1].sendall(f"GET {SEARCH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer(clients[-1])[0] == 200


class Load:
    """Clients that search until they are told to stop, each request on a connection of its own."""

    def __init__(self, server: Server, *, clients: int = 6) -> None:
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._server = server
        self._stopped = Event()
        self._requests = [upload(encoded(picture(number))) for number in range(3)]
        self._requests.append(f"GET {SEARCH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._threads = [Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._stopped.is_set():
            try:
                with self._server.connect() as client:
                    client.sendall(self._requests[number % len(self._requests)])
                    self.statuses.append(answer(client)[0])
            except OSError as error:
                self.failures.append(str(error))
            number += 1

    def wait_for(self, more: int) -> None:
        """Return when `more` requests than now have been answered."""
        wanted = len(self.statuses) + more
        while len(self.statuses) < wanted and len(self.failures) < 1000:
            self._stopped.wait(0.01)

    def wait_for_workers(self) -> None:
        """Return when both processes are there."""
        while len(self._server.workers) < 2:
            self.wait_for(more=1)


@pytest.mark.openvino
def test_twenty_generations_come_during_load_and_no_request_fails(collection: Path, tmp_path: Path) -> None:
    with running(collection, tmp_path) as server, Load(server) as load:
        for _ in range(20):
            with open_writer(collection, command="test") as writer:
                publish_view(writer, current(writer), "groups", write_view, options={}, report={})
                newest = current(writer).number
            load.wait_for(more=10)
        assert server.json("/readyz")["collection"]["generation"] == newest
        load.wait_for(more=10)
    assert load.failures == []
    assert set(load.statuses) == {200}


@pytest.mark.openvino
def test_a_killed_process_costs_its_own_requests_and_another_comes(collection: Path, tmp_path: Path) -> None:
    clients = 6
    with running(collection, tmp_path) as server:
        with Load(server, clients=clients) as load:
            load.wait_for_workers()
            before = server.workers
            load.wait_for(more=20)
            os.kill(before[0], signal.SIGKILL)
            load.wait_for(more=20)
            load.wait_for_workers()
            load.wait_for(more=40)
            after = server.workers
        assert "lookalike_requests_in_progress 1.0" in metrics(server)  # this one: none is left of the killed process
    assert before[1] in after
    assert before[0] not in after
    assert set(load.statuses) == {200}
    assert len(load.failures) <= clients  # what that process had begun; each client has one request at a time


@pytest.mark.openvino
def test_who_sends_while_the_service_is_stopped_is_answered(collection: Path, tmp_path: Path) -> None:
    request = upload(encoded(picture(3)))
    with running(collection, tmp_path) as server, server.connect() as client:
        client.sendall(request[:1000])
        server.get("/healthz")  # by now the first bytes have been read
        server.process.send_signal(signal.SIGTERM)
        while not refuses(server):
            pass
        client.sendall(request[1000:])
        status, body = answer(client)
        assert (status, len(json.loads(body)["matches"])) == (200, 24)
        assert server.process.wait(timeout=30) == 0


def test_what_is_kept_of_uploads_ends_with_the_service(vectors_only: Path, tmp_path: Path) -> None:
    with running(vectors_only, tmp_path) as server:
        KeptUploads(tmp_path, 15).keep(KeptUpload("network", np.zeros(8, np.float32), b"small", 640, 480))
        assert server.stop() == 0
    assert not list(tmp_path.glob(f"{FILE_NAME}*"))


def refuses(server: Server) -> bool:
    """Tell whether the service takes no new connections."""
    try:
        server.connect().close()
    except ConnectionError:  # refused, or reset where it came while the listener was being closed
        return True
    return False


def metrics(server: Server) -> list[str]:
    return server.get("/metrics")[1].decode().splitlines()


def test_what_is_wrong_with_a_collection_is_said_once(vectors_only: Path, tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--rsc-files", str(vectors_only), "--backbone", "vgg16", "--workers", "2"]
    environment = {**os.environ, "LOOKALIKE_RUN_FOLDER": str(tmp_path), "LOOKALIKE_PORT": str(free_port())}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("vgg16") == 2  # in the one message
    assert "Traceback" not in ended.stderr


# The log and the metrics of all processes.


def test_the_log_says_which_route_and_never_what_was_asked(server: Server) -> None:
    before = len(server.printed)
    with server.connect() as client:
        client.sendall(
            b"GET /search?like=7&label=secret HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: from-a-proxy\r\n\r\n"
        )
        answer(client)
        client.sendall(upload(b"no picture"))
        answer(client)
    wanted: list[dict[str, object]] = []
    while len(wanted) < 2:
        wanted = [said for line in server.printed[before:] if (said := json.loads(line))["route"].endswith("/search")]
    assert [said["route"] for said in wanted] == ["/search", "/api/v1/search"]
    assert wanted[0]["request_id"] == "from-a-proxy"
    assert (wanted[1]["status"], wanted[1]["problem"]) == (409, "no_network")
    assert "secret" not in str(server.printed)
    assert "private name" not in str(server.printed)


def test_the_metrics_of_all_processes_add_up(server: Server) -> None:
    def answered() -> float:
        lines = metrics(server)
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("lookalike_requests_total") and SEARCH[:14] in line
        )

    before = answered()
    for _ in range(20):
        server.get(SEARCH)
    assert answered() == before + 20
