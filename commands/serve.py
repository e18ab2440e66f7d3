"""`python app.py`: arguments and the server process (gunicorn, embedded).

Owns: how many processes and threads serve, and on which address. Does not own: what they answer (`app.py`).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Settings, add_setting_arguments, settings_from_arguments
from errors import LookalikeError, SettingsError

if TYPE_CHECKING:
    from flask import Flask

SETTINGS = (
    *(
        "host",
        "port",
        "rsc_files",
        "workers",
        "http_threads",
        "results",
        "max_results",
        "upload_max_bytes",
        "upload_max_pixels",
        "edits",
        "changes",
        "added_folder",
        "hosts",
        "proxies",
    ),
    *("backbone", "layer", "weights", "engine", "precision", "threads", "gpus"),
)


def server_options(settings: Settings) -> dict[str, object]:
    """Return gunicorn's settings; those that this version of gunicorn does not know are for the caller to leave out."""
    return {
        "bind": f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}",
        "workers": worker_count(settings),
        "worker_class": "commands.worker.BufferedWorker",
        "threads": settings.http_threads,
        # Fewer where the system gives a process too few files for them (`worker.py`).
        "worker_connections": settings.http_threads + 400,
        "keepalive": 15,
        # Networks do not survive a fork, so each process loads its own. Index and vectors are mapped, and shared.
        "preload_app": False,
        # A fresh process now and then: whatever a decoder or a network might leak ends with it. Not all at once.
        "max_requests": 50_000,
        "max_requests_jitter": 10_000,
        # Whoever has begun to send when the service is stopped gets an answer.
        "graceful_timeout": settings.upload_timeout_s + 10,
        # A network that is opened for the first time on a machine is converted first.
        "timeout": 300,
        "loglevel": "warning",
        # Which proxies are believed is the setting `proxies`; gunicorn would believe every process of this machine.
        "forwarded_allow_ips": "",
        "on_starting": lambda server: _prepare(settings),
        "on_exit": lambda server: _forget_uploads(settings),
        "child_exit": lambda server, worker: _forget_gauges(settings, worker.pid),
        "raw_env": [f"PROMETHEUS_MULTIPROC_DIR={metrics_folder(settings)}"],
        # It would write into the home folder, which may be read-only, and nothing here uses it.
        "control_socket_disable": True,
    }


def worker_count(settings: Settings) -> int:
    """Return how many processes serve: one that is killed or renewed leaves another that answers, and more only take memory."""
    return settings.workers or min(2, replace(settings, threads=0).cpu_threads)


def metrics_folder(settings: Settings) -> Path:
    """Return the folder that the processes of one service count in; another service on another port has its own."""
    from search import run_folder

    return run_folder(settings) / f"metrics-{settings.port}"


def _forget_uploads(settings: Settings) -> None:
    """Take away what is kept of uploads: nobody would, when their time is over."""
    from search import run_folder
    from search.kept import FILE_NAME

    for file in run_folder(settings).glob(f"{FILE_NAME}*"):
        file.unlink(missing_ok=True)


def _forget_gauges(settings: Settings, pid: int) -> None:
    """Take what a process that has ended said of itself out of the metrics; what it counted stays."""
    for file in metrics_folder(settings).glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)


def _prepare(settings: Settings) -> None:
    """Begin to count from nothing, log requests unless a person looks at the output, and warn of what the settings open."""
    from guard import warnings
    from web.access_log import LOGGER

    folder = metrics_folder(settings)
    folder.mkdir(exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    if not sys.stdout.isatty():
        logger, handler = logging.getLogger(LOGGER), logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    for sentence in warnings(settings):
        print(f"Warning: {sentence}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Serve until stopped; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python app.py",
        description="Serve a page and an API that find similar images in a collection made by img2vec.py.",
        epilog="Each option is also an environment variable (LOOKALIKE_PORT) and can stand in lookalike.toml (port = 8081).",
    )
    add_setting_arguments(parser, SETTINGS)
    try:
        settings = settings_from_arguments(parser.parse_args(argv))
        _check_address(settings)
    except LookalikeError as error:
        print(f"python app.py: {error}", file=sys.stderr)
        return 1
    return _serve(settings)


def _check_address(settings: Settings) -> None:
    """Bind the address once and let it go: gunicorn would try for five seconds and say less. Raises `SettingsError`."""
    address = f"{settings.host}:{settings.port}"
    if settings.port > 65535:  # the resolver would silently take its lower 16 bits
        raise SettingsError(f"cannot listen on {address}: ports end at 65535. Choose another --port.")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"cannot listen on {address}: {error}. Choose another --port or --host; perhaps it is running already."
        ) from error


def address_line(settings: Settings) -> str:
    """Return the line that says where the page is."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"Lookalike serves {settings.rsc_files} at http://{host}:{settings.port} (Ctrl-C stops it)"


def _serve(settings: Settings) -> int:
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
    from gunicorn.errors import AppImportError  # type: ignore[import-untyped]

    is_alone = True

    def look_around(server: Any, worker: Any) -> None:
        nonlocal is_alone
        is_alone = server.num_workers == 1

    def announce(worker: Any) -> None:
        if worker.age == 1:
            print(address_line(settings), flush=True)
        # The others come when the first has converted its network and found nothing wrong: once is enough for both.
        for _ in range(worker_count(settings) - 1 if is_alone else 0):
            os.kill(worker.ppid, signal.SIGTTIN)

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            hooks = {"post_fork": look_around, "post_worker_init": announce}
            options = {**server_options(settings), "workers": 1, **hooks}
            for name, value in options.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Flask:
            from app import create_app

            try:
                return create_app(settings)
            except LookalikeError as error:
                if not is_alone:  # others answer meanwhile; another attempt follows
                    print(f"python app.py: {error}", file=sys.stderr, flush=True)
                    sys.exit(1)
                # The one exception that gunicorn prints without a traceback, and after which it does not try again.
                raise AppImportError(f"python app.py: {error}") from error

    parent = os.getpid()
    try:
        Server().run()
    except SystemExit as stop:
        if os.getpid() != parent:
            raise  # a worker: gunicorn's own exit codes tell its parent whether to start another
        return 1 if stop.code else 0
    return 0
