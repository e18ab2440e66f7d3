"""`python app.py`: arguments and the server process (gunicorn, embedded).

Owns: how many processes and threads serve, and on which address. Does not own: what they answer (`app.py`).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
        # One process: the network and the index are in memory once, and inference uses all processors anyhow.
        "workers": 1,
        "worker_class": "gthread",
        "threads": settings.http_threads,
        # Networks do not survive a fork.
        "preload_app": False,
        # A network that is opened for the first time on a machine is converted first.
        "timeout": 300,
        "loglevel": "warning",
        # It would write into the home folder, which may be read-only, and nothing here uses it.
        "control_socket_disable": True,
    }


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

    def announce(worker: object) -> None:
        print(address_line(settings), flush=True)

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = server_options(settings) | {"post_worker_init": announce}
            for name, value in options.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Flask:
            from app import create_app

            try:
                return create_app(settings)
            except LookalikeError as error:
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
