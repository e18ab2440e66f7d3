"""What each address of the API takes and answers, said once beside the view that does it, and the OpenAPI description made of it.

Owns the decorator, what it remembers, and how that becomes OpenAPI 3.1. Does not own the answers themselves (`shapes.py` has what
they look like), nor reading requests (`requested.py`): nothing is checked or changed on its way by what stands here.
Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, TypeVar

from flask import Flask
from werkzeug.routing import Rule

from shapes import Problem

_View = TypeVar("_View", bound=Callable[..., Any])

PREFIX = "/api/v1"
TITLE = "Lookalike"
VERSION = "1"
ALWAYS = (401, 403, 408, 421, 429, 503)
"""Problems that any request can meet: no token or too many wrong ones, another site's page, too slow, a foreign name, a
collection or a network that is not there."""

TAGS: Mapping[str, str] = {
    "search": "Pictures in, similar images out.",
    "images": "The images of the collection, one by one.",
    "groups": "Images put together by likeness.",
    "duplicates": "The same picture, several times.",
    "map": "All images in the plane.",
    "labels": "What images are pictures of, as people say.",
    "tags": "What people call images.",
    "collection": "What is served, as a whole.",
    "jobs": "Adding images and taking them out, where that is allowed.",
}

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_REF = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Description:
    """What one view takes and answers. Shapes are `TypedDict` classes.

    `query`: fields of the address; `body`: fields of a JSON object or a form; `files`: fields that hold files, in a form;
    `answer`: the JSON it answers with `status`, or media types such as "text/csv, application/json"; `problems`: the statuses of
    its errors; `ranges`: a part of the answer can be asked for. With `query` alone a POST takes the same fields in its body, with
    `body` alone a GET or DELETE takes them from the address.
    """

    tag: str
    answer: type[Any] | str
    query: type[Any] | None = None
    body: type[Any] | None = None
    files: Mapping[str, str] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()
    ranges: bool = False


def described(
    tag: str,
    answer: type[Any] | str,
    *,
    query: type[Any] | None = None,
    body: type[Any] | None = None,
    files: Mapping[str, str] | None = None,
    status: int = 200,
    problems: tuple[int, ...] = (),
    ranges: bool = False,
) -> Callable[[_View], _View]:
    """Remember with a view what it takes and answers (see `Description`); its docstring says what it does."""

    def remember(view: _View) -> _View:
        view.described = Description(tag, answer, query, body, files, status, problems, ranges)  # type: ignore[attr-defined]
        return view

    return remember


@dataclass(frozen=True)
class Operation:
    """One method of one address, and what is said of it; `summary` and `details` are its view's docstring."""

    method: str
    rule: Rule
    view: Callable[..., Any]
    description: Description

    @property
    def name(self) -> str:
        """Return a name that no other operation has, from its address: "get_images_image_id_neighbours"."""
        words = "".join(c if c.isalnum() else "_" for c in self.rule.rule.removeprefix(PREFIX))
        return self.method + "_" + "_".join(filter(None, words.split("_")))

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.view) or "").partition("\n")[0]

    @property
    def details(self) -> str:
        return (inspect.getdoc(self.view) or "").partition("\n")[2].strip()

    @property
    def address_fields(self) -> type[Any] | None:
        """Return the shape of what stands in the address behind its "?"."""
        said = self.description
        return (said.query or said.body) if self.method in ("get", "delete") else (said.query if said.body else None)

    @property
    def body_fields(self) -> type[Any] | None:
        """Return the shape of what stands in the body."""
        return None if self.method in ("get", "delete") else self.description.body or self.description.query


def operations(app: Flask) -> Iterator[Operation]:
    """Yield every operation that a view of `app` is described for, in the order of their addresses."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        view = app.view_functions[rule.endpoint]
        said = getattr(view, "described", None)
        if said is not None and rule.rule.startswith(PREFIX):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield Operation(method.lower(), rule, view, said)


def openapi(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the API of `app`, as JSON values."""
    from apispec import APISpec
    from apispec_webframeworks.flask import FlaskPlugin

    said = list(operations(app))
    shapes, components = _schemas(said)
    spec = APISpec(
        TITLE,
        VERSION,
        "3.1.0",
        plugins=[FlaskPlugin()],
        info={"description": "Search photographs by likeness. Errors have one shape; lists are repeated fields."},
        servers=[{"url": "/"}],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        security=[{}, {"token": []}, {"password": []}],
    )
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("password", {"type": "http", "scheme": "basic"})
    for name, schema in components.items():
        spec.components.schema(name, schema)
    for operation in said:
        told = {operation.method: _operation(operation, shapes, components)}
        spec.path(view=operation.view, app=app, operations=told)
    described_api: dict[str, Any] = spec.to_dict()
    return described_api


def _schemas(said: list[Operation]) -> tuple[dict[type[Any], dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return a reference to each shape that is used, and all schemas by name."""
    from pydantic import ConfigDict, TypeAdapter

    used: dict[type[Any], None] = {Problem: None}
    for operation in said:
        shapes = (operation.description.answer, operation.address_fields, operation.body_fields)
        used.update((shape, None) for shape in shapes if isinstance(shape, type))
    inherited = {base for shape in used for base in _with_bases(shape)} - used.keys()
    # A list of each, since a shape that is asked about alone does not take this configuration.
    config = ConfigDict(use_attribute_docstrings=True, extra="forbid")
    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
        (shape.__name__, "validation", TypeAdapter(list[shape], config=config))  # type: ignore[valid-type]
        for shape in [*used, *inherited]
    ]
    schemas, definitions = TypeAdapter.json_schemas(adapters, ref_template=_REF)
    components: dict[str, dict[str, Any]] = definitions["$defs"]
    for shape in used:  # what is said of a field stands with the shape that it was inherited from
        for base in _with_bases(shape)[1:]:
            for name, schema in components[base.__name__]["properties"].items():
                if "description" in schema:
                    components[shape.__name__]["properties"][name]["description"] = schema["description"]
    referred = json.dumps(components)
    for base in inherited:
        if f'/{base.__name__}"' not in referred:
            del components[base.__name__]
    return {shape: schemas[shape.__name__, "validation"]["items"] for shape in used}, components


def _with_bases(shape: type[Any]) -> list[type[Any]]:
    """Return a shape and all that it inherits fields from; `TypedDict` makes classes that have forgotten it."""
    bases = [base for base in getattr(shape, "__orig_bases__", ()) if hasattr(base, "__required_keys__")]
    return [shape, *(one for base in bases for one in _with_bases(base))]


def _operation(
    operation: Operation, shapes: Mapping[type[Any], dict[str, Any]], components: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    said = operation.description
    told: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [said.tag],
        "summary": operation.summary,
        "parameters": [*_in_path(operation.rule)],
        "responses": _responses(operation, shapes),
    }
    if operation.details:
        told["description"] = operation.details
    if operation.address_fields is not None:
        told["parameters"] += _in_address(_shape(operation.address_fields, shapes, components))
    if operation.body_fields is not None or (said.files and operation.method == "post"):
        shape = {} if operation.body_fields is None else _shape(operation.body_fields, shapes, components)
        told["requestBody"] = _body(operation, shapes, shape)
    return told


def _shape(
    shape: type[Any], shapes: Mapping[type[Any], dict[str, Any]], components: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    return components[shapes[shape]["$ref"].rpartition("/")[2]]


def _in_path(rule: Rule) -> Iterator[dict[str, Any]]:
    for name in sorted(rule.arguments):
        number = name in ("image_id", "number")
        schema = {"type": "integer", "minimum": 0} if number else {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_address(shape: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, schema in shape["properties"].items():
        schema = dict(schema)
        text = schema.pop("description", None)
        field = {"name": name, "in": "query", "required": name in shape.get("required", ()), "schema": schema}
        yield field | ({"description": text} if text else {})


def _body(operation: Operation, shapes: Mapping[type[Any], dict[str, Any]], shape: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a body may be: JSON, a form, and a form with files where there are any."""
    content: dict[str, Any] = {}
    if operation.body_fields is not None:
        content["application/json"] = {"schema": shapes[operation.body_fields]}
        content[_FORMS[0]] = {"schema": shapes[operation.body_fields]}
    if operation.description.files:
        pictures = {
            name: {"type": "array", "items": {"type": "string", "format": "binary"}, "description": text}
            for name, text in operation.description.files.items()
        }
        properties = {**pictures, **shape.get("properties", {})}
        form = {"type": "object", "properties": properties, "additionalProperties": False}
        content[_FORMS[1]] = {"schema": form}
    return {"content": content, "required": bool(shape.get("required"))}


def _responses(operation: Operation, shapes: Mapping[type[Any], dict[str, Any]]) -> dict[str, Any]:
    said = operation.description
    if isinstance(said.answer, str):
        content: dict[str, Any] = {kind.strip(): {} for kind in said.answer.split(",")}
    else:
        content = {"application/json": {"schema": shapes[said.answer]}}
    responses: dict[str, Any] = {str(said.status): {"description": _phrase(said.status), "content": content}}
    if said.ranges:
        responses["206"] = {"description": _phrase(206), "content": content}
    if operation.method == "get":
        responses["304"] = {"description": "Not changed since the version named in If-None-Match"}
    problem = {"application/json": {"schema": shapes[Problem]}}
    of_body = (413, 415) if said.files else (413,) if operation.body_fields is not None else ()
    for status in sorted({*said.problems, *of_body, *ALWAYS}):
        responses[str(status)] = {"description": _phrase(status), "content": problem}
    return responses


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
