"""`/metrics`: what Prometheus asks about the service, counted over all its processes.

Owns the names of the measurements and how they add up. Does not own what is measured: requests (`access_log.py`), stages
(`search/stages.py`), the generation (`search/`). Where `PROMETHEUS_MULTIPROC_DIR` names a folder, as `commands/serve.py` sees to,
each process counts in files there and any of them answers for all; else this process answers for itself.
Source: prometheus_client, "Multiprocess Mode".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from flask import Blueprint, Flask, Response, current_app

from search import SearchService
from web.access_log import Served

if TYPE_CHECKING:
    from prometheus_client import Gauge

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
EXTENSION = "lookalike_metrics"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the buckets of seconds."""

pages = Blueprint("metrics", __name__)


class Metrics:
    """The measurements of one application. Thread-safe."""

    def __init__(self, service: SearchService) -> None:
        # Costs 70 ms, and asks for its folder when it is imported.
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._service = service
        self._registry = CollectorRegistry()
        where: Any = {"registry": self._registry, "namespace": "lookalike"}
        self._requests = Counter("requests", "Requests answered", ["route", "method", "status"], **where)
        self._problems = Counter("failures", "Requests answered with an error, by its code", ["code"], **where)
        self._seconds = Histogram(
            "request_seconds", "Seconds until an answer was ready", ["route"], buckets=SECONDS, **where
        )
        self._stages = Histogram(
            "stage_seconds", "Seconds of the stages of requests", ["stage"], buckets=SECONDS, **where
        )
        self._in_progress = self._gauge("requests_in_progress", "Requests that are being answered now", "livesum")
        self._generation = self._gauge("generation", "Oldest generation that a process answers from", "livemin")
        self._uploads = self._gauge("uploads_at_work", "Requests with pictures at the network or waiting", "livesum")
        self._images = self._gauge("images", "Images in the generation that is searched", "livemax")

    def _gauge(self, name: str, meaning: str, mode: Literal["livesum", "livemin", "livemax"]) -> Gauge:
        from prometheus_client import Gauge

        return Gauge(name, meaning, registry=self._registry, namespace="lookalike", multiprocess_mode=mode)

    def count(self, served: Served) -> None:
        """Count one answered request."""
        self._requests.labels(served.route, served.method, served.status).inc()
        self._seconds.labels(served.route).observe(served.seconds)
        for stage, taken in served.stages.items():
            self._stages.labels(stage).observe(taken)
        if served.problem is not None:
            self._problems.labels(served.problem).inc()
        self._in_progress.dec()
        self._uploads.set(self._service.uploads_at_work)
        if serving := self._service.serving:
            self._generation.set(serving[0])
            self._images.set(serving[1])

    def begin(self) -> None:
        """Count one request that is going to be answered."""
        self._in_progress.inc()
        self._uploads.set(self._service.uploads_at_work)

    def text(self) -> tuple[bytes, str]:
        """Return all measurements as Prometheus reads them, and their media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if FOLDER_VARIABLE in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST


def add_metrics(app: Flask, service: SearchService) -> Metrics:
    """Make the measurements of `app`, and the page that tells them."""
    metrics = Metrics(service)
    app.before_request(metrics.begin)
    app.extensions[EXTENSION] = metrics
    app.register_blueprint(pages)
    return metrics


@pages.get("/metrics")
def metrics() -> Response:
    """Tell Prometheus what was counted."""
    text, media_type = current_app.extensions[EXTENSION].text()
    return Response(text, content_type=media_type)
