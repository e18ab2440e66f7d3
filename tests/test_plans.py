"""Plans keep what their rule says and change nothing; they come back from a file, and from a spreadsheet, as they were."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplicates import BURST, IDENTICAL, SAME, Group, Pairs
from errors import LookalikeError, OptionError, PlanError
from plans import (
    RULES,
    Choice,
    Decision,
    DuplicateSet,
    Plan,
    PlanRow,
    check_plan,
    decide,
    joined,
    make_plan,
    make_sets,
    path_text,
    plan_bytes,
    read_plan,
    related,
    text_path,
    write_plan,
)
from store import Record

AWKWARD = (
    b"/p/=1+1.jpg",
    b"/p/\xff\xfe.jpg",
    b"/p/a\nb.jpg",
    b"/p/end ",
    b'/p/%41,;".jpg',
    "/p/été ☃.jpg".encode(),
    b"/p/file://x",
)
EARLY, LATE = 1_500_000_000 * 10**9, 1_600_000_000 * 10**9


def record(image_id: int, path: str | bytes, **given: object) -> Record:
    """A record of 10 × 10 pixels in 100 bytes of JPEG, unless something else is given."""
    usual = {
        "size": 100,
        "mtime_ns": LATE,
        "sha256": bytes([image_id]) * 32,
        "format": "JPEG",
        "width": 10,
        "height": 10,
    }
    return Record(os.fsencode(path), image_id=image_id, **{**usual, **given})  # type: ignore[arg-type]


def kept(decisions: list[Decision]) -> set[int]:
    return {decision.record.image_id for decision in decisions if decision.action == "keep"}


def set_of(*records: Record, tier: str = "same") -> DuplicateSet:
    return DuplicateSet(tier, records)


def row(path: bytes, action: str = "remove", group: str = "1", **given: object) -> PlanRow:
    usual = {"size": 5, "mtime_ns": 1_700_000_000_123_456_789, "sha256": b"\xab" * 32, "reason": "largest"}
    return PlanRow(group, action, path, **{**usual, **given})  # type: ignore[arg-type]


# Rules.


@pytest.mark.parametrize(
    ("rule", "better", "worse"),
    [
        ("largest", {"width": 20}, {"size": 900}),
        ("largest", {"size": 101}, {"mtime_ns": EARLY}),
        ("oldest", {"taken_at": "2001-01-01T00:00:00"}, {"mtime_ns": EARLY, "width": 99}),
        ("oldest", {"mtime_ns": EARLY}, {"taken_at": "2019-01-01T00:00:00"}),
        ("format", {"format": "TIFF"}, {"format": "PNG", "width": 99}),
        ("format", {"format": "PNG"}, {"format": "WEBP"}),
        ("format", {"format": "WEBP"}, {"format": "JPEG", "width": 99}),
        ("format", {"format": "JPEG"}, {"format": "GIF", "width": 99}),
        ("format", {"format": "GIF"}, {"format": None}),
    ],
)
def test_a_rule_keeps_what_it_is_called_after(rule: str, better: dict[str, object], worse: dict[str, object]) -> None:
    first, second = record(1, "/p/a.jpg", **worse), record(2, "/p/b.jpg", **better)
    for one in (set_of(first, second), set_of(second, first)):
        decisions = decide(one, Choice(rule))
        assert kept(decisions) == {2}
        assert decisions[0].record is second


def test_the_shortest_name_counts_without_its_folders() -> None:
    one = set_of(record(1, "/p/IMG_1 (2).jpg", width=99), record(2, "/a/long/way/down/IMG_1.jpg"))
    assert kept(decide(one, Choice("shortest"))) == {2}


@pytest.mark.parametrize("rule", RULES)
def test_where_a_rule_is_even_the_next_decides_and_at_last_the_path(rule: str) -> None:
    same = [record(1, "/p/b.jpg"), record(2, "/p/a.jpg"), record(3, "/p/c.jpg")]
    for turned in (same, same[::-1], [same[1], same[2], same[0]]):
        assert kept(decide(set_of(*turned), Choice(rule))) == {2}
    larger = replace(same[2], width=11)
    assert kept(decide(set_of(*same[:2], larger), Choice(rule))) == {3}


def test_all_in_a_protected_folder_is_kept_and_nothing_else() -> None:
    one = set_of(record(1, "/archive/a.jpg"), record(2, "/archive/sub/b.jpg"), record(3, "/new/c.jpg", width=99))
    for folder in ("/archive", "/archive/", "archive"):
        decisions = decide(one, Choice(protect=(folder,)))
        assert kept(decisions) == {1, 2}
        assert {d.reason for d in decisions if d.action == "keep"} == {"in a protected folder"}
    assert kept(decide(one, Choice(protect=("sub", "new")))) == {2, 3}
    assert kept(decide(one, Choice(protect=("/arch",)))) == {3}  # not the beginning of a name


def test_what_is_as_good_as_the_one_that_is_kept_is_not_called_worse() -> None:
    decisions = decide(set_of(record(1, "/p/a.jpg"), record(2, "/p/b.jpg"), record(3, "/p/c.jpg", width=1)), Choice())
    assert [d.reason.partition(":")[0] for d in decisions] == ["largest", "even with the largest", "not the largest"]


def test_of_a_new_folder_only_its_own_files_go() -> None:
    across = set_of(record(1, "/archive/a.jpg"), record(2, "/new/b.jpg", width=99), record(3, "/archive/c.jpg"))
    assert kept(decide(across, Choice(new=("/new",)))) == {1, 3}


def test_a_persons_word_comes_before_rule_and_protection() -> None:
    one = set_of(record(1, "/archive/a.jpg"), record(2, "/new/b.jpg"), record(3, "/new/c.jpg", width=99))
    assert kept(decide(one, Choice(keep=frozenset({2})))) == {2, 3}  # nobody said that the largest may go
    assert kept(decide(one, Choice(keep=frozenset({2}), remove=frozenset({3})))) == {2}
    assert kept(decide(one, Choice(protect=("archive",), keep=frozenset({2})))) == {1, 2}
    assert kept(decide(one, Choice(protect=("archive",), keep=frozenset({2}), remove=frozenset({1})))) == {2}
    decisions = decide(one, Choice(keep=frozenset({2}), remove=frozenset({1, 2, 3})))
    assert [(d.record.image_id, d.action, d.by_hand) for d in decisions] == [
        (2, "keep", True),
        (3, "remove", True),
        (1, "remove", False),
    ]


def test_what_a_person_says_as_the_rule_does_is_not_by_hand() -> None:
    one = set_of(record(1, "/p/a.jpg"), record(2, "/p/b.jpg", width=99))
    decisions = decide(one, Choice(keep=frozenset({2}), remove=frozenset({1, 2})))
    assert [(d.action, d.by_hand) for d in decisions] == [("keep", False), ("remove", False)]


@pytest.mark.parametrize("given", [{"rule": "newest"}, {"protect": ("/",)}, {"protect": ("",)}])
def test_a_choice_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Choice(**given)  # type: ignore[arg-type]


# Sets.


def pairs_of(*pairs: tuple[int, int, int, str]) -> Pairs:
    relations = tuple(dict.fromkeys(pair[3] for pair in pairs))
    return Pairs(
        np.array([pair[0] for pair in pairs]),
        np.array([pair[1] for pair in pairs]),
        np.array([pair[2] for pair in pairs], np.int8),
        np.array([relations.index(pair[3]) for pair in pairs], np.int16),
        np.ones(len(pairs), np.float32),
        np.zeros(len(pairs), np.int16),
        relations,
    )


def test_sets_hold_their_own_links_and_only_images_that_are_there() -> None:
    pairs = pairs_of((1, 2, IDENTICAL, "identical bytes"), (2, 3, SAME, "resized"), (3, 9, BURST, "seconds apart"))
    records = {i: record(i, f"/p/{i}.jpg") for i in (1, 2, 3, 5)}
    groups = [Group("same", (1, 2, 3, 4), 2), Group("same", (5, 6), 5)]
    sets = make_sets(groups, pairs, records)
    assert [[r.image_id for r in one.records] for one in sets] == [[1, 2, 3]]
    assert sets[0].links == {(1, 2): ("identical", "identical bytes"), (2, 3): ("same", "resized")}


def test_sets_that_share_an_image_become_one_in_a_plan() -> None:
    a, b, c, d, e = (record(i, f"/p/{i}.jpg") for i in range(1, 6))
    sets = [set_of(a, b), set_of(d, e), set_of(c, d, tier="burst"), set_of(b, c, tier="burst")]
    merged = joined(sets)
    assert [sorted(r.image_id for r in one.records) for one in merged] == [[1, 2, 3, 4, 5]]
    assert [sorted(r.image_id for r in one.records) for one in joined(sets[:3])] == [[1, 2], [3, 4, 5]]


def test_what_a_link_says_is_turned_round_where_the_first_of_it_goes() -> None:
    a, b = record(1, "/p/a.png", format="PNG"), record(2, "/p/b.jpg")
    words = "turned 90° left, resized, darker, grey, as JPEG"
    one = DuplicateSet("same", (a, b), {(1, 2): ("same", words)})
    assert related(one, 2, [1]) == ("same", words)
    assert related(one, 1, [2]) == ("same", "turned 90° right, resized, brighter, in colour, as PNG")
    assert related(one, 1, []) == ("same", "")
    mirrored = DuplicateSet("same", (a, b), {(1, 2): ("same", "mirrored and turned 90° left")})
    assert related(mirrored, 1, [2]) == ("same", "mirrored and turned 90° left")


# Plans of files.


def files(folder: Path, *names: bytes, content: bytes = b"picture") -> list[Record]:
    """Write files that are equal, and return their records as an index would have them."""
    records = []
    for number, name in enumerate(names, start=1):
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        status = os.stat(path)
        digest = hashlib.sha256(content).digest()
        records.append(Record(path, status.st_size, status.st_mtime_ns, digest, "PNG", 8, 6, image_id=number))
    return records


def test_a_plan_says_what_becomes_of_each_file_and_why(tmp_path: Path) -> None:
    a, b, c = files(tmp_path, b"a.png", b"bb.png", b"ccc.png")
    one = DuplicateSet("same", (c, b, a), {(1, 2): ("identical", "identical bytes")})
    plan = make_plan([one], Choice("shortest"))
    assert [(r.group, r.action, r.path, r.tier, r.relation) for r in plan.rows] == [
        ("1", "keep", a.path, "same", ""),
        ("1", "remove", b.path, "identical", "identical bytes"),
        ("1", "remove", c.path, "same", ""),
    ]
    assert [r.reason for r in plan.rows] == [
        "shortest name: 5 characters",
        "not the shortest name: 6 characters",
        "not the shortest name: 7 characters",
    ]
    assert (plan.rows[0].picture, plan.bytes_won, len(plan.removed)) == ("PNG 8 × 6", 14, 2)


def test_files_that_are_gone_or_changed_are_left_out_and_their_set_with_them(tmp_path: Path) -> None:
    a, b, c = files(tmp_path, b"a.png", b"b.png", b"c.png")
    os.unlink(a.path)
    assert [r.path for r in make_plan([set_of(a, b, c)], Choice()).rows] == [b.path, c.path]
    os.utime(b.path, ns=(1, 1))
    plan = make_plan([set_of(a, b, c)], Choice())
    assert (plan.rows, plan.left_out) == ((), (a.path, b.path))
    imported = replace(c, path=b"a name", image_id=4)
    assert make_plan([set_of(imported, c)], Choice()).rows == ()


def test_a_set_of_which_a_person_keeps_nothing_is_refused(tmp_path: Path) -> None:
    a, b = files(tmp_path, b"a.png", b"b.png")
    with pytest.raises(OptionError, match=r"Nothing would be kept of .*a\.png"):
        make_plan([set_of(a, b)], Choice(remove=frozenset({1, 2})))


def test_a_set_of_which_all_is_kept_is_not_in_the_plan(tmp_path: Path) -> None:
    a, b = files(tmp_path, b"a.png", b"b.png")
    assert make_plan([set_of(a, b)], Choice(protect=(str(tmp_path),))).rows == ()


# Paths and files of plans.


@given(st.binary(max_size=40).filter(lambda name: b"\0" not in name))
def test_any_path_comes_back_from_its_text(name: bytes) -> None:
    text = path_text(b"/" + name)
    assert text_path(text) == b"/" + name
    assert text.isprintable()
    assert text == text.strip()
    text.encode("utf-8")


@pytest.mark.parametrize("text", ["", "a.jpg", "file://", "file://a", "=/a", "/a\0b", "file:///a%00"])
def test_what_is_no_absolute_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        text_path(text)


def awkward_plan() -> Plan:
    rows = [row(path, "keep" if number == 0 else "remove") for number, path in enumerate(AWKWARD)]
    return Plan(
        (*rows, row(b"/q/1", "keep", "zwei", picture="JPEG 1 × 1"), row(b"/q/2", "remove", "zwei", tier="burst"))
    )


@pytest.mark.parametrize("name", ["plan.csv", "plan.json"])
def test_a_plan_comes_back_from_its_file(tmp_path: Path, name: str) -> None:
    write_plan(awkward_plan(), tmp_path / name)
    assert read_plan(tmp_path / name) == awkward_plan()
    assert os.listdir(tmp_path) == [name]


def test_no_cell_of_a_plan_can_be_taken_for_a_formula_or_a_long_number() -> None:
    for cells in csv.reader(io.StringIO(plan_bytes(awkward_plan(), "csv").decode("utf-8-sig"))):
        for cell in cells:
            assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
            assert not (cell.isdecimal() and len(cell) > 15)


def as_a_spreadsheet_leaves_it(plan: Plan, separator: str, ends: str) -> str:
    """Other separators, line ends and order of columns, quotes everywhere, a column more, an empty line at the end."""
    rows = list(csv.DictReader(io.StringIO(plan_bytes(plan, "csv").decode("utf-8-sig"))))
    text = io.StringIO()
    columns = [*reversed(rows[0]), "my notes"]
    writer = csv.DictWriter(text, columns, delimiter=separator, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows({**one, "my notes": "=HYPERLINK(…)", "action": one["action"].upper() + " "} for one in rows)
    writer.writerow(dict.fromkeys(columns, ""))
    return text.getvalue()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_plan_comes_back_from_a_spreadsheet(tmp_path: Path, separator: str, ends: str, mark: str) -> None:
    path = tmp_path / "plan.csv"
    path.write_bytes((mark + as_a_spreadsheet_leaves_it(awkward_plan(), separator, ends)).encode())
    assert read_plan(path).rows == awkward_plan().rows


def test_rows_and_actions_that_a_person_changes_count(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    lines = plan_bytes(awkward_plan(), "csv").decode("utf-8-sig").splitlines(keepends=True)
    swapped = [lines[0], lines[-1].replace("remove", "keep"), lines[-2].replace("keep", "remove")]
    path.write_text("".join(swapped), newline="")
    assert [(r.path, r.action) for r in read_plan(path).rows] == [(b"/q/2", "keep"), (b"/q/1", "remove")]


GOOD = {"group": "1", "path": "/a", "size": "1", "mtime_ns": "5 ns", "sha256": "01" * 32}


def csv_of(*rows: dict[str, str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for one in rows for name in one)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no column group, action, path"),
        (b"a,b\n1,2\n", "no column group"),
        (csv_of(GOOD), "no column action"),
        (csv_of({**GOOD, "action": "delete"}), "line 2: action is 'delete'"),
        (csv_of({**GOOD, "action": "keep", "group": " "}), "line 2: group is empty"),
        (csv_of({**GOOD, "action": "keep", "path": "a.jpg"}), "'a.jpg' is no absolute path"),
        (csv_of({**GOOD, "action": "keep", "mtime_ns": "1.7E+18"}), r"line 2: mtime_ns is '1\.7E\+18'"),
        (
            csv_of({**GOOD, "action": "keep", "size": "16.432"}),
            r"line 2: size is '16\.432', but must be a whole number",
        ),
        (csv_of({**GOOD, "action": "keep", "sha256": "0102"}), "sha256 has 2 bytes"),
        (csv_of({**GOOD, "action": "keep"}, {**GOOD, "action": "remove"}), "names /a twice"),
        (csv_of({**GOOD, "action": "remove"}), "would keep nothing of 1 groups: 1"),
        ("group;été".encode("latin-1"), "not in UTF-8"),
        (b'{"plan_version": 2, "files": []}', "plan_version"),
        (b'{"plan_version": 1, "files": {}}', "no list"),
        (b'{"plan_version": 1, "files": [7]}', "no list"),
        (b'{"plan_version": 1, "files": [{}]}', "file 1: action"),
        (b'{"plan_version": 1', "cannot be read"),
        (b'group,action\n"a', "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_read_says_where_and_why(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "plan.csv"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=complaint):
        read_plan(path)


def test_a_plan_that_is_not_there_or_has_no_known_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(tmp_path / "none.csv")
    with pytest.raises(OptionError, match=r"\.csv or a \.json"):
        write_plan(awkward_plan(), tmp_path / "plan.xlsx")
    with pytest.raises(LookalikeError, match="cannot be written"):
        write_plan(awkward_plan(), tmp_path / "none" / "plan.csv")


def test_a_plan_in_json_is_a_file_a_line() -> None:
    content = plan_bytes(awkward_plan(), "json")
    assert len(content.splitlines()) == len(awkward_plan().rows) + 2
    assert json.loads(content)["files"][-1]["mtime_ns"] == "1700000000123456789 ns"


def test_a_plan_that_contradicts_itself_is_refused_wherever_it_comes_from() -> None:
    check_plan(awkward_plan())
    with pytest.raises(PlanError, match="keep nothing of 6 groups: 1, 2, 3, 4, 5 …"):
        check_plan(Plan(tuple(row(b"/%d" % n, group=str(n)) for n in range(1, 7))))
