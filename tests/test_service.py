"""End to end, with real photographs, a real network and a real server."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from PIL import Image, ImageOps

from app import create_app
from config import ROOT, Settings
from errors import CollectionMismatchError, CollectionMissingError, EmptyCollectionError
from images import find_images
from img2vec import Job, Report, index_images
from search import Example, Query, SearchService, open_service
from store import open_store
from tests.mutations import write_mutations

pytestmark = pytest.mark.openvino
STARTING = 120  # attempts to reach a server, each waiting for at most a second


def index(rsc_files: Path, *patterns: Path) -> Report:
    settings = Settings(rsc_files=rsc_files, backbone="efficientnet_lite0")
    return index_images(Job(settings, find_images([str(pattern) for pattern in patterns]).paths))


@pytest.fixture(scope="module")
def collection(sample_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rsc_files = tmp_path_factory.mktemp("collection") / "rsc_files"
    index(rsc_files, sample_photos)
    return rsc_files


@pytest.fixture(scope="module")
def service(collection: Path) -> Iterator[SearchService]:
    service = open_service(Settings(rsc_files=collection))
    yield service
    service.close()


def like(source: int | bytes, k: int) -> Query:
    return Query((Example(source),), k=k)


@contextmanager
def running(command: list[str], port: int, rsc_files: Path) -> Iterator[str]:
    """A server process, from the moment it is ready until the end of the block."""
    environ = {**os.environ, "LOOKALIKE_RSC_FILES": str(rsc_files), "LOOKALIKE_PORT": str(port)}
    server = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(STARTING):
            try:
                if requests.get(f"{address}/readyz", timeout=10).status_code == 200:
                    break
            except requests.ConnectionError:
                pass
            try:
                server.wait(timeout=0.25)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"The server ended: {server.stderr.read() if server.stderr else ''}")
        yield address
    finally:
        server.terminate()
        server.communicate(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "cropped": lambda image: image.crop(
        (image.width // 12, image.height // 10, image.width * 10 // 12, image.height * 9 // 10)
    ),
    "re-compressed": lambda image: Image.open(io.BytesIO(jpeg(image, 25))),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_of_a_sample_photograph_finds_its_siblings_first(
    service: SearchService, sample_photos: Path, variant: str
) -> None:
    folders = sorted(path for path in sample_photos.iterdir() if path.is_dir())
    first = nearest_five = 0
    for folder in folders:
        original = next(path for path in sorted(folder.iterdir()) if path.stem == "original")
        with Image.open(original) as image:
            changed = VARIANTS[variant](image.convert("RGB"))
        result = service.search(like(jpeg(changed), k=5))
        labels = [match.image.label for match in result.matches]
        first += labels[0] == folder.name
        nearest_five += labels.count(folder.name)
    assert first == len(folders)
    assert nearest_five / (5 * len(folders)) >= 0.97


def test_an_indexed_image_finds_its_siblings_and_not_itself(service: SearchService) -> None:
    result = service.search(replace(like(1, k=5), ranking="plain"))
    assert 1 not in [match.image.image_id for match in result.matches]
    assert {match.image.label for match in result.matches} == {service.image(1).label}
    assert [match.rank for match in result.matches] == [1, 2, 3, 4, 5]
    distances = [match.distance for match in result.matches]
    assert distances == sorted(distances)


def test_some_images_are_images_of_the_collection_and_each_once(service: SearchService) -> None:
    some = service.some_images(100)
    assert len({image.image_id for image in some}) == 100
    assert len(service.some_images(10_000)) == service.status().images


def test_what_the_network_sees_is_shown(service: SearchService, sample_photos: Path) -> None:
    chelsea = next(path for path in (sample_photos / "chelsea").iterdir() if path.stem == "original")
    match = service.search(like(chelsea.read_bytes(), k=1)).matches[0]
    assert match.similarity > 0.999
    assert any("cat" in name for name, _ in match.image.predicted_labels)


def test_serving_never_imports_tensorflow(collection: Path, sample_photos: Path) -> None:
    upload = next(sample_photos.rglob("original.*"))
    program = (
        "import sys\nfrom pathlib import Path\nfrom config import Settings\nfrom app import create_app\n"
        "client = create_app(Settings(rsc_files=Path(sys.argv[1]))).test_client()\n"
        "answer = client.post('/search', data={'file': open(sys.argv[2], 'rb')}, follow_redirects=True)\n"
        "print(answer.status_code, [name for name in ('tensorflow', 'keras', 'torch') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(collection), str(upload)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "200 []", result.stderr


def test_a_collection_of_another_network_is_refused_with_both_named(collection: Path) -> None:
    with pytest.raises(CollectionMismatchError, match=r"efficientnet_lite0.*inception_v3"):
        open_service(Settings(rsc_files=collection, backbone="inception_v3"))
    environ = {**os.environ, "LOOKALIKE_RSC_FILES": str(collection), "LOOKALIKE_BACKBONE": "vgg16"}
    command = [sys.executable, "app.py", "--port", str(free_port())]
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "efficientnet_lite0" in result.stderr
    assert "vgg16" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_service_without_collection_becomes_ready_when_one_is_made(tmp_path: Path, sample_photos: Path) -> None:
    service = open_service(Settings(rsc_files=tmp_path / "rsc"))
    with pytest.raises(CollectionMissingError, match=r"python img2vec\.py"):
        service.status()
    (tmp_path / "text.txt").write_text("no picture")
    index(tmp_path / "rsc", tmp_path / "text.txt")
    with pytest.raises(EmptyCollectionError):
        service.status()
    index(tmp_path / "rsc", sample_photos / "chelsea")
    assert service.status().images == 12
    service.close()


def test_a_generation_that_cannot_be_loaded_leaves_the_old_one_answering(
    collection: Path, sample_photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rsc_files = tmp_path / "rsc"
    shutil.copytree(collection, rsc_files)
    service = open_service(Settings(rsc_files=rsc_files))
    settings = Settings(rsc_files=rsc_files, index="annoy")
    index_images(Job(settings, find_images([str(sample_photos)]).paths))
    (rsc_files / "index" / "gen-000002" / "index.annoy").unlink()
    for _ in range(3):
        assert len(service.search(like(1, k=3)).matches) == 3
    assert service.status().generation == 1
    assert caplog.text.count("the old one goes on answering") == 1
    service.close()


def test_a_collection_made_anew_under_the_service_is_taken_up(tmp_path: Path, sample_photos: Path) -> None:
    rsc_files = tmp_path / "rsc"
    index(rsc_files, sample_photos / "chelsea")
    service = open_service(Settings(rsc_files=rsc_files))
    assert service.image(1).label == "chelsea"
    shutil.rmtree(rsc_files)
    index(rsc_files, sample_photos / "coffee", sample_photos / "rocket")
    upload = next((sample_photos / "coffee").glob("original.*")).read_bytes()
    assert {match.image.label for match in service.search(like(upload, k=3)).matches} == {"coffee"}
    assert service.status().images == 24
    service.close()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["app", "gunicorn"])
def test_a_new_generation_is_taken_up_under_load_without_a_failed_request(
    collection: Path, sample_photos: Path, tmp_path: Path, server: str
) -> None:
    rsc_files = tmp_path / "rsc"
    shutil.copytree(collection, rsc_files)
    new = tmp_path / "new"
    with Image.open(next((sample_photos / "coffee").glob("original.*"))) as image:
        for degrees in (30, 60, 120):
            new.mkdir(exist_ok=True)
            image.convert("RGB").rotate(degrees, fillcolor="white").save(new / f"coffee-{degrees}.jpg")
    upload = next((sample_photos / "rocket").glob("original.*")).read_bytes()
    port = free_port()
    command = [sys.executable, "app.py"] if server == "app" else [sys.executable, "-m", "gunicorn", "app:app"]
    with running(command, port, rsc_files) as address:
        statuses: list[int] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answer = requests.post(f"{address}/api/v1/search", files={"file": upload}, data={"k": 3}, timeout=60)
                statuses.append(answer.status_code)

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        before = requests.get(f"{address}/readyz", timeout=60).json()
        for path in sorted(new.iterdir()):  # three generations, so that the oldest is taken away under the server
            index(rsc_files, path)
        after = requests.get(f"{address}/readyz", timeout=60).json()
        answer = requests.post(
            f"{address}/api/v1/search", files={"file": path.read_bytes()}, data={"k": 1}, timeout=60
        ).json()
        done.set()
        for client in clients:
            client.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}
    assert json.dumps(before) != json.dumps(after)
    assert "coffee-" in json.dumps(answer)


@pytest.mark.slow
def test_two_hundred_broken_files_stop_neither_the_job_nor_the_service(collection: Path, tmp_path: Path) -> None:
    rsc_files = tmp_path / "rsc"
    shutil.copytree(collection, rsc_files)
    files = write_mutations(tmp_path / "broken", count=200)
    report = index(rsc_files, tmp_path / "broken")
    known = {failure.path for failure in report.failures}
    kinds = list(files.values())
    assert report.new >= kinds.count("ok")
    assert report.skipped >= kinds.count("not_an_image")
    assert {str(path) for path, kind in files.items() if kind == "bad"} <= known
    assert report.new + report.failed + report.skipped == len(files) >= 200
    application = create_app(Settings(rsc_files=rsc_files))
    client = application.test_client()
    for path, kind in files.items():
        for address in ("/search", "/api/v1/search"):
            sent = {"file": (io.BytesIO(path.read_bytes()), path.name), "k": "3"}
            answer = client.post(address, data=sent, follow_redirects=True)
            assert answer.status_code in {200, 400, 413, 415}, (path.name, answer.status_code)
            assert kind != "ok" or answer.status_code == 200, path.name
            assert kind not in {"bad", "not_an_image"} or answer.status_code != 200, path.name
    made = [record.image_id for record in open_store(rsc_files).all_records() if record.image_id > 241]
    for image_id in made:
        for page in ("", "/thumbnail", "/view", "/original"):
            assert client.get(f"/images/{image_id}{page}").status_code in {200, 404}
    searchable = [image_id for image_id in made if client.get(f"/images/{image_id}").status_code == 200]
    assert len(searchable) == report.new
    for image_id in searchable:
        for page in ("thumbnail", "view", "original"):
            assert client.get(f"/images/{image_id}/{page}").status_code == 200


def test_the_page_of_an_upload_shows_real_matches(collection: Path, sample_photos: Path) -> None:
    client = create_app(Settings(rsc_files=collection)).test_client()
    upload = next((sample_photos / "coffee").glob("original.*"))
    sent = {"file": (io.BytesIO(upload.read_bytes()), "coffee.png"), "k": "12"}
    page = client.post("/search", data=sent, follow_redirects=True).text
    ids = re.findall(r'href="/images/(\d+)', page)
    assert len(set(ids)) == 12
    assert client.get(f"/images/{ids[0]}").status_code == 200
