"""A collection of drawings with everything that the API can be asked about: uploads, groups, duplicates, a map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search import SearchService
from store import open_writer
from tests.duplicated_collection import find, index, make_photos
from views.grouping import GroupOptions, build_groups
from views.map import MapOptions, build_map


@contextmanager
def described_service(folder: Path, **settings: Any) -> Iterator[SearchService]:
    """Make a collection with all views in `folder`, and give a service of it, by a network that is none."""
    with pytest.MonkeyPatch.context() as patch:
        made, _ = index(patch, make_photos(folder / "photos"), folder / "rsc")
        find(made)
        with open_writer(made.rsc_files, command="a test") as writer:
            generation = writer.generation()
            assert generation is not None
            build_map(writer, generation, MapOptions())
            generation = writer.generation()
            assert generation is not None
            build_groups(writer, generation, GroupOptions())
        service = SearchService(replace(made, run_folder=folder / "run", **settings))
        yield service
        service.close()
