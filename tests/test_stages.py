"""The seconds of each stage belong to one request and one thread."""

from __future__ import annotations

from threading import Thread

import pytest

from search import stages


def test_seconds_of_a_stage_add_up_and_are_forgotten_with_the_next_request() -> None:
    stages.begin()
    stages.add("decode", 0.25)
    stages.add("embed", 0.5)
    stages.add("decode", 0.5)
    assert dict(stages.seconds()) == {"decode": 0.75, "embed": 0.5}
    assert stages.header() == "decode;dur=750.0, embed;dur=500.0"
    stages.begin()
    assert dict(stages.seconds()) == {}
    assert stages.header() == ""


def test_a_stage_that_fails_is_timed_as_well() -> None:
    stages.begin()
    with pytest.raises(ValueError, match="of no use"), stages.timed("search"):
        raise ValueError("of no use")
    assert list(stages.seconds()) == ["search"]


def test_another_thread_keeps_its_own_seconds() -> None:
    stages.begin()
    thread = Thread(target=lambda: stages.add("decode", 1.0))  # outside of any request
    thread.start()
    thread.join()
    assert dict(stages.seconds()) == {}
