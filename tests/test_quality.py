"""How well similar photographs are found, on real photographs whose folder says what is similar."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ann import Index, IndexManifest, load_index
from backbones import load_backbone
from benchmarks.copies import EXACT, measure_copies
from config import Settings
from evaluation import Quality, evaluate, rate_vectors
from images import Limits, decode_image, find_images, network_input
from img2vec import Job, index_images
from networks import network_of
from publishing import open_index
from ranking import build_kind_ranking, load_kind_ranking
from search import open_service
from store import Snapshot, Store, open_store
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


def by_order(qualities: list[Quality]) -> dict[tuple[str, str], tuple[float, float]]:
    return {(q.asked, q.order): (q.precision.value, q.mean_average_precision.value) for q in qualities}


def test_the_order_by_kind_finds_more_of_the_class_than_plain_cosine(collection: Store) -> None:
    generation = collection.generation()
    assert generation is not None
    index = open_index(collection, generation)
    kind = load_kind_ranking(index.snapshot, generation.folder, generation.manifest["ranking"])
    assert kind is not None
    assert kind.default == "kind"
    labels = [record.label for record in collection.all_records()]
    evaluation = evaluate(index, kind, labels)
    found = by_order(evaluation.qualities)
    assert found["images", "plain"] == pytest.approx((0.933, 0.852), abs=0.003)
    assert found["images", "kind"][0] >= 0.95
    assert found["images", "kind"][1] >= 0.92
    assert found["uploads", "kind"][1] >= 0.91
    assert [row.recall.value >= 0.97 for row in evaluation.recalls] == [True] * 3


def test_copies_come_first_as_often_as_by_plain_cosine_and_exact_ones_always(collection: Store) -> None:
    with contextlib.closing(open_service(Settings(rsc_files=collection.folder))) as service:
        shares = measure_copies(service, 40)
    assert len(shares) >= 9
    assert (shares[EXACT].plain, shares[EXACT].kind) == (1, 1)
    for name, share in shares.items():
        assert share.kind >= share.plain, name
    assert np.mean([share.kind for share in shares.values()]) > 0.8


def test_flowers_seen_by_inception_find_more_of_their_kind_too(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "flowers-inception-v3.npz") as flowers:
        vectors, labels = flowers["X"], [str(label) for label in flowers["label"]]
    rows = np.arange(len(vectors), dtype=np.int64)
    snapshot = Snapshot(rows + 1, rows, vectors.astype(np.float16), "flowers")
    kind = load_kind_ranking(snapshot, tmp_path, build_kind_ranking(snapshot, tmp_path, labels=labels))
    assert kind is not None
    assert kind.default == "kind"
    found = by_order(evaluate(Index(snapshot), kind, labels).qualities)
    assert found["images", "plain"][1] == pytest.approx(0.509, abs=0.003)
    assert found["images", "kind"][1] >= 0.57


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
    in_full, in_half = rate_vectors(full, labels), rate_vectors(half, labels)
    assert abs(in_full.precision.value - in_half.precision.value) < 0.001
    assert abs(in_full.mean_average_precision.value - in_half.mean_average_precision.value) < 0.001
