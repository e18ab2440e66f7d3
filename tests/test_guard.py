"""Holds the guard to what it promises: who is let in, with which token, name and page, and how often one may guess."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import guard
from app import create_app
from config import Settings, load_settings
from errors import SettingsError
from tests.fakes import NAMES, FakeService

SEE, CHANGE = "a token to see with 1=2", "a-token-to-change-with"
OPEN = Settings()
LOCKED = Settings(access_token=SEE, edit_token=CHANGE, changes="on")
OTHER_SITE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photographs")


class Clients(Protocol):
    def __call__(self, settings: Settings) -> FlaskClient: ...


@pytest.fixture(scope="module")
def applications(folder: Path) -> dict[Settings, Flask]:
    return {}


@pytest.fixture
def client_of(folder: Path, applications: dict[Settings, Flask]) -> Clients:
    """Return clients of applications that are made once, and have heard no guesses."""

    def client_of(settings: Settings) -> FlaskClient:
        if settings not in applications:
            applications[settings] = create_app(service=FakeService(folder, settings, names=NAMES[:3]))
        application = applications[settings]
        application.extensions[guard.EXTENSION].guesses = guard.Guesses()
        return application.test_client()

    return client_of


@pytest.fixture
def locked(client_of: Clients) -> FlaskClient:
    return client_of(LOCKED)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def sign_in(client: FlaskClient, token: str, **fields: Any) -> TestResponse:
    return client.post("/sign-in", data={"token": token, **fields})


def tag(client: FlaskClient, **headers: str) -> int:
    """Try to change something that the fake service cannot: 403 and 401 come from the guard, anything else from behind it."""
    return client.post("/images/1/tags", data={"tag": ""}, headers=headers).status_code


# Tokens.


@pytest.mark.parametrize("headers", [bearer(SEE), bearer(CHANGE), basic(SEE), basic(CHANGE, "")])
def test_either_token_lets_in_by_bearer_or_basic(locked: FlaskClient, headers: dict[str, str]) -> None:
    for address in ("/", "/images/1", "/images/1/thumbnail", "/api/v1/images/1", "/readyz"):
        with locked.get(address, headers=headers) as answer:
            assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("wrong"),
        bearer(SEE[:-1]),
        bearer(SEE + "x"),
        bearer(SEE.upper()),
        bearer("tökén"),
        basic("wrong"),
        basic("", SEE),
        {"Authorization": SEE},
        {"Authorization": "Basic " + SEE},
        {"Authorization": "Digest username=x"},
        {"Cookie": f"lookalike={SEE}"},
        {"Cookie": "lookalike=in.aaaa.bbbb"},
    ],
)
def test_without_a_right_token_nothing_is_shown(locked: FlaskClient, headers: dict[str, str]) -> None:
    for address in ("/", "/images/1", "/images/1/thumbnail", "/static/nothing.css", "/nothing", "/readyz", "/metrics"):
        answer = locked.get(address, headers=headers)
        assert answer.status_code == (404 if address.startswith("/static") else 401)
        assert NAMES[0] not in answer.text


def test_the_api_asks_for_a_token_in_json_and_a_page_with_a_form(locked: FlaskClient) -> None:
    answer = locked.get("/api/v1/images/1")
    assert answer.json is not None
    assert answer.json["error"]["code"] == "sign_in"
    # "Basic" here would make browsers ask in a window of their own.
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Lookalike"'
    page = locked.get("/images/1?k=3&tag=a%26b")
    assert page.headers["WWW-Authenticate"] == 'Bearer realm="Lookalike"'
    assert 'name="token"' in page.text
    assert 'name="next" value="/images/1?k=3&amp;tag=a%26b"' in page.text
    assert "Groups" not in page.text


def test_what_lives_and_what_pages_are_made_of_is_open(locked: FlaskClient) -> None:
    for address in ("/healthz", "/static/app.css", "/sign-in"):
        with locked.get(address) as answer:
            assert answer.status_code == 200


def test_changes_ask_for_the_token_for_changes(client_of: Clients) -> None:
    client = client_of(replace(LOCKED, access_token=None))
    assert client.get("/").status_code == 200
    assert tag(client) == 401
    assert tag(client, **bearer("wrong")) == 401
    assert tag(client, **bearer(CHANGE)) == 400  # no tag was named
    both = client_of(LOCKED)
    assert tag(both, **bearer(SEE)) == 401
    assert tag(both, **basic(CHANGE)) == 400


@pytest.mark.parametrize(
    ("change", "token", "status"),
    [
        ({}, CHANGE, None),
        ({}, SEE, 401),
        ({"changes": "off"}, CHANGE, 403),
        ({"edit_token": None}, SEE, 403),
    ],
)
def test_images_are_added_and_removed_with_the_setting_and_the_token(
    client_of: Clients, change: dict[str, Any], token: str, status: int | None
) -> None:
    from api import problem_of
    from errors import LookalikeError

    app = client_of(replace(LOCKED, **change)).application
    with app.test_request_context("/", method="POST", headers=bearer(token)):
        try:
            guard.check_may_change()
            found = None
        except LookalikeError as error:
            found = problem_of(error).status
    assert found == status


def test_tokens_are_compared_in_constant_time(locked: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def watched(given: bytes, own: bytes) -> bool:
        compared.append((len(given), len(own)))
        return given == own

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert locked.get("/", headers=bearer("x")).status_code == 401
    assert locked.get("/", headers=bearer(SEE)).status_code == 200
    # Each with both tokens, and of one length whatever was given.
    assert compared == [(32, 32)] * 4


@pytest.mark.parametrize("token", ["", " ", "with a space ", "tökén", "line\nend"])
def test_a_token_that_nobody_could_give_is_no_token(client_of: Clients, folder: Path, token: str) -> None:
    for name in ("access_token", "edit_token"):
        with pytest.raises(SettingsError, match=name):
            client_of(load_settings({name: token}, environ={}, toml_path=folder / "none.toml"))


# Guessing.


def test_who_guesses_is_not_listened_to_for_a_while(locked: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    guesses = guard.Guesses(clock=lambda: now[0])
    monkeypatch.setattr(locked.application.extensions[guard.EXTENSION], "guesses", guesses)
    signed_in = locked.application.test_client()
    assert sign_in(signed_in, SEE).status_code == 303
    for number in range(guard.MOST_GUESSES):
        assert sign_in(locked, f"guess {number}").status_code == 401
    for answer in (
        sign_in(locked, SEE),
        locked.get("/", headers=bearer(SEE)),
        locked.get("/api/v1/images/1", headers=basic(SEE)),
    ):
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
    # Others, and who signed in before, do not suffer.
    assert locked.get("/", headers=bearer(SEE), environ_base={"REMOTE_ADDR": "192.0.2.7"}).status_code == 200
    assert signed_in.get("/").status_code == 200
    now[0] += guard.GUESSES_SECONDS
    assert sign_in(locked, SEE).status_code == 303


def test_the_same_wrong_token_again_is_no_guess(locked: FlaskClient) -> None:
    for _ in range(2 * guard.MOST_GUESSES):
        assert locked.get("/", headers=bearer("of last year")).status_code == 401
    assert locked.get("/", headers=bearer(SEE)).status_code == 200


def test_an_open_service_tells_nobody_by_its_pages_whether_a_guess_was_right(client_of: Clients) -> None:
    client = client_of(replace(LOCKED, access_token=None))
    for number in range(guard.MOST_GUESSES):
        assert client.get("/", headers=bearer(f"guess {number}")).status_code == 200
    assert tag(client, **bearer(CHANGE)) == 429
    assert "Sign in to change" in client.get("/", headers=bearer(CHANGE)).text


def test_the_addresses_of_one_host_are_one_guesser_and_those_kept_are_bounded(
    locked: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(guard.MOST_GUESSES + 1):
        with locked.application.test_request_context(environ_base={"REMOTE_ADDR": f"2001:db8::{number:x}"}):
            problem = guard.guard().known_by(f"guess {number}").problem
    assert problem is not None
    assert problem.code == "too_many_guesses"
    for number in range(guard.MOST_GUESSES + 1):
        with locked.application.test_request_context(environ_base={"REMOTE_ADDR": f"::ffff:192.0.2.{number}"}):
            problem = guard.guard().known_by(f"guess {number}").problem
    assert problem is not None
    assert problem.code == "sign_in"
    monkeypatch.setattr(guard, "MOST_ADDRESSES", 3)
    guesses = guard.Guesses()
    for number in range(9):
        guesses.note(f"192.0.2.{number}", "guess")
    assert len(guesses._wrong) == 3


# Signing in and out.


def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_gets(locked: FlaskClient) -> None:
    answer = sign_in(locked, SEE, next="/images/1?k=3")
    assert (answer.status_code, answer.location) == (303, "/images/1?k=3")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("lookalike=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert SEE not in cookie
    assert locked.get("/").status_code == 200
    assert "Sign out" in locked.get("/").text


def test_over_tls_the_cookie_stays_there(locked: FlaskClient) -> None:
    answer = locked.post("/sign-in", data={"token": SEE}, base_url="https://localhost")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-lookalike=")
    assert "Secure" in cookie.split("; ")


def test_a_cookie_lets_change_only_who_gave_the_token_for_it(locked: FlaskClient) -> None:
    sign_in(locked, SEE)
    assert tag(locked) == 401
    assert "Sign in to change" in locked.get("/").text
    assert "Sign in to change things" in locked.get("/sign-in").text
    sign_in(locked, CHANGE)
    assert tag(locked) == 400
    assert "Sign in to change" not in locked.get("/").text
    assert locked.get("/sign-in").status_code == 302


def test_signing_out_takes_the_cookie_back(locked: FlaskClient) -> None:
    sign_in(locked, SEE)
    answer = locked.post("/sign-out")
    assert answer.status_code == 303
    assert answer.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert locked.get("/").status_code == 401


def test_a_cookie_is_worth_nothing_once_altered_old_or_of_another_token(
    locked: FlaskClient, client_of: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(locked, SEE)
    cookie = locked.get_cookie("lookalike")
    assert cookie is not None

    def status(client: FlaskClient, value: str) -> int:
        fresh = client.application.test_client()
        fresh.set_cookie("lookalike", value)
        return fresh.get("/").status_code

    assert status(locked, cookie.value) == 200
    for wrong in (cookie.value[:-1], cookie.value.replace("in.", "in.x", 1), "in" + cookie.value, "." * 9, "é"):
        assert status(locked, wrong) == 401
    assert status(client_of(replace(LOCKED, access_token="another token")), cookie.value) == 401
    assert status(client_of(replace(LOCKED, edit_token="another token")), cookie.value) == 200
    monkeypatch.setattr(guard, "SIGNED_IN_DAYS", -1)
    assert status(locked, cookie.value) == 401


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.example/",
        "//elsewhere.example/",
        "/\\elsewhere.example/",
        "\\\\elsewhere.example",
        "/\t/elsewhere.example/",
        "\t//elsewhere.example/",
        "/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "elsewhere.example",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(locked: FlaskClient, address: str) -> None:
    answer = sign_in(locked, SEE, next=address)
    assert (answer.status_code, answer.location) == (303, "/")
    assert locked.get("/sign-in", query_string={"next": address}).status_code == 200  # to change things
    (shown,) = re.findall(r'name="next" value="([^"]*)"', locked.get("/sign-in", query_string={"next": address}).text)
    assert shown == "/"
    assert sign_in(locked, CHANGE).status_code == 303
    assert locked.get("/sign-in", query_string={"next": address}).location == "/"


# The service's own pages.


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://localhost"}, True),
        (OTHER_SITE, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False),
        ({"Origin": "https://elsewhere.example"}, False),
        ({"Origin": "http://localhost:8081"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_only_the_services_own_pages_make_a_browser_change_or_send_something(
    client_of: Clients, headers: dict[str, str], allowed: bool
) -> None:
    client = client_of(OPEN)
    for address in ("/search", "/api/v1/search", "/images/1/tags", "/sign-in", "/sign-out", "/nothing"):
        assert (client.post(address, headers=headers).status_code != 403) == allowed


def test_other_sites_may_lead_here_but_not_take_from_here(client_of: Clients) -> None:
    client = client_of(OPEN)
    to_here = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/images/1", headers=to_here).status_code == 200
    assert client.get("/images/1/thumbnail", headers=OTHER_SITE).status_code == 403
    assert client.get("/api/v1/search?like=1", headers=OTHER_SITE).status_code == 403


def test_what_came_through_a_proxy_is_not_from_this_machine(client_of: Clients) -> None:
    assert tag(client_of(OPEN)) == 400
    assert tag(client_of(OPEN), **{"X-Forwarded-For": "192.0.2.7"}) == 403


# Names.


@pytest.mark.parametrize(
    ("settings", "host", "known"),
    [
        (OPEN, "localhost:8080", True),
        (OPEN, "127.0.0.1", True),
        (OPEN, "[::1]:8080", True),
        (OPEN, "LOCALHOST.", True),
        (OPEN, "rebound.example", False),
        (OPEN, "192.168.1.5", False),
        (OPEN, "localhost.rebound.example", False),
        (OPEN, "localhost@rebound.example", False),
        (OPEN, "", False),
        (OPEN, "localhost/..", False),
        (Settings(host="0.0.0.0"), "192.168.1.5:8080", True),
        (Settings(host="0.0.0.0"), "[2001:db8::5]", True),
        (Settings(host="0.0.0.0"), "this-machine", True),
        (Settings(host="0.0.0.0"), "this-machine.local", True),
        (Settings(host="0.0.0.0"), "rebound.example", False),
        (Settings(hosts="photos.example, Other.example"), "photos.example:8080", True),
        (Settings(hosts="photos.example, Other.example"), "other.example", True),
        (Settings(hosts="photos.example,"), "localhost", True),
        (Settings(hosts="photos.example,"), "", False),
        (Settings(hosts="photos.example"), "this-machine", False),
        (Settings(hosts="photos.example", host="0.0.0.0"), "192.168.1.5", False),
    ],
)
def test_a_service_answers_to_its_own_names_alone(
    client_of: Clients, monkeypatch: pytest.MonkeyPatch, settings: Settings, host: str, known: bool
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "this-machine")
    client = client_of(settings)
    for address in ("/images/1", "/api/v1/images/1", "/nothing"):
        answer = client.get(address, headers={"Host": host})
        assert (answer.status_code != 421) == known
        assert known or NAMES[0] not in answer.text
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_what_proxies_say_is_believed_where_there_are_some(client_of: Clients) -> None:
    said = {"X-Forwarded-Host": "photos.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    alone = client_of(replace(LOCKED, hosts="photos.example"))
    assert alone.get("/", headers={**said, "Host": "elsewhere.example"}).status_code == 421
    assert "Strict-Transport-Security" not in alone.get("/", headers=said).headers
    behind = client_of(replace(LOCKED, hosts="photos.example", proxies=1))
    answer = behind.post("/sign-in", data={"token": SEE}, headers={**said, "Origin": "https://photos.example"})
    assert answer.status_code == 303
    assert "Secure" in answer.headers["Set-Cookie"]
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    # The last address is the proxy's word; those before it are what the client says of itself.
    for number in range(guard.MOST_GUESSES):
        client = {"X-Forwarded-For": f"198.51.100.{number}, 192.0.2.7"}
        assert behind.get("/api/v1/tags", headers={**said, **client, **bearer(f"guess {number}")}).status_code == 401
    assert behind.get("/", headers={**said, **bearer(SEE)}).status_code == 429
    assert behind.get("/", headers={**said, "X-Forwarded-For": "192.0.2.8", **bearer(SEE)}).status_code == 200


# What is said at the start.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), []),
        (Settings(host="0.0.0.0"), ["no access_token is set"]),
        (Settings(host="0.0.0.0", access_token="x" * 16), []),
        (Settings(access_token="x" * 15), ["access_token has 15 characters"]),
        (Settings(changes="on"), ["no edit_token is set"]),
        (Settings(proxies=1), ["Name the proxy's host"]),
        (Settings(proxies=1, hosts="photos.example"), []),
    ],
)
def test_whoever_opens_a_service_to_the_network_is_warned(settings: Settings, words: list[str]) -> None:
    said = guard.warnings(settings)
    assert len(said) == len(words)
    for sentence, wanted in zip(said, words, strict=True):
        assert wanted in sentence
