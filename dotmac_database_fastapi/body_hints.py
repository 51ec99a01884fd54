"""Hints at misspelt members of a request's JSON: the field whose name is most similar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from starlette.requests import Request

from .aliases import Annotation
from .bounds import QueryErrors
from .internals import body_of
from .read_only import aliases_of
from .ruling import RULED

UNKNOWN = "extra_forbidden"
"""Pydantic's type of the error of a member that a schema does not have."""


def hinted(request: Request, errors: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The message of each error, with the name of a similar field if the error is of an unknown member of the body.

    A request that policies rule gets no hints: they could name a field that is hidden from its actor.
    """
    names, body = QueryErrors(), None if RULED in request.scope else body_of(request)
    for error in errors:
        place: tuple[str | int, ...] = tuple(error["loc"])
        near = None
        if error["type"] == UNKNOWN and body is not None and place[:1] == ("body",):
            near = names.nearest(str(place[-1]), _members(body, place[1:-1]))
        yield error["msg"] if near is None else f"{error['msg']}; did you mean {near!r}?"


def _members(body: Annotation, place: Iterable[str | int]) -> list[str]:
    """The names that the schemas at a place of the body have for their fields."""
    schemas = list(_alternatives(body))
    for part in place:
        schemas = [each for schema in schemas for below in _below(schema, part) for each in _alternatives(below)]
    return [name for schema in schemas for name, _ in _fields(schema)]


def _alternatives(annotation: Annotation) -> Iterator[Annotation]:
    """The types of which a value may be, without what only constrains them."""
    origin: object = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation


def _below(schema: Annotation, part: str | int) -> Iterator[Annotation]:
    """The types of a member of an object, or of the items of an array."""
    if isinstance(part, int):
        yield from get_args(schema)[:1]
    elif getattr(schema, "__name__", None) == part:  # Pydantic names the alternative of a union
        yield schema
    else:
        yield from (annotation for name, annotation in _fields(schema) if name == part)


def _fields(schema: Annotation) -> Iterator[tuple[str, Annotation]]:
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        for key, field in schema.model_fields.items():
            yield from ((name, field.annotation) for name in aliases_of(key, field) if isinstance(name, str))
