"""The one place that imports OpenVINO, without its telemetry.

`import openvino` loads `openvino_telemetry`, which reports to an analytics service over the network. Lookalike sends
nothing anywhere: a module that is None in `sys.modules` cannot be imported, and OpenVINO then uses its empty stand-in.
"""

from __future__ import annotations

import sys
from typing import Any


def import_openvino() -> Any:
    """Import OpenVINO so that it connects nowhere."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
