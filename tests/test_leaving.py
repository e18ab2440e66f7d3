"""Answers leave in their order and whole, however slowly they are taken."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands.leaving import MOST_WAITING_BYTES, Leaving


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the server's end of a connection, which does not block, and the client's."""
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        yield server, client


def taken(leaving: Leaving, client: socket.socket, count: int) -> bytes:
    """Let the client take `count` bytes while the rest is sent."""
    received = b""
    while len(received) < count:
        received += client.recv(1 << 16)
        leaving.send_more()
    return received


def test_bytes_and_files_arrive_in_their_order(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    leaving = Leaving(pair[0], 1)
    leaving.sendall(b"head")
    with open(tmp_path / "file", "rb") as file:
        leaving.sendfile(file, 1, 2_999_999)
    leaving.sendall(content)
    leaving.sendall(b"tail")
    assert not leaving.is_done
    expected = b"head" + content[1:] + content + b"tail"
    assert taken(leaving, pair[1], len(expected)) == expected
    assert leaving.is_done


def test_who_takes_nothing_of_a_long_answer_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    leaving = Leaving(pair[0], 0.01)
    with pytest.raises(TimeoutError):
        leaving.sendall(bytes(2 * MOST_WAITING_BYTES))


def test_a_long_answer_is_waited_for_on_any_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("This system gives a process too few descriptors.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    try:
        with (
            socket.socket(fileno=fcntl.fcntl(pair[0], fcntl.F_DUPFD_CLOEXEC, 1500)) as far,
            ThreadPoolExecutor() as pool,
        ):
            leaving, content = Leaving(far, 30), os.urandom(2 * MOST_WAITING_BYTES)
            sending = pool.submit(leaving.sendall, content)
            received = bytearray()
            while not sending.done():
                received += pair[1].recv(1 << 16)
            sending.result()
            received += taken(leaving, pair[1], len(content) - len(received))
            assert received == content
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_became_shorter_ends_the_answer(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    leaving = Leaving(pair[0], 1)
    with open(tmp_path / "file", "rb") as file, pytest.raises(ConnectionAbortedError):
        leaving.sendfile(file, 0, 100)
    leaving.drop()


def test_what_is_dropped_lets_go_of_its_files(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    before = len(os.listdir("/proc/self/fd"))
    leaving = Leaving(pair[0], 1)
    with open(tmp_path / "file", "rb") as file:
        leaving.sendfile(file, 0, 5_000_000)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    leaving.drop()
    assert len(os.listdir("/proc/self/fd")) == before
