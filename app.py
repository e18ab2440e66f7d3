"""The service: pages, files of the catalog by id, headers, error pages, and the factory.

Owns: everything HTTP that is not `/api/v1` (`api.py`) or a view of the whole collection (`web/`). Does not own: searching
(`search/`), decoding (`images.py`), the server process (`commands/serve.py`). Importing this module makes nothing;
`gunicorn app:app` asks for the attribute `app`, which is made then and once.
"""

from __future__ import annotations

import atexit
import base64
import math
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from functools import cache
from hashlib import blake2b
from io import BytesIO
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

import api
import requested
import web.duplicates
import web.groups
import web.map
import web.tags
from config import Settings, load_settings
from errors import ImageError, OriginalGoneError
from images import Limits, decode_image, make_thumbnail
from search import Example, Filter, ImageInfo, SearchResult, SearchService, open_service

VIEW_MAX_SIDE = 2048
K_CHOICES = (12, 24, 48, 96, 192)
STARTING_POINTS = 8
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Without it any site could show pictures of this service in its own pages.
    "Cross-Origin-Resource-Policy": "same-origin",
}

pages = Blueprint("pages", __name__)


def create_app(settings: Settings | None = None, service: SearchService | None = None) -> Flask:
    """Make the WSGI application over `service`, or over the collection that `settings` name.

    Raises `SettingsError`, and what `search.open_service` raises for a collection that cannot be used.
    """
    if service is None:
        service = open_service(load_settings() if settings is None else settings)
        atexit.register(service.close)
    app = Flask(__name__)
    app.request_class = requested.InMemoryRequest
    limit = service.settings.upload_max_bytes
    app.config.update(UPLOAD_MAX_BYTES=limit, MAX_CONTENT_LENGTH=limit + api.MULTIPART_OVERHEAD_BYTES)
    app.extensions[requested.EXTENSION] = service
    app.jinja_env.filters.update(
        filesize=_filesize, data_uri=_data_uri, percent=_percent, share=_share, similarity=_similarity
    )
    app.register_blueprint(pages)
    app.register_blueprint(api.api)
    for view in (web.groups, web.duplicates, web.map, web.tags):
        app.register_blueprint(view.pages)
        app.register_blueprint(view.api)
    app.register_error_handler(Exception, _answer_error)
    app.after_request(_finish_headers)
    return app


@cache
def _application() -> Flask:
    return create_app()


def __getattr__(name: str) -> Flask:
    if name == "app":
        return _application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _finish_headers(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if "Cache-Control" not in response.headers:
        # Ids mean other images after a collection was made anew, so every copy is asked about before it is shown again;
        # "no-store" would be stricter, but then going back to a page of results would ask to send the picture again.
        response.headers["Cache-Control"] = "private, no-cache"
    return response


# Errors: which status an exception has stands in api.py; here is how it looks.


@dataclass(frozen=True)
class Help:
    """What an error page says besides the message."""

    title: str
    advice: str
    upload: bool = False


_HELP: Mapping[str, Help] = {
    "bad_request": Help("That did not work", "Choose a picture and try again.", upload=True),
    "bad_query": Help("That did not work", "Choose a picture and try again.", upload=True),
    "bad_option": Help("That did not work", "Go back and choose otherwise."),
    "bad_note": Help("That is no name or tag", "Go back and write it otherwise."),
    "edit_refused": Help("That is not allowed here", "Ask whoever runs this service."),
    "no_network": Help("Pictures cannot be searched with here", "Begin with an image of the collection."),
    "no_original": Help("There is no file", "Only its vector and what is known of it were brought here."),
    "empty_file": Help(
        "That file is empty", "It may not have been copied to its end. Choose another one.", upload=True
    ),
    "damaged_image": Help(
        "That picture is damaged",
        "It begins as a picture but cannot be read to its end. Copy or save it again, or choose another one.",
        upload=True,
    ),
    "not_an_image": Help(
        "That is not a picture",
        "Only what is inside the file counts, not its name. Save it as JPEG or PNG, or choose another one.",
        upload=True,
    ),
    "too_many_bytes": Help("That file is too large", "A copy 2,000 pixels wide finds the same.", upload=True),
    "too_many_pixels": Help("That picture is too large", "A copy 2,000 pixels wide finds the same.", upload=True),
    "too_many_frames": Help("That picture is too long", "Save one of its frames as a picture of its own.", upload=True),
    "unknown_image": Help(
        "No such image", "It may have left the collection since. Search with a picture instead.", upload=True
    ),
    "original_gone": Help("The file is gone", "When it is back, or moved for good, index again:"),
    "no_collection": Help("Nothing to search yet", "Index your photographs, then reload this page:"),
    "empty_collection": Help("Nothing to search yet", "Index your photographs, then reload this page:"),
    "no_view": Help("Not computed yet", "Compute it, then reload this page."),
    "not_found": Help("There is no such page", "Start from a picture.", upload=True),
    "method_not_allowed": Help("That does not work here", "Start from a picture.", upload=True),
}
_OTHER_HELP = Help("Something went wrong", "Try again in a moment.")
_INDEX_FIRST = ("original_gone", "no_collection", "empty_collection")


def _answer_error(error: Exception) -> Response | HTTPException:
    if isinstance(error, HTTPException) and (error.code is None or error.code < 400):
        return error  # a redirect
    problem = api.problem_of(error)
    if problem.status >= 500 and not isinstance(error, api.EXPECTED_UNAVAILABLE):
        current_app.logger.error("%s %s failed: %s", request.method, request.path, error, exc_info=error)
    as_json = api.is_api_path(request.path)
    response = jsonify(problem.as_json()) if as_json else make_response(_error_page(problem))
    response.status_code = problem.status
    if isinstance(error, HTTPException):  # Allow of a 405, Content-Range of a 416
        response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    if problem.status == 503:
        response.headers["Retry-After"] = str(api.RETRY_AFTER_S)
    return response


def _error_page(problem: api.Problem) -> str:
    settings = requested.service().settings
    return render_template(
        "error.html",
        problem=problem,
        help=_HELP.get(problem.code, _OTHER_HELP),
        index_first=problem.code in _INDEX_FIRST,
        other_folder=settings.rsc_files != Settings.rsc_files,
        **_form(),
    )


# Pages.


_ORDERS: Mapping[str, str] = {"kind": "same kind", "plain": "same picture"}
_CONDITIONS: Mapping[str, str] = {
    "folder": "folder {}",
    "label": "label {}",
    "tag": "tagged {}",
    "looks_like": "looks like {}",
    "taken_from": "taken from {}",
    "taken_until": "until {}",
    "min_side": "at least {} pixels",
    "max_side": "at most {} pixels",
    "orientation": "{}",
}


@dataclass(frozen=True)
class Choice:
    """One of several searches that a page leads to: what it is called, and what its address says."""

    text: str
    given: Mapping[str, object]
    chosen: bool


def _form(k: int | str | None = None, ranking: str | None = None) -> dict[str, object]:
    """Return what `_upload.html` and the choice of k need."""
    service = requested.service()
    settings = service.settings
    usual = min(settings.results, settings.max_results)
    choices = {choice for choice in K_CHOICES if choice <= settings.max_results} | {usual}
    return {
        "k": k or usual,
        "k_choices": sorted(choices | ({k} if isinstance(k, int) else set())),
        "orders": {name: _ORDERS[name] for name in service.rankings},
        "ranking": ranking,
        "upload_max_bytes": settings.upload_max_bytes,
        "upload_refusal": service.upload_refusal,
        "kept_minutes": settings.kept_minutes,
    }


def _results(answer: api.Answer) -> dict[str, object]:
    """Return what a page of results needs. `kept` is what the addresses it leads to say besides k."""
    query = answer.query
    order = {} if query.ranking in (None, requested.service().rankings[0]) else {"ranking": query.ranking}
    where = _conditions(query.where)
    return {
        "found": answer.found,
        "truncated": answer.truncated,
        "good_until": _good_until(answer.found),
        "where": [_CONDITIONS[name].format(value) for name, value in where.items()],
        "order": order,
        "kept": where | order,
        "status": requested.service().status(),
        **_form(api.asked_k(query), answer.found.ranking),
    }


def _conditions(where: Filter | None) -> dict[str, object]:
    return {} if where is None else {name: value for name, value in asdict(where).items() if value is not None}


def _good_until(found: SearchResult) -> int | None:
    """Return after how many matches the last good one has come, in whatever order they are; None where that is not known."""
    if not found.good_matches:
        return found.good_matches
    similarities = [match.similarity for match in found.matches]
    least = sorted(similarities, reverse=True)[found.good_matches - 1]
    return max(place for place, similarity in enumerate(similarities, start=1) if similarity >= least)


def _among(shown: ImageInfo, where: Filter | None) -> list[Choice]:
    """Return among which images the page of one image can search: all, those of its folder, label or tags, the chosen ones."""
    now = _conditions(where)
    offered: list[dict[str, object]] = [{}]
    if shown.folder:
        offered.append({"folder": shown.folder})
    if shown.label and shown.label != shown.folder:
        offered.append({"label": shown.label})
    offered += [{"tag": tag} for tag in shown.tags]
    if now not in offered:
        offered.append(now)
    texts = [", ".join(_CONDITIONS[name].format(value) for name, value in given.items()) for given in offered]
    return [Choice(text or "all", given, given == now) for text, given in zip(texts, offered, strict=True)]


@pages.get("/")
def index() -> str:
    """Show the form, in one line what is searched, and some of its images to begin with."""
    service = requested.service()
    shown = service.some_images(STARTING_POINTS)
    return render_template("index.html", status=service.status(), some=shown, **_form())


@pages.get("/search")
def search() -> ResponseReturnValue:
    """Show the images nearest to what the address names: images, kept uploads, or some of each. Of nothing, lead to the form."""
    fields = requested.request_fields()
    if not fields.keys() & {"like", "image_id"}:
        return redirect(url_for("pages.index"))
    return render_template("results.html", **_results(api.ask(fields)))


@pages.post("/search")
def take_uploads() -> ResponseReturnValue:
    """Look at the pictures that came, keep what may be kept of them, and lead to the address of their results."""
    fields = requested.request_fields()
    requested.wanted_k(fields)
    keys = [
        requested.service().keep_upload(requested.content_of(file), requested.wanted_box(fields))
        for file in requested.wanted_uploads()
    ]
    said: dict[str, Any] = {
        name: values for name, values in fields.items() if name in requested.SEARCH_FIELDS and name != "box"
    }
    return redirect(url_for("pages.search", **{**said, "like": [*fields.get("like", ()), *keys]}), 303)


@pages.get("/uploads/<key>/thumbnail")
def upload_thumbnail(key: str) -> Response:
    """Send the small picture that is kept of an upload."""
    content = requested.service().kept_upload(key).thumbnail
    return _revalidated(send_file(BytesIO(content), mimetype="image/jpeg", etag=_hash(content)))


@pages.get("/images/<image_id>")
def image(image_id: str) -> str:
    """Show one image of the catalog, what is known of it, and its nearest images."""
    fields = requested.request_fields()
    shown = requested.service().image(requested.image_id_of_path(image_id))
    box = requested.wanted_box(fields)
    answer = api.ask(fields, (Example(shown.image_id, box),))
    return render_template(
        "image.html",
        image=shown,
        group=web.groups.group_of_image(shown.image_id),
        copies=web.duplicates.copies_of(shown.image_id),
        has_map=web.map.has_map(),
        may_edit=requested.service().settings.edits_allowed,
        box=box,
        box_text=None if box is None else ",".join(f"{edge:g}" for edge in astuple(box)),
        among=_among(shown, answer.query.where),
        **_results(answer),
    )


@pages.get("/healthz")
def healthz() -> Response:
    """Say that the process is alive."""
    return jsonify({"status": "alive"})


@pages.get("/readyz")
def readyz() -> Response:
    """Say whether searches can be answered, and over what."""
    return api.status_json()


# Files of the catalog: by id, with a type that comes from their contents as indexed, never from their names.


@dataclass(frozen=True)
class FileType:
    """How a format is sent; `shown` when browsers show it as it is."""

    mimetype: str
    suffixes: tuple[str, ...]
    shown: bool


_FILE_TYPES: Mapping[str, FileType] = {
    "JPEG": FileType("image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), shown=True),
    "PNG": FileType("image/png", (".png", ".apng"), shown=True),
    "WEBP": FileType("image/webp", (".webp",), shown=True),
    "GIF": FileType("image/gif", (".gif",), shown=True),
    "AVIF": FileType("image/avif", (".avif",), shown=True),
    "BMP": FileType("image/bmp", (".bmp", ".dib"), shown=False),
    "TIFF": FileType("image/tiff", (".tif", ".tiff"), shown=False),
    "JPEG2000": FileType("image/jp2", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), shown=False),
    "HEIF": FileType("image/heif", (".heic", ".heif", ".hif"), shown=False),
}
_UNKNOWN_TYPE = FileType("application/octet-stream", (".bin",), shown=False)


@pages.get("/images/<image_id>/thumbnail")
def thumbnail(image_id: str) -> Response:
    """Send the thumbnail made when the image came, or a placeholder where there is none."""
    content = requested.service().thumbnail(requested.image_id_of_path(image_id))
    if content is None:
        return _revalidated(current_app.send_static_file("no-picture.svg"))
    response = send_file(BytesIO(content), mimetype="image/jpeg", etag=_hash(content))
    return _revalidated(response)


@pages.get("/images/<image_id>/view")
def view(image_id: str) -> Response:
    """Send the full picture in a form that browsers show."""
    path, shown = _original(image_id)
    file_type = _FILE_TYPES.get(shown.format, _UNKNOWN_TYPE)
    if file_type.shown:
        return _send_original(path, shown, as_attachment=False)
    etag = _version(path, shown) + "-view"
    content = b"" if etag in request.if_none_match else _reencode(path)  # of b"", send_file makes a 304
    name = _file_name(shown, (".jpg",))
    return _revalidated(send_file(BytesIO(content), mimetype="image/jpeg", download_name=name, etag=etag))


@pages.get("/images/<image_id>/original")
def original(image_id: str) -> Response:
    """Send the file itself, to be saved."""
    path, shown = _original(image_id)
    return _send_original(path, shown, as_attachment=True)


def _original(image_id: str) -> tuple[bytes, ImageInfo]:
    return requested.service().original(requested.image_id_of_path(image_id))


def _send_original(path: bytes, shown: ImageInfo, *, as_attachment: bool) -> Response:
    file_type = _FILE_TYPES.get(shown.format, _UNKNOWN_TYPE)
    etag = _version(path, shown)
    try:
        response = send_file(
            os.fsdecode(path),
            mimetype=file_type.mimetype,
            as_attachment=as_attachment,
            download_name=_file_name(shown, file_type.suffixes),
            etag=etag,
        )
    except OSError as error:
        raise OriginalGoneError(f"The file of image {shown.image_id} cannot be opened: {error}") from error
    return _revalidated(response)


def _version(path: bytes, shown: ImageInfo) -> str:
    """Return an ETag that changes when the file does."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise OriginalGoneError(f"The file of image {shown.image_id} is gone: {error}") from error
    return f"{shown.image_id:x}-{stat.st_size:x}-{stat.st_mtime_ns:x}"


def _reencode(path: bytes) -> bytes:
    """Return the picture as JPEG of at most `VIEW_MAX_SIDE` pixels a side."""
    settings = requested.service().settings
    limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, max_frames=settings.max_frames)
    try:
        with open(path, "rb") as file:
            return make_thumbnail(decode_image(file, limits, min_side=VIEW_MAX_SIDE).image, VIEW_MAX_SIDE)
    except (OSError, ImageError) as error:
        raise OriginalGoneError(f"{os.fsdecode(path)!r} can no longer be read: {error}") from error


def _revalidated(response: Response) -> Response:
    """Let browsers keep a copy and ask each time whether it is still true; `send_file` says "no-cache" to proxies as well."""
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _hash(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def _file_name(shown: ImageInfo, suffixes: tuple[str, ...]) -> str:
    """Return a name to save under: no separators or control characters, and a suffix that fits the contents."""
    safe = "".join(c for c in shown.name if unicodedata.category(c)[0] != "C")
    safe = safe.translate(str.maketrans('/\\:*?"<>|', "_________")).strip(" .")[-150:]
    if not safe.lower().endswith(suffixes):
        safe = (safe or f"image-{shown.image_id}") + suffixes[0]
    return safe


# What templates need besides their values.


def _filesize(size: int) -> str:
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB"):
        if amount >= 999.5:
            amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"


def _data_uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")


def _percent(score: float) -> str:
    return f"{score:.0%}"


def _similarity(cosine: float) -> str:
    return f"{round(cosine, 2) + 0.0:.2f}"  # + 0.0: no "-0.00"


def _share(share: float) -> str:
    """Return a share as percent, never rounded up: 0.99978 is 99.97 %, and nothing is closer than 100 %."""
    decimals = 2 if share >= 0.99 else 0
    floored = math.floor(min(share, 0.9999) * 100 * 10**decimals + 1e-6) / 10**decimals
    return f"{floored:.{decimals}f} %"


if __name__ == "__main__":
    import sys

    from commands.serve import main

    sys.exit(main(sys.argv[1:]))
