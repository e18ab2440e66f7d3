"""Networks that were trained here: found by name, whole or not there, an older one of the same name too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backbones import BACKBONES, find_network, find_row, load_backbone
from backbones.rows import Head
from backbones.trained import (
    MANIFEST,
    TrainedNetwork,
    check_name,
    find_trained,
    read_trained,
    row_of,
    save_trained,
    trained_layers,
    trained_names,
)
from backbones.weights import locate_weights
from config import Settings
from errors import BackboneError, WeightsUnavailableError
from search import Embedder
from store import VectorsManifest

LITE0 = BACKBONES["efficientnet_lite0"]
HEAD = Head(units=16, normalised=True)
CLASSES = ("cats", "dogs", "Erdmännchen")


def network(name: str = "mine", created_at: str = "2026-11-22T10:00:00+0000") -> TrainedNetwork:
    return TrainedNetwork(
        name=name,
        base="efficientnet_lite0",
        base_weights_sha256="a" * 64,
        head=HEAD,
        layers=trained_layers(LITE0, HEAD, 1280, len(CLASSES)),
        default_layer="avg_pool",
        class_names=CLASSES,
        weights_sha256="",
        created_at=created_at,
        training={"preset": "default"},
    )


def saved(folder: Path, content: bytes = b"weights", **changes: str) -> tuple[TrainedNetwork, Path]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return save_trained(folder, network(**changes), write)


def test_a_saved_network_is_a_row_like_the_others(tmp_path: Path) -> None:
    known, folder = saved(tmp_path)
    assert folder.name == f"mine-{known.weights_sha256[:12]}"
    row = find_row("mine", tmp_path)
    assert (row.class_names, row.classes, row.head) == (CLASSES, 3, HEAD)
    assert dict(row.layers) == {"avg_pool": 1280, "dense": 16, "scores": 3}
    assert (row.input_size, row.mean, row.std) == (LITE0.input_size, LITE0.mean, LITE0.std)
    assert find_network("mine", networks_dir=tmp_path, layer="scores").key == f"mine-scores-{known.weights_sha256[:12]}"
    assert read_trained(folder) == known
    assert trained_names(tmp_path) == ["mine"]


def test_the_name_means_the_newest_and_older_ones_are_found_by_their_weights(tmp_path: Path) -> None:
    old, _ = saved(tmp_path, b"old", created_at="2026-11-22T10:00:00+0000")
    new, _ = saved(tmp_path, b"new", created_at="2026-11-22T11:00:00+0000")
    assert find_network("mine", networks_dir=tmp_path).weights_sha256 == new.weights_sha256
    row = find_row("mine", tmp_path, old.weights_sha256)
    assert row.weights == row_of(old, tmp_path / f"mine-{old.weights_sha256[:12]}" / "network.weights.h5").weights


def test_the_same_weights_of_classes_with_other_names_are_known_by_those(tmp_path: Path) -> None:
    saved(tmp_path)
    renamed = replace(network(), class_names=("cats", "dogs", "meerkats"))

    def write(path: Path) -> None:
        path.write_bytes(b"weights")

    save_trained(tmp_path, renamed, write)
    assert [folder.is_dir() for folder in tmp_path.iterdir()] == [True]
    assert find_row("mine", tmp_path).class_names == ("cats", "dogs", "meerkats")


def test_a_name_that_begins_alike_is_another(tmp_path: Path) -> None:
    saved(tmp_path, name="mine_too")
    assert find_trained("mine", tmp_path) is None
    with pytest.raises(BackboneError, match=r"no backbone 'mine'.*efficientnet_lite0, mine_too"):
        find_row("mine", tmp_path)


@pytest.mark.parametrize("name", ["../mine", "a/b", "Mine", "", "a" * 41, "1st", "mine-2", "mine\n"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="small letters"):
        check_name(name)
    assert find_trained(name, tmp_path) is None


def test_the_name_of_a_published_network_is_refused() -> None:
    with pytest.raises(BackboneError, match="published"):
        check_name("vgg16")


def test_a_network_that_is_gone_is_named_with_its_weights(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    with pytest.raises(BackboneError, match=r"mine with the weights 000000000000 is not in"):
        find_row("mine", tmp_path, "0" * 64)
    manifest = VectorsManifest("theirs", "theirs", "avg_pool", "0" * 64, 1280, "")
    with pytest.raises(
        BackboneError, match=r"theirs with the weights 0* is not in .* any more.*img2vec.py .* one of incep.*mine"
    ):
        Embedder(manifest, tmp_path, Settings(networks=tmp_path))  # what it is searched by says how to go on
    (folder / "network.weights.h5").unlink()
    with pytest.raises(WeightsUnavailableError, match="gone from"):
        locate_weights(find_row("mine", tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"base": "resnext"}, "resnext"),
        ({"head": {"units": 1}}, "cannot be read"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(change: dict[str, object], said: str, tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(BackboneError, match=said):
        find_trained("mine", tmp_path)


def test_a_network_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match=r"cannot be written.*Make room"):
        save_trained(tmp_path, network(), fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.keras
@pytest.mark.openvino
def test_a_trained_network_runs_alike_in_both_engines(tmp_path: Path) -> None:
    from backbones.keras_engine import load_base, new_trained

    base, model = load_base(LITE0, locate_weights(LITE0)), new_trained(LITE0, HEAD, 3)
    for layer in base.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    save_trained(tmp_path, network(), lambda path: model.save_weights(str(path)))
    pixels = np.random.default_rng(1).integers(0, 255, (3, 224, 224, 3)).astype(np.uint8)
    found = {}
    for layer in ("avg_pool", "dense", "scores"):
        own = find_network("mine", networks_dir=tmp_path, layer=layer)
        exact = load_backbone(own, models_dir=tmp_path / "models", networks_dir=tmp_path, precision="float32")
        found[layer] = exact.run(pixels)
        assert found[layer].vectors.shape == (3, exact.dim)
    reference = load_backbone(own, models_dir=tmp_path / "models", networks_dir=tmp_path, engine="keras").run(pixels)
    np.testing.assert_allclose(found["scores"].vectors, reference.vectors, atol=1e-4)
    np.testing.assert_array_equal(found["scores"].vectors, found["scores"].scores)
    whole = load_backbone(find_network(LITE0.name), models_dir=tmp_path / "models", precision="float32").run(pixels)
    np.testing.assert_allclose(found["avg_pool"].vectors, whole.vectors, atol=1e-3)


@pytest.mark.keras
def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    saved(tmp_path, b"\x89HDF\r\n\x1a\nrubbish")
    own = find_network("mine", networks_dir=tmp_path)
    with pytest.raises(BackboneError, match=r"does not fit the network mine"):
        load_backbone(own, models_dir=tmp_path / "models", networks_dir=tmp_path, engine="keras")
