"""Runs every example of docs/api.md against a collection that is served, and holds the page to the addresses there are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, request

from app import create_app
from config import ROOT
from described import operations
from tests.described_collection import described_service
from tests.fakes import encoded, picture
from tests.serving import served

TOKEN = "open sesame"
PAGE = ROOT / "docs" / "api.md"
SHELL, PYTHON = "sh", "python"


def examples(language: str) -> list[str]:
    """Return the code of the page in one language, in its order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@dataclass
class Served:
    """A served collection, and who asked what of it with which answer."""

    application: Flask
    address: str
    folder: Path
    asked: list[tuple[str, str, str, int]] = field(default_factory=list)

    def note(self, response: Response) -> Response:
        rule = request.url_rule.rule if request.url_rule else request.path
        client = (request.user_agent.string or "").partition("/")[0]
        self.asked.append((client, request.method.lower(), rule, response.status_code))
        return response


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("documented")
    for number, name in enumerate(("photo.jpg", "other.jpg", "new-1.jpg", "new-2.jpg"), start=50):
        (folder / name).write_bytes(encoded(picture(number)))
    with described_service(folder, changes="on", edit_token=TOKEN) as service:
        application = create_app(service=service)
        with served(application) as address:
            site = Served(application, f"{address}/api/v1", folder)
            application.after_request(site.note)
            yield site


def test_every_line_for_the_shell_works(site: Served) -> None:
    curl = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }'
    program = "\n".join(["set -euo pipefail", curl, *examples(SHELL)])
    finished = subprocess.run(
        ["bash", "-c", program],
        cwd=site.folder,
        env={"PATH": "/usr/bin:/bin", "LOOKALIKE": site.address, "TOKEN": TOKEN},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2_000:] + finished.stderr


def test_every_line_of_python_works(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE", site.address)
    monkeypatch.chdir(site.folder)
    names: dict[str, Any] = {"requests": requests, "TOKEN": TOKEN}
    for example in examples(PYTHON):
        exec(compile(example, str(PAGE), "exec"), names)
        if "answer" in names:
            assert names["answer"].status_code < 400, f"{example}\n{names['answer'].text}"


@pytest.mark.parametrize("client", ["curl", "python-requests"])
def test_every_operation_has_an_example_that_works(site: Served, client: str) -> None:
    worked = {(method, rule) for who, method, rule, status in site.asked if who == client and status < 400}
    there = {(operation.method, operation.rule.rule) for operation in operations(site.application)}
    assert there - worked == set(), "operations without an example in docs/api.md"


def test_no_example_is_answered_with_an_error(site: Served) -> None:
    assert [asked for asked in site.asked if asked[3] >= 400] == []
