"""Puts the parts together: a picture in, matches out. Owns the names that other modules import, nothing else."""

from __future__ import annotations

from search.service import CollectionStatus, ImageInfo, Match, SearchResult, SearchService, open_service

__all__ = ["CollectionStatus", "ImageInfo", "Match", "SearchResult", "SearchService", "open_service"]
