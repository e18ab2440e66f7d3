"""Settings: which source wins, what is refused and in which words, and that docs/settings.md names them all."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import Field
from pathlib import Path
from typing import Any

import pytest

from config import (
    ENV_PREFIX,
    ROOT,
    Settings,
    add_setting_arguments,
    load_settings,
    setting_rows,
    settings_from_arguments,
)
from errors import SettingsError


def load(
    folder: Path, toml: str = "", environ: dict[str, str] | None = None, overrides: dict[str, object] | None = None
) -> Settings:
    path = folder / "lookalike.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(overrides, environ=environ or {}, toml_path=path)


def documented_row(row: Field[Any]) -> str:
    """Return the line of docs/settings.md for a setting."""
    default = "" if row.default is None else f"`{row.default}`"
    choices = "".join(f"; one of `{'`, `'.join(row.metadata['choices'])}`" if row.metadata["choices"] else "")
    unit = f" {row.metadata['unit']}" if row.metadata["unit"] else ""
    return f"| `{row.name}` | {default}{unit} | {row.metadata['help']}{choices} |"


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(environ={}, toml_path=tmp_path / "missing.toml") == Settings()


def test_the_file_beats_the_defaults_the_environment_the_file_and_the_command_line_all(tmp_path: Path) -> None:
    toml = "port = 1\ntrees = 1\nbatch_size = 1"
    settings = load(tmp_path, toml, {"LOOKALIKE_TREES": "2", "LOOKALIKE_BATCH_SIZE": "2"}, {"batch_size": "3"})
    assert (settings.port, settings.trees, settings.batch_size) == (1, 2, 3)
    assert settings.results == Settings().results


def test_an_option_that_is_not_given_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "port = 9000", overrides={"port": None}).port == 9000


def test_values_become_the_settings_types(tmp_path: Path) -> None:
    settings = load(
        tmp_path, environ={"LOOKALIKE_RSC_FILES": "a b/ü", "LOOKALIKE_MAX_BYTES": "1_000", "LOOKALIKE_GPUS": "all"}
    )
    assert (settings.rsc_files, settings.max_bytes, settings.gpus) == (Path("a b/ü"), 1000, "all")


def test_an_empty_variable_counts_as_not_given(tmp_path: Path) -> None:
    assert (
        load(tmp_path, environ={"LOOKALIKE_BACKBONE": "", "LOOKALIKE_RSC_FILES": "", "LOOKALIKE_PORT": ""})
        == Settings()
    )


def test_variables_of_other_programs_and_of_the_tests_are_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"PORT": "1", "LOOKALIKE_REQUIRE_BROWSER": "1"}) == Settings()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LOOKALIKE_PORT": "many"}, "LOOKALIKE_PORT: port must be a whole number, not 'many'."),
        ({"LOOKALIKE_PORT": "8080.5"}, "LOOKALIKE_PORT: port must be a whole number, not '8080.5'."),
        ({"LOOKALIKE_TREES": "0"}, "LOOKALIKE_TREES: trees is 0, but must be at least 1."),
        ({"LOOKALIKE_THREADS": "-1"}, "LOOKALIKE_THREADS: threads is -1, but must be at least 0."),
        (
            {"LOOKALIKE_ENGINE": "torch"},
            "LOOKALIKE_ENGINE: engine is 'torch', but must be one of auto, openvino, keras.",
        ),
        ({"LOOKALIKE_GPUS": "some"}, "LOOKALIKE_GPUS: gpus is 'some', but must be 0, a number, or all."),
    ],
)
def test_a_bad_value_is_refused_naming_its_source_and_what_is_allowed(
    tmp_path: Path, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, environ=environ)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", ["true", "1.5", "[1]", '"eighty"'])
def test_a_bad_value_in_the_file_is_refused_naming_the_file(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=r"lookalike\.toml: port must be a whole number"):
        load(tmp_path, f"port = {value}")


def test_an_unknown_name_in_the_file_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"lookalike\.toml: there is no setting 'prot'\. Known settings: .*\bport\b"
    ):
        load(tmp_path, "prot = 8080")


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lookalike.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"cannot be read as settings: .* Mend it or move it away"):
        load_settings(environ={}, toml_path=path)


def test_a_bad_value_on_the_command_line_is_refused_naming_the_option(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--max-bytes: max_bytes is 0, but must be at least 1\.$"):
        load(tmp_path, overrides={"max_bytes": "0"})


def test_a_parser_offers_the_named_settings_with_help_default_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser, [row.name for row in setting_rows()])
    parser.print_help()
    shown = " ".join(capsys.readouterr().out.split())
    for row in setting_rows():
        assert "--" + row.name.replace("_", "-") in shown
        assert row.metadata["help"] in shown
    assert "(default 8080)" in shown
    assert "(default 8, images)" in shown


def test_arguments_become_settings_and_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for row in setting_rows():
        monkeypatch.delenv(ENV_PREFIX + row.name.upper(), raising=False)
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    add_setting_arguments(parser, ["http_threads", "port"])
    settings = settings_from_arguments(parser.parse_args(["--json", "--http-threads", "3"]))
    assert settings == dataclasses.replace(Settings(), http_threads=3)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("row", setting_rows(), ids=lambda row: str(row.name))
def test_every_default_passes_its_own_check(row: Field[Any], tmp_path: Path) -> None:
    assert load(tmp_path, overrides={row.name: row.default}) == Settings()


def test_the_documented_settings_are_the_settings() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    documented = [line for line in text.splitlines() if line.startswith("| `")]
    assert documented == [documented_row(row) for row in setting_rows()]
