"""Labels that people give in the pages: given to a selection, taken away, renamed; and what the collection can learn from them.

Owns addresses, the page `/labels`, and who may do it (`guard.py`). Does not own how labels are kept (`store`), nor what is learnt
(`reducing`). A label that nobody gave is the name of the image's folder; nothing here is learnt from those.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs

from flask import Blueprint, Response, jsonify, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

import guard
import requested
import web.groups
from described import described
from errors import OptionError
from reducing import LearnedProjection, forget_projection, learn_projection, learned_projection
from requested import Fields, refuse_unknown, request_fields, wanted_page, wanted_text
from search import ImageInfo
from search.changing import as_published
from store import (
    Generation,
    Store,
    check_label,
    given_labels,
    label_images,
    labelled_pictures,
    rename_label,
    unlabel_images,
)
from store.shelves import Shelf, given_shelves
from web import shapes
from web.asked import Asked
from web.signing import asked_address, local_address
from web.tags import selected_ids

pages = Blueprint("labels_pages", __name__)
api = Blueprint("labels_api", __name__, url_prefix="/api/v1")

CARDS_A_PAGE = 60
LEAST_IMAGES = 2
"""A label that fewer images have teaches nothing."""
LEAST_LABELS = 2


# Giving and taking.


@pages.app_context_processor
def _offered() -> dict[str, object]:
    return {
        "may_label": guard.may_edit(),
        "known_labels": lambda: requested.service().labels(),
        "images_of": _images_of,
        "this_address": asked_address,
    }


def _images_of(asked: Asked, name: str) -> list[str]:
    """Return the ids of images among what is searched with: pictures that were sent are not in the collection."""
    return [value for value in asked.said.get(name, ()) if value.isdecimal()]


@pages.post("/labels/give")
def give() -> ResponseReturnValue:
    """Label the images of a form, and lead back to its page.

    `as` is for those in `image_ids`, those marked as `like`, or all of the group in `group`; `other_as`, which may be empty,
    for those in `other_ids` or marked as `unlike`. What was searched with (`searched`) is no mark. `take` takes labels away.
    """
    guard.check_may_edit()
    fields = request_fields()
    chosen, others = _chosen(fields, "image_ids", "like"), _chosen(fields, "other_ids", "unlike")
    if "take" in fields:
        unlabel_images(_folder(), selected_ids({"image_ids": chosen}))
    else:
        _label(fields, chosen, others)
    return redirect(local_address(wanted_text(fields, "next")), 303)


def _label(fields: Fields, chosen: Sequence[object], others: Sequence[object]) -> None:
    name, other = wanted_text(fields, "as") or "", wanted_text(fields, "other_as") or ""
    wanted = [(check_label(label), ids) for label, ids in ((name, chosen), (other, others)) if label]
    if not wanted:
        check_label(name)  # raises: none was written
    for label, ids in wanted:
        label_images(_folder(), label, selected_ids({"image_ids": ids}))


def _chosen(fields: Fields, ids: str, marks: str) -> list[object]:
    """Return the ids that a form names in `ids`, and those newly marked in `marks`; pictures that were sent are no images."""
    searched = parse_qs(wanted_text(fields, "searched") or "")
    marked = [raw for raw in fields.get(marks, ()) if str(raw).isdecimal() and raw not in searched.get(marks, ())]
    group = wanted_text(fields, "group") if ids == "image_ids" else None
    of_group = [] if group is None else web.groups.members(fields)
    return [*fields.get(ids, ()), *marked, *of_group]


@pages.post("/labels/rename")
def rename() -> ResponseReturnValue:
    """Give the label in `label` the name in `name`, or take it from all its images (`remove`), and lead back to the labels."""
    guard.check_may_edit()
    fields = request_fields()
    label = wanted_text(fields, "label") or ""
    ids = [image_id for image_id, given in given_labels(_store()).items() if given == label]
    if not ids:
        raise OptionError(f"Nobody has given the label {label[:100]!r} any more. Load the page again.")
    if "remove" in fields:
        unlabel_images(_folder(), ids)
    else:
        rename_label(_folder(), label, wanted_text(fields, "name") or "")
    return redirect(url_for(".index"), 303)


@pages.get("/labels.csv")
def table() -> Response:
    """Send the given labels as `finetune.py --labels` reads them: to those who may edit, since they name files of the server."""
    guard.check_may_edit()
    given = given_labels(_store())
    records = _store().records(given)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("path", "label"))
    rows.writerows((os.fsdecode(record.path), given[image_id]) for image_id, record in sorted(records.items()))
    content = text.getvalue().encode("utf-8", "surrogateescape")
    response = Response(content, content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="labels.csv"'
    return response


# The page.


@dataclass(frozen=True)
class Card:
    """A label that people gave, how many images they gave it to, and a few of these."""

    name: str
    count: int
    images: list[ImageInfo]


@dataclass(frozen=True)
class Lesson:
    """What can be learnt: `classes` are the labels of two or more different pictures, with how many; `single` those of one."""

    classes: Mapping[str, int]
    single: tuple[str, ...]

    @classmethod
    def of(cls, pictures: Mapping[str, int]) -> Lesson:
        """Return what labels teach, by how many `pictures` have each."""
        classes = {label: count for label, count in pictures.items() if count >= LEAST_IMAGES}
        return cls(classes, tuple(label for label in pictures if label not in classes))

    @property
    def pictures(self) -> int:
        """How many it would be learnt from."""
        return sum(self.classes.values())

    @property
    def is_enough(self) -> bool:
        """Tell whether there is something to tell apart."""
        return len(self.classes) >= LEAST_LABELS


@pages.get("/labels")
def index() -> str:
    """Show the labels that people gave, a page of them, and what was learnt or can be."""
    service = requested.service()
    status, store = service.status(), _store()
    shelves = sorted(given_shelves(store), key=lambda shelf: (-shelf.count, shelf.name))
    page = wanted_page(request_fields(), len(shelves), CARDS_A_PAGE)
    return render_template(
        "labels.html",
        status=status,
        cards=_cards(shelves[page.places]),
        page=page,
        shelves=len(shelves),
        labelled=sum(shelf.count for shelf in shelves),
        lesson=Lesson.of(labelled_pictures(store)),
        least=(LEAST_LABELS, LEAST_IMAGES),
        learned=service.opened(_learned),
    )


def _learned(store: Store, generation: Generation) -> LearnedProjection | None:
    return learned_projection(generation)


def _cards(shelves: Sequence[Shelf]) -> list[Card]:
    infos = requested.service().images({image_id for shelf in shelves for image_id in shelf.image_ids})
    return [
        Card(shelf.name, shelf.count, [infos[image_id] for image_id in shelf.image_ids if image_id in infos])
        for shelf in shelves
    ]


# Learning.


@pages.post("/labels/learn")
def learn() -> ResponseReturnValue:
    """Learn from the given labels, and lead to what came of it."""
    _learn()
    return redirect(url_for(".index", _anchor="learned"), 303)


@pages.post("/labels/forget")
def forget() -> ResponseReturnValue:
    """Go back to the network's own vectors."""
    _forget()
    return redirect(url_for(".index", _anchor="learn"), 303)


def _learn() -> LearnedProjection:
    guard.check_may_edit()
    service = requested.service()
    settings = as_published(service.settings, service.ready().generation)
    learned = learn_projection(settings, given_labels(_store()), command="the service, learning from labels")
    service.refresh()
    return learned


def _forget() -> None:
    guard.check_may_edit()
    service = requested.service()
    settings = as_published(service.settings, service.ready().generation)
    forget_projection(settings, command="the service, going back to the network's own vectors")
    service.refresh()


# The API.


@api.post("/labels")
@described("labels", shapes.LabelAnswer, body=shapes.LabelFields, problems=(400, 403, 404))
def give_json() -> Response:
    """Give the selected images a label, in place of the one that each has."""
    guard.check_may_edit()
    fields = request_fields()
    refuse_unknown(fields, ("label", "image_ids"), "giving a label")
    label, ids = check_label(wanted_text(fields, "label") or ""), selected_ids(fields)
    label_images(_folder(), label, ids)
    return jsonify(shapes.LabelAnswer(label=label, image_ids=ids))


@api.delete("/labels")
@described("labels", shapes.UnlabelAnswer, body=shapes.Selection, problems=(400, 403, 404))
def take_json() -> Response:
    """Take the labels that people gave from the selected images; each has its folder's name again."""
    guard.check_may_edit()
    fields = request_fields()
    refuse_unknown(fields, ("image_ids",), "taking labels away")
    ids = selected_ids(fields)
    return jsonify(shapes.UnlabelAnswer(taken=unlabel_images(_folder(), ids), image_ids=ids))


@api.post("/jobs/learn")
@described("jobs", shapes.LearnedAnswer, problems=(400, 403, 409))
def learn_json() -> Response:
    """Learn from the labels that people gave, so that the collection is searched by what they tell apart; no vector is lost."""
    refuse_unknown(request_fields(), (), "learning")
    told = asdict(replace(_learn(), generation={}))
    del told["generation"]
    return jsonify(told)


@api.post("/jobs/forget")
@described("jobs", shapes.ForgottenAnswer, problems=(403, 409))
def forget_json() -> Response:
    """Search by the network's own vectors again; the labels stay."""
    refuse_unknown(request_fields(), (), "going back")
    _forget()
    return jsonify(shapes.ForgottenAnswer(reducer=None))


def _folder() -> Path:
    return requested.service().settings.rsc_files


def _store() -> Store:
    return requested.service().ready().store
