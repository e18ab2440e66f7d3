"""Networks that `finetune.py` trained: their folders, as data rows beside those of `rows.py`.

Owns the format of `networks/<name>-<first 12 digits of the weights' SHA-256>/`: `network.weights.h5` (Keras, of the network
that `build_trained` builds), `manifest.json` (this module's), and whatever the training puts beside them. A folder is written
beside its place and renamed, so it is whole or not there; its weights are never changed: training the same name again makes
another folder, the newest is what the name means, and a collection of an older one's vectors still finds its network. Does not
own training (`finetuning/`).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from backbones.rows import BACKBONES, BackboneRow, Head, LocalWeights
from backbones.weights import sha256_of
from errors import BackboneError, DiskFullError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "network.weights.h5"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TEMPORARY_PREFIX = ".saving-"


@dataclass(frozen=True)
class TrainedNetwork:
    """What `manifest.json` says: the `base` it began as, what was put upon it, and what it learnt to tell apart.

    `layers` maps each layer that can be the vector to its dimension. `training` is for people and for `finetune.py`: preset,
    blocks, seed, photographs, figures.
    """

    name: str
    base: str
    base_weights_sha256: str
    head: Head
    layers: Mapping[str, int]
    default_layer: str
    class_names: tuple[str, ...]
    weights_sha256: str
    created_at: str
    training: Mapping[str, Any]
    format_version: int = FORMAT_VERSION


def check_name(name: str) -> str:
    """Return `name`; raises `BackboneError` unless a trained network may have it."""
    if name in BACKBONES:
        raise BackboneError(
            f"{name} is the name of a published network. Give the one that you train another: --name mine"
        )
    if not _NAME.fullmatch(name):
        raise BackboneError(
            f"A network cannot be called {name!r:.80}: a name has 1 to 40 small letters, digits and _, and begins with a letter."
        )
    return name


def trained_layers(base: BackboneRow, head: Head, dim: int, classes: int) -> dict[str, int]:
    """Return the layers that a trained network has, with their dimensions; `dim` is that of its pooled vector."""
    return {"avg_pool": dim} | ({"dense": head.units} if head.units else {}) | {"scores": classes}


def row_of(network: TrainedNetwork, weights: Path) -> BackboneRow:
    """Return the data row of a trained network whose weights lie at `weights`."""
    base = BACKBONES[network.base]
    return replace(
        base,
        name=network.name,
        layers=MappingProxyType(dict(network.layers)),
        default_layer=network.default_layer,
        classifier="scores",
        classes=len(network.class_names),
        weights=LocalWeights(weights, network.weights_sha256),
        head=network.head,
        class_names=network.class_names,
    )


def find_trained(name: str, networks_dir: Path, weights_sha256: str | None = None) -> BackboneRow | None:
    """Return the row of the newest network called `name`, or of the one with these weights; None where there is none.

    Raises `BackboneError` where its manifest cannot be read.
    """
    if not _NAME.fullmatch(name):
        return None
    found = [folder for folder in networks_dir.glob(f"{name}-*") if (folder / MANIFEST).is_file()]
    networks = [(read_trained(folder), folder) for folder in found]
    wanted = [
        (network.created_at, str(folder), network, folder)
        for network, folder in networks
        if network.name == name and weights_sha256 in (None, network.weights_sha256)
    ]
    if not wanted:
        return None
    _, _, network, folder = max(wanted, key=lambda entry: entry[:2])
    return row_of(network, folder / WEIGHTS)


def trained_names(networks_dir: Path) -> list[str]:
    """Return the names of the trained networks, in alphabetical order."""
    return sorted({read_trained(path.parent).name for path in networks_dir.glob(f"*/{MANIFEST}")})


def read_trained(folder: Path) -> TrainedNetwork:
    """Return what the manifest in `folder` says; raises `BackboneError` where it cannot be read."""
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise BackboneError(
                f"The network in {folder} has format version {values['format_version']}, this program reads {FORMAT_VERSION}. "
                "Use the program that wrote it, or train it again: python finetune.py"
            )
        if values["base"] not in BACKBONES:
            raise ValueError(f"its base {values['base']!r} is not known")
        return TrainedNetwork(
            **{**values, "head": Head(**values["head"]), "class_names": tuple(map(str, values["class_names"]))}
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"The network in {folder} cannot be read ({error}). Put {path} back from a copy, or train it again: "
            "python finetune.py"
        ) from error


def save_trained(
    networks_dir: Path,
    network: TrainedNetwork,
    write_weights: Callable[[Path], None],
    *,
    write_more: Callable[[Path, TrainedNetwork], None] = lambda folder, network: None,
) -> tuple[TrainedNetwork, Path]:
    """Write a network's folder, whole or not at all; return what its manifest says and where it lies.

    `write_weights` writes the weights file it is given, by whose SHA-256 the network is then known; `write_more` may put further
    files into the folder. The same weights under the same name are the same network: what is said of it is replaced, such as
    the names of its classes. Raises `BackboneError`, `DiskFullError`.
    """
    check_name(network.name)
    try:
        networks_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=networks_dir, prefix=_TEMPORARY_PREFIX) as temporary:
            folder = Path(temporary) / "network"
            folder.mkdir()
            write_weights(folder / WEIGHTS)
            known = replace(network, weights_sha256=sha256_of(folder / WEIGHTS))
            write_more(folder, known)
            (folder / MANIFEST).write_text(json.dumps(_json(known), indent=2) + "\n", encoding="utf-8")
            _sync(folder)
            place = networks_dir / f"{known.name}-{known.weights_sha256[:12]}"
            if place.is_dir():  # of classes that were called otherwise: the same hash can mean but one
                for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
                    os.replace(path, place / path.name)
            else:
                os.rename(folder, place)
            return known, place
    except OSError as error:
        kind = DiskFullError if error.errno == 28 else BackboneError
        reason = os.strerror(error.errno) if error.errno else error  # HDF5 tells of its buffers, too
        raise kind(
            f"The network {network.name} cannot be written into {networks_dir} ({reason}). Make room (about 200 MB), or mend the "
            "folder's permissions, and run the same command again: it goes on where it was."
        ) from error


def _json(network: TrainedNetwork) -> dict[str, Any]:
    plain = replace(network, layers=dict(network.layers), training=dict(network.training))
    return {**asdict(plain), "class_names": list(network.class_names)}


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def put_head(feature_map: Any, head: Head, classes: int) -> dict[str, Any]:
    """Return the Keras tensors `avg_pool`, `dense` (where it has units) and `scores` (softmax) upon a map (n, h, w, c)."""
    import keras

    outputs = {"avg_pool": keras.layers.GlobalAveragePooling2D(name="avg_pool")(feature_map)}
    x = outputs["avg_pool"]
    if head.units:
        x = outputs["dense"] = keras.layers.Dense(head.units, activation="relu", name="dense")(x)
    if head.normalised:
        x = keras.layers.UnitNormalization(name="direction")(x)
    x = keras.layers.Dense(classes, use_bias=not head.normalised, name="logits")(x)
    outputs["scores"] = keras.layers.Softmax(name="scores", dtype="float32")(x)
    return outputs


def build_trained(build_base: Callable[[], Any], feature_map: str, head: Head, classes: int) -> Any:
    """Return the Keras model of a trained network, float32 input already scaled, with random weights: its output is `scores`.

    `build_base` builds the base without its own classifier.
    """
    import keras

    base = build_base()
    return keras.Model(base.input, put_head(base.get_layer(feature_map).output, head, classes)["scores"])
