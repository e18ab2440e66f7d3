"""Holds every import of the project against the layers of the design: imports go downward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from config import ROOT

LAYERS: Mapping[str, int] = {
    "config": 0,
    "errors": 0,
    "images": 1,
    "store": 1,
    "tables": 1,
    "vectors": 1,
    "backbones": 2,
    "ann": 2,
    "indexes": 2,
    "ranking": 2,
    "calibration": 2,
    "autoencoder": 2,
    "clusters": 2,
    "linkages": 2,
    "silhouettes": 2,
    "duplicates": 2,
    "sameness": 2,
    "alignment": 2,
    "hashes": 2,
    "map2d": 2,
    "heatmaps": 2,
    "cells": 2,
    "img2vec": 3,
    "pipeline": 3,
    "publishing": 3,
    "networks": 3,
    "reducing": 3,
    "comparing": 3,
    "importing": 3,
    "exporting": 3,
    "evaluation": 3,
    "finetune": 3,
    "finetuning": 3,
    "projection": 2,
    "distributed": 3,
    "samples": 3,
    "views": 3,
    "plans": 3,
    "quarantine": 3,
    "atlases": 3,
    "search": 4,
    "app": 5,
    "api": 5,
    "requested": 5,
    "guard": 5,
    "described": 5,
    "shapes": 5,
    "web": 5,
    "commands": 5,
    "gunicorn.conf": 5,
}
# Who may import within its own layer: settings raise errors, the application mounts the API, a command starts it.
SIDEWAYS = {
    ("config", "errors"),
    ("ann", "indexes"),
    ("map2d", "cells"),
    ("clusters", "linkages"),
    ("clusters", "silhouettes"),
    ("silhouettes", "linkages"),
    ("duplicates", "sameness"),
    ("duplicates", "hashes"),
    ("sameness", "alignment"),
    ("sameness", "hashes"),
    ("hashes", "alignment"),
    ("img2vec", "networks"),
    ("img2vec", "pipeline"),
    ("img2vec", "publishing"),
    ("importing", "img2vec"),
    ("importing", "networks"),
    ("importing", "pipeline"),
    ("importing", "publishing"),
    ("exporting", "networks"),
    ("finetune", "finetuning"),
    ("finetune", "networks"),
    ("finetune", "reducing"),
    ("finetuning", "img2vec"),
    ("finetuning", "networks"),
    ("finetuning", "evaluation"),
    ("finetuning", "pipeline"),
    ("reducing", "publishing"),
    ("comparing", "reducing"),
    ("comparing", "evaluation"),
    ("views", "pipeline"),
    ("views", "publishing"),
    ("views", "atlases"),
    ("quarantine", "plans"),
    ("views", "exporting"),
    ("views", "plans"),
    ("quarantine", "publishing"),
    ("app", "api"),
    ("app", "web"),
    ("web", "api"),
    ("web", "requested"),
    ("app", "requested"),
    ("api", "requested"),
    ("api", "described"),
    ("api", "shapes"),
    ("described", "shapes"),
    ("web", "shapes"),
    ("guard", "requested"),
    ("app", "guard"),
    ("app", "described"),
    ("web", "guard"),
    ("web", "described"),
    ("commands", "app"),
    ("commands", "guard"),
    ("commands", "web"),
    ("gunicorn.conf", "commands"),
}
HEAVY = {
    *("apispec", "imagehash", "openTSNE", "numba", "prometheus_client", "pydantic"),
    *("annoy", "keras", "matplotlib", "networkx", "openvino", "pandas", "pyarrow", "pymilvus", "ray"),
    *("skimage", "sklearn", "tensorflow", "torch", "umap", "usearch"),
}
WEB_FRAMEWORK = {"flask", "werkzeug", "jinja2"}
WEB_MODULES = {"app", "api", "requested", "guard", "described", "web"}
ABOVE_THE_LAYERS = {"tests", "benchmarks", "docs"}


@dataclass(frozen=True)
class Import:
    """One imported top-level name, and when it is imported: with its module, in a call, or only for checking types."""

    name: str
    line: int
    when: Literal["at once", "in a call", "for types"]


def _is_test(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == text


def imports_of(node: ast.AST, when: Literal["at once", "in a call", "for types"] = "at once") -> Iterator[Import]:
    """Yield what `node` imports, but for the block that runs a module as a program."""
    if _is_test(node, "__name__ == '__main__'"):
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name.partition(".")[0], node.lineno, when) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield Import(node.module.partition(".")[0], node.lineno, when)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        when = "in a call"
    elif _is_test(node, "TYPE_CHECKING"):
        when = "for types"
    for child in ast.iter_child_nodes(node):
        yield from imports_of(child, when)


def violations(module: str, source: str) -> list[str]:
    """Return a sentence for each import of `source`, a file of the top-level `module`, that the design forbids."""
    return [
        f"line {imported.line}: {module} {reason}"
        for imported in imports_of(ast.parse(source))
        if (reason := _forbidden(module, imported)) is not None
    ]


def _forbidden(module: str, imported: Import) -> str | None:
    name = imported.name
    if name == module or (module, name) in SIDEWAYS:
        return None
    if name in LAYERS and LAYERS[name] >= LAYERS[module]:
        return f"(layer {LAYERS[module]}) imports {name} (layer {LAYERS[name]}); imports go downward only"
    if name in HEAVY and imported.when == "at once":
        return f"imports {name} at module level; import it inside the function that needs it"
    if name in WEB_FRAMEWORK and module not in WEB_MODULES and imported.when != "for types":
        return f"imports {name}; only the modules of the web layer may"
    if LAYERS[module] == 0 and name not in LAYERS and name not in sys.stdlib_module_names:
        return f"(layer 0) imports {name}, which is not of the standard library"
    return None


def source_files() -> list[tuple[str, Path]]:
    """Return (top-level module, file) of everything at the root that Python could import."""
    files = [(path.stem, path) for path in ROOT.glob("*.py")]
    for path in ROOT.glob("[!.]*/**/*.py"):
        files.append((path.relative_to(ROOT).parts[0], path))
    return sorted((module, path) for module, path in files if module not in ABOVE_THE_LAYERS)


@pytest.mark.parametrize(("module", "path"), source_files(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_downward_only(module: str, path: Path) -> None:
    assert module in LAYERS, f"{path.name} has no layer: give it one in the design and in this table"
    assert violations(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("store", "import search", "line 1: store (layer 1) imports search (layer 4)"),
        ("ann", "from clusters import group", "ann (layer 2) imports clusters (layer 2)"),
        (
            "images",
            "def f():\n    from store.catalog import Catalog",
            "line 2: images (layer 1) imports store (layer 1)",
        ),
        ("api", "from app import create_app", "api (layer 5) imports app (layer 5)"),
        ("search", "import os, commands.serve", "search (layer 4) imports commands (layer 5)"),
        ("ann", "import annoy", "ann imports annoy at module level"),
        (
            "backbones",
            "class Engine:\n    import keras.ops",
            "line 2: backbones imports keras at module level",
        ),
        (
            "commands",
            "try:\n    import sklearn.svm\nexcept OSError: pass",
            "imports sklearn at module level",
        ),
        (
            "search",
            "def f():\n    from flask import request",
            "search imports flask; only the modules of the web layer may",
        ),
        ("config", "def f():\n    import numpy", "imports numpy, which is not of the standard library"),
        ("store", "if __name__ != '__main__':\n    import app", "store (layer 1) imports app (layer 5)"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, complaint: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ann", "def build():\n    import annoy"),
        ("ann", "if TYPE_CHECKING:\n    import annoy"),
        ("img2vec", "if __name__ == '__main__':\n    from commands.img2vec import main"),
        ("store", "from store.formats import Record\nfrom . import reader\nimport errors, config, numpy"),
        ("app", "import flask, api, search"),
        ("commands", "if TYPE_CHECKING:\n    from flask import Flask"),
        ("config", "from errors import SettingsError"),
    ],
)
def test_an_allowed_import_is_not_complained_about(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_importing_every_module_loads_no_heavy_package() -> None:
    names = sorted({module for module, _ in source_files()} - {"gunicorn.conf"})
    program = f"import sys, {', '.join(names)}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout.strip()) == (0, ""), finished.stderr
