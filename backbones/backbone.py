"""What every engine agrees on: which network, what comes out, and how a batch is run.

Owns the seam of layer 2 (`NetworkId`, `Outputs`, `Backbone`) and `class_names`. Does not own any engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backbones.rows import BACKBONES, BackboneRow
from backbones.trained import find_trained, trained_names
from errors import BackboneError


@dataclass(frozen=True)
class NetworkId:
    """Which network made a vector: two vectors can be compared only if their `NetworkId`s are equal."""

    backbone: str
    layer: str
    weights_sha256: str

    @property
    def key(self) -> str:
        """The name of the vectors' folder, e.g. `efficientnet_lite0-avg_pool-0123456789ab`."""
        return f"{self.backbone}-{self.layer}-{self.weights_sha256[:12]}"

    @property
    def model_key(self) -> str:
        """The name of the converted network's folder; it serves all layers."""
        return f"{self.backbone}-{self.weights_sha256[:12]}"


@dataclass(frozen=True)
class Outputs:
    """What one pass gives: `vectors` float32 (n, dim), `scores` float32 (n, classes) that add up to 1, `feature_map`
    float32 (n, h', w', c). `scores` is None when the weights have no classifier, `feature_map` when not asked for."""

    vectors: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    feature_map: NDArray[np.float32] | None


Purpose = Literal["throughput", "latency"]


@dataclass(frozen=True)
class EngineOptions:
    """How a network is to run; `threads` 0 means all cores, `batch_size` is in images."""

    precision: str
    threads: int
    batch_size: int
    purpose: Purpose
    feature_map: bool


class Engine(Protocol):
    """Runs one network; any number of threads may call `run` at once."""

    name: str
    precision: str
    parallel_runs: int

    def run(self, batch: NDArray[np.uint8]) -> Outputs: ...


class Backbone:
    """A loaded network: photographs in, vectors out. Any number of threads may call `run` at once.

    `parallel_runs` is how many calls really run side by side; with fewer callers than that, cores stay idle.
    """

    def __init__(self, network: NetworkId, row: BackboneRow, engine: Engine) -> None:
        self.network = network
        self.row = row
        self.dim: int = self.row.layers[network.layer]
        self.engine = engine.name
        self.precision = engine.precision
        self.parallel_runs = engine.parallel_runs
        self._engine = engine

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        """Run the network on `batch`, uint8 (n, h, w, 3) RGB of the row's `input_size`, any n from 0 on.

        Raises `ValueError` when the array is of another shape or dtype.
        """
        expected = (*self.row.input_size, 3)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != expected:
            raise ValueError(f"{self.network.backbone} takes uint8 (n, {expected}), not {batch.dtype} {batch.shape}")
        return self._engine.run(batch)


RunBatch = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]


def run_in_pieces(run_batch: RunBatch, batch: NDArray[np.uint8], batch_size: int) -> Outputs:
    """Run `batch` (n, h, w, 3) by calls of exactly `batch_size` images, the last one padded with black ones.

    One fixed size because engines run it faster, and because an image's vector then never depends on its company.
    An empty batch is run as padding alone: its outputs have the right shapes without anybody having to know them.
    """
    pieces = []
    for start in range(0, max(len(batch), 1), batch_size):
        piece = batch[start : start + batch_size]
        padding = np.zeros((batch_size - len(piece), *batch.shape[1:]), np.uint8)
        outputs = run_batch(np.concatenate([piece, padding]) if len(padding) else np.ascontiguousarray(piece))
        pieces.append({name: output[: len(piece)] for name, output in outputs.items()})
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return Outputs(joined["vectors"], joined.get("scores"), joined.get("feature_map"))


def choose_outputs(layer: str, there: Collection[str], *, feature_map: bool) -> dict[str, str]:
    """Map the names of `Outputs` to those of the network's outputs that are needed and `there`.

    Raises `BackboneError` when the layer is not there, because the weights have no classifier.
    """
    names = {"vectors": f"vector_{layer}", "scores": "scores"} | ({"feature_map": "feature_map"} if feature_map else {})
    if names["vectors"] not in there:
        layers = ", ".join(sorted(name.removeprefix("vector_") for name in there if name.startswith("vector_")))
        raise BackboneError(
            f"The weights have no classifier, and so no layer {layer}: they give {layers}. Choose that --layer, or give "
            "weights with the classifier."
        )
    return {ours: theirs for ours, theirs in names.items() if theirs in there}


def find_row(name: str, networks_dir: Path | None = None, weights_sha256: str | None = None) -> BackboneRow:
    """Return the data row of the network `name`, published or trained (in `networks_dir`; the newest, or that of these weights).

    Raises `BackboneError` naming those that exist.
    """
    row = BACKBONES.get(name)
    if row is not None:
        return row
    if networks_dir is None:
        raise BackboneError(f"There is no backbone {name!r}. Choose one of {', '.join(BACKBONES)}.")
    row = find_trained(name, networks_dir, weights_sha256)
    if row is not None:
        return row
    known = [*BACKBONES, *trained_names(networks_dir)]
    if weights_sha256 is not None:
        raise BackboneError(
            f"The network {name} with the weights {weights_sha256[:12]} is not in {networks_dir} any more. Put its folder back, "
            f"or search by another: python img2vec.py --backbone, with one of {', '.join(known)}."
        )
    raise BackboneError(
        f"There is no backbone {name!r}. Choose one of {', '.join(known)}; networks that finetune.py trained are looked for in "
        f"{networks_dir}."
    )


def check_layer(row: BackboneRow, layer: str | None) -> str:
    """Return `layer`, or the row's usual one for None; raises `BackboneError` when the network has no such layer."""
    chosen = row.default_layer if layer is None else layer
    if chosen not in row.layers:
        known = ", ".join(row.layers)
        raise BackboneError(f"{row.name} has no layer {chosen!r} to take vectors from. Choose one of {known}.")
    return chosen


@functools.cache
def class_names() -> tuple[str, ...]:
    """Return the 1,000 names of ImageNet's classes, in the order of the published networks' scores."""
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
