"""What a service makes of a projection: pictures, kept uploads and vectors are projected, explanations and exports are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import exporting
from app import create_app
from autoencoder import FittedReducer, Reducer, save_reducer
from config import Settings
from errors import QueryError
from img2vec import Job, index_images
from publishing import publish, reducer_path, searched, view_of
from reducing import forget_projection
from search import Box, Example, Query, SearchResult, SearchService
from search.about import about
from search.explaining import Explainer, Explanation
from store import Generation, Store, StoreWriter, open_store, open_writer
from tests import fake_backbone
from tests.fakes import encoded, picture
from tests.grouped_collection import KINDS, MANIFEST, add_images, make_collection
from vectors import Vectors
from views import grouping, groups
from views import map as maps
from views.renewing import renew_views

PICTURES = 24


def generation_of(store: Store) -> Generation:
    generation = store.generation()
    assert generation is not None
    return generation


def project(settings: Settings, matrix: Vectors) -> None:
    """Let a collection be searched by a projection of this matrix, whatever labels could have taught it."""
    with open_writer(settings.rsc_files, command="a test") as writer:
        key = generation_of(writer).manifest["vectors_key"]
        told = {"classes": {"a": 3, "b": 4}, "strength": 1.0, "held_out": None, "unseen": None, "others": None}
        fitted = FittedReducer(Reducer("projection", matrix, told), ())
        save_reducer(fitted, reducer_path(settings.rsc_files, key, "projection"))
        publish(writer, key, replace(settings, reducer="projection"))


def turned(source_dim: int, dim: int, seed: int) -> Vectors:
    """Some matrix that puts images into another order."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(source_dim, dim)) * random.gamma(0.3, size=(source_dim, 1))
    return np.asarray(matrix, np.float32)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A collection of drawings, by a network that is none."""
    folder = tmp_path_factory.mktemp("drawings")
    with pytest.MonkeyPatch.context() as patch:
        fake_backbone.install(patch)
        for number in range(1, PICTURES + 1):
            (folder / f"{number:02}.jpg").write_bytes(encoded(picture(number)))
        settings = Settings(rsc_files=folder / "rsc", backbone="efficientnet_lite0", run_folder=folder / "run")
        index_images(Job(settings, [os.fsencode(path) for path in sorted(folder.glob("*.jpg"))]))
        yield settings


@pytest.fixture
def service(settings: Settings) -> Iterator[SearchService]:
    """A service over the network's own vectors; whatever a test lets it be searched by is taken back."""
    service = SearchService(settings, load_network=False)
    yield service
    service.close()
    forget_projection(settings)


def answer(service: SearchService, source: object, **options: object) -> SearchResult:
    return service.search(Query((Example(source, **options),), k=PICTURES, ranking="plain"))  # type: ignore[arg-type]


def order(result: SearchResult) -> list[int]:
    return [match.image.image_id for match in result.matches]


def upload(number: int) -> bytes:
    """The very pixels that were indexed."""
    return encoded(picture(number))


def test_a_picture_its_vector_and_the_image_itself_are_answered_alike(service: SearchService) -> None:
    before = order(answer(service, 3))
    project(service.settings, turned(1280, 16, 1))
    by_image = answer(service, 3)
    assert order(by_image) != before
    own = service.ready().searched.own
    for source in (upload(3), own.take(np.array([own.position(3)]))[0]):
        found = answer(service, source)
        assert (order(found)[0], order(found)[1:]) == (3, order(by_image))
        assert found.matches[1].distance == pytest.approx(by_image.matches[0].distance, abs=2e-3)
    with pytest.raises(QueryError, match="has 16 numbers, but those of this collection have 1,280"):
        answer(service, np.ones(16, np.float32))


def test_a_part_of_an_image_is_projected_too(service: SearchService) -> None:
    project(service.settings, turned(1280, 16, 1))
    whole = answer(service, 3, box=Box(0, 0, 1, 1))
    assert whole.matches == answer(service, 3).matches or order(whole) == order(answer(service, 3))


def test_a_kept_upload_is_searched_by_whatever_is_learnt_next(service: SearchService) -> None:
    key = service.keep_upload(upload(5))
    own = order(answer(service, key))
    answers = []
    for seed in (1, 2):
        project(service.settings, turned(1280, 16, seed))
        answers.append(order(answer(service, key)))
        assert answers[-1] == order(answer(service, upload(5)))
        assert len(service.kept_upload(key).vector) == 1280
    assert len({tuple(found) for found in (own, *answers)}) == 3
    late = service.keep_upload(upload(6))
    forget_projection(service.settings)
    assert order(answer(service, key)) == own
    assert order(answer(service, late)) == order(answer(service, upload(6)))


def test_explanations_and_exports_are_of_the_networks_own_vectors(
    service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(service.settings, turned(1280, 16, 1))
    dims: list[int] = []

    def explain(self: Explainer, *given: object) -> Explanation:
        dims.append(given[2].dim)  # type: ignore[attr-defined]
        return Explanation(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), 0.0)

    monkeypatch.setattr(Explainer, "explain", explain)
    service.explain(1, Example(2))
    with closing(open_store(service.settings.rsc_files)) as store:
        dims.append(exporting.exported_images(store).snapshot.dim)
    assert dims == [1280, 1280]


def test_the_page_and_the_api_tell_what_is_searched(service: SearchService) -> None:
    client = create_app(service.settings, service=service).test_client()
    assert client.get("/api/v1/collection").json["projection"] is None  # type: ignore[index]
    assert about(service).projection is None
    project(service.settings, turned(1280, 16, 1))
    told = client.get("/api/v1/collection").json
    assert told is not None
    assert (told["projection"], told["dim"]) == ({"classes": 2, "learnt_from": 7, "dim": 16}, 1280)
    page = client.get("/collection").get_data(as_text=True)
    assert "a projection of them to 16 numbers" in page
    assert "<dt>Reducer</dt>" not in page


# Views.


def publish_views(writer: StoreWriter) -> None:
    grouping.build_groups(writer, generation_of(writer), grouping.GroupOptions())
    maps.build_map(writer, generation_of(writer), maps.MapOptions(("tsne", "grid")))


def test_groups_and_map_are_of_the_projection_and_places_of_before_stay(tmp_path: Path) -> None:
    settings = make_collection(tmp_path)
    with open_writer(settings.rsc_files, command="a test") as writer:
        publish_views(writer)
        before = maps.open_map(writer, generation_of(writer))
    # A projection that mixes all kinds up: nothing but chance tells them apart.
    project(settings, turned(MANIFEST.dim, 4, 1))
    with closing(open_store(settings.rsc_files)) as store:
        kept = maps.open_map(store, generation_of(store))
        assert np.array_equal(kept.layouts["tsne"], before.layouts["tsne"])
        assert not kept.placed.any()
        assert len(groups.open_groups(store, generation_of(store))) == sum(KINDS.values())
    # New images have a place on the map of before: beside those that are near them as they are searched now.
    add_images(settings, {"red": 3}, first=100)
    with open_writer(settings.rsc_files, command="a test") as writer:
        grown = maps.open_map(writer, generation_of(writer))
        assert grown.placed.sum() == 3
        assert np.isfinite(grown.layouts["tsne"]).all()
        found = searched(writer, generation_of(writer))
        assert found.snapshot.dim == 4
        assert renew_views(writer) == ["groups", "duplicates", "map"]
        anew = maps.open_map(writer, generation_of(writer))
        assert not np.array_equal(anew.layouts["tsne"][: len(before.layouts["tsne"])], before.layouts["tsne"])
        view = view_of(generation_of(writer), groups.VIEW)
        assert view is not None
        assert view.vectors_digest == generation_of(writer).manifest["vectors_digest"]
        assert np.load(generation_of(writer).folder / groups.VECTORS_FILE).shape[1] <= 4
