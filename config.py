"""Every setting, once: its name, default, unit and help.

Owns the settings' values and where they come from: defaults < `lookalike.toml` < `LOOKALIKE_*` environment variables
< command line. Does not own what they do. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from errors import SettingsError

ROOT = Path(__file__).resolve().parent
TOML_NAME = "lookalike.toml"
ENV_PREFIX = "LOOKALIKE_"
LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")


def _row(
    default: Any, help_text: str, *, unit: str = "", choices: tuple[str, ...] = (), minimum: float | None = None
) -> Any:
    metadata = {"help": help_text, "unit": unit, "choices": choices, "minimum": minimum}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of one process. Immutable: change a copy with `dataclasses.replace`."""

    rsc_files: Path = _row(Path("rsc_files"), "folder that holds everything of one collection")

    backbone: str | None = _row(
        None,
        "network: inception_v3, vgg16, resnet50, efficientnet_lite0, or the name of one that finetune.py trained (default: the "
        "collection's own, else inception_v3)",
    )
    layer: str | None = _row(None, "layer of the network that is the vector (default: the network's usual one)")
    weights: Path | None = _row(None, "local weights file, for machines without internet")
    networks: Path | None = _row(
        None, "folder of the networks that finetune.py trained (default: networks, in the collection's folder)"
    )
    engine: str = _row(
        "auto", "what runs the network; auto is keras on GPUs, else openvino", choices=("auto", "openvino", "keras")
    )
    precision: str = _row(
        "auto",
        "number format of inference; auto is bfloat16 where the processor has it",
        choices=("auto", "bfloat16", "float32"),
    )
    threads: int = _row(0, "CPU threads for decoding and inference, 0 for all", minimum=0)
    gpus: str = _row("0", "GPUs to use (engine keras): 0, a number, or all")
    batch_size: int = _row(8, "images that go through the network together", unit="images", minimum=1)

    max_bytes: int = _row(500_000_000, "largest image file that is indexed", unit="bytes", minimum=1)
    max_pixels: int = _row(300_000_000, "most pixels an indexed image may announce", unit="pixels", minimum=1)
    max_frames: int = _row(
        10_000, "most frames or pages an image may have (only the first is used)", unit="frames", minimum=1
    )
    thumbnail_size: int = _row(256, "longest side of the thumbnails made at indexing", unit="pixels", minimum=16)

    index: str = _row(
        "auto",
        "kind of index; auto is exact for small collections, else annoy, or usearch where annoy is not installed",
        choices=("auto", "exact", "annoy", "usearch"),
    )
    trees: int = _row(100, "trees of the Annoy index", minimum=1)
    search_k: int = _row(
        0, "nodes that Annoy inspects for a query, 0 for the cheapest that passes the self-test", minimum=0
    )

    reducer: str | None = _row(
        None,
        "what is made of the vectors before they are indexed: none, smaller ones by autoencoder or pca, or those that labels "
        "taught, projection (default: the collection's own, else none)",
        choices=("none", "autoencoder", "pca", "projection"),
    )
    reduced_dim: str = _row(
        "256",
        "numbers of such a vector, or for pca the share of the variance to keep (0.95); used by autoencoder.py",
    )

    test_folder: Path | None = _row(None, "folder of pictures that `python ann.py` searches for when none is named")

    host: str = _row("127.0.0.1", "address the service listens on")
    port: int = _row(8080, "port the service listens on", minimum=1)
    edits: str = _row(
        "auto",
        "whether pages may name groups and tag images; auto is on while the service listens on this machine alone or has an "
        "edit_token",
        choices=("auto", "on", "off"),
    )
    changes: str = _row(
        "off",
        "whether images may be added and removed from the pages; on needs edit_token",
        choices=("off", "on"),
    )
    added_folder: Path | None = _row(
        None, "folder that pictures added from the pages are saved in (default: added, in the collection's folder)"
    )
    access_token: str | None = _row(
        None, "secret that everybody has to give to see anything (default: none is asked for)"
    )
    edit_token: str | None = _row(
        None, "secret that whoever changes something has to give; it lets in where access_token is asked for as well"
    )
    hosts: str | None = _row(
        None,
        "names, separated by commas, that the service is reached by (default: this machine's own names and any IP address)",
    )
    proxies: int = _row(0, "reverse proxies in front whose X-Forwarded-* headers are believed", minimum=0)
    workers: int = _row(0, "processes that serve, 0 for two where there are two processors or more", minimum=0)
    http_threads: int = _row(32, "requests that each process answers side by side", minimum=1)
    results: int = _row(24, "number of similar images shown when a request does not say", unit="images", minimum=1)
    max_results: int = _row(200, "most similar images one request may ask for", unit="images", minimum=1)
    upload_max_bytes: int = _row(30_000_000, "largest upload", unit="bytes", minimum=1)
    upload_max_pixels: int = _row(100_000_000, "most pixels an upload may announce", unit="pixels", minimum=1)
    upload_timeout_s: int = _row(30, "longest time that a request may take to arrive", unit="seconds", minimum=1)
    decode_timeout_s: int = _row(20, "longest time that an upload may take to decode", unit="seconds", minimum=1)
    waiting_uploads: int = _row(
        16, "uploads that may wait for the network in each process; more are answered with 503", minimum=0
    )
    run_folder: Path | None = _row(
        None,
        "folder for what lives as long as the service: kept uploads, metrics (default: one in the system's temporary folder)",
    )
    kept_minutes: int = _row(
        15,
        "how long the vector and the small picture of an upload are kept after it was last looked at",
        unit="minutes",
        minimum=1,
    )

    @property
    def networks_folder(self) -> Path:
        """`networks`, or its default: where the networks that `finetune.py` trained lie."""
        return self.networks or self.rsc_files / "networks"

    @property
    def saved_folder(self) -> Path:
        """`added_folder`, or its default: where pictures added from the pages are saved."""
        return self.added_folder or self.rsc_files / "added"

    @property
    def edits_allowed(self) -> bool:
        """Whether whoever reaches the service may change names and tags."""
        guarded = self.host in LOOPBACK_NAMES or self.edit_token is not None
        return self.edits == "on" or (self.edits == "auto" and guarded)

    @property
    def cpu_threads(self) -> int:
        """`threads`, with 0 replaced by the number of processors this process may use."""
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def setting_rows() -> tuple[Field[Any], ...]:
    """Return the settings as dataclass fields: `.name`, `.default`, `.metadata` (help, unit, choices, minimum)."""
    return fields(Settings)


def _row_of(name: str, source: str) -> Field[Any]:
    for row in setting_rows():
        if row.name == name:
            return row
    known = ", ".join(row.name for row in setting_rows())
    raise SettingsError(f"{source}: there is no setting {name!r}. Known settings: {known}.")


def _convert(row: Field[Any], value: object, source: str) -> Any:
    """Turn a value from a file, the environment or the command line into the setting's type, or say why not."""
    kind = str(row.type)
    try:
        if value is None:
            return row.default
        converted: Any = Path(str(value)) if "Path" in kind else _integer(value) if kind == "int" else str(value)
    except ValueError as error:
        raise SettingsError(f"{source}: {row.name} must be a whole number, not {value!r}.") from error
    choices, minimum = row.metadata["choices"], row.metadata["minimum"]
    if choices and converted not in choices:
        raise SettingsError(f"{source}: {row.name} is {converted!r}, but must be one of {', '.join(choices)}.")
    if minimum is not None and converted < minimum:
        raise SettingsError(f"{source}: {row.name} is {converted}, but must be at least {minimum}.")
    if row.name == "gpus" and converted != "all" and not converted.isdigit():
        raise SettingsError(f"{source}: gpus is {converted!r}, but must be 0, a number, or all.")
    return converted


def _integer(value: object) -> int:
    if isinstance(value, bool | float):
        raise ValueError(value)
    return value if isinstance(value, int) else int(str(value).replace("_", ""))


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    toml_path: Path | None = None,
) -> Settings:
    """Collect the settings: defaults, then `lookalike.toml`, then `LOOKALIKE_*`, then `overrides` (the command line).

    `overrides` whose value is None count as not given. Raises `SettingsError` naming the source of a bad value.
    """
    chosen: dict[str, Any] = {}
    path = Path(TOML_NAME) if toml_path is None else toml_path
    for name, value in _read_toml(path).items():
        chosen[name] = _convert(_row_of(name, str(path)), value, str(path))
    variables = os.environ if environ is None else environ
    for row in setting_rows():
        variable = ENV_PREFIX + row.name.upper()
        if variables.get(variable):  # an empty variable counts as not given
            chosen[row.name] = _convert(row, variables[variable], variable)
    for name, value in (overrides or {}).items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            chosen[name] = _convert(_row_of(name, option), value, option)
    return replace(Settings(), **chosen)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as settings: {error}. Mend it or move it away.") from error


def add_setting_arguments(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Give `parser` one `--option` for each named setting; what is not given on the command line stays None."""
    for name in names:
        row = _row_of(name, "add_setting_arguments")
        unit = f", {row.metadata['unit']}" if row.metadata["unit"] else ""
        default = "" if row.default is None else f" (default {row.default}{unit})"
        choices = row.metadata["choices"]
        parser.add_argument(
            "--" + name.replace("_", "-"),
            default=None,
            metavar="{" + ",".join(choices) + "}" if choices else name.upper(),
            help=(row.metadata["help"] + default).replace("%", "%%"),
        )


def settings_from_arguments(arguments: argparse.Namespace) -> Settings:
    """Build the settings of a command whose parser was filled by `add_setting_arguments`."""
    names = {row.name for row in setting_rows()}
    return load_settings({name: value for name, value in vars(arguments).items() if name in names})
