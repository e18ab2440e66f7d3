"""The search page: its form, the uploads that come by it, pages of what is like something or of what words and filters find.

Owns what every page that shows matches needs (`form`, `results`), and how a similarity is put in words. Does not own what a
search can ask (`requested.py`), its addresses (`web/asked.py`), answers (`api.py`), or the page of one image (`web/images.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import parse_qs

from flask import Blueprint, Response, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue

import api
import requested
from calibration import COPY
from indexes.distances import OF_SHARES
from search import ImageInfo, Match, SearchResult
from web.asked import METRIC_WORDS, Asked, conditions, in_words, shown_examples
from web.files import revalidated, version_of

pages = Blueprint("search", __name__)

K_CHOICES = (12, 24, 48, 96, 192)
STARTING_POINTS = 8

_ORDERS: Mapping[str, str] = {"kind": "same kind", "plain": "same picture"}
MEANINGS = (
    (0.999, "very alike", "of 1,000 random pairs of this collection, at most one is as alike"),
    (0.99, "alike", "at most one of 100"),
    (0.95, "similar", "at most one of 20"),
    (0.8, "little alike", "at most one of 5"),
    (0.0, "unlike", "more than that"),
)
"""From which share of random pairs that are less alike on a match is called what, and what that is in words."""
THE_SAME = "nearly the same"
LEAST_SHAPE, MOST_SHAPE, SHAPE_STEP = 70, 240, 5
"""Widths in hundredths of heights that `app.css` has a class for: rows are as high as their pictures are without a script."""


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


def results(answer: api.Answer, *, about: int | None = None) -> dict[str, object]:
    """Return what a page of results needs; `about` is the image whose page it is, which its address does not say again.

    `kept` is what the addresses of images say besides k.
    """
    query, status = answer.query, requested.service().status()
    is_usual = query.ranking in (None, requested.service().rankings[0])
    order: dict[str, object] = {} if is_usual else {"ranking": query.ranking}
    if query.metric != "cosine":
        order["metric"] = query.metric
    where = conditions(query.where)
    asked = Asked.of(requested.request_fields(), () if about is None else [str(about)])
    number = api.asked_page(query)
    return {
        "found": answer.found,
        "truncated": answer.truncated,
        "good_until": _good_until(answer.found),
        "where": [in_words({name: value}) for name, value in where.items()],
        "order": order,
        "kept": where | order,
        "asked": asked,
        "pager": _pager(number, answer.found.more),
        "meanings": MEANINGS,
        "status": status,
        **form(api.asked_k(query), answer.found.ranking),
        "metrics": {
            name: words
            for name, words in METRIC_WORDS.items()
            if name not in OF_SHARES or status.layer == "scores" or name == query.metric
        },
    }


@dataclass(frozen=True)
class Pager:
    """Which page this is, and the addresses of those beside it; None where there is none."""

    number: int
    before: str | None
    after: str | None
    count: int | None = None


def _pager(number: int, more: bool, count: int | None = None) -> Pager:
    """Return the pager of the page that is asked for: its address, but for the number."""

    def address(other: int) -> str:
        return url_for(
            str(request.endpoint), **{**request.args.to_dict(flat=False), **(request.view_args or {}), "page": other}
        )

    return Pager(number, address(number - 1) if number > 1 else None, address(number + 1) if more else None, count)


def _good_until(found: SearchResult) -> int | None:
    """Return after how many matches the last good one has come, in whatever order they are; None where that is not known."""
    if not found.good_matches:
        return found.good_matches
    similarities = [match.similarity for match in found.matches]
    least = sorted(similarities, reverse=True)[found.good_matches - 1]
    return max(place for place, similarity in enumerate(similarities, start=1) if similarity >= least)


@pages.app_template_filter("meaning")
def meaning(match: Match) -> str:
    """Say how alike a match is; "" where the collection has not measured what its similarities mean."""
    if match.closer_than is None:
        return ""
    if match.similarity >= COPY:
        return THE_SAME
    return next(word for share, word, _ in MEANINGS if match.closer_than >= share)


@pages.app_template_filter("shape")
def shape(image: ImageInfo, least: int = LEAST_SHAPE) -> str:
    """Return the class of `app.css` that has the shape of an image, or the nearest from `least` hundredths on."""
    hundredths = round(100 / SHAPE_STEP * image.thumbnail_width / image.thumbnail_height) * SHAPE_STEP
    return f"r{min(max(hundredths, least), MOST_SHAPE)}"


@pages.get("/")
def index() -> str:
    """Show the form, in one line what is searched, and some of its images to begin with."""
    service = requested.service()
    shown = service.some_images(STARTING_POINTS)
    return render_template("index.html", status=service.status(), some=shown, **form())


@pages.get("/search")
def found() -> ResponseReturnValue:
    """Show the images nearest to what the address names: images, kept uploads, or some of each; without them, what words and
    filters find. Of nothing, lead to the form.
    """
    fields = requested.request_fields()
    asked = Asked.of(fields)
    if any(value == "" for values in fields.values() for value in values):
        # A form sends its empty fields too: addresses that people share say what was asked and no more.
        return redirect(asked.address())
    if not asked.is_like_something:
        return _listed(fields, asked)
    answer = api.ask(fields, requested.wanted_likes(fields, box_of_first=True))
    likes = shown_examples(asked, "like", answer.query.like)
    return render_template(
        "results.html",
        likes=likes,
        unlikes=shown_examples(asked, "unlike", answer.query.unlike),
        labels=requested.service().labels(),
        left_out=len(answer.query.like) - len(likes),
        **results(answer),
    )


def _listed(fields: requested.Fields, asked: Asked) -> ResponseReturnValue:
    """Show the images that words and filters keep, in the order they came; of neither, lead to the form."""
    service, where = requested.service(), requested.wanted_where(fields)
    if where is None:
        return redirect(url_for(".index"))
    ids, k = service.listed(where), requested.wanted_k(fields)
    page = requested.wanted_page(fields, len(ids), k or requested.most_answered())
    known = service.images(ids[page.places].tolist())
    return render_template(
        "listed.html",
        status=service.status(),
        images=[known[image_id] for image_id in sorted(known)],
        count=len(ids),
        asked=asked,
        kept=conditions(where),
        labels=service.labels(),
        pager=_pager(page.number, page.number < page.count, page.count),
        **form(k or "all"),
    )


@pages.post("/search")
def take_uploads() -> ResponseReturnValue:
    """Look at the pictures that came, keep what may be kept of them, and lead to the address of their results.

    `also` is the search that they are added to, as its address says it.
    """
    fields = dict(requested.request_fields())
    requested.wanted_k(fields)
    keys = [
        requested.service().keep_upload(requested.content_of(file), requested.wanted_box(fields))
        for file in requested.wanted_uploads()
    ]
    also = requested.wanted_text(fields, "also")
    asked = Asked.of(fields if also is None else {**fields, **parse_qs(also)})
    box = asked.said.get("box") if also is not None else None  # else it was of the picture that came
    return redirect(asked.address(like=[*asked.said.get("like", ()), *keys], box=box), 303)


@pages.get("/uploads/<key>/thumbnail")
def upload_thumbnail(key: str) -> Response:
    """Send the small picture that is kept of an upload."""
    content = requested.service().kept_upload(key).thumbnail
    return revalidated(send_file(BytesIO(content), mimetype="image/jpeg", etag=version_of(content)))
