"""The service as it runs: `python app.py` in processes of its own, and clients that say every byte themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from config import ROOT


@dataclass
class Server:
    """A running service: its first process, its port, and what it has printed so far."""

    process: subprocess.Popen[str]
    port: int
    printed: list[str] = field(default_factory=list)

    @property
    def workers(self) -> list[int]:
        """Return the ids of the processes that answer."""
        return sorted(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    def stop(self) -> int:
        """Stop it as systemd and Docker do; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def connect(self) -> socket.socket:
        """Return a connection of a client that waits up to 30 seconds for each answer."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for one address on a connection of its own; return status and body."""
        with self.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return answer(client)

    def json(self, path: str) -> Any:
        """Return the JSON at an address."""
        return json.loads(self.get(path)[1])


@contextmanager
def running(
    rsc_files: Path, run_folder: Path, *, command: Sequence[str] = ("app.py",), **settings: object
) -> Iterator[Server]:
    """Serve a collection from two processes; stop it at the end if it still runs. `command` is what Python runs."""
    port = free_port()
    given = {"rsc_files": rsc_files, "port": port, "run_folder": run_folder, "workers": 2, **settings}
    environment = {**os.environ, **{f"LOOKALIKE_{name.upper()}": str(value) for name, value in given.items()}}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(process, port)
    assert process.stdout is not None
    server.printed.append(process.stdout.readline())
    drain = Thread(target=server.printed.extend, args=(process.stdout,))
    drain.start()
    try:
        assert "Lookalike serves" in server.printed[0], server.printed
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        drain.join()
        process.stdout.close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


def answer(client: socket.socket) -> tuple[int, bytes]:
    """Read one answer to its end; return its status and body. Raises `ConnectionError` where there is none."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(client)
    head, _, body = received.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", 0)):
        body += _more(client)
    return int(head.split()[1]), body


def _more(client: socket.socket) -> bytes:
    content = client.recv(65536)
    if not content:
        raise ConnectionError("closed without an answer")
    return content


def upload(content: bytes, fields: Mapping[str, str] | None = None) -> bytes:
    """Return a whole request that searches with a picture."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (fields or {}).items()
    ]
    disposition = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="private name.jpg"\r\n\r\n'
    body = b"".join(parts) + disposition + content + b"\r\n--edge--\r\n"
    head = (
        "POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
