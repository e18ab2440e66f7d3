"""Who may see and change what: tokens, the service's own pages, its own names.

Owns every refusal that does not depend on what is asked for. Does not own what an error looks like (`api.py`, `app.py`).
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from flask import request

import requested
from config import LOOPBACK_NAMES
from errors import EditRefusedError, SignInError


def check_may_edit() -> None:
    """Raise `EditRefusedError` unless visitors may change names and tags, and the request comes from the service's own pages.

    A form or a script of another site may send requests here with a visitor's browser; browsers say so in `Sec-Fetch-Site`, older
    ones in `Origin`. A client that is no browser sends neither. Where edits are on for this machine alone, so are its names: a
    foreign name that was made to lead here (DNS rebinding) is refused.
    """
    settings = requested.service().settings
    if not settings.edits_allowed:
        raise EditRefusedError(
            "This service does not take names and tags. Whoever runs it can allow it: python app.py --edits on"
        )
    _check_own_page()
    if settings.edits == "auto" and urlsplit(request.host_url).hostname not in LOOPBACK_NAMES:
        raise EditRefusedError("This request was made by another site. Use the pages of this service.")


def check_may_change() -> None:
    """Raise `EditRefusedError` unless images may be added and removed here, `SignInError` without the token for it."""
    settings = requested.service().settings
    if settings.changes != "on" or settings.edit_token is None:
        raise EditRefusedError(
            "Images cannot be added or removed here. Whoever runs this service can allow it, with the settings "
            "changes and edit_token."
        )
    _check_own_page()
    if not hmac.compare_digest(_token().encode(), settings.edit_token.encode()):
        raise SignInError("Adding and removing images asks for the token edit_token.")


def _check_own_page() -> None:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    own = origin in (None, request.host_url.rstrip("/")) if site is None else site in ("same-origin", "none")
    if not own:
        raise EditRefusedError("This request was made by another site. Use the pages of this service.")


def _token() -> str:
    given = request.authorization
    if given is None:
        return ""
    return given.token or given.password or ""
