"""What is counted and logged of a request, and what is not."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from config import Settings
from search import stages
from tests.fakes import FakeService, encoded, picture
from web.access_log import LOGGER, Served, line


@pytest.fixture
def application(tmp_path: Path) -> Flask:
    return create_app(service=FakeService(tmp_path, Settings()))


def measured(application: Flask) -> dict[str, float]:
    """Return the value of each sample that `/metrics` tells."""
    text = application.test_client().get("/metrics").get_data(as_text=True)
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    }


def test_requests_are_counted_by_route_method_and_status(application: Flask) -> None:
    client = application.test_client()
    for path in ("/images/1", "/images/2", "/images/99", "/nowhere/at/all", "/nor/here"):
        client.get(path)
    client.open("/", method="BREW")
    found = measured(application)
    assert found['lookalike_requests_total{method="GET",route="/images/<image_id>",status="200"}'] == 2
    assert found['lookalike_requests_total{method="GET",route="/images/<image_id>",status="404"}'] == 1
    assert found['lookalike_requests_total{method="GET",route="none",status="404"}'] == 2
    assert found['lookalike_requests_total{method="other",route="none",status="405"}'] == 1
    assert found['lookalike_failures_total{code="unknown_image"}'] == 1
    assert found['lookalike_request_seconds_count{route="/images/<image_id>"}'] == 3


def test_stages_generation_and_what_goes_on_are_told(application: Flask) -> None:
    @application.get("/slow")
    def slow() -> str:
        stages.add("embed", 0.3)
        return ""

    application.test_client().get("/slow")
    found = measured(application)
    assert found['lookalike_stage_seconds_bucket{le="0.25",stage="embed"}'] == 0
    assert found['lookalike_stage_seconds_bucket{le="0.5",stage="embed"}'] == 1
    assert found["lookalike_generation"] == 1
    assert found["lookalike_images"] == 30
    assert found["lookalike_requests_in_progress"] == 1  # this one
    assert found["lookalike_uploads_at_work"] == 0


def test_every_answer_has_an_id_and_a_proxys_is_kept_if_it_is_one(application: Flask) -> None:
    client = application.test_client()
    ids = {client.get("/healthz").headers["X-Request-Id"] for _ in range(3)}
    assert len(ids) == 3
    assert (
        client.get("/healthz", headers={"X-Request-Id": "6d7742183174fa8e"}).headers["X-Request-Id"]
        == "6d7742183174fa8e"
    )
    for wrong in ("short", "x" * 65, 'quo"tes-and-more', "spaces in it"):
        assert client.get("/healthz", headers={"X-Request-Id": wrong}).headers["X-Request-Id"] != wrong


def test_a_line_says_what_happened_and_nothing_of_what_was_asked(
    application: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    client = application.test_client()
    client.get("/search?like=7&label=secret")
    client.post("/api/v1/search", data={"file": (BytesIO(encoded(picture(1))), "secret.jpg")})
    client.get("/images/secret")
    for quiet in ("/healthz", "/readyz", "/metrics"):
        client.get(quiet)
    said = [json.loads(record.getMessage()) for record in caplog.records if record.name == LOGGER]
    assert [(each["method"], each["route"], each["status"]) for each in said] == [
        ("GET", "/search", 200),
        ("POST", "/api/v1/search", 200),
        ("GET", "/images/<image_id>", 404),
    ]
    assert said[2]["problem"] == "unknown_image"
    assert min(each["bytes"] for each in said) > 0
    assert "secret" not in str(said)


def test_nothing_is_logged_unless_it_is_turned_on(application: Flask, caplog: pytest.LogCaptureFixture) -> None:
    application.test_client().get("/")
    assert [record for record in caplog.records if record.name == LOGGER] == []


def test_a_line_is_one_object_of_json() -> None:
    served = Served("0123456789abcdef", "POST", "/search", 503, 120, 0.123456, "overloaded", {"decode": 0.0312345})
    text = line(served, datetime(2026, 11, 21, 12, 30, 0, 5000, UTC))
    assert json.loads(text) == {
        "time": "2026-11-21T12:30:00.005+00:00",
        "request_id": "0123456789abcdef",
        "method": "POST",
        "route": "/search",
        "status": 503,
        "bytes": 120,
        "seconds": 0.1235,
        "stages": {"decode": 0.0312},
        "problem": "overloaded",
    }
    assert "\n" not in text
