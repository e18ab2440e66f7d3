"""The shapes of what the views of the whole collection take and answer: groups, duplicates, map, tags. See `shapes.py`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from annotated_types import Len

# Not typing's: pydantic reads that one only from Python 3.12 on.
from typing_extensions import TypedDict

from shapes import Count, Id, Image, Share, Text

Tier = Literal["same", "identical", "burst", "similar"]
Rule = Literal["largest", "oldest", "format", "shortest"]


# Groups.


class GroupFields(TypedDict, total=False):
    """Where the tree of groups is cut, and which page is asked for."""

    sim: Share
    """How alike the images of a group are at least."""
    page: Count


class GroupListFields(GroupFields, total=False):
    """Which groups to list."""

    min_size: Count
    sort: Literal["size", "time"]


class GroupNameFields(TypedDict, total=False):
    """What a group shall be called."""

    sim: Share
    name: str


class LabelShare(TypedDict):
    """A label, and the share of a group's images that have it."""

    name: str
    share: float


class Cut(TypedDict):
    """Where the tree of groups was cut."""

    sim: float
    proposed_sim: float
    method: str


class GroupTold(TypedDict):
    """One group. It has no number that would last: any of its images stands for it."""

    image_id: int
    """The image in its middle."""
    size: int
    name: str | None
    title: str
    labels: list[LabelShare]
    taken_from: str | None
    taken_until: str | None
    central: Image | None
    url: str
    page_url: str


class NamedElsewhere(TypedDict):
    """A name whose group is not there at this cut."""

    name: str
    images: int
    sim: float | None
    page_url: str | None


class GroupListAnswer(Cut):
    """A page of groups."""

    min_size: int
    sort: Literal["size", "time"]
    groups: int
    grouped_images: int
    images_alone: int
    images_not_grouped_yet: int
    named_elsewhere: list[NamedElsewhere]
    page: int
    pages: int
    results: list[GroupTold]


class GroupNameAnswer(Cut, GroupTold):
    """A group, as it is called now."""


class GroupAnswer(GroupNameAnswer):
    """A group with the ids of all its images and a page of them."""

    image_ids: list[int]
    page: int
    pages: int
    images: list[Image]


# Duplicates.


class DuplicatesFields(TypedDict, total=False):
    """Which sets of duplicates to list, and what would be kept of each."""

    tier: Tier
    rule: Rule
    protect: list[str]
    """Folders whose images are kept."""
    page: Count


class PlanFields(DuplicatesFields, total=False):
    """What a plan shall say."""

    keep: list[Id]
    remove: list[Id]
    format: Literal["csv", "json"]


class DuplicateTold(TypedDict):
    """One image of a set, and what a plan would do with it."""

    action: Literal["keep", "remove"]
    reason: str
    tier: str
    relation: str
    image: Image


class DuplicateSetTold(TypedDict):
    """Images that are duplicates of one another."""

    tier: str
    images_not_shown: int
    images: list[DuplicateTold]


class DuplicatesAnswer(TypedDict):
    """A page of sets of duplicates."""

    tier: Tier
    rule: Rule
    tiers: dict[str, int]
    images: int | None
    removed: int | None
    removed_bytes: int | None
    created_at: str
    images_not_compared_yet: int
    page: int
    pages: int
    results: list[DuplicateSetTold]


class CopyTold(TypedDict):
    """A duplicate of an image: `relation` says what it is of that one."""

    tier: str
    relation: str
    similarity: float
    hash_distance: int | None
    image: Image


class CopiesAnswer(TypedDict):
    """The duplicates of one image."""

    image_id: int
    results: list[CopyTold]


class PairTold(TypedDict):
    """Two images that are duplicates."""

    tier: str
    relation: str
    similarity: float
    images: list[Image]


class PairsAnswer(TypedDict):
    """Pairs of duplicates among a selection; `count` is how many there are, of which the first are told."""

    count: int
    pairs: list[PairTold]


# The map, and selections.


class Selection(TypedDict):
    """Images that were selected."""

    image_ids: Annotated[list[Id], Len(1)]


class Layout(TypedDict):
    """One arrangement of the map; `cell` is the side of a cell of a grid, as a share of the map."""

    name: str
    title: str
    cell: float | None


class DateMark(TypedDict):
    """What stands on the axis of dates, and where."""

    text: str
    x: float


class Column(TypedDict):
    """One array of the file of points: `count` little-endian numbers of `type` from byte `offset` on."""

    name: str
    type: str
    offset: int
    count: int


class Points(TypedDict):
    """Where the file of points is, and what stands in it."""

    url: str
    columns: list[Column]


class AtlasesTold(TypedDict):
    """Pictures that hold thumbnails in cells of `cell` pixels."""

    cell: int
    urls: list[str]


class Spot(TypedDict):
    """Images of the map to jump to, and where their name stands in each layout."""

    name: str
    image_id: int
    count: int
    named: bool
    sim: float | None
    at: dict[str, list[float]]


class MapAnswer(TypedDict):
    """The map: its layouts, and where its numbers and pictures are."""

    digest: str
    images: int
    placed_since: int
    layouts: list[Layout]
    date_marks: list[DateMark]
    labels: list[str]
    points: Points
    atlases: AtlasesTold | None
    spots: list[Spot]


class VersionFields(TypedDict, total=False):
    """Of which version of the map."""

    v: str
    """The map's `digest`; an answer to it may be kept for ever."""


class MapPictureFields(VersionFields, total=False):
    """Which picture of the map."""

    layout: str


class MapGroupFields(TypedDict):
    """Whose group, and where the tree of groups is cut."""

    image_id: Id
    sim: NotRequired[Share]


class MapGroupAnswer(TypedDict):
    """The images of a group that are on the map."""

    name: str
    count: int
    image_ids: list[int]


class SoughtFields(TypedDict):
    """What to find on the map."""

    q: Text


class SoughtAnswer(TypedDict):
    """The images of the map that a text found, and by what."""

    q: str
    by: str
    count: int
    image_ids: list[int]


class Caption(TypedDict):
    """What is said beside a selected image."""

    image_id: int
    name: str
    folder: str
    label: str | None
    tags: list[str]
    taken_at: str | None


class CaptionsAnswer(TypedDict):
    """What is said beside selected images."""

    images: list[Caption]


class MoreAnswer(TypedDict):
    """Images like a selection; `examples` is by how many of it was searched."""

    examples: int
    images: list[Image]


# Labels.


class LabelFields(Selection):
    """A label, and the images that get it in place of theirs."""

    label: Text
    """What they are pictures of; no path."""


class LabelAnswer(TypedDict):
    """A label as it is kept, and the images that have it now."""

    label: str
    image_ids: list[Id]


class UnlabelAnswer(TypedDict):
    """How many of the images had a label that a person gave."""

    taken: int
    image_ids: list[Id]


class Change(TypedDict):
    """How well photographs that were not learnt from find their own class: mAP before and after."""

    before: float
    after: float
    images: int
    classes: int


class LearnedAnswer(TypedDict):
    """What was learnt from the labels, and what that is worth."""

    classes: dict[str, int]
    """How many photographs of each label it learnt from."""
    strength: float
    """How much the labels count beside the network's own vectors."""
    held_out: Change | None
    """On photographs of these labels that were left out; null where there are too few to tell."""
    unseen: Change | None
    """On labels that were left out whole."""
    others: Change | None
    """On the other labels of the collection, its folders."""
    warning: str | None
    trained: bool
    """False where the same labels had taught the same before."""
    seconds: float


class ForgottenAnswer(TypedDict):
    """By what the collection is searched now: nothing but the network's own vectors."""

    reducer: None


# Tags.


class TagFields(Selection):
    """A tag, and the images that get it or lose it."""

    tag: Text


class TagCounts(TypedDict):
    """How many images have each tag."""

    tags: dict[str, int]


class TagAnswer(TypedDict):
    """A tag as it is kept, and the images that were changed."""

    tag: str
    image_ids: list[int]
