"""Networks that turn photographs into vectors: *what* a network is (`rows.py`, `trained.py`) × *how* it runs (OpenVINO, Keras).

Owns finding a network's weights, converting, loading and running it. Does not own decoding or resizing (`images.py`),
nor what becomes of vectors (`store/`, `ann.py`). Nothing heavy is imported before a network is loaded, and TensorFlow
never by the OpenVINO engine.
"""

from __future__ import annotations

from pathlib import Path

from backbones.backbone import (
    Backbone,
    Engine,
    EngineOptions,
    NetworkId,
    Outputs,
    Purpose,
    check_layer,
    class_names,
    find_row,
)
from backbones.rows import BACKBONES, BackboneRow, LocalWeights
from backbones.weights import check_weights, locate_weights, sha256_of
from errors import BackboneError

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneRow",
    "Engine",
    "NetworkId",
    "Outputs",
    "Purpose",
    "check_layer",
    "class_names",
    "find_network",
    "find_row",
    "load_backbone",
]


def find_network(
    name: str, *, networks_dir: Path | None = None, layer: str | None = None, weights: Path | None = None
) -> NetworkId:
    """Find the network `name`: its layer (None: the usual one) and the SHA-256 of its weights, downloaded if need be.

    Networks that `finetune.py` trained are looked for in `networks_dir`, where one is given.

    Raises `BackboneError` for a name, layer or file that is not there, `WeightsUnavailableError` when the weights
    cannot be had.
    """
    row = find_row(name, networks_dir)
    chosen = check_layer(row, layer)
    if isinstance(row.weights, LocalWeights) and weights is None:
        return NetworkId(row.name, chosen, row.weights.sha256)
    return NetworkId(row.name, chosen, sha256_of(locate_weights(row, weights)))


def load_backbone(
    network: NetworkId,
    *,
    models_dir: Path,
    networks_dir: Path | None = None,
    weights: Path | None = None,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    gpus: str = "0",
    batch_size: int = 8,
    purpose: Purpose = "throughput",
    feature_map: bool = False,
) -> Backbone:
    """Load `network` for running; OpenVINO takes its conversion under `models_dir`, which is made if it is not there.

    `purpose` "throughput" runs batches of `batch_size`, a call a thread side by side; "latency" single images, each on
    all `threads` (0: all cores). `gpus` other than "0" needs the engine keras, which auto then chooses; auto precision
    is bfloat16 for OpenVINO on a processor that has it, else float32. Raises `BackboneError` when that cannot be had.
    """
    row = find_row(network.backbone, networks_dir, network.weights_sha256)
    check_layer(row, network.layer)
    options = EngineOptions(precision, threads, 1 if purpose == "latency" else batch_size, purpose, feature_map)
    if _choose_engine(engine, gpus) == "keras":
        return Backbone(network, row, _load_keras(network, row, weights, gpus, options))
    return Backbone(network, row, _load_openvino(network, row, (models_dir, networks_dir), weights, options))


def _choose_engine(engine: str, gpus: str) -> str:
    if engine == "openvino" and gpus != "0":
        raise BackboneError(
            f"The engine openvino runs on the processor, but gpus is {gpus}. Use --engine keras or --gpus 0."
        )
    if engine == "auto":
        return "openvino" if gpus == "0" else "keras"
    return engine


def _load_openvino(
    network: NetworkId,
    row: BackboneRow,
    folders: tuple[Path, Path | None],
    weights: Path | None,
    options: EngineOptions,
) -> Engine:
    from backbones.convert import convert_in_child, is_converted
    from backbones.openvino_engine import OpenVinoEngine

    models_dir, networks_dir = folders
    if not is_converted(network, models_dir):
        convert_in_child(network, locate_weights(row, weights), models_dir, networks_dir)
    return OpenVinoEngine(network, row, models_dir, options)


def _load_keras(
    network: NetworkId, row: BackboneRow, weights: Path | None, gpus: str, options: EngineOptions
) -> Engine:
    if options.precision == "bfloat16":
        raise BackboneError("The engine keras computes in float32. Use --precision float32, or --engine openvino.")
    path = locate_weights(row, weights)
    check_weights(path, network.weights_sha256)
    from backbones.keras_engine import KerasEngine, choose_devices

    return KerasEngine(network, row, path, choose_devices(gpus, options.threads), options)
