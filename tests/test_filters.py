"""Holds each condition of a filter to the images that it keeps, and its values to what makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import QueryError
from store import Batch, Filter, Record, Store, VectorsManifest, filters, open_writer

KEY = "network-layer-0"
IMAGES: dict[bytes, dict[str, Any]] = {
    b"/photos/beach/1.jpg": {"width": 640, "height": 480, "taken_at": "2019-08-03T12:01:00", "label": "beach"},
    b"/photos/beach/evening/2.jpg": {"width": 480, "height": 640, "taken_at": "2019-08-03T23:59:59", "label": "sunset"},
    b"/photos/beach 2/3.jpg": {"width": 500, "height": 500, "taken_at": "2019-08-04T00:00:00", "label": "beach"},
    b"/old/beach/caf\xe9/4.jpg": {"width": 2000, "height": 100, "taken_at": None, "label": None},
    b"beach/5": {"width": None, "height": None, "taken_at": "2020-01-01T00:00:00", "label": "Beach"},
    b"/photos/bad.jpg": {"width": None, "height": None, "error_code": "damaged_image", "error": "cut off"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("collection")
    with open_writer(folder, command="test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "network", "layer", "0" * 64, 4, ""))
        hashes = [bytes([number]) * 32 for number in range(len(IMAGES))]
        records = [
            Record(path, 1, 1, sha256=sha256, format="JPEG", **values)
            for sha256, (path, values) in zip(hashes, IMAGES.items(), strict=True)
        ]
        labels = {hashes[0]: [(7, 0.9), (8, 0.1)], hashes[1]: [(9, 0.8), (7, 0.1)], hashes[2]: [(9, 1.0)]}
        writer.commit(KEY, Batch(records, vectors={sha256: np.ones(4, np.float32) for sha256 in hashes}, labels=labels))
    store = Store(folder)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"folder": "beach"}, [1, 2, 4, 5]),
        ({"folder": "beach/"}, [1, 2, 4, 5]),
        ({"folder": "beach/evening"}, [2]),
        ({"folder": "beach 2"}, [3]),
        ({"folder": "each"}, []),
        ({"folder": "/photos/beach"}, [1, 2]),
        ({"folder": "/beach"}, []),
        ({"folder": "caf\udce9"}, [4]),
        ({"folder": "%"}, []),
        ({"label": "beach"}, [1, 3]),
        ({"label": "' OR 1=1 --"}, []),
        ({"looks_like": "seven"}, [1, 2]),
        ({"taken_from": "2019-08-04"}, [3, 5]),
        ({"taken_until": "2019-08-03"}, [1, 2]),
        ({"taken_from": date(2019, 8, 4)}, [3, 5]),
        ({"taken_until": datetime(2019, 8, 3, 12, 1)}, [1]),
        ({"min_side": np.int64(481)}, [3]),
        ({"taken_until": "2019-08-03T12:01"}, [1]),
        ({"taken_until": "2019-08-03T12:00:59"}, []),
        ({"taken_from": "2019-08-03T12:01:00", "taken_until": "2019-08"}, [1, 2, 3]),
        ({"taken_from": "2020", "taken_until": "2020"}, [5]),
        ({"min_side": 480}, [1, 2, 3]),
        ({"min_side": 481}, [3]),
        ({"max_side": 640}, [1, 2, 3]),
        ({"orientation": "landscape"}, [1, 4]),
        ({"orientation": "portrait"}, [2]),
        ({"orientation": "square"}, [3]),
        ({"folder": "/photos", "label": "beach", "orientation": "landscape"}, [1]),
        ({"text": "1.jpg"}, [1]),
        ({"text": " BEACH  "}, [1, 3, 5]),
        ({"text": "beach 1."}, [1]),
        ({"text": "seven"}, [1]),
        ({"text": "set seven"}, []),
        ({"text": "evening"}, []),
        ({"text": "%"}, []),
        ({"text": "' OR 1=1 --"}, []),
    ],
)
def test_a_filter_keeps_the_images_that_meet_every_condition(
    store: Store, where: dict[str, Any], kept: list[int]
) -> None:
    ids = store.matching_ids(Filter(**where), key=KEY, classes=lambda words: [7] if words == "seven" else [])
    assert ids.dtype == np.int64
    assert ids.tolist() == kept


@pytest.mark.parametrize("word", ["möwe", "MÖWE", "mo\u0308we", "Mo\u0308we möwe"])
def test_words_know_no_difference_of_case_or_of_how_letters_are_composed(tmp_path: Path, word: str) -> None:
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(VectorsManifest(KEY, "network", "layer", "0" * 64, 4, ""))
        names = ("/a/Mo\u0308we.jpg", "/a/M\u00f6we.jpg", "/a/mowe.jpg", "/m\u00f6we/b.jpg")
        records = [Record(name.encode(), 1, 1, sha256=bytes([n]) * 32, format="JPEG") for n, name in enumerate(names)]
        vectors = {record.sha256: np.ones(4, np.float32) for record in records if record.sha256}
        writer.commit(KEY, Batch(records, vectors=vectors))
    assert Store(tmp_path).matching_ids(Filter(text=word), key=KEY).tolist() == [1, 2]


def test_a_name_is_read_once_for_all_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def counted(path: bytes, label: str | None) -> str:
        read.append(path)
        return filters.written(path, label)

    monkeypatch.setattr("store.reader.written", counted)
    with closing(Store(store.folder)) as opened:
        kept = opened.matching_ids(Filter(text="a b c e h each ach beach"), key=KEY).tolist()
    assert kept == [1, 3, 5]
    assert sorted(read) == sorted(path for path, said in IMAGES.items() if "error_code" not in said)


def test_what_another_network_saw_keeps_nothing(store: Store) -> None:
    assert store.matching_ids(Filter(looks_like="seven"), key="other", classes=lambda words: [7]).tolist() == []
    assert store.matching_ids(Filter(looks_like="nothing"), key=KEY).tolist() == []


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"taken_from": "yesterday"}, "'yesterday'"),
        ({"taken_from": "2019-02-30"}, "'2019-02-30'"),
        ({"taken_until": "2019-08-03T25:00"}, "25:00"),
        ({"taken_until": "20190803"}, "'20190803'"),
        ({"taken_until": "٢٠١٩"}, "٢٠١٩"),
        ({"taken_from": "2020", "taken_until": "2019-12"}, "2020"),
        ({"min_side": 0}, "min_side is 0"),
        ({"max_side": -3}, "max_side is -3"),
        ({"orientation": "upside down"}, "'upside down'"),
        ({"taken_from": datetime(2019, 8, 3, tzinfo=UTC)}, "UTC|utc|00:00"),
        ({"taken_until": 2019}, "taken_until is 2019"),
        ({"min_side": "300"}, "min_side is '300'"),
        ({"min_side": 1.5}, "min_side is 1.5"),
        ({"max_side": True}, "max_side is True"),
        ({"max_side": 2**63}, "max_side is 9223372036854775808"),
        ({"min_side": 300, "max_side": 200}, "min_side is 300, .* max_side, 200"),
        ({"orientation": 5}, "orientation is 5"),
        ({"label": 5}, "label is 5"),
        ({"looks_like": ["cat"]}, "looks_like is"),
        ({"folder": 5}, "folder is 5"),
        ({"text": " "}, "0 words"),
        ({"text": "a " * 17}, "17 words"),
        ({"text": 5}, "text is 5"),
        ({"folder": "/"}, "'/'"),
        ({"folder": ""}, "''"),
        ({"label": "\ud800"}, "ud800"),
        ({"folder": "\ud800"}, "ud800"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused_with_its_value(where: dict[str, Any], named: str) -> None:
    with pytest.raises(QueryError, match=named.replace("(", r"\(")):
        Filter(**where)
