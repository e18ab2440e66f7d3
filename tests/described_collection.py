"""A collection with everything that the API can be asked about: groups, duplicates, a map, uploads. No network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from config import Settings
from search import SearchService
from tests.grouped_collection import make_collection
from tests.test_web_map import build_views


@contextmanager
def make_described_collection(folder: Path, **settings: object) -> Iterator[SearchService]:
    """Make a collection with all views in `folder`, and give a service of it."""
    made = make_collection(folder)
    build_views(made)
    service = SearchService(replace(made, run_folder=folder / "run", **settings), load_network=False)  # type: ignore[arg-type]
    yield service
    service.close()
