"""The service: pages, files of the catalog by id, headers, error pages, and the factory.

Owns: everything HTTP that is not `/api/v1` (`api.py`) or a view of the whole collection (`web/`). Does not own: searching
(`search/`), decoding (`images.py`), the server process (`commands/serve.py`). Importing this module makes nothing;
`gunicorn app:app` asks for the attribute `app`, which is made then and once.
"""

from __future__ import annotations

import atexit
import functools
import math
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    before_render_template,
    current_app,
    g,
    jsonify,
    make_response,
    render_template,
    request,
    template_rendered,
    url_for,
)
from werkzeug.exceptions import BadRequest, HTTPException

import api
import guard
import requested
import web.access_log
import web.browse
import web.changes
import web.collection
import web.documented
import web.duplicates
import web.files
import web.groups
import web.images
import web.labels
import web.lists
import web.map
import web.metrics
import web.place
import web.search
import web.sheets
import web.signing
import web.tags
import web.why
from config import Settings, load_settings
from search import SearchService, open_service, places, stages

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# What is no page of ours, such as a picture that somebody goes to, loads and runs nothing.
_FILE_POLICY = (
    "default-src 'none'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": by that browsers would also say "Origin: null" of our own forms, and over plain HTTP that is all
    # there is to tell them from another site's.
    "Referrer-Policy": "same-origin",
    # Without it any site could show pictures of this service in its own pages.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=(), payment=(), usb=(), serial=()",
}
_HTTPS_ONLY = "max-age=31536000"

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
    app.config["UPLOAD_TIMEOUT_S"] = service.settings.upload_timeout_s
    app.extensions[requested.EXTENSION] = service
    app.jinja_env.filters.update(filesize=_filesize, percent=_percent, share=_share, similarity=_similarity)
    app.jinja_env.globals["url_for"] = _url_for
    for blueprint in (pages, web.signing.pages, web.search.pages, web.images.pages, web.files.pages):
        app.register_blueprint(blueprint)
    for blueprint in (web.browse.pages, web.collection.pages, web.place.pages):
        app.register_blueprint(blueprint)
    app.register_blueprint(api.api)
    for view in (web.groups, web.duplicates, web.map, web.tags, web.labels, web.why, web.changes):
        app.register_blueprint(view.pages)
        app.register_blueprint(view.api)
    for blueprint in (web.files.api, web.lists.api, web.documented.api, web.sheets.pages, web.sheets.api):
        app.register_blueprint(blueprint)
    app.register_error_handler(Exception, _answer_error)
    web.access_log.watch(app, web.metrics.add_metrics(app, service).count, web.access_log.log)
    app.before_request(stages.begin)
    app.before_request(_watch_client)
    before_render_template.connect(_begin_rendering, app)
    template_rendered.connect(_end_rendering, app)
    guard.protect(app, service.settings)
    app.after_request(_finish_headers)
    app.after_request(api.revalidate)
    return app


@functools.cache
def _application() -> Flask:
    return create_app()


def __getattr__(name: str) -> Flask:
    if name == "app":
        return _application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _watch_client() -> None:
    places.watch(functools.partial(_has_hung_up, request.environ.get("gunicorn.socket")))


def _has_hung_up(connection: socket.socket | None) -> bool:
    if connection is None or connection.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(connection, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def _url_for(endpoint: str, **values: Any) -> str:
    """Do for templates what Flask's own does, quicker for the images of a page."""
    if isinstance(values.get("image_id"), int):
        return api.address(values.pop("image_id"), endpoint, **values)
    return url_for(endpoint, **values)


def _begin_rendering(_: Flask, **__: object) -> None:
    g.rendering_since = time.perf_counter()


def _end_rendering(_: Flask, **__: object) -> None:
    stages.add("render", time.perf_counter() - g.rendering_since)


def _finish_headers(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    is_ours = response.mimetype == "text/html" or request.endpoint == "static"  # a worker's script obeys its own policy
    response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY if is_ours else _FILE_POLICY)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", _HTTPS_ONLY)
    if timing := stages.header():
        response.headers["Server-Timing"] = timing
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
    enough: bool = False  # the message would only say it again, in the words of the protocol


_HELP: Mapping[str, Help] = {
    "bad_request": Help("That did not work", "Go back and change it, or begin with a picture.", upload=True),
    "bad_query": Help("That did not work", "Go back and change it, or begin with a picture.", upload=True),
    "bad_option": Help("That did not work", "Go back and choose otherwise."),
    "bad_note": Help("That is no name or tag", "Go back and write it otherwise."),
    "bad_labels": Help("Nothing can be learnt from that", "Label more images, or mend their labels, and try again."),
    "unknown_host": Help("Not known by that name", "Go to it by its own address."),
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
    "decoding_stopped": Help(
        "That picture cannot be read", "Save it again as JPEG or PNG, or choose another one.", upload=True
    ),
    "upload_gone": Help("That picture is forgotten", "Choose it again, here.", upload=True),
    "too_slow": Help("That took too long to arrive", "A copy 2,000 pixels wide finds the same.", upload=True),
    "overloaded": Help("Too many pictures at once", "Wait a moment, then send it again.", upload=True),
    "unknown_image": Help(
        "No such image", "It may have left the collection since. Search with a picture instead.", upload=True
    ),
    "original_gone": Help("The file is gone", "When it is back, or moved for good, index again:"),
    "no_collection": Help("Nothing to search yet", "Index your photographs, then reload this page:"),
    "empty_collection": Help("Nothing to search yet", "Index your photographs, then reload this page:"),
    "collection_locked": Help("Another job is at work", "Wait until it has ended, go back and try again."),
    "bad_plan": Help("Files have changed since", "Nothing was moved. Load the page again."),
    "quarantine": Help("The files stay where they are", "Ask whoever runs this service."),
    "no_view": Help("Not computed yet", "Compute it, then reload this page."),
    "not_found": Help(
        "There is no such page", "Its address may be mistyped or old. Begin with a picture.", upload=True, enough=True
    ),
    "method_not_allowed": Help("That does not work here", "Begin with a picture.", upload=True, enough=True),
}
_OTHER_HELP = Help("Something went wrong", "Try again in a moment.")
_INDEX_FIRST = ("original_gone", "no_collection", "empty_collection")


def _answer_error(error: Exception) -> Response | HTTPException:
    if isinstance(error, HTTPException) and (error.code is None or error.code < 400):
        return error  # a redirect
    if type(error).__module__ == "gunicorn.http.errors":  # met where the body is read: chunks that are none
        error = BadRequest("The body of the request cannot be read to its end.")
    problem = api.problem_of(error)
    g.problem = problem.code
    if problem.status >= 500 and not isinstance(error, api.EXPECTED_UNAVAILABLE):
        current_app.logger.error("%s %s failed: %s", request.method, request.path, error, exc_info=error)
    as_json = api.is_api_path(request.path)
    response = jsonify(problem.as_json()) if as_json else make_response(_error_page(problem))
    if problem.status == 401:
        # Basic is taken as well, but not asked for: browsers would ask in a window of their own instead of showing the form.
        response.headers["WWW-Authenticate"] = 'Bearer realm="Lookalike"'
    response.status_code = problem.status
    if isinstance(error, HTTPException):  # Allow of a 405, Content-Range of a 416
        response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    if problem.status in (429, 503):
        response.headers["Retry-After"] = str(api.RETRY_AFTER_S)
    return response


def _error_page(problem: api.Problem) -> str:
    if not guard.visitor().may_see or problem.status in (401, 429):
        return web.signing.refusal(problem.message)
    settings = requested.service().settings
    return render_template(
        "error.html",
        problem=problem,
        help=_HELP.get(problem.code, _OTHER_HELP),
        index_first=problem.code in _INDEX_FIRST,
        other_folder=settings.rsc_files != Settings.rsc_files,
        **web.search.form(),
    )


@pages.get("/healthz")
def healthz() -> Response:
    """Say that the process is alive."""
    return jsonify({"status": "alive"})


@pages.get("/readyz")
def readyz() -> Response:
    """Say whether searches can be answered, and over what."""
    return api.status_json()


# What templates need besides their values.


def _filesize(size: int) -> str:
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB"):
        if amount >= 999.5:
            amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"


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
