"""Which network vectors from elsewhere are of: one that is here, if a file of our own says so; else one that only has a name.

Owns the manifest of their set, and refusing what cannot be compared. Does not own the vectors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import BACKBONES, NetworkId
from errors import CollectionMismatchError
from importing.files import ArrayVectors, VectorsSource
from networks import own_network
from store import IMPORTED_BACKBONE, StoreWriter, VectorsManifest

MAX_LAYER_SIGNS = 60


def imported_network(title: str, names: Sequence[str], vectors: npt.NDArray[Any]) -> NetworkId:
    """Return what stands for the unknown network of vectors from elsewhere: called `title`, told apart by a hash."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "backslashreplace"))
    digest.update(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
    return NetworkId(IMPORTED_BACKBONE, _layer_name(title), digest.hexdigest())


def _layer_name(text: str) -> str:
    """Part of a folder's name, so only what every disk takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")[:MAX_LAYER_SIGNS] or "vectors"


def manifest_for(writer: StoreWriter, source: VectorsSource) -> VectorsManifest:
    """Return the manifest of the set that `source` belongs to. Raises `CollectionMismatchError`, naming both networks."""
    own = own_network(writer)
    known = None if own is None else writer.manifest(own.key)
    if known is not None and known.is_imported and source.origin is None and known.dim == source.dim:
        return known
    network = _network_of(source)
    manifest = VectorsManifest(
        network.key,
        network.backbone,
        network.layer,
        network.weights_sha256,
        source.dim,
        source.origin.preprocessing if source.origin else "unknown: the vectors came from elsewhere",
    )
    if known is not None and (known.key, known.dim) != (manifest.key, manifest.dim):
        theirs = "a network that it does not name" if source.origin is None else _described(manifest)
        raise CollectionMismatchError(
            f"The collection in {writer.folder} holds {known.dim}-d vectors of {_described(known)}; {source.title} holds "
            f"{source.dim}-d vectors of {theirs}. Vectors of different networks cannot be compared. Import them into a "
            "collection of their own: --rsc-files FOLDER."
        )
    return manifest


def _described(manifest: VectorsManifest) -> str:
    return f"{manifest.backbone}, layer {manifest.layer}, weights {manifest.weights_sha256[:12]}"


def _network_of(source: VectorsSource) -> NetworkId:
    """Return the network that a file names, if it is one that can be had here; else what stands for an unknown one."""
    origin = source.origin
    first = next(source.blocks()).vectors[:1]
    unknown = imported_network(source.title, source.names, first)
    if origin is None:
        return unknown
    weights = origin.weights_sha256 if re.fullmatch("[0-9a-f]{64}", origin.weights_sha256) else unknown.weights_sha256
    row = BACKBONES.get(origin.backbone)
    if row is not None and row.layers.get(origin.layer) == source.dim and weights == origin.weights_sha256:
        return NetworkId(origin.backbone, origin.layer, weights)
    layer = origin.layer if origin.backbone == IMPORTED_BACKBONE else f"{origin.backbone}-{origin.layer}"
    return NetworkId(IMPORTED_BACKBONE, _layer_name(layer), weights)


def begin_imported(writer: StoreWriter, title: str, names: Sequence[str], vectors: npt.NDArray[Any]) -> str:
    """Make the collection ready for vectors (n, dim) from elsewhere, called `title`; return their key for `add_vectors`.

    A collection of such vectors keeps its key. Raises `CollectionMismatchError` for one of another network or dimension.
    """
    manifest = manifest_for(writer, ArrayVectors(title, names, vectors))
    writer.begin_vectors(manifest)
    writer.set_meta("vectors_key", manifest.key)
    return manifest.key
