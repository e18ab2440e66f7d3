"""Keras: the reference that other engines are held against, the source of conversions, and what runs on GPUs.

Owns building a row's network with its weights, and running it in TensorFlow. float32 only: on GPUs TensorFlow already
multiplies in TF32, and the reference must stay a reference. Several GPUs each get a copy of the network.
"""

from __future__ import annotations

import importlib
import logging
import queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backbones.backbone import EngineOptions, NetworkId, Outputs, RunBatch, choose_outputs, run_in_pieces
from backbones.efficientnet_lite0 import TORCH_HEAD, load_torch_weights
from backbones.rows import BackboneRow, Head
from backbones.trained import build_trained
from errors import BackboneError

_LOG = logging.getLogger(__name__)
_HDF5_HEAD = b"\x89HDF\r\n\x1a\n"
_ZIP_HEAD = b"PK\x03\x04"


def build_network(row: BackboneRow, weights: Path) -> Any:
    """Build the network of `row` from a weights file, as one Keras model that takes uint8 (n, h, w, 3) RGB.

    Its outputs are a dict of float32 arrays: `vector_<layer>` for each layer, `feature_map`, and `scores` when the
    weights have a classifier. Raises `BackboneError` when the file does not fit the network.
    """
    if row.head is not None:
        return _with_scaling(row, *_load_trained(row, weights))
    try:
        base, outputs = _load(row, weights, include_top=True), None
    except (ValueError, KeyError, OSError) as error:
        try:
            base = _load(row, weights, include_top=False)
        except (ValueError, KeyError, OSError):
            raise BackboneError(_misfit(row, weights, error)) from error
        outputs = _headless_outputs(row, base)
    return _with_scaling(row, base, _full_outputs(row, base) if outputs is None else outputs)


def load_base(row: BackboneRow, weights: Path) -> Any:
    """Return the Keras model of a published network up to its `feature_map`, its only output; float32 input, already scaled.

    Raises `BackboneError` when the file does not fit the network.
    """
    import keras

    try:
        base = _load(row, weights, include_top=True)
    except (ValueError, KeyError, OSError) as error:
        try:
            base = _load(row, weights, include_top=False)
        except (ValueError, KeyError, OSError):
            raise BackboneError(_misfit(row, weights, error)) from error
    return keras.Model(base.input, base.get_layer(row.feature_map).output)


def new_trained(row: BackboneRow, head: Head, classes: int) -> Any:
    """Return the Keras model of a network to be trained upon the base of `row`, with random weights: its output is `scores`."""
    return build_trained(lambda: _built(row, include_top=False), row.feature_map, head, classes)


def _load_trained(row: BackboneRow, weights: Path) -> tuple[Any, dict[str, Any]]:
    """Return the model of a trained network and its outputs by name."""
    if row.head is None:
        raise ValueError(f"{row.name} was not trained here")
    model = new_trained(row, row.head, row.classes)
    try:
        model.load_weights(str(weights))
    except (ValueError, KeyError, OSError) as error:
        raise BackboneError(_misfit(row, weights, error)) from error
    return model, {**_full_outputs(row, model), "scores": model.output}


def _with_scaling(row: BackboneRow, base: Any, outputs: dict[str, Any]) -> Any:
    import keras

    inner = keras.Model(base.input, outputs)
    inputs = keras.Input((*row.input_size, 3), dtype="uint8")
    return keras.Model(inputs, inner(scaled(row, inputs)), name=row.name)


def _misfit(row: BackboneRow, weights: Path, error: Exception) -> str:
    first = str(error).strip().split("\n")[0][:300]
    return (
        f"The weights file {weights} does not fit the network {row.name}, neither with a classifier of {row.classes} "
        f"classes nor without one: {first} Give the weights of {row.name} (a .h5, .weights.h5 or .keras file of Keras), "
        "or choose the --backbone that they belong to."
    )


def _load(row: BackboneRow, weights: Path, *, include_top: bool) -> Any:
    with weights.open("rb") as file:
        head = file.read(16)
    model = _built(row, include_top=include_top)
    if head.startswith(TORCH_HEAD):
        load_torch_weights(model, weights)
    elif head.startswith((_HDF5_HEAD, _ZIP_HEAD)):
        model.load_weights(str(weights))
    else:
        raise ValueError("it is neither HDF5, a .keras archive, nor a torch file.")
    return model


def _built(row: BackboneRow, *, include_top: bool) -> Any:
    module, _, name = row.builder.partition(":")
    build = getattr(importlib.import_module(module), name)
    return build(weights=None, include_top=include_top, input_shape=(*row.input_size, 3))


def _full_outputs(row: BackboneRow, base: Any) -> dict[str, Any]:
    outputs = {f"vector_{layer}": base.get_layer(layer).output for layer in row.layers}
    outputs["scores"] = base.get_layer(row.classifier).output
    outputs["feature_map"] = base.get_layer(row.feature_map).output
    return outputs


def _headless_outputs(row: BackboneRow, base: Any) -> dict[str, Any]:
    import keras

    heads = {"avg_pool": keras.layers.GlobalAveragePooling2D, "flatten": keras.layers.Flatten}
    last = base.get_layer(row.feature_map).output
    outputs = {f"vector_{layer}": heads[layer]()(last) for layer in row.layers if layer in heads}
    return {**outputs, "feature_map": last}


def scaled(row: BackboneRow, pixels: Any) -> Any:
    """Pixels as the network wants them; `preprocess_input` of Keras would do the same outside, and in place."""
    import keras

    x = keras.ops.cast(pixels, "float32")
    if row.channel_order == "BGR":
        x = keras.ops.flip(x, axis=-1)
    return (x - np.array(row.mean, np.float32)) / np.array(row.std, np.float32)


class KerasEngine:
    """Runs the Keras model by a compiled function on batches of one size: a copy a device, a caller a copy at a time."""

    name = "keras"
    precision = "float32"

    def __init__(
        self, network: NetworkId, row: BackboneRow, weights: Path, devices: list[str], options: EngineOptions
    ) -> None:
        self.parallel_runs = len(devices)
        self._batch_size = options.batch_size
        self._copies: queue.Queue[RunBatch] = queue.Queue()
        for device in devices:
            self._copies.put(_compiled(network, row, weights, device, options))

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        copy = self._copies.get()
        try:
            return run_in_pieces(copy, batch, self._batch_size)
        finally:
            self._copies.put(copy)


def choose_devices(gpus: str, threads: int) -> list[str]:
    """Return TensorFlow's names of the devices to use, after telling TensorFlow to leave the other GPUs alone.

    `gpus` is "0" (the processor alone), a number or "all". Raises `BackboneError` when there are fewer.
    """
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    count = len(found) if gpus == "all" else int(gpus)
    if count > len(found) or (gpus == "all" and not found):
        raise BackboneError(
            f"gpus is {gpus}, but TensorFlow sees {len(found)} GPUs. Use --gpus 0 for the processor alone, or install "
            "the GPU build of TensorFlow (`pip install tensorflow[and-cuda]`)."
        )
    try:
        tf.config.set_visible_devices(found[:count], "GPU")
        for gpu in found[:count]:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        _LOG.info("TensorFlow runs already: its devices and threads stay as they are")
    return [f"/GPU:{number}" for number in range(count)] or ["/CPU:0"]


def _compiled(network: NetworkId, row: BackboneRow, weights: Path, device: str, options: EngineOptions) -> RunBatch:
    import keras
    import tensorflow as tf

    with tf.device(device):
        full = build_network(row, weights)
    names = choose_outputs(network.layer, full.output, feature_map=options.feature_map)
    model = keras.Model(full.input, {ours: full.output[theirs] for ours, theirs in names.items()})
    signature = tf.TensorSpec((options.batch_size, *row.input_size, 3), tf.uint8)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def forward(pixels: Any) -> Any:
        with tf.device(device):
            return model(pixels, training=False)

    return lambda batch: {name: output.numpy() for name, output in forward(batch).items()}
