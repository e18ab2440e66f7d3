"""OpenVINO: what runs networks on processors, many times faster than TensorFlow, in a process without TensorFlow.

Owns loading a converted network (`convert.py`) and running it from many threads. Measured on two cores with bfloat16:
one stream of one thread a core is fastest for throughput, all threads on one image for latency. Compiled networks are
not kept on disk: compiling Inception v3 takes 0.2 s, reading it compiled 0.1 s.
"""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backbones.backbone import EngineOptions, NetworkId, Outputs, choose_outputs, run_in_pieces
from backbones.convert import converted_folder
from backbones.openvino_library import import_openvino
from backbones.rows import BackboneRow
from config import Settings
from errors import BackboneError


class OpenVinoEngine:
    """A compiled network and its infer requests: a caller takes one, waits in it without the GIL, and gives it back."""

    name = "openvino"

    def __init__(self, network: NetworkId, row: BackboneRow, models_dir: Path, options: EngineOptions) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        threads = Settings(threads=options.threads).cpu_threads
        self.precision = _choose_precision(core, options.precision)
        self.parallel_runs = threads if options.purpose == "throughput" else 1
        self._batch_size = options.batch_size
        model = core.read_model(str(converted_folder(network, models_dir) / "model.xml"))
        self._outputs = _keep_outputs(model, network.layer, feature_map=options.feature_map)
        model.reshape([options.batch_size, *row.input_size, 3])
        compiled = core.compile_model(model, "CPU", self._properties(openvino, threads))
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(self.parallel_runs):
            self._requests.put(compiled.create_infer_request())
        # The first call initialises statics of OpenVINO's binding and lets go of the GIL meanwhile: two first calls at once wait
        # for each other for ever (2026.4.1: __cxa_guard_acquire against take_gil). So the first call is made here, alone.
        self._run_batch(np.zeros((options.batch_size, *row.input_size, 3), dtype=np.uint8))

    def _properties(self, openvino: Any, threads: int) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": openvino.Type.bf16 if self.precision == "bfloat16" else openvino.Type.f32,
            "NUM_STREAMS": self.parallel_runs,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned, two processes share CPU 0 and halve each other's speed
        }

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


def _keep_outputs(model: Any, layer: str, *, feature_map: bool) -> dict[str, str]:
    """Drop the outputs that nobody needs, so that nothing is computed or copied for them; return the names of the rest."""
    there = {name for output in model.outputs for name in output.names}
    wanted = choose_outputs(layer, there, feature_map=feature_map)
    for output in model.outputs:
        if not output.names & set(wanted.values()):
            model.remove_result(output.node)
    return wanted


def _choose_precision(core: Any, precision: str) -> str:
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not has_bfloat16:
        raise BackboneError("This processor cannot compute in bfloat16. Use --precision float32, or auto.")
    if precision == "auto":
        return "bfloat16" if has_bfloat16 else "float32"
    return precision
