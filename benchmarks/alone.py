"""Each step by itself, in a child process of its own: `python -m benchmarks.alone STEP.json` prints its figures.

Owns what the whole job is compared with: Keras one image at a time, the engine alone, decoding and thumbnails alone. A
process of its own, so that TensorFlow's memory and threads never share a process with what is compared with it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backbones import find_network, load_backbone
from backbones.backbone import find_row
from backbones.weights import locate_weights
from config import Settings
from images import DecodedImage, Limits, decode_image, make_thumbnail, network_input

PREPARED = 64
"""Photographs that are decoded once and then run through the network over and over."""

SETTINGS = Settings()
Answer = dict[str, float | str]


@dataclass(frozen=True)
class Step:
    """What to measure: `photographs` are paths, `weights` a local file or None, `models` the folder of converted networks."""

    step: str
    backbone: str
    photographs: Sequence[str] = ()
    seconds: float = 0.0
    weights: str | None = None
    models: str = ""
    threads: int = 0

    @property
    def weights_path(self) -> Path | None:
        """`weights` as the functions of `backbones` take it."""
        return None if self.weights is None else Path(self.weights)


@dataclass(frozen=True)
class Calls:
    """How often something was called, in how many seconds."""

    count: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return self.count / self.seconds


def write_random_weights(step: Step) -> Answer:
    """Write random weights of a network of `keras.applications` to the file `step.weights`.

    With Keras' own scale the values die out from layer to layer; He's keeps them near 1, as in a trained network.
    """
    import keras

    if step.weights is None:
        raise ValueError("a file to write to is needed")
    module, _, name = find_row(step.backbone).builder.partition(":")
    keras.utils.set_random_seed(0)
    model = getattr(importlib.import_module(module), name)(weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([values * np.sqrt(2.0, dtype=np.float32) for values in layer.get_weights()])
    model.save_weights(step.weights)
    return {}


def keras_predict(step: Step) -> Answer:
    """(a): `predict` of the Keras network, one prepared image a call."""
    import keras

    from backbones.keras_engine import build_network

    row = find_row(step.backbone)
    full = build_network(row, locate_weights(row, step.weights_path))
    model = keras.Model(full.input, full.output[f"vector_{row.default_layer}"])
    images = [pixels[None] for pixels in _prepared(step)]
    _repeat(lambda image: model.predict(image, verbose=0), images, 0.5)
    calls = _repeat(lambda image: model.predict(image, verbose=0), images, step.seconds)
    return {"images_per_second": calls.per_second}


def engine(step: Step) -> Answer:
    """(b): `Backbone.run` over prepared batches from as many threads as the job uses; core-seconds are of all of them."""
    network = find_network(step.backbone, weights=step.weights_path)
    threads = step.threads or SETTINGS.cpu_threads
    loaded = load_backbone(
        network,
        models_dir=Path(step.models),
        weights=step.weights_path,
        threads=threads,
        batch_size=SETTINGS.batch_size,
        purpose="throughput",
    )
    pixels, size = np.stack(_prepared(step)), SETTINGS.batch_size
    batches = [np.resize(pixels[start:], (size, *pixels.shape[1:])) for start in range(0, len(pixels), size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(loaded.run, batches[:1] * threads))
        before = time.process_time()
        calls = list(pool.map(lambda _: _repeat(loaded.run, batches, step.seconds), range(threads)))
        core_s = time.process_time() - before
    # The sum of each thread's own rate: they end at different moments, and waiting for the last one is no work.
    return {
        "images_per_second": size * sum(call.per_second for call in calls),
        "core_seconds": core_s / size / sum(call.count for call in calls),
        "precision": loaded.precision,
    }


def one_picture(step: Step) -> Answer:
    """Median milliseconds of one inference as the service makes it, while nothing else runs."""
    network = find_network(step.backbone, weights=step.weights_path)
    loaded = load_backbone(network, models_dir=Path(step.models), weights=step.weights_path, batch_size=1)
    prepared = [pixels[None] for pixels in _prepared(step)]
    _repeat(loaded.run, prepared, 0.5)
    times = []
    for pixels in prepared:
        times.append(-time.perf_counter())
        loaded.run(pixels)
        times[-1] += time.perf_counter()
    return {"milliseconds": 1000 * float(np.median(times))}


def pictures(step: Step) -> Answer:
    """Core-seconds an image of decoding (from the file to the network's pixels), and of the thumbnail."""
    decoded = [_decoded(step.backbone, path).image for path in step.photographs[:PREPARED]]
    threads = step.threads or SETTINGS.cpu_threads
    return {
        "decode_core_seconds": _core_seconds(
            lambda path: _pixels(step.backbone, path), step.photographs, step, threads
        ),
        "thumbnail_core_seconds": _core_seconds(
            lambda image: make_thumbnail(image, SETTINGS.thumbnail_size), decoded, step, threads
        ),
    }


def _core_seconds(call: Callable[[Any], object], arguments: Sequence[Any], step: Step, threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        before = time.process_time()
        calls = list(pool.map(lambda _: _repeat(call, arguments, step.seconds / 2), range(threads)))
        return (time.process_time() - before) / sum(call.count for call in calls)


def _repeat(call: Callable[[Any], object], arguments: Sequence[Any], seconds: float) -> Calls:
    """Call again and again, whole calls only, for at least `seconds`."""
    started = time.perf_counter()
    for count, argument in enumerate(cycle(arguments), start=1):
        call(argument)
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return Calls(count, elapsed)
    raise ValueError("there is nothing to repeat")


def _decoded(backbone: str, path: str) -> DecodedImage:
    limits = Limits(SETTINGS.max_bytes, SETTINGS.max_pixels, SETTINGS.max_frames)
    side = max(*find_row(backbone).input_size, SETTINGS.thumbnail_size)
    return decode_image(Path(path).read_bytes(), limits, min_side=side)


def _pixels(backbone: str, path: str) -> NDArray[np.uint8]:
    row = find_row(backbone)
    return network_input(_decoded(backbone, path).image, row.input_size, resample=row.resample)


def _prepared(step: Step) -> list[NDArray[np.uint8]]:
    return [_pixels(step.backbone, path) for path in step.photographs[:PREPARED]]


STEPS: Mapping[str, Callable[[Step], Answer]] = {
    function.__name__: function for function in (write_random_weights, keras_predict, engine, one_picture, pictures)
}


if __name__ == "__main__":
    task = Step(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps(STEPS[task.step](task)))
