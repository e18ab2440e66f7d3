"""What lies on disk: the catalog, the thumbnails, the vectors, the published generations, the writer's lock.

Two kinds of thing lie in a collection's folder. *What was seen* is never recomputed without need: `catalog.sqlite` (a row an
image), `thumbnails.sqlite`, `vectors/<key>/` (append-only float16 rows and a manifest). *What was computed from it* can be
deleted and built again: `index/gen-…/`, `models/`. Vectors, thumbnails and predicted labels belong to the *contents* of a file
(its SHA-256), so equal files share them and a moved file keeps them; the catalog says which image has which contents.

Order of writing: thumbnails, vector bytes, fsync, then the catalog's transaction that names them. A crash in between leaves bytes
that nobody refers to; the next writer cuts them off. One writer at a time (`flock`), any number of readers. Rollback journal, not
WAL: WAL does not open on a read-only mount and is unsafe on network disks.

Does not own how images are decoded, what a vector means, or how an index is built.
"""

from store.filters import Filter
from store.formats import (
    FORMAT_VERSION,
    IMPORTED_BACKBONE,
    Batch,
    Generation,
    Record,
    Snapshot,
    VectorsManifest,
)
from store.notes import (
    NamedGroup,
    check_label,
    forget_group,
    given_labels,
    is_label_given,
    label_changes,
    label_images,
    labelled_pictures,
    name_group,
    named_groups,
    rename_label,
    tag_counts,
    tag_images,
    tagged_images,
    tags_of,
    unlabel_images,
    untag_images,
)
from store.reader import Store, open_store
from store.writer import StoreWriter, open_writer

__all__ = [
    "FORMAT_VERSION",
    "IMPORTED_BACKBONE",
    "Batch",
    "Filter",
    "Generation",
    "NamedGroup",
    "Record",
    "Snapshot",
    "Store",
    "StoreWriter",
    "VectorsManifest",
    "check_label",
    "forget_group",
    "given_labels",
    "is_label_given",
    "label_changes",
    "label_images",
    "labelled_pictures",
    "name_group",
    "named_groups",
    "open_store",
    "open_writer",
    "rename_label",
    "tag_counts",
    "tag_images",
    "tagged_images",
    "tags_of",
    "unlabel_images",
    "untag_images",
]
