"""`python -m commands.healthy`: ends with 0 if the service on this machine answers, else with 1.

Owns the HEALTHCHECK of the Dockerfile. Does not own what healthy means (`/healthz`).
"""

from __future__ import annotations

import http.client
import sys

from config import load_settings


def is_healthy(port: int) -> bool:
    """Ask a service on this machine whether it is alive."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_healthy(load_settings().port))
