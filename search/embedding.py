"""From a picture to a vector, by the network that made the collection's vectors.

Owns loading that network, once, and refusing what it cannot do: other networks than the collection's own, and any picture
where the vectors came from elsewhere. Does not own networks (`backbones/`), decoding (`images/`) or what vectors are for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from backbones import Backbone, BackboneRow, NetworkId, check_layer, find_row
from config import Settings
from errors import NoNetworkError
from images import network_input
from networks import check_same_network, find, load_network, mismatch, row_of
from search.places import check_client
from search.stages import timed
from store import VectorsManifest
from vectors import Vectors

REFUSAL = (
    "The vectors of this collection came from elsewhere, and no network here could make one of a new picture that compares "
    "with them. Search by an image of the collection instead."
)


class Embedder:
    """The network of one collection's vectors, loaded when it is first needed or by `load`. Thread-safe.

    Raises `CollectionMismatchError` when the settings ask for another network than the one that made the vectors.
    """

    def __init__(self, manifest: VectorsManifest, models_folder: Path, settings: Settings) -> None:
        self.network = NetworkId(manifest.backbone, manifest.layer, manifest.weights_sha256)
        self.refusal = REFUSAL if manifest.is_imported else None
        """Why no picture can become a vector here; None when it can."""
        self._models_folder = models_folder
        self._settings = settings
        self._backbone: Backbone | None = None
        self._row: BackboneRow | None = None
        self._loading = threading.Lock()
        self._runs = threading.BoundedSemaphore()
        if not manifest.is_imported or settings.backbone is not None:
            _check_settings(settings, self.network)

    @property
    def side(self) -> int:
        """Return how many pixels a side the network sees: a picture decoded to no less loses nothing. Raises `NoNetworkError`."""
        return max(self.row.input_size)

    def load(self) -> Backbone:
        """Return the network, loaded now unless it was before. Raises `NoNetworkError`, `BackboneError`."""
        if self.refusal is not None:
            raise NoNetworkError(self.refusal)
        with self._loading:
            if self._backbone is None:
                # One stream of one thread a core. See docs/measured.md: more threads on one picture, and pictures in
                # batches, were measured as well.
                self._backbone = load_network(self.network, self._settings, self._models_folder, purpose="throughput")
                self._runs = threading.BoundedSemaphore(self._backbone.parallel_runs)
            return self._backbone

    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Return the vectors of upright RGB pictures, float32 (n, dim). Raises `NoNetworkError`, `BackboneError`."""
        size = self.row.input_size
        pixels = [network_input(picture, size, resample=self.row.resample) for picture in pictures]
        return self.look(np.stack(pixels) if pixels else np.empty((0, *size, 3), np.uint8))

    def look(self, pixels: npt.NDArray[np.uint8]) -> Vectors:
        """Return the vectors of pictures squeezed to the network's input, uint8 (n, height, width, 3), as float32 (n, dim).

        As many callers at once as the network can run side by side; the others wait. Raises `NoNetworkError`, `BackboneError`,
        and `ClientGoneError` where the client has hung up while it waited.
        """
        backbone = self.load()
        with timed("queue"):
            self._runs.acquire()
        try:
            check_client()
            with timed("embed"):
                return backbone.run(pixels).vectors
        finally:
            self._runs.release()

    @property
    def row(self) -> BackboneRow:
        """Return what there is to know of the network. Raises `NoNetworkError`."""
        if self.refusal is not None:
            raise NoNetworkError(self.refusal)
        if self._row is None:
            self._row = row_of(self.network, self._settings)
        return self._row


def _check_settings(settings: Settings, own: NetworkId) -> None:
    name = settings.backbone or own.backbone
    row = find_row(name, settings.networks_folder, own.weights_sha256 if name == own.backbone else None)
    layer = check_layer(row, settings.layer) if settings.layer or name != own.backbone else own.layer
    if settings.weights is not None:
        check_same_network(own, find(settings, name, layer))
    elif (name, layer) != (own.backbone, own.layer):
        raise mismatch(own, f"{name}, layer {layer}", f"--backbone {name} --layer {layer}")
