"""Files of the catalog by id: thumbnails, pictures as browsers show them, originals.

Owns with which type, name and version they are sent: the type comes from their contents as indexed, never from their names.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO

from flask import Blueprint, Response, current_app, request, send_file

import requested
from described import described
from errors import ImageError, OriginalGoneError
from images import Limits, Wanted
from search import ImageInfo

pages = Blueprint("files", __name__)
api = Blueprint("files_api", __name__, url_prefix="/api/v1")

VIEW_MAX_SIDE = 2048


@dataclass(frozen=True)
class FileType:
    """How a format is sent; `shown` when browsers show it as it is."""

    mimetype: str
    suffixes: tuple[str, ...]
    shown: bool


_FILE_TYPES: Mapping[str, FileType] = {
    "JPEG": FileType("image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), shown=True),
    "PNG": FileType("image/png", (".png", ".apng"), shown=True),
    "WEBP": FileType("image/webp", (".webp",), shown=True),
    "GIF": FileType("image/gif", (".gif",), shown=True),
    "AVIF": FileType("image/avif", (".avif",), shown=True),
    "BMP": FileType("image/bmp", (".bmp", ".dib"), shown=False),
    "TIFF": FileType("image/tiff", (".tif", ".tiff"), shown=False),
    "JPEG2000": FileType("image/jp2", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), shown=False),
    "HEIF": FileType("image/heif", (".heic", ".heif", ".hif"), shown=False),
}
_UNKNOWN_TYPE = FileType("application/octet-stream", (".bin",), shown=False)


@pages.get("/images/<image_id>/thumbnail")
@api.get("/images/<image_id>/thumbnail")
@described("images", "image/jpeg, image/svg+xml", problems=(404,))
def thumbnail(image_id: str) -> Response:
    """Send the thumbnail made when the image came, or a placeholder where there is none."""
    content = requested.service().thumbnail(requested.image_id_of_path(image_id))
    if content is None:
        return revalidated(current_app.send_static_file("no-picture.svg"))
    response = send_file(BytesIO(content), mimetype="image/jpeg", etag=version_of(content))
    return revalidated(response)


@pages.get("/images/<image_id>/view")
@api.get("/images/<image_id>/view")
@described("images", "image/*", problems=(404, 416), ranges=True)
def view(image_id: str) -> Response:
    """Send the full picture in a form that browsers show."""
    path, shown = _original(image_id)
    file_type = _FILE_TYPES.get(shown.format, _UNKNOWN_TYPE)
    if file_type.shown:
        return _send_original(path, shown, as_attachment=False)
    etag = _version(path, shown) + "-view"
    content = b"" if etag in request.if_none_match else _reencode(path)  # of b"", send_file makes a 304
    name = _file_name(shown, (".jpg",))
    return revalidated(send_file(BytesIO(content), mimetype="image/jpeg", download_name=name, etag=etag))


@pages.get("/images/<image_id>/original")
@api.get("/images/<image_id>/original")
@described("images", "image/*", problems=(404, 416), ranges=True)
def original(image_id: str) -> Response:
    """Send the file itself, to be saved."""
    path, shown = _original(image_id)
    return _send_original(path, shown, as_attachment=True)


def _original(image_id: str) -> tuple[bytes, ImageInfo]:
    return requested.service().original(requested.image_id_of_path(image_id))


def _send_original(path: bytes, shown: ImageInfo, *, as_attachment: bool) -> Response:
    file_type = _FILE_TYPES.get(shown.format, _UNKNOWN_TYPE)
    etag = _version(path, shown)
    try:
        response = send_file(
            os.fsdecode(path),
            mimetype=file_type.mimetype,
            as_attachment=as_attachment,
            download_name=_file_name(shown, file_type.suffixes),
            etag=etag,
        )
    except OSError as error:
        raise OriginalGoneError(f"The file of image {shown.image_id} cannot be opened: {error}") from error
    return revalidated(response)


def _version(path: bytes, shown: ImageInfo) -> str:
    """Return an ETag that changes when the file does."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise OriginalGoneError(f"The file of image {shown.image_id} is gone: {error}") from error
    return f"{shown.image_id:x}-{stat.st_size:x}-{stat.st_mtime_ns:x}"


def _reencode(path: bytes) -> bytes:
    """Return the picture as JPEG of at most `VIEW_MAX_SIDE` pixels a side, decoded apart from this process."""
    service = requested.service()
    settings = service.settings
    limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels, max_frames=settings.max_frames)
    try:
        with open(path, "rb") as file:
            shown = service.decoders.prepare(file, Wanted(limits, (1, 1), "bilinear", VIEW_MAX_SIDE)).thumbnail
    except (OSError, ImageError) as error:
        raise OriginalGoneError(f"{os.fsdecode(path)!r} can no longer be read: {error}") from error
    return shown or b""


def revalidated(response: Response) -> Response:
    """Let browsers keep a copy and ask each time whether it is still true; `send_file` says "no-cache" to proxies as well."""
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def version_of(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def _file_name(shown: ImageInfo, suffixes: tuple[str, ...]) -> str:
    """Return a name to save under: no separators or control characters, and a suffix that fits the contents."""
    safe = "".join(c for c in shown.name if unicodedata.category(c)[0] != "C")
    safe = safe.translate(str.maketrans('/\\:*?"<>|', "_________")).strip(" .")[-150:]
    if not safe.lower().endswith(suffixes):
        safe = (safe or f"image-{shown.image_id}") + suffixes[0]
    return safe
