"""The collection as lists of the API: its images, labels, neighbours as a graph, and what it is.

Owns how much one answer may hold. Does not own searches (`api.py`) or what filters mean (`store`); has no pages of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, cast

import numpy as np
from flask import Blueprint, Response, jsonify

import requested
import shapes
from api import image_json
from described import described
from errors import ImageNotFoundError, OptionError
from requested import (
    FILTER_FIELDS,
    Fields,
    most_answered,
    refuse_unknown,
    request_fields,
    wanted_count,
    wanted_image_id,
    wanted_number,
    wanted_page,
    wanted_text,
    wanted_values,
    wanted_where,
)
from search.about import about, failure_counts
from search.loaded import Loaded
from store.shelves import Shelf, given_shelves, open_label_shelves
from vectors import Ids
from web import browse

api = Blueprint("lists_api", __name__, url_prefix="/api/v1")

MOST_SOURCES = 500
MOST_EDGES = 10_000
"""An edge takes some 80 bytes: an answer stays below a megabyte."""
USUAL_NEIGHBOURS = 5
LIST_FIELDS = (*FILTER_FIELDS, "k", "page")
GRAPH_FIELDS = (*FILTER_FIELDS, "image_id", "k", "radius", "among")


@api.get("/images")
@described("images", shapes.ImageList, query=shapes.ListFields, problems=(400,))
def images() -> Response:
    """List the images of the collection, or those that meet the conditions, a page of them."""
    fields, service = request_fields(), requested.service()
    refuse_unknown(fields, LIST_FIELDS, "a list of images")
    ids = service.listed(wanted_where(fields))
    page = wanted_page(fields, len(ids), _wanted_size(fields))
    known = service.images(ids[page.places].tolist())
    answer: shapes.ImageList = {
        "images": len(ids),
        "page": page.number,
        "pages": page.count,
        "results": [image_json(known[image_id]) for image_id in sorted(known)],
    }
    return jsonify(answer)


def _wanted_size(fields: Fields) -> int:
    size = wanted_count(fields, "k", min(requested.service().settings.results, most_answered()))
    if size > most_answered():
        raise OptionError(f"k is {size:,}, but a page has at most {most_answered():,} images.")
    return size


@api.get("/labels")
@described("collection", shapes.LabelsAnswer)
def labels() -> Response:
    """Count the labels of images, those of them that people gave, and what the network is fairly sure to have seen."""
    service = requested.service()
    answer: shapes.LabelsAnswer = {
        "given": _counts(service.opened(open_label_shelves).now()),
        "by_people": _counts(given_shelves(service.ready().store)),
        "seen": _counts(service.opened(browse.seen)),
    }
    return jsonify(answer)


def _counts(shelves: Sequence[Shelf]) -> list[shapes.LabelCount]:
    shelves = sorted(shelves, key=lambda shelf: -shelf.count)
    return [{"name": shelf.name, "images": shelf.count} for shelf in shelves]


@api.get("/collection")
@described("collection", shapes.CollectionAnswer)
def collection() -> Response:
    """Describe the collection: its images, the network that looked at them, its index, its views, its size on disk."""
    service = requested.service()
    status, known = service.status(), about(service)
    answer: dict[str, object] = {
        **asdict(status),
        "projection": known.projection,
        "created_at": known.created_at,
        "counts": asdict(known.counts),
        "failures": failure_counts(service.ready().store),
        "views": [asdict(view) for view in known.views.values() if view is not None],
        "last_run": known.last_run,
        "disk": known.disk,
    }
    return jsonify(answer)


@api.route("/graph", methods=["GET", "POST"])
@described("collection", shapes.GraphAnswer, query=shapes.GraphFields, problems=(400, 404))
def graph() -> Response:
    """Answer with the nearest neighbours of the images named, or of those that meet the conditions, as edges."""
    fields, service = request_fields(), requested.service()
    refuse_unknown(fields, GRAPH_FIELDS, "a graph")
    k, radius = wanted_count(fields, "k", USUAL_NEIGHBOURS), wanted_number(fields, "radius")
    if k > most_answered():
        raise OptionError(f"k is {k:,}, but an image has at most {most_answered():,} neighbours in a graph.")
    among = wanted_text(fields, "among") or "all"
    if among not in ("all", "selection"):
        raise OptionError(f"among is {among[:40]!r}, but must be all or selection.")
    asked = _asked_about(fields)
    sources = asked[: min(MOST_SOURCES, MOST_EDGES // k)]
    edges = _edges(service.ready(), sources, k, radius, allowed=sources if among == "selection" else None)
    ends = sorted({*sources.tolist(), *(edge["destination"] for edge in edges)})
    known = service.images(ends)
    answer: shapes.GraphAnswer = {
        "k": k,
        "radius": radius,
        "among": cast(Literal["all", "selection"], among),
        "truncated": len(sources) < len(asked),
        "nodes": [{"image_id": i, "name": info.name, "label": info.label} for i, info in sorted(known.items())],
        "edges": [edge for edge in edges if edge["source"] in known and edge["destination"] in known],
    }
    return jsonify(answer)


def _asked_about(fields: Fields) -> Ids:
    """Return the ids whose neighbours are asked for, ascending. Raises `ImageNotFoundError` for one that is not there."""
    service = requested.service()
    there = service.listed(wanted_where(fields))
    ids = wanted_values(fields, "image_id")
    if not ids:
        return there
    named = {wanted_image_id(raw) for raw in ids[: MOST_SOURCES + 1]}
    gone = sorted(named - service.images(named).keys())
    if gone:
        raise ImageNotFoundError(f"There is no image {gone[0]}.")
    return np.intersect1d(np.array(sorted(named), dtype=np.int64), there, assume_unique=True)


def _edges(loaded: Loaded, sources: Ids, k: int, radius: float | None, *, allowed: Ids | None) -> list[shapes.Edge]:
    # A newer generation may have come since they were listed.
    sources = np.intersect1d(sources, loaded.snapshot.ids, assume_unique=True)
    vectors = loaded.snapshot.take(np.searchsorted(loaded.snapshot.ids, sources))
    found = loaded.index.query(vectors, k + 1, radius=radius, allowed=allowed).without(sources, k)
    return [
        {"source": source, "destination": other, "distance": round(distance, 6), "rank": rank}
        for number, source in enumerate(sources.tolist())
        for rank, (other, distance) in enumerate(found.of(number), start=1)
    ]
