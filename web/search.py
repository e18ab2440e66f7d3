"""The search page: its form, the uploads that come by it, and a page of results.

Owns what every page that shows matches needs (`form`, `results`). Does not own what a search can ask (`requested.py`), answers
(`api.py`), or the page of one image (`web/images.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from typing import Any

from flask import Blueprint, Response, redirect, render_template, send_file, url_for
from flask.typing import ResponseReturnValue

import api
import requested
from search import Filter, SearchResult
from web.files import revalidated, version_of

pages = Blueprint("search", __name__)

K_CHOICES = (12, 24, 48, 96, 192)
STARTING_POINTS = 8

_ORDERS: Mapping[str, str] = {"kind": "same kind", "plain": "same picture"}
CONDITIONS: Mapping[str, str] = {
    "folder": "folder {}",
    "label": "label {}",
    "tag": "tagged {}",
    "looks_like": "looks like {}",
    "taken_from": "taken from {}",
    "taken_until": "until {}",
    "min_side": "at least {} pixels",
    "max_side": "at most {} pixels",
    "orientation": "{}",
}


def form(k: int | str | None = None, ranking: str | None = None) -> dict[str, object]:
    """Return what `_upload.html` and the choice of k need."""
    service = requested.service()
    settings = service.settings
    usual = min(settings.results, settings.max_results)
    choices = {choice for choice in K_CHOICES if choice <= settings.max_results} | {usual}
    return {
        "k": k or usual,
        "k_choices": sorted(choices | ({k} if isinstance(k, int) else set())),
        "orders": {name: _ORDERS[name] for name in service.rankings},
        "ranking": ranking,
        "upload_max_bytes": settings.upload_max_bytes,
        "upload_refusal": service.upload_refusal,
        "kept_minutes": settings.kept_minutes,
    }


def results(answer: api.Answer) -> dict[str, object]:
    """Return what a page of results needs. `kept` is what the addresses it leads to say besides k."""
    query = answer.query
    order = {} if query.ranking in (None, requested.service().rankings[0]) else {"ranking": query.ranking}
    where = conditions(query.where)
    return {
        "found": answer.found,
        "truncated": answer.truncated,
        "good_until": _good_until(answer.found),
        "where": [CONDITIONS[name].format(value) for name, value in where.items()],
        "order": order,
        "kept": where | order,
        "status": requested.service().status(),
        **form(api.asked_k(query), answer.found.ranking),
    }


def conditions(where: Filter | None) -> dict[str, object]:
    return {} if where is None else {name: value for name, value in asdict(where).items() if value is not None}


def _good_until(found: SearchResult) -> int | None:
    """Return after how many matches the last good one has come, in whatever order they are; None where that is not known."""
    if not found.good_matches:
        return found.good_matches
    similarities = [match.similarity for match in found.matches]
    least = sorted(similarities, reverse=True)[found.good_matches - 1]
    return max(place for place, similarity in enumerate(similarities, start=1) if similarity >= least)


@pages.get("/")
def index() -> str:
    """Show the form, in one line what is searched, and some of its images to begin with."""
    service = requested.service()
    shown = service.some_images(STARTING_POINTS)
    return render_template("index.html", status=service.status(), some=shown, **form())


@pages.get("/search")
def found() -> ResponseReturnValue:
    """Show the images nearest to what the address names: images, kept uploads, or some of each. Of nothing, lead to the form."""
    fields = requested.request_fields()
    if not fields.keys() & {"like", "image_id"}:
        return redirect(url_for(".index"))
    return render_template("results.html", **results(api.ask(fields)))


@pages.post("/search")
def take_uploads() -> ResponseReturnValue:
    """Look at the pictures that came, keep what may be kept of them, and lead to the address of their results."""
    fields = requested.request_fields()
    requested.wanted_k(fields)
    keys = [
        requested.service().keep_upload(requested.content_of(file), requested.wanted_box(fields))
        for file in requested.wanted_uploads()
    ]
    said: dict[str, Any] = {
        name: values for name, values in fields.items() if name in requested.SEARCH_FIELDS and name != "box"
    }
    return redirect(url_for(".found", **{**said, "like": [*fields.get("like", ()), *keys]}), 303)


@pages.get("/uploads/<key>/thumbnail")
def upload_thumbnail(key: str) -> Response:
    """Send the small picture that is kept of an upload."""
    content = requested.service().kept_upload(key).thumbnail
    return revalidated(send_file(BytesIO(content), mimetype="image/jpeg", etag=version_of(content)))
