"""The page of its map, and its part of the API."""

from __future__ import annotations

from flask import Blueprint, render_template

import requested
from errors import ViewMissingError
from publishing import view_of

pages = Blueprint("map_pages", __name__)
api = Blueprint("map_api", __name__, url_prefix="/api/v1")


@pages.get("/map")
def index() -> str:
    """Show its map."""
    view = view_of(requested.service().ready().generation, "map")
    if view is None:
        raise ViewMissingError("This has not been computed yet. Run: python map2d.py")
    return render_template("map.html", status=requested.service().status(), view=view)
