"""Sends our own service what nobody should: pictures that are none or more than that, names, bodies and requests that lie."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from config import ROOT, Settings
from tests.fakes import FakeService, encoded, picture
from tests.grouped_collection import make_collection

SCRIPT = b"<script>document.title='owned'</script>"


# Hostile pictures.


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that announces a size and has next to no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


SVG = (
    b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/passwd">]>
<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><text>&f;</text>"""
    + SCRIPT
    + b"</svg>"
)
NO_PICTURES = {
    "SVG": SVG,
    "HTML": b"<!doctype html>" + SCRIPT,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n",
    "PDF": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj",
    "MVG": b"push graphic-context\nimage over 0,0 0,0 'file:///etc/passwd'\npop graphic-context",
    "XBM": b"#define x_width 16\n#define x_height 16\nstatic char x_bits[] = {0};",
    "PSD": b"8BPS\0\1" + bytes(40),
    "ICO": b"\0\0\1\0\1\0" + bytes(40),
    "zip": b"PK\3\4" + bytes(40),
    "program": b"\x7fELF" + bytes(60),
    # What Pillow could read, by decoders that nobody here looks after.
    **{name: encoded(picture(2, (64, 48)), name) for name in ("DDS", "EPS", "ICNS", "PCX", "PPM", "SGI", "TGA")},
}
TOO_MUCH = {
    "pixels": (png_of(60_000, 60_000), 413),
    "frames": (b"GIF89a\1\0\1\0\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0" * 20_000 + b";", 413),
    "packed text": (png_of(8, 8, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(300_000_000), 9))), 400),
}


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> FakeService:
    """A service that decodes as the real one does."""
    return FakeService(tmp_path_factory.mktemp("photographs"), Settings(upload_max_bytes=2_000_000))


@pytest.fixture(scope="module")
def sender(taking: FakeService) -> FlaskClient:
    return create_app(service=taking).test_client()


def upload(client: FlaskClient, content: bytes, name: str = "x.jpg", kind: str = "image/jpeg") -> TestResponse:
    return client.post("/search", data={"file": (io.BytesIO(content), name, kind)})


@pytest.mark.parametrize("name", NO_PICTURES)
def test_only_the_formats_meant_are_decoded_whatever_they_are_called(sender: FlaskClient, name: str) -> None:
    for called, kind in (("x.jpg", "image/jpeg"), ("x.svg", "image/svg+xml"), ("x.html", "text/html")):
        answer = upload(sender, NO_PICTURES[name], called, kind)
        assert answer.status_code == 415
        assert b"alert(" not in answer.data
        assert SCRIPT not in answer.data
        sent = {"file": (io.BytesIO(NO_PICTURES[name]), called, kind)}
        assert sender.post("/api/v1/search", data=sent).status_code == 415


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_bomb_is_refused_before_it_is_decoded(sender: FlaskClient, name: str) -> None:
    content, status = TOO_MUCH[name]
    assert upload(sender, content).status_code == status


def polyglots() -> dict[str, bytes]:
    """Whole pictures that are also pages, scripts or archives."""
    small, payload = picture(3, (64, 48)), SCRIPT + b"PK\3\4"
    png = encoded(small, "PNG")
    return {
        "JPEG with a comment": encoded(small, comment=payload),
        "JPEG with a page behind it": encoded(small) + payload,
        "GIF with a comment": encoded(small, "GIF", comment=payload),
        "PNG with a text": png[:33] + chunk(b"tEXt", b"Comment\0" + payload) + png[33:],
        "PNG with an archive behind it": png + payload,
        "WebP with metadata": encoded(small, "WEBP", xmp=payload),
    }


@pytest.mark.parametrize("name", polyglots())
def test_what_is_kept_of_a_polyglot_is_its_pixels_alone(sender: FlaskClient, name: str) -> None:
    content = polyglots()[name]
    answer = upload(sender, content, "polyglot.html", "text/html")
    assert answer.status_code == 303
    (key,) = [word for word in re.split("[=&?]", answer.location) if word.startswith("u") and len(word) == 23]
    with sender.get(f"/uploads/{key}/thumbnail") as kept:
        assert kept.mimetype == "image/jpeg"
        assert kept.data.startswith(b"\xff\xd8\xff")
        assert SCRIPT not in kept.data
        assert "sandbox" in kept.headers["Content-Security-Policy"]
    assert SCRIPT not in sender.get(answer.location).data


@pytest.mark.parametrize("name", polyglots())
def test_a_polyglot_of_the_collection_is_sent_as_the_picture_that_it_is(
    taking: FakeService, sender: FlaskClient, name: str
) -> None:
    content = polyglots()[name]
    taking.paths[8].write_bytes(content)  # called wrong-suffix.html
    kind = {b"\xff\xd8": "JPEG", b"GI": "GIF", b"\x89P": "PNG", b"RI": "WEBP"}[content[:2]]
    taking.described[8] = replace(taking.described[8], format=kind)
    for what in ("view", "original"):
        with sender.get(f"/images/9/{what}") as answer:
            assert answer.mimetype == f"image/{kind.lower()}"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Content-Disposition"].startswith("inline" if what == "view" else "attachment")
            assert ".html" not in answer.headers["Content-Disposition"].replace(".html.", ".")


@pytest.mark.parametrize(
    "name",
    [
        "x\r\nSet-Cookie: a=b.jpg",
        'x"; filename="y.html',
        "../../x.jpg",
        "x\0.jpg",
        "<img src=x onerror=alert(1)>.jpg",
        "é" * 400,
    ],
)
def test_the_name_of_an_upload_reaches_neither_headers_nor_pages(sender: FlaskClient, name: str) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: image/jpeg\r\n\r\n'
        + encoded(picture(5))
        + b"\r\n--x--\r\n"
    )
    for address in ("/search", "/api/v1/search"):
        answer = sender.post(address, data=body, content_type="multipart/form-data; boundary=x", follow_redirects=True)
        assert answer.status_code < 500
        assert "Set-Cookie" not in answer.headers
        assert b"onerror" not in answer.data


# Bodies.


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"[" * 900_000, 400),
        ("application/json", b'{"like": [' + b"1," * 600_000 + b"1]}", 413),
        ("application/json", b'{"like": 1' + b"0" * 100_000 + b"}", 400),
        ("application/json", b'{"vector": [' + b"1e999," * 1000 + b"1]}", 400),
        ("application/json", b"\xff\xfe", 400),
        ("application/x-www-form-urlencoded", b"&a=" * 400_000, 413),
        ("application/x-www-form-urlencoded", b"like=1&" * 2_000, 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" * 2_000, 413),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 100_000, 413),
        ("multipart/form-data; boundary=" + "x" * 5_000, b"x" * 5_000, 400),
        ("multipart/form-data", b"x", 400),
        ("text/html", SCRIPT, 400),
    ],
)
def test_a_body_that_is_made_to_cost_much_is_refused(sender: FlaskClient, kind: str, body: bytes, status: int) -> None:
    answer = sender.post("/api/v1/search", data=body, content_type=kind)
    assert answer.status_code == status
    assert answer.json is not None
    assert len(answer.data) < 2_000
    if status == 413 and not kind.startswith("multipart"):
        assert "1,048,576 bytes" in answer.json["error"]["message"]


# Over a real connection.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a collection in `rsc`."""
    folder = tmp_path_factory.mktemp("served")
    make_collection(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[int]:
    """Serve the collection as `python app.py` does, with small limits; the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    options = [f"--port={port}", f"--rsc-files={folder / 'rsc'}", "--upload-max-bytes=200000", "--workers=1"]
    environment = {**os.environ, "LOOKALIKE_RUN_FOLDER": str(folder / "run"), "LOOKALIKE_EDIT_TOKEN": "short"}
    command = [sys.executable, str(ROOT / "app.py"), *options]
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
    assert process.stdout is not None
    assert "serves" in process.stdout.readline()
    yield port
    process.terminate()
    process.wait(timeout=60)


def raw(port: int, *parts: bytes, shut: bool = False) -> bytes:
    """Send parts of a request, however wrong, and return all that comes until the connection ends."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            if shut:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def head(method: str, address: str, *headers: str) -> bytes:
    lines = [f"{method} {address} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def is_well(port: int) -> bool:
    return status_of(raw(port, head("GET", "/images/1"))) == 200


FORM = "Content-Type: multipart/form-data; boundary=x"


def test_what_is_weak_is_said_at_the_start_once(server: int, folder: Path) -> None:
    assert (folder / "said").read_text().count("edit_token has 5 characters") == 1


def test_a_body_that_says_it_is_too_large_is_refused_unread(server: int) -> None:
    assert status_of(raw(server, head("POST", "/search", FORM, "Content-Length: 1000000000"))) == 413
    assert is_well(server)


def test_a_body_that_never_ends_is_answered_at_the_limit(server: int) -> None:
    """Chunks say no length before; a service that waited for their end would wait and hold them for ever."""
    begin = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
    chunks = [b"%x\r\n" % len(begin) + begin + b"\r\n"] + [b"10000\r\n" + bytes(65536) + b"\r\n"] * 60
    assert status_of(raw(server, head("POST", "/search", FORM, "Transfer-Encoding: chunked"), *chunks)) == 413
    assert is_well(server)


@pytest.mark.parametrize(
    "request_of",
    [
        pytest.param(
            head("POST", "/search", FORM, "Content-Length: 500") + b"--x\r\n", id="more is announced than comes"
        ),
        pytest.param(head("POST", "/search", FORM, "Content-Length: -1") + b"--x\r\n", id="less than nothing"),
        pytest.param(
            head("POST", "/search", FORM, "Content-Length: 5", "Content-Length: 50") + b"--x\r\n", id="two lengths"
        ),
        pytest.param(head("POST", "/search", FORM, "Content-Length: +5") + b"--x\r\n", id="no number"),
        pytest.param(
            head("POST", "/search", FORM, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
            id="both kinds",
        ),
        pytest.param(
            head("POST", "/search", FORM, "Transfer-Encoding: chunked, x") + b"0\r\n\r\n", id="unknown coding"
        ),
        pytest.param(head("POST", "/search", FORM, "Transfer-Encoding: chunked") + b"zz\r\n\r\n", id="no chunk"),
        pytest.param(head("GET", "/" + "x" * 100_000), id="long address"),
        pytest.param(head("GET", "/", *(f"X-{n}: y" for n in range(1000))), id="many headers"),
        pytest.param(head("GET", "/", "X: " + "y" * 100_000), id="long header"),
        pytest.param(head("GET", "/", "Evil header: x"), id="header with a space"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: rebound.example\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", id="two hosts"
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(100) + b"\r\n\r\n", id="TLS"),
    ],
)
def test_a_request_that_lies_gets_a_refusal_or_nothing(server: int, request_of: bytes) -> None:
    answer = raw(server, request_of, shut=True)
    assert not answer or 400 <= status_of(answer) < 500 or status_of(answer) == 501
    assert answer.count(b"HTTP/1.1 ") <= 1  # no second request was hidden in it
    assert is_well(server)


def test_a_host_in_the_address_is_not_believed(server: int) -> None:
    for host in (b"", b"Host: 127.0.0.1\r\n"):
        answer = raw(server, b"GET http://rebound.example/ HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n")
        assert b"rebound.example" not in answer


def test_what_follows_a_body_is_no_part_of_it(server: int) -> None:
    """A hidden request, if it were taken for one, would be answered on a connection that a proxy shares between people."""
    hidden = head("GET", "/readyz")
    body = b"--x--\r\n"
    answer = raw(server, head("POST", "/search", FORM, f"Content-Length: {len(body)}") + body + hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
