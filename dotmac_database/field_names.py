"""The names of fields: texts, or the attributes of mapped classes themselves (``User.name``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, GetPydanticSchema
from pydantic_core import core_schema
from sqlalchemy.orm import MappedColumn, QueryableAttribute, RelationshipProperty

from .errors import MisuseError
from .sqlalchemy_internals import all_mappers

V = TypeVar("V")

FieldName: TypeAlias = object
"""A field's name, which can be a dotted path, or an attribute of the class: ``"name"``, ``User.name``.

For type checkers it is any object: to them, the attribute ``User.age`` of an SQLModel class is an `int`.
"""


FieldValues: TypeAlias = Mapping[Any, V]
"""Values by the names of their fields, or by the attributes: ``{"name": "Ann"}``, ``{User.name: "Ann"}``."""


M = TypeVar("M")

RowData: TypeAlias = FieldValues[Any] | BaseModel | M
"""The data of a row: by the names of its fields or their attributes, a Pydantic object, or an entity of the class."""


class AttributeName(str):
    """The name of an attribute of a class, or the path that begins with it. ``owner`` is the class."""

    __slots__ = ("owner",)

    owner: type


def field(*steps: FieldName) -> str:
    """The name of a field, from attributes: ``field(User.name)`` is ``"name"``. Type checkers refuse a misspelt one.

    Several steps are a path: ``field(Post.author, User.name)`` is ``"author.name"``, and after a JSON column the keys
    in the document follow as texts. For type checkers the result is a `str`, also for a field of SQLModel. It knows its
    class, as ``User.name`` does. Raises `MisuseError` for a step that does not belong to the class to which the step
    before it leads, and for what is no field.
    """
    if not steps:
        raise MisuseError("field() needs an attribute of a mapped class.", field="field")
    names = [name_of(each) for each in steps]
    path = AttributeName(".".join(names))
    if isinstance(names[0], AttributeName):
        path.owner = names[0].owner
    for before, name in zip(steps, names[1:], strict=False):
        target = _target(before)
        if target is not None:
            check_owner(target, name)
        elif isinstance(name, AttributeName):
            raise MisuseError(f"{name_of(before)!r} is no relationship, so {name!r} can't follow it.", field=str(name))
    return path if isinstance(names[0], AttributeName) else str(path)


def _target(step: FieldName) -> type | None:
    """The class to which a relationship leads; None for other fields."""
    if not isinstance(step, QueryableAttribute) or not isinstance(step.property, RelationshipProperty):
        return None
    target: type = step.property.mapper.class_
    return target


def name_of(field: FieldName) -> str:
    """The name of a field. Raises `MisuseError` for what is neither a text nor an attribute of a mapped class.

    The attribute of a mixin or of an abstract class is one, too, if a mapped class derives from it.
    """
    if isinstance(field, str):
        return field
    if isinstance(field, QueryableAttribute) and isinstance(field.class_, type) and isinstance(field.key, str):
        return _owned(field.key, field.class_)
    if isinstance(field, MappedColumn):
        return _name_in_mixin(field)
    raise MisuseError(
        f"The name of a field, or an attribute of a mapped class, was expected, not {type(field).__name__}."
    )


def is_attribute(field: object) -> bool:
    """Whether this is an attribute that stands for a field: of a mapped class, or of a mixin."""
    return isinstance(field, (QueryableAttribute, MappedColumn))


def _owned(key: str, owner: type) -> AttributeName:
    name = AttributeName(key)
    name.owner = owner
    return name


_NAMES_IN_MIXINS: dict[int, AttributeName] = {}
"""For the ``id`` of a mixin's column, its name. The column itself does not know it, since each class has a copy."""


def _name_in_mixin(column: MappedColumn[object]) -> AttributeName:
    known = _NAMES_IN_MIXINS.get(id(column))
    if known is not None and vars(known.owner).get(str(known)) is column:
        return known
    for base in dict.fromkeys(base for mapper in all_mappers() for base in mapper.class_.__mro__):
        for key, value in vars(base).items():
            if value is column and not key.startswith("__"):
                _NAMES_IN_MIXINS[id(column)] = name = _owned(key, base)
                return name
    raise MisuseError(
        "The column of a mixin, or one in the body of its class, has no name yet: a mapped class must have it first."
    )


def name_for(model: type, field: FieldName) -> str:
    """The name of a field of ``model``, as a plain text. Raises `MisuseError` for an attribute of another class."""
    name = name_of(field)
    check_owner(model, name)
    return str(name)


def names_for(model: type, fields: FieldName | Iterable[FieldName]) -> list[str]:
    """As `name_for`, for one field or several; None for none."""
    return [name_for(model, field) for field in one_or_more(fields)]


def named_values(model: type, values: FieldValues[V]) -> Mapping[str, V]:
    """``values`` by the names of fields of ``model``, some of which can be given as attributes: ``{User.name: "Ann"}``.

    The same mapping if all are texts. Raises `MisuseError` for an attribute of another class, and for two keys that
    name one field.
    """
    if {str}.issuperset(map(type, values)):
        return values
    named: dict[str, V] = {}
    for field, value in values.items():
        name = name_for(model, field)
        if name in named:
            raise named_twice(model, name)
        named[name] = value
    return named


def named_twice(model: type, name: str) -> MisuseError:
    """The error for values that name one field as a text and as an attribute."""
    return MisuseError(f"{model.__name__}.{name}: the field is named twice, as a text and as an attribute.", field=name)


def one_or_more(fields: FieldName | Iterable[FieldName]) -> Iterable[FieldName]:
    """Fields as an iterable: one field, or an iterable of them; None for none."""
    if fields is None:
        return ()
    if isinstance(fields, Iterable) and not isinstance(fields, (str, QueryableAttribute, MappedColumn)):
        return fields
    return (fields,)


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
