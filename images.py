"""Pixels from files: finding image files, decoding them safely, and the two small pictures made from them.

Owns: which files a pattern means; recognising formats by content; limits before decoding; EXIF orientation and time
taken; RGB over white; the network's input and the thumbnail. Does not own: what is done with pixels or paths
(`img2vec.py`, `search.py`), nor what is kept (`store.py`).
Sources: Pillow's plugins, libheif (pillow-heif), EXIF 2.32.
"""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from errors import DamagedImageError, EmptyFileError, NotAnImageError, TooManyBytesError, TooManyFramesError, TooManyPixelsError


@dataclass(frozen=True)
class Limits:
    """The most that is decoded; checked before decoding."""

    max_bytes: int
    max_pixels: int
    max_frames: int


@dataclass(frozen=True)
class FoundFiles:
    """What patterns meant: resolved absolute paths each once, patterns that matched nothing, folders that refused."""

    paths: list[bytes]
    unmatched: list[str]
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DecodedImage:
    """One decoded picture: RGB, upright, over white; `width` and `height` are those of the full upright image."""

    image: Image.Image
    format: str
    width: int
    height: int
    taken_at: str | None


def find_images(patterns: Iterable[bytes | str], *, exclude: Iterable[Path] = ()) -> FoundFiles:
    """List the files that patterns (paths, folders, globs) mean."""
    excluded = {os.path.realpath(os.fsencode(path)) for path in exclude}
    found: dict[bytes, None] = {}
    unmatched = []
    for pattern in patterns:
        raw = os.fsencode(pattern)
        matches = [raw] if os.path.lexists(raw) else sorted(glob.glob(raw, recursive=True))
        files: set[bytes] = set()
        for match in matches:
            if os.path.isdir(match):
                for folder, folders, names in os.walk(match):
                    folders[:] = [n for n in folders if not n.startswith(b".") and os.path.realpath(os.path.join(folder, n)) not in excluded]
                    files.update(os.path.realpath(os.path.join(folder, name)) for name in names if not name.startswith(b"."))
            elif os.path.isfile(match):
                files.add(os.path.realpath(match))
        if not files:
            unmatched.append(os.fsdecode(raw))
        found.update(dict.fromkeys(sorted(files)))
    return FoundFiles(list(found), unmatched)


_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def sniff_format(head: bytes) -> str | None:
    """Name the format that the first 64 bytes of a file announce, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIF"
    return None


def decode_image(source: bytes | BinaryIO, limits: Limits, *, min_side: int = 0) -> DecodedImage:
    """Decode the first picture of a file; see `DecodedImage`. Raises subclasses of `ImageError`."""
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise EmptyFileError("The file is empty (0 bytes).")
    if size > limits.max_bytes:
        raise TooManyBytesError(f"The file has {size:,} bytes; the limit max_bytes is {limits.max_bytes:,}.")
    name = sniff_format(file.read(64))
    file.seek(0)
    if name is None:
        raise NotAnImageError("The contents are of no image format that Lookalike reads.")
    try:
        return _decode(file, name, limits, min_side)
    except (TooManyPixelsError, TooManyFramesError):
        raise
    except Exception as error:
        raise DamagedImageError(f"The {name} image cannot be decoded: {error}.") from error


def _decode(file: BinaryIO, name: str, limits: Limits, min_side: int) -> DecodedImage:
    if name == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    with Image.open(file, formats=[name] if name != "JPEG" else ["JPEG", "MPO"]) as opened:
        width, height = opened.size
        if width * height > limits.max_pixels:
            raise TooManyPixelsError(f"The image has {width}×{height} pixels; the limit max_pixels is {limits.max_pixels:,}.")
        if getattr(opened, "n_frames", 1) > limits.max_frames:
            raise TooManyFramesError(f"The image has too many frames; the limit max_frames is {limits.max_frames:,}.")
        exif: Any = opened.getexif()
        taken = str(exif.get_ifd(0x8769).get(36867) or exif.get(306) or "")
        if min_side:
            opened.draft("RGB", (min_side, min_side))
        turned = exif.get(0x0112, 1) in (5, 6, 7, 8)
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            over = image.convert("RGBA")
            image = Image.new("RGB", over.size, "white")
            image.paste(over, mask=over)
        image = image.convert("RGB")
    if turned:
        width, height = height, width
    taken_at = taken[:10].replace(":", "-") + "T" + taken[11:19] if len(taken) >= 19 else None
    return DecodedImage(image, name, width, height, taken_at)


def network_input(image: Image.Image, size: tuple[int, int], *, resample: str) -> npt.NDArray[np.uint8]:
    """Squeeze an RGB image to `size` (height, width): uint8 (height, width, 3), C-contiguous."""
    method = Image.Resampling[resample.upper()]
    return np.ascontiguousarray(image.resize((size[1], size[0]), method, reducing_gap=3.0), dtype=np.uint8)


def make_thumbnail(image: Image.Image, max_side: int) -> bytes:
    """Make a JPEG whose longest side is at most `max_side` pixels; never enlarges."""
    small = image.copy()
    small.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
