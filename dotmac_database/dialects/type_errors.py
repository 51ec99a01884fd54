"""Finds the field for which a custom column type (a `TypeDecorator`) could not convert a value.

SQLAlchemy converts values before it sends a statement, and its exception does not name the column if that fails. The
type is found in the exception's traceback, as the ``self`` of its method ``process_bind_param``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType

from sqlalchemy import exc as sa
from sqlalchemy.types import TypeDecorator

from ..errors import ValidationError
from ..models.traits import Traits, traits_of


def refused_by_type(error: sa.StatementError, model: type | None, who: str) -> ValidationError | None:
    """The toolkit's error, which names the field. None if ``error`` was not raised inside a `TypeDecorator`.

    If several fields have this type, the error names those to which the statement assigned the refused value.
    """
    cause = error.orig
    refusal = None if cause is None else _refusal(cause.__traceback__)
    if refusal is None:
        return None
    type_, value = refusal
    fields = [] if model is None else _fields(traits_of(model), type_)
    if len(fields) > 1:
        names = {name.removeprefix("v_") for name in _names_of(error.params, value)}
        fields = [field for field in fields if field in names] or fields
    message = f"takes a value that its type, {type(type_).__name__}, can store."
    if not fields:
        return ValidationError(f"{who}: a field {message}")
    return ValidationError(f"{who}.{' or '.join(fields)} {message}", field=fields[0] if len(fields) == 1 else None)


def _refusal(traceback: TracebackType | None) -> tuple[TypeDecorator[object], object] | None:
    """The type that was converting a value when the exception was raised, and that value."""
    refusal = None
    while traceback is not None:
        frame, code = traceback.tb_frame, traceback.tb_frame.f_code
        if code.co_name == "process_bind_param" and code.co_argcount > 1:
            owner, value = (frame.f_locals.get(name) for name in code.co_varnames[:2])
            if isinstance(owner, TypeDecorator):
                refusal = owner, value
        traceback = traceback.tb_next
    return refusal


def _fields(traits: Traits[object], type_: TypeDecorator[object]) -> list[str]:
    """The fields of the class that have this type. If there are none, the fields of its related classes."""
    own = [key for key, column in traits.columns.items() if type(column.type) is type(type_)]
    if own:
        return own
    return [
        f"{name}.{key}"
        for name, relationship in traits.relationships.items()
        for key, column in traits_of(relationship.mapper.class_).columns.items()
        if type(column.type) is type(type_)
    ]


def _names_of(parameters: object, value: object) -> Iterator[str]:
    """The names of the parameters whose value is this object."""
    for each in parameters if isinstance(parameters, (list, tuple)) else (parameters,):
        if isinstance(each, Mapping):
            yield from (str(name) for name, parameter in each.items() if parameter is value)
