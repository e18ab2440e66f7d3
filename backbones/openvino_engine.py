"""OpenVINO: what runs networks on processors, many times faster than TensorFlow, in a process without TensorFlow.

Owns loading a converted network (`convert.py`) and running it from many threads. Measured on two cores with bfloat16:
one stream of one thread a core is fastest for throughput, all threads on one image for latency.
"""

from __future__ import annotations

import os
import queue
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backbones.backbone import NetworkId, Outputs, find_row, run_in_pieces
from backbones.convert import converted_folder
from backbones.openvino_library import import_openvino
from errors import BackboneError

Purpose = Literal["throughput", "latency"]


class OpenVinoEngine:
    """A compiled network and its infer requests: each caller takes one, waits in it without the GIL, and gives it back."""

    name = "openvino"

    def __init__(
        self,
        network: NetworkId,
        models_dir: Path,
        *,
        precision: str,
        threads: int,
        batch_size: int,
        purpose: Purpose,
        feature_map: bool,
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        self.precision = _choose_precision(core, precision)
        self.parallel_runs = threads if purpose == "throughput" else 1
        self._batch_size = batch_size if purpose == "throughput" else 1
        model = _read_model(core, network, models_dir, self._batch_size, feature_map=feature_map)
        self._outputs = _output_names(model, network.layer)
        compiled = core.compile_model(model, "CPU", self._options(openvino, threads, models_dir))
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(self.parallel_runs):
            self._requests.put(compiled.create_infer_request())

    def _options(self, openvino: Any, threads: int, models_dir: Path) -> dict[str, Any]:
        options = {
            "INFERENCE_PRECISION_HINT": openvino.Type.bf16 if self.precision == "bfloat16" else openvino.Type.f32,
            "NUM_STREAMS": self.parallel_runs,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned, two processes share CPU 0 and halve each other's speed
        }
        cache = _compiled_cache(models_dir)
        return options if cache is None else {**options, "CACHE_DIR": str(cache)}

    def run(self, batch: NDArray[np.uint8]) -> Outputs:
        return run_in_pieces(self._run_batch, batch, self._batch_size)

    def _run_batch(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        request = self._requests.get()
        try:
            request.infer([batch], share_inputs=True)
            # Copies: the next caller of this request overwrites its buffers.
            return {name: np.array(request.get_tensor(output).data) for name, output in self._outputs.items()}
        finally:
            self._requests.put(request)


def _read_model(core: Any, network: NetworkId, models_dir: Path, batch_size: int, *, feature_map: bool) -> Any:
    """Read the network, keep only the outputs that are needed, and fix its batch size (faster than a free one)."""
    model = core.read_model(str(converted_folder(network, models_dir) / "model.xml"))
    wanted = {f"vector_{network.layer}", "scores"} | ({"feature_map"} if feature_map else set())
    for output in model.outputs:
        if not output.names & wanted:
            model.remove_result(output.node)
    model.reshape([batch_size, *find_row(network.backbone).input_size, 3])
    return model


def _output_names(model: Any, layer: str) -> dict[str, str]:
    names = {"vectors": f"vector_{layer}", "scores": "scores", "feature_map": "feature_map"}
    there = {name for output in model.outputs for name in output.names}
    if names["vectors"] not in there:
        raise BackboneError(f"The weights have no classifier, and so no layer {layer}. Choose --layer flatten, or other weights.")
    return {name: output for name, output in names.items() if output in there}


def _choose_precision(core: Any, precision: str) -> str:
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not has_bfloat16:
        raise BackboneError("This processor cannot compute in bfloat16. Use --precision float32, or auto.")
    if precision == "auto":
        return "bfloat16" if has_bfloat16 else "float32"
    return precision


def _compiled_cache(models_dir: Path) -> Path | None:
    """The folder for compiled networks, which makes the next start quicker; None when it cannot be written."""
    cache = models_dir / "cache"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return cache if os.access(cache, os.W_OK) else None
