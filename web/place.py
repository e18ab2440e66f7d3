"""Where one image lies on the map, small: a picture of the whole map as dots, and the place of one of them.

Owns that picture, the same for all images of a generation. Does not own the map (`views/map.py`) or its page (`web/map.py`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from flask import Blueprint, Response, request, send_file
from PIL import Image

import requested
from errors import CollectionError
from store import Generation, Store
from views.map import Map, open_map
from web.files import revalidated, version_of
from web.map import TITLES

pages = Blueprint("place", __name__)

SIDE, SIDE_OF_FEW, FEW = 160, 80, 1_000
"""Pixels of the picture; pages show it larger, so fewer make larger dots."""
GREY = 128
FAINTEST = 120
"""Opacity of one dot alone, of 255."""


@dataclass(frozen=True)
class Place:
    """A place on the map: shares 0…1 of its width and height, from the upper left."""

    x: float
    y: float


def place_of(image_id: int) -> Place | None:
    """Return where an image lies on the map, None where there is none, or it is not on it."""
    try:
        drawn = requested.service().opened(open_map)
    except CollectionError:  # an image's page does not depend on the map
        return None
    place = int(np.searchsorted(drawn.ids, image_id))
    if place == len(drawn.ids) or drawn.ids[place] != image_id:
        return None
    x, y = drawn.layouts[_layout(drawn)][place].tolist()
    return Place(round(x, 4), round(y, 4))


def _layout(drawn: Map) -> str:
    return next(name for name in TITLES if name in drawn.layouts)


def _dots(store: Store, generation: Generation) -> bytes:
    """Return all images of the map as dots: a PNG of one grey, whose opacity says how many lie there."""
    drawn = open_map(store, generation)
    side = SIDE_OF_FEW if len(drawn.ids) < FEW else SIDE
    places = np.clip((drawn.layouts[_layout(drawn)] * side).astype(np.int64), 0, side - 1)
    counts = np.zeros((side, side))
    np.add.at(counts, (places[:, 1], places[:, 0]), 1)
    full = np.quantile(counts[counts > 0], 0.95)
    opacity = np.where(counts > 0, FAINTEST + (255 - FAINTEST) * np.minimum(1, counts / max(full, 1)), 0)
    picture = np.stack([np.full((side, side), GREY), opacity], axis=2).round().astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(picture, "LA").save(content, "PNG", optimize=True)
    return content.getvalue()


@pages.get("/map/dots.png")
def dots() -> Response:
    """Send the map as dots."""
    content = requested.service().opened(_dots)
    response = send_file(io.BytesIO(content), mimetype="image/png", etag=version_of(content))
    response.make_conditional(request)
    return revalidated(response)
