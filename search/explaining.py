"""Why an image was found: where it and what was searched with agree, by the network that made the collection's vectors.

Owns a second copy of that network that also gives its last convolutional map, loaded when it is first asked for, and the last
answers. Does not own the mathematics (`heatmaps`), nor where small pictures come from (`service`).
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from backbones import Backbone, NetworkId
from config import Settings
from errors import OverloadedError
from heatmaps import FeatureMap, Heat, agreement
from images import network_input
from networks import load_network
from search.queries import Box
from store import Snapshot
from vectors import Vectors

ANSWERS_KEPT = 256
FAINT = 0.25
"""An agreement that is seen, but not bright, where it is spread over all of both pictures."""
COMMON_IMAGES = 1_000
"""So many images, evenly over the collection, tell what all of them have in common."""
LEAST_IMAGES = 50
"""Of fewer images nothing is taken to be common: it would be what two of them show."""


@dataclass(frozen=True)
class Looked:
    """One of the two pictures: a JPEG of all of it, and the part that is looked at."""

    thumbnail: bytes
    box: Box | None = None

    def picture(self) -> Image.Image:
        """Return what is looked at, as RGB."""
        whole = Image.open(io.BytesIO(self.thumbnail)).convert("RGB")
        return whole if self.box is None else self.box.cut(whole)

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the whole small picture in pixels."""
        return Image.open(io.BytesIO(self.thumbnail)).size


@dataclass(frozen=True)
class Explanation:
    """Where two pictures agree: `image` and `like` are float32 (rows, columns) of what was looked at of each.

    Each adds up to `agreement`, the cosine between both without what all pictures of the collection have in common.
    """

    image: Heat
    like: Heat
    agreement: float

    @property
    def most(self) -> float:
        """Return how much the hottest place of either adds; at least what makes a faint likeness, so that none looks like one."""
        faint = FAINT / min(self.image.size, self.like.size)
        return max(faint, float(self.image.max()), float(self.like.max()))


class Explainer:
    """Explains pairs of small pictures, one pair at a time. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = threading.BoundedSemaphore(settings.waiting_uploads + 1)
        self._working = threading.Lock()
        self._backbone: Backbone | None = None
        self._kept: OrderedDict[tuple[object, ...], Explanation] = OrderedDict()

    def explain(
        self, network: NetworkId, models_folder: Path, snapshot: Snapshot, image: Looked, like: Looked
    ) -> Explanation:
        """Return where `image` and `like` agree. Raises `OverloadedError` when too many are waiting, `BackboneError`."""
        key = (network, _digest(image.thumbnail), image.box, _digest(like.thumbnail), like.box)
        if not self._places.acquire(blocking=False):
            raise OverloadedError("Too many pictures are being compared at the moment. Try again in a few seconds.")
        try:
            with self._working:
                if key not in self._kept:
                    own, other = self._maps(network, models_folder, [image.picture(), like.picture()])
                    self._kept[key] = _explanation(own, other, _common(snapshot, own.shape[2]))
                self._kept.move_to_end(key)
                while len(self._kept) > ANSWERS_KEPT:
                    self._kept.popitem(last=False)
                return self._kept[key]
        finally:
            self._places.release()

    def _maps(self, network: NetworkId, models_folder: Path, pictures: Sequence[Image.Image]) -> list[FeatureMap]:
        if self._backbone is None or self._backbone.network != network:
            self._backbone = load_network(network, self._settings, models_folder, purpose="latency", feature_map=True)
        row = self._backbone.row
        pixels = [network_input(picture, row.input_size, resample=row.resample) for picture in pictures]
        outputs = self._backbone.run(np.stack(pixels))
        if outputs.feature_map is None:
            raise ValueError(f"{network.backbone} was loaded without its last convolutional map.")
        return list(outputs.feature_map)


def _explanation(image: FeatureMap, like: FeatureMap, common: Vectors | float) -> Explanation:
    heat = agreement(image, like, common)
    return Explanation(heat, agreement(like, image, common), float(heat.sum()))


def _common(snapshot: Snapshot, channels: int) -> Vectors | float:
    """Return the collection's mean vector, where its vectors are means of the map; else, or of few images, 0."""
    if snapshot.dim != channels or len(snapshot) < LEAST_IMAGES:
        return 0.0
    step = max(1, len(snapshot) // COMMON_IMAGES)
    mean: Vectors = snapshot.take(slice(None, None, step)).mean(axis=0)
    return mean


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
