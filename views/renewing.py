"""Bringing all views up to date after a job, as `python img2vec.py --views` does.

Owns which views have to be computed again, and with which options: those of the view that is there. Does not own any view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duplicates import DuplicateOptions
from publishing import View, is_by_another_projection, is_current, view_of
from store import Generation, StoreWriter
from views import duplicates, grouping, groups
from views import map as maps

MOVED_SHARE = 0.1
"""New images are placed on the map that is there, and nothing else moves, until they are more than this share of it."""


def renew_views(
    writer: StoreWriter, *, threads: int = 1, on_step: Callable[[str], None] = lambda step: None
) -> list[str]:
    """Compute those of groups, duplicates and map that are missing or older than the published vectors; return their names.

    `on_step` is called with what is begun. Nothing is done in an empty collection. Raises `DiskFullError`.
    """
    renewed = []
    for name, renew in (
        (groups.VIEW, _renew_groups),
        (duplicates.VIEW, _renew_duplicates),
        (maps.NAME, _renew_map),
    ):
        generation = writer.generation()
        if generation is None or not generation.manifest["images"]:
            return []
        view = view_of(generation, name)
        if view is None or _is_old(name, view, generation):
            renew(writer, generation, view, threads, on_step)
            renewed.append(name)
    return renewed


def _is_old(name: str, view: View, generation: Generation) -> bool:
    if is_current(generation, name, view):
        return False
    if name != maps.NAME or is_by_another_projection(generation, view):
        return True
    images: int = generation.manifest["images"]
    return abs(images - view.images) > MOVED_SHARE * view.images


def _renew_groups(
    writer: StoreWriter, generation: Generation, view: View | None, threads: int, on_step: Callable[[str], None]
) -> None:
    options = grouping.GroupOptions() if view is None else grouping.options_of(view)
    grouping.build_groups(writer, generation, options, on_step=on_step)


def _renew_duplicates(
    writer: StoreWriter, generation: Generation, view: View | None, threads: int, on_step: Callable[[str], None]
) -> None:
    said = set[str]()

    def show(step: str, done: int, total: int) -> None:
        if step not in said:
            said.add(step)
            on_step(f"{step} …")

    given: dict[str, Any] = {} if view is None else view.options
    duplicates.find_duplicates(writer, generation, DuplicateOptions(**given), on_progress=show)


def _renew_map(
    writer: StoreWriter, generation: Generation, view: View | None, threads: int, on_step: Callable[[str], None]
) -> None:
    options = (
        maps.MapOptions() if view is None else maps.MapOptions(tuple(view.options["layouts"]), view.options["seed"])
    )
    maps.build_map(writer, generation, options, threads=threads, on_step=on_step)
