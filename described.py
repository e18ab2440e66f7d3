"""What each address of the API takes and answers, said once beside the view that does it, for the OpenAPI description.

Owns the decorator and what it remembers. Does not own the answers themselves, nor reading requests (`requested.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

_View = TypeVar("_View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Description:
    """What one view takes and answers. Shapes are `TypedDict` classes.

    `query`: fields of the address; `body`: fields of a JSON object or a form; `files`: fields that hold files, in a form;
    `answer`: the JSON it answers with `status`, or a media type such as "image/png"; `problems`: the statuses of its errors.
    """

    tag: str
    answer: type[Any] | str
    query: type[Any] | None = None
    body: type[Any] | None = None
    files: Mapping[str, str] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()


def described(
    tag: str,
    answer: type[Any] | str,
    *,
    query: type[Any] | None = None,
    body: type[Any] | None = None,
    files: Mapping[str, str] | None = None,
    status: int = 200,
    problems: tuple[int, ...] = (),
) -> Callable[[_View], _View]:
    """Remember with a view what it takes and answers (see `Description`); its docstring says what it does."""

    def remember(view: _View) -> _View:
        view.described = Description(tag, answer, query, body, files, status, problems)  # type: ignore[attr-defined]
        return view

    return remember
