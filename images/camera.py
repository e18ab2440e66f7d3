"""What took a photograph, as its file says: camera, lens, exposure. Owns putting EXIF in words; reading it is `decoding`'s.

Source: CIPA DC-008 (Exif 2.32), tags of the image and of the Exif IFD.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from images.checks import Limits
from images.decoding import read_notes

MAKE, MODEL, LENS = 0x010F, 0x0110, 0xA434
SECONDS, APERTURE, SENSITIVITY, FOCAL_LENGTH = 0x829A, 0x829D, 0x8827, 0x920A
MOST_SIGNS = 80


@dataclass(frozen=True)
class Camera:
    """What took a photograph: each in words, "" for what its file does not say."""

    name: str
    lens: str
    exposure: str


def read_camera(file: BinaryIO, limits: Limits) -> Camera | None:
    """Return what took the photograph in a file, None where it does not say. Raises `ImageError`, `OSError`."""
    notes = read_notes(file, limits)
    found = Camera(_name(notes), _text(notes.get(LENS)), _exposure(notes))
    return None if found == Camera("", "", "") else found


def _name(notes: Mapping[int, object]) -> str:
    make, model = _text(notes.get(MAKE)), _text(notes.get(MODEL))
    brand = make.split(" ")[0]  # "NIKON CORPORATION", "NIKON D70"
    return model if model.casefold().startswith(brand.casefold()) and model else f"{make} {model}".strip()


def _exposure(notes: Mapping[int, object]) -> str:
    seconds, aperture = _number(notes.get(SECONDS)), _number(notes.get(APERTURE))
    sensitivity, length = _number(notes.get(SENSITIVITY)), _number(notes.get(FOCAL_LENGTH))
    said = (
        "" if seconds is None else f"{seconds:.3g} s" if seconds >= 0.3 else f"1/{1 / seconds:.0f} s",
        "" if aperture is None else f"f/{aperture:.3g}",
        "" if sensitivity is None else f"ISO {sensitivity:.0f}",
        "" if length is None else f"{length:.3g} mm",
    )
    return " · ".join(filter(None, said))


def _text(raw: object) -> str:
    """Return what a file says as one line of printable text."""
    words = " ".join(raw.split()) if isinstance(raw, str) else ""
    return "".join(sign for sign in words if sign.isprintable())[:MOST_SIGNS].strip()


def _number(raw: object) -> float | None:
    """Return a positive number, None for what is none: files say 0/0, and lists."""
    try:
        number = float(cast(Any, raw[0] if isinstance(raw, tuple) and raw else raw))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and 1e-6 < number < 1e6 else None
