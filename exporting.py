"""What leaves a collection as files for other programs: vectors, predicted labels, the graph of neighbours.

Owns these files' contents and the names of images in them. Does not own tables (`tables`), nor computing the graph (`ann`).
Memory is that of one block of vectors and of the images' names.

Sources: `image_vectors.npz` with `X` and `Y` is Similar-Image-Recommender's; the text vectors, `image_to_labels.json` and
`nearest_neighbors/` are those of the Yale DHLab's notebook; GraphML: http://graphml.graphdrawing.org
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from ann import Edges
from errors import EmptyCollectionError, ExportError, SettingsError
from networks import classes_of
from store import Snapshot, Store, VectorsManifest
from tables import FORMATS, open_table, whole_file, whole_folder
from vectors import Ids

BLOCK = 1_024
"""Vectors that are held in memory at a time: 8 MB of 2048-d ones."""

GRAPH_FORMATS = (*FORMATS, "graphml")
MAX_NAME_BYTES = 255
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""


def _silent(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class ExportedImages:
    """The searchable images of a collection at one moment, by ascending `ids`, with unique `names`, `labels` and contents.

    `places` are where their vectors stand in `snapshot`, whose network is `manifest`.
    """

    snapshot: Snapshot
    manifest: VectorsManifest
    places: Ids
    ids: Ids
    names: list[str]
    labels: list[str | None]
    hashes: list[bytes]

    def vectors(self, on_progress: Progress) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the vectors in blocks, float32 (m, dim)."""
        for start in range(0, len(self.ids), BLOCK):
            yield self.snapshot.take(self.places[start : start + BLOCK])
            on_progress(min(start + BLOCK, len(self.ids)), len(self.ids))


def exported_images(store: Store) -> ExportedImages:
    """Return the images that a collection is searched for, as they are named in every file that is exported.

    The name is the path below the folder that holds all files of the collection; an image without a file has its own. Raises
    `EmptyCollectionError` when there is none, `DamagedCollectionError`.
    """
    generation = store.generation()
    key = store.meta("vectors_key") if generation is None else generation.manifest["vectors_key"]
    snapshot = None if key is None else store.snapshot(key)
    if key is None or snapshot is None or not len(snapshot):
        raise EmptyCollectionError('The collection holds no image yet. Add some: python img2vec.py "folder/*"')
    places = {image_id: place for place, image_id in enumerate(snapshot.ids.tolist())}
    records = [record for record in store.all_records() if record.image_id in places and record.sha256 is not None]
    ids = np.array([record.image_id for record in records], dtype=np.int64)
    return ExportedImages(
        snapshot,
        store.manifest(key),
        np.searchsorted(snapshot.ids, ids),
        ids,
        image_names([record.path for record in records]),
        [record.label for record in records],
        [record.sha256 or b"" for record in records],
    )


def image_names(paths: Sequence[bytes]) -> list[str]:
    """Return a name for each path of the catalog, as valid Unicode: unique, and as short as the common folder allows."""
    folders = [os.path.dirname(path) for path in paths if path.startswith(b"/")]
    common = os.path.commonpath(folders).rstrip(b"/") + b"/" if folders else b""
    taken = {path for path in paths if not path.startswith(b"/")}
    below = [path.removeprefix(common) for path in paths]
    unique = [path if name in taken else name for path, name in zip(paths, below, strict=True)]
    return [name.decode("utf-8", "backslashreplace") for name in unique]


def vectors_format(target: Path, *, is_folder: bool) -> str:
    """Return which form of vectors a target means: "npz", or "texts" for a folder. Raises `SettingsError` for neither."""
    if is_folder or target.is_dir():
        return "texts"
    if target.suffix.lower() != ".npz":
        raise SettingsError(
            f"{target}: vectors are written to a file whose name ends in .npz, or to a folder of one text file an image, whose "
            f"name ends in a slash: {target}/"
        )
    return "npz"


def export_vectors(store: Store, target: Path, file_format: str = "npz", *, on_progress: Progress = _silent) -> int:
    """Write all vectors as the arrays `X` and `Y` of an "npz" file, or as "texts", a file an image; return how many.

    Raises `ExportError`, `EmptyCollectionError`.
    """
    images = exported_images(store)
    if file_format == "npz":
        with whole_file(target) as stream:
            _write_npz(stream, images, on_progress)
    else:
        with whole_folder(target) as folder:
            _write_texts(folder, images, on_progress)
    return len(images.ids)


def _write_npz(stream: BinaryIO, images: ExportedImages, on_progress: Progress) -> None:
    """`X`, `Y`, `label`, and which network made them. Not `np.savez`, which wants all of `X` in memory."""
    manifest = images.manifest
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        shape = (len(images.ids), manifest.dim)
        _write_array(archive, "X", np.dtype("<f4"), shape, images.vectors(on_progress))
        _write_strings(archive, "Y", images.names)
        if any(images.labels):
            _write_strings(archive, "label", [label or "" for label in images.labels])
        for name in ("backbone", "layer", "weights_sha256", "preprocessing"):
            text = np.array(getattr(manifest, name))
            _write_array(archive, name, text.dtype, (), [text])


def _write_strings(archive: zipfile.ZipFile, name: str, texts: Sequence[str]) -> None:
    kind = np.dtype(f"<U{max(map(len, texts)) or 1}")
    blocks = (np.array(texts[start : start + BLOCK], dtype=kind) for start in range(0, len(texts), BLOCK))
    _write_array(archive, name, kind, (len(texts),), blocks)


def _write_array(
    archive: zipfile.ZipFile, name: str, kind: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]
) -> None:
    member = zipfile.ZipInfo(f"{name}.npy")
    if kind.kind == "U":  # four bytes a sign, as long as the longest: mostly zeros
        member.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(member, "w", force_zip64=True) as stream:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype=kind).tobytes())


def _write_texts(folder: Path, images: ExportedImages, on_progress: Progress) -> None:
    names = iter(images.names)
    for block in images.vectors(on_progress):
        for vector, name in zip(block, names, strict=False):
            _write_new(folder, name, ".npz", "".join(f"{number!s}\n" for number in vector))


def _write_new(folder: Path, name: str, extension: str, text: str) -> None:
    """Write a file called after an image; one of that name that is there already is an error, never overwritten."""
    path = folder / _file_name(name, extension)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)


def _file_name(name: str, extension: str) -> str:
    """Return a relative path for an image's name: below the folder whatever the name, no part longer than disks allow."""
    parts = [part for part in name.replace("\0", "_").split("/") if part not in ("", ".", "..")] or ["_"]
    return "/".join([*(_shortened(part, "") for part in parts[:-1]), _shortened(parts[-1], extension)])


def _shortened(part: str, extension: str) -> str:
    raw = part.encode("utf-8")
    if len(raw) + len(extension) > MAX_NAME_BYTES:
        part = raw[: MAX_NAME_BYTES - 32].decode("utf-8", "ignore") + "-" + hashlib.sha256(raw).hexdigest()[:16]
    return part + extension


def export_labels(store: Store, target: Path, *, on_progress: Progress = _silent) -> int:
    """Write `{name: [{"labels": class, "score": number}, … best first]}` into `target`; return how many images have any.

    Raises `ExportError`, also when none has any, `EmptyCollectionError`.
    """
    images = exported_images(store)
    classes = classes_of(images.manifest)
    labelled = 0
    with whole_file(target) as stream:
        before = "{\n"
        for start in range(0, len(images.ids), BLOCK):
            block = slice(start, start + BLOCK)
            found = store.predicted_labels(images.manifest.key, images.hashes[block])
            for name, sha256 in zip(images.names[block], images.hashes[block], strict=True):
                best = [{"labels": classes[n], "score": round(score, 6)} for n, score in found.get(sha256, [])]
                labelled += bool(best)
                stream.write(f"{before}{json.dumps(name)}: {json.dumps(best)}".encode())
                before = ",\n"
            on_progress(min(start + BLOCK, len(images.ids)), len(images.ids))
        stream.write(b"\n}\n")
        if not labelled:
            raise ExportError(
                f"No image has predicted labels by {images.manifest.backbone}: its vectors came from elsewhere, or its weights "
                "have no classifier. Nothing was written."
            )
    return labelled


def graph_format(target: Path, *, is_folder: bool) -> str:
    """Return which of `GRAPH_FORMATS` a target means, or "neighbours" for a folder. Raises `SettingsError` for neither."""
    if is_folder or target.is_dir():
        return "neighbours"
    ending = target.suffix.lower().removeprefix(".")
    if ending not in GRAPH_FORMATS:
        endings = ", ".join(f".{name}" for name in GRAPH_FORMATS)
        raise SettingsError(
            f"{target}: a graph is written to a file whose name ends in one of {endings}, or to a folder of one JSON file an "
            f"image, whose name ends in a slash: {target}/"
        )
    return ending


def export_graph(store: Store, edges: Iterable[Edges], target: Path, file_format: str) -> int:
    """Write the edges, in blocks in order of their source, into `target` in one of `GRAPH_FORMATS`; return how many.

    "neighbours" writes a folder of JSON files as the Yale notebook does; its similarity is 1 - distance, so the distances must
    be cosine distances. Raises `ExportError`, `MissingPackageError`, `EmptyCollectionError`.
    """
    graph = _Graph(exported_images(store))
    if file_format == "graphml":
        with whole_file(target) as stream:
            graph.write_graphml(stream, edges)
    elif file_format == "neighbours":
        with whole_folder(target) as folder:
            graph.write_neighbours(folder, edges)
    else:
        graph.write_table(target, file_format, edges)
    return graph.count


class _Graph:
    """One graph on its way into files. Edges of images that were taken out meanwhile are left out."""

    def __init__(self, images: ExportedImages) -> None:
        self._images = images
        self._names = np.array(images.names, dtype=object)
        self.count = 0

    def _known(self, edges: Iterable[Edges]) -> Iterator[tuple[Edges, Ids, Ids]]:
        """Yield each block with the places of its sources and destinations among the images."""
        ids = self._images.ids
        for block in edges:
            ends = [np.minimum(np.searchsorted(ids, end), len(ids) - 1) for end in (block.sources, block.destinations)]
            known = (ids[ends[0]] == block.sources) & (ids[ends[1]] == block.destinations)
            kept = Edges(block.sources[known], block.destinations[known], block.distances[known], block.ranks[known])
            self.count += len(kept)
            yield kept, ends[0][known], ends[1][known]

    def write_table(self, target: Path, file_format: str, edges: Iterable[Edges]) -> None:
        with open_table(target, file_format, ("source", "destination", "distance", "rank")) as table:
            for block, sources, destinations in self._known(edges):
                table.write(
                    {
                        "source": self._names[sources],
                        "destination": self._names[destinations],
                        "distance": block.distances,
                        "rank": block.ranks,
                    }
                )

    def write_graphml(self, stream: BinaryIO, edges: Iterable[Edges]) -> None:
        stream.write(_GRAPHML_HEAD)
        for image_id, name, label in zip(
            self._images.ids.tolist(), self._images.names, self._images.labels, strict=True
        ):
            labelled = "" if label is None else f'<data key="label">{_xml(label)}</data>'
            stream.write(f'<node id="{image_id}"><data key="name">{_xml(name)}</data>{labelled}</node>\n'.encode())
        for block, _, _ in self._known(edges):
            columns = (block.sources.tolist(), block.destinations.tolist(), block.distances, block.ranks.tolist())
            lines = [
                f'<edge source="{source}" target="{destination}"><data key="distance">{distance}</data>'
                f'<data key="rank">{rank}</data></edge>\n'
                for source, destination, distance, rank in zip(*columns, strict=True)
            ]
            stream.write("".join(lines).encode())
        stream.write(b"</graph>\n</graphml>\n")

    def write_neighbours(self, folder: Path, edges: Iterable[Edges]) -> None:
        """A file an image, in order; one that has no neighbour within the radius has an empty list."""
        stems = unique_stems(self._images.names)
        written = 0
        for place, neighbours in itertools.groupby(self._pairs(edges, stems), key=lambda pair: pair[0]):
            for stem in stems[written:place]:
                _write_new(folder, stem, ".json", "[]\n")
            written = place + 1
            _write_new(folder, stems[place], ".json", json.dumps([pair[1] for pair in neighbours], indent=1) + "\n")
        for stem in stems[written:]:
            _write_new(folder, stem, ".json", "[]\n")

    def _pairs(self, edges: Iterable[Edges], stems: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for block, sources, destinations in self._known(edges):
            similarities = (1 - block.distances.astype(np.float64)).round(4).tolist()
            for source, destination, similarity in zip(
                sources.tolist(), destinations.tolist(), similarities, strict=True
            ):
                yield source, {"filename": stems[destination], "similarity": similarity}


def unique_stems(names: Sequence[str]) -> list[str]:
    """Return each name without its extension where no other would be called the same, else the whole name."""
    stems = [os.path.splitext(name)[0] for name in names]
    counts, taken = Counter(stems), set(names)
    return [
        stem if counts[stem] == 1 and (stem == name or stem not in taken) else name
        for name, stem in zip(names, stems, strict=True)
    ]


def _xml(text: str) -> str:
    """Escape for XML, in which most control characters cannot stand at all."""
    return escape(_NOT_IN_XML.sub("\ufffd", text))


_GRAPHML_HEAD = b"""<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="name" for="node" attr.name="name" attr.type="string"/>
<key id="label" for="node" attr.name="label" attr.type="string"/>
<key id="distance" for="edge" attr.name="distance" attr.type="double"/>
<key id="rank" for="edge" attr.name="rank" attr.type="int"/>
<graph edgedefault="directed">
"""
