"""The description of the API: as OpenAPI for programs, as a page to read and to try it.

Owns how the page shows an operation. Does not own what is said (`described.py`, `shapes.py`). No Swagger UI: it is 1.5 MB of
scripts for what one template and one module do here in the service's own design, and readable without scripts.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from described import openapi

api = Blueprint("documented_api", __name__, url_prefix="/api/v1")
EXTENSION = "lookalike-openapi"


def _described() -> dict[str, Any]:
    """Return the description, made once: it takes half a second."""
    extensions = current_app.extensions
    if EXTENSION not in extensions:
        extensions[EXTENSION] = openapi(current_app)
    told: dict[str, Any] = extensions[EXTENSION]
    return told


@api.get("/openapi.json")
def description() -> Response:
    """Send the description of the API as OpenAPI 3.1."""
    return jsonify(_described())
