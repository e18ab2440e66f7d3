"""Files of every kind through `images`: found, refused, or decoded to the same upright RGB picture."""

from __future__ import annotations

import errno
import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from config import Settings
from errors import (
    DamagedImageError,
    EmptyFileError,
    ImageError,
    NotAnImageError,
    TooManyBytesError,
    TooManyFramesError,
    TooManyPixelsError,
    UnreadableFileError,
)
from images import Limits, decode_image, find_images, make_thumbnail, network_input, sniff_format
from images.decoding import _load_plugin
from tests.mutations import (
    corners,
    encode,
    exif,
    mutate,
    photograph,
    png,
    png_bomb,
    png_chunk,
    whole_files,
    write_mutations,
)

# pytest sets the filters of warnings anew for each test, and so takes away the one that `images` sets once a process.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\..*")

LIMITS = Limits(max_bytes=10_000_000, max_pixels=4_000_000, max_frames=100)
FORMATS = {
    "jpg": "JPEG", "mpo": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF",
    "jp2": "JPEG2000", "j2k": "JPEG2000", "heic": "HEIF", "avif": "AVIF",
}  # fmt: skip
STORED = {  # how an upright picture lies in a file of that EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def pixels(contents: bytes, *, min_side: int = 0) -> npt.NDArray[np.uint8]:
    return np.asarray(decode_image(contents, LIMITS, min_side=min_side).image)


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder: Path, *patterns: str, exclude: tuple[str, ...] = ()) -> list[str]:
    paths = find_images(
        [f"{folder}/{pattern}" for pattern in patterns], exclude=[folder / name for name in exclude]
    ).paths
    return [os.path.relpath(os.fsdecode(path), folder.resolve()) for path in paths]


# finding


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.jpg", "b/c.jpg", "b/d/e.PNG", "b/d/f"]),
        ("b/", ["b/c.jpg", "b/d/e.PNG", "b/d/f"]),
        ("a.jpg", ["a.jpg"]),
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg", "b/c.jpg", "b/d/e.PNG", "b/d/f"]),
        ("*/*.jpg", ["b/c.jpg"]),
        ("**/*.jpg", ["a.jpg", "b/c.jpg"]),
        ("**", ["a.jpg", "b/c.jpg", "b/d/e.PNG", "b/d/f"]),
        ("**/d/*", ["b/d/e.PNG", "b/d/f"]),
        ("**/**/d", ["b/d/e.PNG", "b/d/f"]),
        ("b/[cd].jpg", ["b/c.jpg"]),
        ("?.jpg", ["a.jpg"]),
        (".hidden/*", [".hidden/h.jpg"]),
        ("._a.jpg", ["._a.jpg"]),
        (".*", ["._a.jpg", ".hidden/h.jpg"]),
    ],
)
def test_a_pattern_is_a_file_a_folder_or_a_glob_and_hidden_names_need_their_dot(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    make_files(tmp_path, "a.jpg", "b/c.jpg", "b/d/e.PNG", "b/d/f", ".hidden/h.jpg", "._a.jpg", "b/._c.jpg")
    assert found(tmp_path, pattern) == sorted(expected)


def test_a_path_that_exists_is_taken_literally_before_it_is_taken_as_a_glob(tmp_path: Path) -> None:
    make_files(tmp_path, "a[1].jpg", "a1.jpg", "what?/x.jpg", "what!/y.jpg")
    assert found(tmp_path, "a[1].jpg") == ["a[1].jpg"]
    assert found(tmp_path, "what?") == ["what?/x.jpg"]


def test_each_file_is_found_once_in_the_order_of_the_patterns(tmp_path: Path) -> None:
    make_files(tmp_path, "1.jpg", "2.jpg", "10.jpg", "b/3.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "2.jpg")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    assert found(tmp_path, "b", "../" + tmp_path.name + "/2.jpg", "", "c/*", "link.jpg") == [
        "b/3.jpg", "2.jpg", "1.jpg", "10.jpg",
    ]  # fmt: skip


def test_relative_patterns_give_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, "a.jpg", "b/c.jpg")
    monkeypatch.chdir(tmp_path)
    expected = [os.fsencode(tmp_path.resolve() / name) for name in ("a.jpg", "b/c.jpg")]
    assert [find_images([pattern]).paths for pattern in (".", "*", "**", "./**/*.jpg")] == [expected] * 4


def test_names_that_are_not_utf8_are_found_as_bytes_and_as_text(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path.resolve()) + b"/gr\xfc\xdfe/\xff.jpg"
    os.mkdir(os.path.dirname(name))
    with open(name, "wb") as file:
        file.write(b"x")
    for pattern in (name, os.fsdecode(name), os.fsencode(tmp_path), str(tmp_path / "**/*.jpg"), name[:-5] + b"*"):
        assert find_images([pattern]).paths == [name]


def test_loops_of_links_end(tmp_path: Path) -> None:
    make_files(tmp_path, "a/b/c.jpg")
    for name in ("a/b/up", "a/b/again", "a/top"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert found(tmp_path, "") == found(tmp_path, "**/*.jpg") == found(tmp_path, "**") == ["a/b/c.jpg"]


def test_excluded_folders_are_never_entered_not_even_by_a_link_or_by_name(tmp_path: Path) -> None:
    make_files(tmp_path, "a.jpg", "rsc_files/x.jpg", "rsc_files/sub/y.jpg", "rsc_files2/z.jpg")
    (tmp_path / "folder_link").symlink_to(tmp_path / "rsc_files" / "sub")
    (tmp_path / "file_link.jpg").symlink_to(tmp_path / "rsc_files" / "x.jpg")
    for pattern in ("", "**", "**/*.jpg", "*"):
        assert found(tmp_path, pattern, exclude=("rsc_files",)) == ["a.jpg", "rsc_files2/z.jpg"]
    assert found(tmp_path, "rsc_files", "rsc_files/x.jpg", "file_link.jpg", "folder_link", exclude=("rsc_files",)) == []


def test_what_is_no_plain_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    make_files(tmp_path, "a.jpg")
    assert found(tmp_path, "", "pipe.jpg", "nowhere.jpg", "*") == ["a.jpg"]


def test_patterns_that_match_nothing_are_named(tmp_path: Path) -> None:
    make_files(tmp_path, "a.jpg")
    (tmp_path / "empty").mkdir()
    wrong = [f"{tmp_path}/{name}" for name in ("gone.jpg", "*.gif", "empty", "a.jpg/b", "a.jpg/*", "\0", "n" * 300)]
    result = find_images([f"{tmp_path}/a.jpg", *wrong, str(tmp_path)])
    assert result.unmatched == wrong
    assert result.unreadable == []


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path, "a.jpg", "closed/b.jpg", "open/c.jpg")
    scandir, closed = os.scandir, os.fsencode(tmp_path.resolve() / "closed")

    def refuse(path: bytes) -> Any:
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = find_images([str(tmp_path), str(tmp_path / "closed")])
    assert [os.path.basename(path) for path in result.paths] == [b"a.jpg", b"c.jpg"]
    assert (result.unreadable, result.unmatched) == ([os.fsdecode(closed)], [])


# recognising


@pytest.mark.parametrize("name", sorted(whole_files()))
def test_formats_are_told_by_content(name: str) -> None:
    decoded = decode_image(whole_files()[name], LIMITS)
    assert sniff_format(whole_files()[name][:64]) == decoded.format == FORMATS[name.split(".")[1]]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", None),
        (b"BM", None),
        (b"BMW for sale, some rust, three owners before me", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0avisavif", "AVIF"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1avif", "HEIF"),  # the box ends before that brand
        (b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc", "HEIF"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", None),
        (b"%PDF-1.7", None),
    ],
)
def test_what_a_head_announces(head: bytes, expected: str | None) -> None:
    assert sniff_format(head) == expected


def test_what_is_no_image_is_told_from_what_is_a_damaged_one() -> None:
    with pytest.raises(EmptyFileError, match="0 bytes"):
        decode_image(b"", LIMITS)
    with pytest.raises(NotAnImageError, match="none of JPEG, PNG"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", LIMITS)
    with pytest.raises(DamagedImageError, match="truncated"):
        decode_image(whole_files()["rgb.bmp"][:-1], LIMITS)


def test_a_camera_raw_file_is_not_taken_for_its_preview() -> None:
    preview = encode(photograph(), "TIFF", tiffinfo={254: 1, 330: 8})
    with pytest.raises(NotAnImageError, match="raw file"):
        decode_image(preview, LIMITS)
    assert pixels(encode(photograph(), "TIFF", tiffinfo={254: 0})).shape == (64, 96, 3)


# whole or not


@pytest.mark.parametrize("name", sorted(name for name in whole_files() if not name.startswith("turned")))
def test_a_file_cut_anywhere_is_an_error_or_the_very_same_picture(name: str) -> None:
    contents = whole_files()[name]
    cuts = {len(contents) * percent // 100 for percent in (*range(10, 100, 6), 99)}
    for min_side in (0, 20) if name.endswith("jpg") else (0,):
        whole = pixels(contents, min_side=min_side)
        for cut in sorted(cuts | {len(contents) - left for left in (1, 2, 3, 5, 8, 12, 13)}):
            try:
                part = pixels(contents[:cut], min_side=min_side)
            except DamagedImageError:
                continue
            assert np.array_equal(part, whole), f"{name} cut at {cut} of {len(contents)} bytes"


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "grey.jpg", "turned6.jpg"])
def test_a_jpeg_whose_rest_was_never_downloaded_is_damaged(name: str) -> None:
    contents = whole_files()[name]
    for share in (0.4, 0.6, 0.8):
        with pytest.raises(DamagedImageError, match="cut off"):
            decode_image(contents[: int(len(contents) * share)] + bytes(60_000), LIMITS)


def test_an_end_mark_inside_a_comment_is_no_end() -> None:
    contents = encode(photograph(), "JPEG", comment=b"an embedded preview's end: \xff\xd9")
    with pytest.raises(DamagedImageError, match="cut off"):
        decode_image(contents[: len(contents) // 2] + bytes(60_000), LIMITS)


@pytest.mark.parametrize("name", [name for name in sorted(whole_files()) if name.endswith(".jpg")])
def test_a_jpeg_with_something_behind_its_end_is_whole(name: str) -> None:
    contents = whole_files()[name]
    assert np.array_equal(pixels(contents + b"\0\xff\xda a trailer \0"), pixels(contents))


def test_the_first_picture_of_a_phones_jpeg_is_the_one_decoded() -> None:
    assert np.array_equal(pixels(whole_files()["several.mpo"]), pixels(encode(photograph(), "MPO")))


def test_a_png_whose_pixels_were_changed_is_damaged() -> None:
    contents = bytearray(whole_files()["black.png"])
    contents[len(contents) // 2 : -16] = bytes(len(contents) - 16 - len(contents) // 2)
    with pytest.raises(DamagedImageError, match="checksum"):
        decode_image(bytes(contents), LIMITS)


def test_a_png_whose_pixels_are_one_large_chunk_is_whole() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (1_500, 1_201), np.uint8)
    rows[:, 0] = 0
    assert np.array_equal(pixels(png((1_200, 1_500), 8, 0, zlib.compress(rows.tobytes(), 0)))[..., 0], rows[:, 1:])


# limits


@pytest.mark.parametrize("name", sorted(whole_files()))
def test_pixels_are_counted_before_they_are_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    exact = Limits(LIMITS.max_bytes, 96 * 64, LIMITS.max_frames)
    assert decode_image(whole_files()[name], exact).image.size in [(96, 64), (64, 96)]
    monkeypatch.setattr(_load_plugin(FORMATS[name.split(".")[1]]), "load", never)
    with pytest.raises(TooManyPixelsError, match=r"6,144 pixels; at most 6,143"):
        decode_image(whole_files()[name], Limits(LIMITS.max_bytes, 96 * 64 - 1, LIMITS.max_frames))


@pytest.mark.parametrize("name", ["lossy.webp", "lossless.webp", "alpha.webp", "animated.webp"])
def test_a_webps_pixels_are_counted_before_its_canvas_is_allocated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("allocated")

    monkeypatch.setattr("PIL.WebPImagePlugin._webp.WebPAnimDecoder", never)
    with pytest.raises(TooManyPixelsError, match="96 × 64 = 6,144 pixels"):
        decode_image(whole_files()[name], Limits(LIMITS.max_bytes, 96 * 64 - 1, LIMITS.max_frames))


def test_a_picture_that_turns_out_larger_than_announced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(opened: Any) -> None:
        opened._size = (3_000, 3_000)

    monkeypatch.setattr(_load_plugin("HEIF"), "load", grow)
    with pytest.raises(TooManyPixelsError, match="9,000,000"):
        decode_image(whole_files()["rgb.heic"], LIMITS)


def test_bytes_are_counted_first() -> None:
    contents = whole_files()["rgb.png"]
    assert decode_image(contents, Limits(len(contents), 10**6, 1))
    with pytest.raises(TooManyBytesError, match=f"{len(contents):,} bytes; at most {len(contents) - 1:,}"):
        decode_image(io.BytesIO(contents), Limits(len(contents) - 1, 10**6, 1))


@pytest.mark.parametrize("name", ["animated.png", "animated.webp", "animated.gif", "animated.avif", "pages.tif"])
def test_frames_are_limited_and_the_first_is_taken(name: str) -> None:
    contents = whole_files()[name]
    first = decode_image(contents, Limits(10**7, 10**6, 3)).image
    assert np.abs(np.asarray(first).astype(int) - np.asarray(photograph())).mean() < 20
    with pytest.raises(TooManyFramesError, match="more than 2 frames"):
        decode_image(contents, Limits(10**7, 10**6, 2))


@pytest.mark.parametrize(("file_format", "plugin"), [("GIF", "Gif"), ("TIFF", "Tiff")])
def test_frames_are_counted_without_parsing_each(
    file_format: str, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: object) -> int:
        raise AssertionError("Pillow counted")

    frames = [photograph(number, (40, 30)).rotate(7 * number) for number in range(12)]
    contents = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    monkeypatch.setattr(f"PIL.{plugin}ImagePlugin.{plugin}ImageFile.n_frames", property(never))
    assert decode_image(contents, Limits(10**7, 10**6, 12))
    with pytest.raises(TooManyFramesError):
        decode_image(contents, Limits(10**7, 10**6, 11))


def test_several_pictures_of_a_heic_count_as_frames() -> None:
    contents = encode(photograph(), "HEIF", save_all=True, append_images=[photograph(1)])
    assert decode_image(contents, Limits(10**7, 10**6, 2)).format == "HEIF"
    with pytest.raises(TooManyFramesError):
        decode_image(contents, Limits(10**7, 10**6, 1))


def test_bombs_are_refused_by_their_headers() -> None:
    defaults = Settings()
    limits = Limits(defaults.max_bytes, defaults.max_pixels, defaults.max_frames)
    for bomb in (png_bomb(20_000), png((60_000, 60_000), 8, 2, zlib.compress(bytes(1_000)))):
        with pytest.raises(TooManyPixelsError):
            decode_image(bomb, limits)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_the_notes_of_a_png_is_no_crash(kind: bytes) -> None:
    middle = b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0"
    note = png_chunk(kind, b"Comment" + middle + zlib.compress(bytes(70_000_000), 9))
    try:
        decoded = decode_image(png((1, 1), 8, 0, zlib.compress(b"\0\0"), before=note), LIMITS)
    except DamagedImageError:
        return
    assert decoded.image.size == (1, 1)


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    contents = whole_files()["progressive.jpg"]
    last_scan = contents[contents.rindex(b"\xff\xda") : -2]
    assert decode_image(contents[:-2] + last_scan * 5 + contents[-2:], LIMITS)
    with pytest.raises(DamagedImageError, match="scans"):
        decode_image(contents[:-2] + last_scan * 1_000 + contents[-2:], LIMITS)


@pytest.fixture
def fresh_plugins() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    _load_plugin.cache_clear()
    yield
    Image.MAX_IMAGE_PIXELS = before
    _load_plugin.cache_clear()


@pytest.mark.usefixtures("fresh_plugins")
def test_pillows_own_limit_of_pixels_and_its_warnings_stay_out_of_the_way() -> None:
    broken_notes = encode(photograph(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0")
    whole_files()  # before Pillow is hindered
    Image.MAX_IMAGE_PIXELS = 10
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for contents in (*whole_files().values(), broken_notes):
            decode_image(contents, LIMITS)
    assert [str(warning.message) for warning in caught] == []


# pixels


def ramp() -> npt.NDArray[np.uint16]:
    """Grey from 0 to 65,535, uint16 (16, 64)."""
    return np.linspace(0, 65_535, 16 * 64).astype(np.uint16).reshape(16, 64)


@pytest.mark.parametrize(
    ("file_format", "byte_order", "options"),
    [
        ("PNG", "<", {}),
        ("JPEG2000", "<", {}),
        ("TIFF", "<", {}),
        ("TIFF", ">", {}),
        ("TIFF", "<", {"compression": "tiff_lzw"}),
        ("TIFF", ">", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_sixteen_bits_are_scaled_not_clipped(file_format: str, byte_order: str, options: dict[str, str]) -> None:
    mode = "I;16" if byte_order == "<" else "I;16B"
    image = Image.frombytes(mode, (64, 16), ramp().astype(byte_order + "u2").tobytes())
    decoded = pixels(encode(image, file_format, **options))
    assert np.array_equal(decoded, np.repeat((ramp() >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("values", [ramp().astype(np.float32) / 65_535, ramp().astype(np.int32) * 9_000 - 10_000])
def test_grey_of_no_agreed_scale_is_stretched(values: npt.NDArray[Any]) -> None:
    decoded = pixels(encode(Image.fromarray(values), "TIFF"))
    assert (decoded.min(), decoded.max()) == (0, 255)
    assert np.abs(decoded[..., 0].astype(int) - (ramp() >> 8)).max() <= 1


def test_unknown_values_of_a_scientific_picture_do_not_spoil_the_rest() -> None:
    values = ramp().astype(np.float32)
    values[0, 0], values[0, 1], values[-1, -1] = np.nan, -np.inf, np.inf
    decoded = pixels(encode(Image.fromarray(values), "TIFF"))
    assert decoded[0, :2].max() == 0
    assert decoded[-1, -1].min() == 255
    assert np.abs(decoded[1:-1, :, 0].astype(int) - (ramp()[1:-1] >> 8)).max() <= 1
    flat = pixels(encode(Image.new("F", (4, 4), float("nan")), "TIFF"))
    assert flat.max() == 0


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("1", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("P", "BMP"), ("P", "TIFF"), ("RGB", "BMP"),
        ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("YCbCr", "JPEG2000"), ("LAB", "TIFF"), ("RGBX", "TIFF"),
        ("PA", "TIFF"), ("RGB", "HEIF"), ("RGB", "AVIF"), ("RGB", "WEBP"),
    ],
)  # fmt: skip
def test_every_mode_becomes_the_same_colours(mode: str, file_format: str) -> None:
    image = (
        corners() if mode not in "1L" else Image.linear_gradient("L").resize((48, 32)).point(lambda v: 255 * (v > 99))
    )
    stored = image.quantize(8).convert(mode) if mode in ("P", "PA") else image.convert(mode)
    decoded = pixels(encode(stored, file_format))
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB")))[4::8, 4::8].max() <= 40
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB"))).mean() < 10


def test_cmyk_as_photoshop_writes_it_is_not_a_negative() -> None:
    red = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    assert b"Adobe" in red
    assert np.abs(pixels(red).astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "JPEG2000", "HEIF", "AVIF"])
def test_transparency_lies_over_white(file_format: str) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (32, 0, 64, 64))
    decoded = pixels(encode(image, file_format)).astype(int)
    assert np.abs(decoded[:, :24] - 255).max() < 6
    assert np.abs(decoded[:, 40:] - (200, 0, 0)).max() < 12


def test_half_transparent_black_is_grey() -> None:
    assert np.abs(pixels(encode(Image.new("LA", (4, 4), (0, 128)), "PNG")).astype(int) - 127).max() <= 1


@pytest.mark.parametrize(
    ("image", "file_format", "transparency", "expected"),
    [
        (Image.new("1", (4, 4), 0), "PNG", 0, 255),
        (Image.new("L", (4, 4), 7), "PNG", 7, 255),
        (Image.new("L", (4, 4), 7), "PNG", 8, 7),
        (Image.new("RGB", (4, 4), (7, 7, 7)), "PNG", (7, 7, 7), 255),
        (Image.new("P", (4, 4), 3), "PNG", 3, 255),
        (Image.new("P", (4, 4), 1), "PNG", bytes([255, 0]), 255),
        (Image.new("P", (4, 4), 3), "GIF", 3, 255),
        (Image.fromarray(np.full((4, 4), 0x1234, np.uint16)), "PNG", 0x1234, 255),
        (Image.fromarray(np.full((4, 4), 0x1234, np.uint16)), "PNG", 0x1235, 0x12),
    ],
)
def test_a_transparent_colour_is_white(image: Image.Image, file_format: str, transparency: Any, expected: int) -> None:
    if image.mode == "P":
        image = image.copy()
        image.putpalette(bytes(range(0, 30)))
    assert (pixels(encode(image, file_format, transparency=transparency)) == expected).all()


def test_a_transparent_colour_of_sixteen_bits_a_channel_is_white() -> None:
    values = np.full((2, 2, 3), 0x1234, ">u2")
    values[0, 0] = 0xABCD
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    decoded = pixels(png((2, 2), 16, 2, rows, before=png_chunk(b"tRNS", struct.pack(">3H", 0xABCD, 0xABCD, 0xABCD))))
    assert decoded[..., 0].tolist() == [[255, 0x12], [0x12, 0x12]]


# orientation, time, scale


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_whatever_the_camera_did(file_format: str, orientation: int) -> None:
    stored = corners().transpose(STORED[orientation]) if orientation in STORED else corners()
    contents = encode(stored, file_format, exif=exif(orientation=orientation, taken="2019:08:03 12:01:00"))
    decoded = decode_image(contents, LIMITS, min_side=4)
    assert (decoded.width, decoded.height, decoded.taken_at) == (48, 32, "2019-08-03T12:01:00")
    small = np.asarray(decoded.image.resize((4, 4))).astype(int)
    wanted = np.asarray(corners().resize((4, 4))).astype(int)
    assert np.abs(small - wanted)[::3, ::3].max() < 40
    assert decoded.image.width > decoded.image.height


def test_a_png_may_say_its_orientation_behind_its_pixels() -> None:
    contents = encode(corners(), "PNG")
    turned = contents[:-12] + png_chunk(b"eXIf", exif(orientation=6)[6:]) + contents[-12:]
    assert decode_image(turned, LIMITS).image.size == (32, 48)


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ({}, None),
        ({"taken": "2019:08:03 12:01:00"}, "2019-08-03T12:01:00"),
        ({"modified": "2020:01:02 03:04:05"}, "2020-01-02T03:04:05"),
        ({"taken": "2019:08:03 12:01:00", "modified": "2020:01:02 03:04:05"}, "2019-08-03T12:01:00"),
        ({"taken": "0000:00:00 00:00:00"}, None),
        ({"taken": "    :  :     :  :  "}, None),
        ({"taken": "2019:13:45 99:99:99"}, None),
        ({"taken": "2019-08-03T12:01:00+02:00"}, "2019-08-03T12:01:00"),
        ({"taken": "2019-08-03 12:01:00.250"}, "2019-08-03T12:01:00"),
        ({"taken": "yesterday"}, None),
        ({"modified": "٢٠١٩:08:03 12:01:00"}, None),
    ],
)
def test_the_time_taken_is_a_time_or_nothing(notes: dict[str, Any], expected: str | None) -> None:
    assert decode_image(encode(photograph(), "JPEG", exif=exif(**notes)), LIMITS).taken_at == expected


@pytest.mark.parametrize("notes", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 99])
def test_broken_notes_do_not_spoil_the_picture(notes: bytes) -> None:
    decoded = decode_image(encode(photograph(), "JPEG", exif=b"Exif\0\0" + notes), LIMITS)
    assert (decoded.width, decoded.height, decoded.taken_at) == (96, 64, None)


def test_notes_that_are_no_exif_do_not_spoil_a_png() -> None:
    contents = encode(photograph(), "PNG")
    assert np.array_equal(pixels(contents[:-12] + png_chunk(b"eXIf", b"no notes") + contents[-12:]), pixels(contents))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("min_side", "expected"), [(0, (1600, 800)), (801, (1600, 800)), (299, (800, 400)), (100, (200, 100))]
)
def test_a_jpeg_is_decoded_smaller_but_never_below_min_side(
    orientation: int, min_side: int, expected: tuple[int, int]
) -> None:
    contents = encode(photograph(size=(1600, 800)), "JPEG", exif=exif(orientation=orientation))
    decoded = decode_image(contents, LIMITS, min_side=min_side)
    lies = orientation == 6
    assert decoded.image.size == (expected[::-1] if lies else expected)
    assert (decoded.width, decoded.height) == ((800, 1600) if lies else (1600, 800))


# reading


def test_an_open_file_is_read_like_its_bytes_and_stays_open(tmp_path: Path) -> None:
    for name, contents in whole_files().items():
        (tmp_path / name).write_bytes(contents)
        with open(tmp_path / name, "rb") as file:
            file.seek(7)
            assert np.array_equal(np.asarray(decode_image(file, LIMITS).image), pixels(contents)), name
            assert not file.closed


def test_a_disk_that_fails_is_no_damaged_image() -> None:
    class BadDisk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    for name in ("rgb.png", "raw.tif"):
        with pytest.raises(UnreadableFileError, match="Input/output error"):
            decode_image(BadDisk(whole_files()[name]), LIMITS)


def test_a_damaged_file_that_points_beyond_every_disk_is_no_failing_disk(tmp_path: Path) -> None:
    path = tmp_path / "far.tif"
    path.write_bytes(b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**62) + bytes(100))
    with open(path, "rb") as file, pytest.raises(DamagedImageError):
        decode_image(file, LIMITS)


def test_reasons_never_name_the_file(tmp_path: Path) -> None:
    for name, contents in whole_files().items():
        path = tmp_path / name
        path.write_bytes(contents[: min(len(contents) // 3, 400)])
        with open(path, "rb") as file, pytest.raises(DamagedImageError) as caught:
            decode_image(file, LIMITS)
        for internal in (name, "object at 0x", "\n"):
            assert internal not in str(caught.value)


def test_many_threads_decode_at_once() -> None:
    files = list(whole_files().values()) * 4
    alone = [pixels(contents) for contents in files[: len(whole_files())]] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(pixels, files))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_importing_changes_nothing_and_decoding_registers_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(whole_files()["rgb.heic"])
    program = """
import sys
from PIL import Image, ImageFile
before = Image.MAX_IMAGE_PIXELS
import images
assert Image.MAX_IMAGE_PIXELS == before
assert "pillow_heif" not in sys.modules
with open(sys.argv[1], "rb") as file:
    images.decode_image(file, images.Limits(10**9, 10**9, 9))
assert "HEIF" not in Image.OPEN
assert ImageFile.LOAD_TRUNCATED_IMAGES is False
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.heic")]
    subprocess.run(command, cwd=Path(__file__).parent.parent, check=True)


# hostile files


def test_two_hundred_mutated_files_are_decoded_or_refused_as_they_deserve(tmp_path: Path) -> None:
    kinds = write_mutations(tmp_path, count=200)
    defaults = Settings()
    limits = Limits(defaults.max_bytes, defaults.max_pixels, defaults.max_frames)
    outcomes = {}
    for path in kinds:
        try:
            with open(path, "rb") as file:
                decoded = decode_image(file, limits, min_side=32)
            assert decoded.image.mode == "RGB"
            outcomes[path] = "ok"
        except NotAnImageError:
            outcomes[path] = "not_an_image"
        except ImageError:
            outcomes[path] = "bad"
    assert len(outcomes) == 200
    assert {p.name: outcomes[p] for p in kinds if kinds[p] not in ("either", outcomes[p])} == {}
    assert set(kinds.values()) == {"ok", "bad", "either", "not_an_image"}


def test_mutations_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_mutations(tmp_path / folder, count=30, seed=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(whole_files())), st.integers(0, 2**32))
def test_random_changes_end_in_a_picture_or_in_a_reason(name: str, seed: int) -> None:
    decode_or_refuse(mutate(whole_files()[name], random.Random(seed)))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(whole_files())), st.integers(0, 64), st.binary(max_size=300))
@example("rgb.png", 0, b"")
def test_random_bytes_behind_any_beginning_end_in_a_picture_or_in_a_reason(name: str, kept: int, rest: bytes) -> None:
    decode_or_refuse(whole_files()[name][:kept] + rest)


def decode_or_refuse(contents: bytes) -> None:
    try:
        decoded = decode_image(contents, LIMITS, min_side=16)
    except ImageError as error:
        reason = str(error)
    else:
        assert decoded.image.mode == "RGB"
        assert decoded.width * decoded.height <= LIMITS.max_pixels
        return
    assert len(reason) > 20


# small pictures


@pytest.mark.parametrize("resample", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_the_networks_input_is_squeezed_to_height_and_width(resample: str) -> None:
    array = network_input(corners((400, 300)), (20, 30), resample=resample)
    assert array.shape == (20, 30, 3)
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert [array[y, x].tolist() for y, x in ((0, 0), (0, -1), (-1, -1), (-1, 0))] == [
        [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0],
    ]  # fmt: skip


def test_an_unknown_resampling_is_a_programmers_mistake() -> None:
    with pytest.raises(ValueError, match="no resampling 'cubic', there are: nearest"):
        network_input(corners(), (9, 9), resample="cubic")


@pytest.mark.parametrize("name", sorted(whole_files()))
def test_small_pictures_are_made_of_every_format(name: str) -> None:
    image = decode_image(whole_files()[name], LIMITS).image
    assert network_input(image, (8, 8), resample="bicubic").shape == (8, 8, 3)
    assert sniff_format(make_thumbnail(image, 8)[:64]) == "JPEG"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1600, 800), (256, 128)),
        ((300, 900), (85, 256)),
        ((100, 50), (100, 50)),
        ((20_000, 1), (256, 1)),
        ((1, 20_000), (1, 256)),
        ((1, 1), (1, 1)),
    ],
)
def test_a_thumbnail_keeps_the_aspect_and_never_enlarges(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Image.open(io.BytesIO(make_thumbnail(Image.new("RGB", size), 256))).size == expected


def test_a_thumbnail_carries_nothing_of_the_files_notes() -> None:
    notes = encode(photograph(), "JPEG", comment=b"my secret", exif=exif(taken="2019:08:03 12:01:00"))
    thumbnail = make_thumbnail(decode_image(notes, LIMITS).image, 64)
    assert b"secret" not in thumbnail
    assert b"2019" not in thumbnail
