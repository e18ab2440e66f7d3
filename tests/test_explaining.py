"""Why an image was found, told by a real network: one crop is pasted into two photographs, and the heat has to lie in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import search.explaining
from config import Settings
from errors import ImageNotFoundError, NoNetworkError, OverloadedError, QueryError, UploadGoneError
from heatmaps import Heat
from img2vec import Job, index_images
from search import Box, Example, SearchService
from search.explaining import Explainer
from tests import fake_backbone
from tests.fakes import encoded, picture
from tests.grouped_collection import make_collection

SIDE, CROP, PAIRS, OTHERS = 256, 128, 8, 50
Corner = tuple[int, int]


@pytest.fixture(scope="module")
def service(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchService]:
    """Return a service of 50 photographs, and of 8 pairs of others into both of which one crop was pasted."""
    folder = tmp_path_factory.mktemp("explained")
    photographs = sorted((shared_data / "caltech101-dev").rglob("*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(photographs))[: OTHERS + 3 * PAIRS]
    files = [photographs[place] for place in chosen]
    for number in range(PAIRS):
        background, other, cut = (Image.open(files[OTHERS + 3 * number + n]).convert("RGB") for n in range(3))
        crop = cut.resize((CROP, CROP))
        for name, ground in (("a", background), ("b", other)):
            pasted = ground.resize((SIDE, SIDE))
            pasted.paste(crop, corner(number, name))
            pasted.save(folder / f"{number}{name}.png")
    settings = Settings(
        rsc_files=folder / "rsc", backbone="efficientnet_lite0", index="exact", run_folder=folder / "run"
    )
    paths = [*sorted(folder.glob("*.png")), *files[:OTHERS]]
    index_images(Job(settings, [os.fsencode(path) for path in paths]))
    service = SearchService(settings, load_network=False)
    yield service
    service.close()


def corner(number: int, name: str) -> Corner:
    """Return where the crop of a pair stands in its first or second photograph."""
    left, top = np.random.default_rng([number, ord(name)]).integers(0, SIDE - CROP, 2).tolist()
    return left, top


def id_of(service: SearchService, name: str) -> int:
    return next(
        record.image_id for record in service.ready().store.all_records() if record.path.endswith(f"/{name}".encode())
    )


def inside(heat: Heat, at: Corner) -> tuple[float, bool]:
    """Return how much of the heat lies in the crop, and whether the hottest place does."""
    smooth = np.asarray(Image.fromarray(np.maximum(heat, 0)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).clip(0)
    left, top = at
    row, column = np.unravel_index(smooth.argmax(), smooth.shape)
    share = float(smooth[top : top + CROP, left : left + CROP].sum() / smooth.sum())
    return share, bool(top <= row < top + CROP and left <= column < left + CROP)


@pytest.mark.openvino
@pytest.mark.real_photos
def test_the_heat_of_two_photographs_lies_in_the_crop_that_both_have(service: SearchService) -> None:
    found = []
    for number in range(PAIRS):
        first, second = id_of(service, f"{number}a.png"), id_of(service, f"{number}b.png")
        explanation = service.explain(first, Example(second))
        found += [inside(explanation.image, corner(number, "a")), inside(explanation.like, corner(number, "b"))]
    shares, hottest = zip(*found, strict=True)
    # A quarter of the area; measured: 0.67 of the heat, the hottest place in 94 of 100.
    assert np.mean(shares) > 0.5
    assert np.mean(hottest) >= 0.75


@pytest.mark.openvino
@pytest.mark.real_photos
def test_an_upload_is_explained_by_what_is_kept_of_it(service: SearchService) -> None:
    first, second = id_of(service, "0a.png"), id_of(service, "0b.png")
    path, _ = service.original(second)
    key = service.keep_upload(Path(os.fsdecode(path)).read_bytes())
    told, expected = service.explain(first, Example(key)), service.explain(first, Example(second))
    np.testing.assert_allclose(told.image, expected.image, atol=2e-3)


@pytest.mark.openvino
@pytest.mark.real_photos
def test_of_a_part_only_that_part_is_looked_at(service: SearchService) -> None:
    first, second = id_of(service, "1a.png"), id_of(service, "1b.png")
    left, top = (edge / SIDE for edge in corner(1, "b"))
    crop = Box(left, top, left + CROP / SIDE, top + CROP / SIDE)
    part, whole = service.explain(first, Example(second, crop)), service.explain(first, Example(second))
    assert part.agreement > whole.agreement
    assert inside(part.image, corner(1, "a"))[1]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchService]:
    """Return a service of two drawings, by a network that is none."""
    fake_backbone.install(monkeypatch)
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number)))
    settings = Settings(rsc_files=tmp_path / "rsc", backbone="efficientnet_lite0", run_folder=tmp_path / "run")
    index_images(Job(settings, [os.fsencode(path) for path in sorted(tmp_path.glob("*.jpg"))]))
    service = SearchService(settings, load_network=False)
    yield service
    service.close()


def test_the_same_pair_is_looked_at_once(drawn: SearchService, monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn.explain(1, Example(2))
    monkeypatch.setattr(Explainer, "_maps", lambda *_: pytest.fail("looked at again"))
    assert drawn.explain(1, Example(2)) is first


def test_answers_are_kept_for_so_many_pairs(drawn: SearchService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.explaining, "ANSWERS_KEPT", 1)
    first = drawn.explain(1, Example(2))
    drawn.explain(2, Example(1))
    assert drawn.explain(1, Example(2)) is not first


def test_more_than_may_wait_are_refused(drawn: SearchService) -> None:
    explainer = drawn._explainer  # its places are what is tested
    taken = 0
    while explainer._places.acquire(blocking=False):
        taken += 1
    assert taken == drawn.settings.waiting_uploads + 1
    with pytest.raises(OverloadedError):
        drawn.explain(1, Example(2))
    explainer._places.release()
    drawn.explain(1, Example(2))


def test_what_is_not_there_cannot_be_explained(drawn: SearchService) -> None:
    with pytest.raises(ImageNotFoundError):
        drawn.explain(9, Example(1))
    with pytest.raises(ImageNotFoundError):
        drawn.explain(1, Example(9))
    with pytest.raises(UploadGoneError):
        drawn.explain(1, Example("u" + "A" * 22))
    with pytest.raises(QueryError, match="small copies"):
        drawn.explain(1, Example(np.ones(1280)))


def test_vectors_from_elsewhere_cannot_be_explained(tmp_path: Path) -> None:
    service = SearchService(make_collection(tmp_path), load_network=False)
    with pytest.raises(NoNetworkError):
        service.explain(1, Example(2))
