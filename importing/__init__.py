"""Vectors that were made elsewhere, and pictures held in memory, into a collection.

Owns the formats of such vectors (`files`), which image a name means (`names`), which network vectors are of (`networks`), what
of it is new (`taking`), and the job over a file of them (`job`). Does not own the catalog (`store`) or networks (`backbones`).

An image that has no file here is called by its name in the catalog, which never begins with `/`. Its contents' SHA-256 is that
of its name and vector, or of its pixels; one whose picture is at hand has the SHA-256 of the file, as if it had been indexed.
"""

from importing.job import ImportJob, ImportReport, import_vectors
from importing.networks import begin_imported
from importing.taking import Added, add_pictures, add_vectors

__all__ = [
    "Added",
    "ImportJob",
    "ImportReport",
    "add_pictures",
    "add_vectors",
    "begin_imported",
    "import_vectors",
]
