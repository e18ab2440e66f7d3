"""Copies are told from look-alikes, shots of a burst are neither, and groups are no chains."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from alignment import Fit, approach, fit, inverse, orient, oriented, place_roughly, window_box
from duplicates import (
    BURST,
    SAME,
    SIMILAR,
    Contents,
    DuplicateOptions,
    Pairs,
    find_pairs,
    groups_of,
    load_pairs,
    split_chains,
)
from errors import OptionError
from hashes import hash_distances, hash_orientations, nearly_equal
from sameness import Pictures, is_same, same_pictures, unseen
from tests.photographs import next_shot, photograph
from vectors import Ids

COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-compressed": lambda picture: recompressed(picture, 20),
    "resized": lambda picture: picture.resize((160, 120), Image.Resampling.LANCZOS),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "cropped": lambda picture: picture.crop((32, 24, 288, 216)),
    "turned 90° left": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "turned 180°": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "turned 90° right": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
    "mirrored": ImageOps.mirror,
    "mirrored top to bottom": ImageOps.flip,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "cropped, resized": lambda picture: picture.crop((0, 36, 272, 240)).resize((136, 102)),
    "turned 180°, cropped": lambda picture: picture.transpose(Image.Transpose.ROTATE_180).crop((20, 30, 320, 240)),
}


def recompressed(picture: Image.Image, quality: int = 80) -> Image.Image:
    """Return the picture as a JPEG shows it."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def looked_at(shown: Sequence[Image.Image | None]) -> Pictures:
    """Return what is held of some pictures."""
    sizes = np.array([(1, 1) if one is None else one.size for one in shown], dtype=np.int64)

    def opened(place: int) -> Image.Image:
        one = shown[place]
        assert one is not None
        return one

    pictures = unseen(sizes, ["JPEG"] * len(shown), opened)
    for place, one in enumerate(shown):
        if one is not None:
            pictures.look(place, one)
    return pictures


def told(a: Image.Image, b: Image.Image) -> list[str]:
    """Return what the second picture is said to be of the first; nothing where it is another."""
    return [words for _, words in same_pictures(looked_at([a, b]), np.array([0]), np.array([1]))]


@pytest.mark.parametrize("relation", COPIES)
def test_a_copy_is_the_same_picture_and_it_is_told_what_was_done_to_it(relation: str) -> None:
    assert told(photograph(1), COPIES[relation](photograph(1))) == [relation]


@pytest.mark.parametrize(
    ("relation", "other"),
    [("turned 90° left", "turned 90° right"), ("grey", "in colour"), ("brighter", "darker"), ("cropped", "cropped")],
)
def test_the_words_tell_what_the_second_is_of_the_first(relation: str, other: str) -> None:
    assert told(COPIES[relation](photograph(2)), photograph(2)) == [other]


def test_copies_of_one_picture_are_the_same_among_each_other() -> None:
    pictures = looked_at([copy(photograph(3)) for copy in COPIES.values()])
    first, second = np.array(list(combinations(range(len(COPIES)), 2))).T
    assert len(list(same_pictures(pictures, first, second))) >= len(first) - 1  # two crops have little in common


@pytest.mark.parametrize("number", range(4, 10))
def test_the_next_shot_is_another_picture(number: int) -> None:
    assert told(photograph(number), next_shot(photograph(number))) == []
    assert told(photograph(number), photograph(number + 100)) == []


def test_the_same_thing_in_another_colour_is_another_picture() -> None:
    red, green, blue = photograph(11).split()
    grey = photograph(11).convert("L")
    bluer = Image.merge("RGB", (blue, green, red))
    assert told(photograph(11), bluer) == []
    assert told(photograph(11), grey.convert("RGB")) == ["grey"]


def test_pictures_of_one_plain_colour_are_the_same_only_in_that_colour() -> None:
    red, other_red, white = (Image.new("RGB", (80, 60), colour) for colour in ("#ff0000", "#fe0101", "#ffffff"))
    assert told(red, other_red.resize((40, 30))) == ["re-compressed"]
    assert told(red, white) == []


def test_a_rough_place_and_a_fit_find_the_part_that_was_cut_out() -> None:
    whole, part = photograph(12).convert("L"), photograph(12).convert("L").crop((32, 36, 288, 228))
    small = [np.asarray(one.resize((32, 32)))[None] for one in (whole, part)]
    rough = place_roughly(small[0], small[1])
    boxes, near = approach(small[0], small[1], np.array([window_box(int(rough.window[0]))], dtype=np.float32))
    left, top, right, bottom = boxes[0].tolist()
    found = fit(whole, part, (left, top, right, bottom))
    assert near.all()
    assert (rough.score[0] > 0.9, rough.orientation[0], bool(rough.swapped[0])) == (True, 0, False)
    assert found is not None
    assert found.box == pytest.approx((0.1, 0.15, 0.9, 0.95), abs=0.005)
    assert found.covered == pytest.approx((0.64, 1), abs=0.01)
    assert is_same(found)


def test_what_is_left_of_a_turn_is_measured_in_degrees() -> None:
    turned = photograph(13).convert("L").rotate(1.5, Image.Resampling.BICUBIC).crop((16, 12, 304, 228))
    found = fit(photograph(13).convert("L"), turned, (0.05, 0.05, 0.95, 0.95))
    assert isinstance(found, Fit)
    assert abs(found.turn) == pytest.approx(1.5, abs=0.5)
    assert not is_same(found)


def test_an_orientation_and_its_inverse_leave_a_picture_as_it_was() -> None:
    small = np.arange(16).reshape(4, 4)
    picture = Image.fromarray(small.astype(np.uint8))
    for number in range(8):
        assert (oriented(oriented(small, number), inverse(number)) == small).all()
        assert (np.asarray(orient(picture, number)) == oriented(small, number)).all()


def test_hashes_of_turned_pictures_are_found_by_table_and_no_others() -> None:
    shown = [photograph(number) for number in range(40)]
    shown += [recompressed(orient(photograph(number), number % 8), 40) for number in range(40)]
    pictures = looked_at(shown)
    pairs = {
        pair
        for a, b in nearly_equal(pictures.hashes, np.arange(80))
        for pair in zip(a.tolist(), b.tolist(), strict=True)
    }
    assert {(number, number + 40) for number in range(40)} <= pairs
    assert len(pairs) < 45
    first, second = np.array(sorted(pairs)).T
    assert hash_distances(pictures.hashes, first, second).max() <= 3


def test_the_first_hash_is_that_of_the_library() -> None:
    import imagehash

    small = np.asarray(photograph(14).convert("L").resize((32, 32)))
    bits = np.unpackbits(hash_orientations(small)[:1].astype(">u8").view(np.uint8)).astype(bool)
    assert (bits.reshape(8, 8) == imagehash.phash(Image.fromarray(small)).hash).all()


# Pairs of a collection.


def contents_of(
    pictures: Pictures,
    *,
    images: Sequence[int] | None = None,
    new: Sequence[bool] | None = None,
    seconds: dict[int, float] | None = None,
    neighbours: Sequence[Sequence[int]] | None = None,
    similarity: float = 0.5,
) -> Contents:
    """Return contents whose images have the ids 1, 2, …; all are as near to each other, those that are neighbours."""
    count = len(pictures.formats)
    taken = np.full(count, np.nan)
    for place, second in (seconds or {}).items():
        taken[place] = second
    content = np.array(range(count) if images is None else images)
    near = np.array([[-1]] * count if neighbours is None else neighbours)

    def measure(first: Ids, second: Ids) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return np.full(len(first), similarity, dtype=np.float32)

    return Contents(
        image_ids=np.arange(1, len(content) + 1),
        content=content,
        is_new=None if new is None else np.array(new),
        seconds=taken,
        asked=np.arange(count),
        neighbours=near,
        similarities=np.full(near.shape, similarity, dtype=np.float32),
        similarity=measure,
    )


def rows(pairs: Pairs) -> list[tuple[int, int, str, str]]:
    """Return the pairs without their numbers."""
    return [(pair.image_a, pair.image_b, pair.tier, pair.relation) for pair in pairs]


def test_four_tiers_are_kept_apart() -> None:
    shown = [photograph(1), COPIES["grey"](photograph(1)), next_shot(photograph(1)), photograph(2)]
    contents = contents_of(
        looked_at(shown),
        images=[0, 0, 1, 2, 3],
        seconds={0: 100.0, 2: 102.0},
        neighbours=[[1, 2, 3], [0, -1, -1], [0, -1, -1], [0, -1, -1]],
        similarity=0.9,
    )
    found = find_pairs(contents, looked_at(shown), DuplicateOptions(min_similarity=0.8))
    assert rows(found) == [
        (1, 2, "identical", "identical bytes"),
        (1, 3, "same", "grey"),
        (2, 3, "same", "grey"),
        (1, 4, "burst", "seconds apart"),
        (2, 4, "burst", "seconds apart"),
        (1, 5, "similar", "similar"),
        (2, 5, "similar", "similar"),
    ]
    assert found.hash_distance.tolist()[:3] == [0, *found.hash_distance.tolist()[1:3]]
    assert found.hash_distance.max() > 10


def test_two_exposures_seconds_apart_are_a_burst_however_alike() -> None:
    pictures = looked_at([photograph(1), recompressed(photograph(1))])

    def tier(apart: float, similarity: float = 0.9) -> list[int]:
        contents = contents_of(pictures, seconds={0: 50.0, 1: 50.0 + apart}, similarity=similarity)
        return list(find_pairs(contents, pictures, DuplicateOptions(min_similarity=0.8)).tier)

    assert (tier(2), tier(0), tier(3_600)) == ([BURST], [SAME], [SAME])
    assert tier(2, similarity=0.5) == [BURST]


def test_shots_that_follow_each_other_are_found_without_being_neighbours() -> None:
    pictures = looked_at([photograph(number) for number in (21, 22, 23)])
    contents = contents_of(pictures, seconds={0: 10.0, 1: 12.0, 2: 99.0}, similarity=0.9)
    found = find_pairs(contents, pictures, DuplicateOptions(min_similarity=0.8))
    assert rows(found) == [(1, 2, "burst", "seconds apart")]
    assert not len(find_pairs(contents, pictures, DuplicateOptions(min_similarity=0.95)))
    assert not len(find_pairs(contents, pictures, DuplicateOptions(burst_seconds=0, min_similarity=0.8)))


def test_pairs_across_leave_out_those_within_either_side() -> None:
    pictures = looked_at([photograph(1), recompressed(photograph(1)), ImageOps.mirror(photograph(1))])
    contents = contents_of(pictures, images=[0, 0, 1, 2], new=[False, True, False, True])
    found = find_pairs(contents, pictures, DuplicateOptions())
    assert {(a, b) for a, b, _, _ in rows(found)} == {(1, 2), (1, 4), (2, 3), (3, 4)}


def test_a_picture_without_a_thumbnail_is_compared_by_bytes_and_vector_only() -> None:
    pictures = looked_at([photograph(1), None])
    contents = contents_of(pictures, images=[0, 1, 1], neighbours=[[1], [0]], similarity=0.99)
    found = find_pairs(contents, pictures, DuplicateOptions(min_similarity=0.8))
    assert [(pair.tier, pair.hash_distance) for pair in found] == [
        ("identical", 0),
        ("similar", None),
        ("similar", None),
    ]


def test_a_thousand_equal_files_are_a_thousand_pairs_and_one_group() -> None:
    pictures = looked_at([photograph(1)])
    found = find_pairs(contents_of(pictures, images=[0] * 1_000), pictures, DuplicateOptions())
    assert (len(found), set(found.image_a.tolist())) == (999, {1})
    assert [len(group.image_ids) for group in groups_of(found, "identical")] == [1_000]


# Groups.


def pairs_of(linked: Sequence[tuple[int, int]], tier: int = SAME) -> Pairs:
    """Return pairs of one tier."""
    count = len(linked)
    return Pairs(
        np.array([a for a, _ in linked]),
        np.array([b for _, b in linked]),
        np.full(count, tier, np.int8),
        np.zeros(count, np.int16),
        np.ones(count, np.float32),
        np.zeros(count, np.int16),
        ("re-compressed",),
    )


def test_a_chain_whose_ends_are_unlike_is_split() -> None:
    groups = groups_of(pairs_of([(1, 2), (2, 3), (3, 4), (4, 5)]), "same")
    assert [(group.image_ids, group.centre) for group in groups] == [((1, 2, 3), 2), ((4, 5), 4)]


def test_one_pair_that_was_missed_does_not_split_a_group() -> None:
    linked = [pair for pair in combinations(range(1, 7), 2) if pair != (1, 6)]
    assert [group.image_ids for group in groups_of(pairs_of(linked), "same")] == [(1, 2, 3, 4, 5, 6)]
    assert split_chains({1, 2}, {1: {2}, 2: {1}}) == [{1, 2}]


def test_a_run_of_shots_is_one_group_however_long() -> None:
    groups = groups_of(pairs_of([(1, 2), (2, 3), (3, 4), (8, 9)], BURST), "burst")
    assert [group.image_ids for group in groups] == [(1, 2, 3, 4), (8, 9)]
    assert groups_of(pairs_of([(1, 2)], BURST), "same") == []


@pytest.mark.parametrize("tier", ["similar", "twins"])
def test_there_are_no_groups_of_what_is_merely_similar(tier: str) -> None:
    with pytest.raises(OptionError, match=f"no groups of '{tier}', only of identical, same, burst"):
        groups_of(pairs_of([(1, 2)], SIMILAR), tier)


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = pairs_of([(1, 2), (3, 4)])
    pairs.save(tmp_path / "pairs.npz")
    assert list(load_pairs(tmp_path / "pairs.npz")) == list(pairs)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"neighbours": 0}, "neighbours is 0, but must be 1 to 1,000"),
        ({"burst_seconds": -1}, "burst_seconds is -1, but must be 0"),
        ({"burst_seconds": float("nan")}, "burst_seconds is nan"),
        ({"min_similarity": 2}, "min_similarity is 2, but a cosine is -1 to 1"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_it(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        DuplicateOptions(**options)  # type: ignore[arg-type]
