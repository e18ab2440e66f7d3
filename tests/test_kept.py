"""What is kept of uploads: shared between processes, forgotten in time, and for nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config import Settings
from errors import SettingsError, UploadGoneError
from search.kept import FILE_NAME, KEY, KeptUpload, KeptUploads, run_folder
from search.queries import Box


def upload(box: Box | None = None) -> KeptUpload:
    return KeptUpload("network", np.arange(8, dtype=np.float32), b"small", 640, 480, box)


def test_what_is_kept_is_found_by_another_that_opens_the_folder(tmp_path: Path) -> None:
    key = KeptUploads(tmp_path, 15).keep(upload(Box(0.1, 0.2, 0.3, 1 / 3)))
    assert KEY.fullmatch(key)
    found = KeptUploads(tmp_path, 15).get(key)
    assert found.vector.tolist() == list(range(8))
    assert (found.thumbnail, found.width, found.height, found.box) == (b"small", 640, 480, Box(0.1, 0.2, 0.3, 1 / 3))


def test_it_is_forgotten_a_while_after_it_was_last_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, now = KeptUploads(tmp_path, 15), time.time()
    key = kept.keep(upload())
    for minutes in (14, 28):
        monkeypatch.setattr(time, "time", lambda minutes=minutes: now + 60 * minutes)
        assert kept.get(key).width == 640
    monkeypatch.setattr(time, "time", lambda: now + 60 * (28 + 15.1))
    with pytest.raises(UploadGoneError, match="15 minutes"):
        kept.get(key)


def test_what_was_kept_too_long_goes_from_the_disk_though_nobody_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[FakeTimer] = []

    class FakeTimer:
        def __init__(self, seconds: float, forget: Callable[[], None]) -> None:
            self.seconds, self.forget = seconds, forget

        def start(self) -> None:
            begun.append(self)

    monkeypatch.setattr(threading, "Timer", FakeTimer)
    kept, now = KeptUploads(tmp_path, 15), time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    kept.keep(replace(upload(), thumbnail=b"private picture"))
    monkeypatch.setattr(time, "time", lambda: now + 600)
    kept.keep(replace(upload(), thumbnail=b"later picture"))
    assert [timer.seconds for timer in begun] == [901]
    monkeypatch.setattr(time, "time", lambda: now + 901)
    begun[0].forget()
    assert [timer.seconds for timer in begun] == [901, 600]
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"private picture" not in left
    assert b"later picture" in left


def test_uploads_are_kept_again_after_something_cleaned_up_the_folder(tmp_path: Path) -> None:
    kept = KeptUploads(tmp_path, 15)
    for file in tmp_path.iterdir():
        file.unlink()
    assert kept.get(kept.keep(upload())).width == 640
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_the_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    settings = Settings(run_folder=tmp_path / "run")
    folder = run_folder(settings)
    KeptUploads(folder, 15)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / FILE_NAME).stat().st_mode & 0o777 == 0o600
    folder.chmod(0o777)
    with pytest.raises(SettingsError, match="can be written by others"):
        run_folder(settings)
