"""The page of the duplicates of a collection, the plan that a person makes of it, applying it, and their part of the API.

Owns addresses, what a page says of a set, and who may have a plan, which names files of the server. Does not own sets and rules
(`views.reviews`, `plans`), nor moving files (`search/changing.py`).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flask import Blueprint, Response, jsonify, render_template
from flask.typing import ResponseReturnValue

import guard
import requested
from api import image_json
from described import described
from errors import CollectionError, EditRefusedError, OptionError, SignInError
from pipeline import show_path
from plans import FORMATS, KEEP, Choice, Decision, DuplicateSet, decide, make_plan, plan_bytes, related, turned_round
from requested import Fields, refuse_unknown, request_fields, wanted_image_id, wanted_page, wanted_text, wanted_values
from search import ImageInfo
from search.changing import TakenOut, apply_here
from shapes import Id
from store import Filter
from views.reviews import PLANNED_TIERS, Review, Totals, open_review
from web import shapes
from web.changes import TakenOutAnswer, moved_page, taken_out_json

pages = Blueprint("duplicates_pages", __name__)
api = Blueprint("duplicates_api", __name__, url_prefix="/api/v1")

SETS_A_PAGE = 20
PICTURES_A_SET = 24
"""Most pictures of one set that a page shows; a plan has all."""

TABS: Mapping[str, str] = {
    "same": "The same picture",
    "identical": "Identical files",
    "burst": "Bursts",
    "similar": "Merely similar",
}
RULE_TEXTS: Mapping[str, str] = {
    "largest": "the largest",
    "oldest": "the oldest",
    "format": "the best format",
    "shortest": "the shortest name",
}
LIST_FIELDS = ("tier", "rule", "protect", "page")
PLAN_FIELDS = ("tier", "rule", "protect", "keep", "remove", "format", "page", "created_at")
APPLY_FIELDS = ("tier", "rule", "protect", "keep", "remove", "page", "created_at", "which")
PLAN_NAME = "duplicates-plan"


# What is asked for.


@dataclass(frozen=True)
class _Asked:
    """Which sets a request asks for. `kept` is what an address has to say to ask for them again, besides the page."""

    review: Review
    tier: str
    choice: Choice
    kept: dict[str, object]


def _asked(fields: Fields) -> _Asked:
    review = requested.service().opened(open_review)
    tier = wanted_text(fields, "tier") or "same"
    if tier not in TABS:
        raise OptionError(f"There is no tier {tier[:40]!r}, there are: {', '.join(TABS)}.")
    keep, remove = (
        frozenset(wanted_image_id(raw, name) for raw in wanted_values(fields, name)) for name in ("keep", "remove")
    )
    protect = tuple(str(folder).strip() for folder in fields.get("protect", ()) if str(folder).strip())
    choice = Choice(wanted_text(fields, "rule") or "largest", protect, keep=keep, remove=remove)
    _check_protected(choice)
    kept: dict[str, object] = {} if tier == "same" else {"tier": tier}
    kept |= {} if choice.rule == "largest" else {"rule": choice.rule}
    kept |= {"protect": list(protect)} if protect else {}
    return _Asked(review, tier, choice, kept)


def _check_protected(choice: Choice) -> None:
    """Raise `OptionError` for a folder without images: what is misspelt would protect nothing."""
    store = requested.service().ready().store
    for folder in choice.protect:
        if not len(store.matching_ids(Filter(folder=folder), key="")):
            raise OptionError(
                f"No image of this collection lies in a folder {folder[:80]!r}, so it cannot be protected."
            )


# What is shown.


@dataclass(frozen=True)
class Shown:
    """One image of a set: what is proposed, what it is of the one that is kept, and which of its facts differ in the set."""

    image: ImageInfo
    is_kept: bool
    reason: str
    tier: str
    relation: str
    differs: frozenset[str]


@dataclass(frozen=True)
class ShownSet:
    """A set as a page shows it; `more` of its images are not shown."""

    tier: str
    images: list[Shown]
    more: int


FACTS = ("size", "format", "width", "taken_at", "folder")


def _shown_sets(sets: Sequence[DuplicateSet], choice: Choice) -> list[ShownSet]:
    decided = [decide(one, choice) for one in sets]
    infos = requested.service().images({d.record.image_id for one in decided for d in one[:PICTURES_A_SET]})
    return [
        ShownSet(one.tier, _shown(one, decisions, infos), max(0, len(decisions) - PICTURES_A_SET))
        for one, decisions in zip(sets, decided, strict=True)
    ]


def _shown(one: DuplicateSet, decisions: Sequence[Decision], infos: Mapping[int, ImageInfo]) -> list[Shown]:
    kept = [decision.record.image_id for decision in decisions if decision.action == KEEP]
    there = [d for d in decisions[:PICTURES_A_SET] if d.record.image_id in infos]
    images = [infos[d.record.image_id] for d in there]
    differs = frozenset(fact for fact in FACTS if len({getattr(image, fact) for image in images}) > 1)
    shown = []
    for decision, image in zip(there, images, strict=True):
        keeps = decision.action == KEEP
        tier, relation = (one.tier, "") if keeps else related(one, image.image_id, kept)
        shown.append(Shown(image, keeps, decision.reason, tier, relation, differs))
    return shown


@pages.get("/duplicates")
def index() -> str:
    """Show the sets of one tier, a page of them, with what a rule would keep."""
    fields = request_fields()
    asked = _asked(fields)
    review = asked.review
    page = wanted_page(fields, review.count(asked.tier), SETS_A_PAGE)
    return render_template(
        "duplicates.html",
        status=requested.service().status(),
        asked=asked,
        tabs={tier: (text, review.count(tier)) for tier, text in TABS.items()},
        rules=RULE_TEXTS,
        page=page,
        totals=_totals(asked),
        sets=_shown_sets(review.page(asked.tier, page.places), asked.choice),
        may_plan=guard.may_edit(),
        may_choose=guard.may_edit() or guard.may_change(),
        plan_name=PLAN_NAME,
        rsc_files=_folder_in_commands(),
    )


def _totals(asked: _Asked) -> Totals | None:
    rule = Choice(asked.choice.rule, asked.choice.protect)
    return asked.review.totals(asked.tier, rule) if asked.tier in PLANNED_TIERS else None


def _folder_in_commands() -> str:
    """Return the collection's folder as a command names it, nothing where it is the usual one; its name is not for everybody."""
    settings = requested.service().settings
    if settings.rsc_files == type(settings).rsc_files:
        return ""
    try:
        guard.check_may_edit()
    except (EditRefusedError, SignInError):
        return "…"
    return shlex.quote(show_path(os.fsencode(settings.rsc_files)))


@pages.post("/duplicates/plan")
def plan() -> Response:
    """Send the plan of all sets of a tier, with what was decided by hand, to be saved."""
    return _plan(request_fields())


def _plan(fields: Fields) -> Response:
    """Answer with a plan. It names files of the server, so it is given to those alone who may change things here."""
    try:
        guard.check_may_edit()
    except EditRefusedError as error:
        if requested.service().settings.edits_allowed:
            raise
        raise EditRefusedError(
            "This service gives out no plans, since they name the files of its disk. Whoever runs it can make one: "
            "python duplicates.py --plan duplicates-plan.csv"
        ) from error
    refuse_unknown(fields, PLAN_FIELDS, "a plan")
    asked = _asked(fields)
    file_format = wanted_text(fields, "format") or FORMATS[0]
    if file_format not in FORMATS:
        raise OptionError(f"A plan is {' or '.join(FORMATS)}, not {file_format[:40]!r}.")
    _check_planned(asked)
    content = plan_bytes(make_plan(asked.review.sets(asked.tier), asked.choice), file_format)
    kind = "text/csv" if file_format == "csv" else "application/json"
    response = Response(content, content_type=f"{kind}; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{PLAN_NAME}.{file_format}"'
    return response


def _check_planned(asked: _Asked) -> None:
    if asked.tier not in PLANNED_TIERS:
        raise OptionError("What is merely similar is never in a plan: look at it, and decide yourself.")


@pages.post("/duplicates/apply")
def apply() -> ResponseReturnValue:
    """Move what is not kept of the sets into quarantine, and lead to where it can be brought back."""
    return moved_page(_applied(request_fields()))


def _applied(fields: Fields) -> TakenOut:
    """Apply the plan of all sets of a tier, or of one page of them, with what was decided by hand."""
    guard.check_may_change()
    refuse_unknown(fields, APPLY_FIELDS, "applying a plan")
    asked = _asked(fields)
    _check_planned(asked)
    looked_for = wanted_text(fields, "created_at")
    if looked_for is not None and looked_for != asked.review.duplicates.created_at:
        raise OptionError(
            "Duplicates were looked for again since that page was made, so nothing was moved. Load it again."
        )
    which = wanted_text(fields, "which") or "all"
    if which not in ("all", "page"):
        raise OptionError(f"which is {which[:40]!r}, but must be all or page.")
    page = wanted_page(fields, asked.review.count(asked.tier), SETS_A_PAGE)
    sets = asked.review.sets(asked.tier) if which == "all" else asked.review.page(asked.tier, page.places)
    return apply_here(requested.service(), make_plan(sets, asked.choice))


@dataclass(frozen=True)
class Copy:
    """An image that is a duplicate of another: `relation` says what it is of that one."""

    image: ImageInfo
    tier: str
    relation: str
    similarity: float
    hash_distance: int | None


def copies_of(image_id: int) -> list[Copy]:
    """Return the duplicates of an image, the surest first; none where they were not looked for."""
    try:
        return _copies(image_id)
    except CollectionError:  # an image's page does not depend on them
        return []


def _copies(image_id: int) -> list[Copy]:
    pairs = requested.service().opened(open_review).pairs_of(image_id)
    others = {pair.image_a + pair.image_b - image_id: pair for pair in pairs}
    infos = requested.service().images(others)
    copies = []
    for other, pair in others.items():
        if other in infos:
            words = pair.relation if other > image_id else turned_round(pair.relation, infos[other].format)
            copies.append(Copy(infos[other], pair.tier, words, pair.similarity, pair.hash_distance))
    return copies


# The API.


@api.get("/duplicates")
@described("duplicates", shapes.DuplicatesAnswer, query=shapes.DuplicatesFields, problems=(400, 404))
def index_json() -> Response:
    """Describe the sets of one tier, a page of them, with what a rule would keep."""
    fields = request_fields()
    refuse_unknown(fields, LIST_FIELDS, "a list of duplicates")
    asked = _asked(fields)
    review = asked.review
    page = wanted_page(fields, review.count(asked.tier), SETS_A_PAGE)
    totals = _totals(asked)
    return jsonify(
        {
            "tier": asked.tier,
            "rule": asked.choice.rule,
            "tiers": {tier: review.count(tier) for tier in TABS},
            "images": None if totals is None else totals.images,
            "removed": None if totals is None else totals.removed,
            "removed_bytes": None if totals is None else totals.removed_bytes,
            "created_at": review.duplicates.created_at,
            "images_not_compared_yet": len(review.duplicates.not_compared),
            "page": page.number,
            "pages": page.count,
            "results": [_set_json(one) for one in _shown_sets(review.page(asked.tier, page.places), asked.choice)],
        }
    )


def _set_json(one: ShownSet) -> dict[str, Any]:
    return {
        "tier": one.tier,
        "images_not_shown": one.more,
        "images": [
            {
                "action": "keep" if shown.is_kept else "remove",
                "reason": shown.reason,
                "tier": shown.tier,
                "relation": shown.relation,
                "image": image_json(shown.image),
            }
            for shown in one.images
        ],
    }


@api.get("/images/<image_id>/duplicates")
@described("duplicates", shapes.CopiesAnswer, problems=(404,))
def copies_json(image_id: str) -> Response:
    """Describe the duplicates of one image."""
    image = requested.service().image(requested.image_id_of_path(image_id))
    return jsonify(
        {
            "image_id": image.image_id,
            "results": [
                {
                    "tier": copy.tier,
                    "relation": copy.relation,
                    "similarity": round(copy.similarity, 6),
                    "hash_distance": copy.hash_distance,
                    "image": image_json(copy.image),
                }
                for copy in _copies(image.image_id)
            ],
        }
    )


@api.route("/duplicates/plan", methods=["GET", "POST"])
@described("duplicates", "text/csv, application/json", query=shapes.PlanFields, problems=(400, 403, 404))
def plan_json() -> Response:
    """Send the plan of all sets of a tier as CSV or JSON; `keep` and `remove` are image ids decided by hand."""
    return _plan(request_fields())


class ApplyFields(shapes.DuplicatesFields, total=False):
    """Which sets to apply the rule to, and what was decided by hand."""

    keep: list[Id]
    remove: list[Id]
    which: Literal["all", "page"]
    """All sets of the tier, or those of one page."""
    created_at: str
    """When the duplicates were looked for that the decision is about; nothing is moved where that is another time."""


@api.post("/duplicates/apply")
@described("duplicates", TakenOutAnswer, body=ApplyFields, problems=(400, 403, 404, 409))
def apply_json() -> Response:
    """Move what is not kept of the sets of a tier into quarantine, from where POST /jobs/restore brings it back."""
    return jsonify(taken_out_json(_applied(request_fields())))
