"""Asks the API what its description allows, and what it does not, by schemathesis: it never fails and answers as it is described.

The cases are the same in every run. https://schemathesis.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import create_app
from tests.described_collection import described_service
from tests.fakes import encoded, picture

pytestmark = pytest.mark.slow

EXAMPLES = {GenerationMode.POSITIVE: 30, GenerationMode.NEGATIVE: 12}
"""So many of each operation fit its description, and so many do not."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
FILES = st.one_of(st.sampled_from([encoded(picture(n, (64, 48))) for n in (1, 2, 40)]), st.binary(max_size=64))
TOKEN = "a token for the tests"
KNOWN = 3
"""An image of the collection: of ids made up, hardly any is one."""


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    with described_service(tmp_path_factory.mktemp("asked"), changes="on", edit_token=TOKEN) as service:
        yield schemathesis.openapi.from_wsgi("/api/v1/openapi.json", create_app(service=service))


def ask(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, known: int | None) -> None:
    """Ask one operation many things, in `mode`, about the image `known` or about any."""
    strategy = operation.as_strategy(
        generation_mode=mode, path_parameters=None if known is None else {"image_id": known}
    )

    @given(case=strategy)
    @settings(
        max_examples=EXAMPLES[mode],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers_as_described(case: Case[Any]) -> None:
        case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {TOKEN}"})

    answers_as_described()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_asked_is_answered_as_it_is_described(schema: BaseSchema, mode: GenerationMode) -> None:
    files = (
        FILES if mode is GenerationMode.POSITIVE else st.text(max_size=64)
    )  # it cannot break a form with bytes in it
    schemathesis.openapi.format("binary", files)
    asked, failures = 0, []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        about_image = any(parameter.name == "image_id" for parameter in operation.path_parameters)
        for known in (None, KNOWN) if about_image else (None,):
            try:
                ask(operation, mode, known)
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, "only an operation that takes nothing cannot be asked wrongly"
            except FailureGroup as error:
                failures.append(f"{operation.label}: {str(error)[:2_000]}")
        asked += 1
    assert asked > 30
    assert not failures, "\n\n".join(failures)
