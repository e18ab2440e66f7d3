"""Holds what is sent of files to being made apart from the service, where it has to be made."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from app import create_app
from config import Settings
from errors import DecodingStoppedError, LookalikeError, OverloadedError
from images import Prepared, Wanted
from tests.fakes import DecodersHere, FakeService


class Failing(DecodersHere):
    """Fails as a child does that hangs, or as all do that are busy."""

    def __init__(self, error: LookalikeError) -> None:
        super().__init__(0, 1)
        self.error = error

    def prepare(self, content: bytes | BinaryIO, wanted: Wanted) -> Prepared:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(DecodingStoppedError("It hung."), 404), (OverloadedError("All are busy."), 503)]
)
def test_a_picture_that_browsers_do_not_show_is_decoded_apart(
    tmp_path: Path, error: LookalikeError, status: int
) -> None:
    service = FakeService(tmp_path, Settings(), names=["scan.tif", "beach.jpg"])
    service.decoders = Failing(error)
    client = create_app(service=service).test_client()
    assert client.get("/api/v1/images/1/view").status_code == status
    assert client.get("/api/v1/images/2/view").status_code == 200
