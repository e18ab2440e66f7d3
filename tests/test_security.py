"""Attacks our own service as docs/security.md says it could be, over every route it has; each test is of one defence."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import requested
from app import create_app
from config import Settings
from described import Description
from search import SearchService
from tests.duplicated_collection import index, make_photos
from tests.fakes import FakeService, encoded, picture
from tests.grouped_collection import make_collection
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


def check_harmless(answer: TestResponse, folder: Path, asked: object) -> None:
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
            for payload in payloads(target.folder)[::3]:
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
}
TOO_MUCH = {
    "pixels": png_of(60_000, 60_000),
    "zipped text": png_of(8, 8, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(300_000_000), 9))),
    "frames": b"GIF89a\1\0\1\0\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0" * 20_000 + b";",
}


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> FakeService:
    """A service that decodes as the real one does."""
    return FakeService(tmp_path_factory.mktemp("photographs"), Settings(upload_max_bytes=2_000_000))


def upload(client: FlaskClient, content: bytes, name: str = "x.jpg", kind: str = "image/jpeg") -> TestResponse:
    return client.post("/search", data={"file": (io.BytesIO(content), name, kind)})


@pytest.mark.parametrize("name", NO_PICTURES)
def test_only_the_formats_meant_are_decoded_whatever_they_are_called(taking: FakeService, name: str) -> None:
    client = create_app(service=taking).test_client()
    for called, kind in (("x.jpg", "image/jpeg"), ("x.svg", "image/svg+xml"), ("x.html", "text/html")):
        answer = upload(client, NO_PICTURES[name], called, kind)
        assert answer.status_code == 415
        assert b"alert(" not in answer.data
        assert SCRIPT not in answer.data
        sent = {"file": (io.BytesIO(NO_PICTURES[name]), called, kind)}
        assert client.post("/api/v1/search", data=sent).status_code == 415


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_bomb_is_refused_before_it_is_decoded(taking: FakeService, name: str) -> None:
    answer = upload(create_app(service=taking).test_client(), TOO_MUCH[name])
    assert 400 <= answer.status_code < 500


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
def test_what_is_kept_of_a_polyglot_is_its_pixels_alone(taking: FakeService, name: str) -> None:
    content = polyglots()[name]
    client = create_app(service=taking).test_client()
    answer = upload(client, content, "polyglot.html", "text/html")
    assert answer.status_code == 303
    (key,) = [word for word in re.split("[=&?]", answer.location) if word.startswith("u") and len(word) == 23]
    with client.get(f"/uploads/{key}/thumbnail") as kept:
        assert kept.mimetype == "image/jpeg"
        assert kept.data.startswith(b"\xff\xd8\xff")
        assert SCRIPT not in kept.data
        assert "sandbox" in kept.headers["Content-Security-Policy"]
    assert SCRIPT not in client.get(answer.location).data


@pytest.mark.parametrize("name", polyglots())
def test_a_polyglot_of_the_collection_is_sent_as_the_picture_that_it_is(taking: FakeService, name: str) -> None:
    content = polyglots()[name]
    taking.paths[8].write_bytes(content)  # called wrong-suffix.html
    kind = {b"\xff\xd8": "JPEG", b"GI": "GIF", b"\x89P": "PNG", b"RI": "WEBP"}[content[:2]]
    taking.described[8] = replace(taking.described[8], format=kind)
    client = create_app(service=taking).test_client()
    for what in ("view", "original"):
        with client.get(f"/images/9/{what}") as answer:
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
def test_the_name_of_an_upload_reaches_neither_headers_nor_pages(taking: FakeService, name: str) -> None:
    client = create_app(service=taking).test_client()
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: image/jpeg\r\n\r\n'
        + encoded(picture(5))
        + b"\r\n--x--\r\n"
    )
    for address in ("/search", "/api/v1/search"):
        answer = client.post(address, data=body, content_type="multipart/form-data; boundary=x", follow_redirects=True)
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
def test_a_body_that_is_made_to_cost_much_is_refused(taking: FakeService, kind: str, body: bytes, status: int) -> None:
    answer = create_app(service=taking).test_client().post("/api/v1/search", data=body, content_type=kind)
    assert answer.status_code == status
    assert answer.json is not None
    assert len(answer.data) < 2_000
