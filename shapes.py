"""The shapes of what `/api/v1` takes and answers, as `TypedDict`s: what its description is made of, and the type checker reads.

Owns names and types of fields, and what is said of them. Does not own how they are read (`requested.py`), filled (the views) or
turned into a description (`described.py`). What a shape lacks, an answer must not have: `tests/test_described.py` holds them
to it. Shapes of the views of the whole collection are in `web/shapes.py`, those of one view alone may stand beside it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le, Len

# Not typing's: pydantic reads that one only from Python 3.12 on.
from typing_extensions import TypedDict

from ann import Metric

Id = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]
Text = Annotated[str, Len(1, 100)]
Ranking = Literal["kind", "plain"]


# Errors.


class ErrorTold(TypedDict):
    """What went wrong: the HTTP status, a word for programs, a sentence for people."""

    status: int
    code: str
    message: str


class Problem(TypedDict):
    """The one shape of every error."""

    error: ErrorTold


# What a search takes.


class FilterFields(TypedDict, total=False):
    """Conditions that images have to meet, all of them."""

    folder: str
    """The name of a folder, or an absolute path; what lies in folders below counts as well."""
    label: str
    """Exactly this label."""
    tag: str
    """One of the tags that people gave."""
    looks_like: str
    """Whole words of the name of a class that the network saw."""
    taken_from: str
    """A year, month, day or time, such as 2019-08 or 2019-08-03T12:01, inclusive."""
    taken_until: str
    """A year, month, day or time, inclusive."""
    min_side: Count
    """Pixels that the shorter side has at least."""
    max_side: Count
    """Pixels that the longer side has at most."""
    orientation: Literal["landscape", "portrait", "square"]
    text: str
    """Words, each of which stands in the file's name, the label or a tag, or was seen by the network."""


class ReachFields(TypedDict, total=False):
    """How many neighbours, how far, in which order."""

    box: Annotated[list[Share], Len(4, 4)]
    """A part of the picture: left, top, right, bottom as shares of its sides."""
    k: Count | Literal["all"]
    """How many images at most."""
    page: Count
    """Which k of the images, from 1: the k nearest, the next k."""
    radius: Annotated[float, Ge(0)]
    """The largest distance, in the units of `metric`."""
    metric: Metric
    """How far two vectors are apart, as scipy names it; braycurtis and jensenshannon are for scores, which are never below 0."""
    ranking: Ranking
    """"kind" puts images of the same kind first, "plain" the most similar ones."""


class ExampleFields(TypedDict, total=False):
    """Indexed images, and uploads that are kept, to be like and unlike."""

    image_id: list[Id]
    """Indexed images to be like; the same as `like`."""
    like: list[Id | str]
    """Ids of indexed images, or keys of uploads that are kept, to be like."""
    unlike: list[Id | str]
    """Ids of indexed images, or keys of uploads that are kept, to be unlike."""


class NeighbourFields(ReachFields, FilterFields, total=False):
    """Which neighbours of an image."""


class SearchFields(ExampleFields, ReachFields, FilterFields, total=False):
    """What to search for, and among which images."""


class SearchBody(SearchFields, total=False):
    """What to search for, in a body."""

    vector: list[float]
    """A vector of the collection's own network, instead of a picture."""


class KeepFields(TypedDict, total=False):
    """Which part of a picture is kept to search with."""

    box: Annotated[list[Share], Len(4, 4)]
    """A part of the picture: left, top, right, bottom as shares of its sides."""


class ListFields(FilterFields, total=False):
    """Which images of the collection to list, and which page of them."""

    k: Count
    """Images a page."""
    page: Count
    """Pages count from 1."""


class GraphFields(FilterFields, total=False):
    """Whose neighbours make a graph: of the images named, else of those that meet the conditions."""

    image_id: list[Id]
    k: Count
    """Neighbours of each image."""
    radius: Annotated[float, Ge(0)]
    """The largest cosine distance of neighbours."""
    among: Literal["all", "selection"]
    """Whether neighbours may be any images, or are themselves among those that were asked about."""


# Images.


class Thumbnail(TypedDict):
    """Where the small picture of an image is, and its exact size in pixels."""

    url: str
    width: int
    height: int


class PredictedLabel(TypedDict):
    """A class that the network saw in an image."""

    name: str
    score: float


class Image(TypedDict):
    """One image of the collection."""

    image_id: int
    name: str
    folder: str
    """The name of its folder."""
    label: str | None
    format: str
    width: int | None
    height: int | None
    size_bytes: int
    taken_at: str | None
    """When it was taken, in the camera's own time."""
    tags: list[str]
    predicted_labels: list[PredictedLabel]
    thumbnail: Thumbnail
    view_url: str | None
    """The whole picture as browsers show it; null where there is no file."""
    original_url: str | None
    """The file itself; null where there is none."""
    page_url: str


class ImageList(TypedDict):
    """A page of the images of the collection, by ascending id."""

    images: int
    """How many there are on all pages."""
    page: int
    pages: int
    results: list[Image]


# Searches.


class Asked(TypedDict):
    """How was searched, in words that a request could use."""

    k: int | Literal["all"]
    radius: float | None
    metric: Metric
    ranking: Ranking


class Asker(TypedDict):
    """What was searched with: the id of an indexed image, and the sides of a picture, in pixels."""

    image_id: int | None
    width: int | None
    height: int | None


class Match(TypedDict):
    """One image that was found."""

    rank: int
    similarity: float
    """The cosine of the two vectors."""
    distance: float
    closer_than: float | None
    """Which share of random pairs of this collection is less alike; null where that was not measured."""
    image: Image


class SearchAnswer(Asked):
    """What a search found, nearest first."""

    query: Asker
    page: int
    more: bool
    """There is a next page."""
    good_matches: int | None
    """After how many matches the good ones end; null where that was not measured."""
    truncated: bool
    """There is more than one answer may hold."""
    matches: list[Match]


class KeptAnswer(TypedDict):
    """What is kept of a picture: a vector and a small copy."""

    key: str
    """Stands wherever an image id can in `like` and `unlike`."""
    minutes: int
    """How long it is kept after it was last asked for."""
    width: int
    height: int
    thumbnail_url: str
    page_url: str
    """The page of its results."""


class Row(TypedDict):
    """One match of one query of a batch."""

    query: int
    """The place of the query in the batch, from 0."""
    query_label: str
    reference_label: str
    image_id: int
    distance: float
    rank: int


class BatchError(Problem):
    """Why one query of a batch was not answered."""

    query: int
    query_label: str


class BatchAnswer(Asked):
    """What many searches found, as rows; queries that could not be answered stand in `errors`."""

    truncated: bool
    rows: list[Row]
    errors: list[BatchError]


# The collection as a whole.


class Edge(TypedDict):
    """`destination` is the neighbour of `source` at place `rank`, at a cosine distance."""

    source: int
    destination: int
    distance: float
    rank: int


class Node(TypedDict):
    """An image of a graph."""

    image_id: int
    name: str
    label: str | None


class GraphAnswer(TypedDict):
    """Images and how near they are to one another."""

    k: int
    radius: float | None
    among: Literal["all", "selection"]
    truncated: bool
    """More images were asked about than one graph may hold: only the first were."""
    nodes: list[Node]
    """All ends of the edges, and the images that were asked about."""
    edges: list[Edge]


class LabelCount(TypedDict):
    """A label, and how many images have it."""

    name: str
    images: int


class LabelsAnswer(TypedDict):
    """Labels of images, and what the network is fairly sure to have seen; the commonest first."""

    given: list[LabelCount]
    """An image's label is its folder's name until a person gives it another."""
    by_people: list[LabelCount]
    """Those of them that people gave, with how many images they gave them to."""
    seen: list[LabelCount]


class CollectionCounts(TypedDict):
    """Images by what is known of them, `contents` that differ, the sum of their files' `bytes`, and files that `failed`."""

    images: int
    contents: int
    bytes: int
    without_file: int
    with_time: int
    with_label: int
    failures: int


class ViewTold(TypedDict):
    """A view that was computed, and whether it is of all images as they are now."""

    name: str
    created_at: str
    images: int
    is_current: bool


class LastRun(TypedDict):
    """What the last run of the indexing job did, in files."""

    ended_at: str
    new: int
    changed: int
    moved: int
    unchanged: int
    failed: int
    skipped: int
    gone: int
    removed: int
    vectorised: int
    seconds: float
    images_per_second: float
    interrupted: bool


class ProjectionTold(TypedDict):
    """What labels taught: of how many classes and images, and how many numbers a vector has as it is searched."""

    classes: int
    learnt_from: int
    dim: int


class CollectionAnswer(TypedDict):
    """What is served: which images by which network, how they are found, and which views of them were computed."""

    images: int
    backbone: str
    layer: str
    dim: int
    engine: str | None
    precision: str | None
    index: str
    recall: float | None
    """Of the index's self-test; null for exact search."""
    generation: int
    created_at: str
    rankings: list[Ranking]
    projection: ProjectionTold | None
    """Null where the network's own vectors are searched. Vectors that are sent have `dim` numbers all the same."""
    counts: CollectionCounts
    failures: dict[str, int]
    """How many files could not become images, by reason."""
    views: list[ViewTold]
    last_run: LastRun | None
    """Null where no run is remembered."""
    disk: dict[str, int]
    """Bytes that the collection takes, by part."""
