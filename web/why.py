"""Why an image was found: a page of heat maps over both pictures, and their part of the API.

Owns addresses and what a comparison says. Does not own how it is computed (`search.explaining`) nor its colours (`heatmaps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, Required

from flask import Blueprint, Response, jsonify, render_template, send_file, url_for

# Not typing's: pydantic reads that one only from Python 3.12 on.
from typing_extensions import TypedDict

import requested
from described import described
from errors import OptionError
from heatmaps import Heat, heat_png, placed
from requested import Fields, refuse_unknown, request_fields, wanted_likes, wanted_text, wanted_values
from search import Example, Explanation, Looked
from web.files import revalidated, version_of

pages = Blueprint("why_pages", __name__)
api = Blueprint("why_api", __name__, url_prefix="/api/v1")

MOST_PAIRS = 6
"""So many of the pictures that were searched with are compared on one page."""
LITTLE = 0.1
"""An agreement below this is said to be little."""
SIDES = ("image", "like")


# What a request asks for, and what is said of it.


class HeatFields(TypedDict, total=False):
    """What an image is compared with: one image of the collection or one kept upload."""

    like: Required[str]
    """An image id, or the key of a kept upload."""
    box: list[float]
    """The part of it that was searched with: left, top, right, bottom as shares from 0 to 1."""


class OverlayFields(HeatFields, total=False):
    """Which of the two pictures the overlay is for."""

    of: Literal["image", "like"]


class HeatOfPicture(TypedDict):
    """One picture's heat: rows from the top, each from the left; what speaks against the likeness is negative."""

    rows: list[list[float]]
    overlay_url: str
    """A transparent picture to be laid over the whole picture."""
    picture_url: str
    width: int
    height: int
    box: list[float] | None
    """The part that `rows` are of; None where it is the whole picture."""


class HeatAnswer(TypedDict):
    """Where two pictures agree."""

    image_id: int
    like: int | str
    agreement: float
    """The cosine of both at their small copies, without what all images of the collection have in common; each side's rows add
    up to it."""
    of_image: HeatOfPicture
    of_like: HeatOfPicture


@dataclass(frozen=True)
class Pair:
    """An image that was found, something it was searched with, and where they agree."""

    image_id: int
    like: Example
    explanation: Explanation

    @property
    def given(self) -> dict[str, Any]:
        """Return what an address says of what it was searched with."""
        box = self.like.box
        said: dict[str, Any] = {"like": self.like.source}
        return said if box is None else said | {"box": str(box)}

    def side(self, which: str) -> tuple[Looked, Heat]:
        example = Example(self.image_id) if which == "image" else self.like
        heat = self.explanation.image if which == "image" else self.explanation.like
        return requested.service().looked_at(example), heat


def _pair(image_id: str, like: Example) -> Pair:
    shown = requested.service().image(requested.image_id_of_path(image_id))
    return Pair(shown.image_id, like, requested.service().explain(shown.image_id, like))


def _one_pair(image_id: str, fields: Fields) -> Pair:
    named = wanted_values(fields, "like")
    if len(named) != 1:
        raise OptionError(f"{len(named)} pictures are named to compare with: name one, such as like=9.")
    likes = wanted_likes(fields)
    return _pair(image_id, likes[0])


# The API.


@api.get("/images/<image_id>/heatmap")
@described("images", HeatAnswer, query=HeatFields, problems=(400, 404, 409))
def heatmap(image_id: str) -> Response:
    """Say where an image and what it was found by agree."""
    fields = request_fields()
    refuse_unknown(fields, ("like", "box"), "a heat map")
    pair = _one_pair(image_id, fields)
    source = pair.like.source
    return jsonify(
        {
            "image_id": pair.image_id,
            "like": source,
            "agreement": round(pair.explanation.agreement, 6),
            "of_image": _side_json(pair, "image"),
            "of_like": _side_json(pair, "like"),
        }
    )


def _side_json(pair: Pair, which: str) -> HeatOfPicture:
    looked, heat = pair.side(which)
    width, height = looked.size
    return {
        "rows": [[round(value, 6) for value in row] for row in heat.tolist()],
        "overlay_url": _overlay_url(pair, which),
        "picture_url": _picture_url(pair, which),
        "width": width,
        "height": height,
        "box": None if looked.box is None else list(looked.box.edges),
    }


def _overlay_url(pair: Pair, which: str) -> str:
    return url_for("why_api.overlay", image_id=pair.image_id, of=which, **pair.given)


def _picture_url(pair: Pair, which: str) -> str:
    source = pair.image_id if which == "image" else pair.like.source
    if isinstance(source, str):
        return url_for("search.upload_thumbnail", key=source)
    return url_for("files.thumbnail", image_id=source)


@api.get("/images/<image_id>/heatmap.png")
@described("images", "image/png", query=OverlayFields, problems=(400, 404, 409))
def overlay(image_id: str) -> Response:
    """Send the heat map of one of the two pictures, to be laid over it."""
    fields = request_fields()
    refuse_unknown(fields, ("like", "box", "of"), "a heat map")
    which = wanted_text(fields, "of") or "image"
    if which not in SIDES:
        raise OptionError(f"of is {which[:40]!r}, but must be one of: {', '.join(SIDES)}.")
    pair = _one_pair(image_id, fields)
    looked, heat = pair.side(which)
    whole = heat if looked.box is None else placed(heat, looked.box.edges)
    content = heat_png(whole, pair.explanation.most, looked.size)
    return revalidated(send_file(BytesIO(content), mimetype="image/png", etag=version_of(content)))


# The page.


@dataclass(frozen=True)
class Side:
    """One picture of a comparison as a page shows it."""

    title: str
    alt: str
    picture_url: str
    overlay_url: str
    width: int
    height: int


@pages.get("/images/<image_id>/why")
def page(image_id: str) -> str:
    """Show an image beside each picture it was found by, both with the places where they agree."""
    fields = request_fields()
    likes = wanted_likes(fields, box_of_first=True)
    shown = requested.service().image(requested.image_id_of_path(image_id))
    pairs = [_pair(image_id, like) for like in likes[:MOST_PAIRS]]
    return render_template(
        "why.html",
        status=requested.service().status(),
        image=shown,
        pairs=[(pair, _sides(pair, shown.name)) for pair in pairs],
        left_out=len(likes) - len(pairs),
        little=LITTLE,
    )


def _sides(pair: Pair, name: str) -> Sequence[Side]:
    source = pair.like.source
    other = requested.service().image(source).name if isinstance(source, int) else "your picture"
    return [_side(pair, "like", "Searched with", other), _side(pair, "image", "Found", name)]


def _side(pair: Pair, which: str, title: str, name: str) -> Side:
    width, height = pair.side(which)[0].size
    return Side(title, name, _picture_url(pair, which), _overlay_url(pair, which), width, height)
