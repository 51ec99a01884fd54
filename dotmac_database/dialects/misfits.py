"""Which column's type has refused a value, before the database saw it.

SQLAlchemy converts values while it prepares a statement, and says nothing of the column where that fails. The type that
has raised is in the exception's traceback, as the ``self`` of its ``process_bind_param``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from sqlalchemy import exc as sa
from sqlalchemy.types import TypeDecorator

from ..errors import ValidationError
from ..models.traits import Traits, traits_of


def refused_by_type(error: sa.StatementError, model: type | None, who: str) -> ValidationError | None:
    """The error that names the field whose type could not convert a value; None: no type of the user's has raised."""
    cause = error.orig
    found = None if cause is None else _refusal(cause.__traceback__)
    if found is None:
        return None
    type_, value = found
    fields = [] if model is None else _fields(traits_of(model), type_)
    if len(fields) > 1:
        named = {name.removeprefix("v_") for name in _names_of(error.params, value)}
        fields = [field for field in fields if field in named] or fields
    takes = f"takes a value that its type, {type(type_).__name__}, can store."
    if not fields:
        return ValidationError(f"{who}: a field {takes}")
    return ValidationError(f"{who}.{' or '.join(fields)} {takes}", field=fields[0] if len(fields) == 1 else None)


def _refusal(traceback: TracebackType | None) -> tuple[TypeDecorator[Any], Any] | None:
    """The type that was asked last to convert a value, and the value."""
    found = None
    while traceback is not None:
        frame, code = traceback.tb_frame, traceback.tb_frame.f_code
        if code.co_name == "process_bind_param" and code.co_argcount > 1:
            owner, value = (frame.f_locals.get(name) for name in code.co_varnames[:2])
            if isinstance(owner, TypeDecorator):
                found = owner, value
        traceback = traceback.tb_next
    return found


def _fields(traits: Traits[Any], type_: TypeDecorator[Any]) -> list[str]:
    """The fields whose columns are of a type: the class's own, else those of the classes that it refers to."""
    own = [key for key, column in traits.columns.items() if type(column.type) is type(type_)]
    if own:
        return own
    return [
        f"{name}.{key}"
        for name, relationship in traits.relationships.items()
        for key, column in traits_of(relationship.mapper.class_).columns.items()
        if type(column.type) is type(type_)
    ]


def _names_of(parameters: Any, value: Any) -> Iterator[str]:
    """The names under which a statement's parameters hold a value."""
    for each in parameters if isinstance(parameters, (list, tuple)) else (parameters,):
        if isinstance(each, Mapping):
            yield from (str(name) for name, held in each.items() if held is value)
