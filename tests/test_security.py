"""Attacks our own service as docs/security.md says it could be, over every route it has; each test is of one defence."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

import requested
from app import create_app
from config import Settings
from described import Description
from search import SearchService
from tests.duplicated_collection import index, make_photos
from tests.fakes import encoded, picture
from tests.grouped_collection import make_collection
from tests.test_web_map import build_views

TOKEN = "a-token-to-change-with"
SECRET = b"what lies beside the collection"
OTHER_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
OPEN = ("pages.healthz", "static", "signing.form")
READING = {
    *(
        "api.search",
        "api.search_batch",
        "api.keep",
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
