"""A search service without a network: generated pictures, and a similarity whose answers tests can foretell."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from config import Settings
from errors import (
    EmptyCollectionError,
    ImageNotFoundError,
    LookalikeError,
    NoNetworkError,
    NoOriginalError,
    OriginalGoneError,
    QueryError,
    UploadGoneError,
    ViewMissingError,
)
from images import Decoders, Limits, Prepared, Wanted, decode_image, make_thumbnail, prepare
from search import (
    Box,
    CollectionStatus,
    Example,
    Explanation,
    Filter,
    ImageInfo,
    KeptUpload,
    Match,
    Query,
    RankingName,
    SearchResult,
    SearchService,
)

# Every format, names that make trouble in HTML and headers, a panorama and a tower; ids count from 1.
NAMES = (
    "beach.jpg",
    "forest.png",
    "<b>&\"quotes\" 'n' möwe.jpg",
    "scan.tif",
    "a very long name that no tile of a page of results could ever show as a whole, so it is cut.webp",
    "moving.gif",
    "old.bmp",
    "archive.jp2",
    "wrong-suffix.html",
    "panorama.jpg",
    "tower.jpg",
    "two\nlines.jpg",
    *(f"holiday-{number}.jpg" for number in range(13, 31)),
)
FORMATS = {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".jp2": "JPEG2000"}
SIZES = {"scan.tif": (2600, 1300), "panorama.jpg": (1600, 200), "tower.jpg": (120, 1600)}


def picture(number: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Draw one picture, unlike the others in its colours and where they lie."""
    colour = np.random.default_rng(number).integers(0, 256, (4, 3))
    image = Image.new("RGB", size, tuple(colour[0].tolist()))
    draw = ImageDraw.Draw(image)
    width, height = size
    draw.rectangle((0, height // 2, width, height), fill=tuple(colour[1].tolist()))
    draw.ellipse((width // 8, height // 8, width // 2, height // 2), fill=tuple(colour[2].tolist()))
    draw.polygon([(width // 2, height), (width, height // 3), (width, height)], fill=tuple(colour[3].tolist()))
    return image


def encoded(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    """Return the picture as bytes of a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _vector(image: Image.Image) -> npt.NDArray[np.float32]:
    pixels = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), np.float32).ravel() - 127.5
    return pixels / max(float(np.linalg.norm(pixels)), 1e-9)


class DecodersHere(Decoders):
    """Decodes in this process, without children."""

    def prepare(self, content: bytes | BinaryIO, wanted: Wanted) -> Prepared:
        return prepare(content, wanted)


class FakeService(SearchService):
    """What `app.py` and `api.py` use of `SearchService`; a subclass so that the type checker holds the two together.

    Matches are ordered by their likeness to the mean of the pictures, less half of those they shall be unlike; the order "kind"
    is that of "plain" turned round. Tests set `good`, how many matches are good, and `refusal`, why no uploads are taken.
    """

    good: int | None = None
    refusal: str | None = None

    @property
    def upload_refusal(self) -> str | None:
        return self.refusal

    @property
    def rankings(self) -> tuple[RankingName, ...]:
        return ("plain", "kind")

    @property
    def uploads_at_work(self) -> int:
        return 0

    @property
    def serving(self) -> tuple[int, int] | None:
        return 1, len(self.described)

    def __init__(self, folder: Path, settings: Settings, names: Sequence[str] = NAMES) -> None:
        self.settings = settings
        self.decoders = DecodersHere(0, 1)
        self.paths: list[Path] = []
        self.asked: list[Query] = []
        self.uploads: dict[str, tuple[bytes, Box | None]] = {}
        self._pictures = [picture(number, SIZES.get(name, (640, 480))) for number, name in enumerate(names, start=1)]
        self.described: list[ImageInfo] = []
        for number, (name, drawn) in enumerate(zip(names, self._pictures, strict=True), start=1):
            path = folder / f"{number:03}"
            file_format = FORMATS.get(Path(name).suffix, "JPEG")
            path.write_bytes(encoded(drawn, file_format))
            self.paths.append(path)
            self.described.append(self._describe(number, name, file_format, drawn, path.stat().st_size))

    def _describe(self, image_id: int, name: str, file_format: str, drawn: Image.Image, size: int) -> ImageInfo:
        thumbnail_width, thumbnail_height = self._thumbnail(drawn).size
        return ImageInfo(
            image_id=image_id,
            name=name,
            folder="photographs",
            label="beach" if image_id % 2 else None,
            format=file_format,
            width=drawn.width,
            height=drawn.height,
            size=size,
            taken_at="2019-08-03T12:01:00" if image_id % 3 else None,
            tags=["summer"],
            predicted_labels=[("seashore, coast", 0.81), ("sandbar", 0.07)],
            thumbnail_width=thumbnail_width,
            thumbnail_height=thumbnail_height,
            has_file=True,
        )

    def _thumbnail(self, drawn: Image.Image) -> Image.Image:
        return Image.open(io.BytesIO(make_thumbnail(drawn, self.settings.thumbnail_size)))

    def _position(self, image_id: int) -> int:
        if not 1 <= image_id <= len(self.described):
            raise ImageNotFoundError(f"The collection has no image {image_id}.")
        return image_id - 1

    def _example(self, example: Example) -> tuple[Image.Image, int, int]:
        """Return what is looked at, and the sides of the whole picture."""
        if isinstance(example.source, bytes):
            if self.refusal is not None:
                raise NoNetworkError(self.refusal)
            limits = Limits(self.settings.upload_max_bytes, self.settings.upload_max_pixels, self.settings.max_frames)
            decoded = decode_image(example.source, limits, min_side=224)
            drawn, width, height = decoded.image, decoded.width, decoded.height
        elif isinstance(example.source, str):
            content, box = self.uploads[self.kept_upload(example.source).vectors_key]
            return self._example(Example(content, box))
        elif isinstance(example.source, int):
            drawn = self._pictures[self._position(example.source)]
            width, height = drawn.size
        else:
            raise QueryError(f"The vector has {len(example.source)} numbers; these are of a fake.")
        return drawn if example.box is None else example.box.cut(drawn), width, height

    def _found(self, query: Query, wanted: npt.NDArray[np.float32]) -> list[Match]:
        kept = [
            (float(wanted @ _vector(drawn)), info)
            for drawn, info in zip(self._pictures, self.described, strict=True)
            if info.image_id not in query.image_ids and self._meets(query.where, info)
        ]
        best = sorted(
            (pair for pair in kept if query.radius is None or 1 - pair[0] <= query.radius), key=lambda p: -p[0]
        )
        best = best[query.skip : None if query.k is None else query.skip + query.k + 1]
        best = (
            best[: query.k][:: -1 if query.ranking == "kind" else 1] + best[len(best) if query.k is None else query.k :]
        )
        return [
            Match(rank, score, 1 - score, min(1.0, (1 + score) / 2), info)
            for rank, (score, info) in enumerate(best, start=query.skip + 1)
        ]

    def _meets(self, where: Filter | None, info: ImageInfo) -> bool:
        if where is None:
            return True
        return (
            where.label in (None, info.label)
            and where.folder in (None, info.folder)
            and where.tag in (None, *info.tags)
            and all(word in info.name.casefold() or word in (info.label or "") for word in where.words)
        )

    def listed(self, where: Filter | None = None) -> npt.NDArray[np.int64]:
        self.status()
        return np.array([info.image_id for info in self.described if self._meets(where, info)], dtype=np.int64)

    def images(self, image_ids: Iterable[int]) -> dict[int, ImageInfo]:
        return {int(image_id): self.described[int(image_id) - 1] for image_id in image_ids}

    def labels(self) -> list[str]:
        return ["beach"]

    def is_label_given(self, image_id: int) -> bool:
        return False

    def status(self) -> CollectionStatus:
        if not self.described:
            raise EmptyCollectionError("The collection in /secret/folder holds no image yet.")
        return CollectionStatus(
            len(self.described),
            "efficientnet_lite0",
            "avg_pool",
            1280,
            "openvino",
            "float32",
            "exact",
            None,
            1,
            self.rankings,
        )

    def opened(self, opener: Callable[[Any, Any], Any]) -> Any:
        raise ViewMissingError(f"{opener.__name__}: nothing is computed of a fake.")

    def some_images(self, count: int) -> list[ImageInfo]:
        self.status()
        return self.described[-count:]

    def search(self, query: Query) -> SearchResult:
        self.asked.append(query)
        self.status()
        likes = [self._example(example) for example in query.like]
        wanted = np.mean([_vector(drawn) for drawn, _, _ in likes], axis=0)
        for example in query.unlike:
            wanted = wanted - _vector(self._example(example)[0]) / 2
        matches = self._found(query, wanted)
        more, matches = query.k is not None and len(matches) > query.k, matches[: query.k]
        good = None if self.good is None else min(self.good, len(matches))
        ranking = query.ranking or "plain"
        if len(likes) > 1:
            return SearchResult(matches, ranking, query.metric, good, None, None, None, more)
        drawn, width, height = likes[0]
        thumbnail = make_thumbnail(drawn, self.settings.thumbnail_size)
        return SearchResult(matches, ranking, query.metric, good, width, height, thumbnail, more)

    def search_many(self, queries: Sequence[Query]) -> list[SearchResult | LookalikeError]:
        answers: list[SearchResult | LookalikeError] = []
        for query in queries:
            try:
                answers.append(self.search(query))
            except LookalikeError as error:
                answers.append(error)
        return answers

    def check_decodes(self, content: bytes) -> None:
        self._example(Example(content))

    def keep_upload(self, content: bytes, box: Box | None = None) -> str:
        self.status()
        self._example(Example(content, box))
        key = f"u{len(self.uploads):022}"
        self.uploads[key] = (content, box)
        return key

    def kept_upload(self, key: str) -> KeptUpload:
        if key not in self.uploads:
            raise UploadGoneError("That picture is no longer kept. Send it again.")
        content, box = self.uploads[key]
        drawn, width, height = self._example(Example(content))
        thumbnail = make_thumbnail(drawn, self.settings.thumbnail_size)
        return KeptUpload(key, _vector(drawn), thumbnail, width, height, box)

    def explain(self, image_id: int, like: Example) -> Explanation:
        for example in (Example(image_id), like):
            self.looked_at(example)
        heat = np.zeros((4, 4), np.float32)
        heat[1, 2] = 0.5
        return Explanation(heat, heat.T.copy(), 0.5)

    def image(self, image_id: int) -> ImageInfo:
        return self.described[self._position(image_id)]

    def thumbnail(self, image_id: int) -> bytes | None:
        return make_thumbnail(self._pictures[self._position(image_id)], self.settings.thumbnail_size)

    def original(self, image_id: int) -> tuple[bytes, ImageInfo]:
        info = self.image(image_id)
        if not info.has_file:
            raise NoOriginalError(f"Image {image_id} came without a file.")
        path = self.paths[image_id - 1]
        if not path.exists():
            raise OriginalGoneError(f"The file {path} of image {image_id} is not where it was indexed.")
        return bytes(path), info

    def close(self) -> None:
        pass
