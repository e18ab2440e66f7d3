"""From a file's contents to one upright RGB picture, whatever the contents are.

Pillow's plugin of the sniffed format is called directly instead of `Image.open`: no other decoder ever sees the file,
HEIF need not be registered for the whole process, and a refusal keeps its reason (`Image.open` says "cannot identify
image file" and the file's path). `ImageFile.LOAD_TRUNCATED_IMAGES` must stay False, Pillow's default: with it, half
pictures would pass for whole ones.

Sources: Pillow's plugins; pillow-heif; EXIF 2.32.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from PIL import Image

from errors import (
    DamagedImageError,
    EmptyFileError,
    ImageError,
    NotAnImageError,
    TooManyBytesError,
    UnreadableFileError,
)
from images.checks import Limits, check_frames, check_pixels, check_whole, read_webp_size, sniff_format
from images.pixels import to_rgb


@dataclass(frozen=True)
class DecodedImage:
    """The first picture of a file: RGB, upright, transparency over white.

    `image` may be smaller than the file's picture (see `decode_image`'s `min_side`); `width` and `height` are always of
    the full upright picture. `format` is `sniff_format`'s word. `taken_at` is local time without zone, as
    "2019-08-03T12:01:00".
    """

    image: Image.Image
    format: str
    width: int
    height: int
    taken_at: str | None


_PLUGINS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),  # reads MPO as well: a JPEG with more pictures behind its end
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "HEIF": ("pillow_heif", "HeifImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(source: bytes | BinaryIO, limits: Limits, *, min_side: int = 0) -> DecodedImage:
    """Decode the first frame or page of a file's contents. Many threads may call this at once.

    `source`: the contents, or a seekable file, which stays open. `min_side`: a JPEG may be decoded at 1/2, 1/4 or 1/8
    of its size as long as neither side of `image` falls below this many pixels, and any picture is averaged down to no
    less than three times as many; 0 keeps it in full. Very large pictures are decoded one after the other.

    Raises subclasses of `ImageError`: `EmptyFileError`, `NotAnImageError`, `DamagedImageError`, `TooManyBytesError`,
    `TooManyPixelsError`, `TooManyFramesError`, and `UnreadableFileError` where reading the file fails.
    """
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        name = _recognise(file, limits)
        opened = _open(file, name, limits)
        return _decode(opened, name, limits, min_side)
    except ImageError:
        raise
    # Hostile bytes make decoders raise whatever their authors did not foresee: OSError, ValueError, SyntaxError,
    # struct.error, IndexError, KeyError, TypeError, OverflowError, EOFError, zlib.error, RuntimeError, …
    except MemoryError as error:
        raise UnreadableFileError("There is not enough memory to decode the image.") from error
    except Exception as error:
        # An OSError with a number is the operating system's; EINVAL is a seek to where a damaged file points.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UnreadableFileError(f"The file cannot be read: {error.strerror}.") from error
        text = " ".join(str(error).split()).rstrip(".")
        reason = f"{type(error).__name__} {text}".strip() if isinstance(error, LookupError) else text
        raise DamagedImageError(f"The image cannot be decoded: {reason}.") from error


def _recognise(file: BinaryIO, limits: Limits) -> str:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise EmptyFileError("The file is empty (0 bytes).")
    if size > limits.max_bytes:
        raise TooManyBytesError(f"The file has {size:,} bytes; at most {limits.max_bytes:,} are read.")
    file.seek(0)
    name = sniff_format(file.read(64))
    if name is None:
        formats = ", ".join(_PLUGINS)
        raise NotAnImageError(f"The contents are none of {formats}, whatever the file's name says.")
    return name


def _open(file: BinaryIO, name: str, limits: Limits) -> Any:
    """The plugin's image, not yet decoded, within the limits and found whole as far as can be told."""
    plugin = _load_plugin(name)
    if name == "WEBP":
        check_pixels(read_webp_size(file), limits)  # its plugin allocates two canvases on opening
    file.seek(0)
    opened = plugin(file)
    check_pixels(opened.size, limits)
    check_frames(opened, file, limits)
    check_whole(opened, file)
    return opened


@functools.cache
def _load_plugin(name: str) -> Any:
    # Pillow's own limit of pixels is one number for the process, lies below ours, and warns through `warnings`, which
    # cannot be caught for one thread alone. `check_pixels` takes its place. Set once, never per call: no race.
    Image.MAX_IMAGE_PIXELS = None
    # "Corrupt EXIF data" and the like: a collection has hundreds of them, and nothing hangs on them.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    module, plugin = _PLUGINS[name]
    try:
        return getattr(importlib.import_module(module), plugin)
    except ImportError as error:
        raise ImageError(f"Reading {name} needs {module}: run `pip install -r requirements.txt`.") from error


def _decode(opened: Any, name: str, limits: Limits, min_side: int) -> DecodedImage:
    width, height = opened.size
    if name == "JPEG" and min_side:
        opened.draft(None, (min_side, min_side))
    with _PIXELS_AT_ONCE.taking(opened.width * opened.height):
        opened.load()
        if name != "JPEG":
            width, height = opened.size
            check_pixels(opened.size, limits)  # HEIF: the coded picture may be larger than its container says
        orientation, taken_at = _read_exif(opened)
        image = _reduced(to_rgb(opened), min_side)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    image.info = {}  # else a comment of the file would be written into its thumbnail
    if orientation >= 5:
        width, height = height, width
    return DecodedImage(image, name, width, height, taken_at)


def _reduced(image: Image.Image, min_side: int) -> Image.Image:
    """Average a large picture down by a whole number, to no less than three times `min_side`, which no filter can tell."""
    factor = min(image.size) // (3 * min_side) if min_side else 1
    return image.reduce(factor) if factor > 1 else image


class _Budget:
    """An amount that callers take parts of and give back; whoever wants more than there is waits, or comes alone."""

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, wanted: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + wanted <= self._amount)
            self._taken += wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()


# For the whole process, as memory is: a decoded pixel takes 3 to 11 bytes for a moment, so this is about half a gigabyte.
_PIXELS_AT_ONCE = _Budget(50_000_000)


_NOTED = ("JPEG", "TIFF", "WEBP", "HEIF", "AVIF")


def _read_exif(opened: Any) -> tuple[int, str | None]:
    """Orientation (1 to 8) still to be applied, and the time taken. To be called when the pixels are loaded.

    PNG may carry EXIF behind its pixels; the plugins of TIFF and HEIF turn the pixels themselves and say 1 afterwards.
    """
    try:
        exif = opened.getexif()
        orientation = exif.get(0x0112)
        taken = exif.get_ifd(0x8769).get(36867) or exif.get(306)
    except Exception:  # noqa: BLE001  hostile bytes, as above; and a picture is more than its notes
        return 1, None
    return (orientation if orientation in range(1, 9) else 1), _parse_time(taken)


def read_notes(file: BinaryIO, limits: Limits) -> dict[int, object]:
    """Return what EXIF says in a file, of the picture and of the camera, by the numbers of its tags; its pixels stay as they are.

    Nothing where the file says nothing, or could only say it with its pixels decoded (PNG). Raises `ImageError`, `OSError`.
    """
    name = _recognise(file, limits)
    if name not in _NOTED:
        return {}
    try:
        exif = _open(file, name, limits).getexif()
        return {**exif, **exif.get_ifd(0x8769)}
    except ImageError:
        raise
    except Exception:  # noqa: BLE001  hostile bytes, as above
        return {}


def _parse_time(text: object) -> str | None:
    """`2019:08:03 12:01:00` as `2019-08-03T12:01:00`; None for what is no time, such as the zeros of an unset clock."""
    match = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)", str(text), re.ASCII)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second).isoformat()
    except ValueError:
        return None
