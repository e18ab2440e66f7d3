"""Who may see and change what: tokens, cookies of who signed in, the service's own pages, its own names.

Owns every refusal that does not depend on what is asked for; `protect` makes an application ask it before each request. Does not
own what an error looks like (`api.py`, `app.py`), nor the page where one signs in (`web/signing.py`). docs/security.md says
which attack each of them is against. Sources: https://www.w3.org/TR/fetch-metadata/, RFC 6750, RFC 7617, RFC 6265bis.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Flask, current_app, g, request
from itsdangerous import BadSignature, TimestampSigner
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

import requested
from config import LOOPBACK_NAMES, Settings
from errors import EditRefusedError, LookalikeError, SettingsError, SignInError, TooManyGuessesError, UnknownHostError

EXTENSION = "lookalike_guard"
COOKIE = "lookalike"
SIGNED_IN_DAYS = 30
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
OPEN_ENDPOINTS = ("pages.healthz", "static", "signing.form", "signing.sign_in")
"""What is answered without a token: that the process lives, the files that pages are made of, and the way in."""

MOST_GUESSES = 10
"""Different wrong tokens that one address may send in `GUESSES_SECONDS`."""
GUESSES_SECONDS = 60.0
MOST_ADDRESSES = 10_000
FEW_CHARACTERS = 16
"""A token with fewer is warned about: what people think up is guessed."""

_OTHER_SITE = "This request was made by another site. Use the pages of this service."


@dataclass(frozen=True)
class Visitor:
    """Who makes a request: whether a token let them in, whether it is the one for changes, and what was wrong with theirs."""

    may_see: bool = False
    may_change: bool = False
    by_cookie: bool = False
    problem: LookalikeError | None = None


NOBODY, VIEWER, EDITOR = Visitor(), Visitor(may_see=True), Visitor(may_see=True, may_change=True)


@dataclass
class Guesses:
    """Wrong tokens by address, for a while: the same one again is no new guess. Thread-safe; each process counts its own."""

    clock: Callable[[], float] = time.monotonic
    _wrong: OrderedDict[str, tuple[float, set[bytes]]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_s(self, address: str) -> float:
        """Return for how many seconds no token of `address` is looked at any more; 0 where one may be sent now."""
        with self._lock:
            since, wrong = self._wrong.get(address, (0.0, set()))
            return max(0.0, since + GUESSES_SECONDS - self.clock()) if len(wrong) >= MOST_GUESSES else 0.0

    def note(self, address: str, token: str) -> None:
        """Count a wrong token."""
        with self._lock:
            since, wrong = self._wrong.pop(address, (self.clock(), set()))
            if self.clock() - since >= GUESSES_SECONDS:
                since, wrong = self.clock(), set()
            wrong.add(_digest(token))
            self._wrong[address] = since, wrong
            if len(self._wrong) > MOST_ADDRESSES:
                self._wrong.popitem(last=False)


class Guard:
    """What one application asks of its visitors. Raises `SettingsError` for tokens that nobody could give."""

    def __init__(self, settings: Settings) -> None:
        _check_tokens(settings)
        self.settings = settings
        self.guesses = Guesses()
        self._names = known_names(settings)
        # A cookie proves that somebody gave a token, so it is signed with that token. A key of both would let who has the one
        # try out the other against a cookie at home; scrypt makes even that for a cookie that was seen take long.
        levels = ((settings.edit_token, EDITOR), (settings.access_token, VIEWER))
        self._levels = [(token, visitor, _signer(token)) for token, visitor in levels if token is not None]

    def check_host(self) -> None:
        """Raise `UnknownHostError` unless the request names a host that this service is known by."""
        name = _host_name(request.host)
        if name in self._names:
            return
        open_to_network = self.settings.hosts is None and self.settings.host not in LOOPBACK_NAMES
        if not (open_to_network and _is_ip(name)):
            raise UnknownHostError(
                f"This service is not known as {name[:80]!r}. Whoever runs it can add the name to the setting hosts."
            )

    def known_by(self, token: str) -> Visitor:
        """Return whom a token lets in as what; a wrong one counts as a guess. Never raises: see `Visitor.problem`."""
        address = _address()
        wait = self.guesses.wait_s(address)
        if wait:
            return Visitor(
                problem=TooManyGuessesError(f"Too many wrong tokens came from there. Wait {wait:.0f} seconds.")
            )
        # Every token is compared with, so that how long it takes says nothing.
        known = [visitor for own, visitor, _ in self._levels if same_token(token, own)]
        if known:
            return known[0]
        self.guesses.note(address, token)
        return Visitor(problem=SignInError("That token is not the right one."))

    def visitor(self) -> Visitor:
        """Return who makes this request, by its Authorization or else its cookie."""
        default = VIEWER if self.settings.access_token is None else NOBODY
        if not self._levels:
            return default
        token = _sent_token()
        found = self._by_cookie() if token is None else self.known_by(token)
        return found if found.may_see else Visitor(may_see=default.may_see, problem=found.problem)

    def _by_cookie(self) -> Visitor:
        value = request.cookies.get(cookie_name(), "")
        for _, visitor, signer in self._levels:
            try:
                signer.unsign(value, max_age=SIGNED_IN_DAYS * 86400)
            except BadSignature:
                continue
            return Visitor(visitor.may_see, visitor.may_change, by_cookie=True)
        return NOBODY

    def sign_in(self, response: Response, token: str) -> None:
        """Give a browser the cookie that stands for `token` from now on. Raises `SignInError`, `TooManyGuessesError`."""
        visitor = self.known_by(token) if self._levels else Visitor(problem=SignInError("Nobody signs in here."))
        if visitor.problem is not None:
            raise visitor.problem
        (signer,) = [signer for _, level, signer in self._levels if level is visitor]
        response.set_cookie(
            cookie_name(),
            signer.sign("in").decode(),
            max_age=SIGNED_IN_DAYS * 86400,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )


def protect(app: Flask, settings: Settings) -> None:
    """Let no request reach a view of `app` that `settings` do not let in. Raises `SettingsError`."""
    app.extensions[EXTENSION] = Guard(settings)
    if settings.proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=settings.proxies, x_proto=settings.proxies, x_host=settings.proxies
        )
    app.before_request(_check)
    app.context_processor(lambda: {"visitor": visitor(), "asks_to_change": asks_to_change()})


def _check() -> None:
    if request.mimetype != "multipart/form-data":
        # Pictures come as nothing else. Of a form of 30 MB werkzeug would make ten million fields, in gigabytes of memory.
        request.max_content_length = requested.MAX_JSON_BYTES
    if request.endpoint != "pages.healthz":  # whatever watches over the process knows no names, and learns nothing
        guard().check_host()
    _check_own_page()
    if request.endpoint not in OPEN_ENDPOINTS and not visitor().may_see:
        raise visitor().problem or SignInError("This service asks for a token before it shows anything.")


def guard() -> Guard:
    """Return the guard of the running app."""
    return cast(Guard, current_app.extensions[EXTENSION])


def visitor() -> Visitor:
    """Return who makes this request."""
    if "visitor" not in g:
        g.visitor = guard().visitor()
    return cast(Visitor, g.visitor)


def asks_to_change() -> bool:
    """Tell whether something could be changed here by who signs in with the token for it, and this visitor has not."""
    settings = guard().settings
    something = settings.edits_allowed or settings.changes == "on"
    return settings.edit_token is not None and something and not visitor().may_change


def may_edit() -> bool:
    """Tell whether this visitor is offered to change names and tags."""
    settings = guard().settings
    return settings.edits_allowed and (settings.edit_token is None or visitor().may_change)


def may_change() -> bool:
    """Tell whether this visitor is offered to add and remove images."""
    return guard().settings.changes == "on" and visitor().may_change


def check_may_edit() -> None:
    """Raise `EditRefusedError` unless visitors may change names and tags, and the request comes from the service's own pages.

    `SignInError` where that asks for a token. Where edits are on for this machine alone, so are its names, and what a proxy
    sends on comes from elsewhere.
    """
    settings = requested.service().settings
    if not settings.edits_allowed:
        raise EditRefusedError(
            "This service does not take names, tags and labels. Whoever runs it can allow it: python app.py --edits on"
        )
    _check_own_page()
    if settings.edit_token is not None:
        _check_token("Changing names and tags")
    elif settings.edits == "auto":
        if _host_name(request.host) not in LOOPBACK_NAMES:
            raise EditRefusedError(_OTHER_SITE)
        if not settings.proxies and "X-Forwarded-For" in request.headers:
            raise EditRefusedError(
                "Names and tags are taken from this machine alone, and this came through a proxy. Whoever runs the service "
                "can allow it, with the setting edit_token or edits."
            )


def check_may_change() -> None:
    """Raise `EditRefusedError` unless images may be added and removed here, `SignInError` without the token for it."""
    settings = requested.service().settings
    if settings.changes != "on" or settings.edit_token is None:
        raise EditRefusedError(
            "Images cannot be added or removed here. Whoever runs this service can allow it, with the settings "
            "changes and edit_token."
        )
    _check_own_page()
    _check_token("Adding and removing images")


def _check_token(what: str) -> None:
    if not visitor().may_change:
        raise visitor().problem or SignInError(f"{what} asks for the token for changes (edit_token).")


def _check_own_page() -> None:
    """Raise `EditRefusedError` for what another site makes a visitor's browser send, unless it only leads here.

    Browsers say so in `Sec-Fetch-Site`, over plain HTTP in `Origin`. A client that is no browser sends neither.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    own = origin in (None, request.host_url.rstrip("/")) if site is None else site in ("same-origin", "none")
    if request.method in SAFE_METHODS:
        own = own or site is None or request.headers.get("Sec-Fetch-Mode") == "navigate"
    if not own:
        raise EditRefusedError(_OTHER_SITE)


def _sent_token() -> str | None:
    """Return the token in the Authorization header. Werkzeug would not find one with "=" in it."""
    scheme, _, rest = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    given = request.authorization
    return None if given is None else given.password or ""


def cookie_name() -> str:
    """Return the name of the cookie; over TLS one that browsers take from this very host alone."""
    return f"__Host-{COOKIE}" if request.is_secure else COOKIE


def same_token(given: str, own: str) -> bool:
    """Compare in a time that depends on neither the characters nor their number."""
    return hmac.compare_digest(_digest(given), _digest(own))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _signer(token: str) -> TimestampSigner:
    key = hashlib.scrypt(token.encode(), salt=b"lookalike signs in", n=2**14, r=8, p=1, dklen=32)
    return TimestampSigner(key, salt="lookalike", digest_method=hashlib.sha256)


def _address() -> str:
    """Return who counts as one sender of guesses: an IPv4 address, or the /64 that a host has of IPv6 addresses."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)  # an IPv4 address, which a socket for both kinds writes as ::ffff:192.0.2.7


# Names.


def known_names(settings: Settings) -> frozenset[str]:
    """Return the host names, in small letters, that a service with `settings` answers to; besides them perhaps IP addresses."""
    if settings.hosts is not None:
        # What runs on this machine (a monitor, a proxy's probe) may call it so; no other site can make a browser do it.
        return frozenset({*LOOPBACK_NAMES, *(_host_name(name.strip()) for name in settings.hosts.split(","))} - {""})
    if settings.host in LOOPBACK_NAMES:
        return frozenset(LOOPBACK_NAMES)
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    return frozenset({*LOOPBACK_NAMES, settings.host.lower(), own, short, f"{short}.local"})


def _host_name(host: str) -> str:
    """Return the name in "name:port" or "[address]:port", in small letters; nothing for what is no host."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name = host if host.count(":") > 1 else host.partition(":")[0]
    return name.rstrip(".").lower()


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# Settings.


def _tokens(settings: Settings) -> Mapping[str, str]:
    given: Mapping[str, Any] = {"access_token": settings.access_token, "edit_token": settings.edit_token}
    return {name: token for name, token in given.items() if token is not None}


def _check_tokens(settings: Settings) -> None:
    for name, token in _tokens(settings).items():
        if not token or token != token.strip() or not (token.isascii() and token.isprintable()):
            raise SettingsError(
                f"{name} is empty, begins or ends with a space, or has a character that HTTP headers cannot carry. Choose "
                "letters and digits, such as those that this prints: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )


def warnings(settings: Settings) -> list[str]:
    """Return what whoever starts a service with `settings` should know, a sentence or two each."""
    said = []
    if settings.host not in LOOPBACK_NAMES and settings.access_token is None:
        said.append(
            f"Everybody who reaches {settings.host} port {settings.port} can see all pictures: no access_token is set. "
            "docs/security.md says how to set one."
        )
    said += [
        f"{name} has {len(token)} characters, so few that they can be guessed: use {FEW_CHARACTERS} or more, such as those that "
        "this prints: python -c 'import secrets; print(secrets.token_urlsafe())'"
        for name, token in _tokens(settings).items()
        if len(token) < FEW_CHARACTERS
    ]
    if settings.changes == "on" and settings.edit_token is None:
        said.append("changes is on, but no edit_token is set, so nothing can be added or removed. Set one.")
    if settings.proxies and settings.hosts is None and settings.host in LOOPBACK_NAMES:
        said.append(
            "proxies is set but hosts is not: only requests for localhost are answered. Name the proxy's host there."
        )
    return said
