"""What took a photograph, read from files that say it, say nonsense, or say nothing."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from errors import NotAnImageError
from images import Camera, Limits, read_camera
from images.camera import APERTURE, FOCAL_LENGTH, LENS, MAKE, MODEL, SECONDS, SENSITIVITY

LIMITS = Limits(1_000_000, 1_000_000, 10)


def photograph(file_format: str = "JPEG", **notes: object) -> io.BytesIO:
    """Return a small picture whose EXIF says `notes`, by the names of this module's tags."""
    exif = Image.Exif()
    for name in ("MAKE", "MODEL"):
        if name in notes:
            exif[{"MAKE": MAKE, "MODEL": MODEL}[name]] = notes.pop(name)
    tags = {
        "LENS": LENS,
        "SECONDS": SECONDS,
        "APERTURE": APERTURE,
        "SENSITIVITY": SENSITIVITY,
        "FOCAL_LENGTH": FOCAL_LENGTH,
    }
    exif.get_ifd(0x8769).update({tags[name]: value for name, value in notes.items()})
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(file, file_format, exif=exif)
    return file


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF"])
def test_camera_lens_and_exposure_are_read(file_format: str) -> None:
    file = photograph(
        file_format,
        MAKE="Canon",
        MODEL="Canon EOS 5D",
        LENS="EF 50mm f/1.4",
        SECONDS=IFDRational(1, 250),
        APERTURE=IFDRational(28, 10),
        SENSITIVITY=400,
        FOCAL_LENGTH=IFDRational(50, 1),
    )
    assert read_camera(file, LIMITS) == Camera("Canon EOS 5D", "EF 50mm f/1.4", "1/250 s · f/2.8 · ISO 400 · 50 mm")


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [
        ("NIKON CORPORATION", "NIKON D70", "NIKON D70"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("Apple", "", "Apple"),
        ("", "Scanner", "Scanner"),
    ],
)
def test_the_maker_is_said_once(make: str, model: str, name: str) -> None:
    found = read_camera(photograph(MAKE=make, MODEL=model), LIMITS)
    assert found is not None
    assert found.name == name


def test_long_exposures_are_in_seconds() -> None:
    found = read_camera(photograph(SECONDS=IFDRational(5, 2)), LIMITS)
    assert found == Camera("", "", "2.5 s")


def test_nonsense_is_left_out() -> None:
    file = photograph(MODEL="two\nlines\x07 " + "x" * 500, SECONDS=IFDRational(0, 0), APERTURE=IFDRational(0, 1))
    found = read_camera(file, LIMITS)
    assert found is not None
    assert found.name.startswith("two lines x")
    assert (len(found.name), found.name.isprintable(), found.exposure) == (80, True, "")


def test_a_file_that_says_nothing_has_no_camera() -> None:
    assert read_camera(photograph(), LIMITS) is None
    assert read_camera(photograph("PNG", MODEL="Canon"), LIMITS) is None


def test_a_file_that_is_no_picture_is_refused() -> None:
    with pytest.raises(NotAnImageError):
        read_camera(io.BytesIO(b"no picture at all"), LIMITS)
