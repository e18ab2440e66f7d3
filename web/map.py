"""The page of the map, and its part of the API: its points, its atlases, and what is selected on it.

Owns addresses and shapes of answers. Does not own where pictures stand (`views/map.py`), the file of points (`map_table`) or
drawing (`static/map/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from flask import Blueprint, Response, jsonify, make_response, render_template, request, send_file, url_for

import guard
import requested
from api import image_json
from atlases import Atlases, open_atlases
from described import described
from errors import ImageNotFoundError, OptionError, ViewMissingError
from publishing import is_by_another_projection, view_of
from search import Example, Filter, Query
from store import Generation, NamedGroup, Record, Store, given_labels, named_groups, tag_counts, tagged_images
from views.duplicates import open_duplicates
from views.groups import Groups, open_groups
from views.map import Map, open_map
from web import shapes
from web.groups import titles
from web.map_picture import map_picture
from web.map_table import Ids, PointTable, point_table
from web.tags import selected_ids

TITLES: Mapping[str, str] = {"tsne": "By likeness", "umap": "By likeness (UMAP)", "grid": "Grid", "date": "By date"}
"""What the layouts are called, in the order in which the page offers them."""

MOST_SPOTS = 48
LEAST_SPOT = 5
"""A spot to jump to has at least so many pictures."""

MOST_WORDS = 200
"""Labels that the field to find by offers."""

MOST_SOUGHT = 100
MOST_PAIRS = 500
MORE = 24
MOST_LEFT_OUT = 2_000
"""So many selected pictures are passed over in a search for more like them."""

pages = Blueprint("map_pages", __name__)
api = Blueprint("map_api", __name__, url_prefix="/api/v1")


@dataclass(frozen=True)
class Opened:
    """The map of a generation, and what its page needs besides: `names` of files for the search, in small letters."""

    map: Map
    atlases: Atlases | None
    table: PointTable
    labels: list[str | None]
    names: list[str]

    def places(self, image_ids: Iterable[int]) -> Ids:
        """Return the places of images among the points, int64, without those that are not on the map."""
        wanted = np.unique(np.fromiter(image_ids, dtype=np.int64))
        places = np.minimum(np.searchsorted(self.map.ids, wanted), len(self.map.ids) - 1)
        found: Ids = places[self.map.ids[places] == wanted]
        return found

    def ids(self, places: Iterable[int]) -> list[int]:
        """Return the ids of the points at `places`."""
        return [int(self.map.ids[place]) for place in places]


def open_page(store: Store, generation: Generation) -> Opened:
    """Open the map of `generation` with all that its page needs. Raises `ViewMissingError`."""
    opened = open_map(store, generation)
    known = {record.image_id: record for record in store.all_records()}
    records = [known.get(image_id, Record(b"", 0, 0)) for image_id in opened.ids.tolist()]
    groups = None
    if len({record.label for record in records}) < 2 and view_of(generation, "groups") is not None:
        groups = open_groups(store, generation).labels_of(opened.ids)
    atlases = open_atlases(generation.folder)
    table = point_table(opened.ids, opened.layouts, records, groups=groups, atlases=atlases)
    names = [record.path.rpartition(b"/")[2].decode("utf-8", "replace").casefold() for record in records]
    return Opened(opened, atlases, table, [record.label for record in records], names)


def _opened() -> Opened:
    return requested.service().opened(open_page)


def _layouts(drawn: Map) -> dict[str, str]:
    """Return the names and titles of the layouts that are shown; by date only where a date is known."""
    there = {name: title for name, title in TITLES.items() if name in drawn.layouts}
    return {name: title for name, title in there.items() if name != "date" or drawn.date_marks or len(there) == 1}


def _check_layout(asked: str, drawn: Map) -> None:
    layouts = _layouts(drawn)
    if asked not in layouts:
        raise OptionError(f"There is no layout {asked[:40]!r} on this map; there are: {', '.join(layouts)}.")


def _groups() -> Groups | None:
    """Return the groups of the collection, None where they were not computed."""
    try:
        return requested.service().opened(open_groups)
    except ViewMissingError:
        return None


# The page.


@pages.get("/map")
def index() -> str:
    """Show the map."""
    service, opened = requested.service(), _opened()
    layouts = _layouts(opened.map)
    asked = request.args.get("layout") or next(iter(layouts))
    _check_layout(asked, opened.map)
    tags = tag_counts(service.ready().store)
    return render_template(
        "map.html",
        status=service.status(),
        opened=opened,
        layouts=layouts,
        layout=asked,
        by_group=_groups() is not None,
        spots=_spots(opened),
        placed=int(opened.map.placed.sum()),
        is_old=is_by_another_projection(service.ready().generation, opened.map.view),
        tags=list(tags),
        words=[*opened.table.labels[:MOST_WORDS], *tags],
        may_edit=guard.may_edit(),
    )


# Its numbers.


@api.get("/map")
@described("map", shapes.MapAnswer, problems=(404,))
def map_json() -> Response:
    """Describe the map: layouts, the columns of its points, atlases, and spots to jump to."""
    opened = _opened()
    atlases, drawn, version = opened.atlases, opened.map, opened.table.digest
    return jsonify(
        {
            "digest": version,
            "images": len(drawn.ids),
            "placed_since": int(drawn.placed.sum()),
            "layouts": [
                {"name": name, "title": title, "cell": drawn.cell_sizes.get(name)}
                for name, title in _layouts(drawn).items()
            ],
            "date_marks": [{"text": text, "x": round(float(x), 5)} for text, x in drawn.date_marks],
            "labels": opened.table.labels,
            "points": {
                "url": url_for("map_api.points", v=version),
                "columns": [asdict(column) for column in opened.table.columns],
            },
            "atlases": None
            if atlases is None
            else {
                "cell": atlases.cell,
                "urls": [url_for("map_api.atlas", number=n, v=version) for n in range(len(atlases.files))],
            },
            "spots": _spots(opened),
        }
    )


@api.get("/map/points")
@described("map", "application/octet-stream", query=shapes.VersionFields, problems=(404,))
def points() -> Response:
    """Send the numbers of all points; `GET /api/v1/map` says where which are."""
    table = _asked_for().table
    response = make_response(table.content)
    response.mimetype = "application/octet-stream"
    response.set_etag(table.digest)
    response.make_conditional(request)
    return _kept(response, table)


@api.get("/map/atlases/<int:number>")
@described("map", "image/webp", query=shapes.VersionFields, problems=(404,))
def atlas(number: int) -> Response:
    """Send one atlas."""
    opened = _asked_for()
    if opened.atlases is None or number >= len(opened.atlases.files):
        raise ViewMissingError(f"The map has no atlas {number}.")
    response = send_file(opened.atlases.files[number], mimetype="image/webp", etag=f"{opened.table.digest}-{number}")
    return _kept(response, opened.table)


@api.get("/map/picture")
@described("map", "image/webp", query=shapes.MapPictureFields, problems=(400, 404))
def picture() -> Response:
    """Send the map in one `layout` as a picture, for pages without JavaScript."""
    opened = _asked_for()
    layout = request.args.get("layout") or next(iter(_layouts(opened.map)))
    _check_layout(layout, opened.map)
    if opened.atlases is None:
        raise ViewMissingError("The map has no small pictures to show. A poster has: python map2d.py --poster map.png")
    shown = map_picture(
        opened.map.layouts[layout],
        opened.table.column("cells"),
        opened.table.ratios(),
        opened.atlases,
        cell_size=opened.map.cell_sizes.get(layout),
    )
    response = make_response(shown)
    response.mimetype = "image/webp"
    return _kept(response, opened.table)


def _asked_for() -> Opened:
    """Return the map. Raises `ViewMissingError` where that of another digest is asked for: its numbers would mean others."""
    opened = _opened()
    if request.args.get("v") not in (None, "", opened.table.digest):
        raise ViewMissingError("The collection has changed since this page was opened. Load the page again.")
    return opened


def _kept(response: Response, table: PointTable) -> Response:
    """Let a browser keep what was asked for by its digest without asking again: with other contents it has another address."""
    known = request.args.get("v") == table.digest
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable" if known else "private, no-cache"
    return response


# Spots: groups of pictures to jump to.


def _spots(opened: Opened) -> list[dict[str, object]]:
    """Return what the map can jump to, the largest first: groups, else what people named, else labels; named ones always."""
    found = _group_spots(opened)
    if not found:
        found = _named_spots(opened) + _label_spots(opened)
    return found[:MOST_SPOTS]


def _group_spots(opened: Opened) -> list[dict[str, object]]:
    groups = _groups()
    if groups is None:
        return []
    listed = groups.at()
    named = [listed.of(number) for number in listed.names]
    largest = [group for group in listed[:MOST_SPOTS] if group.name is None and group.size >= LEAST_SPOT]
    shown = sorted([*named, *largest], key=lambda group: (group.name is None, -group.size))[:MOST_SPOTS]
    spots = [
        _spot(opened, title, group.image_ids, named=group.name is not None, sim=groups.sim)
        for group, title in zip(shown, titles(shown), strict=True)
    ]
    return [spot for spot in spots if spot is not None]


def _named_spots(opened: Opened) -> list[dict[str, object]]:
    named: list[NamedGroup] = named_groups(requested.service().ready().store)
    spots = [_spot(opened, group.name, group.image_ids, named=True) for group in named]
    return [spot for spot in spots if spot is not None]


def _label_spots(opened: Opened) -> list[dict[str, object]]:
    labels = np.array([label or "" for label in opened.labels], dtype=object)
    spots = []
    for label in opened.table.labels[:MOST_SPOTS]:
        members = opened.map.ids[labels == label]
        spot = _spot(opened, label, members) if len(members) >= LEAST_SPOT else None
        spots += [spot] if spot is not None else []
    return spots


def _spot(
    opened: Opened, name: str, image_ids: Ids, *, named: bool = False, sim: float | None = None
) -> dict[str, object] | None:
    """Return one spot; `at` is where its name stands in each layout: at the upper edge of where most of its pictures are."""
    places = opened.places(image_ids.tolist())
    if not len(places):
        return None
    at = {}
    for layout, everywhere in opened.map.layouts.items():
        here = everywhere[places]
        middle = here[np.abs(here - np.median(here, axis=0)).sum(axis=1).argmin()]
        away = np.abs(here - middle).sum(axis=1)
        core = here[away <= np.quantile(away, 0.6)]
        at[layout] = [round(float(core[:, 0].mean()), 5), round(float(core[:, 1].min()), 5)]
    first = int(image_ids[0]) if sim is not None else opened.ids(places[:1])[0]
    return {"name": name, "image_id": first, "count": len(places), "named": named, "sim": sim, "at": at}


@api.get("/map/group")
@described("map", shapes.MapGroupAnswer, query=shapes.MapGroupFields, problems=(400, 404))
def group() -> Response:
    """Say which pictures are in the group of one: `image_id`, and `sim` where groups are cut elsewhere than as published."""
    opened, fields = _opened(), requested.request_fields()
    image_id = requested.wanted_image_id(next(iter(fields.get("image_id", ())), ""))
    place = opened.places([image_id])
    if not len(place):
        raise ImageNotFoundError(f"Image {image_id} is not on the map.")
    groups = _groups()
    if groups is not None:
        found = groups.group_of(image_id, _wanted_sim(fields))
        name, members = titles([found])[0], found.image_ids.tolist()
    else:
        name, members = _group_without_tree(opened, image_id, opened.labels[place[0]])
    there = opened.ids(opened.places(members))
    return jsonify({"name": name, "count": len(there), "image_ids": there})


def _group_without_tree(opened: Opened, image_id: int, label: str | None) -> tuple[str, list[int]]:
    for named in named_groups(requested.service().ready().store):
        if image_id in named.image_ids:
            return named.name, named.image_ids.tolist()
    if label is None:
        raise ViewMissingError("The collection has not been put in groups yet. Run: python clusters.py")
    return label, [int(i) for i, other in zip(opened.map.ids, opened.labels, strict=True) if other == label]


def _wanted_sim(fields: requested.Fields) -> float | None:
    raw = next(iter(fields.get("sim", ())), None)
    try:
        return None if raw in (None, "") else float(str(raw))
    except ValueError:
        raise OptionError(f"sim is {str(raw)[:40]!r}, but must be a number from 0 to 1.") from None


# Finding and selecting.


@api.get("/map/found")
@described("map", shapes.SoughtAnswer, query=shapes.SoughtFields, problems=(400, 404))
def found() -> Response:
    """Say which pictures of the map have `q` in label, tag or name; where none has, which the network saw it in."""
    opened, sought = _opened(), " ".join(request.args.get("q", "").casefold().split())
    if not 0 < len(sought) <= MOST_SOUGHT:
        raise OptionError(f"Say what to find on the map, in 1 to {MOST_SOUGHT} characters; these are {len(sought)}.")
    by, places = "label, tag or name", _said(opened, sought)
    if not len(places):
        service = requested.service()
        by, places = "what the network saw", opened.places(service.matching(service.ready(), Filter(looks_like=sought)))
    return jsonify({"q": sought, "by": by, "count": len(places), "image_ids": opened.ids(places)})


def _said(opened: Opened, sought: str) -> Ids:
    """Return the places of the points in whose label, tag or name the text stands, ascending; a whole label or tag goes first."""
    store = requested.service().ready().store
    given = given_labels(store)  # perhaps since the map was opened
    labels = {label for label in {*opened.table.labels, *given.values()} if sought in label.casefold()}
    tags = {tag for tag in tag_counts(store) if sought in tag.casefold()}
    whole = {said for said in labels | tags if said.casefold() == sought}
    if whole:
        labels, tags = labels & whole, tags & whole
    places = {n for n, label in enumerate(opened.labels) if label in labels}
    places.difference_update(opened.places(given).tolist())
    places.update(opened.places(image_id for image_id, label in given.items() if label in labels).tolist())
    if not whole:
        places |= {n for n, name in enumerate(opened.names) if sought in name}
    for tag in tags:
        places.update(opened.places(tagged_images(store, tag)).tolist())
    return np.array(sorted(places), dtype=np.int64)


@api.post("/map/images")
@described("map", shapes.CaptionsAnswer, body=shapes.Selection, problems=(400, 404))
def images() -> Response:
    """Name the selected pictures, in the order of their ids."""
    known = requested.service().images(selected_ids(requested.request_fields()))
    return jsonify(
        {
            "images": [
                {
                    "image_id": image_id,
                    "name": info.name,
                    "folder": info.folder,
                    "label": info.label,
                    "tags": info.tags,
                    "taken_at": info.taken_at,
                }
                for image_id, info in sorted(known.items())
            ]
        }
    )


@api.post("/map/more")
@described("map", shapes.MoreAnswer, body=shapes.Selection, problems=(400, 404))
def more() -> Response:
    """Answer with the pictures most like the selected ones, by examples spread evenly over them, that are not selected."""
    ids = selected_ids(requested.request_fields())
    step = max(1.0, len(ids) / requested.MAX_EXAMPLES)
    examples = [ids[int(place)] for place in np.arange(0, len(ids), step)][: requested.MAX_EXAMPLES]
    k = min(len(ids), MOST_LEFT_OUT) + MORE
    matches = requested.service().search(Query(tuple(Example(image_id) for image_id in examples), k=k)).matches
    selected = set(ids)
    others = [match.image for match in matches if match.image.image_id not in selected][:MORE]
    return jsonify({"examples": len(examples), "images": [image_json(info) for info in others]})


@api.post("/duplicates/among")
@described("duplicates", shapes.PairsAnswer, body=shapes.Selection, problems=(400, 404))
def duplicates_among() -> Response:
    """Answer with the published pairs of duplicates both of which are selected, the surest first."""
    ids = selected_ids(requested.request_fields())
    pairs = requested.service().opened(open_duplicates).pairs
    both = pairs.where(np.isin(pairs.image_a, ids) & np.isin(pairs.image_b, ids))
    shown = list(both.where(np.arange(len(both)) < MOST_PAIRS))
    known = requested.service().images({i for pair in shown for i in (pair.image_a, pair.image_b)})
    return jsonify(
        {
            "count": len(both),
            "pairs": [
                {
                    "tier": pair.tier,
                    "relation": pair.relation,
                    "similarity": round(pair.similarity, 4),
                    "images": [image_json(known[pair.image_a]), image_json(known[pair.image_b])],
                }
                for pair in shown
                if pair.image_a in known and pair.image_b in known
            ],
        }
    )
