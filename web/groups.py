"""The page of the groups of the collection, and its part of the API."""

from __future__ import annotations

from flask import Blueprint, render_template

import requested
from errors import ViewMissingError
from publishing import view_of

pages = Blueprint("groups_pages", __name__)
api = Blueprint("groups_api", __name__, url_prefix="/api/v1")


@pages.get("/groups")
def index() -> str:
    """Show the groups of the collection."""
    view = view_of(requested.service().ready().generation, "groups")
    if view is None:
        raise ViewMissingError("This has not been computed yet. Run: python clusters.py")
    return render_template("groups.html", status=requested.service().status(), view=view)
