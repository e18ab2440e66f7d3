"""Many clients of one service in one thread: each sends a picture, waits for the answer, and sends the next one.

Owns the clients. They share the processors with the service they load, so that they must be cheap: sockets without a library,
requests made before, one thread, connections kept open. A client that is refused (503) waits as long as it is told to.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import re
import secrets
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MOST_READ = 1 << 18
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"HTTP/1\.0|.*\r\nconnection: *close", re.IGNORECASE | re.DOTALL)
_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]*)", re.IGNORECASE)


@dataclass
class Answers:
    """What came of a load: how often each status (0: no answer at all), seconds of each 200, and of its stages."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    taken_s: float = 0.0

    @property
    def per_second(self) -> float:
        """200s a second."""
        return self.statuses[200] / self.taken_s


def upload_request(content: bytes) -> bytes:
    """Return the bytes that search by a picture, with a boundary of their own as every client makes one."""
    boundary = secrets.token_hex(16)
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="photograph"\r\n\r\n'.encode()
    body = part + content + f"\r\n--{boundary}--\r\n".encode()
    head = (
        "POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def load(port: int, contents: Sequence[bytes], clients: int, seconds: float, timeout_s: float = 60.0) -> Answers:
    """Let `clients` search by `contents` in turn for `seconds`; what was asked by then is still waited for."""
    requests = itertools.cycle([upload_request(content) for content in contents])
    answers = Answers()
    _Load(port, requests, answers, timeout_s).run(clients, seconds)
    return answers


class _Client:
    """One connection, and the request that it is in the midst of."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.whole = 0
        self.started = 0.0


class _Load:
    def __init__(self, port: int, requests: Iterator[bytes], answers: Answers, timeout_s: float) -> None:
        self._port, self._requests, self._answers, self._timeout_s = port, requests, answers, timeout_s
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, int, _Client]] = []
        self._busy: set[_Client] = set()

    def run(self, clients: int, seconds: float) -> None:
        begun = time.perf_counter()
        end = begun + seconds
        everyone = [_Client() for _ in range(clients)]
        for client in everyone:
            self._begin(client)
        while self._busy or self._later:
            now = time.perf_counter()
            while self._later and self._later[0][0] <= now:
                self._begin(heapq.heappop(self._later)[2])
            if now >= end:
                self._later.clear()
                if not self._busy:
                    break
            self._give_up(now)
            wait = min([end - now if now < end else 1.0, *(when - now for when, _, _ in self._later[:1])])
            for key, events in self._selector.select(max(wait, 0.0)):
                self._go_on(key.data, events, end)
        self._answers.taken_s = time.perf_counter() - begun
        for client in everyone:
            self._hang_up(client)

    def _begin(self, client: _Client) -> None:
        client.unsent, client.received, client.whole = memoryview(next(self._requests)), bytearray(), 0
        client.started = time.perf_counter()
        self._busy.add(client)
        try:
            if client.socket is None:
                client.socket = socket.create_connection(("127.0.0.1", self._port), self._timeout_s)
                client.socket.setblocking(False)
                self._selector.register(client.socket, selectors.EVENT_READ, client)
            self._send(client)
        except OSError:
            self._end(client, 0)

    def _send(self, client: _Client) -> None:
        if client.socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            client.unsent = client.unsent[client.socket.send(client.unsent) :]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.socket, events, client)

    def _go_on(self, client: _Client, events: int, end: float) -> None:
        if client.socket is None:
            return
        try:
            if events & selectors.EVENT_WRITE:
                self._send(client)
            if not events & selectors.EVENT_READ:
                return
            content = client.socket.recv(MOST_READ)
        except OSError:
            content = b""
        client.received += content
        if client not in self._busy:  # the service closes a connection that nothing was asked over
            self._hang_up(client)
        elif not content:
            self._end(client, 0)
        elif self._is_whole(client):
            self._finish(client, end)

    def _is_whole(self, client: _Client) -> bool:
        if not client.whole:
            end = client.received.find(b"\r\n\r\n")
            length = _LENGTH.search(client.received, 0, end + 2) if end >= 0 else None
            client.whole = end + 4 + int(length[1]) if length else 0
        return 0 < client.whole <= len(client.received)

    def _finish(self, client: _Client, end: float) -> None:
        head = bytes(client.received[: client.received.find(b"\r\n\r\n") + 2])
        found, retry = _STATUS.match(head), _RETRY.search(head)
        if _CLOSE.match(head):
            self._hang_up(client)
        now = time.perf_counter()
        if found and found[1] == b"200":
            self._answers.seconds.append(now - client.started)
            self._answers.stages.append(_stages(head))
        self._end(client, int(found[1]) if found else 0)
        if now < end:
            heapq.heappush(self._later, (now + (float(retry[1]) if retry else 0.0), id(client), client))

    def _end(self, client: _Client, status: int) -> None:
        self._busy.discard(client)
        self._answers.statuses[status] += 1
        if not status:
            self._hang_up(client)

    def _give_up(self, now: float) -> None:
        for client in [client for client in self._busy if now - client.started > self._timeout_s]:
            self._end(client, 0)

    def _hang_up(self, client: _Client) -> None:
        if client.socket is not None:
            self._selector.unregister(client.socket)
            client.socket.close()
            client.socket = None


def _stages(head: bytes) -> dict[str, float]:
    """Return the milliseconds of each stage that an answer tells."""
    found = _TIMING.search(head)
    parts = found[1].decode("ascii").split(",") if found else []
    return {name.strip(): float(taken) for name, _, taken in (part.partition(";dur=") for part in parts) if taken}
