"""What Python users hand in as images: one or many, of the collection or not, as paths, pictures, arrays, vectors or ids.

Owns telling these apart, what each is called in the rows of an answer, and turning pictures into upright RGB. Does not own files'
formats (`images`), vectors or the catalog. Source: `turicreate.image_similarity`, `query`, which takes one image or many alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from errors import QueryError


@runtime_checkable
class Indexed(Protocol):
    """An image of the collection, such as `Record` and `ImageInfo`."""

    @property
    def image_id(self) -> int:
        """Return its number in the catalog."""
        ...


OneImage: TypeAlias = str | bytes | os.PathLike[Any] | int | np.integer[Any] | Indexed | Image.Image | npt.NDArray[Any]
Images: TypeAlias = OneImage | Iterable[OneImage]
"""A path, an image id or record, a PIL image, uint8 (h, w, 3) or (h, w), a float vector (dim,); or any number of these, pictures
uint8 (n, h, w, 3), vectors (n, dim), ids int64 (n,)."""

ACCEPTED = (
    "a path, an image id, a PIL image, an array of uint8 (height, width, 3) or (height, width), or a float vector (dim,); for "
    "many a list of these, an array (n, height, width, 3) or vectors (n, dim)"
)

Source: TypeAlias = bytes | int | Image.Image | npt.NDArray[Any]


def sources(images: Images) -> tuple[list[Source], bool]:
    """Return each image handed in, and whether several could have been.

    A source is a path (bytes), an image id, a PIL image, a picture uint8 (h, w) or (h, w, 1, 3 or 4), or a vector (a float
    array of one dimension; its length and its numbers are not looked at here). Raises `QueryError` naming what is none of these.
    """
    if isinstance(images, np.ndarray):
        return _from_array(images)
    if isinstance(images, str | bytes | os.PathLike | int | np.integer | np.void | Indexed | Image.Image):
        return [_one(images)], False
    if isinstance(images, Iterable):
        return [_one(image) for image in images], True
    raise _refused(images)


def _from_array(array: npt.NDArray[Any]) -> tuple[list[Source], bool]:
    kind = array.dtype.kind
    if "image_id" in (array.dtype.names or ()):
        return [int(number) for number in np.atleast_1d(array["image_id"])], array.ndim > 0
    if kind == "f" and array.ndim in (1, 2):
        return (list(array), True) if array.ndim == 2 else ([array], False)
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        return [_pixels(array)], False
    if array.dtype == np.uint8 and array.ndim == 4:
        return [_pixels(one) for one in array], True
    if kind in "iu" and array.dtype != np.uint8 and array.ndim <= 1:
        return [int(number) for number in np.atleast_1d(array)], array.ndim > 0
    if array.dtype == object and array.ndim == 1:
        return [_one(image) for image in array], True
    raise _refused(array)


def _one(image: Any) -> Source:
    if isinstance(image, np.ndarray):
        found, many = _from_array(image)
        if not many:
            return found[0]
    elif isinstance(image, str | bytes | os.PathLike):
        return os.fsencode(image)
    elif isinstance(image, np.void) and "image_id" in (image.dtype.names or ()):
        return int(image["image_id"])
    elif isinstance(image, int | np.integer) and not isinstance(image, bool):
        return int(image)
    elif isinstance(image, Image.Image):
        return image
    elif isinstance(image, Indexed):
        return int(image.image_id)
    raise _refused(image)


def _refused(image: object) -> QueryError:
    said = f"an array of {image.dtype} {image.shape}" if isinstance(image, np.ndarray) else f"{image!r:.80}"
    return QueryError(f"An image cannot be {said}: it must be {ACCEPTED}.")


def _pixels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise _refused(array)
    return array
