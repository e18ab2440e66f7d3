"""What the benchmark of duplicates counts as right, as wrong, and as known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.duplicates import COPIES, ORIGINAL, SHOTS, judge, make_files, same_photographs
from duplicates import IDENTICAL, SAME, SIMILAR, TIERS, Pairs
from images import Limits, decode_image
from tests.photographs import photograph
from views.duplicates import Duplicates


def photographs(folder: Path) -> list[Path]:
    """Write photographs of two classes, two of which caltech101 holds twice."""
    paths = [folder / "tick" / f"image_00{number}.jpg" for number in (43, 10, 49)]
    paths += [folder / "wrench" / "image_0001.jpg"]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(path)
    return paths


def found(pairs: list[tuple[int, int, int]]) -> Duplicates:
    """Return duplicates of these ids and tiers."""
    a, b, tier = np.array(pairs).T
    codes = np.zeros(len(pairs), np.int16)
    table = Pairs(a, b, tier.astype(np.int8), codes, codes.astype(np.float32), codes, ("",))
    return Duplicates(table, np.empty(0, np.int64), options={}, report={"pairs": dict.fromkeys(TIERS, 0)})


def test_copies_shots_and_class_mates_are_made_and_judged(tmp_path: Path) -> None:
    given = photographs(tmp_path / "given")
    files = make_files(given, 1, tmp_path / "made")
    assert len(files) == 1 + len(COPIES) + len(SHOTS) + 1 + 2
    assert given[2] in files
    assert given[1] not in files  # it became the class-mate
    paths = dict(enumerate(files, start=1))
    place = {path.name: image_id for image_id, path in paths.items()}
    copies = sorted(place[name] for name in (ORIGINAL, *COPIES))
    true = [(copies[0], other, SAME) for other in copies[1:]]
    other, mate = place["image_0049.jpg"], place["class-mate image_0010.jpg"]
    shot = place[SHOTS[1]]
    original = place[ORIGINAL]
    wrong = [(original, other, IDENTICAL), (min(original, shot), max(original, shot), SAME), (mate, other, SAME)]
    similar = [(min(original, mate), max(original, mate), SIMILAR)]
    judged = judge(found(true + wrong + similar), paths, tmp_path / "made", given)
    assert (judged.found, judged.true, judged.known) == (8, 36, 1)
    assert judged.wrong == {
        "tick/image_0043.jpg, next shot without a time": 1,
        "tick/image_0010.jpg, tick/image_0049.jpg": 1,
    }
    assert judged.later["class-mate "] == {"similar": 1}
    assert judged.later[SHOTS[0]] == {"none": 1}


def test_the_time_of_an_original_is_read_and_its_pixels_are_as_they_were(tmp_path: Path) -> None:
    given = photographs(tmp_path / "given")
    make_files(given, 1, tmp_path / "made")
    original = tmp_path / "made" / "000" / ORIGINAL
    assert (np.asarray(Image.open(original)) == np.asarray(Image.open(given[0]))).all()
    times = [
        decode_image(path.read_bytes(), Limits(10**9, 10**9, 10)).taken_at
        for path in (original, original.with_name(SHOTS[0]), original.with_name(SHOTS[1]))
    ]
    assert times == ["2020-01-01T00:00:00", "2020-01-01T00:00:02", None]


def test_photographs_that_are_there_twice_are_sets_without_common_members() -> None:
    groups = same_photographs()
    assert sum(map(len, groups)) == len(frozenset.union(*groups))
    assert min(map(len, groups)) == 2
