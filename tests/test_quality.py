"""How well similar photographs are found, on real photographs whose folder says what is similar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ann import Index, IndexManifest, load_index
from backbones import load_backbone
from benchmarks.quality import precision_and_map
from config import Settings
from images import Limits, decode_image, find_images, network_input
from img2vec import Job, index_images
from networks import network_of
from store import Store, open_store
from vectors import unit_vectors

pytestmark = [pytest.mark.openvino, pytest.mark.real_photos, pytest.mark.slow]


@pytest.fixture(scope="module")
def collection(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    rsc_files = tmp_path_factory.mktemp("caltech") / "rsc_files"
    settings = Settings(rsc_files=rsc_files, backbone="efficientnet_lite0")
    report = index_images(Job(settings, find_images([str(shared_data / "caltech101-dev" / "**" / "*.jpg")]).paths))
    assert (report.new, report.failed, report.images) == (4958, 0, 4958)
    assert report.index["kind"] == "annoy"
    assert report.index["self_test"]["recall"] >= 0.99
    return open_store(rsc_files)


def test_the_ten_nearest_are_of_the_same_class_and_so_is_the_whole_ranking(collection: Store) -> None:
    generation = collection.generation()
    assert generation is not None
    snapshot = collection.snapshot(generation.manifest["vectors_key"])
    records = collection.records(snapshot.ids.tolist())
    labels = [records[image_id].label or "" for image_id in snapshot.ids.tolist()]
    precision, mean_average_precision = precision_and_map(snapshot.take(slice(None)), labels)
    assert precision >= 0.93
    assert mean_average_precision >= 0.85


def test_annoy_answers_as_exact_search_does(collection: Store) -> None:
    generation = collection.generation()
    assert generation is not None
    snapshot = collection.snapshot(generation.manifest["vectors_key"])
    index = load_index(snapshot, generation.folder, IndexManifest(**generation.manifest["index"]))
    queries = snapshot.take(np.arange(0, len(snapshot), 7))
    found, exact = index.query(queries, 10).ids, Index(snapshot).query(queries, 10).ids
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert recall >= 0.98


def test_half_precision_on_disk_costs_nothing(collection: Store) -> None:
    generation = collection.generation()
    assert generation is not None
    snapshot = collection.snapshot(generation.manifest["vectors_key"])
    network = network_of(collection, generation)
    backbone = load_backbone(network, models_dir=collection.models_folder, batch_size=16)
    records = collection.records(snapshot.ids[:800].tolist())
    paths = [records[image_id].path for image_id in snapshot.ids[:800].tolist()]
    limits = Limits(max_bytes=10**8, max_pixels=10**8, max_frames=10)
    size, resample = backbone.row.input_size, backbone.row.resample
    images = [decode_image(Path(path.decode()).read_bytes(), limits, min_side=256).image for path in paths]
    full = backbone.run(np.stack([network_input(image, size, resample=resample) for image in images])).vectors
    half = snapshot.take(slice(0, 800))
    assert (unit_vectors(full) * unit_vectors(half)).sum(axis=1).min() > 0.99999
    labels = [records[image_id].label or "" for image_id in snapshot.ids[:800].tolist()]
    for in_full, in_half in zip(precision_and_map(full, labels), precision_and_map(half, labels), strict=True):
        assert abs(in_full - in_half) < 0.001
