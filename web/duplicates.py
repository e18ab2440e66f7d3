"""The page of its duplicates, and its part of the API."""

from __future__ import annotations

from flask import Blueprint, render_template

import requested
from errors import ViewMissingError
from publishing import view_of

pages = Blueprint("duplicates_pages", __name__)
api = Blueprint("duplicates_api", __name__, url_prefix="/api/v1")


@pages.get("/duplicates")
def index() -> str:
    """Show its duplicates."""
    view = view_of(requested.service().ready().generation, "duplicates")
    if view is None:
        raise ViewMissingError("This has not been computed yet. Run: python duplicates.py")
    return render_template("duplicates.html", status=requested.service().status(), view=view)
