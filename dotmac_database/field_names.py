"""The names of fields: texts, or the attributes of mapped classes themselves (``User.name``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import GetPydanticSchema
from pydantic_core import core_schema
from sqlalchemy.orm import QueryableAttribute

from .errors import MisuseError

FieldName: TypeAlias = object
"""A field's name, which can be a dotted path, or an attribute of the class: ``"name"``, ``User.name``.

For type checkers it is any object: to them, the attribute ``User.age`` of an SQLModel class is an `int`.
"""


class AttributeName(str):
    """The name of an attribute of a mapped class. ``owner`` is the class."""

    __slots__ = ("owner",)

    owner: type


def name_of(field: FieldName) -> str:
    """The name of a field. Raises `MisuseError` for what is neither a text nor an attribute of a mapped class."""
    if isinstance(field, str):
        return field
    if (
        not isinstance(field, QueryableAttribute)
        or not isinstance(field.class_, type)
        or not isinstance(field.key, str)
    ):
        raise MisuseError(
            f"The name of a field, or an attribute of a mapped class, was expected, not {type(field).__name__}."
        )
    name = AttributeName(field.key)
    name.owner = field.class_
    return name


def name_for(model: type, field: FieldName) -> str:
    """The name of a field of ``model``, as a plain text. Raises `MisuseError` for an attribute of another class."""
    name = name_of(field)
    check_owner(model, name)
    return str(name)


def names_for(model: type, fields: FieldName | Iterable[FieldName]) -> list[str]:
    """As `name_for`, for one field or several; None for none."""
    return [name_for(model, field) for field in one_or_more(fields)]


def one_or_more(fields: FieldName | Iterable[FieldName]) -> Iterable[FieldName]:
    """Fields as an iterable: one field, or an iterable of them; None for none."""
    if fields is None:
        return ()
    return fields if isinstance(fields, Iterable) and not isinstance(fields, (str, QueryableAttribute)) else (fields,)


def check_owner(model: type, name: str) -> None:
    """Raise `MisuseError` for the name of an attribute of a class that is no base and no subclass of ``model``."""
    if isinstance(name, AttributeName) and not (issubclass(model, name.owner) or issubclass(name.owner, model)):
        raise MisuseError(
            f"{name.owner.__name__}.{name} is an attribute of {name.owner.__name__}, not of {model.__name__}.",
            field=str(name),
        )


Name: TypeAlias = Annotated[
    str,
    GetPydanticSchema(
        lambda _, handler: core_schema.union_schema(
            [
                core_schema.is_instance_schema(AttributeName),  # as a text, it would lose its owner
                handler(str),
                core_schema.no_info_plain_validator_function(name_of),
            ],
            mode="left_to_right",
            custom_error_type="field_name",
            custom_error_message="Input should be the name of a field, or an attribute of a mapped class",
        )
    ),
]
"""A field of Pydantic's dataclasses that takes a `FieldName`, and holds the name."""
