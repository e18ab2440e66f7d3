"""Being written."""

from __future__ import annotations

from flask import Blueprint

pages = Blueprint("browse_pages", __name__)
