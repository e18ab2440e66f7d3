"""What to do with duplicates: which file of each set to keep, by a rule and by hand, as a plan that changes nothing.

Owns the rules, and plans as CSV or JSON: a row a file, so that a person can read it and change the column `action` in a
spreadsheet. A path that is no plain text (bytes that are not UTF-8, a line break, a blank at its end) is written as a `file://`
address (RFC 8089) and comes back to the byte; plain paths begin with `/`, so no cell can be taken for a formula. Does not own
what duplicates are (`duplicates.py`), nor moving files (`quarantine.py`).
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from duplicates import Group, Pairs
from errors import OptionError, PlanError
from store import Record
from tables import whole_file

KEEP, REMOVE = "keep", "remove"
FORMATS = ("csv", "json")
PLAN_VERSION = 1
SHOWN = 5
"""Files named in a message."""


@dataclass(frozen=True)
class DuplicateSet:
    """Images of which one is enough. `links`: (smaller id, larger id) -> (tier, what the second is of the first)."""

    tier: str
    records: tuple[Record, ...]
    links: Mapping[tuple[int, int], tuple[str, str]] = field(default_factory=dict)


def make_sets(groups: Iterable[Group], pairs: Pairs, records: Mapping[int, Record]) -> list[DuplicateSet]:
    """Return `groups` with what is known of their images; those that are not among `records` are left out."""
    links = {(pair.image_a, pair.image_b): (pair.tier, pair.relation) for pair in pairs}
    neighbours: dict[int, list[int]] = {}
    for a, b in links:
        neighbours.setdefault(a, []).append(b)
    sets = []
    for group in groups:
        members = [records[image_id] for image_id in group.image_ids if image_id in records]
        if len(members) > 1:
            ids = set(group.image_ids)
            own = {(a, b): links[a, b] for a in group.image_ids for b in neighbours.get(a, ()) if b in ids}
            sets.append(DuplicateSet(group.tier, tuple(members), own))
    return sets


def joined(sets: Sequence[DuplicateSet]) -> list[DuplicateSet]:
    """Return `sets` with those that share an image made one, in the order of their first: a file stands in a plan once."""
    found: list[DuplicateSet | None] = []
    place_of: dict[int, int] = {}
    for one in sets:
        met = sorted({place_of[record.image_id] for record in one.records if record.image_id in place_of})
        parts = [part for place in met if (part := found[place]) is not None] + [one]
        whole = {record.image_id: record for part in parts for record in part.records}
        links = {ids: link for part in parts for ids, link in part.links.items()}
        for place in met:
            found[place] = None
        place = met[0] if met else len(found)
        merged = DuplicateSet(parts[0].tier, tuple(whole.values()), links)
        if met:
            found[place] = merged
        else:
            found.append(merged)
        place_of.update(dict.fromkeys(whole, place))
    return [one for one in found if one is not None]


# Which one to keep.

LOSSLESS_FIRST = ("TIFF", "PNG", "BMP", "JPEG2000", "HEIF", "AVIF", "WEBP", "JPEG", "GIF")
"""Formats from the best on: what keeps every pixel, what may, what never does, and last what has 256 colours."""


def _pixels(record: Record) -> int:
    return (record.width or 0) * (record.height or 0)


def _format_place(record: Record) -> int:
    return LOSSLESS_FIRST.index(record.format) if record.format in LOSSLESS_FIRST else len(LOSSLESS_FIRST)


def _time(record: Record) -> str:
    """Return when the picture was taken, else when its file was last changed, as local time."""
    return record.taken_at or time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.mtime_ns // 10**9))


def _name_length(record: Record) -> int:
    return len(os.path.basename(record.path))


@dataclass(frozen=True)
class KeepRule:
    """A way to choose: the record of the smallest `key` is kept. `word` is what it is called, `fact` what it went by."""

    word: str
    text: str
    key: Callable[[Record], Any]
    fact: Callable[[Record], str]


def _size_fact(record: Record) -> str:
    sides = f"{record.width:,} × {record.height:,}, " if record.width and record.height else ""
    return f"{sides}{record.size:,} bytes"


RULES: Mapping[str, KeepRule] = {
    "largest": KeepRule(
        "largest", "the largest: most pixels, then most bytes", lambda r: (-_pixels(r), -r.size), _size_fact
    ),
    "oldest": KeepRule("oldest", "the oldest: when it was taken, else when the file was changed", _time, _time),
    "format": KeepRule(
        "best format", f"the best format: {', '.join(LOSSLESS_FIRST)}", _format_place, lambda r: r.format or "unknown"
    ),
    "shortest": KeepRule("shortest name", "the shortest name", _name_length, lambda r: f"{_name_length(r)} characters"),
}


@dataclass(frozen=True)
class Choice:
    """How to choose. `protect`: folders (absolute paths, or names anywhere in a path) whose files are never proposed for removal;
    `new`: where given, only files in these folders are proposed for removal. `keep` and `remove`: image ids that a person has
    decided, `keep` where both name one. Raises `OptionError`.
    """

    rule: str = "largest"
    protect: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    keep: frozenset[int] = frozenset()
    remove: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise OptionError(f"There is no rule {self.rule[:40]!r} of what to keep, there are: {', '.join(RULES)}.")
        if any(not folder.strip("/") for folder in self.protect):
            raise OptionError("A protected folder must have a name or a path.")


@dataclass(frozen=True)
class Decision:
    """What is to become of one image, and why; `by_hand` where a person decided otherwise than the rule."""

    record: Record
    action: str
    reason: str
    by_hand: bool = False


def decide(one: DuplicateSet, choice: Choice) -> list[Decision]:
    """Return what is to become of each image of a set, those to keep first, then as the rule prefers them.

    The rule decides; where it is even, more pixels, more bytes, the better format, the earlier time, the shorter name and path,
    at last the path itself. All images in a protected folder are kept, and where there is one, none else. A person's word comes
    first, image by image: what it keeps is kept beside what the rule keeps, unless that is named to be removed.
    """
    rule = RULES[choice.rule]
    order = sorted(one.records, key=lambda record: (rule.key(record), *_tie_break(record)))
    safe = {record.image_id: why for record in order if (why := _protection(record, choice))}
    usual = set(safe) or {order[0].image_id}
    wanted = {record.image_id for record in order} & choice.keep
    unwanted = ({record.image_id for record in order} & choice.remove) - wanted
    kept = (usual | wanted) - unwanted
    decisions = []
    for record in order:
        keeps, by_rule = record.image_id in kept, record.image_id in usual
        is_even = record is not order[0] and rule.key(record) == rule.key(order[0])
        reason = safe.get(record.image_id) or _reason(rule, keeps, record, is_even=is_even)
        by_hand = keeps is not by_rule
        action = KEEP if keeps else REMOVE
        decisions.append(Decision(record, action, "chosen by hand" if by_hand else reason, by_hand))
    return sorted(decisions, key=lambda decision: decision.action == REMOVE)


def _protection(record: Record, choice: Choice) -> str:
    """Return why an image is never proposed for removal, nothing where it may be."""
    if any(is_in_folder(record.path, folder) for folder in choice.protect):
        return "in a protected folder"
    is_old = choice.new and not any(is_in_folder(record.path, folder) for folder in choice.new)
    return "in the archive" if is_old else ""


def _tie_break(record: Record) -> tuple[Any, ...]:
    chain = tuple(RULES[name].key(record) for name in ("largest", "format", "oldest", "shortest"))
    return (*chain, len(record.path), record.path)


def _reason(rule: KeepRule, keeps: bool, record: Record, *, is_even: bool) -> str:
    place = "" if keeps else "even with the " if is_even else "not the "
    return f"{place}{rule.word}: {rule.fact(record)}"


def is_in_folder(path: bytes, folder: str) -> bool:
    """Tell whether a file lies in a folder or below it: an absolute path, or the name of one anywhere in the path."""
    start = os.fsencode(folder.rstrip("/")) + b"/"
    return path.startswith(start) if folder.startswith("/") else b"/" + start in path


# Plans.


@dataclass(frozen=True)
class PlanRow:
    """One file of a plan: what to do with it, and how it was when that was decided. `size` in bytes; `group` names its set.

    `tier` and `relation` say how it is related to the file of its set that is kept; `picture` is its format and sides.
    """

    group: str
    action: str
    path: bytes
    size: int
    mtime_ns: int
    sha256: bytes
    picture: str = ""
    reason: str = ""
    tier: str = ""
    relation: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do with the files of sets of duplicates. `left_out`: files that are gone, or others than were indexed."""

    rows: tuple[PlanRow, ...]
    left_out: tuple[bytes, ...] = ()

    @property
    def removed(self) -> list[PlanRow]:
        """The rows of files to be moved away."""
        return [row for row in self.rows if row.action == REMOVE]

    @property
    def bytes_won(self) -> int:
        """How many bytes the files to be moved away have."""
        return sum(row.size for row in self.removed)

    @property
    def groups(self) -> dict[str, list[PlanRow]]:
        """The rows of each set."""
        found: dict[str, list[PlanRow]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found


def make_plan(sets: Sequence[DuplicateSet], choice: Choice) -> Plan:
    """Return what `choice` makes of the sets. Looks at every file: a set of which fewer than two are as indexed is left out.

    Raises `OptionError` where nothing would be kept of a set.
    """
    rows: list[PlanRow] = []
    left_out: list[bytes] = []
    number = 0
    for one in joined(sets):
        there = tuple(record for record in one.records if is_as_indexed(record))
        ids = {record.image_id for record in there}
        left_out += [record.path for record in one.records if record.image_id not in ids]
        if len(there) < 2:
            continue
        decisions = decide(DuplicateSet(one.tier, there, one.links), choice)
        if decisions[0].action == REMOVE:
            names = ", ".join(path_text(decision.record.path) for decision in decisions[:SHOWN])
            raise OptionError(f"Nothing would be kept of {names}: keep at least one of them.")
        if decisions[-1].action == REMOVE:
            number += 1
            rows += _rows(str(number), one, decisions)
    return Plan(tuple(rows), tuple(left_out))


def _rows(group: str, one: DuplicateSet, decisions: Sequence[Decision]) -> Iterator[PlanRow]:
    kept = [decision.record.image_id for decision in decisions if decision.action == KEEP]
    for decision in decisions:
        record = decision.record
        tier, relation = (one.tier, "") if decision.action == KEEP else related(one, record.image_id, kept)
        sides = f" {record.width} × {record.height}" if record.width and record.height else ""
        yield PlanRow(
            group=group,
            action=decision.action,
            path=record.path,
            size=record.size,
            mtime_ns=record.mtime_ns,
            sha256=record.sha256 or b"",
            picture=f"{record.format or ''}{sides}",
            reason=decision.reason,
            tier=tier,
            relation=relation,
        )


# A mirroring undoes itself, however it is turned; so does what is not named here.
_UNDONE = {
    **{"turned 90° left": "turned 90° right", "turned 90° right": "turned 90° left"},
    **{"brighter": "darker", "darker": "brighter", "grey": "in colour", "in colour": "grey"},
}


def related(one: DuplicateSet, image_id: int, kept: Iterable[int]) -> tuple[str, str]:
    """Return tier and relation of an image to the first of the `kept` ones that it was compared with; else the set's tier.

    Links say what the second is of the first; where it is the other way round, the words are turned round.
    """
    for other in kept:
        link = one.links.get((min(image_id, other), max(image_id, other)))
        if link is not None:
            tier, words = link
            own = next(record.format for record in one.records if record.image_id == image_id)
            return tier, words if other < image_id else turned_round(words, own or "")
    return one.tier, ""


def turned_round(words: str, own_format: str) -> str:
    """Return what the first image, of format `own_format`, is of the second, given what the second is of the first."""
    parts = (f"as {own_format}" if part.startswith("as ") else _UNDONE.get(part, part) for part in words.split(", "))
    return ", ".join(parts)


def is_as_indexed(record: Record) -> bool:
    """Tell whether an image has a file that has the size and the time of its record."""
    if not record.has_file or record.sha256 is None:
        return False
    try:
        status = os.lstat(record.path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)


# Plans as files.

COLUMNS = ("group", "action", "path", "picture", "size", "reason", "tier", "relation", "mtime_ns", "sha256")
NEEDED = ("group", "action", "path", "size", "mtime_ns", "sha256")
# A spreadsheet rounds numbers of more than 15 digits; what ends in a word it leaves alone.
_NANOSECONDS = " ns"


def path_text(path: bytes) -> str:
    """Return a path as text that `text_path` turns back to the byte: as it is where it is plain, else as `file://` address."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    plain = text.startswith("/") and text.isprintable() and text == text.strip()
    return text if plain else "file://" + quote_from_bytes(path)


def text_path(text: str) -> bytes:
    """Return the path that `path_text` wrote; raises `ValueError` for what cannot be one."""
    path = unquote_to_bytes(text[7:]) if text.startswith("file://") else text.encode("utf-8")
    if not path.startswith(b"/") or b"\0" in path:
        raise ValueError(f"{text[:80]!r} is no absolute path")
    return path


def plan_bytes(plan: Plan, file_format: str) -> bytes:
    """Return a plan as a file of `FORMATS`. CSV begins with a byte order mark: spreadsheets take it for UTF-8 only then."""
    rows = [_cells(row) for row in plan.rows]
    if file_format == "json":
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        head = json.dumps({"plan_version": PLAN_VERSION})[:-1]
        return f'{head}, "files": [\n{lines}\n]}}\n'.encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return codecs.BOM_UTF8 + text.getvalue().encode()


def _cells(row: PlanRow) -> dict[str, Any]:
    cells = asdict(row)
    cells.update(path=path_text(row.path), sha256=row.sha256.hex(), mtime_ns=f"{row.mtime_ns}{_NANOSECONDS}")
    return {name: cells[name] for name in COLUMNS}


def plan_format(path: Path) -> str:
    """Return the format that a file's name asks for; raises `OptionError`."""
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in FORMATS:
        raise OptionError(f"A plan is a .csv or a .json file; {str(path)!r} is neither. Name another one.")
    return file_format


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan, whole or not at all. Raises `OptionError` for a name that is neither .csv nor .json, `ExportError`."""
    content = plan_bytes(plan, plan_format(path))
    with whole_file(path) as file:
        file.write(content)


def read_plan(path: Path) -> Plan:
    """Read a plan, however a person or a spreadsheet left it: other columns, orders, line ends, separators.

    Raises `PlanError` naming the row that cannot be read, a file that stands in it twice, a set of which nothing is kept.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlanError(f"The plan {path} cannot be read: {error.strerror or error}.") from error
    try:
        text = content.decode("utf-8-sig")
        cells = _json_cells(text) if text.lstrip()[:1] in ("{", "[") else _csv_cells(text)
        rows = tuple(_row(where, row) for where, row in cells)
    except UnicodeDecodeError as error:
        raise PlanError(
            f"The plan {path} is not in UTF-8 (at byte {error.start:,}). In a spreadsheet, save it as “CSV UTF-8”."
        ) from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise PlanError(f"The plan {path} cannot be read: {error}. Make it again, and change only `action`.") from error
    plan = Plan(rows)
    check_plan(plan)
    return plan


def _json_cells(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("plan_version") != PLAN_VERSION:
        raise ValueError(f'it is no JSON object with "plan_version": {PLAN_VERSION}')
    files = content.get("files")
    if not isinstance(files, list) or not all(isinstance(row, dict) for row in files):
        raise ValueError('its "files" are no list of objects')
    yield from ((f"file {number}", row) for number, row in enumerate(files, start=1))


def _csv_cells(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    head = text.partition("\n")[0]
    # Spreadsheets of many countries write semicolons, since the comma stands in their numbers.
    separator = max((",", ";", "\t"), key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in NEEDED if name not in reader.fieldnames]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    for row in reader:
        if any(value for value in row.values()):
            yield f"line {reader.line_num}", row


def _row(where: str, cells: Mapping[str, Any]) -> PlanRow:
    # What is no text came by a list in JSON, or by more cells in a line than there are columns.
    texts = {name: "" if cells.get(name) is None else str(cells[name]) for name in COLUMNS}
    action = texts["action"].strip().lower()
    if action not in (KEEP, REMOVE):
        raise ValueError(f"{where}: action is {texts['action'][:40]!r}, but must be {KEEP} or {REMOVE}")
    if not texts["group"].strip():
        raise ValueError(f"{where}: group is empty")
    try:
        row = PlanRow(
            group=texts["group"].strip(),
            action=action,
            path=text_path(texts["path"]),
            size=_whole(texts, "size"),
            mtime_ns=_whole(texts, "mtime_ns"),
            sha256=bytes.fromhex(texts["sha256"]),
            **{name: texts[name] for name in ("picture", "reason", "tier", "relation")},
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if len(row.sha256) != hashlib.sha256().digest_size:
        raise ValueError(f"{where}: sha256 has {len(row.sha256)} bytes, but must have 32")
    return row


def _whole(texts: Mapping[str, str], name: str) -> int:
    try:
        return int(texts[name].strip().removesuffix(_NANOSECONDS))
    except ValueError:
        raise ValueError(
            f"{name} is {texts[name][:40]!r}, but must be a whole number as it was written; a spreadsheet may have changed it"
        ) from None


def check_plan(plan: Plan) -> None:
    """Raise `PlanError` for a plan that contradicts itself: a file that stands in it twice, a set of which nothing is kept."""
    seen: set[bytes] = set()
    for row in plan.rows:
        if row.path in seen:
            raise PlanError(f"The plan names {path_text(row.path)} twice. Leave it in one row.")
        seen.add(row.path)
    lost = [group for group, rows in plan.groups.items() if all(row.action == REMOVE for row in rows)]
    if lost:
        raise PlanError(
            f"The plan would keep nothing of {len(lost):,} groups: {', '.join(lost[:SHOWN])}"
            f"{' …' if len(lost) > SHOWN else ''}. Write {KEEP} in one row of each."
        )
