"""The sample collection: real photographs and what people do to photographs, made without any network.

Owns which photographs are in it and how their variants are made: crops, turns, mirrorings, greys, re-compressions,
other sizes and formats. The photographs are files of the installed packages scikit-image and scikit-learn, read
without importing those; THIRD_PARTY.md names their authors and licences. Does not own indexing.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from errors import LookalikeError, SettingsError

MAX_SIDE = 1024

# Folder of the collection, which is the label -> file of an installed package. Only photographs: no logos or drawings.
PHOTOGRAPHS: Mapping[str, str] = {
    "astronaut": "skimage/data/astronaut.png",
    "brick": "skimage/data/brick.png",
    "camera": "skimage/data/camera.png",
    "cell": "skimage/data/cell.png",
    "chelsea": "skimage/data/chelsea.png",
    "china": "sklearn/datasets/images/china.jpg",
    "clock": "skimage/data/clock_motion.png",
    "coffee": "skimage/data/coffee.png",
    "coins": "skimage/data/coins.png",
    "flower": "sklearn/datasets/images/flower.jpg",
    "grass": "skimage/data/grass.png",
    "gravel": "skimage/data/gravel.png",
    "hubble": "skimage/data/hubble_deep_field.jpg",
    "ihc": "skimage/data/ihc.png",
    "moon": "skimage/data/moon.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "page": "skimage/data/page.png",
    "retina": "skimage/data/retina.jpg",
    "rocket": "skimage/data/rocket.jpg",
    "text": "skimage/data/text.png",
}
# A second photograph of the same scene, the only one that the packages carry.
OTHER_VIEWS: Mapping[str, str] = {"motorcycle": "skimage/data/motorcycle_right.png"}


def _crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def _scaled(image: Image.Image, share: float) -> Image.Image:
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


# File name -> how it is made of the photograph (RGB); the suffix says the format. Only formats that browsers show.
VARIANTS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "original.jpg": lambda image: image,
    "cropped_to_centre.jpg": lambda image: _crop(image, 0.2, 0.2, 0.8, 0.8),
    "cropped_to_corner.jpg": lambda image: _crop(image, 0, 0, 0.7, 0.7),
    "turned_15_degrees.jpg": lambda image: image.rotate(15, Image.Resampling.BICUBIC, expand=True, fillcolor="white"),
    "turned_90_degrees.jpg": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored.jpg": ImageOps.mirror,
    "grey.webp": lambda image: image.convert("L"),
    "recompressed.jpg": lambda image: image,
    "half_size.png": lambda image: _scaled(image, 0.5),
    "quarter_size.gif": lambda image: _scaled(image, 0.25),
    "brighter.jpg": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "less_contrast.webp": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
}
_QUALITY = {"original.jpg": 92, "recompressed.jpg": 15}
_USUAL_QUALITY = 80


def make_sample_collection(folder: Path) -> int:
    """Write the sample collection, about 240 images of 20 photographs, as `folder/<photograph>/<variant>`.

    Returns the number of images in it. The folder appears whole or not at all; one that is there already is left as
    it is. Raises `SettingsError` when something else is there, `LookalikeError` when a package with photographs is not.
    """
    if folder.exists() and any(folder.iterdir()):
        return _count_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for path, content in _sample_files():
            (unfinished / path).parent.mkdir(exist_ok=True)
            (unfinished / path).write_bytes(content)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return _count_existing(folder)


def _count_existing(folder: Path) -> int:
    names = {path.relative_to(folder) for path in folder.glob("*/*")}
    expected = {Path(label, variant) for label in PHOTOGRAPHS for variant in VARIANTS}
    expected |= {Path(label, "other_view.jpg") for label in OTHER_VIEWS}
    if not expected <= names:
        raise SettingsError(
            f"{folder} is there already but is not a complete sample collection: {len(expected - names)} of its "
            f"{len(expected)} images are missing. Name another folder, or move this one away."
        )
    return len(expected)


def _sample_files() -> Iterator[tuple[Path, bytes]]:
    for label, file in PHOTOGRAPHS.items():
        photograph = _open_photograph(file)
        for variant in VARIANTS:
            yield Path(label, variant), make_variant(photograph, variant)
    for label, file in OTHER_VIEWS.items():
        yield Path(label, "other_view.jpg"), _encoded(_open_photograph(file), "other_view.jpg")


def _open_photograph(file: str) -> Image.Image:
    """Open a packaged photograph as RGB, at most MAX_SIDE pixels on its longer side."""
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookalikeError(
            f"The sample photographs need the package {package}, which is not installed. "
            "Install it: pip install -r requirements.txt -c constraints.txt"
        )
    with Image.open(Path(spec.submodule_search_locations[0], inside)) as opened:
        photograph = opened.convert("RGB")
    photograph.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return photograph


def make_variant(photograph: Image.Image, name: str) -> bytes:
    """Return the file that `VARIANTS[name]` makes of a photograph (RGB)."""
    return _encoded(VARIANTS[name](photograph), name)


def _encoded(image: Image.Image, name: str) -> bytes:
    buffer = io.BytesIO()
    quality = _QUALITY.get(name, _USUAL_QUALITY)
    image.save(buffer, Image.registered_extensions()[Path(name).suffix], quality=quality)
    return buffer.getvalue()


if __name__ == "__main__":
    from commands.samples import main

    raise SystemExit(main())
