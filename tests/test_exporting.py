"""Files for other programs: exact numbers, unique names, written whole, and read by those programs' own readers."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import exporting
from ann import Edges, Index, similarity_graph
from backbones import NetworkId, class_names
from errors import EmptyCollectionError, ExportError, SettingsError
from exporting import (
    export_graph,
    export_labels,
    export_vectors,
    graph_format,
    image_names,
    unique_stems,
    vectors_format,
)
from store import Batch, Record, Store, VectorsManifest, open_store, open_writer

NETWORK = NetworkId("efficientnet_lite0", "avg_pool", "f" * 64)
MANIFEST = VectorsManifest(NETWORK.key, NETWORK.backbone, NETWORK.layer, NETWORK.weights_sha256, 6, "squeezed")
# Equal stems, a name that is another's stem, signs of XML, CSV and JSON, bytes that are no Unicode, a control character.
NAMES = (
    b"even/a.b.jpg",
    b"even/a.c.jpg",
    b"odd/a.b.jpg",
    b"odd/1.jpg",
    b"odd/1.png",
    b"odd/2",
    b"odd/2.jpg",
    'odd/<ü> & "x", y.jpg'.encode(),
    b"odd/\xff\x01.jpg",
)
SHOWN = [name.decode("utf-8", "backslashreplace") for name in NAMES]


def vectors_of(count: int, dim: int = 6) -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(count, dim)).astype(np.float16).astype(np.float32)


def make_collection(
    folder: Path, paths: list[bytes], vectors: npt.NDArray[np.float32], *, labels: bool = True
) -> Store:
    """A collection of images that nobody decoded; every third has no label, every second no predicted labels."""
    batch = Batch()
    for number, (path, vector) in enumerate(zip(paths, vectors, strict=True)):
        sha256 = hashlib.sha256(path).digest()
        label = f"label <{number}>" if number % 3 and labels else None
        batch.records.append(Record(path, 1, 1, sha256, "JPEG", 4, 3, label=label))
        batch.vectors[sha256] = vector
        if number % 2 and labels:
            batch.labels[sha256] = [(number * 10 + rank, 0.5 / (rank + 1)) for rank in range(5)]
    batch.records.append(Record(b"/photos/odd/broken.jpg", 1, 1, error_code="damaged_image", error="cut"))
    with open_writer(folder, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.set_meta("vectors_key", MANIFEST.key)
        writer.commit(MANIFEST.key, batch)
    return open_store(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = make_collection(tmp_path / "rsc", [b"/photos/" + name for name in NAMES], vectors_of(len(NAMES)))
    yield made
    made.close()


def graph_of(store: Store, k: int = 3, radius: float | None = None) -> Iterator[Edges]:
    return similarity_graph(Index(store.snapshot(MANIFEST.key)), k, radius=radius)


# Names.


def test_images_are_called_by_their_paths_below_the_common_folder() -> None:
    assert image_names([b"/a/b/c.jpg", b"/a/b/d/e.jpg"]) == ["c.jpg", "d/e.jpg"]
    assert image_names([b"/a/b/c.jpg", b"/x/c.jpg"]) == ["a/b/c.jpg", "x/c.jpg"]
    assert image_names([b"roses/1.jpg", b"2.jpg"]) == ["roses/1.jpg", "2.jpg"]
    assert image_names([]) == []


def test_a_file_never_takes_the_name_of_an_image_without_one() -> None:
    assert image_names([b"c.jpg", b"/a/b/c.jpg", b"/a/b/d.jpg"]) == ["c.jpg", "/a/b/c.jpg", "d.jpg"]


def test_stems_are_used_where_no_two_images_share_one() -> None:
    assert unique_stems(["a.b.jpg", "a.c.jpg", "d.jpg", "d.png", "e", "e.jpg", "f.jpg.png", "f.jpg"]) == [
        *("a.b", "a.c", "d.jpg", "d.png", "e", "e.jpg", "f.jpg.png", "f"),
    ]


# Vectors.


def test_the_npz_has_vectors_names_labels_and_their_network(store: Store, tmp_path: Path) -> None:
    assert export_vectors(store, tmp_path / "v.npz") == len(NAMES)
    with np.load(tmp_path / "v.npz") as file:
        assert file["X"].dtype == np.float32
        assert np.array_equal(file["X"], vectors_of(len(NAMES)))
        assert file["Y"].tolist() == SHOWN
        assert file["label"].tolist() == [f"label <{n}>" if n % 3 else "" for n in range(len(NAMES))]
        assert (str(file["backbone"]), str(file["layer"])) == (NETWORK.backbone, NETWORK.layer)
        assert str(file["weights_sha256"]) == NETWORK.weights_sha256


def test_a_collection_without_labels_has_none_in_its_npz(tmp_path: Path) -> None:
    store = make_collection(tmp_path / "rsc", [b"/p/a.jpg", b"/p/b.jpg"], vectors_of(2), labels=False)
    export_vectors(store, tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz") as file:
        assert "label" not in file.files
        assert file["Y"].tolist() == ["a.jpg", "b.jpg"]


def test_exporting_holds_a_block_of_vectors_in_memory_and_not_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "BLOCK", 64)
    count, dim = 4_000, 512
    vectors = np.ones((count, dim), dtype=np.float16)
    folder = tmp_path / "rsc"
    with open_writer(folder, command="test") as writer:
        manifest = VectorsManifest("k", "imported", "l", "0" * 64, dim, "")
        writer.begin_vectors(manifest)
        writer.set_meta("vectors_key", "k")
        batch = Batch([Record(b"/p/%d" % number, 1, 1, b"%d" % number) for number in range(count)])
        batch.vectors = {b"%d" % number: vector for number, vector in enumerate(vectors.astype(np.float32))}
        writer.commit("k", batch)
    store = open_store(folder)
    tracemalloc.start()
    try:
        export_vectors(store, tmp_path / "v.npz")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "v.npz").stat().st_size > count * dim * 4
    assert peak_bytes < count * dim * 4 / 2


def test_text_vectors_have_a_file_an_image_and_one_number_a_line(store: Store, tmp_path: Path) -> None:
    assert export_vectors(store, tmp_path / "texts", "texts") == len(NAMES)
    written = sorted(path for path in (tmp_path / "texts").rglob("*") if path.is_file())
    assert [str(path.relative_to(tmp_path / "texts")) for path in written] == sorted(f"{name}.npz" for name in SHOWN)
    for name, vector in zip(SHOWN, vectors_of(len(NAMES)), strict=True):
        assert np.array_equal(np.loadtxt(tmp_path / "texts" / f"{name}.npz", dtype=np.float32), vector)


def test_names_that_no_disk_takes_are_changed_and_stay_in_the_folder(tmp_path: Path) -> None:
    long = "é" * 200
    store = make_collection(
        tmp_path / "rsc", [f"{long}.jpg".encode(), f"{long}.png".encode(), b"../../x", b"a\0b"], vectors_of(4)
    )
    (tmp_path / "out").mkdir()
    export_vectors(store, tmp_path / "out" / "texts", "texts")
    files = [path.relative_to(tmp_path / "out" / "texts") for path in (tmp_path / "out").rglob("*.npz")]
    assert len(files) == 4
    assert {"x.npz", "a_b.npz"} < {str(file) for file in files}


def test_a_folder_that_is_there_is_not_mixed_with_what_is_exported(store: Store, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    export_vectors(store, tmp_path / "texts", "texts")
    before = sorted(os.listdir(tmp_path / "texts"))
    with pytest.raises(ExportError, match="not an empty folder"):
        export_vectors(store, tmp_path / "texts", "texts")
    assert sorted(os.listdir(tmp_path / "texts")) == before


def test_an_export_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for target, file_format in (("v.npz", "npz"), ("texts", "texts")):
        with pytest.raises(KeyboardInterrupt):
            export_vectors(store, tmp_path / target, file_format, on_progress=interrupt)
    assert os.listdir(tmp_path) == ["rsc"]


def test_a_collection_without_images_has_nothing_to_export(tmp_path: Path) -> None:
    store = make_collection(tmp_path / "rsc", [], vectors_of(0))
    with pytest.raises(EmptyCollectionError):
        export_vectors(store, tmp_path / "v.npz")


def test_a_target_says_by_its_name_what_is_written() -> None:
    assert vectors_format(Path("v.npz"), is_folder=False) == "npz"
    assert vectors_format(Path("texts"), is_folder=True) == "texts"
    with pytest.raises(SettingsError, match=r"v\.npy"):
        vectors_format(Path("v.npy"), is_folder=False)
    assert graph_format(Path("g.Parquet"), is_folder=False) == "parquet"
    assert graph_format(Path("nn"), is_folder=True) == "neighbours"
    with pytest.raises(SettingsError, match=r"\.parquet, \.graphml|\.graphml"):
        graph_format(Path("g.gexf"), is_folder=False)


# Predicted labels.


def test_predicted_labels_are_a_list_for_each_image_best_first(store: Store, tmp_path: Path) -> None:
    assert export_labels(store, tmp_path / "image_to_labels.json") == len(NAMES) // 2
    found = json.loads((tmp_path / "image_to_labels.json").read_text(encoding="utf-8"))
    assert list(found) == SHOWN
    assert found[SHOWN[0]] == []
    assert [entry["labels"] for entry in found[SHOWN[1]]] == list(class_names()[10:15])
    assert [entry["score"] for entry in found[SHOWN[1]]] == [0.5, 0.25, 0.166667, 0.125, 0.1]


def test_without_any_predicted_label_the_reason_is_given_and_no_file_made(tmp_path: Path) -> None:
    store = make_collection(tmp_path / "rsc", [b"/p/a.jpg"], vectors_of(1), labels=False)
    with pytest.raises(ExportError, match="No image has predicted labels"):
        export_labels(store, tmp_path / "l.json")
    assert not (tmp_path / "l.json").exists()


# The graph.


def edges_as_text(store: Store, k: int = 3) -> list[tuple[str, str, float, int]]:
    names = dict(zip(store.snapshot(MANIFEST.key).ids.tolist(), SHOWN, strict=True))
    return [
        (names[source], names[destination], float(distance), rank)
        for block in graph_of(store, k)
        for source, destination, distance, rank in zip(
            block.sources.tolist(), block.destinations.tolist(), block.distances, block.ranks.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("file_format", ["csv", "json", "parquet"])
def test_a_graph_as_a_table_has_a_row_an_edge(file_format: str, store: Store, tmp_path: Path) -> None:
    import pandas

    path = tmp_path / f"graph.{file_format}"
    expected = edges_as_text(store)
    assert export_graph(store, graph_of(store), path, file_format) == len(expected) == 3 * len(NAMES)
    frame = getattr(pandas, f"read_{file_format}")(path)
    assert list(frame.columns) == ["source", "destination", "distance", "rank"]
    found = list(frame.itertuples(index=False, name=None))
    assert [(row[0], row[1], row[3]) for row in found] == [(row[0], row[1], row[3]) for row in expected]
    assert np.allclose([row[2] for row in found], [row[2] for row in expected], atol=1e-7)


def test_networkx_reads_the_graphml(store: Store, tmp_path: Path) -> None:
    import networkx

    path = tmp_path / "graph.graphml"
    count = export_graph(store, graph_of(store), path, "graphml")
    graph = networkx.read_graphml(path, node_type=int)
    assert (graph.is_directed(), len(graph), graph.number_of_edges()) == (True, len(NAMES), count)
    names = networkx.get_node_attributes(graph, "name")
    assert list(names.values()) == [name.replace("\x01", "\ufffd") for name in SHOWN]
    assert networkx.get_node_attributes(graph, "label")[2] == "label <1>"
    for source, destination, distance, rank in edges_as_text(store)[:7]:
        edge = graph.edges[1 + SHOWN.index(source), 1 + SHOWN.index(destination)]
        assert edge["rank"] == rank
        assert edge["distance"] == pytest.approx(distance, abs=1e-7)


def test_neighbours_are_a_file_an_image_without_itself_and_nothing_overwritten(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "nearest_neighbors"
    export_graph(store, graph_of(store, k=30), folder, "neighbours")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))
    stems = unique_stems(SHOWN)
    assert files == sorted(f"{stem}.json" for stem in stems)
    by_source: dict[str, list[dict[str, object]]] = {stem: [] for stem in stems}
    for source, destination, distance, _ in edges_as_text(store, k=30):
        entry = {"filename": stems[SHOWN.index(destination)], "similarity": round(1 - distance, 4)}
        by_source[stems[SHOWN.index(source)]].append(entry)
    for stem in stems:
        found = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        assert [entry["filename"] for entry in found] == [entry["filename"] for entry in by_source[stem]]
        assert stem not in [entry["filename"] for entry in found]
        assert len(found) == len(NAMES) - 1
        for entry, expected in zip(found, by_source[stem], strict=True):
            assert entry["similarity"] == pytest.approx(expected["similarity"], abs=1.01e-4)
            assert round(entry["similarity"], 4) == entry["similarity"]


def test_an_image_with_no_neighbour_within_the_radius_has_an_empty_list(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "nn"
    edges = Edges(np.array([3]), np.array([1]), np.array([0.25], np.float32), np.array([1]))
    export_graph(store, [edges], folder, "neighbours")
    found = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("*.json")}
    assert len(found) == len(NAMES)
    assert [entries for entries in found.values() if entries] == [[{"filename": "even/a.b", "similarity": 0.75}]]
    assert found["odd/a.b.json"]


def test_edges_of_images_that_are_gone_meanwhile_are_left_out(store: Store, tmp_path: Path) -> None:
    edges = list(graph_of(store))
    with open_writer(store.folder, command="test") as writer:
        writer.remove([2])
    count = export_graph(store, edges, tmp_path / "g.csv", "csv")
    text = (tmp_path / "g.csv").read_text(encoding="utf-8")
    assert count == sum(
        2 not in pair for block in edges for pair in zip(block.sources, block.destinations, strict=True)
    )
    assert "even/a.c.jpg" not in text


def test_a_graph_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def broken() -> Iterator[Edges]:
        yield from graph_of(store)
        raise ZeroDivisionError

    for target, file_format in (("g.csv", "csv"), ("g.graphml", "graphml"), ("nn", "neighbours")):
        with pytest.raises(ZeroDivisionError):
            export_graph(store, broken(), tmp_path / target, file_format)
    assert os.listdir(tmp_path) == ["rsc"]
