"""The pages of the groups of the collection, and their part of the API.

Owns addresses, what a card says of a group, and who may name one (`guard.check_may_edit`). Does not own groups or their names
(`views.groups`, `store`). A group's address is that of any image in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

import guard
import requested
from api import image_json
from described import described
from errors import CollectionError, OptionError
from publishing import view_of
from requested import (
    Fields,
    Page,
    refuse_unknown,
    request_fields,
    wanted_count,
    wanted_number,
    wanted_page,
    wanted_text,
)
from search import ImageInfo
from store import forget_group, name_group
from views.groups import Group, GroupList, Groups, NamedElsewhere, Order, open_groups
from web import shapes

pages = Blueprint("groups_pages", __name__)
api = Blueprint("groups_api", __name__, url_prefix="/api/v1")

GROUPS_A_PAGE = 24
IMAGES_A_PAGE = 96
IMAGES_A_CARD = 5
LEAST_SHARE = 0.05
"""Labels of fewer of a group's images are not named."""
NEAREST_GROUPS = 6
SORTS: Mapping[str, str] = {"size": "largest", "time": "earliest"}
LIST_FIELDS = ("sim", "min_size", "sort", "page")
GROUP_FIELDS = ("sim", "page")
NAME_FIELDS = ("sim", "name")


# What is asked for.


@dataclass(frozen=True)
class _Asked:
    """Which groups a request asks for. `kept` is what an address has to say to ask for them again."""

    groups: Groups
    shown: GroupList
    min_size: int
    sort: str
    kept: dict[str, Any]

    @property
    def sim(self) -> float:
        return self.shown.sim


def _asked(fields: Fields) -> _Asked:
    groups = requested.service().opened(open_groups)
    sim, sort = wanted_number(fields, "sim"), wanted_text(fields, "sort")
    min_size = wanted_count(fields, "min_size", groups.min_size)
    shown = groups.at(sim, min_size, order=cast(Order, sort or "size"))
    kept: dict[str, Any] = {} if shown.sim == groups.sim else {"sim": f"{shown.sim:.8g}"}
    if min_size != groups.min_size:
        kept["min_size"] = min_size
    if sort not in (None, "size"):
        kept["sort"] = sort
    return _Asked(groups, shown, min_size, sort or "size", kept)


# What is shown.


@dataclass(frozen=True)
class Card:
    """A group as it is shown: what it is called, its labels and their shares ("" is all), in words, and its first images.

    `detail` is the labels where they say more than the title.
    """

    group: Group
    title: str
    is_named: bool
    labels: list[tuple[str, str]]
    detail: str
    when: str
    images: list[ImageInfo]


def _cards(groups: Sequence[Group]) -> list[Card]:
    wanted = [image_id for group in groups for image_id in group.image_ids[:IMAGES_A_CARD].tolist()]
    infos = requested.service().images(wanted)
    return [_card(group, infos) for group in groups]


def titles(groups: Sequence[Group]) -> list[str]:
    """Return what each group is called, wherever it is shown: as a person named it, else by what most of it is."""
    return [card.title for card in _cards(groups)]


def _card(group: Group, infos: Mapping[int, ImageInfo]) -> Card:
    images = [infos[i] for i in group.image_ids[:IMAGES_A_CARD].tolist() if i in infos]
    title = group.name or _looks(group, images)
    labels = [(label, _percent(share)) for label, share in group.labels if share >= LEAST_SHARE]
    says_more = [label for label, _ in labels] != [title]
    detail = " · ".join(f"{label} {share}".rstrip() for label, share in labels) if says_more else ""
    return Card(group, title, group.name is not None, labels, detail, _span(group), images)


def _images(group: Group, page: Page) -> list[ImageInfo]:
    """Return a page of the images of a group, in its order; what has left the collection since is missing."""
    wanted = group.image_ids[page.places].tolist()
    infos = requested.service().images(wanted)
    return [infos[image_id] for image_id in wanted if image_id in infos]


def _looks(group: Group, images: Sequence[ImageInfo]) -> str:
    """Return a title for a group without a name: the label of most images, else what the network sees in most of the first."""
    if group.labels and group.labels[0][1] > 0.5:
        return group.labels[0][0]
    seen = Counter(image.predicted_labels[0][0] for image in images if image.predicted_labels)
    best, count = seen.most_common(1)[0] if seen else ("", 0)
    if 2 * count > len(images):
        return "Looks like " + best.partition(",")[0]
    if group.labels:
        return group.labels[0][0]
    return "Alone" if group.size == 1 else f"{group.size:,} alike"


def _percent(share: float) -> str:
    return f"{min(round(share * 100), 99)}%" if share < 1 else ""


def _span(group: Group) -> str:
    if group.taken_from is None or group.taken_until is None:
        return ""
    first, last = group.taken_from[:10], group.taken_until[:10]
    return first if first == last else f"{first} – {last}"


@pages.get("/groups")
def index() -> str:
    """Show the groups of the collection, a page of them."""
    fields = request_fields()
    asked = _asked(fields)
    page = wanted_page(fields, len(asked.shown), GROUPS_A_PAGE)
    return render_template(
        "groups.html",
        status=requested.service().status(),
        asked=asked,
        sorts=SORTS,
        page=page,
        cards=_cards(asked.shown[page.places]),
    )


@pages.get("/groups/<image_id>")
def group(image_id: str) -> str:
    """Show the group that holds an image: all its images, a page of them."""
    fields = request_fields()
    asked = _asked(fields)
    found = asked.groups.group_of(requested.image_id_of_path(image_id), asked.sim)
    page = wanted_page(fields, found.size, IMAGES_A_PAGE)
    return render_template(
        "group.html",
        status=requested.service().status(),
        asked=asked,
        card=_cards([found])[0],
        page=page,
        images=_images(found, page),
        nearest=_cards(asked.groups.nearest_groups(found, asked.sim, NEAREST_GROUPS)),
        may_edit=guard.may_edit(),
        has_map=view_of(requested.service().ready().generation, "map") is not None,
    )


@pages.post("/groups/<image_id>")
def name(image_id: str) -> ResponseReturnValue:
    """Name a group, or take its name away where an empty one comes, and lead back to it."""
    guard.check_may_edit()
    asked, found = _named(image_id, request_fields())
    return redirect(url_for(".group", image_id=found.central_id, **asked.kept), 303)


def _named(image_id: str, fields: Fields, *, forget: bool = False) -> tuple[_Asked, Group]:
    """Give the name in `fields` to the group that holds an image, or take it away; return what was asked for, and the group."""
    asked = _asked(fields)
    number = requested.image_id_of_path(image_id)
    found = asked.groups.group_of(number, asked.sim)
    folder, text = requested.service().settings.rsc_files, wanted_text(fields, "name")
    if text is not None and not forget:
        name_group(folder, text, found.image_ids.tolist(), group_id=found.group_id)
    elif found.group_id is not None:
        forget_group(folder, found.group_id)
    return asked, asked.groups.group_of(number, asked.sim)


def members(fields: Fields) -> list[int]:
    """Return the ids of the images of the group that holds the image in the field `group`, where groups are cut at `sim`."""
    asked, number = _asked(fields), requested.image_id_of_path(wanted_text(fields, "group") or "")
    return cast(list[int], asked.groups.group_of(number, asked.sim).image_ids.tolist())


def group_of_image(image_id: int) -> Group | None:
    """Return the group of an image as it is published, or None where there are no groups or the image is in none."""
    try:
        return requested.service().opened(open_groups).group_of(image_id)
    except CollectionError:  # an image's page does not depend on groups
        return None


# The API.


@api.get("/groups")
@described("groups", shapes.GroupListAnswer, query=shapes.GroupListFields, problems=(400, 404))
def index_json() -> Response:
    """Describe the groups, a page of them."""
    fields = request_fields()
    refuse_unknown(fields, LIST_FIELDS, "a list of groups")
    asked = _asked(fields)
    page = wanted_page(fields, len(asked.shown), GROUPS_A_PAGE)
    shown = asked.shown
    return jsonify(
        {
            **_cut_json(asked),
            "min_size": asked.min_size,
            "sort": asked.sort,
            "groups": len(shown),
            "grouped_images": shown.grouped,
            "images_alone": shown.alone,
            "images_not_grouped_yet": asked.groups.new,
            "named_elsewhere": [_elsewhere_json(named) for named in shown.named_elsewhere],
            **_page_json(page),
            "results": [_group_json(card, asked) for card in _cards(shown[page.places])],
        }
    )


@api.get("/groups/<image_id>")
@described("groups", shapes.GroupAnswer, query=shapes.GroupFields, problems=(400, 404))
def group_json(image_id: str) -> Response:
    """Describe the group that holds an image, with all its image ids and a page of its images."""
    fields = request_fields()
    refuse_unknown(fields, GROUP_FIELDS, "a group")
    asked = _asked(fields)
    found = asked.groups.group_of(requested.image_id_of_path(image_id), asked.sim)
    page = wanted_page(fields, found.size, IMAGES_A_PAGE)
    return jsonify(
        {
            **_cut_json(asked),
            **_group_json(_cards([found])[0], asked),
            "image_ids": found.image_ids.tolist(),
            **_page_json(page),
            "images": [image_json(info) for info in _images(found, page)],
        }
    )


@api.route("/groups/<image_id>/name", methods=["POST", "DELETE"])
@described("groups", shapes.GroupNameAnswer, body=shapes.GroupNameFields, problems=(400, 403, 404))
def name_json(image_id: str) -> Response:
    """Name the group that holds an image, or take its name away; describe it."""
    guard.check_may_edit()
    fields = request_fields()
    refuse_unknown(fields, NAME_FIELDS, "the name of a group")
    if request.method == "POST" and wanted_text(fields, "name") is None:
        raise OptionError('Say how the group is called: {"name": "Paris"}. DELETE takes a name away.')
    asked, found = _named(image_id, fields, forget=request.method == "DELETE")
    return jsonify({**_cut_json(asked), **_group_json(_cards([found])[0], asked)})


def _elsewhere_json(named: NamedElsewhere) -> dict[str, Any]:
    url = None if named.sim is None else url_for("groups_pages.group", image_id=named.image_id, sim=named.sim)
    return {"name": named.name, "images": named.images, "sim": named.sim, "page_url": url}


def _cut_json(asked: _Asked) -> dict[str, Any]:
    report = asked.groups.view.report
    return {"sim": asked.sim, "proposed_sim": report["proposed_sim"], "method": report["how"]}


def _page_json(page: Page) -> dict[str, int]:
    return {"page": page.number, "pages": page.count}


def _group_json(card: Card, asked: _Asked) -> dict[str, Any]:
    found = card.group
    kept = {name: value for name, value in asked.kept.items() if name == "sim"}
    return {
        "image_id": found.central_id,
        "size": found.size,
        "name": found.name,
        "title": card.title,
        "labels": [{"name": label, "share": round(share, 4)} for label, share in found.labels],
        "taken_from": found.taken_from,
        "taken_until": found.taken_until,
        "central": image_json(card.images[0]) if card.images else None,
        "url": url_for("groups_api.group_json", image_id=found.central_id, **kept),
        "page_url": url_for("groups_pages.group", image_id=found.central_id, **kept),
    }
