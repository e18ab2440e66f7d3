"""Conversion of a network for OpenVINO: `python -m backbones.convert`, always in a process of its own.

Owns the converted folder's format and its making: `models/<backbone>-<hash>/` with `model.xml`, `model.bin` (float32) and
`manifest.json`. TensorFlow takes 1.2 GB while converting; the process that asked for it never loads TensorFlow.
The folder is written beside its place and renamed, so that it is whole or not there, also with two processes at it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from backbones.backbone import NetworkId, find_row
from backbones.openvino_library import import_openvino
from backbones.weights import sha256_of
from config import ROOT
from errors import BackboneError, LookalikeError

FORMAT_VERSION = 1
_SHOWN_ERROR_CHARACTERS = 1500


def converted_folder(network: NetworkId, models_dir: Path) -> Path:
    return models_dir / network.model_key


def is_converted(network: NetworkId, models_dir: Path) -> bool:
    """Tell whether a whole conversion of exactly this network, in this format, lies under `models_dir`."""
    folder = converted_folder(network, models_dir)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in ("model.xml", "model.bin")}
    except (OSError, ValueError):
        return False
    expected = {"format_version": FORMAT_VERSION, "weights_sha256": network.weights_sha256, "bytes": sizes}
    return isinstance(manifest, dict) and expected.items() <= manifest.items()


def convert_in_child(network: NetworkId, weights: Path, models_dir: Path) -> None:
    """Convert the network in a child process; raises `BackboneError` with the end of what the child said."""
    command = [sys.executable, "-m", "backbones.convert", "--backbone", network.backbone]
    command += ["--weights", str(weights.absolute()), "--sha256", network.weights_sha256]
    command += ["--models-dir", str(models_dir.absolute())]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    child = subprocess.run(command, cwd=ROOT, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if child.returncode == 0:
        return
    said = child.stderr.decode("utf-8", "replace").strip()[-_SHOWN_ERROR_CHARACTERS:]
    if child.returncode == 1 and said.startswith("Error: "):
        raise BackboneError(said.removeprefix("Error: "))
    raise BackboneError(
        f"{network.backbone} could not be converted for OpenVINO: the child process ended with code {child.returncode} "
        f"(-9: killed, most often for lack of memory; about 1.5 GB are needed). It said: {said or 'nothing'}"
    )


def convert(network: NetworkId, weights: Path, models_dir: Path) -> None:
    """Convert in this process (which then has TensorFlow loaded) and put the folder in its place."""
    found = sha256_of(weights)
    if found != network.weights_sha256:
        raise BackboneError(
            f"The weights file {weights} has the SHA-256 {found}, but {network.weights_sha256} was expected: it is another "
            "file than the one the collection was made with, or it changed meanwhile. Give the right one with --weights."
        )
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".converting-") as temporary:
            _write_folder(network, weights, Path(temporary))
            _publish(Path(temporary), network, models_dir)
    except OSError as error:
        raise BackboneError(
            f"{network.backbone} cannot be converted for OpenVINO: writing to {models_dir} failed: {error}. Make the folder "
            "writable (with about 600 MB free for vgg16, 100 MB for others), or use --engine keras."
        ) from error


def _write_folder(network: NetworkId, weights: Path, folder: Path) -> None:
    openvino = import_openvino()
    model = _converted_model(network, weights, openvino)
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    row = find_row(network.backbone)
    manifest = {
        "format_version": FORMAT_VERSION,
        "backbone": network.backbone,
        "weights_sha256": network.weights_sha256,
        "openvino": openvino.__version__,
        "outputs": sorted(output.any_name for output in model.outputs),
        "bytes": {name: (folder / name).stat().st_size for name in ("model.xml", "model.bin")},
        "licence": row.licence,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _converted_model(network: NetworkId, weights: Path, openvino: Any) -> Any:
    """The converter is free to reorder outputs, so each gets its name by the Keras tensor it came from."""
    from backbones.keras_engine import build_network

    return openvino.convert_model(build_network(find_row(network.backbone), weights))


def _publish(folder: Path, network: NetworkId, models_dir: Path) -> None:
    """Rename the finished folder to its place; when another process was quicker, its result is as good."""
    place = converted_folder(network, models_dir)
    os.chmod(folder, 0o755)
    if place.exists() and not is_converted(network, models_dir):
        shutil.rmtree(place, ignore_errors=True)
    try:
        os.rename(folder, place)
    except OSError:
        if not is_converted(network, models_dir):
            raise
        return
    folder.mkdir()  # TemporaryDirectory wants to delete it


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m backbones.convert", description="Convert a network for OpenVINO.")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--models-dir", required=True, type=Path)
    given = parser.parse_args(argv)
    network = NetworkId(given.backbone, find_row(given.backbone).default_layer, given.sha256)
    try:
        convert(network, given.weights, given.models_dir)
    except LookalikeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
