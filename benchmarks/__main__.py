"""`python -m benchmarks` (`make bench`): measure, print the table, keep the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from benchmarks.parts import FULL, PARTS, QUICK, Bench, Plan
from benchmarks.table import Figure, line, summary
from config import ROOT
from samples import make_sample_collection

RESULTS = ROOT / "benchmarks" / "results"
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "caltech101-dev"
DISTURBED = 0.05
"""Where other programs take a larger share of the processors, images a second say more about them than about Lookalike."""

PACKAGES = ("openvino", "tensorflow-cpu", "tensorflow", "keras", "annoy", "numpy", "pillow")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a bound that is not met is told and is no failure of the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer images and shorter: a first look, not a figure to quote"
    )
    parser.add_argument(
        "--only", action="append", choices=tuple(PARTS), metavar="NAME", help=f"one of {', '.join(PARTS)}"
    )
    arguments = parser.parse_args(argv)
    RESULTS.mkdir(exist_ok=True)
    # Beside the results and not in /tmp, which may be held in memory: what syncing costs belongs to the job.
    with tempfile.TemporaryDirectory(prefix="work-", dir=RESULTS) as folder:
        photographs = find_photographs(Path(folder))
        measure(QUICK if arguments.quick else FULL, arguments.only or list(PARTS), photographs, Path(folder), RESULTS)
    return 0


def find_photographs(folder: Path) -> list[Path]:
    """Return the photographs of `../shared/data`, else the sample collection made in `folder`, in an order without order."""
    if PHOTOGRAPHS.is_dir():
        found = sorted(PHOTOGRAPHS.rglob("*.jpg"))
    else:
        make_sample_collection(folder / "sample_images")
        found = sorted(path for path in (folder / "sample_images").rglob("*") if path.is_file())
    random.Random(0).shuffle(found)
    return found


def measure(plan: Plan, parts: list[str], photographs: list[Path], folder: Path, results: Path) -> list[Figure]:
    """Measure `parts` in `folder`, print each figure as it comes, and keep them all as a JSON file under `results`."""
    machine = describe_machine()
    print("\n".join(f"{name + ':':<14} {value}" for name, value in machine.items()))
    print(f"{'photographs:':<14} {len(photographs):,} in {os.path.commonpath(photographs)}", flush=True)
    figures: list[Figure] = []
    busy: dict[str, float] = {}
    for part in parts:
        print(f"\n{part}", flush=True)
        bench = Bench(plan, photographs, folder, results)
        for figure in PARTS[part](bench):
            figures.append(figure)
            print(line(figure), flush=True)
        busy[part] = round(bench.busy_elsewhere(), 3)
        if busy[part] > DISTURBED:
            print(f"  DISTURBED: other programs took {busy[part]:.0%} of the processors meanwhile; measure again.")
    print("\n" + summary(figures))
    file = results / time.strftime("%Y-%m-%dT%H%M%S.json")
    content = {
        "machine": machine,
        "photographs": len(photographs),
        "plan": {**asdict(plan), "images": dict(plan.images)},
        "busy_elsewhere": busy,
        "figures": [figure.as_json() for figure in figures],
    }
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Kept in {file}")
    return figures


def describe_machine() -> dict[str, str]:
    """Return what the figures depend on: processor, memory, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((row.partition(":")[2].strip() for row in cpuinfo.splitlines() if row.startswith("model name")), "")
    flags = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {name}" in cpuinfo]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "machine": f"{os.cpu_count()} × {model or platform.machine()} ({' '.join(flags)}), {memory_gb:.0f} GB",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "software": ", ".join(["Python " + platform.python_version(), *_versions()]),
    }


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError

    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
