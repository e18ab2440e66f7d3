"""The pages that a collection is browsed by: folders, dates, labels, tags, and what the network saw.

Owns which shelves a page shows and where they lead: to the search page, with a filter and nothing to be like. Does not own
counting (`store.shelves`) nor filters.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, render_template, url_for

import requested
from errors import OptionError
from networks import classes_of
from requested import request_fields, wanted_page, wanted_text
from search import ImageInfo
from store import Generation, Store
from store.shelves import Folder, Shelf, folder_tree, month_shelves, open_label_shelves, seen_shelves, tag_shelves

pages = Blueprint("browse_pages", __name__)

CARDS_A_PAGE = 60
CARDS_A_SECTION = 10


@dataclass(frozen=True)
class Card:
    """A shelf as a page shows it, and the address of what is on it."""

    title: str
    count: int
    images: Sequence[ImageInfo]
    address: str | None
    """None for a folder whose name is no text."""


@dataclass(frozen=True)
class Section:
    """One way to browse: its name in addresses, its title, its shelves, and how one becomes a card's title and address."""

    name: str
    title: str
    shelves: Sequence[Shelf]
    title_of: Callable[[Shelf], str]
    address_of: Callable[[Shelf], str]


# What there is.


def _shown_folders(store: Store, generation: Generation) -> Folder:
    return folder_tree(store)


def _months(store: Store, generation: Generation) -> list[Shelf]:
    return month_shelves(store)


def seen(store: Store, generation: Generation) -> list[Shelf]:
    """Open what the network saw, for `SearchService.opened`."""
    key = generation.manifest["vectors_key"]
    return seen_shelves(store, key, classes_of(store.manifest(key)))


def _uppermost() -> Folder:
    """Return the folder to begin in: the first with images of its own or several folders."""
    folder = requested.service().opened(_shown_folders)
    while len(folder.below) == 1 and not folder.own:
        folder = folder.below[0]
    return folder


def _folder(name: str | None) -> Folder:
    if name is None:
        return _uppermost()
    found = requested.service().opened(_shown_folders).find(name.strip("/"))
    if found is None:
        raise OptionError(f"No image of this collection lies in a folder {name[:80]!r}.")
    return found


def _sections(folder: Folder) -> Mapping[str, Section]:
    service = requested.service()
    found = (
        Section("folders", "Folders", [child.shelf for child in folder.below], _last_name, _folder_address(folder)),
        Section("dates", "Dates", service.opened(_months), _month_title, _month_address),
        Section("labels", "Labels", service.opened(open_label_shelves).now(), _whole_name, _search_by("label")),
        Section("tags", "Tags", tag_shelves(service.ready().store), _whole_name, _search_by("tag")),
        Section("seen", "What the network saw", service.opened(seen), _whole_name, _search_by("text")),
    )
    return {section.name: section for section in found}


def _whole_name(shelf: Shelf) -> str:
    return shelf.name


def _last_name(shelf: Shelf) -> str:
    return shown(shelf.name.rpartition("/")[2])


def _month_title(shelf: Shelf) -> str:
    year, month = shelf.name[:4], int(shelf.name[5:7] or 1)
    return f"{calendar.month_name[month]} {year}"


def shown(name: str) -> str:
    """Return the name of a folder as text, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# Where shelves lead.


def _search_by(field: str) -> Callable[[Shelf], str]:
    def address(shelf: Shelf) -> str:
        given: dict[str, Any] = {field: shelf.name}
        return url_for("search.found", **given)

    return address


def _month_address(shelf: Shelf) -> str:
    return url_for("search.found", taken_from=shelf.name, taken_until=shelf.name)


def _folder_address(folder: Folder) -> Callable[[Shelf], str]:
    """Lead to the folder's own page where there are others below it, else to its images."""
    parents = {child.shelf.name for child in folder.below if child.below}
    by_search = _search_by("folder")
    return lambda shelf: (
        url_for(".section", by="folders", folder=shelf.name) if shelf.name in parents else by_search(shelf)
    )


def _cards(section: Section, shelves: Sequence[Shelf]) -> list[Card]:
    infos = requested.service().images({image_id for shelf in shelves for image_id in shelf.image_ids})
    return [
        Card(
            section.title_of(shelf),
            shelf.count,
            [infos[image_id] for image_id in shelf.image_ids if image_id in infos],
            section.address_of(shelf) if _is_text(shelf.name) else None,
        )
        for shelf in shelves
    ]


def _is_text(name: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


# The pages.


@pages.get("/browse")
def index() -> str:
    """Show the first shelves of every way to browse the collection."""
    sections = dict(_sections(_uppermost()))
    if _said_of(sections["labels"]) == _said_of(sections["folders"]):
        del sections["labels"]  # given by folder: the same shelves twice
    firsts = [(section, _cards(section, _first(section))) for section in sections.values() if section.shelves]
    return render_template("browse.html", status=requested.service().status(), firsts=firsts)


def _said_of(section: Section) -> set[tuple[str, int]]:
    return {(section.title_of(shelf), shelf.count) for shelf in section.shelves}


def _first(section: Section) -> Sequence[Shelf]:
    """Return what a section begins with: its largest shelves, or its last months."""
    if section.name == "dates":
        return section.shelves[:CARDS_A_SECTION]
    return sorted(section.shelves, key=lambda shelf: -shelf.count)[:CARDS_A_SECTION]


@pages.get("/browse/<by>")
def section(by: str) -> str:
    """Show all shelves of one way to browse, a page of them; of folders, those in `folder`."""
    fields = request_fields()
    folder = _folder(wanted_text(fields, "folder"))
    sections = _sections(folder)
    if by not in sections:
        abort(404)
    chosen = sections[by]
    page = wanted_page(fields, len(chosen.shelves), CARDS_A_PAGE)
    return render_template(
        "browse.html",
        status=requested.service().status(),
        sections=[other for other in sections.values() if other.shelves or other is chosen],
        chosen=chosen,
        folder=folder if by == "folders" else None,
        above=_above(folder) if by == "folders" else [],
        years=_years(chosen.shelves) if by == "dates" else [],
        cards=_cards(chosen, chosen.shelves[page.places]),
        page=page,
        kept={"by": by} | ({"folder": folder.shelf.name} if by == "folders" and "folder" in fields else {}),
    )


def _above(folder: Folder) -> list[tuple[str, str]]:
    """Return the titles and paths of the folders above this one, the uppermost first, and its own."""
    parts = folder.shelf.name.split("/") if folder.shelf.name else []
    return [(shown(part), "/".join(parts[: number + 1])) for number, part in enumerate(parts)]


def _years(months: Iterable[Shelf]) -> list[tuple[str, int]]:
    """Return the years with their numbers of images, the last first."""
    counts: dict[str, int] = {}
    for month in months:
        counts[month.name[:4]] = counts.get(month.name[:4], 0) + month.count
    return list(counts.items())
