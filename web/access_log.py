"""What is known of a request when it has been answered, and a line of JSON about it for whoever runs the service.

Owns the id of a request, its seconds and bytes, and what the line holds: never what was asked (no query, no name of a file, no
address of a client), only which route. Does not own where the lines go: they are records of the logger `lookalike.access`, which
`commands/serve.py` turns on where the output is no terminal.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask, Response, g, request

from search import stages

LOGGER = "lookalike.access"
UNKNOWN_ROUTE = "none"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_QUIET_ROUTES = frozenset(("/healthz", "/readyz", "/metrics"))
"""What machines ask every few seconds; counted, but not logged."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)


@dataclass(frozen=True)
class Served:
    """One answered request. `route` is the pattern of its address; `problem` the code of an error; `seconds` until the answer
    was ready to be sent, and `stages` those of its stages."""

    request_id: str
    method: str
    route: str
    status: int
    bytes: int
    seconds: float
    problem: str | None
    stages: Mapping[str, float]


def watch(app: Flask, *takers: Callable[[Served], None]) -> None:
    """Tell `takers` about each request that `app` answers. Call it before other hooks are set, so that it sees what they do."""

    def begin() -> None:
        g.began = time.perf_counter()
        g.request_id = _request_id()

    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        served = _served(response)
        for take in takers:
            take(served)
        return response

    app.before_request(begin)
    app.after_request(end)


def _request_id() -> str:
    """Return the id that a proxy gave the request, so that both logs name it alike, else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _served(response: Response) -> Served:
    return Served(
        request_id=g.request_id,
        method=request.method if request.method in _METHODS else "other",
        route=UNKNOWN_ROUTE if request.url_rule is None else request.url_rule.rule,
        status=response.status_code,
        bytes=0 if request.method == "HEAD" else response.content_length or 0,
        seconds=time.perf_counter() - g.began,
        problem=g.get("problem"),
        stages=stages.seconds(),
    )


def log(served: Served) -> None:
    """Write the line of one request."""
    logger = logging.getLogger(LOGGER)
    if served.route not in _QUIET_ROUTES and logger.isEnabledFor(logging.INFO):
        logger.info(line(served, datetime.now(UTC)))


def line(served: Served, now: datetime) -> str:
    """Return what the log says of a request that was answered `now`, as JSON without a line break."""
    said: dict[str, object] = {
        "time": now.isoformat(timespec="milliseconds"),
        "request_id": served.request_id,
        "method": served.method,
        "route": served.route,
        "status": served.status,
        "bytes": served.bytes,
        "seconds": round(served.seconds, 4),
    }
    if served.stages:
        said["stages"] = {stage: round(taken, 4) for stage, taken in served.stages.items()}
    if served.problem is not None:
        said["problem"] = served.problem
    return json.dumps(said)
