"""What a request asks for: its fields and uploads as a `Query`.

Owns reading forms, JSON objects, addresses and uploads (always in memory, never a temporary file), and naming what in them makes
no sense. Does not own answers, addresses or statuses (`api.py`), nor what a query means (`search/queries.py`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from flask import Request, current_app, request
from werkzeug.datastructures import FileStorage

from errors import (
    EmptyFileError,
    ImageNotFoundError,
    OptionError,
    QueryError,
    RequestError,
    TooManyBytesError,
)
from search import KEY, Box, Example, Filter, Query, SearchService

EXTENSION = "lookalike"
MAX_JSON_BYTES = 1024 * 1024
"""Longest body that is no multipart form; the guard holds every request to it."""
MAX_IMAGE_ID = 2**63 - 1
MAX_REACH = 10_000
"""How far pages lead: nobody looks at more, and each page costs the order of all before it."""
MAX_EXAMPLES = 100
"""Most images and pictures that one request may name: to be like, to be unlike, or as the queries of a batch."""

Fields = Mapping[str, Sequence[object]]
"""What a request says: all values of each field."""


class InMemoryRequest(Request):
    """A request whose uploads stay in memory; werkzeug would write those above 500 kB to a temporary file.

    Memory is bounded by `MAX_CONTENT_LENGTH`, which `create_app` sets from `upload_max_bytes`.
    """

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


def service() -> SearchService:
    """Return the search service of the running app."""
    return cast(SearchService, current_app.extensions[EXTENSION])


def _whole_number(raw: object) -> int | None:
    """Return a JSON number or a string of ASCII digits as int, None for anything else."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.isascii() and raw.isdecimal():
        return int(raw[:30])  # beyond this every number is too large anyhow, and int() of thousands of digits is slow
    return None


def most_answered() -> int:
    """Return how many images one answer may have."""
    return service().settings.max_results


def wanted_k(fields: Fields) -> int | None:
    """Return how many images are wanted, None for all; where nothing is said, all within a radius, else the setting `results`.

    Raises `RequestError`.
    """
    raw = _one(fields, "k")
    if raw is None:
        return None if _one(fields, "radius") is not None else min(service().settings.results, most_answered())
    if raw == "all":
        return None
    k = _whole_number(raw)
    if k is None or not 1 <= k <= most_answered():
        raise RequestError(f"k is {str(raw)[:40]!r}, but must be a whole number from 1 to {most_answered()}, or all.")
    return k


def wanted_image_id(raw: object, field: str = "image_id") -> int:
    """Return a value of `field` as image id. Raises `RequestError` unless a number, `ImageNotFoundError` for one too large."""
    image_id = _whole_number(raw)
    if image_id is None:
        raise RequestError(f"{field} is {str(raw)[:40]!r}, but must be a whole number.")
    if not 0 <= image_id <= MAX_IMAGE_ID:
        raise ImageNotFoundError(f"There is no image {image_id}.")
    return image_id


def image_id_of_path(text: str) -> int:
    """Return the id in an address. Raises `ImageNotFoundError` for whatever cannot be one."""
    try:
        return wanted_image_id(text)
    except RequestError as error:
        raise ImageNotFoundError(str(error)) from error


def uploads(field: str) -> list[FileStorage]:
    """Return the files that came in `field`; one without name and contents is a form's empty field, and no file."""
    return [file for file in request.files.getlist(field) if file.filename or file.stream.read(1)]


def wanted_uploads() -> list[FileStorage]:
    """Return the pictures that came in `file`. Raises `RequestError` for none or too many."""
    files = uploads("file")
    if not 1 <= len(files) <= MAX_EXAMPLES:
        raise RequestError(
            f"{len(files) or 'No'} pictures came with the request: send 1 to {MAX_EXAMPLES} as multipart/form-data in the "
            'field "file".'
        )
    return files


def content_of(file: FileStorage) -> bytes:
    """Return the bytes of an upload. Raises `EmptyFileError`, `TooManyBytesError`."""
    file.stream.seek(0)
    content: bytes = file.stream.read()
    if not content:
        raise EmptyFileError("The picture is empty (0 bytes).")
    limit = service().settings.upload_max_bytes
    if len(content) > limit:
        raise TooManyBytesError(f"The picture has {len(content):,} bytes; uploads may have at most {limit:,}.")
    return content


def request_fields() -> Fields:
    """Return all values of each field: of a form, or of a JSON object; the address's parameters where those are silent.

    A list in JSON is several values, null is none. Raises `RequestError`.
    """
    fields: dict[str, list[object]] = {name: list(values) for name, values in request.args.lists()}
    if not request.is_json:
        return fields | {name: list(values) for name, values in request.form.lists()}
    try:
        sent = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise RequestError("The body is announced as JSON, but cannot be read as JSON.") from error
    if not isinstance(sent, dict):
        raise RequestError('The JSON body must be an object such as {"image_id": 7, "k": 24}.')
    given = {name: value for name, value in sent.items() if value is not None}
    return fields | {name: value if isinstance(value, list) else [value] for name, value in given.items()}


def _one(fields: Fields, name: str) -> object:
    """Return the first value of a field; None, as not given, for an empty one."""
    raw = next(iter(fields.get(name, ())), None)
    return None if raw == "" else raw


def wanted_values(fields: Fields, *names: str) -> list[object]:
    """Return all values of fields but empty ones, which a form sends for what was not filled in."""
    return [raw for name in names for raw in fields.get(name, ()) if raw != ""]


def wanted_text(fields: Fields, name: str) -> str | None:
    """Return a field as text, None where it is not given. Raises `RequestError`."""
    raw = _one(fields, name)
    if raw is not None and not isinstance(raw, str):
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be text.")
    return raw


def wanted_number(fields: Fields, name: str) -> float | None:
    """Return a field as a finite number, None where it is not given. Raises `RequestError`."""
    raw = _one(fields, name)
    if raw is None:
        return None
    try:
        number = math.nan if isinstance(raw, bool) else float(cast(str, raw))
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be a number.")
    return number


def wanted_count(fields: Fields, name: str, usual: int) -> int:
    """Return a field as a whole number from 1 on, `usual` where it is not given. Raises `RequestError`."""
    raw = _one(fields, name)
    count = usual if raw is None else _whole_number(raw)
    if count is None or not 1 <= count <= MAX_IMAGE_ID:
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be a whole number from 1 on.")
    return count


@dataclass(frozen=True)
class Page:
    """One page of many things: its `number` from 1, how many pages there are, and the places of its things."""

    number: int
    count: int
    places: slice


def wanted_page(fields: Fields, things: int, size: int) -> Page:
    """Return which page of `things`, `size` a page, is asked for; raises `OptionError` for one behind the last."""
    count = max(1, -(-things // size))
    number = wanted_count(fields, "page", 1)
    if number > count:
        raise OptionError(f"There is no page {number:,}: the last one is {count:,}.")
    return Page(number, count, slice((number - 1) * size, number * size))


def _side(fields: Fields, name: str) -> int | None:
    raw = _one(fields, name)
    if raw is None:
        return None
    side = _whole_number(raw)
    if side is None or side > MAX_IMAGE_ID:
        raise RequestError(f"{name} is {str(raw)[:40]!r}, but must be a whole number of pixels.")
    return side


def wanted_where(fields: Fields) -> Filter | None:
    """Return which images are asked for, None for all. Raises `RequestError`, `QueryError`."""
    where = Filter(
        folder=wanted_text(fields, "folder"),
        label=wanted_text(fields, "label"),
        tag=wanted_text(fields, "tag"),
        looks_like=wanted_text(fields, "looks_like"),
        taken_from=(wanted_text(fields, "taken_from") or "").replace(" ", "T") or None,
        taken_until=(wanted_text(fields, "taken_until") or "").replace(" ", "T") or None,
        min_side=_side(fields, "min_side"),
        max_side=_side(fields, "max_side"),
        orientation=cast(Any, wanted_text(fields, "orientation")),  # Filter checks it
        text=(wanted_text(fields, "text") or "").strip() or None,
    )
    return None if where == Filter() else where


def wanted_box(fields: Fields) -> Box | None:
    """Return `box`, "left,top,right,bottom" or four numbers, as shares of the picture. Raises `RequestError`, `QueryError`."""
    raw = fields.get("box", ())
    parts = raw[0].split(",") if len(raw) == 1 and isinstance(raw[0], str) else raw
    if not parts or raw == [""]:
        return None
    numbers = [number for part in parts if (number := wanted_number({"box": [part]}, "box")) is not None]
    if len(numbers) != 4:
        raise RequestError(f"box has {len(numbers)} numbers, but must have four: left,top,right,bottom.")
    return Box(*numbers)


def _vector(raw: Sequence[object]) -> npt.NDArray[np.float64]:
    """Return the field `vector`, JSON numbers or their text in a form, as an array. Raises `RequestError`."""
    try:
        numbers = json.loads(raw[0]) if len(raw) == 1 and isinstance(raw[0], str) else raw
    except (ValueError, RecursionError):
        numbers = None
    if not isinstance(numbers, Sequence) or not all(type(number) in (int, float) for number in numbers):
        raise RequestError("The vector cannot be read: it must be a JSON array of numbers.")
    try:
        return np.array(numbers, dtype=np.float64)
    except OverflowError as error:
        raise RequestError("The vector holds a whole number that is too large.") from error


def _named(fields: Fields, *names: str) -> list[int | str]:
    """Return what is named in the fields `names`: image ids, and keys of kept uploads."""
    named = [(name, raw) for name in names for raw in wanted_values(fields, name)]
    return [raw if _is_key(raw) else wanted_image_id(raw, name) for name, raw in named]


def _is_key(raw: object) -> TypeGuard[str]:
    return isinstance(raw, str) and KEY.fullmatch(raw) is not None


def _examples(named: Sequence[int | str], files: Sequence[FileStorage], box: Box | None = None) -> tuple[Example, ...]:
    if len(named) + len(files) > MAX_EXAMPLES:
        raise RequestError(f"{len(named) + len(files)} examples came; one request may have at most {MAX_EXAMPLES}.")
    return tuple([Example(source, box) for source in named] + [Example(content_of(file), box) for file in files])


def wanted_likes(fields: Fields, *, box_of_first: bool = False) -> tuple[Example, ...]:
    """Return what the matches shall be like: images, or pictures, or a vector; never some of each.

    A box is a part of the one picture that came, or, on pages (`box_of_first`), of the first of several.
    """
    ids = _named(fields, "image_id", "like")
    files, vector = uploads("file"), wanted_values(fields, "vector")
    if bool(ids) + bool(files) + bool(vector) > 1:
        given = [name for name, there in (("a picture", files), ("an image_id", ids), ("a vector", vector)) if there]
        raise RequestError(f"The request has both {' and '.join(given)}: send one of them.")
    box = wanted_box(fields)
    if box_of_first and box is not None and ids:
        return (Example(ids[0], box), *_examples(ids[1:], files))
    if box is not None and len(ids) + len(files) > 1:
        raise RequestError("A box is a part of one picture, but several came: send one of them.")
    if vector:
        return (Example(_vector(vector), box),)
    if not ids and not files and request.method == "GET":
        raise RequestError(
            'Say which image: "?like=7". Or POST a picture as multipart/form-data, field "file". What conditions alone keep is '
            "a list: /api/v1/images."
        )
    if not ids and not files:
        raise RequestError('No picture came with the request: send one as multipart/form-data in the field "file".')
    return _examples(ids, files, box)


FILTER_FIELDS = tuple(field.name for field in dataclasses.fields(Filter))
SEARCH_FIELDS = (
    *("image_id", "like", "unlike", "vector", "file", "unlike_file", "box"),
    *("k", "page", "radius", "metric", "ranking", *FILTER_FIELDS),
)


def refuse_unknown(fields: Fields, known: Sequence[str] = SEARCH_FIELDS, what: str = "a search") -> None:
    """Raise `RequestError` for a field that is not `known`: a misspelt filter would answer with everything."""
    unknown = sorted(map(str, fields.keys() - set(known)))  # a part of a form may have no name: None
    if unknown:
        raise RequestError(f"There is no field {unknown[0][:40]!r}; {what} has: {', '.join(known)}.")


def wanted_query(fields: Fields, likes: tuple[Example, ...]) -> Query:
    """Return the search for what is like `likes`, with everything else from `fields`. Raises `RequestError`, `QueryError`.

    Where all images are wanted, one more than an answer may have: `ask` tells by it that there are more.
    """
    k, radius = wanted_k(fields), wanted_number(fields, "radius")
    if radius is not None and radius < 0:
        raise QueryError(f"radius is {radius:g}, but must be a number from 0 on.")
    size, page = most_answered() if k is None else k, wanted_count(fields, "page", 1)
    skip = (page - 1) * size
    if skip + size > max(MAX_REACH, size):
        raise OptionError(
            f"Page {page:,} of {size} images lies beyond the first {MAX_REACH:,}, which is as far as pages go."
        )
    return Query(
        likes,
        _examples(_named(fields, "unlike"), uploads("unlike_file")),
        k=most_answered() + 1 if k is None else k,
        radius=radius,
        metric=cast(Any, wanted_text(fields, "metric") or "cosine"),  # Query checks both
        ranking=cast(Any, wanted_text(fields, "ranking")),
        where=wanted_where(fields),
        skip=skip,
        thumbnail=False,  # pages have that of `keep_upload`
    )
