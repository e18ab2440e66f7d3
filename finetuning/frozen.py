"""The layers that training leaves as they are: where they end, and what they make of each photograph, computed once.

Owns the cut of a network into a frozen and a trained part, the versions (views) of a photograph that augmentation makes, and the
files of the frozen part's outputs: `frozen/<network>-layer<place>-…/<SHA-256>.npy`, float16 (views, h, w, c), each written
whole or not at all, so that a killed run loses one photograph's. They belong to contents: another training on the same
photographs finds them. Does not own what is learnt from them (`training.py`).
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backbones import BackboneRow
from errors import BackboneError, ImageError, UnreadableFileError
from images import Limits, decode_image, network_input
from store.formats import reporting_full_disk

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float16]

_RUN_AT_ONCE = 8
_COLLECTED = 4 * _RUN_AT_ONCE
_VIEWS_VERSION = 1
_DECODED_AHEAD = 16


@dataclass(frozen=True)
class Photograph:
    """A file to learn from, or to make vectors of; `sha256` is that of its bytes."""

    path: bytes
    sha256: bytes


def last_frozen(model: Any, row: BackboneRow, blocks: int) -> int:
    """Return the place in `model.layers` after which the top `blocks` of a network begin; of the `feature_map` for 0.

    A block ends where everything passes through one layer that joins branches (`Add`, `Concatenate`) or pools, which is what
    makers of networks call a block or a stage. Raises `BackboneError` where there are not as many.
    """
    if blocks == 0:
        return [layer.name for layer in model.layers].index(row.feature_map)
    ends = _block_ends(model, row.feature_map)
    if blocks > len(ends):
        raise BackboneError(
            f"{blocks} blocks are to be trained, but at most {len(ends)} of {row.name} can be: the others make what those see. "
            f"Give fewer: --blocks {len(ends)}"
        )
    return ends[-blocks]


def _block_ends(model: Any, feature_map: str) -> list[int]:
    import keras

    kinds = (
        *(keras.layers.Add, keras.layers.Concatenate),
        *(keras.layers.MaxPooling2D, keras.layers.AveragePooling2D),
    )
    layers = model.layers
    place = {id(layer.output): number for number, layer in enumerate(layers)}
    reach = np.arange(len(layers))  # the first layer whose output each layer, or one above it, still needs
    for number, layer in enumerate(layers[1:], start=1):
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        reach[number] = min(place[id(tensor)] for tensor in inputs)
    needed = np.minimum.accumulate(reach[::-1])[::-1]
    names = [layer.name for layer in layers]
    # A join after which nothing has weights (ResNet's last, before its activation) begins no block.
    weighted = max(number for number in range(names.index(feature_map) + 1) if layers[number].trainable_weights)
    return [
        number
        for number, layer in enumerate(layers[:weighted])
        if isinstance(layer, kinds) and needed[number + 1] >= number
    ]


def make_view(picture: Image.Image, number: int, photograph: Photograph, row: BackboneRow) -> Pixels:
    """Return version `number` of an RGB picture as the network's input, uint8 (h, w, 3): 0 is the picture itself.

    The others are a part of it (half of its area or more), turned left to right every second time, lighter or darker, with more
    or less contrast; the same for the same contents and number.
    """
    if number == 0:
        return network_input(picture, row.input_size, resample=row.resample)
    rng = np.random.default_rng([number, *photograph.sha256[:8]])
    area, shape = rng.uniform(0.5, 1.0), np.exp(rng.uniform(-0.25, 0.25))
    width, height = (min(1.0, area**0.5 * side) for side in (shape, 1 / shape))
    left, top = rng.uniform(0, 1 - width) * picture.width, rng.uniform(0, 1 - height) * picture.height
    box = (left, top, left + width * picture.width, top + height * picture.height)
    resample = Image.Resampling[row.resample.upper()]
    part = picture.resize(row.input_size[::-1], resample, box=box, reducing_gap=3.0)
    pixels = np.asarray(part, np.float32)[:, :: rng.choice([1, -1])]
    lit: NDArray[np.float32] = (pixels - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-25, 25)
    return np.clip(lit, 0, 255).astype(np.uint8)


class FrozenLayers:
    """What the layers up to a cut make of photographs. `front` is a Keras model of scaled pixels; reads from any thread."""

    def __init__(self, front: Any, row: BackboneRow, folder: Path, *, limits: Limits, threads: int) -> None:
        self._run = _compiled(front, row)
        self._row = row
        self._folder = folder
        self._limits = limits
        self._threads = threads
        self.shape: tuple[int, int, int] = tuple(front.output.shape[1:])

    def compute(
        self, wanted: Sequence[tuple[Photograph, int]], *, on_done: Callable[[int], None], stop: threading.Event
    ) -> dict[int, ImageError]:
        """Keep the outputs for (photograph, number of views) that are not there yet; `on_done` hears how many are.

        Returns why some cannot be read, by their places. Ends early when `stop` is set. Raises `DiskFullError`.
        """
        with reporting_full_disk(self._folder.parent):
            self._folder.mkdir(parents=True, exist_ok=True)
            missing = [place for place, (photograph, views) in enumerate(wanted) if not self._has(photograph, views)]
            on_done(len(wanted) - len(missing))
            failed = {}
            outputs = self._outputs([wanted[place] for place in missing], stop)
            for count, (place, maps) in enumerate(zip(missing, outputs, strict=False), start=1):
                if isinstance(maps, ImageError):
                    failed[place] = maps
                else:
                    self._save(wanted[place][0], maps)
                on_done(len(wanted) - len(missing) + count)
        return failed

    def read(self, photograph: Photograph, view: int) -> Maps:
        """Return the kept output (h, w, c) for one version of a photograph."""
        return np.array(np.load(self._path(photograph), mmap_mode="r")[view])

    def maps(self, photographs: Sequence[Photograph]) -> Iterator[Maps]:
        """Yield the output (h, w, c) for each photograph as it is, kept or computed now. Raises `ImageError`."""
        known = [self._has(photograph, 1) for photograph in photographs]
        unknown = [(photograph, 1) for photograph, kept in zip(photographs, known, strict=True) if not kept]
        outputs = self._outputs(unknown, threading.Event())
        for photograph, kept in zip(photographs, known, strict=True):
            maps = self.read(photograph, 0) if kept else next(outputs)
            if isinstance(maps, ImageError):
                raise maps
            yield maps if kept else maps[0]

    def _outputs(self, wanted: Sequence[tuple[Photograph, int]], stop: threading.Event) -> Iterator[Maps | ImageError]:
        """Yield the outputs (views, h, w, c) for each photograph, in order."""
        waiting: list[Pixels | ImageError] = []
        for pixels in self._decoded(wanted, stop):
            waiting.append(pixels)
            if sum(len(one) for one in waiting if not isinstance(one, ImageError)) >= _COLLECTED:
                yield from self._run_all(waiting)
                waiting = []
        yield from self._run_all(waiting)

    def _run_all(self, waiting: Sequence[Pixels | ImageError]) -> Iterator[Maps | ImageError]:
        pixels = [one for one in waiting if not isinstance(one, ImageError)]
        outputs = self._run(np.concatenate(pixels)).astype(np.float16) if pixels else np.empty(0, np.float16)
        start = 0
        for one in waiting:
            if isinstance(one, ImageError):
                yield one
            else:
                yield outputs[start : start + len(one)]
                start += len(one)

    def _decoded(
        self, wanted: Sequence[tuple[Photograph, int]], stop: threading.Event
    ) -> Iterator[Pixels | ImageError]:
        """Yield the pixels (views, h, w, 3) of each photograph, decoded in threads a few ahead, until `stop` is set."""
        window: deque[Future[Pixels | ImageError]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as readers:
            for photograph, views in wanted:
                if stop.is_set():
                    break
                window.append(readers.submit(self._decode, photograph, views))
                if len(window) > _DECODED_AHEAD:
                    yield window.popleft().result()
            while window and not stop.is_set():
                yield window.popleft().result()

    def _decode(self, photograph: Photograph, views: int) -> Pixels | ImageError:
        try:
            with open(photograph.path, "rb") as file:
                content = file.read()
            picture = decode_image(io.BytesIO(content), self._limits, min_side=2 * max(self._row.input_size)).image
        except OSError as error:
            return UnreadableFileError(f"The file cannot be read: {error.strerror}.")
        except ImageError as error:
            return error
        return np.stack([make_view(picture, number, photograph, self._row) for number in range(views)])

    def _has(self, photograph: Photograph, views: int) -> bool:
        try:
            return len(np.load(self._path(photograph), mmap_mode="r")) >= views
        except (OSError, ValueError, EOFError):
            return False

    def _path(self, photograph: Photograph) -> Path:
        return self._folder / f"{photograph.sha256.hex()}.npy"

    def _save(self, photograph: Photograph, maps: Maps) -> None:
        temporary = self._path(photograph).with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.save(file, maps)
        os.replace(temporary, self._path(photograph))


def frozen_folder(folder: Path, model_key: str, cut: int) -> Path:
    """Return where the outputs of the layer at the place `cut` are kept."""
    return folder / "frozen" / f"{model_key}-layer{cut}-views{_VIEWS_VERSION}"


def _compiled(front: Any, row: BackboneRow) -> Callable[[Pixels], NDArray[np.float32]]:
    """Return what runs uint8 (n, h, w, 3), n from 1 on, in pieces of one size: no output depends on a photograph's company."""
    import tensorflow as tf

    from backbones.keras_engine import scaled

    @tf.function(input_signature=[tf.TensorSpec((_RUN_AT_ONCE, *row.input_size, 3), tf.uint8)])  # type: ignore[untyped-decorator]
    def forward(pixels: Any) -> Any:
        return tf.cast(front(scaled(row, pixels), training=False), tf.float32)

    def run(pixels: Pixels) -> NDArray[np.float32]:
        pieces = []
        for start in range(0, len(pixels), _RUN_AT_ONCE):
            piece = pixels[start : start + _RUN_AT_ONCE]
            padding = np.zeros((_RUN_AT_ONCE - len(piece), *piece.shape[1:]), np.uint8)
            pieces.append(forward(np.concatenate([piece, padding])).numpy()[: len(piece)])
        return np.concatenate(pieces)

    return run
