"""A folder of broken and odd image files, the same for the same seed, to hold every part against that reads files.

    python tests/mutations.py FOLDER [COUNT [SEED]]

Kinds, under the default limits of `config.Settings`: "ok" decodes, "bad" is an error, "either" may do one or the other,
"not_an_image" is no image at all. Nothing may ever crash, hang, or fill the memory.
"""

from __future__ import annotations

import importlib.util
import io
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/astronaut.png"),
)
ORIENTATION, MODIFIED, EXIF_IFD, TAKEN = 0x0112, 306, 0x8769, 36867


def photograph(number: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A photograph of an installed package, RGB, squeezed to (width, height)."""
    package, path = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    with Image.open(Path(spec.origin).parent / path) as opened:
        return opened.convert("RGB").resize(size)


def corners(size: tuple[int, int] = (48, 32)) -> Image.Image:
    """A picture that is different each way round: red, green, blue and yellow quarters from the upper left clockwise."""
    width, height = size
    image = Image.new("RGB", size, "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), "lime")
    draw.rectangle((width // 2, height // 2, width, height), "blue")
    draw.rectangle((0, height // 2, width // 2 - 1, height), "yellow")
    return image


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The bytes of an image in one of Pillow's formats, or "HEIF"."""
    if file_format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    buffer = io.BytesIO()
    image.copy().save(buffer, file_format, **options)  # a copy: some of Pillow's encoders leave settings in the image
    return buffer.getvalue()


def exif(*, orientation: int | None = None, taken: str | None = None, modified: str | None = None) -> bytes:
    """An EXIF block."""
    block = Image.Exif()
    if orientation is not None:
        block[ORIENTATION] = orientation
    if modified is not None:
        block[MODIFIED] = modified
    if taken is not None:
        block.get_ifd(EXIF_IFD)[TAKEN] = taken
    return block.tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int], depth: int, colour: int, pixels: bytes, *, before: bytes = b"") -> bytes:
    """A PNG made by hand: `pixels` is the compressed stream, `before` whole chunks to put before it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png_bomb(side: int) -> bytes:
    """A whole PNG of side × side black and white pixels, all black: 1/8,000 of its pixels' bytes."""
    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes((side // 8 + 1) * 1000)) for _ in range(side // 1000))
    return png((side, side), 1, 0, rows + squeeze.flush())


@cache
def whole_files() -> dict[str, bytes]:
    """Whole pictures in every format and mode that is read: file name -> contents."""
    image = photograph()
    grey, few, black = image.convert("L"), image.quantize(16), image.convert("1")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = image.copy()
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    frames = {"save_all": True, "append_images": [photograph(1), photograph(2)]}
    files = {
        "baseline.jpg": encode(image, "JPEG"),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "restarts.jpg": encode(image, "JPEG", restart_marker_rows=1),
        "grey.jpg": encode(grey, "JPEG"),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "several.mpo": encode(image, "MPO", **frames),
        "rgb.png": encode(image, "PNG"),
        "rgba.png": encode(clear, "PNG"),
        "grey_alpha.png": encode(clear.convert("LA"), "PNG"),
        "sixteen.png": encode(deep, "PNG"),
        "palette.png": encode(few, "PNG", transparency=0),
        "black.png": encode(black, "PNG"),
        "animated.png": encode(image, "PNG", **frames),
        "lossy.webp": encode(image, "WEBP"),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "alpha.webp": encode(clear, "WEBP"),
        "animated.webp": encode(image, "WEBP", **frames),
        "still.gif": encode(image, "GIF"),
        "transparent.gif": encode(few, "GIF", transparency=0, interlace=1),
        "animated.gif": encode(image, "GIF", **frames),
        "rgb.bmp": encode(image, "BMP"),
        "palette.bmp": encode(few, "BMP"),
        "black.bmp": encode(black, "BMP"),
        "raw.tif": encode(image, "TIFF"),
        "big.tif": encode(image, "TIFF", big_tiff=True),
        "motorola.tif": encode(Image.frombytes("I;16B", deep.size, np.asarray(deep).astype(">u2").tobytes()), "TIFF"),
        "sixteen.tif": encode(deep, "TIFF", compression="tiff_lzw"),
        "float.tif": encode(grey.convert("F"), "TIFF"),
        "integer.tif": encode(grey.convert("I"), "TIFF"),
        "cmyk.tif": encode(image.convert("CMYK"), "TIFF", compression="tiff_adobe_deflate"),
        "lab.tif": encode(image.convert("LAB"), "TIFF"),
        "strips.tif": encode(image, "TIFF", compression="packbits", tiffinfo={278: 8}),
        "fax.tif": encode(black, "TIFF", compression="group4"),
        "jpeg.tif": encode(image, "TIFF", compression="jpeg"),
        "pages.tif": encode(image, "TIFF", compression="tiff_lzw", **frames),
        "box.jp2": encode(image, "JPEG2000"),
        "tiles.jp2": encode(image, "JPEG2000", tile_size=(32, 32)),
        "layers.j2k": encode(image, "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=[40, 10]),
        "grey_alpha.jp2": encode(clear.convert("LA"), "JPEG2000"),
        "sixteen.jp2": encode(deep, "JPEG2000"),
        "rgb.heic": encode(image, "HEIF", quality=60),
        "alpha.heic": encode(clear, "HEIF", quality=60),
        "rgb.avif": encode(image, "AVIF", speed=9),
        "alpha.avif": encode(clear, "AVIF", speed=9),
        "animated.avif": encode(image, "AVIF", speed=9, **frames),
    }
    for orientation in range(1, 9):
        turned = exif(orientation=orientation, taken="2019:08:03 12:01:00")
        files[f"turned{orientation}.jpg"] = encode(image, "JPEG", exif=turned)
    return files


def _odd_files() -> Iterator[tuple[str, bytes, str]]:
    """Files made by hand, each for one reason."""
    image, baseline = photograph(), whole_files()["baseline.jpg"]
    yield "empty.jpg", b"", "not_an_image"
    yield "zeros.jpg", bytes(5_000), "not_an_image"
    yield "text.jpg", b"I am only called a picture.\n" * 50, "not_an_image"
    yield "page.png", b"<!doctype html><title>404 Not Found</title>", "not_an_image"
    yield "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"
    yield "film.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(500), "not_an_image"
    yield "BMW.bmp", b"BMW M3, three owners, blue, some rust." * 9, "not_an_image"
    yield "three_bytes.jpg", b"\xff\xd8\xff", "bad"
    yield "signature.png", b"\x89PNG\r\n\x1a\n", "bad"
    yield "signature.webp", b"RIFF\x24\0\0\0WEBP", "bad"
    yield "signature.gif", b"GIF89a", "bad"
    yield "signature.tif", b"II*\0\x08\0\0\0", "bad"
    yield "signature.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "bad"
    yield "jpeg_called.png", baseline, "ok"
    yield "heic_called.jpg", whole_files()["rgb.heic"], "ok"
    yield "no_extension", whole_files()["rgb.png"], "ok"
    yield "garbage_after.jpg", baseline + b"a phone's trailer" * 200, "ok"
    yield "rest_is_zeros.jpg", baseline[: len(baseline) // 2] + bytes(60_000), "bad"
    yield "rest_is_zeros.png", whole_files()["rgb.png"][:9_000] + bytes(len(whole_files()["rgb.png"]) - 9_000), "bad"
    yield "announces_3600_megapixels.png", png((60_000, 60_000), 8, 2, zlib.compress(bytes(1_000))), "bad"
    yield "black_400_megapixels.png", png_bomb(20_000), "bad"
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000), 9))
    yield "text_bomb.png", png((1, 1), 8, 0, zlib.compress(b"\0\0"), before=text), "bad"
    yield "announces_frames.png", _with_frames(2_000_000_000), "bad"
    yield "zero_wide.png", png((0, 10), 8, 0, zlib.compress(bytes(10))), "bad"
    yield "canvas_281_terapixels.webp", _webp_bomb(), "bad"
    yield "endless.tif", _ring_of_pages(), "either"
    for name, size in (("one", (1, 1)), ("wide", (20_000, 1)), ("high", (1, 20_000)), ("long", (2_000, 3))):
        for extension, file_format in (
            ("png", "PNG"),
            ("jpg", "JPEG"),
            ("gif", "GIF"),
            ("tif", "TIFF"),
            ("bmp", "BMP"),
        ):
            yield f"{name}.{extension}", encode(image.resize(size), file_format), "ok"
    yield "orientation_9.jpg", encode(image, "JPEG", exif=exif(orientation=9)), "ok"
    yield "no_date.jpg", encode(image, "JPEG", exif=exif(taken="0000:00:00 00:00:00")), "ok"
    yield "broken_exif.jpg", encode(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "ok"
    yield "name with spaces, ümläuts and a 'quote'.jpg", baseline, "ok"


def _with_frames(frames: int) -> bytes:
    return png((1, 1), 8, 0, zlib.compress(b"\0\0"), before=png_chunk(b"acTL", struct.pack(">II", frames, 0)))


def _webp_bomb() -> bytes:
    contents = bytearray(whole_files()["animated.webp"])
    contents[24:30] = b"\xff" * 6
    return bytes(contents)


def _ring_of_pages() -> bytes:
    """A TIFF whose last directory names the first as the next."""
    contents = bytearray(whole_files()["raw.tif"])
    (first,) = struct.unpack_from("<I", contents, 4)
    (entries,) = struct.unpack_from("<H", contents, first)
    struct.pack_into("<I", contents, first + 2 + entries * 12, first)
    return bytes(contents)


def _cut(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    # Animations may have their first frame whole, and an end mark missing harms no pixel.
    return contents[: chance.randrange(1, len(contents))], "either"


def _cut_in_half(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    return contents[: len(contents) // 2], "either"


def _flip_bits(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    changed = bytearray(contents)
    for _ in range(chance.choice([1, 8, 100])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed), "either"


def _damage_header(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    changed = bytearray(contents)
    for _ in range(chance.choice([1, 3, 9])):
        changed[chance.randrange(4, min(200, len(changed)))] = chance.choice(
            [0, 1, 127, 128, 255, chance.randrange(256)]
        )
    return bytes(changed), "either"


def _zero_part(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    start = chance.randrange(len(contents))
    length = min(chance.choice([1, 16, 500, 10**9]), len(contents) - start)
    return contents[:start] + bytes(length) + contents[start + length :], "either"


def _drop_part(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    start = chance.randrange(len(contents))
    return contents[:start] + contents[start + chance.choice([1, 2, 100]) :], "either"


def _repeat_part(contents: bytes, chance: random.Random) -> tuple[bytes, str]:
    start = chance.randrange(len(contents))
    return contents[:start] + contents[start : start + chance.choice([1, 4, 300])] * 3 + contents[start:], "either"


MUTATIONS: tuple[Callable[[bytes, random.Random], tuple[bytes, str]], ...] = (
    _cut,
    _cut_in_half,
    _flip_bits,
    _damage_header,
    _zero_part,
    _drop_part,
    _repeat_part,
)


def mutate(contents: bytes, chance: random.Random) -> bytes:
    """One random change of a file."""
    return chance.choice(MUTATIONS)(contents, chance)[0]


def write_mutations(folder: Path, *, count: int = 200, seed: int = 0) -> dict[Path, str]:
    """Write `count` files into `folder` and return the kind of each: "ok", "bad", "either" or "not_an_image".

    Every odd file and every whole one comes first, if `count` has room for them; the rest are random changes of whole
    ones. The same seed writes the same files.
    """
    chance = random.Random(seed)
    files = list(_odd_files()) + [(name, contents, "ok") for name, contents in whole_files().items()]
    if len(files) > count:
        files = chance.sample(files, count)
    whole = sorted(whole_files().items())
    while len(files) < count:
        name, contents = whole[len(files) % len(whole)]
        mutation = chance.choice(MUTATIONS)
        changed, kind = mutation(contents, chance)
        files.append((f"{len(files):04}_{mutation.__name__.strip('_')}_{name}", changed, kind))
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {}
    for name, contents, kind in files:
        (folder / name).write_bytes(contents)
        kinds[folder / name] = kind
    return kinds


if __name__ == "__main__":
    written = write_mutations(Path(sys.argv[1]), **dict(zip(("count", "seed"), map(int, sys.argv[2:]), strict=False)))
    print(f"{len(written)} files lie in {sys.argv[1]}")
