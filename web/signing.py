"""The page where a visitor gives a token and gets a cookie for it, and the way out again.

Owns where one is led afterwards: nowhere but to this service. Does not own tokens, cookies or who is let in (`guard.py`).
"""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

import guard
import requested

pages = Blueprint("signing", __name__)


def local_address(raw: str | None) -> str:
    """Return an address of this service as it is, and the start page for anything else.

    Browsers take "//" and "/\\" for the beginning of another host, and leave out tabs and line ends before they look.
    """
    here = (
        raw is not None and raw.startswith("/") and not raw.startswith("//") and "\\" not in raw and raw.isprintable()
    )
    return raw if here and raw is not None else url_for("search.index")


def asked_address() -> str:
    """Return the address of this request within the service, to come back to; of what is no page, the start page."""
    if request.method != "GET" or request.endpoint == "signing.form":
        return local_address(request.args.get("next") if request.method == "GET" else None)
    return local_address("/" + request.url.removeprefix(request.host_url))


def refusal(message: str) -> str:
    """Return the page that says why nothing is shown, with the form to sign in."""
    came = asked_address() if request.endpoint != "signing.sign_in" else local_address(request.form.get("next"))
    # A link on another site leads here without the cookie, which is SameSite=Strict; asked for once more by this page, it comes.
    again = request.method == "GET" and request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
    return render_template("sign_in.html", message=message, next=came, again=again)


@pages.get("/sign-in")
def form() -> ResponseReturnValue:
    """Show the form to sign in with; who needs no token is led on."""
    if not guard.visitor().may_see or guard.asks_to_change():
        return render_template("sign_in.html", message=None, next=asked_address(), again=False)
    return redirect(asked_address())


@pages.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Give the cookie for the token in the form, and lead back to where it was asked for."""
    fields = requested.request_fields()
    response = redirect(local_address(requested.wanted_text(fields, "next")), 303)
    guard.guard().sign_in(response, requested.wanted_text(fields, "token") or "")
    return response


@pages.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """Take the cookie back, and what the browser has kept of the pictures."""
    response = redirect(url_for("search.index"), 303)
    response.delete_cookie(guard.cookie_name(), secure=request.is_secure, httponly=True, samesite="Strict")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response
