"""What a search can ask: examples to be like and unlike, how many, how far, in which order, among which images.

Owns the checks of these values and the joining of several examples into one vector. Does not own how a picture becomes a
vector (`embedding`) or how it is answered (`service`). Source: Rocchio's relevance feedback (Manning, Raghavan, Schütze,
"Introduction to Information Retrieval", chapter 9).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from ann import Metric
from errors import QueryError
from images.pixels import cut_part
from indexes.index import check_reach
from store import Filter
from vectors import Vectors, unit_vectors

RankingName = Literal["kind", "plain"]

UNLIKE_SHARE = 0.25
"""How much of the unlikes' mean is taken off the likes' mean.

Measured on caltech101-dev (EfficientNet-Lite0; two images of a class, unlike one of the class nearest to it, ten draws a class):
P@10 0.930 without the unlike, 0.938 from 0.2 to 0.3, 0.929 at 0.5, 0.851 at 1; mAP 0.824, 0.828 at 0.25, 0.802, 0.657. With the
first wrong match of each as the unlike: P@10 0.860 without, 0.885 at 0.25, 0.851 at 0.5.
"""


@dataclass(frozen=True)
class Box:
    """A part of an upright picture: its edges as shares 0…1 of the width (left, right) and the height (top, bottom)."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        edges = (self.left, self.top, self.right, self.bottom)
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):  # False for NaN as well
            raise QueryError(
                f"The box is {', '.join(f'{edge:g}' for edge in edges)}, but must be left, top, right, bottom as shares of the "
                "picture from 0 to 1, with left < right and top < bottom: 0,0,0.5,1 is its left half."
            )

    def __str__(self) -> str:
        """Return it as addresses say it: "0,0,0.5,1"."""
        return ",".join(f"{edge:g}" for edge in self.edges)

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        return self.left, self.top, self.right, self.bottom

    @property
    def least_share(self) -> float:
        """Return the smaller of its width and height, as a share of the picture's."""
        return min(self.right - self.left, self.bottom - self.top)

    def cut(self, picture: Image.Image) -> Image.Image:
        """Return this part of `picture`, at least one pixel wide and high."""
        return cut_part(picture, self.edges)


@dataclass(frozen=True, eq=False)
class Example:
    """One thing to be like or unlike: an indexed image's id, the bytes of a picture's file, the key of a kept upload (see
    `search.kept`), or a vector (dim,) of numbers.

    `box` takes a part of the picture; an indexed image's is then read from its file again. A kept upload has no other parts.
    """

    source: int | bytes | str | npt.NDArray[Any]
    box: Box | None = None

    def __post_init__(self) -> None:
        if isinstance(self.source, str) and self.box is not None:
            raise QueryError("Of an upload only its vector is kept, which has no parts: send the picture with the box.")
        if not isinstance(self.source, np.ndarray):
            return
        if self.source.ndim != 1 or self.source.dtype.kind not in "fiu":
            raise QueryError(f"A vector must be one row of numbers, not {self.source.dtype} {self.source.shape}.")
        finite = np.isfinite(self.source)
        if not finite.all():
            place = int(np.flatnonzero(~finite)[0])
            raise QueryError(
                f"The vector holds {self.source[place]} at place {place}: only finite numbers can be compared."
            )
        if self.box is not None:
            raise QueryError("A vector has no parts: a box needs a picture or an indexed image.")


@dataclass(frozen=True)
class SeenExample:
    """An example as a vector float32 (dim,), of the network or as it is searched, and what may be shown of it."""

    vector: Vectors
    width: int | None = None
    height: int | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """One search. `k` None and `radius` None: every image, nearest first; both: the k nearest of those within the radius.

    `radius` is in the units of `metric`: cosine is 1 - cosine, 0…2; the others are between the vectors as they are stored.
    `ranking` None is the collection's own; with a radius or another distance the order is always by distance. `skip`: how many
    of the first are left out, for the next page of an answer. `thumbnail`: whether a small JPEG of an upload is wanted.
    Raises `QueryError`, naming the value, for what makes no sense.
    """

    like: tuple[Example, ...]
    unlike: tuple[Example, ...] = ()
    _: KW_ONLY
    k: int | None
    radius: float | None = None
    metric: Metric = "cosine"
    ranking: RankingName | None = None
    where: Filter | None = None
    skip: int = 0
    thumbnail: bool = True

    def __post_init__(self) -> None:
        if not self.like:
            raise QueryError("The search has nothing to be like: give at least one picture, image or vector.")
        if self.skip < 0:
            raise QueryError(f"skip is {self.skip}, but must be a whole number from 0 on.")
        check_reach(self.k, self.radius, self.metric)
        if self.ranking is not None:
            ranking_named(self.ranking)

    @property
    def image_ids(self) -> frozenset[int]:
        """Return the indexed images among its examples: they are left out of the answer."""
        sources = (example.source for example in self.like + self.unlike)
        return frozenset(source for source in sources if isinstance(source, int))


def ranking_named(name: str) -> RankingName:
    """Return `name` as a ranking; raises `QueryError` unless it is one."""
    if name not in get_args(RankingName):
        raise QueryError(f"The ranking is {name[:40]!r}, but must be one of: {', '.join(get_args(RankingName))}.")
    return cast(RankingName, name)


def combined(likes: Vectors, unlikes: Vectors, *, share: float = UNLIKE_SHARE) -> Vectors:
    """Return one vector float32 (1, dim) for `likes` (a, dim) but not `unlikes` (b, dim); a single like stays as it is.

    Several are joined as unit vectors, so that none counts more for being long: the mean of the likes less `share` of the
    mean of the unlikes. The answer is as long as the likes are on average, for distances that depend on length.
    """
    if len(likes) == 1 and not len(unlikes):
        return likes
    wanted = unit_vectors(likes).mean(axis=0, keepdims=True)
    if len(unlikes):
        wanted = unit_vectors(wanted) - share * unit_vectors(unit_vectors(unlikes).mean(axis=0, keepdims=True))
    length = np.float32(np.linalg.norm(likes, axis=1).mean())
    return unit_vectors(wanted) * length


def classes_named(names: Sequence[str], words: str) -> list[int]:
    """Return the classes, by their `names`, in which `words` stand whole: a catamaran is no cat."""
    wanted = re.compile(rf"(?<!\w){re.escape(words.casefold().strip())}(?!\w)")
    return [number for number, name in enumerate(names) if wanted.search(name.casefold())]
