"""Tags: given to a selection or to one image, taken away again, counted. Does not own how they are kept (`store`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flask import Blueprint, Response, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue

import guard
import requested
from described import described
from errors import ImageNotFoundError, OptionError, RequestError
from store import tag_counts, tag_images, untag_images
from web import shapes

pages = Blueprint("tags_pages", __name__)
api = Blueprint("tags_api", __name__, url_prefix="/api/v1")


@pages.post("/images/<image_id>/tags")
def change(image_id: str) -> ResponseReturnValue:
    """Give one image the tag in the field `tag`, or take the one in `remove` away, and lead back to its page."""
    guard.check_may_edit()
    number, folder = requested.service().image(requested.image_id_of_path(image_id)).image_id, _folder()
    fields = requested.request_fields()
    removed = requested.wanted_text(fields, "remove")
    if removed is not None:
        untag_images(folder, removed, [number])
    else:
        tag_images(folder, requested.wanted_text(fields, "tag") or "", [number])
    return redirect(url_for("images.image", image_id=number), 303)


@api.get("/tags")
@described("tags", shapes.TagCounts)
def counts() -> Response:
    """Answer with every tag and how many images have it."""
    return jsonify({"tags": tag_counts(requested.service().ready().store)})


@api.route("/tags", methods=["POST", "DELETE"])
@described("tags", shapes.TagAnswer, body=shapes.TagFields, problems=(400, 403, 404))
def tag() -> Response:
    """Give a tag to the selected images, or take it from them."""
    guard.check_may_edit()
    fields = requested.request_fields()
    name, ids = next(iter(fields.get("tag", ())), ""), selected_ids(fields)
    if not isinstance(name, str):
        raise RequestError(f"tag is {str(name)[:40]!r}, but must be text.")
    (tag_images if request.method == "POST" else untag_images)(_folder(), name, ids)
    return jsonify({"tag": " ".join(name.split()), "image_ids": ids})


def selected_ids(fields: requested.Fields) -> list[int]:
    """Return those of the field `image_ids` that are in the collection now, ascending, each once.

    Raises `OptionError` for none, `RequestError` for what is no id, `ImageNotFoundError` where all of them are gone.
    """
    ids = [requested.wanted_image_id(raw, "image_ids") for raw in fields.get("image_ids", ())]
    if not ids:
        raise OptionError("No picture is selected. Choose some, and try again.")
    there = np.intersect1d(np.array(ids, dtype=np.int64), requested.service().ready().snapshot.ids)
    if not len(there):
        raise ImageNotFoundError("None of the selected pictures is in the collection any more. Load the page again.")
    return [int(image_id) for image_id in there]


def _folder() -> Path:
    return requested.service().settings.rsc_files
