"""Attacks our own service as docs/security.md says it could be, over every route it has; each test is of one defence."""

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from markupsafe import escape
from playwright.sync_api import Browser, expect
from werkzeug.routing import Rule
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

import requested
from app import create_app
from config import ROOT, Settings
from described import Description
from search import SearchService
from tests.duplicated_collection import index, make_photos
from tests.fakes import FakeService, encoded, picture
from tests.grouped_collection import make_collection
from tests.serving import FLAGS, served
from tests.test_web_map import build_views

TOKEN = "a-token-to-change-with"
SECRET = b"what lies beside the collection"
OTHER_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
SCRIPT = b"<script>document.title='owned'</script>"
OPEN = ("pages.healthz", "static", "signing.form")
READING = {
    *(
        "api.search",
        "api.search_batch",
        "lists_api.graph",
        "map_api.duplicates_among",
        "map_api.images",
        "map_api.more",
    ),
    *("search.take_uploads", "signing.sign_in", "signing.sign_out"),
}
"""What takes a POST and changes nothing of the collection: pictures and long lists of ids are sent by it."""
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Target:
    """A collection with views on a disk that has something beside it, and applications that serve it."""

    folder: Path
    settings: Settings

    def app(self, **change: object) -> Flask:
        settings = replace(self.settings, **change)  # type: ignore[arg-type]
        return create_app(service=SearchService(settings, load_network=False))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    folder = tmp_path_factory.mktemp("target")
    settings = make_collection(folder)
    build_views(settings)
    (folder / "secret.txt").write_bytes(SECRET)
    return Target(folder, replace(settings, edit_token=TOKEN, changes="on", run_folder=folder / "run"))


@pytest.fixture(scope="module")
def everything(target: Target) -> Flask:
    return target.app()


def rules_of(app: Flask) -> list[Rule]:
    return sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)


def address_of(rule: Rule, values: Mapping[str, str] | None = None) -> str:
    """Return an address of a rule; arguments without a value are 1, as the files of pages are app.css."""
    address = rule.rule
    for name in rule.arguments:
        usual = "app.css" if name == "filename" else "1"
        for form in (f"<{name}>", f"<path:{name}>", f"<int:{name}>", f"<string:{name}>"):
            address = address.replace(form, (values or {}).get(name, usual))
    return address


def methods_of(rule: Rule) -> list[str]:
    return sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})


# Every route.


def test_every_route_asks_for_the_token_but_those_that_are_listed(target: Target) -> None:
    app = target.app(access_token="a-token-to-see-with")
    client = app.test_client()
    for rule in rules_of(app):
        for method in methods_of(rule):
            if rule.endpoint == "signing.sign_in":
                continue  # it takes a token, and answers 401 to none
            answer = client.open(address_of(rule), method=method)
            assert (answer.status_code == 401) == (rule.endpoint not in OPEN), (method, rule.rule)


def test_no_route_takes_anything_from_another_sites_page(everything: Flask) -> None:
    client = everything.test_client()
    for rule in rules_of(everything):
        for method in [*methods_of(rule), *UNSAFE]:
            for headers in (OTHER_SITE, {"Origin": "https://elsewhere.example"}):
                if method == "GET" and "Origin" in headers:
                    continue  # it changes nothing, and no page of elsewhere may read it
                sent = {**headers, "Authorization": f"Bearer {TOKEN}"}
                answer = client.open(address_of(rule), method=method, headers=sent)
                assert answer.status_code == 403, (method, rule.rule, headers)
                assert "Access-Control" not in str(answer.headers)


def test_no_route_is_answered_under_a_foreign_name(everything: Flask) -> None:
    client = everything.test_client()
    for rule in rules_of(everything):
        if rule.endpoint != "pages.healthz":
            for method in methods_of(rule):
                answer = client.open(address_of(rule), method=method, headers={"Host": "rebound.example"})
                assert answer.status_code == 421, (method, rule.rule)


def test_no_route_changes_images_without_the_token_for_it(target: Target, everything: Flask) -> None:
    client = everything.test_client()
    for rule in rules_of(everything):
        for method in methods_of(rule):
            if method != "GET" and rule.endpoint not in READING:
                answer = client.open(address_of(rule), method=method)
                assert answer.status_code == 401, (method, rule.rule, answer.status_code)


def test_every_answer_is_held_by_a_policy_that_runs_nothing_foreign(everything: Flask) -> None:
    client = everything.test_client()
    for rule in rules_of(everything):
        if "GET" in methods_of(rule):
            with client.get(address_of(rule)) as answer:
                policy = answer.headers["Content-Security-Policy"]
                is_page = answer.mimetype == "text/html" or rule.endpoint == "static"
                assert policy.startswith("default-src 'none'; ")
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert "public" not in answer.headers["Cache-Control"] or rule.endpoint == "static", rule.rule
                assert "*" not in policy
                assert ("sandbox" in policy) != is_page, rule.rule
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert "microphone=()" in answer.headers["Permissions-Policy"]


# Path traversal and header injection, in every parameter of every route.


def payloads(folder: Path) -> list[str]:
    """Return names of files that no request may reach, and line ends that no header may have."""
    beside = str(folder / "secret.txt")
    return [
        "../../../../../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "..\\..\\..\\..\\etc\\passwd",
        beside,
        "....//....//....//....//etc/passwd",
        "/etc/passwd",
        "x\r\nX-Injected: yes\r\n\r\n<html>",
        "file:///etc/passwd",
        "../secret.txt",
        beside + "\0.jpg",
        "//" + beside,
        "1/../../../secret.txt",
        "x\u010d\u010aX-Injected: yes",
    ]


def field_names(rule: Rule, app: Flask) -> list[str]:
    """Return the names of fields that a route may read: what it is described with, or whatever any search and filter has."""
    said = getattr(app.view_functions[rule.endpoint], "described", None)
    names = {
        *requested.SEARCH_FIELDS,
        "page",
        "next",
        "tag",
        "name",
        "text",
        "q",
        "folder",
        "layout",
        "keep",
        "protect",
        "format",
    }
    if isinstance(said, Description):
        shapes = [shape for shape in (said.query, said.body) if shape is not None]
        names = {name for shape in shapes for name in shape.__annotations__} | set(said.files or ())
    return sorted(names)


def check_harmless(answer: Response, folder: Path, asked: object) -> None:
    assert answer.status_code < 500, asked
    assert b"root:" not in answer.data, asked
    assert SECRET not in answer.data, asked
    assert "X-Injected" not in answer.headers, asked
    assert all(value.isprintable() for value in answer.headers.values()), asked


def test_no_address_reaches_a_file_that_is_none_of_the_collection(everything: Flask, target: Target) -> None:
    client = everything.test_client()
    for rule in rules_of(everything):
        for name in rule.arguments:
            for payload in payloads(target.folder):
                for written in (
                    quote(payload, safe=""),
                    quote(payload, safe="/%\\:"),
                    quote(quote(payload, safe=""), safe=""),
                ):
                    for method in methods_of(rule):
                        address = address_of(rule, {name: written})
                        headers = {"Authorization": f"Bearer {TOKEN}"}
                        with client.open(address, method=method, headers=headers) as answer:
                            check_harmless(answer, target.folder, (method, address))


def test_no_field_reaches_a_file_that_is_none_of_the_collection(everything: Flask, target: Target) -> None:
    client = everything.test_client()
    before = sorted(target.folder.rglob("*"))
    for rule in rules_of(everything):
        for name in field_names(rule, everything):
            for payload in payloads(target.folder)[:7:3]:  # a way up, a whole path, the end of a line
                for method in methods_of(rule):
                    headers = {"Authorization": f"Bearer {TOKEN}"}
                    place = "query_string" if method == "GET" else "data"
                    sent = {place: {name: payload}}
                    with client.open(address_of(rule), method=method, headers=headers, **sent) as answer:  # type: ignore[arg-type]
                        check_harmless(answer, target.folder, (method, rule.rule, name, payload))
    written = {path for path in target.folder.rglob("*") if path not in before}
    assert all(
        path.is_relative_to(target.folder / "rsc") or path.is_relative_to(target.folder / "run") for path in written
    )


def test_a_picture_that_is_added_lies_where_pictures_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files and folders that are sent are words, never paths, and the contents say how a file ends."""
    settings, _ = index(monkeypatch, make_photos(tmp_path / "photos"), tmp_path / "rsc")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    service = SearchService(replace(settings, edit_token=TOKEN, changes="on", run_folder=tmp_path / "run"))
    client = create_app(service=service).test_client()
    before = set(tmp_path.rglob("*"))
    for number, payload in enumerate(
        [*payloads(tmp_path), ".htaccess", "page.html", "x.php.jpg", "con", "-rf", "~root"], 100
    ):
        files = [
            (io.BytesIO(encoded(picture(number + more))), name) for more, name in ((0, payload), (50, f"{payload}/x"))
        ]
        sent = {"file": files, "folder": payload}
        answer = client.post("/api/v1/jobs/add", data=sent, headers={"Authorization": f"Bearer {TOKEN}"})
        check_harmless(answer, tmp_path, payload)
    service.close()
    new = {path for path in tmp_path.rglob("*") if path not in before and path.is_file()}
    pictures = {path for path in new if path.is_relative_to(tmp_path / "rsc" / "added")}
    assert len(pictures) > 20
    assert all(
        re.fullmatch(r"[\w-]+(/[\w-]+)?\.jpg", str(path.relative_to(tmp_path / "rsc" / "added"))) for path in pictures
    )
    assert all(
        path.is_relative_to(tmp_path / "rsc") or path.is_relative_to(tmp_path / "run") for path in new - pictures
    )
    assert (tmp_path / "secret.txt").read_bytes() == SECRET


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


# Over a real connection.


@pytest.fixture(scope="module")
def server(target: Target) -> Iterator[int]:
    """Serve the collection as `python app.py` does, with small limits; the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    options = [f"--port={port}", f"--rsc-files={target.settings.rsc_files}", "--upload-max-bytes=200000", "--workers=1"]
    environment = {**os.environ, "LOOKALIKE_RUN_FOLDER": str(target.folder / "run"), "LOOKALIKE_EDIT_TOKEN": "short"}
    command = [sys.executable, str(ROOT / "app.py"), *options]
    with open(target.folder / "said", "w") as said:
        process = subprocess.Popen(
            command, cwd=target.folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        )
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


def test_what_is_weak_is_said_at_the_start_once(server: int, target: Target) -> None:
    assert (target.folder / "said").read_text().count("edit_token has 5 characters") == 1


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


# In a browser.


PHOTOS, ELSEWHERE = "photos.example", "elsewhere.example"


@pytest.fixture(scope="module")
def chromium_of_names(browser: Browser, chromium: str) -> Iterator[Browser]:
    """A Chromium to which two sites lie on this machine. Over plain HTTP it sends no Sec-Fetch headers to either."""
    flags = [*FLAGS, f"--host-resolver-rules=MAP {PHOTOS} 127.0.0.1, MAP {ELSEWHERE} 127.0.0.1"]
    running = browser.browser_type.launch(executable_path=chromium, args=flags)
    yield running
    running.close()


@pytest.fixture(scope="module")
def locked_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(access_token="see-with-this-token", edit_token=TOKEN, hosts=f"{PHOTOS},127.0.0.1,localhost")
    with served(create_app(service=FakeService(tmp_path_factory.mktemp("photographs"), settings))) as address:
        yield address


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Another site, of which every page sends a form to the address behind its "?", and leads there by a link."""
    site = Flask("elsewhere")

    @site.get("/")
    def page() -> str:
        where = escape(request.args["to"])
        return (
            f'<title>Elsewhere</title><a href="{where}">there</a><img src="{where}">'
            f'<form method="post" action="{where}"><input name="tag" value="owned"><button>send</button></form>'
        )

    with served(site) as address:
        yield address


def named(address: str, name: str) -> str:
    return address.replace("127.0.0.1", name)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_one_signs_in_is_led_back_and_signs_out(browser: Browser, locked_address: str, width: int) -> None:
    with browser.new_context(base_url=locked_address, viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto("/images/3?k=12")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the right one")
        page.get_by_label("Token").fill("see-with-this-token")
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{locked_address}/images/3?k=12")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("link", name="Sign in to change").click()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{locked_address}/images/3?k=12")
        expect(page.get_by_role("button", name="Tag it")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()


@pytest.mark.browser
def test_who_signed_in_comes_back_by_a_link_on_another_site(
    chromium_of_names: Browser, locked_address: str, elsewhere: str
) -> None:
    """The cookie does not come along (SameSite=Strict), until the page asks for itself once more."""
    with chromium_of_names.new_context() as context:
        page = context.new_page()
        page.goto(f"{locked_address}/images/3")
        page.get_by_label("Token").fill("see-with-this-token")
        page.get_by_role("button", name="Sign in").click()
        page.goto(f"{named(elsewhere, ELSEWHERE)}/?to={locked_address}/images/2")
        page.get_by_role("link", name="there").click()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        expect(page).to_have_url(f"{locked_address}/images/2")


@pytest.mark.browser
def test_over_plain_http_a_browser_sends_our_forms_and_no_other_sites(
    chromium_of_names: Browser, tmp_path: Path, elsewhere: str
) -> None:
    """There it says nothing but Origin; with Referrer-Policy: no-referrer it would say "null" of both."""
    settings = Settings(edits="on", hosts=PHOTOS, rsc_files=tmp_path / "none")
    with (
        served(create_app(service=FakeService(tmp_path, settings, names=("a.jpg",)))) as address,
        contextlib.ExitStack() as stack,
    ):
        ours = named(address, PHOTOS)
        page = stack.enter_context(chromium_of_names.new_context()).new_page()
        page.goto(f"{ours}/images/1")
        page.get_by_label("Another tag").fill("x" * 100 + " ")
        with page.expect_response(lambda response: response.request.method == "POST") as own:
            page.get_by_role("button", name="Tag it").click()
        assert own.value.request.headers.get("sec-fetch-site") is None
        assert own.value.status != 403
        page.goto(f"{named(elsewhere, ELSEWHERE)}/?to={ours}/images/1/tags")
        with page.expect_response(lambda response: response.request.method == "POST") as others:
            page.get_by_role("button", name="send").click()
        assert others.value.status == 403


@pytest.mark.browser
def test_a_page_runs_and_shows_nothing_that_was_put_into_it(browser: Browser, tmp_path: Path) -> None:
    application = create_app(service=FakeService(tmp_path, Settings(), names=("a.jpg",)))
    with served(application) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.evaluate("""() => {
            window.refused = new Set();
            document.addEventListener("securitypolicyviolation", (event) => window.refused.add(event.effectiveDirective));
            document.body.insertAdjacentHTML("beforeend", `<div style="color: red" onclick="window.owned = 1"></div>
                <img src="http://127.0.0.1:9/x.png"><iframe src="/"></iframe><form action="http://127.0.0.1:9/"></form>`);
            const script = document.createElement("script");
            script.textContent = "window.owned = 1";
            document.body.append(script);
            document.body.lastElementChild.previousElementSibling.submit();
            document.querySelector("div[onclick]").click();
        }""")
        page.wait_for_function("window.refused.size >= 6", timeout=10_000)
        refused = set(page.evaluate("[...window.refused]"))
        assert page.evaluate("window.owned") is None
    assert refused == {"form-action", "frame-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr"}


@pytest.mark.browser
def test_a_picture_that_is_also_a_page_is_shown_as_a_picture(browser: Browser, tmp_path: Path) -> None:
    service = FakeService(tmp_path, Settings(), names=("a.html",))
    service.paths[0].write_bytes(encoded(picture(1)) + SCRIPT)
    with served(create_app(service=service)) as address, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}/images/1/view")
        assert page.evaluate("document.images.length === 1 && document.images[0].naturalWidth") == 640
        assert "owned" not in page.title()
