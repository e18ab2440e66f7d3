"""`/api/v1`, and what it shares with the pages: which error has which status.

Owns: the JSON shapes; the one table from exceptions to HTTP statuses; how much one answer may hold. Does not own: what a request
asks for (`requested.py`), pages, files, headers, the factory (`app.py`), nor any searching (`search/`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from flask import Blueprint, Response, current_app, g, jsonify, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

import shapes
from described import described
from errors import (
    BackboneError,
    ClientGoneError,
    CollectionError,
    CollectionLockedError,
    CollectionMissingError,
    CollectionReadOnlyError,
    DamagedImageError,
    DiskFullError,
    EditRefusedError,
    EmptyCollectionError,
    EmptyFileError,
    ImageError,
    ImageLimitError,
    ImageNotFoundError,
    LookalikeError,
    NoNetworkError,
    NoOriginalError,
    NotAnImageError,
    OptionError,
    OriginalGoneError,
    OverloadedError,
    PlanError,
    QuarantineError,
    RequestError,
    SignInError,
    SlowUploadError,
    TooManyBytesError,
    TooManyGuessesError,
    UnknownHostError,
    UploadGoneError,
    ViewMissingError,
)
from requested import (
    MAX_EXAMPLES,
    SEARCH_FIELDS,
    Fields,
    content_of,
    image_id_of_path,
    most_answered,
    refuse_unknown,
    request_fields,
    service,
    uploads,
    wanted_box,
    wanted_image_id,
    wanted_likes,
    wanted_query,
    wanted_uploads,
    wanted_values,
)
from search import Example, ImageInfo, Match, Query, RankingName, SearchResult
from search.stages import timed

MULTIPART_OVERHEAD_BYTES = 64 * 1024
RETRY_AFTER_S = 10
API_PAGE = "/api/v1/docs"

NEIGHBOUR_FIELDS = tuple(name for name in SEARCH_FIELDS if name not in ("image_id", "like", "unlike", "vector"))
SEARCH_FILES = {"file": "Pictures to be like.", "unlike_file": "Pictures to be unlike."}

api = Blueprint("api", __name__, url_prefix="/api/v1")


# What went wrong, as HTTP says it.


@dataclass(frozen=True)
class Problem:
    """An error as a client may see it: no path of the server, no traceback."""

    status: int
    code: str
    message: str

    def as_json(self) -> shapes.Problem:
        """Return the one shape of every JSON error."""
        return {"error": {"status": self.status, "code": self.code, "message": self.message}}


# The most particular class of an exception decides. Errors about the sender's picture or request speak for themselves;
# those about the server's own files may name paths, so what is said about them stands here and the log has the rest.
STATUSES: Mapping[type[Exception], tuple[int, str | None]] = {
    RequestError: (400, None),
    EditRefusedError: (403, None),
    SignInError: (401, None),
    TooManyGuessesError: (429, None),
    UnknownHostError: (421, None),
    SlowUploadError: (408, None),
    UploadGoneError: (404, None),
    ClientGoneError: (499, None),  # nginx's word for it; nobody reads it but the log and the metrics
    OverloadedError: (503, None),
    ImageError: (400, None),
    EmptyFileError: (400, None),
    DamagedImageError: (400, None),
    NotAnImageError: (415, None),
    ImageLimitError: (413, None),
    ImageNotFoundError: (404, "This collection has no image of that id."),
    OriginalGoneError: (404, "The file of this image is gone, or is no longer the one that was indexed."),
    NoOriginalError: (404, "This image came into the collection without a file."),
    NoNetworkError: (409, None),
    CollectionMissingError: (503, "There is no collection to search yet."),
    EmptyCollectionError: (503, "The collection has no images to search yet."),
    PlanError: (
        409,
        "Files have changed or gone since they were indexed, so nothing was moved. Index again, and try again.",
    ),
    QuarantineError: (503, "The files cannot be moved; the log of the service says why. Nothing is lost."),
    DiskFullError: (503, "The disk of the service has no room left, so no more was added or changed."),
    CollectionLockedError: (409, "Another job is changing the collection at the moment. Try again when it has ended."),
    CollectionReadOnlyError: (503, "The collection cannot be written to at the moment, so nothing was changed."),
    ViewMissingError: (404, None),
    CollectionError: (503, "The collection cannot be used at the moment; the log of the service says why."),
    sqlite3.Error: (503, "The collection cannot be read at the moment; the log of the service says why."),
    BackboneError: (503, "The network cannot be used at the moment; the log of the service says why."),
    LookalikeError: (500, "Something went wrong in the service; its log says what."),
    Exception: (500, "Something went wrong in the service; its log says what."),
}
EXPECTED_UNAVAILABLE = (CollectionMissingError, EmptyCollectionError, OverloadedError)


def problem_of(error: Exception) -> Problem:
    """Turn any exception into what the client is told."""
    if isinstance(error, RequestEntityTooLarge):
        limit = min(current_app.config["UPLOAD_MAX_BYTES"], request.max_content_length or 0)
        return Problem(413, TooManyBytesError.code, f"The upload is too large: at most {limit:,} bytes are taken.")
    if isinstance(error, HTTPException):
        return Problem(error.code or 500, error.name.lower().replace(" ", "_"), error.description or error.name)
    status, message = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    code = error.code if isinstance(error, LookalikeError) else "internal_error"
    return Problem(status, code, str(error) if message is None else message)


@dataclass(frozen=True)
class Answer:
    """What was asked and found; `truncated` when there was more than one answer may have."""

    query: Query
    found: SearchResult
    truncated: bool


def ask(fields: Fields, likes: tuple[Example, ...] | None = None) -> Answer:
    """Answer a request: what its fields ask for, or what they ask for about `likes`."""
    query = wanted_query(fields, wanted_likes(fields) if likes is None else likes)
    answer = _cut(query, service().search(query))
    if query.skip and not answer.found.matches:
        raise OptionError(f"There is no page {asked_page(query):,}: nothing more is to be found.")
    return answer


def asked_k(query: Query) -> int | Literal["all"]:
    """Return k as it was asked for: a number or "all"."""
    return "all" if query.k is None or query.k > most_answered() else query.k


def _cut(query: Query, found: SearchResult) -> Answer:
    kept = found.matches[: most_answered()]
    good = None if found.good_matches is None else min(found.good_matches, len(kept))
    truncated = len(kept) < len(found.matches)
    return Answer(query, replace(found, matches=kept, good_matches=good, more=found.more or truncated), truncated)


def asked_page(query: Query) -> int:
    """Return which page was asked for, from 1."""
    return query.skip // min(query.k or most_answered(), most_answered()) + 1


# The shapes of answers.


def image_json(image: ImageInfo) -> shapes.Image:
    """Describe one image of the catalog, with the addresses where more of it is found."""
    return {
        "image_id": image.image_id,
        "name": image.name,
        "folder": image.folder,
        "label": image.label,
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "size_bytes": image.size,
        "taken_at": image.taken_at,
        "tags": image.tags,
        "predicted_labels": [{"name": name, "score": round(score, 4)} for name, score in image.predicted_labels],
        "thumbnail": {
            "url": address(image.image_id, "files.thumbnail"),
            "width": image.thumbnail_width,
            "height": image.thumbnail_height,
        },
        "view_url": address(image.image_id, "files.view") if image.has_file else None,
        "original_url": address(image.image_id, "files.original") if image.has_file else None,
        "page_url": address(image.image_id, "images.image"),
    }


def address(image_id: int, endpoint: str, **said: Any) -> str:
    """Return where an image's file or page is: what `url_for` says, which is asked once a request and not for every image.

    For the 24 matches of an answer it took longer than all the rest of writing them.
    """
    known: dict[str, tuple[str, str]] = g.setdefault("addresses", {})
    key = f"{endpoint} {said!r}"
    if key not in known:
        before, _, after = url_for(endpoint, image_id="\0", **said).partition("%00")  # what is said comes behind it
        known[key] = before, after
    before, after = known[key]
    return f"{before}{image_id}{after}"


def _match_json(match: Match) -> shapes.Match:
    return {
        "rank": match.rank,
        "similarity": round(match.similarity, 6),
        "distance": round(match.distance, 6),
        "closer_than": match.closer_than,
        "image": image_json(match.image),
    }


def _asked_json(query: Query, *, ranking: RankingName) -> shapes.Asked:
    """Say how was searched, in words that a request could use."""
    return {"k": asked_k(query), "radius": query.radius, "metric": query.metric, "ranking": ranking}


@api.route("/search", methods=["GET", "POST"])
@described(
    "search",
    shapes.SearchAnswer,
    query=shapes.SearchFields,
    body=shapes.SearchBody,
    files=SEARCH_FILES,
    problems=(400, 404, 409),
)
def search() -> Response:
    """Answer one query: by address, form, multipart or JSON."""
    fields = request_fields()
    refuse_unknown(fields)
    answer = ask(fields)
    with timed("render"):
        return jsonify(_search_json(answer))


def _search_json(answer: Answer) -> shapes.SearchAnswer:
    query, found = answer.query, answer.found
    source = query.like[0].source if len(query.like) == 1 else None
    image_id = source if isinstance(source, int) else None
    return {
        "query": {"image_id": image_id, "width": found.query_width, "height": found.query_height},
        **_asked_json(query, ranking=found.ranking),
        "page": asked_page(query),
        "more": found.more,
        "good_matches": found.good_matches,
        "truncated": answer.truncated,
        "matches": [_match_json(match) for match in found.matches],
    }


@api.post("/search/batch")
@described(
    "search",
    shapes.BatchAnswer,
    body=shapes.SearchFields,
    files={"file": "Pictures, each a query."},
    problems=(400, 404, 409),
)
def search_batch() -> Response:
    """Answer many queries, each `file` and each image id one of its own, as rows; those that cannot be answered are named beside.

    Everything else in the request holds for all of them, and is an error of the request when it makes no sense. Rows are in
    order of distance unless another ranking is asked for.
    """
    fields = request_fields()
    refuse_unknown(fields)
    asked = _batch(fields)
    usual = wanted_query({"ranking": ["plain"], **fields}, (Example(0),))
    good = {n: replace(usual, like=(example,)) for n, (_, example) in enumerate(asked) if isinstance(example, Example)}
    answers = dict(zip(good, service().search_many(list(good.values())), strict=True))
    rows: list[shapes.Row] = []
    errors: list[shapes.BatchError] = []
    truncated = False
    for number, (label, example) in enumerate(asked):
        found = answers.get(number, example)
        if isinstance(found, Exception):
            errors.append({"query": number, "query_label": label, **problem_of(found).as_json()})
        elif isinstance(found, SearchResult):
            answer = _cut(usual, found)
            truncated = truncated or answer.truncated
            rows += [_row_json(number, label, match) for match in answer.found.matches]
    ranking: RankingName = next(
        (found.ranking for found in answers.values() if isinstance(found, SearchResult)), "plain"
    )
    return jsonify({**_asked_json(usual, ranking=ranking), "truncated": truncated, "rows": rows, "errors": errors})


def _batch(fields: Fields) -> list[tuple[str, Example | LookalikeError]]:
    """Return each query's label and its example, or what is wrong with it. Raises `RequestError` for none or too many."""
    ids, files, box = wanted_values(fields, "image_id", "like"), uploads("file"), wanted_box(fields)
    if not 1 <= len(ids) + len(files) <= MAX_EXAMPLES:
        raise RequestError(
            f"The batch has {len(ids) + len(files)} queries (file, image_id), but must have 1 to {MAX_EXAMPLES}."
        )
    asked: list[tuple[str, Example | LookalikeError]] = []
    for raw in [*ids, *files]:
        label = (raw.filename or "") if isinstance(raw, FileStorage) else str(raw)
        try:
            source = content_of(raw) if isinstance(raw, FileStorage) else wanted_image_id(raw)
            asked.append((label[:200], Example(source, box)))
        except LookalikeError as error:
            asked.append((label[:200], error))
    return asked


def _row_json(number: int, label: str, match: Match) -> shapes.Row:
    return {
        "query": number,
        "query_label": label,
        "reference_label": match.image.name,
        "image_id": match.image.image_id,
        "distance": round(match.distance, 6),
        "rank": match.rank,
    }


@api.post("/uploads")
@described(
    "search", shapes.KeptAnswer, body=shapes.KeepFields, files={"file": "One picture."}, status=201, problems=(400, 409)
)
def keep() -> tuple[Response, int]:
    """Keep a picture for a while, to be searched with by its key.

    Of the picture a vector and a small copy are kept, which further pages and comparisons need not be sent again for.
    """
    fields = request_fields()
    refuse_unknown(fields, ("file", "box"), "keeping a picture")
    pictures = wanted_uploads()
    if len(pictures) > 1:
        raise RequestError(f"{len(pictures)} pictures came: send one at a time to be kept.")
    key = service().keep_upload(content_of(pictures[0]), wanted_box(fields))
    kept = service().kept_upload(key)
    answer: shapes.KeptAnswer = {
        "key": key,
        "minutes": service().settings.kept_minutes,
        "width": kept.width,
        "height": kept.height,
        "thumbnail_url": url_for("search.upload_thumbnail", key=key),
        "page_url": url_for("search.found", like=key),
    }
    return jsonify(answer), 201


@api.get("/images/<image_id>")
@described("images", shapes.Image, problems=(404,))
def image(image_id: str) -> Response:
    """Describe one image."""
    return jsonify(image_json(service().image(image_id_of_path(image_id))))


@api.get("/images/<image_id>/neighbours")
@described("images", shapes.SearchAnswer, query=shapes.NeighbourFields, problems=(400, 404, 409))
def neighbours(image_id: str) -> Response:
    """Answer with the nearest images of one image, or of a part of it."""
    fields = request_fields()
    refuse_unknown(fields, NEIGHBOUR_FIELDS, "a search for neighbours")
    shown = service().image(image_id_of_path(image_id))
    return jsonify(_search_json(ask(fields, (Example(shown.image_id, wanted_box(fields)),))))


def status_json() -> Response:
    """Describe the collection that is served. Raises `CollectionError` while nothing can be searched."""
    return jsonify({"status": "ready", "collection": asdict(service().status())})


def revalidate(response: Response) -> Response:
    """Give an answer in JSON a version, and send nothing but that to who has it already.

    It is that of the contents and not of the generation: names and tags change within one.
    """
    is_answer = request.method in ("GET", "HEAD") and response.status_code == 200 and response.is_json
    if is_answer and is_api_path(request.path) and "ETag" not in response.headers:
        response.add_etag()
        response.make_conditional(request)
    return response


def is_api_path(path: str) -> bool:
    """Tell whether errors at this path are JSON rather than a page; the page of the API is one for people."""
    return path in ("/api", "/healthz", "/readyz") or (path.startswith("/api/") and path != API_PAGE)
