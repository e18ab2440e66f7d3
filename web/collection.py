"""Being written."""

from __future__ import annotations

from flask import Blueprint

pages = Blueprint("collection_pages", __name__)
