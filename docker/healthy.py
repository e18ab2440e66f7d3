"""Ends with 0 if the service in this container answers, else with 1: the HEALTHCHECK of the Dockerfile."""

from __future__ import annotations

import http.client
import os
import sys

if __name__ == "__main__":
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("LOOKALIKE_PORT") or 8080), timeout=4)
    try:
        connection.request("GET", "/healthz")
        sys.exit(connection.getresponse().status != 200)
    except OSError:
        sys.exit(1)
