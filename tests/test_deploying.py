"""The files for systemd, nginx and Docker fit the program: names of settings, paths, limits and times."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest

from commands.serve import server_options
from config import ENV_PREFIX, ROOT, Settings, setting_rows

FILES = ("Dockerfile", "docker/compose.yaml", "docker/lookalike.service", "docker/nginx.conf", "docs/deploying.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_every_setting_that_is_named_exists(name: str) -> None:
    known = {row.name.upper() for row in setting_rows()}
    assert set(re.findall(rf"{ENV_PREFIX}([A-Z_]+)", text(name))) <= known


def test_what_the_image_runs_is_in_it() -> None:
    ignored = [line for line in text(".dockerignore").splitlines() if line and not line.startswith("#")]
    for needed in (
        "app.py",
        "img2vec.py",
        "commands/healthy.py",
        "gunicorn.conf.py",
        "static/app.css",
        "requirements.txt",
    ):
        assert (ROOT / needed).exists()
        assert not any(fnmatch(needed.split("/")[0], pattern) for pattern in ignored)
    for secret in ("lookalike.toml", ".git", "rsc_files"):
        assert any(fnmatch(secret, pattern) for pattern in ignored)


def test_annoy_is_compiled_with_the_options_that_the_requirements_name() -> None:
    options = re.findall(r"ANNOY_COMPILER_ARGS=(\S+)", text("Dockerfile"))
    assert options == re.findall(r"ANNOY_COMPILER_ARGS=(\S+)", text("requirements.txt"))
    assert "native" not in options[0]


def test_the_image_runs_as_a_user_without_rights_and_without_a_shell_in_between() -> None:
    lines = text("Dockerfile").splitlines()
    assert lines.index("USER lookalike") < lines.index('CMD ["python", "app.py"]')


def test_a_stop_waits_longer_than_the_service_takes() -> None:
    grace = server_options(Settings())["graceful_timeout"]
    (systemd,) = re.findall(r"TimeoutStopSec=(\d+)", text("docker/lookalike.service"))
    (docker,) = re.findall(r"stop_grace_period: (\d+)s", text("docker/compose.yaml"))
    assert isinstance(grace, int)
    assert int(systemd) > grace
    assert int(docker) > grace


def test_nginx_takes_what_the_service_takes_and_lets_go_of_connections_first() -> None:
    conf = text("docker/nginx.conf")
    (largest,) = re.findall(r"client_max_body_size (\d+)m;", conf)
    assert int(largest) * 1024 * 1024 > Settings().upload_max_bytes
    kept = server_options(Settings())["keepalive"]
    (upstream,) = re.findall(r"keepalive_timeout (\d+)s;", conf)
    assert isinstance(kept, int)
    assert int(upstream) < kept
    assert "$request_uri" not in conf.split("log_format")[1].split(";")[0]


def test_gunicorn_itself_believes_no_proxy() -> None:
    assert server_options(Settings())["forwarded_allow_ips"] == ""
