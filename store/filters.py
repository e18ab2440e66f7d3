"""Which images a search may answer with: conditions on the catalog, as SQL.

Owns the conditions and their checks. Does not own searching: whoever searches asks for the ids first and cuts afterwards.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from errors import QueryError

Orientation = Literal["landscape", "portrait", "square"]

_SHAPES: Mapping[str, str] = {"landscape": "width > height", "portrait": "width < height", "square": "width = height"}
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d)?)?)?)?", re.ASCII)
MOST_WORDS = 16
SURE = 0.2
"""The least score of a class for words to find it: what is below is a guess."""
_FIRST_MOMENT = "0001-01-01T00:00:00"


@dataclass(frozen=True)
class Filter:
    """Images that meet every condition given; None is no condition. Raises `QueryError` naming a value that makes no sense.

    `folder`: an absolute path, or the name of a folder anywhere in the path; what lies in folders below counts as well.
    `label`: exactly this label. `tag`: this tag among those that people gave. `looks_like`: whole words of the name of a class
    that the network saw among its best. `taken_from`, `taken_until`: a year, month, day or time of day ("2019-08-03T12:01", or
    Python's `date` or `datetime` without a time zone), inclusive, in the camera's own time; images of unknown time meet neither.
    `min_side`: the shorter side has at least so many pixels; `max_side`: the longer one at most. `text`: words, each of which
    stands somewhere in the file's name, the label or a tag, or is a whole word of what the network is fairly sure to have seen.
    """

    folder: str | None = None
    label: str | None = None
    tag: str | None = None
    looks_like: str | None = None
    taken_from: str | date | None = None
    taken_until: str | date | None = None
    min_side: int | None = None
    max_side: int | None = None
    orientation: Orientation | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        for name in ("folder", "label", "tag", "looks_like", "orientation", "text"):
            _check_text(name, getattr(self, name))
        for name in ("taken_from", "taken_until"):
            object.__setattr__(self, name, _time(name, getattr(self, name)))
        for name in ("min_side", "max_side"):
            object.__setattr__(self, name, _side(name, getattr(self, name)))
        if self.min_side is not None and self.max_side is not None and self.min_side > self.max_side:
            raise QueryError(f"min_side is {self.min_side}, which is more than max_side, {self.max_side}.")
        if self.orientation is not None and self.orientation not in _SHAPES:
            raise QueryError(f"The orientation is {self.orientation[:40]!r}, but must be one of: {', '.join(_SHAPES)}.")
        if self.taken_from and self.taken_until and str(self.taken_from) > f"{self.taken_until}~":
            raise QueryError(f"taken_from is {self.taken_from}, which is after taken_until, {self.taken_until}.")
        if self.folder is not None and not self.folder.strip("/"):
            raise QueryError(f"The folder is {self.folder!r}, but must be a name or a path.")
        if self.text is not None and not 1 <= len(self.words) <= MOST_WORDS:
            raise QueryError(f"The text has {len(self.words)} words, but must have 1 to {MOST_WORDS}.")

    @property
    def words(self) -> list[str]:
        """Return the words of `text`, as they are compared: without differences of case or of how letters are composed."""
        return folded(self.text or "").split()


def _check_text(name: str, text: object) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise QueryError(f"{name} is {text!r:.40}, but must be text.")
    try:
        text.encode("utf-8", "surrogateescape" if name == "folder" else "strict")
    except UnicodeEncodeError:
        raise QueryError(f"The {name} is {ascii(text)[:40]}, which is no valid text.") from None


def _side(name: str, value: object) -> int | None:
    if value is None:
        return None
    try:
        side = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # what it tells
    except TypeError:
        side = 0
    if not 1 <= side < 2**63:
        raise QueryError(f"{name} is {value!r:.40}, but must be a whole number of at least 1 pixel.")
    return side


def _time(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, date):
        value = value.isoformat(timespec="seconds") if isinstance(value, datetime) else value.isoformat()
    text = value if isinstance(value, str) else ""
    try:
        valid = _TIME.fullmatch(text) is not None and datetime.fromisoformat(text + _FIRST_MOMENT[len(text) :])
    except ValueError:
        valid = False
    if not valid:
        raise QueryError(
            f"{name} is {value!r:.40}, but must be a date or a time such as 2019-08-03 or 2019-08-03T12:01."
        )
    return text


Condition = tuple[str, tuple[object, ...]]


def no_classes(words: str) -> tuple[int, ...]:
    """Say that no class is called `words`."""
    return ()


def folded(text: str) -> str:
    """Return text as it is compared: macOS writes an umlaut in the name of a file as two signs."""
    return unicodedata.normalize("NFC", text.casefold())


def written(path: bytes, label: str | None) -> str:
    """Return the name of a file and its label, folded, a line each: for SQL, whose LIKE knows the letters of ASCII alone."""
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    return folded(f"{name}\n{label or ''}")


def condition(where: Filter, key: str, classes: Callable[[str], Iterable[int]], *, has_notes: bool) -> Condition:
    """Return SQL over the table `images`, true for what `where` keeps, and its parameters; it calls the function `written`.

    `classes` returns the class indices that words stand for; they are looked up as the network of `key` saw them.
    `has_notes`: whether there is a table of tags.
    """
    found = [("error_code IS NULL", ()), *_conditions(where, key, classes)]
    if where.words:
        found.append(_said([_word(word, key, classes(word), has_notes=has_notes) for word in where.words]))
    return _all(found)


def _all(conditions: Iterable[Condition]) -> Condition:
    every = list(conditions)
    return " AND ".join(f"({sql})" for sql, _ in every), tuple(value for _, values in every for value in values)


def _said(words: Iterable[Condition]) -> Condition:
    """Return the condition that all `words` meet theirs, for which `said` is what is written of an image.

    LIMIT keeps SQLite from asking `written` anew for each word: sixteen that all images have took ten times as long as one.
    """
    sql, values = _all(words)
    return f"EXISTS (SELECT 1 FROM (SELECT written(path, label) AS said LIMIT 1) WHERE {sql})", values


def _word(word: str, key: str, classes: Iterable[int], *, has_notes: bool) -> Condition:
    seen, (key,) = _seen(key, classes)
    found = f"instr(said, ?) OR {seen} AND score >= {SURE})"
    if not has_notes:
        return found, (word, key)
    tagged = "image_id IN (SELECT image_id FROM tags WHERE instr(written(X'', tag), ?))"
    return f"{found} OR {tagged}", (word, key, word)


def _seen(key: str, classes: Iterable[int]) -> tuple[str, tuple[str]]:
    """Return the condition that one of `classes` was seen, but for its last bracket."""
    wanted = ",".join(str(int(number)) for number in classes)
    seen = "SELECT sha256 FROM predicted_labels JOIN vector_sets USING (set_id) WHERE key = ? AND class_index"
    return f"sha256 IN ({seen} IN ({wanted})", (key,)


def _conditions(where: Filter, key: str, classes: Callable[[str], Iterable[int]]) -> Iterator[Condition]:
    if where.folder is not None:
        yield _in_folder(where.folder)
    if where.label is not None:
        yield "label = ?", (where.label,)
    if where.tag is not None:
        yield "image_id IN (SELECT image_id FROM tags WHERE tag = ?)", (where.tag,)
    if where.looks_like is not None:
        seen, values = _seen(key, classes(where.looks_like))
        yield f"{seen})", values
    if where.taken_from is not None:
        yield "taken_at >= ?", (where.taken_from,)
    if where.taken_until is not None:
        yield (
            "taken_at <= ?",
            (f"{where.taken_until}~",),
        )  # sorts behind all that begins so: the whole day, the whole minute
    if where.min_side is not None:
        yield "MIN(width, height) >= ?", (where.min_side,)
    if where.max_side is not None:
        yield "MAX(width, height) <= ?", (where.max_side,)
    if where.orientation is not None:
        yield _SHAPES[where.orientation], ()


def _in_folder(folder: str) -> Condition:
    start = folder.rstrip("/").encode("utf-8", "surrogateescape") + b"/"
    begins = "SUBSTR(path, 1, ?) = ?"
    if folder.startswith("/"):
        return begins, (len(start), start)
    # Images that came without a file have paths that begin with a folder's name.
    return f"INSTR(path, ?) > 0 OR {begins}", (b"/" + start, len(start), start)
