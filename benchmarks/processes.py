"""Child processes and what they cost: time, processors, memory. Linux only, because it reads /proc."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from config import ENV_PREFIX, ROOT

POLL_SECONDS = 0.02
MB = 1e6


@dataclass(frozen=True)
class Finished:
    """A process that ended well. Memory is the most that was resident, its own and its largest child's."""

    output: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    child_peak_mb: float
    busy_elsewhere: float


def plain_environment() -> Mapping[str, str]:
    """The environment without the settings of whoever runs the benchmark: they would change what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return {**kept, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def run_measured(command: list[str], folder: Path) -> Finished:
    """Run a program in `folder` to its end. Raises `RuntimeError` with its last words when it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        used, busy, started = _used_by_children(), _busy_everywhere(), time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=plain_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        peak = child_peak = 0.0
        while process.poll() is None:
            peak = max(peak, peak_mb(process.pid))
            child_peak = max([child_peak, *(peak_mb(child) for child in children(process.pid))])
            time.sleep(POLL_SECONDS)
        wall_s, cpu_s = time.perf_counter() - started, _used_by_children() - used
        elsewhere = (_busy_everywhere() - busy - cpu_s) / (wall_s * (os.cpu_count() or 1))
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            said = errors.read().decode("utf-8", "replace")[-1500:]
            raise RuntimeError(f"{' '.join(command)[:300]} ended with code {process.returncode}: {said}")
        text = output.read().decode()
    return Finished(text, wall_s, cpu_s, peak, child_peak, max(0.0, elsewhere))


def peak_mb(pid: int) -> float:
    """The most that was ever resident of a process since it began its program, 0 when it is gone.

    Not `ru_maxrss`: a child inherits that of whoever started it.
    """
    with suppress(OSError):
        for row in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if row.startswith("VmHWM:"):
                return int(row.split()[1]) * 1024 / MB
    return 0.0


def children(pid: int) -> list[int]:
    """The processes that a process started and that still run, with theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            direct = [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
            found += direct + [below for child in direct for below in children(child)]
    return found


def _used_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _busy_everywhere() -> float:
    """Core-seconds that all processors of the machine worked (or were taken away by its host) since it started."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, fields)
    return (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")
