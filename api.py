"""`/api/v1`, and what it shares with the pages: reading requests, and which error has which status.

Owns: the JSON shapes; the one table from exceptions to HTTP statuses; turning a request's fields into a `Query`, with uploads
always in memory, never in a temporary file; how much one answer may hold. Does not own: pages, files, headers, the factory
(`app.py`), nor any searching (`search/`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from flask import Blueprint, Request, Response, current_app, jsonify, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from errors import (
    BackboneError,
    CollectionError,
    CollectionMissingError,
    DamagedImageError,
    EmptyCollectionError,
    EmptyFileError,
    ImageError,
    ImageLimitError,
    ImageNotFoundError,
    LookalikeError,
    NoNetworkError,
    NoOriginalError,
    NotAnImageError,
    OriginalGoneError,
    QueryError,
    RequestError,
    TooManyBytesError,
)
from search import Box, Example, Filter, ImageInfo, Match, Query, SearchResult, SearchService

EXTENSION = "lookalike"
MULTIPART_OVERHEAD_BYTES = 64 * 1024
MAX_JSON_BYTES = 1024 * 1024
MAX_IMAGE_ID = 2**63 - 1
MAX_EXAMPLES = 100
"""Most images and pictures that one request may name: to be like, to be unlike, or as the queries of a batch."""
RETRY_AFTER_S = 10

Fields = Mapping[str, Sequence[object]]
"""What a request says: all values of each field."""

api = Blueprint("api", __name__, url_prefix="/api/v1")


class InMemoryRequest(Request):
    """A request whose uploads stay in memory; werkzeug would write those above 500 kB to a temporary file.

    Memory is bounded by `MAX_CONTENT_LENGTH`, which `create_app` sets from `upload_max_bytes`.
    """

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


def service() -> SearchService:
    """Return the search service of the running app."""
    return cast(SearchService, current_app.extensions[EXTENSION])


# What went wrong, as HTTP says it.


@dataclass(frozen=True)
class Problem:
    """An error as a client may see it: no path of the server, no traceback."""

    status: int
    code: str
    message: str

    def as_json(self) -> dict[str, object]:
        """Return the one shape of every JSON error."""
        return {"error": {"status": self.status, "code": self.code, "message": self.message}}


# The most particular class of an exception decides. Errors about the sender's picture or request speak for themselves;
# those about the server's own files may name paths, so what is said about them stands here and the log has the rest.
STATUSES: Mapping[type[Exception], tuple[int, str | None]] = {
    RequestError: (400, None),
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
    CollectionError: (503, "The collection cannot be used at the moment; the log of the service says why."),
    sqlite3.Error: (503, "The collection cannot be read at the moment; the log of the service says why."),
    BackboneError: (503, "The network cannot be used at the moment; the log of the service says why."),
    LookalikeError: (500, "Something went wrong in the service; its log says what."),
    Exception: (500, "Something went wrong in the service; its log says what."),
}
EXPECTED_UNAVAILABLE = (CollectionMissingError, EmptyCollectionError)


def problem_of(error: Exception) -> Problem:
    """Turn any exception into what the client is told."""
    if isinstance(error, RequestEntityTooLarge):
        limit = current_app.config["UPLOAD_MAX_BYTES"]
        return Problem(413, TooManyBytesError.code, f"The upload is too large: at most {limit:,} bytes are taken.")
    if isinstance(error, HTTPException):
        return Problem(error.code or 500, error.name.lower().replace(" ", "_"), error.description or error.name)
    status, message = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    code = error.code if isinstance(error, LookalikeError) else "internal_error"
    return Problem(status, code, str(error) if message is None else message)


# What a request asks for.


def _whole_number(raw: object) -> int | None:
    """Return a JSON number or a string of ASCII digits as int, None for anything else."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.isascii() and raw.isdecimal():
        return int(raw[:30])  # beyond this every number is too large anyhow, and int() of thousands of digits is slow
    return None


def _limit() -> int:
    return service().settings.max_results


def wanted_k(fields: Fields) -> int | None:
    """Return how many images are wanted, None for all; where nothing is said, all within a radius, else the setting `results`.

    Raises `RequestError`.
    """
    raw = _one(fields, "k")
    if raw is None:
        return None if _one(fields, "radius") is not None else min(service().settings.results, _limit())
    if raw == "all":
        return None
    k = _whole_number(raw)
    if k is None or not 1 <= k <= _limit():
        raise RequestError(f"k is {str(raw)[:40]!r}, but must be a whole number from 1 to {_limit()}, or all.")
    return k


def wanted_image_id(raw: object, field: str = "image_id") -> int:
    """Return a value of `field` as image id. Raises `RequestError` unless a number, `ImageNotFoundError` for one too large."""
    image_id = _whole_number(raw)
    if image_id is None:
        raise RequestError(f"{field} is {str(raw)[:40]!r}, but must be a whole number.")
    if not 0 <= image_id <= MAX_IMAGE_ID:
        raise ImageNotFoundError(f"There is no image {image_id}.")
    return image_id


def image_id_of_path(text: str) -> int:
    """Return the id in an address. Raises `ImageNotFoundError` for whatever cannot be one."""
    try:
        return wanted_image_id(text)
    except RequestError as error:
        raise ImageNotFoundError(str(error)) from error


def uploads(field: str) -> list[FileStorage]:
    """Return the files that came in `field`; one without name and contents is a form's empty field, and no file."""
    return [file for file in request.files.getlist(field) if file.filename or file.stream.read(1)]


def content_of(file: FileStorage) -> bytes:
    """Return the bytes of an upload. Raises `EmptyFileError`, `TooManyBytesError`."""
    file.stream.seek(0)
    content: bytes = file.stream.read()
    if not content:
        raise EmptyFileError("The picture is empty (0 bytes).")
    limit = service().settings.upload_max_bytes
    if len(content) > limit:
        raise TooManyBytesError(f"The picture has {len(content):,} bytes; uploads may have at most {limit:,}.")
    return content


def request_fields() -> Fields:
    """Return all values of each field: of a form, or of a JSON object; the address's parameters where those are silent.

    A list in JSON is several values, null is none. Raises `RequestError`.
    """
    fields: dict[str, list[object]] = {name: list(values) for name, values in request.args.lists()}
    if not request.is_json:
        return fields | {name: list(values) for name, values in request.form.lists()}
    request.max_content_length = MAX_JSON_BYTES
    try:
        sent = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise RequestError("The body is announced as JSON, but cannot be read as JSON.") from error
    if not isinstance(sent, dict):
        raise RequestError('The JSON body must be an object such as {"image_id": 7, "k": 24}.')
    given = {name: value for name, value in sent.items() if value is not None}
    return fields | {name: value if isinstance(value, list) else [value] for name, value in given.items()}


def _one(fields: Fields, name: str) -> object:
    """Return the first value of a field; None, as not given, for an empty one, which a form sends for what was not filled in."""
    raw = next(iter(fields.get(name, ())), None)
    return None if raw == "" else raw


def _text(fields: Fields, name: str) -> str | None:
    """Return a field as text."""
    raw = _one(fields, name)
    if raw is not None and not isinstance(raw, str):
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be text.")
    return raw


def _number(fields: Fields, name: str) -> float | None:
    raw = _one(fields, name)
    if raw is None:
        return None
    try:
        number = math.nan if isinstance(raw, bool) else float(cast(str, raw))
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be a number.")
    return number


def _side(fields: Fields, name: str) -> int | None:
    raw = _one(fields, name)
    if raw is None:
        return None
    side = _whole_number(raw)
    if side is None or side > MAX_IMAGE_ID:
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be a whole number of pixels.")
    return side


def _where(fields: Fields) -> Filter | None:
    where = Filter(
        folder=_text(fields, "folder"),
        label=_text(fields, "label"),
        looks_like=_text(fields, "looks_like"),
        taken_from=(_text(fields, "taken_from") or "").replace(" ", "T") or None,
        taken_until=(_text(fields, "taken_until") or "").replace(" ", "T") or None,
        min_side=_side(fields, "min_side"),
        max_side=_side(fields, "max_side"),
        orientation=cast(Any, _text(fields, "orientation")),  # Filter checks it
    )
    return None if where == Filter() else where


def wanted_box(fields: Fields) -> Box | None:
    """Return `box`, "left,top,right,bottom" or four numbers, as shares of the picture. Raises `RequestError`, `QueryError`."""
    raw = fields.get("box", ())
    parts = raw[0].split(",") if len(raw) == 1 and isinstance(raw[0], str) else raw
    if not parts or raw == [""]:
        return None
    numbers = [number for part in parts if (number := _number({"box": [part]}, "box")) is not None]
    if len(numbers) != 4:
        raise RequestError(f"box has {len(numbers)} numbers, but must have four: left,top,right,bottom.")
    return Box(*numbers)


def _vector(raw: Sequence[object]) -> npt.NDArray[np.float64]:
    """Return the field `vector`, JSON numbers or their text in a form, as an array. Raises `RequestError`."""
    try:
        numbers = json.loads(raw[0]) if len(raw) == 1 and isinstance(raw[0], str) else raw
    except (ValueError, RecursionError):
        numbers = None
    if not isinstance(numbers, Sequence) or not all(type(number) in (int, float) for number in numbers):
        raise RequestError("The vector cannot be read: it must be a JSON array of numbers.")
    try:
        return np.array(numbers, dtype=np.float64)
    except OverflowError as error:
        raise RequestError("The vector holds a whole number that is too large.") from error


def _ids(fields: Fields, *names: str) -> list[int]:
    return [wanted_image_id(raw, name) for name in names for raw in fields.get(name, ())]


def _examples(ids: Sequence[int], files: Sequence[FileStorage], box: Box | None = None) -> tuple[Example, ...]:
    if len(ids) + len(files) > MAX_EXAMPLES:
        raise RequestError(f"{len(ids) + len(files)} examples came; one request may have at most {MAX_EXAMPLES}.")
    return tuple([Example(image_id, box) for image_id in ids] + [Example(content_of(file), box) for file in files])


def _likes(fields: Fields) -> tuple[Example, ...]:
    """Return what the matches shall be like: images, or pictures, or a vector; never some of each."""
    ids = _ids(fields, "image_id", "like")
    files, vector = uploads("file"), fields.get("vector", ())
    if bool(ids) + bool(files) + bool(vector) > 1:
        given = [name for name, there in (("a picture", files), ("an image_id", ids), ("a vector", vector)) if there]
        raise RequestError(f"The request has both {' and '.join(given)}: send one of them.")
    box = wanted_box(fields)
    if box is not None and len(ids) + len(files) > 1:
        raise RequestError("A box is a part of one picture, but several came: send one of them.")
    if vector:
        return (Example(_vector(vector), box),)
    if not ids and not files and request.method == "GET":
        raise RequestError('Say which image: "?image_id=7". Or POST a picture as multipart/form-data, field "file".')
    if not ids and not files:
        raise RequestError('No picture came with the request: send one as multipart/form-data in the field "file".')
    return _examples(ids, files, box)


FILTER_FIELDS = tuple(field.name for field in dataclasses.fields(Filter))
SEARCH_FIELDS = (
    *("image_id", "like", "unlike", "vector", "file", "unlike_file", "box"),
    *("k", "radius", "metric", "ranking", *FILTER_FIELDS),
)


def refuse_unknown(fields: Fields) -> None:
    """Raise `RequestError` for a field that no search has: a misspelt filter would answer with everything."""
    unknown = sorted(fields.keys() - set(SEARCH_FIELDS))
    if unknown:
        raise RequestError(f"There is no field {unknown[0][:40]!r}; a search has: {', '.join(SEARCH_FIELDS)}.")


def wanted_query(fields: Fields, likes: tuple[Example, ...]) -> Query:
    """Return the search for what is like `likes`, with everything else from `fields`. Raises `RequestError`, `QueryError`.

    Where all images are wanted, one more than an answer may have: `ask` tells by it that there are more.
    """
    k, radius = wanted_k(fields), _number(fields, "radius")
    if radius is not None and radius < 0:
        raise QueryError(f"radius is {radius:g}, but must be a number from 0 on.")
    return Query(
        likes,
        _examples(_ids(fields, "unlike"), uploads("unlike_file")),
        k=_limit() + 1 if k is None else k,
        radius=radius,
        metric=cast(Any, _text(fields, "metric") or "cosine"),  # Query checks both
        ranking=cast(Any, _text(fields, "ranking")),
        where=_where(fields),
    )


@dataclass(frozen=True)
class Answer:
    """What was asked and found; `truncated` when there was more than one answer may have."""

    query: Query
    found: SearchResult
    truncated: bool


def ask(fields: Fields, likes: tuple[Example, ...] | None = None) -> Answer:
    """Answer a request: what its fields ask for, or what they ask for about `likes`."""
    query = wanted_query(fields, _likes(fields) if likes is None else likes)
    return _cut(query, service().search(query))


def asked_k(query: Query) -> int | str:
    """Return k as it was asked for: a number or "all"."""
    return "all" if query.k is None or query.k > _limit() else query.k


def _cut(query: Query, found: SearchResult) -> Answer:
    kept = found.matches[: _limit()]
    good = None if found.good_matches is None else min(found.good_matches, len(kept))
    return Answer(query, replace(found, matches=kept, good_matches=good), len(kept) < len(found.matches))


# The shapes of answers.


def image_json(image: ImageInfo) -> dict[str, object]:
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
        "predicted_labels": [{"name": name, "score": round(score, 4)} for name, score in image.predicted_labels],
        "thumbnail": {
            "url": url_for("pages.thumbnail", image_id=image.image_id),
            "width": image.thumbnail_width,
            "height": image.thumbnail_height,
        },
        "view_url": url_for("pages.view", image_id=image.image_id) if image.has_file else None,
        "original_url": url_for("pages.original", image_id=image.image_id) if image.has_file else None,
        "page_url": url_for("pages.image", image_id=image.image_id),
    }


def _match_json(match: Match) -> dict[str, object]:
    return {
        "rank": match.rank,
        "similarity": round(match.similarity, 6),
        "distance": round(match.distance, 6),
        "closer_than": match.closer_than,
        "image": image_json(match.image),
    }


def _asked_json(query: Query, *, ranking: str) -> dict[str, object]:
    """Say how was searched, in words that a request could use."""
    return {"k": asked_k(query), "radius": query.radius, "metric": query.metric, "ranking": ranking}


@api.route("/search", methods=["GET", "POST"])
def search() -> Response:
    """Answer one query: by address, form, multipart or JSON."""
    fields = request_fields()
    refuse_unknown(fields)
    answer = ask(fields)
    query, found = answer.query, answer.found
    source = query.like[0].source if len(query.like) == 1 else None
    image_id = source if isinstance(source, int) else None
    return jsonify(
        {
            "query": {"image_id": image_id, "width": found.query_width, "height": found.query_height},
            **_asked_json(query, ranking=found.ranking),
            "good_matches": found.good_matches,
            "truncated": answer.truncated,
            "matches": [_match_json(match) for match in found.matches],
        }
    )


@api.post("/search/batch")
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
    rows: list[dict[str, object]] = []
    errors: list[dict[str, object]] = []
    truncated = False
    for number, (label, example) in enumerate(asked):
        found = answers.get(number, example)
        if isinstance(found, Exception):
            errors.append({"query": number, "query_label": label, **problem_of(found).as_json()})
        elif isinstance(found, SearchResult):
            answer = _cut(usual, found)
            truncated = truncated or answer.truncated
            rows += [_row_json(number, label, match) for match in answer.found.matches]
    ranking = next((found.ranking for found in answers.values() if isinstance(found, SearchResult)), "plain")
    return jsonify({**_asked_json(usual, ranking=ranking), "truncated": truncated, "rows": rows, "errors": errors})


def _batch(fields: Fields) -> list[tuple[str, Example | LookalikeError]]:
    """Return each query's label and its example, or what is wrong with it. Raises `RequestError` for none or too many."""
    ids, files, box = [*fields.get("image_id", ()), *fields.get("like", ())], uploads("file"), wanted_box(fields)
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


def _row_json(number: int, label: str, match: Match) -> dict[str, object]:
    return {
        "query": number,
        "query_label": label,
        "reference_label": match.image.name,
        "image_id": match.image.image_id,
        "distance": round(match.distance, 6),
        "rank": match.rank,
    }


@api.get("/images/<image_id>")
def image(image_id: str) -> Response:
    """Describe one image."""
    return jsonify(image_json(service().image(image_id_of_path(image_id))))


def status_json() -> Response:
    """Describe the collection that is served. Raises `CollectionError` while nothing can be searched."""
    return jsonify({"status": "ready", "collection": asdict(service().status())})


def is_api_path(path: str) -> bool:
    """Tell whether errors at this path are JSON rather than a page."""
    return path in ("/api", "/healthz", "/readyz") or path.startswith("/api/")
