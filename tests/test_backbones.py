"""backbones/: rows, weights, conversion, and both engines against each other on real photographs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backbones import BACKBONES, Backbone, BackboneRow, NetworkId, class_names, find_network, load_backbone
from backbones import convert as conversion
from backbones.backbone import EngineOptions, choose_outputs, run_in_pieces
from backbones.rows import DownloadedWeights
from backbones.weights import locate_weights, sha256_of
from config import ROOT
from errors import BackboneError

# Keras asks NumPy for arrays in a way that NumPy 2 wants otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KERAS_ROWS = [row for row in BACKBONES.values() if isinstance(row.weights, DownloadedWeights)]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "china.jpg", "flower.jpg")
# Kinds of caltech101-dev that are classes of ImageNet too.
SHARED_CLASSES = {
    "ant": "ant",
    "binocular": "binoculars",
    "crayfish": "crayfish",
    "dalmatian": "dalmatian",
    "electric_guitar": "electric guitar",
    "flamingo": "flamingo",
    "laptop": "laptop",
    "platypus": "platypus",
    "revolver": "revolver",
    "rooster": "cock",
    "schooner": "schooner",
    "scorpion": "scorpion",
    "strawberry": "strawberry",
    "tick": "tick",
    "umbrella": "umbrella",
}


def _open_photograph(name: str) -> Image.Image:
    from skimage import data
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(name) if name.endswith(".jpg") else getattr(data, name)())


def _input(image: Image.Image, row: BackboneRow) -> NDArray[np.uint8]:
    height, width = row.input_size
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def _photographs(row: BackboneRow) -> NDArray[np.uint8]:
    return np.stack([_input(_open_photograph(name), row) for name in PHOTOGRAPHS])


def _cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def _save_random_weights(row: BackboneRow, path: Path, **options: Any) -> None:
    """Write random weights in the format of the file's ending: .weights.h5, .keras, or .h5 as the published files are."""
    import h5py  # type: ignore[import-untyped]
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    keras.utils.set_random_seed(7)
    model = getattr(keras.applications, row.builder.partition(":")[2])(weights=None, **options)
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    elif path.suffix == ".keras":
        model.save(path)
    else:
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the module's tests share conversions."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def lite0() -> NetworkId:
    return find_network("efficientnet_lite0")


@pytest.fixture(scope="module")
def backbone(lite0: NetworkId, models_dir: Path) -> Backbone:
    """Return EfficientNet-Lite0 as an indexing job runs it, in the format that is best on this processor."""
    return load_backbone(lite0, models_dir=models_dir, batch_size=4, threads=2)


@pytest.fixture(scope="module")
def photographs() -> NDArray[np.uint8]:
    return _photographs(BACKBONES["efficientnet_lite0"])


# Rows and names


@pytest.mark.parametrize("row", KERAS_ROWS, ids=lambda row: row.name)
def test_addresses_and_sums_of_weights_are_those_of_the_installed_keras(row: BackboneRow) -> None:
    spec = importlib.util.find_spec("keras")
    assert spec is not None
    assert spec.origin is not None
    assert isinstance(row.weights, DownloadedWeights)
    module = {"resnet50": "resnet"}.get(row.name, row.name)
    source = (Path(spec.origin).parent / "src" / "applications" / f"{module}.py").read_text(encoding="utf-8")
    folder, _, file_name = row.weights.url.rpartition("/")
    assert row.weights.md5 in source
    assert folder in source.replace('"\n    "', "")
    assert file_name == row.weights.file_name
    assert file_name in source or "_weights_tf_dim_ordering_tf_kernels.h5" in source


def test_every_row_names_a_layer_of_its_own_and_where_it_comes_from() -> None:
    assert list(BACKBONES) == ["inception_v3", "vgg16", "resnet50", "efficientnet_lite0"]
    for name, row in BACKBONES.items():
        assert (row.name, row.default_layer in row.layers) == (name, True)
        assert row.licence
        assert row.paper.startswith("https://")


def test_class_names_are_a_thousand_different_ones_in_the_order_of_imagenet() -> None:
    names = class_names()
    assert len(set(names)) == len(names) == 1000
    assert [names[number] for number in (0, 281, 285, 967, 999)] == [
        "tench",
        "tabby",
        "Egyptian cat",
        "espresso",
        "toilet tissue",
    ]


def test_the_key_names_backbone_layer_and_weights(lite0: NetworkId) -> None:
    assert lite0.key == "efficientnet_lite0-avg_pool-579344248a93"
    assert lite0.model_key == "efficientnet_lite0-579344248a93"


@pytest.mark.parametrize(
    ("name", "layer", "said"),
    [("alexnet", None, "inception_v3, vgg16, resnet50, efficientnet_lite0"), ("vgg16", "fc3", "fc2, fc1, flatten")],
)
def test_a_name_that_does_not_exist_is_answered_with_those_that_do(name: str, layer: str | None, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        find_network(name, layer=layer)


def test_engines_refuse_what_they_cannot_do(lite0: NetworkId, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="--engine keras"):
        load_backbone(lite0, models_dir=tmp_path, engine="openvino", gpus="1")
    with pytest.raises(BackboneError, match="float32"):
        load_backbone(lite0, models_dir=tmp_path, engine="keras", precision="bfloat16")


# Batches


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_any_number_of_images_is_run_in_batches_of_one_size(count: int) -> None:
    sizes = []

    def run_batch(batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        sizes.append(len(batch))
        return {"vectors": batch[:, 0, 0, :].astype(np.float32)}

    batch = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    outputs = run_in_pieces(run_batch, batch, 4)
    assert set(sizes) == {4}
    np.testing.assert_array_equal(outputs.vectors, batch[:, 0, 0, :])
    assert (outputs.scores, outputs.feature_map) == (None, None)


def test_a_layer_behind_the_classifier_cannot_be_had_without_it() -> None:
    with pytest.raises(BackboneError, match="no layer fc2: they give flatten"):
        choose_outputs("fc2", {"vector_flatten", "feature_map"}, feature_map=False)


# Conversion


def test_a_conversion_that_is_not_whole_does_not_count(tmp_path: Path, lite0: NetworkId) -> None:
    folder = tmp_path / lite0.model_key
    folder.mkdir()
    (folder / "model.xml").write_bytes(b"<net/>")
    (folder / "model.bin").write_bytes(b"1234")
    manifest: dict[str, Any] = {"format_version": conversion.FORMAT_VERSION, "weights_sha256": lite0.weights_sha256}
    manifest["files"] = {name: sha256_of(folder / name) for name in ("model.xml", "model.bin")}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert conversion.is_converted(lite0, tmp_path)
    (folder / "model.bin").write_bytes(b"1233")  # of the same size: numbers that a disk has changed
    assert not conversion.is_converted(lite0, tmp_path)
    (folder / "model.bin").write_bytes(b"1234")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 0}), encoding="utf-8")
    assert not conversion.is_converted(lite0, tmp_path)
    (folder / "manifest.json").write_text("[", encoding="utf-8")
    assert not conversion.is_converted(lite0, tmp_path)


def test_a_conversion_of_other_weights_is_refused(tmp_path: Path, lite0: NetworkId) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    with pytest.raises(BackboneError, match=rf"(?s)other\.pth.*{lite0.weights_sha256}"):
        conversion.convert(lite0, BACKBONES["efficientnet_lite0"], other, tmp_path / "models")


@pytest.mark.keras
@pytest.mark.openvino
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, lite0: NetworkId) -> None:
    (tmp_path / "models").write_bytes(b"a file where the folder should be")
    with pytest.raises(BackboneError, match=r"(?s)writing to .*models failed.*--engine keras"):
        load_backbone(lite0, models_dir=tmp_path / "models")


@pytest.mark.keras
@pytest.mark.openvino
def test_weights_of_another_network_are_refused_with_both_named(tmp_path: Path) -> None:
    from backbones.efficientnet_lite0 import build_model

    weights = tmp_path / "other.weights.h5"
    build_model(weights=None, include_top=True, input_shape=(224, 224, 3)).save_weights(weights)
    network = find_network("resnet50", weights=weights)
    with pytest.raises(
        BackboneError, match=r"^The weights file .*other\.weights\.h5 does not fit the network resnet50"
    ):
        load_backbone(network, models_dir=tmp_path / "models", weights=weights)
    assert list((tmp_path / "models").iterdir()) == []


# OpenVINO


@pytest.mark.openvino
def test_known_photographs_get_their_names(backbone: Backbone, photographs: NDArray[np.uint8]) -> None:
    outputs = backbone.run(photographs)
    assert outputs.scores is not None
    np.testing.assert_allclose(outputs.scores.sum(1), 1, atol=0.02)
    best = dict(zip(PHOTOGRAPHS, outputs.scores.argmax(1), strict=True))
    assert class_names()[best["chelsea"]] in ("tabby", "tiger cat", "Egyptian cat")
    assert class_names()[best["coffee"]] == "espresso"
    assert class_names()[best["flower.jpg"]] == "daisy"


@pytest.mark.openvino
@pytest.mark.real_photos
def test_photographs_of_imagenet_kinds_get_their_names(backbone: Backbone, shared_data: Path) -> None:
    names = class_names()
    first, first_five = [], []
    for folder, name in SHARED_CLASSES.items():
        paths = sorted((shared_data / "caltech101-dev" / folder).glob("*.jpg"))[:5]
        batch = np.stack([_input(Image.open(path), backbone.row) for path in paths])
        scores = backbone.run(batch).scores
        assert scores is not None
        order = scores.argsort(1)[:, ::-1]
        first += [names[numbers[0]] == name for numbers in order]
        first_five += [names.index(name) in numbers[:5] for numbers in order]
    assert np.mean(first) >= 0.7
    assert np.mean(first_five) >= 0.9


@pytest.mark.openvino
@pytest.mark.real_photos
def test_bfloat16_and_float32_agree_on_hundreds_of_photographs(
    backbone: Backbone, lite0: NetworkId, models_dir: Path, shared_data: Path
) -> None:
    exact = load_backbone(lite0, models_dir=models_dir, precision="float32", batch_size=4, threads=2)
    paths = sorted((shared_data / "caltech101-dev").rglob("*.jpg"))[::25]
    batch = np.stack([_input(Image.open(path), backbone.row) for path in paths])
    cosines = _cosines(backbone.run(batch).vectors, exact.run(batch).vectors)
    # Measured on 496: median 0.9997, one below 0.999 (0.9984). Not every photograph in the world reaches 0.999.
    assert np.quantile(cosines, 0.01) >= 0.999
    assert cosines.min() >= 0.998


@pytest.mark.openvino
def test_a_vector_does_not_depend_on_its_company(backbone: Backbone, photographs: NDArray[np.uint8]) -> None:
    together = backbone.run(photographs)
    assert together.vectors.shape == (len(photographs), backbone.dim)
    assert together.vectors.dtype == np.float32
    for number in range(len(photographs)):
        alone = backbone.run(photographs[number : number + 1])
        np.testing.assert_array_equal(alone.vectors[0], together.vectors[number])


@pytest.mark.openvino
def test_no_images_give_empty_arrays_of_the_right_shape(backbone: Backbone) -> None:
    outputs = backbone.run(np.empty((0, 224, 224, 3), np.uint8))
    assert outputs.scores is not None
    assert (outputs.vectors.shape, outputs.scores.shape) == ((0, 1280), (0, 1000))


@pytest.mark.openvino
@pytest.mark.parametrize("shape", [(1, 299, 299, 3), (224, 224, 3), (1, 3, 224, 224)])
def test_a_batch_of_another_shape_is_a_mistake_of_the_programmer(backbone: Backbone, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="takes uint8"):
        backbone.run(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float32"):
        backbone.run(np.zeros((1, 224, 224, 3), np.float32))


@pytest.mark.openvino
def test_many_threads_at_once_get_the_answers_of_one(backbone: Backbone, photographs: NDArray[np.uint8]) -> None:
    expected = backbone.run(photographs).vectors
    numbers = list(range(len(photographs))) * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: backbone.run(photographs[number : number + 1]).vectors[0], numbers))
    np.testing.assert_array_equal(np.stack(found), expected[numbers])


@pytest.mark.openvino
def test_a_query_run_for_latency_finds_the_vectors_of_a_job_run_for_throughput(
    backbone: Backbone, lite0: NetworkId, models_dir: Path, photographs: NDArray[np.uint8]
) -> None:
    query = load_backbone(lite0, models_dir=models_dir, purpose="latency", feature_map=True)
    outputs = query.run(photographs)
    assert _cosines(outputs.vectors, backbone.run(photographs).vectors).min() >= 0.9999
    assert outputs.feature_map is not None
    assert outputs.feature_map.shape == (len(photographs), 7, 7, 1280)
    # The vector is the mean of its feature map: both come from one pass.
    assert _cosines(outputs.feature_map.mean((1, 2)), outputs.vectors).min() >= 0.9999


_SERVING = """
import sys
connected = []
sys.addaudithook(lambda event, arguments: connected.append(arguments) if event in (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") else None)
from pathlib import Path
import numpy as np
from backbones import NetworkId, load_backbone
network = NetworkId("efficientnet_lite0", "avg_pool", sys.argv[1])
backbone = load_backbone(network, models_dir=Path(sys.argv[2]), weights=Path("/nowhere"), purpose="latency")
backbone.run(np.zeros((1, 224, 224, 3), np.uint8))
heavy = {"tensorflow", "keras", "h5py", "torch", "openvino_telemetry.main"} & set(sys.modules)
sys.exit(f"connected: {connected}, loaded: {heavy}" if connected or heavy else 0)
"""


@pytest.mark.openvino
def test_serving_needs_no_weights_loads_no_tensorflow_connects_nowhere_and_writes_nothing(
    backbone: Backbone, models_dir: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in models_dir.rglob("*")}
    command = [sys.executable, "-c", _SERVING, backbone.network.weights_sha256, str(models_dir)]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in models_dir.rglob("*")} == before


@pytest.mark.openvino
def test_whoever_converts_second_leaves_the_first_conversion(
    backbone: Backbone, models_dir: Path, tmp_path: Path
) -> None:
    network = backbone.network
    (tmp_path / "models").mkdir()
    for attempt in ("first", "second"):
        shutil.copytree(models_dir / network.model_key, tmp_path / attempt)
        conversion._publish(tmp_path / attempt, network, tmp_path / "models")
    assert conversion.is_converted(network, tmp_path / "models")


# Engines against each other


@pytest.mark.keras
@pytest.mark.openvino
def test_openvino_agrees_with_keras_on_real_photographs(
    lite0: NetworkId, models_dir: Path, backbone: Backbone, photographs: NDArray[np.uint8]
) -> None:
    reference = load_backbone(lite0, models_dir=models_dir, engine="keras", batch_size=4, feature_map=True)
    exact = load_backbone(lite0, models_dir=models_dir, precision="float32", batch_size=4, feature_map=True)
    assert (reference.engine, reference.precision, exact.engine, exact.precision) == (
        "keras",
        "float32",
        "openvino",
        "float32",
    )
    expected, found = reference.run(photographs), exact.run(photographs)
    assert expected.scores is not None
    assert expected.feature_map is not None
    assert found.scores is not None
    assert found.feature_map is not None
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.feature_map, expected.feature_map, atol=5e-3)
    assert _cosines(found.vectors, expected.vectors).min() >= 0.99999
    assert _cosines(backbone.run(photographs).vectors, expected.vectors).min() >= 0.999


@pytest.mark.keras
def test_keras_runs_copies_of_the_network_side_by_side(lite0: NetworkId, photographs: NDArray[np.uint8]) -> None:
    from backbones.keras_engine import KerasEngine

    weights = locate_weights(BACKBONES["efficientnet_lite0"])
    options = EngineOptions("auto", 0, 2, "throughput", feature_map=False)
    engine = KerasEngine(lite0, BACKBONES["efficientnet_lite0"], weights, ["/CPU:0", "/CPU:0"], options)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: engine.run(photographs).vectors, range(4)))
    assert engine.parallel_runs == 2
    assert _cosines(np.concatenate(found), np.tile(found[0], (4, 1))).min() >= 0.999999


@pytest.mark.keras
def test_gpus_that_are_not_there_are_said_to_be_missing(lite0: NetworkId, tmp_path: Path) -> None:
    import tensorflow as tf

    if len(tf.config.list_physical_devices("GPU")) >= 99:
        pytest.skip("This machine has 99 GPUs.")
    with pytest.raises(BackboneError, match="gpus is 99, but TensorFlow sees"):
        load_backbone(lite0, models_dir=tmp_path, gpus="99")


@pytest.mark.keras
@pytest.mark.openvino
@pytest.mark.slow
@pytest.mark.parametrize(("name", "file_name"), [("inception_v3", "own.h5"), ("resnet50", "own.keras")])
def test_a_network_of_keras_is_the_same_from_a_local_file(name: str, file_name: str, tmp_path: Path) -> None:
    """Through the whole path: file, child process, OpenVINO; against Keras' own network and preprocessing."""
    import keras

    row = BACKBONES[name]
    weights = tmp_path / file_name
    _save_random_weights(row, weights)
    batch = _photographs(row)
    network = find_network(name, weights=weights)
    exact = load_backbone(network, models_dir=tmp_path, weights=weights, precision="float32", batch_size=2).run(batch)
    usual = load_backbone(network, models_dir=tmp_path, batch_size=2).run(batch)  # the conversion is enough

    expected = _vectors_of_keras(keras, row, weights, batch)
    assert exact.scores is not None
    assert exact.scores.shape == (len(batch), 1000)
    # Random networks answer all photographs nearly alike: only what differs between photographs says something.
    assert _cosines(exact.vectors - exact.vectors.mean(0), expected - expected.mean(0)).min() >= 0.999
    assert _cosines(usual.vectors, expected).min() >= 0.999


def _vectors_of_keras(keras: Any, row: BackboneRow, weights: Path, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    base = getattr(keras.applications, row.builder.partition(":")[2])(weights=None)
    base.load_weights(weights)
    prepare = getattr(keras.applications, row.name).preprocess_input
    model = keras.Model(base.input, base.get_layer(row.default_layer).output)
    return np.asarray(model.predict(prepare(batch.astype(np.float32)), verbose=0))


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras tries the file with a classifier first
def test_weights_without_a_classifier_give_vectors_but_no_scores(tmp_path: Path) -> None:
    row = BACKBONES["vgg16"]
    weights = tmp_path / "notop.weights.h5"
    _save_random_weights(row, weights, include_top=False)
    network = find_network("vgg16", layer="flatten", weights=weights)
    outputs = load_backbone(network, models_dir=tmp_path, weights=weights, engine="keras", batch_size=2).run(
        _photographs(row)[:2]
    )
    assert outputs.vectors.shape == (2, 25088)
    assert outputs.scores is None
    with pytest.raises(BackboneError, match="no layer fc2"):
        load_backbone(replace(network, layer="fc2"), models_dir=tmp_path, weights=weights, engine="keras")


@pytest.mark.keras
@pytest.mark.openvino
@pytest.mark.slow
def test_vgg16_gives_each_of_its_layers_from_one_conversion(tmp_path: Path) -> None:
    import keras

    row = BACKBONES["vgg16"]
    weights = tmp_path / "own.weights.h5"  # 553 MB, as is the conversion: both are deleted with the test
    try:
        _save_random_weights(row, weights)
        batch = _photographs(row)[:2]
        base = keras.applications.VGG16(weights=None)
        base.load_weights(weights)
        outputs = [base.get_layer(layer).output for layer in row.layers]
        scaled = keras.applications.vgg16.preprocess_input(batch.astype(np.float32))
        expected = keras.Model(base.input, outputs).predict(scaled, verbose=0)
        for layer, vectors in zip(row.layers, expected, strict=True):
            network = find_network("vgg16", layer=layer, weights=weights)
            backbone = load_backbone(network, models_dir=tmp_path, weights=weights, precision="float32", batch_size=2)
            found = backbone.run(batch)
            assert found.vectors.shape == (2, row.layers[layer])
            assert _cosines(found.vectors, vectors).min() >= 0.9999
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    finally:
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
