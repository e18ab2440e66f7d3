"""What lies on disk, and what is left of it after crashes."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from config import ROOT
from errors import (
    CollectionError,
    CollectionLockedError,
    CollectionMissingError,
    DamagedCollectionError,
    DiskFullError,
    FormatVersionError,
    ImageNotFoundError,
)
from store import Batch, Record, StoreWriter, VectorsManifest, open_store, open_writer
from store.formats import reporting_full_disk, widened

KEY = "net-layer-0123456789ab"
MANIFEST = VectorsManifest(KEY, "net", "layer", "0123456789ab" * 5 + "cdef", 4, "squeezed")


def contents(number: int) -> bytes:
    return number.to_bytes(32, "big")


def batch_of(*numbers: int) -> Batch:
    batch = Batch()
    for number in numbers:
        batch.records.append(Record(b"/photos/%d.jpg" % number, 10, 20, contents(number), "JPEG", 3, 4))
        batch.vectors[contents(number)] = np.full(4, number, dtype=np.float32)
        batch.thumbnails[contents(number)] = b"jpeg %d" % number
        batch.labels[contents(number)] = [(7, 0.5), (8, 0.25)]
    return batch


def make_collection(folder: Path, *numbers: int) -> None:
    with open_writer(folder, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(KEY, batch_of(*numbers))


def test_what_was_committed_is_read_back(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2, 3)
    store = open_store(tmp_path)
    snapshot = store.snapshot(KEY)
    assert snapshot.ids.tolist() == [1, 2, 3]
    assert snapshot.take(np.array([2, 0])).tolist() == [[3.0] * 4, [1.0] * 4]
    assert store.record(2).path == b"/photos/2.jpg"
    assert store.thumbnail(contents(2)) == b"jpeg 2"
    assert store.predicted_labels(KEY, [contents(3)]) == {contents(3): [(7, 0.5), (8, 0.25)]}


def test_two_images_of_equal_contents_share_one_vector(tmp_path: Path) -> None:
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        batch = batch_of(1)
        batch.records.append(Record(b"/photos/copy.jpg", 10, 20, contents(1), "JPEG", 3, 4))
        writer.commit(KEY, batch)
        snapshot = writer.snapshot(KEY)
    assert snapshot.ids.tolist() == [1, 2]
    assert snapshot.rows.tolist() == [0, 0]
    assert snapshot.matrix.shape == (1, 4)


def test_a_path_that_is_not_utf8_is_kept_as_it_is(tmp_path: Path) -> None:
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(KEY, Batch(records=[Record(b"/photos/caf\xe9.jpg", 1, 2)]))
    assert open_store(tmp_path).record(1).path == b"/photos/caf\xe9.jpg"


def test_a_changed_image_keeps_its_id_and_gets_its_new_vector(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2)
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        batch = batch_of(9)
        batch.records[0] = Record(b"/photos/1.jpg", 11, 21, contents(9), "JPEG", 3, 4)
        writer.commit(KEY, batch)
        snapshot = writer.snapshot(KEY)
    assert snapshot.ids.tolist() == [1, 2]
    assert snapshot.take(np.array([0]))[0, 0] == 9.0


def test_a_removed_image_is_gone_and_its_id_is_never_given_again(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2, 3)
    with open_writer(tmp_path, command="test") as writer:
        writer.remove([3])
        writer.begin_vectors(MANIFEST)
        writer.commit(KEY, batch_of(4))
        assert writer.snapshot(KEY).ids.tolist() == [1, 2, 4]
        with pytest.raises(ImageNotFoundError, match="no image 3"):
            writer.record(3)


def test_a_failed_file_has_a_record_but_no_vector(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    with open_writer(tmp_path, command="test") as writer:
        failed = Record(b"/photos/broken.jpg", 5, 6, contents(5), error_code="damaged_image", error="cut off")
        writer.begin_vectors(MANIFEST)
        writer.commit(KEY, Batch(records=[failed]))
        assert [record.error for record in writer.failures()] == ["cut off"]
        assert writer.snapshot(KEY).ids.tolist() == [1]


def test_bytes_after_the_last_commit_are_cut_off_by_the_next_writer_only(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2)
    path = tmp_path / "vectors" / KEY / "vectors.f16"
    with open(path, "ab") as file:
        file.write(b"half a vec")
    assert len(open_store(tmp_path).snapshot(KEY)) == 2
    assert path.stat().st_size == 2 * 8 + 10
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
    assert path.stat().st_size == 2 * 8


def test_rows_whose_bytes_are_lost_are_named_to_readers_and_forgotten_by_the_next_writer(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2)
    os.truncate(tmp_path / "vectors" / KEY / "vectors.f16", 8)
    with pytest.raises(DamagedCollectionError, match="holds 1 vectors, the catalog names 2"):
        open_store(tmp_path).snapshot(KEY)
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        assert writer.vector_hashes(KEY) == {contents(1)}
        assert writer.snapshot(KEY).ids.tolist() == [1]


def test_the_names_of_classes_are_those_that_the_network_has_now(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2)
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(replace(MANIFEST, class_names=["cats", "dogs"]))
        assert writer.manifest(KEY).class_names == ["cats", "dogs"]
        assert len(writer.snapshot(KEY)) == 2


def test_a_second_writer_is_refused_and_told_who_holds_the_collection(tmp_path: Path) -> None:
    with open_writer(tmp_path, command="img2vec.py"):
        another = open_writer(tmp_path, command="another")
        with pytest.raises(CollectionLockedError, match=rf"process {os.getpid()} \(img2vec.py\)"):
            another.__enter__()
    with open_writer(tmp_path, command="another"):
        pass


def test_readers_go_on_while_a_writer_holds_the_collection(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    reader = open_store(tmp_path)
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        before = reader.snapshot(KEY)
        writer.commit(KEY, batch_of(2))
        assert before.take(np.array([0]))[0, 0] == 1.0
        assert len(before) == 1
        assert len(reader.snapshot(KEY)) == 2


def test_compaction_reclaims_deleted_rows_and_leaves_old_snapshots_readable(tmp_path: Path) -> None:
    make_collection(tmp_path, *range(1, 101))
    reader = open_store(tmp_path)
    before = reader.snapshot(KEY)
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.remove(range(1, 91))
        writer.compact()
        writer.commit(KEY, batch_of(200))
    after = reader.snapshot(KEY)
    assert after.matrix.shape == (11, 4)
    assert after.take(slice(None))[:, 0].tolist() == [*range(91, 101), 200]
    assert before.take(slice(None))[:, 0].tolist() == list(range(1, 101))
    assert reader.thumbnail(contents(1)) is None
    assert len(list((tmp_path / "vectors" / KEY).glob("*.f16"))) == 1


def test_vectors_of_several_networks_lie_side_by_side(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2)
    other = VectorsManifest("other-layer-ffff", "other", "layer", "f" * 64, 2, "squeezed")
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(other)
        writer.commit(other.key, Batch(vectors={contents(2): np.array([5, 6], dtype=np.float32)}))
        assert writer.snapshot(other.key).ids.tolist() == [2]
        assert writer.snapshot(KEY).ids.tolist() == [1, 2]


def test_a_folder_without_collection_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CollectionMissingError, match=r"python img2vec\.py"):
        open_store(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_another_format_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    path = tmp_path / "vectors" / KEY / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(FormatVersionError, match=r"version 99, this program reads version 1"):
        open_store(tmp_path).snapshot(KEY)
    with open_writer(tmp_path, command="test") as writer:
        writer.set_meta("format_version", "77")
    with pytest.raises(FormatVersionError, match="77"):
        open_store(tmp_path)


def test_generations_are_published_whole_and_the_newest_two_are_kept(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    store = open_store(tmp_path)
    assert store.generation() is None
    stamps = {store.current_stamp()}
    with open_writer(tmp_path, command="test") as writer:
        for number in range(4):
            with writer.new_generation({"number": number}) as folder:
                (folder / "file").write_text(str(number))
            stamps.add(store.current_stamp())
    generation = store.generation()
    assert generation is not None
    assert generation.manifest["number"] == 3
    assert (generation.folder / "file").read_text() == "3"
    assert sorted(path.name for path in (tmp_path / "index").glob("gen-*")) == ["gen-000003", "gen-000004"]
    assert len(stamps) == 5


def publish_half(writer: StoreWriter) -> None:
    with writer.new_generation({"number": 2}) as folder:
        (folder / "half").write_text("")
        raise RuntimeError("half way")


def test_a_generation_that_fails_half_way_is_not_published(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    with open_writer(tmp_path, command="test") as writer:
        with writer.new_generation({"number": 1}):
            pass
        with pytest.raises(RuntimeError, match="half way"):
            publish_half(writer)
        generation = writer.generation()
    assert generation is not None
    assert generation.manifest["number"] == 1
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["CURRENT", "gen-000001"]


def test_a_read_only_folder_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: its parents are closed to others
        check_reading_without_writing(Path(name))


def check_reading_without_writing(folder: Path) -> None:
    make_collection(folder, 1, 2)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # Root may write anywhere: read as somebody who may not. Everything is imported before, while it can be read.
    program = (
        "import mmap, os, sys, urllib.parse\nfrom store import open_store\nfrom pathlib import Path\n"
        "os.chdir(sys.argv[1])\nif os.geteuid() == 0: os.setuid(65534)\n"
        "print(len(open_store(Path('.')).snapshot(sys.argv[2])), os.access('.', os.W_OK))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(folder), KEY], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert result.stdout.split() == ["2", "False"], result.stderr


def commit_without_end(writer: StoreWriter) -> None:
    for start in itertools.count(2, 500):
        writer.commit(KEY, batch_of(*range(start, start + 500)))


def test_a_full_disk_is_a_clear_message_and_leaves_what_was_committed(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    size = max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open_writer(tmp_path, command="test") as writer:
            writer.begin_vectors(MANIFEST)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, before[1]))
            with pytest.raises(DiskFullError, match="run the same command again"):
                commit_without_end(writer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    store = open_store(tmp_path)
    snapshot = store.snapshot(KEY)
    assert snapshot.take(slice(None))[:, 0].tolist() == snapshot.ids.tolist()
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
        writer.commit(KEY, batch_of(6000))
        assert writer.snapshot(KEY).take(slice(None))[-1, 0] == 6000.0


def test_an_array_of_which_a_disk_takes_a_part_is_a_full_disk_too(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="requested and"), reporting_full_disk(tmp_path):
        np.zeros(100_000).tofile("/dev/full")  # numpy tells no number of an error


def leave_a_journal(folder: Path) -> None:
    """Kill a writer inside a transaction that has begun to change the catalog's file."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom store import open_writer\n"
        "with open_writer(Path(sys.argv[1]), command='test') as writer:\n"
        "    catalog = writer.catalog\n    catalog.execute('PRAGMA cache_size = 1')\n    catalog.execute('BEGIN IMMEDIATE')\n"
        "    catalog.executemany('INSERT INTO meta VALUES (?, ?)', [(f'{n}', 'x' * 500) for n in range(2000)])\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False)
    assert (folder / "catalog.sqlite-journal").stat().st_size > 0


def test_readers_roll_back_what_a_killed_writer_had_begun(tmp_path: Path) -> None:
    make_collection(tmp_path, 1, 2)
    reader = open_store(tmp_path)
    assert reader.record(1).path == b"/photos/1.jpg"
    leave_a_journal(tmp_path)
    assert reader.record(2).path == b"/photos/2.jpg"
    assert len(open_store(tmp_path).snapshot(KEY)) == 2
    assert reader.meta("1999") is None


def test_a_catalog_without_its_first_commit_is_no_collection(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"")
    with pytest.raises(CollectionMissingError):
        open_store(tmp_path)


def test_a_damaged_catalog_is_named_to_readers_and_writers(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"garbage " * 2000)
    with pytest.raises(DamagedCollectionError, match="file is not a database"):
        open_store(tmp_path)
    writer = open_writer(tmp_path, command="test")
    with pytest.raises(DamagedCollectionError, match="file is not a database"):
        writer.__enter__()


def test_damaged_thumbnails_are_made_anew(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    (tmp_path / "thumbnails.sqlite").write_bytes(b"garbage " * 2000)
    with open_writer(tmp_path, command="test") as writer:
        assert writer.thumbnail_hashes() == set()


@pytest.mark.parametrize("damage", ["CURRENT", "manifest", "folder"])
def test_a_damaged_generation_is_named_and_does_not_stop_the_next(tmp_path: Path, damage: str) -> None:
    make_collection(tmp_path, 1)
    with open_writer(tmp_path, command="test") as writer, writer.new_generation({"number": 1}):
        pass
    if damage == "CURRENT":
        (tmp_path / "index" / "CURRENT").write_text("garbage")
    elif damage == "manifest":
        (tmp_path / "index" / "gen-000001" / "manifest.json").write_text("{")
    else:
        shutil.rmtree(tmp_path / "index" / "gen-000001")
    with pytest.raises(DamagedCollectionError, match=r"python img2vec\.py"):
        open_store(tmp_path).generation()
    with open_writer(tmp_path, command="test") as writer:
        assert writer.last_generation() is None
        with writer.new_generation({"number": 2}):
            pass
    generation = open_store(tmp_path).generation()
    assert generation is not None
    assert generation.manifest["number"] == 2


def test_a_folder_that_cannot_be_made_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CollectionError, match="--rsc-files"):
        open_writer(tmp_path / "file" / "rsc", command="test").__enter__()


def test_a_lost_manifest_of_vectors_is_written_again(tmp_path: Path) -> None:
    make_collection(tmp_path, 1)
    (tmp_path / "vectors" / KEY / "manifest.json").write_text("{")
    with pytest.raises(DamagedCollectionError, match="--backbone net"):
        open_store(tmp_path).manifest(KEY)
    with open_writer(tmp_path, command="test") as writer:
        writer.begin_vectors(MANIFEST)
    assert open_store(tmp_path).manifest(KEY) == MANIFEST


def test_half_precision_is_read_exactly_as_numpy_reads_it() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]  # all zeros, subnormal and normal numbers of both signs
    read = widened(np.resize(finite, (3, len(finite))))
    assert read.dtype == np.float32
    assert (read.view(np.uint32) == np.resize(finite, (3, len(finite))).astype(np.float32).view(np.uint32)).all()
    assert widened(np.empty((0, 8), np.float16)).shape == (0, 8)
