"""Pictures in memory: any of Pillow's modes to RGB over white, and the two small pictures made from it."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of 8 bits, transparency over white. An RGB image is handed back as it is: a large one is not copied."""
    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode in ("I", "F"):
        image = _stretch(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    transparency = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparency, tuple) and max(transparency) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparency)  # of a PNG with 16 bits a channel
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    over_white = Image.new("RGB", image.size, "white")
    over_white.paste(image, mask=image)
    return over_white


def _from_16_bits(image: Image.Image) -> Image.Image:
    """The upper 8 of 16 bits. Pillow's own conversion clips at 255, which makes all but the darkest pixels white."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _stretch(image: Image.Image) -> Image.Image:
    """Grey of 32 bits or floating point has no agreed white: the picture's least value is black, its greatest white."""
    with np.errstate(invalid="ignore"):  # NaN, which is what scientific files put where they know nothing
        values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / ((high - low) or 1))
    return Image.fromarray(scaled.astype(np.uint8))


def network_input(image: Image.Image, size: tuple[int, int], *, resample: str) -> npt.NDArray[np.uint8]:
    """Squeeze an RGB image to `size` (height, width), nothing cropped: uint8 (height, width, 3), C-contiguous, its own.

    `resample`: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos"; `ValueError` for anything else.
    """
    filters = Image.Resampling.__members__
    if resample.upper() not in filters:
        raise ValueError(f"There is no resampling {resample!r}, there are: {', '.join(filters).lower()}.")
    height, width = size
    # The gap: a large image is first averaged down to about three times the size, which no filter can tell apart.
    return np.array(image.resize((width, height), filters[resample.upper()], reducing_gap=3.0), dtype=np.uint8)


def cut_part(picture: Image.Image, part: tuple[float, float, float, float]) -> Image.Image:
    """Return the part between left, top, right, bottom, shares 0…1 of `picture`'s sides; at least one pixel wide and high."""
    left = min(math.floor(part[0] * picture.width), picture.width - 1)
    top = min(math.floor(part[1] * picture.height), picture.height - 1)
    right = max(left + 1, math.ceil(part[2] * picture.width))
    bottom = max(top + 1, math.ceil(part[3] * picture.height))
    return picture.crop((left, top, right, bottom))


def make_thumbnail(image: Image.Image, max_side: int) -> bytes:
    """Make a JPEG of an RGB image, its sides at most `max_side` and at least 1 pixel long; never enlarges."""
    scale = min(1.0, max_side / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
