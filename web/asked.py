"""What the address of a search says, and the addresses that differ from it in one thing: one picture less, another page.

Owns addresses of `/search` and what is shown of the pictures in them. Does not own what is found (`web/search.py`), nor what the
fields mean (`requested.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flask import url_for

import requested
from errors import ImageNotFoundError
from search import Box, Example, Filter, ImageInfo

SHOWN_EXAMPLES = 12
_CONDITIONS: Mapping[str, str] = {
    "text": "“{}”",
    "folder": "folder {}",
    "label": "label {}",
    "tag": "tagged {}",
    "looks_like": "looks like {}",
    "taken_from": "taken from {}",
    "taken_until": "until {}",
    "min_side": "at least {} pixels",
    "max_side": "at most {} pixels",
    "orientation": "{}",
    "metric": "{} distance",
    "radius": "no farther than {}",
}
METRIC_WORDS: Mapping[str, str] = {
    "cosine": "cosine",
    "euclidean": "euclidean",
    "sqeuclidean": "euclidean, squared",
    "cityblock": "city block",
    "chebyshev": "Chebyshev",
    "canberra": "Canberra",
    "correlation": "correlation",
    "braycurtis": "Bray–Curtis",
    "jensenshannon": "Jensen–Shannon",
}
_OF_LIKENESS = ("unlike", "box", "radius", "metric", "ranking")
"""What means nothing any more once no picture is left to be like."""


@dataclass(frozen=True)
class Asked:
    """All values of each field of a search, as addresses say them; `image_id` is said as `like`, and a page is not said."""

    said: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, fields: requested.Fields, like: Sequence[str] = ()) -> Asked:
        """Return what `fields` ask for, about the pictures `like` before those that they name."""
        said = {name: [str(raw) for raw in fields.get(name, ()) if raw != ""] for name in requested.SEARCH_FIELDS}
        said["like"] = list(dict.fromkeys([*like, *said.pop("image_id"), *said["like"]]))
        for name in ("page", "file", "unlike_file", "vector"):
            said.pop(name)
        if said["ranking"][:1] == list(requested.service().rankings[:1]):
            said["ranking"] = []  # the collection's own order need not be said
        if said["metric"][:1] == ["cosine"]:
            said["metric"] = []
        return cls({name: tuple(values) for name, values in said.items() if values})

    @property
    def is_like_something(self) -> bool:
        """Whether a picture is searched with, and not words or filters alone."""
        return "like" in self.said

    def address(self, **changed: Any) -> str:
        """Return the address of this search, with some fields said otherwise; None takes one away."""
        said: dict[str, Any] = {**self.said, **changed}
        return url_for("search.found", **said)

    @property
    def sheet(self) -> str:
        """Return the address of the picture with the nearest images beside what is searched with."""
        said: dict[str, Any] = {name: values for name, values in self.said.items() if name != "k"}
        return url_for("sheets.sheet", **said)

    @property
    def query(self) -> str:
        """Return what stands behind the question mark."""
        return self.address().partition("?")[2]

    def without(self, name: str, value: str) -> Asked:
        """Return the search without one value of a field; a part of a picture goes with the picture."""
        left = tuple(said for said in self.said.get(name, ()) if said != value)
        said = {**self.said, name: left}
        if name == "like" and self.said["like"][:1] == (value,):
            said["box"] = ()
        if name == "like" and not left:
            said |= dict.fromkeys(_OF_LIKENESS, ())
        return Asked({field: values for field, values in said.items() if values})

    def hidden(self, *but: str) -> Iterator[tuple[str, str]]:
        """Yield names and values for a form that says the same, but for the fields that it has itself."""
        return ((name, value) for name, values in self.said.items() if name not in but for value in values)

    def one(self, name: str) -> str:
        """Return what is said of a field that has one value; "" for nothing."""
        return self.said.get(name, ("",))[0]

    def conditions(self) -> list[tuple[str, str]]:
        """Return each condition in words, and the address without it."""
        return [
            (
                text.format(_shown(name, value)),
                self.without(name, value).address(),
            )
            for name, text in _CONDITIONS.items()
            for value in self.said.get(name, ())[:1]
        ]


def _shown(name: str, value: str) -> str:
    """Return the value of a field as people read it."""
    if name == "metric":
        return METRIC_WORDS.get(value, value)
    return value.replace("T", " ") if name.startswith("taken") else value


@dataclass(frozen=True)
class Shown:
    """One picture that is searched with: what addresses call it, what it looks like, and the address without it."""

    given: str
    title: str
    thumbnail: str
    width: int
    height: int
    sides: tuple[int | None, int | None]
    is_upload: bool
    without: str
    box: Box | None = None
    has_file: bool = True
    """Whether there is a file that a part can be cut from; this browser may have that of an upload."""


def shown_examples(asked: Asked, name: str, examples: Sequence[Example]) -> list[Shown]:
    """Return what pages show of the first of `examples`, which stand in the field `name`. Raises `UploadGoneError`."""
    service, first = requested.service(), examples[:SHOWN_EXAMPLES]
    infos = service.images([example.source for example in first if isinstance(example.source, int)])
    shown = []
    for example in first:
        source = example.source
        if isinstance(source, str):
            shown.append(_shown_upload(asked, name, source))
        elif isinstance(source, int) and source in infos:
            shown.append(replace(_shown_image(asked, name, infos[source]), box=example.box))
    return shown


def _shown_image(asked: Asked, name: str, info: ImageInfo) -> Shown:
    given = str(info.image_id)
    return Shown(
        given=given,
        title=info.name,
        thumbnail=url_for("files.thumbnail", image_id=given),
        width=info.thumbnail_width,
        height=info.thumbnail_height,
        sides=(info.width, info.height),
        is_upload=False,
        without=asked.without(name, given).address(),
        has_file=original_path(info.image_id) is not None,
    )


def _shown_upload(asked: Asked, name: str, key: str) -> Shown:
    service = requested.service()
    kept = service.kept_upload(key)
    scale = min(1.0, service.settings.thumbnail_size / max(kept.width, kept.height))
    return Shown(
        given=key,
        title="The picture you sent",
        thumbnail=url_for("search.upload_thumbnail", key=key),
        width=max(1, round(kept.width * scale)),
        height=max(1, round(kept.height * scale)),
        sides=(kept.width, kept.height),
        is_upload=True,
        without=asked.without(name, key).address(),
        box=kept.box,
    )


def original_path(image_id: int) -> bytes | None:
    """Return the path of an image's file, None where it came without, or where it is not the one that was indexed any more."""
    try:
        return requested.service().original(image_id)[0]
    except ImageNotFoundError:
        return None


def conditions(where: Filter | None) -> dict[str, object]:
    """Return the conditions of a filter by their names."""
    return {} if where is None else {name: value for name, value in asdict(where).items() if value is not None}


def in_words(given: Mapping[str, object]) -> str:
    """Return conditions in words: "folder beach, label sand"."""
    return ", ".join(_CONDITIONS[name].format(value) for name, value in given.items())
