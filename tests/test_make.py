"""The two commands: what `make run` starts, what it installs, and that everything it installs has an exact version.

A stand-in for `.venv/bin/python` writes down how it was called; nothing is installed or served.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from config import ROOT
from tests.conftest import skip_or_fail

STAND_IN = """#!/bin/bash
if [[ $1 == -c ]]; then echo rsc_files; exit; fi
[[ $1 == samples.py ]] && mkdir "$2"
[[ $1 == img2vec.py ]] && touch rsc_files/catalog.sqlite
printf '%s|' "$@" >> calls; echo >> calls
if [[ $* == *annoy && -e no-compiler ]]; then echo "error: no C++ compiler" >&2; exit 1; fi
# What a pip would read, before the pipe it comes through is gone.
while [[ $# -gt 0 ]]; do [[ $1 == -r ]] && cat "$2" >> read; shift; done
exit 0
"""
REQUIREMENT_FILES = [ROOT / "requirements.txt", *sorted((ROOT / "requirements").glob("*.txt"))]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="There is no make; `apt-get install make`.")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of what make reads, with a stand-in for the interpreter."""
    for name in ("Makefile", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "rsc_files").mkdir()
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "pip").touch()
    (folder / "python").write_text(STAND_IN)
    (folder / "python").chmod(0o755)
    return tmp_path


@pytest.fixture
def make(project: Path) -> Callable[..., tuple[list[str], str]]:
    """Return a function that runs make and returns the interpreter's calls and what was printed."""

    def run(*arguments: str) -> tuple[list[str], str]:
        (project / "calls").unlink(missing_ok=True)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        finished = subprocess.run(
            ["make", *arguments], cwd=project, env=inherited, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        calls = (project / "calls").read_text().splitlines() if (project / "calls").exists() else []
        return calls, finished.stdout

    return run


def without_installing(calls: list[str]) -> list[str]:
    return [call for call in calls if not call.startswith("-m|pip")]


def test_help_lists_every_task_and_is_what_make_alone_does(make: Callable[..., tuple[list[str], str]]) -> None:
    tasks = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[0].split()
    _, printed = make()
    assert [line.split()[1] for line in printed.splitlines()] == tasks


def test_without_images_the_samples_are_made_once_indexed_and_served(
    make: Callable[..., tuple[list[str], str]],
) -> None:
    calls, _ = make("run")
    assert without_installing(calls) == ["samples.py|sample_images|", "img2vec.py|--views|sample_images|", "app.py|"]
    calls, _ = make("run")
    assert calls == ["img2vec.py|--views|sample_images|", "app.py|"]


def test_a_pattern_reaches_the_indexing_job_as_it_was_written(make: Callable[..., tuple[list[str], str]]) -> None:
    calls, _ = make("run", 'IMAGES=-my $(photos) it\'s "x"/**/*.jpg')
    assert without_installing(calls)[0] == 'img2vec.py|--views|--|-my $(photos) it\'s "x"/**/*.jpg|'


def test_the_samples_leave_the_collection_when_other_images_come(make: Callable[..., tuple[list[str], str]]) -> None:
    make("run")
    calls, _ = make("run", "IMAGES=mirflickr/*")
    assert calls == ["img2vec.py|--views|--remove|sample_images|--|mirflickr/*|", "app.py|"]
    calls, _ = make("run", "IMAGES=more/*")
    assert calls == ["img2vec.py|--views|--|more/*|", "app.py|"]


def test_samples_are_never_added_to_a_collection_that_a_person_made(
    make: Callable[..., tuple[list[str], str]], project: Path
) -> None:
    (project / "rsc_files" / "catalog.sqlite").touch()
    calls, _ = make("run")
    assert without_installing(calls) == ["app.py|"]


def test_nothing_is_installed_again_until_a_requirement_changes(
    make: Callable[..., tuple[list[str], str]], project: Path
) -> None:
    assert any(call.startswith("-m|pip") for call in make("install")[0])
    assert make("install")[0] == []
    stamp = project / ".venv" / "core.stamp"
    later = stamp.stat().st_mtime + 10
    os.utime(project / "constraints.txt", (later, later))
    assert any(call.startswith("-m|pip") for call in make("install")[0])


def test_without_a_compiler_usearch_takes_the_place_of_annoy_and_set_up_says_so(
    make: Callable[..., tuple[list[str], str]], project: Path
) -> None:
    (project / "no-compiler").touch()
    _, printed = make("install")
    assert "Annoy could not be compiled" in printed
    assert "Going on with usearch in its place." in printed
    wanted = requirement_names((project / "read").read_text())
    assert "usearch" in wanted
    assert wanted - {"usearch"} == requirement_names((ROOT / "requirements.txt").read_text()) - {"annoy"}


def requirement_names(text: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*)", text, re.M))


@pytest.mark.parametrize("path", REQUIREMENT_FILES, ids=lambda path: str(path.name))
def test_every_requirement_has_an_exact_version(path: Path) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==[0-9a-z.]+(?:$|;)", (ROOT / "constraints.txt").read_text(), re.M))
    assert requirement_names(path.read_text()) <= pinned


def test_continuous_integration_runs_the_test_command_and_skips_nothing() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert script[-1] == "exec make test"
    assert "export LOOKALIKE_REQUIRE_BROWSER=1 LOOKALIKE_REQUIRE_SHARED_DATA=1" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_what_is_missing_is_a_skip_and_where_it_is_required_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOKALIKE_REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="There is no Chromium"):
        skip_or_fail("There is no Chromium.", "LOOKALIKE_REQUIRE_BROWSER")
    monkeypatch.setenv("LOOKALIKE_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="LOOKALIKE_REQUIRE_BROWSER=1 makes this a failure"):
        skip_or_fail("There is no Chromium.", "LOOKALIKE_REQUIRE_BROWSER")
