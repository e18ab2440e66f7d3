"""Moving duplicates out of the way and bringing them back, with nothing ever unlinked, overwritten or half done.

A plan (`plans.py`) is checked whole before anything moves. Then each file is renamed into a hidden folder on its own disk, under
its own full path, so bytes, times, modes and hard links stay as they are. A rename is one step: killed at any moment, a file
is at its place or in quarantine, never in between. The journal is written and synced before and after each move; what a killed
run left is told by looking where the file is. Other disks are refused: a copy would have to be followed by an unlink.

The quarantine is hidden because `images.find_images` passes over hidden names: the next `img2vec.py` does not take the files for
new ones. Each apply has a run of its own in it, `<number>-<time>/`, with a `journal.jsonl` and `files/<the whole path>`.

Owns the quarantine folder and its journals, and taking moved images out of a catalog and back. Does not own what to move.
"""

from quarantine.applying import Applied, apply_plan, quarantine_folder
from quarantine.catalogs import apply_to_collection, move_out, restore_to_collections
from quarantine.journal import HIDDEN, JOURNAL, Run, read_run, read_runs
from quarantine.places import remembered_runs
from quarantine.restoring import Restored, restore

__all__ = [
    "HIDDEN",
    "JOURNAL",
    "Applied",
    "Restored",
    "Run",
    "apply_plan",
    "apply_to_collection",
    "move_out",
    "quarantine_folder",
    "read_run",
    "read_runs",
    "remembered_runs",
    "restore",
    "restore_to_collections",
]
