"""`/api/v1`, and what it shares with the pages: reading requests, and which error has which status.

Owns: the JSON shapes; the one table from exceptions to HTTP statuses; turning a request's fields into `k`, an image id
or the bytes of an upload (always in memory, never a temporary file). Does not own: pages, files, headers, the factory
(`app.py`), nor any searching (`search/`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING, cast

from flask import Blueprint, Request, Response, current_app, jsonify, request, url_for
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
    NotAnImageError,
    OriginalGoneError,
    RequestError,
    TooManyBytesError,
)

if TYPE_CHECKING:
    from search import ImageInfo, Match, SearchResult, SearchService

EXTENSION = "lookalike"
MULTIPART_OVERHEAD_BYTES = 64 * 1024
MAX_JSON_BYTES = 64 * 1024
MAX_IMAGE_ID = 2**63 - 1
RETRY_AFTER_S = 10

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
    return cast("SearchService", current_app.extensions[EXTENSION])


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


def wanted_k(raw: object) -> int:
    """Return how many images are wanted: `raw` as int, or the setting `results` when None. Raises `RequestError`."""
    settings = service().settings
    if raw is None:
        return min(settings.results, settings.max_results)
    k = _whole_number(raw)
    if k is None or not 1 <= k <= settings.max_results:
        raise RequestError(f"k is {str(raw)[:40]!r}, but must be a whole number from 1 to {settings.max_results}.")
    return k


def wanted_image_id(raw: object) -> int:
    """Return a field as image id. Raises `RequestError` unless a number, `ImageNotFoundError` for one too large."""
    image_id = _whole_number(raw)
    if image_id is None:
        raise RequestError(f"image_id is {str(raw)[:40]!r}, but must be a whole number.")
    if not 0 <= image_id <= MAX_IMAGE_ID:
        raise ImageNotFoundError(f"There is no image {image_id}.")
    return image_id


def image_id_of_path(text: str) -> int:
    """Return the id in an address. Raises `ImageNotFoundError` for whatever cannot be one."""
    try:
        return wanted_image_id(text)
    except RequestError as error:
        raise ImageNotFoundError(str(error)) from error


def uploaded_content() -> bytes:
    """Return the bytes of the uploaded `file`. Raises `RequestError`, `EmptyFileError`, `TooManyBytesError`."""
    file = request.files.get("file")
    content = b"" if file is None else file.read()
    if file is None or not (file.filename or content):
        raise RequestError('No picture came with the request: send one as multipart/form-data in the field "file".')
    if not content:
        raise EmptyFileError("The picture is empty (0 bytes).")
    limit = service().settings.upload_max_bytes
    if len(content) > limit:
        raise TooManyBytesError(f"The picture has {len(content):,} bytes; uploads may have at most {limit:,}.")
    return content


def _request_fields() -> Mapping[str, object]:
    """Return the fields of a POST: form fields, or a JSON object; the address's parameters where those are silent."""
    if not request.is_json:
        return {**request.args.to_dict(), **request.form.to_dict()}
    request.max_content_length = MAX_JSON_BYTES
    try:
        fields = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise RequestError("The body is announced as JSON, but cannot be read as JSON.") from error
    if not isinstance(fields, dict):
        raise RequestError('The JSON body must be an object such as {"image_id": 7, "k": 24}.')
    return {**request.args.to_dict(), **fields}


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
        "view_url": url_for("pages.view", image_id=image.image_id),
        "original_url": url_for("pages.original", image_id=image.image_id),
        "page_url": url_for("pages.image", image_id=image.image_id),
    }


def _match_json(match: Match) -> dict[str, object]:
    return {
        "rank": match.rank,
        "similarity": round(match.similarity, 6),
        "distance": round(match.distance, 6),
        "image": image_json(match.image),
    }


def _search_json(found: SearchResult, k: int, image_id: int | None) -> Response:
    query = {"image_id": image_id, "width": found.query_width, "height": found.query_height}
    return jsonify({"query": query, "k": k, "matches": [_match_json(match) for match in found.matches]})


@api.get("/search")
def search_by_id() -> Response:
    """Answer `?image_id=&k=` with the image's nearest images."""
    if "image_id" not in request.args:
        raise RequestError('Say which image: "?image_id=7". Or POST a picture as multipart/form-data, field "file".')
    return _answer(request.args.to_dict())


@api.post("/search")
def search() -> Response:
    """Answer an upload (multipart, field `file`), or an `image_id` in a form or a JSON object."""
    return _answer(_request_fields())


def _answer(fields: Mapping[str, object]) -> Response:
    k = wanted_k(fields.get("k"))
    if "image_id" not in fields:
        return _search_json(service().search_upload(uploaded_content(), k=k), k, None)
    if request.files.get("file"):
        raise RequestError("The request has both a picture and an image_id: send one of them.")
    image_id = wanted_image_id(fields["image_id"])
    return _search_json(service().search_image(image_id, k=k), k, image_id)


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
