"""One picture of a search: what is asked with at the left, the nearest images beside it, as PNG.

Owns its addresses. Does not own how it is drawn (`search.sheet`) nor what is found.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

from flask import Blueprint, Response, send_file

import requested
import shapes
from described import described
from search.sheet import MOST_MATCHES, SHEET_K, sheet_of
from search.stages import timed
from web.files import revalidated, version_of

pages = Blueprint("sheets", __name__)
api = Blueprint("sheets_api", __name__, url_prefix="/api/v1")


@pages.get("/search/sheet.png")
@api.get("/search/sheet")
@described("search", "image/png", query=shapes.SearchFields, problems=(400, 404, 409))
def sheet() -> Response:
    """Draw what a search asks with and the nearest images beside it: ten, or `k`, but 50 at most."""
    fields = requested.request_fields()
    requested.refuse_unknown(fields)
    likes = requested.wanted_likes(fields, box_of_first=True)
    if not requested.wanted_values(fields, "k", "radius"):
        fields = {**fields, "k": [SHEET_K]}
    query = requested.wanted_query(fields, likes)
    most = min(MOST_MATCHES, requested.most_answered())
    query = replace(query, k=min(query.k or most, most), thumbnail=True)
    service, drawn = requested.service(), BytesIO()
    found = service.search(query)
    with timed("render"):
        sheet_of(service, query, found).save(drawn, "PNG")
    content = drawn.getvalue()
    response = send_file(BytesIO(content), mimetype="image/png", download_name="nearest.png", etag=version_of(content))
    return revalidated(response)
