"""Changing the collection from the browser and the API: adding pictures, taking images out, bringing them back.

Owns addresses, the pages `/add` and `/removed`, what is told of each file. Does not own how it is done (`search/changing.py`),
who may do it (`guard.py`: everything here asks it first), nor the plan of duplicates (`web/duplicates.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from flask import Blueprint, Response, jsonify, redirect, render_template, send_file, url_for
from flask.typing import ResponseReturnValue
from typing_extensions import TypedDict
from werkzeug.datastructures import FileStorage

import guard
import requested
import shapes
import web.groups
from api import image_json, problem_of
from described import described
from errors import CollectionError, ImageNotFoundError, RequestError
from pipeline import show_path
from quarantine import Restored, Run
from requested import Fields, refuse_unknown, request_fields, wanted_count, wanted_page, wanted_text
from search import CollectionStatus
from search.changing import Added, Sent, TakenOut, add_pictures, bring_back, run_key, runs, take_out
from store import open_store
from web.asked import conditions, in_words
from web.files import revalidated
from web.tags import selected_ids

pages = Blueprint("changes", __name__)
api = Blueprint("changes_api", __name__, url_prefix="/api/v1")

MOST_SENT = 200
"""Files that one request may bring; together they may have `upload_max_bytes`."""
RUNS_A_PAGE = 12
CHOICES_A_PAGE = 96
SHOWN = 8
"""Pictures of a run that a page shows."""


# What the API takes and answers.


class AddFields(TypedDict, total=False):
    """Where the pictures shall be kept."""

    folder: str
    """The name of a folder, which is their label as well; a picture sent as "folder/name" says its own."""


class FileAdded(TypedDict):
    """What became of one file: `known` ones were in the collection already, to the byte."""

    name: str
    status: Literal["added", "known", "failed"]
    image: shapes.Image | None
    error: shapes.ErrorTold | None


class AddedAnswer(TypedDict):
    """How many images the collection won, and what became of each file, in the order they came."""

    added: int
    results: list[FileAdded]


class TakeOutFields(TypedDict):
    """Which images to take out."""

    image_ids: list[shapes.Id]


class TakenOutAnswer(TypedDict):
    """What was moved into quarantine; `runs` are what POST /jobs/restore takes."""

    runs: list[str]
    images: int
    files: int
    moved_bytes: int
    skipped: list[int]
    """Images that stay, since their file is gone or is not the one that was indexed."""


class RestoreFields(TypedDict):
    """What to bring back."""

    run: str


class NotRestored(TypedDict):
    """A file that stays in quarantine, and why."""

    name: str
    reason: str


class RestoredAnswer(TypedDict):
    """What came back."""

    files: int
    already: int
    not_searchable: int
    """Images that are back but for their vectors: index again."""
    problems: list[NotRestored]


class RunTold(TypedDict):
    """What was moved at one time, and how much of it can still come back."""

    run: str
    moved_at: str
    files: int
    files_held: int
    bytes_held: int
    names: list[str]


class RunsAnswer(TypedDict):
    """What was moved out of the collection, the latest first."""

    page: int
    pages: int
    results: list[RunTold]


class RunsFields(TypedDict, total=False):
    """Which page is asked for."""

    page: shapes.Count


# Adding.


@pages.app_context_processor
def _offered() -> dict[str, object]:
    return {"may_change": guard.may_change()}


@pages.get("/add")
def add() -> str:
    """Show the form that takes pictures into the collection."""
    guard.check_may_change()
    return _add_page([])


@pages.post("/add")
def take() -> str:
    """Take the pictures of the form into the collection, and say what became of each."""
    return _add_page(_told(_added(request_fields())))


def _add_page(results: Sequence[FileAdded]) -> str:
    settings = requested.service().settings
    return render_template(
        "add.html", status=_status(), results=results, max_bytes=settings.upload_max_bytes, most_sent=MOST_SENT
    )


def _status() -> CollectionStatus | None:
    with suppress(CollectionError):  # pictures can be added to a collection that has none yet
        return requested.service().status()
    return None


@api.post("/jobs/add")
@described(
    "jobs",
    AddedAnswer,
    body=AddFields,
    files={"file": "Pictures, any number of them; each is an image of its own."},
    problems=(400, 403, 409, 413),
)
def add_json() -> Response:
    """Take pictures into the collection; when the answer comes, they can be found."""
    told = _told(_added(request_fields()))
    return jsonify(AddedAnswer(added=sum(one["status"] == "added" for one in told), results=told))


def _added(fields: Fields) -> list[Added]:
    guard.check_may_change()
    refuse_unknown(fields, ("folder", "file"), "adding pictures")
    files, folder = requested.uploads("file"), wanted_text(fields, "folder") or ""
    if not 1 <= len(files) <= MOST_SENT:
        raise RequestError(
            f'{len(files) or "No"} pictures came: send 1 to {MOST_SENT} as multipart/form-data in the field "file".'
        )
    return add_pictures(requested.service(), [_sent(file, folder) for file in files])


def _sent(file: FileStorage, folder: str) -> Sent:
    """Return an upload; of a folder that was chosen as a whole, browsers say the way to each of its files."""
    file.stream.seek(0)
    way = re.split(r"[/\\]", file.filename or "")
    return Sent(way[-1][:200], file.stream.read(), (way[-2] if len(way) > 1 else folder)[:200])


def _told(added: Sequence[Added]) -> list[FileAdded]:
    ids = [one.image_id for one in added if one.image_id is not None]
    infos = requested.service().images(ids) if ids else {}
    told: list[FileAdded] = []
    for one in added:
        image: Any = image_json(infos[one.image_id]) if one.image_id in infos else None
        error: Any = None if one.error is None else problem_of(one.error).as_json()["error"]
        told.append(
            FileAdded(
                name=one.name,
                status="failed" if error else "known" if one.known else "added",
                image=image,
                error=error,
            )
        )
    return told


# Taking out, and bringing back.


@pages.get("/images/choose")
def choose() -> str:
    """Show the images that words and filters keep, or those of a group, a page of them, each to be labelled or taken out."""
    if not guard.may_change():
        guard.check_may_edit()
    fields = request_fields()
    refuse_unknown(fields, (*requested.FILTER_FIELDS, "group", "sim", "page"), "choosing images")
    where, service = requested.wanted_where(fields), requested.service()
    ids, of_group = service.listed(where), {name: fields[name][0] for name in ("group", "sim") if name in fields}
    if "group" in of_group:
        ids = np.intersect1d(ids, web.groups.members(fields))
    page = wanted_page(fields, len(ids), CHOICES_A_PAGE)
    known = service.images(ids[page.places].tolist())
    return render_template(
        "choose.html",
        status=_status(),
        images=[known[image_id] for image_id in sorted(known)],
        count=len(ids),
        page=page,
        where=in_words(conditions(where)),
        kept=conditions(where) | of_group,
    )


@pages.post("/images/remove")
def remove() -> ResponseReturnValue:
    """Take the images in the field `image_ids` out of the collection, and lead to where they can be brought back."""
    chosen = request_fields().get("image_ids", ())  # the form has a field for a label, too
    return moved_page(_taken_out({"image_ids": chosen}))


def moved_page(done: TakenOut) -> ResponseReturnValue:
    """Lead to the page of what was moved just now."""
    first = next(iter(done.keys), None)
    return redirect(url_for("changes.removed", done=first, skipped=len(done.skipped) or None), 303)


@api.post("/jobs/delete")
@described("jobs", TakenOutAnswer, body=TakeOutFields, problems=(400, 403, 404, 409))
def delete_json() -> Response:
    """Take images out of the collection; their files go to quarantine, from where POST /jobs/restore brings them back."""
    return jsonify(taken_out_json(_taken_out(request_fields())))


def _taken_out(fields: Fields) -> TakenOut:
    guard.check_may_change()
    refuse_unknown(fields, ("image_ids",), "taking images out")
    return take_out(requested.service(), selected_ids(fields))


def taken_out_json(done: TakenOut) -> TakenOutAnswer:
    """Describe what was moved."""
    return TakenOutAnswer(
        runs=list(done.keys),
        images=done.images,
        files=done.files,
        moved_bytes=done.moved_bytes,
        skipped=list(done.skipped),
    )


@dataclass(frozen=True)
class ShownRun:
    """A run as a page shows it; `pictures` are (name, SHA-256 in hex) of some of its files."""

    told: RunTold
    pictures: list[tuple[str, str]]


@pages.get("/removed")
def removed() -> str:
    """Show what was taken out of the collection, from where it can be brought back."""
    guard.check_may_change()
    fields = request_fields()
    found = runs(requested.service().settings)
    page = wanted_page(fields, len(found), RUNS_A_PAGE)
    return render_template(
        "removed.html",
        status=_status(),
        page=page,
        runs=[ShownRun(_run_told(run), _pictures(run)) for run in found[page.places]],
        done=wanted_text(fields, "done"),
        back=wanted_text(fields, "back"),
        **{name: wanted_count(fields, name, 1) if name in fields else 0 for name in ("problems", "missing", "skipped")},
    )


def _pictures(run: Run) -> list[tuple[str, str]]:
    return [(_name(move.path), move.sha256.hex()) for move in run.moves if run.holds(move)][:SHOWN]


@pages.get("/removed/<sha256>/thumbnail")
def thumbnail(sha256: str) -> Response:
    """Send the small picture of a file in quarantine; it lasts until the collection is compacted."""
    guard.check_may_change()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ImageNotFoundError("There is no such picture.")
    with closing(open_store(requested.service().settings.rsc_files)) as store:  # also where nothing is left to search
        content = store.thumbnail(bytes.fromhex(sha256))
    if content is None:
        raise ImageNotFoundError("There is no such picture.")
    return revalidated(send_file(BytesIO(content), mimetype="image/jpeg", etag=sha256))


@pages.post("/removed/<key>/restore")
def restore(key: str) -> ResponseReturnValue:
    """Bring back what was moved at one time, and say so."""
    guard.check_may_change()
    restored = bring_back(requested.service(), key)
    problems, missing = len(restored.problems) or None, restored.not_searchable or None
    return redirect(url_for(".removed", back=key, problems=problems, missing=missing), 303)


@api.get("/jobs/removed")
@described("jobs", RunsAnswer, query=RunsFields, problems=(400, 403))
def removed_json() -> Response:
    """List what was moved out of the collection, a page of times."""
    guard.check_may_change()
    fields = request_fields()
    refuse_unknown(fields, ("page",), "a list of what was removed")
    found = runs(requested.service().settings)
    page = wanted_page(fields, len(found), RUNS_A_PAGE)
    told = [_run_told(run) for run in found[page.places]]
    return jsonify(RunsAnswer(page=page.number, pages=page.count, results=told))


@api.post("/jobs/restore")
@described("jobs", RestoredAnswer, body=RestoreFields, problems=(400, 403, 409))
def restore_json() -> Response:
    """Bring back what was moved at one time: the files to their places, the images under their old ids."""
    guard.check_may_change()
    fields = request_fields()
    refuse_unknown(fields, ("run",), "bringing back")
    return jsonify(_restored_json(bring_back(requested.service(), wanted_text(fields, "run") or "")))


def _restored_json(restored: Restored) -> RestoredAnswer:
    return RestoredAnswer(
        files=restored.restored,
        already=restored.already,
        not_searchable=restored.not_searchable,
        problems=[NotRestored(name=_name(path), reason=reason) for path, reason in restored.problems],
    )


def _run_told(run: Run) -> RunTold:
    held = [move for move in run.moves if run.holds(move)]
    return RunTold(
        run=run_key(run.folder),
        moved_at=_moved_at(run),
        files=sum(run.was_moved(move) for move in run.moves),
        files_held=len(held),
        bytes_held=sum(move.size for move in held),
        names=[_name(move.path) for move in held[:SHOWN]],
    )


def _moved_at(run: Run) -> str:
    """Return when a run began, by its folder's name: 0001-2026-11-21-213000 is 2026-11-21T21:30:00."""
    match = re.fullmatch(r"\d+-(\d{4}-\d\d-\d\d)-(\d\d)(\d\d)(\d\d)", run.folder.name)
    return "" if match is None else f"{match[1]}T{match[2]}:{match[3]}:{match[4]}"


def _name(path: bytes) -> str:
    return show_path(os.path.basename(path))
