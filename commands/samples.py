"""`python samples.py FOLDER`: make the sample collection."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from errors import LookalikeError
from samples import make_sample_collection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (None: the process's arguments); returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="samples.py",
        description="Make a collection of about 240 images from photographs that installed packages carry, "
        "to try Lookalike on. A folder that has them already is left as it is.",
    )
    parser.add_argument("folder", type=Path, help="folder to make, for example sample_images")
    arguments = parser.parse_args(argv)
    try:
        count = make_sample_collection(arguments.folder)
    except LookalikeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} sample images lie in {arguments.folder}")
    return 0
