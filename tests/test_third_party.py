"""Holds THIRD_PARTY.md to the libraries that are asked for, and to what of others lies in the repository."""

from __future__ import annotations

import re

import pytest

from config import ROOT

REQUIREMENT = re.compile(r"^([A-Za-z][\w.-]*)", re.MULTILINE)
STUBS = ("types-", "pandas-stubs", "pyarrow-stubs")
PAGE = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").casefold().replace("_", "-")
VENDORED = sorted(path for top in ("static", "tests") for path in (ROOT / top / "vendor").iterdir())


def asked_for() -> list[str]:
    """Return the libraries that the requirements name, but for types alone."""
    files = [ROOT / "requirements.txt", *(ROOT / "requirements").glob("*.txt")]
    names = {name.casefold() for file in files for name in REQUIREMENT.findall(file.read_text(encoding="utf-8"))}
    return sorted(name for name in names if not name.startswith(STUBS))


@pytest.mark.parametrize("name", asked_for())
def test_every_library_is_named(name: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(name.removesuffix('-cpu'))}(?![\w-])", PAGE)


@pytest.mark.parametrize("name", [path.name for path in VENDORED])
def test_what_lies_in_the_repository_is_named(name: str) -> None:
    assert f"vendor/{name}/" in PAGE


def test_what_lies_in_the_repository_has_its_licence() -> None:
    assert [path.name for path in VENDORED if not list(path.glob("LICENSE*"))] == []
