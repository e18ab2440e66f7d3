"""The page of one image: what is known of it, and its nearest images.

Owns among which images that page can search, and what it shows of the camera. Does not own its group, its copies or its place on
the map, nor how images are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, render_template

import api
import guard
import requested
import web.duplicates
import web.groups
import web.place
from errors import ImageError
from images import Camera, Limits, read_camera
from search import Example, Filter, ImageInfo
from web.asked import conditions, in_words, original_path
from web.search import results

pages = Blueprint("images", __name__)

MOST_COPIES = 8


@dataclass(frozen=True)
class Choice:
    """One of several searches that a page leads to: what it is called, and what its address says."""

    text: str
    given: Mapping[str, object]
    chosen: bool


def _among(shown: ImageInfo, where: Filter | None) -> list[Choice]:
    """Return among which images the page of one image can search: all, those of its folder, label or tags, the chosen ones."""
    now = conditions(where)
    offered: list[dict[str, object]] = [{}]
    if shown.folder:
        offered.append({"folder": shown.folder})
    if shown.label and shown.label != shown.folder:
        offered.append({"label": shown.label})
    offered += [{"tag": tag} for tag in shown.tags]
    if now not in offered:
        offered.append(now)
    texts = [in_words(given) for given in offered]
    return [Choice(text or "all", given, given == now) for text, given in zip(texts, offered, strict=True)]


def _camera(path: bytes) -> Camera | None:
    """Return what took the photograph, read from its file now; None where it does not say, or cannot be read."""
    settings = requested.service().settings
    try:
        with open(path, "rb") as file:
            return read_camera(file, Limits(settings.max_bytes, settings.max_pixels, settings.max_frames))
    except (ImageError, OSError):  # the page does not depend on it
        return None


@pages.get("/images/<image_id>")
def image(image_id: str) -> str:
    """Show one image of the catalog, what is known of it, and its nearest images."""
    fields = requested.request_fields()
    shown = requested.service().image(requested.image_id_of_path(image_id))
    box = requested.wanted_box(fields)
    answer = api.ask(fields, (Example(shown.image_id, box),))
    path = original_path(shown.image_id)
    return render_template(
        "image.html",
        image=shown,
        group=web.groups.group_of_image(shown.image_id),
        copies=web.duplicates.copies_of(shown.image_id),
        most_copies=MOST_COPIES,
        place=web.place.place_of(shown.image_id),
        has_original=path is not None,
        camera=None if path is None else _camera(path),
        may_edit=guard.may_edit(),
        label_is_given=requested.service().is_label_given(shown.image_id),
        box=box,
        box_text=None if box is None else str(box),
        among=_among(shown, answer.query.where),
        **results(answer, about=shown.image_id),
    )
