"""How many images have what: labels that were given, classes that a network saw. Does not own tags (`notes.py`)."""

from __future__ import annotations

from store.reader import Store


def label_counts(store: Store) -> dict[str, int]:
    """Return every label with the number of images that have it, the commonest first."""
    rows = store.catalog.execute(
        "SELECT label, COUNT(*) FROM images WHERE error_code IS NULL AND label IS NOT NULL "
        "GROUP BY label ORDER BY COUNT(*) DESC, label"
    )
    return {str(label): int(count) for label, count in rows}


def class_counts(store: Store, key: str) -> dict[int, int]:
    """Return each class index that the network of the set `key` saw first in an image, with the number of such images."""
    rows = store.catalog.execute(
        "SELECT class_index, COUNT(*) FROM images JOIN predicted_labels USING (sha256) JOIN vector_sets USING (set_id) "
        "WHERE key = ? AND rank = 0 AND error_code IS NULL GROUP BY class_index ORDER BY COUNT(*) DESC, class_index",
        (key,),
    )
    return {int(class_index): int(count) for class_index, count in rows}
