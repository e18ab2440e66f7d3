"""Which network a collection is made with and searched by.

Owns the choice (asked for, the collection's own, what works offline) and refusing vectors of different networks. Does not own
networks themselves (`backbones`) or the vectors (`store`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backbones import Backbone, BackboneRow, NetworkId, Purpose, class_names, find_network, find_row, load_backbone
from config import Settings
from errors import CollectionMismatchError, DamagedCollectionError, WeightsUnavailableError
from store import IMPORTED_BACKBONE, Generation, Store, StoreWriter, VectorsManifest

DEFAULT_BACKBONE = "inception_v3"
OFFLINE_BACKBONE = "efficientnet_lite0"


def choose_network(settings: Settings, store: StoreWriter, note: Callable[[str], None]) -> NetworkId:
    """Return the network to use: the one asked for, else the collection's own, else Inception v3, else what works offline.

    Raises `WeightsUnavailableError` for a network asked for by name, `CollectionMismatchError` when the weights found are not
    those that made the collection.
    """
    try:
        own = own_network(store)
    except DamagedCollectionError:
        if settings.backbone is None:
            raise
        own = None
    if settings.backbone == IMPORTED_BACKBONE:
        return _imported_network(store)
    if settings.backbone is not None:
        network = find(settings, settings.backbone, settings.layer)
        if own is not None and own.key != network.key:
            note(
                f"The collection was searched by vectors of {own.key}; --backbone {settings.backbone} makes vectors of "
                f"{network.key} for every image of it. The old vectors are kept: `python img2vec.py --backbone "
                f"{own.backbone} --layer {own.layer}` switches back."
            )
        return network
    if own is not None:
        return _keep_network(settings, own)
    if settings.weights is not None or settings.layer is not None:
        return find(settings, DEFAULT_BACKBONE, settings.layer)
    try:
        return find(settings, DEFAULT_BACKBONE, None)
    except WeightsUnavailableError as error:
        note(
            f"{error} Going on with {OFFLINE_BACKBONE}, whose weights are installed: the collection will be made with it."
        )
        return find(settings, OFFLINE_BACKBONE, None)


def _imported_network(store: StoreWriter) -> NetworkId:
    for key in store.vector_keys():
        if store.manifest(key).is_imported:
            return _network(store.manifest(key))
    raise CollectionMismatchError("No vectors were imported into this collection, so it cannot be searched by them.")


def own_network(store: StoreWriter) -> NetworkId | None:
    """Return the network that made the vectors which the collection is searched by, or None before the first run."""
    generation = store.last_generation()
    # Without a generation (a first job that was killed, index/ deleted) it is the network that was last written with.
    key = store.meta("vectors_key") if generation is None else generation.manifest["vectors_key"]
    return None if key is None else _network(store.manifest(key))


def network_of(store: Store, generation: Generation) -> NetworkId:
    """Return the network that made the vectors which `generation` was computed from."""
    return _network(store.manifest(generation.manifest["vectors_key"]))


def _network(manifest: VectorsManifest) -> NetworkId:
    return NetworkId(manifest.backbone, manifest.layer, manifest.weights_sha256)


def find(settings: Settings, name: str, layer: str | None) -> NetworkId:
    """Return the network `name` with the weights that the settings name, or its own; raises what `find_network` raises."""
    return find_network(name, networks_dir=settings.networks_folder, layer=layer, weights=settings.weights)


def row_of(network: NetworkId, settings: Settings) -> BackboneRow:
    """Return what there is to know of `network`; raises `BackboneError` where it is not here."""
    return find_row(network.backbone, settings.networks_folder, network.weights_sha256)


def load_network(
    network: NetworkId,
    settings: Settings,
    models_folder: Path,
    *,
    purpose: Purpose = "throughput",
    batch_size: int = 1,
    feature_map: bool = False,
) -> Backbone:
    """Load `network` as the settings say it is to run. Raises `BackboneError`, `DiskFullError`."""
    return load_backbone(
        network,
        models_dir=models_folder,
        networks_dir=settings.networks_folder,
        weights=settings.weights,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        gpus=settings.gpus,
        batch_size=batch_size,
        purpose=purpose,
        feature_map=feature_map,
    )


def vectors_manifest(network: NetworkId, row: BackboneRow) -> VectorsManifest:
    """Return the manifest of vectors that `network`, which `row` describes, makes here."""
    height, width = row.input_size
    return VectorsManifest(
        key=network.key,
        backbone=network.backbone,
        layer=network.layer,
        weights_sha256=network.weights_sha256,
        dim=row.layers[network.layer],
        preprocessing=f"upright RGB over white, squeezed to {width}x{height}, {row.resample}",
        class_names=list(row.class_names) or None,
    )


def classes_of(manifest: VectorsManifest) -> tuple[str, ...]:
    """Return the names of the classes that the network of these vectors tells apart, in the order of its scores."""
    return class_names() if manifest.class_names is None else tuple(manifest.class_names)


def _keep_network(settings: Settings, own: NetworkId) -> NetworkId:
    if settings.weights is not None or settings.layer is not None:
        given = find(settings, own.backbone, settings.layer or own.layer)
        check_same_network(own, given)
    return own


def check_same_network(own: NetworkId, given: NetworkId) -> None:
    """Raise `CollectionMismatchError`, naming both, unless `given` is the network that made the collection's vectors."""
    if own.key != given.key:
        asked = f"{given.backbone}, layer {given.layer}, weights {given.weights_sha256[:12]}"
        raise mismatch(own, asked, f"--backbone {given.backbone} --layer {given.layer}")


def mismatch(own: NetworkId, asked: str, options: str) -> CollectionMismatchError:
    """Return the error that names the network of the collection and the one that was asked for."""
    return CollectionMismatchError(
        f"The collection holds vectors of {own.backbone}, layer {own.layer}, weights {own.weights_sha256[:12]}; asked for is "
        f"{asked}. Vectors of different networks cannot be compared. Leave the choice out to use the collection's own, or "
        f"make the other vectors beside them: python img2vec.py {options}"
    )
