"""The page of the collection as a whole: what it holds, how it is searched, what failed.

Owns what that page says. Does not own what is known (`search.about`); no path of the server is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, render_template

import requested
from errors import OptionError
from requested import request_fields, wanted_page, wanted_text
from search.about import about, failure_counts, failures

pages = Blueprint("collection_pages", __name__)

FAILURES_A_PAGE = 50
PAGES_OF_VIEWS: Mapping[str, tuple[str, str, str]] = {
    "groups": ("Groups", "groups_pages.index", "clusters.py"),
    "duplicates": ("Duplicates", "duplicates_pages.index", "duplicates.py"),
    "map": ("Map", "map_pages.index", "map2d.py"),
}
"""The title of each view, where it is shown, and the command that computes it."""


@pages.get("/collection")
def index() -> str:
    """Show what the collection is, and a page of the files that could not become images."""
    fields = request_fields()
    service = requested.service()
    store = service.ready().store
    reasons = failure_counts(store)
    code = wanted_text(fields, "code")
    if code is not None and code not in reasons:
        raise OptionError(f"No file failed for the reason {code[:40]!r}.")
    count = sum(reasons.values()) if code is None else reasons[code]
    page = wanted_page(fields, count, FAILURES_A_PAGE)
    return render_template(
        "collection.html",
        status=service.status(),
        about=about(service),
        views=PAGES_OF_VIEWS,
        reasons=reasons,
        code=code,
        failures=failures(store, page.places, code),
        page=page,
        kept={} if code is None else {"code": code},
    )
