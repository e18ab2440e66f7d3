"""What a file's bytes tell without decoding them: format, size, frames, and whether the file is whole.

Sources: ITU T.81 (JPEG markers); PNG, GIF89a, TIFF 6, BigTIFF and WebP container specifications; ISO 14496-12 (ftyp).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from errors import DamagedImageError, NotAnImageError, TooManyFramesError, TooManyPixelsError


@dataclass(frozen=True)
class Limits:
    """The most that is decoded. All three are checked before anything is decoded."""

    max_bytes: int
    max_pixels: int
    max_frames: int


_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_HEIF_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])
_ANY_BRANDS = frozenset([b"mif1", b"msf1"])  # the container alone: the compatible brands say which coding is in it
_BMP_HEADER_SIZES = frozenset([12, 16, 40, 52, 56, 64, 108, 124])


def sniff_format(head: bytes) -> str | None:
    """Name the format that the first 64 bytes of a file announce, whatever the file is called; None if no image."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    # "BM" alone begins many a text.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    return _sniff_ftyp(head) if head[4:8] == b"ftyp" else None


def _sniff_ftyp(head: bytes) -> str | None:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    major, compatible = head[8:12], {head[start : start + 4] for start in range(16, end - 3, 4)}
    if major in _AVIF_BRANDS or (major in _ANY_BRANDS and compatible & _AVIF_BRANDS):
        return "AVIF"
    return "HEIF" if major in _HEIF_BRANDS | _ANY_BRANDS else None


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Raise `TooManyPixelsError` if (width, height) announces more than is decoded."""
    width, height = size
    if width * height > limits.max_pixels:
        count = f"{width:,} × {height:,} = {width * height:,} pixels"
        raise TooManyPixelsError(f"The image announces {count}; at most {limits.max_pixels:,} are decoded.")


def check_frames(opened: Any, file: BinaryIO, limits: Limits) -> None:
    """Raise `TooManyFramesError` if the file opened by a Pillow plugin announces more frames or pages than allowed.

    The plugins of GIF and TIFF count by parsing every frame, without end; the others know from a header.
    """
    count = {"GIF": _count_gif_frames, "TIFF": _count_tiff_pages}.get(opened.format)
    frames = count(file, limits.max_frames) if count else getattr(opened, "n_frames", 1)
    if frames > limits.max_frames:
        raise TooManyFramesError(f"The image has more than {limits.max_frames:,} frames or pages, which is the limit.")


def check_whole(opened: Any, file: BinaryIO) -> None:
    """Raise what decoders would let pass: half a JPEG or PNG, or the preview of a picture that cannot be read."""
    if opened.format == "JPEG":
        _check_jpeg(opened, file)
    elif opened.format == "PNG":
        _check_png(opened.tile[0][2], file)
    elif opened.format == "TIFF" and opened.tag_v2.get(254, 0) & 1 and 330 in opened.tag_v2:
        # Its first page says that it is the reduced version of another, which lies in a child directory (DNG, NEF, …).
        raise NotAnImageError("This is a camera's raw file, of which only a preview can be read. Export it as JPEG.")


_MAX_JPEG_SCANS = 100
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")


def _check_jpeg(opened: Any, file: BinaryIO) -> None:
    """A JPEG must have an end mark, and not too many scans.

    libjpeg decodes zeros as grey, so a download that reserved its whole size and then stopped looks whole to it. Only
    the rare file whose last bytes are not the end mark is searched for one. Progressive scans cost time by pixels,
    not by bytes: thousands of empty ones over 100 megapixels take minutes (real files have about 10).
    """
    file.seek(-2, os.SEEK_END)
    ended = file.read(2) == b"\xff\xd9"
    if ended and "progressive" not in opened.info:
        return
    file.seek(0)
    contents = file.read()
    if contents.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise DamagedImageError(f"The image is damaged: it has more than {_MAX_JPEG_SCANS} scans.")
    position = 2
    while not ended:
        marker = _JPEG_MARKER.search(contents, position)
        if marker is None:
            raise DamagedImageError("The image is damaged: it stops before its end mark, so it was probably cut off.")
        ended = marker[1] == b"\xd9"
        position = marker.end() + int.from_bytes(contents[marker.end() : marker.end() + 2], "big")


def _check_png(position: int, file: BinaryIO) -> None:
    """Hold the pixels' chunks, the first of which begins at `position` - 8, against their checksums.

    Pillow skips them, and zeros in place of the second half of a picture decode without complaint. At 3 GB/s it is
    a hundredth of the decoding.
    """
    file.seek(position - 8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind != b"IDAT":
            return
        checksum = zlib.crc32(kind)
        while length and (piece := file.read(min(length, 1 << 20))):
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
        if file.read(4) != checksum.to_bytes(4, "big"):
            raise DamagedImageError("The image is damaged: a checksum is wrong, so it was probably cut off or changed.")


def read_webp_size(file: BinaryIO) -> tuple[int, int]:
    """(width, height) of a WebP from its first 30 bytes. `struct.error` if there are fewer."""
    file.seek(12)
    kind, head = struct.unpack("<4s4x10s", file.read(18))
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF


def _count_gif_frames(file: BinaryIO, most: int) -> int:
    """Frames of a GIF, counted no further than `most` + 1, and up to where the file ends."""
    file.seek(0)
    contents = file.read()
    frames, position = 0, 13 + _palette_bytes(contents[10])
    try:
        while frames <= most and contents[position] != 0x3B:
            if contents[position] == 0x2C:
                frames += 1
                position += 11 + _palette_bytes(contents[position + 9])
            elif contents[position] == 0x21:
                position += 2
            else:
                position += 1
                continue
            while contents[position]:
                position += contents[position] + 1
            position += 1
    except IndexError:
        pass
    return frames


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _count_tiff_pages(file: BinaryIO, most: int) -> int:
    """Pages of a TIFF, counted no further than `most` + 1: a chain of directories, which may have been made a ring."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = b"+" in head[2:4]
    count_format, offset_format, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)
    (offset,) = struct.unpack_from(order + offset_format, head, 8 if big else 4)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) <= most:
        seen.add(offset)
        try:
            file.seek(offset)
            (entries,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
            file.seek(entries * entry_bytes, os.SEEK_CUR)
            (offset,) = struct.unpack(order + offset_format, file.read(struct.calcsize(offset_format)))
        except (struct.error, OSError, OverflowError, ValueError):  # the file ends here, or the offset leads nowhere
            break
    return len(seen)
