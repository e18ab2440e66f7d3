"""Conversion of a network for OpenVINO: `python -m backbones.convert`, always in a process of its own.

Owns the converted folder's format and its making: `models/<backbone>-<hash>/` with `model.xml`, `model.bin` (float32)
and `manifest.json`. TensorFlow takes 1.2 GB while converting; the process that asked for it never loads TensorFlow.
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
import time
from pathlib import Path
from xml.etree import ElementTree

from backbones.backbone import NetworkId, find_row
from backbones.openvino_library import import_openvino
from backbones.rows import BackboneRow
from backbones.weights import check_weights, sha256_of
from config import ROOT
from errors import BackboneError, DiskFullError, LookalikeError

FORMAT_VERSION = 1
NEEDED_MB = 120
_SHOWN_ERROR_CHARACTERS = 1500
_TEMPORARY_PREFIX = ".converting-"
_ABANDONED_AFTER_S = 24 * 3600


def converted_folder(network: NetworkId, models_dir: Path) -> Path:
    return models_dir / network.model_key


def is_converted(network: NetworkId, models_dir: Path) -> bool:
    """Tell whether a whole conversion of exactly this network, in this format, lies under `models_dir`."""
    folder = converted_folder(network, models_dir)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        expected = {
            "format_version": FORMAT_VERSION,
            "weights_sha256": network.weights_sha256,
            "files": _hashes(folder),
        }
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and expected.items() <= manifest.items()


def _hashes(folder: Path) -> dict[str, str]:
    """A network with damaged numbers would fill a collection with rubbish; hashing 100 MB takes a tenth of a second."""
    return {name: sha256_of(folder / name) for name in ("model.xml", "model.bin")}


def convert_in_child(network: NetworkId, weights: Path, models_dir: Path, networks_dir: Path | None) -> None:
    """Convert the network in a child process; raises `BackboneError` with the end of what the child said."""
    command = [sys.executable, "-m", "backbones.convert", "--backbone", network.backbone]
    command += ["--weights", str(weights.absolute()), "--sha256", network.weights_sha256]
    command += ["--models-dir", str(models_dir.absolute())]
    command += [] if networks_dir is None else ["--networks-dir", str(networks_dir.absolute())]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    # A session of its own keeps a terminal's Ctrl-C from it: the job decides what that means.
    child = subprocess.run(
        command, cwd=ROOT, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, check=False, start_new_session=True
    )
    if child.returncode == 0:
        return
    said = child.stderr.decode("utf-8", "replace").strip()
    last_line = said.rpartition("\n")[2]
    if child.returncode == 1 and last_line.startswith("Error: "):
        raise BackboneError(last_line.removeprefix("Error: "))
    free_mb = shutil.disk_usage(models_dir).free / 1e6 if models_dir.exists() else 0
    if free_mb < NEEDED_MB:
        raise DiskFullError(
            f"{network.backbone} could not be converted for OpenVINO: {free_mb:,.0f} MB are free in {models_dir}, and about "
            f"{NEEDED_MB} are needed (600 for vgg16). Make room, and run the same command again."
        )
    raise BackboneError(
        f"{network.backbone} could not be converted for OpenVINO: the child process ended with code {child.returncode} "
        "(-9: killed, most often for lack of memory; about 1.5 GB are needed). It said: "
        + (said[-_SHOWN_ERROR_CHARACTERS:] or "nothing")
    )


def convert(network: NetworkId, row: BackboneRow, weights: Path, models_dir: Path) -> None:
    """Convert in this process (which then has TensorFlow loaded) and put the folder in its place."""
    check_weights(weights, network.weights_sha256)
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(models_dir)
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=_TEMPORARY_PREFIX) as temporary:
            folder = Path(temporary) / "model"
            folder.mkdir()
            _write_folder(network, row, weights, folder)
            _publish(folder, network, models_dir)
    except OSError as error:
        raise BackboneError(
            f"{network.backbone} cannot be converted for OpenVINO: writing to {models_dir} failed: {error}. Make the "
            "folder writable, with about 600 MB free for vgg16 and 100 MB for others, or use --engine keras."
        ) from error


def _write_folder(network: NetworkId, row: BackboneRow, weights: Path, folder: Path) -> None:
    from backbones.keras_engine import build_network

    openvino = import_openvino()
    _tell_converter_the_tensorflow_version()
    model = openvino.convert_model(build_network(row, weights))  # outputs keep Keras' names
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    _keep_float32(folder / "model.xml", row.float32_convolutions)
    manifest = {
        "format_version": FORMAT_VERSION,
        "backbone": network.backbone,
        "weights_sha256": network.weights_sha256,
        "openvino": openvino.__version__,
        "outputs": sorted(output.any_name for output in model.outputs),
        "files": _hashes(folder),
        "licence": row.licence,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _tell_converter_the_tensorflow_version() -> None:
    """Answer for the converter's own way of finding TensorFlow's version, which fails on Python 3.13.

    It runs `exec("import tensorflow")` and then `exec("del tensorflow")` in one function; since PEP 667 each exec has
    its own copy of the function's names, so the second ends in a NameError (seen with OpenVINO 2026.4.1).
    """
    import tensorflow
    from openvino.frontend.tensorflow import utils

    utils.get_environment_setup = lambda framework: {"tensorflow": tensorflow.__version__}


def _keep_float32(xml: Path, count: int) -> None:
    """Mark the first `count` convolutions as those that `INFERENCE_PRECISION_HINT` does not touch.

    The mark is OpenVINO's `DisableFP16Compression` attribute, which its Python names cannot set.
    """
    tree = ElementTree.parse(xml)
    convolutions = [layer for layer in tree.iter("layer") if layer.get("type") in ("Convolution", "GroupConvolution")]
    for layer in convolutions[:count]:
        ElementTree.SubElement(ElementTree.SubElement(layer, "rt_info"), "attribute", name="precise", version="0")
    tree.write(xml)


def _remove_abandoned(models_dir: Path) -> None:
    """Remove what killed conversions left; a conversion takes a minute, so that a living one is never a day old."""
    for folder in models_dir.glob(_TEMPORARY_PREFIX + "*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, network: NetworkId, models_dir: Path) -> None:
    """Rename the finished folder to its place; when another process was quicker, its result is as good."""
    place = converted_folder(network, models_dir)
    if place.exists() and not is_converted(network, models_dir):
        shutil.rmtree(place, ignore_errors=True)
    try:
        os.rename(folder, place)
    except OSError:
        if not is_converted(network, models_dir):
            raise


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m backbones.convert", description="Convert a network for OpenVINO.")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--models-dir", required=True, type=Path)
    parser.add_argument("--networks-dir", type=Path)
    given = parser.parse_args(argv)
    try:
        row = find_row(given.backbone, given.networks_dir, given.sha256)
        convert(NetworkId(row.name, row.default_layer, given.sha256), row, given.weights, given.models_dir)
    except LookalikeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
