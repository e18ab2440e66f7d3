"""Puts the parts together: a picture in, matches out. Owns the names that other modules import, nothing else."""

from __future__ import annotations

from search.answers import CollectionStatus, ImageInfo, Match, SearchResult
from search.collection import Collection, create_collection, open_collection
from search.embedding import Embedder
from search.explaining import Explanation, Looked
from search.kept import KEY, KeptUpload, run_folder
from search.queries import Box, Example, Query, RankingName
from search.rows import rows_to_pandas, write_rows
from search.service import SearchService, open_service
from store import Filter

__all__ = [
    "KEY",
    "Box",
    "Collection",
    "CollectionStatus",
    "Embedder",
    "Example",
    "Explanation",
    "Filter",
    "ImageInfo",
    "KeptUpload",
    "Looked",
    "Match",
    "Query",
    "RankingName",
    "SearchResult",
    "SearchService",
    "create_collection",
    "open_collection",
    "open_service",
    "rows_to_pandas",
    "run_folder",
    "write_rows",
]
