"""The description of the API: as OpenAPI for programs, and as a page to read and to try it.

Owns how the page shows an operation. Does not own what is said (`described.py`, `shapes.py`). The page is our own: Swagger UI is
1.5 MB of scripts in another design; this one can be read, and much of it tried, without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, render_template

from described import openapi

api = Blueprint("documented_api", __name__, url_prefix="/api/v1")

EXTENSION = "lookalike-openapi"
_WORDS: Mapping[str, str] = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}


@dataclass(frozen=True)
class Kind:
    """What a value is, in words; `shape` is what it is, or what it is a list of, where that is a shape of its own."""

    text: str
    shape: str | None = None


@dataclass(frozen=True)
class Field:
    """A field of a request or of a shape. `place` is where a request has it: path, query, body or file."""

    name: str
    kind: Kind
    said: str
    place: str
    choices: tuple[str, ...] = ()
    is_list: bool = False
    is_number: bool = False
    is_required: bool = False


@dataclass(frozen=True)
class Answer:
    """What comes back with a status."""

    status: str
    said: str
    kind: Kind


@dataclass(frozen=True)
class Shown:
    """One operation as the page shows it."""

    name: str
    method: str
    path: str
    summary: str
    details: str
    fields: list[Field]
    answers: list[Answer]

    @property
    def takes_files(self) -> bool:
        return any(field.place == "file" for field in self.fields)

    @property
    def needs_script(self) -> bool:
        """Tell whether a form alone cannot ask it: its address has parts to fill in, or its method is no form's."""
        return self.method == "DELETE" or any(field.place == "path" for field in self.fields)


def _described() -> dict[str, Any]:
    """Return the description, made once: it takes half a second."""
    extensions = current_app.extensions
    if EXTENSION not in extensions:
        extensions[EXTENSION] = openapi(current_app)
    told: dict[str, Any] = extensions[EXTENSION]
    return told


@api.get("/openapi.json")
def description() -> Response:
    """Send the description of the API as OpenAPI 3.1."""
    return jsonify(_described())


@api.get("/docs")
def page() -> str:
    """Show every operation, with a form to try it."""
    told = _described()
    schemas = told["components"]["schemas"]
    operations = [
        (one["tags"][0], _shown(path, method, one, schemas))
        for path, methods in told["paths"].items()
        for method, one in methods.items()
    ]
    return render_template(
        "api.html",
        sections=[(tag, [one for name, one in operations if name == tag["name"]]) for tag in told["tags"]],
        shapes=[
            (name, schemas[name].get("description", ""), _fields(schemas[name], "body")) for name in sorted(schemas)
        ],
    )


def _shown(path: str, method: str, one: Mapping[str, Any], schemas: Mapping[str, Any]) -> Shown:
    fields = [
        _field(said["name"], said["schema"] | said, said["in"], is_required=said["required"])
        for said in one.get("parameters", ())
    ]
    content = one.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        shape = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        fields += _fields(schemas[shape], "body")
    files = content.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
    of_files = [_field(name, said, "file") for name, said in files.items() if name not in {f.name for f in fields}]
    return Shown(
        name=one["operationId"],
        method=method.upper(),
        path=path,
        summary=one["summary"],
        details=one.get("description", ""),
        fields=[*of_files, *fields],
        answers=[_answer(status, said) for status, said in sorted(one["responses"].items())],
    )


def _fields(schema: Mapping[str, Any], place: str) -> list[Field]:
    required = schema.get("required", ())
    return [
        _field(name, said, place, is_required=name in required) for name, said in schema.get("properties", {}).items()
    ]


def _field(name: str, said: Mapping[str, Any], place: str, *, is_required: bool = False) -> Field:
    is_list = said.get("type") == "array"
    one = said["items"] if is_list else said
    kind = Kind("pictures" if is_list else "picture") if one.get("format") == "binary" else _kind(said)
    return Field(
        name=name,
        kind=kind,
        said=said.get("description", ""),
        place=place,
        choices=tuple(one.get("enum", ())),
        is_list=is_list,
        is_number=one.get("type") in ("integer", "number"),
        is_required=is_required,
    )


def _kind(said: Mapping[str, Any], *, several: bool = False) -> Kind:
    """Say in words what a schema allows, or what several such values are."""
    if "$ref" in said:
        name = said["$ref"].rpartition("/")[2]
        return Kind(name, name)
    if "anyOf" in said:
        kinds = [_kind(one, several=several) for one in said["anyOf"]]
        return Kind(" or ".join(kind.text for kind in kinds), next((k.shape for k in kinds if k.shape), None))
    if "const" in said or "enum" in said:
        return Kind(" or ".join(str(value) for value in said.get("enum", [said.get("const")])))
    if said.get("type") == "array":
        inner = _kind(said.get("items", {}), several=True)
        return Kind(f"list of {inner.text}", inner.shape)
    if said.get("type") == "object":
        inner = (
            _kind(said["additionalProperties"]) if isinstance(said.get("additionalProperties"), dict) else Kind("any")
        )
        return Kind(f"{inner.text} by name", inner.shape)
    bounds = [f"{word} {said[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in said]
    return Kind(" ".join([_WORDS.get(said.get("type", ""), "any") + ("s" if several else ""), *bounds]))


def _answer(status: str, said: Mapping[str, Any]) -> Answer:
    content = said.get("content", {})
    schema = content.get("application/json", {}).get("schema")
    return Answer(status, said["description"], _kind(schema) if schema else Kind(" or ".join(content)))
