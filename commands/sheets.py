"""Contact sheets of `python ann.py`: where they go and what they are called. Does not own how one is drawn (`search.sheet`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from errors import SettingsError

if TYPE_CHECKING:
    from search import Query, SearchResult, SearchService

SHEETS = Path("contact_sheets")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg")
"""What nobody calls a folder."""


class Sheets:
    """Writes the contact sheet of each query: into the one file that was named, or a folder of one file a query."""

    def __init__(self, place: str | None, count: int) -> None:
        self._place = SHEETS if place is None else Path(place)
        self._is_file = self._place.suffix.lower() == ".png" and not self._place.is_dir()
        if self._place.suffix.lower() in PICTURE_SUFFIXES and not self._place.is_dir():
            raise SettingsError(
                f"--sheet {place}: contact sheets are PNG files. Name a .png file, or a folder for them."
            )
        if self._is_file and count > 1:
            raise SettingsError(
                f"--sheet {place} names one file, and there are {count:,} queries: name a folder for their sheets."
            )
        self._taken: set[str] = set()

    def write(self, service: SearchService, name: str, query: Query, answer: SearchResult) -> None:
        """Draw the sheet of one query, called `name`, and say where it is."""
        from search.sheet import printable, save_sheet, sheet_of

        path = self._place if self._is_file else self._place / self._file_name(name)
        save_sheet(sheet_of(service, query, answer, name), path)
        print(f"Contact sheet: {printable(str(path))}", file=sys.stderr)

    def _file_name(self, name: str) -> str:
        """Return a file's name for a query's sheet: no other one of this run has it, whatever the pictures are called."""
        stem = os.path.splitext(name)[0].replace("/", "_").encode()[:200].decode("utf-8", "ignore")
        number, file_name = 1, f"{stem}.png"
        while file_name.casefold() in self._taken:
            number += 1
            file_name = f"{stem}-{number}.png"
        self._taken.add(file_name.casefold())
        return file_name
