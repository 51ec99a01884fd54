"""Envelopes: the JSON of a list as the API of the user's has it, instead of that of the toolkit's page."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, TypeAlias

import pydantic
from pydantic import BaseModel, TypeAdapter

from dotmac_database import (
    CursorPaginationResult,
    Estimate,
    OffsetResult,
    PaginationResult,
    TotalKind,
    ValidationError,
)

from .aliases import Annotation, AnyPage
from .pages import Paging
from .readable import schemas_in, shown_by

Envelope: TypeAlias = type[BaseModel] | Callable[..., object]
"""What a list's JSON is made of its page by: a class of Pydantic, which is validated from the page's attributes, or a
function, which is called with the page."""


def row_schema_in(envelope: Envelope | None) -> type | None:
    """The schema of the rows that an envelope names itself: ``UserPublic`` for a field ``list[UserPublic]``.

    None: the envelope does not say, so that the rows are those of the read schema.
    """
    if not _is_model(envelope) or _parameters(envelope):
        return None
    schemas = list(schemas_in(shown_by(envelope).get("items")))
    return schemas[0] if len(schemas) == 1 else None


@lru_cache(maxsize=1024)
def enveloped(envelope: Envelope, row: Annotation) -> Enveloped:
    """An envelope for rows of a schema. The same arguments give the same object."""
    return Enveloped(envelope, row)


class Enveloped:
    """An envelope for rows of one schema: its type in OpenAPI, and the value that it makes of a page.

    Raises `ValidationError` for an envelope whose type Pydantic does not know.
    """

    def __init__(self, envelope: Envelope, row: Annotation) -> None:
        self.name = getattr(envelope, "__qualname__", None) or type(envelope).__qualname__
        self.reads_rows = _is_model(envelope) and (bool(_parameters(envelope)) or row_schema_in(envelope) is not None)
        """Whether the envelope itself validates the rows. Else it gets rows that the read schema has validated."""
        if _is_model(envelope) and not self.reads_rows:
            _check_rows(envelope)
        self.type: Annotation = _parametrised(envelope, row) if _is_model(envelope) else _returned(envelope)
        """The type of the JSON. `Any`: the envelope is a function that does not say."""
        self._function: Callable[..., object] | None = None if _is_model(envelope) else envelope
        try:
            self._adapter: TypeAdapter[object] = TypeAdapter(self.type)
        except (pydantic.PydanticSchemaGenerationError, pydantic.PydanticUserError) as refused:
            message = f"envelope: Pydantic can't serialize what {self.name} gives: {refused.message}"
            raise ValidationError(message, field="envelope") from refused

    def json(self, page: AnyPage) -> bytes:
        """The JSON of a page. Rows that are objects of their schema are not validated again."""
        return self._adapter.dump_json(self._value(page), by_alias=True, warnings="error")

    def _value(self, page: AnyPage) -> object:
        value = page if self._function is None else self._function(page)
        return self._adapter.validate_python(value, from_attributes=True)

    def possible_totals(
        self, paging: Paging | None, total: TotalKind, totals: tuple[TotalKind, ...]
    ) -> tuple[TotalKind, ...]:
        """The kinds of total of ``totals`` that the envelope can show.

        It is tried on a page without rows of each kind that the list has. Raises `ValidationError` if it can't show
        one of them, except pages without a total, which clients then can't request, unless that is the default.
        """
        if paging in (None, "cursor"):
            hint = "" if paging else ". Without paging= a list has cursor pages too; choose 'page' or 'offset'"
            self._try(CursorPaginationResult([]), "a cursor page", hint)
        return tuple(self._possible(paging, total, totals))

    def _possible(self, paging: Paging | None, total: TotalKind, totals: tuple[TotalKind, ...]) -> Iterator[TotalKind]:
        for kind in () if paging == "cursor" else totals:
            count = None if kind == "none" else 0 if kind == "exact" else Estimate(0, exact=True)
            page: AnyPage = PaginationResult([], count, 1, 20, more=False)
            if paging == "offset":
                page = OffsetResult([], count, 0, 20, more=False)
            try:
                self._try(page, f"a page with total={kind!r}")
            except ValidationError:
                if kind != "none" or total == "none":
                    raise
            else:
                yield kind

    def _try(self, page: AnyPage, words: str, hint: str = "") -> None:
        try:
            self._adapter.dump_json(self._value(page), by_alias=True, warnings="error")
        except Exception as refused:
            message = f"envelope: {self.name} can't be made of {words}: {_reason(refused)}{hint}."
            raise ValidationError(message, field="envelope") from refused


def with_rows(envelope: Envelope | None, row: type) -> Envelope | None:
    """The class of an envelope that names the schema of its rows, with ``row`` in the place of that schema."""
    if not _is_model(envelope):
        return envelope
    rows: Annotation = list
    changed: Envelope = pydantic.create_model(
        envelope.__name__, __base__=envelope, __module__=envelope.__module__, items=(rows[row], ...)
    )
    return changed


def _is_model(envelope: object) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(envelope, type) and issubclass(envelope, BaseModel)


def _parameters(envelope: type[BaseModel]) -> tuple[Annotation, ...]:
    """The type variables of a generic class that have no values yet."""
    return envelope.__pydantic_generic_metadata__["parameters"]


def _check_rows(envelope: type[BaseModel]) -> None:
    """Raise `ValidationError` if the rows of an envelope have a type that a read schema's objects can't have."""
    annotation = shown_by(envelope).get("items")
    row, *_ = (*typing.get_args(annotation), Any)
    if row not in (Any, object) and not list(schemas_in(annotation)):
        message = f"envelope: the rows of {envelope.__qualname__} are {row!r}; name their schema: list[UserRead]."
        raise ValidationError(message, field="envelope")


def _parametrised(envelope: type[BaseModel], row: Annotation) -> Annotation:
    parameters = _parameters(envelope)
    if len(parameters) > 1:
        message = f"envelope: {envelope.__qualname__} has {len(parameters)} type variables; the rows have one type."
        raise ValidationError(message, field="envelope")
    generic: Annotation = envelope
    return generic[row] if parameters else envelope


def _returned(envelope: Callable[..., object]) -> Annotation:
    """The type that a callable says it returns; a class returns its own objects. `Any`: it does not say."""
    if isinstance(envelope, type):
        return envelope
    function: Annotation = envelope.func if isinstance(envelope, partial) else envelope
    function = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(function):
        message = f"envelope: {function.__qualname__} is a coroutine function; the page is complete, so write def."
        raise ValidationError(message, field="envelope")
    try:
        return typing.get_type_hints(function, include_extras=True).get("return", Any)
    except NameError as unknown:
        message = f"envelope: the annotations of {function.__qualname__} name {unknown.name!r}, which its module lacks."
        raise ValidationError(message, field="envelope") from unknown


def _reason(refused: Exception) -> str:
    if isinstance(refused, pydantic.ValidationError):
        faults = refused.errors(include_url=False, include_input=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults)
    return f"{type(refused).__name__}: {refused}"
