"""All views at once: missing and old ones are computed, with the options they had; a map stays where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import Settings
from publishing import publish, view_of
from store import StoreWriter, open_writer
from tests.test_publishing import MANIFEST, add, current, published
from views.grouping import GroupOptions, build_groups
from views.map import open_map
from views.renewing import renew_views


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return published(tmp_path / "rsc")


def renewed_after_adding(writer: StoreWriter, settings: Settings, first: int, count: int) -> list[str]:
    """Add images, publish them, and return which views were renewed."""
    add(writer, first, count)
    publish(writer, MANIFEST.key, settings)
    return renew_views(writer)


def test_what_is_missing_or_old_is_computed_and_nothing_else(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        assert renew_views(writer) == ["groups", "duplicates", "map"]
        number = current(writer).number
        assert renew_views(writer) == []
        assert current(writer).number == number


def test_a_map_stays_where_it_is_until_many_images_came(settings: Settings) -> None:
    with open_writer(settings.rsc_files, command="test") as writer:
        renew_views(writer)
        before = open_map(writer, current(writer))
        assert renewed_after_adding(writer, settings, 31, 2) == ["groups", "duplicates"]
        after = open_map(writer, current(writer))
        assert after.placed.tolist() == [False] * 30 + [True] * 2
        assert (after.layouts["tsne"][:30] == before.layouts["tsne"]).all()
        assert renewed_after_adding(writer, settings, 33, 8) == ["groups", "duplicates", "map"]
        assert not open_map(writer, current(writer)).placed.any()


def test_views_keep_the_options_they_were_made_with(settings: Settings) -> None:
    wanted = GroupOptions(sim=0.25, min_size=3, raw=True, method="complete", times="stat", alpha=0.2)
    with open_writer(settings.rsc_files, command="test") as writer:
        build_groups(writer, current(writer), wanted)
        before = view_of(current(writer), "groups")
        assert "groups" in renewed_after_adding(writer, settings, 31, 1)
        after = view_of(current(writer), "groups")
    assert before is not None
    assert after is not None
    assert (after.options["sim"], after.options["min_size"], after.images) == (0.25, 3, 31)
    assert {**after.options["tree"], "made_of": 0} == {**before.options["tree"], "made_of": 0}


def test_an_empty_collection_has_no_views(tmp_path: Path) -> None:
    with open_writer(tmp_path / "rsc", command="test") as writer:
        assert renew_views(writer) == []
