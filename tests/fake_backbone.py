"""A network whose vectors can be foretold: the picture's own colours on a coarse grid. Fast, and needs no weights."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import networks
from backbones import BACKBONES, NetworkId, Outputs
from errors import WeightsUnavailableError

NETWORK = NetworkId("efficientnet_lite0", "avg_pool", "f" * 64)
OTHER = NetworkId("resnet50", "avg_pool", "e" * 64)


class FakeBackbone:
    """Looks like a `Backbone`; counts the images it has seen."""

    engine = "fake"
    parallel_runs = 1
    precision = "float32"

    def __init__(self, network: NetworkId, *, feature_map: bool = False) -> None:
        self.network = network
        self._feature_map = feature_map
        self.row = BACKBONES[network.backbone]
        self.dim = self.row.layers[network.layer]
        self.seen = 0
        self._lock = threading.Lock()

    def run(self, batch: npt.NDArray[np.uint8]) -> Outputs:
        with self._lock:
            self.seen += len(batch)
        coarse = batch[:, ::14, ::14].reshape(len(batch), -1).astype(np.float32) + 1
        vectors = np.resize(coarse.T, (self.dim, len(batch))).T if len(batch) else np.empty((0, self.dim), np.float32)
        scores = np.zeros((len(batch), 1000), dtype=np.float32)
        scores[np.arange(len(batch)), batch.reshape(len(batch), -1).astype(np.int64).sum(axis=1) % 1000] = 1
        feature_map = batch[:, ::32, ::32].astype(np.float32) if self._feature_map else None
        return Outputs(np.ascontiguousarray(vectors), scores, feature_map)


def install(monkeypatch: pytest.MonkeyPatch) -> list[FakeBackbone]:
    """Let the job and the service use fakes for every network; return the fakes that were loaded, in order."""
    loaded: list[FakeBackbone] = []

    def find(name: str, **options: Any) -> NetworkId:
        if name == "inception_v3":
            raise WeightsUnavailableError("The weights of inception_v3 cannot be had.")
        return NETWORK if name == NETWORK.backbone else OTHER

    def load(network: NetworkId, **options: Any) -> FakeBackbone:
        loaded.append(FakeBackbone(network, feature_map=options.get("feature_map", False)))
        return loaded[-1]

    monkeypatch.setattr(networks, "find_network", find)
    monkeypatch.setattr(networks, "load_backbone", load)
    return loaded
